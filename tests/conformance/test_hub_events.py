"""What unmodified SDKs do to a hub is in its event log, when the hub is told to write it."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient
from tests.support.fix_node import OpenNodeClient
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer, free_address

KEYS = {"primaryKey": DEVELOPMENT_KEY, "secondaryKey": DEVELOPMENT_KEY}
HUB = "eventful"


@pytest.fixture(scope="module")
def address(muster: MusterServer) -> Iterator[str]:
    """Where a hub is served that writes all its events."""
    address = free_address()
    muster.cli("hub", "add", HUB, "--host", address)
    shown = muster.cli_json("hub", "update", HUB, "--events", "connection, twinChange,lifecycle")
    assert len(shown["properties"]["hubEvents"]) == 3
    yield address
    muster.cli("hub", "remove", HUB, "--force")


def events(https: HttpsClient, device_id: str, number: int) -> list[dict[str, Any]]:
    """So many; the last ones follow the end of a connection in a moment."""
    deadline = time.monotonic() + 60
    while True:
        answer = https.request("GET", f"/muster/v1/events?hub={HUB}&deviceId={device_id}")
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json
        if len(found) >= number or time.monotonic() > deadline:
            assert len(found) == number, found
            return found
        time.sleep(0.05)


def test_a_device_by_node_and_python(
    muster: MusterServer, clients: OpenClient, node_clients: OpenNodeClient, https: HttpsClient, address: str
) -> None:
    registry, device = node_clients("registry.js"), clients("device.py")
    owner = muster.cli_json("hub", "show", HUB)["connectionString"]

    def manage(method: str, *given: Any) -> None:
        registry.call("call", connectionString=owner, method=method, given=given)

    manage("create", {"deviceId": "d1", "authentication": {"type": "sas", "symmetricKey": KEYS}})
    string = f"HostName={address};DeviceId=d1;SharedAccessKey={DEVELOPMENT_KEY}"
    device.call("connect", connection="d1", connection_string=string)
    device.call("report", connection="d1", patch={"fw": "1.4.3", "old": None})
    device.call("send", connection="d1", messages=[{"body": "42", "contentType": "application/json"}])
    manage("updateTwin", "d1", {"tags": {"site": "A"}}, "*")
    device.call("close", connection="d1")
    events(https, "d1", 6)
    manage("delete", "d1")
    found = events(https, "d1", 7)
    assert [(event["source"], event["applicationProperties"].get("opType")) for event in found] == [
        ("deviceLifecycleEvents", "createDeviceIdentity"),
        ("deviceConnectionStateEvents", "deviceConnected"),
        ("twinChangeEvents", "updateTwin"),
        ("Telemetry", None),
        ("twinChangeEvents", "updateTwin"),
        ("deviceConnectionStateEvents", "deviceDisconnected"),
        ("deviceLifecycleEvents", "deleteDeviceIdentity"),
    ]
    created, connected, reported, _, tagged, disconnected, deleted = (event["body"] for event in found)
    assert (created["deviceId"], created["version"], created["etag"]) == ("d1", 2, "AAAAAAAAAAE=")
    assert connected["sequenceNumber"] < disconnected["sequenceNumber"]
    section = reported["properties"]["reported"]
    assert (reported["version"], section["fw"], section["old"], section["$version"]) == (3, "1.4.3", None, 2)
    assert set(section["$metadata"]) == {"$lastUpdated", "fw"}
    assert tagged == {"version": 4, "tags": {"site": "A"}}
    assert deleted["properties"]["reported"]["fw"] == "1.4.3"
    for event in found:
        if event["source"] != "Telemetry":
            assert event["applicationProperties"]["hubName"] == event["systemProperties"]["user-id"] == HUB
            assert event["systemProperties"]["content-type"] == "application/json"
    listed = muster.cli_json("events", "list", "--connection-string", owner, "--source", "twinChangeEvents")
    assert [event["body"]["version"] for event in listed] == [3, 4]


def test_events_that_do_not_exist(muster: MusterServer, address: str) -> None:
    for words, name in (("twinChange,methods", HUB), ("none", "nowhere")):
        result = muster.cli("hub", "update", name, "--events", words, check=False)
        assert (result.returncode, "Traceback" in result.stderr) == (1, False)
        assert ("methods" if name == HUB else "nowhere") in result.stderr
    assert "deviceLifecycleEvents" in muster.cli("hub", "show", HUB).stdout


def test_how_long_they_are_kept(muster: MusterServer, address: str) -> None:
    shown = muster.cli_json("hub", "update", HUB, "--retention", "3")
    assert shown["properties"]["eventHubEndpoints"]["events"]["retentionTimeInDays"] == 3
    assert shown["properties"]["hostName"] == address
    assert len(shown["properties"]["hubEvents"]) == 3, "what was not named stays"
    assert "Retention         : 3 days" in muster.cli("hub", "show", HUB).stdout
    both = muster.cli("hub", "update", HUB, "--retention", "1", "--events", "connection,twinChange,lifecycle").stdout
    assert "Retention         : 1 day\n" in both
    for options, code in ((("--retention", "8"), 2), ((), 1)):
        result = muster.cli("hub", "update", HUB, *options, check=False)
        assert (result.returncode, "Traceback" in result.stderr) == (code, False)
        assert "retention" in result.stderr
