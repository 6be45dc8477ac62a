"""``muster enrollment``: individual enrollments over the DPS service REST API (dps.md 6).

Not here: what an enrollment document looks like (``cli/enrollment_document.py``), and the requests
(``cli/enrollment_requests.py``).
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.attestation_document import (
    AttestationChanges,
    EnrolledCertificate,
    attestation_rows,
    attestation_text,
    key_rows,
    read_certificate,
    read_endorsement_key,
)
from muster.cli.enrollment_document import (
    Changes,
    Document,
    changed,
    enrollment_rows,
    new_document,
    read_json_documents,
)
from muster.cli.enrollment_options import (
    Allocation,
    Ca,
    CertificatePolicy,
    Desired,
    Disabled,
    Edge,
    Enable,
    Etag,
    InitialTwin,
    IotHub,
    IsEdge,
    IssuingCa,
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

app = typer.Typer(
    help="Manage individual enrollments.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

RegistrationId = Annotated[str, typer.Argument(help="Registration id of the enrollment.", show_default=False)]
Certificate = Annotated[
    Path | None, typer.Option(help="File with the device's certificate (PEM or DER).", show_default=False)
]
DeviceId = Annotated[
    str | None,
    typer.Option(help="Device id in the hub, if not the registration id.", show_default=False),
]
EndorsementKey = Annotated[
    str | None,
    typer.Option(
        help="Endorsement key of the device's TPM: base64, or @FILE with it.",
        metavar="BASE64|@FILE",
        show_default=False,
    ),
]


@app.command()
def create(
    *,
    certificate: Certificate = None,
    secondary_certificate: SecondaryCertificate = None,
    ca: Ca = None,
    secondary_ca: SecondaryCa = None,
    symmetric_key: SymmetricKey = False,
    primary_key: PrimaryKey = None,
    secondary_key: SecondaryKey = None,
    endorsement_key: EndorsementKey = None,
    registration_id: Annotated[
        str | None,
        typer.Option(help="Registration id; else the common name of the certificate.", show_default=False),
    ] = None,
    device_id: DeviceId = None,
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
    issuing_ca: IssuingCa = None,
    certificate_policy: CertificatePolicy = None,
    update: Replace = False,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Create an individual enrollment by a certificate, a CA certificate, symmetric keys or a TPM.

    An enrollment that exists already is not touched without --update.
    """
    attestation = AttestationChanges(
        certificate=read_certificate(certificate) if certificate else None,
        secondary=read_certificate(secondary_certificate) if secondary_certificate else None,
        ca=ca,
        secondary_ca=secondary_ca,
        symmetric_key=symmetric_key,
        primary_key=primary_key,
        secondary_key=secondary_key,
        endorsement_key=read_endorsement_key(endorsement_key) if endorsement_key else None,
    )
    if not attestation.mechanisms:
        raise typer.BadParameter("say how it attests: --certificate, --ca, --symmetric-key or --endorsement-key")
    name = registration_id or _name_in(certificate, attestation.certificate)
    changes = Changes(
        attestation=attestation,
        device_id=device_id,
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
        issuing_ca=issuing_ca,
        certificate_policy=certificate_policy,
    )
    if certificate and attestation.certificate:
        _warn_of_common_name(certificate, attestation.certificate.common_name, name)
    document = changed(new_document("registrationId", name), changes)
    _show(_requests(connection_string, data_directory).create(document, update=update), output)


