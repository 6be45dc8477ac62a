"""What one Muster says of itself: to anyone, and to its owner in ``status.json``.

Not here: who may read it.
"""

import os
from importlib.metadata import version
from typing import Any

from muster.config import (
    DEVELOPMENT_KEY,
    UpOptions,
)
from muster.data_directory import DataDirectory
from muster.domain.access_policy import HUB_OWNER, PROVISIONING_OWNER, AccessPolicy
from muster.domain.event_hub import event_hub_connection_string, event_hub_name
from muster.domain.timestamp import SECOND, iso_utc
from muster.frontends.served_hosts import ServedHosts
from muster.server.place import Place
from muster.server.services import Clock, Services


class Description:
    """What one Muster is and where it serves, when it is asked. ``start_token`` opens the portal, if it has one."""

    def __init__(
        self,
        options: UpOptions,
        directory: DataDirectory,
        place: Place,
        services: Services,
        hosts: ServedHosts,
        start_token: str | None,
        clock: Clock,
    ) -> None:
        self._options = options
        self._directory = directory
        self._place = place
        self._services = services
        self._hosts = hosts
        self._start_token = start_token
        self._clock = clock
        self._started = clock()

    def describe(self) -> dict[str, Any]:
        """What anyone may know; no secrets."""
        services = self._services
        return {
            "version": version("muster-iot"),
            "mode": "up",
            "uptimeSeconds": (self._clock() - self._started) // SECOND,
            "clockOffsetSeconds": self._options.clock_offset // SECOND,
            "idScope": services.provisioning.first.id_scope,
            "provisioningHost": services.provisioning.first.host_name,
            "hubs": [{"name": hub.name, "host": hub.host_name} for hub in services.hubs.all],
            "persistence": self._persistence(),
            "endpoints": self._hosts.endpoints,
        }

    def _persistence(self) -> str:
        if self._options.database is not None:
            return "PostgreSQL"
        if self._options.ephemeral:
            return "ephemeral: everything is removed at the end"
        return f"SQLite in {self._directory.path}"

    @property
    def status(self) -> dict[str, Any]:
        """The content of ``status.json``, secrets included."""
        services = self._services
        provisioning = services.provisioning.first
        hubs = services.hubs.all
        return {
            "version": version("muster-iot"),
            "pid": os.getpid(),
            "mode": "up",
            "started": iso_utc(self._started),
            "clockOffsetSeconds": self._options.clock_offset // SECOND,
            "dataDirectory": str(self._directory.path),
            "persistence": self._persistence(),
            "caFile": str(self._directory.ca_file),
            "trustFile": str(self._directory.trust_file),
            "provisioningService": {
                "host": provisioning.host_name,
                "idScope": provisioning.id_scope,
                "connectionString": _connection_string(
                    provisioning.host_name, provisioning.policies[PROVISIONING_OWNER]
                ),
            },
            "hubs": [
                {
                    "name": hub.name,
                    "host": hub.host_name,
                    "connectionString": _connection_string(hub.host_name, hub.policies[HUB_OWNER]),
                    "eventHubName": event_hub_name(hub.name),
                    "eventHubConnectionString": event_hub_connection_string(hub.name, hub.host_name, hub.policies),
                }
                for hub in hubs
            ],
            "endpoints": self._hosts.endpoints,
            "httpsPort": self._hosts.https_port,
            "addresses": self._hosts.bound,
            "portal": self._portal_address(),
            "wellKnownIdentity": all(
                policy.primary_key == DEVELOPMENT_KEY
                for policy in (provisioning.policies[PROVISIONING_OWNER], *(hub.policies[HUB_OWNER] for hub in hubs))
            ),
        }

    def _portal_address(self) -> str:
        host = f"[{self._place.host}]" if ":" in self._place.host else self._place.host
        query = f"?token={self._start_token}" if self._start_token else ""
        return f"http://{host}:{self._options.portal_port}/{query}"


def _connection_string(host: str, policy: AccessPolicy) -> str:
    return f"HostName={host};SharedAccessKeyName={policy.name};SharedAccessKey={policy.primary_key}"
