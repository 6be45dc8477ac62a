"""``muster device``: the device identities of the hub over its registry REST API (hub-service.md 2).

Keys of devices are shown only on request: by ``connection-string``, ``export`` and in JSON. Not here: modules
(``cli/module.py``), documents (``cli/identity_document.py``).
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.failure import CommandError
from muster.cli.identity_document import (
    Document,
    IdentityChanges,
    changed,
    exported,
    identity_rows,
    new_device,
    thumbprint,
    when,
)
from muster.cli.identity_document import (
    connection_string as string_of,
)
from muster.cli.identity_options import (
    Auth,
    Certificate,
    DeviceId,
    Etag,
    Key,
    Parent,
    PrimaryKey,
    Secondary,
    SecondaryKey,
    StatusReason,
    UpdateEtag,
    WhichKey,
)
from muster.cli.options import ConnectionString, DataDirectory, Output
from muster.cli.output import Format, json_text, print_json, printable, record_text, table_text

if TYPE_CHECKING:
    from muster.cli.identity_requests import Registry

app = typer.Typer(
    help="Manage the device identities of the hub.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@app.command(name="list")
def list_devices(
    *,
    top: Annotated[int, typer.Option(help="Print at most this many.", min=1, max=1000)] = 1000,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """List the device identities."""
    devices = _registry(connection_string, data_directory).devices(top)
    if output is Format.JSON:
        print_json(devices)
        return
    print(table_text(("DeviceId", "Status", "Authentication", "Connection", "Last Activity"), map(_row, devices)))


@app.command()
def show(
    device_id: DeviceId,
    *,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Show a device identity; its keys only in JSON."""
    _show(_registry(connection_string, data_directory).get(device_id), output)


@app.command()
def create(
    device_id: DeviceId,
    *,
    auth: Auth = None,
    certificate: Certificate = None,
    primary_key: PrimaryKey = None,
    secondary_key: SecondaryKey = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Create it disabled.")] = False,
    status_reason: StatusReason = None,
    edge: Annotated[bool, typer.Option("--edge", help="The device is an IoT Edge device.")] = False,
    parent: Parent = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Create a device identity. Keys of a sas device are made by the hub, if they are not given."""
    registry = _registry(connection_string, data_directory)
    changes = IdentityChanges(
        auth=auth,
        thumbprints=[thumbprint(file) for file in certificate or ()],
        primary_key=primary_key,
        secondary_key=secondary_key,
        enabled=not disabled,
        status_reason=status_reason,
        edge=edge,
        parent_scope=registry.scope(parent),
    )
    _show(registry.create(new_device(device_id, changes)), output)


@app.command()
def update(
    device_id: DeviceId,
    *,
    enable: Annotated[
        bool | None, typer.Option("--enable/--disable", help="Let the device connect, or not.", show_default=False)
    ] = None,
    status_reason: StatusReason = None,
    auth: Auth = None,
    certificate: Certificate = None,
    primary_key: PrimaryKey = None,
    secondary_key: SecondaryKey = None,
    edge: Annotated[
        bool | None,
        typer.Option("--edge/--no-edge", help="Whether it is an IoT Edge device.", show_default=False),
    ] = None,
    parent: Parent = None,
    etag: UpdateEtag = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Change a device identity; what is not named stays as it is. A connection that may not go on ends."""
    thumbprints = [thumbprint(file) for file in certificate or ()]
    said = (enable, status_reason, auth, primary_key, secondary_key, edge, parent)
    if not thumbprints and all(value is None for value in said):
        raise typer.BadParameter("nothing to change: name at least one option, such as --disable")
    registry = _registry(connection_string, data_directory)
    changes = IdentityChanges(
        auth=auth,
        thumbprints=thumbprints,
        primary_key=primary_key,
        secondary_key=secondary_key,
        enabled=enable,
        status_reason=status_reason,
        edge=edge,
        parent_scope=registry.scope(parent),
    )
    existing = registry.get(device_id)
    _show(registry.replace(changed(existing, changes), etag or str(existing["etag"])), output)


@app.command()
def delete(
    device_id: DeviceId,
    *,
    etag: Etag = "*",
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Delete a device identity with its modules, its twin and the messages that wait for it."""
    _registry(connection_string, data_directory).delete(device_id, "", etag)
    print(f"deleted device {printable(device_id)}")


@app.command(name="connection-string")
def device_connection_string(
    device_id: DeviceId,
    *,
    secondary: Secondary = False,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Print the connection string with which a device program connects to the hub."""
    registry = _registry(connection_string, data_directory)
    print(printable(string_of(registry.host, registry.get(device_id), secondary=secondary)))


@app.command(name="regenerate-key")
def regenerate_key(
    device_id: DeviceId,
    *,
    key: Key = WhichKey.PRIMARY,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Make a symmetric key of a device anew. A connection by the old one ends."""
    registry = _registry(connection_string, data_directory)
    registry.regenerate(device_id, "", key.value)
    _show(registry.get(device_id), output)


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="JSON file to write; its mode is 0600, as it holds keys.")],
    *,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Write all devices, with their modules and keys, into a file that import reads."""
    from muster.whole_files import write_private

    registry = _registry(connection_string, data_directory)
    items = [exported(identity) for identity in registry.identities()]
    try:
        write_private(file, json_text(items).encode() + b"\n")
    except OSError as error:
        raise CommandError(f"cannot write {file}: {error.strerror}") from error
    print(f"wrote {len(items)} identities to {file}")


@app.command(name="import")
def import_devices(
    file: Annotated[Path, typer.Argument(help="JSON array of devices and modules, as export writes it.")],
    *,
    update: Annotated[bool, typer.Option("--update", help="Replace those that exist already.")] = False,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Create many devices and modules from a file. Exit code 1 if one of them could not be."""
    from muster.cli.enrollment_document import read_json_documents

    mode = "createOrUpdate" if update else "create"
    items = [{"importMode": mode, **item} for item in read_json_documents(file)]
    failed = _registry(connection_string, data_directory).bulk(items)
    if output is Format.JSON:
        print_json({"written": len(items) - len(failed), "errors": failed})
    else:
        print(f"wrote {len(items) - len(failed)} of {len(items)} identities")
        if failed:
            rows = [(one.get("deviceId"), one.get("moduleId"), one.get("errorStatus")) for one in failed]
            print(table_text(("DeviceId", "ModuleId", "Error"), rows))
    if failed:
        raise typer.Exit(1)


def _registry(connection_string: str | None, data_directory: Path | None) -> "Registry":
    from muster.cli.identity_requests import registry

    return registry(connection_string, data_directory)


def _row(identity: Document) -> tuple[object, ...]:
    return (
        identity.get("deviceId"),
        identity.get("status"),
        (identity.get("authentication") or {}).get("type"),
        identity.get("connectionState"),
        when(identity.get("lastActivityTime")),
    )


def _show(identity: Document, output: Format) -> None:
    if output is Format.JSON:
        print_json(identity)
    else:
        print(record_text(identity_rows(identity)))
