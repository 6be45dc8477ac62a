"""Device twins: a new one from an initial twin, the rules for keys and values, metadata and versions, JSON.

Sources: hub-device.md 7.3 to 7.5, hub-service.md 3. Not here: storing twins, and who is told of a change.
"""

from typing import Any, Literal

import msgspec

from muster.domain.errors import ArgumentInvalidError
from muster.domain.timestamp import NEVER, iso_utc

JsonObject = dict[str, Any]
Section = Literal["tags", "desired", "reported"]

_MAXIMUM_DEPTH = 10
_MAXIMUM_KEY_BYTES = 1024
_MAXIMUM_STRING_BYTES = 4096
_MINIMUM_INTEGER = -4503599627370496
_MAXIMUM_INTEGER = 4503599627370495
_SECTION_BYTES: dict[Section, int] = {"tags": 8 * 1024, "desired": 32 * 1024, "reported": 32 * 1024}
_NUMBER_BYTES = 8
_BOOLEAN_BYTES = 4


class InitialProperties(msgspec.Struct, omit_defaults=True):
    desired: JsonObject = {}


class InitialTwin(msgspec.Struct, omit_defaults=True):
    """What an enrollment says of the twin of a device that it creates (dps.md 6.2)."""

    tags: JsonObject = {}
    properties: InitialProperties = msgspec.field(default_factory=InitialProperties)


class Twin(msgspec.Struct, frozen=True):
    """One twin as stored. Metadata mirrors its section; ``etag`` and the versions are counters."""

    etag: int
    version: int
    model_id: str
    tags: JsonObject
    desired: JsonObject
    desired_metadata: JsonObject
    desired_version: int
    reported: JsonObject
    reported_metadata: JsonObject
    reported_version: int


def new_twin(initial: InitialTwin | None, now: int) -> Twin:
    """The twin of a new identity; an initial twin counts as part of its creation, at ``now`` (microseconds)."""
    desired = without_nulls(initial.properties.desired) if initial else {}
    return Twin(
        etag=1,
        version=2,
        model_id="",
        tags=without_nulls(initial.tags) if initial else {},
        desired=desired,
        desired_metadata=metadata(desired, iso_utc(now), 1)
        if desired
        else {"$lastUpdated": NEVER, "$lastUpdatedVersion": 1},
        desired_version=1,
        reported={},
        reported_metadata={"$lastUpdated": NEVER},
        reported_version=1,
    )


def metadata(section: JsonObject, updated: str, version: int | None) -> JsonObject:
    """The ``$metadata`` of a section written as a whole: one leaf for each value, arrays included as one leaf.

    ``version`` is the section's version for desired properties and None for reported ones.
    """
    stamp: JsonObject = {"$lastUpdated": updated}
    if version is not None:
        stamp["$lastUpdatedVersion"] = version
    return _metadata_of(section, stamp)


def _metadata_of(value: JsonObject, stamp: JsonObject) -> JsonObject:
    children = {key: _metadata_of(item if isinstance(item, dict) else {}, stamp) for key, item in value.items()}
    return {**stamp, **children}


def without_nulls(section: JsonObject) -> JsonObject:
    """A section as stored: null means removal and is never kept (hub-device.md 7.4)."""
    return {
        key: without_nulls(item) if isinstance(item, dict) else item
        for key, item in section.items()
        if item is not None
    }


def require_valid(section: Section, value: JsonObject) -> None:
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
    if isinstance(value, str) and len(value.encode()) > _MAXIMUM_STRING_BYTES:
        raise ArgumentInvalidError(f"The value of {path} exceeds maximum length of {_MAXIMUM_STRING_BYTES}.")
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


def service_properties(twin: Twin) -> JsonObject:
    """``properties`` as the service sees them, with metadata and versions (hub-device.md 7.3)."""
    return {
        "desired": {**twin.desired, "$metadata": twin.desired_metadata, "$version": twin.desired_version},
        "reported": {**twin.reported, "$metadata": twin.reported_metadata, "$version": twin.reported_version},
    }
