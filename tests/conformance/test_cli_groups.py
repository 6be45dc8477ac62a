"""Enrollment groups and keys through the command line, against a running server."""

import base64
import json

import pytest
from tests.support.fix_server import ID_SCOPE

from muster.domain.sas import derive_device_key


def failure(server, *arguments):
    """What a command that must fail says on standard error; never a stack trace."""
    result = server.cli(*arguments, check=False)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.fixture(scope="module")
def authority(muster):
    """A CA certificate file; any certificate will do to create a group."""
    muster.cli("cert", "device", "plant-ca", "--key", "ec-p256")
    return str(muster.directory / "plant-ca.pem")


class TestSymmetricKeyGroup:
    def test_keys_are_printed_once_and_when_they_are_asked_for(self, muster):
        made = muster.cli_json("group", "create", "keys-1", "--symmetric-key", "--tag", "line=a")
        keys = made["attestation"]["symmetricKey"]
        assert [len(base64.b64decode(keys[name])) for name in ("primaryKey", "secondaryKey")] == [64, 64]
        shown = muster.cli("group", "show", "keys-1").stdout
        assert keys["primaryKey"] not in shown
        assert "symmetricKey" in shown
        assert muster.cli_json("group", "keys", "keys-1")["symmetricKey"] == keys
        assert keys["secondaryKey"] in muster.cli("group", "keys", "keys-1").stdout
        derived = muster.cli("group", "derive-key", "keys-1", "pump-1").stdout.strip()
        assert derived == derive_device_key(keys["primaryKey"], "pump-1")
        both = muster.cli_json("group", "derive-key", "keys-1", "pump-1")
        assert both["secondaryKey"] == derive_device_key(keys["secondaryKey"], "pump-1")

    def test_given_keys_and_an_update_that_leaves_them(self, muster):
        key = base64.b64encode(bytes(32)).decode()
        muster.cli("group", "create", "keys-2", "--primary-key", key, "--secondary-key", key)
        after = muster.cli_json("group", "update", "keys-2", "--disable", "--iot-hub", muster.address)
        assert (after["provisioningStatus"], after["iotHubs"]) == ("disabled", [muster.address])
        assert muster.cli_json("group", "keys", "keys-2")["symmetricKey"]["primaryKey"] == key

    def test_one_that_exists_is_not_overwritten_unasked(self, muster):
        muster.cli("group", "create", "keys-3", "--symmetric-key")
        assert "group keys-3 exists already" in failure(muster, "group", "create", "keys-3", "--symmetric-key")
        muster.cli("group", "create", "keys-3", "--symmetric-key", "--disabled", "--update")
        assert "keys-3" in muster.cli("group", "list").stdout

    def test_deleting(self, muster):
        muster.cli("group", "create", "keys-4", "--symmetric-key")
        muster.cli("group", "delete", "keys-4")
        assert "404201" in failure(muster, "group", "show", "keys-4")
        assert "404201" in failure(muster, "group", "registrations", "keys-4")

    def test_a_key_of_another_group_is_warned_of(self, muster):
        first = muster.cli("group", "create", "keys-6", "--symmetric-key")
        assert first.stderr == ""
        key = muster.cli_json("group", "keys", "keys-6")["symmetricKey"]["primaryKey"]
        made = muster.cli("group", "create", "keys-7", "--primary-key", key)
        assert 'warning: enrollment group "keys-7" shares a symmetric key with "keys-6": ' in made.stderr
        assert key not in made.stderr
        assert "shares a symmetric key" in muster.cli("group", "update", "keys-7", "--disable").stderr
        assert muster.cli_json("why", "keys-7")[0]["verdict"] == "warned"
        muster.cli("group", "delete", "keys-6")
        assert muster.cli("group", "update", "keys-7", "--enable").stderr == ""

    def test_a_group_without_devices_has_no_registrations(self, muster):
        muster.cli("group", "create", "keys-5", "--symmetric-key")
        assert muster.cli_json("group", "registrations", "keys-5") == []


class TestDerivedKey:
    def test_a_device_with_the_printed_key_is_provisioned(self, muster, clients):
        muster.cli("group", "create", "fleet", "--symmetric-key", "--tag", "line=a")
        key = muster.cli("group", "derive-key", "fleet", "fleet-1").stdout.strip()
        device = clients("device.py")
        device.call("register", registration_id="fleet-1", id_scope=ID_SCOPE, symmetric_key=key)
        (record,) = muster.cli_json("group", "registrations", "fleet")
        assert (record["registrationId"], record["status"]) == ("fleet-1", "assigned")
        assert "fleet-1" in muster.cli("group", "registrations", "fleet").stdout


