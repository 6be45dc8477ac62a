"""The identity registry of a hub: create, update, delete, list, read. Sources: hub-service.md 2.

Not here: whether a device may connect (``authentication.py``), and who is connected (``sessions.py``).
"""

from collections.abc import Callable

import msgspec

from muster.bus.bus import Bus
from muster.domain.device import (
    Authentication,
    ConnectionTimes,
    Identity,
    IdentityBody,
    generation_id,
    read_authentication,
    read_status,
    require_device_id,
    require_same_id,
)
from muster.domain.errors import DeviceAlreadyExistsError, DeviceNotFoundError, PreconditionFailedError
from muster.domain.etag import counter_etag, require_match
from muster.domain.twin import InitialTwin, Twin, new_twin
from muster.hub.message_queue import QUEUE_TABLES
from muster.hub.twin_records import find_twin_in, insert_twin
from muster.store.database import Database, Row, Transaction

MAXIMUM_LIST = 1000

_COLUMNS = (
    "device_id, module_id, generation_id, etag, status, status_reason, status_updated, authentication_type,"
    " primary_key, secondary_key, primary_thumbprint, secondary_thumbprint, iot_edge, device_scope"
)
_SELECT = f"SELECT {_COLUMNS} FROM identity WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id"


def identity_changed_subject(hub: str, device_id: str) -> str:
    """The bus subject on which a live connection hears that its identity was changed or deleted."""
    return f"identity.{hub}.{device_id}"


def _identity(row: Row) -> Identity:
    return Identity(
        device_id=row[0],
        module_id=row[1],
        generation_id=row[2],
        etag=row[3],
        status=row[4],
        status_reason=row[5],
        status_updated=row[6],
        authentication_type=row[7],
        primary_key=row[8],
        secondary_key=row[9],
        primary_thumbprint=row[10],
        secondary_thumbprint=row[11],
        iot_edge=bool(row[12]),
        device_scope=row[13],
    )


