"""What a device asks for by the properties of a message, whatever protocol it speaks. Source: hub-device.md 13."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from muster.domain.documents import read
from muster.domain.errors import QuotaExceededError, ServiceError, ThrottledError, UnauthorizedAccessError

TYPE: Final = "aziothub_faultoperationtype"
"""The property that makes a message a request for a fault, in lower case."""

_REASON: Final = "aziothub_faultoperationclosereason"
_DELAY: Final = "aziothub_faultoperationdelayinsecs"
_DURATION: Final = "aziothub_faultoperationdurationinsecs"

KILL_TCP: Final = "killtcp"

ERRORS: Final[Mapping[str, type[ServiceError]]] = {
    "invokethrottling": ThrottledError,
    "invokemaxmessagequota": QuotaExceededError,
    "invokeautherror": UnauthorizedAccessError,
}
"""What a device may ask to be refused with, on the protocols that can refuse a message."""

_DEFAULT_DELAY_SECONDS: Final = 1.0
_LEAST_DELAY_SECONDS: Final = 0.1
"""The acknowledgement has to reach the device first, which would otherwise ask for the fault for ever."""

_LONGEST_SECONDS: Final = 100_000.0

Key = tuple[str, str, str]
"""Hub, device id, module id or empty."""

Later = Callable[[float, Callable[[], None]], object]
"""Calls something after so many seconds."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What a device asked for. ``kind`` is in lower case; times in seconds."""

    kind: str
    reason: str
    delay: float
    duration: float


def read_fault(application_properties: str) -> Fault | None:
    """The fault that these properties (JSON of names and texts) ask for, or None."""
    if TYPE not in application_properties.lower():
        return None
    return find_fault(read(application_properties, dict[str, str]))


def find_fault(properties: Mapping[str, str]) -> Fault | None:
    """The fault that these properties ask for, or None."""
    named = {name.lower(): value for name, value in properties.items()}
    kind = named.get(TYPE)
    if kind is None:
        return None
    return Fault(
        kind.strip().lower(),
        named.get(_REASON, ""),
        max(_LEAST_DELAY_SECONDS, _seconds(named.get(_DELAY), _DEFAULT_DELAY_SECONDS)),
        _seconds(named.get(_DURATION), 0.0),
    )


def _seconds(text: str | None, default: float) -> float:
    """Decimal text; SDKs leave it out, or send ``undefined``."""
    try:
        value = float(text or "")
    except ValueError:
        return default
    return min(value, _LONGEST_SECONDS) if math.isfinite(value) and value >= 0 else default
