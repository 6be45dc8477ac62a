"""What stands in an X.509 certificate, and the forms in which people hand certificates over.

Facts only: whether a certificate is accepted is decided elsewhere. Certificates of the field are read as far
as they go: a fact that cannot be read is None, and thumbprints exist always.
"""

import base64
import hashlib
import re
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeVar

import msgspec

from muster.pki import der, object_identifiers
from muster.pki.distinguished_name import read_name

T = TypeVar("T")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_NEVER = "0001-01-01T00:00:00Z"
_VERSION_TAG = 0xA0
_EXTENSIONS_TAG = 0xA3
_PSS_HASH_TAG = 0xA0

LARGEST_CERTIFICATE = 32 * 1024
"""Bytes of DER that are read. Reading takes time by the byte, and a device need not have proved anything before."""

_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_PFX = re.compile(rb"\x30(?:[\x00-\x7f]|\x81.|\x82..|\x83...)\x02\x01\x03", re.DOTALL)
"""How a PKCS#12 file begins: a sequence, and in it version 3 (RFC 7292 4)."""

_PEM_CERTIFICATES = ("CERTIFICATE", "X509 CERTIFICATE")

_REMEMBERED = 128
"""Certificates whose facts are kept: a registration asks several times for those of its own, and reading them costs as
much as everything that SQLite does for it.
"""


