"""Twins and queries over REST: bodies, headers, spellings and refusals as Azure has them (hub-service.md 3, 4)."""

import json

import pytest
from tests.support.fix_rest import VERSION, Answer, RestClient
from tests.support.fix_services import Services

from muster.domain.device import IdentityBody


@pytest.fixture
async def hub(rest: RestClient, services: Services) -> RestClient:
    for device_id in ("d1", "d2", "d3", "d4", "d5"):
        await services.devices.put("hub", device_id, IdentityBody(device_id=device_id), None)
    return rest


async def twin(rest: RestClient, method: str, body: object = b"", device: str = "d1", **headers: str) -> Answer:
    return await rest.request(method, f"/twins/{device}?{VERSION}", body, **headers)


async def query(rest: RestClient, text: object, **headers: str) -> Answer:
    return await rest.request("POST", f"/devices/query?{VERSION}", {"query": text}, **headers)


async def test_the_members_of_a_twin_stand_in_azures_order(hub: RestClient) -> None:
    await twin(hub, "PATCH", {"tags": {"site": "A"}})
    answer = await twin(hub, "GET")
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.headers["etag"] == '"AAAAAAAAAAI="'
    assert list(answer.json) == [
        "deviceId",
        "etag",
        "deviceEtag",
        "status",
        "statusUpdateTime",
        "connectionState",
        "lastActivityTime",
        "cloudToDeviceMessageCount",
        "authenticationType",
        "x509Thumbprint",
        "modelId",
        "version",
        "tags",
        "properties",
        "capabilities",
    ]
    assert answer.json["x509Thumbprint"] == {"primaryThumbprint": None, "secondaryThumbprint": None}
    assert answer.json["capabilities"] == {"iotEdge": False}
    assert (answer.json["statusUpdateTime"], answer.json["lastActivityTime"]) == ("0001-01-01T00:00:00Z",) * 2


async def test_patch_and_put(hub: RestClient) -> None:
    desired = {"interval": 30, "net": {"ssid": "x", "key": 1}, "list": [1, {"a": 1}]}
    await twin(hub, "PATCH", {"tags": {"site": "A", "old": 1}, "properties": {"desired": desired}})
    answer = await twin(
        hub,
        "PATCH",
        {
            "deviceId": "other",
            "tags": {"old": None},
            "properties": {"desired": {"net": {"key": None}}, "reported": {"x": 1}},
        },
    )
    assert answer.status == 200
    found = answer.json
    assert found["deviceId"] == "d1"
    assert found["tags"] == {"site": "A"}
    section = found["properties"]["desired"]
    assert (section["net"], section["list"], section["$version"]) == ({"ssid": "x"}, [1, {"a": 1}], 3)
    assert section["$metadata"]["list"].keys() == {"$lastUpdated", "$lastUpdatedVersion"}
    assert (
        section["$metadata"]["net"]["$lastUpdatedVersion"],
        section["$metadata"]["interval"]["$lastUpdatedVersion"],
    ) == (3, 2)
    assert found["properties"]["reported"] == {"$metadata": {"$lastUpdated": "0001-01-01T00:00:00Z"}, "$version": 1}
    # What is not named in a PUT is wiped; what was read may be sent back whole (hub-service.md 3.3, 3.4).
    answer = await twin(hub, "PUT", {**found, "tags": None}, if_match=f'"{found["etag"]}"')
    assert answer.status == 200
    assert "tags" not in answer.json
    assert answer.json["properties"]["desired"]["net"] == {"ssid": "x"}
    assert (answer.json["version"], answer.json["properties"]["desired"]["$version"]) == (5, 4)
    answer = await twin(hub, "PUT", {"tags": {"a": 1}})
    assert set(answer.json["properties"]["desired"]) == {"$metadata", "$version"}


