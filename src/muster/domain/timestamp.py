"""Points in time as both services write them. Inside Muster a time is an integer: microseconds since 1970, UTC.

Not here: any clock. Who needs the time takes it as an argument.
"""

import calendar
import re
import time

SECOND = 1_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR

NEVER = "0001-01-01T00:00:00Z"
"""How the hub writes a time that was never set (hub-service.md 2.2)."""

_ISO = re.compile(r"^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?$")


def iso_utc(microseconds: int) -> str:
    """ISO 8601 with seven fraction digits and ``Z``, as .NET's round-trip format writes it (dps.md 1.5, hub-device.md
    7.3).
    """
    seconds, fraction = divmod(microseconds, SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{fraction:06d}0Z"


def iso_utc_or_never(microseconds: int) -> str:
    """The same, with 0 standing for a time that was never set."""
    return iso_utc(microseconds) if microseconds else NEVER


def us_style(microseconds: int) -> str:
    """``11/23/2026 10:15:02``, the form inside hub tracking ids (hub-service.md 1.6)."""
    return time.strftime("%m/%d/%Y %H:%M:%S", time.gmtime(microseconds // SECOND))


def parse_iso(text: str) -> int:
    """Read ISO 8601 with any number of fraction digits, with or without a zone (none means UTC).

    Raises ValueError for anything else.
    """
    match = _ISO.match(text)
    if match is None:
        raise ValueError(f"{text!r} is not an ISO 8601 time such as 2026-03-01T09:00:00.0000000Z")
    year, month, day, hour, minute, second = (int(group) for group in match.groups()[:6])
    valid = 1 <= month <= 12 and 1 <= day <= calendar.monthrange(max(year, 1), month)[1]  # noqa: PLR2004 - the calendar's own numbers
    if not valid or hour > 23 or minute > 59 or second > 59:  # noqa: PLR2004 - the calendar's own numbers
        raise ValueError(f"{text!r} is not a time that exists")
    seconds = calendar.timegm((year, month, day, hour, minute, second))
    fraction = int((match[7] or "0").ljust(6, "0")[:6])
    return (seconds - _zone_seconds(match[8])) * SECOND + fraction


def _zone_seconds(zone: str | None) -> int:
    if zone is None or zone == "Z":
        return 0
    sign = -1 if zone[0] == "-" else 1
    return sign * (int(zone[1:3]) * 3600 + int(zone[4:6]) * 60)
