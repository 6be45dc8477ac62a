"""Individual enrollments: the record, what a client may send, and what it gets to see.

Sources: dps.md 6.2, 6.5, 4.7, 4.8. Not here: whether a device satisfies an enrollment (``attestation.py``), and
storing.
"""

import base64
from typing import Any, Literal

import msgspec

from muster.domain.attestation import EnrolledCertificate, EnrolledCertificates
from muster.domain.device import require_device_id
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError
from muster.domain.registration_id import registration_id_problem
from muster.domain.timestamp import iso_utc
from muster.domain.twin import InitialTwin, JsonObject, require_valid
from muster.pki.certificate import (
    Certificate,
    CertificateFormatError,
    certificate_info,
    parse_certificate,
    read_certificates,
)

ProvisioningStatus = Literal["enabled", "disabled"]
AllocationPolicyName = Literal["hashed", "geoLatency", "static", "custom"]

_TWIN_MODEL_MEMBERS = ("version", "count", "metadata")


class Wire(msgspec.Struct, rename="camel", omit_defaults=True, kw_only=True):
    """Base of what travels as Azure's JSON: camelCase, members that are not set are left out."""


class ReprovisionPolicy(msgspec.Struct, rename="camel"):
    """What a new registration does to an assigned device (dps.md 5.4)."""

    update_hub_assignment: bool = True
    migrate_device_data: bool = True


class DeviceCapabilities(msgspec.Struct, rename="camel"):
    iot_edge: bool = False


class X509CertificateWithInfo(Wire):
    """``certificate`` comes in and never goes out; ``info`` goes out (dps.md 4.7)."""

    certificate: str | None = None
    info: JsonObject | None = None


class X509Certificates(Wire):
    primary: X509CertificateWithInfo | None = None
    secondary: X509CertificateWithInfo | None = None


class X509Attestation(Wire):
    client_certificates: X509Certificates | None = None
    signing_certificates: X509Certificates | None = None
    ca_references: JsonObject | None = None


class AttestationMechanism(Wire):
    type: Literal["none", "tpm", "x509", "symmetricKey"]
    x509: X509Attestation | None = None


class EnrollmentBody(Wire):
    """A PUT body. Read-only members that clients send back are not listed, and so ignored (dps.md 9.2, 20)."""

    registration_id: str | None = None
    device_id: str | None = None
    optional_device_information: JsonObject | None = None
    attestation: AttestationMechanism | None = None
    capabilities: DeviceCapabilities | None = None
    iot_hub_host_name: str | None = None
    initial_twin: JsonObject | None = None
    provisioning_status: ProvisioningStatus | None = None
    reprovision_policy: ReprovisionPolicy | None = None
    allocation_policy: AllocationPolicyName | None = None
    iot_hubs: list[str] | None = None
    custom_allocation_definition: JsonObject | None = None


class StoredCertificate(msgspec.Struct, frozen=True):
    """An enrolled certificate as it is kept: base64 of its DER form, and what a registration compares."""

    der: str
    sha1_thumbprint: str
    sha256_thumbprint: str

    def parse(self) -> Certificate:
        return parse_certificate(base64.b64decode(self.der))

    def thumbprints(self) -> EnrolledCertificate:
        return EnrolledCertificate(self.sha1_thumbprint, self.sha256_thumbprint)


class EnrollmentDocument(Wire):
    """What the ``document`` column holds: all that is not a column of its own."""

    device_id: str | None = None
    optional_device_information: JsonObject | None = None
    primary_certificate: StoredCertificate | None = None
    secondary_certificate: StoredCertificate | None = None
    capabilities: DeviceCapabilities = msgspec.field(default_factory=DeviceCapabilities)
    iot_hub_host_name: str | None = None
    initial_twin: InitialTwin | None = None
    reprovision_policy: ReprovisionPolicy = msgspec.field(default_factory=ReprovisionPolicy)
    allocation_policy: AllocationPolicyName | None = None
    iot_hubs: list[str] | None = None


