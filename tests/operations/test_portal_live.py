"""The portal's live lists: what a stream carries, where it goes on, and that nothing of it is left when it ends."""

import asyncio
import contextlib
import gc
import json
import re
import time
from collections.abc import AsyncIterator

import pytest
from starlette.types import Message
from tests.support.asgi import Stream, ask, http_scope, stream
from tests.support.fix_pki import self_signed
from tests.support.fix_portal import HOSTILE, portal_of, send_event, send_events, try_to_register
from tests.support.fix_services import Services

from muster.hub.events import events_subject
from muster.portal import live
from muster.portal.app import Portal
from muster.portal.live import MAXIMUM_STREAMS

ARRIVALS = "/stream?lists=arrivals&rows=50"
REFUSALS = "/stream?lists=refusals&rows=50"


@pytest.fixture
def portal(services: Services) -> Portal:
    services.clock.now = time.time_ns() // 1000
    return portal_of(services)


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """People look once a second; tests have less time."""
    monkeypatch.setattr(live, "_POLL_SECONDS", 0.02)


async def next_event(reading: Stream) -> tuple[str, str, str]:
    """Name, id (empty without one) and HTML of the next server-sent event."""
    text = (await reading.until(b"data: ")).decode()
    while not text.endswith("\n\n"):
        text += (await reading.until(b"\n\n")).decode()
    fields = dict(re.findall(r"^(\w+): (.*)$", text, re.MULTILINE))
    return fields["event"], fields.get("id", ""), json.loads(fields["data"])


def listening(services: Services) -> bool:
    """Whether anybody listens for the hub's events on the bus."""
    return events_subject(services.hub.name) in services.bus._subscriptions


# Arrivals


async def test_a_message_appears_when_it_is_committed(services: Services, portal: Portal) -> None:
    await send_event(services, "before", b"0")
    async with stream(portal, ARRIVALS) as reading:
        start = await reading.start
        assert (b"content-type", b"text/event-stream; charset=utf-8") in start["headers"]
        assert (b"cache-control", b"no-store") in start["headers"]
        await reading.until(b"retry: 2000\n\n")
        await send_event(services, "pump-01", b'{"n":1}', {"a": "b"}, partition=2)
        name, position, rows = await next_event(reading)
    assert (name, position) == ("arrivals", "1-0-1-0")
    assert "pump-01" in rows
    assert "before" not in rows
    assert rows.count("<tr ") == 1


async def test_a_stream_goes_on_where_the_page_was_rendered(services: Services, portal: Portal) -> None:
    await send_event(services, "shown", b"0")
    await send_event(services, "between", b"1")
    async with stream(portal, f"{ARRIVALS}&after=1-0-0-0") as reading:
        _, position, rows = await next_event(reading)
    assert position == "2-0-0-0"
    assert "between" in rows
    assert "shown" not in rows


async def test_a_browser_that_comes_back_goes_on_after_what_it_saw(services: Services, portal: Portal) -> None:
    for number in range(3):
        await send_event(services, f"d{number}", b"x")
    headers = {"Last-Event-ID": "2-0-0-0"}
    async with stream(portal, f"{ARRIVALS}&after=0-0-0-0", headers) as reading:
        _, _, rows = await next_event(reading)
    assert "d2" in rows
    assert "d1" not in rows


@pytest.mark.parametrize("after", ["9-9-9-9", "0-0", "x", "1--1-0-0", "0-0-0-0-0", "%00", "9" * 5000])
async def test_a_position_of_other_data_means_from_now_on(services: Services, portal: Portal, after: str) -> None:
    await send_event(services, "before", b"x")
    async with stream(portal, f"{ARRIVALS}&after={after}") as reading:
        await reading.until(b"retry")
        await send_event(services, "pump-01", b"y")
        _, _, rows = await next_event(reading)
    assert "pump-01" in rows
    assert "before" not in rows


async def test_messages_of_all_partitions_come_newest_first(services: Services, portal: Portal) -> None:
    await send_event(services, "older", b"x", partition=0)
    services.clock.advance(1_000_000)
    await send_event(services, "newer", b"x", partition=1)
    async with stream(portal, f"{ARRIVALS}&after=0-0-0-0") as reading:
        _, _, rows = await next_event(reading)
    assert rows.index("newer") < rows.index("older")


