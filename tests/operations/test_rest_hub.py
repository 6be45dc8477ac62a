"""The hub's registry over REST: spellings, entity tags, bodies and answers as Azure has them (hub-service.md 1, 2)."""

import asyncio
import base64
import json
from urllib.parse import quote

import pytest
from tests.support.fix_rest import VERSION, Answer, RestClient
from tests.support.fix_services import KEY, Services

OTHER_KEY = base64.b64encode(bytes(32)).decode()
EVERY_LEGAL_CHARACTER = "AZaz09-:.+%_#*?!(),=@;$'"


async def create(rest: RestClient, device_id: str, **members: object) -> Answer:
    target = f"/devices/{quote(device_id, safe='')}?{VERSION}"
    return await rest.request("PUT", target, {"deviceId": device_id, **members})


async def test_a_created_device_has_the_shape_that_clients_read(rest: RestClient) -> None:
    answer = await create(rest, "pump-01")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    device = answer.json
    keys = device["authentication"].pop("symmetricKey")
    assert len(base64.b64decode(keys["primaryKey"])) == 32
    assert keys["primaryKey"] != keys["secondaryKey"]
    assert answer.headers["etag"] == f'"{device["etag"]}"'
    assert base64.b64decode(device.pop("etag")).isdigit()
    assert len(device.pop("generationId")) == 18
    assert device == {
        "deviceId": "pump-01",
        "connectionState": "Disconnected",
        "status": "enabled",
        "statusReason": None,
        "connectionStateUpdatedTime": "0001-01-01T00:00:00Z",
        "statusUpdatedTime": "0001-01-01T00:00:00Z",
        "lastActivityTime": "0001-01-01T00:00:00Z",
        "cloudToDeviceMessageCount": 0,
        "authentication": {
            "x509Thumbprint": {"primaryThumbprint": None, "secondaryThumbprint": None},
            "type": "sas",
        },
        "capabilities": {"iotEdge": False},
    }


@pytest.mark.parametrize(
    "path", ["/devices/Pump", "/Devices/Pump", "/DEVICES/Pump/", "/devices/%50ump", "/devices/Pump/"]
)
async def test_words_of_a_path_ignore_case_and_a_slash_behind(rest: RestClient, path: str) -> None:
    await create(rest, "Pump")
    answer = await rest.request("GET", f"{path}?{VERSION}")
    assert answer.status == 200
    assert answer.json["deviceId"] == "Pump"


async def test_ids_do_not_ignore_case(rest: RestClient) -> None:
    await create(rest, "Pump")
    answer = await rest.request("GET", f"/devices/pump?{VERSION}")
    assert answer.status == 404
    assert answer.headers["iothub-errorcode"] == "DeviceNotFound"


@pytest.mark.parametrize("device_id", [EVERY_LEGAL_CHARACTER, "a%2Fb", "100%", "?", "#", "..", "x" * 128])
async def test_ids_with_every_legal_character(rest: RestClient, device_id: str) -> None:
    target = f"/devices/{quote(device_id, safe='')}?{VERSION}"
    assert (await create(rest, device_id)).status == 200
    got = await rest.request("GET", target)
    assert got.json["deviceId"] == device_id
    twin = await rest.request("GET", target.replace("/devices/", "/twins/"))
    assert twin.json["deviceId"] == device_id
    assert (await rest.request("DELETE", target, if_match="*")).status == 204
    assert (await rest.request("GET", target)).status == 404


@pytest.mark.parametrize("device_id", ["Registrations", "registrations", "Messages", "Query", "Subscriptions"])
async def test_ids_that_are_words_of_an_api(rest: RestClient, device_id: str) -> None:
    device, twin = f"/devices/{device_id}", f"/twins/{device_id}"
    assert (await create(rest, device_id)).status == 200
    module = await rest.request("PUT", f"{device}/modules/Registrations?{VERSION}", {"moduleId": "Registrations"})
    assert module.status == 200
    for path in (device, device.replace("devices", "Devices"), twin):
        assert (await rest.request("GET", f"{path}?{VERSION}")).json["deviceId"] == device_id
        of_module = await rest.request("GET", f"{path}/modules/Registrations?{VERSION}")
        assert of_module.json["moduleId"] == "Registrations"
    for path in (twin, f"{twin}/modules/Registrations"):
        asked = await rest.request("POST", f"{path}/methods?{VERSION}", {"methodName": "reboot"})
        assert asked.headers["iothub-errorcode"] == "DeviceNotOnline"


