import pytest

from muster.cli.failure import CommandError
from muster.cli.identity_document import (
    Authentication,
    IdentityChanges,
    changed,
    connection_string,
    exported,
    identity_rows,
    new_device,
    new_module,
)
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
    assert (
        connection_string("localhost", IDENTITY) == f"HostName=localhost;DeviceId=pump-01;SharedAccessKey={SECRET_KEY}"
    )


def test_a_device_with_a_certificate_has_no_key_in_it():
    identity = {"deviceId": "pump-01", "authentication": {"type": "selfSigned"}}
    assert connection_string("localhost", identity) == "HostName=localhost;DeviceId=pump-01;x509=true"


def test_a_policy_that_may_not_see_keys_is_told_so():
    with pytest.raises(CommandError, match="holds no key"):
        connection_string("localhost", {"deviceId": "pump-01", "authentication": {"type": "sas"}})


def test_the_connection_string_of_a_module():
    module = {**IDENTITY, "moduleId": "gauge"}
    text = f"HostName=localhost;DeviceId=pump-01;ModuleId=gauge;SharedAccessKey={SECRET_KEY}"
    assert connection_string("localhost", module, secondary=True) == text


def test_a_new_device_gets_its_keys_from_the_hub():
    assert new_device("d", IdentityChanges(edge=True)) == {
        "deviceId": "d",
        "status": "enabled",
        "authentication": {"type": "sas"},
        "capabilities": {"iotEdge": True},
    }


@pytest.mark.parametrize("thumbprints, secondary", [(["A"], None), (["A", "B"], "B")])
@pytest.mark.parametrize("auth", [None, Authentication.SELF_SIGNED])
def test_a_new_device_with_certificates_has_their_thumbprints(auth, thumbprints, secondary):
    document = new_device("d", IdentityChanges(auth=auth, thumbprints=thumbprints))
    assert document["authentication"] == {
        "type": "selfSigned",
        "x509Thumbprint": {"primaryThumbprint": "A", "secondaryThumbprint": secondary},
    }


@pytest.mark.parametrize(
    "changes",
    [
        IdentityChanges(auth=Authentication.SAS, thumbprints=["A"]),
        IdentityChanges(auth=Authentication.SELF_SIGNED),
        IdentityChanges(auth=Authentication.CERTIFICATE_AUTHORITY, primary_key=SECRET_KEY),
        IdentityChanges(thumbprints=["A", "B", "C"]),
        IdentityChanges(thumbprints=["A"], primary_key=SECRET_KEY),
    ],
)
def test_what_does_not_go_together(changes):
    with pytest.raises(CommandError):
        new_device("d", changes)


def test_a_change_leaves_the_rest():
    after = changed(IDENTITY, IdentityChanges(enabled=False, status_reason="sold"))
    assert after == {**IDENTITY, "status": "disabled", "statusReason": "sold"}


def test_one_key_is_changed_alone():
    keys = changed(IDENTITY, IdentityChanges(secondary_key="other"))["authentication"]["symmetricKey"]
    assert keys == {"primaryKey": SECRET_KEY, "secondaryKey": "other"}


def test_another_kind_of_authentication_leaves_nothing_of_the_old_one():
    by_ca = changed(IDENTITY, IdentityChanges(auth=Authentication.CERTIFICATE_AUTHORITY))
    assert by_ca["authentication"] == {"type": "certificateAuthority"}
    assert changed(by_ca, IdentityChanges(auth=Authentication.SAS))["authentication"] == {"type": "sas"}


def test_parents():
    scope = "ms-azure-iot-edge://plant-1"
    leaf = changed(IDENTITY, IdentityChanges(parent_scope=scope))
    assert (leaf["deviceScope"], leaf["parentScopes"]) == (scope, [])
    assert changed(leaf, IdentityChanges(parent_scope=""))["deviceScope"] is None
    edge = {**IDENTITY, "capabilities": {"iotEdge": True}, "deviceScope": "ms-azure-iot-edge://own-1"}
    child = changed(edge, IdentityChanges(parent_scope=scope))
    assert (child["deviceScope"], child["parentScopes"]) == ("ms-azure-iot-edge://own-1", [scope])


def test_a_new_module():
    module = new_module("d", "m", IdentityChanges(managed_by="me"))
    assert module == {"deviceId": "d", "moduleId": "m", "managedBy": "me", "authentication": {"type": "sas"}}
    assert "ModuleId" in record_text(identity_rows(module))
    assert "Status" not in record_text(identity_rows(module))


def test_what_is_exported_can_be_imported():
    item = exported({**IDENTITY, "deviceScope": "s"})
    assert item == {
        "id": "pump-01",
        "status": "enabled",
        "authentication": IDENTITY["authentication"],
        "capabilities": {"iotEdge": False},
        "deviceScope": "s",
    }
    assert exported({"deviceId": "d", "moduleId": "m", "managedBy": None}) == {"id": "d", "moduleId": "m"}
