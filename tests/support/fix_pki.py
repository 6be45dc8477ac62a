"""Client certificates of every kind that devices bring: good, odd, and broken ones.

All are made once per process and by arguments; keys are P-256 unless the kind asks for RSA. Times are
microseconds UTC, and relative to ``NOW``, the real time of the test run, because TLS clients look at the real
clock.
"""

import dataclasses
import functools
import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

NOW = time.time_ns() // 1000
DAY = 86_400_000_000
"""Microseconds."""

CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH

EdwardsKey = ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | EdwardsKey

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SEQUENCE = 0x30


@dataclass(frozen=True)
class Identity:
    """A certificate with its key. ``chain`` holds the certificates above it, nearest first."""

    certificate: bytes
    key: PrivateKey
    chain: tuple[bytes, ...] = ()
    pass_phrase: str | None = None

    @property
    def certificate_pem(self) -> bytes:
        """This certificate alone."""
        return to_pem(self.certificate)

    @property
    def chain_pem(self) -> bytes:
        """This certificate and those above it, as a client sends them."""
        return b"".join(map(to_pem, (self.certificate, *self.chain)))

    @property
    def key_pem(self) -> bytes:
        encryption = BestAvailableEncryption(self.pass_phrase.encode()) if self.pass_phrase else NoEncryption()
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)

    def write(self, directory: Path, name: str = "device") -> tuple[Path, Path]:
        """Write NAME.pem (the whole chain) and NAME.key; their paths."""
        certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
        certificate.write_bytes(self.chain_pem)
        key.write_bytes(self.key_pem)
        return certificate, key


def to_pem(certificate: bytes) -> bytes:
    """Of any bytes, as a certificate may be broken."""
    return ssl.DER_cert_to_PEM_cert(certificate).encode()


def make_certificate(
    common_name: str | None,
    *,
    key: PrivateKey,
    issuer: Identity | None = None,
    not_before: int = NOW - DAY,
    not_after: int = NOW + 365 * DAY,
    is_ca: bool | None = False,
    usages: Sequence[ObjectIdentifier] | None = (CLIENT_AUTH,),
    serial_number: int | None = None,
    subject: x509.Name | None = None,
    path_length: int | None = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    names_issuer_key: bool = False,
    rsa_padding: padding.PSS | None = None,
) -> bytes:
    """DER of a certificate, self-signed without ``issuer``; None leaves an extension out.

    ``extensions`` are more of them, each with whether it is critical; ``names_issuer_key`` adds the authority key
    identifier.
    """
    if subject is None:
        attributes = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
        subject = x509.Name(attributes)
    above = None if issuer is None else x509.load_der_x509_certificate(issuer.certificate)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if above is None else above.subject)
        .public_key(key.public_key())
        .serial_number(serial_number or x509.random_serial_number())
        .not_valid_before(_EPOCH + timedelta(microseconds=not_before))
        .not_valid_after(_EPOCH + timedelta(microseconds=not_after))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if is_ca is not None:
        builder = builder.add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
    if usages is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    signer = key if issuer is None else issuer.key
    if names_issuer_key:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    digest = None if isinstance(signer, EdwardsKey) else hashes.SHA256()
    return builder.sign(signer, digest, rsa_padding=rsa_padding).public_bytes(Encoding.DER)


def issue(
    common_name: str,
    issuer: Identity | None = None,
    *,
    key: PrivateKey | None = None,
    is_ca: bool | None = False,
    **options: Any,
) -> Identity:
    """A certificate under ``issuer``, self-signed without one, with a key of its own name; options as above.

    A CA has no extended key usage unless the options say so.
    """
    key = key or ec_key(common_name)
    options = {"usages": None, **options} if is_ca else options
    certificate = make_certificate(common_name, key=key, issuer=issuer, is_ca=is_ca, **options)
    return Identity(certificate, key, () if issuer is None else (issuer.certificate, *issuer.chain))


@functools.cache
def ec_key(name: str = "device") -> ec.EllipticCurvePrivateKey:
    """A P-256 key; the same one for the same name."""
    return ec.generate_private_key(ec.SECP256R1())


@functools.cache
def rsa_key(size: int) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=size)


@functools.cache
def self_signed(common_name: str = "dev-01") -> Identity:
    """What ``muster cert device`` makes: nothing to complain about."""
    return Identity(make_certificate(common_name, key=ec_key(common_name)), ec_key(common_name))


@functools.cache
def other_self_signed(common_name: str = "dev-01") -> Identity:
    """Another key and certificate of the same name."""
    key = ec_key(f"other {common_name}")
    return Identity(make_certificate(common_name, key=key), key)


@functools.cache
def ca_leaf(common_name: str = "dev-01") -> Identity:
    """CA:TRUE without an extended key usage, as ``openssl req -x509`` makes it without ``-extensions``."""
    key = ec_key()
    return Identity(make_certificate(common_name, key=key, is_ca=True, usages=None), key)


@functools.cache
def expired(common_name: str = "dev-01") -> Identity:
    """Valid until 10 days ago."""
    key, end = ec_key(), NOW - 10 * DAY
    return Identity(make_certificate(common_name, key=key, not_before=end - 365 * DAY, not_after=end), key)


@functools.cache
def not_yet_valid(common_name: str = "dev-01") -> Identity:
    """Valid from 3 days ahead on."""
    return Identity(make_certificate(common_name, key=ec_key(), not_before=NOW + 3 * DAY), ec_key())


