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
"""Bytes of bodies that one partition keeps, however young they are; the batch that reaches over it is kept whole."""

_AT_ONCE = 100


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
        """The oldest batches, up to the first one that is kept; numbers that are left are always without a gap."""
        partition_row = await self._database.fetch_one(
            "SELECT next_offset FROM event_partition WHERE hub = :hub AND partition = :partition",
            hub=hub.name,
            partition=partition,
        )
        if partition_row is None:
            return 0
        since, floor = self._clock() - hub.events.retention_days * DAY, partition_row[0] - self._partition_limit
        batches = await self._database.fetch_all(
            "SELECT last_sequence_number, message_count, next_offset, enqueued_time FROM event_batch"
            " WHERE hub = :hub AND partition = :partition ORDER BY last_sequence_number LIMIT :limit",
            hub=hub.name,
            partition=partition,
            limit=_AT_ONCE,
        )
        swept, last = 0, -1
        for number, count, next_offset, enqueued in batches:
            if enqueued >= since and next_offset > floor:
                break
            swept, last = swept + count, number

        async def body(tx: Transaction) -> None:
            await tx.execute(
                "DELETE FROM event_batch WHERE hub = :hub AND partition = :partition AND last_sequence_number <= :last",
                hub=hub.name,
                partition=partition,
                last=last,
            )

        if swept:
            await self._database.transact(body)
        return swept