class TestX509Group:
    def test_a_signing_certificate(self, muster, authority):
        made = muster.cli_json("group", "create", "x509-1", "--certificate", authority)
        assert made["attestation"]["x509"]["signingCertificates"]["primary"]["info"]["subjectName"] == "CN=plant-ca"
        shown = muster.cli("group", "show", "x509-1").stdout
        assert "x509 (signingCertificates)" in shown
        assert "CN=plant-ca" in shown
        assert "not by symmetric keys" in failure(muster, "group", "derive-key", "x509-1", "pump-1")
        muster.cli("group", "update", "x509-1", "--disable")
        assert muster.cli_json("group", "show", "x509-1")["attestation"] == made["attestation"]

    def test_a_certificate_that_is_no_ca_is_warned_of(self, muster, authority):
        warned = muster.cli("group", "create", "x509-leaf", "--certificate", authority).stderr
        assert "warning: " in warned
        assert "CA:FALSE" in warned
        muster.cli("ca", "init", "group-root", "--ca-dir", "group-ca")
        root = str(muster.directory / "group-ca" / "group-root" / "group-root.pem")
        assert not muster.cli("group", "update", "x509-leaf", "--certificate", root).stderr

    def test_references_and_a_webhook(self, muster):
        arguments = ("--ca", "root", "--secondary-ca", "next", "--webhook-url", "https://hook.example.net/a")
        made = muster.cli_json("group", "create", "x509-2", *arguments)
        assert made["attestation"]["x509"]["caReferences"] == {"primary": "root", "secondary": "next"}
        assert made["allocationPolicy"] == "custom"
        assert made["customAllocationDefinition"]["webhookUrl"] == "https://hook.example.net/a"


class TestIndividualKeys:
    def test_a_symmetric_key(self, muster):
        name = ("--registration-id", "dev-keys")
        made = muster.cli_json("enrollment", "create", "--symmetric-key", *name)
        assert muster.cli_json("enrollment", "keys", "dev-keys") == made["attestation"]
        text = muster.cli("enrollment", "create", "--symmetric-key", *name, "--update").stdout
        assert made["attestation"]["symmetricKey"]["primaryKey"] in text
        assert "primaryKey" not in muster.cli_json("enrollment", "show", "dev-keys")["attestation"]["symmetricKey"]

    def test_a_name_that_cannot_be_one(self, muster):
        error = failure(muster, "enrollment", "create", "--symmetric-key", "--registration-id", "line/pump 1")
        assert "'line/pump 1' cannot be a registration id: it has the character '/'" in error

    def test_what_contradicts_itself(self, muster):
        error = failure(
            muster, "enrollment", "create", "--symmetric-key", "--ca", "root", "--registration-id", "dev-both"
        )
        assert "--ca and --symmetric-key contradict each other" in error

    def test_many_at_once(self, muster):
        many = [{"registrationId": f"bulk-{n}", "attestation": {"type": "symmetricKey"}} for n in range(23)]
        (muster.directory / "many.json").write_text(json.dumps(many))
        assert muster.cli("enrollment", "import", "many.json").stdout == "wrote 23 of 23 enrollments\n"
        again = muster.cli("enrollment", "import", "many.json", check=False)
        assert again.returncode == 1
        assert "wrote 0 of 23 enrollments" in again.stdout
        assert "bulk-22" in again.stdout
        assert muster.cli("enrollment", "import", "many.json", "--update").returncode == 0


class TestDoctor:
    def test_before_and_after_enrolling(self, muster):
        muster.cli("cert", "device", "doctor-1", "--key", "ec-p256")
        before = muster.cli("cert", "doctor", "doctor-1.pem", check=False)
        assert before.returncode == 1
        assert "REFUSED  register doctor-1" in before.stdout
        muster.cli("enrollment", "create", "--certificate", "doctor-1.pem")
        after = muster.cli_json("cert", "doctor", "doctor-1.pem")
        assert (after["verdict"], after["enrollment"]) == ("accepted", {"kind": "individual", "id": "doctor-1"})
        late = muster.cli("cert", "doctor", "doctor-1.pem", "--at", "2099-01-01T00:00:00Z", check=False)
        assert late.returncode == 1
        assert "x509.not-after: make a new certificate" in late.stdout

    def test_a_group_that_does_not_decide(self, muster, authority):
        muster.cli("cert", "device", "doctor-2", "--key", "ec-p256")
        muster.cli("enrollment", "create", "--certificate", "doctor-2.pem")
        muster.cli("group", "create", "doctors", "--certificate", authority)
        result = muster.cli("cert", "doctor", "doctor-2.pem", "--group", "doctors", check=False)
        assert result.returncode == 1
        assert "judged by       enrollment group doctors" in result.stdout
        assert "In reality individual enrollment doctor-2 decides" in result.stdout


class TestAllocationPreview:
    def test_a_device_of_its_own_and_one_of_a_group(self, muster):
        muster.cli("enrollment", "create", "--symmetric-key", "--registration-id", "land-1")
        assert f"Hub        : {muster.address}" in muster.cli("allocation", "preview", "land-1").stdout
        assert "name that with --group" in failure(muster, "allocation", "preview", "land-2")
        muster.cli("group", "create", "landing", "--symmetric-key")
        found = muster.cli_json("allocation", "preview", "land-2", "--group", "landing")
        assert found["enrollment"] == {"kind": "group", "id": "landing"}
        assert found["reason"].endswith("is the only candidate")
