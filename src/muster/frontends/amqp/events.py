"""The Event Hubs-compatible endpoint: receivers of partitions, and what else may be attached to an event hub.

*Theory of operation.* A receiver is one task. It reads what credit allows, one small batch at a time, sends it in one
write, and waits: for credit, for the peer to take more, for news of its partition. It is woken by news only while it
has credit, so a slow reader costs nothing while devices send. What is sent is settled, as on Azure; where a reader
stands, it keeps itself. Sources: hub-service.md 8, interop-facts.md 6, 12, 13, 22, 24.

Not here: who reads what (``hub/partition_readers.py``), how an event is encoded (``event_messages.py``).
"""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final

from muster.domain.access_policy import Right
from muster.domain.errors import (
    ArgumentInvalidError,
    ForbiddenError,
    NotAllowedError,
    NotFoundError,
    ServerError,
    ServiceError,
)
from muster.domain.event_hub import event_hub_name, host_in_url, parse_selector
from muster.frontends import status
from muster.frontends.amqp.addresses import Address
from muster.frontends.amqp.links import BaseLinkHead, LinkContext, LinkOpening
from muster.frontends.amqp.management import Management
from muster.frontends.amqp.requests import RequestNode
from muster.frontends.event_messages import EventEncoder, runtime_metrics
from muster.hub.event_batches import LARGEST_READ, EventRun
from muster.hub.hubs import Hub, Hubs, UnknownHubError
from muster.hub.partition_readers import PartitionReader, PartitionReaders, ReaderRequest
from muster.wire.amqp_performatives import RECEIVER, SENDER, Error, lookup
from muster.wire.amqp_sessions import Credit, Disposed, Link
from muster.wire.amqp_types import Int, Integer, Symbol, Value

_log = logging.getLogger("muster.amqp")

_MANAGEMENT: Final = "$management"
_HUB_EVENTS: Final = ("messages", "events")
_LINK_REDIRECT: Final = "amqp:link:redirect"
_PORT: Final = 5671  # which clients look for in the address, and dial
_EPOCH: Final = "com.microsoft:epoch"
_RECEIVER_NAME: Final = "com.microsoft:receiver-name"
_RUNTIME_METRIC: Final = "com.microsoft:enable-receiver-runtime-metric"
_LONGEST_NAME: Final = 64

_LARGE_BATCH: Final = 32 * 1024
"""Bytes. Who gets so much at once is behind, or reads a stream that is not."""

_NEWS_SECONDS: Final = 10.0
"""News may be lost, so a reader looks for itself once in a while."""


class EventEndpoint:
    """Serves all event hubs on every connection."""

    def __init__(self, hubs: Hubs, readers: PartitionReaders) -> None:
        self._hubs = hubs
        self._readers = readers
        self._encoder = EventEncoder()
        self._management = Management(self._find, readers.log)

    def _find(self, name: str) -> Hub | None:
        return next((hub for hub in self._hubs.all if event_hub_name(hub.name) == name.lower()), None)

    async def open(self, context: LinkContext, link: Link, address: Address) -> LinkOpening | None:
        """The opener: an event hub and what is below it, ``$management``, and the hub's own ``messages/events``.

        A refusal is attached and then detached, in the words of Event Hubs.
        """
        try:
            return await self._open(context, link, address)
        except ServiceError as error:
            return LinkOpening(_Ending(context, link, _told(context, error)), outcome=error.code)

    async def _open(self, context: LinkContext, link: Link, address: Address) -> LinkOpening | None:
        words = address.words
        if words == (_MANAGEMENT,):
            return self._node(context, "").open(link)
        if words[:2] == _HUB_EVENTS:
            return await self._redirect(context, link, address)
        hub = self._find(words[0]) if words else None
        if hub is None:
            if words[1:2] in {("consumergroups",), (_MANAGEMENT,)}:
                raise NotFoundError(f"The messaging entity '{address.segments[0][:100]}' could not be found.")
            return None
        if words[1:] == (_MANAGEMENT,):
            return self._node(context, words[0]).open(link)
        if link.role == RECEIVER:
            raise ForbiddenError(
                "Unauthorized access. 'Send' claim(s) are required to perform this operation. Resource:"
                f" 'sb://{context.host}/{'/'.join(address.segments)[:200]}'."
            )
        match address.segments, words:
            case (_, _, group, _, partition), (_, "consumergroups", _, "partitions", _):
                return await self._receiver(context, link, hub, group, partition)
        raise NotAllowedError(f"Events are read at {words[0]}/ConsumerGroups/<group>/Partitions/<partition>.")

    def _node(self, context: LinkContext, entity: str) -> RequestNode:
        key = (_MANAGEMENT, entity)
        node: RequestNode | None = context.shared.get(key)
        if node is None:
            node = context.shared[key] = self._management.node(context, entity)
        return node

    async def _redirect(self, context: LinkContext, link: Link, address: Address) -> LinkOpening:
        """Who asks the hub is told where its event hub is (hub-service.md 8.6)."""
        try:
            hub = self._hubs.by_host(address.host)
        except UnknownHubError:
            raise NotFoundError(f"There is no hub at {address.host[:100]}.") from None
        await context.claims.service(hub, (Right.SERVICE_CONNECT,), _HUB_EVENTS)
        below = "/".join((event_hub_name(hub.name), *address.segments[2:]))
        end = "" if len(address.segments) > 2 else "/"  # noqa: PLR2004 - messages, events
        info: dict[Value, Value] = {
            Symbol("hostname"): hub.host_name,
            Symbol("network-host"): hub.host_name,
            Symbol("port"): Int(_PORT),
            Symbol("address"): f"amqps://{host_in_url(hub.host_name)}:{_PORT}/{below}{end}",
            Symbol("com.microsoft:tracking-id"): context.tracking_id(),
        }
        return LinkOpening(_Ending(context, link, Error(_LINK_REDIRECT, None, info)), outcome="redirected")

    async def _receiver(self, context: LinkContext, link: Link, hub: Hub, group: str, partition: str) -> LinkOpening:
        claim = await context.claims.service(hub, (Right.SERVICE_CONNECT,), (event_hub_name(hub.name),))
        source = link.asked.source
        request = ReaderRequest(
            group, partition, parse_selector(source.selector() if source else None), _epoch(link), _name(link)
        )

        def end(error: ServiceError) -> None:
            context.detach(link, _told(context, error))

        reader = await self._readers.open(hub, request, end)
        link.send_settled()
        return LinkOpening(_Receiver(context, link, reader, self._encoder, context.claims.watch(claim, end)))


