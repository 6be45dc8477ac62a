"""The stored rows of device and module identities, for whoever reads or writes one inside a transaction.

An identity comes into being in ``insert_identity`` alone and goes in ``remove_identity`` alone. Not here: the rules of
the registry (``identity_writes.py``).
"""

import msgspec

from muster.domain.device import ConnectionTimes, Identity
from muster.domain.twin import Twin
from muster.hub.message_queue import QUEUE_TABLES
from muster.hub.twin_records import C2D_MESSAGE_COUNT, insert_twin, remove_twin
from muster.store.database import Database, Row, Transaction

_NAMES = (
    "device_id",
    "module_id",
    "generation_id",
    "etag",
    "status",
    "status_reason",
    "status_updated",
    "authentication_type",
    "primary_key",
    "secondary_key",
    "primary_thumbprint",
    "secondary_thumbprint",
    "iot_edge",
    "device_scope",
    "parent_scopes",
    "managed_by",
)
_CHANGEABLE = _NAMES[3:]
_COLUMNS = ", ".join(f"i.{name}" for name in _NAMES)
_KEY = "hub = :hub AND device_id = :device_id AND module_id = :module_id"
_SELECT = f"SELECT {_COLUMNS} FROM identity i WHERE i.{_KEY.replace(' AND ', ' AND i.')}"
_WITH_TIMES = (
    f"SELECT {_COLUMNS}, c.session_id, c.connection_state_updated, c.last_activity, {C2D_MESSAGE_COUNT} FROM identity i"
    " LEFT JOIN connection c ON c.hub = i.hub AND c.device_id = i.device_id AND c.module_id = i.module_id"
    " WHERE i.hub = :hub"
)

_TABLES = (*QUEUE_TABLES, "connection", "mqtt_session")
"""What else a hub knows of an identity with a twin, in the order in which others lock it."""

Registered = tuple[Identity, ConnectionTimes]


def identity_of(row: Row) -> Identity:
    """The record of a row with the columns of this module, in their order."""
    values = dict(zip(_NAMES, row, strict=True))
    values["iot_edge"] = bool(values["iot_edge"])
    values["parent_scopes"] = tuple(msgspec.json.decode(values["parent_scopes"] or "[]"))
    return Identity(**values)


def _registered(row: Row) -> Registered:
    session_id, updated, activity, messages = row[-4:]
    return identity_of(row[:-4]), ConnectionTimes(session_id is not None, updated or 0, activity or 0, messages)


async def find_identity(database: Database, hub: str, device_id: str, module_id: str = "") -> Identity | None:
    """None also for what no id can be, and no database can be asked for: clients write it all the same."""
    if "\0" in device_id or "\0" in module_id:
        return None
    row = await database.fetch_one(_SELECT, hub=hub, device_id=device_id, module_id=module_id)
    return identity_of(row) if row else None


async def lock_identity(tx: Transaction, hub: str, device_id: str, module_id: str = "") -> Identity | None:
    """The identity as it is; it stays so until the transaction ends."""
    row = await tx.fetch_one(_SELECT + " {for_update}", hub=hub, device_id=device_id, module_id=module_id)
    return identity_of(row) if row else None


async def find_registered(database: Database, hub: str, device_id: str, module_id: str, now: int) -> Registered | None:
    """The identity with what the registry shows of its connection at ``now``, in microseconds."""
    row = await database.fetch_one(
        f"{_WITH_TIMES} AND i.device_id = :device_id AND i.module_id = :module_id",
        hub=hub,
        device_id=device_id,
        module_id=module_id,
        now=now,
    )
    return _registered(row) if row else None


async def connection_times(database: Database, hub: str, identity: Identity, now: int) -> ConnectionTimes:
    """What the registry shows of the connection of an identity."""
    registered = await find_registered(database, hub, identity.device_id, identity.module_id, now)
    return registered[1] if registered else ConnectionTimes()


async def list_devices(database: Database, hub: str, top: int, now: int) -> list[Registered]:
    """In the order of their ids."""
    sql = f"{_WITH_TIMES} AND i.module_id = '' ORDER BY i.device_id LIMIT :top"
    return [_registered(row) for row in await database.fetch_all(sql, hub=hub, top=top, now=now)]


