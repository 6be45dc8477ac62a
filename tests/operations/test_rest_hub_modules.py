"""Modules and edge devices in the hub's registry over REST (hub-service.md 2.2 to 2.4)."""

import base64
from typing import Any

import pytest
from tests.support.fix_rest import VERSION, Answer, RestClient
from tests.support.fix_services import Services

PARENT = "ms-azure-iot-edge://plant-1"


async def put(rest: RestClient, path: str, if_match: str | None = None, **members: Any) -> Answer:
    words = path.split("/")
    ids: dict[str, Any] = {"deviceId": words[2]} | ({"moduleId": words[4]} if len(words) > 4 else {})
    headers = {} if if_match is None else {"if_match": if_match}
    return await rest.request("PUT", f"{path}?{VERSION}", {**ids, **members}, **headers)


async def get(rest: RestClient, path: str) -> Any:
    answer = await rest.request("GET", f"{path}?{VERSION}")
    assert answer.status == 200, answer
    return answer.json


@pytest.fixture
async def device(rest: RestClient) -> str:
    assert (await put(rest, "/devices/pump")).status == 200
    return "/devices/pump"


async def test_a_created_module_has_the_shape_that_clients_read(rest: RestClient, device: str) -> None:
    answer = await put(rest, f"{device}/modules/gauge", managedBy="operator")
    assert answer.status == 200
    module = answer.json
    assert answer.headers["etag"] == f'"{module["etag"]}"'
    assert base64.b64decode(module.pop("etag")).isdigit()
    keys = module["authentication"].pop("symmetricKey")
    assert [len(base64.b64decode(key)) for key in keys.values()] == [32, 32]
    assert len(module.pop("generationId")) == 18
    assert module == {
        "moduleId": "gauge",
        "deviceId": "pump",
        "managedBy": "operator",
        "connectionState": "Disconnected",
        "connectionStateUpdatedTime": "0001-01-01T00:00:00Z",
        "lastActivityTime": "0001-01-01T00:00:00Z",
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "type": "sas",
            "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
        },
    }
    assert [one["moduleId"] for one in await get(rest, f"{device}/modules")] == ["gauge"]
    assert await get(rest, f"{device}/modules/gauge") == answer.json


async def test_words_of_the_path_ignore_case(rest: RestClient, device: str) -> None:
    assert (await put(rest, f"{device}/modules/Gauge")).status == 200
    assert (await get(rest, "/Devices/pump/Modules/Gauge/"))["moduleId"] == "Gauge"
    missing = await rest.request("GET", f"/devices/pump/modules/gauge?{VERSION}")
    assert (missing.status, missing.headers["iothub-errorcode"]) == (404, "ModuleNotFound")


async def test_a_module_is_created_once_and_replaced_under_its_tag(rest: RestClient, device: str) -> None:
    path = f"{device}/modules/gauge"
    created = (await put(rest, path, managedBy="me")).json
    again = await put(rest, path)
    assert (again.status, again.headers["iothub-errorcode"]) == (409, "ModuleAlreadyExistsOnDevice")
    assert again.json["errorCode"] == 409301
    assert again.json["message"] == "Device pump already contains module gauge."
    replaced = await put(rest, path, created["etag"])
    assert replaced.status == 200
    assert replaced.json["managedBy"] is None, "what is left out is cleared"
    assert replaced.json["authentication"] != created["authentication"], "and keys are made anew"
    assert replaced.json["generationId"] == created["generationId"]
    stale = await put(rest, path, created["etag"])
    assert (stale.status, stale.headers["iothub-errorcode"]) == (412, "PreconditionFailed")
    assert (await put(rest, f"{device}/modules/other", "*")).headers["iothub-errorcode"] == "ModuleNotFound"


async def test_deleting_a_module(rest: RestClient, device: str) -> None:
    path = f"{device}/modules/gauge"
    await put(rest, path)
    assert (await rest.request("DELETE", f"{path}?{VERSION}")).status == 412
    assert (await rest.request("DELETE", f"{path}?{VERSION}", if_match="*")).status == 204
    assert (await rest.request("DELETE", f"{path}?{VERSION}", if_match="*")).status == 404
    assert await get(rest, f"{device}/modules") == []


async def test_modules_go_with_their_device(rest: RestClient, services: Services, device: str) -> None:
    await put(rest, f"{device}/modules/gauge")
    await rest.request("DELETE", f"{device}?{VERSION}", if_match="*")
    assert await services.devices.find("hub", "pump", "gauge") is None
    await put(rest, device)
    assert await get(rest, f"{device}/modules") == []


