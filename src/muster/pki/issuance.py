"""Issuing certificates: a CA signs what was ordered, if nothing speaks against it.

Every certificate is first signed with a key that counts for nothing, and what stands in it is held against the order
and the CA (``certificate_lint.py``); only then is it signed. The same arguments give the same bytes, for EC keys where
ECDSA is deterministic (``private_key.py``). Not here: orders (``certificate_order.py``), which serial numbers a CA has
used, and where it keeps them.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from muster.pki import object_identifiers
from muster.pki.certificate_lint import certificate_problems
from muster.pki.certificate_order import CertificateOrder, make_order, moment, new_serial_number, validity
from muster.pki.certificate_profiles import PROFILES, VERIFICATION
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.name_constraints import read_extension
from muster.pki.private_key import Entropy, PrivateKey, make_key, signature_hash, signs_deterministically
from muster.pki.problem import AuthorityError, require_none
from muster.pki.verify import MAXIMUM_DEPTH


@dataclass(frozen=True, slots=True)
class Issuer:
    """A CA that can sign. ``above`` are the certificates above its own, the nearest first, up to the root."""

    certificate: x509.Certificate
    key: PrivateKey = field(repr=False)
    above: tuple[x509.Certificate, ...] = ()

    def __post_init__(self) -> None:
        """Raises AuthorityError when the key is another's, or a certificate cannot be read."""
        try:
            for one in self.chain:
                _ = one.extensions
            own = self.certificate.public_key()
        except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
            raise AuthorityError(f"a certificate of the CA cannot be read: {error}") from None
        if own != self.key.public_key():
            raise AuthorityError("the private key does not belong to the certificate of the CA")

    @property
    def chain(self) -> tuple[x509.Certificate, ...]:
        """Its certificate and those above it."""
        return (self.certificate, *self.above)


def issuers_of(certificate: x509.Certificate, known: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """Those of the known certificates that stand above one, the nearest first, as far up as signatures lead.

    Raises CertificateFormatError.
    """
    candidates = [(one, ChainCertificate(one.public_bytes(Encoding.DER))) for one in dict.fromkeys(known)]
    own = ChainCertificate(certificate.public_bytes(Encoding.DER))
    above: list[x509.Certificate] = []
    while own.issuer != own.subject and len(above) < MAXIMUM_DEPTH:
        found = next(((one, read) for one, read in candidates if own.is_signed_by(read)), None)
        if found is None:
            break
        above.append(found[0])
        own = found[1]
    return tuple(above)


def issue(order: CertificateOrder, issuer: Issuer) -> x509.Certificate:
    """The certificate that was ordered. Raises AuthorityError with all reasons that speak against it."""
    above = issuer.certificate
    identifier = read_extension(above, x509.SubjectKeyIdentifier)
    authority = (
        x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        if identifier is None
        else x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier)
    )
    return _sign(_builder(order, above.subject, authority), order, issuer.key, issuer.chain)


def self_sign(order: CertificateOrder, key: PrivateKey) -> x509.Certificate:
    """As ``issue``, signed with its own key: a root, or the certificate of a device without a CA."""
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()) if order.profile.ca else None
    return _sign(_builder(order, order.subject, identifier), order, key, ())


def prove_possession(issuer: Issuer, code: str, now: int, entropy: Entropy) -> x509.Certificate:
    """A certificate that shows that its maker has the CA's key: the common name is the verification code (dps.md 7.5).

    Its own key is thrown away. ``now`` is in microseconds UTC. Raises AuthorityError.
    """
    profile = PROFILES[VERIFICATION]
    key = make_key(profile.key, entropy)
    valid = validity(now, profile.days, issuer.certificate)
    return issue(make_order(profile, code, key.public_key(), valid, new_serial_number(entropy)), issuer)


def _sign(
    builder: x509.CertificateBuilder, order: CertificateOrder, key: PrivateKey, above: tuple[x509.Certificate, ...]
) -> x509.Certificate:
    require_none(certificate_problems(builder.sign(_trial_key(), None), order, above))
    return builder.sign(key, signature_hash(key), ecdsa_deterministic=signs_deterministically(key))


@functools.cache
def _trial_key() -> ed25519.Ed25519PrivateKey:
    """Everybody can make this key: what it signs is looked at, and thrown away."""
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))


def _builder(
    order: CertificateOrder, issuer: x509.Name, authority: x509.AuthorityKeyIdentifier | None
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .subject_name(order.subject)
        .issuer_name(issuer)
        .public_key(order.public_key)
        .serial_number(order.serial_number)
        .not_valid_before(moment(order.valid.not_before))
        .not_valid_after(moment(order.valid.not_after))
    )
    for extension, critical in _extensions(order):
        builder = builder.add_extension(extension, critical=critical)
    return builder if authority is None else builder.add_extension(authority, critical=False)


def _extensions(order: CertificateOrder) -> list[tuple[x509.ExtensionType, bool]]:
    """Each with whether it is critical (RFC 5280 4.2.1)."""
    profile = order.profile
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectKeyIdentifier.from_public_key(order.public_key), False),
        (x509.BasicConstraints(ca=profile.ca, path_length=profile.path_length), True),
        (_key_usage(profile.key_usage_for(rsa=isinstance(order.public_key, rsa.RSAPublicKey))), True),
    ]
    if profile.extended_key_usage:
        extensions.append((x509.ExtendedKeyUsage(profile.usage_identifiers()), False))
    if order.alternative_names:
        extensions.append((x509.SubjectAlternativeName(order.alternative_names), False))
    if order.limits is not None:
        extensions.append((order.limits, True))
    if profile.crl_urls:
        extensions.append((_distribution_points(profile.crl_urls), False))
    return extensions


def _key_usage(names: tuple[str, ...]) -> x509.KeyUsage:
    # The arguments stand in the order of the standard's bits.
    return x509.KeyUsage(*(name in names for name in object_identifiers.KEY_USAGES))


def _distribution_points(urls: tuple[str, ...]) -> x509.CRLDistributionPoints:
    places = [x509.UniformResourceIdentifier(url) for url in urls]
    return x509.CRLDistributionPoints([x509.DistributionPoint(places, None, None, None)])
