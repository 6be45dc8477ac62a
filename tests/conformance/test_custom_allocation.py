"""What a custom allocation webhook returns for the device arrives there, with the unmodified clients."""

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient
from tests.support.fix_node import OpenNodeClient
from tests.support.fix_server import ID_SCOPE, MusterServer

KEY = base64.b64encode(bytes(range(32))).decode()
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
PAYLOAD = {"hall": 4, "setpoints": [20.5, 21], "note": "ü", "nested": {"ok": True, "nothing": None}}
TRANSPORTS = ("http", "mqtt", "mqtt-ws")


class Webhook:
    """A webhook on loopback: every device goes to ``host``, with ``PAYLOAD``."""

    def __init__(self, host: str) -> None:
        self.asked: dict[str, dict[str, Any]] = {}
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                webhook.asked[request["deviceRuntimeContext"]["registrationId"]] = request
                answer = json.dumps({"iotHubHostName": host, "payload": PAYLOAD}).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/allocate?code=secret"


@pytest.fixture(scope="module")
def webhook(muster: MusterServer) -> Iterator[Webhook]:
    running = Webhook(muster.address)
    thread = threading.Thread(target=running.server.serve_forever, daemon=True)
    thread.start()
    yield running
    running.server.shutdown()
    running.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def custom(webhook: Webhook) -> dict[str, Any]:
    """What an enrollment needs to ask it."""
    definition = {"webhookUrl": webhook.url, "apiVersion": "2021-10-01"}
    return {"attestation": SYMMETRIC, "allocationPolicy": "custom", "customAllocationDefinition": definition}


@pytest.mark.parametrize("options", [{}, {"api": "aio"}, {"websockets": True}], ids=["mqtt", "aio", "mqtt-ws"])
def test_python(
    clients: OpenClient,
    https: HttpsClient,
    webhook: Webhook,
    custom: dict[str, Any],
    options: dict[str, Any],
) -> None:
    name = f"payload-python-{'-'.join(options) or 'mqtt'}"
    https.enroll_by(name, **custom)
    result = clients("device.py").call(
        "register",
        registration_id=name,
        id_scope=ID_SCOPE,
        symmetric_key=KEY,
        payload={"model": "ü"},
        **options,
    )
    assert result["status"] == "assigned"
    assert json.loads(result["payload"]) == PAYLOAD
    assert webhook.asked[name]["deviceRuntimeContext"]["payload"] == {"model": "ü"}


def test_node(
    muster: MusterServer, node_clients: OpenNodeClient, https: HttpsClient, webhook: Webhook, custom: dict[str, Any]
) -> None:
    names = {transport: f"payload-node-{transport}" for transport in TRANSPORTS}
    for name in names.values():
        https.enroll_by(name, **custom)
    results = node_clients("device.js").values(
        "register",
        [
            {
                "registrationId": name,
                "idScope": ID_SCOPE,
                "transport": transport,
                "symmetricKey": KEY,
                "payload": {"model": transport},
            }
            for transport, name in names.items()
        ],
    )
    assert [result["payload"] for result in results] == [PAYLOAD] * len(TRANSPORTS)
    assert {result["assignedHub"] for result in results} == {muster.address}
    sent = [webhook.asked[name]["deviceRuntimeContext"]["payload"] for name in names.values()]
    assert sent == [{"model": transport} for transport in TRANSPORTS]
