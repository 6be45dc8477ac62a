"""Module identities of all hubs: read, create, replace, delete. Sources: hub-service.md 2.3, 2.4.

Not here: devices (``devices.py``), and whether a module may connect (``authentication.py``).
"""

from collections.abc import Callable
from typing import TypeVar

from muster.bus.bus import Bus
from muster.domain.device import Identity
from muster.domain.errors import ModuleMissingError, UnauthorizedAccessError
from muster.domain.module import ModuleBody, require_same_ids
from muster.hub.devices import identity_changed_subject
from muster.hub.identity_records import (
    Registered,
    connection_times,
    find_identity,
    find_registered,
    list_modules,
    lock_identity,
)
from muster.hub.identity_writes import IdentityWrites, require_if_match
from muster.store.database import Body, Database, Transaction

T = TypeVar("T")


class Modules:
    """The modules of all hubs; every operation names its hub.

    Everything asks for a device that is there and enabled: otherwise the service answers 401 to whoever comes with a
    shared access signature (hub-service.md 2.3).
    """

    def __init__(self, database: Database, bus: Bus, writes: IdentityWrites, clock: Callable[[], int]) -> None:
        self._database = database
        self._bus = bus
        self._writes = writes
        self._clock = clock

    async def get(self, hub: str, device_id: str, module_id: str) -> Registered:
        """Raises ModuleMissingError, and UnauthorizedAccessError for a device that is missing or disabled."""
        _require_enabled(device_id, await find_identity(self._database, hub, device_id))
        registered = None
        if module_id:
            registered = await find_registered(self._database, hub, device_id, module_id, self._clock())
        if registered is None:
            raise ModuleMissingError(f"Module {module_id} on device {device_id} is not registered.")
        return registered

    async def list(self, hub: str, device_id: str) -> list[Registered]:
        """In the order of their ids. Raises UnauthorizedAccessError for a device that is missing or disabled."""
        _require_enabled(device_id, await find_identity(self._database, hub, device_id))
        return await list_modules(self._database, hub, device_id, self._clock())

    async def put(self, hub: str, device_id: str, module_id: str, body: ModuleBody, if_match: str | None) -> Registered:
        """Create without If-Match, replace with it.

        Raises ModuleAlreadyExistsError, ModuleMissingError, PreconditionFailedError, TooManyModulesError,
        UnauthorizedAccessError for a device that is missing or disabled, and what the body's rules raise.
        """
        require_same_ids(device_id, module_id, body)

        async def transaction(tx: Transaction) -> Identity:
            _require_enabled(device_id, await lock_identity(tx, hub, device_id))
            if if_match is None:
                return await self._writes.create_module(tx, hub, device_id, module_id, body)
            return await self._writes.replace_module(tx, hub, device_id, module_id, body, if_match)

        written = await self._written(hub, device_id, transaction)
        return written, await connection_times(self._database, hub, written, self._clock())

    async def delete(self, hub: str, device_id: str, module_id: str, if_match: str | None) -> None:
        """Delete the module with its twin. Raises PreconditionFailedError, ModuleMissingError, and
        UnauthorizedAccessError for a device that is missing or disabled.
        """
        etag = require_if_match(if_match)

        async def transaction(tx: Transaction) -> Identity | None:
            _require_enabled(device_id, await lock_identity(tx, hub, device_id))
            await self._writes.delete_module(tx, hub, device_id, module_id, etag)
            return None

        await self._written(hub, device_id, transaction)

    async def _written(self, hub: str, device_id: str, transaction: Body[T]) -> T:
        written = await self._database.transact(transaction)
        self._bus.publish(identity_changed_subject(hub, device_id), b"")
        return written


def _require_enabled(device_id: str, device: Identity | None) -> None:
    if device is None or device.status != "enabled":
        problem = "is not registered" if device is None else "is disabled"
        raise UnauthorizedAccessError(f"The device {device_id} {problem}.")
