"""CA certificates of a hub or a provisioning service: the record, its ARM view, and whether a certificate proves
possession.

Sources: dps.md 7.5. Not here: storing them.
"""

import time
from typing import Any

import msgspec

from muster.domain.attestation_mechanism import StoredCertificate
from muster.domain.timestamp import SECOND
from muster.pki.possession import possession_problem

MAXIMUM_AUTHORITIES = 25
MAXIMUM_NAME_LENGTH = 256


class Authority(msgspec.Struct, frozen=True, kw_only=True):
    """One CA certificate. Times are microseconds UTC; an empty ``verification_code``: none was asked for."""

    name: str
    certificate: StoredCertificate
    is_verified: bool
    verification_code: str
    etag: str
    created: int
    last_updated: int


def proof_problem(authority: Authority, proof: bytes, now: int) -> str | None:
    """Why a DER certificate does not prove that its maker holds the CA's key; None when it does (dps.md 7.5)."""
    if not authority.verification_code:
        return "no verification code was asked for: generate one first"
    return possession_problem(authority.certificate.bytes(), authority.verification_code, proof, now)


def arm_properties(authority: Authority, *, with_certificate: bool) -> dict[str, Any]:
    """``properties`` of the ARM resource; the certificate and the code are shown only after the code was asked for."""
    facts = authority.certificate.parse()
    properties: dict[str, Any] = {
        "subject": facts.common_name or facts.subject,
        "expiry": rfc_1123(facts.not_after or 0),
        "thumbprint": authority.certificate.sha1_thumbprint,
        "isVerified": authority.is_verified,
        "created": rfc_1123(authority.created),
        "updated": rfc_1123(authority.last_updated),
        "certificate": authority.certificate.der if with_certificate else None,
    }
    if with_certificate:
        properties["verificationCode"] = authority.verification_code
    return properties


def rfc_1123(microseconds: int) -> str:
    """``Fri, 06 May 2032 17:50:01 GMT``."""
    return time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(microseconds // SECOND))
