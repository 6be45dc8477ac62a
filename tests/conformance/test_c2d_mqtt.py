"""Messages from the cloud to the unmodified azure-iot-device of Python and of Node.js, over MQTT and over WebSocket."""

import base64
import time
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient
from tests.support.fix_node import OpenNodeClient
from tests.support.fix_server import MusterServer

KEY = base64.b64encode(bytes(range(32))).decode()
VERSION = "api-version=2021-04-12"

_FEEDBACK_SECONDS = 90.0
_SETTLED_SECONDS = 60.0


class Device:
    """One device of an SDK, and what the back end does with it."""

    def __init__(self, server: MusterServer, https: HttpsClient, sdk: SdkClient, device_id: str) -> None:
        self.https = https
        self.sdk = sdk
        self.device_id = device_id
        self.connection_string = f"HostName={server.address};DeviceId={device_id};SharedAccessKey={KEY}"
        keys = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
        https.create_device(device_id, authentication=keys)

    def connect(self, *, websockets: bool = False) -> None:
        self.sdk.call(
            "connect",
            connection=self.device_id,
            connection_string=self.connection_string,
            websockets=websockets,
        )

    def close(self) -> None:
        self.sdk.call("close", connection=self.device_id)

    def receive(self, count: int = 1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.sdk.call("receive", connection=self.device_id, count=count)
        return found

    def send(self, **members: object) -> None:
        answer = self.https.request("POST", f"/muster/v1/c2d/{self.device_id}", members)
        assert answer.status == 201, answer

    def waiting(self) -> int:
        answer = self.https.request("GET", f"/devices/{self.device_id}?{VERSION}")
        return int(answer.json["cloudToDeviceMessageCount"])

    def wait_until_empty(self) -> None:
        deadline = time.monotonic() + _SETTLED_SECONDS
        while self.waiting():
            assert time.monotonic() < deadline, "the message was not completed"
            time.sleep(0.05)

    def outcome(self, message_id: str) -> str:
        """What feedback says of a message; feedback on other devices of this module is dropped."""
        deadline = time.monotonic() + _FEEDBACK_SECONDS
        while time.monotonic() < deadline:
            answer = self.https.request("GET", f"/messages/serviceBound/feedback?{VERSION}")
            if answer.status == 204:
                time.sleep(0.5)
                continue
            token = answer.headers["etag"].strip('"')
            self.https.request("DELETE", f"/messages/serviceBound/feedback/{token}?{VERSION}")
            for record in answer.json:
                if (record["deviceId"], record["originalMessageId"]) == (self.device_id, message_id):
                    return str(record["statusCode"])
        raise AssertionError(f"no feedback on {message_id}")


@pytest.fixture(params=["python", "node"])
def sdk(request: pytest.FixtureRequest, clients: OpenClient, node_clients: OpenNodeClient) -> SdkClient:
    return clients("c2d_device.py") if request.param == "python" else node_clients("c2d_device.js")


@pytest.fixture
def device(muster: MusterServer, https: HttpsClient, sdk: SdkClient, request: pytest.FixtureRequest) -> Device:
    name = "".join(character if character.isalnum() else "-" for character in request.node.name)
    return Device(muster, https, sdk, name[-100:])


@pytest.mark.parametrize("websockets", [False, True], ids=["mqtt", "websocket"])
def test_a_message_with_everything(device: Device, websockets: bool) -> None:
    device.connect(websockets=websockets)
    properties = {"color": "dark red", "path": "a/b?c=d&e", "plus": "1+1", "größe": "50 %"}
    device.send(
        messageId="m-1",
        correlationId="c-1",
        userId="ops",
        contentType="text/plain; charset=utf-8",
        contentEncoding="utf-8",
        ack="full",
        expiryTimeUtc="2099-01-01T00:00:00Z",
        properties=properties,
        body="grüß dich",
    )
    (message,) = device.receive()
    assert message["body"] == "grüß dich"
    assert (message["messageId"], message["correlationId"], message["userId"]) == ("m-1", "c-1", "ops")
    assert message["contentType"] == "text/plain; charset=utf-8"
    assert message["contentEncoding"] == "utf-8"
    assert message["ack"] == "full"
    assert str(message["expiry"]).startswith("2099-01-01T00:00:00")
    assert message["properties"] == properties
    if not websockets:  # feedback goes out each fifteen seconds: once is enough
        assert device.outcome("m-1") == "Success"
    device.close()
    device.wait_until_empty()


def test_messages_keep_their_order(device: Device) -> None:
    device.connect()
    for number in range(40):
        device.send(body=str(number))
    assert [message["body"] for message in device.receive(40)] == [str(number) for number in range(40)]
    device.close()


def test_what_was_sent_to_an_absent_device_waits_for_it(device: Device) -> None:
    device.connect()
    device.send(body="first")
    assert device.receive()[0]["body"] == "first"
    device.wait_until_empty()
    device.close()
    for number in range(3):
        device.send(body=f"absent {number}")
    assert device.waiting() == 3
    device.connect()
    assert [message["body"] for message in device.receive(3)] == ["absent 0", "absent 1", "absent 2"]
    device.close()


def test_a_message_of_64_kib(device: Device) -> None:
    device.connect()
    body = "x" * (64 * 1024 - len(f"/devices/{device.device_id}/messages/devicebound"))
    device.send(body=body)
    assert device.receive()[0]["body"] == body
    device.close()
