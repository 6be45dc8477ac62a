"""The stored rows of twins, for whoever writes or reads one inside a transaction. Not here: views and merge rules."""

from typing import Any

from muster.domain.device import Identity
from muster.domain.documents import encode, read
from muster.domain.twin import JsonObject, Twin
from muster.store.database import Database, Row, Transaction

_SELECT = (
    "SELECT etag, version, model_id, tags, desired, desired_metadata, desired_version, reported, reported_metadata,"
    " reported_version FROM twin WHERE hub = :hub AND device_id = :device_id AND module_id = ''"
)


def _twin(row: Row) -> Twin:
    sections: list[dict[str, Any]] = [read(row[index], JsonObject) for index in (3, 4, 5, 7, 8)]
    return Twin(
        etag=row[0],
        version=row[1],
        model_id=row[2],
        tags=sections[0],
        desired=sections[1],
        desired_metadata=sections[2],
        desired_version=row[6],
        reported=sections[3],
        reported_metadata=sections[4],
        reported_version=row[9],
    )


async def find_twin(database: Database, hub: str, device_id: str) -> Twin | None:
    row = await database.fetch_one(_SELECT, hub=hub, device_id=device_id)
    return _twin(row) if row else None


async def find_twin_in(tx: Transaction, hub: str, device_id: str) -> Twin | None:
    """The same inside a transaction; the row stays as it is until that ends."""
    row = await tx.fetch_one(_SELECT + " {for_update}", hub=hub, device_id=device_id)
    return _twin(row) if row else None


async def insert_twin(tx: Transaction, hub: str, identity: Identity, twin: Twin) -> None:
    await tx.execute(
        "INSERT INTO twin (hub, device_id, module_id, etag, version, model_id, tags, desired, desired_metadata,"
        " desired_version, reported, reported_metadata, reported_version)"
        " VALUES (:hub, :device_id, :module_id, :etag, :version, :model_id, :tags, :desired, :desired_metadata,"
        " :desired_version, :reported, :reported_metadata, :reported_version)",
        hub=hub,
        device_id=identity.device_id,
        module_id=identity.module_id,
        etag=twin.etag,
        version=twin.version,
        model_id=twin.model_id,
        tags=encode(twin.tags),
        desired=encode(twin.desired),
        desired_metadata=encode(twin.desired_metadata),
        desired_version=twin.desired_version,
        reported=encode(twin.reported),
        reported_metadata=encode(twin.reported_metadata),
        reported_version=twin.reported_version,
    )
