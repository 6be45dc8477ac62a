"""``muster enrollment``: individual enrollments over the DPS service REST API (dps.md 6).

Not here: what an enrollment document looks like; that is ``cli/enrollment_document.py``.
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.enrollment_document import (
    AllocationPolicy,
    Changes,
    Document,
    ReprovisionPolicy,
    certificate_rows,
    changed,
    enrollment_rows,
    new_document,
    read_certificate,
)
from muster.cli.failure import CommandError, RefusedError
from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, print_json, printable, record_text, short_time, table_text

if TYPE_CHECKING:
    from muster.cli.client import Client

app = typer.Typer(
    help="Manage individual enrollments.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

PAGE_SIZE = 100

RegistrationId = Annotated[str, typer.Argument(help="Registration id of the enrollment.", show_default=False)]
SecondaryCertificate = Annotated[
    Path | None,
    typer.Option(help="File with a second certificate, for a change of certificates.", show_default=False),
]
DeviceId = Annotated[
    str | None,
    typer.Option(help="Device id in the hub, if not the registration id.", show_default=False),
]
InitialTwin = Annotated[
    str | None,
    typer.Option(help="Initial twin as JSON, or @FILE with it.", metavar="JSON|@FILE", show_default=False),
]
Tag = Annotated[
    list[str] | None,
    typer.Option(help="Tag of the initial twin; may be given again.", metavar="NAME=VALUE", show_default=False),
]
Desired = Annotated[
    list[str] | None,
    typer.Option(
        help="Desired property of the initial twin; may be given again.",
        metavar="NAME=VALUE",
        show_default=False,
    ),
]
Reprovision = Annotated[
    ReprovisionPolicy | None,
    typer.Option(help="What a new registration does to the device's data.", show_default=False),
]
Allocation = Annotated[AllocationPolicy | None, typer.Option(help="How a hub is chosen.", show_default=False)]
IotHub = Annotated[
    list[str] | None,
    typer.Option(help="Host name of a hub to choose from; may be given again.", show_default=False),
]
Etag = Annotated[
    str | None,
    typer.Option(help="Go on only if the enrollment still has this ETag.", show_default=False),
]


@app.command()
def create(
    *,
    certificate: Annotated[
        Path, typer.Option(help="File with the device's certificate (PEM or DER).", show_default=False)
    ],
    secondary_certificate: SecondaryCertificate = None,
    registration_id: Annotated[
        str | None,
        typer.Option(help="Registration id; else the common name of the certificate.", show_default=False),
    ] = None,
    device_id: DeviceId = None,
    initial_twin: InitialTwin = None,
    tag: Tag = None,
    desired: Desired = None,
    disabled: Annotated[bool, typer.Option("--disabled", help="Create it disabled.")] = False,
    reprovision_policy: Reprovision = None,
    edge: Annotated[bool, typer.Option("--edge", help="The device is an IoT Edge device.")] = False,
    allocation_policy: Allocation = None,
    iot_hub: IotHub = None,
    update: Annotated[bool, typer.Option("--update", help="Replace an enrollment that exists already.")] = False,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Create an individual enrollment from the certificate of a device.

    An enrollment that exists already is not touched without --update.
    """
    primary = read_certificate(certificate)
    name = registration_id or primary.common_name
    if not name:
        raise CommandError(f"{certificate} has no common name", "name the enrollment with --registration-id")
    _warn_of_common_name(certificate, primary.common_name, name)
    changes = Changes(
        certificate=primary,
        secondary=read_certificate(secondary_certificate) if secondary_certificate else None,
        device_id=device_id,
        initial_twin=initial_twin,
        tags=tag or (),
        desired=desired or (),
        enabled=not disabled,
        reprovision_policy=reprovision_policy,
        edge=edge,
        allocation_policy=allocation_policy,
        iot_hubs=iot_hub or (),
    )
    document = changed(new_document(name), changes)
    client = connect(connection_string, data_directory)
    existing = _find(client, name)
    if existing is not None and not update:
        raise CommandError(
            f"enrollment {name} exists already, created {short_time(existing.get('createdDateTimeUtc'))}",
            f"change it with `muster enrollment update {name}`, or replace it with --update",
        )
    _show(_put(client, document, existing.get("etag") if existing else None), output)


