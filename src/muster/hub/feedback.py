"""Feedback on cloud-to-device messages: records gather, batches of them wait in one queue for each hub.

Sources: hub-device.md 5.3, hub-service.md 6.6. Several receivers compete for a hub's batches. Not here: when a message
leaves a record (``message_queue.py``).
"""

from collections.abc import Callable
from uuid import UUID

from muster.bus.bus import Bus, Subscription
from muster.domain.c2d_message import (
    FEEDBACK_CONTENT_TYPE,
    FEEDBACK_INTERVAL,
    MAXIMUM_FEEDBACK_RECORDS,
    C2dDelivery,
    C2dProperties,
    Outcome,
)
from muster.domain.errors import MessageLockLostError
from muster.hub import message_queue
from muster.hub.hubs import Hub, Hubs
from muster.hub.message_queue import Queue
from muster.store.database import Database, Transaction

_TOKEN_BYTES = 16
_ADDRESS = "/messages/serviceBound/feedback"
_RECORD_KEY = "device_id, module_id, generation_id, sequence_number"


def feedback_subject(hub: str) -> str:
    """The bus subject on which receivers of a hub's feedback hear that there may be some."""
    return f"feedback.{hub}"


def feedback_queue(hub: str) -> Queue:
    """Where a hub's batches wait: under a device id that no device can have."""
    return Queue(hub, "", "feedback")


class Feedback:
    """The feedback of all hubs."""

    def __init__(
        self, database: Database, bus: Bus, hubs: Hubs, clock: Callable[[], int], entropy: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._bus = bus
        self._hubs = hubs
        self._clock = clock
        self._entropy = entropy

    def _maximum(self, queue: Queue) -> int:
        return self._hubs.by_name(queue.hub).c2d.feedback.maximum_delivery_count

    async def lock_next(self, hub: str, receiver: str = "", duration: int | None = None) -> C2dDelivery | None:
        """The oldest batch that waits, locked for ``duration`` microseconds, by default as long as the hub says."""
        await self.gather(self._hubs.by_name(hub))
        queue = feedback_queue(hub)
        if await message_queue.is_empty(self._database, queue):
            return None
        lock = duration or self._hubs.by_name(hub).c2d.feedback.lock_duration
        token = self._guid()

        async def body(tx: Transaction) -> C2dDelivery | None:
            now = self._clock()
            await message_queue.settle_due(tx, queue, self._maximum, now)
            locked = await message_queue.lock_next(tx, queue, receiver, token, now, now + lock)
            return locked.delivery if locked else None

        return await self._database.transact(body)

    async def complete(self, hub: str, lock_token: str) -> None:
        """The receiver has the batch. Raises MessageLockLostError."""
        queue = feedback_queue(hub)

        async def body(tx: Transaction) -> None:
            if not await message_queue.remove_locked(tx, queue, lock_token, Outcome.SUCCESS, self._clock()):
                raise MessageLockLostError

        await self._database.transact(body)

    async def abandon(self, hub: str, lock_token: str) -> None:
        """The receiver gives the batch back; after too many times it is dropped. Raises MessageLockLostError."""
        queue = feedback_queue(hub)

        async def body(tx: Transaction) -> None:
            if not await message_queue.abandon(tx, queue, lock_token, self._maximum, self._clock()):
                raise MessageLockLostError

        await self._database.transact(body)
        self._bus.publish(feedback_subject(hub), b"")

    async def release(self, hub: str, receiver: str) -> None:
        """A connection is gone: the batches that it had wait again."""
        queue = feedback_queue(hub)

        async def body(tx: Transaction) -> int:
            return await message_queue.release(tx, queue, receiver, self._clock())

        if await self._database.transact(body):
            self._bus.publish(feedback_subject(hub), b"")

    def follow(self, hub: str, wake: Callable[[], None]) -> Subscription:
        """Have ``wake`` called when there may be a batch, until ``close()``."""
        return self._bus.subscribe(feedback_subject(hub), lambda _message: wake())

    async def gather(self, hub: Hub) -> bool:
        """Make batches of the records that wait, if it is time for one; whether there is a new batch."""
        waiting = await self._database.fetch_one("SELECT 1 FROM feedback_record WHERE hub = :hub LIMIT 1", hub=hub.name)
        if waiting is None:
            return False

        async def body(tx: Transaction) -> bool:
            made = False
            while await self._gather_one(tx, hub):
                made = True
            return made

        made = await self._database.transact(body)
        if made:
            self._bus.publish(feedback_subject(hub.name), b"")
        return made

    async def _gather_one(self, tx: Transaction, hub: Hub) -> bool:
        now = self._clock()
        queue = feedback_queue(hub.name)
        if not await _is_time(tx, queue, now):
            return False
        # Whoever makes a batch holds the queue's row, so no other takes these records.
        rows = await tx.fetch_all(
            f"DELETE FROM feedback_record WHERE hub = :hub AND ({_RECORD_KEY}) IN ("
            f"SELECT {_RECORD_KEY} FROM feedback_record WHERE hub = :hub ORDER BY time, {_RECORD_KEY} LIMIT :limit)"
            f" RETURNING time, {_RECORD_KEY}, document",
            hub=hub.name,
            limit=MAXIMUM_FEEDBACK_RECORDS,
        )
        if not rows:
            return False
        properties = C2dProperties(
            message_id=self._guid(), user_id=hub.name, to=_ADDRESS, content_type=FEEDBACK_CONTENT_TYPE
        )
        body = f"[{','.join(row[-1] for row in sorted(rows))}]".encode()
        await message_queue.enqueue(tx, queue, "", properties, body, now + hub.c2d.feedback.time_to_live, now)
        return True

    def _guid(self) -> str:
        return str(UUID(bytes=self._entropy(_TOKEN_BYTES)))


async def _is_time(tx: Transaction, queue: Queue, now: int) -> bool:
    """Whether there is a full batch, or the last one is long enough ago; locks the queue's row."""
    await tx.execute(
        "INSERT INTO message_queue (hub, device_id, module_id, last_sequence_number, last_enqueued)"
        " VALUES (:hub, :device_id, :module_id, 0, 0) ON CONFLICT (hub, device_id, module_id) DO NOTHING",
        **queue.key,
    )
    last = await tx.fetch_one(
        "SELECT last_enqueued FROM message_queue"
        " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id {for_update}",
        **queue.key,
    )
    records = await tx.fetch_one("SELECT count(*) FROM feedback_record WHERE hub = :hub", hub=queue.hub)
    assert last is not None, "the row was inserted or was there"
    assert records is not None, "an aggregate has a row"
    # A clock that was set back must not hold batches up until it is where it was.
    is_interval_over = not 0 <= now - last[0] < FEEDBACK_INTERVAL
    return bool(records[0] >= MAXIMUM_FEEDBACK_RECORDS or (records[0] and is_interval_over))