async def list_modules(database: Database, hub: str, device_id: str, now: int) -> list[Registered]:
    """The modules of a device in the order of their ids."""
    sql = f"{_WITH_TIMES} AND i.device_id = :device_id AND i.module_id <> '' ORDER BY i.module_id"
    return [_registered(row) for row in await database.fetch_all(sql, hub=hub, device_id=device_id, now=now)]


async def list_scope(database: Database, hub: str, scope: str, after: str, top: int, now: int) -> list[Registered]:
    """The devices in the scope of an edge device, itself and edge devices below it among them, in the order of their
    ids, those that follow ``after``.
    """
    sql = (
        f"{_WITH_TIMES} AND i.module_id = '' AND (i.device_scope = :scope OR i.parent_scopes = :parents)"
        " AND i.device_id > :after ORDER BY i.device_id LIMIT :top"
    )
    parents = _scopes_text((scope,))
    rows = await database.fetch_all(sql, hub=hub, scope=scope, parents=parents, after=after, top=top, now=now)
    return [_registered(row) for row in rows]


async def list_modules_in_scope(
    database: Database, hub: str, scope: str, after: str, last: str, now: int
) -> list[Registered]:
    """The modules of the devices that have this scope themselves, whose ids follow ``after``, up to ``last``."""
    sql = (
        f"{_WITH_TIMES} AND i.module_id <> '' AND i.device_id > :after AND i.device_id <= :last AND EXISTS (SELECT 1"
        " FROM identity d WHERE d.hub = i.hub AND d.device_id = i.device_id AND d.module_id = ''"
        " AND d.device_scope = :scope) ORDER BY i.device_id, i.module_id"
    )
    rows = await database.fetch_all(sql, hub=hub, scope=scope, after=after, last=last, now=now)
    return [_registered(row) for row in rows]


async def modules_in(tx: Transaction, hub: str, device_id: str) -> list[Identity]:
    """The modules of a device, which is locked."""
    rows = await tx.fetch_all(
        f"SELECT {_COLUMNS} FROM identity i WHERE i.hub = :hub AND i.device_id = :device_id AND i.module_id <> ''"
        " ORDER BY i.module_id",
        hub=hub,
        device_id=device_id,
    )
    return [identity_of(row) for row in rows]


async def insert_identity(tx: Transaction, hub: str, identity: Identity, twin: Twin, now: int) -> bool:
    """Write a new identity with its twin; ``now`` in microseconds. False when somebody else just made it: a row that is
    not there cannot be locked.
    """
    columns = ", ".join(_NAMES)
    values = ", ".join(f":{name}" for name in _NAMES)
    inserted = await tx.execute(
        f"INSERT INTO identity (hub, {columns}, created) VALUES (:hub, {values}, :created) ON CONFLICT DO NOTHING",
        hub=hub,
        created=now,
        **_values(identity),
    )
    if inserted:
        await insert_twin(tx, hub, identity, twin)
    return bool(inserted)


async def update_identity(tx: Transaction, hub: str, identity: Identity) -> None:
    """Write what may change of a stored identity."""
    assignments = ", ".join(f"{name} = :{name}" for name in _CHANGEABLE)
    values = _values(identity)
    del values["generation_id"]
    await tx.execute(f"UPDATE identity SET {assignments} WHERE {_KEY}", hub=hub, **values)


async def remove_identity(tx: Transaction, hub: str, identity: Identity) -> Twin | None:
    """Remove a module, or a device without modules, with all that a hub knows of it; its last twin, or None when
    somebody else just removed it.
    """
    key = {"hub": hub, "device_id": identity.device_id, "module_id": identity.module_id}
    await tx.execute(f"DELETE FROM identity WHERE {_KEY}", **key)
    twin = await remove_twin(tx, hub, identity.device_id, identity.module_id)
    for table in _TABLES:
        await tx.execute(f"DELETE FROM {table} WHERE {_KEY}", **key)
    return twin


def _values(identity: Identity) -> dict[str, int | str | None]:
    values = msgspec.structs.asdict(identity)
    values["iot_edge"] = int(identity.iot_edge)
    values["parent_scopes"] = _scopes_text(identity.parent_scopes) if identity.parent_scopes else None
    return values


def _scopes_text(scopes: tuple[str, ...]) -> str:
    return msgspec.json.encode(scopes).decode()
