"""Devices by npm's rhea, an AMQP client that knows nothing of Azure: what Azure's SDK for Node.js has no word for."""

import base64
import time
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, SdkError
from tests.support.fix_node import NodeClient, OpenNodeClient
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer

from muster.domain.sas import create_token

KEY = base64.b64encode(bytes(range(32))).decode()
SAS = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
VERSION = "api-version=2021-04-12"
MANY = 30
_SECONDS = 90.0


@pytest.fixture(scope="module")
def rhea(node_clients: OpenNodeClient) -> NodeClient:
    return node_clients("amqp_devices.js")


def events(device_id: str) -> str:
    return f"/devices/{device_id}/messages/events"


def devicebound(device_id: str) -> str:
    return f"/devices/{device_id}/messages/devicebound"


def token(muster: MusterServer, resource: str, key: str = KEY, policy: str = "") -> dict[str, str]:
    audience = f"{muster.address}{resource}"
    return {audience: create_token(audience, key, int(time.time()) + 3600, policy)}


def bodies(https: HttpsClient, device_id: str, count: int) -> list[Any]:
    found = sorted(https.events(device_id, count), key=lambda event: int(event["sequenceNumber"]))
    return [event["body"] for event in found]


@pytest.mark.parametrize("sessions", [False, True], ids=["one session", "a session each"])
@pytest.mark.parametrize("policy", [False, True], ids=["own tokens", "policy token"])
def test_many_devices_on_one_connection(
    muster: MusterServer, https: HttpsClient, rhea: NodeClient, sessions: bool, policy: bool
) -> None:
    name = f"many-{sessions:d}{policy:d}"
    names = [f"{name}-{number}" for number in range(MANY)]
    for device_id in names:
        https.create_device(device_id, authentication=SAS)
    tokens: dict[str, str] = {}
    for device_id in names if not policy else ():
        tokens |= token(muster, f"/devices/{device_id}")
    tokens |= token(muster, "", DEVELOPMENT_KEY, "device") if policy else {}
    rhea.call("connect", name=name, tokens=tokens)
    rhea.call("attach", name=name, addresses=list(map(events, names)), sender=True, sessions=sessions)
    rhea.call("attach", name=name, addresses=list(map(devicebound, names)), sender=False, sessions=sessions)
    for device_id in names:
        rhea.call("send", name=name, address=events(device_id), bodies=["1", "2"])
        assert bodies(https, device_id, 2) == [1, 2]
        assert https.is_connected(device_id)
    # The end of one is the end of its links, and of nothing else.
    assert https.request("DELETE", f"/devices/{names[0]}?{VERSION}", If_Match="*").status == 204
    for address in (events(names[0]), devicebound(names[0])):
        assert rhea.call("ended", name=name, address=address) == "amqp:unauthorized-access"
    rhea.call("send", name=name, address=events(names[1]), bodies=["3"])
    assert https.request("POST", f"/muster/v1/c2d/{names[2]}", {"body": "hello"}).status == 201
    assert rhea.call("receive", name=name, address=devicebound(names[2]), outcome="accepted")["body"] == "hello"
    rhea.call("close", name=name)
    deadline = time.monotonic() + _SECONDS
    while any(https.is_connected(device_id) for device_id in names[1:]):
        assert time.monotonic() < deadline, "a device is still connected"
        time.sleep(0.1)


@pytest.fixture
def device(muster: MusterServer, https: HttpsClient, rhea: NodeClient, request: pytest.FixtureRequest) -> str:
    """A device of its own, on a connection of the same name."""
    device_id = "".join(character if character.isalnum() else "-" for character in request.node.name)[-100:]
    https.create_device(device_id, authentication=SAS)
    rhea.call("connect", name=device_id, tokens=token(muster, f"/devices/{device_id}"))
    return device_id


def test_a_batch(https: HttpsClient, rhea: NodeClient, device: str) -> None:
    rhea.call("attach", name=device, addresses=[events(device)], sender=True)
    given = {"name": device, "address": events(device)}
    rhea.call("send", **given, bodies=["1", "2", "3"], batch=True, properties={"a": "b", "n": 7, "t": True})
    found = https.events(device, 3)
    assert sorted(event["body"] for event in found) == [1, 2, 3]
    assert [event["applicationProperties"] for event in found] == [{"a": "b", "n": "7", "t": "true"}] * 3
    rhea.call("close", name=device)


def test_a_message_that_is_too_large(https: HttpsClient, rhea: NodeClient, device: str) -> None:
    rhea.call("attach", name=device, addresses=[events(device)], sender=True)
    given = {"name": device, "address": events(device)}
    with pytest.raises(SdkError) as caught:
        rhea.call("send", **given, bodies=["x" * 262_145])
    assert caught.value.kind == "amqp:link:message-size-exceeded"
    rhea.call("send", **given, bodies=["7"])
    assert bodies(https, device, 1) == [7]
    rhea.call("close", name=device)


def test_outcomes(https: HttpsClient, rhea: NodeClient, device: str) -> None:
    def tell(body: str) -> None:
        assert https.request("POST", f"/muster/v1/c2d/{device}", {"body": body}).status == 201

    rhea.call("attach", name=device, addresses=[devicebound(device)], sender=False)
    given = {"name": device, "address": devicebound(device)}
    tell("one")
    for count, outcome in enumerate(("released", "modified", "accepted")):
        answer = rhea.call("receive", **given, outcome=outcome)
        assert (answer["body"], answer["count"], answer["tag"]) == ("one", count, 16)
    tell("two")
    assert rhea.call("receive", **given, outcome="rejected")["body"] == "two"
    tell("three")
    assert rhea.call("receive", **given, outcome="accepted")["body"] == "three"
    rhea.call("close", name=device)


def test_a_receiver_that_settles_second(https: HttpsClient, rhea: NodeClient, device: str) -> None:
    options = {"rcv_settle_mode": 1}
    rhea.call("attach", name=device, addresses=[devicebound(device)], sender=False, options=options)
    assert https.request("POST", f"/muster/v1/c2d/{device}", {"body": "one"}).status == 201
    answer = rhea.call("receive", name=device, address=devicebound(device), outcome="second")
    assert (answer["body"], answer["told"]) == ("one", "accepted")
    assert https.request("GET", f"/devices/{device}?{VERSION}").json["cloudToDeviceMessageCount"] == 0
    rhea.call("close", name=device)


def test_the_newest_connection_wins(muster: MusterServer, https: HttpsClient, rhea: NodeClient, device: str) -> None:
    rhea.call("attach", name=device, addresses=[events(device)], sender=True)
    rhea.call("connect", name="newer", tokens=token(muster, f"/devices/{device}"))
    rhea.call("attach", name="newer", addresses=[events(device)], sender=True)
    assert rhea.call("ended", name=device, address=events(device)) == "amqp:internal-error"
    rhea.call("send", name="newer", address=events(device), bodies=["1"])
    rhea.call("close", name=device)
    assert https.is_connected(device)
    rhea.call("close", name="newer")
