"""Odd corners of ``$dps``, by plain paho-mqtt: what other clients than the SDKs do, and do wrong (dps.md 2, 9.2)."""

import base64
import http.client
import http.server
import itertools
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient
from tests.support.fix_pki import Identity, issue, self_signed, to_pem
from tests.support.fix_server import ID_SCOPE, MusterServer

from muster.domain.sas import create_token, derive_device_key

KEY = base64.b64encode(bytes(range(32))).decode()
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid={}"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={}&operationId={}"
RESPONSES = "$dps/registrations/res/"
FAR = 4_000_000_000

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def paho(clients: OpenClient) -> SdkClient:
    return clients("paho_client.py")


def token(registration_id: str, key: str = KEY) -> str:
    return create_token(f"{ID_SCOPE}/registrations/{registration_id}", key, FAR, "registration")


class Device:
    """One registration id with its key; each ``connect`` is a new connection that listens for answers."""

    def __init__(self, paho: SdkClient, registration_id: str) -> None:
        self._paho = paho
        self.registration_id = registration_id
        self.rid = 0

    def connect(self, *, password: str | None = "", listening: bool = True, **options: Any) -> "Device":
        """``password`` is ``""`` for the token of the key, None for none."""
        name = self.registration_id
        username = f"{ID_SCOPE}/registrations/{name}/api-version=2019-03-31"
        given = token(name) if password == "" else password
        assert self._call("connect", client_id=name, username=username, password=given, **options) == 0
        if listening:
            assert self.listen() == [1]
        return self

    def listen(self) -> Any:
        return self._call("subscribe", topic_filter=f"{RESPONSES}#")

    def publish(self, topic: str, body: str | None = None, qos: int = 1) -> None:
        self._call("publish", topic=topic, body=body, qos=qos)

    def register(self, body: str | None = None, qos: int = 1) -> tuple[int, Any]:
        self.rid += 1
        self.publish(REGISTER.format(self.rid), body, qos)
        return self.answer()

    def poll(self, operation_id: str, body: str | None = None) -> tuple[int, Any]:
        self.rid += 1
        self.publish(POLL.format(self.rid, operation_id), body)
        return self.answer()

    def finish(self, operation_id: str) -> Any:
        """Poll without the pauses of a good client, until it is finished."""
        while (answer := self.poll(operation_id))[0] == 202:
            assert answer[1]["registrationState"]["registrationId"] == self.registration_id
        assert answer[0] == 200
        return answer[1]

    def answer(self, seconds: float = 60.0) -> tuple[int, Any]:
        """Status and body of the next answer, which is that to the newest request."""
        message = self._call("receive", seconds=seconds)
        assert message is not None
        assert message["topic"].startswith(RESPONSES), message
        status, _, query = message["topic"].removeprefix(RESPONSES).partition("/?")
        assert query.startswith(f"$rid={self.rid}")
        assert ("&retry-after=3" in query) == (status == "202")
        return int(status), json.loads(message["body"])

    def hears_nothing(self) -> None:
        assert self._call("receive", seconds=0.3) is None

    def close(self) -> None:
        self._call("close")

    def _call(self, operation: str, **arguments: Any) -> Any:
        return self._paho.call(operation, connection=self.registration_id, **arguments)


@pytest.fixture
def device(https: HttpsClient, paho: SdkClient) -> Iterator[Device]:
    """Enrolled by a key, and connected."""
    name = f"corner-{next(_numbers)}"
    https.enroll_by(name, attestation=SYMMETRIC)
    connected = Device(paho, name).connect()
    yield connected
    connected.close()


BODIES = {
    "empty": None,
    "null": '{"payload":null}',
    "string": '{"registrationId":"NAME","payload":"text"}',
    "object": '{"payload":{"a":[1,{"b":"ü"}]},"registrationId":"NAME"}',
    "number": '{"payload":7}',
    "more": '{"unknown":{"x":1},"registrationId":"NAME"}',
    "space": " ",
}


