"""The event log of a hub: accept messages in batches, acknowledge them after the commit, read and follow them.

All connections hand in what they read; what gathers while one commit runs is written by the next, in one
transaction (style-models.md 11.4 c). Sequence numbers are reserved in that same transaction, under the lock of the
partition's row, so a partition's rows become visible in their order. Sources: hub-device.md 4, hub-service.md 8.
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muster.bus.bus import Bus
from muster.domain.documents import read
from muster.domain.errors import NotFoundError, UnavailableError
from muster.domain.message import Event, Origin
from muster.store.database import Database, Row, Transaction

_log = logging.getLogger("muster.hub")

MAXIMUM_READ = 1000

WAITING_LIMIT = 64 * 1024 * 1024
"""Bytes of messages in all that may wait for the disk before connections should stop reading."""

_MESSAGE_OVERHEAD = 256  # what a message costs in memory beside its body, roughly

_COLUMNS = (
    "hub",
    "partition",
    "enqueued_time",
    "source",
    "device_id",
    "module_id",
    "generation_id",
    "authentication_method",
    "model_id",
    "system_properties",
    "application_properties",
    "sequence_number",
    "event_offset",
    "body",
)
_EVENT = (
    "partition, sequence_number, event_offset, enqueued_time, source, device_id, module_id, generation_id,"
    " authentication_method, model_id, system_properties, application_properties, body"
)

_POSITION = re.compile(r"\d{1,18}(-\d{1,18})*", re.ASCII)

Head = tuple[str, str, str, str, str, str, str, str]
"""What the messages of one connection with the same properties share: source, device id, module id, generation id,
authentication method, model id; system properties and application properties as JSON text.
"""

Run = tuple[Head, Sequence[bytes]]
"""Messages with one head that follow each other: the body of each."""

Committed = Callable[[BaseException | None], None]


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


@dataclass(slots=True)
class _Batch:
    """What gathered for one hub, by partition, and who waits for its commit."""

    partitions: dict[int, Messages]
    waiting: list[Committed]
    size: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader goes on: the next sequence number to read in each partition."""

    next_sequence_numbers: tuple[int, ...]

    def __str__(self) -> str:
        return "-".join(str(number) for number in self.next_sequence_numbers)

    @classmethod
    def parse(cls, text: str) -> "Position":
        """Raises ValueError for text that ``str`` did not make."""
        if _POSITION.fullmatch(text) is None:
            raise ValueError(text)
        return cls(tuple(int(part) for part in text.split("-")))


