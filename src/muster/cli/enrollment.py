"""``muster enrollment``: individual enrollments over the DPS service REST API (dps.md 6).

Not here: what it has in common with ``muster group`` (``cli/enrollment_noun.py``), and what an enrollment document
looks like (``cli/enrollment_document.py``).
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from muster.cli.attestation_document import EnrolledCertificate
from muster.cli.enrollment_document import read_json_documents
from muster.cli.enrollment_noun import EnrollmentNoun
from muster.cli.enrollment_options import (
    AllocationOptions,
    AttestationOptions,
    Disabled,
    Edge,
    Enable,
    Etag,
    IsEdge,
    Replace,
    Reprovision,
    Top,
    TwinOptions,
    changes_of,
)
from muster.cli.failure import CommandError
from muster.cli.option_records import with_records
from muster.cli.options import Output, ServerOptions
from muster.cli.output import Format, print_json, printable, table_text
from muster.cli.registration_ids import require_registration_id

app = typer.Typer(
    help="Manage individual enrollments.", no_args_is_help=True, rich_markup_mode=None, add_completion=False
)

ENROLLMENT = EnrollmentNoun("enrollments", "registrationId", "enrollment")

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
@with_records
def create(
    *,
    certificate: Certificate = None,
    attestation: AttestationOptions,
    endorsement_key: EndorsementKey = None,
    registration_id: Annotated[
        str | None,
        typer.Option(help="Registration id; else the common name of the certificate.", show_default=False),
    ] = None,
    device_id: DeviceId = None,
    twin: TwinOptions,
    disabled: Disabled = False,
    reprovision_policy: Reprovision = None,
    edge: IsEdge = False,
    allocation: AllocationOptions,
    update: Replace = False,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Create an individual enrollment by a certificate, a CA certificate, symmetric keys or a TPM.

    An enrollment that exists already is not touched without --update.
    """
    mechanism = attestation.changes(certificate, endorsement_key)
    if not mechanism.mechanisms:
        raise typer.BadParameter("say how it attests: --certificate, --ca, --symmetric-key or --endorsement-key")
    name = registration_id or _name_in(certificate, mechanism.certificate)
    require_registration_id(
        name, "DPS compares it with the common name of the device's certificate: change both, if there is one"
    )
    changes = changes_of(
        mechanism,
        twin,
        allocation,
        enabled=not disabled,
        edge=edge,
        reprovision_policy=reprovision_policy,
        device_id=device_id,
    )
    if certificate and mechanism.certificate:
        _warn_of_common_name(certificate, mechanism.certificate.common_name, name)
    ENROLLMENT.create(name, changes, server, output, replace=update)


@app.command()
@with_records
def update(
    registration_id: RegistrationId,
    *,
    enable: Enable = None,
    certificate: Certificate = None,
    attestation: AttestationOptions,
    endorsement_key: EndorsementKey = None,
    device_id: DeviceId = None,
    twin: TwinOptions,
    reprovision_policy: Reprovision = None,
    edge: Edge = None,
    allocation: AllocationOptions,
    etag: Etag = None,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Change an individual enrollment; what is not named stays as it is."""
    changes = changes_of(
        attestation.changes(certificate, endorsement_key),
        twin,
        allocation,
        enabled=enable,
        edge=edge,
        reprovision_policy=reprovision_policy,
        device_id=device_id,
    )
    ENROLLMENT.update(registration_id, changes, server, output, etag)


@app.command(name="list")
@with_records
def list_enrollments(*, top: Top = 1000, output: Output = Format.TABLE, server: ServerOptions) -> None:
    """List the individual enrollments."""
    ENROLLMENT.print_all(server, output, top)


@app.command()
@with_records
def show(registration_id: RegistrationId, *, output: Output = Format.TABLE, server: ServerOptions) -> None:
    """Show an individual enrollment and the facts of its attestation, but no symmetric key."""
    ENROLLMENT.print_one(registration_id, server, output)


@app.command()
@with_records
def keys(registration_id: RegistrationId, *, output: Output = Format.TABLE, server: ServerOptions) -> None:
    """Print the keys of an individual enrollment: symmetric ones, or those of its TPM."""
    ENROLLMENT.print_keys(registration_id, server, output)


@app.command()
@with_records
def delete(registration_id: RegistrationId, *, etag: Etag = None, server: ServerOptions) -> None:
    """Delete an individual enrollment. Registration record and device identity stay (dps.md 4.9)."""
    ENROLLMENT.delete(registration_id, server, etag)


@app.command(name="import")
@with_records
def import_enrollments(
    file: Annotated[Path, typer.Argument(help="JSON array of enrollments, as one PUT body each.")],
    *,
    update: Annotated[bool, typer.Option("--update", help="Replace those that exist already.")] = False,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Create many individual enrollments from a file. Exit code 1 if one of them could not be."""
    documents = read_json_documents(file)
    mode = "update" if update else "create"
    failed = ENROLLMENT.requests(server).bulk(documents, mode)
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
