"""``muster ca init --import``: adopt a CA that was made elsewhere, with its key.

Not here: the forms in which it comes (``pki/key_store.py``).
"""

from pathlib import Path
from typing import TYPE_CHECKING

from muster.cli.ca_facts import read_facts
from muster.cli.ca_options import read_bytes, real_now
from muster.cli.failure import CommandError
from muster.cli.pass_phrase import unlock

if TYPE_CHECKING:
    from cryptography import x509

    from muster.ca_directory import CaDirectory, StoredAuthority
    from muster.pki.key_store import KeyStore
    from muster.pki.private_key import PrivateKey

_ADOPTED = "root-ca"


def adopt(
    directory: "CaDirectory",
    name: str,
    file: Path,
    key_file: Path | None,
    pass_phrase: str | None,
    *,
    replaces: bool,
) -> "StoredAuthority":
    """Store a CA that was made elsewhere; its key keeps its pass phrase, or gets the one that was given.

    The certificates above it are those in the file, and those of the CAs that are here. Raises CommandError, and what
    ``told`` tells.
    """
    from muster.pki.issuance import Issuer, issuers_of
    from muster.pki.private_key import write_private_key

    directory.require_free(name, replace=replaces)
    certificates, key, secret = _read(file, key_file, pass_phrase)
    own = _own_certificate(certificates, key)
    known = [*certificates, *(one for stored in directory.authorities() for one in stored.chain)]
    issuer = Issuer(own, key, issuers_of(own, known))
    with directory.changing():
        stored = directory.add(name, issuer.chain, write_private_key(key, secret), replace=replaces)
        if stored.is_root:
            stored.record([(name, _ADOPTED, own)], real_now())
    return stored


def _read(
    file: Path, key_file: Path | None, pass_phrase: str | None
) -> tuple[list["x509.Certificate"], "PrivateKey", str | None]:
    """The certificates, the key, and the pass phrase that opened them, which may have been asked for."""
    from muster.pki.key_store import read_key_store
    from muster.pki.private_key import read_private_key

    content, key_content = read_bytes(file), None if key_file is None else read_bytes(key_file)
    tried: list[str | None] = []

    def read(secret: str | None) -> "tuple[KeyStore, PrivateKey | None]":
        tried.append(secret)
        found = read_key_store(content, secret)
        return found, found.key if key_content is None else read_private_key(key_content, secret)

    found, key = unlock(read, pass_phrase, str(key_file or file))
    if key is None:
        raise CommandError(f"there is no private key in {file}", "give its file with --import-key")
    return found.load(), key, tried[-1]


def _own_certificate(certificates: list["x509.Certificate"], key: "PrivateKey") -> "x509.Certificate":
    from muster.pki.private_key import public_key_problem

    own = next((one for one in certificates if one.public_key() == key.public_key()), None)
    if own is None:
        raise CommandError("the private key belongs to none of the certificates in the file")
    if read_facts(own).is_ca is not True:
        raise CommandError("its certificate is not one of a CA: it lacks CA:TRUE")
    problem = public_key_problem(key.public_key())
    if problem is not None:
        raise CommandError(f"its key is not taken: {problem}")
    return own
