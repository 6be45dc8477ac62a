"""``muster device``: the device identities of the hub over its registry REST API (hub-service.md 2).

Keys of devices are shown only on request: by ``connection-string``, ``export`` and in JSON. Not here: modules
(``cli/module.py``), documents (``cli/identity_document.py``).
"""

from pathlib import Path
from typing import Annotated

import typer

from muster.cli.failure import CommandError
from muster.cli.identity_document import Document, exported, new_device
from muster.cli.identity_noun import (
    change_identity,
    connection_columns,
    print_connection_string,
    print_identity,
    regenerate,
    registry_of,
)
from muster.cli.identity_options import (
    CredentialOptions,
    DeviceId,
    Etag,
    Key,
    Parent,
    Secondary,
    StatusReason,
    UpdateEtag,
    WhichKey,
)
from muster.cli.option_records import with_records
from muster.cli.options import Output, ServerOptions
from muster.cli.output import Format, json_text, print_json, printable, table_text

app = typer.Typer(
    help="Manage the device identities of the hub.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@app.command(name="list")
@with_records
def list_devices(
    *,
    top: Annotated[int, typer.Option(help="Print at most this many.", min=1, max=1000)] = 1000,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """List the device identities."""
    devices = registry_of(server).devices(top)
    if output is Format.JSON:
        print_json(devices)
        return
    print(table_text(("DeviceId", "Status", "Authentication", "Connection", "Last Activity"), map(_row, devices)))


@app.command()
@with_records
def show(
    device_id: DeviceId,
    *,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Show a device identity; its keys only in JSON."""
    print_identity(registry_of(server).get(device_id), output)


@app.command()
@with_records
def create(
    device_id: DeviceId,
    *,
    credential: CredentialOptions,
    disabled: Annotated[bool, typer.Option("--disabled", help="Create it disabled.")] = False,
    status_reason: StatusReason = None,
    edge: Annotated[bool, typer.Option("--edge", help="The device is an IoT Edge device.")] = False,
    parent: Parent = None,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Create a device identity. Keys of a sas device are made by the hub, if they are not given."""
    registry = registry_of(server)
    changes = credential.changes(
        enabled=not disabled, status_reason=status_reason, edge=edge, parent_scope=registry.scope(parent)
    )
    print_identity(registry.create(new_device(device_id, changes)), output)


@app.command()
@with_records
def update(
    device_id: DeviceId,
    *,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Let the device connect, or not.", show_default=False)
    ] = None,
    status_reason: StatusReason = None,
    credential: CredentialOptions,
    edge: Annotated[
        bool | None,
        typer.Option("--edge/--no-edge", help="Whether it is an IoT Edge device.", show_default=False),
    ] = None,
    parent: Parent = None,
    etag: UpdateEtag = None,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Change a device identity; what is not named stays as it is. A connection that may not go on ends."""
    others = (enable, status_reason, edge, parent)
    if not credential.says_something and all(value is None for value in others):
        raise typer.BadParameter("nothing to change: name at least one option, such as --disable")
    registry = registry_of(server)
    changes = credential.changes(
        enabled=enable, status_reason=status_reason, edge=edge, parent_scope=registry.scope(parent)
    )
    change_identity(registry, device_id, "", changes, etag, output)


@app.command()
@with_records
def delete(
    device_id: DeviceId,
    *,
    etag: Etag = "*",
    server: ServerOptions,
) -> None:
    """Delete a device identity with its modules, its twin and the messages that wait for it."""
    registry_of(server).delete(device_id, "", etag)
    print(f"deleted device {printable(device_id)}")


@app.command(name="connection-string")
@with_records
def device_connection_string(
    device_id: DeviceId,
    *,
    secondary: Secondary = False,
    server: ServerOptions,
) -> None:
    """Print the connection string with which a device program connects to the hub."""
    print_connection_string(server, device_id, "", secondary=secondary)


@app.command(name="regenerate-key")
@with_records
def regenerate_key(
    device_id: DeviceId,
    *,
    key: Key = WhichKey.PRIMARY,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Make a symmetric key of a device anew. A connection by the old one ends."""
    regenerate(server, device_id, "", key, output)


@app.command()
@with_records
def export(
    file: Annotated[Path, typer.Argument(help="JSON file to write; its mode is 0600, as it holds keys.")],
    *,
    server: ServerOptions,
) -> None:
    """Write all devices, with their modules and keys, into a file that import reads."""
    from muster.whole_files import write_private

    registry = registry_of(server)
    items = [exported(identity) for identity in registry.identities()]
    try:
        write_private(file, json_text(items).encode() + b"\n")
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from error
    print(f"wrote {len(items)} identities to {file}")


@app.command(name="import")
@with_records
def import_devices(
    file: Annotated[Path, typer.Argument(help="JSON array of devices and modules, as export writes it.")],
    *,
    update: Annotated[bool, typer.Option("--update", help="Replace those that exist already.")] = False,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Create many devices and modules from a file. Exit code 1 if one of them could not be."""
    from muster.cli.enrollment_document import read_json_documents

    mode = "createOrUpdate" if update else "create"
    items = [{"importMode": mode, **item} for item in read_json_documents(file)]
    failed = registry_of(server).bulk(items)
    if output is Format.JSON:
        print_json({"written": len(items) - len(failed), "errors": failed})
    else:
        print(f"wrote {len(items) - len(failed)} of {len(items)} identities")
        if failed:
            rows = [(one.get("deviceId"), one.get("moduleId"), one.get("errorStatus")) for one in failed]
            print(table_text(("DeviceId", "ModuleId", "Error"), rows))
    if failed:
        raise typer.Exit(1)


def _row(identity: Document) -> tuple[object, ...]:
    return (
        identity.get("deviceId"),
        identity.get("status"),
        *connection_columns(identity),
    )
