"""Messages of devices as AMQP carries them: telemetry to property bags, and messages from the cloud to a device.

Pure. Sources: hub-device.md 4.2, 4.4, 9.6, 9.7. Not here: links, and who may send.
"""

from collections.abc import Iterator
from uuid import UUID

import msgspec

from muster.domain.c2d_message import C2dDelivery, C2dProperties
from muster.domain.errors import ArgumentInvalidError, TooLargeError
from muster.domain.message import (
    MAXIMUM_MESSAGE_BYTES,
    PropertyBag,
    property_bag_of,
    with_system_properties,
)
from muster.domain.timestamp import iso_utc
from muster.wire.amqp_composites import (
    APPLICATION_PROPERTIES,
    MESSAGE_ANNOTATIONS,
    decode_message,
    encode_message,
    split_data,
    split_sections,
)
from muster.wire.amqp_messages import AmqpValue, Data, Message, Properties
from muster.wire.amqp_performatives import Fields
from muster.wire.amqp_types import (
    Array,
    Char,
    Described,
    Integer,
    Opaque,
    Real,
    Symbol,
    Timestamp,
    Ubyte,
    Ulong,
    Uuid,
    Value,
)

BATCH_FORMAT = 0x8001_3700
"""The message format of a delivery whose data sections are complete messages each (hub-device.md 9.6)."""

_BAG_CACHE = 64
_MILLISECOND = 1000
_LAST_TIME = 253_402_300_799_999  # the last millisecond of the year 9999
_ACK = "iothub-ack"

# What comes before the length of a data section, of one byte and of four.
_SHORT_DATA = b"\x00\x53\x75\xa0"
_LONG_DATA = b"\x00\x53\x75\xb0"

# Among annotations and application properties these are the system properties of the same name, whichever of the two
# a client writes them to. dt-subject is a component of a model.
_SYSTEM_PROPERTIES = frozenset(
    {
        "iothub-outputname",
        "iothub-interface-id",
        "iothub-creation-time-utc",
        "iothub-message-schema",
        "iothub-ack",
        "iothub-operation",
        "iothub-diag-id",
        "diag-correlation-context",
        "dt-subject",
    }
)

# Who sent a message, and when, is stamped by the hub.
_STAMPED = frozenset(
    {
        "iothub-connection-device-id",
        "iothub-connection-module-id",
        "iothub-connection-auth-method",
        "iothub-connection-auth-generation-id",
        "iothub-enqueuedtime",
        "iothub-message-source",
    }
)

# .NET names what traces a message in its own way (hub-device.md 4.2).
_DIAGNOSTIC = {"Diagnostic-Id": "iothub-diag-id", "Correlation-Context": "diag-correlation-context"}


_NO_PROPERTIES = property_bag_of({}, {})

# Telemetry


