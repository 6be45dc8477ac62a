"""Bulk writes, new keys and statistics of the hub's registry over REST (hub-service.md 2.6, 2.7)."""

import base64
from typing import Any

import pytest
from tests.support.fix_rest import VERSION, Answer, RestClient
from tests.support.fix_services import KEY, Services

from muster.domain.c2d_message import C2dMessage, C2dProperties

SAS = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
WHOLE: dict[str, Any] = {"status": "enabled", "authentication": SAS}


async def post(rest: RestClient, body: object, path: str = "/devices") -> Answer:
    return await rest.request("POST", f"{path}?{VERSION}", body)


async def get(rest: RestClient, path: str) -> Any:
    answer = await rest.request("GET", f"{path}?{VERSION}")
    assert answer.status == 200, answer
    return answer.json


def failed(answer: Answer) -> list[tuple[str, str | None, str]]:
    """Device, module and error of each failure; the answer has all the marks of a failed bulk request."""
    assert answer.status == 400
    assert answer.json["isSuccessful"] is False
    assert answer.headers["iothuberrorcode"] == answer.headers["iothub-errorcode"] == "BulkRegistryOperationFailure"
    errors = answer.json["errors"]
    assert all(error["errorStatus"].startswith(f"ErrorCode:{error['errorCode']};") for error in errors)
    return [(error["deviceId"], error["moduleId"], error["errorCode"]) for error in errors]


async def test_devices_and_modules_with_their_twins(rest: RestClient) -> None:
    desired = {"x": 1, "$metadata": {"$lastUpdated": "2026-01-01T00:00:00Z"}, "$version": 4}
    answer = await post(
        rest,
        [
            {"id": "d1", "importMode": "create", **WHOLE, "tags": {"site": "A"}, "properties": {"desired": desired}},
            {"id": "d1", "moduleId": "m1", "importMode": "create", "authentication": {"type": "sas"}},
            {"id": "d2", **WHOLE, "statusReason": "new", "eTag": None, "deviceScope": None, "parentScopes": []},
        ],
    )
    assert answer.status == 200
    assert answer.json == {"isSuccessful": True, "errors": [], "warnings": []}
    assert (await get(rest, "/devices/d2"))["statusReason"] == "new"
    assert (await get(rest, "/devices/d1"))["authentication"]["symmetricKey"]["primaryKey"] == KEY
    assert [one["moduleId"] for one in await get(rest, "/devices/d1/modules")] == ["m1"]
    twin = await get(rest, "/twins/d1")
    assert (twin["tags"], twin["properties"]["desired"]["x"]) == ({"site": "A"}, 1)
    assert twin["properties"]["desired"]["$version"] == 1


async def test_what_fails_leaves_the_others_alone(rest: RestClient) -> None:
    await post(rest, [{"id": "old", **WHOLE}])
    answer = await post(
        rest,
        [
            {"id": "new", "importMode": "create", **WHOLE},
            {"id": "old", "importMode": "create", **WHOLE},
            {"id": "no such id", "importMode": "create", **WHOLE},
            {"id": "none", "importMode": "update", **WHOLE},
            {"id": "none", "moduleId": "m", "importMode": "create"},
            {"id": "old", "moduleId": "m", "importMode": "delete"},
            {"id": "bare", "importMode": "create"},
            {"id": "mode", "importMode": "conjure", **WHOLE},
            {"id": "last", **WHOLE},
        ],
    )
    assert failed(answer) == [
        ("old", None, "DeviceAlreadyExists"),
        ("no such id", None, "ArgumentInvalid"),
        ("none", None, "DeviceNotFound"),
        ("none", "m", "DeviceNotFound"),
        ("old", "m", "ModuleNotFound"),
        ("bare", None, "ArgumentNull"),
        ("mode", None, "ArgumentInvalid"),
    ]
    status = answer.json["errors"][0]["errorStatus"]
    assert status == "ErrorCode:DeviceAlreadyExists;A device with ID 'old' is already registered."
    assert answer.json["errors"][0]["operation"] == "CreateDevice"
    assert [device["deviceId"] for device in await get(rest, "/devices")] == ["last", "new", "old"]


