"""Second half of migration 0007: the events, which had a row each, become batches of one."""

from typing import Final

import msgspec

from muster.store.database import Transaction

_AT_ONCE: Final = 500
_HEAD: Final = (
    "source, device_id, module_id, generation_id, authentication_method, model_id, system_properties,"
    " application_properties"
)
_COLUMNS: Final = (
    "hub",
    "partition",
    "last_sequence_number",
    "message_count",
    "next_offset",
    "enqueued_time",
    "runs",
)


async def convert(transaction: Transaction) -> None:
    """Copy table ``event`` to ``event_batch``, and drop it."""
    hub, partition, number = "", -1, -1
    while True:
        rows = await transaction.fetch_all(
            f"SELECT hub, partition, sequence_number, event_offset, enqueued_time, body, {_HEAD} FROM event"
            " WHERE (hub, partition, sequence_number) > (:hub, :partition, :number)"
            " ORDER BY hub, partition, sequence_number LIMIT :limit",
            hub=hub,
            partition=partition,
            number=number,
            limit=_AT_ONCE,
        )
        if not rows:
            break
        await transaction.insert_rows("event_batch", _COLUMNS, [_batch(*row) for row in rows])
        hub, partition, number = rows[-1][:3]
    await transaction.execute("DROP TABLE event")


def _batch(
    hub: str, partition: int, number: int, offset: int, enqueued_time: int, body: bytes, *head: str
) -> tuple[str, int, int, int, int, int, bytes]:
    runs = msgspec.msgpack.encode([(head, [body])])
    return hub, partition, number, 1, offset + len(body) + 1, enqueued_time, runs
