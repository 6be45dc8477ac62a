"""Revocation lists (CRLs): making them, reading them, and what they say about a certificate.

Times are microseconds since 1970, UTC. Not here: where lists come from, and whether a revoked certificate is refused.
Sources: RFC 5280 5 and 6.3, as far as complete lists of one issuer go: partial and delta lists are refused.
"""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from muster.pki import der
from muster.pki.certificate_order import microseconds, moment
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.issuance import Issuer
from muster.pki.name_constraints import read_extension
from muster.pki.private_key import is_public_key, signature_hash, signs_deterministically
from muster.pki.problem import AuthorityError

REASONS = (
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
    "aACompromise",
)
"""RFC 5280 5.3.1, without the one that only delta lists have."""

HOLD = "certificateHold"
"""The one reason that can be lifted: the certificate is missing from the next list then (RFC 5280 5.3.1)."""

_PEM = re.compile(r"-----BEGIN (X509 CRL)-----(.*?)-----END \1-----", re.DOTALL)
_SEQUENCE = b"\x30"
_RELEASED = "removeFromCRL"
_REMEMBERED_ISSUERS = 256
_CRL_SIGN = "cRLSign"
_UNDERSTOOD = (x509.CRLNumber.oid, x509.AuthorityKeyIdentifier.oid)
_ODD = (ValueError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType, UnsupportedAlgorithm)


class RevocationListError(ValueError):
    """There is no revocation list that can be read and relied upon; the message says why."""


class Revocation(msgspec.Struct, frozen=True):
    """That a certificate must not be used any more: which, since when, and why (one of ``REASONS``)."""

    serial_number: int
    time: int
    reason: str = "unspecified"


class RevocationList(msgspec.Struct, frozen=True):
    """The facts of one list. ``issuer`` are the contents of its issuer's name as DER, ``issuer_name`` is for people.

    ``number`` and ``next_update`` are None when it does not say. ``revocations`` are by serial number. ``source`` tells
    people where it was found.
    """

    der: bytes
    issuer: bytes
    issuer_name: str
    number: int | None
    this_update: int
    next_update: int | None
    revocations: Mapping[int, Revocation]
    source: str = ""


def sign_revocation_list(
    issuer: Issuer, revocations: Iterable[Revocation], number: int, this_update: int, next_update: int
) -> bytes:
    """The DER of a complete list. Raises AuthorityError when the CA may not sign lists, or the times are wrong."""
    usage = read_extension(issuer.certificate, x509.KeyUsage)
    if usage is not None and not usage.crl_sign:
        raise AuthorityError("the CA may not sign revocation lists: its key usage lacks cRLSign")
    if this_update >= next_update:
        raise AuthorityError("the next revocation list has to come after this one")
    identifier = read_extension(issuer.certificate, x509.SubjectKeyIdentifier)
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(moment(this_update))
        .next_update(moment(next_update))
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    if identifier is not None:
        authority = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
        builder = builder.add_extension(authority, critical=False)
    for revocation in revocations:
        builder = builder.add_revoked_certificate(_entry(revocation))
    key = issuer.key
    made = builder.sign(key, signature_hash(key), ecdsa_deterministic=signs_deterministically(key))
    return made.public_bytes(Encoding.DER)


def _entry(revocation: Revocation) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(revocation.serial_number)
        .revocation_date(moment(revocation.time))
    )
    if revocation.reason != REASONS[0]:  # which the standard wants to be left out
        builder = builder.add_extension(x509.CRLReason(x509.ReasonFlags(revocation.reason)), critical=False)
    return builder.build()


def to_pem(revocation_list: bytes) -> bytes:
    """A DER list as PEM."""
    return x509.load_der_x509_crl(revocation_list).public_bytes(Encoding.PEM)


def read_revocation_lists(text: str | bytes) -> list[RevocationList]:
    """Every list in PEM text, or the one in DER or base64 of it; at least one. Raises RevocationListError."""
    if isinstance(text, bytes):
        if text[:1] == _SEQUENCE:
            return [parse_revocation_list(text)]
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise RevocationListError("neither PEM, nor base64, nor DER") from None
    bodies = [body for _, body in _PEM.findall(text)]
    if not bodies and "-----BEGIN" in text:
        raise RevocationListError("no revocation list, but another PEM block")
    return [parse_revocation_list(_decoded(body)) for body in bodies or [text]]


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise RevocationListError("neither PEM nor base64 of a revocation list") from None


def parse_revocation_list(content: bytes) -> RevocationList:
    """The facts of a DER list. Raises RevocationListError, also for one that does not list everything."""
    try:
        return _facts(content, x509.load_der_x509_crl(content))
    except RevocationListError:
        raise
    except _ODD as error:
        raise RevocationListError(f"not a revocation list: {error}") from None