@pytest.mark.parametrize("mode", ["updateIfMatchETag", "createOrUpdateIfMatchETag", "deleteIfMatchETag"])
async def test_modes_with_a_tag(rest: RestClient, mode: str) -> None:
    await post(rest, [{"id": "d1", **WHOLE}])
    item = {"id": "d1", "importMode": mode, **WHOLE, "status": "disabled"}
    for etag in (None, "c3RhbGU="):
        assert failed(await post(rest, [{**item, "eTag": etag}])) == [("d1", None, "PreconditionFailed")]
    etag = (await get(rest, "/devices/d1"))["etag"]
    assert (await post(rest, [{**item, "eTag": etag}])).status == 200
    listed = await get(rest, "/devices")
    assert [device["status"] for device in listed] == ([] if mode.startswith("delete") else ["disabled"])


async def test_modes_without_a_tag(rest: RestClient) -> None:
    await post(rest, [{"id": "d1", **WHOLE}, {"id": "d1", "moduleId": "m", "managedBy": "a"}])
    await post(rest, [{"id": "d1", "importMode": "Update", **WHOLE, "status": "disabled", "eTag": "c3RhbGU="}])
    assert (await get(rest, "/devices/d1"))["status"] == "disabled", "a tag counts only where it is asked for"
    await post(rest, [{"id": "d1", "importMode": "update", **WHOLE}, {"id": "d1", "moduleId": "m", "managedBy": "b"}])
    assert (await get(rest, "/devices/d1/modules/m"))["managedBy"] == "b"
    await post(rest, [{"id": "d1", "moduleId": "m", "importMode": "delete"}])
    assert await get(rest, "/devices/d1/modules") == []
    await post(rest, [{"id": "d1", "importMode": "delete"}])
    assert await get(rest, "/devices") == []


async def test_a_new_device_needs_no_tag(rest: RestClient) -> None:
    answer = await post(rest, [{"id": "d1", "importMode": "createOrUpdateIfMatchETag", **WHOLE}])
    assert answer.status == 200


async def test_twins_of_what_exists(rest: RestClient) -> None:
    """Merged, as by a PATCH; their own tag counts in the modes that ask for one."""
    item = {"id": "d1", **WHOLE, "tags": {"site": "A"}, "properties": {"desired": {"x": 1, "y": 2}}}
    await post(rest, [item, {"id": "d1", "moduleId": "m"}])
    change = {"tags": {"line": 1}, "properties": {"desired": {"x": None}, "reported": {"ignored": 1}}}
    assert (await post(rest, [{"id": "d1", "importMode": "updateTwin", **change}])).status == 200
    twin = await get(rest, "/twins/d1")
    assert twin["tags"] == {"site": "A", "line": 1}
    desired, reported = twin["properties"]["desired"], twin["properties"]["reported"]
    assert (desired["$version"], desired["y"], "x" in desired, "ignored" in reported) == (2, 2, False, False)
    await post(rest, [{"id": "d1", "importMode": "update", **WHOLE, "status": "disabled", "tags": {"line": 2}}])
    assert (await get(rest, "/twins/d1"))["tags"]["line"] == 2
    await post(rest, [{"id": "d1", "importMode": "update", **WHOLE}])
    module = {"id": "d1", "moduleId": "m", "importMode": "updateTwinIfMatchETag", "tags": {"a": 1}}
    for etag in (None, "c3RhbGU="):
        assert failed(await post(rest, [{**module, "twinETag": etag}])) == [("d1", "m", "PreconditionFailed")]
    etag = (await get(rest, "/twins/d1/modules/m"))["etag"]
    assert (await post(rest, [{**module, "twinETag": etag}])).status == 200
    assert (await get(rest, "/twins/d1/modules/m"))["tags"] == {"a": 1}
    assert failed(await post(rest, [{"id": "no", "importMode": "updateTwin"}])) == [("no", None, "DeviceNotFound")]


async def test_a_twin_that_is_refused_leaves_the_device_as_it_was(rest: RestClient) -> None:
    await post(rest, [{"id": "d1", **WHOLE}])
    item = {"id": "d1", **WHOLE, "status": "disabled", "tags": {"$bad": 1}}
    assert failed(await post(rest, [item])) == [("d1", None, "ArgumentInvalid")]
    assert (await get(rest, "/devices/d1"))["status"] == "enabled"


