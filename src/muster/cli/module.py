"""``muster module``: the modules of a device over the hub's registry REST API (hub-service.md 2.3).

Keys are shown only on request: by ``connection-string`` and in JSON. Not here: devices (``cli/device.py``), documents
(``cli/identity_document.py``).
"""

import typer

from muster.cli.identity_document import Document, new_module
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
    ManagedBy,
    ModuleId,
    Secondary,
    UpdateEtag,
    WhichKey,
)
from muster.cli.option_records import with_records
from muster.cli.options import Output, ServerOptions
from muster.cli.output import Format, print_json, printable, table_text

app = typer.Typer(
    help="Manage the modules of a device.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)


@app.command(name="list")
@with_records
def list_modules(
    device_id: DeviceId,
    *,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """List the modules of a device."""
    modules = registry_of(server).modules(device_id)
    if output is Format.JSON:
        print_json(modules)
        return
    print(table_text(("ModuleId", "Managed By", "Authentication", "Connection", "Last Activity"), map(_row, modules)))


@app.command()
@with_records
def show(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Show a module; its keys only in JSON."""
    print_identity(registry_of(server).get(device_id, module_id), output)


@app.command()
@with_records
def create(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    credential: CredentialOptions,
    managed_by: ManagedBy = None,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Create a module. Keys are made by the hub, if they are not given."""
    changes = credential.changes(managed_by=managed_by)
    document = new_module(device_id, module_id, changes)
    print_identity(registry_of(server).create(document), output)


@app.command()
@with_records
def update(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    credential: CredentialOptions,
    managed_by: ManagedBy = None,
    etag: UpdateEtag = None,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Change a module; what is not named stays as it is. A connection that may not go on ends."""
    if managed_by is None and not credential.says_something:
        raise typer.BadParameter("nothing to change: name at least one option, such as --managed-by")
    changes = credential.changes(managed_by=managed_by)
    change_identity(registry_of(server), device_id, module_id, changes, etag, output)


@app.command()
@with_records
def delete(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    etag: Etag = "*",
    server: ServerOptions,
) -> None:
    """Delete a module and its twin."""
    registry_of(server).delete(device_id, module_id, etag)
    print(f"deleted module {printable(module_id)} of device {printable(device_id)}")


@app.command(name="connection-string")
@with_records
def module_connection_string(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    secondary: Secondary = False,
    server: ServerOptions,
) -> None:
    """Print the connection string with which the program of a module connects to the hub."""
    print_connection_string(server, device_id, module_id, secondary=secondary)


@app.command(name="regenerate-key")
@with_records
def regenerate_key(
    device_id: DeviceId,
    module_id: ModuleId,
    *,
    key: Key = WhichKey.PRIMARY,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Make a symmetric key of a module anew. A connection by the old one ends."""
    regenerate(server, device_id, module_id, key, output)


def _row(identity: Document) -> tuple[object, ...]:
    return (
        identity.get("moduleId"),
        identity.get("managedBy"),
        *connection_columns(identity),
    )
