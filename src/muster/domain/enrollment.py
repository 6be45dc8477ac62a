"""Individual enrollments and enrollment groups: the records, what a client may send, and what it gets to see.

Both are the same in all but their id, their registration state and the mechanisms they may have. Sources: dps.md
6.2, 6.3, 6.5. Not here: mechanisms themselves (``attestation_mechanism.py``), whether a device satisfies one
(``attestation.py``), storing.
"""

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from muster.domain.allocation import PolicyName, masked_url, webhook_url_problem
from muster.domain.attestation_mechanism import Mechanism, MechanismBody, Wire, mechanism_view, read_mechanism
from muster.domain.device import require_device_id
from muster.domain.documents import any_case
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError
from muster.domain.etag import document_id
from muster.domain.registration_id import registration_id_problem
from muster.domain.timestamp import iso_utc
from muster.domain.twin import InitialTwin, JsonObject
from muster.domain.twin_rules import require_valid
from muster.pki.certificate_profiles import DEVICE

ProvisioningStatus = Literal["enabled", "disabled"]
Kind = Literal["individual", "group"]

_STATUSES: tuple[ProvisioningStatus, ...] = ("enabled", "disabled")
_ALLOCATION_POLICIES: tuple[PolicyName, ...] = ("hashed", "geoLatency", "static", "custom")
_LAST_WITHOUT_REPROVISION_POLICY = "2018-04-01"
_POLICY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TWIN_MODEL_MEMBERS = ("version", "count", "metadata")
_ID_MEMBERS: dict[Kind, str] = {"individual": "registrationId", "group": "enrollmentGroupId"}


class ReprovisionPolicy(msgspec.Struct, rename="camel"):
    """What a new registration does to an assigned device (dps.md 5.4)."""

    update_hub_assignment: bool = True
    migrate_device_data: bool = True


class DeviceCapabilities(msgspec.Struct, rename="camel"):
    iot_edge: bool = False


class CustomAllocation(msgspec.Struct, rename="camel"):
    """The webhook of custom allocation (dps.md 5.3); its URL may hold a function key."""

    webhook_url: str = ""
    api_version: str = ""


class IssuancePolicy(NamedTuple):
    """The name of a CA of this Muster's, and that of the profile by which it issues for devices."""

    authority: str
    profile: str = DEVICE


class ClientCertificateIssuance(Wire):
    """The CA that issues, as the preview of 2021-11-01 named it."""

    certificate_authority_name: str | None = None


class EnrollmentBody(Wire):
    """A PUT body. Read-only members that clients send back are not listed, and so ignored (dps.md 9.2, 20)."""

    registration_id: str | None = None
    enrollment_group_id: str | None = None
    device_id: str | None = None
    optional_device_information: JsonObject | None = None
    attestation: MechanismBody | None = None
    capabilities: DeviceCapabilities | None = None
    iot_hub_host_name: str | None = None
    initial_twin: JsonObject | None = None
    etag: Any = None  # only bulk operations look at it
    provisioning_status: str | None = None
    reprovision_policy: ReprovisionPolicy | None = None
    allocation_policy: str | None = None
    iot_hubs: list[str] | None = None
    custom_allocation_definition: CustomAllocation | None = None
    credential_policy_name: str | None = None
    namespace_name: str | None = None
    certificate_authority_name: str | None = None
    certificate_policy_name: str | None = None
    client_certificate_issuance_policy: ClientCertificateIssuance | None = None

    @property
    def id(self) -> str | None:
        return self.registration_id if self.registration_id is not None else self.enrollment_group_id


class EnrollmentDocument(Wire):
    """What the ``document`` column holds: all that is not a column of its own."""

    mechanism: Mechanism
    device_id: str | None = None
    optional_device_information: JsonObject | None = None
    capabilities: DeviceCapabilities = msgspec.field(default_factory=DeviceCapabilities)
    iot_hub_host_name: str | None = None
    initial_twin: InitialTwin | None = None
    reprovision_policy: ReprovisionPolicy | None = msgspec.field(default_factory=ReprovisionPolicy)
    allocation_policy: PolicyName | None = None
    iot_hubs: list[str] | None = None
    custom_allocation: CustomAllocation | None = None
    credential_policy_name: str | None = None
    namespace_name: str | None = None
    certificate_authority_name: str | None = None
    certificate_policy_name: str | None = None
    client_certificate_authority_name: str | None = None


