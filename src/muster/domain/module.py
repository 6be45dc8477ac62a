"""Module identities of a device: rules for ids and bodies, the modules of an edge device, their JSON.

Sources: hub-service.md 2.2, 2.3. Not here: what modules share with devices (``device.py``), and storing them.
"""

from typing import Any

import msgspec

from muster.domain.device import (
    Authentication,
    AuthenticationBody,
    ConnectionTimes,
    Identity,
    authentication_view,
    is_device_id,
    read_authentication,
)
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError
from muster.domain.etag import counter_etag
from muster.domain.timestamp import iso_utc_or_never

MAXIMUM_MODULES = 50
"""On one device (hub-device.md 15)."""

EDGE_HUB = "$edgeHub"
"""The gateway on an edge device."""

EDGE_MODULES = ("$edgeAgent", EDGE_HUB)
"""What the hub makes of its own accord with an edge device."""

EDGE_MANAGER = "iotEdge"


class ModuleBody(msgspec.Struct, rename="camel"):
    """A PUT body; members that clients send back and the hub ignores are not listed."""

    module_id: str | None = None
    device_id: str | None = None
    managed_by: str | None = None
    authentication: AuthenticationBody | None = None


def require_module_id(module_id: str) -> None:
    """Raise ArgumentInvalidError unless ``module_id`` may name a module."""
    if not is_device_id(module_id):
        raise ArgumentInvalidError(
            f"The module id {module_id!r} is not valid: 1 to 128 characters of A-Z a-z 0-9 - : . + % _ # * ? ! ( )"
            f" , = @ ; $ ' are allowed."
        )


def require_client_may_create(module_id: str) -> None:
    """Raise ArgumentInvalidError for an id that only the hub gives: those that begin with ``$``."""
    if module_id.startswith("$"):
        raise ArgumentInvalidError(f"The module id {module_id!r} begins with $, as only the hub's own modules do.")


def require_same_ids(device_id: str, module_id: str, body: ModuleBody) -> None:
    """Raise unless the body names the module of the path; its device may be left out."""
    if body.module_id is None:
        raise ArgumentNullError("moduleId is required in the body.")
    for name, sent, wanted in (("moduleId", body.module_id, module_id), ("deviceId", body.device_id, device_id)):
        if sent is not None and sent != wanted:
            raise ArgumentInvalidError(f"{name} in the body is {sent!r}, in the path {wanted!r}.")


def read_module_authentication(body: AuthenticationBody | None, random_keys: tuple[bytes, bytes]) -> Authentication:
    """As for a device, but that ``none`` is taken as ``sas`` (hub-service.md 2.2). Raises ArgumentInvalidError."""
    if body is not None and body.type == "none":
        body = msgspec.structs.replace(body, type="sas")
    return read_authentication(body, random_keys)


def module_view(identity: Identity, times: ConnectionTimes) -> dict[str, Any]:
    """The JSON of hub-service.md 2.3: a module has no status."""
    return {
        "moduleId": identity.module_id,
        "managedBy": identity.managed_by,
        "deviceId": identity.device_id,
        "generationId": identity.generation_id,
        "etag": counter_etag(identity.etag),
        "connectionState": "Connected" if times.connected else "Disconnected",
        "connectionStateUpdatedTime": iso_utc_or_never(times.state_updated),
        "lastActivityTime": iso_utc_or_never(times.last_activity),
        "cloudToDeviceMessageCount": times.c2d_message_count,
        "authentication": authentication_view(identity),
    }
