"""When an identity was last active: the ``lastActivityTime`` of the registry. It is the time of the last connect, sent
or received message (hub-device.md 12).

Not here: who is connected (``sessions.py``).
"""

from muster.store.database import Transaction


async def note_activity(tx: Transaction, hub: str, device_id: str, module_id: str, now: int) -> None:
    """It was active at ``now`` (microseconds), on a connection or, over HTTPS, without one."""
    await tx.execute(
        "INSERT INTO connection (hub, device_id, module_id, session_id, connected, connection_state_updated,"
        " last_activity) SELECT hub, device_id, module_id, NULL, 0, 0, :now FROM identity"
        " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id"
        " ON CONFLICT (hub, device_id, module_id) DO UPDATE SET last_activity = excluded.last_activity",
        hub=hub,
        device_id=device_id,
        module_id=module_id,
        now=now,
    )
