"""The unmodified azure-iot-hub manages the device registry."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fix_clients import OpenClient, SdkError
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer

KEY = base64.b64encode(bytes(range(32))).decode()
KEY_2 = base64.b64encode(bytes(range(32, 64))).decode()

Registry = Callable[..., Any]


@pytest.fixture(scope="module")
def registry(muster: MusterServer, clients: OpenClient) -> Registry:
    """Calls a method of the registry manager, as the owner or under another policy."""
    script = clients("registry.py")

    def call(
        method: str, *arguments: Any, policy: str = "iothubowner", key: str = DEVELOPMENT_KEY, **options: Any
    ) -> Any:
        connection_string = f"HostName={muster.address};SharedAccessKeyName={policy};SharedAccessKey={key}"
        return script.call(
            "call", connection_string=connection_string, method=method, arguments=arguments, options=options
        )

    return call


def fails(status: int, name: str, registry: Registry, method: str, *arguments: Any, **options: Any) -> None:
    """The SDK raises with this status, and the body names this error."""
    with pytest.raises(SdkError) as caught:
        registry(method, *arguments, **options)
    assert caught.value.kind == "HttpOperationError"
    assert caught.value.status == status
    assert caught.value.json["Message"].startswith(f"ErrorCode:{name};")


def test_create_with_keys(muster: MusterServer, registry: Registry) -> None:
    assert muster.hub_connection_string.startswith(f"HostName={muster.address};SharedAccessKeyName=iothubowner;")
    created = registry("create_device_with_sas", "sas-1", KEY, KEY_2, "enabled", status_reason="new")
    assert created["deviceId"] == "sas-1"
    assert created["authentication"]["type"] == "sas"
    assert created["authentication"]["symmetricKey"] == {"primaryKey": KEY, "secondaryKey": KEY_2}
    assert (created["status"], created["statusReason"]) == ("enabled", "new")
    assert created["connectionState"] == "Disconnected"
    assert created["generationId"].isdigit()
    got = registry("get_device", "sas-1")
    assert got == created


def test_create_with_thumbprints(registry: Registry) -> None:
    created = registry("create_device_with_x509", "x509-1", "AB" * 20, "cd" * 32, "disabled")
    assert created["authentication"]["type"] == "selfSigned"
    thumbprints = {"primaryThumbprint": "AB" * 20, "secondaryThumbprint": "cd" * 32}
    assert created["authentication"]["x509Thumbprint"] == thumbprints
    assert created["status"] == "disabled"


def test_keys_are_made_when_none_are_sent(registry: Registry) -> None:
    keys = registry("create_device_with_sas", "made-1", None, None, "enabled")["authentication"]["symmetricKey"]
    assert [len(base64.b64decode(key)) for key in keys.values()] == [32, 32]


def test_an_id_is_given_once(registry: Registry) -> None:
    registry("create_device_with_sas", "twice", KEY, KEY_2, "enabled")
    fails(409, "DeviceAlreadyExists", registry, "create_device_with_sas", "twice", KEY, KEY_2, "enabled")


@pytest.mark.parametrize("device_id", ["AZaz09-:.+%_#*?!(),=@;$'", "a%2Fb", "x" * 128])
def test_ids_with_every_legal_character(registry: Registry, device_id: str) -> None:
    assert registry("create_device_with_sas", device_id, KEY, KEY_2, "enabled")["deviceId"] == device_id
    assert registry("get_device", device_id)["deviceId"] == device_id
    registry("delete_device", device_id)
    fails(404, "DeviceNotFound", registry, "get_device", device_id)


def test_updates_under_the_entity_tag(registry: Registry) -> None:
    etag = registry("create_device_with_sas", "tag-1", KEY, KEY_2, "enabled")["etag"]
    updated = registry("update_device_with_sas", "tag-1", etag, KEY_2, KEY, "disabled", status_reason="sold")
    assert updated["etag"] != etag
    assert updated["status"] == "disabled"
    assert updated["authentication"]["symmetricKey"]["primaryKey"] == KEY_2
    fails(412, "PreconditionFailed", registry, "update_device_with_sas", "tag-1", etag, KEY, KEY_2, "enabled")
    assert registry("get_device", "tag-1") == updated
    changed = registry("update_device_with_x509", "tag-1", "*", "AB" * 20, None, "enabled")
    assert changed["authentication"]["type"] == "selfSigned"
    assert changed["generationId"] == updated["generationId"]
    fails(404, "DeviceNotFound", registry, "update_device_with_sas", "no-tag", "*", KEY, KEY_2, "enabled")


def test_deleting(registry: Registry) -> None:
    etag = registry("create_device_with_sas", "gone-1", KEY, KEY_2, "enabled")["etag"]
    fails(412, "PreconditionFailed", registry, "delete_device", "gone-1", etag="c3RhbGU=")
    assert registry("delete_device", "gone-1", etag=etag) is None
    fails(404, "DeviceNotFound", registry, "delete_device", "gone-1")
    first = registry("create_device_with_sas", "gone-1", KEY, KEY_2, "enabled")["generationId"]
    registry("delete_device", "gone-1")
    assert registry("create_device_with_sas", "gone-1", KEY, KEY_2, "enabled")["generationId"] != first


def test_listing(registry: Registry) -> None:
    for number in range(4):
        registry("create_device_with_sas", f"list-{number}", KEY, KEY_2, "enabled")
    listed = registry("get_devices")
    assert {f"list-{number}" for number in range(4)} <= {device["deviceId"] for device in listed}
    assert len(registry("get_devices", 2)) == 2


def test_reading_a_twin(registry: Registry) -> None:
    registry("create_device_with_sas", "twin-1", KEY, KEY_2, "enabled")
    twin = registry("get_twin", "twin-1")
    assert (twin["deviceId"], twin["authenticationType"], twin["version"]) == ("twin-1", "sas", 2)
    assert twin["properties"]["desired"]["$version"] == 1
    fails(404, "DeviceNotFound", registry, "get_twin", "twin-2")


def test_what_is_refused(registry: Registry) -> None:
    fails(400, "ArgumentInvalid", registry, "create_device_with_sas", "bad-key", "short", KEY, "enabled")
    fails(400, "ArgumentInvalid", registry, "create_device_with_sas", "with space", KEY, KEY_2, "enabled")
    fails(400, "ArgumentInvalid", registry, "create_device_with_sas", "bad-status", KEY, KEY_2, "sleeping")
    fails(400, "ArgumentInvalid", registry, "create_device_with_x509", "bad-x509", "AB:CD", None, "enabled")


def test_certificate_authority(registry: Registry) -> None:
    created = registry("create_device_with_certificate_authority", "ca-1", "enabled", status_reason="new")
    assert created["authentication"]["type"] == "certificateAuthority"
    assert not created["authentication"]["symmetricKey"]
    updated = registry("update_device_with_certificate_authority", "ca-1", created["etag"], "disabled")
    assert (updated["status"], updated["authentication"]["type"]) == ("disabled", "certificateAuthority")
    keys = registry("update_device_with_sas", "ca-1", "*", KEY, KEY_2, "enabled")
    assert keys["authentication"]["symmetricKey"] == {"primaryKey": KEY, "secondaryKey": KEY_2}


def test_statistics(registry: Registry) -> None:
    before = registry("get_device_registry_statistics")
    registry("create_device_with_sas", "count-1", KEY, KEY_2, "enabled")
    registry("create_device_with_sas", "count-2", KEY, KEY_2, "disabled")
    after = registry("get_device_registry_statistics")
    assert {name: after[name] - before[name] for name in before} == {
        "totalDeviceCount": 2,
        "enabledDeviceCount": 1,
        "disabledDeviceCount": 1,
    }
    assert registry("get_service_statistics") == {"connectedDeviceCount": 0}


# Edge devices


def test_edge_devices_and_their_children(registry: Registry) -> None:
    gate = registry("create_device_with_sas", "gate", KEY, KEY_2, "enabled", iot_edge=True)
    assert gate["capabilities"] == {"iotEdge": True}
    scope = gate["deviceScope"]
    assert scope.startswith("ms-azure-iot-edge://gate-")
    assert [module["moduleId"] for module in registry("get_modules", "gate")] == ["$edgeAgent", "$edgeHub"]
    leaf = registry("create_device_with_sas", "leaf", KEY, KEY_2, "enabled", device_scope=scope)
    assert (leaf["deviceScope"], leaf["parentScopes"]) == (scope, [scope])
    child = registry("create_device_with_sas", "child", KEY, KEY_2, "enabled", iot_edge=True, parent_scopes=[scope])
    assert child["parentScopes"] == [scope]
    fails(
        400,
        "ArgumentInvalid",
        registry,
        "update_device_with_sas",
        *("gate", "*", KEY, KEY_2, "enabled"),
        iot_edge=True,
        device_scope="ms-azure-iot-edge://other-1",
    )


# Modules


def test_modules(registry: Registry) -> None:
    registry("create_device_with_sas", "modules", KEY, KEY_2, "enabled")
    by_key = registry("create_module_with_sas", "modules", "by-key", "operator", KEY, KEY_2)
    assert by_key["authentication"]["symmetricKey"] == {"primaryKey": KEY, "secondaryKey": KEY_2}
    assert (by_key["moduleId"], by_key["deviceId"], by_key["managedBy"]) == ("by-key", "modules", "operator")
    by_print = registry("create_module_with_x509", "modules", "by-print", "operator", "AB" * 20, None)
    assert by_print["authentication"]["x509Thumbprint"]["primaryThumbprint"] == "AB" * 20
    by_ca = registry("create_module_with_certificate_authority", "modules", "by-ca", None)
    assert by_ca["authentication"]["type"] == "certificateAuthority"
    assert [module["moduleId"] for module in registry("get_modules", "modules")] == ["by-ca", "by-key", "by-print"]
    assert registry("get_module", "modules", "by-key") == by_key
    updated = registry("update_module_with_sas", "modules", "by-key", "me", by_key["etag"], KEY_2, KEY)
    assert (updated["managedBy"], updated["authentication"]["symmetricKey"]["primaryKey"]) == ("me", KEY_2)
    stale = ("modules", "by-key", "me", by_key["etag"], KEY, KEY_2)
    fails(412, "PreconditionFailed", registry, "update_module_with_sas", *stale)
    changed = registry("update_module_with_x509", "modules", "by-key", "me", "*", "CD" * 32, None)
    assert changed["authentication"]["type"] == "selfSigned"
    assert registry("update_module_with_certificate_authority", "modules", "by-key", "me", "*")["managedBy"] == "me"
    registry("delete_module", "modules", "by-print", etag=by_print["etag"])
    registry("delete_module", "modules", "by-key")
    fails(404, "ModuleNotFound", registry, "get_module", "modules", "by-key")
    with pytest.raises(SdkError) as caught:
        registry("create_module_with_sas", "modules", "by-ca", None, KEY, KEY_2)
    assert (caught.value.status, caught.value.json["errorCode"]) == (409, 409301)
    fails(401, "IotHubUnauthorizedAccess", registry, "get_modules", "no-such-device")


# Many at once


def test_bulk(registry: Registry) -> None:
    def item(device_id: str, **members: Any) -> dict[str, Any]:
        authentication = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY_2}}
        whole = {"id": device_id, "importMode": "create", "status": "enabled", "authentication": authentication}
        return {**whole, **members}

    bulk = "bulk_create_or_update_devices"
    module = {"id": "bulk-1", "moduleId": "m", "importMode": "create", "authentication": {"type": "sas"}}
    result = registry(bulk, [item("bulk-1"), item("bulk-2", tags={"site": "A"}), module])
    assert (result["isSuccessful"], result["errors"]) == (True, [])
    assert registry("get_twin", "bulk-2")["tags"] == {"site": "A"}
    result = registry(bulk, [item("bulk-3"), item("bulk-1")])  # answered with 400, which is no error for the SDK
    assert result["isSuccessful"] is False
    assert [(error["deviceId"], error["errorCode"]) for error in result["errors"]] == [
        ("bulk-1", "DeviceAlreadyExists")
    ]
    registry(bulk, [{"id": f"bulk-{number}", "importMode": "delete"} for number in (1, 2, 3)])
    fails(404, "DeviceNotFound", registry, "get_device", "bulk-3")
    fails(413, "TooManyDevices", registry, bulk, [item(f"many-{number}") for number in range(101)])


READ, WRITE, TWIN = "get_device", "delete_device", "get_twin"
RIGHTS = {
    "iothubowner": {READ, WRITE, TWIN},
    "registryReadWrite": {READ, WRITE},
    "registryRead": {READ},
    "service": {TWIN},
    "device": set(),
}


@pytest.mark.parametrize("policy", RIGHTS)
def test_rights_of_the_five_policies(registry: Registry, policy: str) -> None:
    device_id = f"right-{policy}"
    registry("create_device_with_sas", device_id, KEY, KEY_2, "enabled")
    for method in (READ, TWIN, WRITE):
        if method in RIGHTS[policy]:
            registry(method, device_id, policy=policy)
        else:
            fails(401, "IotHubUnauthorizedAccess", registry, method, device_id, policy=policy)


def test_wrong_keys_and_unknown_policies(muster: MusterServer, registry: Registry) -> None:
    fails(401, "IotHubUnauthorizedAccess", registry, "get_device", "wrong-key", key=KEY)
    fails(401, "IotHubUnauthorizedAccess", registry, "get_device", "wrong-policy", policy="nobody")
    fails(401, "IotHubUnauthorizedAccess", registry, "get_device", "other-service", policy="provisioningserviceowner")
    for subject, check_id in (("wrong-key", "sas.signature"), ("wrong-policy", "sas.policy")):
        report = muster.cli_json("why", f"/devices/{subject}")[0]
        assert [item["id"] for item in report["checks"] if item["outcome"] == "refused"] == [check_id]


def test_imports_and_exports_are_refused(muster: MusterServer, clients: OpenClient) -> None:
    """There is no blob storage here; the error says what does the same."""
    script = clients("registry.py")

    def ask(method: str, *arguments: Any) -> Any:
        return script.call(
            "transfer", connection_string=muster.hub_connection_string, method=method, arguments=arguments
        )

    container = "https://acct.blob.example/identities?sv=2021"
    for job in (
        {"type": "export", "output_blob_container_uri": container, "exclude_keys_in_export": True},
        {"type": "import", "input_blob_container_uri": container, "output_blob_container_uri": container},
    ):
        with pytest.raises(SdkError) as caught:
            ask("create_import_export_job", job)
        assert (caught.value.status, caught.value.kind) == (400, "HttpOperationError")
        assert caught.value.json["Message"].startswith("ErrorCode:BlobContainerValidationError;")
    assert ask("get_import_export_jobs") == []
    for method in ("get_import_export_job", "cancel_import_export_job"):
        with pytest.raises(SdkError) as caught:
            ask(method, "0123")
        assert (caught.value.status, "JobNotFound" in caught.value.body) == (404, True)
