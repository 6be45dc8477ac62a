"""AMQP values as text: message properties are text everywhere else in a hub (hub-device.md 9.6, 9.7).

Pure. Not here: what the properties mean.
"""

import math
from collections.abc import Callable
from typing import Any, Final
from uuid import UUID

from muster.domain.timestamp import iso_utc
from muster.wire.amqp_types import (
    F32,
    INTEGERS,
    Char,
    Double,
    Float,
    Integer,
    Real,
    Symbol,
    Timestamp,
    Uuid,
    Value,
    is_character,
)

EARLIEST_MILLISECONDS: Final = -30_610_224_000_000
LATEST_MILLISECONDS: Final = 253_402_300_799_999
"""The years 1000 to 9999: what ISO 8601 writes with four digits."""

_FLOAT_DIGITS = range(6, 9)


class NoTextError(ValueError):
    """A value without a text: a list, a map, an array, a decimal number, bytes that are not UTF-8."""


def text_of(value: Value) -> str | None:
    """The text of a scalar, None for null. Numbers and booleans are written as JSON does. Raises NoTextError."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    write = _WRITERS.get(type(value))
    if write is None:
        raise NoTextError(type(value).__name__.lower())
    return write(value)


def _binary(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise NoTextError("binary that is not UTF-8") from None


def _symbol(value: Symbol) -> str:
    return value.text


def _uuid(value: Uuid) -> str:
    return str(UUID(bytes=value.octets))


def _integer(value: Integer) -> str:
    return str(value.value)


def _character(value: Char) -> str:
    if not is_character(value.value):
        raise NoTextError("a char that is no character")
    return chr(value.value)


def _time(value: Timestamp) -> str:
    if not EARLIEST_MILLISECONDS <= value.value <= LATEST_MILLISECONDS:
        raise NoTextError("a timestamp outside of the years 1000 to 9999")
    return iso_utc(value.value * 1000)


def _number(value: Real) -> str:
    number = value.value
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
    text = _shortest(number) if isinstance(value, Float) else repr(number)
    return text.removesuffix(".0")


def _shortest(number: float) -> str:
    """The fewest digits that read back as the same number of 32 bits."""
    for digits in _FLOAT_DIGITS:
        text = f"{number:.{digits}g}"
        if F32.pack(float(text)) == F32.pack(number):
            return text
    return f"{number:.9g}"


_WRITERS: Final[dict[type, Callable[[Any], str]]] = {
    **dict.fromkeys(INTEGERS, _integer),
    bytes: _binary,
    Symbol: _symbol,
    Uuid: _uuid,
    Char: _character,
    Timestamp: _time,
    Float: _number,
    Double: _number,
}
