"""MQTT clients of a running Muster that know what they were promised: devices that send with a window of messages on
their way, and devices that register.

Packets are those of ``muster.wire``, over asyncio's own TLS. The server's session core is what is tested and is not
used here.
"""

import asyncio
import contextlib
import json
import ssl
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

from muster.domain.sas import create_token
from muster.wire.mqtt_decoder import decode, decode_remaining_length
from muster.wire.mqtt_packets import ACCEPTED, Connack, Connect, Packet, Puback, Publish, Suback, Subscribe

MQTT_PORT = 8883

T = TypeVar("T", bound=Packet)

_ANSWER_SECONDS = 120.0
_RECONNECT_SECONDS = 0.05
_KEEP_ALIVE = 240
_LAST_PACKET_ID = 0xFFFF


class ConnectionEndedError(Exception):
    """The server closed the connection, or refused it."""


@dataclass(frozen=True)
class Endpoint:
    """Where a server is, and how a client trusts it and shows who it is."""

    host: str
    context: ssl.SSLContext
    port: int = MQTT_PORT


def endpoint(host: str, ca_file: Path, certificate: Path | None = None, key: Path | None = None) -> Endpoint:
    """Trust in the CA of ``ca_file``, and the client certificate if there is one."""
    context = ssl.create_default_context(cafile=str(ca_file))
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    return Endpoint(host, context)


class MqttClient(asyncio.Protocol):
    """One connection. Packets wait in ``packets`` until somebody asks, unless ``on_packets`` takes them at once."""

    def __init__(self) -> None:
        self.packets: asyncio.Queue[Packet | None] = asyncio.Queue()
        self.on_packets: Callable[[list[Packet]], None] | None = None
        self.lost = asyncio.Event()
        self._rest = b""

    @classmethod
    async def open(cls, at: Endpoint, connect: Connect) -> "MqttClient":
        """A connection whose CONNECT was accepted. ConnectionEndedError with the code when it was not."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_ANSWER_SECONDS):
            _, client = await loop.create_connection(cls, at.host, at.port, ssl=at.context, server_hostname=at.host)
        try:
            client.send(connect)
            connack = await client.next(Connack)
        except BaseException:
            client.abort()
            raise
        if connack.return_code != ACCEPTED:
            client.abort()
            raise ConnectionEndedError(f"CONNACK {connack.return_code}")
        return client

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        packets: list[Packet] = []
        position = 0
        while position < len(data):
            length, body = decode_remaining_length(data, position + 1)
            if length < 0 or body + length > len(data):
                break
            packets.append(decode(data[position], data[body : body + length]))
            position = body + length
        self._rest = data[position:]
        if self.on_packets is not None:
            self.on_packets(packets)
        else:
            for packet in packets:
                self.packets.put_nowait(packet)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is asyncio's
        self.lost.set()
        self.packets.put_nowait(None)

    def send(self, *packets: Packet) -> None:
        self._transport.write(b"".join([packet.encode() for packet in packets]))

    async def next(self, kind: type[T]) -> T:
        """The next packet, which must be of this kind. ConnectionEndedError when there is none."""
        async with asyncio.timeout(_ANSWER_SECONDS):
            packet = await self.packets.get()
        if packet is None:
            self.packets.put_nowait(None)
            raise ConnectionEndedError("the server closed the connection")
        assert isinstance(packet, kind), f"{packet!r} came, {kind.__name__} was expected"
        return packet

    def abort(self) -> None:
        self._transport.abort()


# Hub


@dataclass
class TelemetryDevice:
    """A device that sends numbered messages, ``window`` of them on their way at any time, and reconnects by itself.

    ``acknowledged`` are the numbers that the server vouched for, in the order of its PUBACKs, ``arrivals`` the time of
    each in seconds of the monotonic clock, ``latencies`` how long each took. No number is ever sent twice. ``faults``
    says where the server broke the order of its acknowledgements.
    """

    at: Endpoint
    device_id: str
    password: str | None = None
    window: int = 50
    size: int = 256
    acknowledged: list[int] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)
    sent: int = 0
    connections: int = 0
    faults: list[str] = field(default_factory=list)
    _stopping: bool = False
    _drained: asyncio.Event = field(default_factory=asyncio.Event)
    _waiting: deque[tuple[int, int, float]] = field(default_factory=deque)
    _client: MqttClient | None = None

    async def run(self) -> None:
        """Send until ``stop``, over as many connections as it takes; it may run again then."""
        self._stopping = False
        while not self._stopping:
            with contextlib.suppress(OSError, TimeoutError, ConnectionEndedError):
                await self._session()
            self._waiting.clear()
            self._drained.set()
            if not self._stopping:
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def stop(self) -> None:
        """Send no more, wait a moment for what is on its way, and disconnect."""
        self._stopping = True
        if self._waiting:
            self._drained.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER_SECONDS):
                    await self._drained.wait()
        if self._client is not None:
            self._client.abort()

    async def _session(self) -> None:
        user_name = f"{self.at.host}/{self.device_id}/?api-version=2021-04-12"
        password = None if self.password is None else self.password.encode()
        connect = Connect(self.device_id, username=user_name, password=password, keep_alive=_KEEP_ALIVE)
        client = self._client = await MqttClient.open(self.at, connect)
        self.connections += 1
        client.on_packets = self._on_packets
        if self._stopping:
            client.abort()
        self._fill(client)
        await client.lost.wait()

    def _on_packets(self, packets: list[Packet]) -> None:
        now = time.monotonic()
        for packet in packets:
            packet_id, number, since = self._waiting.popleft()
            if packet != Puback(packet_id):
                self.faults.append(f"{packet!r} came, PUBACK {packet_id} was next")
            self.acknowledged.append(number)
            self.arrivals.append(now)
            self.latencies.append(now - since)
        if self._client is not None:
            self._fill(self._client)
        if not self._waiting:
            self._drained.set()

    def _fill(self, client: MqttClient) -> None:
        now = time.monotonic()
        batch: list[Packet] = []
        while len(self._waiting) < self.window and not self._stopping:
            packet_id = self.sent % _LAST_PACKET_ID + 1
            topic = f"devices/{self.device_id}/messages/events/"
            batch.append(Publish(topic.encode(), self._body(self.sent), 1, packet_id))
            self._waiting.append((packet_id, self.sent, now))
            self.sent += 1
        if batch:
            client.send(*batch)

    def _body(self, number: int) -> bytes:
        head = f'{{"device":"{self.device_id}","seq":{number},"pad":"'.encode()
        return head + b"x" * (self.size - len(head) - 2) + b'"}'


def device_token(host: str, device_id: str, key: str) -> str:
    """A password for an hour, signed with the device's own key."""
    return create_token(f"{host}/devices/{device_id}", key, int(time.time()) + 3600)