@pytest.mark.parametrize("device_id", ["with space", "ü", "a|b", "a\\b", "x" * 129, "tab\t"])
async def test_illegal_ids_are_refused(rest: RestClient, device_id: str) -> None:
    answer = await create(rest, device_id)
    assert answer.status == 400
    assert answer.headers["iothub-errorcode"] == "ArgumentInvalid"


async def test_create_only_without_if_match(rest: RestClient) -> None:
    etag = (await create(rest, "d1")).json["etag"]
    again = await create(rest, "d1", etag=etag)
    assert again.status == 409
    assert again.headers["iothub-errorcode"] == "DeviceAlreadyExists"
    assert again.json["Message"] == "ErrorCode:DeviceAlreadyExists;A device with ID 'd1' is already registered."


async def test_update_only_with_if_match(rest: RestClient) -> None:
    answer = await rest.request("PUT", f"/devices/d1?{VERSION}", {"deviceId": "d1"}, if_match="*")
    assert answer.status == 404
    assert answer.headers["iothub-errorcode"] == "DeviceNotFound"


@pytest.mark.parametrize("spelling", ["*", '"*"', "{}", '"{}"', 'W/"{}"'])
async def test_every_spelling_of_if_match(rest: RestClient, spelling: str) -> None:
    etag = (await create(rest, "d1")).json["etag"]
    if_match = spelling.format(etag)
    updated = await rest.request(
        "PUT", f"/devices/d1?{VERSION}", {"deviceId": "d1", "status": "disabled"}, if_match=if_match
    )
    assert updated.status == 200
    assert updated.json["status"] == "disabled"
    assert updated.json["etag"] != etag
    if_match = spelling.format(updated.json["etag"])
    assert (await rest.request("DELETE", f"/devices/d1?{VERSION}", if_match=if_match)).status == 204


async def test_a_stale_tag_changes_nothing(rest: RestClient) -> None:
    etag = (await create(rest, "d1")).json["etag"]
    body = {"deviceId": "d1", "status": "disabled"}
    assert (await rest.request("PUT", f"/devices/d1?{VERSION}", body, if_match=etag)).status == 200
    for method in ("PUT", "DELETE"):
        answer = await rest.request(method, f"/devices/d1?{VERSION}", {"deviceId": "d1"}, if_match=etag)
        assert answer.status == 412
        assert answer.headers["iothub-errorcode"] == "PreconditionFailed"
    assert (await rest.request("GET", f"/devices/d1?{VERSION}")).json["status"] == "disabled"


async def test_a_delete_needs_if_match(rest: RestClient) -> None:
    await create(rest, "d1")
    assert (await rest.request("DELETE", f"/devices/d1?{VERSION}")).status == 412
    assert (await rest.request("DELETE", f"/devices/d2?{VERSION}", if_match="*")).status == 404
    answer = await rest.request("DELETE", f"/devices/d1?{VERSION}", if_match="*")
    assert (answer.status, answer.body) == (204, b"")


async def test_generation_id_changes_with_each_creation_and_with_nothing_else(
    rest: RestClient, services: Services
) -> None:
    first = (await create(rest, "d1")).json
    services.clock.advance(1_000_000)
    updated = await rest.request("PUT", f"/devices/d1?{VERSION}", {"deviceId": "d1"}, if_match="*")
    assert updated.json["generationId"] == first["generationId"]
    await rest.request("DELETE", f"/devices/d1?{VERSION}", if_match="*")
    assert (await create(rest, "d1")).json["generationId"] != first["generationId"]


async def test_every_put_answers_with_what_it_wrote_itself(rest: RestClient) -> None:
    """Also when others write at the same time: keys of another's request would be of no use to anybody."""
    await create(rest, "d1")

    async def put(reason: str) -> tuple[str, Answer]:
        body = {"deviceId": "d1", "statusReason": reason}
        return reason, await rest.request("PUT", f"/devices/d1?{VERSION}", body, if_match="*")

    answers = await asyncio.gather(*(put(f"reason {number}") for number in range(20)))
    assert all(answer.json["statusReason"] == reason for reason, answer in answers)
    assert len({answer.json["etag"] for _, answer in answers}) == 20


async def test_a_body_of_another_device_is_refused(rest: RestClient) -> None:
    answer = await rest.request("PUT", f"/devices/d1?{VERSION}", {"deviceId": "D1"})
    assert answer.status == 400
    assert answer.json["Message"].startswith("ErrorCode:ArgumentInvalid;")
    assert (await rest.request("PUT", f"/devices/d1?{VERSION}", {})).headers["iothub-errorcode"] == "ArgumentNull"


