"""Events that a hub writes about its devices: twin changes, device lifecycle, connection state.

Sources: hub-service.md 8.7, 9.5, 13, hub-device.md 12. Not here: storing them, and whether a hub wants them.
"""

from enum import StrEnum
from typing import Any, Literal

import msgspec

from muster.domain.device import Identity
from muster.domain.documents import encode
from muster.domain.errors import ArgumentInvalidError
from muster.domain.etag import twin_etag
from muster.domain.timestamp import iso_utc
from muster.domain.twin import JsonObject, Twin, TwinChange

MAXIMUM_RETENTION_DAYS = 7

_FILE_TIME_EPOCH = 11_644_473_600_000_000  # microseconds from 1601 to 1970


class HubEventSource(StrEnum):
    """As ``iothub-message-source`` names them."""

    TWIN_CHANGE = "twinChangeEvents"
    LIFECYCLE = "deviceLifecycleEvents"
    CONNECTION_STATE = "deviceConnectionStateEvents"


_SCHEMAS = {
    HubEventSource.TWIN_CHANGE: "twinChangeNotification",
    HubEventSource.LIFECYCLE: "deviceLifecycleNotification",
    HubEventSource.CONNECTION_STATE: "deviceConnectionStateNotification",
}


class EventSettings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a hub writes to its log beside telemetry, and how many days it keeps events. As on Azure, where it takes a
    route, it writes telemetry only at first.
    """

    sources: tuple[HubEventSource, ...] = ()
    retention_days: int = 1


class HubEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One event. ``time`` is that of the operation, in microseconds UTC."""

    source: HubEventSource
    hub: str
    device_id: str
    module_id: str
    operation: str
    time: int
    body: JsonObject

    @property
    def application_properties(self) -> dict[str, str]:
        module = {"moduleId": self.module_id} if self.module_id else {}
        return {
            "hubName": self.hub,
            "deviceId": self.device_id,
            **module,
            "operationTimestamp": iso_utc(self.time),
            "opType": self.operation,
            "iothub-message-schema": _SCHEMAS[self.source],
        }

    def system_properties(self, correlation_id: str) -> dict[str, str]:
        return {
            "content-type": "application/json",
            "content-encoding": "utf-8",
            "correlation-id": correlation_id,
            "user-id": self.hub,
        }

    @property
    def content(self) -> bytes:
        return encode(self.body).encode()


def twin_change_event(change: TwinChange) -> HubEvent:
    return HubEvent(
        source=HubEventSource.TWIN_CHANGE,
        hub=change.hub,
        device_id=change.device_id,
        module_id=change.module_id,
        operation=change.operation,
        time=change.time,
        body=change.body,
    )


def lifecycle_event(
    hub: str,
    identity: Identity,
    twin: Twin,
    operation: Literal["createDeviceIdentity", "deleteDeviceIdentity"],
    now: int,
) -> HubEvent:
    """The identity's twin is the body: the new one, or the last one. Modules have the same operations as devices."""
    module = {"moduleId": identity.module_id} if identity.module_id else {}
    tags = {"tags": twin.tags} if twin.tags else {}
    body: dict[str, Any] = {
        "deviceId": identity.device_id,
        **module,
        "etag": twin_etag(twin.etag),
        "version": twin.version,
        **tags,
        "properties": {
            "desired": {**twin.desired, "$metadata": twin.desired_metadata, "$version": twin.desired_version},
            "reported": {**twin.reported, "$metadata": twin.reported_metadata, "$version": twin.reported_version},
        },
    }
    return HubEvent(
        source=HubEventSource.LIFECYCLE,
        hub=hub,
        device_id=identity.device_id,
        module_id=identity.module_id,
        operation=operation,
        time=now,
        body=body,
    )


def connection_state_event(
    hub: str, device_id: str, module_id: str, sequence: int, now: int, *, connected: bool
) -> HubEvent:
    """``sequence`` comes from ``first_sequence``, or is one more than the one before."""
    return HubEvent(
        source=HubEventSource.CONNECTION_STATE,
        hub=hub,
        device_id=device_id,
        module_id=module_id,
        operation="deviceConnected" if connected else "deviceDisconnected",
        time=now,
        body={"sequenceNumber": f"{sequence:032X}{0:032X}"},
    )


def first_sequence(now: int) -> int:
    """The least sequence number at ``now``, so that those of a device that was created again go on rising: .NET's file
    time, as on Azure.
    """
    return (now + _FILE_TIME_EPOCH) * 10


def read_event_sources(value: object, stored: EventSettings) -> EventSettings:
    """What the member ``hubEvents`` of a hub asks for; None leaves it as it is. Raises ArgumentInvalidError."""
    if value is None:
        return stored
    names = [source.value for source in HubEventSource]
    if not isinstance(value, list) or any(not isinstance(item, str) for item in value):
        raise ArgumentInvalidError(f"properties.hubEvents is not an array of texts, of {', '.join(names)}.")
    wanted = {item.lower() for item in value}
    unknown = wanted - {name.lower() for name in names}
    if unknown:
        raise ArgumentInvalidError(
            f"properties.hubEvents has {', '.join(sorted(unknown))[:100]!r}; {', '.join(names)} are allowed."
        )
    sources = tuple(source for source in HubEventSource if source.lower() in wanted)
    return msgspec.structs.replace(stored, sources=sources)


def read_event_settings(sources: object, retention_days: object, stored: EventSettings) -> EventSettings:
    """``hubEvents`` and ``retentionTimeInDays`` of a hub; None leaves either as it is. Raises ArgumentInvalidError."""
    settings = read_event_sources(sources, stored)
    if retention_days is None:
        return settings
    longest = MAXIMUM_RETENTION_DAYS
    if isinstance(retention_days, bool) or not isinstance(retention_days, int) or not 1 <= retention_days <= longest:
        raise ArgumentInvalidError(f"retentionTimeInDays is {str(retention_days)[:50]!r}; 1 to {longest} are allowed.")
    return msgspec.structs.replace(settings, retention_days=retention_days)
