"""Five hundred devices register at the same moment, half of them in vain: every one gets its own answer, whoever was
accepted is assigned, and the server stays small and awake.

Every device has a TLS connection and, where it has one, a P-256 certificate of its own; half come over MQTT, half
over HTTPS.
"""

import asyncio
import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from tests.bench.processes import resident_kib
from tests.support.fix_pki import Identity, expired, issue, other_self_signed, root, self_signed
from tests.support.fix_server import DEVELOPMENT_KEY, ID_SCOPE, MusterServer, StartServer
from tests.support.mqtt_client import (
    Endpoint,
    ask_to_register,
    endpoint,
    finish_registration,
    open_registration,
)
from tests.support.service_client import ServiceClient

from muster.domain.sas import create_token, derive_device_key

FLEET_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
WRONG_KEY = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8="
HTTPS_PORT = 443
POLL_SECONDS = 0.1
CONNECTION_KIB = 160
"""What the server may grow by for each connection that is open at the same time, TLS and all."""

LASTING_KIB = 24 * 1024
"""What it may keep for good after the first storm, when a second one with the same devices comes."""

LONGEST_WAIT = 0.6
"""For how much of a storm an answer to somebody else may take: with its clients on the same two cores, whose speed
nobody knows, this tells a server that takes turns from one that does not.
"""


@dataclass(frozen=True)
class Outcome:
    """How a registration ends: the last status of the transport, the error code if it is one, or the final status."""

    status: int
    code: int | None = None
    state: str | None = None
    message: str | None = None


ASSIGNED = Outcome(200, state="assigned")
DISABLED = Outcome(200, state="disabled")
WRONG_CERTIFICATE = Outcome(401, 401002, message="Invalid certificate.")
NO_GROUP = Outcome(401, 401002, message="CA certificate not found.")
WRONG_TOKEN = Outcome(401, 401002, message="Unauthorized")
WRONG_TOKEN_OVER_MQTT = replace(WRONG_TOKEN, code=401000)
ILLEGAL_ID = Outcome(400, 400004)


@dataclass(frozen=True)
class Device:
    """One device, what it has to prove itself with, and what it has to be told."""

    name: str
    outcome: Outcome
    identity: Identity | None = None
    enrolled: Identity | None = None
    key: str | None = None
    expiry: int = 4_000_000_000
    id_scope: str = ID_SCOPE
    disabled: bool = False
    https: bool = False

    @property
    def resource(self) -> str:
        return f"{self.id_scope}/registrations/{self.name}"

    @property
    def token(self) -> str | None:
        return None if self.key is None else create_token(self.resource, self.key, self.expiry, "registration")


# Who takes part


def by_certificate(name: str) -> Device:
    return Device(name, ASSIGNED, self_signed(name), self_signed(name))


def by_group_certificate(name: str) -> Device:
    return Device(name, ASSIGNED, issue(name, line(), usages=None))


def by_derived_key(name: str) -> Device:
    return Device(name, ASSIGNED, key=derive_device_key(FLEET_KEY, name))


def with_another_certificate(name: str) -> Device:
    return Device(name, WRONG_CERTIFICATE, other_self_signed(name), self_signed(name))


def expired_certificate(name: str) -> Device:
    return Device(name, WRONG_CERTIFICATE, expired(name), expired(name))


def unknown(name: str) -> Device:
    return Device(name, NO_GROUP, self_signed(name))


def disabled(name: str) -> Device:
    return Device(name, DISABLED, self_signed(name), self_signed(name), disabled=True)


def with_another_key(name: str) -> Device:
    return Device(name, WRONG_TOKEN, key=derive_device_key(WRONG_KEY, name))


def with_an_old_token(name: str) -> Device:
    return Device(name, WRONG_TOKEN, key=derive_device_key(FLEET_KEY, name), expiry=1_500_000_000)


def of_another_scope(name: str) -> Device:
    return replace(by_derived_key(name), outcome=WRONG_TOKEN, id_scope="0ne0BADBAD0")


def with_an_illegal_name(name: str) -> Device:
    return Device(f"{name}!", ILLEGAL_ID, key=derive_device_key(FLEET_KEY, f"{name}!"))


CROWD: dict[Callable[[str], Device], int] = {
    by_certificate: 130,
    by_group_certificate: 60,
    by_derived_key: 60,
    with_another_certificate: 60,
    expired_certificate: 30,
    unknown: 40,
    disabled: 40,
    with_another_key: 40,
    with_an_old_token: 20,
    of_another_scope: 10,
    with_an_illegal_name: 10,
}


