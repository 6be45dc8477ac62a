import base64
import json

import pytest

from muster.cli.attestation_document import (
    AttestationChanges,
    EnrolledCertificate,
    attestation_rows,
    attestation_text,
    read_certificate,
    read_endorsement_key,
)
from muster.cli.enrollment_document import (
    AllocationPolicy,
    Changes,
    ReprovisionPolicy,
    changed,
    enrollment_rows,
    new_document,
    read_json_documents,
)
from muster.cli.failure import CommandError
from muster.cli.output import record_text
from muster.pki.authority import create_device_certificate
from muster.pki.certificate import parse_certificate, read_certificates

NOW = 1_700_000_000_000_000

STORED = {
    "registrationId": "raspberrypi-b",
    "attestation": {
        "type": "x509",
        "x509": {
            "clientCertificates": {
                "primary": {
                    "info": {
                        "subjectName": "CN=raspberrypi-b",
                        "sha1Thumbprint": "AB12",
                        "sha256Thumbprint": "CD34",
                        "notBeforeUtc": "2026-01-01T00:00:00Z",
                        "notAfterUtc": "2027-01-01T00:00:00Z",
                    }
                }
            }
        },
    },
    "capabilities": {"iotEdge": False},
    "provisioningStatus": "enabled",
    "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True},
    "initialTwin": {"tags": {"site": "A"}, "properties": {"desired": {}}},
    "createdDateTimeUtc": "2026-11-23T17:00:00.1234567Z",
    "lastUpdatedDateTimeUtc": "2026-11-23T17:00:01.1234567Z",
    "etag": "IjE3MDFj",
}


@pytest.fixture(scope="module")
def credential():
    return create_device_certificate("raspberrypi-b", NOW, key_kind="ec-p256")


def test_the_rows_are_those_of_the_cmdlet_in_its_order():
    lines = record_text(enrollment_rows(STORED)).split("\n")
    assert [line.split(" : ")[0].strip(" :") for line in lines if not line.startswith(" ")] == [
        "RegistrationId",
        "DeviceId",
        "Attestation",
        "ProvisioningStatus",
        "RegistrationState",
        "AllocationPolicy",
        "IotHubHostName",
        "IotHubs",
        "Custom Allocation Definition",
        "ReprovisionPolicy",
        "Edge Enabled",
        "Created",
        "Last Updated",
        "ETag",
        "Initial Twin State",
    ]
    assert "Created                      : 2026-11-23 17:00:00Z" in lines
    assert "Last Updated                 : 2026-11-23 17:00:01Z" in lines
    assert "ETag                         : IjE3MDFj" in lines
    assert 'Initial Twin State           : {"tags": {"site": "A"}, "properties": {"desired": {}}}' in lines
    assert "ReprovisionPolicy            : UpdateHubAssignment : True" in lines
    assert "                               MigrateDeviceData : True" in lines


def test_a_hub_by_name_is_shown_as_static():
    rows = dict(enrollment_rows({**STORED, "iotHubHostName": "h", "iotHubs": ["h", "i"]}))
    assert (rows["AllocationPolicy"], rows["IotHubs"]) == ("static", "h, i")


def test_a_certificate_is_shown_by_its_facts():
    rows = dict(attestation_rows(STORED))
    assert rows["Primary SHA-1"] == "AB12"
    assert rows["Primary Valid"] == "2026-01-01 00:00:00Z to 2027-01-01 00:00:00Z"
    assert not any(name.startswith("Secondary") for name in rows)


def test_a_hostile_name_does_not_reach_the_terminal():
    hostile = {**STORED, "deviceId": "\x1b]0;owned\x07", "initialTwin": {"tags": {"x": "\x9b2J"}}}
    assert record_text(enrollment_rows(hostile)).replace("\n", "").isprintable()


def test_only_the_certificate_of_a_file_with_a_key_is_read(tmp_path, credential):
    file = tmp_path / "both.pem"
    file.write_bytes(credential.key_pem + credential.certificate_pem)
    enrolled = read_certificate(file)
    assert enrolled.common_name == "raspberrypi-b"
    assert read_certificates(enrolled.content) == read_certificates(credential.certificate_pem)
    assert "PRIVATE" not in enrolled.content


def test_the_first_certificate_of_a_chain_is_the_devices(tmp_path, credential):
    other = create_device_certificate("another", NOW, key_kind="ec-p256")
    file = tmp_path / "chain.pem"
    file.write_bytes(credential.certificate_pem + other.certificate_pem)
    enrolled = read_certificate(file)
    assert [parse_certificate(der).common_name for der in read_certificates(enrolled.content)] == ["raspberrypi-b"]


def test_a_key_is_not_taken_for_a_certificate(tmp_path, credential):
    file = tmp_path / "device.key"
    file.write_bytes(credential.key_pem)
    with pytest.raises(CommandError, match="is not a certificate: no certificate, but PRIVATE KEY") as caught:
        read_certificate(file)
    assert "the key stays on the device" in caught.value.advice


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(CommandError, match=r"cannot read .*none\.pem: No such file"):
        read_certificate(tmp_path / "none.pem")


