"""The unmodified azure-iot-device registers with certificates, and connects to the hub it was assigned."""

import base64
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient
from tests.support.fix_pki import (
    Identity,
    ca_leaf,
    chain_leaf,
    other_self_signed,
    self_signed,
    tutorial_files,
    version_1,
)
from tests.support.fix_server import ID_SCOPE, MusterServer

TWIN: dict[str, Any] = {
    "tags": {"site": "A", "list": [1, 2]},
    "properties": {"desired": {"interval": 30, "mode": {"fast": True}}},
}
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z")


@dataclass(frozen=True)
class Device:
    """A registration id with the files that a device has on its disk."""

    registration_id: str
    certificate: Path
    key: Path
    pass_phrase: str | None = None

    @property
    def credential(self) -> dict[str, Any]:
        return {"certificate": str(self.certificate), "key": str(self.key), "pass_phrase": self.pass_phrase}

    def registration(self, **options: Any) -> dict[str, Any]:
        """The arguments of a registration."""
        return {"registration_id": self.registration_id, "id_scope": ID_SCOPE, **self.credential, **options}


MakeDevice = Callable[..., Device]


@pytest.fixture(scope="module")
def device(clients: OpenClient) -> SdkClient:
    return clients("device.py")


@pytest.fixture(scope="module")
def enrolled(https: HttpsClient, tmp_path_factory: pytest.TempPathFactory) -> MakeDevice:
    """Enrolls a certificate, and writes its files as the device has them."""

    def make(registration_id: str, identity: Identity | None = None, **members: object) -> Device:
        identity = identity or self_signed(registration_id)
        https.enroll(registration_id, identity.certificate_pem.decode(), **members)
        certificate, key = identity.write(tmp_path_factory.mktemp("device"))
        return Device(registration_id, certificate, key)

    return make


def service_state(https: HttpsClient, registration_id: str) -> Any:
    return https.request("GET", f"/registrations/{registration_id}?api-version=2021-10-01").json


def test_the_tutorial(muster: MusterServer, https: HttpsClient, device: SdkClient) -> None:
    """RSA-4096 by its openssl command, pass phrase 1234: register, connect with the same files, send."""
    files = tutorial_files()
    https.enroll("raspberrypi-b", files.certificate.read_text(), initialTwin=TWIN)
    raspberry = Device("raspberrypi-b", files.certificate, files.key, files.pass_phrase)
    result = device.call("register", **raspberry.registration())

    state = service_state(https, "raspberrypi-b")
    assert re.fullmatch(r"5\.[0-9a-f]{16}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", result["operationId"])
    assert result["text"] == f"raspberrypi-b\n{muster.address}\ninitialAssignment\nnull\nassigned"
    assert (result["status"], result["subStatus"]) == ("assigned", "initialAssignment")
    assert result["assignedHub"] == state["assignedHub"] == muster.address
    assert result["deviceId"] == state["deviceId"] == "raspberrypi-b"
    assert result["etag"] == state["etag"]
    assert re.fullmatch(rb'"[0-9a-f-]{36}"', base64.b64decode(result["etag"]))
    assert result["created"] == state["createdDateTimeUtc"]
    assert result["lastUpdated"] == state["lastUpdatedDateTimeUtc"]
    assert TIME.fullmatch(result["created"])
    assert TIME.fullmatch(result["lastUpdated"])
    assert result["payload"] == "null"

    device.call("connect", connection="raspberry", device_id=result["deviceId"], **raspberry.credential)
    device.call("send", connection="raspberry", messages=[{"body": '{"host":"raspberrypi","address":"192.0.2.7"}'}])
    device.call("close", connection="raspberry")
    assert https.events("raspberrypi-b", 1)[0]["body"] == {"host": "raspberrypi", "address": "192.0.2.7"}

    twin = https.request("GET", "/twins/raspberrypi-b?api-version=2021-04-12").json
    assert twin["tags"] == TWIN["tags"]
    desired = twin["properties"]["desired"]
    assert {name: value for name, value in desired.items() if name[0] != "$"} == TWIN["properties"]["desired"]
    assert twin["authenticationType"] == "selfSigned"


WAYS = [{"api": api, "websockets": websockets} for api in ("sync", "aio") for websockets in (False, True)]


def test_every_way_to_register(https: HttpsClient, device: SdkClient, enrolled: MakeDevice) -> None:
    """Both APIs, over MQTT and over WebSocket; then the hub in the same way."""
    devices = [enrolled(f"way-{number}") for number in range(len(WAYS))]
    results = device.values("register", [one.registration(**way) for one, way in zip(devices, WAYS, strict=True)])
    assert [result["status"] for result in results] == ["assigned"] * len(WAYS)
    connections = [
        {"connection": one.registration_id, "device_id": one.registration_id, **one.credential, **way}
        for one, way in zip(devices, WAYS, strict=True)
    ]
    device.values("connect", connections)
    for one in devices:
        device.call("send", connection=one.registration_id, messages=[{"body": one.registration_id}])
        assert https.is_connected(one.registration_id)
        device.call("close", connection=one.registration_id)
        assert https.events(one.registration_id, 1)[0]["body"] == one.registration_id


