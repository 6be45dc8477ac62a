"""A directory of CAs: for each one its certificate, its key, and a journal of what it issued and revoked.

::

    ca/                      0700, every file in it 0600
      lock                   held while something changes
      profiles.toml          profiles of the user, if there are any
      line-a/
        line-a.pem           the CA's certificate
        chain.pem            that, and those above it, up to the root
        private.key          PKCS#8
        journal.jsonl        what it did, one line each, only ever added to
        crl.pem              its last revocation list
      replaced/line-a-1F.../ what was set aside for a new CA of the same name

A line in the journal is on the disk before anybody gets what it tells of. Not here: how certificates are made
(``pki/issuance.py``), and what the command line asks for.
"""

import contextlib
import fcntl
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.pki.certificate_order import CertificateOrder
from muster.pki.certificate_profiles import PROFILES, CertificateProfile, ProfileError, read_profiles
from muster.pki.issuance import Issuer, issue
from muster.pki.private_key import read_private_key
from muster.pki.revocation import HOLD, Revocation, sign_revocation_list, to_pem
from muster.whole_files import write_private

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""What a CA can be called here."""

_PRIVATE_DIRECTORY = 0o700
_LOCK = "lock"
_PROFILES = "profiles.toml"
_REPLACED = "replaced"
_RESERVED = (_LOCK, _PROFILES, _REPLACED, "chain", "crl")
_CHAIN = "chain.pem"
_KEY = "private.key"
_JOURNAL = "journal.jsonl"
_LIST = "crl.pem"


class CaDirectoryError(Exception):
    """The directory does not allow it. ``message`` says what is wrong, ``advice`` what to do, if anything is known."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class _Issued(msgspec.Struct, frozen=True, tag="issued", tag_field="event", rename="camel"):
    time: int
    name: str
    profile: str
    serial_number: str
    certificate: bytes


class _Revoked(msgspec.Struct, frozen=True, tag="revoked", tag_field="event", rename="camel"):
    time: int
    serial_number: str
    reason: str


class _Lifted(msgspec.Struct, frozen=True, tag="lifted", tag_field="event", rename="camel"):
    time: int
    serial_number: str


class _ListSigned(msgspec.Struct, frozen=True, tag="crl", tag_field="event", rename="camel"):
    time: int
    number: int
    next_update: int


_Event = _Issued | _Revoked | _Lifted | _ListSigned
_DECODER: msgspec.json.Decoder[_Event] = msgspec.json.Decoder(_Event)


class IssuedCertificate(msgspec.Struct, frozen=True):
    """A certificate in a journal.

    ``authority`` is the CA's name here, ``certificate`` is DER, ``time`` is when it was issued, in microseconds UTC.
    ``is_replaced``: the same CA issued a newer one under the same name, which is not revoked.
    """

    authority: str
    name: str
    profile: str
    time: int
    serial_number: int
    certificate: bytes
    revocation: Revocation | None
    is_replaced: bool


class NamedOrder(NamedTuple):
    """An order with the name and the profile under which it stands in the journal."""

    name: str
    profile: str
    order: CertificateOrder


def serial_text(serial_number: int) -> str:
    """Upper hex with an even number of digits, as certificates are shown."""
    digits = f"{serial_number:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