class EventLog:
    """The event logs of all hubs."""

    def __init__(
        self, database: Database, bus: Bus, clock: Callable[[], int], waiting_limit: int = WAITING_LIMIT
    ) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._waiting_limit = waiting_limit
        self._waiting = 0
        self.appended = 0
        """How many times something was appended here: whether devices send can be told from it."""
        self._followers: set[asyncio.Event] = set()
        self._closed = False
        self._gathering: dict[str, _Batch] = {}
        self._writing: set[str] = set()

    @property
    def is_full(self) -> bool:
        """Whether so much waits for the disk that who appends should read no more until it is told of its commit."""
        return self._waiting > self._waiting_limit

    def append(self, hub: str, partition: int, messages: Messages, committed: Committed) -> None:
        """Take the messages of one connection, which belong to the log from now on.

        ``committed(error)`` is called on the loop, in the order of the calls for one hub, when they are on disk, or
        with the error that kept them from it. A batch that fails takes along what gathered behind it, so that no
        message of a connection overtakes an earlier one.
        """
        batch = self._gathering.get(hub)
        if batch is None:
            batch = self._gathering[hub] = _Batch({}, [])
            if hub not in self._writing:
                asyncio.get_running_loop().call_soon(self._write, hub)
        size = messages.size + messages.count * _MESSAGE_OVERHEAD
        self.appended += 1
        self._waiting += size
        batch.size += size
        there = batch.partitions.get(partition)
        if there is None:
            batch.partitions[partition] = messages
        else:
            there.runs += messages.runs
            there.count += messages.count
            there.size += messages.size
        batch.waiting.append(committed)

    async def store(self, hub: str, partition: int, messages: Messages) -> None:
        """``append`` for who has nothing else to do: returns when the messages are on disk, or raises what kept them
        from it. Raises UnavailableError when too much waits already.
        """
        if self.is_full:
            raise UnavailableError("Too many messages wait for the disk.")
        stored: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def committed(error: BaseException | None) -> None:
            if stored.cancelled():
                return
            if error is None:
                stored.set_result(None)
            else:
                stored.set_exception(error)

        self.append(hub, partition, messages, committed)
        await stored

    def _write(self, hub: str) -> None:
        batch = self._gathering.pop(hub)
        self._writing.add(hub)

        async def body(tx: Transaction) -> None:
            await self._insert(tx, hub, batch.partitions)

        def done(_result: None, error: BaseException | None) -> None:
            self._writing.discard(hub)
            settled = [batch]
            if error is not None and hub in self._gathering:
                settled.append(self._gathering.pop(hub))
            elif hub in self._gathering:
                self._write(hub)
            for one in settled:
                self._waiting -= one.size
                _tell(one.waiting, error)
            if error is None:
                self._bus.publish(events_subject(hub), bytes(sorted(batch.partitions)))

        try:
            self._database.submit(body, done)
        except Exception as error:  # noqa: BLE001 - whatever refused the batch is told to those who wait for it
            asyncio.get_running_loop().call_soon(done, None, error)

    async def _insert(self, tx: Transaction, hub: str, partitions: Mapping[int, Messages]) -> None:
        now = self._clock()
        rows: list[tuple[Any, ...]] = []
        for partition in sorted(partitions):
            messages = partitions[partition]
            number, offset = await self._reserve(tx, hub, partition, messages)
            for head, bodies in messages.runs:
                stamped = (hub, partition, now) + head  # noqa: RUF005 - unpacking costs half as much again, here and below
                for body in bodies:
                    rows.append(stamped + (number, offset, body))  # noqa: RUF005 - see above
                    number += 1
                    offset += len(body) + 1
        await tx.insert_rows("event", _COLUMNS, rows)

    async def append_in(self, tx: Transaction, hub: str, partition: int, messages: Messages) -> None:
        """Append in somebody's transaction, which takes no other lock afterwards but those of partitions that follow in
        the order of hubs and partitions. Readers are told by the caller.
        """
        await self._insert(tx, hub, {partition: messages})

    @staticmethod
    async def _reserve(tx: Transaction, hub: str, partition: int, messages: Messages) -> tuple[int, int]:
        """Lock the partition until the commit; its next sequence number and offset, which are taken from it.

        An offset counts the bytes of all bodies before it, and one more for each of them: so no two are equal.
        """
        size = messages.size + messages.count
        following = await tx.fetch_one(
            "UPDATE event_partition SET next_sequence_number = next_sequence_number + :count,"
            " next_offset = next_offset + :size"
            " WHERE hub = :hub AND partition = :partition RETURNING next_sequence_number, next_offset",
            count=messages.count,
            size=size,
            hub=hub,
            partition=partition,
        )
        if following is None:
            raise NotFoundError(f"The hub {hub} has no partition {partition}, or is not there any more.")
        return following[0] - messages.count, following[1] - size

    async def positions(self, hub: str) -> tuple[Position, Position]:
        """The oldest readable and the next new position of a hub."""
        newest = await self._database.fetch_all(
            "SELECT next_sequence_number FROM event_partition WHERE hub = :hub ORDER BY partition", hub=hub
        )
        oldest = []
        for partition in range(len(newest)):
            row = await self._database.fetch_one(
                "SELECT min(sequence_number) FROM event WHERE hub = :hub AND partition = :partition",
                hub=hub,
                partition=partition,
            )
            oldest.append(row[0] if row and row[0] is not None else newest[partition][0])
        return Position(tuple(oldest)), Position(tuple(row[0] for row in newest))

    async def skipped(self, hub: str, position: Position, partition: int | None = None) -> int:
        """How many events from ``position`` on are not kept any longer."""
        oldest, _ = await self.positions(hub)
        pairs = list(zip(oldest.next_sequence_numbers, position.next_sequence_numbers, strict=True))
        return sum(max(0, first - number) for first, number in (pairs if partition is None else [pairs[partition]]))

    async def read(
        self, hub: str, position: Position, limit: int, partition: int | None = None
    ) -> tuple[list[Event], Position]:
        """Up to ``limit`` events from ``position`` on, in the order of each partition, and where to go on.

        Every partition gets its share first, so that a busy one does not hide the others.
        """
        limit = max(1, min(limit, MAXIMUM_READ))
        numbers = list(position.next_sequence_numbers)
        partitions = range(len(numbers)) if partition is None else (partition,)
        events: list[Event] = []
        for share in (max(1, limit // len(partitions)), limit):
            for index in partitions:
                count = min(share, limit - len(events))
                found = await self._read_partition(hub, index, numbers[index], count) if count else []
                if found:
                    events += found
                    numbers[index] = found[-1].sequence_number + 1
        return events, Position(tuple(numbers))

    async def _read_partition(self, hub: str, partition: int, number: int, limit: int) -> list[Event]:
        rows = await self._database.fetch_all(
            f"SELECT {_EVENT} FROM event WHERE hub = :hub AND partition = :partition AND sequence_number >= :number"
            " ORDER BY sequence_number LIMIT :limit",
            hub=hub,
            partition=partition,
            number=number,
            limit=limit,
        )
        return [_event(row) for row in rows]

    async def follow(
        self, hub: str, position: Position, partition: int | None = None, *, idle: float
    ) -> AsyncIterator[tuple[list[Event], Position]]:
        """What ``read`` gives, as it is committed, until ``close``; an empty list after ``idle`` seconds of silence."""
        wake = asyncio.Event()
        subscription = self._bus.subscribe(events_subject(hub), lambda _data: wake.set())
        self._followers.add(wake)
        try:
            while not self._closed:
                wake.clear()
                events, position = await self.read(hub, position, 100, partition)
                if not events:
                    try:
                        async with asyncio.timeout(idle):  # wait_for of Python 3.11 may swallow a cancellation
                            await wake.wait()
                        continue
                    except TimeoutError:
                        pass
                yield events, position
        finally:
            self._followers.discard(wake)
            subscription.close()

    def close(self) -> None:
        """End all that follow; appending and reading go on."""
        self._closed = True
        for wake in self._followers:
            wake.set()

    async def latest(self, hub: str, limit: int) -> list[Event]:
        """The newest events of a hub, newest first."""
        _, newest = await self.positions(hub)
        events: list[Event] = []
        for partition in range(len(newest.next_sequence_numbers)):
            rows = await self._database.fetch_all(
                f"SELECT {_EVENT} FROM event WHERE hub = :hub AND partition = :partition"
                " ORDER BY sequence_number DESC LIMIT :limit",
                hub=hub,
                partition=partition,
                limit=limit,
            )
            events += [_event(row) for row in rows]
        return sorted(events, key=lambda event: (event.enqueued_time, event.sequence_number), reverse=True)[:limit]


def _tell(waiting: Sequence[Committed], error: BaseException | None) -> None:
    for committed in waiting:
        try:
            committed(error)
        except Exception:  # noqa: BLE001 - one bad connection must not keep the others from hearing
            _log.exception("a connection could not be told of a commit")


def events_subject(hub: str) -> str:
    """The bus subject on which readers of a hub's log hear that there is more: a byte for each partition, or nothing
    for any.
    """
    return f"events.{hub}"


def _event(row: Row) -> Event:
    return Event(
        partition=row[0],
        sequence_number=row[1],
        offset=str(row[2]),
        enqueued_time=row[3],
        source=row[4],
        origin=Origin(
            device_id=row[5],
            module_id=row[6],
            generation_id=row[7],
            authentication_method=row[8],
            model_id=row[9],
        ),
        system_properties=read(row[10], dict[str, Any]),
        application_properties=read(row[11], dict[str, Any]),
        body=row[12],
    )
