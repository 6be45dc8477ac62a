"""What leaves the event log: events older than their hub keeps them, and the oldest of a partition that is too large.

A few at a time, each time in a transaction of its own that locks nothing but what it deletes, so that nobody who
appends waits. Readers that are behind go on at the oldest event there is. Sources: hub-service.md 10.
"""

from collections.abc import Callable

from muster.domain.timestamp import DAY
from muster.hub.hubs import Hub, Hubs
from muster.hub.sweeping import Sweeping
from muster.store.database import Database, Transaction

SWEEP_SECONDS = 30.0
PARTITION_LIMIT = 4 * 1024 * 1024 * 1024
"""Bytes of bodies that one partition keeps, however young they are."""

_AT_ONCE = 500


class EventSweeper(Sweeping):
    """Sweeps the logs of all hubs."""

    what = "events"
    seconds = SWEEP_SECONDS

    def __init__(
        self, database: Database, hubs: Hubs, clock: Callable[[], int], partition_limit: int = PARTITION_LIMIT
    ) -> None:
        super().__init__()
        self._database = database
        self._hubs = hubs
        self._clock = clock
        self._partition_limit = partition_limit

    async def sweep(self) -> int:
        """Delete all that is not kept any longer; how many events that were."""
        total = 0
        for hub in self._hubs.all:
            for partition in range(hub.partition_count):
                while count := await self._sweep_some(hub, partition):
                    total += count
        return total

    async def _sweep_some(self, hub: Hub, partition: int) -> int:
        """The oldest events, up to the first one that is kept; numbers that are left are always without a gap."""
        oldest = await self._database.fetch_one(
            "SELECT e.sequence_number, e.enqueued_time, e.event_offset, p.next_offset FROM event e"
            " JOIN event_partition p ON p.hub = e.hub AND p.partition = e.partition"
            " WHERE e.hub = :hub AND e.partition = :partition ORDER BY e.sequence_number LIMIT 1",
            hub=hub.name,
            partition=partition,
        )
        if oldest is None:
            return 0
        number, enqueued, offset, next_offset = oldest
        since, floor = self._clock() - hub.events.retention_days * DAY, next_offset - self._partition_limit
        if enqueued >= since and offset >= floor:
            return 0

        async def body(tx: Transaction) -> int:
            # What is seen here and nothing else is deleted: others append behind it before this is committed.
            seen = await tx.fetch_one(
                "SELECT max(sequence_number),"
                " min(CASE WHEN enqueued_time >= :since AND event_offset >= :floor THEN sequence_number END)"
                " FROM event WHERE hub = :hub AND partition = :partition"
                " AND sequence_number >= :number AND sequence_number < :following",
                hub=hub.name,
                partition=partition,
                number=number,
                following=number + _AT_ONCE,
                since=since,
                floor=floor,
            )
            if seen is None or seen[0] is None:
                return 0
            newest, first_kept = seen
            return await tx.execute(
                "DELETE FROM event WHERE hub = :hub AND partition = :partition"
                " AND sequence_number >= :number AND sequence_number < :first_kept",
                hub=hub.name,
                partition=partition,
                number=number,
                first_kept=newest + 1 if first_kept is None else first_kept,
            )

        return await self._database.transact(body)
