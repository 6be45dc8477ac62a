"""The certificates that Muster makes for itself, and self-signed ones for devices: its own CA, and the server's.

Everything comes out as PEM, keys as PKCS#8; times are arguments, in microseconds since 1970, UTC. Keys and serial
numbers are random: this module is the one place of ``pki`` that may ask for randomness. It writes no files. Not here:
how certificates are issued (``issuance.py``), and CAs that users run (``muster ca``).
"""

import ipaddress
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.pki import object_identifiers
from muster.pki.certificate_order import CertificateOrder, moment, validity
from muster.pki.certificate_profiles import DEVICE, PROFILES, SERVER, CertificateProfile
from muster.pki.issuance import Issuer, issue, self_sign
from muster.pki.name_constraints import read_extension
from muster.pki.names import LONGEST_COMMON_NAME, NameTextError, common_name_of, common_name_only, dns_name
from muster.pki.private_key import (
    PassPhraseError,
    PrivateKey,
    make_key,
    pass_phrase_bytes,
    read_private_key,
    write_private_key,
)
from muster.pki.problem import AuthorityError

__all__ = [
    "AUTHORITY_DAYS",
    "KEY_KINDS",
    "SERVER_DAYS",
    "AuthorityError",
    "Credential",
    "create_authority",
    "create_device_certificate",
    "has_expired",
    "issue_server_certificate",
    "names_outside",
    "permitted",
    "renew_authority",
]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

AUTHORITY_DAYS = 3650
SERVER_DAYS = PROFILES[SERVER].days
KEY_KINDS = ("rsa-4096", "ec-p256")
"""The kinds of key that a self-signed device certificate can have."""

_DEVELOPMENT_CA = CertificateProfile(
    description="the CA of muster up",
    days=AUTHORITY_DAYS,
    key="ec-p256",
    key_usage=("keyCertSign", "cRLSign"),
    extended_key_usage=(object_identifiers.SERVER_AUTH,),
    ca=True,
    path_length=0,
)
_EVERY_ADDRESS = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))


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
    return _self_signed_authority(make_key("ec-p256", os.urandom), names, networks, now, days)


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
    return _self_signed_authority(read_private_key(authority.key_pem), names, networks, now, days)


def permitted(certificate_pem: bytes) -> tuple[list[str], list[Network]] | None:
    """The names and networks that this CA may certify by its name constraints; None for a CA without them."""
    limits = read_extension(x509.load_pem_x509_certificate(certificate_pem), x509.NameConstraints)
    if limits is None:
        return None
    subtrees = limits.permitted_subtrees or ()
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
    return x509.load_pem_x509_certificate(certificate_pem).not_valid_after_utc <= moment(now)


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
    above = x509.load_pem_x509_certificate(authority.certificate_pem)
    shown = common_name_of(above.subject)
    outside = names_outside(authority.certificate_pem, names, addresses)
    if outside:
        raise AuthorityError(f"the CA {shown!r} may not certify {', '.join(outside)}")
    if has_expired(authority.certificate_pem, now):
        raise AuthorityError(f"the CA {shown!r} has expired on {above.not_valid_after_utc:%Y-%m-%d}")
    if not (names or addresses):
        raise AuthorityError("a server certificate needs a name or an address")
    key = make_key("ec-p256", os.urandom)
    order = CertificateOrder(
        profile=PROFILES[SERVER],
        subject=common_name_only(next((name for name in names if len(name) <= LONGEST_COMMON_NAME), "Muster server")),
        public_key=key.public_key(),
        valid=validity(now, days, above),
        serial_number=x509.random_serial_number(),
        alternative_names=(*map(_dns_name, names), *map(x509.IPAddress, addresses)),
    )
    return _credential(issue(order, Issuer(above, read_private_key(authority.key_pem))), key)


def create_device_certificate(
    common_name: str, now: int, *, key_kind: str = "rsa-4096", days: int = 365, pass_phrase: str | None = None
) -> Credential:
    """A self-signed client certificate as DPS wants it (dps.md 4.4, users.md 1.1).

    An end-entity certificate of version 3 for ``clientAuth`` whose common name is the registration id.
    ``key_kind`` is one of KEY_KINDS. Raises AuthorityError.
    """
    if key_kind not in KEY_KINDS:
        raise AuthorityError(f"{key_kind!r} is no kind of key: take {' or '.join(KEY_KINDS)}")
    try:
        if pass_phrase is not None:
            pass_phrase_bytes(pass_phrase)
        subject = common_name_only(common_name)
    except (PassPhraseError, NameTextError) as error:
        raise AuthorityError(str(error)) from None
    valid = validity(now, days)
    key = make_key(key_kind, os.urandom)
    order = CertificateOrder(
        profile=PROFILES[DEVICE],
        subject=subject,
        public_key=key.public_key(),
        valid=valid,
        serial_number=x509.random_serial_number(),
    )
    return _credential(self_sign(order, key), key, pass_phrase)


def _self_signed_authority(
    key: PrivateKey, names: Sequence[str], networks: Sequence[Network], now: int, days: int
) -> Credential:
    # The name tells one development CA from another in a trust store, and stays when the CA is renewed.
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    order = CertificateOrder(
        profile=_DEVELOPMENT_CA,
        subject=common_name_only(f"Muster development CA {identifier.digest.hex()[:8]}"),
        public_key=key.public_key(),
        valid=validity(now, days),
        serial_number=x509.random_serial_number(),
        limits=_name_constraints(names, networks),
    )
    return _credential(self_sign(order, key), key)


def _credential(certificate: x509.Certificate, key: PrivateKey, pass_phrase: str | None = None) -> Credential:
    return Credential(certificate.public_bytes(Encoding.PEM), write_private_key(key, pass_phrase))


def _name_constraints(names: Sequence[str], networks: Sequence[Network]) -> x509.NameConstraints:
    """Permitted are these names, what is below them, and these networks; a kind without any is excluded."""
    permitted: list[x509.GeneralName] = [_dns_name(name.removeprefix("*.")) for name in names]
    permitted += [x509.IPAddress(network) for network in networks]
    excluded: list[x509.GeneralName] = [] if names else [x509.DNSName("")]
    excluded += [] if networks else [x509.IPAddress(network) for network in _EVERY_ADDRESS]
    if not permitted:
        raise AuthorityError("a CA needs a name or a network that it may certify")
    return x509.NameConstraints(permitted, excluded or None)


def _dns_name(name: str) -> x509.DNSName:
    try:
        return dns_name(name)
    except NameTextError as error:
        raise AuthorityError(str(error)) from None


def _is_below(name: str, domain: str) -> bool:
    name, domain = name.lower(), domain.lower()
    return name == domain or name.endswith(f".{domain}")
