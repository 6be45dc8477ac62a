"""One MQTT 3.1.1 connection seen from the server: what may come when, and what is owed in answer.

Bytes go in by `receive(data, now)`, events come out; actions named by the protocol (`connack`, `puback`,
`publish`, ...) queue bytes, which `take_output()` hands over; `deadline()` says when to call `expire(now)`.
No IO, no clock: times are integers in microseconds. Section and statement numbers are those of the OASIS
standard of 29 October 2014. Written so that mypyc can compile it.

Theory of operation
-------------------
A connection goes through four states and never back:

    AWAITING_CONNECT --CONNECT--> CONNECTING --connack(0)--> CONNECTED --DISCONNECT--> CLOSED

and from each of them a violation, a deadline, a DISCONNECT or `connack` with another code leads to CLOSED. In
CLOSED whatever arrives is ignored; the caller writes what `take_output` still holds and closes the network
connection.

*What the peer does wrong never raises.* It becomes a `Violation`, always the last event, with the goodbye
that the specification has queued (CONNACK 1 or 2; for all else there is none). *What the caller does wrong
raises*: an action before `connack(0)` is a RuntimeError, a value that the protocol cannot carry is a
ValueError, and neither has queued anything. *After the end an action does nothing*: the peer may leave while
the caller works, and what it sent before it left comes in one list with its DISCONNECT.

*What the core answers itself:* PINGREQ; and of the QoS 2 flow PUBREC, PUBREL and repeated PUBLISHes. All else
is the caller's: PUBACK, PUBREC, SUBACK and UNSUBACK are sent when the work behind them is done, in the order
of the packets they answer ([MQTT-4.6.0-2]; nothing is reordered here). The core keeps no list of what is
still to be answered: how many unanswered PUBLISHes may pile up is decided by whoever reads the socket.

*Before CONNACK* a client may already send (section 3.1.4): those packets are delivered as events in order,
and the caller holds them until its verdict, then works on them or, having refused, drops them [MQTT-3.1.4-5].
What the core itself owes by then follows the CONNACK, which has to be the first packet [MQTT-3.2.0-1].

*Keep alive* (section 3.1.2.10) runs from CONNECT, allows 1.5 times what the client asked for, and is
restarted by each complete packet; one that trickles in does not count. A caller that does not read from the
socket must not call `expire` either: the client's packets may be waiting there.

*QoS 2* is off unless `qos_2` is given: a PUBLISH at QoS 2, PUBREC, PUBREL and PUBCOMP are then violations,
which is how the hub treats them (hub-device.md 3.7 and 15). When it is on, identifiers of received messages
are remembered for the connection, not for a session that outlives it.

*Memory.* One incomplete packet is kept, of at most `max_packet_size` bytes; a larger one is refused as soon
as its length has arrived. Events and output are handed over at each call and not kept.
"""

from collections.abc import Sequence
from enum import Enum
from struct import Struct, pack
from typing import Final