async def test_purging_messages(rest: RestClient, services: Services) -> None:
    await post(rest, [{"id": "d1", **WHOLE}])
    for _ in range(3):
        await services.c2d.send("hub", "d1", "", C2dMessage(C2dProperties()))
    assert (await get(rest, "/devices/d1"))["cloudToDeviceMessageCount"] == 3
    assert (await get(rest, "/devices"))[0]["cloudToDeviceMessageCount"] == 3
    assert (await get(rest, "/twins/d1"))["cloudToDeviceMessageCount"] == 3
    answer = await rest.request("DELETE", f"/devices/d1/commands?{VERSION}")
    assert (answer.status, answer.json) == (200, {"totalMessagesPurged": 3, "deviceId": "d1", "moduleId": None})
    assert (await get(rest, "/devices/d1"))["cloudToDeviceMessageCount"] == 0
    assert (await rest.request("DELETE", f"/devices/d2/commands?{VERSION}")).status == 404


async def test_what_is_refused_as_a_whole(rest: RestClient) -> None:
    twice = await post(rest, [{"id": "d1", **WHOLE}, {"id": "d1", **WHOLE}])
    assert (twice.status, twice.headers["iothub-errorcode"]) == (400, "DeviceDefinedMultipleTimes")
    many = await post(rest, [{"id": f"d{number}", **WHOLE} for number in range(101)])
    assert (many.status, many.headers["iothub-errorcode"]) == (413, "TooManyDevices")
    for nul in ({"id": "d\0"}, {"id": "d1", "moduleId": "\0"}):
        for mode in ("create", "update", "delete", "updateTwin"):
            assert "NUL" in (await post(rest, [{**nul, **WHOLE, "importMode": mode}])).json["Message"]
        rotation = await post(rest, {"policyKey": "swap", "devices": [nul]}, "/devices/keys/regenerate")
        assert (rotation.status, rotation.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")
    assert await get(rest, "/devices") == []


async def test_a_hundred_and_the_form_of_the_documentation(rest: RestClient) -> None:
    items = [{"id": f"d{number}", **WHOLE} for number in range(100)]
    assert (await post(rest, {"devices": items})).status == 200
    assert (await get(rest, "/statistics/devices"))["totalDeviceCount"] == 100
    assert (await post(rest, [])).status == 200


async def test_new_keys(rest: RestClient) -> None:
    thumbprint = {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AB" * 20}}
    other = base64.b64encode(bytes(32)).decode()
    two = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": other}}
    await post(
        rest,
        [
            {"id": "d1", "status": "enabled", "authentication": two},
            {"id": "d1", "moduleId": "m1", "authentication": two},
            {"id": "x509", "status": "enabled", "authentication": thumbprint},
        ],
    )
    path = "/devices/keys/regenerate"
    both = [{"id": "d1"}, {"id": "d1", "moduleId": "m1"}]
    primary = await post(rest, {"policyKey": "primary", "devices": both}, path)
    assert primary.status == 200
    for rotated in primary.json["rotatedKeys"]:
        assert rotated["primaryKey"] not in (KEY, other)
        assert rotated["secondaryKey"] == other
    swapped = await post(rest, {"policyKey": "swap", "devices": [{"id": "d1"}]}, path)
    keys = (await get(rest, "/devices/d1"))["authentication"]["symmetricKey"]
    assert keys == {"primaryKey": other, "secondaryKey": primary.json["rotatedKeys"][0]["primaryKey"]}
    assert swapped.json["rotatedKeys"][0]["primaryKey"] == other
    some = await post(rest, {"policyKey": "secondary", "devices": [{"id": "d1"}, {"id": "no"}, {"id": "x509"}]}, path)
    assert some.status == 207
    assert [(error["id"], error["errorCode"]) for error in some.json["errors"]] == [
        ("no", "DeviceNotFound"),
        ("x509", "ArgumentInvalid"),
    ]
    none = await post(rest, {"policyKey": "swap", "devices": [{"id": "no"}]}, path)
    assert (none.status, none.headers["iothub-errorcode"]) == (400, "BulkRegistryOperationFailure")
    assert (await post(rest, {"policyKey": "third", "devices": []}, path)).status == 400
    assert (await post(rest, {"policyKey": "swap", "devices": [{}]}, path)).status == 400


async def test_statistics(rest: RestClient, services: Services) -> None:
    await post(rest, [{"id": "a", **WHOLE}, {"id": "b", **WHOLE, "status": "disabled"}, {"id": "a", "moduleId": "m"}])
    assert await get(rest, "/statistics/devices") == {
        "totalDeviceCount": 2,
        "enabledDeviceCount": 1,
        "disabledDeviceCount": 1,
    }
    assert await get(rest, "/statistics/service") == {"connectedDeviceCount": 0}
    del services