class Devices:
    """The registries of all hubs; every operation names its hub."""

    def __init__(self, database: Database, bus: Bus, clock: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._entropy = entropy

    async def find(self, hub: str, device_id: str, module_id: str = "") -> Identity | None:
        row = await self._database.fetch_one(_SELECT, hub=hub, device_id=device_id, module_id=module_id)
        return _identity(row) if row else None

    async def get(self, hub: str, device_id: str) -> tuple[Identity, ConnectionTimes]:
        """Raises DeviceNotFoundError."""
        identity = await self.find(hub, device_id)
        if identity is None:
            raise DeviceNotFoundError(device_id)
        return identity, await self._times(hub, device_id)

    async def _times(self, hub: str, device_id: str) -> ConnectionTimes:
        row = await self._database.fetch_one(
            "SELECT session_id, connection_state_updated, last_activity FROM connection"
            " WHERE hub = :hub AND device_id = :device_id AND module_id = ''",
            hub=hub,
            device_id=device_id,
        )
        return ConnectionTimes(row[0] is not None, row[1], row[2]) if row else ConnectionTimes()

    async def list(self, hub: str, top: int = MAXIMUM_LIST) -> list[tuple[Identity, ConnectionTimes]]:
        """Up to ``top`` devices in the order of their ids; outside 1 to 1000 it counts as 1000 (hub-service.md 2.5)."""
        rows = await self._database.fetch_all(
            f"SELECT {', '.join(f'i.{column.strip()}' for column in _COLUMNS.split(','))},"
            " c.session_id, c.connection_state_updated, c.last_activity FROM identity i LEFT JOIN connection c"
            " ON c.hub = i.hub AND c.device_id = i.device_id AND c.module_id = i.module_id"
            " WHERE i.hub = :hub AND i.module_id = '' ORDER BY i.device_id LIMIT :top",
            hub=hub,
            top=top if 1 <= top <= MAXIMUM_LIST else MAXIMUM_LIST,
        )
        return [(_identity(row[:-3]), ConnectionTimes(row[-3] is not None, row[-2] or 0, row[-1] or 0)) for row in rows]

    async def put(
        self, hub: str, device_id: str, body: IdentityBody, if_match: str | None
    ) -> tuple[Identity, ConnectionTimes]:
        """Create without If-Match, replace with it (hub-service.md 2.4).

        Raises DeviceAlreadyExistsError, DeviceNotFoundError, PreconditionFailedError and what the body's rules raise.
        """
        require_device_id(device_id)
        require_same_id(device_id, body.device_id)
        authentication = read_authentication(body.authentication, (self._entropy(32), self._entropy(32)))
        wanted = Identity(
            device_id=device_id,
            generation_id=generation_id(self._clock(), self._entropy(2)),
            etag=self._first_etag(),
            status=read_status(body),
            status_reason=body.status_reason,
            authentication_type=authentication.type,
            primary_key=authentication.primary_key,
            secondary_key=authentication.secondary_key,
            primary_thumbprint=authentication.primary_thumbprint,
            secondary_thumbprint=authentication.secondary_thumbprint,
            iot_edge=bool(body.capabilities and body.capabilities.iot_edge),
        )

        async def transaction(tx: Transaction) -> Identity:
            stored = await self._locked(tx, hub, device_id)
            if if_match is None:
                if stored is not None:
                    raise DeviceAlreadyExistsError(f"A device with ID '{device_id}' is already registered.")
                await self._create(tx, hub, wanted, new_twin(None, self._clock()))
                return wanted
            if stored is None:
                raise DeviceNotFoundError(device_id)
            require_match(if_match, counter_etag(stored.etag))
            return await self._replace(tx, hub, stored, wanted)

        written = await self._database.transact(transaction)
        self._bus.publish(identity_changed_subject(hub, device_id), b"")
        return written, await self._times(hub, device_id)

    async def delete(self, hub: str, device_id: str, if_match: str | None) -> None:
        """Delete the device with its modules and twins. Raises PreconditionFailedError and DeviceNotFoundError."""
        if if_match is None:
            raise PreconditionFailedError("Etag missing: DELETE needs If-Match, which may be *.")

        async def transaction(tx: Transaction) -> None:
            stored = await self._locked(tx, hub, device_id)
            if stored is None:
                raise DeviceNotFoundError(device_id)
            require_match(if_match, counter_etag(stored.etag))
            await _delete(tx, hub, device_id)

        await self._database.transact(transaction)
        self._bus.publish(identity_changed_subject(hub, device_id), b"")

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
        """What a registration writes, inside its transaction: a new identity with its twin, or new credentials for an
        existing one, whose twin stays as it is (dps.md 5.5). ``moved_twin`` is the twin of a device that comes
        from another hub. The caller tells live connections after the commit.
        """
        stored = await self._locked(tx, hub, device_id)
        wanted = Identity(
            device_id=device_id,
            generation_id=generation_id(self._clock(), self._entropy(2)),
            etag=self._first_etag(),
            status=stored.status if stored else "enabled",
            status_reason=stored.status_reason if stored else None,
            authentication_type=authentication.type,
            primary_key=authentication.primary_key,
            secondary_key=authentication.secondary_key,
            primary_thumbprint=authentication.primary_thumbprint,
            secondary_thumbprint=authentication.secondary_thumbprint,
            iot_edge=iot_edge,
        )
        if stored is None:
            await self._create(tx, hub, wanted, moved_twin or new_twin(initial_twin, self._clock()))
        elif {**_written(stored), "etag": 0} != {**_written(wanted), "etag": 0}:
            await self._replace(tx, hub, stored, wanted)

    async def take(self, tx: Transaction, hub: str, device_id: str) -> Twin | None:
        """Remove a device that moves to another hub; its twin, or None when there was no device (dps.md 5.4)."""
        if await self._locked(tx, hub, device_id) is None:
            return None
        twin = await find_twin_in(tx, hub, device_id)
        await _delete(tx, hub, device_id)
        return twin

    def announce_change(self, hub: str, device_id: str) -> None:
        """Wake live connections of an identity that a committed transaction changed."""
        self._bus.publish(identity_changed_subject(hub, device_id), b"")

    def _first_etag(self) -> int:
        return int.from_bytes(self._entropy(4), "big") % 900_000_000 + 1

    async def _locked(self, tx: Transaction, hub: str, device_id: str) -> Identity | None:
        row = await tx.fetch_one(_SELECT + " {for_update}", hub=hub, device_id=device_id, module_id="")
        return _identity(row) if row else None

    async def _create(self, tx: Transaction, hub: str, identity: Identity, twin: Twin) -> None:
        await tx.execute(
            "INSERT INTO identity (hub, device_id, module_id, generation_id, etag, status, status_reason,"
            " status_updated,"
            " authentication_type, primary_key, secondary_key, primary_thumbprint, secondary_thumbprint, iot_edge,"
            " created)"
            " VALUES (:hub, :device_id, :module_id, :generation_id, :etag, :status, :status_reason, 0,"
            " :authentication_type, :primary_key, :secondary_key, :primary_thumbprint, :secondary_thumbprint,"
            " :iot_edge, :now)",
            hub=hub,
            module_id=identity.module_id,
            generation_id=identity.generation_id,
            now=self._clock(),
            **_written(identity),
        )
        await insert_twin(tx, hub, identity, twin)

    async def _replace(self, tx: Transaction, hub: str, stored: Identity, wanted: Identity) -> Identity:
        """What stands there afterwards: all that ``wanted`` says, in the generation and scopes of ``stored``."""
        replaced = msgspec.structs.replace(
            wanted,
            module_id=stored.module_id,
            generation_id=stored.generation_id,
            etag=stored.etag + 1,
            status_updated=self._clock() if wanted.status != stored.status else stored.status_updated,
            device_scope=stored.device_scope,
        )
        await tx.execute(
            "UPDATE identity SET etag = :etag, status = :status, status_reason = :status_reason,"
            " status_updated = :status_updated, authentication_type = :authentication_type, primary_key = :primary_key,"
            " secondary_key = :secondary_key, primary_thumbprint = :primary_thumbprint,"
            " secondary_thumbprint = :secondary_thumbprint, iot_edge = :iot_edge"
            " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id",
            hub=hub,
            module_id=replaced.module_id,
            status_updated=replaced.status_updated,
            **_written(replaced),
        )
        return replaced


def _written(identity: Identity) -> dict[str, int | str | None]:
    return {
        "device_id": identity.device_id,
        "etag": identity.etag,
        "status": identity.status,
        "status_reason": identity.status_reason,
        "authentication_type": identity.authentication_type,
        "primary_key": identity.primary_key,
        "secondary_key": identity.secondary_key,
        "primary_thumbprint": identity.primary_thumbprint,
        "secondary_thumbprint": identity.secondary_thumbprint,
        "iot_edge": int(identity.iot_edge),
    }


async def _delete(tx: Transaction, hub: str, device_id: str) -> None:
    """All that a hub knows of a device and its modules."""
    for table in ("identity", "twin", "connection", "mqtt_session", *QUEUE_TABLES):
        await tx.execute(
            f"DELETE FROM {table} WHERE hub = :hub AND device_id = :device_id", hub=hub, device_id=device_id
        )
