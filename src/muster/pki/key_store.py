"""Certificates and a private key in one file: PKCS#12 (``.pfx``, ``.p12``), PEM with all of it, or bare certificates.

Not here: keys on their own (``private_key.py``) and what stands in a certificate (``certificate.py``).
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

from muster.pki import der
from muster.pki.certificate import CertificateFormatError, read_certificates
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.private_key import (
    PassPhraseError,
    PrivateKey,
    encryption,
    is_private_key,
    pass_phrase_bytes,
    public_key_info,
    read_private_key,
)

_INTEGER = 0x02
_PFX_VERSION = b"\3"
_KEY_LABEL = b"PRIVATE KEY-----"


class KeyStoreError(ValueError):
    """The file holds no certificates that can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class KeyStore:
    """What was in one file: DER certificates, the one that the key belongs to first, and the key if there is one."""

    certificates: tuple[bytes, ...]
    key: PrivateKey | None = field(repr=False)

    def load(self) -> list[x509.Certificate]:
        """The certificates as ``cryptography`` has them. Raises KeyStoreError."""
        try:
            with warnings.catch_warnings():
                # The library warns of serial numbers that the standard forbids; the field has them.
                warnings.simplefilter("ignore")
                return [x509.load_der_x509_certificate(one) for one in self.certificates]
        except (ValueError, x509.InvalidVersion) as error:
            raise KeyStoreError(f"a certificate cannot be loaded: {error}") from None


def is_pfx(content: bytes) -> bool:
    """Whether it begins as PKCS#12 does: a SEQUENCE with the number 3 (RFC 7292 4)."""
    try:
        tag, start, _ = der.read_element(content, 0, len(content))
        inner, begin, end = der.read_element(content, start, len(content))
    except der.DerError:
        return False
    return tag == der.SEQUENCE and inner == _INTEGER and content[begin:end] == _PFX_VERSION


def read_key_store(content: bytes, pass_phrase: str | None = None) -> KeyStore:
    """The certificates and the key in a file of any of these forms.

    Raises PassPhraseError when one is needed or wrong, PrivateKeyError for a key that cannot be used, and KeyStoreError
    for everything else.
    """
    if is_pfx(content):
        return _read_pfx(content, pass_phrase)
    try:
        certificates = read_certificates(content)
    except CertificateFormatError as error:
        raise KeyStoreError(str(error)) from None
    key = read_private_key(content, pass_phrase) if _KEY_LABEL in content else None
    return KeyStore(_own_first(certificates, key), key)


def _read_pfx(content: bytes, pass_phrase: str | None) -> KeyStore:
    password = None if pass_phrase is None else pass_phrase_bytes(pass_phrase)
    try:
        with warnings.catch_warnings():
            # The library warns of BER, which older tools write, and of serial numbers that the standard forbids.
            warnings.simplefilter("ignore")
            found = pkcs12.load_pkcs12(content, password)
    except UnsupportedAlgorithm as error:
        raise KeyStoreError(f"the PFX file holds or uses what is not known here: {error}") from None
    except (ValueError, TypeError):
        if pass_phrase is None:
            raise PassPhraseError("the PFX file needs a pass phrase, or it is damaged") from None
        raise PassPhraseError("the pass phrase is wrong, or the PFX file is damaged") from None
    own = () if found.cert is None else (found.cert,)
    certificates = [one.certificate.public_bytes(Encoding.DER) for one in (*own, *found.additional_certs)]
    if not certificates:
        raise KeyStoreError("there is no certificate in the PFX file")
    key = found.key
    if key is not None and not is_private_key(key):
        raise KeyStoreError("the private key in the PFX file is neither RSA, nor EC, nor Ed25519")
    return KeyStore(_own_first(certificates, key), key)


def _own_first(certificates: Sequence[bytes], key: PrivateKey | None) -> tuple[bytes, ...]:
    """The certificate of the key first; the others as they were."""
    if key is None:
        return tuple(certificates)
    own = next((one for one in certificates if belongs(key, one)), None)
    return tuple(certificates) if own is None else (own, *(one for one in certificates if one != own))


def belongs(key: PrivateKey, certificate: bytes) -> bool:
    """Whether the DER certificate is for this key. Raises CertificateFormatError."""
    return public_key_info(key.public_key()) == ChainCertificate(certificate).public_key_info


def write_pfx(name: str, key: PrivateKey, certificates: Sequence[x509.Certificate], pass_phrase: str) -> bytes:
    """PKCS#12 with AES-256 and a SHA-256 check: the key, its certificate, which is the first, and those above it.

    ``name`` is what stores show it as. Never twice the same bytes. Raises PassPhraseError.
    """
    own, *above = certificates
    return pkcs12.serialize_key_and_certificates(name.encode(), key, own, above, encryption(pass_phrase))
