"""A cloud-to-device message as service clients write it in AMQP, and whom it is for. Source: hub-service.md 6.4.

Pure. Not here: the form in which devices get it (``amqp/c2d.py``), what a message may be (``domain/c2d_message.py``).
"""

import re
from urllib.parse import unquote

from muster.domain.c2d_message import C2dMessage, C2dProperties, is_storable
from muster.domain.errors import ArgumentInvalidError, InvalidOperationError
from muster.frontends.amqp.text import LATEST_MILLISECONDS, NoTextError, text_of
from muster.wire.amqp_composites import decode_message
from muster.wire.amqp_messages import AmqpValue, Body, Data, Message, Properties
from muster.wire.amqp_performatives import Fields
from muster.wire.amqp_types import Value

Recipient = tuple[str, str]
"""Device id, and module id or empty."""

_LONGEST_ADDRESS = 2048
_TO = re.compile(
    r"(?:amqps?://[^/]*)?/?devices/(?P<device>.+?)(?:/modules/(?P<module>[^/]+))?/messages/devicebound/?",
    re.IGNORECASE | re.DOTALL,
)


def recipients(to: str) -> tuple[Recipient, ...]:
    """Whom ``to`` may mean, to be tried in this order: some clients percent-encode ids and some do not, and an id may
    hold a percent sign.

    Raises InvalidOperationError for what is no address of a device or module.
    """
    match = _TO.fullmatch(to) if len(to) <= _LONGEST_ADDRESS else None
    found = () if match is None else _readings(match["device"], match["module"] or "")
    if not found:
        raise InvalidOperationError(
            f"The message's 'to' is {to[:100]!r}, where /devices/ID/messages/devicebound should be."
        )
    return found


def _readings(device_id: str, module_id: str) -> tuple[Recipient, ...]:
    readings = ((device_id, module_id), (unquote(device_id), unquote(module_id)))
    return tuple(reading for reading in dict.fromkeys(readings) if all(map(is_storable, reading)))


def read_message(payload: bytes, now: int) -> C2dMessage:
    """The message in a transfer. Raises DecodeError and ArgumentInvalidError."""
    message = decode_message(payload)
    properties = message.properties or Properties()
    return C2dMessage(
        C2dProperties(
            message_id=_text("message-id", properties.message_id),
            correlation_id=_text("correlation-id", properties.correlation_id),
            # As .NET reads it: what is no UTF-8 is replaced.
            user_id=(properties.user_id or b"").decode(errors="replace"),
            to=properties.to or "",
            content_type=properties.content_type or "",
            content_encoding=properties.content_encoding or "",
            expiry=_expiry(message, properties, now),
            creation_time=_microseconds(properties.creation_time),
            application=_application(message.application_properties),
        ),
        _content(message.body),
    )


def _text(name: str, value: Value) -> str:
    try:
        return text_of(value) or ""
    except NoTextError as error:
        raise ArgumentInvalidError(f"The property {name[:100]!a} is {error}, which has no text.") from None


def _expiry(message: Message, properties: Properties, now: int) -> int:
    """``absolute-expiry-time``, else the header's time to live; 0 when the sender set neither."""
    expiry = _microseconds(properties.absolute_expiry_time)
    if expiry:
        return expiry
    time_to_live = message.header.ttl if message.header else None
    return now + time_to_live * 1000 if time_to_live else 0


def _microseconds(milliseconds: int | None) -> int:
    """0 for what was never set, also by .NET's first moment; the year 9999 is the last."""
    return min(max(milliseconds or 0, 0), LATEST_MILLISECONDS) * 1000


def _application(fields: Fields | None) -> dict[str, str]:
    """Text by text; a null is no property (.NET reads none of it)."""
    application = {}
    for key, value in (fields or {}).items():
        name = _text("application-properties", key)
        text = None if value is None else _text(name, value)
        if text is not None:
            application[name] = text
    return application


def _content(body: Body | None) -> bytes:
    """Data sections, joined; a text or binary value of a generic client; nothing, which clients send too."""
    match body:
        case Data():
            return body.joined()
        case None | AmqpValue(value=None):
            return b""
        case AmqpValue(value=str() as text):
            return text.encode()
        case AmqpValue(value=bytes() as content):
            return content
        case _:
            raise ArgumentInvalidError("The body is neither a data section nor a text.")
