"""``muster up --fault-injection``: the unmodified azure-iot-device reconnects and goes on (hub-device.md 13)."""

import base64
import os
import socket
import time
from collections.abc import Iterator

import pytest
from tests.support.fix_clients import HttpsClient, SdkClient
from tests.support.fix_server import MusterServer, StartServer
from tests.support.raw_mqtt import RawMqtt

from muster.domain.sas import create_token
from muster.wire.mqtt_packets import Connack, Connect, Puback, Publish

KEY = base64.b64encode(bytes(range(32))).decode()
FAR = 4_000_000_000
FAULT = "AzIoTHub_FaultOperation{}"


def fault(kind: str, duration: str) -> dict[str, str]:
    values = {"Type": kind, "CloseReason": "boom", "DelayInSecs": "1", "DurationInSecs": duration}
    return {FAULT.format(name): value for name, value in values.items()}


@pytest.fixture
def server(start_server: StartServer) -> MusterServer:
    return start_server("--fault-injection")


@pytest.fixture
def https(server: MusterServer) -> HttpsClient:
    return HttpsClient(server)


@pytest.fixture
def sdk(server: MusterServer) -> Iterator[SdkClient]:
    with SdkClient(server, "lasting_device.py") as client:
        yield client


@pytest.mark.parametrize("websockets", [False, True], ids=["mqtt", "websocket"])
def test_the_sdk_reconnects_and_goes_on(
    server: MusterServer, https: HttpsClient, sdk: SdkClient, websockets: bool
) -> None:
    keys = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
    https.create_device("d1", authentication=keys)
    sdk.call(
        "connect",
        connection="d1",
        connection_string=f"HostName={server.address};DeviceId=d1;SharedAccessKey={KEY}",
        websockets=websockets,
        connection_retry_interval=1,
    )
    for number, (kind, duration) in enumerate((("KillTcp", "3"), ("ShutDownMqtt", "0")), start=1):
        sdk.call("expect_reconnect", connection="d1")
        asked = time.monotonic()
        sdk.call("send", connection="d1", body=kind, properties=fault(kind, duration))
        sdk.call("wait_for_reconnect", connection="d1")
        assert time.monotonic() - asked >= 1 + int(duration)
        sdk.call("send", connection="d1", body=f'"after {kind}"')
        assert https.events("d1", number)[-1]["body"] == f"after {kind}"
        https.request("POST", "/muster/v1/c2d/d1", {"body": f"still there after {kind}?"})
        assert sdk.call("receive", connection="d1") == f"still there after {kind}?"
        assert server.cli_json("method", "invoke", "d1", "echo", "--payload", "1") == {"status": 200, "payload": 1}
    sdk.call("close", connection="d1")
    assert "aborted: killtcp was asked for: 'boom'" in server.output
    assert "closed: shutdownmqtt was asked for: 'boom'" in server.output
    assert "Traceback" not in server.output


def test_a_kill_resets_and_a_shut_down_says_goodbye(server: MusterServer, https: HttpsClient) -> None:
    keys = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
    https.create_device("d3", authentication=keys)
    username = f"{server.address}/d3/?api-version=2021-04-12"
    token = create_token(f"{server.address}/devices/d3", KEY, FAR).encode()
    connect = Connect("d3", username=username, password=token)
    with RawMqtt(server) as device:
        device.send(connect)
        assert device.receive(Connack).values() == (0, False)
        device.send(Publish(topic("ShutDownMqtt", "0"), b"", 1, 1))
        assert device.receive(Puback) == Puback(1)
        device.is_closed()
    with RawMqtt(server) as device:
        device.send(connect)
        device.receive(Connack)
        device.send(Publish(topic("KillTcp", "60"), b"", 1, 2))
        assert device.receive(Puback) == Puback(2)
        # TLS in the client would turn a reset into the end of its stream.
        with socket.socket(fileno=os.dup(device.socket.fileno())) as tcp, pytest.raises(ConnectionResetError):
            tcp.settimeout(60)
            tcp.recv(1)
    with RawMqtt(server) as device:
        device.send(connect)
        assert device.receive(Connack).values() == (3, False)
    assert https.events("d3", 0) == []


def topic(kind: str, duration: str) -> bytes:
    bag = "&".join(f"{name}={value}" for name, value in fault(kind, duration).items())
    return f"devices/d3/messages/events/{bag}".encode()


def test_one_request_over_https(https: HttpsClient) -> None:
    https.create_device("d2")
    for kind, status in (("InvokeThrottling", 429), ("InvokeMaxMessageQuota", 403), ("InvokeAuthError", 401)):
        headers = {f"iothub-app-{name}": value for name, value in fault(kind, "5").items()}
        connection = https.connection()
        token = https.token()
        target = "/devices/d2/messages/events?api-version=2021-04-12"
        connection.request("POST", target, b"x", {"Authorization": token, **headers})
        assert connection.getresponse().status == status
        connection.close()
    assert https.request("POST", target, {"after": "faults"}).status == 204
    https.events("d2", 1)
