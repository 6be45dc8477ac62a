"""Attestation mechanisms: what a client may send, what is kept, and what it gets to see.

One record for individual enrollments and enrollment groups; which mechanism each may have is decided in
``enrollment.py``. Sources: dps.md 4.3 to 4.8, 6.2. Not here: whether a device satisfies one (``attestation.py``).
"""

import base64
import binascii
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from muster.domain.attestation import EnrolledCertificate, EnrolledCertificates
from muster.domain.documents import any_case
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError
from muster.domain.sas import require_key
from muster.domain.tpm import TpmKeyFormatError, parse_storage_key
from muster.domain.twin import JsonObject
from muster.pki.certificate import (
    Certificate,
    CertificateFormatError,
    certificate_info,
    parse_certificate,
    read_certificates,
)

MechanismType = Literal["x509", "symmetricKey", "tpm"]
X509Kind = Literal["clientCertificates", "signingCertificates", "caReferences"]

GENERATED_KEY_BYTES = 64
"""The length of a key that the service makes (dps.md 4.3)."""

_TYPES: tuple[Literal["none"] | MechanismType, ...] = ("none", "tpm", "x509", "symmetricKey")
_KINDS: tuple[X509Kind, ...] = ("clientCertificates", "signingCertificates", "caReferences")


