"""Private keys: the kinds that Muster makes, reading and writing them, and which public keys are too weak to certify.

Randomness is an argument. Not here: certificates, and files that hold a key together with them (``key_store.py``).
"""

import re
from collections.abc import Callable
from typing import TypeGuard

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.backends import default_backend
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey | ed25519.Ed25519PublicKey
HashAlgorithm = hashes.SHA256 | hashes.SHA384 | hashes.SHA512
Entropy = Callable[[int], bytes]
"""That many random bytes; ``os.urandom`` outside of tests."""

_RSA_SIZES = {"rsa-2048": 2048, "rsa-3072": 3072, "rsa-4096": 4096}
_CURVES: dict[str, ec.EllipticCurve] = {
    "ec-p256": ec.SECP256R1(),
    "ec-p384": ec.SECP384R1(),
    "ec-p521": ec.SECP521R1(),
}
_ED25519 = "ed25519"
KEY_KINDS = (*_RSA_SIZES, *_CURVES, _ED25519)

KEY_KIND_NOTES = {
    "ec-p521": "P-521: many TLS stacks of microcontrollers leave it out",
    _ED25519: "Ed25519: the real DPS and IoT Hub take RSA and EC keys only, and so do the TLS stacks of .NET, Windows"
    " and most microcontrollers; of the device SDKs only those on OpenSSL (Python, Node, C) can use it, against Muster",
}
"""What whoever chooses such a key for a device has to know (dps.md 4.5)."""

_SIGNATURE_HASHES: dict[str, HashAlgorithm] = {
    "secp256r1": hashes.SHA256(),
    "secp384r1": hashes.SHA384(),
    "secp521r1": hashes.SHA512(),
}
"""By curve: the hash whose length is that of the curve (RFC 5480 4, as ECDSA is used with them everywhere)."""

_SMALLEST_RSA = 2048
_LARGEST_RSA = 8192
_SMALLEST_EXPONENT = 65537
_LONGEST_PASS_PHRASE = 1023  # what OpenSSL takes
_ED25519_SEED = 32
_EXTRA_BYTES = 8

_PEM_KEY = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----.*?-----END \1-----", re.DOTALL)
_PEM = b"-----BEGIN "


class PrivateKeyError(ValueError):
    """There is no private key that can be used; the message says why, and holds nothing of the key."""


class PassPhraseError(PrivateKeyError):
    """The pass phrase is missing, wrong, or one that no key can be encrypted with."""


def make_key(kind: str, entropy: Entropy) -> PrivateKey:
    """A new key of one of ``KEY_KINDS``. Raises PrivateKeyError.

    The same randomness gives the same EC and Ed25519 key. RSA keys are made by OpenSSL from its own randomness: to have
    the same one again, store it.
    """
    if kind in _RSA_SIZES:
        return rsa.generate_private_key(public_exponent=_SMALLEST_EXPONENT, key_size=_RSA_SIZES[kind])
    if kind in _CURVES:
        curve = _CURVES[kind]
        # FIPS 186-5 A.2.1: 64 bits more than needed, so that no value is noticeably likelier than another.
        size = (curve.key_size + 7) // 8 + _EXTRA_BYTES
        return ec.derive_private_key(int.from_bytes(entropy(size)) % (curve.group_order - 1) + 1, curve)
    if kind == _ED25519:
        return ed25519.Ed25519PrivateKey.from_private_bytes(entropy(_ED25519_SEED))
    raise PrivateKeyError(f"{kind!r} is no kind of key: take one of {', '.join(KEY_KINDS)}")


def public_key_problem(key: object) -> str | None:
    """Why a certificate for this public key would not be worth its bytes; None for one that is good."""
    match key:
        case rsa.RSAPublicKey():
            return _rsa_problem(key)
        case ec.EllipticCurvePublicKey() if key.curve.name not in _SIGNATURE_HASHES:
            return f"it is on the curve {key.curve.name}; P-256, P-384 and P-521 are taken"
        case ec.EllipticCurvePublicKey() | ed25519.Ed25519PublicKey():
            return None
        case _:
            return "it is neither RSA, nor EC, nor Ed25519"


