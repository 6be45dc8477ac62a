"""The ``attestation`` of an enrollment's JSON document: set by options, and laid out for people (dps.md 6.2, 6.3).

One shape serves individual enrollments and enrollment groups; a group's certificates are signing certificates. Not
here: what else is in an enrollment (``cli/enrollment_document.py``).
"""

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muster.cli.failure import CommandError
from muster.cli.output import short_time

Document = dict[str, Any]

_SLOTS = ("primary", "secondary")
_CERTIFICATES = ("clientCertificates", "signingCertificates")


@dataclass(frozen=True, slots=True)
class EnrolledCertificate:
    """A certificate out of a file: what is sent, its common name if it has one, and whether it says that it is a CA."""

    content: str
    common_name: str | None
    is_ca: bool | None = None


@dataclass(frozen=True, slots=True)
class AttestationChanges:
    """What options ask for. None leaves as it is; the first of a pair is the primary one."""

    certificate: EnrolledCertificate | None = None
    secondary: EnrolledCertificate | None = None
    ca: str | None = None
    secondary_ca: str | None = None
    symmetric_key: bool = False
    primary_key: str | None = None
    secondary_key: str | None = None
    endorsement_key: str | None = None

    @property
    def mechanisms(self) -> tuple[str, ...]:
        """The options that name a mechanism; more than one contradict each other."""
        asked = {
            "--certificate": self.certificate or self.secondary,
            "--ca": self.ca or self.secondary_ca,
            "--symmetric-key": self.symmetric_key or self.primary_key or self.secondary_key,
            "--endorsement-key": self.endorsement_key,
        }
        return tuple(option for option, value in asked.items() if value)


def read_certificate(file: Path) -> EnrolledCertificate:
    """The first certificate in a PEM or DER file: a device's own stands first. Raises CommandError.

    Only the certificate is sent, whatever else is in the file.
    """
    from muster.pki.certificate import CertificateFormatError, parse_certificate, read_certificates

    try:
        content = file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from error
    try:
        first = read_certificates(content)[0]
        facts = parse_certificate(first)
    except CertificateFormatError as error:
        keys = b"KEY" in content or "PFX" in str(error)
        advice = "the key stays on the device: give the .pem with the certificate" if keys else ""
        raise CommandError(f"{file} is not a certificate: {error}", advice) from error
    return EnrolledCertificate(base64.b64encode(first).decode("ascii"), facts.common_name, facts.is_ca)


def read_endorsement_key(text: str) -> str:
    """Base64 of a TPM's endorsement key, or of the file behind ``@``: base64 text or bytes. Raises CommandError."""
    if not text.startswith("@"):
        return text
    file = Path(text[1:])
    try:
        content = file.read_bytes()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from error
    try:
        base64.b64decode(b"".join(content.split()), validate=True)
    except ValueError:
        return base64.b64encode(content).decode("ascii")
    return b"".join(content.split()).decode("ascii")


def change_attestation(document: Document, changes: AttestationChanges) -> None:
    """Change ``document`` in place. Naming another mechanism replaces the one before. Raises CommandError."""
    asked = changes.mechanisms
    if len(asked) > 1:
        raise CommandError(
            f"{' and '.join(asked)} contradict each other", "an enrollment has one attestation mechanism: name one"
        )
    if changes.certificate or changes.secondary:
        kind = "signingCertificates" if "enrollmentGroupId" in document else "clientCertificates"
        slots = _section(document, "x509", kind)
        for slot, certificate in zip(_SLOTS, (changes.certificate, changes.secondary), strict=True):
            if certificate is not None:
                slots[slot] = {"certificate": certificate.content}
    elif changes.ca or changes.secondary_ca:
        names = {"primary": changes.ca, "secondary": changes.secondary_ca}
        _assign(_section(document, "x509", "caReferences"), names)
    elif changes.endorsement_key:
        document["attestation"] = {"type": "tpm", "tpm": {"endorsementKey": changes.endorsement_key}}
    elif asked:
        keys = {"primaryKey": changes.primary_key, "secondaryKey": changes.secondary_key}
        _assign(_section(document, "symmetricKey", None), keys)


def _section(document: Document, mechanism: str, kind: str | None) -> Document:
    """The part of ``document`` that is to be changed; whatever other mechanism stands there goes."""
    attestation = document.get("attestation") or {}
    if attestation.get("type") != mechanism:
        attestation = document["attestation"] = {"type": mechanism, mechanism: {}}
    section: Document = attestation.setdefault(mechanism, {})
    if kind is None:
        return section
    for other in [name for name in section if name != kind]:
        del section[other]
    slots: Document = section.setdefault(kind, {})
    return slots


def _assign(section: Document, values: dict[str, str | None]) -> None:
    section.update({name: value for name, value in values.items() if value is not None})


def attestation_text(document: Document) -> str:
    """``symmetricKey``, ``x509``, or for references and signing certificates ``x509 (caReferences)``."""
    attestation = document.get("attestation") or {}
    kinds = [kind for kind in ("signingCertificates", "caReferences") if (attestation.get("x509") or {}).get(kind)]
    return f"{attestation.get('type')} ({kinds[0]})" if kinds else str(attestation.get("type") or "")


def attestation_rows(document: Document) -> list[tuple[str, object]]:
    """What is known of enrolled certificates and CA references."""
    attestation = document.get("attestation") or {}
    x509 = attestation.get("x509") or {}
    rows: list[tuple[str, object]] = []
    for slot in _SLOTS:
        for kind in _CERTIFICATES:
            rows += _certificate_rows(slot, ((x509.get(kind) or {}).get(slot) or {}).get("info") or {})
        name = (x509.get("caReferences") or {}).get(slot)
        rows += [(f"{slot.capitalize()} CA", name)] if name else []
    return rows


def key_rows(attestation: Document) -> list[tuple[str, object]]:
    """The keys in an attestation mechanism that shows them."""
    keys = {**(attestation.get("symmetricKey") or {}), **(attestation.get("tpm") or {})}
    return [
        (label, keys[name])
        for label, name in (
            ("PrimaryKey", "primaryKey"),
            ("SecondaryKey", "secondaryKey"),
            ("EndorsementKey", "endorsementKey"),
            ("StorageRootKey", "storageRootKey"),
        )
        if keys.get(name)
    ]


def _certificate_rows(slot: str, info: Document) -> list[tuple[str, object]]:
    if not info:
        return []
    label = slot.capitalize()
    return [
        (f"{label} Subject", info.get("subjectName")),
        (f"{label} SHA-1", info.get("sha1Thumbprint")),
        (f"{label} SHA-256", info.get("sha256Thumbprint")),
        (f"{label} Valid", f"{short_time(info.get('notBeforeUtc'))} to {short_time(info.get('notAfterUtc'))}"),
    ]
