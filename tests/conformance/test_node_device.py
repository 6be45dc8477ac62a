"""The unmodified azure-iot-device for Node.js connects to the hub with every credential that there is."""

import base64
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_checks import Explain, provokes
from tests.support.fix_clients import HttpsClient, SdkError
from tests.support.fix_node import NodeClient, OpenNodeClient
from tests.support.fix_pki import Identity, chain_leaf, intermediate, other_self_signed, self_signed
from tests.support.fix_server import MusterServer

from muster.pki.certificate import sha1_thumbprint, sha256_thumbprint

KEY = base64.b64encode(bytes(range(32))).decode()
KEY_2 = base64.b64encode(bytes(range(32, 64))).decode()
SAS = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY_2}}
TRANSPORTS = ("mqtt", "mqtt-ws", "amqp", "amqp-ws")


@pytest.fixture(scope="module")
def device(node_clients: OpenNodeClient) -> NodeClient:
    return node_clients("device.js")


def files(identity: Identity, directory: Path) -> dict[str, str]:
    certificate, key = identity.write(directory)
    return {"certificate": str(certificate), "key": str(key)}


def sends(https: HttpsClient, device: NodeClient, device_id: str, **login: Any) -> dict[str, Any]:
    """The event of a message that went from a new connection into the log."""
    device.call("connect", connection=device_id, deviceId=device_id, **login)
    device.call("send", connection=device_id, body="x")
    device.call("close", connection=device_id)
    event: dict[str, Any] = https.events(device_id, 1)[0]
    return event


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("key", [KEY, KEY_2], ids=["primary", "secondary"])
def test_keys(https: HttpsClient, device: NodeClient, transport: str, key: str) -> None:
    device_id = f"node-{transport}-{'primary' if key == KEY else 'secondary'}"
    https.create_device(device_id, authentication=SAS)
    event = sends(https, device, device_id, transport=transport, symmetricKey=key)
    assert event["connectionAuthMethod"].startswith('{"scope":"device","type":"sas"')


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_module(https: HttpsClient, device: NodeClient, transport: str) -> None:
    device_id = f"node-module-{transport}"
    https.create_device(device_id, authentication=SAS)
    body = {"deviceId": device_id, "moduleId": "gauge", "authentication": SAS}
    assert https.request("PUT", f"/devices/{device_id}/modules/gauge?api-version=2021-04-12", body).status == 200
    event = sends(https, device, device_id, transport=transport, moduleId="gauge", symmetricKey=KEY)
    assert event["moduleId"] == "gauge"


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("digest", [sha1_thumbprint, sha256_thumbprint], ids=["SHA-1", "SHA-256"])
def test_thumbprints(https: HttpsClient, device: NodeClient, tmp_path: Path, digest: Any, transport: str) -> None:
    identity = self_signed("node")
    thumbprints = {"primaryThumbprint": None, "secondaryThumbprint": digest(identity.certificate)}
    device_id = f"node-{digest.__name__}-{transport}"
    https.create_device(device_id, authentication={"type": "selfSigned", "x509Thumbprint": thumbprints})
    event = sends(https, device, device_id, transport=transport, **files(identity, tmp_path))
    assert event["connectionAuthMethod"].startswith('{"scope":"device","type":"x509Certificate"')


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_properties(https: HttpsClient, device: NodeClient, transport: str) -> None:
    device_id = f"node-bag-{transport}"
    https.create_device(device_id, authentication=SAS)
    device.call("connect", connection=device_id, deviceId=device_id, transport=transport, symmetricKey=KEY)
    system = {
        "messageId": "m-1",
        "correlationId": "1f0a8c0e-3a8e-4c5b-9d52-0123456789ab",
        "contentType": "application/json",
        "contentEncoding": "utf-8",
    }
    properties = {"größe": "50 %", "path": "a/b?c=d&e"}
    device.call("send", connection=device_id, body='{"t":1}', properties=properties, **system)
    device.call("close", connection=device_id)
    (event,) = https.events(device_id, 1)
    assert (event["body"], event["applicationProperties"]) == ({"t": 1}, properties)
    assert system_properties(event) == {
        "message-id": "m-1",
        "correlation-id": "1f0a8c0e-3a8e-4c5b-9d52-0123456789ab",
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }


