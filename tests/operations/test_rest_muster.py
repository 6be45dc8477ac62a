"""Muster's own routes: status, events as a list and as a stream, reports."""

import asyncio
import base64
from typing import Any

import pytest
from tests.support.fix_rest import DPS_OWNER, HUB_HOST, HUB_OWNER, VERSION, RestClient
from tests.support.fix_services import Services

from muster.domain.message import TELEMETRY, authentication_method, parse_property_bag
from muster.frontends.rest import muster
from muster.hub.event_batches import Messages, Run

METHOD = authentication_method("device", "sas", "iothub")
EVENTS = "/muster/v1/events"


def new_event(body: bytes, device_id: str = "d1", bag: str = "", model_id: str = "") -> Run:
    properties = parse_property_bag(bag)
    stamps = (TELEMETRY, device_id, "", "638", METHOD, model_id)
    return (*stamps, properties.system_properties, properties.application_properties), [body]


async def append(services: Services, partition: int, *runs: Run) -> None:
    """Returns when they are on disk."""
    committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: BaseException | None) -> None:
        committed.set_exception(error) if error else committed.set_result(None)

    services.events.append("hub", partition, Messages.of(*runs), done)
    await committed


async def bodies(rest: RestClient, query: str = "") -> list[Any]:
    return [event["body"] for event in (await rest.request("GET", f"{EVENTS}?{query}")).json]


async def test_status_needs_no_token(rest: RestClient) -> None:
    answer = await rest.request("GET", "/muster/v1/status", authorization=None)
    assert answer.json == {"version": "1"}


async def test_an_event(rest: RestClient, services: Services) -> None:
    await append(
        services, 1, new_event(b'{"t":21.5}', bag="a=1&%24.mid=m-1&%24.ct=application%2Fjson", model_id="dtmi:x;1")
    )
    event = (await rest.request("GET", EVENTS)).json[0]
    assert event == {
        "partition": 1,
        "sequenceNumber": 0,
        "offset": "0",
        "enqueuedTimeUtc": "2026-09-21T14:13:20.0000000Z",
        "source": "Telemetry",
        "deviceId": "d1",
        "connectionAuthMethod": METHOD,
        "generationId": "638",
        "modelId": "dtmi:x;1",
        "systemProperties": {"message-id": "m-1", "content-type": "application/json"},
        "applicationProperties": {"a": "1"},
        "body": {"t": 21.5},
        "bodyEncoding": "json",
    }


@pytest.mark.parametrize(
    ("body", "encoding", "shown"),
    [
        (b"21.5", "json", 21.5),
        (b"null", "json", None),
        (b'"text"', "json", "text"),
        (b"plain", "text", "plain"),
        ("grüß".encode(), "text", "grüß"),
        (b"", "text", ""),
        (b"{", "text", "{"),
        (b'{"a":"\xff"}', "base64", None),
        (b"\x00\xff", "base64", None),
        (b"NaN", "text", "NaN"),
        (b"[" * 5000, "text", "[" * 5000),
    ],
)
async def test_bodies(rest: RestClient, services: Services, body: bytes, encoding: str, shown: object) -> None:
    await append(services, 0, new_event(body))
    event = (await rest.request("GET", EVENTS)).json[0]
    assert event["bodyEncoding"] == encoding
    if encoding == "base64":
        assert base64.b64decode(event["bodyBase64"]) == body
        assert "body" not in event
    else:
        assert event["body"] == shown


async def test_reading_on_from_where_one_was(rest: RestClient, services: Services) -> None:
    for number in range(5):
        await append(services, number % 2, new_event(b"%d" % number))
    seen: list[Any] = []
    query = "top=2"
    for _ in range(4):
        answer = await rest.request("GET", f"{EVENTS}?{query}")
        seen += [event["body"] for event in answer.json]
        query = f"top=2&continuation={answer.headers['x-muster-continuation']}"
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert (await rest.request("GET", f"{EVENTS}?{query}")).json == []
    await append(services, 3, new_event(b"5"))
    assert await bodies(rest, query) == [5]


async def test_where_to_begin(rest: RestClient, services: Services) -> None:
    for number in range(4):
        await append(services, 2, new_event(b"%d" % number))
    assert await bodies(rest) == [0, 1, 2, 3]
    assert await bodies(rest, "from=earliest&top=1") == [0]
    assert await bodies(rest, "from=latest") == []
    assert await bodies(rest, "partition=2&from=2") == [2, 3]
    assert await bodies(rest, "partition=2&from=9") == []
    assert await bodies(rest, "partition=1") == []
    answer = await rest.request("GET", f"{EVENTS}?from=latest")
    await append(services, 2, new_event(b"4"))
    assert await bodies(rest, f"continuation={answer.headers['x-muster-continuation']}") == [4]


