"""Events of the log as the messages that Event Hubs clients read: bytes of annotations, properties and body.

What the events of one connection share is encoded once and kept; only numbers, times and the body are put in between
(hub-service.md 8.7). Not here: reading the log, and sending.
"""

from collections.abc import Sequence
from struct import Struct
from typing import Any

from muster.domain.documents import read
from muster.domain.timestamp import parse_iso
from muster.hub.partition_log import EventRow, PartitionInformation
from muster.wire.amqp_composites import describe
from muster.wire.amqp_encoder import encode
from muster.wire.amqp_messages import Properties
from muster.wire.amqp_types import Described, Double, Long, Symbol, Timestamp, Ulong, Value

SECURITY_INTERFACE = "urn:azureiot:Security:SecurityAgent:1"
"""Its messages are for a service that is not here, and never reach readers of events (interop-facts.md 19)."""

NEVER = -62_135_596_800_000
"""A time that never was, as .NET writes it: the first millisecond of the year 1."""

_MILLISECOND = 1000
_MOST_TEMPLATES = 4096

# Stored name -> field of the properties section; what is no text there is worked out below.
_PROPERTIES = {
    "message-id": "message_id",
    "correlation-id": "correlation_id",
    "to": "to",
    "content-type": "content_type",
    "content-encoding": "content_encoding",
}
# Stored as system properties, read among those of the application: seen on the real service, and the names say it.
_APPLICATION = frozenset({"iothub-creation-time-utc", "iothub-ack", "iothub-operation"})
# Set for the edge's own routing; it does not reach the cloud (hub-service.md 8.7).
_DROPPED = frozenset({"iothub-outputname"})

_LONG = Struct(">q")
_U32 = Struct(">I")
_ANNOTATIONS = Struct(">4sII")  # message annotations as map32: descriptor and constructor, size, count

_DELIVERY_ANNOTATIONS, _APPLICATION_PROPERTIES = 0x71, 0x74
_MAP = b"\x00\x53\x72\xd1"
_SEQUENCE_KEY = encode(Symbol("x-opt-sequence-number")) + b"\x81"
_OFFSET_KEY = encode(Symbol("x-opt-offset")) + b"\xa1"
_TIME_KEY = encode(Symbol("x-opt-enqueued-time")) + b"\x83"
_HUB_TIME_KEY = encode(Symbol("iothub-enqueuedtime")) + b"\x83"
_FIXED_SIZE = 4 + len(_SEQUENCE_KEY) + 8 + len(_OFFSET_KEY) + 1 + len(_TIME_KEY) + 8 + len(_HUB_TIME_KEY) + 8
_FIXED_COUNT = 8  # keys and values of the four that change
_SHORT_BODY = [b"\x00\x53\x75\xa0" + bytes([size]) for size in range(256)]
_LONG_BODY = b"\x00\x53\x75\xb0"
_LENGTHS = [bytes([size]) for size in range(32)]


class _Template:
    """What events of one origin with the same properties share. ``hidden``: no reader sees them."""

    __slots__ = ("annotations", "count", "hidden", "sections", "size")

    def __init__(self, head: tuple[str, ...]) -> None:
        source, device_id, module_id, generation_id, method, model_id, system_text, application_text = head
        system: dict[str, str] = read(system_text, dict[str, str])
        application: dict[str, Any] = read(application_text, dict[str, Any])
        self.hidden = system.get("iothub-interface-id") == SECURITY_INTERFACE
        annotations: dict[str, str] = {
            "iothub-connection-device-id": device_id,
            "iothub-connection-module-id": module_id,
            "iothub-connection-auth-method": method,
            "iothub-connection-auth-generation-id": generation_id,
            "iothub-message-source": source,
            "x-opt-partition-key": device_id,
            "dt-dataschema": model_id,
        }
        properties = _properties(system, annotations, application)
        known = {Symbol(name): text for name, text in annotations.items() if text}
        self.annotations = b"".join([encode(key) + encode(text) for key, text in known.items()])
        self.count = _FIXED_COUNT + 2 * len(known)
        self.size = _FIXED_SIZE + len(self.annotations)
        self.sections = b"" if properties is None else encode(describe(properties))
        if application:
            content: dict[Value, Value] = {name: _value(value) for name, value in application.items()}
            self.sections += encode(Described(Ulong(_APPLICATION_PROPERTIES), content))


