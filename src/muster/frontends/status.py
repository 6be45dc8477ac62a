"""THE error table: what a status looks like on each wire, and the bodies of errors.

One row for each status, with HTTP, MQTT and AMQP columns (style-models.md 11.7). Not here: which error is raised.
"""

from dataclasses import dataclass

import msgspec

from muster.domain.errors import (
    DeviceNotOnlineError,
    FormatError,
    ServiceError,
    UnauthorizedAccessError,
    UnauthorizedError,
)
from muster.domain.timestamp import iso_utc, us_style
from muster.wire.amqp_performatives import Error, Fields
from muster.wire.amqp_types import Int, Symbol, Value

ACCEPTED = 0
IDENTIFIER_REJECTED = 2
SERVER_UNAVAILABLE = 3
BAD_CREDENTIALS = 4
NOT_AUTHORIZED = 5


@dataclass(frozen=True, slots=True)
class StatusRow:
    """``connect`` is the CONNACK code, ``amqp`` the condition."""

    reason: str
    connect: int
    amqp: str


_ROWS = {
    400: StatusRow("Bad Request", NOT_AUTHORIZED, "com.microsoft:argument-error"),
    401: StatusRow("Unauthorized", NOT_AUTHORIZED, "amqp:unauthorized-access"),
    403: StatusRow("Forbidden", NOT_AUTHORIZED, "amqp:unauthorized-access"),
    404: StatusRow("Not Found", NOT_AUTHORIZED, "amqp:not-found"),
    405: StatusRow("Method Not Allowed", NOT_AUTHORIZED, "amqp:not-allowed"),
    409: StatusRow("Conflict", NOT_AUTHORIZED, "com.microsoft:device-already-exists"),
    412: StatusRow("Precondition Failed", NOT_AUTHORIZED, "com.microsoft:precondition-failed"),
    413: StatusRow("Request Entity Too Large", NOT_AUTHORIZED, "amqp:link:message-size-exceeded"),
    415: StatusRow("Unsupported Media Type", NOT_AUTHORIZED, "com.microsoft:argument-error"),
    421: StatusRow("Misdirected Request", NOT_AUTHORIZED, "amqp:not-found"),
    429: StatusRow("Too Many Requests", SERVER_UNAVAILABLE, "com.microsoft:device-container-throttled"),
    500: StatusRow("Internal Server Error", SERVER_UNAVAILABLE, "amqp:internal-error"),
    502: StatusRow("Bad Gateway", SERVER_UNAVAILABLE, "amqp:internal-error"),
    503: StatusRow("Service Unavailable", SERVER_UNAVAILABLE, "amqp:internal-error"),
    504: StatusRow("Gateway Timeout", SERVER_UNAVAILABLE, "com.microsoft:timeout"),
}

# An invalid operation has a condition of its own under 400, quota and queue depth under 403, a lost lock under 412,
# readers of events theirs. A link that a newer one took over ends as the service was seen to end it, which clients take
# for a reason to attach again (hub-device.md 9.7, 9.9).
_AMQP_BY_CODE = {
    400003: "amqp:not-allowed",
    400029: "amqp:connection:forced",
    400212: "com.microsoft:argument-out-of-range",
    409204: "amqp:link:stolen",
    403002: "amqp:resource-limit-exceeded",
    403004: "amqp:resource-limit-exceeded",
    403005: "amqp:resource-limit-exceeded",
    403013: "amqp:resource-limit-exceeded",
    409002: "amqp:internal-error",
    412002: "com.microsoft:message-lock-lost",
}


_PROVISIONING_AMQP = {400: "amqp:invalid-field", FormatError.code: "amqp:decode-error", 409: "amqp:resource-locked"}
"""Conditions of the provisioning service that a hub has others for (dps.md 3.5)."""

RETRY_AFTER_NAMES = ("retry-after", "Retry-After")
"""How the clients of the provisioning service spell it over AMQP; each reads its own alone (dps.md 3.4)."""

# A device that asked for a fault is to try again.
_CONNECT_BY_CODE = {400030: SERVER_UNAVAILABLE}

_SEEN_IN_SHAPE_B = {409301}
"""Module conflicts (hub-service.md 1.6)."""


def row(error: ServiceError) -> StatusRow:
    """The row of an error's status."""
    return _ROWS[error.status]


def connect_code(error: ServiceError) -> int:
    """The CONNACK code of an error."""
    return _CONNECT_BY_CODE.get(error.code, row(error).connect)


def amqp_condition(error: ServiceError) -> str:
    """The AMQP condition of an error (hub-device.md 9.9, hub-service.md 1.8)."""
    return _AMQP_BY_CODE.get(error.code, row(error).amqp)


def amqp_outcome_error(error: ServiceError, tracking_id: str, now: int) -> Error:
    """Why a message of a service client is rejected: in plain words, which .NET shows with the tracking id behind them
    (azure-iot-sdk-csharp#117). What a device is told is JSON (hub-device.md 9.9).
    """
    info: Fields = {Symbol("com.microsoft:tracking-id"): _hub_tracking_id(tracking_id, now)}
    return Error(amqp_condition(error), error.message, info)


