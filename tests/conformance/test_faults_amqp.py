"""``muster up --fault-injection`` over AMQP: the unmodified azure-iot-device for Node.js goes on (hub-device.md 13)."""

import base64
import time
from collections.abc import Callable, Iterator

import pytest
from tests.support.fix_clients import HttpsClient, SdkError
from tests.support.fix_node import NodeClient
from tests.support.fix_server import MusterServer, StartServer

KEY = base64.b64encode(bytes(range(32))).decode()
SECONDS = 120


def fault(kind: str, duration: str) -> dict[str, str]:
    values = {"Type": kind, "CloseReason": "boom", "DelayInSecs": "0.1", "DurationInSecs": duration}
    return {f"AzIoTHub_FaultOperation{name}": value for name, value in values.items()}


@pytest.fixture
def server(start_server: StartServer) -> MusterServer:
    return start_server("--fault-injection")


@pytest.fixture
def https(server: MusterServer) -> HttpsClient:
    return HttpsClient(server)


@pytest.fixture
def node(server: MusterServer) -> Iterator[NodeClient]:
    with NodeClient(server, "faulty_device.js") as client:
        yield client


def connect(server: MusterServer, https: HttpsClient, node: NodeClient, **options: object) -> None:
    keys = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
    https.create_device("d1", authentication=keys)
    string = f"HostName={server.address};DeviceId=d1;SharedAccessKey={KEY}"
    node.call("connect", name="d1", connectionString=string, **options)


def ask(server: MusterServer, node: NodeClient, kind: str, duration: str = "1") -> None:
    """Until it has happened. The fault may come before the answer to the message that asks for it."""
    node.start("send", name="d1", body=kind, properties=fault(kind, duration))
    wait_for(lambda: f"now, as {kind.lower()} was asked for" in server.output, server)


def wait_for(condition: Callable[[], bool], server: MusterServer) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, server.output
        time.sleep(0.05)


@pytest.mark.parametrize("transport", ["amqp", "amqp-ws"])
def test_the_sdk_goes_on(server: MusterServer, https: HttpsClient, node: NodeClient, transport: str) -> None:
    connect(server, https, node, transport=transport)
    node.call("listen", name="d1")
    # It goes on after a close too, but looks for 45 s at what it knows is closed.
    kinds = ("KillTcp", "KillAmqpSession", "KillAmqpD2CLink", "KillAmqpC2DLink")
    for kind in kinds:
        ask(server, node, kind)
        node.call("insist", name="d1", body=f"after {kind}")
    stored = https.request("GET", "/muster/v1/events?deviceId=d1&top=1000").json
    bodies = {event["body"] for event in stored}
    assert bodies == {f"after {kind}" for kind in kinds}


@pytest.mark.parametrize("transport", ["amqp", "amqp-ws"])
def test_the_sdk_comes_back_when_the_server_does(
    server: MusterServer, https: HttpsClient, node: NodeClient, transport: str
) -> None:
    """Of itself, to hear what the cloud has to say."""
    connect(server, https, node, transport=transport)
    node.call("listen", name="d1")
    wait_for(lambda: https.is_connected("d1"), server)
    assert server.stop() == 0
    server.start()
    wait_for(lambda: https.is_connected("d1"), server)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("InvokeThrottling", "ThrottlingError"),
        ("InvokeMaxMessageQuota", "IotHubQuotaExceededError"),
        ("InvokeAuthError", "UnauthorizedError"),
    ],
)
def test_the_sdk_names_what_is_invoked(
    server: MusterServer, https: HttpsClient, node: NodeClient, kind: str, error: str
) -> None:
    connect(server, https, node, transport="amqp", retry=False)
    ask(server, node, kind, "30")
    with pytest.raises(SdkError) as raised:
        node.call("send", name="d1", body="refused")
    assert raised.value.kind == error
