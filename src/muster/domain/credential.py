"""What a client proved itself with on one connection: the certificates of its TLS session, the token it sent, its TPM.

Not here: whether that is enough (``attestation.py``, ``sas.py``).
"""

from dataclasses import dataclass

from muster.domain.sas import MalformedTokenError, parse_token
from muster.domain.tpm_offer import TpmOffer
from muster.pki.certificate import CertificateFormatError, parse_certificate


@dataclass(frozen=True, slots=True)
class Credential:
    """``certificates``: DER, leaf first, as sent; ``token``: the password or Authorization text, ``""`` for none.

    ``peer`` says where the client is and what it speaks, for reports: ``127.0.0.1:40112 MQTT TLSv1.2``. ``tpm``: the
    TPM that has solved its challenge on this connection, and signed ``token`` with the key in it (dps.md 3.7).
    """

    certificates: tuple[bytes, ...]
    token: str
    peer: str
    tpm: TpmOffer | None = None

    def describe(self) -> str:
        """What was presented, in words and without secrets."""
        parts = ["a TPM"] if self.tpm else []
        if self.token:
            parts.append(_describe_token(self.token))
        if self.certificates:
            parts.append(_describe_certificates(self.certificates))
        return ", ".join(parts) or "no credential"


def _describe_token(text: str) -> str:
    try:
        token = parse_token(text)
    except MalformedTokenError:
        return "a password that is not a shared access signature"
    policy = f" of policy {token.key_name}" if token.key_name else ""
    return f"shared access signature{policy}"


def _describe_certificates(certificates: tuple[bytes, ...]) -> str:
    more = f" and {len(certificates) - 1} more" if len(certificates) > 1 else ""
    try:
        leaf = parse_certificate(certificates[0])
    except CertificateFormatError:
        return f"a certificate that cannot be read{more}"
    return f"X.509 certificate {leaf.subject or '(no subject)'}, SHA-1 {leaf.sha1_thumbprint}{more}"