async def test_filters(rest: RestClient, services: Services) -> None:
    await append(services, 0, new_event(b"1", "d1"), new_event(b"2", "D1"), new_event(b"3", "d1"))
    assert await bodies(rest, "deviceId=d1") == [1, 3]
    assert await bodies(rest, "source=Telemetry") == [1, 2, 3]
    assert await bodies(rest, "source=twinChangeEvents") == []


async def test_hubs_by_name_and_by_host(rest: RestClient, services: Services) -> None:
    await append(services, 0, new_event(b"1"))
    assert await bodies(rest, "hub=hub") == [1]
    answer = await rest.request("GET", f"{EVENTS}?hub=nope")
    assert answer.status == 404
    assert "hub" in answer.json["message"]


async def test_a_stream_starts_with_what_comes_next(rest: RestClient, services: Services) -> None:
    await append(services, 0, new_event(b"0"))
    async with rest.stream(EVENTS) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        assert (await stream.block()).startswith(b":")
        await append(services, 0, new_event(b"1"), new_event(b"2"))
        await append(services, 3, new_event(b"3"))
        received = [await stream.event() for _ in range(3)]
    assert [data["body"] for _, data in received] == [1, 2, 3]


async def test_a_stream_from_the_beginning(rest: RestClient, services: Services) -> None:
    await append(services, 0, new_event(b"0"))
    async with rest.stream(f"{EVENTS}?from=earliest") as stream:
        assert (await stream.event())[1]["body"] == 0


async def test_a_reader_that_comes_back_misses_and_repeats_nothing(rest: RestClient, services: Services) -> None:
    """Whatever the event after which it was cut off, in the middle of a batch too."""
    for partition in (0, 1, 3):
        await append(services, partition, *(new_event(b"%d" % (10 * partition + number)) for number in range(5)))
    everything: list[tuple[str, Any]] = []
    async with rest.stream(f"{EVENTS}?from=earliest") as stream:
        everything = [await stream.event() for _ in range(15)]
    for cut in range(1, 15):
        async with rest.stream(f"{EVENTS}?from=earliest", last_event_id=everything[cut - 1][0]) as stream:
            assert [await stream.event() for _ in range(15 - cut)] == everything[cut:]


async def test_a_filtered_reader_that_comes_back(rest: RestClient, services: Services) -> None:
    await append(services, 0, *(new_event(b"%d" % number, f"d{number % 3}") for number in range(9)))
    target = f"{EVENTS}?from=earliest&deviceId=d1"
    async with rest.stream(target) as stream:
        first = await stream.event()
    async with rest.stream(target, last_event_id=first[0]) as stream:
        rest_of_them = [(await stream.event())[1]["body"] for _ in range(2)]
    assert [first[1]["body"], *rest_of_them] == [1, 4, 7]


async def test_the_list_and_the_stream_share_their_positions(rest: RestClient, services: Services) -> None:
    await append(services, 0, new_event(b"0"), new_event(b"1"))
    answer = await rest.request("GET", f"{EVENTS}?top=1")
    async with rest.stream(f"{EVENTS}?continuation={answer.headers['x-muster-continuation']}") as stream:
        position, data = await stream.event()
    assert data["body"] == 1
    assert await bodies(rest, f"continuation={position}") == []