def system_properties(event: dict[str, Any]) -> dict[str, str]:
    """Without the address, which this SDK writes over AMQP alone."""
    found: dict[str, str] = event["systemProperties"]
    return {name: value for name, value in found.items() if name != "to"}


@provokes("device.common-name")
def test_a_certificate_of_a_ca(
    muster: MusterServer, https: HttpsClient, device: NodeClient, explain: Explain, tmp_path: Path
) -> None:
    authority = tmp_path / "line.pem"
    authority.write_bytes(intermediate().certificate_pem)
    hub = muster.cli_json("hub", "list")[0]["name"]
    muster.cli("certificate", "upload", str(authority), "--verify", "--hub", hub)
    https.create_device("node-ca", authentication={"type": "certificateAuthority"})
    assert sends(https, device, "node-ca", **files(chain_leaf("node-ca"), tmp_path))["deviceId"] == "node-ca"
    https.create_device("node-other", authentication={"type": "certificateAuthority"})
    refused(muster, device, "node-other", "x509.issuer-known", **files(other_self_signed("node-other"), tmp_path))
    refused(muster, device, "node-other", "device.common-name", **files(chain_leaf("node-ca"), tmp_path))
    explain(muster, "node-other", "device.common-name")


def refused(muster: MusterServer, device: NodeClient, device_id: str, check_id: str, **login: Any) -> None:
    """The SDK says that it is not authorized, and `muster why` says why."""
    with pytest.raises(SdkError) as caught:
        device.call("connect", connection=device_id, deviceId=device_id, **login)
    assert caught.value.kind == "UnauthorizedError", caught.value
    report = muster.cli_json("why", device_id)[0]
    assert [item["id"] for item in report["checks"] if item["outcome"] == "refused"] == [check_id]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_what_is_refused(muster: MusterServer, https: HttpsClient, device: NodeClient, transport: str) -> None:
    names = [f"node-{what}-{transport}" for what in ("wrong", "unknown", "off")]
    https.create_device(names[0], authentication=SAS)
    wrong = base64.b64encode(bytes(32)).decode()
    refused(muster, device, names[0], "sas.signature", transport=transport, symmetricKey=wrong)
    refused(muster, device, names[1], "device.exists", transport=transport, symmetricKey=KEY)
    https.create_device(names[2], authentication=SAS, status="disabled")
    refused(muster, device, names[2], "device.enabled", transport=transport, symmetricKey=KEY)


@pytest.mark.parametrize("transport", ["amqp", "amqp-ws"])
def test_a_certificate_that_is_refused_over_amqp(
    muster: MusterServer, https: HttpsClient, device: NodeClient, tmp_path: Path, transport: str
) -> None:
    """There it is judged when a link is attached, and not before."""
    device_id = f"node-other-{transport}"
    certificate = self_signed("node").certificate
    thumbprints = {"primaryThumbprint": sha256_thumbprint(certificate), "secondaryThumbprint": None}
    https.create_device(device_id, authentication={"type": "selfSigned", "x509Thumbprint": thumbprints})
    login = files(other_self_signed("node"), tmp_path)
    device.call("connect", connection=device_id, deviceId=device_id, transport=transport, **login)
    with pytest.raises(SdkError) as caught:
        device.call("send", connection=device_id, body="x")
    assert caught.value.kind == "UnauthorizedError", caught.value
    report = muster.cli_json("why", device_id)[0]
    assert [item["id"] for item in report["checks"] if item["outcome"] == "refused"] == ["device.thumbprint"]
    device.call("close", connection=device_id)