@functools.cache
def line() -> Identity:
    """The CA of the group."""
    return issue("storm line", root(), is_ca=True)


def make_crowd() -> list[Device]:
    """All of them, mixed: every kind comes from the first device to the last, over MQTT and over HTTPS."""
    placed: list[tuple[float, Device]] = []
    for make, count in CROWD.items():
        for number in range(count):
            device = make(f"storm-{make.__name__.replace('_', '-')}-{number:03}")
            https = number % 2 == 1
            told = WRONG_TOKEN_OVER_MQTT if device.outcome == WRONG_TOKEN and not https else device.outcome
            placed.append(((number + 0.5) / count, replace(device, https=https, outcome=told)))
    return [device for _place, device in sorted(placed, key=lambda item: (item[0], item[1].name))]


def enroll(server: MusterServer, crowd: Sequence[Device]) -> None:
    with service_client(server) as client:
        for device in crowd:
            if device.enrolled is not None:
                client.enroll(device.name, device.enrolled.certificate_pem.decode(), enabled=not device.disabled)
        signing = {"primary": {"certificate": line().certificate_pem.decode()}}
        client.enroll_group("storm-line", {"type": "x509", "x509": {"signingCertificates": signing}})
        keys = {"primaryKey": FLEET_KEY, "secondaryKey": FLEET_KEY}
        client.enroll_group("storm-fleet", {"type": "symmetricKey", "symmetricKey": keys})


def service_client(server: MusterServer) -> ServiceClient:
    return ServiceClient(server.address, server.ca_file.read_text(), DEVELOPMENT_KEY)


# What each of them does


@dataclass(frozen=True)
class Answer:
    """What a device was told last."""

    outcome: Outcome
    tracking_id: str = ""
    device_id: str = ""


def ended(status: int, body: dict[str, Any], wanted: Outcome) -> Answer:
    """The last answer; a message counts where one is wanted."""
    state = body.get("registrationState", {})
    message = body.get("message") if wanted.message is not None else None
    outcome = Outcome(status, body.get("errorCode"), body.get("status"), message)
    return Answer(outcome, body.get("trackingId", ""), state.get("deviceId", ""))


async def register_over_mqtt(device: Device, at: Endpoint) -> Answer:
    client = await open_registration(at, device.id_scope, device.name, device.token)
    try:
        status, body = await ask_to_register(client, device.name)
        if status == "202":
            body = await finish_registration(client, body["operationId"], POLL_SECONDS)
            status = "200"
        return ended(int(status), body, device.outcome)
    finally:
        client.abort()


