"""Writes of the identity registry, inside the transaction of who asks for them: create, replace, delete, provision.

Every change of an identity goes through here, whichever API or registration wants it. Sources: hub-service.md 2.4. Not
here: transactions, and telling live connections (``devices.py``, ``modules.py``, ``bulk_registry.py``).
"""

from collections.abc import Callable

import msgspec

from muster.domain.device import (
    Authentication,
    Identity,
    IdentityBody,
    generation_id,
    read_authentication,
    read_status,
    require_device_id,
    require_storable,
)
from muster.domain.edge_scope import scopes_after
from muster.domain.errors import (
    DeviceAlreadyExistsError,
    DeviceNotFoundError,
    ModuleAlreadyExistsError,
    ModuleMissingError,
    PreconditionFailedError,
    TooManyModulesError,
)
from muster.domain.etag import counter_etag, require_match
from muster.domain.module import (
    EDGE_MANAGER,
    EDGE_MODULES,
    MAXIMUM_MODULES,
    ModuleBody,
    read_module_authentication,
    require_client_may_create,
    require_module_id,
)
from muster.domain.twin import InitialTwin, Twin, new_twin
from muster.hub.hub_events import HubEvents
from muster.hub.identity_records import (
    insert_identity,
    lock_identity,
    modules_in,
    remove_identity,
    update_identity,
)
from muster.hub.twin_records import find_twin_in
from muster.store.database import Transaction


