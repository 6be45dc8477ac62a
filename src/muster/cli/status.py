"""``muster status``: the running server, for people and for programs.

Secrets come from the data directory, never from a route; the server is asked only whether it is there.
"""

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer

from muster.cli.env import trust_variables
from muster.cli.options import ConnectionString, DataDirectory, connect

app = typer.Typer(rich_markup_mode=None, add_completion=False)

Document = Mapping[str, Any]


class StatusFormat(StrEnum):
    """The choices of ``--output``."""

    TABLE = "table"
    JSON = "json"
    ENV = "env"


def status_variables(status: Document) -> dict[str, str]:
    """The names that the tutorial, the SDK samples and the service tools read (dps.md 8)."""
    provisioning, hub = status["provisioningService"], status["hubs"][0]
    host, scope = str(provisioning["host"]), str(provisioning["idScope"])
    return {
        "DPS_HOST": host,
        "DPS_SCOPEID": scope,
        "DPS_CONNECTION_STRING": str(provisioning["connectionString"]),
        "PROVISIONING_HOST": host,
        "PROVISIONING_IDSCOPE": scope,
        "IOTHUB_DEVICE_DPS_ENDPOINT": host,
        "IOTHUB_DEVICE_DPS_ID_SCOPE": scope,
        "IOTHUB_HOST": str(hub["host"]),
        "IOTHUB_CONNECTION_STRING": str(hub["connectionString"]),
        "EVENT_HUB_CONN_STR": str(hub["eventHubConnectionString"]),
        "EVENT_HUB_NAME": str(hub["eventHubName"]),
        "EVENTHUB_CONNECTION_STRING": str(hub["eventHubConnectionString"]),
        "MUSTER_PORTAL": str(status["portal"]),
        **trust_variables(status),
    }


def render_variables(variables: Mapping[str, str]) -> str:
    """``KEY=value`` lines that both a shell and .env readers understand."""
    return "\n".join(f"{name}={shlex.quote(value)}" for name, value in variables.items())


def status_rows(status: Document, answer: Document) -> list[tuple[str, object]]:
    """The table: what the server said of itself when it started, and what it answers now."""
    provisioning = status["provisioningService"]
    rows: list[tuple[str, object]] = [
        ("Version", status["version"]),
        ("Mode", status["mode"]),
        ("Up for", f"{int(answer.get('uptimeSeconds', 0))} s"),
        ("Persistence", status["persistence"]),
        ("DPS", provisioning["host"]),
        ("Id scope", provisioning["idScope"]),
        ("DPS connection string", provisioning["connectionString"]),
    ]
    for hub in status["hubs"]:
        rows += [("IoT hub", hub["host"]), ("Hub connection string", hub["connectionString"])]
        rows += [("Events connection string", hub["eventHubConnectionString"])]
    rows += [("Portal", status["portal"]), ("CA certificate", status["caFile"])]
    rows += [("Trust bundle", status["trustFile"])]
    return rows + [("Clock offset", f"{status['clockOffsetSeconds']} s")] * bool(status.get("clockOffsetSeconds"))


@app.command()
def status(
    output: Annotated[
        StatusFormat, typer.Option("--output", "-o", help="How to print the answer.")
    ] = StatusFormat.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Show the running server: endpoints, id scope, connection strings.

    Exit code 1 when nothing answers. Prints keys: they are read from the data directory of the server.
    """
    from muster.cli.output import print_json, record_text

    client = connect(connection_string, data_directory)
    answer = client.server_status()
    known = client.target.status
    if output is StatusFormat.ENV:
        print(render_variables(status_variables(known) if known else _public_variables(answer)))
    elif output is StatusFormat.JSON:
        print_json({**answer, **(known or {}), "running": True})
    else:
        print(record_text(status_rows(known, answer) if known else _public_rows(answer)))


def _public_variables(answer: Document) -> dict[str, str]:
    """What a server elsewhere tells without a key."""
    host, scope = str(answer.get("provisioningHost", "")), str(answer.get("idScope", ""))
    hubs = answer.get("hubs") or [{}]
    return {"DPS_HOST": host, "DPS_SCOPEID": scope, "IOTHUB_HOST": str(hubs[0].get("host", ""))}


def _public_rows(answer: Document) -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = [
        ("Version", answer.get("version")),
        ("Mode", answer.get("mode")),
        ("Up for", f"{int(answer.get('uptimeSeconds', 0))} s"),
        ("Persistence", answer.get("persistence")),
        ("DPS", answer.get("provisioningHost")),
        ("Id scope", answer.get("idScope")),
    ]
    return rows + [("IoT hub", hub.get("host")) for hub in answer.get("hubs") or []]