class IndividualEnrollment(msgspec.Struct, frozen=True):
    """One individual enrollment. Times are microseconds UTC."""

    registration_id: str
    etag: str
    provisioning_status: ProvisioningStatus
    created: int
    last_updated: int
    document: EnrollmentDocument

    @property
    def device_id(self) -> str:
        """The device id in the hub (dps.md 4.2)."""
        return self.document.device_id or self.registration_id

    @property
    def named_hubs(self) -> tuple[str, ...]:
        """Host names of the hubs this enrollment restricts itself to; empty: every linked hub (dps.md 5.1)."""
        if self.document.iot_hub_host_name:
            return (self.document.iot_hub_host_name,)
        return tuple(self.document.iot_hubs or ())

    def enrolled_certificates(self) -> EnrolledCertificates:
        primary, secondary = self.document.primary_certificate, self.document.secondary_certificate
        return EnrolledCertificates(
            primary=primary.thumbprints() if primary else None,
            secondary=secondary.thumbprints() if secondary else None,
        )


def read_document(registration_id: str, body: EnrollmentBody, stored: EnrollmentDocument | None) -> EnrollmentDocument:
    """What a PUT on ``registration_id`` asks to keep, given what is ``stored`` now.

    Raises ArgumentNullError and ArgumentInvalidError with the member and the reason.
    """
    problem = registration_id_problem(registration_id)
    if problem is not None:
        raise ArgumentInvalidError(f"The registration id {registration_id!r} is not valid: {problem}.")
    _require_same_id(registration_id, body.registration_id)
    if body.device_id:
        require_device_id(body.device_id)
    _require_allocation(body)
    primary, secondary = _read_attestation(body.attestation, stored)
    return EnrollmentDocument(
        device_id=body.device_id or None,
        optional_device_information=body.optional_device_information,
        primary_certificate=primary,
        secondary_certificate=secondary,
        capabilities=body.capabilities or DeviceCapabilities(),
        iot_hub_host_name=body.iot_hub_host_name or None,
        initial_twin=_read_initial_twin(body.initial_twin),
        reprovision_policy=body.reprovision_policy or ReprovisionPolicy(),
        allocation_policy=body.allocation_policy,
        iot_hubs=body.iot_hubs or None,
    )


def _require_same_id(registration_id: str, in_body: str | None) -> None:
    if in_body is None:
        raise ArgumentNullError("registrationId is required in the body.")
    if in_body.lower() != registration_id.lower():
        raise ArgumentInvalidError(f"registrationId in the body is {in_body!r}, in the path {registration_id!r}.")


def _require_allocation(body: EnrollmentBody) -> None:
    if body.allocation_policy in ("custom", "geoLatency"):
        raise ArgumentInvalidError(
            f"allocationPolicy {body.allocation_policy!r} is not served by this version: use hashed or static."
        )
    if body.allocation_policy == "static":
        hubs = body.iot_hubs or ([body.iot_hub_host_name] if body.iot_hub_host_name else [])
        if len(hubs) != 1:
            raise ArgumentInvalidError(
                f"allocationPolicy static needs exactly one hub in iotHubs, there are {len(hubs)}."
            )


def _read_initial_twin(value: JsonObject | None) -> InitialTwin | None:
    if value is None:
        return None
    try:
        twin = msgspec.convert(_without_model_members(value), InitialTwin)
    except msgspec.ValidationError as error:
        raise ArgumentInvalidError(f"initialTwin is not valid: {error}.") from None
    require_valid("tags", twin.tags)
    require_valid("desired", twin.properties.desired)
    return twin


def _without_model_members(initial_twin: JsonObject) -> JsonObject:
    """Drop nulls, which client models send for a collection's ``version``, ``count`` and ``metadata`` (dps.md 6.2)."""

    def cleaned(section: Any) -> Any:
        if not isinstance(section, dict):
            return section
        return {key: item for key, item in section.items() if not (item is None and key in _TWIN_MODEL_MEMBERS)}

    properties = initial_twin.get("properties")
    if isinstance(properties, dict):
        desired = cleaned(properties.get("desired"))
        initial_twin = {**initial_twin, "properties": {"desired": {} if desired is None else desired}}
    tags = cleaned(initial_twin.get("tags"))
    twin = {**initial_twin, "tags": {} if tags is None else tags}
    return {key: item for key, item in twin.items() if item is not None}