async def register_over_https(device: Device, at: Endpoint) -> Answer:
    reader, writer = await asyncio.open_connection(
        at.host, HTTPS_PORT, ssl=at.context, server_hostname=at.host, ssl_handshake_timeout=120
    )

    async def ask(method: str, path: str, body: bytes = b"") -> tuple[int, dict[str, Any]]:
        head = f"{method} /{device.resource}/{path}?api-version=2021-06-01 HTTP/1.1\r\nHost: {at.host}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        head += f"Authorization: {device.token}\r\n" if device.token else ""
        writer.write(head.encode() + b"\r\n" + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(int(line.partition(":")[2]) for line in lines if line.startswith("content-length:"))
        return int(lines[0].split()[1]), json.loads(await reader.readexactly(length))

    try:
        status, body = await ask("PUT", "register", json.dumps({"registrationId": device.name}).encode())
        while status == 202:
            await asyncio.sleep(POLL_SECONDS)
            status, body = await ask("GET", f"operations/{body['operationId']}")
        return ended(status, body, device.outcome)
    finally:
        writer.transport.abort()


def endpoint_of(device: Device, server: MusterServer, directory: Path) -> Endpoint:
    if device.identity is None:
        return endpoint(server.address, server.ca_file)
    return endpoint(server.address, server.ca_file, *device.identity.write(directory, device.name))


async def storm(crowd: Sequence[tuple[Device, Endpoint]]) -> list[Answer]:
    """All at once; what each was told."""
    async with asyncio.timeout(240):
        return await asyncio.gather(
            *((register_over_https if device.https else register_over_mqtt)(device, at) for device, at in crowd)
        )


class Watch:
    """Asks the server for something else all the time, and looks at its memory."""

    def __init__(self, server: MusterServer) -> None:
        self.slowest = 0.0
        self.seconds = 0.0
        self.answers = 0
        self.highest_kib = 0
        self._server = server
        self._ended = Event()

    def run(self) -> None:
        with service_client(self._server) as client:
            while not self._ended.wait(0.05):
                began = time.monotonic()
                client.device("bystander")
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.answers += 1
                self.highest_kib = max(self.highest_kib, resident_kib(self._server.pid))

    @contextmanager
    def watching(self) -> Iterator[None]:
        thread = Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()


@dataclass(frozen=True)
class Storm:
    """The crowd, each with its end of the connection, and the server that it is about to meet."""

    server: MusterServer
    crowd: list[tuple[Device, Endpoint]]

    async def meet(self) -> tuple[list[Answer], Watch]:
        watch = Watch(self.server)
        began = time.monotonic()
        with watch.watching():
            answers = await storm(self.crowd)
            watch.seconds = time.monotonic() - began
        return answers, watch


@pytest.fixture(params=["sqlite", "postgres"])
def gathered(request: pytest.FixtureRequest, start_server: StartServer, tmp_path: Path) -> Storm:
    options: tuple[str, ...] = ()
    if request.param == "postgres":
        options = ("--database", request.getfixturevalue("postgres_dsn"))
    server = start_server("--log-level", "warning", *options)
    crowd = make_crowd()
    assert len(crowd) == 500
    assert sum(device.outcome == ASSIGNED for device in crowd) == 250
    (tmp_path / "root.pem").write_bytes(root().certificate_pem)
    server.cli("certificate", "upload", str(tmp_path / "root.pem"), "--verify")
    enroll(server, crowd)
    with service_client(server) as client:
        client.create_device("bystander", key=FLEET_KEY)
    directory = tmp_path / "devices"
    directory.mkdir()
    return Storm(server, [(device, endpoint_of(device, server, directory)) for device in crowd])


async def test_five_hundred_devices_at_once(gathered: Storm) -> None:
    server = gathered.server
    before = resident_kib(server.pid)
    answers, watch = await gathered.meet()
    require_right_answers(gathered, answers)
    assert watch.highest_kib - before < len(answers) * CONNECTION_KIB
    await asyncio.to_thread(require_nothing_lost, gathered, answers)
    settled = resident_kib(server.pid)
    again, second = await gathered.meet()
    require_right_answers(gathered, again)
    assert any(one.answers >= 5 and one.slowest < LONGEST_WAIT * one.seconds for one in (watch, second))
    assert resident_kib(server.pid) - settled < LASTING_KIB
    assert server.stop() == 0, server.output
    assert "Traceback" not in server.output, server.output


def require_right_answers(gathered: Storm, answers: Sequence[Answer]) -> None:
    """Everyone was told what is right for it, and not what is right for another."""
    wrong = [
        (device.name, device.https, answer.outcome, device.outcome)
        for (device, _), answer in zip(gathered.crowd, answers, strict=True)
        if answer.outcome != device.outcome
    ]
    assert not wrong, f"{len(wrong)} wrong answers, such as {wrong[:5]}"
    for (device, _), answer in zip(gathered.crowd, answers, strict=True):
        assert answer.device_id == (device.name if device.outcome == ASSIGNED else "")
    tracking_ids = [answer.tracking_id for answer in answers if answer.outcome.code]
    assert all(tracking_ids)
    assert len(set(tracking_ids)) == len(tracking_ids)


def require_nothing_lost(gathered: Storm, answers: Sequence[Answer]) -> None:
    """The service has every registration, the hub every device, and each refusal its report; and nothing else."""
    devices = {device.name: device for device, _ in gathered.crowd}
    with service_client(gathered.server) as client:
        states = Counter()
        for name, device in devices.items():
            if device.outcome.state is None:
                assert not client.exists(f"/registrations/{name}"), name
                assert not client.exists(f"/devices/{name}", hub=True), name
                continue
            assert client.registration(name)["status"] == device.outcome.state
            states[device.outcome.state] += 1
            assert client.exists(f"/devices/{name}", hub=True) == (device.outcome == ASSIGNED), name
        assert states == {"assigned": 250, "disabled": CROWD[disabled]}
        for (device, _), answer in zip(gathered.crowd, answers, strict=True):
            if answer.tracking_id and device.outcome != ILLEGAL_ID:
                (report,) = client.reports(answer.tracking_id)
                assert (report["subject"], report["verdict"]) == (device.name, "refused")
