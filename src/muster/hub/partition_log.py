"""The event log as readers of one partition see it: where a position is, what stands there, and what comes.

Events stay together as they are stored: who sends a million of them has no time for each. Sources: hub-service.md 8.4,
8.5. Not here: appending (``events.py``), and who may read (``partition_readers.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from muster.bus.bus import Bus, Message, Subscription
from muster.domain.errors import ArgumentInvalidError, PartitionUnknownError
from muster.domain.event_hub import Key, StartingPosition
from muster.hub.event_batches import PLACE, STORED, EventRun, read_runs, runs_of
from muster.hub.events import events_subject
from muster.store.database import Database, Row


@dataclass(frozen=True, slots=True)
class PartitionInformation:
    """What clients are told of a partition. ``last_sequence_number`` is -1 and ``last_enqueued_time`` None before its
    first event; both stay when events leave, the time only as long as there are some.
    """

    begin_sequence_number: int
    last_sequence_number: int
    last_offset: int
    last_enqueued_time: int | None
    is_empty: bool


class PartitionLog:
    """The partitions of all hubs."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._last_offsets: dict[tuple[str, int], tuple[int, int]] = {}

    async def read(self, hub: str, partition: int, number: int, limit: int) -> list[EventRun]:
        """Up to ``limit`` events from a sequence number on, fewer where they are large; none when there are none."""
        return await read_runs(self._database, hub, partition, number, limit)

    async def locate(self, hub: str, partition: int, position: StartingPosition) -> int:
        """The sequence number of the first event to read.

        Raises PartitionUnknownError, and ArgumentInvalidError for a position behind the end of the log.
        """
        end = await self._end(hub, partition)
        key, value = position.key, position.value
        if key is Key.END:
            return end[0]
        if key is Key.SEQUENCE_NUMBER:
            if value > end[0]:
                raise ArgumentInvalidError(
                    f"The supplied sequence number '{value - 1}' is invalid. The last sequence number in the system is"
                    f" '{end[0] - 1}'"
                )
            return value
        if key is Key.OFFSET and value > end[1]:
            last = await self.information(hub, partition)
            raise ArgumentInvalidError(
                f"The supplied offset '{value - 1}' is invalid. The last offset in the system is '{last.last_offset}'"
            )
        return await self._first(hub, partition, position, end[0])

    async def _end(self, hub: str, partition: int) -> tuple[int, int]:
        """The next sequence number and the next offset."""
        row = await self._database.fetch_one(
            "SELECT next_sequence_number, next_offset FROM event_partition WHERE hub = :hub AND partition = :partition",
            hub=hub,
            partition=partition,
        )
        if row is None:
            raise PartitionUnknownError(f"The specified partition is invalid for an EventHub partition: {partition}.")
        return row[0], row[1]

    async def _first(self, hub: str, partition: int, position: StartingPosition, end: int) -> int:
        """By halves: offsets and times rise with sequence numbers."""
        by_offset = position.key is Key.OFFSET
        low, high = 0, end
        found: Row | None = None
        while low < high:
            row = await self._row_at(hub, partition, (low + high) // 2)
            if row is None:
                high = (low + high) // 2
            elif row[2] <= position.value if by_offset else row[3] < position.value:
                low = row[0] + 1
            else:
                high, found = min(row[1], (low + high) // 2), row
        if found is None:
            return end
        return await self._within(hub, partition, position.value, found) if by_offset else int(found[1])

    async def _row_at(self, hub: str, partition: int, number: int) -> Row | None:
        """Where the events of a row are: last and first sequence number, next offset, time."""
        return await self._database.fetch_one(
            f"SELECT {PLACE} FROM event_batch WHERE hub = :hub AND partition = :partition"
            " AND last_sequence_number >= :number ORDER BY last_sequence_number LIMIT 1",
            hub=hub,
            partition=partition,
            number=number,
        )

    async def _within(self, hub: str, partition: int, offset: int, place: Row) -> int:
        """The first event of a row with this offset or a later one; else what follows the row."""
        for run in await self._runs(hub, partition, place[0]):
            at = run.offset
            for index, body in enumerate(run.bodies):
                if at >= offset:
                    return run.sequence_number + index
                at += len(body) + 1
        return int(place[0]) + 1

    async def _runs(self, hub: str, partition: int, last: int) -> list[EventRun]:
        row = await self._database.fetch_one(
            f"SELECT {STORED} FROM event_batch WHERE hub = :hub AND partition = :partition"
            " AND last_sequence_number = :last",
            hub=hub,
            partition=partition,
            last=last,
        )
        return [] if row is None else runs_of(row, 0, row[2])

    async def information(self, hub: str, partition: int) -> PartitionInformation:
        """Raises PartitionUnknownError."""
        end, next_offset = await self._end(hub, partition)
        oldest = await self._row_at(hub, partition, 0)
        newest = await self._database.fetch_one(
            f"SELECT {PLACE} FROM event_batch WHERE hub = :hub AND partition = :partition"
            " ORDER BY last_sequence_number DESC LIMIT 1",
            hub=hub,
            partition=partition,
        )
        if newest is None or oldest is None:
            # The newest event has left: reading goes on behind it all the same.
            return PartitionInformation(end, end - 1, next_offset - 1, None, is_empty=True)
        offset = await self._last_offset(hub, partition, newest)
        return PartitionInformation(oldest[1], newest[0], offset, newest[3], is_empty=False)

    async def _last_offset(self, hub: str, partition: int, newest: Row) -> int:
        """That of the last event; it stands in the row, which is not read again as long as it is the newest one."""
        known = self._last_offsets.get((hub, partition))
        if known is None or known[0] != newest[0]:
            runs = await self._runs(hub, partition, newest[0])
            length = len(runs[-1].bodies[-1]) if runs else 0
            known = self._last_offsets[hub, partition] = (newest[0], newest[2] - length - 1)
        return known[1]

    async def created(self, hub: str) -> int:
        """When a hub was made, in microseconds UTC."""
        row = await self._database.fetch_one("SELECT created FROM hub WHERE name = :hub", hub=hub)
        return row[0] if row else 0

    def listen(self, hub: str, partition: int, wake: Callable[[], None]) -> Subscription:
        """Call ``wake`` when there may be more in the partition, until the subscription is closed."""
        return self._bus.subscribe(events_subject(hub), partial(_tell, partition, wake))


def _tell(partition: int, wake: Callable[[], None], message: Message) -> None:
    if not message.data or partition in message.data:
        wake()
