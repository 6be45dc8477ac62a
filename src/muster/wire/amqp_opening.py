"""The connection layer of AMQP 1.0 on the server's side: headers, SASL, open, close and idle time-outs.

The sessions on it are `amqp_connection`'s, where the theory of operation stands. Written so that mypyc can
compile it.
"""

from collections.abc import Sequence
from typing import Final

from muster.wire.amqp_frames import (
    AMQP_PROTOCOL,
    EMPTY_FRAME,
    FRAMING_ERROR,
    SASL_PROTOCOL,
    BriefTransfer,
    Frame,
    FrameFault,
    FrameReader,
    ProtocolHeader,
    Received,
    encode_frame,
    expand,
)
from muster.wire.amqp_performatives import (
    SASL_OK,
    Close,
    Composite,
    Detach,
    Disposition,
    End,
    Error,
    Open,
    Rejected,
    SaslBody,
    SaslChallenge,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
)
from muster.wire.amqp_sessions import Closed, Event, Session, Violation

HEADER: Final = 0
SASL: Final = 1
SECOND_HEADER: Final = 2
OPENING: Final = 3
OPENED: Final = 4
CLOSING: Final = 5
CLOSED: Final = 6

MAX_HELD: Final = 64
MECHANISMS: Final = ("EXTERNAL", "MSSBCBS", "ANONYMOUS", "PLAIN")
DEFAULT_OPEN_TIMEOUT: Final = 30_000_000  # microseconds from the connection's start to open

NOT_ALLOWED: Final = "amqp:not-allowed"
ILLEGAL_STATE: Final = "amqp:illegal-state"
RESOURCE_LIMIT_EXCEEDED: Final = "amqp:resource-limit-exceeded"
INVALID_FIELD: Final = "amqp:invalid-field"
WINDOW_VIOLATION: Final = "amqp:session:window-violation"
HANDLE_IN_USE: Final = "amqp:session:handle-in-use"
UNATTACHED_HANDLE: Final = "amqp:session:unattached-handle"
TRANSFER_LIMIT_EXCEEDED: Final = "amqp:link:transfer-limit-exceeded"
MESSAGE_SIZE_EXCEEDED: Final = "amqp:link:message-size-exceeded"


class Refused(Exception):  # noqa: N818 - carries a violation out; no caller sees it
    def __init__(self, condition: str, reason: str) -> None:
        super().__init__(reason)
        self.condition = condition
        self.reason = reason


def _error_of(body: Composite) -> Error | None:
    """Why something ends or is rejected, if this frame says so."""
    if isinstance(body, (Detach, End, Close)):
        return body.error
    if isinstance(body, Disposition) and isinstance(body.state, Rejected):
        return body.state.error
    return None


def _cut(description: str | None, excess: int) -> str | None:
    octets = (description or "").encode()
    return octets[: max(len(octets) - excess, 0)].decode(errors="ignore") or None