async def test_java_patches_with_post(hub: RestClient) -> None:
    answer = await twin(hub, "POST", {"tags": {"site": "J"}}, x_http_method_override="PATCH")
    assert (answer.status, answer.json["tags"]) == (200, {"site": "J"})
    assert (await twin(hub, "POST", {})).status == 405


@pytest.mark.parametrize("if_match", ["*", '"*"', "AAAAAAAAAAE=", '"AAAAAAAAAAE="', 'W/"AAAAAAAAAAE="'])
async def test_spellings_of_if_match(hub: RestClient, if_match: str) -> None:
    assert (await twin(hub, "PATCH", {"tags": {"a": 1}}, if_match=if_match)).status == 200
    if "*" not in if_match:
        stale = await twin(hub, "PATCH", {"tags": {"a": 2}}, if_match=if_match)
        assert (stale.status, stale.headers["iothub-errorcode"]) == (412, "PreconditionFailed")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"", "ArgumentNull"),
        (b"{", "IotHubFormatError"),
        ([], "ArgumentInvalid"),
        ({"tags": 5}, "ArgumentInvalid"),
        ({"properties": {"desired": []}}, "ArgumentInvalid"),
        ({"tags": {"a.b": 1}}, "ArgumentInvalid"),
        ({"properties": {"desired": {"a": {"$b": 1}}}}, "ArgumentInvalid"),
        ({"tags": {"a": ["x", None]}}, "ArgumentInvalid"),
        ({"tags": {"a": "x" * 4097}}, "ArgumentInvalid"),
        ({"tags": {str(number): "x" * 4000 for number in range(3)}}, "ArgumentInvalid"),
    ],
)
@pytest.mark.parametrize("method", ["PATCH", "PUT"])
async def test_what_may_not_be_written(hub: RestClient, method: str, body: object, name: str) -> None:
    answer = await twin(hub, method, body)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, name)
    assert answer.json["Message"].startswith(f"ErrorCode:{name};")
    assert answer.json["ExceptionMessage"].startswith("Tracking ID:")
    assert (await twin(hub, "GET")).json["version"] == 2


async def test_twins_that_are_not_there(hub: RestClient) -> None:
    for target in ("/twins/none", "/twins/d1/modules/none"):
        for method, body in (("GET", b""), ("PATCH", {}), ("PUT", {})):
            answer = await hub.request(method, f"{target}?{VERSION}", body)
            assert (answer.status, answer.headers["iothub-errorcode"]) == (404, "DeviceNotFound")


@pytest.mark.parametrize(
    ("method", "target"),
    [("PATCH", "/twins/d1"), ("PUT", "/twins/d1"), ("GET", "/twins/d1/modules/m")],
)
async def test_rights(hub: RestClient, method: str, target: str) -> None:
    for policy in ("registryRead", "registryReadWrite", "device"):
        token = hub.token(policy, "hub.example.net")
        answer = await hub.request(method, f"{target}?{VERSION}", {}, authorization=token)
        assert (answer.status, answer.headers["iothub-errorcode"]) == (401, "IotHubUnauthorizedAccess")
    answer = await hub.request(method, target, {})
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "InvalidProtocolVersion")


@pytest.mark.parametrize(
    ("policy", "status"), [("registryRead", 200), ("registryReadWrite", 200), ("service", 200), ("device", 401)]
)
async def test_who_may_query(hub: RestClient, policy: str, status: int) -> None:
    token = hub.token(policy, "hub.example.net")
    body = {"query": "SELECT deviceId FROM devices"}
    answer = await hub.request("POST", f"/devices/query?{VERSION}", body, authorization=token)
    assert answer.status == status


