"""The unmodified azure-iot-hub and azure-iothub read, write and query twins."""

import http.client
import json
import ssl
from typing import Any

import pytest
from tests.support.fix_clients import OpenClient, SdkClient, SdkError
from tests.support.fix_node import NodeClient, OpenNodeClient
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer

from muster.domain.sas import create_token

FAR = 4_000_000_000


@pytest.fixture(scope="module")
def python(clients: OpenClient) -> SdkClient:
    return clients("twins.py")


@pytest.fixture(scope="module")
def node(node_clients: OpenNodeClient) -> NodeClient:
    return node_clients("twins.js")


@pytest.fixture(scope="module")
def owner(muster: MusterServer) -> str:
    return muster.hub_connection_string


def create(muster: MusterServer, *device_ids: str) -> None:
    for device_id in device_ids:
        muster.cli("device", "create", device_id)


def refused(client: SdkClient, operation: str, **arguments: Any) -> SdkError:
    with pytest.raises(SdkError) as caught:
        client.call(operation, **arguments)
    return caught.value


def test_python_twins(muster: MusterServer, python: SdkClient, owner: str) -> None:
    create(muster, "py-1")
    first = python.call("twin", connection_string=owner, method="get_twin", ids=["py-1"])
    assert (first["deviceId"], first["version"], first["etag"]) == ("py-1", 2, "AAAAAAAAAAE=")
    patched = python.call(
        "twin",
        connection_string=owner,
        method="update_twin",
        ids=["py-1"],
        tags={"site": "A", "old": 1},
        desired={"interval": 30, "fan": {"mode": "auto", "speed": 2}},
    )
    assert patched["tags"] == {"site": "A", "old": 1}
    assert patched["properties"]["desired"]["$version"] == 2
    again = python.call(
        "twin",
        connection_string=owner,
        method="update_twin",
        ids=["py-1"],
        tags={"old": None},
        desired={"fan": {"mode": None}},
        etag=patched["etag"],
    )
    assert again["tags"] == {"site": "A"}
    assert again["properties"]["desired"]["fan"] == {"speed": 2}
    replaced = python.call(
        "twin", connection_string=owner, method="replace_twin", ids=["py-1"], tags={"only": 1}, etag=again["etag"]
    )
    assert replaced["tags"] == {"only": 1}
    assert set(replaced["properties"]["desired"]) == {"$metadata", "$version"}
    assert python.call("twin", connection_string=owner, method="get_twin", ids=["py-1"]) == replaced
    for method in ("update_twin", "replace_twin"):
        error = refused(
            python, "twin", connection_string=owner, method=method, ids=["py-1"], tags={"a": 1}, etag=first["etag"]
        )
        assert (error.status, error.json["Message"].split(";")[0]) == (412, "ErrorCode:PreconditionFailed")


def test_python_twins_that_are_refused(muster: MusterServer, python: SdkClient, owner: str) -> None:
    create(muster, "py-2")
    for ids, method in ((["none"], "get_twin"), (["py-2", "none"], "get_module_twin")):
        error = refused(python, "twin", connection_string=owner, method=method, ids=ids)
        assert (error.status, error.json["Message"].split(";")[0]) == (404, "ErrorCode:DeviceNotFound")
    error = refused(python, "twin", connection_string=owner, method="update_twin", ids=["py-2"], desired={"a.b": 1})
    assert (error.status, error.json["Message"].split(";")[0]) == (400, "ErrorCode:ArgumentInvalid")


def test_python_pages(muster: MusterServer, python: SdkClient, owner: str) -> None:
    names = [f"page-{number}" for number in range(5)]
    create(muster, *names)
    for name in names:
        muster.cli("twin", "update", name, "--tag", "fleet=pages", "--tag", f"number={name[-1]}")
    query = "SELECT * FROM devices WHERE tags.fleet = 'pages'"
    found = python.call("pages", connection_string=owner, query=query, size=2)
    assert [(page["type"], len(page["items"])) for page in found] == [("Twin", 2), ("Twin", 2), ("Twin", 1)]
    assert [item["deviceId"] for page in found for item in page["items"]] == names
    query = "SELECT deviceId, tags.number AS number FROM devices WHERE tags.fleet = 'pages' AND tags.number >= 3"
    found = python.call("pages", connection_string=owner, query=query)
    assert found == [
        {"type": "Raw", "items": [{"deviceId": "page-3", "number": 3}, {"deviceId": "page-4", "number": 4}]}
    ]
    query = "SELECT COUNT() AS n, MAX(tags.number) AS last FROM devices WHERE tags.fleet = 'pages'"
    assert python.call("pages", connection_string=owner, query=query)[0]["items"] == [{"n": 5, "last": 4}]
    error = refused(python, "pages", connection_string=owner, query="SELECT * FROM devices WHERE")
    assert (error.status, error.json["Message"].split(";")[0]) == (400, "ErrorCode:ArgumentInvalid")


