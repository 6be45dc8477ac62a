"""Unmodified SDKs of devices and of back ends talk in both directions: twins, methods, messages; also after the
connection was cut, and after the server was started again.
"""

import base64
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_node import OpenNodeClient
from tests.support.fix_server import MusterServer
from tests.support.raw_mqtt import RawMqtt

from muster.domain.sas import create_token
from muster.wire.mqtt_packets import Connack, Connect

KEY = base64.b64encode(bytes(range(32))).decode()
SAS = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
VERSION = "api-version=2021-04-12"
SLOW_SECONDS = 5

_ONLINE_SECONDS = 120.0

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "py-sync": ("python", {}),
    "py-sync-ws": ("python", {"websockets": True}),
    "py-aio": ("python", {"api": "aio"}),
    "py-aio-ws": ("python", {"api": "aio", "websockets": True}),
    "node": ("node", {}),
    "node-ws": ("node", {"websockets": True}),
    "node-amqp": ("node", {"amqp": True}),
    "node-amqp-ws": ("node", {"amqp": True, "websockets": True}),
}
MODULE_WAYS = {
    "py-module": ("python", {"module": True}),
    "py-module-aio-ws": ("python", {"module": True, "api": "aio", "websockets": True}),
    "node-module": ("node", {"module": True}),
    "node-module-ws": ("node", {"module": True, "websockets": True}),
    "node-module-amqp": ("node", {"module": True, "amqp": True}),
    "node-module-amqp-ws": ("node", {"module": True, "amqp": True, "websockets": True}),
}


class Device:
    """One device or module of an SDK, and what a back end does with it."""

    def __init__(self, muster: MusterServer, https: HttpsClient, sdk: SdkClient, ids: list[str]) -> None:
        self.muster = muster
        self.https = https
        self.sdk = sdk
        self.ids = ids
        self.name = "/".join(ids)
        https.create_device(ids[0], authentication=SAS)
        module = ""
        if len(ids) > 1:
            body = {"deviceId": ids[0], "moduleId": ids[1], "authentication": SAS}
            assert https.request("PUT", f"/devices/{ids[0]}/modules/{ids[1]}?{VERSION}", body).status == 200
            module = f";ModuleId={ids[1]}"
        self.connection_string = f"HostName={muster.address};DeviceId={ids[0]}{module};SharedAccessKey={KEY}"

    def call(self, operation: str, **arguments: Any) -> Any:
        return self.sdk.call(operation, connection=self.name, **arguments)

    def connect(self, **options: Any) -> None:
        self.call("connect", connection_string=self.connection_string, **options)
        self.wait_until_ready()

    def close(self) -> None:
        self.call("close")

    def heard(self, kind: str) -> Any:
        return self.call("heard", kind=kind)[0]

    def heard_desired(self, version: int) -> Any:
        """The change to this version. The SDK of Node.js shows the whole twin whenever it reads it, which is none."""
        while (change := self.heard("desired"))["$version"] < version:
            pass
        return change

    # The back end, by plain HTTPS.

    @property
    def path(self) -> str:
        return self.ids[0] if len(self.ids) == 1 else f"{self.ids[0]}/modules/{self.ids[1]}"

    def desire(self, **desired: Any) -> int:
        body = {"properties": {"desired": desired}}
        answer = self.https.request("PATCH", f"/twins/{self.path}?{VERSION}", body)
        assert answer.status == 200, answer
        return int(answer.json["properties"]["desired"]["$version"])

    def reported(self) -> dict[str, Any]:
        twin = self.https.request("GET", f"/twins/{self.path}?{VERSION}").json
        return {key: value for key, value in twin["properties"]["reported"].items() if key != "$metadata"}

    def ask(self, name: str, payload: Any = None) -> Any:
        body = {"methodName": name, "payload": payload, "responseTimeoutInSeconds": 30}
        answer = self.https.request("POST", f"/twins/{self.path}/methods?{VERSION}", body)
        return answer.status, answer.json

    def tell(self, body: str) -> None:
        answer = self.https.request("POST", f"/muster/v1/c2d/{self.ids[0]}", {"body": body})
        assert answer.status == 201, answer

    def wait_until_listening(self) -> None:
        """A device that answers a method is subscribed; until then it is as if it were away."""
        deadline = time.monotonic() + _ONLINE_SECONDS
        while (answer := self.ask("echo", "there?"))[0] != 200:
            assert answer[0] == 404, answer
            assert time.monotonic() < deadline, f"{self.name} does not listen"
            time.sleep(0.1)
        assert self.heard("method") == {"name": "echo", "payload": "there?"}

    def wait_until_ready(self) -> None:
        """At first, and after its connection was lost. Over AMQP a device says what it follows on one link each,
        each thing in its own time, and there is no session that remembers it.
        """
        self.wait_until_listening()
        if "amqp" not in self.name:
            return
        deadline = time.monotonic() + _ONLINE_SECONDS
        first = self.desire(probe=0)
        while not any(change["$version"] >= first for change in self.call("waiting", kind="desired")):
            assert time.monotonic() < deadline, f"{self.name} does not follow its twin"
            time.sleep(0.1)
            self.desire(probe=time.monotonic())
        self.desire(probe=None)

    def wait_until_completed(self) -> None:
        """The SDK's acknowledgement has counted: the message does not come again, whatever happens now."""
        deadline = time.monotonic() + _ONLINE_SECONDS
        while self.https.request("GET", f"/devices/{self.ids[0]}?{VERSION}").json["cloudToDeviceMessageCount"]:
            assert time.monotonic() < deadline, "the message was not completed"
            time.sleep(0.02)

    def hears_all(self, text: str) -> None:
        """Everything that the device listens to reaches it, and it asks and reports."""
        version = self.desire(text=text)
        assert self.heard_desired(version) == {"text": text, "$version": version}
        self.call("report", patch={"text": text})
        assert self.reported()["text"] == text
        twin = self.call("twin")
        assert (twin["desired"]["text"], twin["reported"]["text"]) == (text, text)
        assert self.ask("echo", text) == (200, {"status": 200, "payload": {"echo": text}})
        assert self.heard("method") == {"name": "echo", "payload": text}
        if len(self.ids) == 1:
            self.tell(text)
            assert self.heard("message") == text
            self.wait_until_completed()


