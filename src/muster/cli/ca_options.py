"""The options that the ``muster ca`` commands share, and how the errors of a CA are told.

Not here: the commands (``cli/ca.py`` and its neighbours).
"""

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from muster.cli.failure import CommandError
from muster.cli.pass_phrase import choose_pass_phrase, unlock

if TYPE_CHECKING:
    from muster.ca_directory import CaDirectory, StoredAuthority
    from muster.pki.issuance import Issuer
    from muster.whole_files import NewFile

DAY = 86_400_000_000
"""Microseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DATE = re.compile(r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?Z?")


class KeyKind(StrEnum):
    """The choices of ``--key``."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    EC_P256 = "ec-p256"
    EC_P384 = "ec-p384"
    EC_P521 = "ec-p521"
    ED25519 = "ed25519"


CaDir = Annotated[Path, typer.Option("--ca-dir", help="The directory of the CAs.")]
IssuerName = Annotated[
    str | None,
    typer.Option(
        "--issuer", help="The CA that signs; not needed where only one comes into question.", show_default=False
    ),
]
Key = Annotated[KeyKind | None, typer.Option(help="Kind of key; else that of the profile.", show_default=False)]
Days = Annotated[
    int | None, typer.Option(help="How many days it is valid; else those of the profile.", min=1, show_default=False)
]
Profile = Annotated[str, typer.Option(help="Which profile it follows; muster ca profiles lists them.")]
Subject = Annotated[
    str | None,
    typer.Option(help='The subject: "CN=.., O=.., C=NL". Without CN the name is put below it.', show_default=False),
]
CaPassPhrase = Annotated[
    str | None,
    typer.Option(help="Of the CA's key, if it has one; other users of this machine can see it.", show_default=False),
]
CaPassPhraseFile = Annotated[
    Path | None, typer.Option(help="Its pass phrase is the first line of this file.", show_default=False)
]
PassPhrase = Annotated[
    str | None,
    typer.Option(help="Encrypt the new key with this; other users of this machine can see it.", show_default=False),
]
PassPhraseFile = Annotated[
    Path | None, typer.Option(help="Encrypt the new key with the first line of this file.", show_default=False)
]
Ask = Annotated[bool, typer.Option("--ask", help="Encrypt the new key, and ask for the pass phrase.")]
Out = Annotated[Path, typer.Option(help="Directory for the files.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there already.")]
At = Annotated[
    str | None,
    typer.Option("--at", help="As of that time: 2027-01-01, 2027-01-01T12:00Z, or +400d.", show_default=False),
]

DEFAULT_CA_DIR = Path("ca")


@dataclass(frozen=True)
class CaKeyOptions:
    """With what the key of a CA is read, for ``cli/option_records.py``."""

    ca_pass_phrase: CaPassPhrase = None
    ca_pass_phrase_file: CaPassPhraseFile = None

    def open(self, authority: "StoredAuthority") -> "Issuer":
        """A CA with its key; its pass phrase is asked for when it needs one and none was given. Raises CommandError."""
        given = choose_pass_phrase(self.ca_pass_phrase, self.ca_pass_phrase_file, options="ca-")
        with told():
            return unlock(authority.open, given, f"the CA {authority.name!r}")


@dataclass(frozen=True)
class NewKeyOptions:
    """With what a new key is encrypted."""

    pass_phrase: PassPhrase = None
    pass_phrase_file: PassPhraseFile = None
    ask: Ask = False

    def choose(self) -> str | None:
        """The pass phrase, None for a key that is not encrypted. Raises CommandError."""
        return choose_pass_phrase(self.pass_phrase, self.pass_phrase_file, ask=self.ask)


def real_now() -> int:
    """Microseconds UTC."""
    return time.time_ns() // 1000


def moment_of(at: str | None) -> int:
    """The time that ``--at`` means, now without it, in microseconds UTC. Raises typer's usage error."""
    from muster.cli.up import parse_offset

    if at is None:
        return real_now()
    try:
        if _DATE.fullmatch(at):
            return (datetime.fromisoformat(at.removesuffix("Z")).replace(tzinfo=UTC) - _EPOCH) // timedelta(
                microseconds=1
            )
        return real_now() + parse_offset(at)
    except ValueError:
        raise typer.BadParameter(
            f"{at!r} is no time: write 2027-01-01, 2027-01-01T12:00Z, or +400d", param_hint="--at"
        ) from None


def ca_directory(path: Path) -> "CaDirectory":
    from muster.ca_directory import CaDirectory

    return CaDirectory(path)


@contextmanager
def told() -> Iterator[None]:
    """From the errors of certificates and CAs to those that the command line tells, with their reasons and fixes."""
    from muster.ca_directory import CaDirectoryError
    from muster.pki.certificate import CertificateFormatError
    from muster.pki.certificate_profiles import ProfileError
    from muster.pki.certificate_request import RequestFormatError
    from muster.pki.key_store import KeyStoreError
    from muster.pki.names import NameTextError
    from muster.pki.private_key import PrivateKeyError
    from muster.pki.problem import AuthorityError
    from muster.pki.revocation import RevocationListError

    try:
        yield
    except CaDirectoryError as error:
        raise CommandError(error.message, error.advice) from error
    except AuthorityError as error:
        fixes = dict.fromkeys(problem.fix for problem in error.problems if problem.fix)
        raise CommandError(f"it is not signed: {error}", "; ".join(fixes)) from error
    except (
        CertificateFormatError,
        KeyStoreError,
        NameTextError,
        PrivateKeyError,
        ProfileError,
        RequestFormatError,
        RevocationListError,
    ) as error:
        raise CommandError(str(error)) from error


def read_bytes(file: Path) -> bytes:
    """Raises CommandError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from error


def require_free(files: Iterable[Path], *, force: bool) -> None:
    """That the files may be written: asked before anything is signed. Raises CommandError."""
    present = [str(file) for file in files if file.is_symlink() or file.exists()]
    if present and not force:
        more = f" and {len(present) - 3} more" if len(present) > 3 else ""  # noqa: PLR2004 - as many as are named
        raise CommandError(
            f"{', '.join(present[:3])}{more} exist{'' if len(present) > 1 else 's'} already",
            "replace files with --force, or choose another --out",
        )


def write_files(files: "Iterable[NewFile]", *, force: bool, advice: str = "") -> None:
    """All or none. Raises CommandError."""
    from muster.whole_files import write_together

    files = list(files)
    try:
        write_together(files, replace=force)
    except OSError as error:
        raise CommandError(f"cannot write {error.filename or files[0].path}: {error.strerror}", advice) from error
