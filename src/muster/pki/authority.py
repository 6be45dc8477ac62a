"""The certificates that Muster makes: its own CA, the server's certificate, and self-signed ones for devices.

Everything comes out as PEM, keys as PKCS#8; times are arguments, in microseconds since 1970, UTC. Keys and
serial numbers are random: this module is the one place of ``pki`` that may ask for randomness. It writes no
files.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

AUTHORITY_DAYS = 3650
SERVER_DAYS = 397
"""Browsers and Apple's clients refuse a server certificate that lives for more than 398 days."""
COMMON_NAME_LENGTH = 64
"""The most a common name may have (RFC 5280 appendix A.1); DPS documents the same limit (dps.md 4.2)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BACKDATED = timedelta(days=1)
"""How long before now a certificate becomes valid: the clocks of the machines that meet it differ."""
_LONGEST_PASS_PHRASE = 1023  # what OpenSSL takes
_EVERY_ADDRESS = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
KEY_KINDS = ("rsa-4096", "ec-p256")
"""The kinds of key that a device certificate can have."""


class AuthorityError(ValueError):
    """What was asked for cannot be certified; the message says why."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A certificate and its private key, as PEM; the key is encrypted when a pass phrase was given."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


def create_authority(
    names: Sequence[str], networks: Sequence[Network], now: int, *, days: int = AUTHORITY_DAYS
) -> Credential:
    """A new CA with a P-256 key, only for servers under ``names``, below them, and in ``networks``.

    The limits are critical name constraints (RFC 5280 4.2.1.10): who trusts this CA trusts it for nothing
    else, even if its key is stolen. Raises AuthorityError.
    """
    return _self_signed_authority(ec.generate_private_key(ec.SECP256R1()), names, networks, now, days)


def renew_authority(
    authority: Credential,
    names: Sequence[str],
    networks: Sequence[Network],
    now: int,
    *,
    days: int = AUTHORITY_DAYS,
) -> Credential:
    """The same CA (key, subject) with new dates and limits; its users have to fetch the new certificate.

    Raises AuthorityError.
    """
    return _self_signed_authority(_load_key(authority), names, networks, now, days)


def permitted(certificate_pem: bytes) -> tuple[list[str], list[Network]] | None:
    """The names and networks that this CA may certify by its name constraints; None for a CA without them."""
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    try:
        subtrees = certificate.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or ()
    except x509.ExtensionNotFound:
        return None
    names = [limit.value for limit in subtrees if isinstance(limit, x509.DNSName)]
    return names, [limit.value for limit in subtrees if isinstance(limit.value, Network)]


def names_outside(certificate_pem: bytes, names: Sequence[str], addresses: Sequence[Address]) -> list[str]:
    """Which of ``names`` and ``addresses`` this CA may not certify by its name constraints; empty is good."""
    limits = permitted(certificate_pem)
    if limits is None:
        return []
    domains, networks = limits
    outside = [name for name in names if not any(_is_below(name, domain) for domain in domains)]
    return outside + [str(one) for one in addresses if not any(one in network for network in networks)]


def has_expired(certificate_pem: bytes, now: int) -> bool:
    """Whether the certificate's last moment has passed."""
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc <= _moment(now)


def issue_server_certificate(
    authority: Credential,
    names: Sequence[str],
    addresses: Sequence[Address],
    now: int,
    *,
    days: int = SERVER_DAYS,
) -> Credential:
    """A P-256 server certificate for every one of ``names`` and ``addresses``, no longer valid than its CA.

    Passes Python's VERIFY_X509_STRICT (libraries.md 1). Raises AuthorityError when the CA has expired or may
    not certify one of them, or when there are none.
    """
    issuer = x509.load_pem_x509_certificate(authority.certificate_pem)
    outside = names_outside(authority.certificate_pem, names, addresses)
    if outside:
        raise AuthorityError(f"the CA {_common_name(issuer)!r} may not certify {', '.join(outside)}")
    if has_expired(authority.certificate_pem, now):
        raise AuthorityError(f"the CA {_common_name(issuer)!r} has expired on {issuer.not_valid_after_utc:%Y-%m-%d}")
    if not (names or addresses):
        raise AuthorityError("a server certificate needs a name or an address")
    key = ec.generate_private_key(ec.SECP256R1())
    issuer_key_identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    subject = next((name for name in names if len(name) <= COMMON_NAME_LENGTH), "Muster server")
    builder = (
        _builder(key, _name(subject), issuer.subject, now, days, latest=issuer.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(key), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(_alternative_names(names, addresses), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_key_identifier),
            critical=False,
        )
    )
    return _credential(builder.sign(_load_key(authority), hashes.SHA256()), key, NoEncryption())