async def test_modules_are_no_devices(rest: RestClient, device: str) -> None:
    await put(rest, f"{device}/modules/gauge")
    assert [one["deviceId"] for one in await get(rest, "/devices")] == ["pump"]
    assert (await get(rest, "/statistics/devices"))["totalDeviceCount"] == 1


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_modules_of_a_device_that_is_missing_or_disabled(rest: RestClient, method: str) -> None:
    await put(rest, "/devices/off")
    await put(rest, "/devices/off/modules/m")
    await put(rest, "/devices/off", "*", status="disabled")
    for device_id in ("off", "nowhere"):
        answer = await rest.request(
            method,
            f"/devices/{device_id}/modules/m?{VERSION}",
            {"deviceId": device_id, "moduleId": "m"},
            if_match="*",
        )
        assert (answer.status, answer.headers["iothub-errorcode"]) == (401, "IotHubUnauthorizedAccess")


async def test_what_is_refused(rest: RestClient, device: str) -> None:
    for path, members in (
        (f"{device}/modules/$own", {}),
        (f"{device}/modules/m", {"moduleId": "other"}),
        (f"{device}/modules/m", {"deviceId": "other"}),
        (f"{device}/modules/m", {"authentication": {"type": "magic"}}),
        (f"{device}/modules/{'x' * 129}", {}),
    ):
        assert (await put(rest, path, **members)).status == 400, path


async def test_fifty_modules(rest: RestClient, device: str) -> None:
    for number in range(50):
        assert (await put(rest, f"{device}/modules/m{number}")).status == 200
    answer = await put(rest, f"{device}/modules/one-more")
    assert (answer.status, answer.headers["iothub-errorcode"]) == (413, "TooManyModulesOnDevice")


async def test_an_edge_device_comes_with_its_modules(rest: RestClient) -> None:
    created = (await put(rest, "/devices/gate", capabilities={"iotEdge": True})).json
    assert created["capabilities"] == {"iotEdge": True}
    assert created["deviceScope"].startswith("ms-azure-iot-edge://gate-6")
    assert "parentScopes" not in created
    modules = await get(rest, "/devices/gate/modules")
    assert [(one["moduleId"], one["managedBy"], one["authentication"]["type"]) for one in modules] == [
        ("$edgeAgent", "iotEdge", "none"),
        ("$edgeHub", "iotEdge", "none"),
    ]
    omitted = await put(rest, "/devices/gate", "*", capabilities={"iotEdge": True})
    assert omitted.status == 400
    assert "Device scope is immutable" in omitted.json["Message"]
    same = await put(rest, "/devices/gate", "*", **created)
    assert same.json["deviceScope"] == created["deviceScope"]


async def test_the_runtime_gives_its_modules_keys(rest: RestClient) -> None:
    """They exist, so that an update of them is no creation under a reserved name (hub-device.md 11)."""
    await put(rest, "/devices/gate", capabilities={"iotEdge": True})
    updated = await put(rest, "/devices/gate/modules/$edgeAgent", "*", authentication={"type": "sas"})
    assert (updated.status, updated.json["authentication"]["type"]) == (200, "sas")


async def test_parents_and_children(rest: RestClient) -> None:
    parent = (await put(rest, "/devices/plant", capabilities={"iotEdge": True})).json["deviceScope"]
    leaf = (await put(rest, "/devices/leaf", deviceScope=parent)).json
    assert (leaf["deviceScope"], leaf["parentScopes"]) == (parent, [parent])
    assert await get(rest, "/devices/leaf") == leaf
    child = (await put(rest, "/devices/child", capabilities={"iotEdge": True}, parentScopes=[parent])).json
    assert child["parentScopes"] == [parent]
    assert child["deviceScope"] != parent
    two = await put(rest, "/devices/two", parentScopes=[parent, PARENT])
    assert two.status == 400
    alone = await put(rest, "/devices/leaf", "*")
    assert not {"deviceScope", "parentScopes"} & set(alone.json)


async def test_a_device_becomes_an_edge_device_and_back(rest: RestClient) -> None:
    await put(rest, "/devices/gate")
    edge = (await put(rest, "/devices/gate", "*", capabilities={"iotEdge": True})).json
    assert edge["deviceScope"] == "ms-azure-iot-edge://gate"
    assert len(await get(rest, "/devices/gate/modules")) == 2
    await put(rest, "/devices/gate/modules/mine")
    leaf = await put(rest, "/devices/gate", "*", **{**edge, "capabilities": {"iotEdge": False}})
    assert not {"deviceScope", "parentScopes"} & set(leaf.json)
    assert [one["moduleId"] for one in await get(rest, "/devices/gate/modules")] == ["mine"]
