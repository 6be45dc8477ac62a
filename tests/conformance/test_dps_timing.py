"""When the unmodified SDKs ask, as dps.md 9.3 has it, read off the wire; and the options that they have (9.1)."""

import base64
import http.server
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.fix_checks import Wire
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient
from tests.support.fix_node import NodeClient, OpenNodeClient
from tests.support.fix_server import ID_SCOPE, MusterServer

KEY = base64.b64encode(bytes(range(32))).decode()
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
SLOW = ("slow-py", "slow-aio")


@pytest.fixture(scope="module")
def muster(traced_muster: MusterServer) -> MusterServer:
    return traced_muster


@pytest.fixture(scope="module")
def slow_webhook(muster: MusterServer) -> Iterator[str]:
    """The URL of one that answers when the device has asked once, and was told to ask again."""
    wire = Wire(muster)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            name = request["deviceRuntimeContext"]["registrationId"]
            while len(wire.moments(name)) < 4:
                time.sleep(0.1)
            body = json.dumps({"iotHubHostName": muster.address}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def device(clients: OpenClient) -> SdkClient:
    return clients("device.py")


@pytest.fixture(scope="module")
def node(node_clients: OpenNodeClient) -> NodeClient:
    return node_clients("device.js")


def arguments(registration_id: str, **more: Any) -> dict[str, Any]:
    return {"registration_id": registration_id, "id_scope": ID_SCOPE, "symmetric_key": KEY, **more}


def require_moments(found: list[tuple[str, float]], *expected: tuple[str, float]) -> None:
    """These words, none before its second; later by as much as a busy machine takes."""
    assert [word for word, _ in found] == [word for word, _ in expected], found
    for (word, moment), (_, second) in zip(found, expected, strict=True):
        assert second - 0.1 < moment, (word, found)


def test_how_they_poll(
    muster: MusterServer, https: HttpsClient, device: SdkClient, node: NodeClient, slow_webhook: str
) -> None:
    """Python waits 2 s, whatever ``retry-after`` says, and then as long as that; Node.js as long from the start."""
    custom = {"webhookUrl": slow_webhook, "apiVersion": "2021-10-01"}
    https.enroll_by("paced-node", attestation=SYMMETRIC)
    for name in SLOW:
        https.enroll_by(name, attestation=SYMMETRIC, allocationPolicy="custom", customAllocationDefinition=custom)
    futures = [
        device.start("register", **arguments("slow-py")),
        device.start("register", **arguments("slow-aio", api="aio")),
        node.start("register", registrationId="paced-node", idScope=ID_SCOPE, transport="mqtt", symmetricKey=KEY),
    ]
    assert [future.result(120)["status"] for future in futures] == ["assigned"] * 3
    wire = Wire(muster)
    slow = (("PUT", 0.0), ("202", 0.0), ("GET", 2.0), ("202", 2.0), ("GET", 5.0), ("200", 5.0))
    for name in SLOW:
        require_moments(wire.moments(name), *slow)
    require_moments(wire.moments("paced-node"), ("PUT", 0.0), ("202", 0.0), ("GET", 3.0), ("200", 3.0))


def test_what_python_can_be_told(muster: MusterServer, https: HttpsClient, device: SdkClient) -> None:
    """Another host on the way, the CA by its text, a keep-alive, a life of tokens, a cipher; and TLS 1.2, always."""
    options: dict[str, dict[str, Any]] = {
        "py-gateway": {
            "provisioning_host": "dps.example.net",
            "gateway_hostname": muster.address,
        },
        "py-ca": {"server_verification_cert": muster.ca_file.read_text()},
        "py-alive": {"keep_alive": 1740, "sastoken_ttl": 600},
        "py-cipher": {"cipher": "ECDHE-ECDSA-AES256-GCM-SHA384"},
    }
    for name in options:
        https.enroll_by(name, attestation=SYMMETRIC)
    results = device.values("register", [arguments(name, **more) for name, more in options.items()])
    assert [result["deviceId"] for result in results] == list(options)
    for name in options:
        assert Wire(muster).connection(name).peer.split(" server name")[0].endswith(" TLSv1.2")


def test_another_port(muster: MusterServer, https: HttpsClient, node: NodeClient) -> None:
    """Node.js takes a port in the host over plain MQTT; any TLS port of ours speaks it."""
    https.enroll_by("node-port", attestation=SYMMETRIC)
    host = f"{muster.address}:5671"
    names = {"registrationId": "node-port", "idScope": ID_SCOPE}
    result = node.call("register", **names, transport="mqtt", symmetricKey=KEY, host=host)
    assert (result["status"], result["assignedHub"]) == ("assigned", muster.address)
    assert f" -> {host} " in Wire(muster).connection("node-port").peer