class TelemetryReader:
    """Reads the messages of one link. It knows what came before a body again: most devices send the same every time."""

    __slots__ = ("_bag", "_bags", "_before_long", "_before_short", "_room", "_sections")

    def __init__(self) -> None:
        self._bags: dict[bytes, PropertyBag] = {}
        self._sections: dict[bytes, tuple[dict[str, str], PropertyBag]] = {}
        # Of the last message: its bag, the room that leaves, and what comes before the length of a body.
        self._bag: PropertyBag
        self._room = -1
        self._before_short = self._before_long = b""

    def read(self, payload: bytes) -> tuple[PropertyBag, bytes]:
        """The properties of a message, the same object while they are the same bytes, and its body.

        Raises DecodeError for what is no message, ArgumentInvalidError for a body that is none of bytes,
        TooLargeError.
        """
        if self._room >= 0:
            size = len(payload)
            if payload.startswith(self._before_long):
                start = len(self._before_long) + 4
                length = int.from_bytes(payload[start - 4 : start], "big")
            elif payload.startswith(self._before_short) and size > len(self._before_short):
                start = len(self._before_short) + 1
                length = payload[start - 1]
            else:
                start = length = 0
            if start and start + length == size and length <= self._room:
                return self._bag, payload[start:]
        return self._read_anew(payload)

    def _read_anew(self, payload: bytes) -> tuple[PropertyBag, bytes]:
        split = split_data(payload)
        if split is None:
            message = decode_message(payload)
            bag, body = _bag(message), _body(message)
        else:
            bag, body = self._choose(split[0]), split[1]
        if len(body) > bag.room:
            size = len(body) + bag.size
            raise TooLargeError(f"The message has {size} bytes with its properties; {MAXIMUM_MESSAGE_BYTES} may be.")
        return bag, body

    def read_batch(self, payload: bytes) -> Iterator[tuple[PropertyBag, bytes]]:
        """The messages in the data sections of a delivery. Raises what ``read`` raises."""
        body = decode_message(payload).body
        if not isinstance(body, Data):
            raise ArgumentInvalidError("A batch of messages has a data section for each.")
        return map(self.read, body.sections)

    def _choose(self, head: bytes) -> PropertyBag:
        bag = self._bags.get(head)
        if bag is None:
            bag = self._read_head(head)
            if len(self._bags) >= _BAG_CACHE:
                self._bags.clear()
            self._bags[head] = bag
        self._bag, self._room = bag, bag.room
        self._before_short, self._before_long = head + _SHORT_DATA, head + _LONG_DATA
        return bag

    def _read_head(self, head: bytes) -> PropertyBag:
        """Read only the sections that are new: with ids of their own, messages differ in one of them."""
        sections = split_sections(head)
        if sections is None:
            return _bag(decode_message(head))
        own: dict[str, str] = {}
        system: dict[str, str] = {}
        application = _NO_PROPERTIES
        for code, octets in sections:
            if code in (MESSAGE_ANNOTATIONS, APPLICATION_PROPERTIES):
                known = self._sections.get(octets) or self._read_section(octets)
                system |= known[0]
                application = known[1] if code == APPLICATION_PROPERTIES else application
            else:
                properties = decode_message(octets).properties
                if properties is not None:
                    own.update(_system_properties(properties))
        system = own | system
        return with_system_properties(application, system) if system else application

    def _read_section(self, octets: bytes) -> tuple[dict[str, str], PropertyBag]:
        message = decode_message(octets)
        system, application = _of_maps(message)
        if len(self._sections) >= _BAG_CACHE:
            self._sections.clear()
        found = self._sections[octets] = (system, property_bag_of({}, application))
        return found


def _body(message: Message) -> bytes:
    body = message.body
    if body is None:
        return b""
    if isinstance(body, Data):
        return body.joined()
    if isinstance(body, AmqpValue):
        value = body.value
        if value is None:
            return b""
        if isinstance(value, bytes):
            return value
        if isinstance(value, str):
            return value.encode()
    raise ArgumentInvalidError("The body of a message is one or several data sections, or a text.")


def _bag(message: Message) -> PropertyBag:
    system, application = _of_maps(message)
    if message.properties is not None:
        system = dict(_system_properties(message.properties)) | system
    return property_bag_of(system, application)


def _of_maps(message: Message) -> tuple[dict[str, str], dict[str, str]]:
    """System properties and application properties in the annotations and the application properties."""
    system: dict[str, str] = {}
    application: dict[str, str] = {}
    for section in (message.message_annotations, message.application_properties):
        for key, value in (section or {}).items():
            name = key.text if isinstance(key, Symbol) else key
            if not isinstance(name, str) or name in _STAMPED:
                continue
            name = _DIAGNOSTIC.get(name, name)
            if name in _SYSTEM_PROPERTIES:
                system[name] = _text(value)
            elif section is message.application_properties:
                application[name] = _text(value)
    return system, application


def _system_properties(properties: Properties) -> Iterator[tuple[str, str]]:
    """Those that a hub has, by the names that events have."""
    if properties.message_id is not None:
        yield "message-id", _text(properties.message_id)
    if properties.correlation_id is not None:
        yield "correlation-id", _text(properties.correlation_id)
    if properties.user_id is not None:
        yield "user-id", properties.user_id.decode(errors="replace")
    for name, text in (
        ("to", properties.to),
        ("content-type", properties.content_type),
        ("content-encoding", properties.content_encoding),
    ):
        if text is not None:
            yield name, text
    for name, time in (
        ("absolute-expiry-time", properties.absolute_expiry_time),
        ("iothub-creation-time-utc", properties.creation_time),
    ):
        if time is not None and 0 < time <= _LAST_TIME:  # a client writes 0, or the year 1, for none
            yield name, iso_utc(time * _MILLISECOND)


