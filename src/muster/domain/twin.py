"""Device and module twins: a new one, what a patch or a replacement makes of one, and who has to hear what of it.

Sources: hub-device.md 7.3, 7.4, 7.7, hub-service.md 3, 9.5, appendix D. Not here: what may stand in a twin
(``twin_rules.py``), a twin's JSON (``twin_view.py``), storing twins.
"""

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

from muster.domain.errors import PreconditionFailedError
from muster.domain.etag import twin_etag
from muster.domain.timestamp import NEVER, iso_utc
from muster.domain.twin_rules import require_valid

JsonObject = dict[str, Any]

_ECHOED = ("$metadata", "$version")
"""What clients send back in a section that they have read (hub-service.md 3.3)."""


class InitialProperties(msgspec.Struct, omit_defaults=True):
    desired: JsonObject = {}


class InitialTwin(msgspec.Struct, omit_defaults=True):
    """What an enrollment says of the twin of a device that it creates (dps.md 6.2)."""

    tags: JsonObject = {}
    properties: InitialProperties = msgspec.field(default_factory=InitialProperties)


class PropertiesBody(msgspec.Struct):
    desired: JsonObject | UnsetType | None = UNSET


class TwinBody(msgspec.Struct):
    """What a service client writes; reported properties and all that belongs to the identity is ignored, as Azure
    does. A section that is null is one without members.
    """

    tags: JsonObject | UnsetType | None = UNSET
    properties: PropertiesBody | UnsetType | None = UNSET

    @property
    def desired(self) -> JsonObject | UnsetType | None:
        return self.properties.desired if isinstance(self.properties, PropertiesBody) else UNSET


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


class TwinChange(msgspec.Struct, frozen=True, kw_only=True):
    """What a twin change event says (hub-service.md 9.5). ``body`` is the event's; ``time`` in microseconds UTC."""

    hub: str
    device_id: str
    module_id: str
    operation: Literal["updateTwin", "replaceTwin"]
    time: int
    body: JsonObject


class TwinWrite(msgspec.Struct, frozen=True, kw_only=True):
    """A write as decided: the twin after it, the event's body, and what a connected device is sent, if anything."""

    twin: Twin
    operation: Literal["updateTwin", "replaceTwin"]
    changed: JsonObject
    desired_notice: JsonObject | None = None


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


def patch_reported(twin: Twin, patch: JsonObject, expected_version: int | None, now: int) -> TwinWrite:
    """A device's patch of its reported properties, at ``now`` (microseconds).

    Raises ArgumentInvalidError, and PreconditionFailedError unless ``expected_version`` is None or the version of
    the reported properties (hub-device.md 7.1).
    """
    if expected_version is not None and expected_version != twin.reported_version:
        raise PreconditionFailedError(
            f"Precondition failed: the reported properties have version {twin.reported_version}, not"
            f" {expected_version}."
        )
    require_valid("reported", patch)
    stamp = {"$lastUpdated": iso_utc(now)}
    version = twin.reported_version + 1
    reported, reported_metadata = _merged(twin.reported, twin.reported_metadata, patch, stamp)
    require_valid("reported", reported)
    written = msgspec.structs.replace(
        twin,
        version=twin.version + 1,
        reported=reported,
        reported_metadata=reported_metadata,
        reported_version=version,
    )
    changed = {"reported": _changed(patch, stamp, version)}
    return TwinWrite(twin=written, operation="updateTwin", changed={"version": written.version, "properties": changed})