async def test_unknown_members_and_read_only_ones_are_ignored(rest: RestClient) -> None:
    device = (await create(rest, "d1", nonsense={"a": [1]}, generationId="1", connectionState="Connected")).json
    assert device["connectionState"] == "Disconnected"
    assert device["generationId"] != "1"
    echoed = await rest.request("PUT", f"/devices/d1?{VERSION}", device, if_match=device["etag"])
    assert echoed.status == 200
    assert echoed.json["authentication"] == device["authentication"]


async def test_an_update_without_authentication_makes_new_keys(rest: RestClient) -> None:
    keys = (await create(rest, "d1")).json["authentication"]["symmetricKey"]
    updated = await rest.request("PUT", f"/devices/d1?{VERSION}", {"deviceId": "d1"}, if_match="*")
    assert updated.json["authentication"]["symmetricKey"] != keys


@pytest.mark.parametrize(
    ("authentication", "word"),
    [
        ({"type": "sas", "symmetricKey": {"primaryKey": KEY}}, "Either no keys or both keys can be set"),
        ({"type": "sas", "symmetricKey": {"primaryKey": "no base64", "secondaryKey": KEY}}, "base64"),
        ({"type": "sas", "symmetricKey": {"primaryKey": "QUJD", "secondaryKey": KEY}}, "16 to 64"),
        ({"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": "AA:BB"}}, "StringIsNotThumbprint"),
        ({"type": "none"}, "none"),
        ({"type": "magic"}, "sas, selfSigned and certificateAuthority"),
    ],
)
async def test_authentication_that_is_refused(rest: RestClient, authentication: object, word: str) -> None:
    answer = await create(rest, "d1", authentication=authentication)
    assert answer.status == 400
    assert word in answer.json["Message"]


async def test_a_thumbprint_alone_means_self_signed(rest: RestClient) -> None:
    thumbprint = "ab" * 20
    body = {"x509Thumbprint": {"primaryThumbprint": thumbprint}}
    device = (await create(rest, "d1", authentication=body)).json
    assert device["authentication"]["type"] == "selfSigned"
    assert device["authentication"]["x509Thumbprint"]["primaryThumbprint"] == thumbprint  # its case is kept
    assert device["authentication"]["symmetricKey"] == {"primaryKey": None, "secondaryKey": None}


@pytest.mark.parametrize(("query", "count"), [("", 5), ("top=2", 2), ("top=0", 5), ("top=1001", 5), ("top=x", 5)])
async def test_list(rest: RestClient, query: str, count: int) -> None:
    for number in range(5):
        await create(rest, f"d{number}")
    for path in ("/devices", "/devices/"):
        answer = await rest.request("GET", f"{path}?{VERSION}&{query}")
        assert [device["deviceId"] for device in answer.json] == [f"d{number}" for number in range(count)]


RIGHTS = {
    "GET /devices": {"iothubowner", "registryRead", "registryReadWrite"},
    "GET /devices/d1": {"iothubowner", "registryRead", "registryReadWrite"},
    "PUT /devices/d1": {"iothubowner", "registryReadWrite"},
    "DELETE /devices/d1": {"iothubowner", "registryReadWrite"},
    "GET /devices/d1/modules": {"iothubowner", "registryRead", "registryReadWrite"},
    "POST /devices/keys/regenerate": {"iothubowner", "registryReadWrite"},
    "POST /devices": {"iothubowner", "registryReadWrite"},
    "DELETE /devices/d1/commands": {"iothubowner", "service", "registryReadWrite"},
    "GET /statistics/devices": {"iothubowner", "registryRead", "registryReadWrite"},
    "GET /statistics/service": {"iothubowner", "service", "registryRead", "registryReadWrite"},
    "GET /twins/d1": {"iothubowner", "service"},
}


@pytest.mark.parametrize("operation", RIGHTS)
@pytest.mark.parametrize("policy", ["iothubowner", "service", "device", "registryRead", "registryReadWrite"])
async def test_rights_of_the_five_policies(rest: RestClient, operation: str, policy: str) -> None:
    await create(rest, "d1")
    method, path = operation.split()
    answer = await rest.request(
        method,
        f"{path}?{VERSION}",
        {"deviceId": "d1", "policyKey": "swap", "devices": []},
        authorization=rest.token(policy, "hub.example.net"),
        if_match="*",
    )
    if policy in RIGHTS[operation]:
        assert answer.status in (200, 204)
    else:
        assert answer.status == 401
        assert answer.headers["iothub-errorcode"] == "IotHubUnauthorizedAccess"