class CertificateFormatError(ValueError):
    """The bytes or the text hold no certificate that can be read; the message says why."""


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one certificate; None is a fact that could not be read, or an extension that is not there.

    ``subject`` and ``issuer`` are .NET-style names. ``serial_number`` is upper hex with an even number of
    digits, thumbprints are upper hex without separators. Times are microseconds since 1970, UTC. ``key_size``
    is in bits. ``is_ca`` is from the basic constraints. ``extended_key_usage`` holds names, or dotted
    identifiers that have none. ``self_issued``: issuer and subject are the same name; whether it signed
    itself too, tells ``is_self_signed``.
    """

    der: bytes
    sha1_thumbprint: str
    sha256_thumbprint: str
    version: int
    serial_number: str
    subject: str
    issuer: str
    common_name: str | None
    self_issued: bool
    not_before: int | None
    not_after: int | None
    key_algorithm: str | None
    key_size: int | None
    curve: str | None
    signature_hash: str | None
    is_ca: bool | None
    key_usage: tuple[str, ...] | None
    extended_key_usage: tuple[str, ...] | None


class CertificateInfo(msgspec.Struct, frozen=True, rename="camel"):
    """X509CertificateInfo of the DPS service API; all eight fields are always there (dps.md 4.7)."""

    subject_name: str
    sha1_thumbprint: str
    sha256_thumbprint: str
    issuer_name: str
    not_before_utc: str
    not_after_utc: str
    serial_number: str
    version: int


def sha1_thumbprint(certificate: bytes) -> str:
    """SHA-1 of the DER, upper hex: a name for the certificate, no protection."""
    return hashlib.sha1(certificate, usedforsecurity=False).hexdigest().upper()


def sha256_thumbprint(certificate: bytes) -> str:
    """SHA-256 of the DER, upper hex."""
    return hashlib.sha256(certificate).hexdigest().upper()


@lru_cache(maxsize=_REMEMBERED)
def parse_certificate(certificate: bytes) -> Certificate:
    """Read the facts of one DER certificate (RFC 5280 4.1); the last ones are remembered.

    Raises CertificateFormatError when the structure is not that of a certificate, or it has more than
    ``LARGEST_CERTIFICATE`` bytes; odd contents are no reason to.
    """
    if len(certificate) > LARGEST_CERTIFICATE:
        raise CertificateFormatError(
            f"it has {len(certificate)} bytes, and no certificate of more than {LARGEST_CERTIFICATE} is read"
        )
    try:
        return _read_certificate(certificate)
    except der.DerError as error:
        raise CertificateFormatError(f"not an X.509 certificate: {error}") from None


def is_self_signed(certificate: Certificate) -> bool | None:
    """Whether its own key made its signature; None when that cannot be told (unknown key type, broken
    encoding).
    """
    if not certificate.self_issued:
        return False
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

    try:
        with warnings.catch_warnings():
            # The library warns of serial numbers that the standard forbids; the field has them.
            warnings.simplefilter("ignore")
            parsed = x509.load_der_x509_certificate(certificate.der)
        parsed.verify_directly_issued_by(parsed)
    except InvalidSignature:
        return False
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        return None
    return True


def certificate_info(certificate: Certificate) -> CertificateInfo:
    """The facts as the DPS service API shows them."""
    return CertificateInfo(
        subject_name=certificate.subject,
        sha1_thumbprint=certificate.sha1_thumbprint,
        sha256_thumbprint=certificate.sha256_thumbprint,
        issuer_name=certificate.issuer,
        not_before_utc=_NEVER if certificate.not_before is None else utc_text(certificate.not_before),
        not_after_utc=_NEVER if certificate.not_after is None else utc_text(certificate.not_after),
        serial_number=certificate.serial_number,
        version=certificate.version,
    )


@lru_cache(maxsize=256)
def utc_text(microseconds: int) -> str:
    """``2026-01-01T00:00:00Z``: the times of a certificate have whole seconds. Years 1 to 9999."""
    moment = _EPOCH + timedelta(seconds=microseconds // 1_000_000)
    return moment.replace(tzinfo=None).isoformat() + "Z"


def read_certificates(text: str | bytes) -> list[bytes]:
    """The DER of every certificate in what a user or a client handed over, in its order; at least one (dps.md
    4.8).

    Taken are PEM text, with several certificates and other text around them; base64 of PEM text; base64 of
    DER, with or without line breaks; and, as bytes, DER itself and text in UTF-8 or UTF-16. Raises
    CertificateFormatError.
    """
    if isinstance(text, bytes):
        if text[:1] == b"\x30":
            return [_require_certificate(text)]
        text = _decode_text(text)
    if "-----BEGIN" in text:
        return _read_pem(text)
    content = _decode_base64(text)
    if b"-----BEGIN" in content:
        return _read_pem(_decode_text(content))
    return [_require_certificate(content)]


def _decode_text(content: bytes) -> str:
    """UTF-8, or UTF-16 with its mark, as Windows tools redirect their output."""
    codec = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return content.decode(codec)
    except UnicodeDecodeError:
        raise CertificateFormatError("neither PEM, nor base64, nor DER") from None


def _decode_base64(text: str) -> bytes:
    compact = "".join(text.split())
    if not compact:
        raise CertificateFormatError("empty: there is no certificate in it")
    try:
        return base64.b64decode(compact, validate=True)
    except ValueError:
        raise CertificateFormatError("neither PEM nor base64 of a certificate") from None


def _read_pem(text: str) -> list[bytes]:
    blocks = _PEM.findall(text)
    bodies = [body for label, body in blocks if label in _PEM_CERTIFICATES]
    if not bodies:
        found = ", ".join(dict.fromkeys(label for label, _ in blocks)) or "an unfinished PEM block"
        raise CertificateFormatError(f"no certificate, but {found}")
    return [_require_certificate(_decode_base64(body)) for body in bodies]


def _require_certificate(content: bytes) -> bytes:
    parse_certificate(content)
    return content


def _read_certificate(data: bytes) -> Certificate:
    outer = der.read_element(data, 0, len(data))
    if outer[2] != len(data):
        raise der.DerError(f"{len(data) - outer[2]} bytes follow its end")
    if _PFX.match(data):
        raise der.DerError("it is a PFX file, which holds keys too")
    body, signature_algorithm, _ = _exactly(3, der.read_sequence(data, outer))
    fields = der.read_sequence(data, body)
    version = 1
    if fields and fields[0][0] == _VERSION_TAG:
        version += int.from_bytes(_contents(data, _inner(data, fields.pop(0))))
    serial, _, issuer, validity, subject, public_key = _exactly(6, fields[:6])
    not_before, not_after = _exactly(2, der.read_sequence(data, validity))
    subject_name, common_name = read_name(data, subject)
    key_algorithm, key_size, curve = _read_public_key(data, public_key)
    extensions = _read_extensions(data, fields[6:])
    return Certificate(
        der=data,
        sha1_thumbprint=sha1_thumbprint(data),
        sha256_thumbprint=sha256_thumbprint(data),
        version=version,
        serial_number=_contents(data, serial).lstrip(b"\0").hex().upper() or "00",
        subject=subject_name,
        issuer=read_name(data, issuer)[0],
        common_name=common_name,
        self_issued=_contents(data, issuer) == _contents(data, subject),
        not_before=der.time(not_before[0], _contents(data, not_before)),
        not_after=der.time(not_after[0], _contents(data, not_after)),
        key_algorithm=key_algorithm,
        key_size=key_size,
        curve=curve,
        signature_hash=_read_signature_hash(data, signature_algorithm),
        is_ca=_read_extension(_read_is_ca, extensions.get(object_identifiers.BASIC_CONSTRAINTS)),
        key_usage=_read_extension(_read_key_usage, extensions.get(object_identifiers.KEY_USAGE)),
        extended_key_usage=_read_extension(
            _read_extended_key_usage, extensions.get(object_identifiers.EXTENDED_KEY_USAGE)
        ),
    )


def _exactly(count: int, elements: list[der.Element]) -> list[der.Element]:
    if len(elements) != count:
        raise der.DerError(f"{count} elements were expected, there are {len(elements)}")
    return elements


def _contents(data: bytes, element: der.Element) -> bytes:
    return data[element[1] : element[2]]


def _inner(data: bytes, tagged: der.Element) -> der.Element:
    """The element inside an explicit tag."""
    return der.read_element(data, tagged[1], tagged[2])


def _read_algorithm(data: bytes, element: der.Element) -> tuple[str, list[der.Element]]:
    """Identifier and parameters, none or one, of an AlgorithmIdentifier (RFC 5280 4.1.1.2)."""
    elements = der.read_sequence(data, element)
    if not elements:
        raise der.DerError("an algorithm has no identifier")
    return der.object_identifier(_contents(data, elements[0])), elements[1:]


def _read_public_key(data: bytes, element: der.Element) -> tuple[str | None, int | None, str | None]:
    """Algorithm, size in bits and curve of a SubjectPublicKeyInfo (RFC 5280 4.1.2.7)."""
    try:
        algorithm, key = _exactly(2, der.read_sequence(data, element))
        identifier, parameters = _read_algorithm(data, algorithm)
        name = object_identifiers.KEY_ALGORITHMS.get(identifier, identifier)
        if name == object_identifiers.RSA:
            return name, _read_rsa_size(_contents(data, key)[1:]), None
        if name == object_identifiers.EC and parameters:
            curve = der.object_identifier(_contents(data, parameters[0]))
            curve_name, size = object_identifiers.CURVES.get(curve, (curve, None))
            return name, size, curve_name
    except der.DerError:
        return None, None, None
    return name, None, None


def _read_rsa_size(key: bytes) -> int:
    modulus, _ = _exactly(2, der.read_sequence(key, der.read_element(key, 0, len(key))))
    return int.from_bytes(_contents(key, modulus)).bit_length()


def _read_signature_hash(data: bytes, element: der.Element) -> str | None:
    try:
        identifier, parameters = _read_algorithm(data, element)
        if identifier == object_identifiers.RSA_PSS:
            return _read_pss_hash(data, parameters)
    except der.DerError:
        return None
    return object_identifiers.SIGNATURE_HASHES.get(identifier)


def _read_pss_hash(data: bytes, parameters: list[der.Element]) -> str | None:
    """The hash of RSASSA-PSS-params: its first field, tagged [0]; SHA-1 when that is not there (RFC 4055
    3.1).
    """
    fields = der.read_sequence(data, parameters[0]) if parameters else []
    if not fields or fields[0][0] != _PSS_HASH_TAG:
        return "SHA-1"
    identifier, _ = _read_algorithm(data, _inner(data, fields[0]))
    return object_identifiers.HASHES.get(identifier)


def _read_extensions(data: bytes, fields: list[der.Element]) -> dict[str, bytes]:
    """The value of each extension by its identifier, none when they cannot be read. Of doubles the first
    counts.
    """
    extensions: dict[str, bytes] = {}
    try:
        for wrapper in (_inner(data, field) for field in fields if field[0] == _EXTENSIONS_TAG):
            for extension in der.read_sequence(data, wrapper):
                identifier, *_, value = der.read_sequence(data, extension)
                extensions.setdefault(der.object_identifier(_contents(data, identifier)), _contents(data, value))
    except ValueError:  # not DER, or an extension of fewer than two parts
        return {}
    return extensions


def _read_extension(read: Callable[[bytes, der.Element], T], value: bytes | None) -> T | None:
    """What ``read`` finds in the element that an extension holds; None when it is absent or broken."""
    if value is None:
        return None
    try:
        return read(value, der.read_element(value, 0, len(value)))
    except der.DerError:
        return None


def _read_is_ca(value: bytes, element: der.Element) -> bool:
    """BasicConstraints: a BOOLEAN, absent when false, and a path length (RFC 5280 4.2.1.9)."""
    fields = der.read_sequence(value, element)
    return bool(fields) and fields[0][0] == der.BOOLEAN and any(_contents(value, fields[0]))


def _read_key_usage(value: bytes, element: der.Element) -> tuple[str, ...]:
    if element[0] != der.BIT_STRING:
        raise der.DerError("a BIT STRING was expected")
    bits = _contents(value, element)[1:]
    names = enumerate(object_identifiers.KEY_USAGES)
    return tuple(name for bit, name in names if bit // 8 < len(bits) and bits[bit // 8] & 0x80 >> bit % 8)


def _read_extended_key_usage(value: bytes, element: der.Element) -> tuple[str, ...]:
    purposes = der.read_sequence(value, element)
    identifiers = [der.object_identifier(_contents(value, purpose)) for purpose in purposes]
    return tuple(object_identifiers.EXTENDED_KEY_USAGES.get(name, name) for name in identifiers)