MakeDevice = Callable[..., Device]


@pytest.fixture(scope="module")
def make(
    muster: MusterServer, https: HttpsClient, clients: OpenClient, node_clients: OpenNodeClient
) -> Callable[[str, str], Device]:
    """A device by one of the scripts, connected as a way says; its id is what it is for and the way."""

    def open_one(what: str, way: str) -> Device:
        language, options = {**WAYS, **MODULE_WAYS}[way]
        sdk = clients("talking_device.py") if language == "python" else node_clients("talking_device.js")
        ids = [f"{what}-{way}", *(["gauge"] if options.get("module") else [])]
        device = Device(muster, https, sdk, ids)
        device.connect(**options)
        return device

    return open_one


@pytest.mark.parametrize("way", [*WAYS, *MODULE_WAYS])
def test_all_that_there_is(make: MakeDevice, way: str) -> None:
    device = make("all", way)
    device.hears_all("grüß dich")
    version = device.desire(text=None, fan={"speed": 2, "modes": ["a", {"b": False}]})
    assert device.heard_desired(version) == {
        "text": None,
        "fan": {"speed": 2, "modes": ["a", {"b": False}]},
        "$version": version,
    }
    desired = device.call("twin")["desired"]
    assert desired == {"fan": {"speed": 2, "modes": ["a", {"b": False}]}, "$version": version}
    device.call("report", patch={"fan": {"speed": 2, "old": 1}, "text": None})
    device.call("report", patch={"fan": {"old": None}, "name": "Lüfter"})
    reported = device.reported()
    assert (reported["fan"], reported["name"], "text" in reported) == ({"speed": 2}, "Lüfter", False)
    assert device.ask("fail", [1, 2]) == (200, {"status": 500, "payload": {"error": "broken"}})
    assert device.heard("method") == {"name": "fail", "payload": [1, 2]}
    assert device.ask("nothing", {}) == (200, {"status": 204, "payload": None})
    device.close()
    assert device.ask("echo")[0] == 404


