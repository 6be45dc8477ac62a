"""``muster group``: enrollment groups over the DPS service REST API (dps.md 6).

Not here: what a group's document looks like (``cli/enrollment_document.py``), and the requests
(``cli/enrollment_requests.py``).
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.attestation_document import (
    AttestationChanges,
    attestation_rows,
    attestation_text,
    key_rows,
    read_certificate,
)
from muster.cli.enrollment_document import Changes, Document, changed, enrollment_rows, new_document
from muster.cli.enrollment_options import (
    Allocation,
    Ca,
    Desired,
    Disabled,
    Edge,
    Enable,
    Etag,
    InitialTwin,
    IotHub,
    IsEdge,
    PrimaryKey,
    Replace,
    Reprovision,
    SecondaryCa,
    SecondaryCertificate,
    SecondaryKey,
    SymmetricKey,
    Tag,
    Top,
    WebhookApiVersion,
    WebhookUrl,
)
from muster.cli.failure import CommandError
from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, print_json, printable, record_text, short_time, table_text

if TYPE_CHECKING:
    from muster.cli.enrollment_requests import EnrollmentRequests

app = typer.Typer(help="Manage enrollment groups.", no_args_is_help=True, rich_markup_mode=None, add_completion=False)

GroupId = Annotated[str, typer.Argument(metavar="ID", help="Id of the enrollment group.", show_default=False)]
Certificate = Annotated[
    Path | None,
    typer.Option(help="File with the CA certificate that signs the devices' (PEM or DER).", show_default=False),
]


@app.command()
def create(
    group_id: GroupId,
    *,
    certificate: Certificate = None,
    secondary_certificate: SecondaryCertificate = None,
    ca: Ca = None,
    secondary_ca: SecondaryCa = None,
    symmetric_key: SymmetricKey = False,
    primary_key: PrimaryKey = None,
    secondary_key: SecondaryKey = None,
    initial_twin: InitialTwin = None,
    tag: Tag = None,
    desired: Desired = None,
    disabled: Disabled = False,
    reprovision_policy: Reprovision = None,
    edge: IsEdge = False,
    allocation_policy: Allocation = None,
    iot_hub: IotHub = None,
    webhook_url: WebhookUrl = None,
    webhook_api_version: WebhookApiVersion = None,
    update: Replace = False,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Create an enrollment group by a signing certificate, a CA certificate of the service, or symmetric keys.

    A group that exists already is not touched without --update.
    """
    attestation = AttestationChanges(
        certificate=read_certificate(certificate) if certificate else None,
        secondary=read_certificate(secondary_certificate) if secondary_certificate else None,
        ca=ca,
        secondary_ca=secondary_ca,
        symmetric_key=symmetric_key,
        primary_key=primary_key,
        secondary_key=secondary_key,
    )
    if not attestation.mechanisms:
        raise typer.BadParameter("say how its devices attest: --certificate, --ca or --symmetric-key")
    changes = Changes(
        attestation=attestation,
        initial_twin=initial_twin,
        tags=tag or (),
        desired=desired or (),
        enabled=not disabled,
        reprovision_policy=reprovision_policy,
        edge=edge,
        allocation_policy=allocation_policy,
        iot_hubs=iot_hub or (),
        webhook_url=webhook_url,
        webhook_api_version=webhook_api_version,
    )
    document = changed(new_document("enrollmentGroupId", group_id), changes)
    requests = _requests(connection_string, data_directory)
    _show(requests.create(document, update=update), output)
    _print_warnings(requests)


