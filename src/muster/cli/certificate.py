"""``muster certificate``: the CA certificates of the provisioning service or of a hub, and their proof of possession
(dps.md 7.5, hub-service.md 10).

Not here: making certificates.
"""

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muster.cli.failure import CommandError
from muster.cli.options import DataDirectory, Output
from muster.cli.output import Format, print_json, printable, record_text, table_text

if TYPE_CHECKING:
    from muster.cli.management import Management, Owner, Resource

app = typer.Typer(
    help="Manage CA certificates of the provisioning service or of a hub.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
)

Name = Annotated[str, typer.Argument(help="Name of the CA certificate.", show_default=False)]
Etag = Annotated[
    str | None, typer.Option(help="Go on only if the certificate still has this ETag.", show_default=False)
]
Key = Annotated[
    Path | None,
    typer.Option(help="File with the CA's private key: prove possession with it.", show_default=False),
]
PassPhrase = Annotated[
    str | None,
    typer.Option(help="Pass phrase of that key; other users of this machine can see it.", show_default=False),
]
PassPhraseFile = Annotated[
    Path | None,
    typer.Option(help="File whose first line is the pass phrase of that key.", show_default=False),
]

HubName = Annotated[
    str | None,
    typer.Option("--hub", help="Name of the hub, for its CA certificates and not the service's.", show_default=False),
]

_ANY = "*"
_MICROSECOND = 1_000_000


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(help="CA certificate as PEM, DER or base64.", show_default=False)],
    *,
    name: Annotated[
        str | None, typer.Option(help="Name of the CA certificate, if not that of the file.", show_default=False)
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Verify it at once: with --key by a proof, without it on your word."),
    ] = False,
    key: Key = None,
    pass_phrase: PassPhrase = None,
    pass_phrase_file: PassPhraseFile = None,
    update: Annotated[bool, typer.Option("--update", help="Replace a CA certificate that exists already.")] = False,
    output: Output = Format.TABLE,
    hub: HubName = None,
    data_directory: DataDirectory = None,
) -> None:
    """Upload a CA certificate, root or intermediate, to which chains of devices may lead."""
    content = _read(file)
    if key is not None and not verify:
        raise typer.BadParameter("is for --verify", param_hint="--key")
    secret = _secret(pass_phrase, pass_phrase_file)
    name = name or file.stem
    certificates = _Certificates.connect(data_directory, hub)
    before = certificates.find(name)
    if before is not None and not update:
        raise CommandError(
            f"there is a CA certificate {printable(name)}", "replace it with --update, or choose another --name"
        )
    properties = {"certificate": base64.b64encode(content).decode(), "isVerified": verify and key is None}
    stored = certificates.put(name, properties, before["etag"] if before else None)
    if key is not None:
        stored = certificates.prove(name, key, secret)
    _show(stored, output)


@app.command(name="list")
def list_certificates(
    *, output: Output = Format.TABLE, hub: HubName = None, data_directory: DataDirectory = None
) -> None:
    """List the CA certificates."""
    found = _Certificates.connect(data_directory, hub).all()
    if output is Format.JSON:
        print_json(found)
        return
    rows = [
        (item["name"], _facts(item)["subject"], _verified(item), _facts(item)["expiry"], _facts(item)["thumbprint"])
        for item in found
    ]
    print(table_text(("Name", "Subject", "Verified", "Expiry", "Thumbprint"), rows))


@app.command()
def show(
    name: Name, *, output: Output = Format.TABLE, hub: HubName = None, data_directory: DataDirectory = None
) -> None:
    """Show a CA certificate."""
    _show(_Certificates.connect(data_directory, hub).get(name), output)


@app.command(name="generate-code")
def generate_code(
    name: Name,
    *,
    etag: Etag = None,
    output: Output = Format.TABLE,
    hub: HubName = None,
    data_directory: DataDirectory = None,
) -> None:
    """Begin a proof of possession: print the code that a certificate signed by the CA has to have as its common name.

    A code from earlier is worth nothing any more.
    """
    stored = _Certificates.connect(data_directory, hub).generate(name, etag or _ANY)
    if output is Format.JSON:
        print_json(stored)
    else:
        print(stored["properties"]["verificationCode"])


@app.command()
def verify(
    name: Name,
    proof: Annotated[
        Path | None, typer.Argument(help="Certificate that the CA signed for the code.", show_default=False)
    ] = None,
    *,
    key: Key = None,
    pass_phrase: PassPhrase = None,
    pass_phrase_file: PassPhraseFile = None,
    etag: Etag = None,
    output: Output = Format.TABLE,
    hub: HubName = None,
    data_directory: DataDirectory = None,
) -> None:
    """Finish a proof of possession with a certificate, or do all of it with --key."""
    if (proof is None) == (key is None):
        raise typer.BadParameter("give either the certificate that was signed for the code, or --key")
    secret = _secret(pass_phrase, pass_phrase_file)
    content = _read(proof) if proof is not None else b""
    certificates = _Certificates.connect(data_directory, hub)
    stored = certificates.verify(name, content, etag or _ANY) if key is None else certificates.prove(name, key, secret)
    _show(stored, output)


