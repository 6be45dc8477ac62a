"""Chains: which certificates lead from a device's own to a trusted one, and what is wrong with each of them.

Facts only; what refuses is decided by others. In a chain without a fault ``cryptography``'s ClientVerifier accepts
every certificate under its issuer; those that it does not take at all (version 1, an odd name or key) are verified
here. Path lengths and name constraints, which reach over several links, are always judged here. Names are compared byte
by byte, as ClientVerifier does. Whatever a device sends, the work is bounded. Not here: purposes, revocation. Sources:
RFC 5280 6.1, dps.md 4.5, libraries.md 8.
"""

from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509 import verification

from muster.pki.certificate import CertificateFormatError
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.name_constraints import excluded_name

MAXIMUM_PRESENTED = 10
"""Certificates of one device that are looked at."""
MAXIMUM_DEPTH = 8
"""Certificates above the device's own."""
MAXIMUM_SIGNATURES = 32
"""Signatures that are looked at to find one chain."""

_REMEMBERED_CHAINS = 256
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # as ClientVerifier takes times

Path = tuple[ChainCertificate, ...]
"""A device's own certificate, its issuer, the issuer of that, and so on."""


class ChainEnd(StrEnum):
    """Why a chain goes no further up."""

    TRUSTED = "trusted"
    ISSUER_MISSING = "issuer missing"
    SIGNATURE_WRONG = "signature wrong"
    """There are certificates of the issuer's name; none of their keys made the signature."""
    UNTRUSTED = "untrusted"
    """A self-issued certificate, which is not trusted."""
    TOO_LONG = "too long"
    TOO_MUCH_WORK = "too much work"


@dataclass(frozen=True, slots=True)
class ChainLink:
    """One certificate of a chain. ``sent``: by the device. The rest is judged for the place where it stands.

    ``excluded_name`` is a name in it that a CA above may not certify, empty when there is none. ``may_issue`` and
    ``path_length_kept`` mean nothing for the device's own certificate.
    """

    certificate: ChainCertificate
    sent: bool
    trusted: bool
    in_dates: bool
    may_issue: bool
    path_length_kept: bool
    excluded_name: str

    @property
    def is_usable(self) -> bool:
        """Whether the device may lean on it: it sent it, or it is trusted."""
        return self.sent or self.trusted


@dataclass(frozen=True, slots=True)
class Chain:
    """What was found for one device.

    ``presented`` is what it sent, as far as it was looked at; None is what cannot be read. ``links`` goes from the
    device's own certificate up, every signature in it verified. ``signing`` is where in ``links`` the wanted
    certificate stands, None when it was not found. ``suspects``, at the end of a broken chain: certificates of the
    missing issuer's name. ``has_fault``: one of the links has one. ``refusal``: what ClientVerifier objects to although
    none has.
    """

    presented: tuple[ChainCertificate | None, ...]
    links: tuple[ChainLink, ...]
    signing: int | None
    end: ChainEnd
    suspects: Path
    has_fault: bool
    refusal: str

    @property
    def is_sound(self) -> bool:
        """Whether it leads to a trusted certificate without a fault; not whether it has a wanted one."""
        return self.end is ChainEnd.TRUSTED and not self.has_fault and not self.refusal


