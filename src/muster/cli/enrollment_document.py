"""Enrollments and enrollment groups as JSON documents: built from options, changed, laid out as the cmdlets do.

Pure apart from reading the files that options name. Not here: the attestation mechanism
(``cli/attestation_document.py``), and requests (``cli/enrollment_requests.py``).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from muster.cli.attestation_document import AttestationChanges, attestation_text, change_attestation, key_rows
from muster.cli.failure import CommandError
from muster.cli.output import json_text, short_time

Document = dict[str, Any]


WEBHOOK_API_VERSION = "2021-10-01"
"""What a webhook is told to speak unless an option says otherwise (dps.md 5.3)."""


NAMESPACE = "muster"
"""What stands for Azure's device registry namespace, of which a Muster is one."""

DEVICE = "device"
_FORMER_ISSUANCE = ("credentialPolicyName", "clientCertificateIssuancePolicy")
_ISSUANCE = ("namespaceName", "certificateAuthorityName", "certificatePolicyName")


class ReprovisionPolicy(StrEnum):
    """The choices of ``--reprovision-policy``, as the cmdlet spells them (dps.md 7.7)."""

    MIGRATE = "reprovisionandmigratedata"
    RESET = "reprovisionandresetdata"
    NEVER = "never"


class AllocationPolicy(StrEnum):
    """The choices of ``--allocation-policy``, as the service spells them (dps.md 6.2)."""

    HASHED = "hashed"
    GEO_LATENCY = "geoLatency"
    STATIC = "static"
    CUSTOM = "custom"


_REPROVISION = {
    ReprovisionPolicy.MIGRATE: {"updateHubAssignment": True, "migrateDeviceData": True},
    ReprovisionPolicy.RESET: {"updateHubAssignment": True, "migrateDeviceData": False},
    ReprovisionPolicy.NEVER: {"updateHubAssignment": False, "migrateDeviceData": False},
}


@dataclass(frozen=True, slots=True)
class Changes:
    """What options ask for; None and empty leave a document as it is."""

    attestation: AttestationChanges = field(default_factory=AttestationChanges)
    device_id: str | None = None
    initial_twin: str | None = None
    tags: Sequence[str] = ()
    desired: Sequence[str] = ()
    enabled: bool | None = None
    reprovision_policy: ReprovisionPolicy | None = None
    edge: bool | None = None
    allocation_policy: AllocationPolicy | None = None
    iot_hubs: Sequence[str] = ()
    webhook_url: str | None = None
    webhook_api_version: str | None = None
    issuing_ca: str | None = None
    certificate_policy: str | None = None


def new_document(member: str, name: str) -> Document:
    """An enrollment as the cmdlet sends it unasked: always with a twin and capabilities.

    ``member`` is that of its id: ``registrationId`` or ``enrollmentGroupId``.
    """
    return {
        member: name,
        "provisioningStatus": "enabled",
        "reprovisionPolicy": _REPROVISION[ReprovisionPolicy.MIGRATE],
        "capabilities": {"iotEdge": False},
        "initialTwin": {"tags": {}, "properties": {"desired": {}}},
    }


def changed(document: Document, changes: Changes) -> Document:
    """A copy of ``document`` with ``changes`` made. Raises CommandError for values that cannot be read."""
    result: Document = json.loads(json.dumps(document))
    change_attestation(result, changes.attestation)
    _change_twin(result, changes)
    _change_webhook(result, changes)
    _change_issuance(result, changes)
    for name, value in (
        ("deviceId", changes.device_id),
        ("provisioningStatus", _STATUS[changes.enabled]),
        ("reprovisionPolicy", changes.reprovision_policy and _REPROVISION[changes.reprovision_policy]),
        ("capabilities", None if changes.edge is None else {"iotEdge": changes.edge}),
        ("allocationPolicy", changes.allocation_policy and changes.allocation_policy.value),
        ("iotHubs", list(changes.iot_hubs) or None),
    ):
        if value is not None:
            result[name] = value
    return result


def enrollment_rows(document: Document) -> list[tuple[str, object]]:
    """The rows of the cmdlet's list view, in its order (dps.md 7.7); times are ours: in UTC, with seconds."""
    policy = document.get("reprovisionPolicy") or {}
    static = "static" if document.get("iotHubHostName") else None
    custom = document.get("customAllocationDefinition")
    return [
        *_head_rows(document),
        *key_rows(document.get("attestation") or {}),
        ("AllocationPolicy", static or document.get("allocationPolicy")),
        ("IotHubHostName", document.get("iotHubHostName")),
        ("IotHubs", ", ".join(map(str, document.get("iotHubs") or []))),
        ("Custom Allocation Definition", json_text(custom, indent=None) if custom else None),
        ("ReprovisionPolicy", f"UpdateHubAssignment : {policy.get('updateHubAssignment')}"),
        ("", f"MigrateDeviceData : {policy.get('migrateDeviceData')}"),
        ("Edge Enabled", (document.get("capabilities") or {}).get("iotEdge", False)),
        ("Created", short_time(document.get("createdDateTimeUtc"))),
        ("Last Updated", short_time(document.get("lastUpdatedDateTimeUtc"))),
        ("ETag", document.get("etag")),
        ("Initial Twin State", json_text(document.get("initialTwin"), indent=None)),
        *_issuance_rows(document),
    ]


