"""Many identities in one request: the items, what each asks for, and the answer about all. Sources: hub-service.md 2.6.

Not here: writing them (``hub/bulk_registry.py``), and the rules of one identity (``device.py``, ``module.py``).
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from muster.domain.device import AuthenticationBody, CapabilitiesBody, IdentityBody, require_storable
from muster.domain.errors import (
    ArgumentInvalidError,
    ArgumentNullError,
    DeviceDefinedTwiceError,
    ServiceError,
    TooManyDevicesError,
)
from muster.domain.module import ModuleBody
from muster.domain.twin import InitialProperties, InitialTwin, JsonObject, TwinBody
from muster.domain.twin import PropertiesBody as TwinPropertiesBody
from muster.domain.twin_rules import require_valid

MAXIMUM_ITEMS = 100

_IMPORT_MODES = (
    "create",
    "update",
    "updateIfMatchETag",
    "createOrUpdate",
    "createOrUpdateIfMatchETag",
    "delete",
    "deleteIfMatchETag",
    "updateTwin",
    "updateTwinIfMatchETag",
)
_BY_LOWER_CASE = {mode.lower(): mode for mode in _IMPORT_MODES}
_WITH_ETAG = "IfMatchETag"


class ImportMode(msgspec.Struct, frozen=True):
    """``action`` without its condition: ``create``, ``update``, ``createOrUpdate``, ``delete``, ``updateTwin``."""

    action: str
    needs_etag: bool


class PropertiesBody(msgspec.Struct):
    desired: JsonObject | None = None


class ExportImportDevice(msgspec.Struct, rename="camel", kw_only=True):
    """One item, of a device or, with ``module_id``, of a module."""

    id: str | None = None
    module_id: str | None = None
    import_mode: str | None = None
    e_tag: str | None = msgspec.field(default=None, name="eTag")
    lower_case_etag: str | None = msgspec.field(default=None, name="etag")
    twin_e_tag: str | None = msgspec.field(default=None, name="twinETag")
    status: str | None = None
    status_reason: str | None = None
    authentication: AuthenticationBody | None = None
    capabilities: CapabilitiesBody | None = None
    device_scope: str | None = None
    parent_scopes: tuple[str, ...] | None = None
    managed_by: str | None = None
    tags: JsonObject | None = None
    properties: PropertiesBody | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Device and module id. Raises ArgumentNullError for an item without an id, ArgumentInvalidError for one that
        cannot be looked up.
        """
        if not self.id:
            raise ArgumentNullError("Every item needs the id of a device.")
        require_storable(self.id, "id")
        require_storable(self.module_id, "moduleId")
        return self.id, self.module_id or ""

    @property
    def etag(self) -> str | None:
        """The tag of what is stored; Node's client sends devices as it read them, with ``etag``."""
        return self.e_tag or self.lower_case_etag

    @property
    def mode(self) -> ImportMode:
        """``createOrUpdate`` when it says nothing. Raises ArgumentInvalidError."""
        mode = _BY_LOWER_CASE.get((self.import_mode or "createOrUpdate").lower())
        if mode is None:
            raise ArgumentInvalidError(f"importMode is {self.import_mode!r}; there are {', '.join(_IMPORT_MODES)}.")
        return ImportMode(mode.removesuffix(_WITH_ETAG), mode.endswith(_WITH_ETAG))

    @property
    def device(self) -> IdentityBody:
        """As the body of a PUT of a device."""
        return IdentityBody(
            device_id=self.id,
            status=self.status,
            status_reason=self.status_reason,
            authentication=self.authentication,
            capabilities=self.capabilities,
            device_scope=self.device_scope,
            parent_scopes=self.parent_scopes,
        )

    @property
    def module(self) -> ModuleBody:
        """As the body of a PUT of a module."""
        return ModuleBody(
            module_id=self.module_id,
            device_id=self.id,
            managed_by=self.managed_by,
            authentication=self.authentication,
        )

    @property
    def has_twin(self) -> bool:
        """Whether it says anything of a twin."""
        return self.tags is not None or (self.properties is not None and self.properties.desired is not None)

    @property
    def twin(self) -> TwinBody:
        """As the body of a PATCH of the twin."""
        desired = self.properties.desired if self.properties is not None else None
        return TwinBody(
            tags=UNSET if self.tags is None else self.tags,
            properties=UNSET if desired is None else TwinPropertiesBody(desired),
        )

    def initial_twin(self) -> InitialTwin | None:
        """The twin that it gives a new identity; None when it says nothing of one. Raises ArgumentInvalidError."""
        if not self.has_twin:
            return None
        tags, desired = self.tags or {}, (self.properties.desired if self.properties else None) or {}
        # What an export wrote comes back with its metadata.
        desired = {name: value for name, value in desired.items() if name not in ("$metadata", "$version")}
        require_valid("tags", tags)
        require_valid("desired", desired)
        return InitialTwin(tags=tags, properties=InitialProperties(desired=desired))

    def require_complete(self) -> None:
        """Raise ArgumentNullError for a device without status and authentication, which its modes need."""
        for name, value in (("status", self.status), ("authentication", self.authentication)):
            if not self.module_id and value is None:
                raise ArgumentNullError(f"{name} is required with importMode {self.import_mode or 'createOrUpdate'}.")


class ItemError(msgspec.Struct, frozen=True):
    """An item that was refused, and why."""

    device_id: str
    module_id: str
    operation: str
    error: ServiceError


def require_bulk(items: Sequence[ExportImportDevice]) -> None:
    """Raise TooManyDevicesError for more than 100 items, DeviceDefinedTwiceError for two of one identity, and what
    ``key`` raises.
    """
    if len(items) > MAXIMUM_ITEMS:
        raise TooManyDevicesError(f"There are {len(items)} items; {MAXIMUM_ITEMS} are allowed.")
    known: set[tuple[str, str]] = set()
    for item in items:
        if item.key in known:
            raise DeviceDefinedTwiceError(f"{'/'.join(filter(None, item.key))} is defined more than once.")
        known.add(item.key)


def bulk_view(errors: Sequence[ItemError]) -> dict[str, Any]:
    """The answer: what failed, by the names of errors."""
    return {
        "isSuccessful": not errors,
        "errors": [
            {
                "deviceId": item.device_id,
                "moduleId": item.module_id or None,
                "errorCode": item.error.name,
                "errorStatus": f"ErrorCode:{item.error.name};{item.error.message}",
                "operation": item.operation,
            }
            for item in errors
        ],
        "warnings": [],
    }
