"""What ``muster device`` and ``muster module`` do alike, for one identity: show, change, delete it, its keys.

Not here: the options (``cli/device.py``, ``cli/module.py``), documents (``cli/identity_document.py``), and requests
(``cli/identity_requests.py``).
"""

from typing import TYPE_CHECKING

from muster.cli.identity_document import Document, IdentityChanges, changed, connection_string, identity_rows, when
from muster.cli.identity_options import WhichKey
from muster.cli.options import ServerOptions
from muster.cli.output import Format, print_json, printable, record_text

if TYPE_CHECKING:
    from muster.cli.identity_requests import Registry


def registry_of(server: ServerOptions) -> "Registry":
    """The registry of the hub that these options mean. Raises CommandError."""
    from muster.cli.identity_requests import Registry

    return Registry(server.connect())


def print_identity(identity: Document, output: Format) -> None:
    if output is Format.JSON:
        print_json(identity)
    else:
        print(record_text(identity_rows(identity)))


def connection_columns(identity: Document) -> tuple[object, ...]:
    """The last columns of a list: how it proves itself, whether it is connected, when it last was heard of."""
    return (
        (identity.get("authentication") or {}).get("type"),
        identity.get("connectionState"),
        when(identity.get("lastActivityTime")),
    )


def change_identity(
    registry: "Registry", device_id: str, module_id: str, changes: IdentityChanges, etag: str | None, output: Format
) -> None:
    existing = registry.get(device_id, module_id)
    print_identity(registry.replace(changed(existing, changes), etag or str(existing["etag"])), output)


def print_connection_string(server: ServerOptions, device_id: str, module_id: str, *, secondary: bool) -> None:
    registry = registry_of(server)
    print(printable(connection_string(registry.host, registry.get(device_id, module_id), secondary=secondary)))


def regenerate(server: ServerOptions, device_id: str, module_id: str, key: WhichKey, output: Format) -> None:
    registry = registry_of(server)
    registry.regenerate(device_id, module_id, key.value)
    print_identity(registry.get(device_id, module_id), output)
