"""Messages as HTTPS carries them: properties in headers, and batches in JSON. Sources: hub-device.md 10.2, 10.3.

Pure. Not here: who may send, and where messages go.
"""

import base64
import binascii
import string
from collections.abc import Iterable, Mapping
from urllib.parse import quote

import msgspec

from muster.domain.c2d_message import C2dDelivery
from muster.domain.documents import decode
from muster.domain.errors import ArgumentInvalidError
from muster.domain.message import PropertyBag, property_bag_of
from muster.domain.timestamp import us_style

BATCH_CONTENT_TYPE = "application/vnd.microsoft.iothub.json"

_APPLICATION = "iothub-app-"

# Header in lower case -> system property. Two clients spell the creation time in two ways.
_SYSTEM_PROPERTIES = {
    "iothub-to": "to",
    "iothub-messageid": "message-id",
    "iothub-correlationid": "correlation-id",
    "iothub-userid": "user-id",
    "iothub-expiry": "absolute-expiry-time",
    "iothub-ack": "iothub-ack",
    "iothub-operation": "iothub-operation",
    "iothub-contenttype": "content-type",
    "iothub-contentencoding": "content-encoding",
    "iothub-creationtimeutc": "iothub-creation-time-utc",
    "iothub-creation-time-utc": "iothub-creation-time-utc",
    "iothub-interface-id": "iothub-interface-id",
    "iothub-messageschema": "iothub-message-schema",
    "dt-subject": "dt-subject",
}

_TOKEN = "!#$%&'*+-.^_`|~" + string.ascii_letters + string.digits
_VISIBLE = " " + string.ascii_letters + string.digits + string.punctuation


class ExactName(bytes):
    """The name of a header that is written as it stands: the server writes others in lower case, and two clients look
    for these letter by letter (hub-device.md 10.3).
    """

    __slots__ = ()

    def lower(self) -> "ExactName":
        return self


class BatchItem(msgspec.Struct):
    """One message of a batch. Without ``base64Encoded`` the body is base64: two clients leave it out then."""

    body: str
    base64_encoded: bool = msgspec.field(default=True, name="base64Encoded")
    properties: dict[str, str | int | float | bool | None] | None = None

    @property
    def content(self) -> bytes:
        """Raises ArgumentInvalidError."""
        if not self.base64_encoded:
            return self.body.encode()
        try:
            return base64.b64decode(self.body, validate=True)
        except (binascii.Error, ValueError):
            raise ArgumentInvalidError("A body of the batch is not base64; say base64Encoded: false.") from None


def read_batch(body: bytes) -> list[tuple[PropertyBag, bytes]]:
    """The messages of a batch. Raises what ``documents.decode`` raises, and ArgumentInvalidError."""
    return [
        (bag_of_headers((name, _text(value)) for name, value in (item.properties or {}).items()), item.content)
        for item in decode(body, list[BatchItem])
    ]


def _text(value: str | float | bool | None) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else msgspec.json.encode(value).decode()


def bag_of_headers(headers: Iterable[tuple[str, str]]) -> PropertyBag:
    """The properties among ``headers``; names of application properties keep their case."""
    system: dict[str, str] = {}
    application: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        if lower.startswith(_APPLICATION):
            application[name[len(_APPLICATION) :]] = value
        elif (property_name := _SYSTEM_PROPERTIES.get(lower)) is not None:
            system[property_name] = value
    return property_bag_of(system, application)


def delivery_headers(delivery: C2dDelivery) -> list[tuple[bytes, bytes]]:
    """The headers of a message for a device: its properties, and its lock token as the tag."""
    properties = delivery.properties
    values: Mapping[str, str] = {
        "iothub-messageid": properties.message_id,
        "iothub-to": properties.to,
        "iothub-correlationid": properties.correlation_id,
        "iothub-userid": properties.user_id,
        "iothub-ack": properties.ack,
        "iothub-expiry": _time(properties.expiry),
        "iothub-creationtimeutc": _time(properties.creation_time),
        "iothub-enqueuedtime": _time(delivery.enqueued_time),
        "iothub-deliverycount": str(delivery.delivery_count),
        "iothub-sequencenumber": str(delivery.sequence_number),
        "ContentType": properties.content_type,
        "ContentEncoding": properties.content_encoding,
        "iothub-contenttype": properties.content_type,
        "iothub-contentencoding": properties.content_encoding,
        **{_APPLICATION + quote(name, safe=_TOKEN): value for name, value in properties.application.items()},
    }
    headers = [(ExactName(name.encode()), _header_value(value)) for name, value in values.items() if value]
    return [(ExactName(b"ETag"), f'"{delivery.lock_token}"'.encode()), *headers]


def feedback_headers(batch: C2dDelivery) -> list[tuple[bytes, bytes]]:
    """The headers of a batch of feedback (hub-service.md 6.6)."""
    return [
        (ExactName(b"ETag"), f'"{batch.lock_token}"'.encode()),
        (b"iothub-messageid", batch.properties.message_id.encode()),
        (b"iothub-enqueuedtime", _time(batch.enqueued_time).encode()),
    ]


def _time(microseconds: int) -> str:
    return us_style(microseconds) if microseconds else ""


def _header_value(text: str) -> bytes:
    """What no header may hold is percent-encoded: line breaks above all, and all that is not ASCII."""
    return quote(text, safe=_VISIBLE).encode()
