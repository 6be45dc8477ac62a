"""``muster linked-hub``: which hubs the provisioning service assigns devices to, and how much of them (dps.md 5.1).

Not here: making hubs (``cli/hub.py``).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.failure import CommandError
from muster.cli.hub import linked
from muster.cli.options import DataDirectory, Output
from muster.cli.output import Format, print_json, printable, table_text

if TYPE_CHECKING:
    from muster.cli.management import Management, Resource

app = typer.Typer(
    help="Manage the hubs that devices are assigned to.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Host = Annotated[str, typer.Argument(help="Host name of the hub, or its name.", show_default=False)]


@app.command(name="list")
def list_linked(*, output: Output = Format.TABLE, data_directory: DataDirectory = None) -> None:
    """List the linked hubs."""
    _print(_connect(data_directory).service()["properties"]["iotHubs"], output)


@app.command(name="set")
def change(
    host: Host,
    *,
    weight: Annotated[
        int | None, typer.Option(help="Share of the devices it gets.", min=1, max=1000, show_default=False)
    ] = None,
    latency: Annotated[
        float | None,
        typer.Option(help="Latency in milliseconds, for the policy geoLatency.", min=0, show_default=False),
    ] = None,
    apply_policy: Annotated[
        bool | None,
        typer.Option(
            "--apply-policy/--no-apply-policy",
            help="Whether the allocation policy may choose it; if not, only enrollments that name it do.",
            show_default=False,
        ),
    ] = None,
    output: Output = Format.TABLE,
    data_directory: DataDirectory = None,
) -> None:
    """Change how devices are assigned to a linked hub; what is not named stays as it is."""
    changes = {
        "allocationWeight": weight,
        "latencyMilliseconds": latency,
        "applyAllocationPolicy": apply_policy,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if not given:
        raise typer.BadParameter("nothing to change: name at least one option, such as --weight")
    management = _connect(data_directory)
    service = management.service()
    wanted = _resolved(management, host)
    hubs = [{**hub, **given} if hub["name"] == wanted else hub for hub in _require_linked(service, wanted)]
    _print(_put(management, service, hubs), output)


@app.command()
def add(host: Host, *, output: Output = Format.TABLE, data_directory: DataDirectory = None) -> None:
    """Link a hub of this server."""
    management = _connect(data_directory)
    service = management.service()
    wanted = _resolved(management, host)
    for hub in management.hubs():
        if hub["properties"]["hostName"] == wanted:
            string = management.hub_connection_string(hub)
            changed = management.put_service(linked(service, string, hub["location"]))
            _print(changed["properties"]["iotHubs"], output)
            return
    raise CommandError(f"there is no hub {printable(host)}", "`muster hub list` shows them all")


@app.command()
def remove(host: Host, *, data_directory: DataDirectory = None) -> None:
    """Unlink a hub. The hub and its devices stay; no more devices are assigned to it."""
    management = _connect(data_directory)
    service = management.service()
    wanted = _resolved(management, host)
    _put(management, service, [hub for hub in _require_linked(service, wanted) if hub["name"] != wanted])
    print(f"unlinked hub {printable(wanted)}")


def _connect(data_directory: Path | None) -> "Management":
    from muster.cli.management import connect_management

    return connect_management(data_directory)


def _resolved(management: "Management", host: str) -> str:
    """The host name of a hub that is given by its host name or its name."""
    for hub in management.hubs():
        if host.lower() in (str(hub["properties"]["hostName"]).lower(), str(hub["name"]).lower()):
            return str(hub["properties"]["hostName"])
    return host


def _require_linked(service: "Resource", host: str) -> list["Resource"]:
    hubs: list[Resource] = service["properties"]["iotHubs"]
    names = [str(hub["name"]) for hub in hubs]
    if host not in names:
        raise CommandError(f"{printable(host)} is not linked; there are {', '.join(names) or 'none'}")
    return hubs


def _put(management: "Management", service: "Resource", hubs: list["Resource"]) -> list["Resource"]:
    body = {**service, "properties": {**service["properties"], "iotHubs": hubs}}
    stored: list[Resource] = management.put_service(body)["properties"]["iotHubs"]
    return stored


def _print(hubs: list["Resource"], output: Format) -> None:
    if output is Format.JSON:
        print_json(hubs)
        return
    rows = [
        (
            hub["name"],
            hub.get("allocationWeight", 1),
            f"{hub.get('latencyMilliseconds', 0):g} ms",
            "yes" if hub.get("applyAllocationPolicy", True) else "no",
        )
        for hub in hubs
    ]
    print(table_text(("Host", "Weight", "Latency", "Applies policy"), rows))
