"""The JSON of twins: the whole twin for service clients, desired and reported properties for the device.

Sources: hub-service.md 3.2, hub-device.md 7.2. The documents of a twin are JSON text and are put together as text:
nobody decodes what is only passed on.
"""

import msgspec
from msgspec import UNSET, Raw, UnsetType

from muster.domain.timestamp import iso_utc_or_never


class ThumbprintView(msgspec.Struct, frozen=True, rename="camel"):
    primary_thumbprint: str | None
    secondary_thumbprint: str | None


class CapabilitiesView(msgspec.Struct, frozen=True, rename="camel"):
    iot_edge: bool


class PropertiesView(msgspec.Struct, frozen=True):
    desired: Raw
    reported: Raw


class TwinView(msgspec.Struct, frozen=True, rename="camel", kw_only=True):
    """A twin as service clients see it, member by member in Azure's order. What is unset is left out."""

    device_id: str
    module_id: str | UnsetType = UNSET
    etag: str
    device_etag: str
    status: str
    status_reason: str | UnsetType = UNSET
    status_update_time: str
    connection_state: str
    last_activity_time: str
    cloud_to_device_message_count: int
    authentication_type: str
    x509_thumbprint: ThumbprintView = msgspec.field(name="x509Thumbprint")
    model_id: str
    version: int
    tags: Raw | UnsetType = UNSET
    properties: PropertiesView
    capabilities: CapabilitiesView
    device_scope: str | UnsetType = UNSET
    parent_scopes: Raw | UnsetType = UNSET


def connection_state(*, connected: bool) -> str:
    return "Connected" if connected else "Disconnected"


def last_activity(microseconds: int | None) -> str:
    """A time of the identity in a twin; None and 0: never."""
    return iso_utc_or_never(microseconds or 0)


def service_section(values: str, metadata: str, version: int) -> str:
    """A section with its metadata and version, from the JSON text of both."""
    return f'{_open(values)}"$metadata":{metadata},"$version":{version}}}'


def device_section(values: str, version: int) -> str:
    """A section as the device sees it, from its JSON text."""
    return f'{_open(values)}"$version":{version}}}'


def device_document(desired: str, desired_version: int, reported: str, reported_version: int) -> bytes:
    """What a device is answered that asks for its twin (hub-device.md 7.2)."""
    sections = device_section(desired, desired_version), device_section(reported, reported_version)
    return f'{{"desired":{sections[0]},"reported":{sections[1]}}}'.encode()


def _open(values: str) -> str:
    """The text of an object up to where another member can follow."""
    return "{" if values == "{}" else f"{values[:-1]},"