@app.command()
def update(
    registration_id: RegistrationId,
    *,
    enable: Enable = None,
    certificate: Certificate = None,
    secondary_certificate: SecondaryCertificate = None,
    ca: Ca = None,
    secondary_ca: SecondaryCa = None,
    symmetric_key: SymmetricKey = False,
    primary_key: PrimaryKey = None,
    secondary_key: SecondaryKey = None,
    endorsement_key: EndorsementKey = None,
    device_id: DeviceId = None,
    initial_twin: InitialTwin = None,
    tag: Tag = None,
    desired: Desired = None,
    reprovision_policy: Reprovision = None,
    edge: Edge = None,
    allocation_policy: Allocation = None,
    iot_hub: IotHub = None,
    webhook_url: WebhookUrl = None,
    webhook_api_version: WebhookApiVersion = None,
    issuing_ca: IssuingCa = None,
    certificate_policy: CertificatePolicy = None,
    etag: Etag = None,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Change an individual enrollment; what is not named stays as it is."""
    changes = Changes(
        attestation=AttestationChanges(
            certificate=read_certificate(certificate) if certificate else None,
            secondary=read_certificate(secondary_certificate) if secondary_certificate else None,
            ca=ca,
            secondary_ca=secondary_ca,
            symmetric_key=symmetric_key,
            primary_key=primary_key,
            secondary_key=secondary_key,
            endorsement_key=read_endorsement_key(endorsement_key) if endorsement_key else None,
        ),
        device_id=device_id,
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
        issuing_ca=issuing_ca,
        certificate_policy=certificate_policy,
    )
    if changes == Changes():
        raise typer.BadParameter("nothing to change: name at least one option, such as --disable")
    requests = _requests(connection_string, data_directory)
    existing = requests.get(registration_id)
    _show(requests.put(changed(existing, changes), etag or existing.get("etag")), output)


@app.command(name="list")
def list_enrollments(
    *,
    top: Top = 1000,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """List the individual enrollments."""
    enrollments = _requests(connection_string, data_directory).all(top)
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
    """Show an individual enrollment and the facts of its attestation, but no symmetric key."""
    document = _requests(connection_string, data_directory).get(registration_id)
    if output is Format.JSON:
        print_json(document)
    else:
        print(record_text([*enrollment_rows(document), *attestation_rows(document)]))


@app.command()
def keys(
    registration_id: RegistrationId,
    *,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Print the keys of an individual enrollment: symmetric ones, or those of its TPM."""
    mechanism = _requests(connection_string, data_directory).keys(registration_id)
    if output is Format.JSON:
        print_json(mechanism)
    else:
        print(record_text([("Attestation", mechanism.get("type")), *key_rows(mechanism)]))


@app.command()
def delete(
    registration_id: RegistrationId,
    *,
    etag: Etag = None,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Delete an individual enrollment. Registration record and device identity stay (dps.md 4.9)."""
    _requests(connection_string, data_directory).delete(registration_id, etag)
    print(f"deleted enrollment {printable(registration_id)}")


@app.command(name="import")
def import_enrollments(
    file: Annotated[Path, typer.Argument(help="JSON array of enrollments, as one PUT body each.")],
    *,
    update: Annotated[bool, typer.Option("--update", help="Replace those that exist already.")] = False,
    output: Output = Format.TABLE,
    connection_string: ConnectionString = None,
    data_directory: DataDirectory = None,
) -> None:
    """Create many individual enrollments from a file. Exit code 1 if one of them could not be."""
    documents = read_json_documents(file)
    mode = "update" if update else "create"
    failed = _requests(connection_string, data_directory).bulk(documents, mode)
    if output is Format.JSON:
        print_json({"written": len(documents) - len(failed), "errors": failed})
    else:
        print(f"wrote {len(documents) - len(failed)} of {len(documents)} enrollments")
        if failed:
            rows = [(one.get("registrationId"), one.get("errorCode"), one.get("errorStatus")) for one in failed]
            print(table_text(("RegistrationId", "ErrorCode", "ErrorStatus"), rows))
    if failed:
        raise typer.Exit(1)


def _name_in(file: Path | None, certificate: EnrolledCertificate | None) -> str:
    """The registration id that a certificate names. Raises CommandError and BadParameter."""
    if certificate is None:
        raise typer.BadParameter("name the enrollment with --registration-id")
    if not certificate.common_name:
        raise CommandError(f"{file} has no common name", "name the enrollment with --registration-id")
    return certificate.common_name


def _warn_of_common_name(file: Path, common_name: str | None, registration_id: str) -> None:
    if (common_name or "").lower() == registration_id.lower():
        return
    found = printable(common_name) if common_name else "missing"
    print(
        f"warning: the common name in {file} is {found}, the registration id {printable(registration_id)}:"
        " a device with this certificate is refused",
        file=sys.stderr,
    )


def _requests(connection_string: str | None, data_directory: Path | None) -> "EnrollmentRequests":
    from muster.cli.enrollment_requests import individual_requests

    return individual_requests(connect(connection_string, data_directory))


def _show(document: Document, output: Format) -> None:
    if output is Format.JSON:
        print_json(document)
    else:
        print(record_text(enrollment_rows(document)))


def _list_row(document: Document) -> tuple[object, ...]:
    return (
        document.get("registrationId"),
        attestation_text(document),
        document.get("provisioningStatus"),
        short_time(document.get("createdDateTimeUtc")),
        short_time(document.get("lastUpdatedDateTimeUtc")),
    )
