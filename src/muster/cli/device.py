"""``muster device``: the device identities of the hub over its registry REST API (hub-service.md 2).

Keys of devices are shown only on request: by ``device connection-string`` and in JSON.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.failure import CommandError
from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, print_json, printable, record_text, short_time, table_text

if TYPE_CHECKING:
    from muster.cli.client import Client

app = typer.Typer(
    help="Manage the device identities of the hub.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

Document = dict[str, Any]


class Authentication(StrEnum):
    """The choices of ``--auth``, as the hub spells them (hub-service.md 2.2)."""

    SAS = "sas"
    SELF_SIGNED = "selfSigned"
    CERTIFICATE_AUTHORITY = "certificateAuthority"


DeviceId = Annotated[str, typer.Argument(help="Device id.", show_default=False)]


@app.command(name="list")
def list_devices(
    *,
    top: Annotated[int, typer.Option(help="Print at most this many.", min=1, max=1000)] = 1000,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """List the device identities."""
    from muster.cli.client import HUB_API_VERSION

    client = connect(connection_string, data_directory)
    query: dict[str, str | int | None] = {"top": top, "api-version": HUB_API_VERSION}
    devices = client.request(client.target.hub, "GET", "/devices", query=query).document or []
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
    client = connect(connection_string, data_directory)
    _show(_request(client, "GET", device_id), output)


@app.command()
def create(
    device_id: DeviceId,
    *,
    auth: Annotated[Authentication, typer.Option(help="How the device proves itself.")] = Authentication.SAS,
    certificate: Annotated[
        list[Path] | None,
        typer.Option(
            help="File with the device's certificate, for selfSigned; given again: the secondary one.",
            show_default=False,
        ),
    ] = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Create it disabled.")] = False,
    edge: Annotated[bool, typer.Option("--edge", help="The device is an IoT Edge device.")] = False,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Create a device identity. Keys of a sas device are made by the hub."""
    document = new_identity(device_id, auth, [_thumbprint(file) for file in certificate or ()], edge=edge)
    if disabled:
        document["status"] = "disabled"
    _show(_request(connect(connection_string, data_directory), "PUT", device_id, body=document), output)


@app.command()
def delete(
    device_id: DeviceId,
    *,
    etag: Annotated[
        str, typer.Option(help="Go on only if the identity still has this ETag; * is any.", metavar="ETAG")
    ] = "*",
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Delete a device identity and its twin."""
    client = connect(connection_string, data_directory)
    _request(client, "DELETE", device_id, headers={"If-Match": etag if etag == "*" else f'"{etag}"'})
    print(f"deleted device {printable(device_id)}")


@app.command(name="connection-string")
def device_connection_string(
    device_id: DeviceId,
    *,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Print the connection string with which a device program connects to the hub."""
    client = connect(connection_string, data_directory)
    identity = _request(client, "GET", device_id)
    print(printable(device_string(client.target.hub.host, identity)))


def new_identity(device_id: str, auth: Authentication, thumbprints: list[str], *, edge: bool) -> Document:
    """The body of a creating PUT. Raises CommandError for thumbprints that do not go with ``auth``."""
    if thumbprints and auth is not Authentication.SELF_SIGNED:
        raise CommandError("--certificate goes with --auth selfSigned", "the other kinds do not compare thumbprints")
    if auth is Authentication.SELF_SIGNED and not 1 <= len(thumbprints) <= _SLOTS:
        raise CommandError("--auth selfSigned takes one or two --certificate", "the primary one, then the secondary")
    authentication: Document = {"type": auth.value}
    if thumbprints:
        primary, secondary, *_ = [*thumbprints, None]
        authentication["x509Thumbprint"] = {"primaryThumbprint": primary, "secondaryThumbprint": secondary}
    return {
        "deviceId": device_id,
        "status": "enabled",
        "authentication": authentication,
        "capabilities": {"iotEdge": edge},
    }


def device_string(host: str, identity: Document) -> str:
    """The connection string of a device, or what takes its place for a device with a certificate."""
    authentication = identity.get("authentication") or {}
    head = f"HostName={host};DeviceId={identity.get('deviceId')}"
    if authentication.get("type") != Authentication.SAS.value:
        return f"{head};x509=true"
    key = (authentication.get("symmetricKey") or {}).get("primaryKey")
    if not key:
        raise CommandError("the answer holds no key", "use a policy with RegistryWrite, such as iothubowner")
    return f"{head};SharedAccessKey={key}"


def identity_rows(identity: Document) -> list[tuple[str, object]]:
    """A device identity without its keys."""
    authentication = identity.get("authentication") or {}
    thumbprints = authentication.get("x509Thumbprint") or {}
    return [
        ("DeviceId", identity.get("deviceId")),
        ("Status", identity.get("status")),
        ("Status Reason", identity.get("statusReason")),
        ("Authentication", authentication.get("type")),
        ("Primary Thumbprint", thumbprints.get("primaryThumbprint")),
        ("Secondary Thumbprint", thumbprints.get("secondaryThumbprint")),
        ("Edge Enabled", (identity.get("capabilities") or {}).get("iotEdge", False)),
        ("Connection", identity.get("connectionState")),
        ("Last Activity", _when(identity.get("lastActivityTime"))),
        ("Generation Id", identity.get("generationId")),
        ("ETag", identity.get("etag")),
    ]


_SLOTS = 2


def _row(identity: Document) -> tuple[object, ...]:
    return (
        identity.get("deviceId"),
        identity.get("status"),
        (identity.get("authentication") or {}).get("type"),
        identity.get("connectionState"),
        _when(identity.get("lastActivityTime")),
    )


def _when(text: object) -> str:
    """A time, or nothing for one that was never set (hub-service.md 2.2)."""
    return "" if str(text or "").startswith("0001-01-01") else short_time(text)


def _thumbprint(file: Path) -> str:
    import base64
    import hashlib

    from muster.cli.attestation_document import read_certificate

    der = base64.b64decode(read_certificate(file).content)
    return hashlib.sha256(der).hexdigest().upper()


def _request(
    client: "Client",
    method: str,
    device_id: str,
    *,
    body: Document | None = None,
    headers: dict[str, str] | None = None,
) -> Document:
    from muster.cli.client import HUB_API_VERSION, path

    answer = client.request(
        client.target.hub,
        method,
        path("devices", device_id),
        query={"api-version": HUB_API_VERSION},
        body=body,
        headers=headers,
    )
    return answer.document or {}


def _show(identity: Document, output: Format) -> None:
    if output is Format.JSON:
        print_json(identity)
    else:
        print(record_text(identity_rows(identity)))
