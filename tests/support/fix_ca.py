"""A plant's CA, made with our own functions from a seed: a root, an intermediate, and what they issue.

The same in every process: keys, serial numbers and times are fixed, and signatures are deterministic.
"""

import functools
import random
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed448, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding

from muster.pki.certificate_order import CertificateOrder, Validity, make_order, new_serial_number, validity
from muster.pki.certificate_profiles import PROFILES
from muster.pki.issuance import Issuer, issue, self_sign
from muster.pki.names import common_name_only
from muster.pki.private_key import Entropy, PrivateKey, make_key

NOW = 1_780_315_200_000_000
"""2026-06-01, noon UTC."""
DAY = 86_400_000_000


def entropy(seed: object = 0) -> Entropy:
    """The same bytes for the same seed."""
    return random.Random(f"muster {seed}").randbytes


@functools.cache
def key(name: str, kind: str = "ec-p256") -> PrivateKey:
    """The same key for the same name; not for RSA, which is the same within a process."""
    return make_key(kind, entropy(name))


def order(
    name: str,
    profile: str = "device",
    *,
    kind: str = "ec-p256",
    valid: Validity | None = None,
    changes: dict[str, Any] | None = None,
    **fields: Any,
) -> CertificateOrder:
    """A good order for that name; ``changes`` are for its profile, ``fields`` for the order itself."""
    chosen = msgspec.structs.replace(PROFILES[profile], **(changes or {}))
    serial_number = new_serial_number(entropy(f"serial {name}"))
    valid = valid or validity(NOW, chosen.days)
    return replace(make_order(chosen, name, key(name, kind).public_key(), valid, serial_number), **fields)


@functools.cache
def root(name: str = "Plant Root") -> Issuer:
    """A root CA for 20 years."""
    return Issuer(self_sign(order(name, "root-ca"), key(name)), key(name))


@functools.cache
def intermediate(name: str = "Line A") -> Issuer:
    """A CA under ``root()`` for 10 years."""
    return Issuer(issue(order(name, "intermediate-ca"), root()), key(name), root().chain)


@functools.cache
def leaf(name: str = "dev-01") -> x509.Certificate:
    """A device's certificate under ``intermediate()``."""
    return issue(order(name), intermediate())


def to_der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def to_pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(one.public_bytes(Encoding.PEM) for one in certificates)


def request(
    name: str | None = "dev-01",
    *,
    signer: CertificateIssuerPrivateKeyTypes | None = None,
    extensions: Sequence[x509.ExtensionType] = (),
    subject: x509.Name | None = None,
) -> x509.CertificateSigningRequest:
    """A signing request of a device."""
    signer = signer or key(name or "nameless")
    chosen = subject or (x509.Name([]) if name is None else common_name_only(name))
    builder = x509.CertificateSigningRequestBuilder().subject_name(chosen)
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(
        signer, None if isinstance(signer, ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey) else hashes.SHA256()
    )


def openssl(*arguments: object, text: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the OpenSSL of the machine; what it says is in ``stdout`` and ``stderr``, and it may have failed."""
    return subprocess.run(["openssl", *map(str, arguments)], input=text, capture_output=True, check=False)


def openssl_verify(root_file: Path, leaf_file: Path, *options: object) -> str:
    """What ``openssl verify -x509_strict`` says in June 2026; ``OK`` at the end when it accepts."""
    done = openssl("verify", "-x509_strict", "-attime", NOW // 1_000_000, "-CAfile", root_file, *options, leaf_file)
    return (done.stdout + done.stderr).decode().strip()
