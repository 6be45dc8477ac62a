"""Individual enrollments as JSON documents: built from options, changed, laid out as the cmdlet does.

Pure apart from reading the files that options name. Not here: requests; that is ``cli/enrollment.py``.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from muster.cli.failure import CommandError
from muster.cli.output import json_text, short_time

Document = dict[str, Any]


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
class EnrolledCertificate:
    """The device's own certificate out of a file: what is sent, and its common name, if it has one."""

    content: str
    common_name: str | None


@dataclass(frozen=True, slots=True)
class Changes:
    """What options ask for; None and empty leave a document as it is."""

    certificate: EnrolledCertificate | None = None
    secondary: EnrolledCertificate | None = None
    device_id: str | None = None
    initial_twin: str | None = None
    tags: Sequence[str] = ()
    desired: Sequence[str] = ()
    enabled: bool | None = None
    reprovision_policy: ReprovisionPolicy | None = None
    edge: bool | None = None
    allocation_policy: AllocationPolicy | None = None
    iot_hubs: Sequence[str] = ()


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
        common_name = parse_certificate(first).common_name
    except CertificateFormatError as error:
        advice = "the key stays on the device: give the .pem with the certificate" if b"KEY" in content else ""
        raise CommandError(f"{file} is not a certificate: {error}", advice) from error
    return EnrolledCertificate(base64.b64encode(first).decode("ascii"), common_name)


def new_document(registration_id: str) -> Document:
    """An enrollment as the cmdlet sends it unasked: always with a twin and capabilities."""
    return {
        "registrationId": registration_id,
        "provisioningStatus": "enabled",
        "reprovisionPolicy": _REPROVISION[ReprovisionPolicy.MIGRATE],
        "capabilities": {"iotEdge": False},
        "initialTwin": {"tags": {}, "properties": {"desired": {}}},
    }


def changed(document: Document, changes: Changes) -> Document:
    """A copy of ``document`` with ``changes`` made. Raises CommandError for values that cannot be read."""
    result: Document = json.loads(json.dumps(document))
    _change_certificates(result, changes)
    _change_twin(result, changes)
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
        ("RegistrationId", document.get("registrationId")),
        ("DeviceId", document.get("deviceId")),
        ("Attestation", (document.get("attestation") or {}).get("type")),
        ("ProvisioningStatus", document.get("provisioningStatus")),
        ("RegistrationState", (document.get("registrationState") or {}).get("status")),
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
    ]


def certificate_rows(document: Document) -> list[tuple[str, object]]:
    """What is known of the enrolled certificates, for ``enrollment show``."""
    attestation = (document.get("attestation") or {}).get("x509") or {}
    slots = attestation.get("clientCertificates") or {}
    rows: list[tuple[str, object]] = []
    for slot in ("primary", "secondary"):
        info = (slots.get(slot) or {}).get("info") or {}
        if info:
            label = slot.capitalize()
            rows += [
                (f"{label} Subject", info.get("subjectName")),
                (f"{label} SHA-1", info.get("sha1Thumbprint")),
                (f"{label} SHA-256", info.get("sha256Thumbprint")),
                (
                    f"{label} Valid",
                    f"{short_time(info.get('notBeforeUtc'))} to {short_time(info.get('notAfterUtc'))}",
                ),
            ]
    return rows


_STATUS = {None: None, True: "enabled", False: "disabled"}


def _change_certificates(document: Document, changes: Changes) -> None:
    for slot, certificate in (("primary", changes.certificate), ("secondary", changes.secondary)):
        if certificate is not None:
            attestation = document.setdefault("attestation", {"type": "x509"})
            slots = attestation.setdefault("x509", {}).setdefault("clientCertificates", {})
            slots[slot] = {"certificate": certificate.content}


def _change_twin(document: Document, changes: Changes) -> None:
    if changes.initial_twin is not None:
        document["initialTwin"] = read_json_object(changes.initial_twin, "--initial-twin")
    if changes.tags or changes.desired:
        twin = document.get("initialTwin") or {}
        document["initialTwin"] = twin
        properties = twin.setdefault("properties", {})
        _assign_all(twin.setdefault("tags", {}), changes.tags, "--tag")
        _assign_all(properties.setdefault("desired", {}), changes.desired, "--desired")


def read_json_object(text: str, option: str) -> Document:
    """The JSON object in an option, or in the file that it names behind ``@``. Raises CommandError."""
    source = option
    if text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"cannot read {source}: {getattr(error, 'strerror', None) or error}") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CommandError(f"{source} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise CommandError(f"{source} is not a JSON object", 'such as {"tags": {}, "properties": {"desired": {}}}')
    return value


def _assign_all(section: Document, assignments: Sequence[str], option: str) -> None:
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
