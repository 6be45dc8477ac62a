import base64

import msgspec
import pytest

from muster.domain.documents import decode, encode, read
from muster.domain.enrollment import (
    Enrollment,
    EnrollmentBody,
    EnrollmentDocument,
    Kind,
    read_document,
    service_view,
    webhook_view,
)
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError, FormatError
from tests.support.fix_pki import other_self_signed, self_signed

PRIMARY = self_signed("dev-01")
SECONDARY = other_self_signed("dev-01")
KEY = base64.b64encode(bytes(64)).decode()
PEM = PRIMARY.certificate_pem.decode()


def body(**fields: object) -> EnrollmentBody:
    common = {"registrationId": "dev-01", "attestation": x509(primary={"certificate": PEM})}
    return msgspec.convert({**common, **fields}, EnrollmentBody)


def x509(**slots: object) -> dict:
    return {"type": "x509", "x509": {"clientCertificates": slots}}


def enrollment(document: EnrollmentDocument, kind: Kind = "individual") -> Enrollment:
    return Enrollment(kind, "dev-01", "etag", "enabled", 1_790_000_000_000_000, 1_790_000_001_000_000, document)


def read_in(
    id: str, sent: EnrollmentBody, stored: EnrollmentDocument | None, kind: Kind = "individual"
) -> EnrollmentDocument:
    return read_document(kind, id, sent, stored, lambda: KEY)


def test_the_view_shows_facts_and_never_the_certificate() -> None:
    twin = {"tags": {"site": "A"}, "properties": {"desired": {"x": [1]}}}
    document = read_in("dev-01", body(initialTwin=twin, deviceId="pump", iotHubs=["a.net"]), None)
    view = service_view(enrollment(document))
    info = view["attestation"]["x509"]["clientCertificates"]["primary"]["info"]
    assert set(info) == {
        "subjectName",
        "sha1Thumbprint",
        "sha256Thumbprint",
        "issuerName",
        "notBeforeUtc",
        "notAfterUtc",
        "serialNumber",
        "version",
    }
    assert "certificate" not in view["attestation"]["x509"]["clientCertificates"]["primary"]
    assert view["initialTwin"] == twin
    assert view["deviceId"] == "pump"
    assert view["capabilities"] == {"iotEdge": False}
    assert view["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": True}
    assert "optionalDeviceInformation" not in view
    assert "secondary" not in view["attestation"]["x509"]["clientCertificates"]


def test_a_document_is_read_as_it_was_written() -> None:
    document = read_in(
        "dev-01", body(initialTwin={"tags": {"a": 1}}, reprovisionPolicy={"migrateDeviceData": False}), None
    )
    assert read(encode(document), EnrollmentDocument) == document


def test_a_certificate_sent_back_as_info_is_the_stored_one() -> None:
    both = x509(primary={"certificate": PEM}, secondary={"certificate": SECONDARY.certificate_pem.decode()})
    stored = read_in("dev-01", body(attestation=both), None)
    sent_back = service_view(enrollment(stored))["attestation"]
    again = read_in("dev-01", body(attestation=sent_back), stored)
    assert again.mechanism == stored.mechanism
    swapped = x509(primary=sent_back["x509"]["clientCertificates"]["secondary"])
    with pytest.raises(ArgumentInvalidError, match="primary certificate has only info"):
        read_in("dev-01", body(attestation=swapped), stored)


@pytest.mark.parametrize(
    "text",
    [
        PEM,
        PEM.rstrip(),
        base64.b64encode(PEM.encode()).decode(),
        base64.b64encode(PRIMARY.certificate).decode(),
        base64.encodebytes(PRIMARY.certificate).decode(),
    ],
)
def test_certificates_come_in_many_forms(text: str) -> None:
    document = read_in("dev-01", body(attestation=x509(primary={"certificate": text})), None)
    assert document.mechanism.primary_certificate is not None
    assert base64.b64decode(document.mechanism.primary_certificate.der) == PRIMARY.certificate