def test_a_new_enrollment_always_has_a_twin_and_capabilities():
    document = changed(
        new_document("registrationId", "d"),
        Changes(attestation=AttestationChanges(certificate=EnrolledCertificate("PEM", "d"))),
    )
    assert document == {
        "registrationId": "d",
        "provisioningStatus": "enabled",
        "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True},
        "capabilities": {"iotEdge": False},
        "initialTwin": {"tags": {}, "properties": {"desired": {}}},
        "attestation": {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": "PEM"}}}},
    }


def test_everything_can_be_asked_for():
    document = changed(
        new_document("registrationId", "d"),
        Changes(
            attestation=AttestationChanges(EnrolledCertificate("ONE", "d"), EnrolledCertificate("TWO", "d")),
            device_id="press-7",
            tags=["site=hall 4", "place.row=3", "place.on=true"],
            desired=['limits={"high": 80}', "limits.low=-5", "unit=C=x"],
            enabled=False,
            reprovision_policy=ReprovisionPolicy.NEVER,
            edge=True,
            allocation_policy=AllocationPolicy.STATIC,
            iot_hubs=["localhost"],
        ),
    )
    assert document["attestation"]["x509"]["clientCertificates"]["secondary"] == {"certificate": "TWO"}
    assert document["deviceId"] == "press-7"
    assert document["provisioningStatus"] == "disabled"
    assert document["reprovisionPolicy"] == {"updateHubAssignment": False, "migrateDeviceData": False}
    assert document["capabilities"] == {"iotEdge": True}
    assert (document["allocationPolicy"], document["iotHubs"]) == ("static", ["localhost"])
    assert document["initialTwin"] == {
        "tags": {"site": "hall 4", "place": {"row": 3, "on": True}},
        "properties": {"desired": {"limits": {"high": 80, "low": -5}, "unit": "C=x"}},
    }


def test_a_change_leaves_the_rest_and_the_original_alone():
    before = json.dumps(STORED)
    document = changed(STORED, Changes(enabled=False, tags=["row=1"]))
    assert json.dumps(STORED) == before
    assert document["initialTwin"]["tags"] == {"site": "A", "row": 1}
    assert document["attestation"] == STORED["attestation"]
    assert document["etag"] == STORED["etag"]


def test_a_new_certificate_replaces_its_slot_only():
    document = changed(
        STORED, Changes(attestation=AttestationChanges(secondary=EnrolledCertificate("NEW", "raspberrypi-b")))
    )
    slots = document["attestation"]["x509"]["clientCertificates"]
    assert slots["secondary"] == {"certificate": "NEW"}
    assert slots["primary"] == STORED["attestation"]["x509"]["clientCertificates"]["primary"]


def test_a_twin_comes_from_text_or_from_a_file(tmp_path):
    file = tmp_path / "twin.json"
    file.write_text('{"tags": {"a": 1}}')
    for text in ('{"tags": {"a": 1}}', f"@{file}"):
        document = changed(new_document("registrationId", "d"), Changes(initial_twin=text, desired=["b=2"]))
        assert document["initialTwin"] == {"tags": {"a": 1}, "properties": {"desired": {"b": 2}}}


@pytest.mark.parametrize(
    "changes, wanted",
    [
        (Changes(initial_twin="{"), "--initial-twin is not valid JSON"),
        (Changes(initial_twin="[]"), "--initial-twin is not a JSON object"),
        (Changes(initial_twin="@/none/twin.json"), "cannot read /none/twin.json"),
        (Changes(tags=["site"]), "--tag 'site' is not name=value"),
        (Changes(desired=["a..b=1"]), "--desired 'a..b=1' is not name=value"),
        (Changes(tags=["=1"]), "--tag '=1' is not name=value"),
    ],
)
def test_what_cannot_be_read_is_named(changes, wanted):
    with pytest.raises(CommandError) as caught:
        changed(new_document("registrationId", "d"), changes)
    assert wanted in caught.value.message


# --- attestation mechanisms -----------------------------------------------------------------------------------


def attested(document, **changes):
    return changed(document, Changes(attestation=AttestationChanges(**changes)))["attestation"]


GROUP = new_document("enrollmentGroupId", "line-a")
BY_KEY = {**STORED, "attestation": {"type": "symmetricKey", "symmetricKey": {}}}


def test_a_groups_certificate_is_a_signing_certificate():
    one, two = EnrolledCertificate("ONE", "CA"), EnrolledCertificate("TWO", "CA")
    assert attested(GROUP, certificate=one, secondary=two) == {
        "type": "x509",
        "x509": {"signingCertificates": {"primary": {"certificate": "ONE"}, "secondary": {"certificate": "TWO"}}},
    }


def test_ca_certificates_are_named():
    wanted = {"type": "x509", "x509": {"caReferences": {"primary": "root", "secondary": "next"}}}
    assert attested(GROUP, ca="root", secondary_ca="next") == wanted
    assert attested(STORED, ca="root", secondary_ca="next") == wanted, "and take the place of certificates"


def test_keys_that_are_not_given_are_left_to_the_service():
    assert attested(GROUP, symmetric_key=True) == {"type": "symmetricKey", "symmetricKey": {}}
    assert attested(BY_KEY, secondary_key="Mg==") == {"type": "symmetricKey", "symmetricKey": {"secondaryKey": "Mg=="}}


def test_another_mechanism_takes_the_place_of_the_one_before():
    certificate = EnrolledCertificate("ONE", "d")
    assert attested(BY_KEY, certificate=certificate) == {
        "type": "x509",
        "x509": {"clientCertificates": {"primary": {"certificate": "ONE"}}},
    }
    assert attested(STORED, symmetric_key=True) == {"type": "symmetricKey", "symmetricKey": {}}
    assert attested(STORED, endorsement_key="QUs=") == {"type": "tpm", "tpm": {"endorsementKey": "QUs="}}


def test_two_mechanisms_contradict_each_other():
    with pytest.raises(CommandError, match="--ca and --symmetric-key contradict each other"):
        attested(GROUP, ca="root", primary_key="MQ==")


def test_an_endorsement_key_comes_from_text_or_from_a_file(tmp_path):
    key = base64.b64encode(bytes(range(60))).decode()
    (tmp_path / "text").write_text(f"{key[:40]}\n{key[40:]}\n")
    (tmp_path / "bytes").write_bytes(bytes(range(60)))
    for text in (key, f"@{tmp_path / 'text'}", f"@{tmp_path / 'bytes'}"):
        assert read_endorsement_key(text) == key
    with pytest.raises(CommandError, match="cannot read"):
        read_endorsement_key("@/none")


def test_a_webhook_asks_for_the_custom_policy():
    document = changed(GROUP, Changes(webhook_url="https://hook.example.net"))
    assert document["allocationPolicy"] == "custom"
    assert document["customAllocationDefinition"] == {
        "webhookUrl": "https://hook.example.net",
        "apiVersion": "2021-10-01",
    }
    document = changed(document, Changes(webhook_api_version="2019-03-31"))
    assert document["customAllocationDefinition"]["apiVersion"] == "2019-03-31"


def test_an_issuing_ca():
    document = changed(GROUP, Changes(issuing_ca="line-a"))
    names = {"namespaceName": "muster", "certificateAuthorityName": "line-a", "certificatePolicyName": "device"}
    assert names.items() <= document.items()
    rows = dict(enrollment_rows(document))
    assert (rows["Issuing CA"], rows["Certificate Policy"]) == ("line-a", "device")

    other = changed(document, Changes(certificate_policy="gateway"))
    assert (other["certificateAuthorityName"], other["certificatePolicyName"]) == ("line-a", "gateway")
    assert changed(other, Changes(issuing_ca="line-b"))["certificatePolicyName"] == "gateway"
    assert changed(other, Changes(issuing_ca="")) == GROUP
    assert "Issuing CA" not in dict(enrollment_rows(GROUP))


@pytest.mark.parametrize(
    "names",
    [
        {"credentialPolicyName": "line-a"},
        {"clientCertificateIssuancePolicy": {"certificateAuthorityName": "line-a"}},
    ],
)
def test_an_issuing_ca_that_was_named_as_in_a_preview(names):
    former = {**GROUP, **names}
    assert dict(enrollment_rows(former))["Issuing CA"] == "line-a"
    document = changed(former, Changes(certificate_policy="gateway"))
    assert (document["certificateAuthorityName"], document["certificatePolicyName"]) == ("line-a", "gateway")
    assert not names.keys() & document.keys()


def test_a_certificate_policy_is_that_of_a_ca():
    with pytest.raises(CommandError, match="--certificate-policy is for a CA"):
        changed(GROUP, Changes(certificate_policy="gateway"))


def test_a_group_is_shown_with_its_keys_as_far_as_the_answer_has_them():
    keys = {"primaryKey": "MQ==", "secondaryKey": "Mg=="}
    document = {**GROUP, "attestation": {"type": "symmetricKey", "symmetricKey": keys}}
    rows = dict(enrollment_rows(document))
    assert (rows["EnrollmentGroupId"], rows["Attestation"]) == ("line-a", "symmetricKey")
    assert (rows["PrimaryKey"], rows["SecondaryKey"]) == ("MQ==", "Mg==")
    assert "DeviceId" not in rows
    assert "PrimaryKey" not in dict(enrollment_rows(BY_KEY))


def test_ca_references_are_shown():
    document = {**GROUP, "attestation": attested(GROUP, ca="root")}
    assert attestation_text(document) == "x509 (caReferences)"
    assert attestation_rows(document) == [("Primary CA", "root")]


def test_a_file_of_enrollments(tmp_path):
    file = tmp_path / "all.json"
    file.write_text(json.dumps([STORED]))
    assert read_json_documents(file) == [STORED]
    for text, wanted in (("{}", "is not a JSON array"), ("[1]", "is not a JSON array"), ("[", "is not valid JSON")):
        file.write_text(text)
        with pytest.raises(CommandError, match=wanted):
            read_json_documents(file)
    with pytest.raises(CommandError, match="cannot read"):
        read_json_documents(tmp_path / "none.json")
