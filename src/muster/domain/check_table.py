"""The one table of named checks: what each id means, whether it refuses or warns, and what Azure answers.

Not here: the code that looks at certificates and tokens; that is ``domain/attestation.py`` and
``domain/sas.py``, which build their results with ``check``. ``docs/checks.md`` shows this table to users, and
a test holds the two together.
"""

import re
from enum import StrEnum

import msgspec

from muster.domain.errors import (
    ArgumentInvalidError,
    CaCertificateNotFoundError,
    CertificateIssuanceFailedError,
    CertificateRequestError,
    CustomAllocationFailedError,
    DeviceDisabledError,
    EnrollmentNotFoundError,
    InvalidCertificateError,
    NoHubAvailableError,
    ServiceError,
    TokenExpiredError,
    UnauthorizedAccessError,
)
from muster.domain.report import Check, Outcome, refusals

_PLAIN_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9\-._:,]{0,127}")


class Severity(StrEnum):
    """What a check does to the attempt when it does not pass."""

    REFUSE = "refuse"
    WARN = "warn"


class CheckRow(msgspec.Struct, frozen=True):
    """One row of the table.

    ``title`` says what holds when the check passes. ``error`` is what the client is told when it does not (a
    row that refuses without one is told in another way, which ``answer`` spells out). ``evidence`` is where
    this behaviour is known from: ``documented``, ``seen`` (on the wire of the real service), ``inferred``, or
    ``ours``.
    """

    id: str
    title: str
    severity: Severity
    error: type[ServiceError] | None
    evidence: str
    special_answer: str = ""

    @property
    def answer(self) -> str:
        """What Azure answers, e.g. ``401002 Invalid certificate.``"""
        if self.error is None:
            return self.special_answer
        return f"{self.error.code} {self.error.message}"


def _refuse(check_id: str, title: str, error: type[ServiceError], evidence: str) -> CheckRow:
    return CheckRow(check_id, title, Severity.REFUSE, error, evidence)


def _warn(check_id: str, title: str, evidence: str) -> CheckRow:
    return CheckRow(check_id, title, Severity.WARN, None, evidence, "accepted")


_TOLD_IN_THE_RECORD = "ours; told in the registration record"

