"""Devices in shell scripts: Debian's unmodified mosquitto_pub, mosquitto_sub and mosquitto_rr, and their exit codes.

A refused connection is told as the code of CONNACK, a connection that the server closes as 7.
"""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient
from tests.support.fix_pki import self_signed
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer

from muster.domain.sas import create_token
from muster.pki.certificate import sha256_thumbprint

KEYS = {"type": "sas", "symmetricKey": {"primaryKey": DEVELOPMENT_KEY, "secondaryKey": DEVELOPMENT_KEY}}
EVENTS = "devices/{}/messages/events/"
DEVICE_BOUND = "devices/{}/messages/devicebound/#"
FAR = 4_000_000_000

CONNECTION_LOST = 7
TLS_ERRORS = (1, 8)  # by whether it notices at once
TIMED_OUT = 27


class Device:
    """One identity, and what its programs are given on the command line to connect with."""

    def __init__(self, server: MusterServer, device_id: str, *credential: str) -> None:
        self.server = server
        self.id = device_id
        self.events = EVENTS.format(device_id)
        self.device_bound = DEVICE_BOUND.format(device_id)
        self._credential = credential

    def command(self, tool: str, *options: str, credential: tuple[str, ...] | None = None) -> list[str]:
        host = self.server.address
        place = ["-h", host, "-p", "8883", "--cafile", str(self.server.ca_file)]
        login = ["-i", self.id, "-u", f"{host}/{self.id}/?api-version=2021-04-12"]
        return [tool, *place, *login, *(self._credential if credential is None else credential), *options]

    def run(self, tool: str, *options: str, credential: tuple[str, ...] | None = None) -> tuple[int, str]:
        """The exit code and what it printed. ``credential`` is another one than the device's own."""
        command = self.command(tool, *options, credential=credential)
        result = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
        return result.returncode, result.stdout

    def publish(self, topic: str, body: str, *options: str) -> int:
        code, _ = self.run("mosquitto_pub", "-q", "1", "-t", topic, "-m", body, *options)
        return code

    def receive(self, *options: str, topic: str = "") -> tuple[int, str]:
        """The next message, in a minute and a half at most; with its topic where ``-v`` is among the options."""
        return self.run("mosquitto_sub", "-q", "1", "-t", topic or self.device_bound, "-C", "1", "-W", "90", *options)


def by_key(server: MusterServer, device_id: str, key: str = DEVELOPMENT_KEY) -> tuple[str, str]:
    return "-P", create_token(f"{server.address}/devices/{device_id}", key, FAR)


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if shutil.which("mosquitto_pub") is None:
        raise AssertionError("mosquitto_pub is missing: run `make system`")


@pytest.fixture
def device(muster: MusterServer, https: HttpsClient, request: pytest.FixtureRequest) -> Device:
    """An identity with a key, of this test alone."""
    device_id = f"sh-{request.node.name.removeprefix('test_')}"
    https.create_device(device_id, authentication=KEYS)
    return Device(muster, device_id, *by_key(muster, device_id))


def sent(https: HttpsClient, device: Device, number: int) -> list[tuple[str, dict[str, Any]]]:
    events = https.events(device.id, number)
    return [(event["body"], event["applicationProperties"]) for event in events]


def test_telemetry(device: Device, https: HttpsClient) -> None:
    assert device.publish(f"{device.events}room=attic%20east&%24.ct=text%2Fplain", "hot") == 0
    assert device.run("mosquitto_pub", "-q", "0", "-t", device.events, "-m", "cold")[0] == 0
    assert device.publish(device.events, "kept", "-r") == 0
    assert sent(https, device, 3) == [("hot", {"room": "attic east"}), ("cold", {}), ("kept", {"mqtt-retain": "true"})]
    assert https.events(device.id, 3)[0]["systemProperties"] == {"content-type": "text/plain"}


def test_telemetry_by_a_certificate(muster: MusterServer, https: HttpsClient, tmp_path: Path) -> None:
    identity = self_signed("sh-x509")
    certificate, key = identity.write(tmp_path)
    thumbprint = {"primaryThumbprint": sha256_thumbprint(identity.certificate), "secondaryThumbprint": None}
    https.create_device("sh-x509", authentication={"type": "selfSigned", "x509Thumbprint": thumbprint})
    device = Device(muster, "sh-x509", "--cert", str(certificate), "--key", str(key))
    assert device.publish(device.events, "by certificate") == 0
    assert [body for body, _ in sent(https, device, 1)] == ["by certificate"]
    other = self_signed("another").write(tmp_path)
    credential = ("--cert", str(other[0]), "--key", str(other[1]))
    assert device.run("mosquitto_pub", "-t", device.events, "-m", "x", credential=credential)[0] == 5


