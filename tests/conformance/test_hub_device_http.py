"""The hub's device API with the unmodified azure-iot-device-http, and feedback with the unmodified azure-iot-hub."""

import base64
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_node import OpenNodeClient
from tests.support.fix_pki import self_signed
from tests.support.fix_server import MusterServer

from muster.domain.timestamp import HOUR, parse_iso
from muster.pki.certificate import sha256_thumbprint

KEY = base64.b64encode(bytes(range(32))).decode()

_FEEDBACK_SECONDS = 90.0


class NodeDevice:
    """One device of the SDK for Node.js, and what the back end does with it."""

    def __init__(self, client: SdkClient, https: HttpsClient, device_id: str) -> None:
        self.client = client
        self.https = https
        self.device_id = device_id

    def create(self) -> "NodeDevice":
        keys = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
        self.https.create_device(self.device_id, authentication=keys)
        self.client.call("connect", connection=self.device_id, deviceId=self.device_id, symmetricKey=KEY)
        return self

    def call(self, operation: str, **arguments: Any) -> Any:
        return self.client.call(operation, connection=self.device_id, **arguments)

    def send(self, **members: object) -> None:
        answer = self.https.request("POST", f"/muster/v1/c2d/{self.device_id}", members)
        assert answer.status == 201, answer

    def settle(self, message: dict[str, Any], way: str) -> str:
        return str(self.call("settle", lockToken=message["lockToken"], way=way))


@pytest.fixture(scope="module")
def node(node_clients: OpenNodeClient) -> SdkClient:
    return node_clients("device_http.js")


def test_telemetry(node: SdkClient, https: HttpsClient) -> None:
    device = NodeDevice(node, https, "node-http-1").create()
    message = {
        "body": '{"t":21}',
        "messageId": "m-1",
        "correlationId": "c-1",
        "userId": "u-1",
        "contentType": "application/json",
        "contentEncoding": "utf-8",
        "properties": {"Room": "attic east", "dt-subject": "thermostat1"},
    }
    assert device.call("send", message=message) == "MessageEnqueued"
    (event,) = https.events(device.device_id, 1)
    assert event["body"] == {"t": 21}
    assert event["applicationProperties"] == {"Room": "attic east"}
    assert event["systemProperties"] == {
        "to": "/devices/node-http-1/messages/events",
        "message-id": "m-1",
        "correlation-id": "c-1",
        "user-id": "u-1",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "dt-subject": "thermostat1",
    }


def test_a_batch(node: SdkClient, https: HttpsClient) -> None:
    device = NodeDevice(node, https, "node-http-2").create()
    batch = [{"body": f"number {n}", "properties": {"n": str(n), "Case": "kept"}} for n in range(100)]
    assert device.call("sendBatch", batch=[*batch, {"body": "grüß dich"}]) == "MessageEnqueued"
    events = https.events(device.device_id, 101)
    assert [event["body"] for event in events] == [f"number {n}" for n in range(100)] + ["grüß dich"]
    assert events[7]["applicationProperties"] == {"n": "7", "Case": "kept"}


def test_a_message_that_is_too_large(node: SdkClient, https: HttpsClient) -> None:
    device = NodeDevice(node, https, "node-http-3").create()
    device.call("send", message={"body": "x" * (255 * 1024)})
    with pytest.raises(SdkError) as caught:
        device.call("send", message={"body": "x" * (256 * 1024 + 1)})
    assert caught.value.kind == "MessageTooLargeError"
    assert len(https.events(device.device_id, 1)) == 1


def test_messages_are_completed_rejected_and_abandoned(node: SdkClient, https: HttpsClient) -> None:
    device = NodeDevice(node, https, "node-http-4").create()
    device.send(messageId="m-1", correlationId="c-1", ack="full", properties={"color": "dark red"}, body="grüß dich")
    first = device.call("receive")
    assert (first["body"], first["messageId"], first["correlationId"]) == ("grüß dich", "m-1", "c-1")
    assert first["to"] == "/devices/node-http-4/messages/devicebound"
    assert first["properties"] == {"iothub-app-color": "dark red"}
    assert device.settle(first, "abandon") == "MessageAbandoned"
    again = device.call("receive")
    assert again["messageId"] == "m-1"
    assert again["lockToken"] != first["lockToken"]
    assert device.settle(again, "complete") == "MessageCompleted"
    device.send(messageId="m-2", body="no")
    assert device.settle(device.call("receive"), "reject") == "MessageRejected"