_ROWS = (
    # Which enrollment applies (dps.md 4.1, 4.9, 10).
    _refuse(
        "id-scope.known",
        "the id scope is one of this service",
        UnauthorizedAccessError,
        "inferred; a login that names nothing parseable is refused at CONNECT",
    ),
    _refuse(
        "registration-id.rules",
        "the registration id is legal",
        ArgumentInvalidError,
        "characters and length documented, number inferred",
    ),
    _refuse(
        "enrollment.exists",
        "an enrollment applies to the registration id",
        CaCertificateNotFoundError,
        "seen",
    ),
    _refuse(
        "enrollment.exists-for-key",
        "an enrollment applies to a device with a key",
        UnauthorizedAccessError,
        "seen; over MQTT 401000",
    ),
    _refuse(
        "enrollment.exists-for-tpm",
        "an individual enrollment applies to a device with a TPM",
        EnrollmentNotFoundError,
        "seen",
    ),
    CheckRow(
        "enrollment.enabled",
        "the enrollment is enabled",
        Severity.REFUSE,
        None,
        "seen with symmetric keys, inferred for X.509",
        "202, then 200 with status disabled",
    ),
    _refuse(
        "enrollment.attestation",
        "the device attests in the way its individual enrollment asks for",
        UnauthorizedAccessError,
        "documented; number inferred",
    ),
    _refuse(
        "enrollment.group-exists",
        "a certificate above the device's is that of an enrollment group",
        CaCertificateNotFoundError,
        "seen",
    ),
    _warn(
        "group.key-unique",
        "no other enrollment group has one of its symmetric keys",
        "ours: which of several groups Azure takes is not known",
    ),
    # A device's own X.509 certificate (dps.md 4.2, 4.4, 4.5).
    _refuse(
        "x509.certificate-presented",
        "the device presented a client certificate",
        InvalidCertificateError,
        "seen",
    ),
    _refuse("x509.parses", "the certificate can be read", InvalidCertificateError, "ours"),
    _refuse(
        "x509.thumbprint",
        "the certificate is the enrolled one, primary or secondary",
        InvalidCertificateError,
        "documented and seen",
    ),
    _refuse(
        "x509.common-name",
        "the common name is the registration id, ignoring case",
        InvalidCertificateError,
        "documented",
    ),
    _warn(
        "x509.common-name-case",
        "the common name spells the registration id in the same case",
        "registration ids ignore case (documented), device ids at the hub do not",
    ),
    _refuse(
        "x509.common-name-length",
        "the common name has at most 64 characters",
        InvalidCertificateError,
        "documented limit, answer inferred",
    ),
    _refuse("x509.not-before", "the certificate is already valid", InvalidCertificateError, "inferred"),
    _refuse("x509.not-after", "the certificate has not expired", InvalidCertificateError, "inferred"),
    _warn(
        "x509.extended-key-usage",
        "the extended key usage has clientAuth",
        "documented as needed; individual enrollments were not seen to check it",
    ),
    _warn(
        "x509.basic-constraints",
        "the certificate is an end-entity certificate, not a CA",
        "documented as needed; individual enrollments were not seen to check it",
    ),
    _warn("x509.version", "the certificate is X.509 version 3", "accepted in the field"),
    _warn("x509.key-strength", "key and signature are of today's strength", "not documented as checked"),
    _warn("x509.chain-sent", "the device sent its own certificate first, and nothing else is needed", "ours"),
    # X.509 chains: enrollment groups, and individual enrollments by CA (dps.md 4.1, 4.4, 4.5).
    _warn(
        "x509.chain-order",
        "the device sent its own certificate first, then the issuer of each",
        "ours: any order is accepted",
    ),
    _refuse(
        "x509.issuer-known",
        "every issuer was sent by the device, or is a verified CA certificate",
        CaCertificateNotFoundError,
        "documented and seen",
    ),
    _refuse(
        "x509.chain",
        "every certificate is signed by the one above it",
        CaCertificateNotFoundError,
        "documented; answer inferred",
    ),
    _refuse(
        "x509.group-certificate-verified",
        "the certificate of the group is a verified CA certificate, or leads to one",
        CaCertificateNotFoundError,
        "documented",
    ),
    _refuse(
        "x509.signing-certificate",
        "a certificate above the device's is the CA certificate of the individual enrollment",
        CaCertificateNotFoundError,
        "documented; answer inferred",
    ),
    _refuse(
        "ca.verified",
        "the CA certificate of the individual enrollment is verified, or leads to a verified one",
        CaCertificateNotFoundError,
        "documented for groups; inferred",
    ),
    _refuse(
        "x509.chain-dates", "every certificate above the device's is in its dates", InvalidCertificateError, "inferred"
    ),
    _refuse(
        "x509.chain-ca",
        "every certificate above the device's is that of a CA, and may sign certificates",
        InvalidCertificateError,
        "basic constraints documented, key usage inferred; answer inferred",
    ),
    _refuse(
        "x509.path-length",
        "no CA has more CAs below it than its path length allows",
        InvalidCertificateError,
        "inferred",
    ),
    _refuse(
        "x509.name-constraints",
        "no certificate has a name that a CA above it may not certify",
        InvalidCertificateError,
        "inferred",
    ),
    _refuse(
        "x509.chain-extensions",
        "the extensions can be read, and no critical one is unknown",
        InvalidCertificateError,
        "inferred",
    ),
    _refuse(
        "x509.chain-standard", "nothing else in the chain is against the standard", InvalidCertificateError, "ours"
    ),
    _refuse(
        "x509.leaf-not-ca",
        "in a group: the device's certificate is an end-entity certificate, not a CA",
        InvalidCertificateError,
        "documented as needed, reported by users; answer inferred",
    ),
    _refuse(
        "x509.leaf-client-auth",
        "in a group: an extended key usage, if there is one, has clientAuth",
        InvalidCertificateError,
        "documented as needed, reported by users; answer inferred",
    ),
    # Revocation, which is asked only when the service was given revocation lists (docs/ca.md).
    _refuse(
        "x509.revocation",
        "neither the certificate nor one above it is on the revocation list of its CA",
        InvalidCertificateError,
        "ours",
    ),
    _warn("x509.revocation-list", "the revocation lists that were asked are of today", "ours"),
    # TPM (dps.md 4.6).
    _refuse(
        "tpm.endorsement-key",
        "the endorsement key of the TPM is the enrolled one",
        UnauthorizedAccessError,
        "documented; answer inferred",
    ),
    _refuse(
        "tpm.storage-root-key",
        "the storage root key of the TPM is the enrolled one, or the one it came with first",
        UnauthorizedAccessError,
        "inferred",
    ),
    # A certificate signing request in a register (dps.md 1.3, 1.5).
    _refuse(
        "csr.api-version",
        "the api-version is one that has csr",
        CertificateRequestError,
        "told in a client's source; number inferred",
    ),
    _refuse(
        "csr.format",
        "csr is base64 of a PKCS#10 request in DER",
        CertificateRequestError,
        "documented; number inferred",
    ),
    _warn("csr.policy", "the enrollment names a CA that issues", "inferred from clients, which look for a chain"),
    _refuse("csr.signature", "the request is signed by the key in it", CertificateRequestError, "inferred"),
    _refuse("csr.key", "the key of the request can be certified", CertificateRequestError, "inferred"),
    _refuse(
        "csr.common-name",
        "the common name of the request is the registration id, ignoring case",
        CertificateRequestError,
        "documented; number inferred",
    ),
    _refuse("csr.ca", "the request is not for a CA", CertificateIssuanceFailedError, _TOLD_IN_THE_RECORD),
    _refuse(
        "csr.extended-key-usage",
        "the profile has every extended key usage that the request asks for",
        CertificateIssuanceFailedError,
        _TOLD_IN_THE_RECORD,
    ),
    _refuse(
        "csr.alternative-name",
        "the profile takes every alternative name that the request asks for",
        CertificateIssuanceFailedError,
        _TOLD_IN_THE_RECORD,
    ),
    _refuse("csr.issued", "the CA issued a certificate", CertificateIssuanceFailedError, _TOLD_IN_THE_RECORD),
    # Where the device goes (dps.md 5).
    _refuse(
        "allocation.hub-available",
        "a linked hub can take the device",
        NoHubAvailableError,
        "documented; told in the registration record, number inferred",
    ),
    _refuse(
        "allocation.webhook-answer",
        "the custom allocation webhook named a linked hub",
        CustomAllocationFailedError,
        "seen; told in the registration record, with what happened; 400208 without a linked hub, 400209 after a 401",
    ),
    # The hub (hub-device.md 2.4, 2.5, 17).
    _refuse(
        "device.user-name",
        "over MQTT: the user name names a hub that is served here, and the identity that the client id names",
        UnauthorizedAccessError,
        "documented",
    ),
    _refuse("device.exists", "the hub has this device identity", UnauthorizedAccessError, "seen"),
    _refuse("device.enabled", "the device identity is enabled", DeviceDisabledError, "seen; older hubs 401002"),
    _refuse(
        "device.authentication",
        "the device proves itself in the way its identity asks for",
        UnauthorizedAccessError,
        "inferred",
    ),
    _refuse(
        "device.certificate-presented",
        "the device presented a client certificate",
        UnauthorizedAccessError,
        "inferred",
    ),
    _refuse(
        "device.thumbprint",
        "the certificate has a configured thumbprint, SHA-1 or SHA-256, primary or secondary",
        TokenExpiredError,
        "documented under 401003",
    ),
    _refuse(
        "device.certificate-dates",
        "the certificate is in its dates",
        TokenExpiredError,
        "edge hub checks it; number inferred",
    ),
    _refuse(
        "device.certificate-authority",
        "the certificate leads to a verified CA certificate of the hub",
        UnauthorizedAccessError,
        "documented; number inferred",
    ),
    _refuse(
        "device.common-name",
        "the common name of a certificate from a CA is the device id, or device id/module id",
        UnauthorizedAccessError,
        "documented; number inferred",
    ),
    _refuse(
        "device.revocation",
        "neither the certificate nor one above it is on the revocation list of its CA",
        TokenExpiredError,
        "ours",
    ),
    # Shared access signatures, both services (hub-device.md 2.2, 2.5; dps.md 1.8, 6.8).
    _refuse("sas.format", "the shared access signature can be read", UnauthorizedAccessError, "documented"),
    _refuse("sas.audience", "the token is for this resource", UnauthorizedAccessError, "documented"),
    _refuse(
        "sas.expiry",
        "the token has not expired",
        TokenExpiredError,
        "documented for devices; service APIs answer 401002",
    ),
    _refuse("sas.signature", "the token is signed with a configured key", UnauthorizedAccessError, "seen"),
    _refuse(
        "sas.derived-key",
        "the token is signed with the key derived for the registration id from that of a group",
        UnauthorizedAccessError,
        "seen",
    ),
    _refuse("sas.policy", "the shared access policy exists", UnauthorizedAccessError, "inferred"),
    _refuse("sas.right", "the shared access policy has the right", UnauthorizedAccessError, "seen"),
)