def _text(value: Value) -> str:  # noqa: C901, PLR0911 - a line for each kind of value
    """A property's value as text, which all of them are to routes and to readers (hub-device.md 9.6)."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Symbol):
        return value.text
    if isinstance(value, Uuid):
        return str(UUID(bytes=value.octets))
    if isinstance(value, Timestamp):
        return iso_utc(value.value * _MILLISECOND) if 0 <= value.value <= _LAST_TIME else str(value.value)
    if isinstance(value, Char):
        return chr(value.value)
    if isinstance(value, Integer):
        return str(value.value)
    if isinstance(value, Real):
        return repr(value.value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    if isinstance(value, Described):
        return _text(value.value)
    return msgspec.json.encode(_plain(value)).decode()


def _plain(value: Value) -> object:
    """What JSON takes, of a list, a map or an array."""
    if isinstance(value, dict):
        return {_text(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Array):
        return [_plain(item) for item in value.elements]
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, Opaque) and not isinstance(value, Uuid):
        return value.octets.hex()
    if isinstance(value, Integer) and not isinstance(value, Timestamp | Char):
        return value.value
    return value if value is None or isinstance(value, bool) else _text(value)


# Messages from the cloud


def delivery_tag(lock_token: str) -> bytes:
    """The 16 bytes of a lock token, in the order in which .NET reads a guid (hub-device.md 9.7)."""
    return UUID(lock_token).bytes_le


def device_message(delivery: C2dDelivery) -> bytes:
    """A message for a device: properties, the hub's annotations, application properties as texts, one data section."""
    annotations: Fields = {
        Symbol("x-opt-sequence-number"): Ulong(delivery.sequence_number),
        Symbol("iothub-enqueuedtime"): Timestamp(delivery.enqueued_time // _MILLISECOND),
        Symbol("iothub-deliverycount"): Ubyte(min(delivery.delivery_count, 255)),
        Symbol("x-opt-lock-token"): delivery.lock_token,
    }
    sent = delivery.properties
    application: Fields = {name: value for name, value in sent.application.items()}  # noqa: C416 - other types
    if sent.ack:
        application[_ACK] = sent.ack
    return encode_message(
        Message(
            message_annotations=annotations,
            properties=_device_properties(sent),
            application_properties=application or None,
            body=Data((delivery.body,)),
        )
    )


def _device_properties(sent: C2dProperties) -> Properties:
    return Properties(
        message_id=sent.message_id or None,
        user_id=sent.user_id.encode() if sent.user_id else None,
        to=sent.to,
        correlation_id=sent.correlation_id or None,
        content_type=sent.content_type or None,
        content_encoding=sent.content_encoding or None,
        absolute_expiry_time=sent.expiry // _MILLISECOND if sent.expiry else None,
        creation_time=sent.creation_time // _MILLISECOND if sent.creation_time else None,
    )


# Requests and answers of twins and methods


def body_of(message: Message) -> bytes:
    """The body of a request or an answer, which may be missing. Raises ArgumentInvalidError for one of other kinds."""
    return _body(message)


def uuid_of(value: Value) -> UUID | None:
    """An id that is a uuid, whichever of three types a client writes it with; None for what is none."""
    if isinstance(value, Uuid):
        return UUID(bytes=value.octets)
    if isinstance(value, bytes) and len(value) == 16:  # noqa: PLR2004 - those of a uuid
        return UUID(bytes=value)
    if isinstance(value, str):
        try:
            return UUID(value)
        except ValueError:
            return None
    return None


def integer_of(value: Value) -> int | None:
    """A number that clients write in various widths, or as digits; None for what is none."""
    if isinstance(value, Integer) and not isinstance(value, Timestamp | Char):
        return value.value
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 18:  # noqa: PLR2004 - what fits into 64 bits
        return int(value)
    return None