def _head_rows(document: Document) -> list[tuple[str, object]]:
    status = ("ProvisioningStatus", document.get("provisioningStatus"))
    if "enrollmentGroupId" in document:
        return [
            ("EnrollmentGroupId", document["enrollmentGroupId"]),
            ("Attestation", attestation_text(document)),
            status,
        ]
    return [
        ("RegistrationId", document.get("registrationId")),
        ("DeviceId", document.get("deviceId")),
        ("Attestation", attestation_text(document)),
        status,
        ("RegistrationState", (document.get("registrationState") or {}).get("status")),
    ]


_STATUS = {None: None, True: "enabled", False: "disabled"}


def _change_webhook(document: Document, changes: Changes) -> None:
    """A webhook is only asked by the custom policy: naming one asks for that too."""
    if changes.webhook_url is None and changes.webhook_api_version is None:
        return
    webhook = document.setdefault("customAllocationDefinition", {})
    if changes.webhook_url is not None:
        webhook["webhookUrl"] = changes.webhook_url
    webhook["apiVersion"] = changes.webhook_api_version or webhook.get("apiVersion") or WEBHOOK_API_VERSION
    document["allocationPolicy"] = AllocationPolicy.CUSTOM.value


def _change_issuance(document: Document, changes: Changes) -> None:
    """Names the CA as the service does now; what named it in a preview goes (dps.md 6.2)."""
    if changes.issuing_ca is None and changes.certificate_policy is None:
        return
    stored = _issuing_authority(document)
    before = {name: document.pop(name, None) for name in (*_FORMER_ISSUANCE, *_ISSUANCE)}
    authority = stored if changes.issuing_ca is None else changes.issuing_ca
    if authority:
        policy = changes.certificate_policy or before["certificatePolicyName"] or DEVICE
        values = (before["namespaceName"] or NAMESPACE, authority, policy)
        document.update(zip(_ISSUANCE, values, strict=True))
    elif changes.certificate_policy is not None:
        raise CommandError("--certificate-policy is for a CA that issues", "name it with --issuing-ca")


def _issuing_authority(document: Document) -> Any:
    former = document.get("clientCertificateIssuancePolicy") or {}
    return (
        document.get("certificateAuthorityName")
        or document.get("credentialPolicyName")
        or former.get("certificateAuthorityName")
    )


def _issuance_rows(document: Document) -> list[tuple[str, object]]:
    """Only where there is a CA that issues: the cmdlet knows of none."""
    authority = _issuing_authority(document)
    policy = document.get("certificatePolicyName") or DEVICE
    return [("Issuing CA", authority), ("Certificate Policy", policy)] if authority else []


def _change_twin(document: Document, changes: Changes) -> None:
    if changes.initial_twin is not None:
        document["initialTwin"] = read_json_object(changes.initial_twin, "--initial-twin")
    if changes.tags or changes.desired:
        twin = document.get("initialTwin") or {}
        document["initialTwin"] = twin
        properties = twin.setdefault("properties", {})
        assign_all(twin.setdefault("tags", {}), changes.tags, "--tag")
        assign_all(properties.setdefault("desired", {}), changes.desired, "--desired")


def read_json_object(text: str, option: str) -> Document:
    """The JSON object in an option, or in the file that it names behind ``@``. Raises CommandError."""
    value = read_json(text, option)
    if not isinstance(value, dict):
        source = text[1:] if text.startswith("@") else option
        raise CommandError(f"{source} is not a JSON object", 'such as {"tags": {}, "properties": {"desired": {}}}')
    return value


def read_json(text: str, option: str) -> Any:
    """The JSON value in an option, or in the file that it names behind ``@``. Raises CommandError."""
    source = option
    if text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return json.loads(text)
    except ValueError as error:
        raise CommandError(f"{source} is not valid JSON: {error}") from error


def read_json_documents(file: Path) -> list[Document]:
    """The JSON array of objects in a file. Raises CommandError."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"cannot read {file}: {getattr(error, 'strerror', None) or error}") from error
    except ValueError as error:
        raise CommandError(f"{file} is not valid JSON: {error}") from error
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise CommandError(
            f"{file} is not a JSON array of objects",
            'such as [{"registrationId": "pump-01", "attestation": {"type": "symmetricKey"}}]',
        )
    return values


def assign_all(section: Document, assignments: Sequence[str], option: str) -> None:
    """Write ``a.b=VALUE`` of an option into a document, VALUE as JSON where it is JSON. Raises CommandError."""
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        keys = name.split(".")
        if not separator or not all(keys):
            raise CommandError(f"{option} {assignment!r} is not name=value", f"such as {option} site=hall-4")
        place = section
        for key in keys[:-1]:
            inner = place.get(key)
            if not isinstance(inner, dict):
                inner = place[key] = {}
            place = inner
        place[keys[-1]] = _value(text)


def _value(text: str) -> object:
    """JSON where it is JSON (numbers, true, objects), else the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text