CHECKS: dict[str, CheckRow] = {row.id: row for row in _ROWS}
"""Every check by its id, in the order of the documentation."""


def check(check_id: str, /, *, passed: bool, detail: str, fix: str = "") -> Check:
    """The result of one check of the table: passed, or refused or warned as its row says.

    ``detail`` says what was found in what really arrived; ``fix`` what to do, kept only when the check did
    not pass. Neither may hold a key, a pass phrase, a token or an expected signature. An id that is not in
    the table is a bug: KeyError.
    """
    row = CHECKS[check_id]
    if passed:
        return Check(check_id, Outcome.PASSED, detail)
    outcome = Outcome.REFUSED if row.severity is Severity.REFUSE else Outcome.WARNED
    return Check(check_id, outcome, detail, fix)


def skipped(check_id: str, detail: str) -> Check:
    """A check that an earlier refusal made meaningless; ``detail`` says which."""
    return Check(CHECKS[check_id].id, Outcome.SKIPPED, detail)


def verdict(checks: tuple[Check, ...]) -> type[ServiceError] | None:
    """The error to raise: that of the first check that refuses with one; None when nothing does.

    A refusal that is not told as an error (``enrollment.enabled``) is left to the caller.
    """
    errors = (CHECKS[refused.id].error for refused in refusals(checks))
    return next((error for error in errors if error is not None), None)


def quoted(text: str, limit: int = 128) -> str:
    """Text that a device or a user controls, fit for a detail: in quotes, one line, printable, cut at
    ``limit``.
    """
    kept = text if len(text) <= limit else text[:limit] + "..."
    if not kept.isprintable():
        kept = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in kept)
    return f'"{kept}"'


def shell_word(identifier: str, placeholder: str) -> str:
    """An id for a command in a fix; the placeholder when it is too long or is more than a plain word to a
    shell.
    """
    return identifier if _PLAIN_WORD.fullmatch(identifier) else placeholder
