"""``muster cert doctor``: would DPS accept these certificates? Asked before any device is flashed.

With a server its own checks are made on its own enrollments; without one, those that need only the certificate. Not
here: the checks.
"""

import base64
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.checks import check_lines, marks
from muster.cli.failure import CommandError, UnreachableError
from muster.cli.options import ConnectionString, DataDirectory, Output, connect
from muster.cli.output import Format, print_json, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from muster.cli.client import Client
    from muster.pki.known_revocations import KnownRevocations

Document = dict[str, Any]


def read_chain(files: list[Path]) -> list[bytes]:
    """The certificates of the files, in their order: the device's own first. Raises CommandError."""
    from muster.pki.certificate import CertificateFormatError, read_certificates

    chain: list[bytes] = []
    for file in files:
        try:
            chain += read_certificates(file.read_bytes())
        except OSError as error:
            raise CommandError(f"cannot read {file}: {error.strerror}") from error
        except CertificateFormatError as error:
            raise CommandError(
                f"{file}: {error}", "give the file with the certificate, as PEM, DER or base64; not the key"
            ) from error
    return chain


def add_doctor(app: typer.Typer, judge_alone: "Callable[[list[bytes], str, int | None], Document]") -> None:
    """Give ``app`` the command. ``judge_alone`` judges a chain without a server: chain, registration id, time."""

    @app.command()
    def doctor(
        files: Annotated[
            list[Path],
            typer.Argument(
                metavar="FILE...", help="Certificates as the device sends them, its own first.", show_default=False
            ),
        ],
        *,
        enrollment: Annotated[
            str | None, typer.Option(help="Judge by this individual enrollment.", show_default=False)
        ] = None,
        group: Annotated[str | None, typer.Option(help="Judge by this enrollment group.", show_default=False)] = None,
        registration_id: Annotated[
            str | None, typer.Option(help="Registration id; else the common name.", show_default=False)
        ] = None,
        at: Annotated[
            str | None, typer.Option(help="As if it were this time.", metavar="TIME", show_default=False)
        ] = None,
        crl: Annotated[
            list[Path] | None,
            typer.Option(
                metavar="FILE|DIRECTORY",
                help="Ask these revocation lists too; may be given again.",
                show_default=False,
            ),
        ] = None,
        output: Output = Format.TABLE,
        connection_string: ConnectionString = None,
        data_directory: DataDirectory = None,
    ) -> None:
        """Tell whether DPS would accept a device with these certificates, and why not. Exit code 0 only if it would."""
        if enrollment and group:
            raise typer.BadParameter("give only one of --enrollment and --group")
        chain = read_chain(files)
        time = _time(at)
        name = registration_id or enrollment or _common_name(chain[0])
        revocations = read_revocations(crl) if crl else None
        named = bool(enrollment or group or connection_string or data_directory)
        try:
            found = _ask(connect(connection_string, data_directory), name, chain, (enrollment, group, at))
        except UnreachableError:
            if named:
                raise
            found = judge_alone(chain, name, time)
        if revocations is not None:
            add_revocation(found, revocations, chain, time)
        if output is Format.JSON:
            print_json(found)
        else:
            print(diagnosis_text(found))
        if found["verdict"] != "accepted":
            raise typer.Exit(1)


def _ask(
    client: "Client", name: str, chain: list[bytes], options: tuple[str | None, str | None, str | None]
) -> Document:
    enrollment, group, at = options
    members = {"registrationId": name, "enrollmentId": enrollment, "groupId": group, "at": at}
    body = {
        **{member: value for member, value in members.items() if value},
        "certificates": [base64.b64encode(der).decode("ascii") for der in chain],
    }
    found: Document = client.request(client.target.provisioning, "POST", "/muster/v1/attestations", body=body).document
    return found


def read_revocations(paths: list[Path]) -> "KnownRevocations":
    """The lists in files and directories. Raises CommandError."""
    from muster.revocation_files import RevocationFiles

    files = RevocationFiles(paths)
    problems = files.read().problems
    if problems:
        raise CommandError("; ".join(problems), "give files with revocation lists, or the directory of your CAs")
    return files.known()


def add_revocation(found: Document, revocations: "KnownRevocations", chain: list[bytes], at: int | None) -> None:
    """Add what the lists say to a diagnosis. The server may have lists of its own: its refusal stays."""
    import time

    import msgspec

    from muster.domain.check_table import verdict
    from muster.domain.revocation import REVOCATION, REVOCATION_LIST, check_presented

    kept = [check for check in found["checks"] if check["id"] not in (REVOCATION, REVOCATION_LIST)]
    if any(check["id"] == REVOCATION and check["outcome"] == "refused" for check in found["checks"]):
        return
    checks = check_presented(revocations, chain, time.time_ns() // 1000 if at is None else at)
    found["checks"] = [*kept, *msgspec.to_builtins(checks)]
    error = verdict(checks)
    if error is not None and found["verdict"] in ("accepted", "disabled"):
        found["verdict"], found["answer"] = "refused", f"{error.code} {error.message}"


def diagnosis_text(found: Document) -> str:
    """The verdict, what it was judged by, every check, what Azure answers, and what to do."""
    lines = [f"{printable(found['verdict']).upper()}  register {printable(found['registrationId'])}"]
    facts = [
        ("judged by", _name_of(found["enrollment"]) if found.get("server", True) else "the certificate alone"),
        ("credential", printable(found.get("credential"))),
        ("Azure answers", printable(found["answer"])),
    ]
    lines += [f"  {label.ljust(_LABEL_WIDTH)}{text}" for label, text in facts if text]
    lines += ["", *check_lines(found["checks"], marks())]
    if not found.get("server", True):
        lines += ["", "  No server answers: whether the device is enrolled was not looked at (`muster up`)."]
    elif found["decides"] != found["enrollment"]:
        lines += ["", f"  In reality {_name_of(found['decides'])} decides about this device."]
    return "\n".join(lines)


def _name_of(reference: Document | None) -> str:
    if reference is None:
        return "no enrollment"
    noun = "individual enrollment" if reference["kind"] == "individual" else "enrollment group"
    return f"{noun} {printable(reference['id'])}"


_LABEL_WIDTH = 16


def _time(text: str | None) -> int | None:
    from muster.domain.timestamp import parse_iso

    try:
        return None if text is None else parse_iso(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def _common_name(certificate: bytes) -> str:
    from muster.pki.certificate import parse_certificate

    name = parse_certificate(certificate).common_name
    if not name:
        raise CommandError("the first certificate has no common name", "say --registration-id")
    return name