class IdentityWrites:
    """The writes of all hubs. ``etag`` arguments are If-Match values; None asks for nothing."""

    def __init__(self, hub_events: HubEvents, clock: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._hub_events = hub_events
        self._clock = clock
        self._entropy = entropy

    # Devices

    async def create_device(
        self, tx: Transaction, hub: str, device_id: str, body: IdentityBody, initial_twin: InitialTwin | None = None
    ) -> Identity:
        """Raises DeviceAlreadyExistsError and what the body's rules raise."""
        wanted = self._device(device_id, body, None)
        known = await lock_identity(tx, hub, device_id) is not None
        if known or not await self._create(tx, hub, wanted, new_twin(initial_twin, self._clock())):
            raise DeviceAlreadyExistsError(f"A device with ID '{device_id}' is already registered.")
        return wanted

    async def replace_device(
        self, tx: Transaction, hub: str, device_id: str, body: IdentityBody, etag: str | None
    ) -> Identity:
        """Raises DeviceNotFoundError, PreconditionFailedError and what the body's rules raise."""
        stored = await self.require_device(tx, hub, device_id)
        require_match(etag, counter_etag(stored.etag))
        return await self._replace(tx, hub, stored, self._device(device_id, body, stored))

    async def delete_device(self, tx: Transaction, hub: str, device_id: str, etag: str | None) -> None:
        """The device with its modules. Raises DeviceNotFoundError and PreconditionFailedError."""
        stored = await self.require_device(tx, hub, device_id)
        require_match(etag, counter_etag(stored.etag))
        await self._remove(tx, hub, stored)

    async def require_device(self, tx: Transaction, hub: str, device_id: str) -> Identity:
        """The device, locked. Raises DeviceNotFoundError."""
        stored = await lock_identity(tx, hub, device_id)
        if stored is None:
            raise DeviceNotFoundError(device_id)
        return stored

    def _device(self, device_id: str, body: IdentityBody, stored: Identity | None) -> Identity:
        """What the body makes of the device. Raises ArgumentInvalidError."""
        require_device_id(device_id)
        scopes = scopes_after(
            stored,
            iot_edge=body.iot_edge,
            device_scope=body.device_scope,
            parent_scopes=body.parent_scopes,
            device_id=device_id,
            now=self._clock(),
        )
        authentication = read_authentication(body.authentication, (self._entropy(32), self._entropy(32)))
        new = self._new(device_id, "", authentication)
        return msgspec.structs.replace(
            new,
            status=read_status(body.status, body.status_reason),
            status_reason=body.status_reason,
            iot_edge=body.iot_edge,
            device_scope=scopes.device,
            parent_scopes=scopes.parents,
        )

    # Modules

    async def create_module(
        self,
        tx: Transaction,
        hub: str,
        device_id: str,
        module_id: str,
        body: ModuleBody,
        initial_twin: InitialTwin | None = None,
    ) -> Identity:
        """On a device that the caller has locked. Raises ModuleAlreadyExistsError, TooManyModulesError and what the
        body's rules raise.
        """
        require_client_may_create(module_id)
        wanted = self._module(device_id, module_id, body)
        modules = await modules_in(tx, hub, device_id)
        if any(module.module_id == module_id for module in modules):
            raise ModuleAlreadyExistsError(f"Device {device_id} already contains module {module_id}.")
        if len(modules) >= MAXIMUM_MODULES:
            raise TooManyModulesError(f"Device {device_id} has {len(modules)} modules; {MAXIMUM_MODULES} are allowed.")
        await self._create(tx, hub, wanted, new_twin(initial_twin, self._clock()))
        return wanted

    async def replace_module(
        self, tx: Transaction, hub: str, device_id: str, module_id: str, body: ModuleBody, etag: str | None
    ) -> Identity:
        """Raises ModuleMissingError, PreconditionFailedError and what the body's rules raise."""
        stored = await self.require_module(tx, hub, device_id, module_id)
        require_match(etag, counter_etag(stored.etag))
        return await self._replace(tx, hub, stored, self._module(device_id, module_id, body))

    async def delete_module(self, tx: Transaction, hub: str, device_id: str, module_id: str, etag: str | None) -> None:
        """Raises ModuleMissingError and PreconditionFailedError."""
        stored = await self.require_module(tx, hub, device_id, module_id)
        require_match(etag, counter_etag(stored.etag))
        await self._remove(tx, hub, stored)

    async def require_module(self, tx: Transaction, hub: str, device_id: str, module_id: str) -> Identity:
        """The module, locked. Raises ModuleMissingError."""
        stored = await lock_identity(tx, hub, device_id, module_id)
        if stored is None:
            raise ModuleMissingError(f"Module {module_id} on device {device_id} is not registered.")
        return stored

    def _module(self, device_id: str, module_id: str, body: ModuleBody) -> Identity:
        require_module_id(module_id)
        require_storable(body.managed_by, "managedBy")
        authentication = read_module_authentication(body.authentication, (self._entropy(32), self._entropy(32)))
        return msgspec.structs.replace(self._new(device_id, module_id, authentication), managed_by=body.managed_by)

    # Keys

    async def set_keys(self, tx: Transaction, hub: str, stored: Identity, primary: str, secondary: str) -> Identity:
        """Give an identity with symmetric keys these ones."""
        wanted = msgspec.structs.replace(stored, primary_key=primary, secondary_key=secondary)
        return await self._replace(tx, hub, stored, wanted)

    # Registrations

    async def provision(
        self,
        tx: Transaction,
        hub: str,
        device_id: str,
        authentication: Authentication,
        *,
        iot_edge: bool,
        initial_twin: InitialTwin | None,
        moved_twin: Twin | None = None,
    ) -> None:
        """What a registration writes: a new identity with its twin, or new credentials for an existing one, whose twin
        stays as it is (dps.md 5.5). ``moved_twin`` is the twin of a device that comes from another hub.
        """
        stored = await lock_identity(tx, hub, device_id)
        if stored is None:
            new = self._provisioned(device_id, authentication, None, iot_edge=iot_edge)
            if await self._create(tx, hub, new, moved_twin or new_twin(initial_twin, self._clock())):
                return
            stored = await self.require_device(tx, hub, device_id)
        wanted = self._provisioned(device_id, authentication, stored, iot_edge=iot_edge)
        if _kept(stored, wanted) != stored:
            await self._replace(tx, hub, stored, wanted)

    def _provisioned(
        self, device_id: str, authentication: Authentication, stored: Identity | None, *, iot_edge: bool
    ) -> Identity:
        scopes = scopes_after(
            stored,
            iot_edge=iot_edge,
            device_scope=stored.device_scope if stored else None,
            parent_scopes=stored.parent_scopes if stored and stored.iot_edge else None,
            device_id=device_id,
            now=self._clock(),
        )
        return msgspec.structs.replace(
            self._new(device_id, "", authentication),
            status=stored.status if stored else "enabled",
            status_reason=stored.status_reason if stored else None,
            iot_edge=iot_edge,
            device_scope=scopes.device,
            parent_scopes=scopes.parents,
        )

    async def take(self, tx: Transaction, hub: str, device_id: str) -> Twin | None:
        """Remove a device that moves to another hub; its twin, or None when there was no device (dps.md 5.4)."""
        stored = await lock_identity(tx, hub, device_id)
        if stored is None:
            return None
        twin = await find_twin_in(tx, hub, device_id)
        await self._remove(tx, hub, stored)
        return twin

    # What all of them come to

    def _new(self, device_id: str, module_id: str, authentication: Authentication) -> Identity:
        """A new identity that is told apart by its generation."""
        return Identity(
            device_id=device_id,
            module_id=module_id,
            generation_id=generation_id(self._clock(), self._entropy(2)),
            etag=int.from_bytes(self._entropy(4), "big") % 900_000_000 + 1,
            status="enabled",
            authentication_type=authentication.type,
            primary_key=authentication.primary_key,
            secondary_key=authentication.secondary_key,
            primary_thumbprint=authentication.primary_thumbprint,
            secondary_thumbprint=authentication.secondary_thumbprint,
        )

    async def _create(self, tx: Transaction, hub: str, identity: Identity, twin: Twin) -> bool:
        """False, with nothing written, when somebody else just made it."""
        created = await insert_identity(tx, hub, identity, twin, self._clock())
        if created:
            self._hub_events.created(tx, hub, identity, twin)
        if created and identity.iot_edge:
            await self._create_edge_modules(tx, hub, identity.device_id)
        return created

    async def _create_edge_modules(self, tx: Transaction, hub: str, device_id: str) -> None:
        for module_id in EDGE_MODULES:
            module = msgspec.structs.replace(
                self._new(device_id, module_id, Authentication(type="none")), managed_by=EDGE_MANAGER
            )
            await self._create(tx, hub, module, new_twin(None, self._clock()))

    async def _replace(self, tx: Transaction, hub: str, stored: Identity, wanted: Identity) -> Identity:
        """What stands there afterwards: all that ``wanted`` says, in the generation of ``stored``."""
        replaced = msgspec.structs.replace(
            _kept(stored, wanted),
            etag=stored.etag + 1,
            status_updated=self._clock() if wanted.status != stored.status else stored.status_updated,
        )
        await update_identity(tx, hub, replaced)
        if replaced.iot_edge and not stored.iot_edge:
            await self._create_edge_modules(tx, hub, stored.device_id)
        elif stored.iot_edge and not replaced.iot_edge:
            for module in await modules_in(tx, hub, stored.device_id):
                if module.module_id in EDGE_MODULES:
                    await self._remove(tx, hub, module)
        return replaced

    async def _remove(self, tx: Transaction, hub: str, identity: Identity) -> None:
        if not identity.module_id:
            for module in await modules_in(tx, hub, identity.device_id):
                await self._remove(tx, hub, module)
        twin = await remove_identity(tx, hub, identity)
        if twin is not None:
            self._hub_events.deleted(tx, hub, identity, twin)


def _kept(stored: Identity, wanted: Identity) -> Identity:
    """``wanted`` as a change of ``stored``."""
    return msgspec.structs.replace(
        wanted, generation_id=stored.generation_id, etag=stored.etag, status_updated=stored.status_updated
    )


def require_if_match(if_match: str | None) -> str:
    """The If-Match of a DELETE, which needs one (hub-service.md 2.4). Raises PreconditionFailedError."""
    if if_match is None:
        raise PreconditionFailedError("Etag missing: DELETE needs If-Match, which may be *.")
    return if_match