class Enrollment(msgspec.Struct, frozen=True):
    """One enrollment of either kind. ``id`` is a registration id or a group id. Times are microseconds UTC."""

    kind: Kind
    id: str
    etag: str
    provisioning_status: ProvisioningStatus
    created: int
    last_updated: int
    document: EnrollmentDocument

    @property
    def mechanism(self) -> Mechanism:
        return self.document.mechanism

    @property
    def enabled(self) -> bool:
        return self.provisioning_status == "enabled"

    @property
    def named_hubs(self) -> tuple[str, ...]:
        """Host names of the hubs this enrollment restricts itself to; empty: every linked hub (dps.md 5.1)."""
        if self.document.iot_hub_host_name:
            return (self.document.iot_hub_host_name,)
        return tuple(self.document.iot_hubs or ())

    def device_id(self, registration_id: str) -> str:
        """The device id in the hub of a device that registers as ``registration_id`` (dps.md 4.2)."""
        return self.document.device_id or (self.id if self.kind == "individual" else registration_id)

    @property
    def may_move(self) -> bool:
        """Whether its devices are allocated anew when they register again (dps.md 5.4)."""
        policy = self.document.reprovision_policy
        return policy is not None and policy.update_hub_assignment

    @property
    def migrates_data(self) -> bool:
        """Whether a device that moves takes its twin along."""
        policy = self.document.reprovision_policy
        return policy is not None and policy.migrate_device_data

    @property
    def issuance_policy(self) -> IssuancePolicy | None:
        """The CA that issues for its devices; None when there is none."""
        document = self.document
        if document.certificate_authority_name and document.certificate_policy_name:
            return IssuancePolicy(document.certificate_authority_name, document.certificate_policy_name)
        former = document.credential_policy_name or document.client_certificate_authority_name
        return IssuancePolicy(former) if former else None

    def policy(self, of_service: PolicyName) -> PolicyName:
        """The allocation policy: its own, static for a named legacy hub, or that of the service (dps.md 5.2)."""
        if self.document.iot_hub_host_name:
            return "static"
        return self.document.allocation_policy or of_service


def read_document(
    kind: Kind,
    id: str,
    body: EnrollmentBody,
    stored: EnrollmentDocument | None,
    new_key: Callable[[], str],
    api_version: str = "",
) -> EnrollmentDocument:
    """What a PUT of ``api_version`` asks to keep, given what is ``stored`` now; ``new_key`` makes a symmetric key.

    Raises ArgumentNullError and ArgumentInvalidError with the member and the reason.
    """
    require_id(kind, id, body.id)
    if body.device_id:
        require_device_id(body.device_id)
    mechanism = read_mechanism(body.attestation, stored.mechanism if stored else None, new_key)
    if kind == "group":
        _require_group(body, mechanism)
    policy = _read_policy(body)
    custom = _read_allocation(policy, body)
    return EnrollmentDocument(
        mechanism=mechanism,
        device_id=body.device_id or None,
        optional_device_information=body.optional_device_information,
        capabilities=body.capabilities or DeviceCapabilities(),
        iot_hub_host_name=body.iot_hub_host_name or None,
        initial_twin=read_initial_twin(body.initial_twin),
        reprovision_policy=body.reprovision_policy or _reprovision_policy(stored, api_version),
        allocation_policy=policy,
        iot_hubs=body.iot_hubs or None,
        custom_allocation=_with_known_url(custom, stored),
        **_read_issuance(body),
    )


def require_id(kind: Kind, id: str, in_body: str | None) -> None:
    """Raise unless ``id`` is legal and the body names the same one."""
    member = _ID_MEMBERS[kind]
    problem = registration_id_problem(id)
    if problem is not None:
        raise ArgumentInvalidError(f"The {member} {id!r} is not valid: {problem}.")
    if in_body is None:
        raise ArgumentNullError(f"{member} is required in the body.")
    if in_body.lower() != id.lower():
        raise ArgumentInvalidError(f"{member} in the body is {in_body!r}, in the path {id!r}.")


def _require_group(body: EnrollmentBody, mechanism: Mechanism) -> None:
    if mechanism.type == "tpm":
        raise ArgumentInvalidError("An enrollment group cannot attest by TPM: use x509 or symmetricKey.")
    if mechanism.type == "x509" and mechanism.x509_kind == "clientCertificates":
        raise ArgumentInvalidError(
            "An enrollment group takes signingCertificates or caReferences, not clientCertificates."
        )
    if body.device_id:
        raise ArgumentInvalidError(
            "An enrollment group has no deviceId: its devices are named by their registration ids."
        )


def read_status(body: EnrollmentBody) -> ProvisioningStatus:
    """Enabled unless the body says otherwise. Raises ArgumentInvalidError."""
    status = body.provisioning_status
    return "enabled" if status is None else any_case("provisioningStatus", status, _STATUSES)


def _reprovision_policy(stored: EnrollmentDocument | None, api_version: str) -> ReprovisionPolicy | None:
    """That of an enrollment which names none: the versions of the API that know none leave what there is, and make
    enrollments without, whose devices stay where they are (dps.md 5.4).
    """
    if len(api_version) > 0 and api_version[:10] <= _LAST_WITHOUT_REPROVISION_POLICY:
        return stored.reprovision_policy if stored else None
    return ReprovisionPolicy()


def _read_policy(body: EnrollmentBody) -> PolicyName | None:
    policy = body.allocation_policy
    return None if policy is None else any_case("allocationPolicy", policy, _ALLOCATION_POLICIES)