def test_a_lock_that_is_lost(node: SdkClient, https: HttpsClient) -> None:
    device = NodeDevice(node, https, "node-http-5").create()
    device.send(body="once")
    message = device.call("receive")
    device.settle(message, "complete")
    with pytest.raises(SdkError) as caught:
        device.settle(message, "complete")
    assert caught.value.status == 412
    assert caught.value.json["Message"].startswith("ErrorCode:DeviceMessageLockLost;")


def test_a_certificate(node: SdkClient, https: HttpsClient, tmp_path: Path) -> None:
    identity = self_signed("node-http-x509")
    thumbprint = {"primaryThumbprint": sha256_thumbprint(identity.certificate)}
    https.create_device("node-http-x509", authentication={"type": "selfSigned", "x509Thumbprint": thumbprint})
    certificate, key = identity.write(tmp_path)
    device = NodeDevice(node, https, "node-http-x509")
    device.call("connect", deviceId=device.device_id, certificate=str(certificate), key=str(key))
    assert device.call("send", message={"body": "by certificate"}) == "MessageEnqueued"
    assert len(https.events(device.device_id, 1)) == 1


def test_a_wrong_key(node: SdkClient, https: HttpsClient) -> None:
    device = NodeDevice(node, https, "node-http-6").create()
    wrong = base64.b64encode(bytes(32)).decode()
    node.call("connect", connection="wrong key", deviceId=device.device_id, symmetricKey=wrong)
    with pytest.raises(SdkError) as caught:
        node.call("send", connection="wrong key", message={"body": "x"})
    assert caught.value.kind == "UnauthorizedError"
    assert caught.value.status == 401


# Feedback


def owner(muster: MusterServer) -> str:
    return muster.hub_connection_string


def next_batch(muster: MusterServer, back_end: SdkClient) -> dict[str, Any]:
    """The next batch; one goes out each fifteen seconds."""
    deadline = time.monotonic() + _FEEDBACK_SECONDS
    while (batch := back_end.call("receive", connection_string=owner(muster))) is None:
        assert time.monotonic() < deadline, "no feedback came"
        time.sleep(0.5)
    found: dict[str, Any] = batch
    return found


def test_feedback_and_purge(muster: MusterServer, https: HttpsClient, clients: OpenClient) -> None:
    back_end = clients("feedback.py")
    https.create_device("feedback-1")
    for number in range(3):
        body = {"messageId": f"purged-{number}", "ack": "full"}
        assert https.request("POST", "/muster/v1/c2d/feedback-1", body).status == 201
    registry = https.request("GET", "/devices/feedback-1?api-version=2021-04-12").json
    purged = back_end.call("purge", connection_string=owner(muster), device_id="feedback-1")
    assert purged == {"purged": 3, "deviceId": "feedback-1", "moduleId": None}
    records: list[dict[str, Any]] = []
    while len(records) < 3:
        batch = next_batch(muster, back_end)
        token = batch["headers"]["etag"].strip('"')
        back_end.call("abandon", connection_string=owner(muster), lock_token=token)
        again = next_batch(muster, back_end)
        assert again["records"] == batch["records"]
        token = again["headers"]["etag"].strip('"')
        back_end.call("complete", connection_string=owner(muster), lock_token=token)
        records += [one for one in batch["records"] if one["deviceId"] == "feedback-1"]
        assert batch["headers"]["content-type"] == "application/vnd.microsoft.iothub.feedback.json"
    assert [(one["originalMessageId"], one["statusCode"]) for one in records] == [
        (f"purged-{number}", "Purged") for number in range(3)
    ]
    assert {one["deviceGenerationId"] for one in records} == {registry["generationId"]}


def test_how_a_hub_keeps_messages(muster: MusterServer, https: HttpsClient, clients: OpenClient) -> None:
    """Changed with the unmodified azure-mgmt-iothub, and put back, since other tests wait for feedback."""
    script = clients("hub_settings.py")

    def keep(**settings: int) -> Any:
        token = muster.cli("token").stdout.strip()
        return script.call("keep", host=muster.address, token=token, name=muster.address, **settings)

    changed = {"deliveries": 3, "hours": 5, "lock_seconds": 30}
    assert keep(**changed) == {"deliveries": 3, "hours": 5, "lockSeconds": 30, "feedbackDeliveries": 10}
    https.create_device("kept-1")
    sent = https.request("POST", "/muster/v1/c2d/kept-1", {}).json
    assert parse_iso(sent["expiryTimeUtc"]) - parse_iso(sent["enqueuedTimeUtc"]) == 5 * HOUR
    keep(deliveries=10, hours=1, lock_seconds=60)
