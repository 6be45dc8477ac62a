"""Cloud-to-device messages: what a sender may send, what becomes of a message, feedback on it, and its MQTT form.

Sources: hub-device.md 5, hub-service.md 6.4 to 6.6. Not here: the queues (``hub/message_queue.py``), and who asks.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import quote

import msgspec

from muster.domain.errors import ArgumentInvalidError, TooLargeError
from muster.domain.timestamp import DAY, HOUR, MINUTE, SECOND, iso_utc

MAXIMUM_C2D_BYTES = 64 * 1024
"""Body and properties as the hub counts them (hub-device.md 4.4)."""

MAXIMUM_QUEUE_DEPTH = 50
"""Messages of one identity that wait or are locked (hub-device.md 5.1)."""

LOCK_DURATION = 60 * SECOND
SHORTEST_LOCK = SECOND
LONGEST_LOCK = 300 * SECOND

MAXIMUM_FEEDBACK_RECORDS = 64
FEEDBACK_INTERVAL = 15 * SECOND
"""A batch of feedback goes out when it is full, or so long after the one before (hub-service.md 6.6)."""

FEEDBACK_CONTENT_TYPE = "application/vnd.microsoft.iothub.feedback.json"

_MAXIMUM_ID_CHARACTERS = 128
_ACKS = ("none", "positive", "negative", "full")
_ACKS_IN_JAVA = {"positiveonly": "positive", "negativeonly": "negative"}
"""Java writes the names of its enumeration."""
_ACK = "iothub-ack"

# An MQTT topic has a length of two bytes; before the bag stand two ids of up to 128 characters, and words.
_MAXIMUM_BAG_BYTES = 0xFFFF - 512


class Outcome(StrEnum):
    """What became of a message: the ``statusCode`` of its feedback."""

    SUCCESS = "Success"
    EXPIRED = "Expired"
    DELIVERY_COUNT_EXCEEDED = "DeliveryCountExceeded"
    REJECTED = "Rejected"
    PURGED = "Purged"


class FeedbackSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a hub keeps its feedback; durations in microseconds (hub-service.md 6.6)."""

    lock_duration: int = LOCK_DURATION
    time_to_live: int = HOUR
    maximum_delivery_count: int = 10


class C2dSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a hub keeps messages for devices; durations in microseconds (hub-service.md 6.5)."""

    maximum_delivery_count: int = 10
    default_time_to_live: int = HOUR
    feedback: FeedbackSettings = FeedbackSettings()


class C2dProperties(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The properties of one message; empty or 0: the sender did not set it. Times in microseconds UTC."""

    message_id: str = ""
    correlation_id: str = ""
    user_id: str = ""
    to: str = ""
    content_type: str = ""
    content_encoding: str = ""
    ack: str = ""
    expiry: int = 0
    creation_time: int = 0
    application: dict[str, str] = {}


class C2dMessage(msgspec.Struct, frozen=True):
    """A message as a sender sends it."""

    properties: C2dProperties
    body: bytes = b""


class C2dDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A message in the hands of a receiver, which settles it by ``lock_token`` (a guid) before ``locked_until``.

    ``delivery_count`` counts the abandons and lapsed locks before; ``redelivered``: some receiver had it before.
    """

    lock_token: str
    locked_until: int
    sequence_number: int
    enqueued_time: int
    expiry: int
    delivery_count: int
    redelivered: bool
    properties: C2dProperties
    body: bytes


class FeedbackRecord(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One record of a feedback message, as it travels (hub-device.md 5.3)."""

    original_message_id: str | None
    enqueued_time_utc: str
    status_code: str
    description: str
    device_id: str
    device_generation_id: str


def accepted(message: C2dMessage, device_id: str, module_id: str) -> C2dMessage:
    """The message as it is queued, once it is certain that it may be.

    ``iothub-ack`` among the application properties, where one client has it, counts as the request for feedback; a
    message without ``to`` gets the identity's address. Raises ArgumentInvalidError and TooLargeError.
    """
    properties = message.properties
    application = dict(properties.application)
    ack = (application.pop(_ACK, "") or properties.ack).lower()
    ack = _ACKS_IN_JAVA.get(ack, ack)
    if ack and ack not in _ACKS:
        raise ArgumentInvalidError(f"iothub-ack is {ack[:50]!r}; {', '.join(_ACKS)} are allowed.")
    changed = msgspec.structs.replace(
        properties, ack=ack, application=application, to=properties.to or c2d_address(device_id, module_id)
    )
    _require_texts(changed)
    queued = C2dMessage(changed, message.body)
    size = message_size(queued)
    if size > MAXIMUM_C2D_BYTES:
        raise TooLargeError(
            f"The message has {size} bytes with its properties; {MAXIMUM_C2D_BYTES} are allowed for"
            " cloud-to-device messages."
        )
    if len(property_bag(changed)) > _MAXIMUM_BAG_BYTES:
        raise TooLargeError("The properties, percent-encoded, do not fit into the topic of an MQTT message.")
    return queued


