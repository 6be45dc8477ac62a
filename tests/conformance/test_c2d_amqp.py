"""Messages from the cloud to the unmodified azure-iot-device of Node.js over AMQP: every outcome that a device has."""

import time

import pytest
from tests.conformance.test_c2d_mqtt import Device
from tests.support.fix_clients import HttpsClient
from tests.support.fix_node import OpenNodeClient
from tests.support.fix_server import MusterServer

_SECONDS = 90.0


class AmqpDevice(Device):
    """The same device over AMQP, which keeps what it gets until it is told what to do with it."""

    def open(self, *, websockets: bool = False, keep: bool = True) -> None:
        given = {"connection_string": self.connection_string, "websockets": websockets, "amqp": True, "keep": keep}
        self.sdk.call("connect", connection=self.device_id, **given)

    def settle(self, how: str) -> None:
        self.sdk.call("settle", connection=self.device_id, how=how)

    def wait_until_waiting(self, count: int) -> None:
        deadline = time.monotonic() + _SECONDS
        while self.waiting() != count:
            assert time.monotonic() < deadline, f"{self.waiting()} messages wait, and not {count}"
            time.sleep(0.05)


@pytest.fixture
def device(
    muster: MusterServer, https: HttpsClient, node_clients: OpenNodeClient, request: pytest.FixtureRequest
) -> AmqpDevice:
    name = "".join(character if character.isalnum() else "-" for character in request.node.name)
    return AmqpDevice(muster, https, node_clients("c2d_device.js"), name[-100:])


@pytest.mark.parametrize("websockets", [False, True], ids=["amqp", "websocket"])
def test_a_message_with_everything(device: AmqpDevice, websockets: bool) -> None:
    device.open(websockets=websockets, keep=False)
    properties = {"color": "dark red", "path": "a/b?c=d&e", "größe": "50 %"}
    device.send(
        messageId="m-1",
        correlationId="c-1",
        contentType="text/plain; charset=utf-8",
        contentEncoding="utf-8",
        ack="full",
        expiryTimeUtc="2099-01-01T00:00:00Z",
        properties=properties,
        body="grüß dich",
    )
    (message,) = device.receive()
    assert message["body"] == "grüß dich"
    assert (message["messageId"], message["correlationId"]) == ("m-1", "c-1")
    assert (message["contentType"], message["contentEncoding"]) == ("text/plain; charset=utf-8", "utf-8")
    assert message["ack"] == "full"
    assert message["expiry"] == 4_070_908_800_000  # what this SDK makes of the year 2099 over AMQP
    assert message["properties"] == properties
    device.wait_until_waiting(0)
    device.close()


def test_outcomes(device: AmqpDevice) -> None:
    device.open()
    for name in ("kept", "thrown"):
        device.send(messageId=name, ack="full", body=name)
        assert device.receive()[0]["body"] == name
    device.settle("complete")
    device.settle("reject")
    device.wait_until_waiting(0)
    assert device.outcome("kept") == "Success"
    # Feedback comes in batches, of which the first may have had both.
    device.send(messageId="again", ack="full", body="again")
    assert device.receive()[0]["body"] == "again"
    device.settle("abandon")
    assert device.receive()[0]["body"] == "again"
    device.settle("reject")
    assert device.outcome("again") == "Rejected"
    device.close()


def test_what_a_device_did_not_settle_waits_for_it(device: AmqpDevice) -> None:
    device.open()
    for number in range(3):
        device.send(body=str(number))
    assert [message["body"] for message in device.receive(3)] == ["0", "1", "2"]
    device.settle("complete")
    device.wait_until_waiting(2)
    device.close()
    device.open(keep=False)
    assert [message["body"] for message in device.receive(2)] == ["1", "2"]
    device.wait_until_waiting(0)
    device.close()


def test_messages_keep_their_order(device: AmqpDevice) -> None:
    device.open(keep=False)
    for number in range(40):
        device.send(body=str(number))
    assert [message["body"] for message in device.receive(40)] == [str(number) for number in range(40)]
    device.close()


def test_a_message_of_64_kib(device: AmqpDevice) -> None:
    device.open(keep=False)
    body = "x" * (64 * 1024 - len(f"/devices/{device.device_id}/messages/devicebound"))
    device.send(body=body)
    assert device.receive()[0]["body"] == body
    device.close()