@app.command()
def update(
    group_id: GroupId,
    *,
    enable: Enable = None,
    certificate: Certificate = None,
    secondary_certificate: SecondaryCertificate = None,
    ca: Ca = None,
    secondary_ca: SecondaryCa = None,
    symmetric_key: SymmetricKey = False,
    primary_key: PrimaryKey = None,
    secondary_key: SecondaryKey = None,
    initial_twin: InitialTwin = None,
    tag: Tag = None,
    desired: Desired = None,
    reprovision_policy: Reprovision = None,
    edge: Edge = None,
    allocation_policy: Allocation = None,
    iot_hub: IotHub = None,
    webhook_url: WebhookUrl = None,
    webhook_api_version: WebhookApiVersion = None,
    etag: Etag = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Change an enrollment group; what is not named stays as it is."""
    changes = Changes(
        attestation=AttestationChanges(
            certificate=read_certificate(certificate) if certificate else None,
            secondary=read_certificate(secondary_certificate) if secondary_certificate else None,
            ca=ca,
            secondary_ca=secondary_ca,
            symmetric_key=symmetric_key,
            primary_key=primary_key,
            secondary_key=secondary_key,
        ),
        initial_twin=initial_twin,
        tags=tag or (),
        desired=desired or (),
        enabled=enable,
        reprovision_policy=reprovision_policy,
        edge=edge,
        allocation_policy=allocation_policy,
        iot_hubs=iot_hub or (),
        webhook_url=webhook_url,
        webhook_api_version=webhook_api_version,
    )
    if changes == Changes():
        raise typer.BadParameter("nothing to change: name at least one option, such as --disable")
    requests = _requests(connection_string, data_directory)
    existing = requests.get(group_id)
    _show(requests.put(changed(existing, changes), etag or existing.get("etag")), output)
    _print_warnings(requests)


@app.command(name="list")
def list_groups(
    *,
    top: Top = 1000,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """List the enrollment groups."""
    groups = _requests(connection_string, data_directory).all(top)
    if output is Format.JSON:
        print_json(groups)
        return
    headers = ("EnrollmentGroupId", "Attestation", "Provisioning Status", "Created", "Last Updated")
    print(table_text(headers, [_list_row(document) for document in groups]))


@app.command()
def show(
    group_id: GroupId,
    *,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Show an enrollment group and the facts of its certificates, but no symmetric key."""
    document = _requests(connection_string, data_directory).get(group_id)
    if output is Format.JSON:
        print_json(document)
    else:
        print(record_text([*enrollment_rows(document), *attestation_rows(document)]))


@app.command()
def delete(
    group_id: GroupId,
    *,
    etag: Etag = None,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Delete an enrollment group. Registration records and device identities stay (dps.md 4.9)."""
    _requests(connection_string, data_directory).delete(group_id, etag)
    print(f"deleted group {printable(group_id)}")


@app.command()
def keys(
    group_id: GroupId,
    *,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Print the symmetric keys of a group. They stay with you: a device gets one derived from them."""
    mechanism = _requests(connection_string, data_directory).keys(group_id)
    if output is Format.JSON:
        print_json(mechanism)
    else:
        print(record_text([("Attestation", mechanism.get("type")), *key_rows(mechanism)]))


@app.command(name="derive-key")
def derive_key(
    group_id: GroupId,
    registration_id: Annotated[str, typer.Argument(help="Registration id of the device.", show_default=False)],
    *,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Print the key that a device of a symmetric key group has.

    It is derived here from the group's primary key; JSON has the one of the secondary key too.
    """
    from muster.domain.registration_id import registration_id_problem
    from muster.domain.sas import derive_device_key

    problem = registration_id_problem(registration_id)
    if problem is not None:
        raise CommandError(f"{printable(registration_id)!r} cannot be a registration id: {problem}")
    mechanism = _requests(connection_string, data_directory).keys(group_id)
    group_keys = mechanism.get("symmetricKey") or {}
    if not group_keys.get("primaryKey"):
        raise CommandError(
            f"group {printable(group_id)} attests by {printable(mechanism.get('type'))}, not by symmetric keys",
            "its devices have certificates, not keys",
        )
    derived = {name: derive_device_key(key, registration_id) for name, key in group_keys.items()}
    if output is Format.JSON:
        print_json({"registrationId": registration_id, **derived})
    else:
        print(derived["primaryKey"])


@app.command()
def registrations(
    group_id: GroupId,
    *,
    top: Top = 1000,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """List the devices that registered by a group."""
    records = _requests(connection_string, data_directory).registrations(group_id, top)
    if output is Format.JSON:
        print_json(records)
        return
    headers = ("RegistrationId", "DeviceId", "AssignedHub", "Status", "Last Updated")
    print(table_text(headers, [_registration_row(record) for record in records]))


def _requests(connection_string: str | None, data_directory: Path | None) -> "EnrollmentRequests":
    from muster.cli.enrollment_requests import group_requests

    return group_requests(connect(connection_string, data_directory))


def _show(document: Document, output: Format) -> None:
    if output is Format.JSON:
        print_json(document)
    else:
        print(record_text(enrollment_rows(document)))


def _print_warnings(requests: "EnrollmentRequests") -> None:
    for check in requests.warnings():
        print(f"warning: {printable(check['detail'])}: {printable(check['fix'])}", file=sys.stderr)


def _list_row(document: Document) -> tuple[object, ...]:
    return (
        document.get("enrollmentGroupId"),
        attestation_text(document),
        document.get("provisioningStatus"),
        short_time(document.get("createdDateTimeUtc")),
        short_time(document.get("lastUpdatedDateTimeUtc")),
    )


def _registration_row(record: Document) -> tuple[object, ...]:
    return (
        record.get("registrationId"),
        record.get("deviceId"),
        record.get("assignedHub"),
        record.get("status"),
        short_time(record.get("lastUpdatedDateTimeUtc")),
    )