class Opening:
    """A connection without its sessions."""

    def __init__(
        self,
        now: int,
        container_id: str,
        *,
        mechanisms: Sequence[str] = MECHANISMS,
        max_frame_size: int = 65_536,
        channel_max: int = 8191,
        handle_max: int = 255,
        incoming_window: int = 5000,
        idle_time_out: int = 240_000,
        open_timeout: int = DEFAULT_OPEN_TIMEOUT,
    ) -> None:
        self._container_id = container_id
        self._mechanisms = tuple(mechanisms)
        self._max_frame_size = max_frame_size
        self._channel_max = channel_max
        self._handle_max = handle_max
        self._incoming_window = incoming_window
        self._idle_time_out = idle_time_out
        self._reader = FrameReader(max_frame_size)
        self._state = HEADER
        self._awaits_verdict = False
        self._held: list[Received | BriefTransfer] = []
        self._open_deadline = now + open_timeout
        self._last_received = now
        self._beat = 0  # microseconds between the empty frames that keep the peer content, or 0
        self._next_beat = 0
        self._peer_max_frame_size = 512
        self._sessions: dict[int, Session] = {}
        self._ended: set[int] = set()
        self._output: list[bytes] = []

    @property
    def closed(self) -> bool:
        """Is it over? Then write the last output and close the network connection."""
        return self._state == CLOSED

    @property
    def unwritten(self) -> int:
        """How many frames `take_output` would hand over."""
        return len(self._output)

    def unheard(self, now: int) -> None:
        """The peer is not being read, so that its silence does not count."""
        self._last_received = now

    def take_output(self) -> bytes:
        """The bytes to write to the peer, once."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def deadline(self) -> int | None:
        """When to call `expire`, in microseconds, or None. Each call that takes `now` may move it."""
        if self._state == CLOSED:
            return None
        if self._state < OPENED:
            return self._open_deadline
        silence = self._last_received + self._idle_time_out * 1000
        return min(silence, self._next_beat) if self._beat else silence

    def expire(self, now: int) -> list[Event]:
        """Keeps the peer content, or ends the connection, if it is time; a call too early does nothing."""
        if self._state == CLOSED:
            return []
        if self._state < OPENED and now >= self._open_deadline:
            return [self._violation(RESOURCE_LIMIT_EXCEEDED, "no open arrived in time")]
        if self._state >= OPENED and now >= self._last_received + self._idle_time_out * 1000:
            return [self._violation(RESOURCE_LIMIT_EXCEEDED, f"no frame for {self._idle_time_out / 1000:g} s")]
        if self._state == OPENED and self._beat and now >= self._next_beat:
            self._output.append(EMPTY_FRAME)
            self._next_beat = now + self._beat
        return []

    def receive(self, data: bytes, now: int) -> list[Event]:
        """The events in what the peer sent. Never raises for it: a `Violation` is the last event then."""
        if self._state == CLOSED:
            return []
        items = self._reader.receive_briefly(data)
        if items:
            self._last_received = now
        return self._take(items, now)

    def _take(self, items: list[Received | BriefTransfer], now: int) -> list[Event]:
        events: list[Event] = []
        try:
            for index, item in enumerate(items):
                if self._state == CLOSED:
                    break
                if isinstance(item, tuple):
                    if self._state == OPENED and self._take_brief(item, events):
                        continue
                    item = expand(item)  # noqa: PLW2901 - the same in its long form
                if self._awaits_verdict:
                    self._held += items[index:]
                    if len(self._held) > MAX_HELD:
                        raise Refused(NOT_ALLOWED, "too much before the SASL outcome")  # noqa: TRY301 - one way out
                    break
                self._take_item(item, events, now)
        except Refused as refusal:
            events.append(self._violation(refusal.condition, refusal.reason))
        return events

    def _violation(self, condition: str, reason: str) -> Violation:
        if self._state == OPENING:
            self._send(0, self._own_open())
        if self._state in (OPENING, OPENED):
            self._send(0, Close(Error(condition, reason)))
        self._over()
        return Violation(condition, reason)

    def _over(self) -> None:
        self._state = CLOSED
        self._held.clear()
        self._sessions.clear()

    def _take_item(self, item: Received, events: list[Event], now: int) -> None:
        if isinstance(item, FrameFault):
            raise Refused(item.condition, item.reason)
        if isinstance(item, ProtocolHeader):
            self._take_header(item)
        elif isinstance(item.body, SaslBody):
            self._take_sasl(item.body, events)
        elif self._state < OPENING:
            raise Refused(FRAMING_ERROR, "a frame before the protocol header (section 2.2)")
        elif item.body is not None:
            self._take_frame(item, item.body, events, now)

    def _take_header(self, header: ProtocolHeader) -> None:
        wanted = header.supported and self._state in (HEADER, SECOND_HEADER)
        if not wanted or (self._state == SECOND_HEADER and header.protocol != AMQP_PROTOCOL):
            if self._state < OPENING:  # what would have been right (section 2.2)
                self._output.append(ProtocolHeader(AMQP_PROTOCOL).encode())
            raise Refused(FRAMING_ERROR, f"{header!r} is not supported here (section 2.2)")
        self._output.append(header.encode())
        if header.protocol == SASL_PROTOCOL:
            self._state = SASL
            self._send(0, SaslMechanisms(self._mechanisms))
        else:
            self._state = OPENING

    def _take_sasl(self, body: SaslBody, events: list[Event]) -> None:
        if self._state != SASL or not isinstance(body, (SaslInit, SaslResponse)):
            raise Refused(FRAMING_ERROR, f"{type(body).__name__} is not allowed here (section 5.3.2)")
        self._awaits_verdict = True
        events.append(body)

    def _take_frame(self, frame: Frame, body: Composite, events: list[Event], now: int) -> None:
        if isinstance(body, Close):
            self._on_close(body, events)
        elif self._state == CLOSING:
            pass  # what was under way
        elif isinstance(body, Open):
            self._on_open(body, events, now)
        elif self._state != OPENED:
            raise Refused(ILLEGAL_STATE, f"{type(body).__name__} before open (section 2.4.1)")
        else:
            self._on_frame(frame, body, events)

    def _own_open(self) -> Open:
        return Open(self._container_id, None, self._max_frame_size, self._channel_max, self._idle_time_out)

    def _on_open(self, body: Open, events: list[Event], now: int) -> None:
        if self._state != OPENING:
            raise Refused(ILLEGAL_STATE, "a second open (section 2.4.1)")
        if body.max_frame_size < 512:
            raise Refused(INVALID_FIELD, f"a max-frame-size of {body.max_frame_size} (section 2.7.1)")
        self._peer_max_frame_size = min(body.max_frame_size, 0x100_0000)
        self._channel_max = min(self._channel_max, body.channel_max)
        if body.idle_time_out:
            self._beat = max(body.idle_time_out * 500, 100_000)
            self._next_beat = now + self._beat
        self._send(0, self._own_open())
        self._state = OPENED
        events.append(body)

    def _on_close(self, body: Close, events: list[Event]) -> None:
        if self._state == OPENING:
            raise Refused(ILLEGAL_STATE, "close before open (section 2.4.1)")
        if self._state == OPENED:
            self._send(0, Close())
        self._over()
        events.append(Closed(body.error))

    def sasl_challenge(self, challenge: bytes) -> None:
        """Asks for a `SaslResponse`."""
        if self._judging():
            self._awaits_verdict = False
            self._send(0, SaslChallenge(challenge))

    def sasl_outcome(self, code: int, now: int, additional_data: bytes | None = None) -> list[Event]:
        """The verdict. A code other than 0 ends the connection. Returns the events of what was held for it."""
        if not self._judging():
            return []
        self._awaits_verdict = False
        self._send(0, SaslOutcome(code, additional_data))
        if code != SASL_OK:
            self._over()
            return []
        self._state = SECOND_HEADER
        held = list(self._held)
        self._held.clear()
        return self._take(held, now)

    def _judging(self) -> bool:
        if self._state == CLOSED:
            return False
        if not self._awaits_verdict:
            raise RuntimeError("nothing waits for a SASL verdict")
        return True

    def close(self, error: Error | None = None) -> None:
        """Ends the connection from this side; the peer's close is awaited, as long as it is not silent."""
        if self._state == OPENED:
            self._send(0, Close(error))
            self._state = CLOSING
        elif self._state < OPENED:
            self._over()

    def _send(self, channel: int, body: Composite) -> None:
        frame = encode_frame(channel, body)
        excess = len(frame) - self._peer_max_frame_size
        if excess > 0 and (error := _error_of(body)) is not None:
            description = error.description
            error.description = _cut(description, excess)  # a larger frame would end the connection
            frame = encode_frame(channel, body)
            error.description = description
        self._output.append(frame)

    def _on_frame(self, frame: Frame, body: Composite, events: list[Event]) -> None:
        """A frame of a session, on an open connection."""
        raise NotImplementedError

    def _take_brief(self, transfer: BriefTransfer, events: list[Event]) -> bool:
        """A transfer on an open connection, if there is nothing special about it."""
        raise NotImplementedError
