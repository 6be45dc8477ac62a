"""One certificate with what a chain asks of it: names as bytes, extensions, key identifiers, whose signature it bears.

Read with the lenient reader of ``pki/certificate.py``, so that certificates are judged that stricter readers refuse to
load; signatures are verified by ``cryptography`` always. Not here: what makes a chain (``pki/verify.py``).
"""

import warnings
from functools import cached_property

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_der_public_key

from muster.pki import der, object_identifiers
from muster.pki.certificate import Certificate, parse_certificate
from muster.pki.name_constraints import read_extension

KEY_CERT_SIGN = "keyCertSign"

_VERSION_TAG = 0xA0
_EXTENSIONS_TAG = 0xA3
_KEY_IDENTIFIER_TAG = 0x80
_UTC_TIME = 0x17
_VERSION_3 = 3
_NEGATIVE = 0x80
_YEAR_2050 = 2_524_608_000_000_000
_CRITICAL_PARTS = 3

_SUBJECT_KEY_IDENTIFIER = "2.5.29.14"
_SUBJECT_ALTERNATIVE_NAME = "2.5.29.17"
_NAME_CONSTRAINTS = "2.5.29.30"
_AUTHORITY_KEY_IDENTIFIER = "2.5.29.35"

_VERIFIER_EXTENSIONS = frozenset(
    (
        object_identifiers.BASIC_CONSTRAINTS,
        object_identifiers.KEY_USAGE,
        object_identifiers.EXTENDED_KEY_USAGE,
        _SUBJECT_KEY_IDENTIFIER,
        _SUBJECT_ALTERNATIVE_NAME,
        _NAME_CONSTRAINTS,
        _AUTHORITY_KEY_IDENTIFIER,
    )
)
# Alternative names of the issuer, places of CRLs, and policies: nothing is asked of them here, so they may be critical.
_UNDERSTOOD = _VERIFIER_EXTENSIONS | {"2.5.29.18", "2.5.29.31", "2.5.29.32", "2.5.29.33", "2.5.29.36", "2.5.29.54"}
_VERIFIER_NAMES = (x509.DNSName, x509.IPAddress, x509.RFC822Name)
_VERIFIER_SIGNATURES = frozenset(
    (
        "1.2.840.113549.1.1.10",
        "1.2.840.113549.1.1.11",
        "1.2.840.113549.1.1.12",
        "1.2.840.113549.1.1.13",
        "1.2.840.10045.4.3.2",
        "1.2.840.10045.4.3.3",
        "1.2.840.10045.4.3.4",
    )
)
_VERIFIER_CURVES = ("P-256", "P-384", "P-521")
_VERIFIER_RSA_BITS = 2048
_LARGEST_RSA_BITS = 8192

_HASHES: dict[str | None, hashes.HashAlgorithm] = {
    "SHA-1": hashes.SHA1(),  # noqa: S303 - certificates of the field have it, and a check warns of it
    "SHA-224": hashes.SHA224(),
    "SHA-256": hashes.SHA256(),
    "SHA-384": hashes.SHA384(),
    "SHA-512": hashes.SHA512(),
}


