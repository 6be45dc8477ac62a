"""``muster cert``: make a self-signed certificate for a device, and tell whether DPS would take one.

Works without a server. Not here: how certificates are made (``pki/authority.py``) and judged
(``domain/attestation.py``).
"""

import os
import shlex
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.certificate_facts import certificate_document, certificate_rows
from muster.cli.checks import check_lines, marks
from muster.cli.doctor import add_doctor, read_chain
from muster.cli.failure import CommandError
from muster.cli.output import Format, print_json, printable, record_text
from muster.cli.pass_phrase import choose_pass_phrase
from muster.cli.registration_ids import require_registration_id

if TYPE_CHECKING:
    from muster.domain.report import Check
    from muster.pki.authority import Credential
    from muster.pki.certificate import Certificate

app = typer.Typer(
    add_completion=False, help="Make and inspect device certificates.", no_args_is_help=True, rich_markup_mode=None
)

_COMMON_NAME_LENGTH = 64
_ABOUT_THE_ENROLLMENT = ("x509.certificate-presented", "x509.thumbprint")
"""Checks that a certificate alone cannot fail."""

Output = Annotated[Format, typer.Option("--output", "-o", help="How to print the answer.")]


class KeyKind(StrEnum):
    """The choices of ``--key``."""

    RSA_4096 = "rsa-4096"
    EC_P256 = "ec-p256"