@functools.cache
def wrong_usage(common_name: str = "dev-01") -> Identity:
    """For TLS servers only."""
    return Identity(make_certificate(common_name, key=ec_key(), usages=(SERVER_AUTH,)), ec_key())


@functools.cache
def version_1(common_name: str = "dev-01", issuer: Identity | None = None) -> Identity:
    """X.509 version 1, as ``openssl x509 -req`` of OpenSSL 3.0 makes it without an extension file."""
    made = issue(common_name, issuer, key=ec_key())
    # Without the version in front and the extensions behind.
    return changed(made, lambda fields: fields[1:7], signer=issuer)


def changed(
    identity: Identity, change: Callable[[list[bytes]], list[bytes]], signer: Identity | None = None
) -> Identity:
    """The same certificate with other DER fields in its body, from the version on, signed anew.

    It signs itself unless another signer is given.
    """
    fields = _elements(_contents(x509.load_der_x509_certificate(identity.certificate).tbs_certificate_bytes))
    algorithm = fields[2]
    body = element(_SEQUENCE, b"".join(change(fields)))
    certificate = _signed(body, algorithm, _signature((signer or identity).key, body))
    return dataclasses.replace(identity, certificate=certificate)


def signed_body(body: bytes, signer: Identity) -> bytes:
    """A certificate of these bytes, whatever they are, under the signature of a P-256 key."""
    return _signed(body, element(_SEQUENCE, bytes.fromhex("06082a8648ce3d040302")), _signature(signer.key, body))


def _signature(key: PrivateKey, body: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(body, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(body, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(body)


@functools.cache
def rsa_1024_sha1(common_name: str = "dev-01") -> Identity:
    """A key and a signature of yesterday."""
    made = issue(common_name, key=rsa_key(1024))
    return sha1_signed(made, made)


def sha1_signed(identity: Identity, signer: Identity) -> Identity:
    """The same certificate, signed by an RSA key with SHA-1 instead of SHA-256."""
    assert isinstance(signer.key, rsa.RSAPrivateKey)
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    body = x509.load_der_x509_certificate(identity.certificate).tbs_certificate_bytes.replace(sha256, sha1)
    signature = signer.key.sign(body, padding.PKCS1v15(), hashes.SHA1())
    return dataclasses.replace(identity, certificate=_signed(body, _elements(_contents(body))[2], signature))


@functools.cache
def root(name: str = "Plant Root") -> Identity:
    """A root CA."""
    return Identity(make_certificate(name, key=ec_key(name), is_ca=True, usages=None), ec_key(name))


@functools.cache
def intermediate(name: str = "Line A Intermediate") -> Identity:
    """A CA under ``root()``."""
    key = ec_key(name)
    return Identity(make_certificate(name, key=key, issuer=root(), is_ca=True, usages=None), key, (root().certificate,))


@functools.cache
def chain_leaf(common_name: str = "dev-01") -> Identity:
    """A device's certificate under ``intermediate()``; its chain is the intermediate and the root."""
    key = ec_key()
    above = (intermediate().certificate, root().certificate)
    return Identity(make_certificate(common_name, key=key, issuer=intermediate()), key, above)


@dataclass(frozen=True)
class Files:
    """Paths of a certificate and its key."""

    certificate: Path
    key: Path
    pass_phrase: str


TUTORIAL_COMMAND = (
    "openssl req -outform PEM -x509 -sha256 -newkey rsa:4096 -keyout {key} -out {certificate}"
    " -days 365 -extensions usr_cert -addext extendedKeyUsage=clientAuth -subj /CN={common_name}"
    " -passout pass:{pass_phrase}"
)
"""The tutorial's command; only the names of the files are ours, and the pass phrase is given instead of
typed.
"""


@functools.cache
def tutorial_files(common_name: str = "raspberrypi-b") -> Files:
    """RSA-4096 by the tutorial's literal command: slow, once per process."""
    directory = _directory()
    files = Files(directory / f"{common_name}.pem", directory / f"{common_name}.key", "1234")
    command = TUTORIAL_COMMAND.format(
        key=files.key, certificate=files.certificate, common_name=common_name, pass_phrase=files.pass_phrase
    )
    subprocess.run(command.split(), check=True, capture_output=True)
    return files


@functools.cache
def _directory() -> Path:
    # The object is kept by the cache of this function, and removes the directory when the process ends.
    return Path(_temporary().name)


@functools.cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="muster-pki-", ignore_cleanup_errors=True)


def element(tag: int, contents: bytes) -> bytes:
    """A DER element."""
    size = len(contents)
    if size < 0x80:
        return bytes((tag, size)) + contents
    length = size.to_bytes((size.bit_length() + 7) // 8)
    return bytes((tag, 0x80 | len(length))) + length + contents


def _header(data: bytes) -> tuple[int, int]:
    """Sizes of the header and of the contents of the DER element at the start of ``data``."""
    if data[1] < 0x80:
        return 2, data[1]
    octets = data[1] & 0x7F
    return 2 + octets, int.from_bytes(data[2 : 2 + octets])


def _contents(data: bytes) -> bytes:
    header, size = _header(data)
    return data[header : header + size]


def _elements(data: bytes) -> list[bytes]:
    elements = []
    while data:
        size = sum(_header(data))
        elements.append(data[:size])
        data = data[size:]
    return elements


def _signed(body: bytes, algorithm: bytes, signature: bytes) -> bytes:
    return element(_SEQUENCE, body + algorithm + element(0x03, b"\0" + signature))
