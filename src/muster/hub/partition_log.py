"""The event log as readers of one partition see it: where a position is, what stands there, and what comes.

Rows stay rows: who sends a million of them has no time for more. Sources: hub-service.md 8.4, 8.5. Not here: appending
(``events.py``), and who may read (``partition_readers.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from muster.bus.bus import Bus, Message, Subscription
from muster.domain.errors import ArgumentInvalidError, PartitionUnknownError
from muster.domain.event_hub import Key, StartingPosition
from muster.hub.events import events_subject
from muster.store.database import Database, Row

LARGEST_READ = 200
"""Events. SQLite reads them on the event loop in about a millisecond; many more would be read twice (``sqlite.py``)."""

_LARGEST_READ_BYTES = 2 * 1024 * 1024

_COLUMNS = (
    "sequence_number, event_offset, enqueued_time, body, source, device_id, module_id, generation_id,"
    " authentication_method, model_id, system_properties, application_properties"
)

EventRow = tuple[Any, ...]
"""Sequence number, offset, time in microseconds UTC and body of an event; behind them eight texts, which many events
share: source, device id, module id, generation id, authentication method, model id, and the system and application
properties as JSON.
"""


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

    async def read(self, hub: str, partition: int, number: int, limit: int) -> list[EventRow]:
        """Events from a sequence number on, fewer where they are large."""
        limit = min(limit, LARGEST_READ)
        if limit > 1:
            limit = await self._fitting(hub, partition, number, limit)
        return await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM event WHERE hub = :hub AND partition = :partition AND sequence_number >= :number"
            " ORDER BY sequence_number LIMIT :limit",
            hub=hub,
            partition=partition,
            number=number,
            limit=limit,
        )

    async def _fitting(self, hub: str, partition: int, number: int, limit: int) -> int:
        """So many that their bodies fit into one read: offsets count the bytes of bodies."""
        row = await self._database.fetch_one(
            "SELECT (SELECT event_offset FROM event WHERE hub = :hub AND partition = :partition"
            " AND sequence_number >= :last ORDER BY sequence_number LIMIT 1),"
            " (SELECT event_offset FROM event WHERE hub = :hub AND partition = :partition"
            " AND sequence_number >= :number ORDER BY sequence_number LIMIT 1), next_offset"
            " FROM event_partition WHERE hub = :hub AND partition = :partition",
            hub=hub,
            partition=partition,
            number=number,
            last=number + limit,
        )
        if row is None or row[1] is None:
            return limit
        size = (row[2] if row[0] is None else row[0]) - row[1]
        return limit if size <= _LARGEST_READ_BYTES else max(1, limit * _LARGEST_READ_BYTES // size)

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
        """By halves: offsets and times rise with sequence numbers, which have no gaps."""
        oldest = await self._event_at(hub, partition, position.key, 0)
        low, high = (end if oldest is None else oldest[0]), end
        while low < high:
            middle = (low + high) // 2
            found = await self._event_at(hub, partition, position.key, middle)
            if found is None or found[1] >= position.value:
                high = middle
            else:
                low = middle + 1
        return low

    async def _event_at(self, hub: str, partition: int, key: Key, number: int) -> Row | None:
        return await self._database.fetch_one(
            f"SELECT sequence_number, {key.value} FROM event WHERE hub = :hub AND partition = :partition"
            " AND sequence_number >= :number ORDER BY sequence_number LIMIT 1",
            hub=hub,
            partition=partition,
            number=number,
        )

    async def information(self, hub: str, partition: int) -> PartitionInformation:
        """Raises PartitionUnknownError."""
        end, next_offset = await self._end(hub, partition)
        oldest = await self._event_at(hub, partition, Key.OFFSET, 0)
        newest = await self._database.fetch_one(
            "SELECT sequence_number, event_offset, enqueued_time FROM event WHERE hub = :hub"
            " AND partition = :partition ORDER BY sequence_number DESC LIMIT 1",
            hub=hub,
            partition=partition,
        )
        if newest is None:
            # The newest event has left: reading goes on behind it all the same.
            return PartitionInformation(end, end - 1, next_offset - 1, None, is_empty=True)
        begin = newest[0] if oldest is None else oldest[0]
        return PartitionInformation(begin, newest[0], newest[1], newest[2], is_empty=False)

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
