"""``cloudToDevice`` of a hub as a resource: read from what clients send, and shown (hub-service.md 10).

Not here: what the settings do (``c2d_message.py``), and the rest of a hub (``hub_resource.py``).
"""

import re
from typing import Any

import msgspec

from muster.domain.c2d_message import C2dSettings, FeedbackSettings, require_settings
from muster.domain.errors import ArgumentInvalidError
from muster.domain.timestamp import DAY, HOUR, MINUTE, SECOND

_DURATION = re.compile(r"P(?:(\d{1,4})D)?(?:T(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,6})(?:\.0+)?S)?)?", re.ASCII)
_UNITS = (DAY, HOUR, MINUTE, SECOND)


class FeedbackBody(msgspec.Struct, rename="camel"):
    lock_duration: str | None = msgspec.field(default=None, name="lockDurationAsIso8601")
    time_to_live: str | None = msgspec.field(default=None, name="ttlAsIso8601")
    max_delivery_count: int | None = None


class CloudToDeviceBody(msgspec.Struct, rename="camel"):
    max_delivery_count: int | None = None
    default_time_to_live: str | None = msgspec.field(default=None, name="defaultTtlAsIso8601")
    feedback: FeedbackBody | None = None


def read_cloud_to_device(value: object, stored: C2dSettings) -> C2dSettings:
    """The settings that a member of a PUT asks for; what it leaves out stays. Raises ArgumentInvalidError."""
    try:
        body = msgspec.convert(value, CloudToDeviceBody | None) or CloudToDeviceBody()
    except msgspec.ValidationError as error:
        raise ArgumentInvalidError(f"cloudToDevice is not valid: {error}.") from None
    feedback = body.feedback or FeedbackBody()
    settings = C2dSettings(
        maximum_delivery_count=_number(body.max_delivery_count, stored.maximum_delivery_count),
        default_time_to_live=_duration(body.default_time_to_live, stored.default_time_to_live),
        feedback=FeedbackSettings(
            lock_duration=_duration(feedback.lock_duration, stored.feedback.lock_duration),
            time_to_live=_duration(feedback.time_to_live, stored.feedback.time_to_live),
            maximum_delivery_count=_number(feedback.max_delivery_count, stored.feedback.maximum_delivery_count),
        ),
    )
    require_settings(settings)
    return settings


def cloud_to_device_view(settings: C2dSettings) -> dict[str, Any]:
    """The member of the resource."""
    return {
        "maxDeliveryCount": settings.maximum_delivery_count,
        "defaultTtlAsIso8601": duration_text(settings.default_time_to_live),
        "feedback": {
            "lockDurationAsIso8601": duration_text(settings.feedback.lock_duration),
            "ttlAsIso8601": duration_text(settings.feedback.time_to_live),
            "maxDeliveryCount": settings.feedback.maximum_delivery_count,
        },
    }


def _number(value: int | None, stored: int) -> int:
    return stored if value is None else value


def _duration(text: str | None, stored: int) -> int:
    return stored if text is None else parse_duration(text)


def parse_duration(text: str) -> int:
    """Microseconds of an ISO 8601 duration of days, hours, minutes and seconds. Raises ArgumentInvalidError."""
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()):
        raise ArgumentInvalidError(f"{text[:50]!r} is not an ISO 8601 duration such as PT1H.")
    return sum(int(number or 0) * unit for number, unit in zip(match.groups(), _UNITS, strict=True))


def duration_text(microseconds: int) -> str:
    """``PT1H``, ``P2D``, ``PT1M30S``: whole seconds in ISO 8601."""
    counts = []
    for unit in _UNITS:
        count, microseconds = divmod(microseconds, unit)
        counts.append(count)
    days, *rest = counts
    time = "".join(f"{count}{letter}" for count, letter in zip(rest, "HMS", strict=True) if count)
    date = f"{days}D" if days else ""
    return f"P{date}T{time}" if time else f"P{date}" if date else "PT0S"
