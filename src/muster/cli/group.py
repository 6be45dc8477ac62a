"""``muster group``: enrollment groups over the DPS service REST API (dps.md 6).

Not here: what it has in common with ``muster enrollment`` (``cli/enrollment_noun.py``), and what a group's document
looks like (``cli/enrollment_document.py``).
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from muster.cli.attestation_document import EnrolledCertificate
from muster.cli.enrollment_document import Document
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
from muster.cli.output import Format, print_json, printable, short_time, table_text
from muster.cli.registration_ids import require_registration_id

app = typer.Typer(help="Manage enrollment groups.", no_args_is_help=True, rich_markup_mode=None, add_completion=False)

GROUP = EnrollmentNoun("enrollmentGroups", "enrollmentGroupId", "group")

GroupId = Annotated[str, typer.Argument(metavar="ID", help="Id of the enrollment group.", show_default=False)]
Certificate = Annotated[
    Path | None,
    typer.Option(help="File with the CA certificate that signs the devices' (PEM or DER).", show_default=False),
]


@app.command()
@with_records
def create(
    group_id: GroupId,
    *,
    certificate: Certificate = None,
    attestation: AttestationOptions,
    twin: TwinOptions,
    disabled: Disabled = False,
    reprovision_policy: Reprovision = None,
    edge: IsEdge = False,
    allocation: AllocationOptions,
    update: Replace = False,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Create an enrollment group by a signing certificate, a CA certificate of the service, or symmetric keys.

    A group that exists already is not touched without --update.
    """
    mechanism = attestation.changes(certificate)
    if not mechanism.mechanisms:
        raise typer.BadParameter("say how its devices attest: --certificate, --ca or --symmetric-key")
    _warn_of_leaf(certificate, mechanism.certificate)
    changes = changes_of(
        mechanism, twin, allocation, enabled=not disabled, edge=edge, reprovision_policy=reprovision_policy
    )
    GROUP.create(group_id, changes, server, output, replace=update)


@app.command()
@with_records
def update(
    group_id: GroupId,
    *,
    enable: Enable = None,
    certificate: Certificate = None,
    attestation: AttestationOptions,
    twin: TwinOptions,
    reprovision_policy: Reprovision = None,
    edge: Edge = None,
    allocation: AllocationOptions,
    etag: Etag = None,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Change an enrollment group; what is not named stays as it is."""
    mechanism = attestation.changes(certificate)
    _warn_of_leaf(certificate, mechanism.certificate)
    changes = changes_of(mechanism, twin, allocation, enabled=enable, edge=edge, reprovision_policy=reprovision_policy)
    GROUP.update(group_id, changes, server, output, etag)


@app.command(name="list")
@with_records
def list_groups(*, top: Top = 1000, output: Output = Format.TABLE, server: ServerOptions) -> None:
    """List the enrollment groups."""
    GROUP.print_all(server, output, top)


@app.command()
@with_records
def show(group_id: GroupId, *, output: Output = Format.TABLE, server: ServerOptions) -> None:
    """Show an enrollment group and the facts of its certificates, but no symmetric key."""
    GROUP.print_one(group_id, server, output)


@app.command()
@with_records
def delete(group_id: GroupId, *, etag: Etag = None, server: ServerOptions) -> None:
    """Delete an enrollment group. Registration records and device identities stay (dps.md 4.9)."""
    GROUP.delete(group_id, server, etag)


@app.command()
@with_records
def keys(group_id: GroupId, *, output: Output = Format.TABLE, server: ServerOptions) -> None:
    """Print the symmetric keys of a group. They stay with you: a device gets one derived from them."""
    GROUP.print_keys(group_id, server, output)


@app.command(name="derive-key")
@with_records
def derive_key(
    group_id: GroupId,
    registration_id: Annotated[str, typer.Argument(help="Registration id of the device.", show_default=False)],
    *,
    output: Output = Format.TABLE,
    server: ServerOptions,
) -> None:
    """Print the key that a device of a symmetric key group has.

    It is derived here from the group's primary key; JSON has the one of the secondary key too.
    """
    from muster.domain.sas import derive_device_key

    require_registration_id(registration_id)
    mechanism = GROUP.requests(server).keys(group_id)
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
@with_records
def registrations(group_id: GroupId, *, top: Top = 1000, output: Output = Format.TABLE, server: ServerOptions) -> None:
    """List the devices that registered by a group."""
    records = GROUP.requests(server).registrations(group_id, top)
    if output is Format.JSON:
        print_json(records)
        return
    headers = ("RegistrationId", "DeviceId", "AssignedHub", "Status", "Last Updated")
    print(table_text(headers, [_registration_row(record) for record in records]))


def _registration_row(record: Document) -> tuple[object, ...]:
    return (
        record.get("registrationId"),
        record.get("deviceId"),
        record.get("assignedHub"),
        record.get("status"),
        short_time(record.get("lastUpdatedDateTimeUtc")),
    )


def _warn_of_leaf(file: Path | None, certificate: EnrolledCertificate | None) -> None:
    """Say of a certificate that is none of a CA that it signs no device's: it is the wrong one of several."""
    if certificate is None or certificate.is_ca is not False:
        return
    print(
        f"warning: {file} says that it is no CA (CA:FALSE), so no device's certificate can lead to it:"
        " give the root or the intermediate that signs them",
        file=sys.stderr,
    )
