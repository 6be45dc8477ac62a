"""The named checks of a chain: from what was found in it to what is told about it, and how to put it right.

One class, whose methods are the checks; which of them an enrollment asks, and in which order, is in
``chain_attestation.py``. Sources: dps.md 4.1, 4.5.
"""

from collections.abc import Collection
from itertools import pairwise

import msgspec

from muster.domain.attestation import (
    CLIENT_USAGES,
    Remedy,
    check_extended_key_usage,
    counted,
    ends,
    is_named,
    starts,
    summary,
)
from muster.domain.check_table import check, quoted, shell_word, skipped
from muster.domain.report import Check
from muster.domain.revocation import REVOCATION, check_path, not_judged
from muster.domain.x509_trust import X509Group, X509Trust
from muster.pki.certificate import utc_text
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.known_revocations import KnownRevocations
from muster.pki.verify import MAXIMUM_DEPTH, MAXIMUM_PRESENTED, MAXIMUM_SIGNATURES, Chain, ChainEnd

_CA_REMEDY = Remedy(
    make="muster ca intermediate NAME",
    by_openssl="openssl x509 -req ... -extfile FILE, which says basicConstraints=critical,CA:TRUE",
    renew="renew the CA certificate with its name and key, let the devices send the new one, and give it to the group"
    " as its secondary: muster group update GROUP --secondary-certificate inter.pem",
)


def issued_certificate(name: str) -> Remedy:
    """For a device whose certificate comes from a CA. ``name`` is a word fit for a command."""
    return Remedy(
        make=f"muster ca issue {name}",
        by_openssl="openssl x509 -req ... -extfile FILE, which says basicConstraints=CA:FALSE and"
        " extendedKeyUsage=clientAuth",
        renew=f"have its CA issue a new certificate: muster ca issue {name}",
    )


class Advice(Remedy, frozen=True):
    """What the fixes of a service say beside how a device gets a certificate: how a CA certificate is ``upload``ed, and
    how a device is known by its own certificate ``alone``.
    """

    upload: str
    alone: str


def provisioning_advice(name: str) -> Advice:
    """At the provisioning service."""
    return _advice(
        name,
        upload="muster certificate upload inter.pem --verify",
        alone=f"enroll this one alone: muster enrollment create --certificate {name}.pem",
    )


def hub_advice(name: str, hub: str) -> Advice:
    """At a hub."""
    return _advice(
        name,
        upload=f"muster certificate upload inter.pem --verify --hub {hub}",
        alone=f"let the hub know this one alone: muster device update {name} --certificate {name}.pem",
    )


def _advice(name: str, *, upload: str, alone: str) -> Advice:
    return Advice(**msgspec.structs.asdict(issued_certificate(name)), upload=upload, alone=alone)


def presented(chain: tuple[bytes, ...]) -> Check:
    return check("x509.certificate-presented", passed=True, detail=f"{counted(len(chain))} presented")


def _named(certificate: ChainCertificate) -> str:
    return quoted(certificate.facts.subject)


