"""What is wrong with a certificate that is about to be signed: held against its order, and against its CA.

Read from the finished bytes, by other code than made them. Not here: judging certificates that others made
(``verify.py``), and signing (``issuance.py``).
"""

from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.pki import object_identifiers
from muster.pki.certificate import Certificate, utc_text
from muster.pki.certificate_order import CertificateOrder
from muster.pki.certificate_profiles import CertificateProfile
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.name_constraints import excluded_name, read_extension
from muster.pki.names import general_name_text
from muster.pki.private_key import public_key_problem
from muster.pki.problem import Problem


def certificate_problems(
    certificate: x509.Certificate, order: CertificateOrder, above: tuple[x509.Certificate, ...]
) -> tuple[Problem, ...]:
    """Why a certificate should not be signed; empty when nothing speaks against it.

    ``above`` are the CA that is to sign it and those above that, the nearest first; empty for a self-signed one. Its
    signature is not looked at.
    """
    own = ChainCertificate(certificate.public_bytes(Encoding.DER))
    return (
        *_profile_problems(own, order),
        *_name_problems(certificate, own.facts, order),
        *_key_problems(certificate, above),
        *_date_problems(own.facts),
        *_issuer_problems(own, above),
        *_limit_problems(certificate, above),
    )


def _profile_problems(own: ChainCertificate, order: CertificateOrder) -> Iterator[Problem]:
    facts, profile = own.facts, order.profile
    wanted = ("CA:TRUE" if profile.ca else "CA:FALSE", profile.path_length)
    found = ("CA:TRUE" if facts.is_ca else "CA:FALSE", own.path_length)
    if facts.is_ca is None or wanted != found:
        yield Problem(
            "certificate.basic-constraints", f"the profile has {_shown(wanted)}, the certificate {_shown(found)}"
        )
    usages = profile.key_usage_for(rsa=facts.key_algorithm == object_identifiers.RSA)
    if set(facts.key_usage or ()) != set(usages):
        yield Problem("certificate.key-usage", _difference("key usage", usages, facts.key_usage))
    if facts.extended_key_usage != (_purposes(profile) or None):
        detail = _difference("extended key usage", _purposes(profile), facts.extended_key_usage)
        yield Problem("certificate.extended-key-usage", detail)


def _shown(constraints: tuple[str, int | None]) -> str:
    kind, length = constraints
    return kind if length is None else f"{kind} with the path length {length}"


def _purposes(profile: CertificateProfile) -> tuple[str, ...]:
    identifiers = (one.dotted_string for one in profile.usage_identifiers())
    return tuple(object_identifiers.EXTENDED_KEY_USAGES.get(one, one) for one in identifiers)


def _difference(what: str, wanted: tuple[str, ...], found: tuple[str, ...] | None) -> str:
    return f"{what}: the profile has {', '.join(wanted) or 'none'}, the certificate {', '.join(found or ()) or 'none'}"


def _name_problems(certificate: x509.Certificate, facts: Certificate, order: CertificateOrder) -> Iterator[Problem]:
    profile, name = order.profile, facts.common_name
    if name is None or not profile.takes_common_name(name):
        detail = "it has no common name" if name is None else f"the profile does not take the common name {name!r}"
        yield Problem("certificate.common-name", detail, f"the profile takes: {profile.common_name}")
    for alternative in read_extension(certificate, x509.SubjectAlternativeName) or ():
        if not profile.takes_alternative_name(alternative, name or ""):
            detail = f"the profile does not take the alternative name {general_name_text(alternative)!r}"
            yield Problem("certificate.alternative-name", detail, "choose a profile whose alternative_names have it")
    if read_extension(certificate, x509.NameConstraints) != order.limits:
        yield Problem("certificate.name-constraints", "its name constraints are not those that were ordered")


def _key_problems(certificate: x509.Certificate, above: tuple[x509.Certificate, ...]) -> Iterator[Problem]:
    key = certificate.public_key()
    problem = public_key_problem(key)
    if problem is not None:
        yield Problem("certificate.key", f"its key is not taken: {problem}", "take a key of one of the known kinds")
    if any(key == one.public_key() for one in above):
        yield Problem("certificate.key", "its key is that of a CA above it", "make a key of its own for it")


def _date_problems(facts: Certificate) -> Iterator[Problem]:
    if facts.not_before is None or facts.not_after is None or facts.not_before >= facts.not_after:
        yield Problem("certificate.dates", "it ends before it begins")


def _issuer_problems(own: ChainCertificate, above: tuple[x509.Certificate, ...]) -> Iterator[Problem]:
    issuers = [ChainCertificate(one.public_bytes(Encoding.DER)) for one in above]
    if not issuers:
        if own.issuer != own.subject:
            yield Problem("certificate.issuer", "it is to sign itself, and names another issuer")
        return
    issuer = issuers[0]
    if own.issuer != issuer.subject or own.authority_key_identifier is None:
        yield Problem("certificate.issuer", "it does not name the CA that is to sign it")
    if not issuer.may_issue:
        yield Problem("certificate.issuer", f"{issuer.facts.subject!r} may not sign certificates: it is no CA")
    yield from _validity_problems(own.facts, issuer.facts)
    yield from _path_length_problems(own, issuers)


def _validity_problems(facts: Certificate, issuer: Certificate) -> Iterator[Problem]:
    starts = (facts.not_before or 0) >= (issuer.not_before or 0)
    ends = (facts.not_after or 0) <= (issuer.not_after or 0)
    if not (starts and ends):
        yield Problem(
            "certificate.dates",
            f"it would be valid from {utc_text(facts.not_before or 0)} until {utc_text(facts.not_after or 0)}, its CA"
            f" {issuer.subject!r} is from {utc_text(issuer.not_before or 0)} until {utc_text(issuer.not_after or 0)}",
            "ask for fewer days, or renew the CA",
        )


def _path_length_problems(own: ChainCertificate, issuers: list[ChainCertificate]) -> Iterator[Problem]:
    """A CA counts although it is the last one here: it is made to issue."""
    for below, issuer in enumerate(issuers, start=1 if own.facts.is_ca else 0):
        if issuer.path_length is not None and below > issuer.path_length:
            yield Problem(
                "certificate.path-length",
                f"{issuer.facts.subject!r} allows {issuer.path_length} further CAs below it; there would be {below}",
                "issue it from a CA that stands higher, or make that CA with a larger path length",
            )


def _limit_problems(certificate: x509.Certificate, above: tuple[x509.Certificate, ...]) -> Iterator[Problem]:
    for issuer in above:
        limits = read_extension(issuer, x509.NameConstraints)
        name = None if limits is None else excluded_name(limits, certificate)
        if name is not None:
            detail = f"{issuer.subject.rfc4514_string()!r} may not certify the name {name!r}"
            yield Problem("certificate.name-constraints", detail, "choose another name, or another CA")
