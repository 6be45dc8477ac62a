"""Plays a client's conversation (``tests/support/trace_text.py``) against the front ends of a Muster, in-process.

What is sent enters where the listener would bring it after TLS: HTTP and WebSocket at the HTTP protocol, MQTT and
AMQP at their front ends. What comes back is read off the same connection, and nothing else may come.
"""

import asyncio
import base64
import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from websockets.frames import Frame, Opcode

from muster.domain.allocation import WebhookAnswer
from muster.domain.bearer import sign_bearer
from muster.domain.sas import sign
from muster.domain.timestamp import HOUR, SECOND
from muster.domain.tpm import registration_id_of
from muster.frontends.amqp.dps import DpsLinks
from muster.frontends.http import HttpFactory
from muster.frontends.listener import Peer
from muster.frontends.rest.arm import BearerAccess
from muster.frontends.rest.arm_provisioning import ProvisioningResources
from muster.frontends.websocket import WebSocketServices
from muster.pki.certificate import sha1_thumbprint, sha256_thumbprint
from muster.server.rest import provisioning_apis, rest_app
from muster.wire.mqtt_decoder import decode, decode_remaining_length
from muster.wire.mqtt_packets import Packet, Publish
from tests.support.fix_amqp import amqp_front_end
from tests.support.fix_arm import TOKEN_KEY
from tests.support.fix_mqtt import mqtt_front_end
from tests.support.fix_pki import NOW, self_signed
from tests.support.fix_services import ID_SCOPE, KEY, Services
from tests.support.fix_tpm import software_tpm
from tests.support.memory_transport import MemoryTransport
from tests.support.trace_amqp import AmqpTrace, frame_length
from tests.support.trace_text import HttpMessage, Step, mqtt_packet, parse

_WAIT_SECONDS = 30.0
_PLACEHOLDER = re.compile(r"<([a-z0-9 ]+)>")
_MASK = b"\x12\x34\x56\x78"

FORMS = {
    "operation": r"5\.[0-9a-f]{16}\.[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z",
    "date": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{7})?Z",
    "etag": r"[A-Za-z0-9+/]+=*",
    "new etag": r"[A-Za-z0-9+/]+=*",
    "tracking id": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "base64": r"[A-Za-z0-9+/]+=*",
    "challenge": r"[A-Za-z0-9+/]+=*",
    "hex": r"([0-9A-F]{2})+",
    "words": r".+",
}
"""What a name stands for in what comes; those of ``_KEPT`` must stay what they were at first."""

_BY_WEBHOOK: dict[str, object] = {
    "allocationPolicy": "custom",
    "customAllocationDefinition": {"webhookUrl": "https://webhook.example.net/", "apiVersion": "2019-03-31"},
}

_KEPT = frozenset({"operation", "etag", "new etag", "challenge"})


class Connection:
    """One connection as its client has it: what came and was not looked at yet is ``unread``."""

    def __init__(self, make: Callable[[Peer], asyncio.Protocol], peer: Peer) -> None:
        self._changed = asyncio.Event()
        protocol = make(peer)
        self.transport = _Wire(protocol, self._changed.set, peer)
        self.unread = b""
        self.in_frames = False
        protocol.connection_made(self.transport)

    def send(self, data: bytes) -> None:
        """Inside a WebSocket as two frames, since packets and frames may end anywhere (dps.md 2.8)."""
        if self.in_frames:
            half = len(data) // 2
            first, second = Frame(Opcode.BINARY, data[:half], fin=False), Frame(Opcode.CONT, data[half:])
            data = first.serialize(mask=True) + second.serialize(mask=True)
        self.transport.protocol.data_received(data)

    async def take(self, length_of: Callable[[bytes], int | None]) -> bytes:
        """The next message; ``length_of`` says how long it is, or None when that cannot be told yet."""
        async with asyncio.timeout(_WAIT_SECONDS):
            while (length := length_of(self.read())) is None or len(self.unread) < length:
                self._changed.clear()
                await self._changed.wait()
        message, self.unread = self.unread[:length], self.unread[length:]
        return message

    def read(self) -> bytes:
        data = bytes(self.transport.output)
        self.transport.output.clear()
        self.unread += _unframed(data) if self.in_frames else data
        return self.unread

    async def is_closed(self) -> None:
        async with asyncio.timeout(_WAIT_SECONDS):
            while not self.transport.closing:
                self._changed.clear()
                await self._changed.wait()

    async def leave(self) -> None:
        self.transport.abort()
        await asyncio.sleep(0)


