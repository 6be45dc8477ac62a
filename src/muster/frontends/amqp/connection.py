"""One AMQP connection: bytes to events and back, the SASL verdict, links and their heads, time limits, bounds.

Who may attach what is said by openers, chosen in ``amqp/front_end.py``; what then happens on a link is its *head*
(``amqp/links.py``). Sources: hub-device.md 9, hub-service.md 6, 8.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

from muster.domain.errors import ServerError, ServiceError, TooManyLinksError
from muster.frontends import status
from muster.frontends.amqp import sasl
from muster.frontends.amqp.claims import Claims, ClaimServices
from muster.frontends.amqp.links import LinkContext, LinkHead, LinkOpening
from muster.frontends.amqp.login import BeginExchange, SaslLogin
from muster.frontends.listener import Peer
from muster.frontends.peer_protocol import PeerProtocol
from muster.frontends.tasks import Tasks
from muster.hub.hubs import host_without_port
from muster.observe import Operation
from muster.wire.amqp_connection import AmqpConnection
from muster.wire.amqp_opening import RESOURCE_LIMIT_EXCEEDED
from muster.wire.amqp_performatives import (
    RECEIVER,
    SASL_AUTH,
    SASL_OK,
    SASL_SYS,
    SENDER,
    Error,
    Open,
    SaslInit,
    SaslResponse,
    Target,
)
from muster.wire.amqp_sessions import (
    Attached,
    Closed,
    Credit,
    Delivery,
    Detached,
    Disposed,
    Ended,
    Event,
    Link,
    Session,
    Violation,
)
from muster.wire.amqp_types import Described

_log = logging.getLogger("muster.amqp")

CONNECTION_FORCED: Final = "amqp:connection:forced"
LINK_DETACH_FORCED: Final = "amqp:link:detach-forced"


_CONTAINER: Final = "muster"
_SESSIONS: Final = 1024
"""Of one connection: one for each device that shares it, and one for ``$cbs`` (hub-device.md 9.10)."""

_MAXIMUM_LINKS: Final = 5000
_HANDLES: Final = 5000
_MAXIMUM_UNPROVEN_LINKS: Final = 64
"""While nobody knows who it is."""

_MAXIMUM_WAITING: Final = 1000
"""Attaches and tokens that wait for their turn; from here on the connection is not read."""

_MAXIMUM_BUFFERED: Final = 16 * 1024 * 1024
"""Bytes of incomplete messages on all links of one connection."""

_MAXIMUM_PENDING: Final = 64
"""Frames that wait for the peer's session window."""

_MAXIMUM_UNSETTLED: Final = 10_000
"""Deliveries of one session that the peer has not settled."""

_MAXIMUM_UNWRITTEN: Final = 64
_WRITE_BUFFER: Final = 256 * 1024
_DEFAULT_MESSAGE_SIZE: Final = 1024 * 1024
_PATIENCE: Final = 5.0
"""Seconds that the peer has for its close, after ours."""

_MICROSECONDS: Final = 1_000_000
_SHORTEST_TIMER: Final = 0.01
_VERDICT: Final = "SASL"
_QUEUE: Final = "attaches"
"""Why the connection is not read."""

OpenLink = Callable[[LinkContext, Link], Awaitable[LinkOpening]]
"""Judges an attach. Raises ServiceError for a refusal."""


@dataclass(frozen=True, slots=True)
class ConnectionServices:
    """What a connection asks. ``tpm`` begins the exchange of SASL mechanism TPM, which is offered if there is one."""

    claims: ClaimServices
    clock: Callable[[], int]
    new_tracking_id: Callable[[], str]
    open_link: OpenLink
    tpm: BeginExchange | None = None


