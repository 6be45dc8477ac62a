"""Cloud-to-device messages of all hubs: send, receive under a lock, settle, purge, count.

Sources: hub-device.md 5, hub-service.md 6.4, 6.5. Not here: the feedback to senders (``feedback.py``), any protocol.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from muster.bus.bus import Bus, Subscription
from muster.domain.c2d_message import (
    LOCK_DURATION,
    MAXIMUM_QUEUE_DEPTH,
    C2dDelivery,
    C2dMessage,
    Outcome,
    accepted,
)
from muster.domain.errors import DeviceNotFoundError, MessageLockLostError, QueueDepthExceededError
from muster.hub import message_queue
from muster.hub.feedback import feedback_subject
from muster.hub.hubs import Hubs
from muster.hub.message_queue import Queue
from muster.store.database import Database, Transaction

_TOKEN_BYTES = 16


Following = Subscription
"""``close()`` ends it."""


def c2d_subject(hub: str, device_id: str, module_id: str) -> str:
    """The bus subject on which receivers of an identity hear that a message may wait for them."""
    return f"c2d.{hub}.{device_id}/{module_id}"


@dataclass(frozen=True, slots=True)
class Sent:
    """What the hub made of a message; times in microseconds UTC."""

    sequence_number: int
    enqueued_time: int
    expiry: int


class C2dMessages:
    """The queues of all identities. Every operation first does what is due in its queue, so the time counts as it is,
    not as it was when somebody last swept.
    """

    def __init__(
        self, database: Database, bus: Bus, hubs: Hubs, clock: Callable[[], int], entropy: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._bus = bus
        self._hubs = hubs
        self._clock = clock
        self._entropy = entropy

    def _maximum(self, queue: Queue) -> int:
        return self._hubs.by_name(queue.hub).c2d.maximum_delivery_count

    def _wake(self, queue: Queue) -> None:
        self._bus.publish(c2d_subject(*queue), b"")
        self._bus.publish(feedback_subject(queue.hub), b"")

    async def send(self, hub: str, device_id: str, module_id: str, message: C2dMessage) -> Sent:
        """Queue a message; it is on disk when this returns.

        Raises DeviceNotFoundError, QueueDepthExceededError, and what ``accepted`` raises.
        """
        message = accepted(message, device_id, module_id)
        queue = Queue(hub, device_id, module_id)
        time_to_live = self._hubs.by_name(hub).c2d.default_time_to_live

        async def body(tx: Transaction) -> Sent:
            now = self._clock()
            # Also the lock of all who enqueue for this identity: a count cannot be locked.
            identity = await tx.fetch_one(
                "SELECT generation_id FROM identity"
                " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id {for_update}",
                **queue.key,
            )
            if identity is None:
                raise DeviceNotFoundError(f"{device_id}/{module_id}" if module_id else device_id)
            await message_queue.settle_due(tx, queue, self._maximum, now)
            if await message_queue.depth(tx, queue) >= MAXIMUM_QUEUE_DEPTH:
                raise QueueDepthExceededError(
                    f"{MAXIMUM_QUEUE_DEPTH} messages wait for the device {device_id}, and no more are allowed."
                )
            expiry = message.properties.expiry or now + time_to_live
            number = await message_queue.enqueue(tx, queue, identity[0], message.properties, message.body, expiry, now)
            return Sent(number, now, expiry)

        sent = await self._database.transact(body)
        self._wake(queue)
        return sent

    async def lock_next(
        self, hub: str, device_id: str, module_id: str, receiver: str = "", duration: int = LOCK_DURATION
    ) -> C2dDelivery | None:
        """The oldest message that waits, locked for ``duration`` microseconds; None when there is none.

        ``receiver`` names a connection, which gets nothing back whose lock it let lapse, and whose locks ``release``
        ends; '' is a receiver of one message.
        """
        queue = Queue(hub, device_id, module_id)
        token = str(UUID(bytes=self._entropy(_TOKEN_BYTES)))
        # A look costs no commit, and most looks find nothing.
        if (
            await self._database.fetch_one(
                "SELECT 1 FROM queued_message"
                " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id LIMIT 1",
                **queue.key,
            )
            is None
        ):
            return None

        async def body(tx: Transaction) -> C2dDelivery | None:
            now = self._clock()
            await message_queue.settle_due(tx, queue, self._maximum, now)
            locked = await message_queue.lock_next(tx, queue, receiver, token, now, now + duration)
            return locked.delivery if locked else None

        return await self._database.transact(body)

    async def complete(self, hub: str, device_id: str, module_id: str, lock_token: str) -> None:
        """The device has it: Completed. Raises MessageLockLostError."""
        await self._remove(Queue(hub, device_id, module_id), lock_token, Outcome.SUCCESS)

    async def reject(self, hub: str, device_id: str, module_id: str, lock_token: str) -> None:
        """The device will never take it: DeadLettered. Raises MessageLockLostError."""
        await self._remove(Queue(hub, device_id, module_id), lock_token, Outcome.REJECTED)

    async def _remove(self, queue: Queue, lock_token: str, outcome: Outcome) -> None:
        async def body(tx: Transaction) -> None:
            if not await message_queue.remove_locked(tx, queue, lock_token, outcome, self._clock()):
                raise MessageLockLostError

        await self._database.transact(body)
        self._bus.publish(feedback_subject(queue.hub), b"")

    async def abandon(self, hub: str, device_id: str, module_id: str, lock_token: str) -> None:
        """The device wants it later: back to the queue, or DeadLettered when that was once too often. Raises
        MessageLockLostError.
        """
        queue = Queue(hub, device_id, module_id)

        async def body(tx: Transaction) -> None:
            if not await message_queue.abandon(tx, queue, lock_token, self._maximum, self._clock()):
                raise MessageLockLostError

        await self._database.transact(body)
        self._wake(queue)

    async def release(self, hub: str, device_id: str, module_id: str, receiver: str) -> None:
        """A connection is gone: what it had and did not settle waits again, and its delivery count stays
        (hub-device.md 5.2).
        """
        queue = Queue(hub, device_id, module_id)

        async def body(tx: Transaction) -> int:
            return await message_queue.release(tx, queue, receiver, self._clock())

        if await self._database.transact(body):
            self._wake(queue)

    async def release_all(self) -> None:
        """At the start of a single node: no connection has a message any more."""

        async def body(tx: Transaction) -> None:
            await message_queue.release_all(tx, self._clock())

        await self._database.transact(body)

    async def purge(self, hub: str, device_id: str, module_id: str = "") -> int:
        """Remove all messages that wait or are locked; how many. Raises DeviceNotFoundError."""
        queue = Queue(hub, device_id, module_id)

        async def body(tx: Transaction) -> int:
            identity = await tx.fetch_one(
                "SELECT 1 FROM identity"
                " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id {for_update}",
                **queue.key,
            )
            if identity is None:
                raise DeviceNotFoundError(f"{device_id}/{module_id}" if module_id else device_id)
            await message_queue.settle_due(tx, queue, self._maximum, self._clock())
            return await message_queue.purge(tx, queue, self._clock())

        purged = await self._database.transact(body)
        self._bus.publish(feedback_subject(hub), b"")
        return purged

    def follow(self, hub: str, device_id: str, module_id: str, wake: Callable[[], None]) -> Following:
        """Have ``wake`` called when a message may wait for this identity, until ``close()``."""
        return self._bus.subscribe(c2d_subject(hub, device_id, module_id), lambda _message: wake())

    async def settle_unheard(self, hub: str, device_id: str, module_id: str = "") -> int:
        """Complete what waits for a device that connected over MQTT and is not subscribed; how many.

        That is what becomes of it in Azure, although no device had it (hub-device.md 3.10).
        """
        queue = Queue(hub, device_id, module_id)
        if await self.count(hub, device_id, module_id) == 0:
            return 0

        async def body(tx: Transaction) -> int:
            await message_queue.settle_due(tx, queue, self._maximum, self._clock())
            return await message_queue.settle_waiting(tx, queue, Outcome.SUCCESS, self._clock())

        settled = await self._database.transact(body)
        self._bus.publish(feedback_subject(hub), b"")
        return settled

    async def count(self, hub: str, device_id: str, module_id: str = "") -> int:
        """``cloudToDeviceMessageCount``: how many messages wait or are locked now."""
        row = await self._database.fetch_one(
            "SELECT count(*) FROM queued_message WHERE hub = :hub AND device_id = :device_id"
            " AND module_id = :module_id AND (expiry > :now OR lock_token IS NOT NULL)",
            hub=hub,
            device_id=device_id,
            module_id=module_id,
            now=self._clock(),
        )
        return row[0] if row else 0