@pytest.mark.parametrize("way", ["py-sync", "node"])
def test_a_report_that_is_refused(make: MakeDevice, way: str) -> None:
    """Node decides by the body of the answer and not by its status: without one it would take it for a success."""
    device = make("wrong", way)
    before = device.reported()
    with pytest.raises(SdkError):
        device.call("report", patch={"a.b": 1})
    assert device.reported() == before
    device.call("report", patch={"a": 1})
    assert device.reported()["a"] == 1
    device.close()


def cut(muster: MusterServer, device: Device) -> None:
    """End the device's connection from the server's side: another one takes its place, and goes."""
    token = create_token(f"{muster.address}/devices/{device.ids[0]}", KEY, int(time.time()) + 3600).encode()
    username = f"{muster.address}/{device.ids[0]}/?api-version=2021-04-12"
    with RawMqtt(muster) as intruder:
        intruder.send(Connect(device.ids[0], username=username, password=token, clean_session=False))
        # A client that speaks AMQP leaves no session behind.
        assert intruder.receive(Connack) == Connack(session_present="amqp" not in device.name)


@pytest.mark.parametrize("way", ["py-sync", "py-aio-ws", "node", "node-ws", "node-amqp", "node-amqp-ws"])
def test_a_cut_connection(muster: MusterServer, make: MakeDevice, way: str) -> None:
    """The SDK of Python never subscribes again, that of Node.js not to its twin: the session remembers."""
    device = make("cut", way)
    device.hears_all("before")
    cut(muster, device)
    device.wait_until_ready()
    device.hears_all("after")
    device.close()


# Methods, by the SDKs of back ends


@pytest.fixture(scope="module", params=["python", "node"])
def service(request: pytest.FixtureRequest, clients: OpenClient, node_clients: OpenNodeClient) -> SdkClient:
    return clients("methods.py") if request.param == "python" else node_clients("methods.js")


@pytest.fixture(scope="module")
def answering(make: MakeDevice) -> Device:
    return make("answering", "py-sync")


def test_methods_of_devices_and_modules(muster: MusterServer, service: SdkClient, make: MakeDevice) -> None:
    owner = muster.hub_connection_string
    kind = type(service).__name__.lower()
    for way in ("py-sync", "node-module"):
        device = make(f"method-{kind}", way)
        given = {"connection_string": owner, "ids": device.ids, "response_seconds": 20}
        for payload in ({"a": [1, None, "ü"]}, "text", 7, [True]):
            answer = service.call("invoke", **given, name="echo", payload=payload)
            assert answer == {"status": 200, "payload": {"echo": payload}}
        answer = service.call("invoke", **given, name="fail", payload=1)
        assert answer == {"status": 500, "payload": {"error": "broken"}}
        assert service.call("invoke", **given, name="nothing", payload=1) == {"status": 204, "payload": None}
        device.close()


def refused(service: SdkClient, owner: str, ids: list[str], **given: Any) -> tuple[int, dict[str, Any]]:
    """The status of the answer, and the error in its message."""
    with pytest.raises(SdkError) as caught:
        service.call("invoke", connection_string=owner, ids=ids, **given)
    return caught.value.status, json.loads(json.loads(caught.value.body)["Message"])


def test_nobody_is_there_to_be_asked(muster: MusterServer, https: HttpsClient, service: SdkClient) -> None:
    owner = muster.hub_connection_string
    absent = f"absent-{type(service).__name__}"
    https.create_device(absent)
    status, error = refused(service, owner, [absent], name="echo", payload=1, response_seconds=SLOW_SECONDS)
    assert (status, error["errorCode"], error["info"]) == (404, 404103, {"timeout": "00:00:00"})
    status, error = refused(service, owner, ["nobody"], name="echo", payload=1, response_seconds=SLOW_SECONDS)
    assert (status, error["errorCode"]) == (404, 404001)
    status, error = refused(service, owner, [absent, "nothing"], name="echo", payload=1)
    assert (status, error["errorCode"]) == (404, 404001)
    started = time.monotonic()
    status, error = refused(
        service, owner, [absent], name="echo", payload=1, response_seconds=SLOW_SECONDS, connect_seconds=2
    )
    assert (status, error["errorCode"]) == (404, 404103)
    assert time.monotonic() - started >= 2