class AmqpProtocol(PeerProtocol):
    """One connection; the ``LinkContext`` of its heads."""

    name = "AMQP"
    log = _log

    def __init__(self, peer: Peer, services: ConnectionServices) -> None:
        super().__init__(peer)
        self.clock = services.clock
        self.host = (peer.server_name or "").lower()
        self.shared: dict[object, Any] = {}
        self._services = services
        self._tasks = Tasks()
        self._work = Tasks()
        self.claims = Claims(services.claims, peer.certificates, self.describe, self.spawn, self._arm_timer)
        self.claims.host = self.host
        self._heads: dict[Link, LinkHead] = {}
        self._waiting: deque[tuple[Link | None, Coroutine[Any, Any, None]]] = deque()
        self._held_back: set[Link] = set()
        self._after_read: list[Callable[[], None]] = []
        self._login = SaslLogin(self, services.tpm)
        self._timer: asyncio.TimerHandle | None = None
        self._closing_timer: asyncio.TimerHandle | None = None
        self._buffered = 0
        self._unchecked = 0
        self._dispatching = False
        self._working = False
        self._writable = True
        self._held_by: set[object] = set()

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.set_write_buffer_limits(_WRITE_BUFFER)
        mechanisms = sasl.MECHANISMS
        if self._services.tpm is not None:
            mechanisms += (sasl.TPM,)
        self.core = AmqpConnection(
            self.clock(),
            _CONTAINER,
            mechanisms=mechanisms,
            channel_max=_SESSIONS - 1,
            handle_max=_HANDLES - 1,
        )
        self._arm_timer()

    def data_received(self, data: bytes) -> None:
        self._dispatch(self.core.receive(data, self.clock()))
        self._check_memory(len(data))
        self._wake()
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is asyncio's
        self._lost = True
        for timer in (self._timer, self._closing_timer):
            if timer is not None:
                timer.cancel()
        self._over()
        # An attach that is being judged is judged to its end, which then finds that nobody is there any more.

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()
        self.flush()

    def shutdown(self) -> None:
        """The server stops. The sessions are ended first, with an error that says to try again: Node's SDK knows that
        one and not the error of the close, and takes 45 s over a connection that is closed above its links.
        """
        why = "The server is shutting down."
        for session in {link.session for link in self._heads}:
            self.end(session, Error(LINK_DETACH_FORCED, why))
        self.close("the server stops", Error(CONNECTION_FORCED, why))

    # For heads: LinkContext

    def flush(self) -> None:
        if self._lost:
            return
        output = self.core.take_output()
        if output:
            self.transport.write(output)
        if self.core.closed:
            self._over()
            self.transport.close()

    def after_read(self, call: Callable[[], None]) -> None:
        if self._dispatching:
            self._after_read.append(call)
        else:
            call()

    def may_send(self, link: Link) -> bool:
        if self.core.unwritten >= _MAXIMUM_UNWRITTEN:
            self.flush()
        if self._takes(link):
            return True
        self._held_back.add(link)
        return False

    def _takes(self, link: Link) -> bool:
        session = link.session
        return (
            self._writable
            and len(session.pending) < _MAXIMUM_PENDING
            and len(session.unsettled_out) < _MAXIMUM_UNSETTLED
        )

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        return self._tasks.spawn(coroutine)

    def in_order(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._enqueue(None, coroutine)

    def tracking_id(self) -> str:
        return self._services.new_tracking_id()

    def error(self, error: ServiceError) -> Error:
        return status.amqp_error(error, error.tracking_id or self.tracking_id(), self.clock())

    def detach(self, link: Link, error: ServiceError | Error) -> None:
        if self.core.is_gone(link):
            return
        told = self.error(error) if isinstance(error, ServiceError) else error
        _log.info("%s: %s detached: %s %s", self.describe(), link, told.condition, told.description)
        self.core.detach(link, told)
        self._close_head(link)
        self.flush_soon()

    def end(self, session: Session, error: Error | None = None) -> None:
        if session.ended:
            return
        self._log_end("a session is ended", error)
        self.core.end(session, error)
        for link in list(session.links.values()):
            self._close_head(link)
        self.flush_soon()

    def close(self, reason: str, error: Error | None = None) -> None:
        if self._lost or self.core.closed or self._closing_timer is not None:
            return
        _log.info("%s closed: %s", self.describe(), reason)
        self.core.close(error)
        self._closing_timer = asyncio.get_running_loop().call_later(_PATIENCE, self.transport.close)
        self._over()
        self.flush()

    # Events

    def _dispatch(self, events: Sequence[Event]) -> None:
        self._dispatching = True
        for event in events:
            if isinstance(event, (Delivery, Disposed, Credit)):
                head = self._heads.get(event.link)
                if head is not None:
                    self._tell(head, event)
            else:
                self._react(event)
        self._dispatching = False
        if self._after_read:
            calls, self._after_read = self._after_read, []
            for call in calls:
                try:
                    call()
                except Exception:  # noqa: BLE001 - a bug in one head is not the end of the others
                    _log.exception("%s: what one read brought is lost", self.describe())

    def _tell(self, head: LinkHead, event: Delivery | Disposed | Credit) -> None:
        if isinstance(event, Delivery):
            self._call(event.link, head.delivery, event)
        elif isinstance(event, Disposed):
            self._call(event.link, head.disposed, event)
        else:
            self._call(event.link, head.credit, event)

    def _call(self, link: Link, method: Callable[..., None], *event: Event) -> None:
        """A method of a head; what it raises ends its link and no other."""
        try:
            method(*event)
        except ServiceError as error:
            self.detach(link, error)
        except Exception:  # noqa: BLE001 - a bug in one head is not the end of the others
            _log.exception("%s: %s failed", self.describe(), link)
            self.detach(link, ServerError())

    def _react(self, event: Event) -> None:
        match event:
            case Attached():
                self._attached(event.link)
            case SaslInit() | SaslResponse():
                # What follows waits for the verdict: what was read is held, the rest stays in the socket.
                self.pause_reading(_VERDICT)
                self._work.spawn(self._judge(event))
            case Open():
                self._opened(event)
            case _:
                self._ended(event)

    def _ended(self, event: Event) -> None:
        match event:
            case Detached():
                self._log_end(f"{event.link} ended", event.error)
                self._close_head(event.link)
            case Ended():
                self._log_end("a session ended", event.error)
                for link in list(event.session.links.values()):
                    self._close_head(link)
            case Closed():
                self._log_end("closed by the client", event.error)
                self._over()
            case Violation():
                _log.info("%s: %s: %s", self.describe(), event.condition, event.reason)
                self._over()

    def _log_end(self, what: str, error: Error | None) -> None:
        if error is not None:
            _log.info("%s: %s: %s %s", self.describe(), what, error.condition, error.description)

    def _opened(self, event: Open) -> None:
        self.host = host_without_port(event.hostname or "") or self.host or self.peer.local[0]
        self.claims.host = self.host
        self._arm_timer()

    def _over(self) -> None:
        """Nothing more happens on any link."""
        for link in list(self._heads):
            self._close_head(link)
        for _link, coroutine in self._waiting:
            coroutine.close()
        self._waiting.clear()
        self._held_back.clear()
        self.claims.close()
        self._tasks.cancel()

    def _close_head(self, link: Link) -> None:
        self._held_back.discard(link)
        head = self._heads.pop(link, None)
        if head is not None:
            self._closed(head)

    def _closed(self, head: LinkHead) -> None:
        try:
            head.closed()
        except Exception:  # noqa: BLE001 - a bug in one head is not the end of the others
            _log.exception("%s: the end of a link failed", self.describe())

    # SASL

    async def _judge(self, body: SaslInit | SaslResponse) -> None:
        operation = Operation("sasl", body.mechanism if isinstance(body, SaslInit) else "response")
        code, challenge = SASL_OK, None
        try:
            challenge = await self._login.step(body)
        except ServiceError as error:
            operation.finished(error.code, error.tracking_id)
            code = SASL_AUTH
        except Exception:  # noqa: BLE001 - the client gets an answer whatever happened
            operation.failed(self.tracking_id())
            code = SASL_SYS
        if self._lost:
            return
        if challenge is not None:
            self.core.sasl_challenge(challenge)
        else:
            if code == SASL_OK:
                operation.finished("accepted")
            self._dispatch(self.core.sasl_outcome(code, self.clock()))
        self.resume_reading(_VERDICT)
        self.flush()

    # Links

    def _attached(self, link: Link) -> None:
        limit = _MAXIMUM_LINKS if self.claims.proved else _MAXIMUM_UNPROVEN_LINKS
        if self.core.links > 2 * limit:
            reason = f"{self.core.links} links are attached, or were refused and are not let go"
            self.close(reason, Error(RESOURCE_LIMIT_EXCEEDED, reason))
        elif isinstance(link.asked.target, Described):
            _log.info("%s: %s refused: a coordinator of transactions", self.describe(), link)
            self.core.refuse(link, Error("amqp:not-implemented", "There are no transactions."))
        elif len(self._heads) + len(self._waiting) >= limit:
            _log.info("%s: %s refused: there are %d links", self.describe(), link, len(self._heads))
            self._refuse(link, TooManyLinksError())
        else:
            self._enqueue(link, self._open(link))

    def _enqueue(self, link: Link | None, coroutine: Coroutine[Any, Any, None]) -> None:
        if self._lost or self.core.closed:
            coroutine.close()
            return
        self._waiting.append((link, coroutine))
        if len(self._waiting) >= _MAXIMUM_WAITING:
            self.pause_reading(_QUEUE)
        if not self._working:
            self._working = True
            self._work.spawn(self._work_off())

    async def _work_off(self) -> None:
        try:
            while self._waiting:
                link, coroutine = self._waiting.popleft()
                if link is not None and self.core.is_gone(link):
                    coroutine.close()
                else:
                    await self._work_on(coroutine)
                if len(self._waiting) < _MAXIMUM_WAITING // 2:
                    self.resume_reading(_QUEUE)
        finally:
            self._working = False

    async def _work_on(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            await coroutine
        except Exception:  # noqa: BLE001 - the next one has its turn whatever happened
            _log.exception("%s: a request failed", self.describe())

    async def _open(self, link: Link) -> None:
        operation = Operation("attach", address_of(link) or "(no address)")
        try:
            opening = await self._services.open_link(self, link)
        except ServiceError as error:
            error.tracking_id = error.tracking_id or self.tracking_id()
            operation.finished(error.code, error.tracking_id)
            self._refuse(link, error)
            return
        except Exception:  # noqa: BLE001 - the client gets an answer whatever happened
            tracking_id = self.tracking_id()
            operation.failed(tracking_id)
            self._refuse(link, ServerError(tracking_id=tracking_id))
            return
        if self._lost or self.core.is_gone(link):
            self._closed(opening.head)
            return
        self._heads[link] = opening.head
        size = opening.max_message_size or _DEFAULT_MESSAGE_SIZE
        self.core.attach(link, max_message_size=size, properties=opening.properties)
        operation.finished(opening.outcome)
        self._call(link, opening.head.opened)
        if link.role == SENDER and (link.credit or link.drain) and not self.core.is_gone(link):
            # It came in one read with the attach.
            self._call(link, opening.head.credit, Credit(link, link.credit, link.drain))
        self.flush()

    def _refuse(self, link: Link, error: ServiceError) -> None:
        self.core.refuse(link, self.error(error))
        self.flush_soon()

    def _wake(self) -> None:
        for link in [link for link in self._held_back if self._takes(link)]:
            self._held_back.discard(link)
            head = self._heads.get(link)
            if head is not None:
                self._call(link, head.resumed)

    # Bounds

    def pause_reading(self, holder: object = None) -> None:
        if not self._held_by and not self._lost:
            self.transport.pause_reading()
        self._held_by.add(holder)

    def resume_reading(self, holder: object = None) -> None:
        if holder not in self._held_by:
            return
        self._held_by.discard(holder)
        if not self._held_by and not self._lost and not self.transport.is_closing():
            self.transport.resume_reading()

    def _check_memory(self, received: int) -> None:
        """What is buffered is added up again only when it may have reached the bound."""
        self._unchecked += received
        if self._buffered + self._unchecked < _MAXIMUM_BUFFERED:
            return
        self._buffered, self._unchecked = self.core.buffered, 0
        if self._buffered >= _MAXIMUM_BUFFERED // 2:
            reason = f"{self._buffered} bytes of incomplete messages"
            self.close(reason, Error(RESOURCE_LIMIT_EXCEEDED, reason))

    # Time

    def _arm_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadlines = [self.core.deadline(), self.claims.deadline()]
        known = [deadline for deadline in deadlines if deadline is not None]
        if known and not self._lost:
            delay = max(_SHORTEST_TIMER, (min(known) - self.clock()) / _MICROSECONDS)
            self._timer = asyncio.get_running_loop().call_later(delay, self.check_time)

    def check_time(self) -> None:
        """Do what is due now."""
        self._timer = None
        now = self.clock()
        self.claims.expire(now)
        if self._held_by:  # its frames may be waiting in the socket
            self.core.unheard(now)
        self._dispatch(self.core.expire(now))
        self.flush()
        if not self.core.closed:
            self._arm_timer()


def address_of(link: Link) -> str | None:
    """The address that the peer attaches to, as sent; None when it gave none."""
    terminus = link.asked.target if link.role == RECEIVER else link.asked.source
    if terminus is None or (link.role == RECEIVER and not isinstance(terminus, Target)):
        return None
    address = getattr(terminus, "address", None)
    return address if isinstance(address, str) else None