class Wire(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Base of what travels as Azure's JSON: camelCase, members that are not set are left out."""


class CertificateBody(Wire):
    """``certificate`` comes in and never goes out; ``info`` goes out (dps.md 4.7)."""

    certificate: str | None = None
    info: JsonObject | None = None


class CertificatesBody(Wire):
    primary: CertificateBody | None = None
    secondary: CertificateBody | None = None


class CaReferencesBody(Wire):
    primary: str | None = None
    secondary: str | None = None


class X509Body(Wire):
    client_certificates: CertificatesBody | None = None
    signing_certificates: CertificatesBody | None = None
    ca_references: CaReferencesBody | None = None


class SymmetricKeyBody(Wire):
    primary_key: str | None = None
    secondary_key: str | None = None


class TpmBody(Wire):
    endorsement_key: str | None = None
    storage_root_key: str | None = None


class MechanismBody(Wire):
    """The ``attestation`` of a PUT body."""

    type: str
    x509: X509Body | None = None
    symmetric_key: SymmetricKeyBody | None = None
    tpm: TpmBody | None = None


class StoredCertificate(msgspec.Struct, frozen=True):
    """An enrolled certificate as it is kept: base64 of its DER form, and what a registration compares."""

    der: str
    sha1_thumbprint: str
    sha256_thumbprint: str

    def parse(self) -> Certificate:
        return parse_certificate(self.bytes())

    def bytes(self) -> bytes:
        return base64.b64decode(self.der)

    def thumbprints(self) -> EnrolledCertificate:
        return EnrolledCertificate(self.sha1_thumbprint, self.sha256_thumbprint)


class Mechanism(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """An attestation mechanism as it is kept. Of the members only those of its type are set."""

    type: MechanismType
    x509_kind: X509Kind = "clientCertificates"
    primary_certificate: StoredCertificate | None = None
    secondary_certificate: StoredCertificate | None = None
    primary_ca: str | None = None
    secondary_ca: str | None = None
    primary_key: str = ""
    secondary_key: str = ""
    endorsement_key: str = ""
    storage_root_key: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The symmetric keys, primary first."""
        return tuple(key for key in (self.primary_key, self.secondary_key) if key)

    @property
    def certificates(self) -> tuple[StoredCertificate, ...]:
        """Client or signing certificates, primary first."""
        return tuple(item for item in (self.primary_certificate, self.secondary_certificate) if item is not None)

    @property
    def ca_names(self) -> tuple[str, ...]:
        """Names of CA certificates of the service, primary first."""
        return tuple(name for name in (self.primary_ca, self.secondary_ca) if name)

    def enrolled_certificates(self) -> EnrolledCertificates:
        primary, secondary = self.primary_certificate, self.secondary_certificate
        return EnrolledCertificates(
            primary=primary.thumbprints() if primary else None,
            secondary=secondary.thumbprints() if secondary else None,
        )


def read_mechanism(body: MechanismBody | None, stored: Mechanism | None, new_key: Callable[[], str]) -> Mechanism:
    """What a PUT asks to keep, given what is ``stored`` now; ``new_key`` makes a symmetric key.

    Raises ArgumentNullError and ArgumentInvalidError with the member and the reason.
    """
    if body is None:
        raise ArgumentNullError("attestation is required.")
    match any_case("attestation.type", body.type, _TYPES):
        case "x509":
            return _read_x509(body.x509, stored)
        case "symmetricKey":
            return _read_symmetric_key(body.symmetric_key, stored, new_key)
        case "tpm":
            return _read_tpm(body.tpm, stored)
        case _:
            raise ArgumentInvalidError("attestation.type is none; x509, symmetricKey and tpm are allowed.")


def _read_x509(body: X509Body | None, stored: Mechanism | None) -> Mechanism:
    parts = {
        "clientCertificates": body.client_certificates if body else None,
        "signingCertificates": body.signing_certificates if body else None,
        "caReferences": body.ca_references if body else None,
    }
    given: list[X509Kind] = [kind for kind in _KINDS if parts[kind] is not None]
    if len(given) != 1:
        raise ArgumentInvalidError(
            f"attestation.x509 takes exactly one of {', '.join(_KINDS)}; there are {', '.join(given) or 'none'}."
        )
    kind = given[0]
    if kind == "caReferences":
        assert body is not None
        return _read_ca_references(body.ca_references)
    before = stored if stored is not None and stored.type == "x509" and stored.x509_kind == kind else None
    pair = body.client_certificates if kind == "clientCertificates" else body.signing_certificates  # type: ignore[union-attr]  # it is given
    assert pair is not None
    primary = _read_certificate("primary", pair.primary, before.primary_certificate if before else None)
    secondary = _read_certificate("secondary", pair.secondary, before.secondary_certificate if before else None)
    if primary is None and secondary is None:
        raise ArgumentNullError(f"attestation.x509.{kind} needs primary, secondary or both.")
    return Mechanism(type="x509", x509_kind=kind, primary_certificate=primary, secondary_certificate=secondary)


def _read_ca_references(body: CaReferencesBody | None) -> Mechanism:
    if body is None or not (body.primary or body.secondary):
        raise ArgumentNullError("attestation.x509.caReferences needs primary, secondary or both.")
    return Mechanism(
        type="x509", x509_kind="caReferences", primary_ca=body.primary or None, secondary_ca=body.secondary or None
    )


def _read_certificate(
    slot: str, sent: CertificateBody | None, stored: StoredCertificate | None
) -> StoredCertificate | None:
    """The certificate of one slot. One that is sent back with only its ``info`` is the stored one (dps.md 4.7)."""
    if sent is None or (sent.certificate is None and sent.info is None):
        return None
    if sent.certificate is None:
        if stored is not None and _thumbprint(sent.info) in (stored.sha1_thumbprint, stored.sha256_thumbprint):
            return stored
        raise ArgumentInvalidError(
            f"The {slot} certificate has only info, and it is not that of the stored certificate: send the certificate."
        )
    return read_certificate(f"The {slot} certificate", sent.certificate)


def read_certificate(what: str, text: str) -> StoredCertificate:
    """A certificate in any form that clients send (dps.md 4.8). Raises ArgumentInvalidError about ``what``."""
    try:
        certificate = parse_certificate(read_certificates(text)[0])
    except CertificateFormatError as error:
        raise ArgumentInvalidError(f"{what} cannot be read: {error}") from None
    der = base64.b64encode(certificate.der).decode()
    return StoredCertificate(der, certificate.sha1_thumbprint, certificate.sha256_thumbprint)


def _thumbprint(info: JsonObject | None) -> str:
    fields = info or {}
    return str(fields.get("sha1Thumbprint") or fields.get("sha256Thumbprint") or "").upper()


def _read_symmetric_key(
    body: SymmetricKeyBody | None, stored: Mechanism | None, new_key: Callable[[], str]
) -> Mechanism:
    """Keys that are not sent are the stored ones, or new ones (dps.md 6.2)."""
    primary = body.primary_key if body else None
    secondary = body.secondary_key if body else None
    before = stored if stored is not None and stored.type == "symmetricKey" else None
    return Mechanism(
        type="symmetricKey",
        primary_key=require_key(primary, "primaryKey") if primary else (before.primary_key if before else new_key()),
        secondary_key=(
            require_key(secondary, "secondaryKey") if secondary else (before.secondary_key if before else new_key())
        ),
    )


def _read_tpm(body: TpmBody | None, stored: Mechanism | None) -> Mechanism:
    if body is None or not body.endorsement_key:
        raise ArgumentNullError("attestation.tpm.endorsementKey is required.")
    _require_storage_key("attestation.tpm.endorsementKey", body.endorsement_key)
    if body.storage_root_key:
        _require_storage_key("attestation.tpm.storageRootKey", body.storage_root_key)
    # A storage root key that the service has learned from the device stays when an update does not name one (dps.md
    # 4.6).
    same = stored is not None and stored.type == "tpm" and stored.endorsement_key == body.endorsement_key
    learned = stored.storage_root_key if stored is not None and same else ""
    return Mechanism(
        type="tpm", endorsement_key=body.endorsement_key, storage_root_key=body.storage_root_key or learned
    )


def _require_storage_key(member: str, value: str) -> None:
    """Raise ArgumentInvalidError unless it is base64 of the public area of a key that DPS's clients make."""
    try:
        parse_storage_key(base64.b64decode(value, validate=True))
    except (binascii.Error, TpmKeyFormatError) as error:
        raise ArgumentInvalidError(f"{member} is invalid: {error}") from None


def mechanism_view(mechanism: Mechanism, *, keys: bool) -> dict[str, Any]:
    """The JSON of dps.md 6.2; symmetric keys are shown only with ``keys``: in the answer to a PUT, and where they are
    asked for.
    """
    match mechanism.type:
        case "x509":
            return {"type": "x509", "x509": {mechanism.x509_kind: _x509_view(mechanism)}}
        case "symmetricKey":
            shown = {"primaryKey": mechanism.primary_key, "secondaryKey": mechanism.secondary_key} if keys else {}
            return {"type": "symmetricKey", "symmetricKey": shown}
        case "tpm":
            view = {"endorsementKey": mechanism.endorsement_key}
            if mechanism.storage_root_key:
                view["storageRootKey"] = mechanism.storage_root_key
            return {"type": "tpm", "tpm": view}


def _x509_view(mechanism: Mechanism) -> dict[str, Any]:
    if mechanism.x509_kind == "caReferences":
        return {
            slot: name
            for slot, name in (("primary", mechanism.primary_ca), ("secondary", mechanism.secondary_ca))
            if name is not None
        }
    slots = {"primary": mechanism.primary_certificate, "secondary": mechanism.secondary_certificate}
    return {
        slot: {"info": msgspec.to_builtins(certificate_info(stored.parse()))}
        for slot, stored in slots.items()
        if stored is not None
    }
