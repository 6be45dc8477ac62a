"""Twins of a hub: reading them. They are created with their identity (``devices.py``). Sources: hub-device.md 7.3.

Not here: merge and metadata rules (``domain/twin.py``).
"""

import base64
from typing import Any

from muster.domain.device import twin_view_head
from muster.domain.documents import read
from muster.domain.twin import JsonObject, Twin, service_properties
from muster.hub.devices import Devices
from muster.store.database import Database


class Twins:
    """The twins of all hubs."""

    def __init__(self, database: Database, devices: Devices) -> None:
        self._database = database
        self._devices = devices

    async def service_view(self, hub: str, device_id: str) -> dict[str, Any]:
        """The twin as the service sees it, identity included. Raises DeviceNotFoundError."""
        identity, times = await self._devices.get(hub, device_id)
        twin = await self._find(hub, device_id)
        return {
            **twin_view_head(identity, times),
            "etag": base64.b64encode(twin.etag.to_bytes(8, "big")).decode(),
            "version": twin.version,
            "modelId": twin.model_id,
            "tags": twin.tags,
            "properties": service_properties(twin),
        }

    async def _find(self, hub: str, device_id: str) -> Twin:
        row = await self._database.fetch_one(
            "SELECT etag, version, model_id, tags, desired, desired_metadata, desired_version, reported,"
            " reported_metadata,"
            " reported_version FROM twin WHERE hub = :hub AND device_id = :device_id AND module_id = ''",
            hub=hub,
            device_id=device_id,
        )
        assert row is not None, "an identity is created together with its twin"
        sections = [read(row[index], JsonObject) for index in (3, 4, 5, 7, 8)]
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
