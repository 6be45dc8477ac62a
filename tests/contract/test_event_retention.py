"""What leaves the event log while others append to it, on both databases: nothing new is lost, and the numbers that are
left have no gap.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from muster.domain.timestamp import DAY
from muster.hub.event_batches import Head, Messages
from muster.hub.event_sweeper import EventSweeper
from muster.hub.events import Position
from muster.store.database import Database
from muster.store.migration import migrate
from tests.support.fix_services import Clock, Services, build_services

ROUNDS = 12
WRITERS = 4
APPENDS = 15
LARGEST_BATCH = 3
HEAD: Head = ("Telemetry", "d1", "", "1", "{}", "", "{}", "{}")


@pytest.fixture
async def hub(database: Database) -> AsyncIterator[Services]:
    clock = Clock()
    await migrate(database, clock())
    services = await build_services(database, clock)
    yield services
    await services.registrations.stop(within=60)


async def append(services: Services, partition: int, *bodies: bytes) -> None:
    await services.events.store("hub", partition, Messages.of((HEAD, list(bodies))))


async def write(services: Services, writer: int, tag: str, size: int = 0) -> list[bytes]:
    """Append to one partition, one batch after the other; what was appended, in its order."""
    written: list[bytes] = []
    for number in range(APPENDS):
        names = [f"{tag}-{writer}-{number}-{part}" for part in range(number % LARGEST_BATCH + 1)]
        bodies = [name.encode().ljust(size, b".") for name in names]
        await append(services, writer % 4, *bodies)
        written += bodies
    return written


async def sweep_until(sweeper: EventSweeper, done: asyncio.Event) -> int:
    total = 0
    while not done.is_set():
        total += await sweeper.sweep()
        await asyncio.sleep(0)
    return total


async def left(services: Services, partition: int) -> list[bytes]:
    """The bodies of what is left, which has to be the newest of the partition without a gap."""
    _, newest = await services.events.positions("hub")
    position, events = Position((0, 0, 0, 0)), []
    while True:
        more, position = await services.events.read("hub", position, 1000, partition)
        if not more:
            break
        events += more
    end = newest.next_sequence_numbers[partition]
    assert [event.sequence_number for event in events] == list(range(end - len(events), end))
    return [event.body for event in events]


async def while_sweeping(
    services: Services, sweepers: list[EventSweeper], tag: str, size: int = 0
) -> list[list[bytes]]:
    """All writers at once while the sweepers never rest; what each has written."""
    done = asyncio.Event()
    sweeping = [asyncio.create_task(sweep_until(sweeper, done)) for sweeper in sweepers]
    try:
        return await asyncio.gather(*(write(services, writer, tag, size) for writer in range(WRITERS)))
    finally:
        done.set()
        await asyncio.gather(*sweeping)


async def test_by_time(hub: Services) -> None:
    """In every round all that was there is too old, and nothing that is appended then."""
    sweepers = [hub.event_sweeper, EventSweeper(hub.database, hub.hubs, hub.clock)]
    for round_number in range(ROUNDS):
        hub.clock.advance(2 * DAY)
        written = await while_sweeping(hub, sweepers, str(round_number))
        await hub.event_sweeper.sweep()
        for partition in range(WRITERS):
            assert await left(hub, partition) == written[partition]


async def test_by_size(hub: Services) -> None:
    size, limit = 99, 2000
    kept = limit // (size + 1)
    sweepers = [EventSweeper(hub.database, hub.hubs, hub.clock, partition_limit=limit) for _ in range(2)]
    for round_number in range(ROUNDS):
        written = await while_sweeping(hub, sweepers, str(round_number), size)
        await sweepers[0].sweep()
        for partition in range(WRITERS):
            found = await left(hub, partition)
            assert found == written[partition][-len(found) :]
            assert kept <= len(found) < kept + LARGEST_BATCH, "what came together goes together"


async def test_a_reader_that_keeps_up_sees_everything(hub: Services) -> None:
    """Retention takes only what is too old: who reads at the end of the log misses nothing while that goes on."""
    _, position = await hub.events.positions("hub")
    for round_number in range(3):
        hub.clock.advance(2 * DAY)
        read: list[list[bytes]] = [[] for _ in range(WRITERS)]

        async def follow(start: Position, read: list[list[bytes]]) -> Position:
            while sum(map(len, read)) < WRITERS * APPENDS * 2:
                events, start = await hub.events.read("hub", start, 1000)
                for event in events:
                    read[event.partition].append(event.body)
                await asyncio.sleep(0)
            return start

        async with asyncio.timeout(60):
            position, written = await asyncio.gather(
                follow(position, read), while_sweeping(hub, [hub.event_sweeper], str(round_number))
            )
        assert read == written