def test_node_twins(muster: MusterServer, node: NodeClient, owner: str) -> None:
    create(muster, "node-1")
    given = {"connectionString": owner, "deviceId": "node-1"}
    first = node.call("getTwin", **given)
    assert (first["deviceId"], first["version"]) == ("node-1", 2)
    patch = {"tags": {"site": "N"}, "properties": {"desired": {"interval": 5, "list": [1, {"a": 2}]}}}
    patched = node.call("updateTwin", **given, patch=patch)
    assert patched["tags"] == {"site": "N"}
    assert patched["properties"]["desired"]["list"] == [1, {"a": 2}]
    removed = node.call("updateTwin", **given, patch={"tags": {"site": None}})
    assert "site" not in (removed.get("tags") or {})
    error = refused(node, "updateTwin", **given, patch=patch, etag=first["etag"])
    assert error.status == 412
    assert json.loads(error.body)["Message"].startswith("ErrorCode:PreconditionFailed;")
    missing = refused(node, "getTwin", connectionString=owner, deviceId="none")
    assert (missing.kind, missing.status) == ("DeviceNotFoundError", 404)


def test_node_pages(muster: MusterServer, node: NodeClient, owner: str) -> None:
    names = [f"leaf-{number}" for number in range(4)]
    create(muster, *names)
    for name in names:
        muster.cli("twin", "update", name, "--tag", "fleet=leaves")
    # Four in pages of two: the second page is the last one, and says so by having no continuation.
    text = "SELECT deviceId FROM devices WHERE tags.fleet = 'leaves'"
    found = node.call("pages", connectionString=owner, text=text, size=2)
    assert [[item["deviceId"] for item in page] for page in found] == [names[:2], names[2:]]
    text = "SELECT * FROM devices WHERE STARTSWITH(deviceId, 'leaf-') AND NOT IS_DEFINED(tags.none)"
    twins = node.call("twins", connectionString=owner, text=text, size=3)
    assert [twin["deviceId"] for twin in twins] == names
    assert all(twin["properties"]["desired"]["$version"] == 1 for twin in twins)


def test_module_twins(muster: MusterServer, python: SdkClient, node: NodeClient, owner: str) -> None:
    create(muster, "mod-1")
    for module in ("m1", "m2"):
        muster.cli("module", "create", "mod-1", module)
    ids = ["mod-1", "m1"]
    first = python.call("twin", connection_string=owner, method="get_module_twin", ids=ids)
    assert (first["deviceId"], first["moduleId"], first["version"]) == ("mod-1", "m1", 2)
    patched = python.call(
        "twin",
        connection_string=owner,
        method="update_module_twin",
        ids=ids,
        tags={"role": "filter"},
        desired={"rate": 10},
        etag=first["etag"],
    )
    assert (patched["tags"], patched["properties"]["desired"]["rate"]) == ({"role": "filter"}, 10)
    replaced = python.call(
        "twin",
        connection_string=owner,
        method="replace_module_twin",
        ids=ids,
        desired={"rate": 5},
        etag=patched["etag"],
    )
    assert not replaced.get("tags")
    error = refused(
        python, "twin", connection_string=owner, method="update_module_twin", ids=ids, tags={"a": 1}, etag=first["etag"]
    )
    assert (error.status, error.json["Message"].split(";")[0]) == (412, "ErrorCode:PreconditionFailed")
    given = {"connectionString": owner, "deviceId": "mod-1", "moduleId": "m2"}
    changed = node.call("updateTwin", **given, patch={"properties": {"desired": {"level": 3}}})
    assert (changed["moduleId"], changed["properties"]["desired"]["level"]) == ("m2", 3)
    query = "SELECT * FROM devices.modules WHERE devices.deviceId = 'mod-1'"
    found = python.call("pages", connection_string=owner, query=query, size=1)
    assert [(page["type"], [item["moduleId"] for item in page["items"]]) for page in found] == [
        ("Twin", ["m1"]),
        ("Twin", ["m2"]),
    ]
    level = "properties.desired.level"
    query = f"SELECT moduleId, {level} AS level FROM devices.modules WHERE IS_DEFINED({level})"
    assert node.call("pages", connectionString=owner, text=query, size=10) == [[{"moduleId": "m2", "level": 3}]]
    assert (
        node.call(
            "twins", connectionString=owner, text="SELECT * FROM devices.modules WHERE deviceId = 'mod-1'", size=10
        )[0]["moduleId"]
        == "m1"
    )
    shown = muster.cli("twin", "update", "mod-1", "--module", "m1", "--desired", "rate=7").stdout
    assert "ModuleId      : m1" in shown
    # The device's own twin is another one.
    assert python.call("twin", connection_string=owner, method="get_twin", ids=["mod-1"])["version"] == 2


