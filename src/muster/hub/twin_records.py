"""The stored rows of twins, for whoever writes or reads one inside a transaction. Not here: merge rules.

A module's twin has its ``module_id``, a device's has ''. What a service client sees of a twin comes from three rows:
identity, twin and connection.
"""

from typing import Any

import msgspec
from msgspec import UNSET

from muster.domain.device import Identity
from muster.domain.documents import encode, read
from muster.domain.etag import counter_etag, twin_etag
from muster.domain.timestamp import iso_utc_or_never
from muster.domain.twin import JsonObject, Twin
from muster.domain.twin_view import (
    CapabilitiesView,
    PropertiesView,
    ThumbprintView,
    TwinView,
    connection_state,
    last_activity,
    service_section,
)
from muster.store.database import Database, Row, Transaction, Value

_TWIN = (
    "etag, version, model_id, tags, desired, desired_metadata, desired_version, reported, reported_metadata,"
    " reported_version"
)
_KEY = "hub = :hub AND device_id = :device_id AND module_id = :module_id"
_SELECT = f"SELECT {_TWIN} FROM twin WHERE {_KEY}"

C2D_MESSAGE_COUNT = (
    "(SELECT count(*) FROM queued_message q"
    " WHERE q.hub = i.hub AND q.device_id = i.device_id AND q.module_id = i.module_id"
    " AND (q.due > :now OR (q.lock_token IS NOT NULL AND q.expiry > :now)))"
)
"""SQL for how many messages wait for the identity ``i``, or are locked, at ``:now`` (microseconds): one that expired
does not count, whether it was swept or not.
"""

VIEW_COLUMNS = (
    "i.device_id",
    "i.module_id",
    "t.etag",
    "i.etag",
    "i.status",
    "i.status_reason",
    "i.status_updated",
    "c.session_id",
    "c.last_activity",
    C2D_MESSAGE_COUNT,
    "i.authentication_type",
    "i.primary_thumbprint",
    "i.secondary_thumbprint",
    "t.model_id",
    "t.version",
    "t.tags",
    "t.desired",
    "t.desired_metadata",
    "t.desired_version",
    "t.reported",
    "t.reported_metadata",
    "t.reported_version",
    "i.iot_edge",
    "i.device_scope",
    "i.parent_scopes",
)
"""What ``twin_view`` takes, in its order."""

VIEW_TABLES = (
    "identity i JOIN twin t ON t.hub = i.hub AND t.device_id = i.device_id AND t.module_id = i.module_id"
    " LEFT JOIN connection c ON c.hub = i.hub AND c.device_id = i.device_id AND c.module_id = i.module_id"
)
_SELECT_VIEW = (
    f"SELECT {', '.join(VIEW_COLUMNS)} FROM {VIEW_TABLES}"
    " WHERE i.hub = :hub AND i.device_id = :device_id AND i.module_id = :module_id"
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


def twin_view(row: Row) -> TwinView:
    """What service clients see, from a row of ``VIEW_COLUMNS``."""
    (device_id, module_id, etag, device_etag, status, status_reason, status_updated, session_id) = row[:8]
    (activity, c2d_message_count, authentication_type, primary_thumbprint, secondary_thumbprint) = row[8:13]
    (model_id, version, tags, desired, desired_metadata, desired_version) = row[13:19]
    (reported, reported_metadata, reported_version, iot_edge, device_scope, parent_scopes) = row[19:]
    return TwinView(
        device_id=device_id,
        module_id=module_id or UNSET,
        etag=twin_etag(etag),
        device_etag=counter_etag(device_etag),
        status=status,
        status_reason=status_reason or UNSET,
        status_update_time=iso_utc_or_never(status_updated),
        connection_state=connection_state(connected=session_id is not None),
        last_activity_time=last_activity(activity),
        cloud_to_device_message_count=c2d_message_count,
        authentication_type=authentication_type,
        x509_thumbprint=ThumbprintView(primary_thumbprint, secondary_thumbprint),
        model_id=model_id,
        version=version,
        tags=UNSET if tags == "{}" else msgspec.Raw(tags),
        properties=PropertiesView(
            desired=msgspec.Raw(service_section(desired, desired_metadata, desired_version)),
            reported=msgspec.Raw(service_section(reported, reported_metadata, reported_version)),
        ),
        capabilities=CapabilitiesView(bool(iot_edge)),
        device_scope=device_scope or UNSET,
        parent_scopes=msgspec.Raw(parent_scopes) if parent_scopes and parent_scopes != "[]" else UNSET,
    )


async def find_twin(database: Database, hub: str, device_id: str, module_id: str = "") -> Twin | None:
    row = await database.fetch_one(_SELECT, hub=hub, device_id=device_id, module_id=module_id)
    return _twin(row) if row else None


async def find_twin_in(tx: Transaction, hub: str, device_id: str, module_id: str = "") -> Twin | None:
    """The same inside a transaction; the row stays as it is until that ends."""
    row = await tx.fetch_one(_SELECT + " {for_update}", hub=hub, device_id=device_id, module_id=module_id)
    return _twin(row) if row else None


async def find_twin_view(
    source: Database | Transaction, hub: str, device_id: str, module_id: str, now: int
) -> TwinView | None:
    row = await source.fetch_one(_SELECT_VIEW, hub=hub, device_id=device_id, module_id=module_id, now=now)
    return twin_view(row) if row else None


async def insert_twin(tx: Transaction, hub: str, identity: Identity, twin: Twin) -> None:
    await tx.execute(
        "INSERT INTO twin (hub, device_id, module_id, etag, version, model_id, tags, desired, desired_metadata,"
        " desired_version, reported, reported_metadata, reported_version)"
        " VALUES (:hub, :device_id, :module_id, :etag, :version, :model_id, :tags, :desired, :desired_metadata,"
        " :desired_version, :reported, :reported_metadata, :reported_version)",
        hub=hub,
        device_id=identity.device_id,
        module_id=identity.module_id,
        **_written(twin),
    )


async def update_twin(tx: Transaction, hub: str, device_id: str, module_id: str, twin: Twin) -> None:
    """Write a twin that ``find_twin_in`` has read in the same transaction."""
    await tx.execute(
        "UPDATE twin SET etag = :etag, version = :version, model_id = :model_id, tags = :tags, desired = :desired,"
        " desired_metadata = :desired_metadata, desired_version = :desired_version, reported = :reported,"
        " reported_metadata = :reported_metadata, reported_version = :reported_version"
        " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id",
        hub=hub,
        device_id=device_id,
        module_id=module_id,
        **_written(twin),
    )


async def remove_twin(tx: Transaction, hub: str, device_id: str, module_id: str = "") -> Twin | None:
    """Delete the twin of one identity; what it was, or None when there was none."""
    row = await tx.fetch_one(
        f"DELETE FROM twin WHERE {_KEY} RETURNING {_TWIN}", hub=hub, device_id=device_id, module_id=module_id
    )
    return _twin(row) if row else None


def _written(twin: Twin) -> dict[str, Value]:
    return {
        "etag": twin.etag,
        "version": twin.version,
        "model_id": twin.model_id,
        "tags": encode(twin.tags),
        "desired": encode(twin.desired),
        "desired_metadata": encode(twin.desired_metadata),
        "desired_version": twin.desired_version,
        "reported": encode(twin.reported),
        "reported_metadata": encode(twin.reported_metadata),
        "reported_version": twin.reported_version,
    }