def _told(context: LinkContext, error: ServiceError) -> Error:
    error.tracking_id = error.tracking_id or context.tracking_id()
    return status.event_hub_error(error, error.tracking_id, context.clock())


def _epoch(link: Link) -> int | None:
    value = lookup(link.asked.properties, _EPOCH)
    if value is None:
        return None
    if not isinstance(value, Integer) or value.value < 0:
        raise ArgumentInvalidError(f"{_EPOCH} is {value!r:.50}; a number of 0 and more is allowed.")
    return value.value


def _name(link: Link) -> str:
    value = lookup(link.asked.properties, _RECEIVER_NAME)
    return value[:_LONGEST_NAME] if isinstance(value, str) and value else "nil"


class _Ending(BaseLinkHead):
    """A link that is attached only to be told why it ends: clients read the error of nothing less."""

    def __init__(self, context: LinkContext, link: Link, error: Error) -> None:
        self._context = context
        self._link = link
        self._error = error

    def opened(self) -> None:
        self._context.detach(self._link, self._error)


class _Receiver(BaseLinkHead):
    """A receiver of one partition."""

    def __init__(
        self,
        context: LinkContext,
        link: Link,
        reader: PartitionReader,
        encoder: EventEncoder,
        unwatch: Callable[[], None],
    ) -> None:
        self._context = context
        self._link = link
        self._reader = reader
        self._encoder = encoder
        self._unwatch = unwatch
        self._metrics = _RUNTIME_METRIC in (link.asked.desired_capabilities or ())
        self._wake = asyncio.Event()
        self._hungry = False
        self._unlisten = reader.listen(self._heard)
        self._task: asyncio.Task[None] | None = None

    def opened(self) -> None:
        self._task = self._context.spawn(self._work())

    def credit(self, credit: Credit) -> None:  # noqa: ARG002 - the link knows
        self._wake.set()

    def resumed(self) -> None:
        self._wake.set()

    def disposed(self, disposed: Disposed) -> None:
        if not disposed.settled:
            self._context.core.settle(self._link, [disposed.delivery_id], disposed.state, role=SENDER)

    def closed(self) -> None:
        self._reader.close()
        self._unlisten()
        self._unwatch()
        if self._task is not None:
            self._task.cancel()

    def _heard(self) -> None:
        if self._hungry:
            self._wake.set()

    async def _work(self) -> None:
        try:
            while True:
                self._wake.clear()
                if self._link.drain and not self._link.credit:
                    self._drained()
                self._hungry = self._link.credit > 0 and self._context.may_send(self._link)
                if not self._hungry or not await self._send_batch():
                    await self._wait()
        except ServiceError as error:
            self._context.detach(self._link, _told(self._context, error))
        except Exception:  # noqa: BLE001 - a bug in one reader is not the end of the others
            _log.exception("%s: %s failed", self._context.describe(), self._link)
            self._context.detach(self._link, _told(self._context, ServerError()))

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(_NEWS_SECONDS if self._hungry else None):
                await self._wake.wait()
        except TimeoutError:
            pass

    async def _send_batch(self) -> bool:
        """Whether there was something to read."""
        limit = min(self._link.credit, LARGEST_READ)
        started = time.perf_counter()
        runs = await self._reader.read(limit)
        if runs:
            annotations = b""
            if self._metrics:
                annotations = runtime_metrics(await self._reader.newest(), self._context.clock())
            # Credit may have been taken back meanwhile.
            messages = self._encoder.encode(self._within_credit(runs), annotations)
            self._context.core.transfer_many(self._link, messages, settled=True)
            self._context.flush()
            if sum(map(len, messages)) >= _LARGE_BATCH:
                await self._reader.rest(time.perf_counter() - started)
            else:
                await asyncio.sleep(0)
        elif self._link.drain:
            self._drained()
        return bool(runs)

    def _drained(self) -> None:
        self._context.core.drained(self._link)
        self._context.flush()

    def _within_credit(self, runs: list[EventRun]) -> list[EventRun]:
        credit = self._link.credit
        within: list[EventRun] = []
        for run in runs:
            if len(run.bodies) > credit:
                self._reader.number = run.sequence_number + credit
                return [*within, run._replace(bodies=run.bodies[:credit])]
            within.append(run)
            credit -= len(run.bodies)
        return within