class KnownCertificates:
    """The CA certificates that a service knows; make it once after each change.

    ``trusted`` ones end a chain and need not be sent. ``others`` only help to explain. It also remembers which
    certificates have proved to be issued by trusted ones: what it answers does not depend on that, only how fast.
    """

    def __init__(self, trusted: Iterable[ChainCertificate], others: Iterable[ChainCertificate] = ()) -> None:
        self._trusted = {certificate.der: certificate for certificate in trusted}
        self._known = {certificate.der: certificate for certificate in others} | self._trusted
        self._by_subject: dict[bytes, list[ChainCertificate]] = {}
        for certificate in self._known.values():
            self._by_subject.setdefault(certificate.subject, []).append(certificate)
        self._proven: dict[tuple[bytes, ...], Path] = {}
        self._remembered: dict[bytes, ChainCertificate] = {}

    def load(self, certificate: bytes) -> ChainCertificate:
        """A certificate as a device sent it; one that is known already is not read again.

        Raises CertificateFormatError.
        """
        known = self._known.get(certificate) or self._remembered.get(certificate)
        return ChainCertificate(certificate) if known is None else known

    def trusts(self, certificate: ChainCertificate) -> bool:
        return certificate.der in self._trusted

    def named(self, subject: bytes) -> Sequence[ChainCertificate]:
        """Those with that name, as the contents of its DER form."""
        return self._by_subject.get(subject, ())

    def is_proven(self, issuers: Path) -> bool:
        """Whether these certificates, which end at a trusted one, were found to have issued one another."""
        return tuple(one.der for one in issuers) in self._proven

    def remember(self, issuers: Path) -> None:
        """They were found to have issued one another."""
        if len(self._proven) >= _REMEMBERED_CHAINS:
            self._proven.clear()
            self._remembered.clear()
        self._proven[tuple(one.der for one in issuers)] = issuers
        self._remembered.update((one.der, one) for one in issuers)


def find_chain(
    presented: Sequence[bytes], known: KnownCertificates, now: int, wanted: Container[bytes] | None = None
) -> Chain:
    """The chain of a device: from its own certificate, the first one it presented, to the nearest trusted one.

    With ``wanted`` (DER) it goes past a certificate of those, the one nearest to the device, and on to one that is
    trusted, which may be the wanted one itself. Every other certificate between has to be presented, in any order.
    ``now`` is in microseconds UTC. Of several chains the shortest that is in its dates is taken; if there is none, what
    there is is shown. Raises CertificateFormatError when the device's own certificate cannot be read.
    """
    return _Search(presented, known, now, wanted).find()