@app.command()
def device(
    name: Annotated[str, typer.Argument(help="Registration id; becomes the common name.", show_default=False)],
    *,
    key: Annotated[KeyKind, typer.Option(help="Kind of key.")] = KeyKind.RSA_4096,
    days: Annotated[int, typer.Option(help="How many days it is valid.", min=1)] = 365,
    pass_phrase: Annotated[
        str | None,
        typer.Option(help="Encrypt the key with this; other users of this machine can see it.", show_default=False),
    ] = None,
    pass_phrase_file: Annotated[
        Path | None,
        typer.Option(help="Encrypt the key with the first line of this file.", show_default=False),
    ] = None,
    ask: Annotated[bool, typer.Option("--ask", help="Encrypt the key, and ask for the pass phrase.")] = False,
    directory: Annotated[Path, typer.Option(help="Where to write NAME.pem and NAME.key.")] = Path(),
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist already.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make a self-signed client certificate: NAME.pem to enroll, NAME.key to stay on the device."""
    _require_name(name)
    certificate_file, key_file = directory / f"{name}.pem", directory / f"{name}.key"
    _require_free(certificate_file, key_file, force=force)
    secret = choose_pass_phrase(pass_phrase, pass_phrase_file, ask=ask)
    from muster.pki.authority import AuthorityError, create_device_certificate
    from muster.pki.certificate import parse_certificate, read_certificates

    try:
        made = create_device_certificate(name, _now(), key_kind=key, days=days, pass_phrase=secret)
    except AuthorityError as error:
        raise CommandError(f"cannot make the certificate: {error}") from error
    _write_both(made, certificate_file, key_file, force=force)
    facts = parse_certificate(read_certificates(made.certificate_pem)[0])
    following = f"muster enrollment create --certificate {shlex.quote(str(certificate_file))}"
    if output is Format.JSON:
        files = {
            "certificate": str(certificate_file),
            "key": str(key_file),
            "keyEncrypted": secret is not None,
        }
        print_json({**files, **certificate_document(facts), "next": following})
        return
    protection = "encrypted" if secret is not None else "not encrypted"
    rows = [("Certificate", certificate_file), ("Key", f"{key_file} ({protection}, stays on the device)")]
    print(record_text([*rows, *certificate_rows(facts, _now())]))
    print(f"\nNext: {following}")


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="Certificate as PEM, DER or base64.", show_default=False)],
    *,
    registration_id: Annotated[
        str | None,
        typer.Option(help="Registration id to judge it for; else its common name.", show_default=False),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what is in a certificate, and whether DPS would accept it. Exit code 0 only if it would."""
    from muster.pki.certificate import parse_certificate

    chain = read_chain([file])
    certificates = [parse_certificate(one) for one in chain]
    wanted = registration_id if registration_id is not None else certificates[0].common_name or ""
    checks, answer = _judge(chain, wanted, _now())
    if output is Format.JSON:
        _print_inspection_json(file, certificates, wanted, answer, checks)
    else:
        _print_inspection(file, certificates, wanted, answer, checks)
    if answer:
        raise typer.Exit(1)


def _judge(chain: Sequence[bytes], registration_id: str, now: int) -> tuple[tuple["Check", ...], str]:
    """The checks that a certificate alone can fail, and what DPS answers; nothing if it accepts."""
    from muster.domain.attestation import EnrolledCertificates, attest_x509_individual, enrolled_certificate
    from muster.domain.check_table import verdict

    enrolled = EnrolledCertificates(primary=enrolled_certificate(chain[0]))
    checks = attest_x509_individual(tuple(chain), enrolled, registration_id, now)
    error = verdict(checks)
    answer = f"{error.code} {error.message}" if error else ""
    return tuple(check for check in checks if check.id not in _ABOUT_THE_ENROLLMENT), answer


def _diagnose(chain: list[bytes], registration_id: str, at: int | None) -> dict[str, Any]:
    """What the server's dry run would answer, as far as the certificates alone tell it."""
    import msgspec

    checks, answer = _judge(chain, registration_id, _now() if at is None else at)
    return {
        "server": False,
        "registrationId": registration_id,
        "enrollment": None,
        "decides": None,
        "verdict": "refused" if answer else "accepted",
        "answer": answer,
        "checks": msgspec.to_builtins(checks),
    }


add_doctor(app, _diagnose)


def _now() -> int:
    return time.time_ns() // 1000


def _require_name(name: str) -> None:
    require_registration_id(name)
    if len(name) > _COMMON_NAME_LENGTH:
        raise CommandError(
            f"the name has {len(name)} characters; a common name has at most {_COMMON_NAME_LENGTH}",
            "DPS compares the common name with the registration id: choose a shorter one",
        )


def _require_free(*files: Path, force: bool) -> None:
    """That the files may be written: asked before a key is made, which takes its time."""
    present = [str(file) for file in files if os.path.lexists(file) and (not force or file.is_dir())]
    if present:
        exist = "exist" if len(present) > 1 else "exists"
        raise CommandError(
            f"{' and '.join(present)} {exist} already", "replace files with --force, or choose another --directory"
        )


def _write_both(made: "Credential", certificate_file: Path, key_file: Path, *, force: bool) -> None:
    """Write both files or none. With ``force`` what was there stays until both new ones are complete."""
    from muster.whole_files import PRIVATE_FILE, PUBLIC_FILE, NewFile, write_together

    files = (
        NewFile(key_file, made.key_pem, PRIVATE_FILE),
        NewFile(certificate_file, made.certificate_pem, PUBLIC_FILE),
    )
    try:
        write_together(files, replace=force)
    except OSError as error:
        raise CommandError(f"cannot write {error.filename or key_file.parent}: {error.strerror}") from error


def _print_inspection(
    file: Path,
    certificates: Sequence["Certificate"],
    registration_id: str,
    answer: str,
    checks: Sequence["Check"],
) -> None:
    count = len(certificates)
    for number, facts in enumerate(certificates, 1):
        place = f" ({number} of {count})" if count > 1 else ""
        print(record_text([("File", f"{file}{place}"), *certificate_rows(facts, _now())]), end="\n\n")
    print(f"For registration id {printable(registration_id)!r}, as an individual enrollment:")
    import msgspec

    print(*check_lines(msgspec.to_builtins(checks), marks()), sep="\n")
    print(f"\nDPS refuses it: {answer}" if answer else "\nDPS accepts it.")


def _print_inspection_json(
    file: Path,
    certificates: Sequence["Certificate"],
    registration_id: str,
    answer: str,
    checks: Sequence["Check"],
) -> None:
    import msgspec

    print_json(
        {
            "file": str(file),
            "registrationId": registration_id,
            "accepted": not answer,
            "answer": answer,
            "certificates": [certificate_document(facts) for facts in certificates],
            "checks": msgspec.to_builtins(checks),
        }
    )
