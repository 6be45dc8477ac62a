"""MQTT sessions that outlive their connections: what an identity is subscribed to. Source: hub-device.md 3.10.

Not here: who is connected (``sessions.py``), and what a filter matches (``wire/mqtt_topics.py``).
"""

from collections.abc import Mapping

import msgspec

from muster.domain.documents import read
from muster.store.database import Database, Transaction

Key = tuple[str, str, str]
"""Hub, device id, module id."""

Subscriptions = dict[str, int]
"""Topic filters, and the QoS that each was granted."""


async def open_in(tx: Transaction, key: Key, *, clean: bool) -> Subscriptions | None:
    """What the session of this identity holds, or None when there was none; then there is one now, unless ``clean``.

    A clean session ends the stored one.
    """
    names = _names(key)
    if clean:
        await tx.execute(
            "DELETE FROM mqtt_session WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id", **names
        )
        return None
    row = await tx.fetch_one(
        "SELECT subscriptions FROM mqtt_session WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id",
        **names,
    )
    if row is not None:
        return read(row[0], Subscriptions)
    await tx.execute(
        "INSERT INTO mqtt_session (hub, device_id, module_id, subscriptions)"
        " VALUES (:hub, :device_id, :module_id, '{}')",
        **names,
    )
    return None


async def save(database: Database, key: Key, session_id: str, subscriptions: Mapping[str, int]) -> None:
    """Keep what a connection is subscribed to. One that was displaced meanwhile changes nothing."""

    async def body(tx: Transaction) -> None:
        await tx.execute(
            "UPDATE mqtt_session SET subscriptions = :subscriptions"
            " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id AND EXISTS ("
            "SELECT 1 FROM connection WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id"
            " AND session_id = :session_id)",
            subscriptions=msgspec.json.encode(subscriptions).decode(),
            session_id=session_id,
            **_names(key),
        )

    await database.transact(body)


def _names(key: Key) -> dict[str, str]:
    hub, device_id, module_id = key
    return {"hub": hub, "device_id": device_id, "module_id": module_id}
