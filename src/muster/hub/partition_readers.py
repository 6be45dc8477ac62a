"""Who reads which partition of which hub, on behalf of which consumer group; readers with and without an owner level.

A reader is admitted, displaced and turned away as hub-service.md 8.5 has it, in the words of the real service. Who
reads is known to this process alone. Readers that are behind take turns, and rest in between while devices send: what
was is not worth a delay of what comes.

Not here: what an event looks like to a client, and where clients say how far they have come: they keep that
themselves.
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from muster.bus.bus import Bus, Message
from muster.domain.errors import (
    NotFoundError,
    PartitionUnknownError,
    QuotaExceededError,
    ReceiverDisconnectedError,
    ServiceError,
)
from muster.domain.event_hub import StartingPosition, event_hub_name
from muster.hub.consumer_groups import CONSUMER_GROUP_DELETED, ConsumerGroups
from muster.hub.event_batches import EventRun
from muster.hub.events import EventLog
from muster.hub.hubs import HUBS_CHANGED, Hub, Hubs
from muster.hub.partition_log import PartitionInformation, PartitionLog

_log = logging.getLogger("muster.hub")

MAXIMUM_READERS = 5
"""Without an owner level, of one consumer group on one partition (hub-service.md 8.5)."""

_RESTS = 8
"""A reader that is behind rests so many times as long as it worked, while devices send."""

_LONGEST_REST = 0.5

_Place = tuple[str, str, int]


@dataclass(frozen=True, slots=True)
class ReaderRequest:
    """Who wants to read what. ``group`` in any case; ``epoch`` is the owner level, if it has one."""

    group: str
    partition: str
    position: StartingPosition
    epoch: int | None = None
    name: str = "nil"


class PartitionReader:
    """One reader that was admitted. ``number``: the sequence number that it reads next."""

    def __init__(
        self, readers: "PartitionReaders", place: _Place, request: ReaderRequest, number: int, displaced: "Displaced"
    ) -> None:
        self.number = number
        self.request = request
        self.place = place
        self.displaced = displaced
        self._readers = readers
        self._began = False  # before that, events that are not there any more are not missed

    def __str__(self) -> str:
        hub, group, partition = self.place
        level = "" if self.request.epoch is None else f" at owner level {self.request.epoch}"
        return f"partition {partition} of {hub} for {group}{level}"

    async def read(self, limit: int) -> list[EventRun]:
        """The next events; the reader is behind them then."""
        hub, _, partition = self.place
        started = self.number
        runs = await self._readers.log.read(hub, partition, started, limit)
        if runs:
            lost = runs[0].sequence_number - started
            if lost > 0 and self._began:
                _log.warning("a reader of %s lost %d events: they were not kept that long", self, lost)
            self._began = True
            self.number = runs[-1].sequence_number + len(runs[-1].bodies)
        return runs

    async def newest(self) -> PartitionInformation:
        return await self._readers.log.information(self.place[0], self.place[2])

    async def rest(self, worked: float) -> None:
        """To be called between reads while there is more: worked for so many seconds."""
        await self._readers.rest(worked)

    def listen(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call ``wake`` when there may be more; what is returned ends that."""
        return self._readers.log.listen(self.place[0], self.place[2], wake).close

    def close(self) -> None:
        self._readers.forget(self)


Displaced = Callable[[ServiceError], None]