async def test_pages_of_a_query(hub: RestClient) -> None:
    text = "SELECT deviceId FROM devices"
    found: list[str] = []
    headers: dict[str, str] = {}
    sizes = []
    while True:
        answer = await query(hub, text, x_ms_max_item_count="2", **headers)
        assert answer.status == 200
        assert answer.headers["x-ms-item-type"] == "Raw"
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        sizes.append(len(answer.json))
        found += [row["deviceId"] for row in answer.json]
        if "x-ms-continuation" not in answer.headers:
            break
        headers = {"x_ms_continuation": answer.headers["x-ms-continuation"]}
    assert (sizes, found) == ([2, 2, 1], ["d1", "d2", "d3", "d4", "d5"])
    other = await query(hub, "SELECT status FROM devices", **headers)
    assert (other.status, "another query" in other.json["Message"]) == (400, True)


async def test_a_page_that_ends_with_the_last_row_has_no_continuation(hub: RestClient) -> None:
    answer = await query(hub, "SELECT * FROM devices", x_ms_max_item_count="5")
    assert len(answer.json) == 5
    assert "x-ms-continuation" not in answer.headers


async def test_pages_while_devices_come_and_go(hub: RestClient, services: Services) -> None:
    text = "SELECT deviceId FROM devices WHERE status = 'enabled'"
    first = await query(hub, text, x_ms_max_item_count="3")
    for gone in ("d1", "d3"):
        await services.devices.delete("hub", gone, "*")
    await services.devices.put("hub", "d0", IdentityBody(device_id="d0"), None)
    rest_of_it = await query(hub, text, x_ms_continuation=first.headers["x-ms-continuation"])
    assert [row["deviceId"] for row in first.json + rest_of_it.json] == ["d1", "d2", "d3", "d4", "d5"]


async def test_top_counts_over_all_pages(hub: RestClient) -> None:
    first = await query(hub, "SELECT TOP 3 * FROM devices", x_ms_max_item_count="2")
    second = await query(
        hub,
        "SELECT TOP 3 * FROM devices",
        x_ms_max_item_count="2",
        x_ms_continuation=first.headers["x-ms-continuation"],
    )
    assert (len(first.json), len(second.json)) == (2, 1)
    assert "x-ms-continuation" not in second.headers


@pytest.mark.parametrize(
    ("text", "item_type"),
    [
        ("SELECT * FROM devices", "Twin"),
        ("select * from devices.modules", "Twin"),
        ("SELECT deviceId FROM devices", "Raw"),
        ("SELECT COUNT() AS n FROM devices", "Raw"),
    ],
)
async def test_item_types(hub: RestClient, text: str, item_type: str) -> None:
    assert (await query(hub, text)).headers["x-ms-item-type"] == item_type


async def test_the_twins_of_a_query_are_those_of_the_twin_api(hub: RestClient) -> None:
    await twin(hub, "PATCH", {"tags": {"site": "A"}}, device="d2")
    answer = await query(hub, "SELECT * FROM devices WHERE tags.site = 'A'")
    assert answer.json == [(await twin(hub, "GET", device="d2")).json]


async def test_aggregates(hub: RestClient) -> None:
    for number in (1, 2, 4):
        await twin(hub, "PATCH", {"tags": {"floor": number, "site": "A" if number < 3 else "B"}}, device=f"d{number}")
    answer = await query(
        hub,
        "SELECT tags.site AS site, COUNT() AS n, SUM(tags.floor) AS s, AVG(tags.floor) AS a, MIN(tags.floor) AS low,"
        " MAX(tags.site) AS top FROM devices GROUP BY tags.site",
    )
    assert answer.json == [
        {"n": 2},
        {"site": "A", "n": 2, "s": 3, "a": 1.5, "low": 1, "top": "A"},
        {"site": "B", "n": 1, "s": 4, "a": 4, "low": 4, "top": "B"},
    ]
    assert (await query(hub, "SELECT COUNT() FROM devices WHERE tags.site = 'Z'")).json == [{"$1": 0}]