async def test_tokens_that_are_refused(rest: RestClient, services: Services) -> None:
    await create(rest, "d1")
    good = rest.token("iothubowner", "hub.example.net")
    refused = {
        "none": None,
        "nonsense": "SharedAccessSignature nonsense",
        "another scheme": "Bearer eyJhbGciOiJub25lIn0.e30.",
        "expired": rest.token("iothubowner", "hub.example.net", life=-301),
        "another key": rest.token("iothubowner", "hub.example.net", key=OTHER_KEY),
        "unknown policy": rest.token("nobody", "hub.example.net"),
        "no policy": rest.token("", "hub.example.net"),
        "another host": rest.token("iothubowner", "other.example.net"),
        "another device": rest.token("iothubowner", "hub.example.net", resource="hub.example.net/devices/d2"),
        "altered": good.replace("skn=iothubowner", "skn=registryRead").replace("se=1", "se=2"),
    }
    for what, authorization in refused.items():
        answer = await rest.request("GET", f"/devices/d1?{VERSION}", authorization=authorization)
        assert answer.status == 401, what
        report = (await services.reports.find(answer.headers["x-ms-request-id"]))[0]
        assert report.operation == "GET"
        assert report.subject == "/devices/d1"
        assert any(item.outcome == "refused" and item.fix for item in report.checks), what


async def test_tokens_that_are_taken(rest: RestClient) -> None:
    await create(rest, "d1")
    taken = [
        rest.token("iothubowner", "hub.example.net", life=-299),  # within the clock skew
        rest.token("iothubowner", "HUB.example.net"),
        rest.token("iothubowner", "hub.example.net", resource="hub.example.net:443"),
        rest.token("iothubowner", "hub.example.net", resource="https://hub.example.net/"),
        rest.token("iothubowner", "hub.example.net", resource="hub.example.net/devices"),
        rest.token("iothubowner", "hub.example.net", resource="hub.example.net/devices/d1"),
    ]
    for authorization in taken:
        answer = await rest.request("GET", f"/devices/d1?{VERSION}", authorization=authorization)
        assert answer.status == 200, authorization


@pytest.mark.parametrize("host", ["hub.example.net:443", "HUB.EXAMPLE.NET", "other.example.net", "127.0.0.1:8443"])
async def test_any_host_means_the_first_hub(rest: RestClient, host: str) -> None:
    """In ``up``; with a port or without one."""
    await create(rest, "d1")
    assert (await rest.request("GET", f"/devices/d1?{VERSION}", host=host)).status == 200


async def test_java_sends_put_through_post(rest: RestClient) -> None:
    """It knows no PATCH, and so names the method in a header (hub-service.md 1.5)."""
    answer = await rest.request(
        "POST", f"/devices/d1?{VERSION}", {"deviceId": "d1"}, x_http_method_override="PUT", content_length="99"
    )
    assert answer.status == 200


async def test_a_twin_has_the_shape_that_clients_read(rest: RestClient) -> None:
    await create(rest, "d1")
    answer = await rest.request("GET", f"/twins/d1?{VERSION}")
    assert answer.status == 200
    twin = answer.json
    assert answer.headers["etag"] == f'"{twin["etag"]}"'
    assert twin["version"] == 2
    assert twin["authenticationType"] == "sas"
    assert "tags" not in twin
    assert twin["properties"]["desired"] == {
        "$metadata": {"$lastUpdated": "0001-01-01T00:00:00Z", "$lastUpdatedVersion": 1},
        "$version": 1,
    }
    assert twin["properties"]["reported"]["$version"] == 1
    missing = await rest.request("GET", f"/twins/d2?{VERSION}")
    assert missing.status == 404
    assert missing.headers["iothub-errorcode"] == "DeviceNotFound"


async def test_a_key_never_stands_in_a_report(rest: RestClient, services: Services) -> None:
    authorization = rest.token("iothubowner", "other.example.net")
    answer = await rest.request("GET", f"/devices/d1?{VERSION}", authorization=authorization)
    report = (await services.reports.find(answer.headers["x-ms-request-id"]))[0]
    text = json.dumps([str(report), answer.body.decode()])
    assert KEY not in text
    assert authorization.partition("sig=")[2].partition("&")[0] not in text
