"""One device or module on one AMQP connection: it is connected while it has a link, and what happens to it ends its
links and no others.

Sources: hub-device.md 3.4, 9.9, 9.10. Not here: what goes over the links, and who may attach them
(``amqp/devices.py``).
"""

import logging
from collections import deque
from typing import Any

from muster.domain.errors import LinkCreationConflictError, ServiceError
from muster.domain.message import TELEMETRY
from muster.frontends import status
from muster.frontends.amqp.links import BaseLinkHead, LinkContext
from muster.hub.authentication import Principal
from muster.hub.sessions import Notice, Session, Sessions
from muster.wire.amqp_opening import RESOURCE_LIMIT_EXCEEDED
from muster.wire.amqp_performatives import SENDER, UNSETTLED, Accepted, Error, Rejected, lookup
from muster.wire.amqp_sessions import Credit, Delivery, Disposed, Link
from muster.wire.amqp_types import Value

_log = logging.getLogger("muster.amqp")

REQUEST_CREDIT = 100
"""Requests of one link that may be under way (hub-device.md 9.4)."""

_MAXIMUM_WAITING = 200
_TAG_BYTES = 16

ACCEPTED = Accepted()


class DeviceLinks:
    """The links of one identity. It joins the identity's sessions when it opens, and leaves with its last link."""

    def __init__(self, context: LinkContext, sessions: Sessions, principal: Principal, shared_key: object) -> None:
        self.context = context
        self.principal = principal
        self.session: Session | None = None
        self.session_id = ""
        self.model_id = ""
        self.owned: dict[type, Any] = {}
        """What several links of the identity share, by its type."""
        self._sessions = sessions
        self._shared_key = shared_key
        self._links: dict[Link, None] = {}
        self._unwatch: Any = None
        self._receivers = 0

    @property
    def key(self) -> tuple[str, str, str]:
        """Hub, device id, module id or empty."""
        identity = self.principal.identity
        return self.principal.hub.name, identity.device_id, identity.module_id

    @property
    def stamps(self) -> tuple[str, str, str, str, str, str]:
        """What the hub says of the sender of a message."""
        identity = self.principal.identity
        return (
            TELEMETRY,
            identity.device_id,
            identity.module_id,
            identity.generation_id,
            self.principal.authentication_method,
            self.model_id,
        )

    async def open(self) -> None:
        """Become the identity's connection. Raises DeviceNotFoundError, LinkCreationConflictError."""
        self.session = await self._sessions.attach(self.principal, self._deliver)
        self.session_id = self.session.session_id
        self.context.shared[self._shared_key] = self
        self._unwatch = self.context.claims.watch(self.principal, self.end)

    def add(self, link: Link) -> None:
        """A link is about to be attached. Raises LinkCreationConflictError when all of them have just ended."""
        if self.session is None:
            raise LinkCreationConflictError
        self._links[link] = None

    def remove(self, link: Link) -> None:
        """It is gone; with the last one the identity is no longer connected."""
        self._links.pop(link, None)
        if not self._links:
            self._leave()

    def new_receiver(self) -> str:
        """A name under which a link holds the locks of messages; no other link of the hub has it."""
        self._receivers += 1
        return f"{self.session_id}-{self._receivers}"

    def active(self) -> None:
        """The identity sent something."""
        if self.session is not None:
            self._sessions.active(self.session)

    def end(self, error: ServiceError) -> None:
        """Detach all links of the identity; the connection and the other identities on it stay."""
        links = list(self._links)
        self._links.clear()
        self._leave()
        for link in links:
            self.context.detach(link, error)
        self.context.flush_soon()

    def _leave(self) -> None:
        if self.context.shared.get(self._shared_key) is self:
            del self.context.shared[self._shared_key]
        if self._unwatch is not None:
            self._unwatch()
            self._unwatch = None
        if self.session is not None:
            session, self.session = self.session, None
            self._sessions.detach(session)

    def _deliver(self, notice: Notice) -> None:
        match notice:
            case Notice.DISPLACED:
                self.end(LinkCreationConflictError())
            case Notice.IDENTITY_CHANGED:
                self.context.claims.judge_again(self.principal)


class DeviceHead(BaseLinkHead):
    """A link of a device's."""

    def __init__(self, device: DeviceLinks, link: Link) -> None:
        self.device = device
        self.context = device.context
        self.link = link

    def closed(self) -> None:
        self.device.remove(self.link)

    def error(self, error: ServiceError) -> Error:
        """How the link tells of it."""
        tracking_id = error.tracking_id or self.context.tracking_id()
        _log.info("%s: %s (%s)", self.context.describe(), error, tracking_id)
        return status.amqp_error(error, tracking_id, self.context.clock())

    @property
    def correlation(self) -> str:
        """What tells this link's pair from another one of the same kind; '' when the client does not say."""
        text = lookup(self.link.asked.properties, "com.microsoft:channel-correlation-id")
        return text if isinstance(text, str) else ""


class RequestsHead(DeviceHead):
    """A link on which a device asks or answers: little at a time."""

    def opened(self) -> None:
        self.context.core.grant(self.link, REQUEST_CREDIT)

    def take(self, delivery: Delivery, error: ServiceError | None = None) -> None:
        """Settle what came; with an error it is rejected."""
        if not delivery.settled:
            state = ACCEPTED if error is None else Rejected(self.error(error))
            self.context.core.settle(self.link, (delivery.delivery_id,), state)

    def replenish(self, under_way: int) -> None:
        """Grant credit again for all but what is still under way."""
        if not self.link.detached and self.link.credit <= REQUEST_CREDIT // 2 - under_way:
            self.context.core.grant(self.link, REQUEST_CREDIT - under_way)
            self.context.flush_soon()


class NoticesHead(DeviceHead):
    """A link on which the hub sends what nobody settles (hub-device.md 9.5). What it has no credit for waits."""

    def __init__(self, device: DeviceLinks, link: Link) -> None:
        super().__init__(device, link)
        self._waiting: deque[bytes] = deque()
        self._sent = 0

    def send(self, message: bytes) -> None:
        """Now or when there is credit. A peer that lets too many wait loses the link."""
        if len(self._waiting) >= _MAXIMUM_WAITING:
            self._waiting.clear()
            error = Error(RESOURCE_LIMIT_EXCEEDED, f"{_MAXIMUM_WAITING} messages wait for credit, and no more may.")
            self.context.detach(self.link, error)
        else:
            self._waiting.append(message)
            self._send_waiting()
        self.context.flush_soon()

    def credit(self, credit: Credit) -> None:
        self._send_waiting()
        if credit.drain:
            self.context.core.drained(self.link)

    def resumed(self) -> None:
        self._send_waiting()

    def disposed(self, disposed: Disposed) -> None:
        if not disposed.settled:
            self.context.core.settle(self.link, (disposed.delivery_id,), disposed.state, role=SENDER)

    def _send_waiting(self) -> None:
        core, link = self.context.core, self.link
        settled = link.asked.snd_settle_mode != UNSETTLED
        while self._waiting and link.credit > 0 and not link.detached and self.context.may_send(link):
            self._sent += 1
            core.transfer(link, self._sent.to_bytes(_TAG_BYTES, "big"), self._waiting.popleft(), settled=settled)


def text_of(value: Value) -> str:
    """An annotation that is a text; '' for any other one."""
    return value if isinstance(value, str) else ""