def create_device_certificate(
    common_name: str, now: int, *, key_kind: str = "rsa-4096", days: int = 365, pass_phrase: str | None = None
) -> Credential:
    """A self-signed client certificate as DPS wants it (dps.md 4.4, users.md 1.1).

    An end-entity certificate of version 3 for ``clientAuth`` whose common name is the registration id.
    ``key_kind`` is one of KEY_KINDS. Raises AuthorityError.
    """
    if not 0 < len(common_name) <= COMMON_NAME_LENGTH:
        raise AuthorityError(f"a common name has 1 to {COMMON_NAME_LENGTH} characters, not {len(common_name)}")
    if pass_phrase is not None and not 0 < len(pass_phrase.encode()) <= _LONGEST_PASS_PHRASE:
        raise AuthorityError(f"a pass phrase has 1 to {_LONGEST_PASS_PHRASE} bytes")
    key = _make_key(key_kind)
    subject = _name(common_name)
    builder = (
        _builder(key, subject, subject, now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(key), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    encryption = BestAvailableEncryption(pass_phrase.encode()) if pass_phrase else NoEncryption()
    return _credential(builder.sign(key, hashes.SHA256()), key, encryption)


def _make_key(kind: str) -> PrivateKey:
    if kind == "rsa-4096":
        return rsa.generate_private_key(public_exponent=65537, key_size=4096)
    if kind == "ec-p256":
        return ec.generate_private_key(ec.SECP256R1())
    raise AuthorityError(f"{kind!r} is no kind of key: take {' or '.join(KEY_KINDS)}")


def _self_signed_authority(
    key: PrivateKey, names: Sequence[str], networks: Sequence[Network], now: int, days: int
) -> Credential:
    # The name tells one development CA from another in a trust store, and stays when the CA is renewed.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    subject = _name(f"Muster development CA {identifier.digest.hex()[:8]}")
    builder = (
        _builder(key, subject, subject, now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(key, signs_certificates=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .add_extension(_name_constraints(names, networks), critical=True)
    )
    return _credential(builder.sign(key, hashes.SHA256()), key, NoEncryption())


def _builder(
    key: PrivateKey,
    subject: x509.Name,
    issuer: x509.Name,
    now: int,
    days: int,
    *,
    latest: datetime | None = None,
) -> x509.CertificateBuilder:
    """What all certificates have: names, key, serial number, dates, and the subject key identifier."""
    moment = _moment(now)
    try:
        end = moment + timedelta(days=days)
    except OverflowError:
        raise AuthorityError(f"{days} days from now is beyond the year 9999") from None
    if days < 1:
        raise AuthorityError(f"a certificate lives for at least 1 day, not {days}")
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - _BACKDATED)
        .not_valid_after(min(end, latest or end))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _credential(certificate: x509.Certificate, key: PrivateKey, encryption: KeySerializationEncryption) -> Credential:
    return Credential(
        certificate.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption),
    )


def _load_key(credential: Credential) -> PrivateKey:
    key = load_pem_private_key(credential.key_pem, password=None)
    assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
    return key


def _moment(microseconds: int) -> datetime:
    """With whole seconds, as certificates have."""
    return _EPOCH + timedelta(seconds=microseconds // 1_000_000)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _common_name(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string().removeprefix("CN=")


def _key_usage(key: PrivateKey, *, signs_certificates: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=isinstance(key, rsa.RSAPrivateKey),  # the key exchange of old TLS 1.2 suites
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _name_constraints(names: Sequence[str], networks: Sequence[Network]) -> x509.NameConstraints:
    """Permitted are these names, what is below them, and these networks; a kind without any is excluded."""
    permitted: list[x509.GeneralName] = [_dns_name(name.removeprefix("*.")) for name in names]
    permitted += [x509.IPAddress(network) for network in networks]
    excluded: list[x509.GeneralName] = [] if names else [x509.DNSName("")]
    excluded += [] if networks else [x509.IPAddress(network) for network in _EVERY_ADDRESS]
    if not permitted:
        raise AuthorityError("a CA needs a name or a network that it may certify")
    return x509.NameConstraints(permitted, excluded or None)


def _alternative_names(names: Sequence[str], addresses: Sequence[Address]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([*map(_dns_name, names), *map(x509.IPAddress, addresses)])


def _dns_name(name: str) -> x509.DNSName:
    try:
        return x509.DNSName(name)
    except ValueError:
        raise AuthorityError(f"{name!r} is no DNS name: write it in ASCII, international names as xn--") from None


def _is_below(name: str, domain: str) -> bool:
    name, domain = name.lower(), domain.lower()
    return name == domain or name.endswith(f".{domain}")