def _rsa_problem(key: rsa.RSAPublicKey) -> str | None:
    if not _SMALLEST_RSA <= key.key_size <= _LARGEST_RSA:
        return f"it is RSA with {key.key_size} bits; {_SMALLEST_RSA} to {_LARGEST_RSA} are taken"
    exponent = key.public_numbers().e
    if exponent < _SMALLEST_EXPONENT:
        return f"it is RSA with the public exponent {exponent}; {_SMALLEST_EXPONENT} or more is taken"
    return None


def signature_hash(key: PrivateKey) -> HashAlgorithm | None:
    """With which hash the key signs certificates; None for Ed25519, which has its own."""
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return None
    return _SIGNATURE_HASHES[key.curve.name] if isinstance(key, ec.EllipticCurvePrivateKey) else hashes.SHA256()


def signs_deterministically(key: PrivateKey) -> bool | None:
    """What the builders of ``cryptography`` take as ``ecdsa_deterministic``: None for keys that are no EC keys.

    ECDSA is deterministic (RFC 6979) where the OpenSSL in use is 3.2 or newer, as it is in all wheels.
    """
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        return None
    return bool(default_backend().ecdsa_deterministic_supported())


def write_private_key(key: PrivateKey, pass_phrase: str | None = None, *, pem: bool = True) -> bytes:
    """PKCS#8, as PEM or DER; encrypted when there is a pass phrase. Raises PassPhraseError."""
    encoding = Encoding.PEM if pem else Encoding.DER
    return key.private_bytes(encoding, PrivateFormat.PKCS8, encryption(pass_phrase))


def encryption(pass_phrase: str | None) -> KeySerializationEncryption:
    """Raises PassPhraseError for a pass phrase that OpenSSL could not take."""
    if pass_phrase is None:
        return NoEncryption()
    return BestAvailableEncryption(pass_phrase_bytes(pass_phrase))


def pass_phrase_bytes(pass_phrase: str) -> bytes:
    """In UTF-8. Raises PassPhraseError."""
    try:
        encoded = pass_phrase.encode()
    except UnicodeEncodeError:
        raise PassPhraseError("the pass phrase is not UTF-8") from None
    if not 0 < len(encoded) <= _LONGEST_PASS_PHRASE:
        raise PassPhraseError(f"a pass phrase has 1 to {_LONGEST_PASS_PHRASE} bytes")
    return encoded


def read_private_key(content: bytes, pass_phrase: str | None = None) -> PrivateKey:
    """The first private key in PEM text, whatever else stands in it, or in DER; PKCS#8 or OpenSSL's older forms.

    A pass phrase that is not needed is not looked at. Raises PassPhraseError when it is needed or wrong,
    PrivateKeyError for everything else.
    """
    found = _PEM_KEY.search(content)
    if found is None and content.lstrip().startswith(_PEM):
        raise PrivateKeyError("there is no private key in it")
    load, data = (load_der_private_key, content) if found is None else (load_pem_private_key, found[0])
    try:
        return _load(load, data, pass_phrase)
    except PrivateKeyError:
        raise
    except UnsupportedAlgorithm as error:
        raise PrivateKeyError(f"the private key is of a kind that is not known here: {error}") from None
    except (ValueError, TypeError):
        if pass_phrase is not None:
            raise PassPhraseError("the pass phrase is wrong, or the private key is damaged") from None
        raise PrivateKeyError("it is no private key, neither as PEM nor as DER") from None


def _load(load: Callable[..., object], data: bytes, pass_phrase: str | None) -> PrivateKey:
    try:
        key = load(data, None)
    except TypeError:  # it is encrypted
        if pass_phrase is None:
            raise PassPhraseError("the private key is encrypted: a pass phrase is needed") from None
        key = load(data, pass_phrase_bytes(pass_phrase))
    if not is_private_key(key):
        raise PrivateKeyError("the private key is neither RSA, nor EC, nor Ed25519")
    return key


def is_private_key(key: object) -> TypeGuard[PrivateKey]:
    """Whether it is of one of the types that are used here."""
    return isinstance(key, PrivateKey)


def is_public_key(key: object) -> TypeGuard[PublicKey]:
    """Whether it is of one of the types that are used here."""
    return isinstance(key, PublicKey)


def public_key_info(key: PublicKey) -> bytes:
    """The key as it stands in a certificate, as DER: equal for equal keys."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
