"""``muster ca revoke``, ``unhold`` and ``crl``: take certificates back, and say so in a signed list.

Not here: who honours the list.
"""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.ca_facts import issued_document
from muster.cli.ca_options import (
    DAY,
    DEFAULT_CA_DIR,
    CaDir,
    CaKeyOptions,
    Force,
    IssuerName,
    ca_directory,
    real_now,
    require_free,
    told,
    write_files,
)
from muster.cli.failure import CommandError
from muster.cli.option_records import with_records
from muster.cli.options import Output
from muster.cli.output import Format, print_json, record_text, short_time

if TYPE_CHECKING:
    from muster.ca_directory import CaDirectory, IssuedCertificate, StoredAuthority


class Reason(StrEnum):
    """The choices of ``--reason`` (RFC 5280 5.3.1)."""

    UNSPECIFIED = "unspecified"
    KEY_COMPROMISE = "keyCompromise"
    CA_COMPROMISE = "cACompromise"
    AFFILIATION_CHANGED = "affiliationChanged"
    SUPERSEDED = "superseded"
    CESSATION_OF_OPERATION = "cessationOfOperation"
    CERTIFICATE_HOLD = "certificateHold"
    PRIVILEGE_WITHDRAWN = "privilegeWithdrawn"
    AA_COMPROMISE = "aACompromise"


class ListForm(StrEnum):
    """The choices of ``--format``."""

    PEM = "pem"
    DER = "der"