class _Search:
    """One device's certificates and the known ones; goes up from the device by names, by signatures if need be."""

    def __init__(
        self, presented: Sequence[bytes], known: KnownCertificates, now: int, wanted: Container[bytes] | None
    ) -> None:
        self._known = known
        self._now = now
        self._wanted = wanted
        self._leaf = known.load(presented[0])
        loaded = (self._load(one) for one in presented[1:MAXIMUM_PRESENTED])
        self._presented: tuple[ChainCertificate | None, ...] = (self._leaf, *loaded)
        self._sent = {one.der: one for one in self._presented if one is not None}
        self._signatures: dict[tuple[bytes, bytes], bool] = {}
        self._reached_limit = False

    def _load(self, certificate: bytes) -> ChainCertificate | None:
        try:
            return self._known.load(certificate)
        except CertificateFormatError:
            return None

    def find(self) -> Chain:
        # Nearly always the names tell which certificates to take, and one look at the signatures confirms it.
        for step in (self._may_have_issued, self._may_have_signed):
            path = self._complete(step)
            chain = None if path is None else self._chain(path, ChainEnd.TRUSTED)
            if chain is not None and chain.is_sound:
                return chain
        return self._explained() if chain is None else chain

    def _chain(self, path: Path, end: ChainEnd, suspects: Path = ()) -> Chain:
        links = self._links(path)
        has_fault = _has_fault(links)
        refusal = self._refusal(path) if end is ChainEnd.TRUSTED and not has_fault else ""
        signing = (at for at, one in enumerate(path) if at > 0 and self._is_wanted(one))
        return Chain(self._presented, links, next(signing, None), end, suspects, has_fault, refusal)

    # Ways up

    def _complete(self, step: Callable[[ChainCertificate, ChainCertificate], bool]) -> Path | None:
        """The shortest way to a trusted certificate, past the nearest wanted one if one is wanted."""
        if self._wanted is None:
            path, complete = self._way((self._leaf,), self._known.trusts, step)
            return path if complete else None
        path, complete = self._way((self._leaf,), self._is_wanted, step)
        if complete:
            path, complete = self._way(path, self._known.trusts, step)
        return path if complete else None

    def _is_wanted(self, certificate: ChainCertificate) -> bool:
        return self._wanted is not None and certificate.der in self._wanted

    def _way(
        self,
        start: Path,
        arrived: Callable[[ChainCertificate], bool],
        step: Callable[[ChainCertificate, ChainCertificate], bool],
    ) -> tuple[Path, bool]:
        """Prolong ``start`` by the fewest issuers until one has arrived; else as far as it goes.

        Every certificate is visited once, so that cross-signed ones do not multiply the work.
        """
        ways = deque([start])
        visited = {one.der for one in start}
        way = start
        while ways:
            way = ways.popleft()
            if len(way) > 1 and arrived(way[-1]):
                return way, True
            if len(way) > MAXIMUM_DEPTH:
                continue
            for issuer in self._candidates(way[-1]):
                if issuer.der not in visited and step(way[-1], issuer):
                    visited.add(issuer.der)
                    ways.append((*way, issuer))
        return way, False

    def _candidates(self, certificate: ChainCertificate) -> list[ChainCertificate]:
        """Certificates of the issuer's name: first those with the key identifier that the certificate names."""
        sent = [one for one in self._sent.values() if one.subject == certificate.issuer]
        candidates = sent + [one for one in self._known.named(certificate.issuer) if one.der not in self._sent]
        wanted = certificate.authority_key_identifier if len(candidates) > 1 else None
        return candidates if wanted is None else sorted(candidates, key=lambda one: one.key_identifier != wanted)

    def _is_usable(self, issuer: ChainCertificate) -> bool:
        return issuer.der in self._sent or self._known.trusts(issuer)

    def _may_have_issued(self, _: ChainCertificate, issuer: ChainCertificate) -> bool:
        return self._is_usable(issuer) and issuer.may_issue and issuer.in_dates(self._now)

    def _may_have_signed(self, certificate: ChainCertificate, issuer: ChainCertificate) -> bool:
        return self._may_have_issued(certificate, issuer) and self._has_signed(certificate, issuer)

    def _has_signed(self, certificate: ChainCertificate, issuer: ChainCertificate) -> bool:
        pair = certificate.der, issuer.der
        if pair not in self._signatures:
            if len(self._signatures) >= MAXIMUM_SIGNATURES:
                self._reached_limit = True
                return False
            self._signatures[pair] = certificate.is_signed_by(issuer)
        return self._signatures[pair]

    # Facts

    def _links(self, path: Path) -> tuple[ChainLink, ...]:
        excluded = _excluded_names(path)
        return tuple(
            ChainLink(
                certificate,
                sent=certificate.der in self._sent,
                trusted=self._known.trusts(certificate),
                in_dates=certificate.in_dates(self._now),
                may_issue=certificate.may_issue,
                path_length_kept=_keeps_path_length(path, at),
                excluded_name=excluded[at],
            )
            for at, certificate in enumerate(path)
        )

    def _refusal(self, path: Path) -> str:
        """What ClientVerifier objects to in one of the links, the upper ones judged once; empty when to nothing."""
        issuers = path[1:]
        if not self._known.is_proven(issuers):
            for certificate, issuer in pairwise(issuers):
                refusal = self._judge(certificate, issuer)
                if refusal:
                    return refusal
            self._known.remember(issuers)
        return self._judge(*path[:2])

    def _judge(self, certificate: ChainCertificate, issuer: ChainCertificate) -> str:
        refusal = _client_verifier(certificate, issuer, self._now)
        if refusal and (certificate.is_unfamiliar or issuer.is_unfamiliar or issuer.has_unfamiliar_key):
            return "" if self._has_signed(certificate, issuer) else "the signature is wrong"
        return refusal

    # What there is when there is no complete chain

    def _explained(self) -> Chain:
        """As far up as signatures lead, whatever the dates; over what is known only as well, if that leads further."""
        chain = self._as_far_as(self._is_usable)
        if chain.end is not ChainEnd.ISSUER_MISSING:
            return chain
        longer = self._as_far_as(lambda _: True)
        return longer if len(longer.links) > len(chain.links) else chain

    def _as_far_as(self, allowed: Callable[[ChainCertificate], bool]) -> Chain:
        def step(certificate: ChainCertificate, issuer: ChainCertificate) -> bool:
            return allowed(issuer) and self._has_signed(certificate, issuer)

        path, found = self._way((self._leaf,), self._is_wanted, step)
        path, trusted = self._way(path if found else (self._leaf,), self._known.trusts, step)
        if trusted:
            return self._chain(path, ChainEnd.TRUSTED)
        suspects = tuple(one for one in self._candidates(path[-1]) if allowed(one) and one not in path)
        end = self._end(path, suspects)
        return self._chain(path, end, self._namesakes(path[-1]) if end is ChainEnd.ISSUER_MISSING else suspects)

    def _end(self, path: Path, suspects: Path) -> ChainEnd:
        if path[-1].facts.self_issued:
            return ChainEnd.UNTRUSTED
        if len(path) > MAXIMUM_DEPTH:
            return ChainEnd.TOO_LONG
        if self._reached_limit:
            return ChainEnd.TOO_MUCH_WORK
        return ChainEnd.SIGNATURE_WRONG if suspects else ChainEnd.ISSUER_MISSING

    def _namesakes(self, certificate: ChainCertificate) -> Path:
        """Sent certificates whose name looks like the issuer's, and is encoded otherwise."""
        others = (one for one in self._sent.values() if one is not certificate)
        return tuple(one for one in others if one.facts.subject == certificate.facts.issuer)


