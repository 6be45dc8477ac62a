"""What a service knows of revocations: lists, and the CA certificates that say who signed them.

A device need not send its issuer's certificate, and one whose certificate is revoked will not: so the CAs that lie
beside the lists are asked as well, and those that the caller knows. Not here: where lists and certificates come from,
and what is told about a device. Source: RFC 5280 6.3.
"""

from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import NamedTuple

from muster.pki.certificate import CertificateFormatError
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.revocation import (
    RevocationFinding,
    RevocationList,
    RevocationLists,
    RevocationStatus,
    is_signed_by,
)
from muster.pki.verify import MAXIMUM_DEPTH

Named = Callable[[bytes], Sequence[ChainCertificate]]
"""Known CA certificates by their name, the contents of its DER form."""


class CertificateStatus(NamedTuple):
    """What is known of one certificate of a device's chain."""

    certificate: ChainCertificate
    finding: RevocationFinding


class Standing(StrEnum):
    """Whether a list counts, by the CAs that lie beside the lists."""

    COUNTS = "counts"
    OLDER = "older"
    """The same CA signed a newer one, which is there too."""
    NOT_SIGNED = "not signed"
    """CAs of its issuer's name are known, and none of them signed it, or may."""
    SIGNER_UNKNOWN = "signer unknown"
    """It counts only where a device, or who asks, brings the CA's certificate along."""


@lru_cache(maxsize=64)
def _loaded(certificate: bytes) -> ChainCertificate | None:
    """Remembered for a while, as a device that registers is judged at every poll."""
    try:
        return ChainCertificate(certificate)
    except CertificateFormatError:
        return None


def _nothing(_: bytes) -> Sequence[ChainCertificate]:
    return ()


class KnownRevocations:
    """The lists and the CAs beside them; make it once after each change."""

    def __init__(self, lists: Iterable[RevocationList], authorities: Iterable[ChainCertificate] = ()) -> None:
        self.lists = tuple(lists)
        self._lists = RevocationLists(self.lists)
        self._by_subject: dict[bytes, dict[bytes, ChainCertificate]] = {}
        # Of the certificates for one name and key the newest counts, as a CA that was renewed has several.
        loaded = {one.der: one for one in authorities}
        self._authorities = loaded
        for one in sorted(loaded.values(), key=lambda one: one.facts.not_before or 0):
            self._by_subject.setdefault(one.subject, {})[one.public_key_info] = one

    def load(self, certificate: bytes) -> ChainCertificate | None:
        """A certificate that a device sent; the CAs that are known here are not read again. None: it cannot be read."""
        return self._authorities.get(certificate) or _loaded(certificate)

    def standing(self, one: RevocationList) -> Standing:
        """Of one of ``lists``. Looks at signatures, most of which are remembered from then on."""
        authorities = self._by_subject.get(one.issuer, {}).values()
        if not authorities:
            return Standing.SIGNER_UNKNOWN
        if any(self._lists.newest_of(authority) is one for authority in authorities):
            return Standing.COUNTS
        return Standing.OLDER if any(is_signed_by(one, authority) for authority in authorities) else Standing.NOT_SIGNED

    def judge(
        self,
        path: Sequence[ChainCertificate],
        now: int,
        *,
        sent: Sequence[ChainCertificate] = (),
        known: Named = _nothing,
    ) -> tuple[CertificateStatus, ...]:
        """What the lists say about the certificates of a device, its own first, up to the last that has an issuer.

        ``path`` is a chain whose signatures were verified, at least the device's own certificate. It is followed
        further up, over what the device ``sent`` and the CAs that are ``known``, until one is revoked. ``now`` is in
        microseconds UTC.
        """
        told = [CertificateStatus(one, found) for one, found in zip(path, self._lists.judge(path, now), strict=False)]
        by_name = _Ascent(self, self._lists, now, sent, known, verify=False)
        above = by_name.climb(path[-1])
        if by_name.met_revoked:
            above = _Ascent(self, self._lists, now, sent, known, verify=True).climb(path[-1])
        return (*told, *above)

    def named(self, subject: bytes) -> Iterable[ChainCertificate]:
        """The CAs of that name that lie beside the lists, one for each key."""
        return self._by_subject.get(subject, {}).values()


class _Ascent:
    """Ways up from one certificate, over every CA that may have issued it.

    By names first, which costs nothing; the signatures are looked at only when something on the way is on a list.
    ``met_revoked``: that is so. No CA is followed twice, so that cross-signed ones do not multiply the work.
    """

    def __init__(
        self,
        revocations: KnownRevocations,
        lists: RevocationLists,
        now: int,
        sent: Sequence[ChainCertificate],
        known: Named,
        *,
        verify: bool,
    ) -> None:
        self._revocations = revocations
        self._lists = lists
        self._now = now
        self._sent = sent
        self._known = known
        self._verify = verify
        self._visited: set[bytes] = set()
        self.met_revoked = False

    def climb(self, certificate: ChainCertificate, depth: int = MAXIMUM_DEPTH) -> tuple[CertificateStatus, ...]:
        """The way to a revoked certificate if there is one, else the one of which most is known."""
        self._visited.add(certificate.der)
        best: tuple[CertificateStatus, ...] = ()
        for issuer in self._issuers(certificate):
            finding = self._lists.find(certificate, issuer, self._now)
            revoked = finding.revocation is not None
            if issuer.der == certificate.der and not revoked:
                continue
            if self._verify and not certificate.is_signed_by(issuer):
                continue
            self.met_revoked = self.met_revoked or revoked
            follow = not revoked and depth > 0 and issuer.der not in self._visited
            above = self.climb(issuer, depth - 1) if follow else ()
            way = (CertificateStatus(certificate, finding), *above)
            if is_revoked(way):
                return way
            if not best or _known_of(way) > _known_of(best):
                best = way
        return best

    def _issuers(self, certificate: ChainCertificate) -> Iterable[ChainCertificate]:
        """Those of its issuer's name, one for each key."""
        sent = (one for one in self._sent if one.subject == certificate.issuer)
        candidates = (*self._revocations.named(certificate.issuer), *self._known(certificate.issuer), *sent)
        return {one.public_key_info: one for one in reversed(candidates)}.values()


def is_revoked(told: Iterable[CertificateStatus]) -> bool:
    """Whether one of the certificates is revoked."""
    return any(one.finding.status is RevocationStatus.REVOKED for one in told)


def _known_of(told: Sequence[CertificateStatus]) -> int:
    return sum(one.finding.status is not RevocationStatus.UNKNOWN for one in told)
