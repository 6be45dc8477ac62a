"""Certificate signing requests (PKCS#10): what stands in one, and why it is not fit to be signed.

Of a request only the public key, the common name, and alternative names that its profile allows become part of a
certificate. Sources: RFC 2986, dps.md 1.3. Not here: signing (``issuance.py``).
"""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from muster.pki import der, object_identifiers
from muster.pki.certificate_profiles import CertificateProfile
from muster.pki.distinguished_name import read_name
from muster.pki.names import general_name_text
from muster.pki.private_key import PublicKey, is_public_key, public_key_problem
from muster.pki.problem import Problem

Extension = TypeVar("Extension", bound=x509.ExtensionType)

_PEM = re.compile(r"-----BEGIN ((?:NEW )?CERTIFICATE REQUEST)-----(.*?)-----END \1-----", re.DOTALL)
_SEQUENCE = b"\x30"


class RequestFormatError(ValueError):
    """There is no certificate signing request that can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class CertificateRequest:
    """The facts of one request.

    ``subject`` is a .NET-style name. ``is_signed``: the key in it made its signature, so whoever sends it has that key.
    ``public_key`` is None when it is of no kind that can be certified; ``key_problem`` says why no key like that is, or
    is None. The rest is what it asks for; ``extended_key_usage`` is None when it does not say.
    """

    der: bytes
    subject: str
    common_name: str | None
    public_key: PublicKey | None
    key_problem: str | None
    is_signed: bool
    wants_ca: bool
    wants_key_cert_sign: bool
    extended_key_usage: tuple[str, ...] | None
    alternative_names: tuple[x509.GeneralName, ...]


def read_certificate_request(text: str | bytes) -> CertificateRequest:
    """The request in what a person or a device handed over: PEM, DER, or base64 of DER. Raises RequestFormatError."""
    if isinstance(text, bytes):
        if text[:1] == _SEQUENCE:
            return parse_certificate_request(text)
        try:
            text = text.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise RequestFormatError("neither PEM, nor base64, nor DER") from None
    found = _PEM.search(text)
    if found is None and "-----BEGIN" in text:
        raise RequestFormatError("no certificate signing request, but another PEM block")
    try:
        content = base64.b64decode("".join((text if found is None else found[2]).split()), validate=True)
    except ValueError:
        raise RequestFormatError("neither PEM nor base64 of a certificate signing request") from None
    return parse_certificate_request(content)


def parse_certificate_request(request: bytes) -> CertificateRequest:
    """The facts of a DER request. Raises RequestFormatError."""
    try:
        return _facts(request)
    except (
        ValueError,
        TypeError,
        x509.InvalidVersion,
        x509.DuplicateExtension,
        x509.UnsupportedGeneralNameType,
    ) as error:
        raise RequestFormatError(f"not a certificate signing request: {error}") from None


def _facts(data: bytes) -> CertificateRequest:
    request = x509.load_der_x509_csr(data)
    name = request.subject.public_bytes()
    subject, common_name = read_name(name, der.read_element(name, 0, len(name)))
    key, problem = _public_key(request)
    constraints = _wanted(request, x509.BasicConstraints)
    usage = _wanted(request, x509.KeyUsage)
    purposes = _wanted(request, x509.ExtendedKeyUsage)
    return CertificateRequest(
        der=data,
        subject=subject,
        common_name=common_name,
        public_key=key,
        key_problem=problem,
        is_signed=_is_signed(request),
        wants_ca=constraints is not None and constraints.ca,
        wants_key_cert_sign=usage is not None and (usage.key_cert_sign or usage.crl_sign),
        extended_key_usage=None if purposes is None else tuple(_purpose(one.dotted_string) for one in purposes),
        alternative_names=tuple(_wanted(request, x509.SubjectAlternativeName) or ()),
    )


def _wanted(request: x509.CertificateSigningRequest, kind: type[Extension]) -> Extension | None:
    try:
        return request.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _public_key(request: x509.CertificateSigningRequest) -> tuple[PublicKey | None, str | None]:
    try:
        key = request.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return None, "it cannot be read"
    return key if is_public_key(key) else None, public_key_problem(key)


def _is_signed(request: x509.CertificateSigningRequest) -> bool:
    try:
        return request.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return False


def _purpose(identifier: str) -> str:
    return object_identifiers.EXTENDED_KEY_USAGES.get(identifier, identifier)


def request_problems(request: CertificateRequest, profile: CertificateProfile, common_name: str) -> tuple[Problem, ...]:
    """Why no certificate of that kind and for that name is issued for a request; empty when nothing speaks against it.

    ``common_name`` is the one that is expected: of what the operator named, or the registration id.
    """
    return (
        *_name_problems(request, profile, common_name),
        *_key_problems(request),
        *_purpose_problems(request, profile),
        *_alternative_name_problems(request, profile, common_name),
    )


def _name_problems(request: CertificateRequest, profile: CertificateProfile, common_name: str) -> Iterator[Problem]:
    if request.common_name is None:
        yield Problem(
            "csr.common-name",
            f"the request has no common name, and {common_name!r} is expected",
            f"make it with the subject CN={common_name}",
        )
    elif request.common_name != common_name:
        yield Problem(
            "csr.common-name",
            f"the request is for the common name {request.common_name!r}, and not for {common_name!r}",
            f"make it with the subject CN={common_name}, or ask for the name that stands in it",
        )
    elif not profile.takes_common_name(common_name):
        yield Problem("csr.common-name", f"the profile does not take the common name {common_name!r}")


def _key_problems(request: CertificateRequest) -> Iterator[Problem]:
    if request.key_problem is not None:
        yield Problem(
            "csr.key",
            f"the key of the request is not taken: {request.key_problem}",
            "make a new key: RSA with 2048 bits or more, or EC on P-256",
        )
    if not request.is_signed:
        yield Problem(
            "csr.signature",
            "the request is not signed by the key in it, so its sender may not have that key",
            "make the request again, with the key of the device; it must not be changed afterwards",
        )


def _purpose_problems(request: CertificateRequest, profile: CertificateProfile) -> Iterator[Problem]:
    if not profile.ca and (request.wants_ca or request.wants_key_cert_sign):
        wish = "CA:TRUE" if request.wants_ca else "a key usage for signing certificates"
        yield Problem(
            "csr.ca",
            f"the request asks for {wish}, and the profile is not one of a CA",
            "make the request without basicConstraints and keyUsage; a CA is made with a profile for CAs",
        )
    beyond = [one for one in request.extended_key_usage or () if one not in profile.extended_key_usage]
    if beyond:
        allowed = ", ".join(profile.extended_key_usage) or "none"
        yield Problem(
            "csr.extended-key-usage",
            f"the request asks for the extended key usage {', '.join(beyond)}, and the profile has: {allowed}",
            "make the request without extendedKeyUsage, or choose a profile that has it",
        )


def _alternative_name_problems(
    request: CertificateRequest, profile: CertificateProfile, common_name: str
) -> Iterator[Problem]:
    for name in request.alternative_names:
        if not profile.takes_alternative_name(name, common_name):
            yield Problem(
                "csr.alternative-name",
                f"the profile does not take the alternative name {general_name_text(name)!r} that the request asks for",
                "make the request without it, or choose a profile whose alternative_names have it",
            )