def revoke(
    name: Annotated[str, typer.Argument(help="Name or serial number of a certificate, or a CA.", show_default=False)],
    *,
    reason: Annotated[Reason, typer.Option(help="Why.")] = Reason.UNSPECIFIED,
    every: Annotated[bool, typer.Option("--all", help="All certificates of the name, when there are several.")] = False,
    issuer: IssuerName = None,
    ca_dir: CaDir = DEFAULT_CA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """Revoke a certificate. The next revocation list of its CA says so; muster ca crl makes that."""
    with told():
        directory = ca_directory(ca_dir)
        with directory.changing():
            # What is on hold may be revoked for good.
            on_hold = reason is not Reason.CERTIFICATE_HOLD
            chosen = _choose(_revocable(directory, name, issuer, on_hold=on_hold), name, every=every)
            authority = directory.authority(chosen[0].authority)
            authority.revoke([one.serial_number for one in chosen], reason, real_now())
        serials = {one.serial_number for one in chosen}
        revoked = [one for one in authority.issued() if one.serial_number in serials]
    if output is Format.JSON:
        print_json([issued_document(one, real_now()) for one in revoked])
        return
    from muster.ca_directory import serial_text

    for one in revoked:
        print(f"revoked {one.name}, serial number {serial_text(one.serial_number)}, reason {reason}")
    print(f"\nNext: muster ca crl --issuer {authority.name}")


def unhold(
    name: Annotated[str, typer.Argument(help="Name or serial number of a certificate, or a CA.", show_default=False)],
    *,
    every: Annotated[bool, typer.Option("--all", help="All certificates of the name, when there are several.")] = False,
    issuer: IssuerName = None,
    ca_dir: CaDir = DEFAULT_CA_DIR,
    output: Output = Format.TABLE,
) -> None:
    """Lift a hold: what was revoked with the reason certificateHold counts again, once muster ca crl has said so."""
    with told():
        directory = ca_directory(ca_dir)
        with directory.changing():
            chosen = _choose(_on_hold(directory, name, issuer), name, every=every)
            authority = directory.authority(chosen[0].authority)
            authority.lift([one.serial_number for one in chosen], real_now())
        serials = {one.serial_number for one in chosen}
        lifted = [one for one in authority.issued() if one.serial_number in serials]
    if output is Format.JSON:
        print_json([issued_document(one, real_now()) for one in lifted])
        return
    from muster.ca_directory import serial_text

    for one in lifted:
        print(f"lifted the hold of {one.name}, serial number {serial_text(one.serial_number)}")
    print(f"\nNext: muster ca crl --issuer {authority.name}")


def _revocable(directory: "CaDirectory", name: str, issuer: str | None, *, on_hold: bool) -> "list[IssuedCertificate]":
    """Those that can be revoked: not revoked yet and no root's own; if there are none, those that are on hold."""
    from muster.pki.revocation import HOLD

    found = _issued(directory, name, issuer)
    left = [one for one in found if one.revocation is None]
    if not left and on_hold:
        left = [one for one in found if one.revocation is not None and one.revocation.reason == HOLD]
    if not left:
        raise CommandError(f"{name!r} is revoked already")
    return left


def _on_hold(directory: "CaDirectory", name: str, issuer: str | None) -> "list[IssuedCertificate]":
    from muster.pki.revocation import HOLD

    found = _issued(directory, name, issuer)
    left = [one for one in found if one.revocation is not None and one.revocation.reason == HOLD]
    if left:
        return left
    reason = next((one.revocation.reason for one in found if one.revocation is not None), None)
    if reason is None:
        raise CommandError(f"{name!r} is not on hold: it is not revoked")
    raise CommandError(
        f"{name!r} is not on hold: it is revoked, reason {reason}",
        "only a hold (--reason certificateHold) is lifted; issue another certificate: muster ca issue NAME",
    )


def _issued(directory: "CaDirectory", name: str, issuer: str | None) -> "list[IssuedCertificate]":
    found = [one for one in directory.find(name, issuer) if not _is_own(directory, one)]
    if not found:
        raise CommandError(
            f"no CA in {directory.path} has issued {name!r}",
            "muster ca list shows what there is; roots are not revoked",
        )
    return found


def _choose(left: "list[IssuedCertificate]", name: str, *, every: bool) -> "list[IssuedCertificate]":
    """What is meant of the certificates that come into question: one, or all of one CA."""
    from muster.ca_directory import serial_text

    issuers = sorted({one.authority for one in left})
    if len(issuers) > 1:
        raise CommandError(f"{name!r} was issued by several CAs: {', '.join(issuers)}", "say which with --issuer")
    if len(left) > 1 and not every:
        serials = ", ".join(serial_text(one.serial_number) for one in left)
        raise CommandError(
            f"{name!r} has {len(left)} certificates: {serials}", "take one by its serial number, or all with --all"
        )
    return left


def _is_own(directory: "CaDirectory", one: "IssuedCertificate") -> bool:
    """Whether it is a root's certificate of its own: who trusts it does not ask it whether to."""
    return one.name == one.authority and directory.authority(one.authority).is_root


@with_records
def crl(
    *,
    issuer: IssuerName = None,
    days: Annotated[int, typer.Option(help="How many days until the next one is due.", min=1, max=3650)] = 30,
    out: Annotated[
        Path | None, typer.Option(help="Write it to this file too; it is in the CA's directory.", show_default=False)
    ] = None,
    form: Annotated[ListForm, typer.Option("--format", help="Form of that file.")] = ListForm.PEM,
    ca_dir: CaDir = DEFAULT_CA_DIR,
    ca_key: CaKeyOptions,
    force: Force = False,
    output: Output = Format.TABLE,
) -> None:
    """Sign the revocation list of a CA: all that it revoked, until the next list is due."""
    if out is not None:
        require_free([out], force=force)
    with told():
        directory = ca_directory(ca_dir)
        authority = directory.choose(issuer)
        opened = ca_key.open(authority)
        now = real_now()
        with directory.changing():
            content = authority.sign_list(opened, now, now + days * DAY)
    if out is not None:
        _write(content, form, out, force=force)
    _tell(authority, content, [authority.list_file, *([out] if out is not None else [])], output)


def _write(content: bytes, form: ListForm, out: Path, *, force: bool) -> None:
    from muster.pki.revocation import to_pem
    from muster.whole_files import PUBLIC_FILE, NewFile

    written = content if form is ListForm.DER else to_pem(content)
    write_files([NewFile(out, written, PUBLIC_FILE)], force=force)


def _tell(authority: "StoredAuthority", content: bytes, files: list[Path], output: Format) -> None:
    from muster.pki.certificate import utc_text
    from muster.pki.revocation import parse_revocation_list

    signed = parse_revocation_list(content)
    next_update = utc_text(signed.next_update or 0)
    if output is Format.JSON:
        print_json(
            {
                "issuer": authority.name,
                "number": signed.number,
                "thisUpdateUtc": utc_text(signed.this_update),
                "nextUpdateUtc": next_update,
                "revoked": len(signed.revocations),
                "files": list(map(str, files)),
            }
        )
        return
    rows: list[tuple[str, object]] = [
        ("Revocation list", f"number {signed.number} of {authority.name}"),
        ("Revoked", len(signed.revocations)),
        ("Next due", short_time(next_update)),
        *(("File", file) for file in files),
    ]
    print(record_text(rows))