@app.command()
def delete(name: Name, *, etag: Etag = None, hub: HubName = None, data_directory: DataDirectory = None) -> None:
    """Delete a CA certificate. What refers to it, or leads to it, refuses devices from then on."""
    _Certificates.connect(data_directory, hub).delete(name, etag or _ANY)
    print(f"deleted CA certificate {printable(name)}")


class _Certificates:
    """The CA certificates of the provisioning service, or of a hub, of one server."""

    def __init__(self, management: "Management", owner: "Owner") -> None:
        self._management = management
        self._owner = owner

    @classmethod
    def connect(cls, data_directory: Path | None, hub: str | None) -> "_Certificates":
        from muster.cli.management import connect_management, hub_owner, service_owner

        management = connect_management(data_directory)
        owner = hub_owner(hub) if hub else service_owner(str(management.service()["name"]))
        return cls(management, owner)

    def all(self) -> list["Resource"]:
        return self._management.certificates(self._owner)

    def find(self, name: str) -> "Resource | None":
        return self._management.find_certificate(self._owner, name)

    def get(self, name: str) -> "Resource":
        return self._management.certificate(self._owner, "GET", name)

    def put(self, name: str, properties: "Resource", etag: str | None) -> "Resource":
        return self._management.certificate(self._owner, "PUT", name, body=properties, etag=etag)

    def generate(self, name: str, etag: str) -> "Resource":
        return self._management.certificate(self._owner, "POST", name, "generateVerificationCode", etag=etag)

    def verify(self, name: str, proof: bytes, etag: str) -> "Resource":
        body = {"certificate": base64.b64encode(proof).decode()}
        return self._management.certificate(self._owner, "POST", name, "verify", body=body, etag=etag)

    def delete(self, name: str, etag: str) -> None:
        if self.find(name) is None:
            raise CommandError(f"there is no CA certificate {printable(name)}", "`muster certificate list` shows all")
        self._management.certificate(self._owner, "DELETE", name, etag=etag)

    def prove(self, name: str, key: Path, pass_phrase: str | None) -> "Resource":
        """Ask for a code, sign it with the CA's key, and hand it in. Raises CommandError."""
        signer = _read_key(key, pass_phrase)
        begun = self.generate(name, _ANY)
        proof = _sign(begun, signer, key, self._management.client.now * _MICROSECOND)
        return self.verify(name, proof, begun["etag"])


def _sign(begun: "Resource", key: Any, file: Path, now: int) -> bytes:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    from muster.pki.issuance import Issuer, prove_possession
    from muster.pki.problem import AuthorityError

    properties = begun["properties"]
    authority = x509.load_der_x509_certificate(base64.b64decode(properties["certificate"]))
    try:
        proof = prove_possession(Issuer(authority, key), properties["verificationCode"], now, os.urandom)
    except AuthorityError as error:
        raise CommandError(f"cannot prove possession with {file}: {error}") from error
    return proof.public_bytes(Encoding.PEM)


def _read_key(file: Path, pass_phrase: str | None) -> Any:
    from muster.cli.pass_phrase import unlock
    from muster.pki.private_key import PrivateKeyError, read_private_key

    content = _read(file)
    try:
        return unlock(lambda secret: read_private_key(content, secret), pass_phrase, str(file))
    except PrivateKeyError as error:
        raise CommandError(f"{file}: {error}", "give the file with the private key of the CA") from error


def _secret(text: str | None, file: Path | None) -> str | None:
    from muster.cli.pass_phrase import choose_pass_phrase

    return choose_pass_phrase(text, file)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from error


def _facts(certificate: "Resource") -> "Resource":
    facts: Resource = certificate["properties"]
    return facts


def _verified(certificate: "Resource") -> str:
    return "yes" if _facts(certificate)["isVerified"] else "no"


def _show(certificate: "Resource", output: Format) -> None:
    if output is Format.JSON:
        print_json(certificate)
        return
    facts = _facts(certificate)
    rows = [
        ("Name", certificate["name"]),
        ("Subject", facts["subject"]),
        ("Verified", _verified(certificate)),
        ("Expiry", facts["expiry"]),
        ("Thumbprint", facts["thumbprint"]),
        ("Created", facts["created"]),
        ("Updated", facts["updated"]),
        ("ETag", certificate["etag"]),
    ]
    print(record_text(rows))
