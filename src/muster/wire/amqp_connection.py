"""One AMQP 1.0 connection seen from the server: what may come when, and what is owed in answer.

Bytes go in by `receive(data, now)`, events come out; actions queue bytes, which `take_output()` hands over;
`deadline()` says when to call `expire(now)`. No IO, no clock: times are integers in microseconds. Written so that
mypyc can compile it.

Theory of operation
-------------------
    HEADER --SASL header--> SASL --sasl_outcome(0)--> SECOND_HEADER --AMQP header--> OPENING --open--> OPENED
    HEADER --AMQP header, no SASL at all (hub-device.md 9.1)-----------------------> OPENING
    OPENED --close of this side--> CLOSING --the peer's close--> CLOSED

*What the peer does wrong never raises.* It becomes a `Violation`, always the last event, after a close with the
error; a fault on a session or a link ends or detaches that alone, and the event is `Ended` or `Detached`.
*What the caller does wrong raises.* After the end of a link, a session or the connection an action on it does
nothing: the peer may leave while the caller works.

*What the core answers itself:* protocol headers, open, begin, end, close and detach, flows with echo, and the
session's window. *The caller's are:* the SASL verdict, `attach` or `refuse`, credit (`grant`), dispositions
(`settle`), deliveries (`transfer`) within `credit`, and `drained`. Clients pipeline; frames that come before the
SASL verdict are held, `MAX_HELD` of them.

*Memory.* One incomplete frame of `max_frame_size`, and per receiving link one incomplete delivery of
`max_message_size`; per session as many unsettled deliveries as the caller has granted credit for, and per sending
link as many as the peer has.
"""

from collections.abc import Iterable, Sequence

from muster.wire.amqp_composites import encode_composite
from muster.wire.amqp_frames import (
    FRAMING_ERROR,
    SHORT_TAG,
    SHORT_TRANSFER,
    SHORT_TRANSFER_SETTLED,
    SHORT_TRANSFER_UNSETTLED,
    BriefTransfer,
    Frame,
    encode_accepted,
    encode_frame,
    short_transfer_middle,
)
from muster.wire.amqp_opening import (
    HANDLE_IN_USE,
    INVALID_FIELD,
    MESSAGE_SIZE_EXCEEDED,
    NOT_ALLOWED,
    OPENED,
    TRANSFER_LIMIT_EXCEEDED,
    UNATTACHED_HANDLE,
    WINDOW_VIOLATION,
    Opening,
    Refused,
)
from muster.wire.amqp_performatives import (
    RECEIVER,
    SECOND,
    SENDER,
    Accepted,
    Attach,
    Begin,
    Composite,
    Detach,
    Disposition,
    End,
    Error,
    Fields,
    Flow,
    Source,
    State,
    Target,
    Transfer,
)
from muster.wire.amqp_sessions import (
    MODULUS,
    Attached,
    Credit,
    Delivery,
    Detached,
    Disposed,
    Ended,
    Event,
    Link,
    Session,
)
from muster.wire.amqp_types import U32