def _has_fault(links: tuple[ChainLink, ...]) -> bool:
    return any(
        not (link.in_dates and link.is_usable)
        or (at > 0 and not (link.may_issue and link.path_length_kept))
        or link.excluded_name
        or link.certificate.extension_problem
        for at, link in enumerate(links)
    )


def _keeps_path_length(path: Path, at: int) -> bool:
    """Whether no more CAs follow below ``at`` than it allows, not counting self-issued ones and the device's own."""
    limit = path[at].path_length if at > 1 else None
    return limit is None or sum(not one.facts.self_issued for one in path[1:at]) <= limit


def _excluded_names(path: Path) -> list[str]:
    """For each certificate a name that a CA above it may not certify, empty when there is none (RFC 5280 4.2.1.10)."""
    excluded = [""] * len(path)
    for above in range(1, len(path)):
        for at, certificate in enumerate(path[:above]):
            if not excluded[at] and (at == 0 or not certificate.facts.self_issued):
                excluded[at] = _excluded_name(path[above], certificate)
    return excluded


def _excluded_name(issuer: ChainCertificate, certificate: ChainCertificate) -> str:
    try:
        constraints = issuer.name_constraints
        if constraints is None:
            return ""
        if certificate.loaded is not None:
            return excluded_name(constraints, certificate.loaded) or ""
    except ValueError:
        pass
    return "names that cannot be judged"


_ISSUER_POLICY = verification.ExtensionPolicy.permit_all().require_present(
    x509.BasicConstraints, verification.Criticality.AGNOSTIC, None
)
_OWN_POLICY = verification.ExtensionPolicy.permit_all()
# What it raises for contents that it reads only then, such as a name that it wants to print in its refusal.
_UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


def _client_verifier(certificate: ChainCertificate, issuer: ChainCertificate, now: int) -> str:
    """What ClientVerifier objects to in a certificate when it trusts the issuer; empty when it accepts."""
    if certificate.loaded is None or issuer.loaded is None:
        return "a certificate cannot be loaded"
    verifier = (
        verification.PolicyBuilder()
        .store(verification.Store([issuer.loaded]))
        .time(_EPOCH + timedelta(microseconds=now))
        .extension_policies(ca_policy=_ISSUER_POLICY, ee_policy=_OWN_POLICY)
        .build_client_verifier()
    )
    try:
        verifier.verify(certificate.loaded, [])
    except verification.VerificationError as error:
        return str(error).partition(" (encountered processing")[0]
    except _UNREADABLE as error:
        return f"a certificate cannot be read: {error}"
    return ""
