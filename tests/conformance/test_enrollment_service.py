"""The unmodified azure-iothub-provisioningserviceclient manages individual enrollments."""

import base64
import re
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fix_clients import OpenClient, SdkClient, SdkError
from tests.support.fix_pki import other_self_signed, self_signed, tutorial_files
from tests.support.fix_server import DEVELOPMENT_KEY, ID_SCOPE, MusterServer, StartServer

from muster.pki.certificate import sha1_thumbprint, sha256_thumbprint

KEY = base64.b64encode(bytes(32)).decode()
DEVICE = self_signed("service-sdk")
OTHER = other_self_signed("service-sdk")
PEM = DEVICE.certificate_pem.decode()
OTHER_PEM = OTHER.certificate_pem.decode()

Service = Callable[..., Any]


@pytest.fixture(scope="module")
def service(muster: MusterServer, clients: OpenClient) -> Service:
    """Does one operation of the service client, as the owner or otherwise."""
    script = clients("enrollments.py")

    def call(
        operation: str, *, policy: str = "provisioningserviceowner", key: str = DEVELOPMENT_KEY, **arguments: Any
    ) -> Any:
        connection_string = f"HostName={muster.address};SharedAccessKeyName={policy};SharedAccessKey={key}"
        return script.call(operation, connection_string=connection_string, **arguments)

    return call


def fails(status: int, code: int, service: Service, operation: str, **arguments: Any) -> None:
    """The SDK raises its own error with this status, and the body has this code."""
    with pytest.raises(SdkError) as caught:
        service(operation, **arguments)
    assert caught.value.kind == "ProvisioningServiceError"
    assert caught.value.text.startswith(f"Service Error {status} - ")
    assert caught.value.status == status
    assert caught.value.json["errorCode"] == code


def info(enrollment: Any, slot: str = "primary") -> Any:
    return enrollment["attestation"]["x509"]["clientCertificates"][slot]["info"]


def test_create_and_read(muster: MusterServer, service: Service) -> None:
    assert muster.provisioning_connection_string.startswith(f"HostName={muster.address};")
    created = service("create", registration_id="svc-1", certificate=PEM)
    assert created["registrationId"] == "svc-1"
    assert created["provisioningStatus"] == "enabled"
    assert created["createdDateTimeUtc"] == created["lastUpdatedDateTimeUtc"]
    assert re.fullmatch(rb'"[0-9a-f-]{36}"', base64.b64decode(created["etag"]))
    assert created["reprovisionPolicy"] == {"updateHubAssignment": True, "migrateDeviceData": True}
    assert created["capabilities"] == {"iotEdge": False}
    assert info(created)["subjectName"] == "CN=service-sdk"
    assert info(created)["sha1Thumbprint"] == sha1_thumbprint(DEVICE.certificate)
    assert info(created)["sha256Thumbprint"] == sha256_thumbprint(DEVICE.certificate)
    assert service("get", registration_id="SVC-1") == created


def test_all_that_a_model_holds(muster: MusterServer, service: Service) -> None:
    twin = {"tags": {"site": "A", "list": [1, 2]}, "desired": {"interval": 30, "nested": {"a": None, "b": "x"}}}
    created = service(
        "create",
        registration_id="svc-all",
        certificate=PEM,
        secondary=OTHER_PEM,
        twin=twin,
        device_id="pump-7",
        provisioning_status="disabled",
        device_capabilities={"iot_edge": True},
        reprovision_policy={"update_hub_assignment": False, "migrate_device_data": False},
        allocation_policy="static",
        iot_hubs=[muster.address],
    )
    assert created["deviceId"] == "pump-7"
    assert created["provisioningStatus"] == "disabled"
    assert created["capabilities"] == {"iotEdge": True}
    assert created["reprovisionPolicy"] == {"updateHubAssignment": False, "migrateDeviceData": False}
    assert (created["allocationPolicy"], created["iotHubs"]) == ("static", [muster.address])
    assert created["initialTwin"]["tags"] == twin["tags"]
    assert info(created, "secondary")["sha1Thumbprint"] == sha1_thumbprint(OTHER.certificate)
    assert service("get", registration_id="svc-all") == created


def test_an_update_keeps_what_it_does_not_change(service: Service) -> None:
    """What the SDK read goes back as a whole, with the certificate's ``info`` and without the certificate."""
    created = service(
        "create", registration_id="svc-2", certificate=PEM, secondary=OTHER_PEM, twin={"tags": {"a": 1}, "desired": {}}
    )
    updated = service("change", registration_id="svc-2", device_id="pump-2", provisioning_status="disabled")
    assert updated["deviceId"] == "pump-2"
    assert updated["provisioningStatus"] == "disabled"
    assert updated["attestation"] == created["attestation"]
    assert updated["initialTwin"] == created["initialTwin"]
    assert updated["createdDateTimeUtc"] == created["createdDateTimeUtc"]
    assert updated["lastUpdatedDateTimeUtc"] > created["lastUpdatedDateTimeUtc"]
    assert updated["etag"] != created["etag"]
    assert service("change", registration_id="svc-2")["attestation"] == created["attestation"]