def test_a_device_that_is_silent(muster: MusterServer, service: SdkClient, answering: Device) -> None:
    started = time.monotonic()
    given = {"name": "silent", "payload": 1, "response_seconds": SLOW_SECONDS}
    status, error = refused(service, muster.hub_connection_string, answering.ids, **given)
    assert (status, error["errorCode"]) == (504, 504101)
    assert time.monotonic() - started >= SLOW_SECONDS


# plain paho


def test_paho_with_a_session(muster: MusterServer, https: HttpsClient, clients: OpenClient) -> None:
    """Filters at both qualities, a wildcard in place of its own id, a will, and messages that waited."""
    https.create_device("paho", authentication=SAS)
    paho = clients("paho_session.py")
    login = {
        "client_id": "paho",
        "username": f"{muster.address}/paho/?api-version=2021-04-12",
        "password": create_token(f"{muster.address}/devices/paho", KEY, int(time.time()) + 3600),
    }

    def tell(body: str) -> None:
        assert https.request("POST", "/muster/v1/c2d/paho", {"messageId": body, "body": body}).status == 201

    def waiting() -> int:
        return int(https.request("GET", f"/devices/paho?{VERSION}").json["cloudToDeviceMessageCount"])

    will = {"topic": "devices/paho/messages/events/last=1", "body": "gone"}
    assert paho.call("connect", connection="paho", **login, will=will) == {"code": 0, "sessionPresent": False}
    filters = [["devices/+/messages/devicebound/#", 1], ["$iothub/twin/res/#", 0], ["$iothub/methods/POST/#", 2]]
    assert paho.call("subscribe", connection="paho", filters=filters) == [1, 0, 1]
    tell("first")
    [message] = paho.call("heard", connection="paho")
    assert (message["body"], message["qos"], message["retain"]) == ("first", 1, False)
    assert message["topic"].startswith("devices/paho/messages/devicebound/%24.mid=first&")
    paho.call("publish", connection="paho", topic="$iothub/twin/GET/?$rid=x", body="", qos=0)
    [message] = paho.call("heard", connection="paho")
    assert (message["topic"], message["qos"]) == ("$iothub/twin/res/200/?$rid=x", 0)
    paho.call("cut", connection="paho")
    assert https.wait_for_events("paho", 1)[0]["applicationProperties"] == {"last": "1", "iothub-MessageType": "Will"}

    for body in ("second", "third"):
        tell(body)
    assert paho.call("connect", connection="paho", **login) == {"code": 0, "sessionPresent": True}
    assert [message["body"] for message in paho.call("heard", connection="paho", count=2)] == ["second", "third"]
    paho.call("close", connection="paho")

    assert paho.call("connect", connection="paho", **login, clean_session=True)["sessionPresent"] is False
    assert paho.call("subscribe", connection="paho", filters=[["devices/paho/messages/devicebound/#", 0]]) == [0]
    tell("at most once")
    [message] = paho.call("heard", connection="paho")
    assert (message["body"], message["qos"]) == ("at most once", 0)
    paho.call("close", connection="paho")
    assert paho.call("connect", connection="paho", **login) == {"code": 0, "sessionPresent": False}
    paho.call("close", connection="paho")
    deadline = time.monotonic() + _ONLINE_SECONDS
    while waiting():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# The end of the server. Last: it is the one of this module.


def test_a_server_that_starts_again(muster: MusterServer, make: MakeDevice) -> None:
    devices = [make("restart", way) for way in ("py-sync", "py-aio-ws", "py-module", "node", "node-ws", "node-amqp")]
    for device in devices:
        device.hears_all("before")
    for stop in (muster.kill, muster.stop):
        stop()
        muster.start()
        for device in devices:
            device.wait_until_ready()
            device.hears_all(f"after {stop.__name__}")
    for device in devices:
        device.close()