class ChainCertificate:
    """A certificate that is to be judged in chains; make it once for one that comes again.

    ``subject`` and ``issuer`` are the contents of the two names, ``public_key_info`` is the key as DER. ``extensions``
    has by identifier whether it is critical, and its value; ``extension_problem`` says, for people, why the certificate
    must not be relied upon for what stands in them, and is empty when nothing is wrong.
    """

    def __init__(self, certificate: bytes) -> None:
        """Raises CertificateFormatError."""
        self.facts: Certificate = parse_certificate(certificate)
        self.der = certificate
        outer = der.read_element(certificate, 0, len(certificate))
        self._body, self._algorithm, self._signature = der.read_sequence(certificate, outer)
        self._start = outer[1]
        fields = der.read_sequence(certificate, self._body)
        if fields[0][0] == _VERSION_TAG:
            del fields[0]
        self._serial, self._inner_algorithm, issuer, self._validity, subject, public_key = fields[:6]
        self.public_key_info = certificate[subject[2] : public_key[2]]
        self.subject = certificate[subject[1] : subject[2]]
        self.issuer = certificate[issuer[1] : issuer[2]]
        self.extensions: dict[str, tuple[bool, bytes]] = {}
        self.extension_problem = self._read_extensions(fields[6:]) or self._unreadable_extension()

    def _read_extensions(self, fields: list[der.Element]) -> str:
        try:
            for _, start, end in (field for field in fields if field[0] == _EXTENSIONS_TAG):
                for extension in der.read_sequence(self.der, der.read_element(self.der, start, end)):
                    parts = der.read_sequence(self.der, extension)
                    identifier = der.object_identifier(self._contents(parts[0]))
                    if identifier in self.extensions:
                        return f"the extension {identifier} stands there twice"
                    critical = len(parts) == _CRITICAL_PARTS and any(self._contents(parts[1]))
                    self.extensions[identifier] = critical, self._contents(parts[-1])
                    if critical and identifier not in _UNDERSTOOD:
                        return f"the extension {identifier} is critical, and not known here"
        except (der.DerError, IndexError):
            return "its extensions cannot be read"
        return ""

    def _unreadable_extension(self) -> str:
        facts = (
            (object_identifiers.BASIC_CONSTRAINTS, "basicConstraints", self.facts.is_ca),
            (object_identifiers.KEY_USAGE, "keyUsage", self.facts.key_usage),
            (object_identifiers.EXTENDED_KEY_USAGE, "extendedKeyUsage", self.facts.extended_key_usage),
        )
        for identifier, name, fact in facts:
            if fact is None and identifier in self.extensions:
                return f"the extension {name} cannot be read"
        return ""

    def _contents(self, element: der.Element) -> bytes:
        return self.der[element[1] : element[2]]

    # What makes it a CA

    @property
    def may_issue(self) -> bool:
        """CA:TRUE, and no key usage that leaves out keyCertSign."""
        usage = self.facts.key_usage
        return self.facts.is_ca is True and (usage is None or KEY_CERT_SIGN in usage)

    @cached_property
    def path_length(self) -> int | None:
        """How many further CAs may follow it on the way down; None without such a limit."""
        _, value = self.extensions.get(object_identifiers.BASIC_CONSTRAINTS, (False, b""))
        try:
            fields = der.read_sequence(value, der.read_element(value, 0, len(value)))
        except der.DerError:
            return None
        return int.from_bytes(value[fields[1][1] : fields[1][2]], signed=True) if len(fields) > 1 else None

    @cached_property
    def name_constraints(self) -> x509.NameConstraints | None:
        """Raises ValueError when they are there and cannot be read."""
        if _NAME_CONSTRAINTS not in self.extensions:
            return None
        if self.loaded is None:
            raise ValueError("the certificate cannot be loaded")
        return read_extension(self.loaded, x509.NameConstraints)

    def in_dates(self, now: int) -> bool:
        """Both ends belong to the validity; dates that cannot be read do not."""
        start, end = self.facts.not_before, self.facts.not_after
        return start is not None and end is not None and start <= now <= end

    # Key identifiers, which only say where to look first

    @cached_property
    def key_identifier(self) -> bytes | None:
        return self._identifier(_SUBJECT_KEY_IDENTIFIER)

    @cached_property
    def authority_key_identifier(self) -> bytes | None:
        return self._identifier(_AUTHORITY_KEY_IDENTIFIER)

    def _identifier(self, identifier: str) -> bytes | None:
        _, value = self.extensions.get(identifier, (False, b""))
        try:
            element = der.read_element(value, 0, len(value))
            if identifier == _AUTHORITY_KEY_IDENTIFIER:
                found = (item for item in der.read_sequence(value, element) if item[0] == _KEY_IDENTIFIER_TAG)
                element = next(found, element)
                if element[0] != _KEY_IDENTIFIER_TAG:
                    return None
        except der.DerError:
            return None
        return value[element[1] : element[2]]

    # Signatures

    @cached_property
    def loaded(self) -> x509.Certificate | None:
        """As ``cryptography`` has it; None when that cannot load it."""
        try:
            with warnings.catch_warnings():
                # The library warns of serial numbers that the standard forbids; the field has them.
                warnings.simplefilter("ignore")
                return x509.load_der_x509_certificate(self.der)
        except (ValueError, x509.InvalidVersion):
            return None

    def is_signed_by(self, issuer: "ChainCertificate") -> bool:
        """Whether the issuer has the right name, and its key made this signature.

        False also for a key or an algorithm that is not known, and for RSA keys of more than 8192 bits, which exist
        only to keep a verifier busy.
        """
        same_algorithm = self._contents(self._algorithm) == self._contents(self._inner_algorithm)
        if self.issuer != issuer.subject or not same_algorithm or issuer.has_huge_key:
            return False
        try:
            self._verify(issuer)
        except (InvalidSignature, ValueError, TypeError, UnsupportedAlgorithm):
            return False
        return True

    @property
    def has_huge_key(self) -> bool:
        return self.facts.key_algorithm == object_identifiers.RSA and (self.facts.key_size or 0) > _LARGEST_RSA_BITS

    def _verify(self, issuer: "ChainCertificate") -> None:
        """Over the bytes as they are: ``cryptography``'s own method does not take SHA-1, or what it cannot load."""
        tag, contents = self._signature[0], self._contents(self._signature)
        if tag != der.BIT_STRING or contents[:1] != b"\0":
            raise ValueError("a signature is a BIT STRING of whole bytes")
        signature = contents[1:]
        signed = self.der[self._start : self._body[2]]
        algorithm = _HASHES.get(self.facts.signature_hash)
        match issuer.public_key:
            case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey() as key:
                key.verify(signature, signed)
            case ec.EllipticCurvePublicKey() as key if algorithm is not None:
                key.verify(signature, signed, ec.ECDSA(algorithm))
            case rsa.RSAPublicKey() as key if algorithm is not None:
                key.verify(signature, signed, self._rsa_padding(), algorithm)
            case _:
                raise UnsupportedAlgorithm("not a key and a hash that certificates are signed with")

    @cached_property
    def public_key(self) -> PublicKeyTypes:
        """Raises ValueError and UnsupportedAlgorithm."""
        return load_der_public_key(self.public_key_info)

    def _rsa_padding(self) -> padding.PKCS1v15 | padding.PSS:
        parameters = None if self.loaded is None else self.loaded.signature_algorithm_parameters
        return parameters if isinstance(parameters, padding.PSS) else padding.PKCS1v15()

    # Why ClientVerifier cannot judge it

    @cached_property
    def is_unfamiliar(self) -> bool:
        """Whether ``cryptography``'s verifier refuses it for its form, wherever it stands (libraries.md 8)."""
        return (
            self.facts.version != _VERSION_3
            or self.loaded is None
            or self.der[self._serial[1]] >= _NEGATIVE
            or self._has_unfamiliar_dates()
            or self.loaded.signature_algorithm_oid.dotted_string not in _VERIFIER_SIGNATURES
            or any(
                critical and identifier not in _VERIFIER_EXTENSIONS
                for identifier, (critical, _) in self.extensions.items()
            )
            or self._has_unfamiliar_constraints()
        )

    def _has_unfamiliar_dates(self) -> bool:
        """GeneralizedTime before 2050."""
        dates = (self.facts.not_before, self.facts.not_after)
        tags = (element[0] for element in der.read_sequence(self.der, self._validity))
        return any(tag != _UTC_TIME and (date or 0) < _YEAR_2050 for tag, date in zip(tags, dates, strict=True))

    def _has_unfamiliar_constraints(self) -> bool:
        try:
            constraints = self.name_constraints
        except ValueError:
            return False
        if constraints is None:
            return False
        bases = (*(constraints.permitted_subtrees or ()), *(constraints.excluded_subtrees or ()))
        return not all(isinstance(base, _VERIFIER_NAMES) for base in bases)

    @cached_property
    def has_unfamiliar_key(self) -> bool:
        """Whether ``cryptography``'s verifier refuses it as an issuer for its key."""
        if self.facts.key_algorithm == object_identifiers.RSA:
            return (self.facts.key_size or 0) < _VERIFIER_RSA_BITS
        return self.facts.curve not in _VERIFIER_CURVES
