import json

import pytest

from muster.cli.enrollment_document import (
    AllocationPolicy,
    Changes,
    EnrolledCertificate,
    ReprovisionPolicy,
    certificate_rows,
    changed,
    enrollment_rows,
    new_document,
    read_certificate,
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
    rows = dict(certificate_rows(STORED))
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
    document = changed(new_document("d"), Changes(certificate=EnrolledCertificate("PEM", "d")))
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
        new_document("d"),
        Changes(
            certificate=EnrolledCertificate("ONE", "d"),
            secondary=EnrolledCertificate("TWO", "d"),
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
    document = changed(STORED, Changes(secondary=EnrolledCertificate("NEW", "raspberrypi-b")))
    slots = document["attestation"]["x509"]["clientCertificates"]
    assert slots["secondary"] == {"certificate": "NEW"}
    assert slots["primary"] == STORED["attestation"]["x509"]["clientCertificates"]["primary"]


def test_a_twin_comes_from_text_or_from_a_file(tmp_path):
    file = tmp_path / "twin.json"
    file.write_text('{"tags": {"a": 1}}')
    for text in ('{"tags": {"a": 1}}', f"@{file}"):
        document = changed(new_document("d"), Changes(initial_twin=text, desired=["b=2"]))
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
        changed(new_document("d"), changes)
    assert wanted in caught.value.message