async def test_a_quiet_stream_says_that_it_lives(
    rest: RestClient, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(muster, "KEEP_ALIVE_SECONDS", 0.01)
    async with rest.stream(EVENTS) as stream:
        await stream.block()
        assert await stream.block() == b": keep-alive"
        await append(services, 0, new_event(b"1"))
        assert (await stream.event())[1]["body"] == 1


async def test_a_stream_that_is_left_leaves_nothing_behind(rest: RestClient, services: Services) -> None:
    before = {subject: len(there) for subject, there in services.bus._subscriptions.items()}
    for _ in range(3):
        async with rest.stream(EVENTS) as stream:
            await stream.block()
    for _ in range(10):
        await asyncio.sleep(0)
    assert {subject: len(there) for subject, there in services.bus._subscriptions.items()} == before


RIGHTS = {
    EVENTS: {"iothubowner", "service"},
    "/muster/v1/reports": {"iothubowner", "service", DPS_OWNER},
    "/muster/v1/reports/d1": {"iothubowner", "service", DPS_OWNER},
}


@pytest.mark.parametrize("path", RIGHTS)
@pytest.mark.parametrize(
    "policy", ["iothubowner", "service", "device", "registryRead", "registryReadWrite", DPS_OWNER, "nobody"]
)
async def test_rights(rest: RestClient, path: str, policy: str) -> None:
    await rest.request("GET", f"/devices/d1?{VERSION}", authorization=None)  # leaves a report
    answer = await rest.request("GET", path, authorization=rest.token(policy, HUB_HOST))
    if policy in RIGHTS[path]:
        assert answer.status in (200, 404)
    else:
        assert answer.status == 401


async def test_reports(rest: RestClient, services: Services) -> None:
    refused = await rest.request("GET", f"/devices/d1?{VERSION}", authorization=None)
    services.clock.advance(1_000_000)
    await rest.request("GET", f"/enrollments/e1?{VERSION}", authorization=None)
    listed = (await rest.request("GET", "/muster/v1/reports")).json
    assert [report["subject"] for report in listed] == ["/enrollments/e1", "/devices/d1"]
    report = listed[1]
    assert report["trackingId"] == refused.headers["x-ms-request-id"]
    assert report["timeUtc"] == "2026-09-21T14:13:20.0000000Z"
    assert (report["service"], report["scope"], report["operation"]) == ("hub", "hub", "GET")
    assert (report["verdict"], report["answer"]) == ("refused", "401002 Unauthorized")
    assert report["credential"] == "no credential"
    assert report["peer"] == "127.0.0.1:40001 HTTPS TLSv1.3"
    assert [(item["id"], item["outcome"]) for item in report["checks"]] == [("sas.format", "refused")]
    assert report["checks"][0]["fix"]


async def test_reports_by_service_and_number(rest: RestClient) -> None:
    for number in range(3):
        await rest.request("GET", f"/devices/d{number}?{VERSION}", authorization=None)
    await rest.request("GET", f"/enrollments/e1?{VERSION}", authorization=None)
    assert len((await rest.request("GET", "/muster/v1/reports")).json) == 4
    assert len((await rest.request("GET", "/muster/v1/reports?service=hub")).json) == 3
    assert len((await rest.request("GET", "/muster/v1/reports?service=dps&top=5")).json) == 1
    assert len((await rest.request("GET", "/muster/v1/reports?top=2")).json) == 2
    assert (await rest.request("GET", "/muster/v1/reports?service=other")).status == 400


async def test_each_hub_reads_reports_with_its_own_keys(rest: RestClient, services: Services) -> None:
    """The policies of all hubs have the same names."""
    east = await services.hubs.ensure("east", "localhost", partition_count=1)
    assert (await rest.request("GET", "/muster/v1/reports")).status == 200
    token = rest.token(HUB_OWNER, "localhost", key=east.policies[HUB_OWNER].primary_key)
    reports = "/muster/v1/reports"
    assert (await rest.request("GET", reports, host="localhost", authorization=token)).status == 200
    assert (await rest.request("GET", reports, authorization=token)).status == 401


async def test_a_report_is_found_by_every_spelling_of_its_tracking_id(rest: RestClient) -> None:
    refused = await rest.request("GET", f"/devices/d1?{VERSION}", authorization=None)
    tracking_id = refused.headers["x-ms-request-id"]
    printed = refused.json["ExceptionMessage"].removeprefix("Tracking ID:")
    digits = tracking_id.replace("-", "")
    for spelling in (tracking_id, tracking_id.upper(), digits, printed.replace(" ", "%20"), "%2Fdevices%2Fd1"):
        found = await rest.request("GET", f"/muster/v1/reports/{spelling}")
        assert found.status == 200, spelling
        assert found.json[0]["trackingId"] == tracking_id
    missing = await rest.request("GET", "/muster/v1/reports/nobody")
    assert missing.status == 404
    assert "nobody" in missing.json["message"]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
async def test_own_routes_only_read(rest: RestClient, method: str) -> None:
    answer = await rest.request(method, EVENTS, authorization=rest.token(HUB_OWNER, HUB_HOST))
    assert answer.status == 405
    assert answer.json["errorCode"] == 405000


@pytest.mark.parametrize("origin", ["https://evil.example.com", "null"])
async def test_no_page_of_another_origin_may_read(rest: RestClient, origin: str) -> None:
    for path in ("/muster/v1/status", EVENTS):
        answer = await rest.request("GET", path, origin=origin)
        assert not [name for name in answer.headers if name.startswith("access-control")]
