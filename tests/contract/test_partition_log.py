"""The event log as readers of a partition see it, on both databases."""

from collections.abc import AsyncIterator

import pytest

from muster.domain.errors import ArgumentInvalidError, PartitionUnknownError
from muster.domain.event_hub import BEGINNING, LATEST, Key, StartingPosition
from muster.domain.timestamp import SECOND
from muster.frontends.event_messages import EventEncoder
from muster.hub.events import Head, Messages
from muster.hub.partition_log import LARGEST_READ, PartitionLog
from muster.store.database import Database, Transaction
from muster.store.migration import migrate
from tests.support.fix_services import NOW, Clock, Services, build_services

HEAD: Head = ("Telemetry", "dev-1", "", "638", "{}", "", "{}", "{}")


@pytest.fixture
async def services(database: Database) -> AsyncIterator[Services]:
    clock = Clock()
    await migrate(database, clock())
    built = await build_services(database, clock)
    yield built
    await built.registrations.stop()


@pytest.fixture
def log(services: Services) -> PartitionLog:
    return services.partition_readers.log


async def fill(services: Services, sizes: list[int]) -> None:
    """In partition 1, a second apart."""
    for size in sizes:
        await services.events.store("hub", 1, Messages.of((HEAD, [bytes(size)])))
        services.clock.advance(SECOND)


async def test_every_position_is_where_counting_finds_it(services: Services, log: PartitionLog) -> None:
    await fill(services, [3, 0, 5, 1, 1, 9, 2])

    async def lose(tx: Transaction) -> None:
        await tx.execute("DELETE FROM event WHERE sequence_number < 2")

    await services.database.transact(lose)
    rows = await log.read("hub", 1, 0, 100)
    assert [row[0] for row in rows] == [2, 3, 4, 5, 6]
    end = 7

    def first(index: int, value: int) -> int:
        return next((row[0] for row in rows if row[index] >= value), end)

    for value in range(rows[-1][1] + 3):
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


async def test_a_read_holds_few_or_small_events(services: Services, log: PartitionLog) -> None:
    await services.events.store("hub", 1, Messages.of((HEAD, [b"x"] * 300)))
    assert len(await log.read("hub", 1, 0, 1000)) == LARGEST_READ
    await services.events.store("hub", 1, Messages.of((HEAD, [bytes(250_000)] * 100)))
    large = await log.read("hub", 1, 300, 1000)
    assert 1 <= len(large) <= 10
    mixed = await log.read("hub", 1, 250, 1000)
    assert len(mixed) >= 1
    assert sum(len(row[3]) for row in mixed) <= 10 * 1024 * 1024


async def test_what_is_known_of_a_partition(services: Services, log: PartitionLog) -> None:
    await fill(services, [3, 4])
    found = await log.information("hub", 1)
    assert (found.begin_sequence_number, found.last_sequence_number, found.last_offset) == (0, 1, 4)
    assert (found.last_enqueued_time, found.is_empty) == (NOW + SECOND, False)
