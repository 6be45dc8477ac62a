"""How long events are kept: by time, by size, and what a reader hears that is behind."""

import pytest
from tests.support.fix_arm import HUBS, ManagementClient
from tests.support.fix_rest import RestClient
from tests.support.fix_services import Services

from muster.domain.hub_event import EventSettings
from muster.domain.timestamp import DAY, HOUR, MINUTE
from muster.hub.event_batches import Head, Messages
from muster.hub.event_sweeper import EventSweeper
from muster.hub.events import Position

HEAD: Head = ("Telemetry", "d1", "", "1", "{}", "", "{}", "{}")
START = Position((0, 0, 0, 0))


async def store(services: Services, count: int, partition: int = 0, size: int = 1) -> None:
    await services.events.store("hub", partition, Messages.of((HEAD, [b"x" * size] * count)))


async def numbers(services: Services, partition: int = 0) -> list[int]:
    events, _ = await services.events.read("hub", START, 1000, partition)
    return [event.sequence_number for event in events]


async def test_events_of_a_day_are_kept(services: Services) -> None:
    await store(services, 3)
    services.clock.advance(HOUR)
    await store(services, 2)
    await store(services, 1, partition=2)
    services.clock.advance(23 * HOUR)
    assert await services.event_sweeper.sweep() == 0
    services.clock.advance(MINUTE)
    assert await services.event_sweeper.sweep() == 3
    assert await numbers(services) == [3, 4]
    services.clock.advance(HOUR)
    assert await services.event_sweeper.sweep() == 3
    assert await numbers(services) == []
    await store(services, 1)
    assert await numbers(services) == [5], "numbers go on"


async def test_a_hub_may_keep_them_for_a_week(services: Services) -> None:
    await services.hubs.update("hub", (), services.hub.facts, events=EventSettings(retention_days=7))
    await store(services, 1)
    services.clock.advance(7 * DAY)
    assert await services.event_sweeper.sweep() == 0
    services.clock.advance(1)
    assert await services.event_sweeper.sweep() == 1


async def test_many_are_deleted_in_parts(services: Services) -> None:
    for _ in range(4):
        await store(services, 400)
    services.clock.advance(2 * DAY)
    await store(services, 7)
    assert await services.event_sweeper.sweep() == 1600
    assert await numbers(services) == list(range(1600, 1607))


async def test_a_large_partition_loses_its_oldest(services: Services) -> None:
    sweeper = EventSweeper(services.database, services.hubs, services.clock, partition_limit=1001)
    for _ in range(10):
        await store(services, 1, size=99)
    await store(services, 10, partition=1, size=9)
    assert await sweeper.sweep() == 0
    await store(services, 2, size=99)
    assert await sweeper.sweep() == 1, "two bytes of the second one are within the limit"
    assert await numbers(services) == list(range(1, 12))
    assert await numbers(services, 1) == list(range(10))


async def test_a_clock_that_was_set_back_leaves_no_gap(services: Services) -> None:
    await store(services, 1)
    services.clock.advance(-2 * DAY)
    await store(services, 1)
    services.clock.advance(3 * DAY - HOUR)
    assert await services.event_sweeper.sweep() == 0, "the first one is not a day old"
    assert await numbers(services) == [0, 1]


@pytest.mark.parametrize(("query", "skipped"), [("continuation=0-0-0-0", "5"), ("partition=0&from=2", "1")])
async def test_a_reader_that_is_behind(services: Services, rest: RestClient, query: str, skipped: str) -> None:
    await store(services, 3)
    await store(services, 2, partition=3)
    services.clock.advance(2 * DAY)
    await store(services, 1)
    await services.event_sweeper.sweep()
    answer = await rest.request("GET", f"/muster/v1/events?{query}")
    assert [event["sequenceNumber"] for event in answer.json] == [3]
    assert answer.headers["x-muster-skipped"] == skipped
    following = answer.headers["x-muster-continuation"]
    again = await rest.request("GET", f"/muster/v1/events?continuation={following}&partition=0")
    assert (again.json, "x-muster-skipped" in again.headers) == ([], False)
    earliest = await rest.request("GET", "/muster/v1/events?from=earliest")
    assert (len(earliest.json), "x-muster-skipped" in earliest.headers) == (1, False)


async def test_the_setting(arm: ManagementClient, services: Services) -> None:
    def body(days: object) -> dict[str, object]:
        endpoints = {"events": {"retentionTimeInDays": days}}
        return {"location": "a", "properties": {"hostName": "east.example.net", "eventHubEndpoints": endpoints}}

    assert (await arm.request("PUT", f"{HUBS}/east", body(3))).status == 201
    assert services.hubs.by_name("east").events.retention_days == 3
    answer = await arm.request("PUT", f"{HUBS}/east", body(None))
    assert answer.json["properties"]["eventHubEndpoints"]["events"]["retentionTimeInDays"] == 3
    for days in (0, 8, True, "1", 1.5):
        answer = await arm.request("PUT", f"{HUBS}/east", body(days))
        assert answer.status == 400
        assert "retentionTimeInDays" in answer.json["message"]