class ChainChecks:
    """The checks of one chain that was found."""

    def __init__(
        self,
        sent: tuple[bytes, ...],
        found: Chain,
        trust: X509Trust,
        registration_id: str,
        now: int,
        advice: Advice | None = None,
    ) -> None:
        self._sent = sent
        self._found = found
        self._trust = trust
        self._registration_id = registration_id
        self._now = now
        self._word = shell_word(registration_id, "NAME")
        self._remedy = advice or provisioning_advice(self._word)
        self._leaf = found.links[0].certificate
        self._last = found.links[-1].certificate
        self._above = found.links[1:]
        self.own = self._leaf.facts
        self.issuers = [link.certificate.facts for link in self._above]

    # From the device's certificate to one that is trusted

    def of_the_way_up(self) -> tuple[Check, ...]:
        """What was sent, whether the issuers are known, and whether their signatures are right."""
        return (
            presented(self._sent),
            check("x509.parses", passed=True, detail=summary(self.own)),
            self._order(),
            self._issuers_known(),
            self._signatures(),
        )

    def _order(self) -> Check:
        """Each certificate directly certifies the one before it (RFC 5246 7.4.2)."""
        number, problem = self._disorder()
        shown = f"{counted(len(self._sent))}, the first is {_named(self._leaf)}"
        return check(
            "x509.chain-order",
            passed=number is None,
            detail=shown + ("" if number is None else f"; number {number} {problem}"),
            fix="put the device's own certificate first, then the one that issued it, and so on: "
            f"cat {self._word}.pem inter.pem > fullchain.pem",
        )

    def _disorder(self) -> tuple[int | None, str]:
        sent = self._found.presented
        if not is_named(self.own, self._registration_id):
            for number, one in enumerate(sent, 1):
                if one is not None and is_named(one.facts, self._registration_id):
                    return number, f"is the one with the device's name: {_named(one)}"
        for number, (below, above) in enumerate(pairwise(sent), 2):
            if above is None:
                return number, "cannot be read"
            if below is not None and below.issuer != above.subject:
                return number, f"({_named(above)}) did not issue the one before it"
        if len(self._sent) > MAXIMUM_PRESENTED:
            return MAXIMUM_PRESENTED + 1, "and those behind it are not looked at"
        return None, ""

    def _issuers_known(self) -> Check:
        gap = next((at for at, link in enumerate(self._found.links) if not link.is_usable), None)
        if gap is not None:
            return self._issuer_missing(_named(self._found.links[gap].certificate), gap - 1, self._origin(gap))
        end = self._found.end
        if end is ChainEnd.ISSUER_MISSING:
            return self._issuer_missing(quoted(self._last.facts.issuer), len(self._above), self._namesake())
        if end is ChainEnd.UNTRUSTED and not self._above:
            return self._self_issued()
        if end is ChainEnd.TOO_LONG:
            return check(
                "x509.issuer-known",
                passed=False,
                detail=f"no verified CA certificate is among the {MAXIMUM_DEPTH} above the device's own",
                fix=f"upload one that stands nearer to the device: {self._remedy.upload}",
            )
        detail = f"every issuer up to {_named(self._last)} was sent by the device, or is a verified CA certificate"
        return check("x509.issuer-known", passed=True, detail=detail)

    def _issuer_missing(self, issuer: str, below: int, hint: str) -> Check:
        child = _named(self._found.links[below].certificate)
        return check(
            "x509.issuer-known",
            passed=False,
            detail=f"issuer {issuer} of {child} is not in the TLS handshake, and no verified CA certificate{hint}",
            fix=f"send it too: cat {self._word}.pem inter.pem > fullchain.pem; "
            f"or upload and verify it: {self._remedy.upload}",
        )

    def _origin(self, at: int) -> str:
        origin = self._trust.origin(self._found.links[at].certificate.der)
        return f"; it is {origin}, and as it is not verified itself, the device has to send it" if origin else ""

    def _namesake(self) -> str:
        if not self._found.suspects:
            return ""
        return "; a certificate whose name looks like that was sent, but its name is encoded in another way"

    def _self_issued(self) -> Check:
        origin = self._trust.origin(self._leaf.der)
        hint = f": it is {origin} itself, and not one issued by it" if origin else ""
        return check(
            "x509.issuer-known",
            passed=False,
            detail=f"the device's certificate {_named(self._leaf)} is self-signed, no CA issued it{hint}",
            fix=f"give the device a certificate that the CA issued: {self._remedy.make}; or {self._remedy.alone}",
        )

    def _signatures(self) -> Check:
        end = self._found.end
        if end is ChainEnd.SIGNATURE_WRONG:
            return self._wrong_signature()
        if end is ChainEnd.TOO_MUCH_WORK:
            return check(
                "x509.chain",
                passed=False,
                detail=f"more than {MAXIMUM_SIGNATURES} signatures would have to be looked at",
                fix="send only the device's own certificate and its issuers; too many of those sent have the same name",
            )
        if not self._above:
            return skipped("x509.chain", "there is no issuer's certificate")
        names = " < ".join(_named(link.certificate) for link in self._found.links)
        return check("x509.chain", passed=True, detail=f"each is signed by the next: {names}")

    def _wrong_signature(self) -> Check:
        suspects = ", ".join(f"SHA-1 {one.facts.sha1_thumbprint}" for one in self._found.suspects[:3])
        return check(
            "x509.chain",
            passed=False,
            detail=f"{_named(self._last)} is not signed by {quoted(self._last.facts.issuer)} as it was sent or is known"
            f" here: {suspects}",
            fix="did the CA get a new key under its old name? Send and enroll the CA certificate that issued it"
            f" (openssl verify -partial_chain -trusted inter.pem {self._word}.pem tells), or {self._remedy.renew}",
        )

    @property
    def _is_broken(self) -> bool:
        ends = (ChainEnd.TRUSTED, ChainEnd.UNTRUSTED)
        return self._found.end not in ends or not self._above or not all(link.is_usable for link in self._above)

    # The enrollment

    def group_exists(self, group: X509Group | None) -> Check:
        at = self._found.signing
        if group is not None and at is not None:
            certificate = self._above[at - 1].certificate
            slots = zip(("primary", "secondary"), group.certificates, strict=False)
            slot = next((slot for slot, one in slots if one == certificate.der), "signing")
            detail = f"{_named(certificate)} is the {slot} certificate of group {quoted(group.group_id)}"
            others = [one.group_id for one in self._trust.groups[certificate.der] if one is not group][:3]
            more = f", and of {', '.join(map(quoted, others))}" if others else ""
            return check("enrollment.group-exists", passed=True, detail=detail + more)
        if self._is_broken:
            return skipped(
                "enrollment.group-exists", "the chain is broken before it comes to the certificate of a group"
            )
        names = ", ".join(_named(link.certificate) for link in self._above)
        return check(
            "enrollment.group-exists",
            passed=False,
            detail=f"no group has one of the certificates above the device's: {names}{self._other_certificate()}",
            fix="enroll one of them: muster group create GROUP --certificate inter.pem; "
            "or add it to a group: muster group update GROUP --secondary-certificate inter.pem",
        )

    def _other_certificate(self) -> str:
        """A hint when a CA of the chain is enrolled with another certificate of the same name."""
        for link in self._above:
            for known in self._trust.known.named(link.certificate.subject):
                groups = self._trust.groups.get(known.der)
                if groups:
                    return (
                        f"; group {quoted(groups[0].group_id)} has another certificate of the name {_named(known)}:"
                        f" SHA-1 {known.facts.sha1_thumbprint}, sent was {link.certificate.facts.sha1_thumbprint}"
                    )
        return ""

    def signing_certificate(self, certificates: Collection[bytes]) -> Check:
        at = self._found.signing
        if at is not None:
            detail = f"{_named(self._above[at - 1].certificate)} is the CA certificate of the enrollment"
            return check("x509.signing-certificate", passed=True, detail=detail)
        if self._is_broken:
            return skipped("x509.signing-certificate", "the chain is broken before it comes to the enrollment's CA")
        names = ", ".join(_named(link.certificate) for link in self._above)
        missing = "" if certificates else "; the CA certificates it refers to are not there"
        return check(
            "x509.signing-certificate",
            passed=False,
            detail=f"the enrollment has none of the certificates above the device's: {names}{missing}",
            fix="enroll the device by one of them: muster certificate upload inter.pem --verify, and refer to that",
        )

    def leads_to_authority(self) -> Check:
        """At a hub: whether the chain ends at a verified CA certificate."""
        name = _named(self._last)
        if self._found.end is ChainEnd.TRUSTED:
            return check("device.certificate-authority", passed=True, detail=f"{name} is a verified CA certificate")
        if self._is_broken:
            return skipped("device.certificate-authority", "the chain is broken before it comes to a CA certificate")
        origin = self._trust.origin(self._last.der)
        return check(
            "device.certificate-authority",
            passed=False,
            detail=f"the chain ends at {name}, which is no verified CA certificate of the hub"
            + (f": it is {origin}, and not verified yet" if origin else ""),
            fix=f"prove that the CA is yours: {self._remedy.upload}",
        )

    def verified(self, check_id: str) -> Check:
        at = self._found.signing
        if at is None:
            return skipped(check_id, "the chain does not come to the certificate of the enrollment")
        link = self._found.links[at]
        name = _named(link.certificate)
        if link.trusted:
            return check(check_id, passed=True, detail=f"{name} is a verified CA certificate")
        if self._found.end is ChainEnd.TRUSTED and all(one.is_usable for one in self._found.links[at + 1 :]):
            return check(check_id, passed=True, detail=f"{name} leads to {_named(self._last)}, which is verified")
        return check(
            check_id,
            passed=False,
            detail=f"{name} is not verified, and does not lead to a verified CA certificate:"
            f" the chain ends at {_named(self._last)}",
            fix="prove that the CA is yours: muster certificate upload inter.pem --verify; or do so with one above it,"
            " and let the device send what lies between",
        )

    # The issuers

    def of_the_issuers(self) -> tuple[Check, ...]:
        """Dates, constraints and extensions of all that stands above the device's certificate."""
        if not self._above:
            ids = ("chain-dates", "chain-ca", "path-length", "name-constraints", "chain-extensions", "chain-standard")
            return tuple(skipped(f"x509.{one}", "there is no issuer's certificate") for one in ids)
        return (
            self._dates(),
            self._are_cas(),
            self._path_lengths(),
            self._name_constraints(),
            self._extensions(),
            self._standard(),
        )

    def _dates(self) -> Check:
        wrong = next((link.certificate for link in self._above if not link.in_dates), None)
        if wrong is None:
            end, subject = min((facts.not_after or 0, facts.subject) for facts in self.issuers)
            detail = f"{counted(len(self._above))} above it; {quoted(subject)} ends first, on {utc_text(end)}"
            return check("x509.chain-dates", passed=True, detail=detail)
        passed, detail, fix = starts(wrong.facts, self._now, _CA_REMEDY)
        if passed:
            _, detail, fix = ends(wrong.facts, self._now, _CA_REMEDY)
        return check("x509.chain-dates", passed=False, detail=f"{_named(wrong)} {detail}", fix=fix)

    def _are_cas(self) -> Check:
        wrong = next((link.certificate.facts for link in self._above if not link.may_issue), None)
        if wrong is None:
            detail = f"{counted(len(self._above))} above it, each CA:TRUE"
            return check("x509.chain-ca", passed=True, detail=detail)
        kinds = {True: "has a key usage without keyCertSign", False: "is CA:FALSE", None: "has no basic constraints"}
        return check(
            "x509.chain-ca",
            passed=False,
            detail=f"{quoted(wrong.subject)} {kinds[wrong.is_ca]}, so it may not issue certificates",
            fix="was the right certificate taken to issue the device's? Else make the CA certificate again, with"
            f" basicConstraints=critical,CA:TRUE and keyUsage=keyCertSign,cRLSign: {_CA_REMEDY.make}",
        )

    def _path_lengths(self) -> Check:
        wrong = next((at for at, link in enumerate(self._found.links) if at and not link.path_length_kept), None)
        if wrong is None:
            return check("x509.path-length", passed=True, detail=f"{counted(len(self._above))} above it")
        certificate = self._found.links[wrong].certificate
        return check(
            "x509.path-length",
            passed=False,
            detail=f"{_named(certificate)} has the path length {certificate.path_length}, and more CAs are below it:"
            f" {', '.join(_named(link.certificate) for link in self._found.links[1:wrong])}",
            fix="issue the device's certificate from a CA that stands higher, or make that CA certificate again with a"
            " larger pathlen",
        )

    def _name_constraints(self) -> Check:
        wrong = next((link for link in self._found.links if link.excluded_name), None)
        detail = "" if wrong is None else f"{_named(wrong.certificate)} has {quoted(wrong.excluded_name)}"
        return check(
            "x509.name-constraints",
            passed=wrong is None,
            detail=f"{detail}, which a CA above it may not certify" if wrong else "no name is excluded",
            fix="take the name out of the certificate, or widen the name constraints of the CA",
        )

    def _extensions(self) -> Check:
        wrong = next((link.certificate for link in self._found.links if link.certificate.extension_problem), None)
        return check(
            "x509.chain-extensions",
            passed=wrong is None,
            detail="all can be read" if wrong is None else f"{_named(wrong)}: {wrong.extension_problem}",
            fix="make the certificate again without it, or with the extension not critical",
        )

    def _standard(self) -> Check:
        refusal = self._found.refusal
        if not refusal and not self._found.is_sound:
            return skipped("x509.chain-standard", "the chain has another fault")
        return check(
            "x509.chain-standard",
            passed=not refusal,
            detail=quoted(refusal, 256) if refusal else "nothing else was found",
            fix="make the certificates again with another tool, and compare: muster cert inspect FILE",
        )

    def revocation(self, revocations: KnownRevocations | None) -> tuple[Check, ...]:
        """What the lists say, if there are any, about the whole chain; only of one that leads to a verified CA."""
        if revocations is None:
            return ()
        if self._found.end is not ChainEnd.TRUSTED:
            return not_judged(REVOCATION, "the chain does not lead to a verified CA certificate")
        path = [link.certificate for link in self._found.links]
        sent = [one for one in self._found.presented if one is not None]
        return check_path(revocations, path, self._now, sent=sent, known=self._trust.known.named)

    # The device's own certificate, where groups are stricter than individual enrollments

    def leaf_is_no_ca(self) -> Check:
        details = {True: "CA:TRUE, a CA certificate", False: "CA:FALSE", None: "no basic constraints, so no CA"}
        return check(
            "x509.leaf-not-ca",
            passed=self.own.is_ca is not True,
            detail=details[self.own.is_ca],
            fix="is this the wrong one of several, that of a CA? Give the device an end-entity certificate:"
            f" {self._remedy.make}; or {self._remedy.by_openssl}",
        )

    def leaf_has_client_auth(self) -> Check:
        """One that is absent is only warned of; one without clientAuth refuses."""
        usages = self.own.extended_key_usage
        if usages is None:
            return check_extended_key_usage(self.own, self._remedy)
        return check(
            "x509.leaf-client-auth",
            passed=not CLIENT_USAGES.isdisjoint(usages),
            detail=f"extended key usage {quoted(', '.join(usages))}",
            fix=f"make it with clientAuth: {self._remedy.make}; or {self._remedy.by_openssl}",
        )