def test_certificates_that_are_odd_and_good_enough(device: SdkClient, enrolled: MakeDevice) -> None:
    """A CA's extensions, a chain behind the leaf, X.509 version 1: an individual enrollment asks for its thumbprint."""
    devices = [
        enrolled("odd-ca", ca_leaf("odd-ca")),
        enrolled("odd-chain", chain_leaf("odd-chain")),
        enrolled("odd-v1", version_1("odd-v1")),
    ]
    results = device.values("register", [one.registration() for one in devices])
    assert [result["status"] for result in results] == ["assigned"] * 3


def test_both_slots_and_registering_again(https: HttpsClient, device: SdkClient, enrolled: MakeDevice) -> None:
    """Each certificate registers, and then connects; the hub knows the one that registered last."""
    first = enrolled("slots")
    other = other_self_signed("slots")
    certificate, key = other.write(first.certificate.parent, "other")
    certificates = {
        "primary": {"certificate": first.certificate.read_text()},
        "secondary": {"certificate": certificate.read_text()},
    }
    attestation = {"type": "x509", "x509": {"clientCertificates": certificates}}
    https.enroll("slots", "", attestation=attestation)
    second = Device("slots", certificate, key)
    results = []
    for one in (first, second):
        results.append(device.call("register", **one.registration()))
        device.call("connect", connection="slots", device_id="slots", **one.credential)
        device.call("close", connection="slots")
    before, after = results
    assert after["operationId"] != before["operationId"]
    assert after["operationId"].rpartition(".")[0] == before["operationId"].rpartition(".")[0]
    assert after["created"] == before["created"]
    assert after["lastUpdated"] > before["lastUpdated"]
    assert after["etag"] != before["etag"]
    assert after["subStatus"] == "initialAssignment"


def test_registering_leaves_the_twin_of_a_known_device_alone(
    https: HttpsClient, device: SdkClient, enrolled: MakeDevice
) -> None:
    one = enrolled("twin-1", initialTwin={"tags": {"turn": 1}})
    device.call("register", **one.registration())
    enrolled("twin-1", initialTwin={"tags": {"turn": 2}})
    device.call("register", **one.registration())
    assert https.request("GET", "/twins/twin-1?api-version=2021-04-12").json["tags"] == {"turn": 1}


def test_many_at_once(https: HttpsClient, device: SdkClient, enrolled: MakeDevice) -> None:
    """Eight devices together, one of them four times."""
    devices = [enrolled(f"many-{number}") for number in range(8)]
    requests = [one.registration() for one in devices] + [devices[0].registration()] * 3
    results = device.values("register", requests)
    assert [result["status"] for result in results] == ["assigned"] * len(requests)
    assert {result["deviceId"] for result in results[8:]} == {"many-0"}
    listed = https.request("GET", "/devices?api-version=2021-04-12").json
    assert {one.registration_id for one in devices} <= {item["deviceId"] for item in listed}


def test_case_and_device_id(https: HttpsClient, device: SdkClient, enrolled: MakeDevice) -> None:
    """Registration ids ignore case and are shown as enrolled; the enrollment may name another device id."""
    mixed = enrolled("Case-1")
    upper = Device("CASE-1", mixed.certificate, mixed.key)
    named = enrolled("named-1", deviceId="Pump-7")
    results = device.values("register", [upper.registration(), named.registration()])
    assert [result["deviceId"] for result in results] == ["Case-1", "Pump-7"]
    assert service_state(https, "case-1")["registrationId"] == "Case-1"
    # The hub compares thumbprints, and does not ask for the common name.
    device.call("connect", connection="pump", device_id="Pump-7", **named.credential)
    device.call("close", connection="pump")


def test_a_payload_for_the_service(device: SdkClient, enrolled: MakeDevice) -> None:
    one = enrolled("payload-1")
    result = device.call("register", **one.registration(payload={"model": "ü", "list": [1, None]}))
    assert result["status"] == "assigned"
    assert result["payload"] == "null"  # it would be what a webhook answers


def test_after_a_change_of_the_enrollment(https: HttpsClient, device: SdkClient, enrolled: MakeDevice) -> None:
    """A new device id counts when the registration record was deleted (dps.md 4.9)."""
    one = enrolled("moved-1")
    assert device.call("register", **one.registration())["deviceId"] == "moved-1"
    enrolled("moved-1", deviceId="moved-2")
    assert device.call("register", **one.registration())["deviceId"] == "moved-1"
    assert https.request("DELETE", "/registrations/moved-1?api-version=2021-10-01").status == 204
    assert device.call("register", **one.registration())["deviceId"] == "moved-2"
    assert https.request("GET", "/devices/moved-1?api-version=2021-04-12").status == 200
