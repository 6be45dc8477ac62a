"""``muster module``: the modules of a device over the hub's registry REST API (hub-service.md 2.3).

Keys are shown only on request: by ``connection-string`` and in JSON. Not here: devices (``cli/device.py``), documents
(``cli/identity_document.py``).
"""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from muster.cli.identity_document import (
    Document,
    IdentityChanges,
    changed,
    identity_rows,
    new_module,
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
    ManagedBy,
    ModuleId,
    PrimaryKey,
    Secondary,
    SecondaryKey,
    UpdateEtag,
    WhichKey,
)
from muster.cli.options import ConnectionString, DataDirectory, Output
from muster.cli.output import Format, print_json, printable, record_text, table_text

if TYPE_CHECKING:
    from muster.cli.identity_requests import Registry

app = typer.Typer(
    help="Manage the modules of a device.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@app.command(name="list")
def list_modules(
    device_id: DeviceId,
    *,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """List the modules of a device."""
    modules = _registry(connection_string, data_directory).modules(device_id)
    if output is Format.JSON:
        print_json(modules)
        return
    print(table_text(("ModuleId", "Managed By", "Authentication", "Connection", "Last Activity"), map(_row, modules)))


@app.command()
def show(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Show a module; its keys only in JSON."""
    _show(_registry(connection_string, data_directory).get(device_id, module_id), output)


@app.command()
def create(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    auth: Auth = None,
    certificate: Certificate = None,
    primary_key: PrimaryKey = None,
    secondary_key: SecondaryKey = None,
    managed_by: ManagedBy = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Create a module. Keys are made by the hub, if they are not given."""
    changes = IdentityChanges(
        auth=auth,
        thumbprints=[thumbprint(file) for file in certificate or ()],
        primary_key=primary_key,
        secondary_key=secondary_key,
        managed_by=managed_by,
    )
    document = new_module(device_id, module_id, changes)
    _show(_registry(connection_string, data_directory).create(document), output)


@app.command()
def update(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    auth: Auth = None,
    certificate: Certificate = None,
    primary_key: PrimaryKey = None,
    secondary_key: SecondaryKey = None,
    managed_by: ManagedBy = None,
    etag: UpdateEtag = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Change a module; what is not named stays as it is. A connection that may not go on ends."""
    changes = IdentityChanges(
        auth=auth,
        thumbprints=[thumbprint(file) for file in certificate or ()],
        primary_key=primary_key,
        secondary_key=secondary_key,
        managed_by=managed_by,
    )
    if changes == IdentityChanges(thumbprints=[]):
        raise typer.BadParameter("nothing to change: name at least one option, such as --managed-by")
    registry = _registry(connection_string, data_directory)
    existing = registry.get(device_id, module_id)
    _show(registry.replace(changed(existing, changes), etag or str(existing["etag"])), output)


@app.command()
def delete(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    etag: Etag = "*",
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Delete a module and its twin."""
    _registry(connection_string, data_directory).delete(device_id, module_id, etag)
    print(f"deleted module {printable(module_id)} of device {printable(device_id)}")


@app.command(name="connection-string")
def module_connection_string(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    secondary: Secondary = False,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Print the connection string with which the program of a module connects to the hub."""
    registry = _registry(connection_string, data_directory)
    print(printable(string_of(registry.host, registry.get(device_id, module_id), secondary=secondary)))


@app.command(name="regenerate-key")
def regenerate_key(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    key: Key = WhichKey.PRIMARY,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Make a symmetric key of a module anew. A connection by the old one ends."""
    registry = _registry(connection_string, data_directory)
    registry.regenerate(device_id, module_id, key.value)
    _show(registry.get(device_id, module_id), output)


def _registry(connection_string: str | None, data_directory: Path | None) -> "Registry":
    from muster.cli.identity_requests import registry

    return registry(connection_string, data_directory)


def _row(identity: Document) -> tuple[object, ...]:
    return (
        identity.get("moduleId"),
        identity.get("managedBy"),
        (identity.get("authentication") or {}).get("type"),
        identity.get("connectionState"),
        when(identity.get("lastActivityTime")),
    )


def _show(identity: Document, output: Format) -> None:
    if output is Format.JSON:
        print_json(identity)
    else:
        print(record_text(identity_rows(identity)))