@pytest.mark.parametrize("qos", [0, 1])
@pytest.mark.parametrize("kind", list(BODIES))
def test_bodies(device: Device, kind: str, qos: int) -> None:
    body = BODIES[kind]
    status, accepted = device.register(body and body.replace("NAME", device.registration_id), qos)
    assert (status, set(accepted)) == (202, {"operationId", "status"})
    final = device.finish(accepted["operationId"])
    assert (final["status"], final["registrationState"]["deviceId"]) == ("assigned", device.registration_id)
    assert final["registrationState"]["substatus"] == "initialAssignment"


@pytest.mark.parametrize("body", ["{", '{"registrationId":"another"}', '"text"', "\x00"])
def test_bodies_that_are_none(device: Device, body: str) -> None:
    """400, on a connection that goes on."""
    status, refused = device.register(body)
    assert (status, refused["errorCode"] // 1000) == (400, 400)
    assert device.register()[0] == 202


@pytest.mark.parametrize(
    "topic",
    [
        "$dps/registrations/PUT/iotdps-register",
        "$dps/registrations/POST/iotdps-register/?$rid=1",
        "$dps/registrations/res/200/?$rid=1",
        "devices/x/messages/events/",
        "nonsense",
    ],
)
def test_wrong_topics(device: Device, topic: str) -> None:
    """They are acknowledged and ignored (dps.md 2.7)."""
    for qos in (0, 1):
        device.publish(topic, "{}", qos)
    device.hears_nothing()
    assert device.register()[0] == 202


def test_the_subscription_comes_late(https: HttpsClient, paho: SdkClient) -> None:
    """The answer waits for it (dps.md 2.2)."""
    https.enroll_by("late", attestation=SYMMETRIC)
    late = Device(paho, "late").connect(listening=False)
    late.rid = 1
    late.publish(REGISTER.format(1))
    late.hears_nothing()
    late.listen()
    assert late.answer()[0] == 202
    late.close()


def test_registering_again_on_the_same_connection(device: Device) -> None:
    operations = []
    for _ in range(3):
        _, accepted = device.register()
        operations.append(accepted["operationId"])
        assert device.finish(accepted["operationId"])["status"] == "assigned"
    assert len(set(operations)) == 3
    # Of an earlier operation the latest outcome is told.
    assert device.poll(operations[0])[1]["operationId"] == operations[0]


def test_polling_from_another_connection(device: Device) -> None:
    """After the connection was lost between the register and the poll: who polls proves itself again."""
    operation = device.register()[1]["operationId"]
    device.close()
    device.connect()
    assert device.finish(operation)["status"] == "assigned"
    device.close()
    device.connect(password=None)
    status, refused = device.poll(operation)
    assert (status, refused["errorCode"]) == (401, 401000)
    assert device.poll("5.0000000000000000.no-such-operation")[0] in (401, 404)


def test_an_operation_of_another_device(https: HttpsClient, paho: SdkClient, device: Device) -> None:
    operation = device.register()[1]["operationId"]
    https.enroll_by("curious", attestation=SYMMETRIC)
    curious = Device(paho, "curious").connect()
    assert curious.register()[0] == 202
    status, refused = curious.poll(operation)
    assert (status, refused["errorCode"]) == (404, 404202)
    curious.close()


class Gate:
    """A webhook that answers when it is opened, with the hub of ``server``."""

    def __init__(self, server: MusterServer) -> None:
        self.opened = threading.Event()
        opened, hub = self.opened, server.address

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["Content-Length"]))
                opened.wait(8)
                body = json.dumps({"iotHubHostName": hub}).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Nothing."""

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.opened.set()
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def gate(muster: MusterServer) -> Iterator[Gate]:
    made = Gate(muster)
    yield made
    made.close()


def test_a_second_register_while_the_first_runs(https: HttpsClient, paho: SdkClient, gate: Gate) -> None:
    """The same operation, on the same connection and on another (dps.md 11); a poll says *assigning* meanwhile."""
    url = f"http://127.0.0.1:{gate.http.server_port}/"
    custom = {"webhookUrl": url, "apiVersion": "2021-10-01"}
    https.enroll_by("gated", attestation=SYMMETRIC, allocationPolicy="custom", customAllocationDefinition=custom)
    gated = Device(paho, "gated").connect()
    operations = [gated.register()[1]["operationId"] for _ in range(2)]
    status, assigning = gated.poll(operations[0])
    assert (status, assigning["status"]) == (202, "assigning")
    assert assigning["registrationState"] == {"registrationId": "gated", "status": "assigning"}
    gated.close()
    gated.connect()
    operations.append(gated.register()[1]["operationId"])
    assert len(set(operations)) == 1
    gate.opened.set()
    assert gated.finish(operations[0])["status"] == "assigned"
    gated.close()


# Lookups, over HTTPS (dps.md 1.1)


def look_up(
    server: MusterServer, registration_id: str, *, password: str | None = None, files: tuple[Path, Path] | None = None
) -> tuple[int, Any]:
    context = ssl.create_default_context(cafile=str(server.ca_file))
    if files:
        context.load_cert_chain(*files)
    connection = http.client.HTTPSConnection(server.address, context=context, timeout=60)
    headers = {"Content-Type": "application/json", **({"Authorization": password} if password else {})}
    target = f"/{ID_SCOPE}/registrations/{registration_id}?api-version=2021-06-01"
    connection.request("POST", target, json.dumps({"registrationId": registration_id}), headers)
    response = connection.getresponse()
    body = json.loads(response.read())
    connection.close()
    return response.status, body


def registered(device: Device) -> None:
    assert device.finish(device.register()[1]["operationId"])["status"] == "assigned"
    device.close()


def test_looking_up_by_keys(muster: MusterServer, https: HttpsClient, paho: SdkClient) -> None:
    https.enroll_by("look-key", attestation=SYMMETRIC)
    https.enroll_group("look-group", attestation=SYMMETRIC)
    derived = derive_device_key(KEY, "look-member")
    for name, key in (("look-key", KEY), ("look-member", derived)):
        password = token(name, key)
        status, missing = look_up(muster, name, password=password)
        assert (status, missing["errorCode"]) == (404, 404202)
        registered(Device(paho, name).connect(password=password))
        status, found = look_up(muster, name, password=password)
        assert (status, found["status"], found["deviceId"]) == (200, "assigned", name)
        assert found["assignedHub"] == muster.address
        assert look_up(muster, name)[0] == 401
        assert look_up(muster, name, password=token(name, base64.b64encode(b"?" * 32).decode()))[0] == 401
    assert found["symmetricKey"] == {"enrollmentGroupId": "look-group"}


def test_looking_up_by_certificates(muster: MusterServer, https: HttpsClient, paho: SdkClient, tmp_path: Path) -> None:
    root = issue("look root", is_ca=True)
    (tmp_path / "root.pem").write_bytes(to_pem(root.certificate))
    muster.cli("certificate", "upload", str(tmp_path / "root.pem"), "--verify")
    signing = {"signingCertificates": {"primary": {"certificate": root.certificate_pem.decode()}}}
    https.enroll_group("look-line", attestation={"type": "x509", "x509": signing})
    own = self_signed("look-own")
    https.enroll("look-own", own.certificate_pem.decode())
    identities: dict[str, Identity] = {"look-own": own, "look-line-1": issue("look-line-1", root)}
    for name, identity in identities.items():
        files = identity.write(tmp_path, name)
        certificate, key = map(str, files)
        registered(Device(paho, name).connect(password=None, certificate=certificate, key=key))
        status, found = look_up(muster, name, files=files)
        assert (status, found["status"], found["deviceId"]) == (200, "assigned", name)
        status, refused = look_up(muster, name)
        assert (status, refused["errorCode"]) == (401, 401002)
    assert found["x509"] == {"enrollmentGroupId": "look-line"}