def test_a_stale_tag(service: Service) -> None:
    etag = service("create", registration_id="svc-3", certificate=PEM)["etag"]
    service("change", registration_id="svc-3", device_id="pump-3")
    fails(412, 412001, service, "change", registration_id="svc-3", etag=etag, device_id="other")
    fails(412, 412001, service, "delete", registration_id="svc-3", etag=etag)
    assert service("get", registration_id="svc-3")["deviceId"] == "pump-3"


def test_deleting(service: Service) -> None:
    service("create", registration_id="svc-4", certificate=PEM)
    assert service("delete_model", registration_id="svc-4") is None
    fails(404, 404201, service, "get", registration_id="svc-4")
    fails(404, 404201, service, "delete", registration_id="svc-4")
    service("create", registration_id="svc-4", certificate=PEM)
    service("delete", registration_id="svc-4")


FORMS: dict[str, Callable[[str], str]] = {
    "PEM": lambda pem: pem,
    "PEM stripped": lambda pem: pem.rstrip(),
    "base64 of the PEM": lambda pem: base64.b64encode(pem.encode()).decode(),
    "base64 of the DER": lambda pem: "".join(pem.splitlines()[1:-1]),
    "base64 of the DER in lines": lambda pem: "\r\n".join(pem.splitlines()[1:-1]),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_a_certificate(service: Service, form: str) -> None:
    """interop-facts.md 16; the tutorial's is RSA-4096 by openssl."""
    for number, pem in enumerate((PEM, tutorial_files().certificate.read_text())):
        created = service("create", registration_id=f"form-{number}", certificate=FORMS[form](pem))
        assert info(created)["version"] == 3
    assert info(created)["subjectName"] == "CN=raspberrypi-b"


def test_what_is_refused(service: Service) -> None:
    fails(400, 400004, service, "create", registration_id="bad-1", certificate="no certificate")
    fails(400, 400004, service, "create", registration_id="bad 2", certificate=PEM)
    fails(400, 400004, service, "create", registration_id="bad-3", certificate=PEM, iot_hubs=["elsewhere.example.net"])
    fails(400, 400004, service, "create", registration_id="bad-4", certificate=PEM, allocation_policy="custom")
    twin = {"tags": {"a.b": 1}, "desired": {}}
    fails(400, 400004, service, "create", registration_id="bad-5", certificate=PEM, twin=twin)
    fails(404, 404201, service, "get", registration_id="bad-1")


def test_wrong_keys_and_policies(muster: MusterServer, service: Service) -> None:
    fails(401, 401002, service, "get", registration_id="auth-1", key=KEY)
    fails(401, 401002, service, "get", registration_id="auth-2", policy="nobody")
    fails(401, 401002, service, "get", registration_id="auth-3", policy="iothubowner")  # of the hub
    for subject, check_id in (("auth-1", "sas.signature"), ("auth-2", "sas.policy"), ("auth-3", "sas.policy")):
        report = muster.cli_json("why", f"/enrollments/{subject}")[0]
        refused = [item for item in report["checks"] if item["outcome"] == "refused"]
        assert [item["id"] for item in refused] == [check_id]
        assert refused[0]["fix"]


def test_registration_states(muster: MusterServer, service: Service, clients: OpenClient) -> None:
    certificate, key = DEVICE.write(muster.directory, "svc-state")
    service("create", registration_id="service-sdk", certificate=PEM)
    fails(404, 404202, service, "get_state", registration_id="service-sdk")
    assert "registrationState" not in service("get", registration_id="service-sdk")
    result = clients("device.py").call(
        "register", registration_id="service-sdk", id_scope=ID_SCOPE, certificate=str(certificate), key=str(key)
    )
    state = service("get_state", registration_id="service-sdk")
    assert state["status"] == "assigned"
    assert state["assignedHub"] == muster.address
    assert state["etag"] == result["etag"]
    assert service("get", registration_id="service-sdk")["registrationState"]["deviceId"] == "service-sdk"
    fails(412, 412001, service, "delete_state", registration_id="service-sdk", etag="c3RhbGU=")
    service("delete_state", registration_id="service-sdk", etag=state["etag"])
    fails(404, 404202, service, "get_state", registration_id="service-sdk")


def test_paging(start_server: StartServer) -> None:
    """Five enrollments, two a page, on a server of its own."""
    server = start_server()
    with SdkClient(server, "enrollments.py") as script:
        connection = {"connection_string": server.provisioning_connection_string}
        assert script.call("pages", size=2, **connection) == []
        for number in (4, 2, 5, 1, 3):
            script.call("create", registration_id=f"page-{number}", certificate=PEM, **connection)
        assert script.call("pages", size=2, **connection) == [["page-1", "page-2"], ["page-3", "page-4"], ["page-5"]]
        assert script.call("pages", size=5, **connection) == [[f"page-{number}" for number in range(1, 6)]]
