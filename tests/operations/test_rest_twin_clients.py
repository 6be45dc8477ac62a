"""Replayed: how clients that cannot be installed here spell requests for twins and queries (hub-service.md 12, B)."""

import json
from typing import Any

import pytest
from tests.support.fix_rest import Answer, RestClient
from tests.support.fix_services import Services

from muster.domain.device import IdentityBody

NET = {"UserAgent": "Microsoft.Azure.Devices/1.39.0", "accept": "application/json"}
JAVA = {
    "user_agent": "com.microsoft.azure.sdk.iot.iot-service-client/2.1.9 (JRE 17; Linux; amd64)",
    "content_type": "application/json; charset=utf-8",
    "request_id": "3",
}
AZ = {
    "user_agent": "python/3.11.7 (Linux) msrest/0.7.1 IoTPlatformCliExtension/0.25.0",
    "x_ms_client_request_id": "8a7b3c1e-0000-4000-8000-000000000001",
    "accept_encoding": "gzip, deflate",
}


@pytest.fixture
async def hub(rest: RestClient, services: Services) -> RestClient:
    for device_id in ("d1", "d2", "d3"):
        await services.devices.put("hub", device_id, IdentityBody(device_id=device_id), None)
    return rest


def numeric_code(answer: Answer) -> str:
    """As .NET reads it: the name in the body has to be that of the header."""
    name: str = answer.json["Message"].split(";")[0].removeprefix("ErrorCode:")
    assert name == answer.headers["iothub-errorcode"]
    return name


async def test_net_sends_back_the_whole_twin_with_a_quoted_etag(hub: RestClient) -> None:
    target = "/twins/d1?api-version=2021-04-12"
    first = await hub.request("GET", target, **NET)
    twin: dict[str, Any] = first.json
    assert twin.get("tags", {}) is not None, "TwinJsonConverter throws at null"
    assert isinstance(twin["version"], int)
    twin["tags"] = {"site": "N"}
    twin["properties"]["desired"]["interval"] = 5
    changed = await hub.request("PATCH", target, twin, if_match=f'"{twin["etag"]}"', **NET)
    assert (changed.status, changed.json["tags"]) == (200, {"site": "N"})
    assert changed.json["properties"]["desired"]["interval"] == 5
    # The entity's etag is overwritten with the header's.
    assert changed.headers["etag"] == f'"{changed.json["etag"]}"'
    stale = await hub.request("PUT", target, twin, if_match=f'"{twin["etag"]}"', **NET)
    assert (stale.status, numeric_code(stale)) == (412, "PreconditionFailed")


async def test_net_parses_the_item_type_and_ends_without_a_continuation(hub: RestClient) -> None:
    target = "/devices/query?api-version=2021-04-12"
    query = {"query": "SELECT * FROM devices"}
    page = await hub.request("POST", target, query, x_ms_max_item_count="2", x_ms_continuation="", **NET)
    assert page.headers["x-ms-item-type"] in ("Unknown", "Twin", "DeviceJob", "JobResponse", "Raw")
    following = page.headers["x-ms-continuation"]
    last = await hub.request("POST", target, query, x_ms_max_item_count="2", x_ms_continuation=following, **NET)
    assert [len(page.json), len(last.json)] == [2, 1]
    assert "x-ms-continuation" not in last.headers


async def test_java_overrides_the_method_and_sends_a_raw_etag(hub: RestClient) -> None:
    target = "/twins/d1?api-version=2021-04-12"
    twin = (await hub.request("GET", target, **JAVA)).json
    body = {"deviceId": "d1", "etag": twin["etag"], "tags": {"a": 1}, "properties": {"desired": {"b": 2}}}
    changed = await hub.request("POST", target, body, x_http_method_override="PATCH", if_match=twin["etag"], **JAVA)
    assert (changed.status, changed.json["tags"], changed.json["properties"]["desired"]["b"]) == (200, {"a": 1}, 2)
    replaced = await hub.request("PUT", target, {"deviceId": "d1", "tags": {"c": 1}}, **JAVA)
    assert (replaced.status, replaced.json["tags"]) == (200, {"c": 1})
    stale = await hub.request("POST", target, body, x_http_method_override="PATCH", if_match=twin["etag"], **JAVA)
    assert (stale.status, numeric_code(stale)) == (412, "PreconditionFailed")


async def test_the_command_line_of_azure(hub: RestClient) -> None:
    """``az iot hub device-twin update|replace``, ``device-identity list``, ``query``."""
    version = "api-version=2024-03-31"
    changed = await hub.request("PATCH", f"/twins/d2?{version}", {"tags": {"site": "Z"}}, if_match='"*"', **AZ)
    assert (changed.status, changed.json["tags"]) == (200, {"site": "Z"})
    replaced = await hub.request("PUT", f"/twins/d2?{version}", changed.json, if_match="*", **AZ)
    assert (replaced.status, replaced.json["tags"]) == (200, {"site": "Z"})
    listed = await hub.request(
        "POST", f"/devices/query?{version}", {"query": "select * from devices"}, x_ms_max_item_count="3", **AZ
    )
    assert [item["deviceId"] for item in listed.json] == ["d1", "d2", "d3"]
    assert "x-ms-continuation" not in listed.headers
    wrong = await hub.request("POST", f"/devices/query?{version}", {"query": "select * from nothing"}, **AZ)
    assert (wrong.status, numeric_code(wrong)) == (400, "ArgumentInvalid")
    assert json.loads(wrong.body)["Message"].startswith("ErrorCode:ArgumentInvalid;BadRequest")


@pytest.mark.parametrize(
    "condition",
    [
        "tags.site = 'Z' and status = 'enabled'",
        "Tags.site='Z' AND DeviceId != 'x'",
        "tags.site IN ['Z', 'Y'] AND connectionState = 'Disconnected'",
        "is_defined(tags.site) AND NOT is_defined(properties.reported.x)",
        "startswith(tags.site, 'Z') AND lastActivityTime < '2026-01-01T00:00:00Z'",
        "version = 3 AND properties.desired.$version = 1 AND authenticationType = 'sas'",
        "tags.site <> 'A' AND capabilities.iotEdge = false",
    ],
)
async def test_conditions_as_people_write_them(hub: RestClient, condition: str) -> None:
    version = "api-version=2021-04-12"
    await hub.request("PATCH", f"/twins/d2?{version}", {"tags": {"site": "Z"}})
    query = {"query": f"SELECT deviceId FROM devices WHERE {condition}"}
    answer = await hub.request("POST", f"/devices/query?{version}", query)
    assert answer.json == [{"deviceId": "d2"}]
