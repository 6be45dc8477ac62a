"""Bytes to MQTT 3.1.1 control packets, strictly: whatever the specification forbids is `MalformedPacket`.

The other direction, and the packets themselves, are in `mqtt_packets`; what may come when is `mqtt_session`'s
business. Written so that mypyc can compile it.
"""

from collections.abc import Callable
from typing import Final

from muster.wire.mqtt_packets import (
    ACCEPTED,
    CONNACK,
    CONNECT,
    DISCONNECT,
    NOT_AUTHORIZED,
    PINGREQ,
    PINGRESP,
    PROTOCOL_LEVEL,
    PROTOCOL_NAME,
    PUBACK,
    PUBCOMP,
    PUBLISH,
    PUBREC,
    PUBREL,
    SUBACK,
    SUBSCRIBE,
    SUBSCRIPTION_FAILED,
    UNSUBACK,
    UNSUBSCRIBE,
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
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)
from muster.wire.mqtt_topics import text_fault, topic_filter_fault, topic_name_fault


class MalformedPacket(Exception):  # noqa: N818 - the specification's word for it
    """A peer sent bytes that are no MQTT 3.1.1 packet; the text names the statement that was broken."""


class UnacceptableProtocol(MalformedPacket):
    """A CONNECT of another protocol or version. It has an answer: CONNACK 1 [MQTT-3.1.2-2]."""


def decode_remaining_length(data: bytes, position: int) -> tuple[int, int]:
    """The remaining length that starts at `position`, and where the packet's body starts (section 2.2.3).

    A length of -1 says that bytes are missing. Raises MalformedPacket when the fourth byte asks for a fifth.
    """
    length = 0
    for shift in (0, 7, 14, 21):
        if position == len(data):
            return -1, position
        byte = data[position]
        position += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80:
            return length, position
    raise MalformedPacket("a remaining length has more than four bytes (section 2.2.3)")


# The lower four bits of the first byte, by control packet type (table 2.2).
# -1: the type is reserved (table 2.1). -2: PUBLISH, whose flags have a meaning.
_FLAGS: Final = (-1, 0, 0, -2, 0, 0, 2, 0, 2, 0, 2, 0, 0, 0, 0, -1)


def first_byte_fault(first_byte: int) -> str | None:
    """Why no control packet starts with this byte, or None."""
    kind = first_byte >> 4
    flags = first_byte & 0x0F
    expected = _FLAGS[kind]
    if expected == -2:
        if flags & 0x06 == 0x06:
            return "PUBLISH has both QoS bits set [MQTT-3.3.1-4]"
        if flags & 0x0E == 0x08:
            return "PUBLISH at QoS 0 has DUP set [MQTT-3.3.1-2]"
        return None
    if expected == -1:
        return f"control packet type {kind} is reserved (table 2.1)"
    if flags != expected:
        return f"control packet type {kind} has flags {flags:04b}, not {expected:04b} [MQTT-2.2.2-2]"
    return None


