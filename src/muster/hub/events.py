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
from muster.domain.errors import NotFoundError, UnavailableError
from muster.domain.message import Event
from muster.hub import event_batches
from muster.hub.event_batches import Messages
from muster.store.database import Database, Transaction

_log = logging.getLogger("muster.hub")

MAXIMUM_READ = 1000

WAITING_LIMIT = 64 * 1024 * 1024
"""Bytes of messages in all that may wait for the disk before connections should stop reading."""

_MESSAGE_OVERHEAD = 256  # what a message costs in memory beside its body, roughly

_POSITION = re.compile(r"\d{1,18}(-\d{1,18})*", re.ASCII)

Committed = Callable[[BaseException | None], None]


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
            rows += event_batches.stored(hub, partition, number, offset, messages, now)
        await event_batches.store(tx, rows)

    async def append_in(self, tx: Transaction, hub: str, partition: int, messages: Messages) -> None:
        """Append in somebody's transaction, which takes no other lock afterwards but those of partitions that follow in
        the order of hubs and partitions. Readers are told by the caller.
        """
        await self._insert(tx, hub, {partition: messages})

    @staticmethod
    async def _reserve(tx: Transaction, hub: str, partition: int, messages: Messages) -> tuple[int, int]:
        """Lock the partition until the commit; its next sequence number and offset, which are taken from it."""
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
                "SELECT last_sequence_number - message_count + 1 FROM event_batch"
                " WHERE hub = :hub AND partition = :partition ORDER BY last_sequence_number LIMIT 1",
                hub=hub,
                partition=partition,
            )
            oldest.append(row[0] if row else newest[partition][0])
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
        events: list[Event] = []
        while len(events) < limit:
            runs = await event_batches.read_runs(self._database, hub, partition, number, limit - len(events))
            if not runs:
                break
            for run in runs:
                events += event_batches.events_of(run, partition)
            number = events[-1].sequence_number + 1
        return events

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
            oldest_wanted = max(0, newest.next_sequence_numbers[partition] - limit)
            events += await self._read_partition(hub, partition, oldest_wanted, limit)
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