async def test_a_stream_that_fell_behind_jumps_to_the_newest(services: Services, portal: Portal) -> None:
    await send_events(services, [("d", b"%d" % number, {}) for number in range(400)])
    async with stream(portal, "/stream?lists=arrivals&rows=8&after=0-0-0-0") as reading:
        _, position, rows = await next_event(reading)
    assert position == "400-0-0-0"
    assert [int(n) for n in re.findall(r'id="arrival-0-(\d+)-', rows)] == list(range(399, 391, -1))


async def test_a_stream_does_not_send_more_often_than_a_reader_can_see(services: Services, portal: Portal) -> None:
    """Messages that come one by one, faster than twice a second, come to the page in groups."""
    async with stream(portal, ARRIVALS) as reading:
        await reading.until(b"retry")
        began = time.monotonic()
        for number in range(10):
            await send_event(services, "d", b"%d" % number)
        groups = []
        while sum(groups) < 10:
            groups.append((await next_event(reading))[2].count("<tr "))
        took = time.monotonic() - began
    assert sum(groups) == 10
    assert len(groups) <= took / 0.5 + 1


async def test_the_text_of_a_device_cannot_break_the_stream(services: Services, portal: Portal) -> None:
    async with stream(portal, ARRIVALS) as reading:
        await reading.until(b"retry")
        await send_event(services, "d", b"a\r\n\r\nevent: refusals\ndata: forged\n\n", {"k\nid: 9": HOSTILE})
        raw = (await reading.until(b"data: ")).decode()
        while not raw.endswith("\n\n"):
            raw += (await reading.until(b"\n\n")).decode()
    lines = [line for line in raw.split("\n") if line]
    assert [line.partition(":")[0] for line in lines] == ["id", "event", "data"]
    assert "\r" not in raw
    assert "<script>" not in json.loads(lines[2].removeprefix("data: "))


# Refusals


async def test_refusals_come_at_once_and_as_they_happen(services: Services, portal: Portal) -> None:
    before = await try_to_register(services, "before", self_signed("before"))
    async with stream(portal, REFUSALS) as reading:
        name, position, rows = await next_event(reading)
        assert (name, position) == ("refusals", "")
        assert f'id="refusal-{before}"' in rows
        after = await try_to_register(services, "after", self_signed("after"))
        _, _, rows = await next_event(reading)
    assert f'id="refusal-{after}"' in rows
    assert "before" not in rows


async def test_a_refusal_by_a_clock_that_was_set_back_is_seen(services: Services, portal: Portal) -> None:
    await try_to_register(services, "future", self_signed("future"))
    services.clock.advance(-400 * 86_400_000_000)
    async with stream(portal, REFUSALS) as reading:
        await next_event(reading)
        await try_to_register(services, "now", self_signed("now"))
        _, _, rows = await next_event(reading)
    assert "now" in rows


async def test_one_stream_carries_both_lists(services: Services, portal: Portal) -> None:
    async with stream(portal, "/stream?lists=arrivals,refusals&rows=8") as reading:
        await reading.until(b"retry")
        await send_event(services, "pump-01", b"x")
        await try_to_register(services, "stranger", self_signed("stranger"))
        names = {(await next_event(reading))[0], (await next_event(reading))[0]}
    assert names == {"arrivals", "refusals"}


# The end


async def test_nothing_is_left_when_the_client_goes(services: Services, portal: Portal) -> None:
    tasks = asyncio.all_tasks()
    async with stream(portal, "/stream?lists=arrivals,refusals&rows=8") as reading:
        await reading.until(b"retry")
        await send_event(services, "pump-01", b"x")
        await reading.until(b"pump-01")
        assert listening(services)
    assert not listening(services)
    assert asyncio.all_tasks() - tasks == set()
    gc.collect()  # a generator that nobody closed would warn here


