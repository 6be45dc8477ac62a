"""One AMQP 1.0 connection seen from a client, with one session: what to send, and what the server's frames mean.

Bytes go in by `receive(data, now)`, events come out; actions queue bytes, which `take_output()` hands over;
`deadline()` says when to call `expire(now)`. No IO, no clock: times are integers in microseconds. Written so that
mypyc can compile it.

Theory of operation
-------------------
    HEADERS --the server's SASL header, mechanisms, outcome 0--> OPENING --open--> OPENED
    HEADERS --without a mechanism, at once-------------------------> OPENING
    OPENED --close of this side--> CLOSING --the server's close--> CLOSED

Links may be attached at once, what waits for the SASL outcome is held. *What the server does wrong never raises*: it
becomes a `Violation`, always the last event. *What the caller does wrong raises.* After the end of a link or of the
connection an action on it does nothing: the server may end it while the caller works.

*The caller's are:* credit (`grant`), `settle` of what came unsettled, `transfer` within `credit`. An answer to attach
that a detach follows is a refusal: wait for `Credit` before a link is used as a sender.

*Memory.* One incomplete frame of `max_frame_size`, and per receiving link one incomplete delivery of
`max_message_size`.
"""

from collections import deque
from collections.abc import Iterable
from typing import Final

from muster.wire.amqp_client_links import (
    Answered,
    Arrived,
    ClientEvent,
    ClientLink,
    Credited,
    Judged,
    SaslRefused,
    Unlinked,
)
from muster.wire.amqp_composites import encode_composite
from muster.wire.amqp_frames import (
    AMQP_PROTOCOL,
    EMPTY_FRAME,
    SASL_PROTOCOL,
    Frame,
    FrameFault,
    FrameReader,
    ProtocolHeader,
    Received,
    encode_frame,
)
from muster.wire.amqp_opening import (
    CLOSED,
    CLOSING,
    ILLEGAL_STATE,
    MESSAGE_SIZE_EXCEEDED,
    NOT_ALLOWED,
    OPENED,
    OPENING,
    SASL,
    UNATTACHED_HANDLE,
    Refused,
)
from muster.wire.amqp_performatives import (
    RECEIVER,
    SASL_OK,
    SENDER,
    UNSETTLED,
    Accepted,
    Attach,
    Begin,
    Close,
    Composite,
    Detach,
    Disposition,
    End,
    Error,
    Fields,
    Flow,
    Modified,
    Open,
    Rejected,
    Released,
    SaslBody,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Source,
    State,
    Target,
    Transfer,
)
from muster.wire.amqp_sessions import MODULUS, Closed, Violation

WINDOW: Final = 0x7FFF_FFFF  # frames that the server may send; credit is what bounds it
HANDLES: Final = 255
_CHANNEL: Final = 0


def plain_response(user: str, password: str) -> bytes:
    """What SASL PLAIN says (RFC 4616)."""
    return f"\0{user}\0{password}".encode()


