"""The unmodified azure-iothub for Node.js manages devices and modules."""

import base64
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fix_clients import SdkError
from tests.support.fix_node import OpenNodeClient
from tests.support.fix_server import MusterServer

KEY = base64.b64encode(bytes(range(32))).decode()
KEY_2 = base64.b64encode(bytes(range(32, 64))).decode()
SAS = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY_2}}

Registry = Callable[..., Any]


@pytest.fixture(scope="module")
def registry(muster: MusterServer, node_clients: OpenNodeClient) -> Registry:
    script = node_clients("registry.js")

    def call(method: str, *given: Any) -> Any:
        return script.call("call", connectionString=muster.hub_connection_string, method=method, given=given)

    return call


def fails(kind: str, registry: Registry, method: str, *given: Any) -> SdkError:
    """The SDK's own error of this kind."""
    with pytest.raises(SdkError) as caught:
        registry(method, *given)
    assert caught.value.kind == kind, caught.value
    return caught.value


def test_devices(registry: Registry) -> None:
    created = registry("create", {"deviceId": "node-1", "status": "enabled", "authentication": SAS})
    assert created["authentication"]["symmetricKey"]["primaryKey"] == KEY
    assert registry("get", "node-1") == created
    updated = registry("update", {**created, "status": "disabled", "statusReason": "sold"})
    assert (updated["status"], updated["statusReason"]) == ("disabled", "sold")
    assert "node-1" in [device["deviceId"] for device in registry("list")]
    fails("DeviceAlreadyExistsError", registry, "create", {"deviceId": "node-1"})
    registry("delete", "node-1")
    fails("DeviceNotFoundError", registry, "get", "node-1")
    fails("DeviceNotFoundError", registry, "delete", "node-1")


def test_every_authentication(registry: Registry) -> None:
    thumbprints = {"x509Thumbprint": {"primaryThumbprint": "AB" * 20, "secondaryThumbprint": "CD" * 20}}
    self_signed = registry("create", {"deviceId": "node-x509", "authentication": thumbprints})
    assert self_signed["authentication"]["type"] == "selfSigned"
    authority = registry("create", {"deviceId": "node-ca", "authentication": {"type": "certificateAuthority"}})
    assert authority["authentication"]["type"] == "certificateAuthority"
    made = registry("create", {"deviceId": "node-made"})
    assert len(base64.b64decode(made["authentication"]["symmetricKey"]["secondaryKey"])) == 32


def test_modules(registry: Registry) -> None:
    registry("create", {"deviceId": "node-2"})
    registry("addModule", {"deviceId": "node-2", "moduleId": "m", "managedBy": "me", "authentication": SAS})
    module = registry("getModule", "node-2", "m")
    assert (module["managedBy"], module["authentication"]["symmetricKey"]["primaryKey"]) == ("me", KEY)
    assert [one["moduleId"] for one in registry("getModulesOnDevice", "node-2")] == ["m"]
    registry("updateModule", {**module, "managedBy": "you"})
    fails("InvalidEtagError", registry, "updateModule", module)
    registry("updateModule", {**module, "managedBy": "them"}, True)
    assert registry("getModule", "node-2", "m")["managedBy"] == "them"
    registry("removeModule", "node-2", "m")
    assert fails("Error", registry, "getModule", "node-2", "m").text == "Not found"


def test_many_devices(registry: Registry) -> None:
    devices = [{"deviceId": f"node-bulk-{number}", "status": "enabled", "authentication": SAS} for number in (1, 2)]
    assert registry("addDevices", devices) == {"isSuccessful": True, "errors": [], "warnings": []}
    stored = registry("get", "node-bulk-1")
    assert registry("updateDevices", [{**stored, "status": "disabled"}], False)["isSuccessful"]
    fails("ArgumentError", registry, "updateDevices", [{**stored, "status": "enabled"}], False)  # its tag is stale
    fails("ArgumentError", registry, "addDevices", devices)
    assert registry("removeDevices", devices, True)["isSuccessful"]
    fails("DeviceNotFoundError", registry, "get", "node-bulk-2")


def test_statistics(registry: Registry) -> None:
    found = registry("getRegistryStatistics")
    assert found["totalDeviceCount"] == found["enabledDeviceCount"] + found["disabledDeviceCount"]


def test_imports_and_exports_are_refused(registry: Registry) -> None:
    container = "https://acct.blob.example/identities?sv=2021"
    for method, given in (
        ("exportDevicesToBlob", (container, True)),
        ("importDevicesFromBlob", (container, container)),
    ):
        error = fails("ArgumentError", registry, method, *given)
        assert "BlobContainerValidationError" in error.body
    assert registry("listJobs") == []
    with pytest.raises(SdkError) as caught:
        registry("getJob", "0123")
    assert "JobNotFound" in caught.value.body
