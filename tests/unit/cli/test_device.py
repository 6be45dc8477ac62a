import pytest

from muster.cli.device import Authentication, device_string, identity_rows, new_identity
from muster.cli.failure import CommandError
from muster.cli.output import record_text
from tests.unit.cli.statuses import SECRET_KEY

IDENTITY = {
    "deviceId": "pump-01",
    "generationId": "638680001234567890",
    "etag": "ODAxMjMyNDI2",
    "connectionState": "Disconnected",
    "status": "enabled",
    "statusReason": None,
    "lastActivityTime": "0001-01-01T00:00:00Z",
    "authentication": {"symmetricKey": {"primaryKey": SECRET_KEY, "secondaryKey": SECRET_KEY}, "type": "sas"},
    "capabilities": {"iotEdge": False},
}


def test_a_device_is_shown_without_its_keys():
    text = record_text(identity_rows(IDENTITY))
    assert "DeviceId             : pump-01" in text
    assert "Last Activity        :\n" in text
    assert SECRET_KEY not in text


def test_the_connection_string_of_a_device_holds_its_key():
    assert device_string("localhost", IDENTITY) == f"HostName=localhost;DeviceId=pump-01;SharedAccessKey={SECRET_KEY}"


def test_a_device_with_a_certificate_has_no_key_in_it():
    identity = {"deviceId": "pump-01", "authentication": {"type": "selfSigned"}}
    assert device_string("localhost", identity) == "HostName=localhost;DeviceId=pump-01;x509=true"


def test_a_policy_that_may_not_see_keys_is_told_so():
    with pytest.raises(CommandError, match="holds no key"):
        device_string("localhost", {"deviceId": "pump-01", "authentication": {"type": "sas"}})


def test_a_new_sas_device_gets_its_keys_from_the_hub():
    assert new_identity("d", Authentication.SAS, [], edge=True) == {
        "deviceId": "d",
        "status": "enabled",
        "authentication": {"type": "sas"},
        "capabilities": {"iotEdge": True},
    }


@pytest.mark.parametrize("thumbprints, secondary", [(["A"], None), (["A", "B"], "B")])
def test_a_new_self_signed_device_has_its_thumbprints(thumbprints, secondary):
    document = new_identity("d", Authentication.SELF_SIGNED, thumbprints, edge=False)
    assert document["authentication"] == {
        "type": "selfSigned",
        "x509Thumbprint": {"primaryThumbprint": "A", "secondaryThumbprint": secondary},
    }


@pytest.mark.parametrize(
    "auth, thumbprints",
    [
        (Authentication.SAS, ["A"]),
        (Authentication.SELF_SIGNED, []),
        (Authentication.SELF_SIGNED, ["A", "B", "C"]),
    ],
)
def test_certificates_go_with_self_signed_only(auth, thumbprints):
    with pytest.raises(CommandError):
        new_identity("d", auth, thumbprints, edge=False)
