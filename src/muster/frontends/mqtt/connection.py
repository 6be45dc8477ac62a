"""One MQTT connection: bytes to events and back, CONNECT and its verdict, time limits.

Who a client is and what it may do then is a *head*, chosen by ``mqtt/front_end.py`` from the CONNECT.
Sources: hub-device.md 3, dps.md 2.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from muster.domain.errors import ServerError, ServiceError
from muster.frontends import status
from muster.frontends.listener import Peer
from muster.frontends.peer_protocol import PeerProtocol
from muster.frontends.tasks import Tasks
from muster.observe import Operation
from muster.wire.mqtt_packets import Connect
from muster.wire.mqtt_session import Event, MqttSession, Violation

_log = logging.getLogger("muster.mqtt")

_MICROSECONDS = 1_000_000
_SHORTEST_TIMER = 0.01


class Head(Protocol):
    """What a connection does after its CONNECT was accepted. ``session_present`` is for CONNACK."""

    session_present: bool

    def opened(self) -> None:
        """CONNACK is on its way."""
        ...

    def handle(self, events: Sequence[Event]) -> None:
        """Work on events in their order; output is flushed afterwards."""
        ...

    def deadline(self) -> int | None:
        """When the connection must end whatever it does (microseconds), or None."""
        ...

    def closed(self) -> None:
        """The connection is over: it is gone, or was closed here. Called once."""
        ...


class MqttProtocol(PeerProtocol):
    """One connection."""

    name = "MQTT"
    log = _log

    def __init__(self, peer: Peer, clock: Callable[[], int], choose_head: "ChooseHead") -> None:
        super().__init__(peer)
        self._clock = clock
        self._choose_head = choose_head
        self._tasks = Tasks()
        self._head: Head | None = None
        self._running = False  # whether the head has opened, and not been told that it is over
        self._held: list[Event] = []
        self._timer: asyncio.TimerHandle | None = None
        self._reading = True

    # From the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.session = MqttSession(self._clock())
        self._arm_timer()

    def data_received(self, data: bytes) -> None:
        events = self.session.receive(data, self._clock())
        if events:
            if self._head is None:
                self._before_head(events)
            elif self._running:
                self._head.handle(events)
            last = events[-1]
            if isinstance(last, Violation):
                _log.info("%s: %s", self.describe(), last.reason)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is asyncio's
        self._lost = True
        if self._timer is not None:
            self._timer.cancel()
        self._end()
        # A CONNECT that is being judged is judged to its end, which then finds that nobody is there any more.

    # For the heads

    def flush(self) -> None:
        """Write what the session has to say; close when it is over."""
        if self._lost:
            return
        output = self.session.take_output()
        if output:
            self.transport.write(output)
        if self.session.closed:
            self.transport.close()

    def close(self, reason: str) -> None:
        """End the connection: MQTT 3.1.1 has no word for it, so it is a bare close.

        Its head ends now: until a peer that is not there any more is given up, what is meant for the device would go to
        it.
        """
        if not self._lost and not self.transport.is_closing():
            _log.info("%s closed: %s", self.describe(), reason)
            self.transport.close()
            self._end()

    def _end(self) -> None:
        if self._running and self._head is not None:
            self._running = False
            self._head.closed()

    def pause_reading(self) -> None:
        if self._reading and not self._lost:
            self._reading = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._reading and not self._lost and not self.transport.is_closing():
            self._reading = True
            self.transport.resume_reading()

    # CONNECT

    def _before_head(self, events: list[Event]) -> None:
        if self._held:
            self._held += events
            return
        first = events[0]
        if not isinstance(first, Connect):
            return  # a violation, which has closed the session
        self._held = events
        # What follows CONNECT waits for the verdict: what was read is held, the rest stays in the socket.
        self.pause_reading()
        self._tasks.spawn(self._connect(first))

    async def _connect(self, connect: Connect) -> None:
        try:
            accepted = await self._choose_head(self, connect)
        except ServiceError as error:
            self._refuse(connect, error)
            return
        except Exception:  # noqa: BLE001 - the client gets an answer whatever happened
            _log.exception("%s: CONNECT failed", self.describe())
            self._refuse(connect, ServerError())
            return
        self._head = accepted
        self.session.connack(status.ACCEPTED, session_present=accepted.session_present)
        self.flush()
        self._running = True
        accepted.opened()
        # What came behind CONNECT counts, also when DISCONNECT was part of it and nobody is there any more.
        held, self._held = self._held[1:], []
        if held:
            accepted.handle(held)
            self.flush()
        if self._lost or (self.transport.is_closing() and not self.session.closed):
            self._end()
            return
        self.resume_reading()
        self._arm_timer()

    def _refuse(self, connect: Connect, error: ServiceError) -> None:
        if self._lost or self.session.closed:
            return
        Operation("connect", connect.client_id).finished(error.code, error.tracking_id)
        self.session.connack(status.connect_code(error), session_present=False)
        self.flush()

    # Time

    def _arm_timer(self) -> None:
        deadlines = [self.session.deadline(), self._head.deadline() if self._head else None]
        known = [deadline for deadline in deadlines if deadline is not None]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if known and not self._lost:
            delay = max(_SHORTEST_TIMER, (min(known) - self._clock()) / _MICROSECONDS)
            self._timer = asyncio.get_running_loop().call_later(delay, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        now = self._clock()
        own = self._head.deadline() if self._head else None
        if own is not None and now >= own:
            self.close("its token has expired")
            return
        if self._reading:  # otherwise the client's packets may be waiting in the socket
            for event in self.session.expire(now):
                if isinstance(event, Violation):
                    _log.info("%s: %s", self.describe(), event.reason)
            self.flush()
        if not self.session.closed:
            self._arm_timer()


ChooseHead = Callable[[MqttProtocol, Connect], Awaitable[Head]]
"""Judges a CONNECT; raises ServiceError for a refusal."""
