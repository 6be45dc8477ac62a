"""How events are stored: those that one commit brought to a partition are one row, with the bodies as they came.

A row for each event would cost the writer more than everything else a message needs. The rows of a partition are found
by the last sequence number in them; the numbers, and the offsets, of the others follow from it. Not here: the log
(``events.py``), and how long it keeps what (``event_sweeper.py``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from muster.domain.documents import read
from muster.domain.message import Event, Origin
from muster.store.database import Database, Row, Transaction

TABLE: Final = "event_batch"
_COLUMNS: Final = (
    "hub",
    "partition",
    "last_sequence_number",
    "message_count",
    "next_offset",
    "enqueued_time",
    "runs",
)
STORED: Final = "partition, last_sequence_number, message_count, next_offset, enqueued_time, runs"
"""What ``runs_of`` wants to have of a row, as columns of a SELECT."""

PLACE: Final = "last_sequence_number, last_sequence_number - message_count + 1, next_offset, enqueued_time"
"""Where the events of a row are, as columns of a SELECT: last and first sequence number, next offset, time."""

LARGEST_READ: Final = 512
"""Events: what one row may hold. To read and send so many keeps the event loop for a millisecond or two."""

_LARGEST_READ_BYTES: Final = 1024 * 1024
_ROWS_AT_ONCE: Final = 64

# What is read and deleted at once is bounded by these, but for one run.
_MOST_MESSAGES: Final = 512
_MOST_BYTES: Final = 512 * 1024

Head = tuple[str, str, str, str, str, str, str, str]
"""What the messages of one connection with the same properties share: source, device id, module id, generation id,
authentication method, model id; system properties and application properties as JSON text.
"""

Run = tuple[Head, Sequence[bytes]]
"""Messages with one head that follow each other: the body of each."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[Head, list[bytes]]]).decode


@dataclass(slots=True)
class Messages:
    """Messages for one partition in their order: the runs, how many messages, and how many bytes of bodies."""

    runs: list[Run]
    count: int
    size: int

    @classmethod
    def of(cls, *runs: Run) -> "Messages":
        """Counts them itself, for who has no count of its own."""
        bodies = [body for _, bodies in runs for body in bodies]
        return cls(list(runs), len(bodies), sum(map(len, bodies)))


def stored(hub: str, partition: int, number: int, offset: int, messages: Messages, now: int) -> list[tuple[Any, ...]]:
    """The rows of messages from this sequence number and offset on, for ``store``."""
    rows = []
    for part in _parts(messages):
        number += part.count
        # An offset counts the bytes of all bodies before it, and one more for each of them: so no two are equal.
        offset += part.size + part.count
        rows.append((hub, partition, number - 1, part.count, offset, now, _encode(part.runs)))
    return rows


async def store(tx: Transaction, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows of ``stored``."""
    await tx.insert_rows(TABLE, _COLUMNS, rows)


def _parts(messages: Messages) -> Iterator[Messages]:
    """The messages in pieces of a size that a reader takes at once."""
    if messages.count <= _MOST_MESSAGES and messages.size <= _MOST_BYTES:
        yield messages
        return
    part = Messages([], 0, 0)
    for head, bodies in messages.runs:
        for start in range(0, len(bodies), _MOST_MESSAGES):
            some = bodies[start : start + _MOST_MESSAGES]
            size = sum(map(len, some))
            if part.count and (part.count + len(some) > _MOST_MESSAGES or part.size + size > _MOST_BYTES):
                yield part
                part = Messages([], 0, 0)
            part.runs.append((head, some))
            part.count += len(some)
            part.size += size
    yield part


class EventRun(NamedTuple):
    """Events with one head that follow each other; sequence number and offset are those of the first. The time is in
    microseconds UTC.
    """

    head: Head
    sequence_number: int
    offset: int
    enqueued_time: int
    bodies: list[bytes]


def runs_of(row: Row, since: int, limit: int) -> list[EventRun]:
    """Up to ``limit`` events of a row with the columns ``STORED``, from the sequence number ``since`` on."""
    _, last, count, offset, enqueued_time, content = row
    decoded = _decode(content)
    number = last - count + 1
    offset -= count + sum([sum(map(len, bodies)) for _, bodies in decoded])
    found: list[EventRun] = []
    for head, bodies in decoded:
        passed = min(len(bodies), max(0, since - number))
        some = bodies[passed : passed + limit] if passed or len(bodies) > limit else bodies
        if some:
            before = passed + sum(map(len, bodies[:passed]))
            found.append(EventRun(head, number + passed, offset + before, enqueued_time, some))
            limit -= len(some)
            if not limit:
                break
        number += len(bodies)
        offset += len(bodies) + sum(map(len, bodies))
    return found


async def read_runs(database: Database, hub: str, partition: int, number: int, limit: int) -> list[EventRun]:
    """Up to ``limit`` events from a sequence number on, fewer where they are large; none when there are none."""
    limit = min(limit, LARGEST_READ)
    last = await _last_of_read(database, hub, partition, number, limit)
    if last is None:
        return []
    rows = await database.fetch_all(
        f"SELECT {STORED} FROM event_batch WHERE hub = :hub AND partition = :partition"
        " AND last_sequence_number >= :number AND last_sequence_number <= :last ORDER BY last_sequence_number",
        hub=hub,
        partition=partition,
        number=number,
        last=last,
    )
    runs: list[EventRun] = []
    for row in rows:
        found = runs_of(row, number, limit)
        limit -= sum([len(run.bodies) for run in found])
        runs += found
    return runs


async def _last_of_read(database: Database, hub: str, partition: int, number: int, limit: int) -> int | None:
    """The last row to read for so many events."""
    rows = await database.fetch_all(
        f"SELECT {PLACE} FROM event_batch WHERE hub = :hub AND partition = :partition"
        " AND last_sequence_number >= :number ORDER BY last_sequence_number LIMIT :rows",
        hub=hub,
        partition=partition,
        number=number,
        rows=min(limit, _ROWS_AT_ONCE),
    )
    if not rows:
        return None
    enough, most = max(number, rows[0][1]) + limit - 1, rows[0][2] + _LARGEST_READ_BYTES
    taken = rows[0][0]
    for last, first, next_offset, _ in rows[1:]:
        if first > enough or next_offset > most:
            break
        taken = last
    return int(taken)


def events_of(run: EventRun, partition: int) -> list[Event]:
    """The events of a run one by one."""
    events: list[Event] = []
    head, number, offset, enqueued_time, bodies = run
    source, device_id, module_id, generation_id, method, model_id, system, application = head
    origin = Origin(
        device_id=device_id,
        module_id=module_id,
        generation_id=generation_id,
        authentication_method=method,
        model_id=model_id,
    )
    for body in bodies:
        event = Event(
            partition=partition,
            sequence_number=number,
            offset=str(offset),
            enqueued_time=enqueued_time,
            source=source,
            origin=origin,
            system_properties=read(system, dict[str, Any]),
            application_properties=read(application, dict[str, Any]),
            body=body,
        )
        events.append(event)
        number += 1
        offset += len(body) + 1
    return events