def _require_texts(properties: C2dProperties) -> None:
    for name, value in (
        *_system_properties(properties),
        *properties.application.items(),
    ):
        if not is_storable(name) or not is_storable(value):
            raise ArgumentInvalidError(f"The property {name[:100]!a} is not valid Unicode text, or has a NUL.")
    for name in properties.application:
        if not name or name.startswith("$."):
            raise ArgumentInvalidError(f"An application property cannot have the name {name[:100]!r}.")
    for id_name, value in (("messageId", properties.message_id), ("correlationId", properties.correlation_id)):
        if len(value) > _MAXIMUM_ID_CHARACTERS:
            raise ArgumentInvalidError(f"{id_name} has {len(value)} characters; {_MAXIMUM_ID_CHARACTERS} are allowed.")


def is_storable(text: str) -> bool:
    """Whether a database takes this text: no NUL, no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def message_size(message: C2dMessage) -> int:
    """Body, values of system properties, names and values of application properties (hub-device.md 4.4)."""
    size = len(message.body)
    size += sum(len(value.encode()) for _, value in _system_properties(message.properties))
    return size + sum(
        len(name.encode()) + len(value.encode()) for name, value in message.properties.application.items()
    )


def c2d_address(device_id: str, module_id: str) -> str:
    """``/devices/{d}/messages/devicebound``, or the module's."""
    module = f"/modules/{module_id}" if module_id else ""
    return f"/devices/{device_id}{module}/messages/devicebound"


def outcome_of_return(delivery_count: int, expiry: int, maximum_delivery_count: int, now: int) -> Outcome | None:
    """What becomes of a message that goes back to its queue after ``delivery_count`` abandons and lapsed locks; None:
    it waits there again.
    """
    if delivery_count >= maximum_delivery_count:
        return Outcome.DELIVERY_COUNT_EXCEEDED
    return Outcome.EXPIRED if expiry <= now else None


def wants_feedback(ack: str, outcome: Outcome) -> bool:
    """Whether a sender that said ``iothub-ack`` hears of this outcome (hub-service.md 6.6)."""
    return ack in ("full", "positive" if outcome is Outcome.SUCCESS else "negative")


def feedback_record(
    properties: C2dProperties, device_id: str, generation_id: str, outcome: Outcome, now: int
) -> FeedbackRecord:
    """The feedback on one message; its time is that of the outcome."""
    return FeedbackRecord(
        original_message_id=properties.message_id or None,
        enqueued_time_utc=iso_utc(now),
        status_code=outcome.value,
        description=outcome.value,
        device_id=device_id,
        device_generation_id=generation_id,
    )


def require_lock_duration(seconds: int) -> int:
    """The lock that a receiver asks for, in microseconds. Raises ArgumentInvalidError outside 1 to 300 seconds."""
    duration = seconds * SECOND
    if not SHORTEST_LOCK <= duration <= LONGEST_LOCK:
        raise ArgumentInvalidError(
            f"A lock of {seconds} s is not possible: {SHORTEST_LOCK // SECOND} to {LONGEST_LOCK // SECOND} are allowed."
        )
    return duration


def require_settings(settings: C2dSettings) -> None:
    """Raise ArgumentInvalidError for what Azure does not allow (hub-service.md 6.5, 6.6)."""
    limits: Mapping[str, tuple[int, int, int]] = {
        "maxDeliveryCount": (settings.maximum_delivery_count, 1, 100),
        "defaultTtlAsIso8601": (settings.default_time_to_live, MINUTE, 2 * DAY),
        "feedback.lockDurationAsIso8601": (settings.feedback.lock_duration, 5 * SECOND, 300 * SECOND),
        "feedback.ttlAsIso8601": (settings.feedback.time_to_live, MINUTE, 2 * DAY),
        "feedback.maxDeliveryCount": (settings.feedback.maximum_delivery_count, 1, 100),
    }
    for name, (value, least, most) in limits.items():
        if not least <= value <= most:
            raise ArgumentInvalidError(f"cloudToDevice.{name} is out of its limits.")


# MQTT (hub-device.md 5.4)


def property_bag(properties: C2dProperties) -> str:
    """What follows ``messages/devicebound/`` in the topic: system properties first, everything percent-encoded.

    Of every rule there some client depends on each: ``%24`` for ``$``, ``$.to`` always there, a ``=`` in each item.
    """
    items = [*_system_properties(properties), *properties.application.items()]
    return "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in items)


def _system_properties(properties: C2dProperties) -> Iterator[tuple[str, str]]:
    """Those that are set, by their names on the wire and in their order there."""
    values: dict[str, Any] = {
        "$.mid": properties.message_id,
        "$.exp": iso_utc(properties.expiry) if properties.expiry else "",
        "$.to": properties.to,
        "$.cid": properties.correlation_id,
        "$.uid": properties.user_id,
        "$.ct": properties.content_type,
        "$.ce": properties.content_encoding,
        "$.ctime": iso_utc(properties.creation_time) if properties.creation_time else "",
        _ACK: properties.ack,
    }
    return ((name, value) for name, value in values.items() if value)
