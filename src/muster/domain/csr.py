"""A device's certificate signing request (``csr`` of a register request), judged as named checks. Sources: dps.md 1.3.

Not here: what a request may hold beyond its name and key, which the CA's profile decides when it signs
(``dps/issuances.py``), and reading requests (``pki/certificate_request.py``).
"""

import base64
import re

from muster.domain.check_table import check, quoted, shell_word
from muster.domain.registration_id import registration_id_key
from muster.domain.report import Check
from muster.pki.certificate_profiles import DEVICE, PROFILES
from muster.pki.certificate_request import (
    CertificateRequest,
    RequestFormatError,
    parse_certificate_request,
    read_certificate_request,
    request_problems,
)

FIRST_API_VERSION = "2025-07-01-preview"
"""The first one in which a register request has ``csr``."""

FORMER_API_VERSION = "2021-11-01-preview"
"""The one in which it has ``clientCertificateCsr``, and the answer ``issuedClientCertificate``; it was abandoned."""

_DATE = re.compile(r"(\d{4}-\d\d-\d\d)(-preview)?", re.IGNORECASE)
_FIRST_DATE = FIRST_API_VERSION[:10]
_JUDGED = ("csr.signature", "csr.key", "csr.common-name")
_PASSED = {
    "csr.signature": "the request is signed by the key in it",
    "csr.key": "the key of the request can be certified",
}


def check_csr(
    text: str, registration_id: str, api_version: str, *, is_issued: bool, former: bool = False
) -> tuple[tuple[Check, ...], bytes | None]:
    """The checks of a request, and its DER when a certificate is to be issued for it.

    ``text`` is base64 of DER as it arrived, ``is_issued`` whether the enrollment names a CA. ``former``: it came as
    ``clientCertificateCsr``, which is PEM or base64 of DER.
    """
    version = _check_api_version(api_version, former=former)
    try:
        request = read_certificate_request(text) if former else parse_certificate_request(_decode(text))
    except RequestFormatError as error:
        return (version, _check_format(registration_id, str(error))), None
    policy = check(
        "csr.policy",
        passed=is_issued,
        detail="the enrollment names a CA that issues"
        if is_issued
        else "the enrollment names no CA that issues: the device is assigned, and gets no certificate",
        fix="name a CA in the enrollment: muster enrollment update"
        f" {shell_word(registration_id, 'REGISTRATION-ID')} --issuing-ca NAME, or muster group update; or send no csr",
    )
    head = (version, _check_format(registration_id, ""), policy)
    if not is_issued:
        return head, None
    return (*head, *_check_request(request, registration_id)), request.der


def certified_name(request: CertificateRequest, registration_id: str) -> str:
    """The common name to certify: the request's own spelling of the registration id, in which only the case may differ
    (dps.md 4.2).
    """
    own = request.common_name
    return own if own is not None and _is_same(own, registration_id) else registration_id


def _is_same(name: str, registration_id: str) -> bool:
    return registration_id_key(name) == registration_id_key(registration_id)


def _decode(text: str) -> bytes:
    """Raises RequestFormatError."""
    if "-----BEGIN" in text:
        raise RequestFormatError("it is PEM, and has to be the base64 of the DER alone")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except ValueError:
        raise RequestFormatError("it is not base64") from None


def is_former(api_version: str) -> bool:
    return api_version.lower() == FORMER_API_VERSION


def _check_api_version(api_version: str, *, former: bool) -> Check:
    match = _DATE.fullmatch(api_version)
    return check(
        "csr.api-version",
        passed=former or (match is not None and match[1] >= _FIRST_DATE),
        detail=f"the api-version is {quoted(api_version)}",
        fix=f"send csr with api-version={FIRST_API_VERSION} or a later one",
    )


def _check_format(registration_id: str, problem: str) -> Check:
    name = shell_word(registration_id, "REGISTRATION-ID")
    return check(
        "csr.format",
        passed=not problem,
        detail=f"csr cannot be read: {problem}" if problem else "csr is a PKCS#10 request",
        fix=f"openssl req -new -key device.key -subj /CN={name} -outform DER | base64 -w0",
    )


def _check_request(request: CertificateRequest, registration_id: str) -> tuple[Check, ...]:
    """What does not depend on the profile: who signed, the key, the name."""
    name = certified_name(request, registration_id)
    found = {problem.id: problem for problem in request_problems(request, PROFILES[DEVICE], name)}
    passed = {**_PASSED, "csr.common-name": f"the common name is {quoted(request.common_name or '')}"}
    return tuple(
        check(one, passed=False, detail=found[one].detail, fix=found[one].fix)
        if one in found
        else check(one, passed=True, detail=passed[one])
        for one in _JUDGED
    )
