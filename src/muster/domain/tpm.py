"""TPM attestation: the public keys of a TPM 2.0 read, and an HMAC key wrapped so that one TPM alone can use it.

The structures are those of the TPM 2.0 Library, Part 2, big endian; the algorithms those of its Part 1 ("KDFa", "Entity
Names", "Credential Protection", "Duplication"); how the service puts them together is dps.md 4.6. Not here: when a
device is challenged, and what it signs with the key (``domain/sas.py``).
"""

import base64
import hashlib
import hmac
import struct
from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

MAXIMUM_HMAC_KEY = 64
"""Bytes: the block of SHA-256; a TPM loads no longer HMAC key."""

MAXIMUM_DATA = 1024
"""Bytes: what every TPM takes in one buffer (TPM_PT_INPUT_BUFFER); clients refuse more."""

_HASHES = {0x000B: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
_RSA = 0x0001
_AES = 0x0006
_KEYED_HASH = 0x0008
_NULL = 0x0010
_CFB = 0x0043
_TYPES = {_KEYED_HASH: "a keyed-hash", 0x0023: "an ECC", 0x0025: "a symmetric"}

_RESTRICTED = 1 << 16
_DECRYPT = 1 << 17
_SIGN = 1 << 18
_USE_MASK = _RESTRICTED | _DECRYPT | _SIGN

_HEAD = struct.Struct(">HHI")
"""Type, name algorithm, object attributes."""

_PARAMETERS = struct.Struct(">HHHHHI")
"""Of a storage key: symmetric algorithm, its key bits, its mode; scheme; key bits, exponent."""

_KEY_BITS = (2048, 3072, 4096)
_SYMMETRIC_BITS = (128, 256)
_DEFAULT_EXPONENT = 65537
_BLOCK = 16

_WRAPPING_KEY_BYTES = 16
"""C and .NET import with AES-128 whatever they get; the others take the length of the key (dps.md 4.6)."""

_IDENTITY = b"IDENTITY\0"
_DUPLICATE = b"DUPLICATE\0"

# userWithAuth, noDA and sign; no policy; HMAC with SHA-256: bit for bit the key in blobs of the real service.
_HMAC_KEY_AREA = bytes.fromhex("0008 000b 00040440 0000 0005 000b")

RandomSource = Callable[[int], bytes]
"""As many random bytes as it is asked for."""


class TpmKeyFormatError(ValueError):
    """The bytes are no key that a blob can be made for; the message says which key and why."""


class StorageKey(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of an endorsement key or a storage root key; both are RSA keys that only decrypt for the TPM itself.

    ``name`` is the TPM's own: algorithm and digest. ``name_algorithm`` is a name that hashlib knows; ``symmetric_bits``
    the AES key length with which the key protects others.
    """

    name: bytes
    name_algorithm: str
    attributes: int
    policy: bytes
    symmetric_bits: int
    exponent: int
    modulus: int


def registration_id_of(endorsement_key: bytes) -> str:
    """The registration id that clients compute from their endorsement key when they were not given one (dps.md 4.6)."""
    return base64.b32encode(hashlib.sha256(endorsement_key).digest()).decode().rstrip("=").lower()


def name_of(public: bytes, what: str = "key") -> bytes:
    """The name of any object, from its marshalled TPM2B_PUBLIC: its name algorithm, and its public area hashed with it.

    ``what`` is the word for it in errors. Raises TpmKeyFormatError.
    """
    area = _public_area(public, what)
    algorithm = int.from_bytes(area[2:4], "big")
    if algorithm not in _HASHES:
        raise TpmKeyFormatError(
            f"the {what} has the name algorithm 0x{algorithm:04x}; SHA-256, -384 and -512 are taken"
        )
    return area[2:4] + hashlib.new(_HASHES[algorithm], area).digest()


def parse_storage_key(public: bytes, what: str = "key") -> StorageKey:
    """Read a marshalled TPM2B_PUBLIC: ``endorsementKey`` and ``storageRootKey``, base64 taken away.

    ``what`` is the word for it in errors. Raises TpmKeyFormatError, also for what no client of DPS makes: other keys
    than RSA, other ciphers than AES in CFB mode.
    """
    area = _public_area(public, what)
    kind, algorithm, attributes = _HEAD.unpack_from(area)
    if kind != _RSA:
        found = _TYPES.get(kind, f"a type 0x{kind:04x}")
        raise TpmKeyFormatError(f"the {what} is {found} key; DPS's clients make RSA keys, and no other is taken")
    if attributes & _USE_MASK != _RESTRICTED | _DECRYPT:
        raise TpmKeyFormatError(f"the {what} is no storage key: restricted and decrypt have to be set, sign clear")
    name = name_of(public, what)
    policy, rest = _take_sized(area[_HEAD.size :], what)
    if len(rest) < _PARAMETERS.size:
        raise TpmKeyFormatError(f"the {what} ends in the middle of its parameters")
    *cipher, scheme, key_bits, exponent = _PARAMETERS.unpack_from(rest)
    modulus, rest = _take_sized(rest[_PARAMETERS.size :], what)
    number = int.from_bytes(modulus, "big")
    exponent = exponent or _DEFAULT_EXPONENT
    _refuse(
        what,
        {
            "has another cipher than AES-128 or AES-256 in CFB mode": not _is_taken(*cipher),
            f"has the scheme 0x{scheme:04x}; a storage key has none": scheme != _NULL,
            f"has {key_bits} bits; {', '.join(map(str, _KEY_BITS))} are taken": key_bits not in _KEY_BITS,
            f"has the exponent {exponent}; 0, or an odd number from 65537": exponent < _DEFAULT_EXPONENT
            or not exponent & 1,
            f"has no modulus of {key_bits} bits": len(modulus) * 8 != key_bits or number.bit_length() != key_bits,
            "has an even modulus": not number & 1,
            "has bytes behind its modulus": bool(rest),
        },
    )
    return StorageKey(
        name=name,
        name_algorithm=_HASHES[algorithm],
        attributes=attributes,
        policy=policy,
        symmetric_bits=cipher[1],
        exponent=exponent,
        modulus=number,
    )


def activation_blob(
    endorsement_key: bytes, storage_root_key: bytes, key: bytes, random: RandomSource, data: bytes = b""
) -> bytes:
    """The ``authenticationKey`` of DPS: ``key``, an HMAC-SHA256 key, for the one TPM that holds both private keys.

    Both public keys are marshalled TPM2B_PUBLICs. The client activates the credential (fields 1 and 2) to get a
    wrapping key, imports and loads the HMAC key with it (3, 4 and 5), and signs with TPM2_HMAC. ``data``, encrypted
    with the wrapping key, is field 6: the real service sends a text there that no client uses (docs/tpm.md).
    ``random`` is drawn on six times.

    Raises TpmKeyFormatError for a public key that cannot be used, ValueError for a ``key`` that is not 1 to 64 bytes
    long, or more than 1024 bytes of ``data``.
    """
    if not 1 <= len(key) <= MAXIMUM_HMAC_KEY:
        raise ValueError(f"an HMAC key has 1 to {MAXIMUM_HMAC_KEY} bytes, not {len(key)}")
    if len(data) > MAXIMUM_DATA:
        raise ValueError(f"{MAXIMUM_DATA} bytes of data fit, not {len(data)}")
    endorsement = parse_storage_key(endorsement_key, "endorsement key")
    storage_root = parse_storage_key(storage_root_key, "storage root key")
    wrapping_key = random(_WRAPPING_KEY_BYTES)
    credential = _protect(endorsement, _IDENTITY, storage_root.name, _sized(wrapping_key), random)
    obfuscation = random(hashlib.sha256().digest_size)
    public = _sized(_HMAC_KEY_AREA + _sized(hashlib.sha256(obfuscation + key).digest()))
    name = name_of(public)
    sensitive = _sized(_KEYED_HASH.to_bytes(2, "big") + _sized(b"") + _sized(obfuscation) + _sized(key))
    inner = encrypt_cfb(wrapping_key, _sized(hashlib.sha256(sensitive + name).digest()) + sensitive)
    duplicate = _protect(storage_root, _DUPLICATE, name, inner, random)
    return credential + duplicate + public + _sized(encrypt_cfb(wrapping_key, data))


def kdfa(algorithm: str, key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa of Part 1: SP 800-108 in counter mode with HMAC. ``label`` comes without its null, ``bits`` are whole
    bytes.
    """
    fixed = label + b"\0" + context + bits.to_bytes(4, "big")
    blocks = -(-bits // (8 * hashlib.new(algorithm).digest_size))
    output = b"".join(
        hmac.digest(key, counter.to_bytes(4, "big") + fixed, algorithm) for counter in range(1, blocks + 1)
    )
    return output[: bits // 8]


def encrypt_secret(key: StorageKey, label: bytes, secret: bytes, salt: bytes) -> bytes:
    """RSAES-OAEP (RFC 8017, 7.1.1) with the name algorithm of ``key``; ``label`` includes its null, and ``salt`` is as
    long as a digest.

    Written out because randomness is an argument here; cryptography has its own.
    """
    algorithm = key.name_algorithm
    size = key.modulus.bit_length() // 8
    digest = hashlib.new(algorithm, label).digest()
    block = digest + (b"\1" + secret).rjust(size - 2 * len(digest) - 1, b"\0")
    masked = _xor(block, _mask(algorithm, salt, len(block)))
    padded = _xor(salt, _mask(algorithm, masked, len(salt))) + masked
    return pow(int.from_bytes(padded, "big"), key.exponent, key.modulus).to_bytes(size, "big")


def encrypt_cfb(key: bytes, content: bytes) -> bytes:
    """AES in CFB mode, feedback of whole blocks, initialization vector 0: what a TPM does. Every key is used once.

    Built from single blocks because cryptography has moved its CFB between releases.
    """
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()  # noqa: S305  (one block at a time: CFB is built on it)
    previous = bytes(_BLOCK)
    output = b""
    for start in range(0, len(content), _BLOCK):
        block = content[start : start + _BLOCK]
        previous = _xor(block, encryptor.update(previous)[: len(block)])
        output += previous
    return output


def _protect(parent: StorageKey, label: bytes, name: bytes, content: bytes, random: RandomSource) -> bytes:
    """``content`` encrypted for the TPM that holds ``parent``, and bound to the object called ``name``: two
    structures, the protected content and the seed of its two keys.
    """
    algorithm = parent.name_algorithm
    size = hashlib.new(algorithm).digest_size
    seed = random(size)
    encrypted = encrypt_cfb(kdfa(algorithm, seed, b"STORAGE", name, parent.symmetric_bits), content)
    code = hmac.digest(kdfa(algorithm, seed, b"INTEGRITY", b"", 8 * size), encrypted + name, algorithm)
    return _sized(_sized(code) + encrypted) + _sized(encrypt_secret(parent, label, seed, random(size)))


def _public_area(public: bytes, what: str) -> bytes:
    """The TPMT_PUBLIC in a TPM2B_PUBLIC, at least its head."""
    said = int.from_bytes(public[:2], "big")
    area = public[2:]
    if said != len(area) or said < _HEAD.size:
        raise TpmKeyFormatError(
            f"the {what} is no TPM2B_PUBLIC: its size says {said} bytes, and {len(area)} follow"
            " (tpm2_readpublic -f tss writes the right form)"
        )
    return area


def _take_sized(content: bytes, what: str) -> tuple[bytes, bytes]:
    """A TPM2B's buffer, and what follows it."""
    end = 2 + int.from_bytes(content[:2], "big")
    if len(content) < end:
        raise TpmKeyFormatError(f"the {what} ends in the middle of a field")
    return content[2:end], content[end:]


def _is_taken(algorithm: int, bits: int, mode: int) -> bool:
    return algorithm == _AES and bits in _SYMMETRIC_BITS and mode == _CFB


def _refuse(what: str, problems: dict[str, bool]) -> None:
    problem = next((text for text, found in problems.items() if found), None)
    if problem is not None:
        raise TpmKeyFormatError(f"the {what} {problem}")


def _sized(content: bytes) -> bytes:
    """As a TPM2B: its length in two bytes before it."""
    return len(content).to_bytes(2, "big") + content


def _mask(algorithm: str, seed: bytes, length: int) -> bytes:
    """MGF1 (RFC 8017, B.2.1)."""
    blocks = -(-length // hashlib.new(algorithm).digest_size)
    output = b"".join(hashlib.new(algorithm, seed + counter.to_bytes(4, "big")).digest() for counter in range(blocks))
    return output[:length]


def _xor(left: bytes, right: bytes) -> bytes:
    """Of the same length."""
    return (int.from_bytes(left, "big") ^ int.from_bytes(right, "big")).to_bytes(len(left), "big")