class _Wire(MemoryTransport):
    """A transport on which protocols can change, as they do for a WebSocket."""

    def __init__(self, protocol: asyncio.Protocol, written: Callable[[], None], peer: Peer) -> None:
        super().__init__(protocol, written)
        self._peer = peer

    @property
    def protocol(self) -> asyncio.Protocol:
        return self._protocol

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """It takes what it gets."""

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"peername": self._peer.remote, "sockname": self._peer.local, "sslcontext": True}.get(name, default)


def _unframed(data: bytes) -> bytes:
    """What the server's frames carry: each is whole, binary and unmasked, and the last one may close."""
    content = b""
    while data and data[0] != 0x80 | Opcode.CLOSE:
        assert data[0] == 0x80 | Opcode.BINARY, data
        length, start = data[1], 2
        if length == 126:
            length, start = int.from_bytes(data[2:4], "big"), 4
        content += data[start : start + length]
        data = data[start + length :]
    return content


class Player:
    """The front ends of ``services``, and what is known while conversations are played."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._tpm = software_tpm()
        self._identity = self_signed("dev-1")
        self._webhook = asyncio.Event()
        self._known: dict[str, str] = {}
        self._certificates: tuple[bytes, ...] = ()
        self._connection: Connection | None = None
        self._trace = AmqpTrace(self._require_text, self._require_body)
        self._mqtt = mqtt_front_end(services)
        dps = DpsLinks(services.registrations, services.tpm_dialogues, services.clock)
        self._amqp = amqp_front_end(services, (dps.open,), dps.begin_tpm)
        management = ProvisioningResources(
            services.provisioning, services.authorities, BearerAccess(TOKEN_KEY, services.clock)
        )
        apis = [*provisioning_apis(services, services.clock, ()), management]
        app = rest_app(services, services.clock, apis)
        websockets = WebSocketServices(mqtt=self._mqtt.protocol, amqp=self._amqp.protocol)
        self._http = HttpFactory(app, clock=services.clock, websockets=websockets)

    # What a conversation is played on

    async def prepare(self, condition: str) -> None:
        """Make true what a conversation takes for given."""
        services = self._services
        key = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
        match condition:
            case "dev-1 is enrolled by its key":
                await services.enroll_by("dev-1", key)
            case "dev-1 is enrolled by its key and disabled":
                await services.enroll_by("dev-1", key, provisioningStatus="disabled")
            case "dev-1 is enrolled by its key, and a webhook chooses":
                services.webhook.answer = WebhookAnswer(services.hub.host_name)
                await services.enroll_by("dev-1", key, **_BY_WEBHOOK)
            case "dev-1 is enrolled by its key, and a webhook fails":
                await services.enroll_by("dev-1", key, **_BY_WEBHOOK)
            case "dev-1 is enrolled by its certificate":
                services.clock.now = NOW
                await services.enroll("dev-1", self._identity.certificate_pem.decode())
                self._certificates = (self._identity.certificate,)
            case "a group is enrolled by a key":
                await services.enroll_group("fleet", key)
            case "a TPM is enrolled":
                tpm = {"type": "tpm", "tpm": {"endorsementKey": self._fact("endorsement key")}}
                await services.enroll_by(self._fact("tpm id"), tpm)
            case _:
                raise ValueError(f"nobody knows how to see to it that {condition}")

    # Playing

    async def play(self, text: str) -> None:
        """Play a conversation from its beginning to its end, after which nothing may be left to read."""
        for step in parse(text):
            try:
                await self._step(step)
            except Exception as error:
                error.add_note(f"at {step}")
                raise
        if self._connection is not None:
            assert self._connection.read() == b"", "more came than the conversation has"

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.leave()
        await self._http.finish(_WAIT_SECONDS)

    async def _step(self, step: Step) -> None:
        if step.mark == "*":
            await self._do(step.lines[0])
            return
        step = Step(step.mark, tuple(self._filled(line, sent=step.mark == ">") for line in step.lines))
        if step.mark == ">":
            self._open(step).send(self._encoded(step))
            return
        assert self._connection is not None, "nothing was sent that could be answered"
        if step.is_http:
            await self._require_answer(self._connection, HttpMessage.of(step))
        elif step.is_amqp:
            self._trace.require(await self._connection.take(frame_length), step)
            if self._trace.rest:
                self._known["challenge"] = base64.b64encode(self._trace.rest).decode()
        else:
            await self._require_packet(self._connection, mqtt_packet(step))

    def _encoded(self, step: Step) -> bytes:
        if step.is_http:
            return HttpMessage.of(step).encode()
        return self._trace.sent(step) if step.is_amqp else mqtt_packet(step).encode()

    def _open(self, step: Step) -> Connection:
        if self._connection is None:
            makers: dict[int, Callable[[Peer], asyncio.Protocol]] = {
                443: self._http,
                5671: self._amqp.protocol,
                8883: self._mqtt.protocol,
            }
            port = 443 if step.is_http else 5671 if step.is_amqp else 8883
            peer = Peer(
                ("127.0.0.1", 40001), ("127.0.0.1", port), tls_version="TLSv1.2", certificates=self._certificates
            )
            self._connection = Connection(makers[port], peer)
        return self._connection

    async def _do(self, what: str) -> None:
        match what:
            case "the registration ends":
                await self._services.registrations.stop(within=60)
            case "a new connection":
                await self._end()
            case "the server closes":
                assert self._connection is not None
                await self._connection.is_closed()
                await self._end()
            case "10 seconds pass":
                self._services.clock.advance(10 * SECOND)
            case "the webhook waits":
                self._hold_webhook()
            case "the webhook answers":
                self._webhook.set()
            case _:
                raise ValueError(f"nobody knows how to do: {what}")

    async def _end(self) -> None:
        assert self._connection is not None
        assert self._connection.read() == b"", "more came than the conversation has"
        await self._connection.leave()
        self._connection = None

    def _hold_webhook(self) -> None:
        webhook = self._services.webhook
        ask = webhook.ask

        async def hold(url: str, request: dict[str, Any]) -> WebhookAnswer:
            await self._webhook.wait()
            return await ask(url, request)

        webhook.ask = hold  # type: ignore[method-assign]  # what it answers comes later, and is still its own

    # What must come

    async def _require_packet(self, connection: Connection, expected: Packet) -> None:
        packet = decode_one(await connection.take(_packet_length))
        if isinstance(expected, Publish) and isinstance(packet, Publish):
            assert packet.payload.isascii(), "one client reads ASCII (dps.md 2.5)"
            self._require_text(packet.topic.decode(), expected.topic.decode())
            self._require_body(packet.payload, expected.payload.decode())
            packet = Publish(expected.topic, expected.payload, packet.qos, packet.packet_id, retain=packet.retain)
        assert packet == expected, f"{packet!r} came, not {expected!r}"

    async def _require_answer(self, connection: Connection, expected: HttpMessage) -> None:
        data = await connection.take(_answer_length)
        head, _, body = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert first == expected.first, f"{first} came, with {headers} and {body!r}"
        for header in expected.headers:
            name, _, value = header.partition(": ")
            assert name.lower() in headers, f"{name} did not come: {headers}"
            self._require_text(headers[name.lower()], value)
        if body:
            assert headers["content-type"].startswith("application/json"), "one client reads nothing else (dps.md 1.6)"
        self._require_body(body, expected.body)
        connection.in_frames = first.split()[1] == "101"

    def _require_body(self, body: bytes, expected: str) -> None:
        if not expected or not body:
            assert body == expected.encode()
            return
        self._require_equal(json.loads(body), json.loads(expected), "the body")

    def _require_equal(self, found: Any, expected: Any, place: str) -> None:
        if isinstance(expected, dict) and isinstance(found, dict):
            assert set(found) == set(expected), f"{place} has the members {sorted(found)}, not {sorted(expected)}"
            for name, value in expected.items():
                self._require_equal(found[name], value, f"{place}, {name}")
        elif isinstance(expected, list) and isinstance(found, list):
            assert len(found) == len(expected), f"{place} has {len(found)} items: {found}"
            for index, value in enumerate(expected):
                self._require_equal(found[index], value, f"{place}, {index}")
        elif isinstance(expected, str) and isinstance(found, str):
            self._require_text(found, expected)
        else:
            assert found == expected, f"{place} is {found!r}, not {expected!r}"

    def _require_text(self, found: str, expected: str) -> None:
        """``expected`` may have placeholders, which are filled from what is found."""
        names: list[str] = []

        def form(match: re.Match[str]) -> str:
            names.append(match[1])
            return f"(?P<{match[1].replace(' ', '_')}_{len(names)}>{FORMS[match[1]]})"

        pieces = re.split(r"(<[a-z0-9 ]+>)", expected)
        pattern = "".join(
            _PLACEHOLDER.sub(form, piece) if _PLACEHOLDER.fullmatch(piece) else re.escape(piece) for piece in pieces
        )
        match = re.fullmatch(pattern, found)
        assert match is not None, f"{found!r} came, not {expected!r}"
        for number, name in enumerate(names, 1):
            value = match[f"{name.replace(' ', '_')}_{number}"]
            if name in _KEPT:
                assert self._known.setdefault(name, value) == value, f"<{name}> was {self._known[name]}, is {value}"

    # What stands for what

    def _filled(self, line: str, *, sent: bool) -> str:
        """The line with what is known; in what must come, the rest stays and is found out."""

        def value(match: re.Match[str]) -> str:
            name = match[1]
            if name == "space" or (not sent and name in FORMS):
                return match[0]
            return self._known.get(name) or self._fact(name)

        return _PLACEHOLDER.sub(value, line)

    def _fact(self, name: str) -> str:
        """What is known without having been told. Raises KeyError for a name that stands for nothing."""
        identity, tpm = self._identity, self._tpm
        facts: dict[str, Callable[[], str]] = {
            "tpm id": lambda: registration_id_of(tpm.endorsement_key),
            "endorsement key": lambda: base64.b64encode(tpm.endorsement_key).decode(),
            "storage root key": lambda: base64.b64encode(tpm.storage_root_key).decode(),
            "tpm token": self._tpm_token,
            "bearer": lambda: sign_bearer(TOKEN_KEY, "test", self._services.clock(), HOUR),
            "pem": lambda: json.dumps(identity.certificate_pem.decode())[1:-1],
            "base64 of pem": lambda: base64.b64encode(identity.certificate_pem).decode(),
            "der": lambda: base64.b64encode(identity.certificate).decode(),
            "sha1": lambda: sha1_thumbprint(identity.certificate),
            "sha256": lambda: sha256_thumbprint(identity.certificate),
        }
        return facts[name]()

    def _tpm_token(self) -> str:
        """What the TPM signs with the nonce of the challenge that came (dps.md 4.6)."""
        nonce, _ = self._tpm.activate(base64.b64decode(self._known["challenge"]))
        resource = quote(f"{ID_SCOPE}/registrations/{self._fact('tpm id')}", safe="")
        signature = quote(sign(base64.b64encode(nonce).decode(), f"{resource}\n1900000000"), safe="")
        return f"SharedAccessSignature sr={resource}&sig={signature}&se=1900000000&skn=registration"


def decode_one(data: bytes) -> Packet:
    length, start = decode_remaining_length(data, 1)
    assert start + length == len(data)
    return decode(data[0], data[start:])


def _packet_length(data: bytes) -> int | None:
    if len(data) < 2:
        return None
    length, start = decode_remaining_length(data, 1)
    return None if length < 0 else start + length


def _answer_length(data: bytes) -> int | None:
    head, end, _ = data.partition(b"\r\n\r\n")
    if not end:
        return None
    match = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
    return len(head) + len(end) + (int(match[1]) if match else 0)
