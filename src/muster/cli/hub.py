"""``muster hub``: the hubs of a server, over Resource Manager's routes (hub-service.md 10).

Not here: what is in a hub (``cli/device.py``), and weights (``cli/linked_hub.py``).
"""

from http.client import CONFLICT, NO_CONTENT
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.failure import CommandError, RefusedError
from muster.cli.options import DataDirectory, Output
from muster.cli.output import Format, print_json, printable, record_text, table_text

if TYPE_CHECKING:
    from muster.cli.management import Management, Resource

app = typer.Typer(
    help="Manage the hubs of the server.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

_SOURCES = {
    "twinChange": "twinChangeEvents",
    "lifecycle": "deviceLifecycleEvents",
    "connection": "deviceConnectionStateEvents",
}

Name = Annotated[str, typer.Argument(help="Name of the hub.", show_default=False)]


@app.command()
def add(
    name: Name,
    *,
    host: Annotated[
        str,
        typer.Option(help="Where it is served: an IP address or a name of this machine.", show_default=False),
    ],
    partitions: Annotated[int, typer.Option(help="Partitions of its event log; fixed for ever.", min=1, max=32)] = 4,
    link: Annotated[
        bool, typer.Option("--link/--no-link", help="Let the provisioning service assign devices to it.")
    ] = True,
    output: Output = Format.TABLE,
    data_directory: DataDirectory = None,
) -> None:
    """Make a hub of the running server, which serves it from this moment on."""
    management = _connect(data_directory)
    if management.find_hub(name) is not None:
        raise CommandError(f"there is a hub {printable(name)}", "`muster hub list` shows them all")
    service = management.service()
    events = {"events": {"partitionCount": partitions}}
    body = {"location": service["location"], "properties": {"hostName": host, "eventHubEndpoints": events}}
    hub = management.put_hub(name, body)
    if link:
        service = management.put_service(linked(service, management.hub_connection_string(hub), service["location"]))
    _show(management, hub, service, output)


@app.command(name="list")
def list_hubs(*, output: Output = Format.TABLE, data_directory: DataDirectory = None) -> None:
    """List the hubs; the first is the one that every start serves."""
    management = _connect(data_directory)
    hubs = management.hubs()
    if output is Format.JSON:
        print_json(hubs)
        return
    linked_hosts = _linked_hosts(management.service())
    rows = [(hub["name"], _host(hub), _partitions(hub), _yes(_host(hub) in linked_hosts)) for hub in hubs]
    print(table_text(("Name", "Host", "Partitions", "Linked"), rows))


@app.command()
def show(name: Name, *, output: Output = Format.TABLE, data_directory: DataDirectory = None) -> None:
    """Show a hub with the connection string of its owner."""
    management = _connect(data_directory)
    hub = management.require_hub(name)
    _show(management, hub, management.service(), output)


@app.command()
def update(
    name: Name,
    *,
    events: Annotated[
        str | None,
        typer.Option(
            help="What is written to its log beside telemetry: any of twinChange, lifecycle, connection, separated by"
            " commas; or none.",
            show_default=False,
        ),
    ] = None,
    retention: Annotated[
        int | None,
        typer.Option(help="Days for which its log keeps events.", min=1, max=7, metavar="DAYS", show_default=False),
    ] = None,
    output: Output = Format.TABLE,
    data_directory: DataDirectory = None,
) -> None:
    """Change what a hub writes to its log, and how long it keeps that.

    What is older than a new, shorter time is deleted within half a minute.
    """
    changed: Resource = {}
    if events is not None:
        changed["hubEvents"] = _sources(events)
    if retention is not None:
        changed["eventHubEndpoints"] = {"events": {"retentionTimeInDays": retention}}
    if not changed:
        raise CommandError("there is nothing to change", "give --events or --retention")
    management = _connect(data_directory)
    hub = management.require_hub(name)
    hub = management.put_hub(name, {**hub, "properties": {**hub["properties"], **changed}})
    _show(management, hub, management.service(), output)


def _sources(text: str) -> list[str]:
    """The sources by their names on the wire."""
    words = [word.strip().lower() for word in text.split(",")]
    if words == ["none"]:
        return []
    known = {word.lower(): source for word, source in _SOURCES.items()}
    for word in words:
        if word not in known:
            raise CommandError(
                f"there are no events {printable(word)!r}", f"--events takes {', '.join(_SOURCES)}, or none"
            )
    return [known[word] for word in words]


@app.command()
def remove(
    name: Name,
    *,
    force: Annotated[bool, typer.Option("--force", help="Also with devices in it, which are lost.")] = False,
    data_directory: DataDirectory = None,
) -> None:
    """Remove a hub with all that is in it. With devices in it only by --force; the first hub stays.

    Devices that are assigned to it have to register again.
    """
    try:
        status = _connect(data_directory).delete_hub(name, force=force)
    except RefusedError as error:
        if error.status == CONFLICT:
            raise CommandError(error.message, "remove it together with them: --force") from error
        raise
    if status == NO_CONTENT:
        raise CommandError(f"there is no hub {printable(name)}", "`muster hub list` shows them all")
    print(f"removed hub {printable(name)}")


def linked(service: "Resource", connection_string: str, location: str) -> "Resource":
    """The provisioning service with one more linked hub."""
    properties = service["properties"]
    link = {"connectionString": connection_string, "location": location}
    return {**service, "properties": {**properties, "iotHubs": [*properties["iotHubs"], link]}}


def _connect(data_directory: Path | None) -> "Management":
    from muster.cli.management import connect_management

    return connect_management(data_directory)


def _show(management: "Management", hub: "Resource", service: "Resource", output: Format) -> None:
    string = management.hub_connection_string(hub)
    if output is Format.JSON:
        print_json({**hub, "connectionString": string})
        return
    rows = [
        ("Name", hub["name"]),
        ("Host", _host(hub)),
        ("Partitions", _partitions(hub)),
        ("Linked", _yes(_host(hub) in _linked_hosts(service))),
        ("Events", ", ".join(["Telemetry", *hub["properties"]["hubEvents"]])),
        ("Retention", _days(hub["properties"]["eventHubEndpoints"]["events"]["retentionTimeInDays"])),
        ("Connection string", string),
    ]
    print(record_text(rows))


def _host(hub: "Resource") -> str:
    return str(hub["properties"]["hostName"])


def _partitions(hub: "Resource") -> Any:
    return hub["properties"]["eventHubEndpoints"]["events"]["partitionCount"]


def _days(count: int) -> str:
    return "1 day" if count == 1 else f"{count} days"


def _linked_hosts(service: "Resource") -> set[str]:
    return {str(link["name"]) for link in service["properties"]["iotHubs"]}


def _yes(value: bool) -> str:
    return "yes" if value else "no"