def test_a_will(device: Device, https: HttpsClient) -> None:
    """Left behind by one that is closed for a topic that is not its own."""
    will = ("--will-topic", device.events, "--will-payload", "gone")
    assert device.publish("devices/somebody-else/messages/events/", "x", *will) == CONNECTION_LOST
    https.wait_for_events(device.id, 1)
    assert sent(https, device, 1) == [("gone", {"iothub-MessageType": "Will"})]


def test_messages_from_the_cloud_wait_in_a_session(device: Device, muster: MusterServer) -> None:
    """``-c``: what it is subscribed to outlives the program, and what comes meanwhile waits."""
    assert device.run("mosquitto_sub", "-c", "-q", "1", "-t", device.device_bound, "-E")[0] == 0
    muster.cli("c2d", "send", device.id, "first", "--property", "color=dark red", "--message-id", "first")
    code, printed = device.receive("-c", "-v")
    topic, _, body = printed.strip().rpartition(" ")
    assert (code, body) == (0, "first")
    prefix = f"devices/{device.id}/messages/devicebound/"
    to = f"%2Fdevices%2F{device.id}%2Fmessages%2Fdevicebound"
    assert topic == f"{prefix}%24.mid=first&%24.to={to}&iothub-ack=none&color=dark%20red"
    # Without a word of its own about them: the session is subscribed to them.
    muster.cli("c2d", "send", device.id, "second")
    assert device.receive("-c", topic="$iothub/methods/POST/#") == (0, "second\n")
    muster.cli("c2d", "send", device.id, "to nobody")
    # A clean session forgets them all, and has no subscription when it begins.
    assert device.run("mosquitto_sub", "-q", "1", "-t", device.device_bound, "-W", "2") == (TIMED_OUT, "")


def test_a_message_from_the_cloud_while_it_listens(device: Device, muster: MusterServer) -> None:
    command = device.command(
        "mosquitto_sub", "-q", "0", "-t", "devices/+/messages/devicebound/#", "-C", "1", "-W", "90"
    )
    # Line by line: into a pipe it would print everything at its end.
    with subprocess.Popen(["stdbuf", "-oL", *command, "-d"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        assert any("Subscribed (mid: 1): 0" in line for line in lines)
        muster.cli("c2d", "send", device.id, "now")
        assert "now\n" in list(lines)
    assert process.returncode == 0


def test_a_twin_is_read(device: Device) -> None:
    """mosquitto_rr waits for one topic: that of the answer to its request."""
    code, printed = device.run(
        "mosquitto_rr",
        "-V",
        "mqttv311",
        "-W",
        "90",
        "-m",
        " ",
        "-t",
        "$iothub/twin/GET/?$rid=7",
        "-e",
        "$iothub/twin/res/200/?$rid=7",
    )
    assert (code, printed) == (0, '{"desired":{"$version":1},"reported":{"$version":1}}\n')


def test_refusals(device: Device, muster: MusterServer, https: HttpsClient) -> None:
    def code(*options: str, credential: tuple[str, ...] | None = None) -> int:
        return device.run("mosquitto_pub", "-q", "1", "-m", "x", *options, credential=credential)[0]

    own = ("-t", device.events)
    wrong_key = by_key(muster, device.id, "IB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE=")
    expired = ("-P", create_token(f"{muster.address}/devices/{device.id}", DEVELOPMENT_KEY, 1_600_000_000))
    assert code(*own, credential=wrong_key) == 5
    assert code(*own, credential=expired) == 5
    assert code(*own, credential=()) == 5
    assert Device(muster, "sh-nobody", *by_key(muster, "sh-nobody")).publish(EVENTS.format("sh-nobody"), "x") == 5
    https.update_device(device.id, authentication=KEYS, status="disabled")
    assert code(*own) == 5
    https.update_device(device.id, authentication=KEYS, status="enabled")
    assert code(*own, "-V", "mqttv31") == 1
    assert code(*own, "-V", "mqttv5") == 132
    assert device.run("mosquitto_pub", "-q", "2", *own, "-m", "x")[0] == CONNECTION_LOST
    assert code("-t", "devices/somebody-else/messages/events/") == CONNECTION_LOST
    assert code("-t", "elsewhere") == CONNECTION_LOST
    assert sent(https, device, 0) == []


def test_a_ca_that_it_does_not_trust(device: Device, tmp_path: Path) -> None:
    other = tmp_path / "ca.pem"
    other.write_bytes(self_signed("Another CA").certificate_pem)
    assert device.run("mosquitto_pub", "-t", device.events, "-m", "x", "--cafile", str(other))[0] in TLS_ERRORS


def test_too_much_at_once(device: Device, https: HttpsClient, tmp_path: Path) -> None:
    for size, code in ((262_144, 0), (262_145, CONNECTION_LOST)):
        file = tmp_path / f"{size}"
        file.write_bytes(b"x" * size)
        assert device.run("mosquitto_pub", "-q", "1", "-t", device.events, "-f", str(file))[0] == code
    assert len(https.events(device.id, 1)[0]["body"]) == 262_144
