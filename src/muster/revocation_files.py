"""Revocation lists in files and directories, with the CA certificates beside them: read, and again when they change.

A file that cannot be read keeps what it had, so that a list that is half copied lets nobody in. Not here: when to look
(``server/revocation.py``), and what the lists mean (``pki/known_revocations.py``).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from muster.pki.certificate import CertificateFormatError, read_certificates
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.known_revocations import KnownRevocations
from muster.pki.revocation import RevocationList, RevocationListError, read_revocation_lists

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes. A list of a million certificates has about 40 MB."""

_SUFFIXES = (".crl", ".pem", ".der", ".crt", ".cer")
_LIST_SUFFIX = ".crl"
_BEGIN = b"-----BEGIN"
_BEGIN_LIST = b"-----BEGIN X509 CRL-----"

_Mark = tuple[int, int, int, int]


class _Contents(NamedTuple):
    lists: tuple[RevocationList, ...] = ()
    authorities: tuple[ChainCertificate, ...] = ()


class Reading(NamedTuple):
    """What one look at the files found: whether anything is new, and what is wrong that was not known before."""

    changed: bool
    problems: tuple[str, ...]


class RevocationFiles:
    """Files with lists, and directories with such files, of which those of ``muster ca`` are the foremost.

    Of a directory the files that end in .crl, .pem, .der, .crt or .cer count, and those one level below; what else
    stands in them, such as keys, is not looked at.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._marks: dict[Path, _Mark | None] = {}
        self._contents: dict[Path, _Contents] = {}

    def read(self) -> Reading:
        """Look at all of them, and read those that changed since the last time. Takes its time; raises nothing."""
        problems: list[str] = []
        present = [found for path in self._paths for found in self._files(path, problems)]
        changed = self._drop_all_but({file for file, _ in present}, problems)
        for file, named in present:
            changed = self._look_at(file, problems, named=named) or changed
        return Reading(changed, tuple(problems))

    def known(self) -> KnownRevocations:
        """What stands in the files, as of the last look."""
        contents = self._contents.values()
        return KnownRevocations(
            [one for each in contents for one in each.lists], [one for each in contents for one in each.authorities]
        )

    def _files(self, path: Path, problems: list[str]) -> list[tuple[Path, bool]]:
        """Each with whether the user named it. Those that were there stay when the directory cannot be read."""
        inside = [(file, False) for file in self._contents if path in file.parents]
        if not path.is_dir() and not inside:
            return [(path, True)]
        try:
            inside = [(file, False) for file in sorted(_below(path)) if file.suffix.lower() in _SUFFIXES]
            self._marks.pop(path, None)
        except OSError as error:
            if path not in self._marks:
                problems.append(f"the directory {path} cannot be read: {error.strerror}")
            self._marks[path] = None
        return inside

    def _drop_all_but(self, present: set[Path], problems: list[str]) -> bool:
        gone = [file for file in self._contents if file not in present]
        for file in gone:
            self._marks.pop(file, None)
            if self._contents.pop(file).lists:
                problems.append(f"{file} is gone: the lists in it do not count any more")
        return bool(gone)

    def _look_at(self, file: Path, problems: list[str], *, named: bool) -> bool:
        """Read it if it changed; whether its contents are new."""
        mark = _mark(file)
        if file in self._marks and self._marks[file] == mark:
            return False
        self._marks[file] = mark
        before = self._contents.setdefault(file, _Contents())
        try:
            self._contents[file] = _read(file, before, named=named)
        except (OSError, RevocationListError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            kept = "; the lists that stood in it go on to count" if before.lists else ""
            problems.append(f"{file} cannot be read: {reason}{kept}")
            return False
        return True


def _below(directory: Path) -> Iterator[Path]:
    for one in directory.iterdir():
        if one.is_dir() and not one.name.startswith("."):
            yield from (file for file in one.iterdir() if not file.name.startswith("."))
        elif not one.name.startswith("."):
            yield one


def _mark(file: Path) -> _Mark | None:
    """What tells one state of a file from the next; None when it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _read(file: Path, before: _Contents, *, named: bool) -> _Contents:
    """Raises OSError, and RevocationListError when there should be a list and is none."""
    if file.stat().st_size > LARGEST_FILE:
        raise RevocationListError(f"it has more than {LARGEST_FILE} bytes")
    content = file.read_bytes()
    found = _read_pem(content) if _BEGIN in content else _read_bare(content)
    if before.lists and not found.lists:
        raise RevocationListError("the list is missing")
    if not (found.lists or found.authorities) and (named or file.suffix.lower() == _LIST_SUFFIX):
        raise RevocationListError("it holds neither a revocation list nor the certificate of a CA")
    return _Contents(tuple(msgspec.structs.replace(one, source=str(file)) for one in found.lists), found.authorities)


def _read_pem(content: bytes) -> _Contents:
    expected = content.count(_BEGIN_LIST)
    lists = read_revocation_lists(content) if expected else []
    if len(lists) != expected:
        raise RevocationListError("a list in it has no end")
    return _Contents(tuple(lists), _authorities(content))


def _read_bare(content: bytes) -> _Contents:
    """DER, or base64 of it."""
    try:
        return _Contents(tuple(read_revocation_lists(content)))
    except RevocationListError:
        return _Contents(authorities=_authorities(content))


def _authorities(content: bytes) -> tuple[ChainCertificate, ...]:
    """The certificates of CAs; those of devices, which may lie beside them, sign no lists."""
    try:
        loaded = [ChainCertificate(one) for one in read_certificates(content)]
    except CertificateFormatError:
        return ()
    return tuple(one for one in loaded if _is_authority(one))


def _is_authority(certificate: ChainCertificate) -> bool:
    facts = certificate.facts
    return facts.is_ca is True or (facts.is_ca is None and facts.self_issued)