class AmqpConnection(Opening):
    """The server's side of one connection. See the module for the contract.

    `container_id` is the server's name for itself. `idle_time_out` is announced in milliseconds and counts as
    silence of the peer; `open_timeout` runs from `now` to open, in microseconds.
    """

    @property
    def buffered(self) -> int:
        """Bytes kept of an incomplete frame and of incomplete deliveries."""
        links = [link for session in self._sessions.values() for link in session.links.values()]
        return self._reader.buffered + sum([len(link.partial) for link in links])

    @property
    def links(self) -> int:
        """How many there are, with those that the peer has not yet let go."""
        return sum([len(session.links) for session in self._sessions.values()])

    # Frames

    def _on_frame(self, frame: Frame, body: Composite, events: list[Event]) -> None:
        if isinstance(body, Begin):
            self._on_begin(frame.channel, body)
            return
        session = self._sessions.get(frame.channel)
        if session is not None:
            self._take_session_frame(session, body, frame.payload, events)
        elif frame.channel not in self._ended:  # pyamqp detaches after end (hub-service.md 8.9)
            raise Refused(NOT_ALLOWED, f"{type(body).__name__} on channel {frame.channel}, which has no session")

    def _on_begin(self, channel: int, body: Begin) -> None:
        if channel > self._channel_max:
            raise Refused(FRAMING_ERROR, f"channel {channel}, where {self._channel_max} is the last")
        if channel in self._sessions or body.remote_channel is not None:
            raise Refused(NOT_ALLOWED, f"a begin on channel {channel}, which has a session (section 2.5.1)")
        session = Session(channel, body, self._incoming_window)
        self._sessions[channel] = session
        self._ended.discard(channel)
        window = self._incoming_window
        self._send(channel, Begin(channel, session.next_outgoing_id, window, 0xFFFF_FFFF, self._handle_max))

    def _take_session_frame(self, session: Session, body: Composite, payload: bytes, events: list[Event]) -> None:
        if isinstance(body, Transfer):
            self._on_transfer(session, body, payload, events)
        elif isinstance(body, Flow):
            self._on_flow(session, body, events)
        elif isinstance(body, Disposition):
            self._on_disposition(session, body, events)
        elif isinstance(body, Attach):
            self._on_attach(session, body, events)
        elif isinstance(body, Detach):
            self._on_detach(session, body, events)
        elif isinstance(body, End):
            self._end_session(session)
            self._send(session.channel, End())
            events.append(Ended(session, body.error))

    def _end_session(self, session: Session) -> None:
        session.ended = True
        self._ended.add(session.channel)
        self._sessions.pop(session.channel, None)

    def _session_fault(self, session: Session, condition: str, reason: str, events: list[Event]) -> None:
        error = Error(condition, reason)
        self._send(session.channel, End(error))
        self._end_session(session)
        events.append(Ended(session, error))

    def _link_fault(self, link: Link, condition: str, reason: str, events: list[Event]) -> None:
        error = Error(condition, reason)
        self.detach(link, error)
        events.append(Detached(link, closed=True, error=error))

    def _on_attach(self, session: Session, body: Attach, events: list[Event]) -> None:
        if body.handle > self._handle_max:
            raise Refused(FRAMING_ERROR, f"handle {body.handle}, where {self._handle_max} is the last")
        if body.handle in session.links:
            self._session_fault(session, HANDLE_IN_USE, f"handle {body.handle} is attached", events)
            return
        body.unsettled = None  # links are not resumed, and it may be long
        link = Link(session, body)
        session.links[body.handle] = link
        session.detached_handles.discard(body.handle)
        events.append(Attached(link))

    def _on_detach(self, session: Session, body: Detach, events: list[Event]) -> None:
        link = self._link(session, body.handle, events)
        if link is None:
            return
        self._forget(link)
        del session.links[link.handle]
        session.detached_handles.add(link.handle)
        if link.detached:
            return
        link.detached = True
        if not link.answered:
            self._echo(link, 0, None)
        self._send(session.channel, Detach(link.handle, body.closed))
        events.append(Detached(link, body.closed, body.error))

    def _link(self, session: Session, handle: int, events: list[Event]) -> Link | None:
        link = session.links.get(handle)
        if link is None and handle not in session.detached_handles:
            self._session_fault(session, UNATTACHED_HANDLE, f"handle {handle} is not attached", events)
        return link

    def _forget(self, link: Link) -> None:
        session = link.session
        link.first = None
        link.partial.clear()
        for unsettled in (session.unsettled_in, session.unsettled_out):
            for delivery_id in [key for key, owner in unsettled.items() if owner is link]:
                del unsettled[delivery_id]

    # Deliveries from the peer

    def _take_brief(self, transfer: BriefTransfer, events: list[Event]) -> bool:
        """Does what `_on_transfer` does, for a delivery of one frame that is in order; for others it does nothing."""
        shape, delivery_id, tag, payload = transfer
        session = self._sessions.get(shape.channel)
        link = session.links.get(shape.handle) if session is not None else None
        if (
            session is None
            or link is None
            or shape.more
            or link.credit <= 0
            or link.first is not None
            or link.detached
            or link.role != RECEIVER
            or not link.answered
            or session.incoming_window - 1 <= self._incoming_window // 2
            or len(tag) > 32
            or (link.max_message_size and len(payload) > link.max_message_size)
        ):
            return False
        session.next_incoming_id = (session.next_incoming_id + 1) % MODULUS
        session.incoming_window -= 1
        link.credit -= 1
        link.delivery_count = (link.delivery_count + 1) % MODULUS
        if not shape.settled:
            session.unsettled_in[delivery_id] = link
        events.append(Delivery(link, delivery_id, tag, shape.message_format or 0, bool(shape.settled), payload))
        return True

    def _on_transfer(self, session: Session, body: Transfer, payload: bytes, events: list[Event]) -> None:
        session.next_incoming_id = (session.next_incoming_id + 1) % MODULUS
        session.incoming_window -= 1
        if session.incoming_window < 0:
            self._session_fault(session, WINDOW_VIOLATION, "a transfer beyond the window (section 2.5.6)", events)
            return
        if session.incoming_window <= self._incoming_window // 2:
            session.incoming_window = self._incoming_window
            self._send_flow(session, None)
        link = self._link(session, body.handle, events)
        if link is None or link.detached:
            return
        if link.role != RECEIVER or not link.answered:
            self._link_fault(link, NOT_ALLOWED, "a transfer to a sender, or before attach", events)
            return
        self._take_transfer(link, body, payload, events)

    def _take_transfer(self, link: Link, body: Transfer, payload: bytes, events: list[Event]) -> None:
        first = link.first
        if first is None:
            if link.credit <= 0:
                self._link_fault(link, TRANSFER_LIMIT_EXCEEDED, "a transfer without credit (section 2.6.7)", events)
                return
            if body.delivery_id is None or body.delivery_tag is None or len(body.delivery_tag) > 32:
                self._link_fault(link, INVALID_FIELD, "a delivery without id or tag (section 2.7.5)", events)
                return
            link.first = first = body
        elif body.delivery_id is not None and body.delivery_id != first.delivery_id:
            self._link_fault(link, NOT_ALLOWED, "a delivery within another one (section 2.6.14)", events)
            return
        if body.aborted:
            credit = link.credit
            self._complete(link)
            self.grant(link, credit)  # nobody hears of it who could give it again
            return
        if link.max_message_size and len(link.partial) + len(payload) > link.max_message_size:
            reason = f"a message of more than {link.max_message_size} bytes"
            self._link_fault(link, MESSAGE_SIZE_EXCEEDED, reason, events)
            return
        if body.settled:
            first.settled = True
        if body.more:
            link.partial += payload
            return
        message = bytes(link.partial) + payload if link.partial else payload
        self._complete(link)
        delivery_id = first.delivery_id or 0
        settled = bool(first.settled)
        if not settled:
            link.session.unsettled_in[delivery_id] = link
        tag = first.delivery_tag or b""
        events.append(Delivery(link, delivery_id, tag, first.message_format or 0, settled, message))

    def _complete(self, link: Link) -> None:
        link.first = None
        link.partial.clear()
        link.credit -= 1
        link.delivery_count = (link.delivery_count + 1) % MODULUS

    # Flow and dispositions from the peer

    def _on_flow(self, session: Session, body: Flow, events: list[Event]) -> None:
        base = 1 if body.next_incoming_id is None else body.next_incoming_id
        ahead = (base + body.incoming_window - session.next_outgoing_id) % MODULUS
        session.remote_incoming_window = ahead if ahead < MODULUS // 2 or body.incoming_window >= MODULUS // 2 else 0
        self._flush(session)
        if body.handle is None:
            if body.echo:
                self._send_flow(session, None)
            return
        link = self._link(session, body.handle, events)
        if link is None or link.detached:
            return
        if link.role == SENDER and body.link_credit is not None:
            count = body.delivery_count or 0
            credit = (count + body.link_credit - link.delivery_count) % MODULUS
            link.credit = credit if credit <= body.link_credit else 0
            link.drain = body.drain
            events.append(Credit(link, link.credit, body.drain))
        elif link.role == RECEIVER and body.delivery_count is not None and link.drain:
            link.credit = 0
            link.drain = False
            link.delivery_count = body.delivery_count
        if body.echo and link.answered:
            self._send_flow(session, link)
        elif body.echo:
            link.echo = True

    def _on_disposition(self, session: Session, body: Disposition, events: list[Event]) -> None:
        unsettled = session.unsettled_out if body.role == RECEIVER else session.unsettled_in
        span = ((body.first if body.last is None else body.last) - body.first) % MODULUS
        if span < len(unsettled):
            ids = [(body.first + step) % MODULUS for step in range(span + 1)]
        else:
            ids = [delivery_id for delivery_id in unsettled if (delivery_id - body.first) % MODULUS <= span]
        for delivery_id in ids:
            link = unsettled.get(delivery_id)
            if link is None:
                continue
            if body.settled:
                del unsettled[delivery_id]
            if body.role == RECEIVER:
                events.append(Disposed(link, delivery_id, body.settled, body.state))

    # Actions

    def attach(self, link: Link, *, max_message_size: int = 1_048_576, properties: Fields | None = None) -> None:
        """Takes the link, with what the peer asked for. 0 as `max_message_size` means any size."""
        if self.is_gone(link):
            return
        if link.answered:
            raise RuntimeError(f"{link} is attached")
        link.max_message_size = max_message_size
        self._echo(link, max_message_size, properties)

    def refuse(self, link: Link, error: Error) -> None:
        """Attaches and detaches it: pyamqp needs a whole attach to see the error (hub-service.md 8.9)."""
        if not self.is_gone(link):
            self.attach(link)
            self.detach(link, error)

    def _echo(self, link: Link, max_message_size: int, properties: Fields | None) -> None:
        link.answered = True
        asked = link.asked
        answer = Attach(
            asked.name,
            asked.handle,
            link.role,
            asked.snd_settle_mode,
            asked.rcv_settle_mode,
            asked.source or Source(),
            asked.target or Target(),
            initial_delivery_count=0 if link.role == SENDER else None,
            max_message_size=max_message_size,
            properties=properties,
        )
        self._send(link.session.channel, answer)
        if link.echo:
            self._send_flow(link.session, link)

    def grant(self, link: Link, credit: int) -> None:
        """Lets the peer send this many deliveries from now on."""
        if self.is_gone(link):
            return
        if link.role != RECEIVER or not link.answered:
            raise RuntimeError(f"{link} receives nothing")
        link.credit = credit
        self._send_flow(link.session, link)

    def settle(self, link: Link, delivery_ids: Iterable[int], state: State | None, *, role: bool = RECEIVER) -> None:
        """Settles deliveries, those that came or with `role` SENDER those that went: one frame for each run of ids."""
        if self.is_gone(link):
            return
        unsettled = link.session.unsettled_in if role == RECEIVER else link.session.unsettled_out
        runs: list[tuple[int, int]] = []
        for delivery_id in delivery_ids:
            if unsettled.pop(delivery_id, None) is None:
                continue
            if runs and runs[-1][1] + 1 == delivery_id:
                runs[-1] = (runs[-1][0], delivery_id)
            else:
                runs.append((delivery_id, delivery_id))
        channel = link.session.channel
        for first, last in runs:
            if isinstance(state, Accepted):
                self._output.append(encode_accepted(channel, first, last, role=role))
            else:
                self._send(channel, Disposition(role, first, last, settled=True, state=state))

    def transfer(
        self, link: Link, delivery_tag: bytes, payload: bytes, *, settled: bool = False, message_format: int = 0
    ) -> int:
        """Sends a message, in as many frames as the peer's max-frame-size asks for. Returns its delivery id.

        Raises RuntimeError without credit, ValueError for a tag of more than 32 bytes.
        """
        if self.is_gone(link):
            return -1
        if link.role != SENDER or not link.answered or link.credit <= 0:
            raise RuntimeError(f"{link} has no credit")
        if len(delivery_tag) > 32:
            raise ValueError("a delivery tag has at most 32 bytes (section 2.8.7)")
        session = link.session
        delivery_id = session.next_delivery_id
        session.next_delivery_id = (delivery_id + 1) % MODULUS
        link.credit -= 1
        link.delivery_count = (link.delivery_count + 1) % MODULUS
        if not settled:
            session.unsettled_out[delivery_id] = link
        head = Transfer(link.handle, delivery_id, delivery_tag, message_format, settled, more=True)
        room = self._peer_max_frame_size - 8 - len(encode_composite(head))
        for start in range(0, len(payload) or 1, room):
            part = payload[start : start + room]
            more = start + room < len(payload)
            session.pending.append(
                (Transfer(link.handle, delivery_id, delivery_tag, message_format, settled, more), part)
            )
        self._flush(session)
        return delivery_id

    def transfer_many(self, link: Link, payloads: Sequence[bytes], *, settled: bool = False) -> int:
        """Sends messages, each with the four bytes of its delivery id as its tag; returns the first delivery id.

        What `transfer` does, at a tenth of the cost for messages of one frame. Raises RuntimeError without that much
        credit.
        """
        if self.is_gone(link):
            return -1
        count = len(payloads)
        if link.role != SENDER or not link.answered or link.credit < count:
            raise RuntimeError(f"{link} has no credit for {count}")
        session = link.session
        first = session.next_delivery_id
        room = self._peer_max_frame_size - SHORT_TRANSFER.size
        fast = 0 if session.pending else min(count, session.remote_incoming_window, MODULUS - first)
        middle = short_transfer_middle(session.channel, link.handle)
        end = SHORT_TRANSFER_SETTLED if settled else SHORT_TRANSFER_UNSETTLED
        pack, append, head_size = SHORT_TRANSFER.pack, self._output.append, SHORT_TRANSFER.size
        delivery_id = first
        for payload in payloads if fast == count else payloads[:fast]:
            size = len(payload)
            if size > room:
                break
            append(pack(head_size + size, middle, delivery_id, SHORT_TAG, delivery_id, end))
            append(payload)
            delivery_id += 1
        sent = delivery_id - first
        if not settled:
            for unsettled in range(first, delivery_id):
                session.unsettled_out[unsettled] = link
        session.next_delivery_id = (first + sent) % MODULUS
        session.next_outgoing_id = (session.next_outgoing_id + sent) % MODULUS
        session.remote_incoming_window -= sent
        link.credit -= sent
        link.delivery_count = (link.delivery_count + sent) % MODULUS
        for payload in payloads[sent:]:
            self.transfer(link, U32.pack(session.next_delivery_id), payload, settled=settled)
        return first

    def drained(self, link: Link) -> None:
        """There is nothing more to send: uses up the credit (section 2.6.7), behind what waits for the window."""
        if self.is_gone(link):
            return
        if link.session.pending:
            if link not in link.session.draining:
                link.session.draining.append(link)
            return
        link.delivery_count = (link.delivery_count + link.credit) % MODULUS
        link.credit = 0
        self._send_flow(link.session, link)
        link.drain = False

    def detach(self, link: Link, error: Error | None = None) -> None:
        """Ends the link from this side, and for good."""
        if self.is_gone(link):
            return
        if not link.answered:
            self._echo(link, 0, None)
        link.detached = True
        self._forget(link)
        self._send(link.session.channel, Detach(link.handle, closed=True, error=error))

    def end(self, session: Session, error: Error | None = None) -> None:
        """Ends a session from this side, and all its links."""
        if self._state == OPENED and not session.ended:
            self._send(session.channel, End(error))
            self._end_session(session)

    def needs_settlement(self, link: Link) -> bool:
        """Does the receiver settle second, so that its disposition wants an answer (hub-device.md 9.5)?"""
        return link.asked.rcv_settle_mode == SECOND

    def is_gone(self, link: Link) -> bool:
        """Is it over, so that actions on it do nothing?"""
        return self._state != OPENED or link.detached or link.session.ended

    # Bytes out

    def _flush(self, session: Session) -> None:
        while session.pending and session.remote_incoming_window > 0:
            body, payload = session.pending.popleft()
            link = session.links.get(body.handle)
            if link is None or link.detached:
                continue
            self._output.append(encode_frame(session.channel, body, payload))
            session.next_outgoing_id = (session.next_outgoing_id + 1) % MODULUS
            session.remote_incoming_window -= 1
        if session.draining and not session.pending:
            draining = list(session.draining)
            session.draining.clear()
            for drained in draining:
                self.drained(drained)

    def _send_flow(self, session: Session, link: Link | None) -> None:
        flow = Flow(session.next_incoming_id, session.incoming_window, session.next_outgoing_id, 0xFFFF_FFFF)
        if link is not None:
            flow.handle = link.handle
            flow.delivery_count = link.delivery_count
            flow.link_credit = link.credit
            flow.drain = link.drain
        self._send(session.channel, flow)