def _properties(system: dict[str, str], annotations: dict[str, str], application: dict[str, Any]) -> Properties | None:
    """The section, or None: one that is there without a content type breaks some readers (interop-facts.md 12).

    What has no field of its own goes to the other two.
    """
    properties = Properties()
    for name, text in system.items():
        if name in _PROPERTIES:
            setattr(properties, _PROPERTIES[name], text)
        elif name == "user-id":
            properties.user_id = text.encode()
        elif name == "absolute-expiry-time" and (expiry := _milliseconds(text)) is not None:
            properties.absolute_expiry_time = expiry
        elif name in _APPLICATION:
            application.setdefault(name, text)
        elif name not in _DROPPED:
            annotations.setdefault(name.removeprefix("$."), text)
    _require_ascii(properties, application)
    return properties if properties != Properties() else None


def _require_ascii(properties: Properties, application: dict[str, Any]) -> None:
    """Symbols are ASCII: what a device sends beyond that stays readable among the application's properties."""
    for field, name in (("content_type", "content-type"), ("content_encoding", "content-encoding")):
        text = getattr(properties, field)
        if text is not None and not text.isascii():
            setattr(properties, field, None)
            application.setdefault(name, text)


def _milliseconds(text: str) -> int | None:
    try:
        return parse_iso(text) // _MILLISECOND
    except ValueError:
        return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None  # noqa: PLR2004


def _value(value: object) -> Value:
    """A property that a device sent over AMQP may be more than text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return Long(value) if -(2**63) <= value < 2**63 else str(value)
    return Double(value) if isinstance(value, float) else str(value)


class EventEncoder:
    """Encodes events; keeps the templates of many origins, so one serves all readers."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, ...], _Template] = {}

    def encode(self, rows: Sequence[EventRow], delivery_annotations: bytes = b"") -> list[bytes]:
        """The message of each row of ``PartitionLog.read``, but of those that no reader sees."""
        templates = self._templates
        messages: list[bytes] = []
        enqueued = -1
        times = b""
        for row in rows:
            head = row[4:]
            template = templates.get(head) or self._template(head)
            if template.hidden:
                continue
            if row[2] != enqueued:
                enqueued = row[2]
                stamp = _LONG.pack(enqueued // _MILLISECOND)
                times = b"".join((_TIME_KEY, stamp, _HUB_TIME_KEY, stamp))
            offset = b"%d" % row[1]
            body = row[3]
            size = len(body)
            messages.append(
                b"".join(
                    (
                        delivery_annotations,
                        _ANNOTATIONS.pack(_MAP, template.size + len(offset), template.count),
                        _SEQUENCE_KEY,
                        _LONG.pack(row[0]),
                        _OFFSET_KEY,
                        _LENGTHS[len(offset)],
                        offset,
                        times,
                        template.annotations,
                        template.sections,
                        _SHORT_BODY[size] if size < 256 else _LONG_BODY + _U32.pack(size),  # noqa: PLR2004 - one byte
                        body,
                    )
                )
            )
        return messages

    def _template(self, head: tuple[str, ...]) -> _Template:
        if len(self._templates) >= _MOST_TEMPLATES:
            self._templates.clear()
        template = self._templates[head] = _Template(head)
        return template


def runtime_metrics(information: PartitionInformation, now: int) -> bytes:
    """The delivery annotations that say where the partition ends. ``now`` in microseconds UTC."""
    content: dict[Value, Value] = {
        Symbol("last_enqueued_sequence_number"): Long(information.last_sequence_number),
        Symbol("last_enqueued_offset"): str(information.last_offset),
        Symbol("last_enqueued_time_utc"): enqueued_timestamp(information),
        Symbol("runtime_info_retrieval_time_utc"): Timestamp(now // _MILLISECOND),
    }
    return encode(Described(Ulong(_DELIVERY_ANNOTATIONS), content))


def enqueued_timestamp(information: PartitionInformation) -> Timestamp:
    """When the last event of a partition came."""
    time = information.last_enqueued_time
    return Timestamp(NEVER if time is None else time // _MILLISECOND)
