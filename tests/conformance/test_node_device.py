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
TRANSPORTS = ("mqtt", "mqtt-ws")


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


@pytest.mark.parametrize("digest", [sha1_thumbprint, sha256_thumbprint], ids=["SHA-1", "SHA-256"])
def test_thumbprints(https: HttpsClient, device: NodeClient, tmp_path: Path, digest: Any) -> None:
    identity = self_signed("node")
    thumbprints = {"primaryThumbprint": None, "secondaryThumbprint": digest(identity.certificate)}
    device_id = f"node-{digest.__name__}"
    https.create_device(device_id, authentication={"type": "selfSigned", "x509Thumbprint": thumbprints})
    event = sends(https, device, device_id, **files(identity, tmp_path))
    assert event["connectionAuthMethod"].startswith('{"scope":"device","type":"x509Certificate"')


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


def test_what_is_refused(muster: MusterServer, https: HttpsClient, device: NodeClient) -> None:
    https.create_device("node-wrong", authentication=SAS)
    wrong = base64.b64encode(bytes(32)).decode()
    refused(muster, device, "node-wrong", "sas.signature", symmetricKey=wrong)
    refused(muster, device, "node-unknown", "device.exists", symmetricKey=KEY)
    https.create_device("node-off", authentication=SAS, status="disabled")
    refused(muster, device, "node-off", "device.enabled", symmetricKey=KEY)