class StoredAuthority:
    """One CA of the directory, as it was when this was made; the journal is read anew each time."""

    def __init__(self, folder: Path) -> None:
        """Raises CaDirectoryError when the folder holds no CA that can be read."""
        self.folder = folder
        self.name = folder.name
        try:
            with warnings.catch_warnings():
                # The library warns of serial numbers that the standard forbids; a CA made elsewhere may have one.
                warnings.simplefilter("ignore")
                self.chain = tuple(x509.load_pem_x509_certificates((folder / _CHAIN).read_bytes()))
        except (OSError, ValueError) as error:
            raise CaDirectoryError(f"the CA {self.name!r} in {folder} cannot be read: {error}") from None
        self.certificate = self.chain[0]

    @property
    def certificate_file(self) -> Path:
        return self.folder / f"{self.name}.pem"

    @property
    def key_file(self) -> Path:
        return self.folder / _KEY

    @property
    def list_file(self) -> Path:
        return self.folder / _LIST

    @property
    def is_root(self) -> bool:
        return self.certificate.issuer == self.certificate.subject

    def open(self, pass_phrase: str | None) -> Issuer:
        """With its key. Raises PassPhraseError, PrivateKeyError, AuthorityError, and CaDirectoryError."""
        try:
            content = self.key_file.read_bytes()
        except OSError as error:
            raise CaDirectoryError(f"the key of the CA {self.name!r} cannot be read: {error.strerror}") from None
        return Issuer(self.certificate, read_private_key(content, pass_phrase), self.chain[1:])

    # The journal

    def issued(self) -> list[IssuedCertificate]:
        """All certificates that it ever issued, the oldest first; a root's own is among them."""
        return _fold(self.name, self._events())

    def list_number(self) -> int:
        """That of its last revocation list; 0 before the first."""
        return max((event.number for event in self._events() if isinstance(event, _ListSigned)), default=0)

    def next_update(self) -> int | None:
        """When its last revocation list wants to be followed by a new one; None before the first."""
        times = [event.next_update for event in self._events() if isinstance(event, _ListSigned)]
        return times[-1] if times else None

    def _events(self) -> list[_Event]:
        try:
            content = (self.folder / _JOURNAL).read_bytes()
        except FileNotFoundError:
            return []
        # What stands behind the last end of line was cut off by a crash, and nobody got what it tells of.
        lines = content.split(b"\n")[:-1]
        return [self._event(number, line) for number, line in enumerate(lines, 1)]

    def _event(self, number: int, line: bytes) -> _Event:
        try:
            return _DECODER.decode(line)
        except msgspec.MsgspecError as error:
            journal = self.folder / _JOURNAL
            raise CaDirectoryError(
                f"line {number} of {journal} cannot be read: {error}", "restore the journal from a backup"
            ) from None

    def _append(self, events: Iterable[_Event]) -> None:
        """One write, on the disk when this returns. The lock has to be held."""
        lines = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
        descriptor = os.open(self.folder / _JOURNAL, os.O_RDWR | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b") as journal:
            journal.seek(_complete(journal.read()))
            journal.write(lines)
            journal.truncate()
            journal.flush()
            os.fsync(descriptor)

    # What it does; the lock has to be held

    def issue(self, orders: Sequence[NamedOrder], issuer: Issuer, now: int) -> list[x509.Certificate]:
        """Sign all orders, or none. ``issuer`` is what ``open`` gave. Raises AuthorityError and CaDirectoryError."""
        used = {one.serial_number for one in self.issued()}
        for named in orders:
            if named.order.serial_number in used:
                raise CaDirectoryError(f"the serial number {serial_text(named.order.serial_number)} is used already")
            used.add(named.order.serial_number)
        made = [issue(named.order, issuer) for named in orders]
        self.record([(named.name, named.profile, one) for named, one in zip(orders, made, strict=True)], now)
        return made

    def record(self, issued: Iterable[tuple[str, str, x509.Certificate]], now: int) -> None:
        """Write certificates that it signed into the journal, each with its name and profile."""
        self._append(
            _Issued(now, name, profile, serial_text(one.serial_number), one.public_bytes(Encoding.DER))
            for name, profile, one in issued
        )

    def revoke(self, serial_numbers: Iterable[int], reason: str, now: int) -> None:
        """Write it into the journal; the next revocation list says so."""
        self._append(_Revoked(now, serial_text(one), reason) for one in serial_numbers)

    def lift(self, serial_numbers: Iterable[int], now: int) -> None:
        """Write into the journal that they are on hold no longer; the next revocation list is without them."""
        self._append(_Lifted(now, serial_text(one)) for one in serial_numbers)

    def sign_list(self, issuer: Issuer, now: int, next_update: int) -> bytes:
        """The next revocation list, as DER; it is in the directory too. Raises AuthorityError."""
        revocations = [one.revocation for one in self.issued() if one.revocation is not None]
        number = self.list_number() + 1
        content = sign_revocation_list(issuer, revocations, number, now, next_update)
        self._append([_ListSigned(now, number, next_update)])
        write_private(self.list_file, to_pem(content))
        return content


def _complete(content: bytes) -> int:
    """Where the last complete line ends."""
    return content.rfind(b"\n") + 1


def _fold(authority: str, events: Sequence[_Event]) -> list[IssuedCertificate]:
    issued = [event for event in events if isinstance(event, _Issued)]
    revoked = _revoked(events)
    newest = {one.name: number for number, one in enumerate(issued) if one.serial_number not in revoked}
    return [
        IssuedCertificate(
            authority,
            one.name,
            one.profile,
            one.time,
            int(one.serial_number, 16),
            one.certificate,
            revoked.get(one.serial_number),
            number < newest.get(one.name, 0),
        )
        for number, one in enumerate(issued)
    ]


def _revoked(events: Iterable[_Event]) -> dict[str, Revocation]:
    """By serial number. What is on hold may be lifted, or revoked for good, since the day of the hold (RFC 5280 5.3.1).

    Nothing else ever changes.
    """
    revoked: dict[str, Revocation] = {}
    for event in events:
        if not isinstance(event, _Revoked | _Lifted):
            continue
        before = revoked.get(event.serial_number)
        if before is not None and before.reason != HOLD:
            continue
        if isinstance(event, _Lifted):
            revoked.pop(event.serial_number, None)
        else:
            time = event.time if before is None else before.time
            revoked[event.serial_number] = Revocation(int(event.serial_number, 16), time, event.reason)
    return revoked


class CaDirectory:
    """All CAs below one path, which need not be there yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def authorities(self) -> list[StoredAuthority]:
        """Those that are there, by name. Raises CaDirectoryError when one cannot be read."""
        try:
            folders = sorted(self.path.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CaDirectoryError(f"the CA directory {self.path} cannot be read: {error.strerror}") from None
        return [StoredAuthority(one) for one in folders if self.has(one.name)]

    def authority(self, name: str) -> StoredAuthority:
        """Raises CaDirectoryError, which names those that are there."""
        if self.has(name):
            return StoredAuthority(self.path / name)
        raise CaDirectoryError(f"there is no CA {name!r} in {self.path}", self._what_is_there())

    def has(self, name: str) -> bool:
        """Whether there is a CA of that name, be it damaged; other directories may lie beside those of CAs."""
        folder = self.path / name
        return _is_name(name) and ((folder / _CHAIN).exists() or (folder / _KEY).exists())

    def renew(self, authority: StoredAuthority, chain: Sequence[x509.Certificate]) -> StoredAuthority:
        """Give a CA a new certificate for its name and key, and those above; to the CAs below it too.

        The lock has to be held.
        """
        renewed = chain[0]
        for one in self.authorities():
            place = next((at for at, old in enumerate(one.chain) if _is_same_authority(old, renewed)), None)
            if place is not None:
                _write_certificates(one.folder, one.name, (*one.chain[:place], *chain))
        return self.authority(authority.name)

    def _what_is_there(self) -> str:
        names = ", ".join(one.name for one in self.authorities())
        return f"there are: {names}" if names else "make one: muster ca init"

    def choose(self, name: str | None, *, for_ca: bool = False) -> StoredAuthority:
        """The CA that is to sign: the named one, else the only one that comes into question.

        That is the only root for a new CA, and for everything else the only one that no other CA stands below. Raises
        CaDirectoryError.
        """
        if name is not None:
            return self.authority(name)
        every = self.authorities()
        parents = {above.name for one in every if (above := self.parent(one)) is not None}
        fitting = [one for one in every if (one.is_root if for_ca else one.name not in parents)]
        if len(fitting) == 1:
            return fitting[0]
        if not every:
            raise CaDirectoryError(f"there is no CA in {self.path}", self._what_is_there())
        choices = ", ".join(one.name for one in fitting or every)
        raise CaDirectoryError("which CA is to sign it?", f"say --issuer with one of: {choices}")

    def parent(self, authority: StoredAuthority) -> StoredAuthority | None:
        """The CA of this directory that issued another's certificate; None for a root, and when it is not here."""
        if authority.is_root:
            return None
        above = authority.chain[1].public_key() if len(authority.chain) > 1 else None
        namesakes = (one for one in self.authorities() if one.certificate.subject == authority.certificate.issuer)
        return next((one for one in namesakes if one.certificate.public_key() == above), None)

    def issued(self) -> list[IssuedCertificate]:
        """What all of them issued."""
        return [certificate for authority in self.authorities() for certificate in authority.issued()]

    def find(self, reference: str, authority: str | None = None) -> list[IssuedCertificate]:
        """Those with that name or serial number (hex, perhaps with colons), of one CA or of all, the oldest first."""
        issued = self.issued() if authority is None else self.authority(authority).issued()
        named = [one for one in issued if one.name == reference]
        digits = reference.replace(":", "").upper().lstrip("0")
        return named or [one for one in issued if f"{one.serial_number:X}" == digits]

    @cached_property
    def profiles(self) -> Mapping[str, CertificateProfile]:
        """The built-in ones, and those of ``profiles.toml``. Raises CaDirectoryError."""
        file = self.path / _PROFILES
        try:
            return read_profiles(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return PROFILES
        except (OSError, UnicodeDecodeError, ProfileError) as error:
            raise CaDirectoryError(f"{file}: {error}") from None

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Make the directory if need be, and keep others from changing it meanwhile. Raises CaDirectoryError."""
        try:
            self.path.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            descriptor = os.open(self.path / _LOCK, os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError as error:
            raise CaDirectoryError(f"the CA directory {self.path} cannot be used: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def require_free(self, name: str, *, replace: bool) -> None:
        """That a new CA may have this name. Raises CaDirectoryError."""
        if not _is_name(name):
            raise CaDirectoryError(
                f"{name!r} cannot be the name of a CA here",
                "take letters, digits and . _ - (not in front), at most 64; --subject is the name in the certificate",
            )
        if (self.path / name).exists() and not self.has(name):
            raise CaDirectoryError(f"{self.path / name} is there already, and is no CA", "choose another name")
        if self.has(name) and not replace:
            raise CaDirectoryError(
                f"there is a CA {name!r} in {self.path} already",
                "choose another name; --renew gives it a new certificate, --force a successor with a new key",
            )

    def add(
        self, name: str, chain: Sequence[x509.Certificate], key: bytes, *, replace: bool = False
    ) -> StoredAuthority:
        """Store a CA: its certificate and those above it, and its key as PEM. The lock has to be held.

        One that has the name already is set aside. Raises CaDirectoryError.
        """
        self.require_free(name, replace=replace)
        folder = self.path / name
        new = self.path / f".{name}.new"
        for left_behind in new.iterdir() if new.is_dir() else ():
            left_behind.unlink()
        new.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)
        write_private(new / _KEY, key)
        _write_certificates(new, name, chain)
        if folder.exists():
            aside = self.path / _REPLACED / f"{name}-{serial_text(StoredAuthority(folder).certificate.serial_number)}"
            aside.parent.mkdir(mode=_PRIVATE_DIRECTORY, exist_ok=True)
            folder.replace(aside)
        new.replace(folder)
        return StoredAuthority(folder)


def _is_same_authority(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether they are for the same name and key, so that each can stand for the other in a chain."""
    return one.subject == other.subject and one.public_key() == other.public_key()


def _is_name(name: str) -> bool:
    return NAME.fullmatch(name) is not None and name not in _RESERVED


def _write_certificates(folder: Path, name: str, chain: Sequence[x509.Certificate]) -> None:
    write_private(folder / f"{name}.pem", chain[0].public_bytes(Encoding.PEM))
    write_private(folder / _CHAIN, b"".join(one.public_bytes(Encoding.PEM) for one in chain))
