"""The fourteen control packets of MQTT 3.1.1: a class for each, and its encoding.

Both directions are complete, because clients, tests and traces need the other side of what a server needs.
Packets become bytes here; bytes become packets in `mqtt_decoder`, and order and state are `mqtt_session`'s.
Section and statement numbers are those of the OASIS standard of 29 October 2014. Written so that mypyc can
compile it.

Constructors check nothing; `encode` raises ValueError for a value that the protocol cannot carry. Topics and
filters are bytes (see `mqtt_topics`), payloads and passwords are bytes, client id and user name are str. No
repr shows a password or a payload.
"""

from collections.abc import Sequence
from typing import Final

from muster.wire.mqtt_topics import LONGEST_TEXT, text_fault, topic_filter_fault, topic_name_fault

# Control packet types (table 2.1).
CONNECT: Final = 1
CONNACK: Final = 2
PUBLISH: Final = 3
PUBACK: Final = 4
PUBREC: Final = 5
PUBREL: Final = 6
PUBCOMP: Final = 7
SUBSCRIBE: Final = 8
SUBACK: Final = 9
UNSUBSCRIBE: Final = 10
UNSUBACK: Final = 11
PINGREQ: Final = 12
PINGRESP: Final = 13
DISCONNECT: Final = 14

# CONNACK return codes (table 3.1).
ACCEPTED: Final = 0
UNACCEPTABLE_PROTOCOL_VERSION: Final = 1
IDENTIFIER_REJECTED: Final = 2
SERVER_UNAVAILABLE: Final = 3
BAD_USER_NAME_OR_PASSWORD: Final = 4
NOT_AUTHORIZED: Final = 5

SUBSCRIPTION_FAILED: Final = 0x80  # a SUBACK return code (section 3.9.3)

PROTOCOL_NAME: Final = b"MQTT"
PROTOCOL_LEVEL: Final = 4
LARGEST_REMAINING_LENGTH: Final = 268_435_455  # four bytes of seven bits (section 2.2.3)


class Record:
    """Equality and repr by value. `values` is everything the record says, in the order of its constructor."""

    __slots__ = ()

    def values(self) -> tuple[object, ...]:
        return ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and type(self) is type(other) and self.values() == other.values()

    def __hash__(self) -> int:
        return hash(self.values())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join([repr(value) for value in self.values()])})"


class Packet(Record):
    """A control packet."""

    __slots__ = ()

    def encode(self) -> bytes:
        """The bytes of the packet. Raises ValueError for a value that the protocol cannot carry."""
        raise NotImplementedError


