"""Device identities of all hubs: read, create, replace, delete, count. Sources: hub-service.md 2.

Not here: modules (``modules.py``), many at once (``bulk_registry.py``), whether a device may connect
(``authentication.py``), and who is connected (``sessions.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass

from muster.bus.bus import Bus
from muster.domain.device import Authentication, Identity, IdentityBody, require_same_id
from muster.domain.errors import DeviceNotFoundError
from muster.domain.twin import InitialTwin, Twin
from muster.hub.identity_records import Registered, connection_times, find_identity, find_registered, list_devices
from muster.hub.identity_writes import IdentityWrites, require_if_match
from muster.store.database import Database, Transaction

MAXIMUM_LIST = 1000


def identity_changed_subject(hub: str, device_id: str) -> str:
    """The bus subject on which live connections of a device and of its modules hear that one of these identities was
    changed or deleted.
    """
    return f"identity.{hub}.{device_id}"


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """Devices of a hub."""

    total: int
    enabled: int
    connected: int


class Devices:
    """The registries of all hubs; every operation names its hub."""

    def __init__(self, database: Database, bus: Bus, writes: IdentityWrites, clock: Callable[[], int]) -> None:
        self._database = database
        self._bus = bus
        self._writes = writes
        self._clock = clock

    async def find(self, hub: str, device_id: str, module_id: str = "") -> Identity | None:
        return await find_identity(self._database, hub, device_id, module_id)

    async def get(self, hub: str, device_id: str) -> Registered:
        """Raises DeviceNotFoundError."""
        registered = await find_registered(self._database, hub, device_id, "", self._clock())
        if registered is None:
            raise DeviceNotFoundError(device_id)
        return registered

    async def list(self, hub: str, top: int = MAXIMUM_LIST) -> list[Registered]:
        """Up to ``top`` devices in the order of their ids; outside 1 to 1000 it counts as 1000 (hub-service.md 2.5)."""
        top = top if 1 <= top <= MAXIMUM_LIST else MAXIMUM_LIST
        return await list_devices(self._database, hub, top, self._clock())

    async def statistics(self, hub: str) -> RegistryStatistics:
        row = await self._database.fetch_one(
            "SELECT count(*), count(CASE WHEN i.status = 'enabled' THEN 1 END), count(c.session_id) FROM identity i"
            " LEFT JOIN connection c ON c.hub = i.hub AND c.device_id = i.device_id AND c.module_id = i.module_id"
            " WHERE i.hub = :hub AND i.module_id = ''",
            hub=hub,
        )
        assert row is not None, "a count always has a row"
        return RegistryStatistics(*row)

    async def put(self, hub: str, device_id: str, body: IdentityBody, if_match: str | None) -> Registered:
        """Create without If-Match, replace with it (hub-service.md 2.4).

        Raises DeviceAlreadyExistsError, DeviceNotFoundError, PreconditionFailedError and what the body's rules raise.
        """
        require_same_id(device_id, body.device_id)

        async def transaction(tx: Transaction) -> Identity:
            if if_match is None:
                return await self._writes.create_device(tx, hub, device_id, body)
            return await self._writes.replace_device(tx, hub, device_id, body, if_match)

        written = await self._database.transact(transaction)
        self.announce_change(hub, device_id)
        return written, await connection_times(self._database, hub, written, self._clock())

    async def delete(self, hub: str, device_id: str, if_match: str | None) -> None:
        """Delete the device with its modules and twins. Raises PreconditionFailedError and DeviceNotFoundError."""
        etag = require_if_match(if_match)

        async def transaction(tx: Transaction) -> None:
            await self._writes.delete_device(tx, hub, device_id, etag)

        await self._database.transact(transaction)
        self.announce_change(hub, device_id)

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
        """What a registration writes, inside its transaction; the caller announces the change after the commit."""
        await self._writes.provision(
            tx,
            hub,
            device_id,
            authentication,
            iot_edge=iot_edge,
            initial_twin=initial_twin,
            moved_twin=moved_twin,
        )

    async def take(self, tx: Transaction, hub: str, device_id: str) -> Twin | None:
        """Remove a device that moves to another hub; its twin, or None when there was no device (dps.md 5.4)."""
        return await self._writes.take(tx, hub, device_id)

    def announce_change(self, hub: str, device_id: str) -> None:
        """Wake live connections of identities that a committed transaction changed."""
        self._bus.publish(identity_changed_subject(hub, device_id), b"")

    def follow(self, hub: str, device_id: str, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` when the device or one of its modules was changed or deleted; what is returned ends that."""
        return self._bus.subscribe(identity_changed_subject(hub, device_id), lambda _message: changed()).close