@app.command()
def update(
    registration_id: RegistrationId,
    *,
    enable: Annotated[
        bool | None,
        typer.Option("--enable/--disable", help="Let the device register, or not.", show_default=False),
    ] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="File with the new primary certificate.", show_default=False)
    ] = None,
    secondary_certificate: SecondaryCertificate = None,
    device_id: DeviceId = None,
    initial_twin: InitialTwin = None,
    tag: Tag = None,
    desired: Desired = None,
    reprovision_policy: Reprovision = None,
    edge: Annotated[
        bool | None,
        typer.Option("--edge/--no-edge", help="Whether it is an IoT Edge device.", show_default=False),
    ] = None,
    allocation_policy: Allocation = None,
    iot_hub: IotHub = None,
    etag: Etag = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Change an individual enrollment; what is not named stays as it is."""
    changes = Changes(
        certificate=read_certificate(certificate) if certificate else None,
        secondary=read_certificate(secondary_certificate) if secondary_certificate else None,
        device_id=device_id,
        initial_twin=initial_twin,
        tags=tag or (),
        desired=desired or (),
        enabled=enable,
        reprovision_policy=reprovision_policy,
        edge=edge,
        allocation_policy=allocation_policy,
        iot_hubs=iot_hub or (),
    )
    if changes == Changes():
        raise typer.BadParameter("nothing to change: name at least one option, such as --disable")
    client = connect(connection_string, data_directory)
    existing = _get(client, registration_id)
    _show(_put(client, changed(existing, changes), etag or existing.get("etag")), output)


@app.command(name="list")
def list_enrollments(
    *,
    top: Annotated[int, typer.Option(help="Print at most this many.", min=1)] = 1000,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """List the individual enrollments."""
    enrollments = _query(connect(connection_string, data_directory), top)
    if output is Format.JSON:
        print_json(enrollments)
        return
    headers = ("RegistrationId", "Attestation", "Provisioning Status", "Created", "Last Updated")
    print(table_text(headers, [_list_row(document) for document in enrollments]))


@app.command()
def show(
    registration_id: RegistrationId,
    *,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Show an individual enrollment and the facts of its certificates."""
    document = _get(connect(connection_string, data_directory), registration_id)
    if output is Format.JSON:
        print_json(document)
    else:
        print(record_text([*enrollment_rows(document), *certificate_rows(document)]))


@app.command()
def delete(
    registration_id: RegistrationId,
    *,
    etag: Etag = None,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Delete an individual enrollment. Registration record and device identity stay (dps.md 4.9)."""
    client = connect(connection_string, data_directory)
    headers = {"If-Match": etag} if etag else {}
    _request(client, "DELETE", registration_id, headers=headers)
    print(f"deleted enrollment {printable(registration_id)}")


def _warn_of_common_name(file: Path, common_name: str | None, registration_id: str) -> None:
    if (common_name or "").lower() == registration_id.lower():
        return
    found = printable(common_name) if common_name else "missing"
    print(
        f"warning: the common name in {file} is {found}, the registration id {printable(registration_id)}:"
        " a device with this certificate is refused",
        file=sys.stderr,
    )


def _request(
    client: "Client",
    method: str,
    registration_id: str,
    *,
    body: Any = None,
    headers: dict[str, str] | None = None,
) -> Any:
    from muster.cli.client import DPS_API_VERSION, path

    return client.request(
        client.target.provisioning,
        method,
        path("enrollments", registration_id),
        query={"api-version": DPS_API_VERSION},
        body=body,
        headers=headers,
    ).document


def _get(client: "Client", registration_id: str) -> Document:
    document: Document = _request(client, "GET", registration_id)
    return document


def _find(client: "Client", registration_id: str) -> Document | None:
    try:
        return _get(client, registration_id)
    except RefusedError as error:
        if error.status == _NOT_FOUND:
            return None
        raise


def _put(client: "Client", document: Document, etag: str | None) -> Document:
    headers = {"If-Match": etag} if etag else {}
    stored: Document = _request(client, "PUT", str(document["registrationId"]), body=document, headers=headers)
    return stored


def _query(client: "Client", top: int) -> list[Document]:
    from muster.cli.client import DPS_API_VERSION

    found: list[Document] = []
    continuation: str | None = ""
    while continuation is not None and len(found) < top:
        answer = client.request(
            client.target.provisioning,
            "POST",
            "/enrollments/query",
            query={"api-version": DPS_API_VERSION},
            body={"query": "SELECT * FROM enrollments"},
            headers={
                "x-ms-max-item-count": str(min(PAGE_SIZE, top - len(found))),
                **({"x-ms-continuation": continuation} if continuation else {}),
            },
        )
        found.extend(answer.document or [])
        continuation = answer.headers.get("x-ms-continuation") or None
    return found


def _show(document: Document, output: Format) -> None:
    if output is Format.JSON:
        print_json(document)
    else:
        print(record_text(enrollment_rows(document)))


def _list_row(document: Document) -> tuple[object, ...]:
    return (
        document.get("registrationId"),
        (document.get("attestation") or {}).get("type"),
        document.get("provisioningStatus"),
        short_time(document.get("createdDateTimeUtc")),
        short_time(document.get("lastUpdatedDateTimeUtc")),
    )


_NOT_FOUND = 404
