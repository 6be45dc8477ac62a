"""Twins of a hub: reading them. They are created with their identity (``devices.py``). Sources: hub-device.md 7.3.

Not here: merge and metadata rules (``domain/twin.py``).
"""

import base64
from typing import Any

from muster.domain.device import twin_view_head
from muster.domain.twin import service_properties
from muster.hub.devices import Devices
from muster.hub.twin_records import find_twin
from muster.store.database import Database


class Twins:
    """The twins of all hubs."""

    def __init__(self, database: Database, devices: Devices) -> None:
        self._database = database
        self._devices = devices

    async def service_view(self, hub: str, device_id: str) -> dict[str, Any]:
        """The twin as the service sees it, identity included. Raises DeviceNotFoundError."""
        identity, times = await self._devices.get(hub, device_id)
        twin = await find_twin(self._database, hub, device_id)
        assert twin is not None, "an identity is created together with its twin"
        return {
            **twin_view_head(identity, times),
            "etag": base64.b64encode(twin.etag.to_bytes(8, "big")).decode(),
            "version": twin.version,
            "modelId": twin.model_id,
            "tags": twin.tags,
            "properties": service_properties(twin),
        }