def _facts(content: bytes, loaded: x509.CertificateRevocationList) -> RevocationList:
    number = None
    for extension in loaded.extensions:
        if extension.critical and extension.oid not in _UNDERSTOOD:
            raise RevocationListError(
                f"it is not a complete list of one issuer: the extension {extension.oid.dotted_string} is critical"
            )
        if isinstance(extension.value, x509.CRLNumber):
            number = extension.value.crl_number
    name = loaded.issuer.public_bytes()
    _, start, end = der.read_element(name, 0, len(name))
    revocations = [_revocation(entry) for entry in loaded]
    return RevocationList(
        der=content,
        issuer=name[start:end],
        issuer_name=loaded.issuer.rfc4514_string(),
        number=number,
        this_update=microseconds(loaded.last_update_utc),
        next_update=None if loaded.next_update_utc is None else microseconds(loaded.next_update_utc),
        # removeFromCRL, which belongs into delta lists, takes a certificate from the list (RFC 5280 5.3.1).
        revocations={_unsigned(one.serial_number): one for one in revocations if one.reason != _RELEASED},
    )


def _unsigned(serial_number: int) -> int:
    """The octets as a number, as certificates are looked up by it; some are negative, against the standard."""
    octets = (~serial_number).bit_length() // 8 + 1
    return serial_number if serial_number >= 0 else serial_number + (1 << 8 * octets)


def _revocation(entry: x509.RevokedCertificate) -> Revocation:
    reason = REASONS[0]
    for extension in entry.extensions:
        if isinstance(extension.value, x509.CRLReason):
            reason = extension.value.reason.value
        elif extension.critical:
            # Such as the name of another issuer: the entry would be taken for one of this issuer.
            raise RevocationListError(f"an entry has the critical extension {extension.oid.dotted_string}")
    return Revocation(entry.serial_number, microseconds(entry.revocation_date_utc), reason)


def is_signed_by(revocation_list: RevocationList, issuer: ChainCertificate) -> bool:
    """Whether the list is this CA's: the name is right, its key made the signature, and it may sign lists."""
    usage = issuer.facts.key_usage
    if revocation_list.issuer != issuer.subject or issuer.has_huge_key or not (usage is None or _CRL_SIGN in usage):
        return False
    try:
        key = load_der_public_key(issuer.public_key_info)
        return is_public_key(key) and x509.load_der_x509_crl(revocation_list.der).is_signature_valid(key)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


class RevocationStatus(StrEnum):
    """What is known of a certificate."""

    GOOD = "good"
    """The issuer's list is of today, and the certificate is not on it."""
    REVOKED = "revoked"
    STALE = "stale"
    """It is not on the issuer's list, but a newer list should be there by now."""
    UNKNOWN = "unknown"
    """There is no list that this issuer signed."""


class RevocationFinding(NamedTuple):
    """``revocation`` is there when it is revoked, ``source`` unless nothing is known."""

    status: RevocationStatus
    revocation: Revocation | None = None
    source: RevocationList | None = None


class RevocationLists:
    """The lists that a service knows; make it once after each change. Signatures are verified once for each issuer."""

    def __init__(self, lists: Iterable[RevocationList]) -> None:
        self._by_issuer: dict[bytes, list[RevocationList]] = {}
        for one in sorted(lists, key=_age, reverse=True):
            self._by_issuer.setdefault(one.issuer, []).append(one)
        self._newest: dict[bytes, RevocationList | None] = {}

    def find(self, certificate: ChainCertificate, issuer: ChainCertificate, now: int) -> RevocationFinding:
        """What the newest list of the issuer says about a certificate that it issued. A revocation counts at once."""
        newest = self.newest_of(issuer)
        if newest is None:
            return RevocationFinding(RevocationStatus.UNKNOWN)
        revocation = newest.revocations.get(int(certificate.facts.serial_number, 16))
        if revocation is not None:
            return RevocationFinding(RevocationStatus.REVOKED, revocation, newest)
        stale = newest.next_update is not None and now > newest.next_update
        return RevocationFinding(RevocationStatus.STALE if stale else RevocationStatus.GOOD, None, newest)

    def judge(self, path: Sequence[ChainCertificate], now: int) -> tuple[RevocationFinding, ...]:
        """For each certificate of a chain, from the device's own up to the last that has an issuer in it."""
        return tuple(self.find(one, issuer, now) for one, issuer in pairwise(path))

    def newest_of(self, issuer: ChainCertificate) -> RevocationList | None:
        """The list of a CA that counts; None when there is none that it signed."""
        # By name and key: the lists of a CA stay its own when its certificate is renewed.
        candidates = self._by_issuer.get(issuer.subject)
        if candidates is None:
            return None
        identity = issuer.subject + issuer.public_key_info
        if identity not in self._newest:
            if len(self._newest) >= _REMEMBERED_ISSUERS:
                self._newest.clear()
            self._newest[identity] = next((one for one in candidates if is_signed_by(one, issuer)), None)
        return self._newest[identity]


def _age(revocation_list: RevocationList) -> tuple[int, int]:
    return revocation_list.this_update, revocation_list.number or 0