from muster.wire.mqtt_decoder import (
    MalformedPacket,
    UnacceptableProtocol,
    decode,
    decode_remaining_length,
    first_byte_fault,
)
from muster.wire.mqtt_packets import (
    ACCEPTED,
    CONNECT,
    DISCONNECT,
    IDENTIFIER_REJECTED,
    PINGREQ,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBSCRIBE,
    UNACCEPTABLE_PROTOCOL_VERSION,
    UNSUBSCRIBE,
    Acknowledgement,
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Record,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from muster.wire.mqtt_topics import HASH, NUL, PLUS

DEFAULT_MAX_PACKET_SIZE: Final = 262_144 + 65_535 + 9  # a hub message, the longest topic, the headers
DEFAULT_CONNECT_TIMEOUT: Final = 30_000_000  # microseconds from the session's start to CONNECT
DEFAULT_MAX_SILENCE: Final = 1_767_000_000  # microseconds: 29.45 minutes (hub-device.md 3.6)
DEFAULT_MAX_IN_FLIGHT: Final = 16

AWAITING_CONNECT: Final = 0
CONNECTING: Final = 1
CONNECTED: Final = 2
CLOSED: Final = 3

# The control packet types that a client sends (table 2.1); those of QoS 2 are a matter of policy.
_FROM_CLIENT: Final = frozenset({CONNECT, PUBLISH, PUBACK, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT})
_QOS_2: Final = frozenset({PUBREC, PUBREL, PUBCOMP})

_ONE_PUBACK: Final = Struct(">I")


class ViolationKind(Enum):
    """What a peer did wrong, as far as callers treat it differently."""

    MALFORMED = "malformed packet"
    OUT_OF_ORDER = "packet not allowed here"
    PROTOCOL_VERSION = "unacceptable protocol version"  # CONNACK 1 is queued
    CLIENT_ID = "client identifier rejected"  # CONNACK 2 is queued
    TOO_LARGE = "packet too large"
    QOS_2 = "QoS 2 not supported"
    CONNECT_TIMEOUT = "no CONNECT in time"
    KEEP_ALIVE_TIMEOUT = "no packet within the keep alive time"


class Violation(Record):
    """The end of a connection by the peer's fault. `reason` is for logs and reports and holds no secret."""

    __slots__ = ("kind", "reason")

    def __init__(self, kind: ViolationKind, reason: str) -> None:
        self.kind = kind
        self.reason = reason

    def values(self) -> tuple[object, ...]:
        return (self.kind, self.reason)


Event = Connect | Publish | Puback | Pubrec | Pubcomp | Subscribe | Unsubscribe | Pingreq | Disconnect | Violation


class _Refused(Exception):  # noqa: N818 - carries a violation out of the parser; nobody else sees it
    def __init__(self, kind: ViolationKind, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason


class MqttSession:
    """The server's side of one connection. See the module for the contract.

    `max_packet_size` counts bytes of a whole packet, fixed header included. `connect_timeout` runs from
    `now`, the time of the session's start, to CONNECT. `max_silence` caps the keep alive time and stands in
    for Keep Alive 0; None means no cap, and never. `max_in_flight` bounds the QoS 1 and 2 messages sent and
    not yet settled. Raises ValueError for a limit that the protocol does not allow.
    """

    __slots__ = (
        "_clean_session",
        "_connect_deadline",
        "_fast_length",
        "_held",
        "_in_flight",
        "_keep_alive",
        "_last_packet",
        "_last_packet_id",
        "_max_in_flight",
        "_max_packet_size",
        "_max_silence",
        "_needed",
        "_output",
        "_partial",
        "_qos_2",
        "_received",
        "_state",
        "_topic",
    )

    def __init__(
        self,
        now: int,
        *,
        max_packet_size: int = DEFAULT_MAX_PACKET_SIZE,
        connect_timeout: int = DEFAULT_CONNECT_TIMEOUT,
        max_silence: int | None = DEFAULT_MAX_SILENCE,
        max_in_flight: int = DEFAULT_MAX_IN_FLIGHT,
        qos_2: bool = False,
    ) -> None:
        if max_packet_size < 2:
            raise ValueError("no packet is smaller than 2 bytes")
        if not 1 <= max_in_flight <= 0xFFFF:
            raise ValueError("there are 65,535 packet identifiers (section 2.3.1)")
        self._max_packet_size = max_packet_size
        # The fast path reads lengths of one or two bytes; 5 is the largest fixed header.
        self._fast_length = min(0x3FFF, max_packet_size - 5)
        self._max_silence = max_silence
        self._max_in_flight = max_in_flight
        self._qos_2 = qos_2
        self._state = AWAITING_CONNECT
        self._connect_deadline = now + connect_timeout
        self._last_packet = now
        self._keep_alive = 0  # seconds, as the client asked
        self._clean_session = True
        self._held = bytearray()  # the core's own answers that wait for CONNACK
        self._partial = bytearray()  # an incomplete packet
        self._needed = 0  # how long `_partial` has to be before another look at it is worth while
        self._topic = b""  # the last topic name that the fast path found valid
        self._output: list[bytes] = []
        self._last_packet_id = 0
        self._in_flight: dict[int, int] = {}  # packet id -> type of the acknowledgement it waits for
        self._received: dict[int, bool] = {}  # packet id of a QoS 2 PUBLISH -> has PUBREC been sent

    # What the caller asks

    @property
    def connected(self) -> bool:
        """Has the connection been accepted, and not ended?"""
        return self._state == CONNECTED

    @property
    def closed(self) -> bool:
        """Is it over? Then write the last output and close the network connection."""
        return self._state == CLOSED

    @property
    def in_flight_room(self) -> int:
        """How many more QoS 1 or 2 messages may be published now."""
        return self._max_in_flight - len(self._in_flight)

    @property
    def buffered(self) -> int:
        """Bytes kept of an incomplete packet."""
        return len(self._partial)

    def take_output(self) -> bytes:
        """The bytes to write to the peer, once."""
        if not self._output:
            return b""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def deadline(self) -> int | None:
        """When to call `expire`, in microseconds, or None. Each call that takes `now` may move it."""
        if self._state == AWAITING_CONNECT:
            return self._connect_deadline
        silence = self._silence_allowed()
        if self._state == CLOSED or silence is None:
            return None
        return self._last_packet + silence

    def expire(self, now: int) -> list[Event]:
        """Ends the connection if its deadline has come; a call too early does nothing."""
        deadline = self.deadline()
        if deadline is None or now < deadline:
            return []
        if self._state == AWAITING_CONNECT:
            reason = "no CONNECT arrived in time (section 3.1.4)"
            return [self._violation(ViolationKind.CONNECT_TIMEOUT, reason)]
        silence = (deadline - self._last_packet) / 1_000_000
        reason = f"no packet for {silence:g} s, with a keep alive of {self._keep_alive} s [MQTT-3.1.2-24]"
        return [self._violation(ViolationKind.KEEP_ALIVE_TIMEOUT, reason)]

    def set_max_silence(self, max_silence: int | None) -> None:
        """Another cap on the keep alive time, in µs, now that CONNECT has told whom the client wants."""
        self._max_silence = max_silence

    def _silence_allowed(self) -> int | None:
        asked = self._keep_alive * 1_500_000
        if self._max_silence is None:
            return asked or None
        return min(asked, self._max_silence) if asked else self._max_silence

    # Bytes in

    def receive(self, data: bytes, now: int) -> list[Event]:
        """The events in what the peer sent. Never raises for it: a `Violation` is the last event then."""
        if self._state == CLOSED:
            return []
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return []
            data = bytes(self._partial)
            self._partial.clear()
        events: list[Event] = []
        try:
            taken = self._take_packets(data, events)
        except _Refused as refusal:
            events.append(self._violation(refusal.kind, refusal.reason))
        except UnacceptableProtocol as fault:  # one name for one type: mypyc gives a variable one
            self._output.append(Connack(UNACCEPTABLE_PROTOCOL_VERSION).encode())
            events.append(self._violation(ViolationKind.PROTOCOL_VERSION, str(fault)))
        except MalformedPacket as malformed:
            events.append(self._violation(ViolationKind.MALFORMED, str(malformed)))
        else:
            if taken:
                self._last_packet = now
            if taken < len(data) and self._state != CLOSED:
                self._partial += data[taken:]
        return events

    def _violation(self, kind: ViolationKind, reason: str) -> Violation:
        self._close()
        return Violation(kind, reason)

    def _close(self) -> None:
        self._state = CLOSED
        self._partial.clear()

    def _take_packets(self, data: bytes, events: list[Event]) -> int:
        """Appends the events of all complete packets; returns where the incomplete one starts."""
        position = 0
        end = len(data)
        while position < end and self._state != CLOSED:
            if self._state != AWAITING_CONNECT:
                position = self._take_publishes(data, position, events)
                if position == end:
                    break
            following = self._take_packet(data, position, events)
            if following < 0:
                break
            position = following
        return position

    def _take_publishes(self, data: bytes, position: int, events: list[Event]) -> int:
        """The fast path: a run of PUBLISHes at QoS 0 or 1, without DUP and RETAIN, of less than 16 KiB each.

        It stops at whatever is not one of those or has anything wrong with it, and leaves that to
        `_take_packet`: every rule is enforced there, this only has to recognise packets that break none.
        Returns where it stopped.
        """
        end = len(data)
        longest = self._fast_length
        topic = self._topic
        while end - position > 4:
            first_byte = data[position]
            if first_byte not in (0x32, 0x30):
                break
            length = data[position + 1]
            body = position + 2
            if length > 0x7F:
                length = length & 0x7F | data[body] << 7  # more than 0x3FFF when a third byte follows
                body += 1
            following = body + length
            name_end = body + 2 + (data[body] << 8 | data[body + 1])
            if following > end or name_end > following or length > longest:
                break
            name = data[body + 2 : name_end]
            if name != topic or not name:
                if not name or not name.isascii() or NUL in name or PLUS in name or HASH in name:
                    break
                topic = name
            if first_byte == 0x30:
                events.append(Publish(topic, data[name_end:following]))
            else:
                body = name_end + 2
                if body > following:
                    break
                packet_id = data[name_end] << 8 | data[name_end + 1]
                if packet_id == 0:
                    break
                events.append(Publish(topic, data[body:following], 1, packet_id))
            position = following
        self._topic = topic
        return position

    def _take_packet(self, data: bytes, position: int, events: list[Event]) -> int:
        """One packet of any kind. Returns where the next one starts, or -1 when bytes are missing."""
        first_byte = data[position]
        self._admit(first_byte)
        length, body = decode_remaining_length(data, position + 1)
        if length < 0:
            self._needed = len(data) - position + 1
            return -1
        following = body + length
        if following - position > self._max_packet_size:
            reason = f"a packet of {following - position} bytes is larger than {self._max_packet_size}"
            raise _Refused(ViolationKind.TOO_LARGE, reason)
        if following > len(data):
            self._needed = following - position
            return -1
        event = self._react(decode(first_byte, data[body:following]))
        if event is not None:
            events.append(event)
        return following

    def _admit(self, first_byte: int) -> None:
        """Refuses a packet by its first byte, so that nobody waits for a body that changes nothing."""
        kind = first_byte >> 4
        if self._state == AWAITING_CONNECT and kind != CONNECT:
            raise _Refused(ViolationKind.OUT_OF_ORDER, "the first packet is no CONNECT [MQTT-3.1.0-1]")
        fault = first_byte_fault(first_byte)
        if fault is not None:
            raise MalformedPacket(fault)
        if self._state == AWAITING_CONNECT:
            return
        if kind == CONNECT:
            raise _Refused(ViolationKind.OUT_OF_ORDER, "a second CONNECT [MQTT-3.1.0-2]")
        if kind in _QOS_2 or (kind == PUBLISH and first_byte & 0x04):
            if not self._qos_2:
                raise _Refused(ViolationKind.QOS_2, f"control packet type {kind} at QoS 2, which is off")
        elif kind not in _FROM_CLIENT:
            reason = f"control packet type {kind} is only sent by a server (table 2.1)"
            raise _Refused(ViolationKind.OUT_OF_ORDER, reason)

    def _react(self, packet: Packet) -> Event | None:
        """What a packet does to the state; the event it becomes, or None."""
        if isinstance(packet, Publish):
            return self._on_publish(packet)
        if isinstance(packet, Acknowledgement):
            return self._on_acknowledgement(packet)
        if isinstance(packet, Connect):
            return self._on_connect(packet)
        if isinstance(packet, Pingreq):
            self._answer(Pingresp())  # [MQTT-3.12.4-1]
        elif isinstance(packet, Disconnect):
            self._close()  # the client must not send more [MQTT-3.14.4-2]; if it does, nobody listens
        assert isinstance(packet, (Subscribe, Unsubscribe, Pingreq, Disconnect))
        return packet

    def _on_connect(self, packet: Connect) -> Event:
        if not packet.client_id and not packet.clean_session:
            self._output.append(Connack(IDENTIFIER_REJECTED).encode())
            reason = "an empty client identifier needs a clean session [MQTT-3.1.3-8]"
            raise _Refused(ViolationKind.CLIENT_ID, reason)
        self._state = CONNECTING
        self._keep_alive = packet.keep_alive
        self._clean_session = packet.clean_session
        return packet

    def _on_publish(self, packet: Publish) -> Event | None:
        """A QoS 2 message is delivered once, however often it arrives before its PUBREL [MQTT-4.3.3-2]."""
        if packet.qos == 2:
            if packet.packet_id in self._received:
                if self._received[packet.packet_id]:
                    self._answer(Pubrec(packet.packet_id))
                return None
            self._received[packet.packet_id] = False
        return packet

    def _on_acknowledgement(self, packet: Acknowledgement) -> Event | None:
        """Settles what is in flight. An identifier that is not in flight settles nothing and is tolerated."""
        if isinstance(packet, Puback) and self._in_flight.get(packet.packet_id) == PUBACK:
            del self._in_flight[packet.packet_id]
            return packet
        if isinstance(packet, Pubcomp) and self._in_flight.get(packet.packet_id) == PUBCOMP:
            del self._in_flight[packet.packet_id]
            return packet
        if isinstance(packet, Pubrec):
            # In any case, so that a client which remembers more than the server can finish.
            self._answer(Pubrel(packet.packet_id))
            if self._in_flight.get(packet.packet_id) == PUBREC:
                self._in_flight[packet.packet_id] = PUBCOMP
                return packet
        if isinstance(packet, Pubrel):
            self._release(packet.packet_id)
        return None

    def _release(self, packet_id: int) -> None:
        """Answers PUBREL, even of an unknown identifier: an earlier connection's, maybe [MQTT-4.4.0-1]."""
        if self._received.pop(packet_id, True) is False:
            reason = "PUBREL for a message that had no PUBREC yet [MQTT-4.3.3-1]"
            raise _Refused(ViolationKind.OUT_OF_ORDER, reason)
        self._answer(Pubcomp(packet_id))

    def _answer(self, packet: Packet) -> None:
        """Queues what the core itself owes, behind CONNACK if that is still to come [MQTT-3.2.0-1]."""
        if self._state == CONNECTED:
            self._output.append(packet.encode())
        else:
            self._held += packet.encode()

    # Actions

    def connack(self, return_code: int = ACCEPTED, *, session_present: bool = False) -> None:
        """The verdict on CONNECT. A code other than 0 ends the connection [MQTT-3.2.2-5]."""
        if self._state == CLOSED:
            return
        if self._state != CONNECTING:
            raise RuntimeError("connack without a CONNECT that waits for it")
        if session_present and self._clean_session:
            raise ValueError("a clean session was not there before [MQTT-3.2.2-1]")
        self._output.append(Connack(return_code, session_present=session_present).encode())
        if return_code != ACCEPTED:
            self._close()
            return
        self._state = CONNECTED
        if self._held:
            self._output.append(bytes(self._held))
            self._held.clear()

    def puback(self, packet_id: int) -> None:
        """The QoS 1 message is taken [MQTT-4.3.2-2]."""
        self.pubacks((packet_id,))

    def pubacks(self, packet_ids: Sequence[int]) -> None:
        """Many QoS 1 messages are taken, in this order: as `puback` for each, at a third of the cost."""
        if not self._may_send() or not packet_ids:
            return
        if min(packet_ids) < 1 or max(packet_ids) > 0xFFFF:
            raise ValueError("there is no such packet identifier [MQTT-2.3.1-1]")
        # A PUBACK is four bytes, 40 02 and the identifier: one integer each.
        if len(packet_ids) == 1:
            self._output.append(_ONE_PUBACK.pack(0x40020000 | packet_ids[0]))
        else:
            whole = [0x40020000 | packet_id for packet_id in packet_ids]
            self._output.append(pack(f">{len(whole)}I", *whole))

    def pubrec(self, packet_id: int) -> None:
        """The QoS 2 message is taken. Raises ValueError if no such message waits for it."""
        if not self._may_send():
            return
        if self._received.get(packet_id) is not False:
            raise ValueError(f"no QoS 2 message {packet_id} waits for PUBREC")
        self._received[packet_id] = True
        self._queue(Pubrec(packet_id))

    def suback(self, packet_id: int, return_codes: Sequence[int]) -> None:
        """Answers a SUBSCRIBE: one code for each of its filters, in their order [MQTT-3.8.4-5]."""
        self._queue(Suback(packet_id, return_codes))

    def unsuback(self, packet_id: int) -> None:
        """Answers an UNSUBSCRIBE, also of what was never subscribed to [MQTT-3.10.4-5]."""
        self._queue(Unsuback(packet_id))

    def publish(
        self,
        topic: bytes,
        payload: bytes,
        qos: int = 0,
        *,
        retain: bool = False,
        dup: bool = False,
        packet_id: int = 0,
    ) -> int:
        """Sends a message. Returns its packet id, by which Puback or Pubcomp will settle it.

        At QoS 0 and after the end the packet id is 0: nothing will settle it.

        `packet_id` and `dup` are for a message that an earlier connection of the session left unsettled: it
        keeps its identifier [MQTT-4.4.0-1]. Raises RuntimeError without `in_flight_room`, ValueError for an
        identifier that is in flight, or QoS 2 while that is off.
        """
        if not self._may_send():
            return 0
        if qos == 0:
            self._queue(Publish(topic, payload, 0, packet_id, retain=retain, dup=dup))
            return 0
        if qos == 2 and not self._qos_2:
            raise ValueError("QoS 2 is turned off")
        packet_id = self._free_packet_id(packet_id)
        self._queue(Publish(topic, payload, qos, packet_id, retain=retain, dup=dup))
        self._in_flight[packet_id] = PUBACK if qos == 1 else PUBREC
        return packet_id

    def pubrel(self, packet_id: int) -> None:
        """Goes on with a QoS 2 message whose PUBREC reached an earlier connection [MQTT-4.4.0-1]."""
        if not self._may_send():
            return
        if not self._qos_2:
            raise ValueError("QoS 2 is turned off")
        packet_id = self._free_packet_id(packet_id)
        self._queue(Pubrel(packet_id))
        self._in_flight[packet_id] = PUBCOMP

    def _free_packet_id(self, wanted: int) -> int:
        """The identifier wanted, or for 0 the next one that is not in flight [MQTT-2.3.1-4]."""
        if not self.in_flight_room:
            raise RuntimeError(f"{self._max_in_flight} messages are in flight, which is the limit")
        if wanted:
            if wanted in self._in_flight:
                raise ValueError(f"packet identifier {wanted} is in flight")
            return wanted
        while True:
            self._last_packet_id = self._last_packet_id % 0xFFFF + 1
            if self._last_packet_id not in self._in_flight:
                return self._last_packet_id

    def _may_send(self) -> bool:
        if self._state in (AWAITING_CONNECT, CONNECTING):
            raise RuntimeError("the connection has not been accepted yet")
        return self._state == CONNECTED

    def _queue(self, packet: Packet) -> None:
        if self._may_send():
            self._output.append(packet.encode())
