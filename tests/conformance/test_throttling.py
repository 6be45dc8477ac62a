"""Unmodified clients that are told to come again later: who backs off by itself succeeds, and who does not is told so.

The rates are far below any of Azure's, so that two devices are too many.
"""

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_node import NodeClient, OpenNodeClient
from tests.support.fix_server import ID_SCOPE, MusterServer, free_address

from muster.domain.sas import derive_device_key

KEY = base64.b64encode(bytes(range(32))).decode()
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
SECONDS = 4
"""Between two registrations, or two requests of the service API."""

POLL_SECONDS = 10
"""Between two polls of a device."""


@pytest.fixture(scope="module")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MusterServer]:
    limits = f"registrations=1/{SECONDS}s,polls=1/{POLL_SECONDS}s"
    server = MusterServer(tmp_path_factory.mktemp("muster"), free_address(), "--limits", limits).start()
    yield server
    assert server.stop() == 0, server.output
    assert "Traceback" not in server.output, server.output


@pytest.fixture(scope="module", autouse=True)
def fleet(https: HttpsClient) -> None:
    https.enroll_group("throttled", attestation=SYMMETRIC)


def throttled(muster: MusterServer, operation: str, name: str) -> int:
    """How often the server answered 429 to this."""
    lines = [line for line in muster.output.splitlines() if operation in line and name in line]
    return sum("429001" in line for line in lines)


def python_device(registration_id: str, **options: Any) -> dict[str, Any]:
    key = derive_device_key(KEY, registration_id)
    return {"registration_id": registration_id, "id_scope": ID_SCOPE, "symmetric_key": key, **options}


def node_device(registration_id: str, transport: str) -> dict[str, Any]:
    key = derive_device_key(KEY, registration_id)
    return {
        "registrationId": registration_id,
        "idScope": ID_SCOPE,
        "transport": transport,
        "symmetricKey": key,
    }


def test_python_devices_register_one_after_the_other(muster: MusterServer, clients: OpenClient) -> None:
    started = time.monotonic()
    devices = [
        python_device("py-sync"),
        python_device("py-aio", api="aio"),
        python_device("py-websocket", websockets=True),
    ]
    results = clients("device.py").values("register", devices)
    assert {result["status"] for result in results} == {"assigned"}
    assert time.monotonic() - started >= 2 * SECONDS
    # Of three at once one has room; how often the others come again is up to them.
    assert throttled(muster, "register", "py-") >= 1


def test_a_python_device_waits_with_its_poll(muster: MusterServer, clients: OpenClient) -> None:
    """Two clients of one device: each polls once, and both together are too fast."""
    same = [python_device("py-twice"), python_device("py-twice", api="aio")]
    results = clients("device.py").values("register", same)
    assert [(result["status"], result["deviceId"]) for result in results] == [("assigned", "py-twice")] * 2
    assert throttled(muster, "operation-status", "py-twice") >= 1


def test_node_devices_wait_over_mqtt(muster: MusterServer, node_clients: OpenNodeClient) -> None:
    devices = [node_device("node-mqtt", "mqtt"), node_device("node-mqtt-ws", "mqtt-ws")]
    results = node_clients("device.js").values("register", devices)
    assert [result["status"] for result in results] == ["assigned", "assigned"]
    assert throttled(muster, "register", "node-mqtt") >= 1


def test_a_node_device_waits_over_amqp(muster: MusterServer, node_clients: OpenNodeClient) -> None:
    """By the number of seconds in the error (dps.md 3.5)."""
    devices = [node_device("node-amqp", "amqp"), node_device("node-amqp-ws", "amqp-ws")]
    results = node_clients("device.js").values("register", devices)
    assert [result["status"] for result in results] == ["assigned", "assigned"]
    assert throttled(muster, "register", "node-amqp") >= 1


def test_node_gives_up_over_https(muster: MusterServer, node_clients: OpenNodeClient) -> None:
    """Every answer of 300 and above is its last (dps.md 1.4); the error has Azure's number."""
    devices = [node_device(f"node-http-{number}", "http") for number in range(3)]
    results = node_clients("device.js").call_all("register", devices)
    refused = [result for result in results if isinstance(result, SdkError)]
    assert refused
    for error in refused:
        assert "429001" in error.body


@pytest.fixture
def slow_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MusterServer]:
    """A server whose service API may be asked once in some seconds."""
    limits = f"operations=1/{SECONDS}s"
    server = MusterServer(tmp_path_factory.mktemp("slow"), free_address(), "--limits", limits).start()
    yield server
    assert server.stop() == 0, server.output


def test_service_clients(slow_service: MusterServer) -> None:
    """The one for Python repeats, the one for Node.js tells the program."""
    connection = slow_service.provisioning_connection_string
    body = {"registrationId": "by-service", "attestation": SYMMETRIC}
    with SdkClient(slow_service, "provisioning_service.py") as python:
        for method in ("create_or_update", "get"):
            given = ["by-service", body] if method == "create_or_update" else ["by-service"]
            call = {"connection_string": connection, "group": "enrollment", "method": method, "given": given}
            assert python.call("call", **call)["registrationId"] == "by-service"
    with NodeClient(slow_service, "enrollments.js") as node:
        call = {"connectionString": connection, "method": "getIndividualEnrollment", "given": ["by-service"]}
        errors = [result for result in node.call_all("call", [call] * 2) if isinstance(result, SdkError)]
    assert errors
    assert {(error.status, error.json["errorCode"]) for error in errors} == {(429, 429001)}
    assert slow_service.output.count("429001") >= 2