@pytest.mark.parametrize(
    ("fields", "error", "reason"),
    [
        ({"registrationId": None}, ArgumentNullError, "registrationId"),
        ({"registrationId": "other"}, ArgumentInvalidError, "in the path"),
        ({"deviceId": "a/b"}, ArgumentInvalidError, "device id"),
        ({"attestation": None}, ArgumentNullError, "attestation"),
        ({"attestation": {"type": "none"}}, ArgumentInvalidError, "none"),
        ({"attestation": {"type": "x509"}}, ArgumentInvalidError, "clientCertificates"),
        (
            {"attestation": {"type": "x509", "x509": {"signingCertificates": {}}}},
            ArgumentNullError,
            "signingCertificates needs primary",
        ),
        (
            {"attestation": {"type": "x509", "x509": {"clientCertificates": {}, "caReferences": {}}}},
            ArgumentInvalidError,
            "exactly one",
        ),
        ({"attestation": x509()}, ArgumentNullError, "primary"),
        (
            {"attestation": x509(primary={"certificate": "hello"})},
            ArgumentInvalidError,
            "primary certificate cannot be read",
        ),
        ({"attestation": x509(primary={"info": {}})}, ArgumentInvalidError, "only info"),
        ({"allocationPolicy": "custom"}, ArgumentInvalidError, "webhookUrl"),
        ({"allocationPolicy": "static"}, ArgumentInvalidError, "exactly one hub"),
        ({"allocationPolicy": "static", "iotHubs": ["a", "b"]}, ArgumentInvalidError, "exactly one hub"),
        ({"initialTwin": {"tags": 3}}, ArgumentInvalidError, "initialTwin"),
        ({"initialTwin": {"tags": {"a.b": 1}}}, ArgumentInvalidError, "invalid character"),
    ],
)
def test_what_is_refused(fields: dict, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        read_in("dev-01", body(**fields), None)


@pytest.mark.parametrize("registration_id", ["", "a/b", "x" * 129])
def test_illegal_registration_ids(registration_id: str) -> None:
    with pytest.raises(ArgumentInvalidError, match="registrationId"):
        read_in(registration_id, body(registrationId=registration_id), None)


def test_the_members_of_a_clients_own_model_are_dropped() -> None:
    collection = {"site": "A", "version": None, "count": None, "metadata": None}
    twin = {"tags": collection, "properties": {"desired": {"x": 1, "version": None}}}
    document = read_in("dev-01", body(initialTwin=twin), None)
    assert document.initial_twin is not None
    assert document.initial_twin.tags == {"site": "A"}
    assert document.initial_twin.properties.desired == {"x": 1}


@pytest.mark.parametrize("twin", [{}, {"tags": None, "properties": None}, {"properties": {"desired": None}}])
def test_empty_initial_twins(twin: dict) -> None:
    document = read_in("dev-01", body(initialTwin=twin), None)
    assert service_view(enrollment(document))["initialTwin"] == {"tags": {}, "properties": {"desired": {}}}


def test_device_id_and_named_hubs() -> None:
    plain = enrollment(read_in("dev-01", body(), None))
    assert (plain.device_id("DEV-01"), plain.named_hubs) == ("dev-01", ())
    legacy = enrollment(read_in("dev-01", body(iotHubHostName="a.net", deviceId="d"), None))
    assert (legacy.device_id("dev-01"), legacy.named_hubs) == ("d", ("a.net",))
    certificates = plain.mechanism.enrolled_certificates()
    assert certificates.primary is not None
    assert certificates.secondary is None


def test_bodies_that_are_no_json_and_wrong_members() -> None:
    with pytest.raises(ArgumentNullError):
        decode(b" ", EnrollmentBody)
    with pytest.raises(FormatError):
        decode(b"{", EnrollmentBody)
    with pytest.raises(FormatError):
        decode(b'{"optionalDeviceInformation": {"a": ' + b"[" * 100_000, EnrollmentBody)
    with pytest.raises(ArgumentInvalidError, match="deviceId"):
        decode(b'{"deviceId": 3}', EnrollmentBody)
    assert decode(b'{"registrationState": {}, "unknown": []}', EnrollmentBody) == EnrollmentBody()
    assert decode(b'{"etag": 1}', EnrollmentBody).etag == 1


def group(attestation: dict, **fields: object) -> EnrollmentBody:
    return msgspec.convert({"enrollmentGroupId": "line-a", "attestation": attestation, **fields}, EnrollmentBody)


SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}