async def test_nothing_is_left_when_the_client_goes_in_the_middle_of_a_write(
    services: Services, portal: Portal
) -> None:
    await send_event(services, "pump-01", b"x")
    blocked, gone = asyncio.Event(), asyncio.Event()

    async def receive() -> Message:
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if b"pump-01" in message.get("body", b""):
            blocked.set()
            await asyncio.Event().wait()  # the client does not read

    serving = asyncio.ensure_future(portal(http_scope("GET", f"{ARRIVALS}&after=0-0-0-0"), receive, send))
    async with asyncio.timeout(30):
        await blocked.wait()
        gone.set()
        await serving
    assert not listening(services)
    gc.collect()


async def test_closing_the_portal_ends_every_stream_and_refuses_new_ones(services: Services, portal: Portal) -> None:
    async with stream(portal, ARRIVALS) as one, stream(portal, REFUSALS) as other:
        await one.until(b"retry")
        await other.until(b"retry")
        portal.close()
        async with asyncio.timeout(30):
            await one.ended.wait()
            await other.ended.wait()
    assert not listening(services)
    assert (await ask(portal, "GET", ARRIVALS)).status == 503


async def test_a_closed_event_log_ends_its_part_and_no_more(services: Services, portal: Portal) -> None:
    async with stream(portal, "/stream?lists=arrivals,refusals&rows=8") as reading:
        await reading.until(b"retry")
        services.events.close()
        tracking_id = await try_to_register(services, "stranger", self_signed("stranger"))
        assert tracking_id in (await next_event(reading))[2]


async def test_a_server_that_stops_in_any_order_ends_its_streams(services: Services, portal: Portal) -> None:
    async with stream(portal, ARRIVALS) as reading:
        await reading.until(b"retry")
        services.events.close()
        portal.close()
        async with asyncio.timeout(30):
            await reading.ended.wait()


async def test_a_client_that_goes_in_the_moment_of_a_wake_up_leaves_nothing(services: Services, portal: Portal) -> None:
    for steps in range(8):
        async with stream(portal, ARRIVALS) as reading:
            await reading.until(b"retry")
            await asyncio.sleep(0.01)
            services.bus.publish(events_subject(services.hub.name), b"")
            for _ in range(steps):
                await asyncio.sleep(0)
            reading.gone.set()
        assert not listening(services)


async def test_a_server_that_is_cancelled_ends_its_streams(services: Services, portal: Portal) -> None:
    started = asyncio.Event()

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Message) -> None:
        if message.get("body"):
            started.set()

    serving = asyncio.ensure_future(portal(http_scope("GET", ARRIVALS), receive, send))
    await started.wait()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert not listening(services)


async def test_a_database_that_cannot_serve_ends_the_stream_in_order(
    services: Services, portal: Portal, caplog: pytest.LogCaptureFixture
) -> None:
    """The browser comes back after the time that ``retry`` said."""
    async with stream(portal, REFUSALS) as reading:
        await reading.until(b"retry")
        await services.database.close()
        async with asyncio.timeout(30):
            await reading.ended.wait()
    assert "a live list ended" in caplog.text


async def test_the_number_of_streams_is_bounded(services: Services, portal: Portal) -> None:
    async with many_streams(portal, MAXIMUM_STREAMS):
        refused = await ask(portal, "GET", ARRIVALS)
        assert refused.status == 503
        assert refused.headers["retry-after"] == "10"
        assert refused.headers["content-security-policy"]
    async with stream(portal, ARRIVALS) as reading:
        assert (await reading.start)["status"] == 200


@contextlib.asynccontextmanager
async def many_streams(portal: Portal, count: int) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            reading = await stack.enter_async_context(stream(portal, REFUSALS))
            assert (await reading.start)["status"] == 200
        yield


async def test_a_head_request_opens_no_stream(services: Services, portal: Portal) -> None:
    answer = await ask(portal, "HEAD", ARRIVALS)
    assert (answer.status, answer.body) == (200, b"")
    assert not listening(services)


@pytest.mark.parametrize("target", ["/stream?lists=arrivals&hub=third", "/stream?lists=arrivals,refusals&hub=%00"])
async def test_a_stream_of_an_unknown_hub_is_not_found(portal: Portal, target: str) -> None:
    assert (await ask(portal, "GET", target)).status == 404