class Will(Record):
    """The message to publish when the connection ends without a DISCONNECT (section 3.1.2.5)."""

    __slots__ = ("payload", "qos", "retain", "topic")

    def __init__(self, topic: bytes, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.retain = retain

    def values(self) -> tuple[object, ...]:
        return (self.topic, self.payload, self.qos, self.retain)

    def __repr__(self) -> str:
        return f"Will({self.topic!r}, <{len(self.payload)} bytes>, qos={self.qos}, retain={self.retain})"


class Connect(Packet):
    """Client asks for a connection (section 3.1). `keep_alive` is in seconds, 0 turns it off."""

    __slots__ = ("clean_session", "client_id", "keep_alive", "password", "username", "will")

    def __init__(
        self,
        client_id: str,
        *,
        username: str | None = None,
        password: bytes | None = None,
        clean_session: bool = True,
        keep_alive: int = 0,
        will: Will | None = None,
    ) -> None:
        self.client_id = client_id
        self.username = username
        self.password = password
        self.clean_session = clean_session
        self.keep_alive = keep_alive
        self.will = will

    def values(self) -> tuple[object, ...]:
        return (self.client_id, self.username, self.password, self.clean_session, self.keep_alive, self.will)

    def __repr__(self) -> str:
        password = "None" if self.password is None else f"<{len(self.password)} bytes>"
        return (
            f"Connect({self.client_id!r}, username={self.username!r}, password={password},"
            f" clean_session={self.clean_session}, keep_alive={self.keep_alive}, will={self.will!r})"
        )

    def encode(self) -> bytes:
        _require(0 <= self.keep_alive <= 0xFFFF, f"a keep alive of {self.keep_alive} s does not fit")
        flags = 0x02 if self.clean_session else 0
        payload = [_text(self.client_id.encode())]
        if self.will is not None:
            _require(self.will.qos in (0, 1, 2), f"a will has no QoS {self.will.qos} [MQTT-3.1.2-14]")
            _require_none(topic_name_fault(self.will.topic))
            flags |= 0x04 | self.will.qos << 3 | (0x20 if self.will.retain else 0)
            payload += [_text(self.will.topic), _field(self.will.payload)]
        if self.username is not None:
            flags |= 0x80
            payload.append(_text(self.username.encode()))
        if self.password is not None:
            _require(self.username is not None, "a password needs a user name [MQTT-3.1.2-22]")
            flags |= 0x40
            payload.append(_field(self.password))
        head = _field(PROTOCOL_NAME) + bytes([PROTOCOL_LEVEL, flags]) + self.keep_alive.to_bytes(2, "big")
        return _packet(CONNECT << 4, head + b"".join(payload))


class Connack(Packet):
    """Server answers a CONNECT (section 3.2)."""

    __slots__ = ("return_code", "session_present")

    def __init__(self, return_code: int = ACCEPTED, *, session_present: bool = False) -> None:
        self.return_code = return_code
        self.session_present = session_present

    def values(self) -> tuple[object, ...]:
        return (self.return_code, self.session_present)

    def encode(self) -> bytes:
        _require(0 <= self.return_code <= NOT_AUTHORIZED, f"CONNACK has no return code {self.return_code}")
        _require(
            self.return_code == ACCEPTED or not self.session_present,
            "a refused connection has no session [MQTT-3.2.2-4]",
        )
        return bytes([CONNACK << 4, 2, 1 if self.session_present else 0, self.return_code])


class Publish(Packet):
    """An application message, in either direction (section 3.3). `packet_id` is 0 at QoS 0, which has none.

    `topic` is bytes: a decoded packet's topic is a valid topic name, in well-formed UTF-8 without U+0000.
    """

    __slots__ = ("dup", "packet_id", "payload", "qos", "retain", "topic")

    def __init__(
        self,
        topic: bytes,
        payload: bytes,
        qos: int = 0,
        packet_id: int = 0,
        *,
        retain: bool = False,
        dup: bool = False,
    ) -> None:
        self.topic = topic
        self.payload = payload
        self.qos = qos
        self.packet_id = packet_id
        self.retain = retain
        self.dup = dup

    @property
    def topic_text(self) -> str:
        return self.topic.decode()

    def values(self) -> tuple[object, ...]:
        return (self.topic, self.payload, self.qos, self.packet_id, self.retain, self.dup)

    def __repr__(self) -> str:
        return (
            f"Publish({self.topic!r}, <{len(self.payload)} bytes>, qos={self.qos},"
            f" packet_id={self.packet_id}, retain={self.retain}, dup={self.dup})"
        )

    def encode(self) -> bytes:
        _require(self.qos in (0, 1, 2), f"there is no QoS {self.qos} [MQTT-3.3.1-4]")
        _require_none(topic_name_fault(self.topic))
        first = PUBLISH << 4 | self.qos << 1 | (1 if self.retain else 0) | (8 if self.dup else 0)
        if self.qos:
            return _packet(first, _field(self.topic) + _packet_id(self.packet_id) + self.payload)
        _require(self.packet_id == 0, "QoS 0 has no packet identifier [MQTT-2.3.1-5]")
        _require(not self.dup, "QoS 0 is never a duplicate [MQTT-3.3.1-2]")
        return _packet(first, _field(self.topic) + self.payload)


class Acknowledgement(Packet):
    """The packets that consist of a packet identifier."""

    __slots__ = ("packet_id",)

    def __init__(self, packet_id: int) -> None:
        self.packet_id = packet_id

    def values(self) -> tuple[object, ...]:
        return (self.packet_id,)


class Puback(Acknowledgement):
    """Receiver has taken a QoS 1 message (section 3.4)."""

    __slots__ = ()

    def encode(self) -> bytes:
        return b"\x40\x02" + _packet_id(self.packet_id)


class Pubrec(Acknowledgement):
    """Receiver has taken a QoS 2 message (section 3.5)."""

    __slots__ = ()

    def encode(self) -> bytes:
        return b"\x50\x02" + _packet_id(self.packet_id)


class Pubrel(Acknowledgement):
    """Sender of a QoS 2 message will not send it again (section 3.6)."""

    __slots__ = ()

    def encode(self) -> bytes:
        return b"\x62\x02" + _packet_id(self.packet_id)


class Pubcomp(Acknowledgement):
    """Receiver has forgotten the identifier of a QoS 2 message (section 3.7)."""

    __slots__ = ()

    def encode(self) -> bytes:
        return b"\x70\x02" + _packet_id(self.packet_id)


class Subscribe(Packet):
    """Client asks for messages (section 3.8). `filters` holds pairs of topic filter and requested QoS."""

    __slots__ = ("filters", "packet_id")

    def __init__(self, packet_id: int, filters: Sequence[tuple[bytes, int]]) -> None:
        self.packet_id = packet_id
        self.filters = tuple(filters)

    def values(self) -> tuple[object, ...]:
        return (self.packet_id, self.filters)

    def encode(self) -> bytes:
        _require(len(self.filters) > 0, "SUBSCRIBE without a topic filter [MQTT-3.8.3-3]")
        parts = [_packet_id(self.packet_id)]
        for topic_filter, qos in self.filters:
            _require_none(topic_filter_fault(topic_filter))
            _require(qos in (0, 1, 2), f"SUBSCRIBE asks for QoS {qos} [MQTT-3-8.3-4]")
            parts += [_field(topic_filter), bytes([qos])]
        return _packet(SUBSCRIBE << 4 | 2, b"".join(parts))


class Suback(Packet):
    """Server answers a SUBSCRIBE with a return code for each of its filters, in order (section 3.9).

    A return code is the granted QoS or `SUBSCRIPTION_FAILED`.
    """

    __slots__ = ("packet_id", "return_codes")

    def __init__(self, packet_id: int, return_codes: Sequence[int]) -> None:
        self.packet_id = packet_id
        self.return_codes = tuple(return_codes)

    def values(self) -> tuple[object, ...]:
        return (self.packet_id, self.return_codes)

    def encode(self) -> bytes:
        _require(len(self.return_codes) > 0, "SUBACK without a return code [MQTT-3.8.4-5]")
        for code in self.return_codes:
            _require(code in (0, 1, 2, SUBSCRIPTION_FAILED), f"SUBACK has no return code {code} [MQTT-3.9.3-2]")
        return _packet(SUBACK << 4, _packet_id(self.packet_id) + bytes(self.return_codes))


class Unsubscribe(Packet):
    """Client wants no more messages of these filters (section 3.10)."""

    __slots__ = ("filters", "packet_id")

    def __init__(self, packet_id: int, filters: Sequence[bytes]) -> None:
        self.packet_id = packet_id
        self.filters = tuple(filters)

    def values(self) -> tuple[object, ...]:
        return (self.packet_id, self.filters)

    def encode(self) -> bytes:
        _require(len(self.filters) > 0, "UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2]")
        parts = [_packet_id(self.packet_id)]
        for topic_filter in self.filters:
            _require_none(topic_filter_fault(topic_filter))
            parts.append(_field(topic_filter))
        return _packet(UNSUBSCRIBE << 4 | 2, b"".join(parts))


class Unsuback(Acknowledgement):
    """Server answers an UNSUBSCRIBE (section 3.11)."""

    __slots__ = ()

    def encode(self) -> bytes:
        return b"\xb0\x02" + _packet_id(self.packet_id)


class Pingreq(Packet):
    """Client is alive (section 3.12)."""

    __slots__ = ()

    def encode(self) -> bytes:
        return b"\xc0\x00"


class Pingresp(Packet):
    """Server is alive (section 3.13)."""

    __slots__ = ()

    def encode(self) -> bytes:
        return b"\xd0\x00"


class Disconnect(Packet):
    """Client leaves on purpose: its will is dropped (section 3.14)."""

    __slots__ = ()

    def encode(self) -> bytes:
        return b"\xe0\x00"


def _require(condition: bool, fault: str) -> None:
    if not condition:
        raise ValueError(fault)


def _require_none(fault: str | None) -> None:
    if fault is not None:
        raise ValueError(fault)


def _field(content: bytes) -> bytes:
    """Two bytes of length and the content (sections 1.5.3 and 3.1.3.3)."""
    _require(len(content) <= LONGEST_TEXT, f"a field of {len(content)} bytes is longer than {LONGEST_TEXT}")
    return len(content).to_bytes(2, "big") + content


def _text(content: bytes) -> bytes:
    _require_none(text_fault(content))
    return _field(content)


def _packet_id(packet_id: int) -> bytes:
    _require(1 <= packet_id <= 0xFFFF, f"{packet_id} is no packet identifier [MQTT-2.3.1-1]")
    return packet_id.to_bytes(2, "big")


def encode_remaining_length(length: int) -> bytes:
    """Seven bits a byte, the lowest first, bit 7 says that more follow (section 2.2.3)."""
    _require(0 <= length <= LARGEST_REMAINING_LENGTH, f"a packet of {length} bytes is too large for MQTT")
    encoded = bytearray()
    while length > 0x7F:
        encoded.append(length & 0x7F | 0x80)
        length >>= 7
    encoded.append(length)
    return bytes(encoded)


def _packet(first_byte: int, body: bytes) -> bytes:
    return bytes([first_byte]) + encode_remaining_length(len(body)) + body
