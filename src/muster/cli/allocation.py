"""``muster allocation``: where a device would be assigned, and why. Nothing is written by it."""

from typing import Annotated, Any

import typer

from muster.cli.failure import CommandError, RefusedError
from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, print_json, printable, record_text

app = typer.Typer(
    help="Tell which hub a device would get.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

_ENROLLMENT_NOT_FOUND = 404201


@app.callback()
def allocation() -> None:
    """Tell which hub a device would get."""


@app.command()
def preview(
    registration_id: Annotated[str, typer.Argument(help="Registration id of the device.", show_default=False)],
    *,
    group: Annotated[
        str | None,
        typer.Option(help="Group of a device that did not register yet.", show_default=False),
    ] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Really ask the webhook of a custom policy.")] = False,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Tell where a device would be assigned if it registered now. Exit code 1 if there is no hub for it."""
    from muster.cli.client import path

    client = connect(connection_string, data_directory)
    location = path("muster", "v1", "allocations", registration_id)
    query = {"groupId": group, "ask": "1" if ask else None}
    try:
        found = client.request(client.target.provisioning, "GET", location, query=query).document
    except RefusedError as error:
        if error.code != _ENROLLMENT_NOT_FOUND or group:
            raise
        raise CommandError(
            f"there is no individual enrollment {printable(registration_id)}, and nothing registered by that name",
            "if it is a device of a group, name that with --group",
        ) from error
    if output is Format.JSON:
        print_json(found)
    else:
        print(record_text(preview_rows(found)))
    if found["answer"]:
        raise typer.Exit(1)


def preview_rows(found: dict[str, Any]) -> list[tuple[str, object]]:
    """What is known, the hub and its reason first."""
    candidates = [
        f"{hub['hostName']} (weight {hub['allocationWeight']}, {hub['latencyMilliseconds']:g} ms)"
        for hub in found["candidates"]
    ]
    rows: list[tuple[str, object]] = [
        ("Hub", (found["hub"] or {}).get("hostName")),
        ("Reason", found["reason"] or found["answer"]),
        ("DeviceId", found["deviceId"]),
        ("Enrollment", f"{found['enrollment']['kind']} {found['enrollment']['id']}, {found['provisioningStatus']}"),
        ("Policy", found["policy"]),
        ("CurrentHub", found["currentHub"]),
        ("Candidates", ", ".join(candidates)),
    ]
    return [row for row in rows if row[0] == "Hub" or row[1]]