def patch_twin(twin: Twin, body: TwinBody, now: int) -> TwinWrite | None:
    """A service client's patch of tags and desired properties; None when it names nothing to change.

    Naming a desired property raises the version and is told to the device even if its value stays the same
    (hub-service.md 3.3). Raises ArgumentInvalidError.
    """
    tags = _patch_of(body.tags, twin.tags)
    desired = _patch_of(body.desired, twin.desired)
    if not tags and not desired:
        return None
    changed: JsonObject = {"version": twin.version + 1}
    written = msgspec.structs.replace(twin, etag=twin.etag + 1, version=twin.version + 1)
    if tags:
        require_valid("tags", tags)
        written = msgspec.structs.replace(written, tags=_merged(twin.tags, {}, tags, {})[0])
        require_valid("tags", written.tags)
        changed["tags"] = tags
    if not desired:
        return TwinWrite(twin=written, operation="updateTwin", changed=changed)
    require_valid("desired", desired)
    version = twin.desired_version + 1
    stamp = {"$lastUpdated": iso_utc(now), "$lastUpdatedVersion": version}
    values, values_metadata = _merged(twin.desired, twin.desired_metadata, desired, stamp)
    require_valid("desired", values)
    written = msgspec.structs.replace(
        written, desired=values, desired_metadata=values_metadata, desired_version=version
    )
    changed["properties"] = {"desired": _changed(desired, stamp, version)}
    notice = {**desired, "$version": version}
    return TwinWrite(twin=written, operation="updateTwin", changed=changed, desired_notice=notice)


def replace_twin(twin: Twin, body: TwinBody, now: int) -> TwinWrite:
    """A service client's replacement of tags and desired properties; a section it does not name is emptied.

    The device is told all desired properties (hub-service.md 3.4). Raises ArgumentInvalidError.
    """
    tags, desired = _without_echo(body.tags), _without_echo(body.desired)
    require_valid("tags", tags)
    require_valid("desired", desired)
    tags, desired = without_nulls(tags), without_nulls(desired)
    version = twin.desired_version + 1
    written = msgspec.structs.replace(
        twin,
        etag=twin.etag + 1,
        version=twin.version + 1,
        tags=tags,
        desired=desired,
        desired_metadata=metadata(desired, iso_utc(now), version),
        desired_version=version,
    )
    changed = {
        "etag": twin_etag(written.etag),
        "version": written.version,
        "tags": tags,
        "properties": {
            "desired": {**desired, "$metadata": written.desired_metadata, "$version": version},
            "reported": {
                **written.reported,
                "$metadata": written.reported_metadata,
                "$version": written.reported_version,
            },
        },
    }
    notice = {**desired, "$version": version}
    return TwinWrite(twin=written, operation="replaceTwin", changed=changed, desired_notice=notice)


def _without_echo(section: JsonObject | UnsetType | None) -> JsonObject:
    if not isinstance(section, dict):
        return {}
    return {key: item for key, item in section.items() if key not in _ECHOED}


def _patch_of(section: JsonObject | UnsetType | None, stored: JsonObject) -> JsonObject:
    """What is to be merged into ``stored``: null for a whole section removes each of its members."""
    if section is None:
        return dict.fromkeys(stored)
    return _without_echo(section)


def _merged(
    values: JsonObject, values_metadata: JsonObject, patch: JsonObject, stamp: JsonObject
) -> tuple[JsonObject, JsonObject]:
    """A section and its metadata after a patch (hub-device.md 7.4, hub-service.md D); no argument is changed."""
    values, values_metadata = dict(values), {**values_metadata, **stamp}
    for key, item in patch.items():
        if item is None:
            values.pop(key, None)
            values_metadata.pop(key, None)
        elif isinstance(item, dict):
            stored, stored_metadata = values.get(key), values_metadata.get(key, {})
            if not isinstance(stored, dict):
                stored, stored_metadata = {}, {}
            values[key], values_metadata[key] = _merged(stored, stored_metadata, item, stamp)
        else:
            values[key] = item
            values_metadata[key] = dict(stamp)
    return values, values_metadata


def _changed(patch: JsonObject, stamp: JsonObject, version: int) -> JsonObject:
    """A patch with the metadata of what it wrote, as a twin change event shows it."""
    return {**patch, "$metadata": _metadata_of(without_nulls(patch), stamp), "$version": version}


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
