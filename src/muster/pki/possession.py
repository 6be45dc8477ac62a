"""Proof of possession: does a certificate show that its maker holds the key of a CA? Sources: dps.md 7.5.

The CA may be a root or an intermediate: it signs the proof itself, so nothing above it matters. Pure: the time is an
argument. Not here: where codes come from.
"""

import warnings

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

from muster.pki.certificate import CertificateFormatError, parse_certificate


def possession_problem(authority: bytes, code: str, proof: bytes, now: int) -> str | None:
    """Why ``proof`` (DER) does not prove possession of the key of ``authority`` (DER); None when it does.

    Its common name has to be ``code``, it has to be in its dates at ``now`` (microseconds), and signed by the CA.
    """
    try:
        facts = parse_certificate(proof)
    except CertificateFormatError as error:
        return str(error)
    if facts.common_name != code:
        return f"its common name is {facts.common_name!r}, and not the verification code {code}"
    if facts.not_before is None or facts.not_after is None or not facts.not_before <= now <= facts.not_after:
        return "it is not in its dates"
    return _signature_problem(proof, authority)


def _signature_problem(certificate: bytes, issuer: bytes) -> str | None:
    try:
        with warnings.catch_warnings():
            # The library warns of serial numbers that the standard forbids; the field has them.
            warnings.simplefilter("ignore")
            proof, authority = (x509.load_der_x509_certificate(der) for der in (certificate, issuer))
        if proof.issuer != authority.subject:
            return "its issuer is not the subject of the CA certificate"
        proof.verify_directly_issued_by(authority)
    except InvalidSignature:
        return "its signature was not made with the key of the CA certificate"
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        return f"its signature cannot be verified: {error}"
    return None
