"""Queues whose messages are handed out under a lock: enqueue, lock next, settle, and what happens by itself.

Statements inside a transaction of the caller, which knows why. A message that leaves its queue leaves its feedback
behind if its sender asked. Every statement that claims something has a contract test
(``tests/contract/test_c2d_claims.py``). Sources: hub-device.md 5.1, hub-service.md 6.5. Not here: whose queues these
are (``c2d_messages.py``, ``feedback.py``).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from muster.domain.c2d_message import (
    C2dDelivery,
    C2dProperties,
    Outcome,
    feedback_record,
    outcome_of_return,
    wants_feedback,
)
from muster.domain.documents import encode, read
from muster.store.database import Row, Transaction

QUEUE_TABLES = ("queued_message", "feedback_record", "message_queue")
"""Keyed by hub and device id: what goes when a device or a hub goes."""

_KEY = "hub = :hub AND device_id = :device_id AND module_id = :module_id"
_COLUMNS = (
    "hub, device_id, module_id, sequence_number, generation_id, enqueued_time, expiry, delivery_count, deliveries,"
    " lock_token, due, properties, body"
)
_RETURNING = f" RETURNING {_COLUMNS}"


class Queue(NamedTuple):
    """The key of one queue. Feedback has no device id."""

    hub: str
    device_id: str
    module_id: str

    @property
    def key(self) -> dict[str, str]:
        return self._asdict()


class Queued(NamedTuple):
    """One row, in the order of ``_COLUMNS``."""

    hub: str
    device_id: str
    module_id: str
    sequence_number: int
    generation_id: str
    enqueued_time: int
    expiry: int
    delivery_count: int
    deliveries: int
    lock_token: str | None
    due: int
    properties: str
    body: bytes

    @property
    def queue(self) -> Queue:
        return Queue(self.hub, self.device_id, self.module_id)

    @property
    def delivery(self) -> C2dDelivery:
        """For the receiver that has the lock."""
        assert self.lock_token is not None, "it was just locked"
        return C2dDelivery(
            lock_token=self.lock_token,
            locked_until=self.due,
            sequence_number=self.sequence_number,
            enqueued_time=self.enqueued_time,
            expiry=self.expiry,
            delivery_count=self.delivery_count,
            redelivered=self.deliveries > 1,
            properties=read(self.properties, C2dProperties),
            body=self.body,
        )


MaximumOf = Callable[[Queue], int]
"""The maximum delivery count of a queue's messages."""


async def enqueue(
    tx: Transaction, queue: Queue, generation_id: str, properties: C2dProperties, body: bytes, expiry: int, now: int
) -> int:
    """Append a message; its sequence number. Who bounds the depth holds a lock that all who enqueue take."""
    row = await tx.fetch_one(
        "INSERT INTO message_queue (hub, device_id, module_id, last_sequence_number, last_enqueued)"
        " VALUES (:hub, :device_id, :module_id, 1, :now) ON CONFLICT (hub, device_id, module_id) DO UPDATE"
        " SET last_sequence_number = message_queue.last_sequence_number + 1, last_enqueued = excluded.last_enqueued"
        " RETURNING last_sequence_number",
        now=now,
        **queue.key,
    )
    assert row is not None, "inserted or updated"
    number: int = row[0]
    await tx.execute(
        "INSERT INTO queued_message (hub, device_id, module_id, sequence_number, generation_id, enqueued_time, expiry,"
        " delivery_count, deliveries, lock_token, receiver, due, properties, body)"
        " VALUES (:hub, :device_id, :module_id, :number, :generation_id, :now, :expiry, 0, 0, NULL, '', :expiry,"
        " :properties, :body)",
        number=number,
        generation_id=generation_id,
        now=now,
        expiry=expiry,
        properties=encode(properties),
        body=body,
        **queue.key,
    )
    return number


async def depth(tx: Transaction, queue: Queue) -> int:
    """How many messages wait or are locked."""
    row = await tx.fetch_one(f"SELECT count(*) FROM queued_message WHERE {_KEY}", **queue.key)
    assert row is not None, "an aggregate has a row"
    count: int = row[0]
    return count


async def lock_next(
    tx: Transaction, queue: Queue, receiver: str, token: str, now: int, locked_until: int
) -> Queued | None:
    """The oldest message that waits, locked for ``receiver``; None when there is none for it.

    A receiver that let a lock lapse does not get that message again; '' is nobody in particular, and gets all.
    """
    row = await tx.fetch_one(
        "UPDATE queued_message SET lock_token = :token, receiver = :receiver, due = :locked_until,"
        " deliveries = deliveries + 1"
        f" WHERE {_KEY} AND lock_token IS NULL AND sequence_number = ("
        f"SELECT sequence_number FROM queued_message WHERE {_KEY} AND lock_token IS NULL AND due > :now"
        " AND (receiver = '' OR receiver <> :receiver) ORDER BY sequence_number LIMIT 1 {skip_locked})" + _RETURNING,
        token=token,
        receiver=receiver,
        locked_until=locked_until,
        now=now,
        **queue.key,
    )
    return Queued(*row) if row else None


async def remove_locked(tx: Transaction, queue: Queue, token: str, outcome: Outcome, now: int) -> bool:
    """Complete or reject by lock token; False when the lock is lost."""
    row = await tx.fetch_one(
        f"DELETE FROM queued_message WHERE {_KEY} AND lock_token = :token AND due > :now" + _RETURNING,
        token=token,
        now=now,
        **queue.key,
    )
    if row is None:
        return False
    await _leave_feedback(tx, Queued(*row), outcome, now)
    return True