async def test_entity_tags_in_queries(hub: RestClient) -> None:
    await twin(hub, "PATCH", {"tags": {"a": 1}}, device="d2")
    etag = (await twin(hub, "GET", device="d3")).json["deviceEtag"]
    for where, expected in (
        ("etag = 'AAAAAAAAAAI='", ["d2"]),
        ("'AAAAAAAAAAI=' != devices.etag", ["d1", "d3", "d4", "d5"]),
        ("etag IN ['AAAAAAAAAAI=', 'x']", ["d2"]),
        ("etag = 'AAAAAAAAAAJ='", []),
        ("etag != 'AAAA'", ["d1", "d2", "d3", "d4", "d5"]),
        (f"deviceEtag = '{etag}'", ["d3"]),
        ("deviceEtag = 'MDE='", []),
        ("IS_STRING(etag) AND IS_DEFINED(deviceEtag) AND deviceId = 'd1'", ["d1"]),
    ):
        answer = await query(hub, f"SELECT deviceId FROM devices WHERE {where}")
        assert [row["deviceId"] for row in answer.json] == expected, where
    for text in ("WHERE etag > 'A'", "WHERE STARTSWITH(etag, 'A')", "WHERE etag = 5", "ORDER BY deviceEtag"):
        answer = await query(hub, f"SELECT * FROM devices {text}")
        assert (answer.status, "can only be compared" in answer.json["Message"]) == (400, True)


async def test_queries_of_tools(hub: RestClient) -> None:
    """What the command line of Azure and its portal send (hub-service.md 4.3, appendix B)."""
    for text in (
        "select * from devices where capabilities.iotEdge = true",
        "select deviceId from devices where array_contains(parentScopes, 'ms-azure-iot-edge://p-1')",
        "select * from devices.modules where devices.deviceId = 'd1'",
        "SELECT deviceId FROM devices WHERE configurations.[[my-conf]].status='Applied'",
        "SELECT * FROM devices WHERE properties.reported.$metadata.x.$lastUpdated > '2026-01-01T00:00:00Z'",
    ):
        answer = await query(hub, text)
        assert (answer.status, answer.json) == (200, []), text


@pytest.mark.parametrize(
    ("body", "headers", "name"),
    [
        ({}, {}, "ArgumentNull"),
        ({"query": None}, {}, "ArgumentNull"),
        ({"query": ""}, {}, "ArgumentNull"),
        ({"query": 5}, {}, "ArgumentInvalid"),
        ({"query": "SELECT * FROM devices.jobs"}, {}, "ArgumentInvalid"),
        ({"query": "SELECT * FROM devices WHERE tags.a = 'x"}, {}, "ArgumentInvalid"),
        ({"query": "SELECT * FROM devices"}, {"x_ms_max_item_count": "0"}, "ArgumentInvalid"),
        ({"query": "SELECT * FROM devices"}, {"x_ms_max_item_count": "many"}, "ArgumentInvalid"),
        ({"query": "SELECT * FROM devices"}, {"x_ms_continuation": "nonsense"}, "ArgumentInvalid"),
    ],
)
async def test_queries_that_are_refused(hub: RestClient, body: object, headers: dict[str, str], name: str) -> None:
    answer = await hub.request("POST", f"/devices/query?{VERSION}", body, **headers)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, name)
    assert answer.json["Message"].startswith(f"ErrorCode:{name};BadRequest") or body == {"query": 5}


async def test_the_deepest_query_that_is_allowed(hub: RestClient) -> None:
    """The limits of the language are below those of the database."""
    nested = "NOT (" * 9 + "1 + 1 * 1 - 1 / 1 % 1 = IS_NUMBER(tags.a)" + ")" * 9
    many = " OR ".join(f"tags['k{number}'] != properties.reported.a" for number in range(150))
    listed = ", ".join(str(number) for number in range(2000, 3300))
    for condition in (nested, many, f"tags.a IN [{listed}]"):
        answer = await query(hub, f"SELECT deviceId FROM devices WHERE {condition}")
        assert answer.status == 200, json.dumps(answer.json)