# Provisioning


async def open_registration(
    at: Endpoint, id_scope: str, registration_id: str, password: str | None = None
) -> MqttClient:
    """A connection to the provisioning service, subscribed to its answers. ``password``: a token, if there is one."""
    user_name = f"{id_scope}/registrations/{registration_id}/api-version=2019-03-31"
    secret = None if password is None else password.encode()
    connect = Connect(registration_id, username=user_name, password=secret, keep_alive=_KEEP_ALIVE)
    client = await MqttClient.open(at, connect)
    client.send(Subscribe(1, [(b"$dps/registrations/res/#", 0)]))
    await client.next(Suback)
    return client


async def start_registration(client: MqttClient, registration_id: str) -> str:
    """Register; the operation id that came with 202."""
    status, answer = await ask_to_register(client, registration_id)
    assert status == "202", (status, answer)
    return str(answer["operationId"])


async def ask_to_register(client: MqttClient, registration_id: str) -> tuple[str, dict[str, Any]]:
    """Register; status and body of the answer, whatever it is."""
    body = json.dumps({"registrationId": registration_id}).encode()
    return await _ask(client, "$dps/registrations/PUT/iotdps-register/?$rid=1", body)


async def finish_registration(client: MqttClient, operation_id: str, pause: float) -> dict[str, Any]:
    """Poll every ``pause`` seconds until the operation is done; its last answer."""
    topic = f"$dps/registrations/GET/iotdps-get-operationstatus/?$rid=2&operationId={operation_id}"
    while True:
        status, answer = await _ask(client, topic, b" ")
        if status != "202":
            assert status == "200", (status, answer)
            return answer
        await asyncio.sleep(pause)


async def _ask(client: MqttClient, topic: str, body: bytes) -> tuple[str, dict[str, Any]]:
    client.send(Publish(topic.encode(), body))
    answer = await client.next(Publish)
    path, _, query = answer.topic_text.partition("?")
    assert parse_qs(query)["$rid"], answer
    return path.removeprefix("$dps/registrations/res/").strip("/"), json.loads(answer.payload)
