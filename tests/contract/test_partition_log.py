"""The event log as readers of a partition see it, on both databases."""

from collections.abc import AsyncIterator

import pytest

from muster.domain.errors import ArgumentInvalidError, PartitionUnknownError
from muster.domain.event_hub import BEGINNING, LATEST, Key, StartingPosition
from muster.domain.message import Event
from muster.domain.timestamp import SECOND
from muster.frontends.event_messages import EventEncoder
from muster.hub.event_batches import LARGEST_READ, EventRun, Head, Messages
from muster.hub.events import Position
from muster.hub.partition_log import PartitionLog
from muster.store.database import Database, Transaction
from muster.store.migration import migrate
from tests.support.fix_services import NOW, Clock, Services, build_services

OTHER: Head = ("Telemetry", "dev-2", "", "638", "{}", "", "{}", "{}")
HEAD: Head = ("Telemetry", "dev-1", "", "638", "{}", "", "{}", "{}")


@pytest.fixture
async def services(database: Database) -> AsyncIterator[Services]:
    clock = Clock()
    await migrate(database, clock())
    built = await build_services(database, clock)
    yield built
    await built.registrations.stop(within=60)


@pytest.fixture
def log(services: Services) -> PartitionLog:
    return services.partition_readers.log


async def fill(services: Services, sizes: list[int]) -> None:
    """In partition 1, a second apart."""
    for size in sizes:
        await services.events.store("hub", 1, Messages.of((HEAD, [bytes(size)])))
        services.clock.advance(SECOND)


def flat(runs: list[EventRun]) -> list[tuple[int, int, int, bytes]]:
    """Sequence number, offset, time and body of each event."""
    found = []
    for run in runs:
        offset = run.offset
        for index, body in enumerate(run.bodies):
            found.append((run.sequence_number + index, offset, run.enqueued_time, body))
            offset += len(body) + 1
    return found


async def test_every_position_is_where_counting_finds_it(services: Services, log: PartitionLog) -> None:
    await fill(services, [3, 0, 5, 1, 1, 9, 2])

    async def lose(tx: Transaction) -> None:
        await tx.execute("DELETE FROM event_batch WHERE last_sequence_number < 2")

    await services.database.transact(lose)
    await services.events.store("hub", 1, Messages.of((HEAD, [b"abc", b"", b"d"]), (OTHER, [b"ef"])))
    events = flat(await log.read("hub", 1, 0, 100))
    assert [event[0] for event in events] == [2, 3, 4, 5, 6, 7, 8, 9, 10]
    end = 11

    def first(index: int, value: int) -> int:
        return next((event[0] for event in events if event[index] >= value), end)

    for value in range(events[-1][1] + 3):
        assert await log.locate("hub", 1, StartingPosition(Key.OFFSET, value)) == first(1, value)
    for value in range(NOW - 1, NOW + 9 * SECOND, SECOND // 2):
        assert await log.locate("hub", 1, StartingPosition(Key.ENQUEUED_TIME, value)) == first(2, value)
    assert await log.locate("hub", 1, BEGINNING) == 0
    assert await log.locate("hub", 1, LATEST) == end
    for position in (StartingPosition(Key.SEQUENCE_NUMBER, end + 1), StartingPosition(Key.OFFSET, 10**9)):
        with pytest.raises(ArgumentInvalidError):
            await log.locate("hub", 1, position)
    with pytest.raises(PartitionUnknownError):
        await log.locate("hub", 99, BEGINNING)


async def test_rows_become_messages(services: Services, log: PartitionLog) -> None:
    await fill(services, [3, 300])
    assert len(EventEncoder().encode(await log.read("hub", 1, 0, 10))) == 2


async def test_reads_of_any_size_see_every_event_once(services: Services, log: PartitionLog) -> None:
    """The same as the log itself reads, which has a row for each commit too."""
    for count in (1, 3, 700, 2, 40):
        bodies = [str(number).encode() * (number % 5) for number in range(count)]
        half = count // 2
        await services.events.store("hub", 1, Messages.of((HEAD, bodies[:half]), (OTHER, bodies[half:])))
    events: list[Event] = []
    position = Position((0, 0, 0, 0))
    while more := await services.events.read("hub", position, 1000, 1):
        events += more[0]
        position = more[1]
        if not more[0]:
            break
    wanted = [(event.sequence_number, int(event.offset), event.enqueued_time, event.body) for event in events]
    assert len(wanted) == 746
    for limit in (1, 7, 200, LARGEST_READ, 10_000):
        found: list[tuple[int, int, int, bytes]] = []
        while some := flat(await log.read("hub", 1, len(found), limit)):
            assert len(some) <= min(limit, LARGEST_READ)
            found += some
        assert found == wanted


async def test_a_read_holds_few_large_events(services: Services, log: PartitionLog) -> None:
    for _ in range(40):
        await services.events.store("hub", 1, Messages.of((HEAD, [bytes(250_000)])))
    assert 1 <= len(flat(await log.read("hub", 1, 0, 1000))) <= 6


async def test_what_is_known_of_a_partition(services: Services, log: PartitionLog) -> None:
    await fill(services, [3, 4])
    found = await log.information("hub", 1)
    assert (found.begin_sequence_number, found.last_sequence_number, found.last_offset) == (0, 1, 4)
    assert (found.last_enqueued_time, found.is_empty) == (NOW + SECOND, False)
