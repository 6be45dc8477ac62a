"""Telemetry messages: the property bag of an MQTT topic, system and application properties, the size rule, the event
record.

Sources: hub-device.md 4, hub-service.md 8.7. Not here: storing events, and which partition they go to.
"""

from typing import Any
from urllib.parse import unquote

import msgspec

from muster.domain.documents import read
from muster.domain.timestamp import iso_utc

MAXIMUM_MESSAGE_BYTES = 256 * 1024
"""Body and properties as the hub counts them (hub-device.md 4.4)."""

TELEMETRY = "Telemetry"

# Wire key in a property bag -> system property (hub-device.md 4.2). Other keys that begin with "$." are kept under
# their own name.
_SYSTEM_PROPERTIES = {
    "$.mid": "message-id",
    "$.cid": "correlation-id",
    "$.uid": "user-id",
    "$.to": "to",
    "$.ct": "content-type",
    "$.ce": "content-encoding",
    "$.exp": "absolute-expiry-time",
    "$.ctime": "iothub-creation-time-utc",
    "$.on": "iothub-outputname",
    "$.ifid": "iothub-interface-id",
    "$.sub": "dt-subject",
    "$.schema": "iothub-message-schema",
    "$.diagid": "iothub-diag-id",
    "$.diagctx": "diag-correlation-context",
    "iothub-ack": "iothub-ack",
    "iothub-operation": "iothub-operation",
}

_WILL_MARK = ("iothub-MessageType", "Will")

# Who sent a message is stamped by the hub; these keys say it only on the way to a device (hub-device.md 4.2).
_STAMPED = frozenset({"$.cdid", "$.cmid"})


class PropertyBag(msgspec.Struct, frozen=True):
    """The decoded properties of one message: JSON texts as they are stored, and their bytes as the hub counts them."""

    system_properties: str
    application_properties: str
    size: int

    @property
    def room(self) -> int:
        """How many bytes a body may have beside these properties (hub-device.md 4.4)."""
        return MAXIMUM_MESSAGE_BYTES - self.size


class Origin(msgspec.Struct, frozen=True, kw_only=True):
    """What the hub stamps on every message of one connection (hub-device.md 4.3)."""

    device_id: str
    module_id: str = ""
    generation_id: str
    authentication_method: str
    model_id: str = ""


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One complete row of the event log. ``offset`` is opaque; ``enqueued_time`` in microseconds UTC."""

    partition: int
    sequence_number: int
    offset: str
    enqueued_time: int
    source: str
    origin: Origin
    system_properties: dict[str, Any]
    application_properties: dict[str, Any]
    body: bytes


def authentication_method(scope: str, kind: str, issuer: str) -> str:
    """The JSON text that the hub stamps, e.g. scope ``device``, kind ``sas``, issuer ``iothub`` (hub-device.md 4.3)."""
    return f'{{"scope":"{scope}","type":"{kind}","issuer":"{issuer}","acceptingIpFilterRule":null}}'


def parse_property_bag(bag: str, *, retained: bool = False) -> PropertyBag:
    """Decode what follows ``messages/events/`` in a topic: ``key=value`` pairs, percent-encoded, joined by ``&``.

    One trailing ``/`` and a leading ``?`` are dropped; ``+`` is a plus; a key without ``=`` has an empty value; of
    equal keys the last wins. A retained message is marked, not retained (hub-device.md 3.7, 4.1).
    """
    system: dict[str, str] = {}
    application: dict[str, str] = {}
    for piece in bag.removeprefix("?").removesuffix("/").split("&"):
        if not piece:
            continue
        raw_key, _, raw_value = piece.partition("=")
        key, value = unquote(raw_key), unquote(raw_value)
        name = _SYSTEM_PROPERTIES.get(key)
        if name is not None or key.startswith("$."):
            if key not in _STAMPED:
                system[name or key] = value
        else:
            application[key] = value
    if retained:
        application["mqtt-retain"] = "true"
    return property_bag_of(system, application)


def property_bag_of(system: dict[str, str], application: dict[str, str]) -> PropertyBag:
    """The same of properties that came decoded, by the names that events have."""
    size = sum(len(value.encode()) for value in system.values())
    size += sum(len(key.encode()) + len(value.encode()) for key, value in application.items())
    return PropertyBag(_text(system), _text(application), size)


def with_system_properties(bag: PropertyBag, system: dict[str, str]) -> PropertyBag:
    """The application properties of ``bag``, which has no others, and these system properties."""
    size = bag.size + sum(len(value.encode()) for value in system.values())
    return PropertyBag(_text(system), bag.application_properties, size)


def marked_as_will(bag: PropertyBag) -> PropertyBag:
    """The properties of a message that a device left for the case that it does not say goodbye (hub-device.md 3.9)."""
    application = read(bag.application_properties, dict[str, str])
    size = bag.size - sum(len(key.encode()) + len(value.encode()) for key, value in application.items())
    application[_WILL_MARK[0]] = _WILL_MARK[1]
    size += sum(len(key.encode()) + len(value.encode()) for key, value in application.items())
    return PropertyBag(bag.system_properties, _text(application), size)


def _text(properties: dict[str, str]) -> str:
    return msgspec.json.encode(properties).decode() if properties else "{}"


def event_view(event: Event) -> dict[str, Any]:
    """An event as JSON for Muster's own routes and pages: the body as JSON, text or base64, whichever it is."""
    origin = event.origin
    view: dict[str, Any] = {
        "partition": event.partition,
        "sequenceNumber": event.sequence_number,
        "offset": event.offset,
        "enqueuedTimeUtc": iso_utc(event.enqueued_time),
        "source": event.source,
        "deviceId": origin.device_id,
        "connectionAuthMethod": origin.authentication_method,
        "generationId": origin.generation_id,
        "systemProperties": event.system_properties,
        "applicationProperties": event.application_properties,
    }
    if origin.module_id:
        view["moduleId"] = origin.module_id
    if origin.model_id:
        view["modelId"] = origin.model_id
    return view | _body_view(event.body)


def _body_view(body: bytes) -> dict[str, Any]:
    try:
        return {"bodyEncoding": "json", "body": msgspec.json.decode(body)}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return {"bodyEncoding": "text", "body": body.decode()}
    except UnicodeDecodeError:
        # msgspec writes bytes as base64 text.
        return {"bodyEncoding": "base64", "bodyBase64": body}
