"""Service clients that send messages to devices and modules: the link ``/messages/devicebound``.

*Theory of operation.* A message is accepted when it is on disk. Messages for one identity are queued in the order in
which they came, those for others beside them; as many as the link has credit for are under way. One that cannot be
queued is rejected with the reason, which touches no other. Sources: hub-service.md 6.1, 6.4, 1.8, A.3, A.4. Not here:
what a message says (``amqp/c2d_message.py``), the queues (``hub/c2d_messages.py``), feedback (``amqp/feedback.py``).
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from muster.domain.access_policy import Right
from muster.domain.c2d_message import C2dMessage
from muster.domain.errors import (
    DeviceNotFoundError,
    InvalidOperationError,
    NotAllowedError,
    NotFoundError,
    ServerError,
    ServiceError,
)
from muster.frontends import status
from muster.frontends.amqp.addresses import Address
from muster.frontends.amqp.c2d_message import Recipient, read_message, recipients
from muster.frontends.amqp.claims import ServiceClaim
from muster.frontends.amqp.links import BaseLinkHead, LinkContext, LinkOpening
from muster.frontends.tasks import Tasks
from muster.hub.c2d_messages import C2dMessages
from muster.hub.hubs import Hub, Hubs, UnknownHubError
from muster.wire.amqp_performatives import RECEIVER, Accepted, Error, Rejected, State
from muster.wire.amqp_sessions import Delivery, Link
from muster.wire.amqp_types import DecodeError

_log = logging.getLogger("muster.amqp")

CREDIT = 100
"""Messages of one link that may be under way."""

_ADDRESS = ("messages", "devicebound")
_DECODE_ERROR = "amqp:decode-error"


def hub_of(hubs: Hubs, context: LinkContext) -> Hub:
    """The hub that the connection is open to. Raises NotFoundError."""
    try:
        return hubs.by_host(context.host)
    except UnknownHubError:
        raise NotFoundError(f"No hub is served as {context.host!r}.") from None


@dataclass(frozen=True, slots=True)
class DeviceboundLinks:
    """Takes the links of senders. ``work`` outlives connections: what came before a goodbye is queued."""

    hubs: Hubs
    c2d: C2dMessages
    work: Tasks = field(default_factory=Tasks)

    async def open(self, context: LinkContext, link: Link, address: Address) -> LinkOpening | None:
        """Raises UnauthorizedAccessError, NotFoundError, and NotAllowedError for a receiver."""
        if address.words != _ADDRESS:
            return None
        hub = hub_of(self.hubs, context)
        claim = await context.claims.service(hub, (Right.SERVICE_CONNECT,), address.segments)
        if link.role != RECEIVER:
            raise NotAllowedError(f"{address.text} is where messages are sent to; nothing can be received from it.")
        return LinkOpening(DeviceboundHead(context, link, hub.name, claim, self.c2d, self.work))


class _Work:
    """A message that is on its way into its queue."""

    __slots__ = ("delivery", "message", "recipients")

    def __init__(self, delivery: Delivery, message: C2dMessage, found: tuple[Recipient, ...]) -> None:
        self.delivery = delivery
        self.message = message
        self.recipients = found


class DeviceboundHead(BaseLinkHead):
    """One sender's link."""

    def __init__(
        self, context: LinkContext, link: Link, hub: str, claim: ServiceClaim, c2d: C2dMessages, work: Tasks
    ) -> None:
        self._context = context
        self._link = link
        self._hub = hub
        self._claim = claim
        self._c2d = c2d
        self._work = work
        self._under_way = 0
        # What waits for each recipient; who has a lane has a task that empties it.
        self._lanes: dict[Recipient, deque[_Work]] = {}
        self._unwatch: Callable[[], None] | None = None

    def opened(self) -> None:
        self._unwatch = self._context.claims.watch(self._claim, self._end)
        self._context.core.grant(self._link, CREDIT)

    def _end(self, error: ServiceError) -> None:
        self._context.detach(self._link, error)

    def closed(self) -> None:
        if self._unwatch is not None:
            self._unwatch()

    def delivery(self, delivery: Delivery) -> None:
        self._under_way += 1
        try:
            work = self._read(delivery)
        except DecodeError as error:
            self._reject(delivery, _DECODE_ERROR, InvalidOperationError(f"That is no AMQP message: {error}"))
        except ServiceError as error:
            self._reject(delivery, status.amqp_condition(error), error)
        else:
            self._line_up(work)

    def _read(self, delivery: Delivery) -> _Work:
        if delivery.message_format:
            raise InvalidOperationError("Messages for devices are sent one by one, not as a batch.")
        message = read_message(delivery.payload, self._context.clock())
        return _Work(delivery, message, recipients(message.properties.to))

    def _line_up(self, work: _Work) -> None:
        lane = self._lanes.get(work.recipients[0])
        if lane is not None:
            lane.append(work)
            return
        self._lanes[work.recipients[0]] = deque((work,))
        self._work.spawn(self._empty(work.recipients[0]))

    async def _empty(self, recipient: Recipient) -> None:
        lane = self._lanes[recipient]
        while lane:
            work = lane.popleft()
            try:
                await self._send(work)
            except ServiceError as error:
                self._reject(work.delivery, status.amqp_condition(error), error)
            except Exception:  # noqa: BLE001 - the sender is told, and the trace is in the log
                _log.exception("%s: a message for %s could not be queued", self._context.describe(), recipient[0])
                self._reject(work.delivery, status.amqp_condition(ServerError()), ServerError())
            else:
                self._settle(work.delivery, Accepted())
            self._context.flush_soon()
        del self._lanes[recipient]

    async def _send(self, work: _Work) -> None:
        """To the first of the recipients that exists."""
        missing = DeviceNotFoundError()
        for device_id, module_id in work.recipients:
            try:
                await self._c2d.send(self._hub, device_id, module_id, work.message)
            except DeviceNotFoundError as error:
                missing = error
            except UnknownHubError:
                raise NotFoundError(f"The hub {self._hub} was deleted.") from None
            else:
                return
        raise missing

    def _reject(self, delivery: Delivery, condition: str, error: ServiceError) -> None:
        told = status.amqp_outcome_error(error, error.tracking_id or self._context.tracking_id(), self._context.clock())
        _log.info("%s: a message is rejected: %s %s", self._context.describe(), condition, error.message)
        self._settle(delivery, Rejected(Error(condition, told.description, told.info)))

    def _settle(self, delivery: Delivery, state: State) -> None:
        core = self._context.core
        if not delivery.settled:
            core.settle(self._link, (delivery.delivery_id,), state)
        self._under_way -= 1
        if self._link.credit + self._under_way <= CREDIT // 2:
            core.grant(self._link, CREDIT - self._under_way)