def test_edge_devices_and_their_children(muster: MusterServer, python: SdkClient, owner: str) -> None:
    """``az iot hub device-identity children list``, and how the twin shows scopes (hub-service.md 2.2, 4.3)."""
    edge = muster.cli_json("device", "create", "edge-1", "--edge")
    scope = edge["deviceScope"]
    twin = python.call("twin", connection_string=owner, method="get_twin", ids=["edge-1"])
    assert (twin["deviceScope"], twin["capabilities"]) == (scope, {"iotEdge": True})
    query = f"select deviceId from devices where array_contains(parentScopes, '{scope}')"
    assert python.call("pages", connection_string=owner, query=query)[0]["items"] == []
    query = f"SELECT deviceId FROM devices WHERE capabilities.iotEdge = true AND deviceScope = '{scope}'"
    assert python.call("pages", connection_string=owner, query=query)[0]["items"] == [{"deviceId": "edge-1"}]


def test_the_requests_of_java(muster: MusterServer, owner: str) -> None:
    """Replayed: PATCH as POST with an override, the etag without quotes (hub-service.md 1.5, 3.1)."""
    create(muster, "java-1")
    token = create_token(muster.address, DEVELOPMENT_KEY, FAR, "iothubowner")
    context = ssl.create_default_context(cafile=str(muster.data_directory / "ca.pem"))
    connection = http.client.HTTPSConnection(muster.address, 443, context=context, timeout=60)
    headers = {
        "Authorization": token,
        "Request-Id": "1",
        "User-Agent": "com.microsoft.azure.sdk.iot.iot-service-client/2.1.9",
        "Content-Type": "application/json; charset=utf-8",
        "Accept": "application/json",
    }

    def send(method: str, body: bytes, **more: str) -> tuple[int, Any]:
        connection.request(method, "/twins/java-1?api-version=2021-04-12", body, {**headers, **more})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())

    status, twin = send("GET", b"")
    assert status == 200
    override = {"X-HTTP-Method-Override": "PATCH", "If-Match": twin["etag"]}
    body = json.dumps({"deviceId": "java-1", "tags": {"site": "J"}, "properties": {"desired": {"x": 1}}}).encode()
    status, patched = send("POST", body, **override)
    assert (status, patched["tags"], patched["properties"]["desired"]["x"]) == (200, {"site": "J"}, 1)
    status, error = send("POST", body, **override)
    assert (status, error["Message"].split(";")[0]) == (412, "ErrorCode:PreconditionFailed")
    connection.close()


def test_the_command_line(muster: MusterServer) -> None:
    create(muster, "cli-1", "cli-2")
    shown = muster.cli("twin", "update", "cli-1", "--tag", "site=A", "--desired", "fan.speed=3").stdout
    assert 'Tags          : {"site": "A"}' in shown
    assert 'Desired       : {"fan": {"speed": 3}}' in shown
    twin = muster.cli_json("twin", "show", "cli-1")
    muster.cli("twin", "replace", "cli-1", '{"tags": {"site": "B"}}', "--etag", twin["etag"])
    stale = muster.cli("twin", "update", "cli-1", "--tag", "a=1", "--etag", twin["etag"], check=False)
    assert stale.returncode == 1
    assert "PreconditionFailed" in stale.stderr
    found = muster.cli_json("query", "SELECT deviceId, tags.site FROM devices WHERE tags.site IN ['B']")
    assert found == [{"deviceId": "cli-1", "site": "B"}]
    assert (
        muster.cli("query", "SELECT * FROM devices WHERE STARTSWITH(deviceId, 'cli-')", "--top", "1").stdout.count(
            "cli-"
        )
        == 1
    )
    assert muster.cli("query", "SELECT * FROM devices WHERE tags.site = 'Z'").stdout == "nothing was found\n"
    wrong = muster.cli("query", "SELECT * FROM device", check=False)
    assert (wrong.returncode, "at character 15 of the query" in wrong.stderr) == (1, True)