def _read_allocation(policy: PolicyName | None, body: EnrollmentBody) -> CustomAllocation | None:
    if policy == "static":
        hubs = body.iot_hubs or ([body.iot_hub_host_name] if body.iot_hub_host_name else [])
        if len(hubs) != 1:
            raise ArgumentInvalidError(
                f"allocationPolicy static needs exactly one hub in iotHubs, there are {len(hubs)}."
            )
    if policy != "custom":
        return None
    custom = body.custom_allocation_definition or CustomAllocation()
    if not custom.webhook_url or not custom.api_version:
        raise ArgumentInvalidError(
            "allocationPolicy custom needs customAllocationDefinition with webhookUrl and apiVersion."
        )
    problem = webhook_url_problem(custom.webhook_url)
    if problem is not None:
        raise ArgumentInvalidError(f"customAllocationDefinition.webhookUrl {problem}.")
    return custom


def _read_issuance(body: EnrollmentBody) -> dict[str, str | None]:
    """The members that name the CA which issues for devices: one in each of two previews, three since (dps.md 6.2)."""
    first = body.client_certificate_issuance_policy or ClientCertificateIssuance()
    names = {
        "credential_policy_name": body.credential_policy_name or None,
        "namespace_name": body.namespace_name or None,
        "certificate_authority_name": body.certificate_authority_name or None,
        "certificate_policy_name": body.certificate_policy_name or None,
        "client_certificate_authority_name": first.certificate_authority_name or None,
    }
    policy, *reference, issuance = names.values()
    if any(reference) and not all(reference):
        raise ArgumentInvalidError(
            "namespaceName, certificateAuthorityName and certificatePolicyName are given together, or none of them."
        )
    if sum(map(bool, (policy, any(reference), issuance))) > 1:
        raise ArgumentInvalidError(
            "credentialPolicyName and clientCertificateIssuancePolicy are former ways to name what"
            " certificateAuthorityName does: give one of them."
        )
    for name in filter(None, names.values()):
        if _POLICY_NAME.fullmatch(name) is None:
            raise ArgumentInvalidError(
                f"{name!r} cannot name a certificate authority or policy: 1 to 64 characters of A-Z a-z 0-9 . _ - are"
                " allowed, the first of them a letter or digit."
            )
    return names


def _with_known_url(custom: CustomAllocation | None, stored: EnrollmentDocument | None) -> CustomAllocation | None:
    """A webhook URL that a client sends back masked is the stored one."""
    before = stored.custom_allocation if stored else None
    if custom is not None and before is not None and custom.webhook_url == masked_url(before.webhook_url):
        return CustomAllocation(before.webhook_url, custom.api_version)
    return custom


def read_initial_twin(value: JsonObject | None) -> InitialTwin | None:
    """The twin that an enrollment or a webhook gives a new device. Raises ArgumentInvalidError."""
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


def service_view(enrollment: Enrollment, *, keys: bool = False) -> dict[str, Any]:
    """The JSON of dps.md 6.2 and 6.3, without ``registrationState``. ``keys``: show symmetric keys, as the answer to
    a PUT does.
    """
    document = enrollment.document
    custom, issuance = document.custom_allocation, document.client_certificate_authority_name
    view: dict[str, Any] = {
        _ID_MEMBERS[enrollment.kind]: enrollment.id,
        "deviceId": document.device_id,
        "optionalDeviceInformation": document.optional_device_information,
        "attestation": mechanism_view(document.mechanism, keys=keys),
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
        "customAllocationDefinition": msgspec.to_builtins(custom) if custom else None,
        "credentialPolicyName": document.credential_policy_name,
        "namespaceName": document.namespace_name,
        "certificateAuthorityName": document.certificate_authority_name,
        "certificatePolicyName": document.certificate_policy_name,
        "clientCertificateIssuancePolicy": {"certificateAuthorityName": issuance} if issuance else None,
    }
    return {key: value for key, value in view.items() if value is not None}


def webhook_view(enrollment: Enrollment, hubs: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """What a custom allocation webhook is told of the enrollment: its member name, and the view without keys (dps.md
    5.3).
    """
    view = service_view(enrollment)
    view["attestation"] = {"type": enrollment.mechanism.type}
    view["etag"] = document_id(enrollment.etag)
    view["iotHubs"] = list(hubs)
    custom = enrollment.document.custom_allocation
    if custom is not None:
        view["customAllocationDefinition"] = {
            "webhookUrl": masked_url(custom.webhook_url),
            "apiVersion": custom.api_version,
        }
    return ("individualEnrollment" if enrollment.kind == "individual" else "enrollmentGroup"), view


def _initial_twin_view(twin: InitialTwin | None) -> dict[str, Any] | None:
    if twin is None:
        return None
    return {"tags": twin.tags, "properties": {"desired": twin.properties.desired}}
