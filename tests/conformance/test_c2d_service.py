"""Back ends send messages to devices over AMQP, unmodified, and hear what became of them: Python's azure-iot-hub,
Node's azure-iothub, what the Azure CLI does with uamqp, and rhea for what no SDK sends. The devices are on MQTT.
"""

import base64
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_node import OpenNodeClient
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer

KEY = base64.b64encode(bytes(range(32))).decode()
VERSION = "api-version=2021-04-12"
SECONDS = 120.0

_numbers = itertools.count()


class Place:
    """The running hub, its devices, and the clients that talk to it."""

    def __init__(
        self, server: MusterServer, https: HttpsClient, clients: OpenClient, node_clients: OpenNodeClient
    ) -> None:
        self.server = server
        self.https = https
        self.devices = clients("c2d_device.py")
        self.python = clients("c2d_service.py")
        self.node = node_clients("c2d_service.js")
        self.peer = node_clients("amqp_peer.js")
        self.number = next(_numbers)
        self._backends: list[BackEnd] = []

    def close(self) -> None:
        for backend in self._backends:
            backend.close()

    def name(self, what: str) -> str:
        """A name that no other test has."""
        return f"{what}-{self.number}"

    def create(self, what: str, *, connect: bool = False) -> str:
        device_id = self.name(what)
        keys = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
        self.https.create_device(device_id, authentication=keys)
        if connect:
            connection_string = f"HostName={self.server.address};DeviceId={device_id};SharedAccessKey={KEY}"
            self.devices.call("connect", connection=device_id, connection_string=connection_string)
        return device_id

    def receive(self, device_id: str, count: int = 1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.devices.call("receive", connection=device_id, count=count)
        return found

    def waiting(self, device_id: str) -> int:
        answer = self.https.request("GET", f"/devices/{device_id}?{VERSION}")
        return int(answer.json["cloudToDeviceMessageCount"])

    def policy(self, name: str) -> dict[str, str]:
        return {"host": self.server.address, "policy": name, "key": DEVELOPMENT_KEY}

    def backend(self, sdk: SdkClient, *, websockets: bool = False, policy: str = "service") -> "BackEnd":
        text = f"HostName={self.server.address};SharedAccessKeyName={policy};SharedAccessKey={DEVELOPMENT_KEY}"
        backend = BackEnd(sdk, self.name(f"backend-{next(_numbers)}"), text, websockets=websockets)
        self._backends.append(backend)
        return backend


class BackEnd:
    """A service client."""

    def __init__(self, sdk: SdkClient, connection: str, connection_string: str, *, websockets: bool) -> None:
        self.sdk = sdk
        self.connection = connection
        sdk.call("connect", connection=connection, connection_string=connection_string, websockets=websockets)

    def call(self, operation: str, **arguments: Any) -> Any:
        return self.sdk.start(operation, connection=self.connection, **arguments).result(SECONDS + 30)

    def close(self) -> None:
        self.call("close")


@pytest.fixture
def place(
    muster: MusterServer, https: HttpsClient, clients: OpenClient, node_clients: OpenNodeClient
) -> Iterator[Place]:
    one = Place(muster, https, clients, node_clients)
    yield one
    one.close()


@pytest.fixture(params=["amqp", "websocket"])
def node(place: Place, request: pytest.FixtureRequest) -> BackEnd:
    return place.backend(place.node, websockets=request.param == "websocket")


@pytest.mark.parametrize("websockets", [False, True], ids=["amqp", "websocket"])
def test_python_sends_a_message_with_everything(place: Place, websockets: bool) -> None:
    device_id = place.create("python", connect=True)
    backend = place.backend(place.python, websockets=websockets)
    expiry = int((time.time() + 3600) * 1000)
    properties = {
        "contentType": "application/json",
        "contentEncoding": "utf-8",
        "correlationId": "c-1",
        "messageId": "m-1",
        "expiryTimeUtc": expiry,
        "iothub-ack": "full",
        "ack": "an own property",
        "color": "dark red",
        "count": 3,
    }
    backend.call("send", device_id=device_id, body='{"grün": 1}', properties=properties)
    (message,) = place.receive(device_id)
    assert message["body"] == '{"grün": 1}'
    assert (message["messageId"], message["correlationId"]) == ("m-1", "c-1")
    assert (message["contentType"], message["contentEncoding"]) == ("application/json", "utf-8")
    assert message["ack"] == "full"
    moment = datetime.fromtimestamp(expiry / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    assert message["expiry"].startswith(moment)
    assert message["properties"] == {"ack": "an own property", "color": "dark red", "count": "3"}
    backend.call("send", device_id=device_id, body="again")
    assert place.receive(device_id)[0]["body"] == "again"


def test_node_sends_a_message_with_everything(place: Place, node: BackEnd) -> None:
    device_id = place.create("node", connect=True)
    message_id = "0f3c9b0e-7d7a-4f0e-9a6c-1b2d3e4f5a6b"  # which this SDK sends as a uuid
    fields = {
        "messageId": message_id,
        "correlationId": "c-1",
        "contentType": "text/plain",
        "contentEncoding": "utf-8",
        "ack": "none",
        "expiryTimeUtc": int((time.time() + 3600) * 1000),
    }
    sent = {"color": "dark red", "IoThub-status": "200"}
    node.call("send", device_id=device_id, body="grüß dich", fields=fields, properties=sent)
    (message,) = place.receive(device_id)
    assert message["body"] == "grüß dich"
    assert (message["messageId"], message["correlationId"], message["ack"]) == (message_id, "c-1", "none")
    assert (message["contentType"], message["contentEncoding"]) == ("text/plain", "utf-8")
    assert message["properties"] == sent
    for number in range(20):
        node.call("send", device_id=device_id, body=str(number))
    assert [one["body"] for one in place.receive(device_id, 20)] == [str(number) for number in range(20)]


@pytest.mark.parametrize("name", ["a#b+c", "50%25", "d=1,2;'x'"])
def test_ids_that_clients_spell_in_two_ways(place: Place, name: str) -> None:
    device_id = place.name(name)
    body = {"deviceId": device_id}
    assert place.https.request("PUT", f"/devices/{quoted(device_id)}?{VERSION}", body).status == 200
    python, node = place.backend(place.python), place.backend(place.node)
    python.call("send", device_id=device_id, body="raw")
    node.call("send", device_id=device_id, body="percent-encoded")
    purged = place.https.request("DELETE", f"/devices/{quoted(device_id)}/commands?{VERSION}")
    assert purged.json["totalMessagesPurged"] == 2


def quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


def test_python_hears_that_a_message_was_rejected_and_goes_on(place: Place) -> None:
    device_id = place.create("python-rejected")
    backend = place.backend(place.python)
    for recipient, body in (("nobody", "lost"), (device_id, "x" * 65_536)):
        with pytest.raises(SdkError, match="C2D message send failure"):
            backend.call("send", device_id=recipient, body=body)
    backend.call("send", device_id=device_id, body="taken")
    assert place.waiting(device_id) == 1


def test_node_hears_why_a_message_was_rejected_and_goes_on(place: Place, node: BackEnd) -> None:
    device_id = place.create("node-rejected")
    for recipient, body, kind in (
        ("nobody", "lost", "DeviceNotFoundError"),
        (device_id, "x" * 65_536, "MessageTooLargeError"),
    ):
        with pytest.raises(SdkError) as caught:
            node.call("send", device_id=recipient, body=body)
        assert caught.value.kind == kind
    for number in range(50):
        node.call("send", device_id=device_id, body=str(number))
    with pytest.raises(SdkError) as caught:
        node.call("send", device_id=device_id, body="one too many")
    assert caught.value.kind == "DeviceMaximumQueueDepthExceededError"
    assert place.waiting(device_id) == 50


def test_a_policy_without_the_right(place: Place) -> None:
    device_id = place.create("no-right")
    node = place.backend(place.node, policy="registryReadWrite")
    with pytest.raises(SdkError) as caught:
        node.call("send", device_id=device_id, body="no")
    assert caught.value.kind == "UnauthorizedError"
    python = place.backend(place.python, policy="registryReadWrite")
    with pytest.raises(SdkError):
        python.call("send", device_id=device_id, body="no")
    assert place.waiting(device_id) == 0


def test_feedback_on_every_outcome(place: Place, node: BackEnd) -> None:
    online, absent, late = place.create("online", connect=True), place.create("absent"), place.create("late")
    node.call("listen")

    def send(device_id: str, what: str, ack: str, **fields: Any) -> None:
        node.call("send", device_id=device_id, body="x", fields={"messageId": place.name(what), "ack": ack, **fields})

    for ack in ("full", "positive", "negative", "none"):
        send(online, ack, ack)
    assert len(place.receive(online, 4)) == 4
    send(absent, "rejected", "full")
    reject_next(place, absent)
    send(absent, "purged", "negative")
    send(absent, "unwanted", "positive")
    assert place.https.request("DELETE", f"/devices/{absent}/commands?{VERSION}").json["totalMessagesPurged"] == 2
    send(late, "expired", "negative", expiryTimeUtc=int((time.time() - 1) * 1000))
    wanted = {"full": "Success", "positive": "Success", "expired": "Expired"}
    wanted |= {"rejected": "Rejected", "purged": "Purged"}
    records = node.call("feedback", message_ids=[place.name(what) for what in wanted])
    assert {record["originalMessageId"]: record["statusCode"] for record in records} == {
        place.name(what): outcome for what, outcome in wanted.items()
    }
    for record in records:
        assert record["deviceId"] in (online, absent, late)
        assert record["description"] == record["statusCode"]
        assert record["enqueuedTimeUtc"].endswith("Z")
        assert record["deviceGenerationId"]


def reject_next(place: Place, device_id: str) -> None:
    """As a device does over HTTPS."""
    path = f"/devices/{device_id}/messages/deviceBound"
    token = place.https.request("GET", f"{path}?{VERSION}").headers["etag"].strip('"')
    assert place.https.request("DELETE", f"{path}/{token}?reject&{VERSION}").status == 204


def test_batches_that_are_abandoned_come_again(place: Place) -> None:
    device_id = place.create("abandoned")
    node = place.backend(place.node)
    node.call("send", device_id=device_id, body="x", fields={"messageId": place.name("m"), "ack": "full"})
    node.call("listen", settle="abandon")
    place.https.request("DELETE", f"/devices/{device_id}/commands?{VERSION}")
    node.call("feedback", message_ids=[place.name("m")])
    deadline = time.monotonic() + SECONDS
    while len(records := node.call("feedback", message_ids=[place.name("m")])) < 10:
        assert time.monotonic() < deadline, records


def test_receivers_compete_and_none_gets_what_another_has(place: Place) -> None:
    device_id = place.create("competing")
    first, second = place.backend(place.node), place.backend(place.node, websockets=True)
    for receiver in (first, second):
        receiver.call("listen")
    ids = [place.name(str(number)) for number in range(5)]
    for message_id in ids:
        first.call("send", device_id=device_id, body="x", fields={"messageId": message_id, "ack": "full"})
    place.https.request("DELETE", f"/devices/{device_id}/commands?{VERSION}")
    found: list[str] = []
    deadline = time.monotonic() + SECONDS
    while len(found) < len(ids):
        assert time.monotonic() < deadline, found
        found = [
            record["originalMessageId"]
            for receiver in (first, second)
            for record in receiver.call("received")
            if record["originalMessageId"] in ids
        ]
    assert sorted(found) == sorted(ids)


def test_file_notifications_can_be_listened_for(node: BackEnd) -> None:
    assert node.call("listenForFiles") == "ServiceReceiver"


def test_the_azure_cli_sends_and_waits_for_the_feedback(place: Place) -> None:
    device_id = place.create("cli", connect=True)
    message_id = place.name("m")
    policy = place.policy("iothubowner")
    options = {"message_id": message_id, "user_id": "ops", "content_type": "text/plain", "correlation_id": "c-1"}
    sent = place.python.call("cli_send", device_id=device_id, body="grüß dich", ack="full", **options, **policy)
    assert sent == ["SendComplete"]
    (message,) = place.receive(device_id)
    assert (message["body"], message["messageId"], message["userId"]) == ("grüß dich", message_id, "ops")
    assert (message["ack"], message["contentEncoding"]) == ("full", "utf-8")
    feedback = place.python.start("cli_feedback", wait_on_id=message_id, seconds=SECONDS, **policy)
    record = feedback.result(SECONDS + 30)
    assert record is not None
    assert (record["deviceId"], record["statusCode"]) == (device_id, "Success")


def test_the_azure_cli_hears_that_a_message_was_rejected(place: Place) -> None:
    sent = place.python.call("cli_send", device_id="nobody", body="x", ack="none", **place.policy("service"))
    assert sent == ["SendFailed"]


# rhea


def exchange(place: Place, *messages: dict[str, Any], policy: str = "service") -> list[dict[str, Any]]:
    """What became of these messages, sent at once."""
    host = place.server.address
    token = place.https.token(policy, DEVELOPMENT_KEY)
    outcomes: list[dict[str, Any]] = place.peer.call(
        "exchange", host=host, audience=host, token=token, messages=messages
    )
    return outcomes


def test_bad_messages_do_no_harm_to_others(place: Place) -> None:
    device_id = place.create("pipelined", connect=True)
    to = f"/devices/{device_id}/messages/devicebound"
    good = [{"to": to, "body": str(number)} for number in range(3)]
    outcomes = exchange(
        place,
        good[0],
        {"body": "for nobody"},
        {"to": "/devices/nobody/messages/devicebound", "body": "x"},
        good[1],
        {"to": to, "body": "x", "application_properties": {"iothub-ack": "sometimes"}},
        {"to": to, "body": {"type": "list", "value": ["a"]}},
        {"to": to, "body": "x" * 70_000},
        good[2],
    )
    assert [outcome["state"] for outcome in outcomes].count("accepted") == 3
    assert all(outcome["settled"] for outcome in outcomes)
    conditions = [outcome.get("condition") for outcome in outcomes if outcome["state"] == "rejected"]
    assert conditions == [
        "amqp:not-allowed",
        "amqp:not-found",
        "com.microsoft:argument-error",
        "com.microsoft:argument-error",
        "amqp:link:message-size-exceeded",
    ]
    for outcome in outcomes:
        if outcome["state"] == "rejected":
            assert outcome["description"]
            assert "-TimeStamp:" in outcome["tracking"]
    assert [message["body"] for message in place.receive(device_id, 3)] == ["0", "1", "2"]


def test_properties_of_every_type(place: Place) -> None:
    device_id = place.create("typed", connect=True)
    values: dict[str, tuple[Any, str]] = {
        "double": ({"type": "double", "value": 21.5}, "21.5"),
        "float": ({"type": "float", "value": 0.5}, "0.5"),
        "int": ({"type": "int", "value": -7}, "-7"),
        "long": ({"type": "long", "value": 1 << 40}, str(1 << 40)),
        "ubyte": ({"type": "ubyte", "value": 255}, "255"),
        "ulong": ({"type": "ulong", "value": 7}, "7"),
        "boolean": (True, "true"),
        "timestamp": ({"type": "timestamp", "value": 1_790_000_000_123}, "2026-09-21T14:13:20.1230000Z"),
        "symbol": ({"type": "symbol", "value": "s"}, "s"),
        "binary": ({"type": "binary", "value": base64.b64encode("é".encode()).decode()}, "é"),
    }
    (outcome,) = exchange(
        place,
        {
            "to": f"amqps://{place.server.address}/devices/{device_id}/messages/deviceBound",
            "message_id": {"type": "ulong", "value": 42},
            "correlation_id": {"type": "uuid", "value": "0f3c9b0e-7d7a-4f0e-9a6c-1b2d3e4f5a6b"},
            "user_id": {"type": "binary", "value": base64.b64encode(b"ops").decode()},
            "body": {"type": "binary", "value": base64.b64encode(b"bytes").decode()},
            "application_properties": {name: value for name, (value, _) in values.items()},
        },
    )
    assert outcome["state"] == "accepted"
    (message,) = place.receive(device_id)
    assert (message["messageId"], message["userId"], message["body"]) == ("42", "ops", "bytes")
    assert message["correlationId"] == "0f3c9b0e-7d7a-4f0e-9a6c-1b2d3e4f5a6b"
    assert message["properties"] == {name: text for name, (_, text) in values.items()}