def amqp_error(error: ServiceError, tracking_id: str, now: int) -> Error:
    """The error of a detach, a close or a rejected message: JSON as its description (hub-device.md 9.9, dps.md 3.5)."""
    info: dict[Value, Value] = {
        Symbol("com.microsoft:is-filtered"): True,
        Symbol("com.microsoft:tracking-id"): tracking_id,
    }
    return Error(amqp_condition(error), provisioning_body(error, tracking_id, now).decode(), info)


def event_hub_error(error: ServiceError, tracking_id: str, now: int) -> Error:
    """The error of a detach where events are read: plain text, which ends with what to look for in the logs."""
    text = f"{error.message} TrackingId:{tracking_id}, SystemTracker:muster, Timestamp:{iso_utc(now)[:19]}"
    return Error(amqp_condition(error), text, {Symbol("com.microsoft:tracking-id"): tracking_id})


def provisioning_body(error: ServiceError, tracking_id: str, now: int) -> bytes:
    """The error JSON of DPS (dps.md 1.10), ASCII only (dps.md 2.5)."""
    return ascii_json(
        {
            "errorCode": error.code,
            "trackingId": tracking_id,
            "message": error.message,
            "timestampUtc": iso_utc(now),
        }
    )


def provisioning_mqtt_body(error: ServiceError, tracking_id: str, now: int) -> bytes:
    """The same over MQTT, where *Unauthorized* has a number of its own (dps.md 11)."""
    told = UnauthorizedError(error.message) if type(error) is UnauthorizedAccessError else error
    return provisioning_body(told, tracking_id, now)


def provisioning_amqp_error(error: ServiceError, tracking_id: str, now: int) -> Error:
    """The same over AMQP: one client reads the JSON, another ``retry-after`` in one of two spellings (dps.md 3.5)."""
    condition = _PROVISIONING_AMQP.get(error.code) or _PROVISIONING_AMQP.get(error.status) or amqp_condition(error)
    info: Fields | None = None
    if error.retry_after is not None:
        info = {Symbol(name): Int(error.retry_after) for name in RETRY_AFTER_NAMES}
    return Error(condition, provisioning_body(error, tracking_id, now).decode(), info)


def hub_body(error: ServiceError, tracking_id: str, now: int) -> bytes:
    """The error JSON of a hub's HTTPS endpoints: shape A of hub-service.md 1.6, and shape B where it was seen."""
    if error.code in _SEEN_IN_SHAPE_B:
        return provisioning_body(error, tracking_id, now)
    return msgspec.json.encode(
        {
            "Message": f"ErrorCode:{error.name};{_in_one_part(error.message)}",
            "ExceptionMessage": f"Tracking ID:{_hub_tracking_id(tracking_id, now)}",
        }
    )


def _in_one_part(message: str) -> str:
    """Without a semicolon between its sentences: Node's client shows what stands between the first two of the text. Ids
    keep theirs.
    """
    return message.replace("; ", ", ")


def hub_plain_body(error: ServiceError, tracking_id: str, now: int) -> bytes:
    """The error JSON of twins on a device's own connection (hub-device.md 7.6; hub-service.md 1.6, shape B)."""
    return msgspec.json.encode(_hub_error(error, tracking_id, now))


def hub_nested_body(error: ServiceError, tracking_id: str, now: int) -> bytes:
    """The error JSON of direct methods: one JSON text inside another (hub-service.md 1.6, shape C)."""
    inner = _hub_error(error, tracking_id, now)
    inner["message"] = _in_one_part(error.message)
    inner["info"] = {"timeout": "00:00:00"} if isinstance(error, DeviceNotOnlineError) else {}
    return msgspec.json.encode({"Message": msgspec.json.encode(inner).decode(), "ExceptionMessage": ""})


def _hub_error(error: ServiceError, tracking_id: str, now: int) -> dict[str, object]:
    return {
        "errorCode": error.code,
        "trackingId": _hub_tracking_id(tracking_id, now),
        "message": error.message,
        "timestampUtc": iso_utc(now),
    }


def _hub_tracking_id(tracking_id: str, now: int) -> str:
    return f"{tracking_id.replace('-', '')}-G:0-TimeStamp:{us_style(now)}"


def management_body(error: ServiceError, tracking_id: str, now: int) -> bytes:
    """The error JSON of Resource Manager's routes, in both shapes that its clients read (dps.md 7.3)."""
    del now
    return _management_body(error, tracking_id, error.code)


def hub_management_body(error: ServiceError, tracking_id: str, now: int) -> bytes:
    """The same of hubs, whose number is a text (hub-service.md 10)."""
    del now
    return _management_body(error, tracking_id, str(error.code))


def _management_body(error: ServiceError, tracking_id: str, code: int | str) -> bytes:
    return msgspec.json.encode(
        {
            "code": code,
            "httpStatusCode": row(error).reason.replace(" ", ""),
            "message": error.message,
            "details": f"Tracking id {tracking_id}",
            "error": {"code": error.name, "message": error.message},
        }
    )


def ascii_json(value: object) -> bytes:
    """JSON with every character outside ASCII escaped: one client decodes topics' payloads as ASCII (dps.md 2.5)."""
    text = msgspec.json.encode(value).decode()
    if text.isascii():
        return text.encode()
    return "".join(character if character.isascii() else _escaped(character) for character in text).encode()


def _escaped(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))