class AmqpClient:
    """The client's side of one connection. See the module for the contract.

    `hostname` is who the server should be. `mechanism` is that of SASL with its `response`, None is AMQP without a
    SASL layer.
    """

    def __init__(
        self,
        container_id: str,
        hostname: str,
        *,
        mechanism: str | None = None,
        response: bytes | None = None,
        max_frame_size: int = 65_536,
        max_message_size: int = 1_048_576,
    ) -> None:
        self._hostname = hostname
        self._mechanism = mechanism
        self._response = response
        self._max_message_size = max_message_size
        self._reader = FrameReader(max_frame_size)
        self._state = SASL if mechanism else OPENING
        self._remote_channel: int | None = None  # on which the server's side of the session is
        self._expected = [ProtocolHeader(AMQP_PROTOCOL)]  # of the server, from behind
        self._beat = 0  # microseconds between the empty frames that keep the server content, or 0
        self._next_beat = 0
        self._peer_max_frame_size = 512
        self._links: dict[int, ClientLink] = {}  # by our handle
        self._incoming: dict[int, ClientLink] = {}  # by the server's
        self._next_incoming_id = 0
        self._next_outgoing_id = 0
        self._next_delivery_id = 0
        self._remote_window = 0
        self._pending: deque[tuple[Transfer, bytes]] = deque()  # frames that wait for the server's window
        self._output: list[bytes] = []
        self._held: list[bytes] = []  # what waits for the SASL outcome
        if mechanism:
            self._expected.append(ProtocolHeader(SASL_PROTOCOL))
            self._output.append(ProtocolHeader(SASL_PROTOCOL).encode())
        self._put(ProtocolHeader(AMQP_PROTOCOL).encode())
        self._send(Open(container_id, hostname, max_frame_size, 0))
        self._send(Begin(None, 0, WINDOW, WINDOW, HANDLES))

    @property
    def closed(self) -> bool:
        """Is it over? Then write the last output and close the network connection."""
        return self._state == CLOSED

    @property
    def buffered(self) -> int:
        """Bytes kept of an incomplete frame and of incomplete deliveries."""
        return self._reader.buffered + sum([len(link.partial) for link in self._links.values()])

    def take_output(self) -> bytes:
        """The bytes to write to the server, once."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def deadline(self) -> int | None:
        """When to call `expire`, in microseconds, or None. Each call that takes `now` may move it."""
        return self._next_beat if self._beat and self._state == OPENED else None

    def expire(self, now: int) -> None:
        """Keeps the server content, if it is time; a call too early does nothing."""
        if self._beat and self._state == OPENED and now >= self._next_beat:
            self._output.append(EMPTY_FRAME)
            self._next_beat = now + self._beat

    # Bytes in

    def receive(self, data: bytes, now: int) -> list[ClientEvent]:
        """The events in what the server sent. Never raises for it: a `Violation` is the last event then."""
        events: list[ClientEvent] = []
        if self._state == CLOSED:
            return events
        try:
            for item in self._reader.receive(data):
                self._take_item(item, events, now)
                if self._state == CLOSED:
                    break
        except Refused as refusal:
            if self._state == OPENED:
                self._send(Close(Error(refusal.condition, refusal.reason)))
            self._state = CLOSED
            events.append(Violation(refusal.condition, refusal.reason))
        return events

    def _take_item(self, item: Received, events: list[ClientEvent], now: int) -> None:
        if isinstance(item, FrameFault):
            raise Refused(item.condition, item.reason)
        if isinstance(item, ProtocolHeader):
            if not self._expected or item != self._expected[-1]:
                raise Refused(NOT_ALLOWED, f"{item!r} is not what was asked for (section 2.2)")
            self._expected.pop()
        elif isinstance(item.body, SaslBody):
            self._take_sasl(item.body, events)
        elif self._state == SASL or self._expected:
            raise Refused(ILLEGAL_STATE, "a frame before the protocol header (section 2.2)")
        elif item.body is not None:
            self._take_frame(item, item.body, events, now)

    def _take_sasl(self, body: SaslBody, events: list[ClientEvent]) -> None:
        if self._state != SASL or len(self._expected) != 1:
            raise Refused(ILLEGAL_STATE, f"{type(body).__name__} is not allowed here (section 5.3.2)")
        if isinstance(body, SaslMechanisms):
            if self._mechanism not in body.sasl_server_mechanisms:
                offered = ", ".join(body.sasl_server_mechanisms)
                raise Refused(NOT_ALLOWED, f"SASL {self._mechanism} is not offered, but {offered}")
            self._output.append(encode_frame(0, SaslInit(str(self._mechanism), self._response, self._hostname)))
        elif not isinstance(body, SaslOutcome):
            raise Refused(NOT_ALLOWED, f"{type(body).__name__}, where SASL {self._mechanism} has none")
        elif body.code == SASL_OK:
            self._state = OPENING
            self._output += self._held
            self._held.clear()
        else:
            self._state = CLOSED
            events.append(SaslRefused(body.code))

    def _take_frame(self, frame: Frame, body: Composite, events: list[ClientEvent], now: int) -> None:
        if isinstance(body, Close):
            if self._state != CLOSING:
                self._send(Close())
            self._state = CLOSED
            events.append(Closed(body.error))
        elif self._state == CLOSING:
            pass  # what was under way
        elif isinstance(body, Open):
            self._on_open(body, events, now)
        elif self._state != OPENED:
            raise Refused(ILLEGAL_STATE, f"{type(body).__name__} before open (section 2.4.1)")
        elif isinstance(body, Begin) and self._remote_channel is None and body.remote_channel == _CHANNEL:
            self._remote_channel = frame.channel
            self._next_incoming_id = body.next_outgoing_id
            self._remote_window = body.incoming_window
        elif frame.channel != self._remote_channel or isinstance(body, Begin):
            raise Refused(NOT_ALLOWED, f"{type(body).__name__} on channel {frame.channel}, which has no session")
        else:
            self._take_session_frame(body, frame.payload, events)

    def _take_session_frame(self, body: Composite, payload: bytes, events: list[ClientEvent]) -> None:
        if isinstance(body, Transfer):
            self._on_transfer(body, payload, events)
        elif isinstance(body, Flow):
            self._on_flow(body, events)
        elif isinstance(body, Disposition):
            self._on_disposition(body, events)
        elif isinstance(body, Attach):
            self._on_attach(body, events)
        elif isinstance(body, Detach):
            self._on_detach(body, events)
        elif isinstance(body, End):
            self._send(End())
            self._over(body.error, events)

    def _over(self, error: Error | None, events: list[ClientEvent]) -> None:
        """The one session is over, so nothing is left to do but to close."""
        for link in list(self._links.values()):
            self._forget(link)
            events.append(Unlinked(link, error))
        self.close()

    def _on_open(self, body: Open, events: list[ClientEvent], now: int) -> None:
        if self._state != OPENING:
            raise Refused(ILLEGAL_STATE, "a second open (section 2.4.1)")
        self._peer_max_frame_size = max(512, min(body.max_frame_size, 0x100_0000))
        if body.idle_time_out:
            self._beat = max(body.idle_time_out * 500, 100_000)
            self._next_beat = now + self._beat
        self._state = OPENED
        events.append(body)

    def _on_attach(self, body: Attach, events: list[ClientEvent]) -> None:
        for link in self._links.values():
            if link.name == body.name and link.role != body.role and link.answer is None:
                break
        else:
            raise Refused(NOT_ALLOWED, f"the server attached {body.name!r:.80}, which nobody asked for")
        link.answer = body
        self._incoming[body.handle] = link
        if link.role == RECEIVER:
            link.delivery_count = body.initial_delivery_count or 0
        if link.detached:
            return
        events.append(Answered(link))
        if link.role == RECEIVER and link.credit:
            self._send_flow(link)

    def _on_detach(self, body: Detach, events: list[ClientEvent]) -> None:
        link = self._incoming.pop(body.handle, None)
        if link is None:
            raise Refused(UNATTACHED_HANDLE, f"handle {body.handle} is not attached")
        self._links.pop(link.handle, None)
        if link.detached:
            return
        self._forget(link)
        self._send(Detach(link.handle, body.closed))
        events.append(Unlinked(link, body.error))

    def _forget(self, link: ClientLink) -> None:
        link.detached = True
        link.first = None
        link.partial.clear()
        link.unsettled.clear()

    def _on_transfer(self, body: Transfer, payload: bytes, events: list[ClientEvent]) -> None:
        self._next_incoming_id = (self._next_incoming_id + 1) % MODULUS
        link = self._incoming.get(body.handle)
        if link is None or link.role != RECEIVER:
            raise Refused(UNATTACHED_HANDLE, f"a transfer on handle {body.handle}, where nothing is received")
        if link.detached:
            return
        first = link.first
        if first is None:
            link.first = first = body
            link.partial.clear()
        if len(link.partial) + len(payload) > self._max_message_size:
            error = Error(MESSAGE_SIZE_EXCEEDED, f"a message of more than {self._max_message_size} bytes")
            self.detach(link, error)
            events.append(Unlinked(link, error))
            return
        if body.settled:
            first.settled = True
        if body.more and not body.aborted:
            link.partial += payload
            return
        message = bytes(link.partial) + payload if link.partial else payload
        link.partial.clear()
        link.first = None
        link.credit = max(link.credit - 1, 0)
        link.delivery_count = (link.delivery_count + 1) % MODULUS
        if body.aborted:
            return
        delivery_id, settled = first.delivery_id or 0, bool(first.settled)
        if not settled:
            link.unsettled[delivery_id] = None
        events.append(Arrived(link, delivery_id, first.delivery_tag or b"", settled, message))

    def _on_flow(self, body: Flow, events: list[ClientEvent]) -> None:
        base = body.next_incoming_id or 0
        ahead = (base + body.incoming_window - self._next_outgoing_id) % MODULUS
        self._remote_window = ahead if ahead < MODULUS // 2 or body.incoming_window >= MODULUS // 2 else 0
        self._flush()
        link = None if body.handle is None else self._incoming.get(body.handle)
        if body.handle is not None and link is None:
            raise Refused(UNATTACHED_HANDLE, f"a flow on handle {body.handle}, which is not attached")
        if link is not None and not link.detached and body.link_credit is not None and link.role == SENDER:
            credit = ((body.delivery_count or 0) + body.link_credit - link.delivery_count) % MODULUS
            link.credit = credit if credit <= body.link_credit else 0
            events.append(Credited(link, link.credit))
        if body.echo:
            self._send_flow(None if link is None or link.detached else link)

    def _on_disposition(self, body: Disposition, events: list[ClientEvent]) -> None:
        if not body.settled and not isinstance(body.state, (Accepted, Rejected, Released, Modified)):
            return
        span = ((body.first if body.last is None else body.last) - body.first) % MODULUS
        for link in self._links.values():
            if link.role == body.role:
                continue
            for delivery_id in [one for one in link.unsettled if (one - body.first) % MODULUS <= span]:
                del link.unsettled[delivery_id]
                if link.role == SENDER:
                    events.append(Judged(link, delivery_id, body.state))
        if not body.settled and body.role == RECEIVER:
            self._send(Disposition(SENDER, body.first, body.last, settled=True, state=body.state))

    # Actions

    def attach_sender(self, name: str, target: Target, *, properties: Fields | None = None) -> ClientLink:
        """A link to send on, each message to be judged by the server. `Credited` says when."""
        link = self._new_link(name, role=SENDER)
        attach = Attach(name, link.handle, SENDER, UNSETTLED, source=Source(), target=target, properties=properties)
        attach.initial_delivery_count = 0
        if not link.detached:
            self._send(attach)
        return link

    def attach_receiver(
        self, name: str, source: Source, *, credit: int = 0, properties: Fields | None = None
    ) -> ClientLink:
        """A link to receive on; `credit` is granted as soon as the server has answered."""
        link = self._new_link(name, role=RECEIVER)
        link.credit = credit
        attach = Attach(name, link.handle, RECEIVER, source=source, target=Target(), properties=properties)
        attach.max_message_size = self._max_message_size
        if not link.detached:
            self._send(attach)
        return link

    def _new_link(self, name: str, *, role: bool) -> ClientLink:
        handle = next(handle for handle in range(HANDLES + 1) if handle not in self._links)
        link = ClientLink(name, handle, role=role)
        if self._state >= CLOSING:
            link.detached = True
        else:
            self._links[handle] = link
        return link

    def grant(self, link: ClientLink, credit: int) -> None:
        """Lets the server send this many deliveries from now on."""
        if self._gone(link):
            return
        if link.role != RECEIVER:
            raise RuntimeError(f"{link} receives nothing")
        link.credit = credit
        if link.answer is not None:
            self._send_flow(link)

    def settle(self, link: ClientLink, delivery_ids: Iterable[int], state: State) -> None:
        """Settles deliveries that came: one frame for each run of ids."""
        runs: list[tuple[int, int]] = []
        for delivery_id in delivery_ids:
            if delivery_id not in link.unsettled:
                continue
            del link.unsettled[delivery_id]
            if runs and runs[-1][1] + 1 == delivery_id:
                runs[-1] = (runs[-1][0], delivery_id)
            else:
                runs.append((delivery_id, delivery_id))
        for first, last in runs:
            self._send(Disposition(RECEIVER, first, last, settled=True, state=state))

    def transfer(self, link: ClientLink, delivery_tag: bytes, payload: bytes, *, settled: bool = False) -> int:
        """Sends a message, in as many frames as the server's max-frame-size asks for. Returns its delivery id.

        Raises RuntimeError without credit, ValueError for a tag of more than 32 bytes.
        """
        if self._gone(link):
            return -1
        if link.role != SENDER or link.credit <= 0:
            raise RuntimeError(f"{link} has no credit")
        if len(delivery_tag) > 32:
            raise ValueError("a delivery tag has at most 32 bytes (section 2.8.7)")
        delivery_id = self._next_delivery_id
        self._next_delivery_id = (delivery_id + 1) % MODULUS
        link.credit -= 1
        link.delivery_count = (link.delivery_count + 1) % MODULUS
        if not settled:
            link.unsettled[delivery_id] = None
        head = Transfer(link.handle, delivery_id, delivery_tag, 0, settled, more=True)
        room = self._peer_max_frame_size - 8 - len(encode_composite(head))
        for start in range(0, len(payload) or 1, room):
            more = start + room < len(payload)
            frame = Transfer(link.handle, delivery_id, delivery_tag, 0, settled, more)
            self._pending.append((frame, payload[start : start + room]))
        self._flush()
        return delivery_id

    def detach(self, link: ClientLink, error: Error | None = None) -> None:
        """Ends the link from this side, and for good."""
        if not self._gone(link):
            self._forget(link)
            self._send(Detach(link.handle, closed=True, error=error))

    def close(self, error: Error | None = None) -> None:
        """Ends the connection from this side. The server's close is worth waiting for, as long as it is not silent."""
        if self._state == OPENED:
            self._send(Close(error))
            self._state = CLOSING
        elif self._state < OPENED:
            self._state = CLOSED

    def _gone(self, link: ClientLink) -> bool:
        return self._state >= CLOSING or link.detached

    # Bytes out

    def _flush(self) -> None:
        while self._pending and self._remote_window > 0:
            body, payload = self._pending.popleft()
            link = self._links.get(body.handle)
            if link is None or link.detached:
                continue
            self._put(encode_frame(_CHANNEL, body, payload))
            self._next_outgoing_id = (self._next_outgoing_id + 1) % MODULUS
            self._remote_window -= 1

    def _send_flow(self, link: ClientLink | None) -> None:
        flow = Flow(self._next_incoming_id, WINDOW, self._next_outgoing_id, WINDOW)
        if link is not None:
            flow.handle = link.handle
            flow.delivery_count = link.delivery_count
            flow.link_credit = link.credit
        self._send(flow)

    def _send(self, body: Composite) -> None:
        self._put(encode_frame(_CHANNEL, body))

    def _put(self, data: bytes) -> None:
        (self._held if self._state == SASL else self._output).append(data)
