"""What may stand in a twin: keys, values, depth and size of tags, desired and reported properties.

Sources: hub-device.md 7.5, hub-service.md 3.5. Not here: what a write does (``twin.py``).
"""

from typing import Any, Literal

from muster.domain.errors import ArgumentInvalidError

Section = Literal["tags", "desired", "reported"]

_MAXIMUM_DEPTH = 10
_MAXIMUM_KEY_BYTES = 1024
_MAXIMUM_STRING_BYTES = 4096
_MINIMUM_INTEGER = -4503599627370496
_MAXIMUM_INTEGER = 4503599627370495
_SECTION_BYTES: dict[Section, int] = {"tags": 8 * 1024, "desired": 32 * 1024, "reported": 32 * 1024}
_NUMBER_BYTES = 8
_BOOLEAN_BYTES = 4


def require_valid(section: Section, value: dict[str, Any]) -> None:
    """Raise ArgumentInvalidError unless keys, values, depth and size keep the rules of hub-device.md 7.5."""
    _require_value(section, section, value, depth=0, in_array=False)
    size = _size(value)
    maximum = _SECTION_BYTES[section]
    if size > maximum:
        raise ArgumentInvalidError(f"Twin {section} size {size} exceeds maximum {maximum}.")


def _require_value(section: Section, path: str, value: Any, *, depth: int, in_array: bool) -> None:
    if depth > _MAXIMUM_DEPTH:
        raise ArgumentInvalidError(f"Nested depth of twin property exceeds {_MAXIMUM_DEPTH} at {path}.")
    if isinstance(value, dict):
        for key, item in value.items():
            _require_key(path, key)
            _require_value(section, f"{path}.{key}", item, depth=depth + 1, in_array=in_array)
    elif isinstance(value, list):
        for item in value:
            _require_value(section, path, item, depth=depth + 1, in_array=True)
    else:
        _require_scalar(path, value, in_array=in_array)


def _require_key(path: str, key: str) -> None:
    if len(key.encode()) > _MAXIMUM_KEY_BYTES:
        raise ArgumentInvalidError(
            f"Length of a property name under {path} exceeds maximum length of {_MAXIMUM_KEY_BYTES}."
        )
    for character in key:
        if character in ".$" or character.isspace() or ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0:  # noqa: PLR2004 - C0 and C1 controls
            raise ArgumentInvalidError(f"Property name {key!r} contains invalid character {character!r}.")


def _require_scalar(path: str, value: Any, *, in_array: bool) -> None:
    if value is None and in_array:
        raise ArgumentInvalidError(f"Arrays cannot contain 'null' as value, at {path}.")
    if isinstance(value, str):
        if len(value.encode()) > _MAXIMUM_STRING_BYTES:
            raise ArgumentInvalidError(f"The value of {path} exceeds maximum length of {_MAXIMUM_STRING_BYTES}.")
        if "\0" in value:
            raise ArgumentInvalidError(f"The value of {path} has a NUL character, which no database compares.")
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if is_integer and not _MINIMUM_INTEGER <= value <= _MAXIMUM_INTEGER:
        raise ArgumentInvalidError(
            f"The value of {path} is out of bound: integers reach from {_MINIMUM_INTEGER} to {_MAXIMUM_INTEGER}."
        )


def _size(value: Any) -> int:
    if isinstance(value, dict):
        return sum(len(key.encode()) + _size(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(_size(item) for item in value)
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, bool):
        return _BOOLEAN_BYTES
    return 0 if value is None else _NUMBER_BYTES