def test_symmetric_keys_are_shown_only_when_asked_for() -> None:
    document = read_in("dev-01", body(attestation=SYMMETRIC), None)
    assert service_view(enrollment(document))["attestation"] == {"type": "symmetricKey", "symmetricKey": {}}
    assert service_view(enrollment(document), keys=True)["attestation"] == SYMMETRIC


def test_a_group() -> None:
    signing = {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": PEM}}}}
    document = read_in("line-a", group(signing, initialTwin={"tags": {"line": "a"}}), None, "group")
    shown = service_view(enrollment(document, "group"))
    assert shown["enrollmentGroupId"] == "dev-01"
    assert "registrationId" not in shown
    assert set(shown["attestation"]["x509"]) == {"signingCertificates"}
    assert enrollment(document, "group").device_id("pump-1") == "pump-1"


def test_ca_references() -> None:
    references = {"type": "x509", "x509": {"caReferences": {"primary": "root-1", "secondary": "root-2"}}}
    document = read_in("line-a", group(references), None, "group")
    assert document.mechanism.ca_names == ("root-1", "root-2")
    assert service_view(enrollment(document, "group"))["attestation"] == references


@pytest.mark.parametrize(
    ("attestation", "fields", "reason"),
    [
        ({"type": "tpm", "tpm": {"endorsementKey": "x"}}, {}, "endorsementKey is invalid"),
        (x509(primary={"certificate": PEM}), {}, "not clientCertificates"),
        (SYMMETRIC, {"deviceId": "d"}, "no deviceId"),
        ({"type": "x509", "x509": {"caReferences": {}}}, {}, "caReferences needs primary"),
    ],
)
def test_what_a_group_cannot_have(attestation: dict, fields: dict, reason: str) -> None:
    with pytest.raises((ArgumentInvalidError, ArgumentNullError), match=reason):
        read_in("line-a", group(attestation, **fields), None, "group")


CUSTOM = {"webhookUrl": "https://hook.example.net/api?code=secret", "apiVersion": "2021-10-01"}


def test_a_webhook_is_shown_masked_only_to_itself_and_may_be_sent_back_masked() -> None:
    document = read_in("dev-01", body(allocationPolicy="custom", customAllocationDefinition=CUSTOM), None)
    assert service_view(enrollment(document))["customAllocationDefinition"] == CUSTOM
    name, told = webhook_view(enrollment(document), ["a.net"])
    masked = {"webhookUrl": "https://hook.example.net/api?****", "apiVersion": "2021-10-01"}
    assert (name, told["customAllocationDefinition"], told["iotHubs"]) == ("individualEnrollment", masked, ["a.net"])
    again = read_in("dev-01", body(allocationPolicy="custom", customAllocationDefinition=masked), document)
    assert again.custom_allocation == document.custom_allocation


def test_a_webhook_needs_an_http_url() -> None:
    wrong = {"webhookUrl": "file:///etc/passwd", "apiVersion": "2021-10-01"}
    with pytest.raises(ArgumentInvalidError, match="https://"):
        read_in("dev-01", body(allocationPolicy="custom", customAllocationDefinition=wrong), None)


def test_which_policy_counts() -> None:
    plain = enrollment(read_in("dev-01", body(), None))
    assert plain.policy("hashed") == "hashed"
    assert plain.policy("geoLatency") == "geoLatency"
    assert enrollment(read_in("dev-01", body(iotHubHostName="a.net"), None)).policy("hashed") == "static"
    assert enrollment(read_in("dev-01", body(allocationPolicy="hashed"), None)).policy("geoLatency") == "hashed"