def _read_attestation(
    attestation: AttestationMechanism | None, stored: EnrollmentDocument | None
) -> tuple[StoredCertificate | None, StoredCertificate | None]:
    if attestation is None:
        raise ArgumentNullError("attestation is required.")
    if attestation.type != "x509":
        raise ArgumentInvalidError(f"attestation type {attestation.type!r} is not served by this version: use x509.")
    x509 = attestation.x509
    if x509 is None or x509.client_certificates is None:
        raise ArgumentInvalidError(
            "attestation.x509.clientCertificates is required: an individual enrollment of this version is by its"
            " client certificate."
        )
    if x509.signing_certificates is not None or x509.ca_references is not None:
        raise ArgumentInvalidError(
            "attestation.x509 takes exactly one of clientCertificates, signingCertificates and caReferences."
        )
    pair = x509.client_certificates
    primary = _read_certificate("primary", pair.primary, stored.primary_certificate if stored else None)
    secondary = _read_certificate("secondary", pair.secondary, stored.secondary_certificate if stored else None)
    if primary is None:
        raise ArgumentNullError("attestation.x509.clientCertificates.primary is required.")
    return primary, secondary


def _read_certificate(
    slot: str, sent: X509CertificateWithInfo | None, stored: StoredCertificate | None
) -> StoredCertificate | None:
    """The certificate of one slot. One that is sent back with only its ``info`` is the stored one (dps.md 4.7)."""
    if sent is None or (sent.certificate is None and sent.info is None):
        return None
    if sent.certificate is None:
        if stored is not None and _thumbprint(sent.info) in (
            stored.sha1_thumbprint,
            stored.sha256_thumbprint,
        ):
            return stored
        raise ArgumentInvalidError(
            f"The {slot} certificate has only info, and it is not that of the stored certificate: send the certificate."
        )
    try:
        certificate = parse_certificate(read_certificates(sent.certificate)[0])
    except CertificateFormatError as error:
        raise ArgumentInvalidError(f"The {slot} certificate cannot be read: {error}") from None
    return StoredCertificate(
        base64.b64encode(certificate.der).decode(), certificate.sha1_thumbprint, certificate.sha256_thumbprint
    )


def _thumbprint(info: JsonObject | None) -> str:
    fields = info or {}
    return str(fields.get("sha1Thumbprint") or fields.get("sha256Thumbprint") or "").upper()


def service_view(enrollment: IndividualEnrollment) -> dict[str, Any]:
    """The JSON of dps.md 6.2, without ``registrationState``. Certificates show only their ``info``."""
    document = enrollment.document
    view: dict[str, Any] = {
        "registrationId": enrollment.registration_id,
        "deviceId": document.device_id,
        "optionalDeviceInformation": document.optional_device_information,
        "attestation": {"type": "x509", "x509": {"clientCertificates": _certificates_view(document)}},
        "capabilities": {"iotEdge": document.capabilities.iot_edge},
        "iotHubHostName": document.iot_hub_host_name,
        "initialTwin": _initial_twin_view(document.initial_twin),
        "etag": enrollment.etag,
        "provisioningStatus": enrollment.provisioning_status,
        "reprovisionPolicy": msgspec.to_builtins(document.reprovision_policy),
        "createdDateTimeUtc": iso_utc(enrollment.created),
        "lastUpdatedDateTimeUtc": iso_utc(enrollment.last_updated),
        "allocationPolicy": document.allocation_policy,
        "iotHubs": document.iot_hubs,
    }
    return {key: value for key, value in view.items() if value is not None}


def _certificates_view(document: EnrollmentDocument) -> dict[str, Any]:
    slots = {"primary": document.primary_certificate, "secondary": document.secondary_certificate}
    return {
        slot: {"info": msgspec.to_builtins(certificate_info(stored.parse()))}
        for slot, stored in slots.items()
        if stored is not None
    }


def _initial_twin_view(twin: InitialTwin | None) -> dict[str, Any] | None:
    if twin is None:
        return None
    return {"tags": twin.tags, "properties": {"desired": twin.properties.desired}}