class _Reader:
    """Reads the fields of one packet's body, and sees to it that they fill it exactly."""

    __slots__ = ("_body", "_position")

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._position = 0

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._body):
            raise MalformedPacket("a packet ends inside a field (section 2.2.3)")
        taken = self._body[self._position : end]
        self._position = end
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def integer(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def field(self) -> bytes:
        return self.take(self.integer())

    def text(self) -> str:
        content = self.field()
        _refuse(text_fault(content))
        return content.decode()

    def topic_name(self) -> bytes:
        name = self.field()
        _refuse(topic_name_fault(name))
        return name

    def topic_filter(self) -> bytes:
        topic_filter = self.field()
        _refuse(topic_filter_fault(topic_filter))
        return topic_filter

    def packet_id(self) -> int:
        packet_id = self.integer()
        if packet_id == 0:
            raise MalformedPacket("a packet identifier is 0 [MQTT-2.3.1-1]")
        return packet_id

    def rest(self) -> bytes:
        return self.take(len(self._body) - self._position)

    def more(self) -> bool:
        return self._position < len(self._body)

    def finish(self) -> None:
        if self.more():
            raise MalformedPacket("a packet goes on after its last field (section 2.2.3)")


def _refuse(fault: str | None) -> None:
    if fault is not None:
        raise MalformedPacket(fault)


def decode(first_byte: int, body: bytes) -> Packet:
    """The packet with this first byte and this body, the remaining length between them taken off.

    Raises MalformedPacket, or UnacceptableProtocol for a CONNECT of another protocol or version.
    """
    _refuse(first_byte_fault(first_byte))
    if first_byte >> 4 == PUBLISH:
        return _decode_publish(first_byte, _Reader(body))
    reader = _Reader(body)
    packet = _DECODERS[first_byte >> 4](reader)
    reader.finish()
    return packet


def decode_all(data: bytes) -> list[Packet]:
    """The packets in `data`, which must end where a packet ends. For clients, tests and traces."""
    packets: list[Packet] = []
    position = 0
    while position < len(data):
        length, body = decode_remaining_length(data, position + 1)
        if length < 0 or body + length > len(data):
            raise MalformedPacket("the bytes end inside a packet")
        packets.append(decode(data[position], data[body : body + length]))
        position = body + length
    return packets


def _decode_connect(reader: _Reader) -> Connect:
    name = reader.field()
    level = reader.byte()
    if name != PROTOCOL_NAME or level != PROTOCOL_LEVEL:
        raise UnacceptableProtocol(
            f"CONNECT speaks {name[:16]!r} level {level}, not MQTT level 4 [MQTT-3.1.2-1] [MQTT-3.1.2-2]"
        )
    flags = reader.byte()
    _refuse(_connect_flags_fault(flags))
    keep_alive = reader.integer()
    # The payload's fields stand in this order, each only if its flag is set [MQTT-3.1.3-1].
    client_id = reader.text()
    will = None
    if flags & 0x04:
        will = Will(reader.topic_name(), reader.field(), flags >> 3 & 0x03, retain=flags & 0x20 != 0)
    username = reader.text() if flags & 0x80 else None
    password = reader.field() if flags & 0x40 else None
    return Connect(
        client_id,
        username=username,
        password=password,
        clean_session=flags & 0x02 != 0,
        keep_alive=keep_alive,
        will=will,
    )


def _connect_flags_fault(flags: int) -> str | None:
    """Why no CONNECT has these connect flags (section 3.1.2.3), or None."""
    if flags & 0x01:
        return "CONNECT has its reserved flag set [MQTT-3.1.2-3]"
    if not flags & 0x04 and flags & 0x38:
        return "CONNECT has no will, but a will QoS or will retain [MQTT-3.1.2-13] [MQTT-3.1.2-15]"
    if flags & 0x18 == 0x18:
        return "CONNECT has a will QoS of 3 [MQTT-3.1.2-14]"
    if flags & 0xC0 == 0x40:
        return "CONNECT has a password without a user name [MQTT-3.1.2-22]"
    return None


def _decode_connack(reader: _Reader) -> Connack:
    flags = reader.byte()
    return_code = reader.byte()
    if flags > 1:
        raise MalformedPacket("CONNACK has a reserved flag set (section 3.2.2.1)")
    if return_code > NOT_AUTHORIZED:
        raise MalformedPacket(f"CONNACK has the reserved return code {return_code} (table 3.1)")
    if flags and return_code != ACCEPTED:
        raise MalformedPacket("CONNACK refuses and has a session [MQTT-3.2.2-4]")
    return Connack(return_code, session_present=flags == 1)


def _decode_publish(first_byte: int, reader: _Reader) -> Publish:
    topic = reader.topic_name()
    qos = first_byte >> 1 & 0x03
    packet_id = reader.packet_id() if qos else 0
    retain = first_byte & 0x01 != 0
    dup = first_byte & 0x08 != 0
    return Publish(topic, reader.rest(), qos, packet_id, retain=retain, dup=dup)


def _decode_subscribe(reader: _Reader) -> Subscribe:
    packet_id = reader.packet_id()
    filters: list[tuple[bytes, int]] = []
    while reader.more():
        topic_filter = reader.topic_filter()
        qos = reader.byte()
        if qos > 2:
            raise MalformedPacket(f"SUBSCRIBE asks for QoS {qos} [MQTT-3-8.3-4]")
        filters.append((topic_filter, qos))
    if not filters:
        raise MalformedPacket("SUBSCRIBE without a topic filter [MQTT-3.8.3-3]")
    return Subscribe(packet_id, filters)


def _decode_suback(reader: _Reader) -> Suback:
    packet_id = reader.packet_id()
    codes = reader.rest()
    if not codes:
        raise MalformedPacket("SUBACK without a return code [MQTT-3.8.4-5]")
    for code in codes:
        if code not in (0, 1, 2, SUBSCRIPTION_FAILED):
            raise MalformedPacket(f"SUBACK has the reserved return code {code} [MQTT-3.9.3-2]")
    return Suback(packet_id, tuple(codes))


def _decode_unsubscribe(reader: _Reader) -> Unsubscribe:
    packet_id = reader.packet_id()
    filters: list[bytes] = []
    while reader.more():
        filters.append(reader.topic_filter())
    if not filters:
        raise MalformedPacket("UNSUBSCRIBE without a topic filter [MQTT-3.10.3-2]")
    return Unsubscribe(packet_id, filters)


_DECODERS: Final[dict[int, Callable[[_Reader], Packet]]] = {
    CONNECT: _decode_connect,
    CONNACK: _decode_connack,
    PUBACK: lambda reader: Puback(reader.packet_id()),
    PUBREC: lambda reader: Pubrec(reader.packet_id()),
    PUBREL: lambda reader: Pubrel(reader.packet_id()),
    PUBCOMP: lambda reader: Pubcomp(reader.packet_id()),
    SUBSCRIBE: _decode_subscribe,
    SUBACK: _decode_suback,
    UNSUBSCRIBE: _decode_unsubscribe,
    UNSUBACK: lambda reader: Unsuback(reader.packet_id()),
    PINGREQ: lambda _: Pingreq(),
    PINGRESP: lambda _: Pingresp(),
    DISCONNECT: lambda _: Disconnect(),
}