@dataclass(slots=True)
class _Turns:
    """Of the readers that are behind."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    appended: int = 0


class PartitionReaders:
    """The readers of all hubs."""

    def __init__(self, hubs: Hubs, groups: ConsumerGroups, events: EventLog, log: PartitionLog, bus: Bus) -> None:
        self.log = log
        self._hubs = hubs
        self._groups = groups
        self._events = events
        self._open: dict[_Place, list[PartitionReader]] = {}
        self._turns = _Turns()
        bus.subscribe(HUBS_CHANGED, self._hubs_changed)
        bus.subscribe(CONSUMER_GROUP_DELETED, self._group_deleted)

    async def open(self, hub: Hub, request: ReaderRequest, displaced: Displaced) -> PartitionReader:
        """Admit a reader; ``displaced(error)`` is called once if it has to end later.

        Raises NotFoundError for a group that does not exist, PartitionUnknownError, ArgumentInvalidError for a position
        behind the end, ReceiverDisconnectedError when the owner level is not enough, QuotaExceededError.
        """
        if "\0" in request.group or await self._groups.find(hub.name, request.group) is None:
            name = f"{event_hub_name(hub.name)}|{request.group[:50].lower()}"
            raise NotFoundError(f"The messaging entity '{hub.host_name}:eventhub:{name}' could not be found.")
        partition = partition_number(hub, request.partition)
        number = await self.log.locate(hub.name, partition, request.position)
        place = (hub.name, request.group.lower(), partition)
        reader = PartitionReader(self, place, request, number, displaced)
        self._admit(reader)
        return reader

    def _admit(self, reader: PartitionReader) -> None:
        there = self._open.get(reader.place, [])
        owner = next((other for other in there if other.request.epoch is not None), None)
        level = reader.request.epoch
        if level is None:
            _require_no_owner(owner)
            if len(there) >= MAXIMUM_READERS:
                names = ", ".join(other.request.name for other in there)
                raise QuotaExceededError(
                    "Exceeded the maximum number of allowed receivers per partition in a consumer group which is"
                    f" {MAXIMUM_READERS}. List of connected receivers - {names}."
                )
        else:
            if owner is not None:
                _require_level(owner, reader)
            for other in list(there):
                self._displace(other, _displaced_by(other, reader))
        self._open.setdefault(reader.place, []).append(reader)

    def _displace(self, reader: PartitionReader, error: ServiceError) -> None:
        self.forget(reader)
        reader.displaced(error)

    def forget(self, reader: PartitionReader) -> None:
        """It reads no more; more than once is fine."""
        there = self._open.get(reader.place, [])
        if reader in there:
            there.remove(reader)
            if not there:
                del self._open[reader.place]

    def _hubs_changed(self, _message: Message) -> None:
        self._end(lambda place: self._hubs.get(place[0]) is None, NotFoundError("The hub was deleted."))

    def _group_deleted(self, message: Message) -> None:
        hub, _, group = message.data.decode().partition("\0")
        self._end(lambda place: place[:2] == (hub, group), NotFoundError("The consumer group was deleted."))

    def _end(self, gone: Callable[[_Place], bool], error: ServiceError) -> None:
        for reader in [reader for place, there in self._open.items() if gone(place) for reader in there]:
            self._displace(reader, error)

    async def rest(self, worked: float) -> None:
        """One reader that is behind at a time works, or rests on behalf of all of them."""
        async with self._turns.lock:
            appended, self._turns.appended = self._turns.appended, self._events.appended
            busy = appended != self._events.appended
            await asyncio.sleep(min(worked * _RESTS, _LONGEST_REST) if busy else 0)


def partition_number(hub: Hub, text: str) -> int:
    """The number of a partition that clients name as text. Raises PartitionUnknownError."""
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 4 else -1  # noqa: PLR2004 - of 32
    if not 0 <= number < hub.partition_count or str(number) != text:
        valid = ", ".join(map(str, range(hub.partition_count)))
        raise PartitionUnknownError(
            f"The specified partition is invalid for an EventHub partition sender or receiver: {text[:50]!r}. There are"
            f" {valid}."
        )
    return number


def _require_no_owner(owner: PartitionReader | None) -> None:
    if owner is not None:
        raise ReceiverDisconnectedError(
            f"At least one receiver for the endpoint is created with epoch of '{owner.request.epoch}', and so non-epoch"
            " receiver is not allowed. Either reconnect with a higher epoch, or make sure all epoch receivers are"
            " closed or disconnected."
        )


def _require_level(owner: PartitionReader, reader: PartitionReader) -> None:
    level, wanted = owner.request.epoch, reader.request.epoch
    if level is not None and wanted is not None and wanted < level:
        raise ReceiverDisconnectedError(
            f"Receiver '{owner.request.name}' with a higher epoch '{level}' already exists. Receiver"
            f" '{reader.request.name}' with epoch {wanted} cannot be created. Make sure you are creating receiver with"
            " increasing epoch value to ensure connectivity, or ensure all old epoch receivers are closed or"
            " disconnected."
        )


def _displaced_by(other: PartitionReader, reader: PartitionReader) -> ReceiverDisconnectedError:
    epoch = other.request.epoch
    current = f"current receiver '{other.request.name}'" + ("" if epoch is None else f" with epoch '{epoch}'")
    return ReceiverDisconnectedError(
        f"New receiver '{reader.request.name}' with higher epoch of '{reader.request.epoch}' is created hence {current}"
        " is getting disconnected. If you are recreating the receiver, make sure a higher epoch is used."
    )
