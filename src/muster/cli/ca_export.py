"""``muster ca export``: certificates of a CA directory as PEM, DER, PFX, or with those above them.

Not here: private keys on their own; they never leave the directory but in a PFX file.
"""

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.ca_facts import pem, sent_chain
from muster.cli.ca_options import (
    DEFAULT_CA_DIR,
    Ask,
    CaDir,
    CaKeyOptions,
    Force,
    ca_directory,
    read_bytes,
    require_free,
    told,
    write_files,
)
from muster.cli.failure import CommandError
from muster.cli.option_records import with_records
from muster.cli.pass_phrase import choose_pass_phrase, unlock

if TYPE_CHECKING:
    from cryptography import x509

    from muster.ca_directory import CaDirectory
    from muster.pki.private_key import PrivateKey


class Form(StrEnum):
    """The choices of ``--format``."""

    PEM = "pem"
    DER = "der"
    FULL_CHAIN = "fullchain"
    BUNDLE = "bundle"
    PFX = "pfx"


@with_records
def export(
    name: Annotated[
        str, typer.Argument(help="A CA, or the name or serial number of a certificate.", show_default=False)
    ],
    *,
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="pem or der: the certificate; fullchain: with the intermediates, as devices send it;"
            " bundle: with the root too; pfx: with the private key.",
        ),
    ] = Form.PEM,
    out: Annotated[Path | None, typer.Option(help="File to write; else standard output.", show_default=False)] = None,
    key: Annotated[
        Path | None, typer.Option(help="For pfx: the private key of a device's certificate.", show_default=False)
    ] = None,
    key_pass_phrase_file: Annotated[
        Path | None, typer.Option(help="The pass phrase of --key is the first line of this file.", show_default=False)
    ] = None,
    ca_dir: CaDir = DEFAULT_CA_DIR,
    ca_key: CaKeyOptions,
    pass_phrase: Annotated[
        str | None,
        typer.Option(help="For pfx: encrypt it with this; other users of this machine can see it.", show_default=False),
    ] = None,
    pass_phrase_file: Annotated[
        Path | None, typer.Option(help="For pfx: encrypt it with the first line of this file.", show_default=False)
    ] = None,
    ask: Ask = False,
    force: Force = False,
) -> None:
    """Export a certificate. Of several with the name it is the newest."""
    binary = form in (Form.DER, Form.PFX)
    if binary and out is None:
        raise typer.BadParameter(f"{form} is for a file: give --out")
    if out is not None:
        require_free([out], force=force)
    secret = choose_pass_phrase(pass_phrase, pass_phrase_file, ask=ask)
    if (form is Form.PFX) != (secret is not None):
        problem = "is for pfx alone" if secret is not None else "is needed for pfx: --pass-phrase-file or --ask"
        raise typer.BadParameter(f"a pass phrase {problem}")
    with told():
        directory = ca_directory(ca_dir)
        chain = _chain(directory, name)
        if secret is not None:
            own = _key_of(directory, name, key, key_pass_phrase_file, ca_key)
            content = _pfx(name, own, chain, secret)
        else:
            content = _certificates(chain, form)
    if out is None:
        sys.stdout.write(content.decode())
    else:
        _write(out, content, secret is not None, force=force)


def _chain(directory: "CaDirectory", name: str) -> tuple["x509.Certificate", ...]:
    """The certificate and those above it."""
    from cryptography import x509

    if directory.has(name):
        return directory.authority(name).chain
    found = directory.find(name)
    if not found:
        raise CommandError(
            f"there is no certificate {name!r} in {directory.path}", "muster ca list shows what there is"
        )
    newest = max(found, key=lambda one: one.time)
    return (x509.load_der_x509_certificate(newest.certificate), *directory.authority(newest.authority).chain)


def _certificates(chain: tuple["x509.Certificate", ...], form: Form) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding

    if form is Form.DER:
        return chain[0].public_bytes(Encoding.DER)
    if form is Form.FULL_CHAIN:
        return pem(*sent_chain(chain))
    return pem(*chain) if form is Form.BUNDLE else pem(chain[0])


def _key_of(
    directory: "CaDirectory",
    name: str,
    key: Path | None,
    key_pass_phrase_file: Path | None,
    ca_key: CaKeyOptions,
) -> "PrivateKey":
    from muster.pki.private_key import read_private_key

    if key is not None:
        content = read_bytes(key)
        given = choose_pass_phrase(None, key_pass_phrase_file, options="key-")
        return unlock(lambda secret: read_private_key(content, secret), given, str(key))
    if directory.has(name):
        return ca_key.open(directory.authority(name)).key
    raise CommandError(f"the private key of {name!r} is not kept here", "give its file with --key")


def _pfx(name: str, key: "PrivateKey", chain: tuple["x509.Certificate", ...], pass_phrase: str) -> bytes:
    from muster.pki.key_store import write_pfx

    if chain[0].public_key() != key.public_key():
        raise CommandError(f"the private key does not belong to the certificate {name!r}")
    return write_pfx(name, key, chain, pass_phrase)


def _write(out: Path, content: bytes, private: bool, *, force: bool) -> None:
    from muster.whole_files import PRIVATE_FILE, PUBLIC_FILE, NewFile

    write_files([NewFile(out, content, PRIVATE_FILE if private else PUBLIC_FILE)], force=force)
    print(f"wrote {out}")
