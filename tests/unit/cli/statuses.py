"""Status files as ``muster up`` writes them, for the tests of the command line."""

import json
import os
from pathlib import Path
from typing import Any

WELL_KNOWN_KEY = "bXVzdGVyLWRldi1rZXktdGhpcy1pcy1uby1zZWNyZXQ="
EVENT_HUB = "iothub-ehub-localhost-1234567-0123456789"
SECRET_KEY = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I="


def status_document(directory: str = "/srv/project/.muster", **changes: Any) -> dict[str, Any]:
    """The status of a server on loopback with the development identity; ``changes`` replace members."""
    document: dict[str, Any] = {
        "version": "0.1.0",
        "pid": os.getpid(),
        "mode": "up",
        "started": "2026-11-23T17:00:00.0000000Z",
        "clockOffsetSeconds": 0,
        "dataDirectory": directory,
        "persistence": f"SQLite in {directory}",
        "caFile": f"{directory}/ca.pem",
        "trustFile": f"{directory}/trust.pem",
        "provisioningService": {
            "host": "localhost",
            "idScope": "0ne00DE5EED",
            "connectionString": connection_string("localhost", "provisioningserviceowner"),
        },
        "hubs": [
            {
                "name": "localhost",
                "host": "localhost",
                "connectionString": connection_string("localhost", "iothubowner"),
                "eventHubName": EVENT_HUB,
                "eventHubConnectionString": event_hub_connection_string("localhost"),
            }
        ],
        "endpoints": [
            {"address": address, "port": port} for address in ("127.0.0.1", "::1") for port in (8883, 5671, 443)
        ],
        "httpsPort": 443,
        "addresses": ["127.0.0.1", "::1"],
        "portal": "http://localhost:8080/",
        "wellKnownIdentity": True,
    }
    return {**document, **changes}


def secret_status(directory: str = "/srv/project/.muster", **changes: Any) -> dict[str, Any]:
    """The status of a server on a network, with keys of its own."""
    host = "plant.example"
    return status_document(
        directory,
        provisioningService={
            "host": host,
            "idScope": "0ne0ABCDEF0",
            "connectionString": connection_string(host, "provisioningserviceowner", SECRET_KEY),
        },
        hubs=[
            {
                "name": host,
                "host": host,
                "connectionString": connection_string(host, "iothubowner", SECRET_KEY),
                "eventHubName": EVENT_HUB,
                "eventHubConnectionString": event_hub_connection_string(host, SECRET_KEY),
            }
        ],
        addresses=["0.0.0.0"],
        endpoints=[{"address": "0.0.0.0", "port": port} for port in (8883, 5671, 443)],
        wellKnownIdentity=False,
        **changes,
    )


def connection_string(host: str, policy: str, key: str = WELL_KNOWN_KEY) -> str:
    return f"HostName={host};SharedAccessKeyName={policy};SharedAccessKey={key}"


def event_hub_connection_string(host: str, key: str = WELL_KNOWN_KEY) -> str:
    return f"Endpoint=sb://{host}/;SharedAccessKeyName=service;SharedAccessKey={key};EntityPath={EVENT_HUB}"


def write_status(directory: Path, **changes: Any) -> dict[str, Any]:
    """Put a status file into a data directory that is made for it."""
    directory.mkdir(parents=True, exist_ok=True)
    document = status_document(str(directory), **changes)
    (directory / "status.json").write_text(json.dumps(document))
    return document