async def abandon(tx: Transaction, queue: Queue, token: str, maximum_of: MaximumOf, now: int) -> bool:
    """Give a message back, which counts as a delivery; False when the lock is lost."""
    row = await tx.fetch_one(
        "UPDATE queued_message SET lock_token = NULL, receiver = '', delivery_count = delivery_count + 1, due = expiry"
        f" WHERE {_KEY} AND lock_token = :token AND due > :now" + _RETURNING,
        token=token,
        now=now,
        **queue.key,
    )
    if row is None:
        return False
    await _judge_return(tx, Queued(*row), maximum_of, now)
    return True


async def release(tx: Transaction, queue: Queue, receiver: str, now: int) -> int:
    """Give back all that a receiver holds, which counts as nothing: it went away. How many messages those were."""
    assert receiver, "nobody in particular holds nothing"
    return await tx.execute(
        f"UPDATE queued_message SET lock_token = NULL, receiver = '', due = expiry WHERE {_KEY}"
        " AND receiver = :receiver AND lock_token IS NOT NULL AND due > :now",
        receiver=receiver,
        now=now,
        **queue.key,
    )


async def release_all(tx: Transaction, now: int) -> None:
    """The same for all receivers with a name: none of them is connected."""
    await tx.execute(
        "UPDATE queued_message SET lock_token = NULL, receiver = '', due = expiry"
        " WHERE receiver <> '' AND lock_token IS NOT NULL AND due > :now",
        now=now,
    )


async def purge(tx: Transaction, queue: Queue, now: int) -> int:
    """Remove all messages of a queue, locked ones included; how many."""
    rows = await tx.fetch_all(f"DELETE FROM queued_message WHERE {_KEY}" + _RETURNING, **queue.key)
    for row in rows:
        await _leave_feedback(tx, Queued(*row), Outcome.PURGED, now)
    return len(rows)


async def settle_waiting(tx: Transaction, queue: Queue, outcome: Outcome, now: int) -> int:
    """Remove all messages of a queue that nobody has locked; how many."""
    rows = await tx.fetch_all(
        f"DELETE FROM queued_message WHERE {_KEY} AND lock_token IS NULL" + _RETURNING, **queue.key
    )
    for row in rows:
        await _leave_feedback(tx, Queued(*row), outcome, now)
    return len(rows)


async def settle_due(tx: Transaction, queue: Queue, maximum_of: MaximumOf, now: int) -> None:
    """Do what is due in one queue: whoever reads or fills it finds it as it should be."""
    rows = await tx.fetch_all(
        f"SELECT {_COLUMNS} FROM queued_message WHERE {_KEY} AND due <= :now ORDER BY sequence_number {{for_update}}",
        now=now,
        **queue.key,
    )
    await _settle(tx, rows, maximum_of, now)


async def settle_all_due(tx: Transaction, maximum_of: MaximumOf, now: int, limit: int) -> list[Queue]:
    """Do what is due in all queues, for up to ``limit`` messages; the queue of each of them."""
    rows = await tx.fetch_all(
        f"SELECT {_COLUMNS} FROM queued_message WHERE due <= :now"
        " ORDER BY hub, device_id, module_id, sequence_number LIMIT :limit {for_update}",
        now=now,
        limit=limit,
    )
    await _settle(tx, rows, maximum_of, now)
    return [Queued(*row).queue for row in rows]


async def _settle(tx: Transaction, rows: Sequence[Row], maximum_of: MaximumOf, now: int) -> None:
    """Expired messages go; a lapsed lock counts as a delivery, and its message goes or waits again."""
    for row in rows:
        message = Queued(*row)
        if message.lock_token is not None:
            message = message._replace(delivery_count=message.delivery_count + 1)
            await tx.execute(
                "UPDATE queued_message SET lock_token = NULL, delivery_count = :delivery_count, due = expiry"
                f" WHERE {_KEY} AND sequence_number = :number",
                delivery_count=message.delivery_count,
                number=message.sequence_number,
                **message.queue.key,
            )
        await _judge_return(tx, message, maximum_of, now)


async def _judge_return(tx: Transaction, message: Queued, maximum_of: MaximumOf, now: int) -> None:
    limit = maximum_of(message.queue)
    outcome = outcome_of_return(message.delivery_count, message.expiry, limit, now)
    if outcome is not None:
        await tx.execute(
            f"DELETE FROM queued_message WHERE {_KEY} AND sequence_number = :number",
            number=message.sequence_number,
            **message.queue.key,
        )
        await _leave_feedback(tx, message, outcome, now)


async def _leave_feedback(tx: Transaction, message: Queued, outcome: Outcome, now: int) -> None:
    properties = read(message.properties, C2dProperties)
    if not wants_feedback(properties.ack, outcome):
        return
    record = feedback_record(properties, message.device_id, message.generation_id, outcome, now)
    await tx.execute(
        "INSERT INTO feedback_record (hub, device_id, module_id, generation_id, sequence_number, time, document)"
        " VALUES (:hub, :device_id, :module_id, :generation_id, :number, :now, :document)",
        generation_id=message.generation_id,
        number=message.sequence_number,
        now=now,
        document=encode(record),
        **message.queue.key,
    )
