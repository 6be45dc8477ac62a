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
    fails(400, "ArgumentInvalid", registry, "create_device_with_certificate_authority", "ca-1", "enabled")


def test_what_is_not_served_yet(registry: Registry) -> None:
    """Clearly, and in the hub's own shape."""
    fails(404, "GenericNotFound", registry, "get_device_registry_statistics")
    fails(404, "GenericNotFound", registry, "get_service_statistics")
    registry("create_device_with_sas", "modules-1", KEY, KEY_2, "enabled")
    fails(404, "GenericNotFound", registry, "get_modules", "modules-1")


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
