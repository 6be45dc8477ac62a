"""Devices that send telemetry over AMQP, a window of messages on its way, as ``mqtt_client.py`` has them for MQTT.

A device is known by its certificate, without SASL. Frames from the server are read with the wire core's decoder; what a
device sends is written here, byte by byte.
"""

import asyncio
import struct
import time
from dataclasses import dataclass

from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_frames import Frame, FrameReader, ProtocolHeader, encode_frame
from muster.wire.amqp_messages import Message, Properties
from muster.wire.amqp_performatives import (
    Accepted,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    Source,
    Target,
)
from tests.support.mqtt_client import ConnectionEndedError, TelemetryDevice

AMQP_PORT = 5671

_HANDSHAKE_SECONDS = 60.0
_MODULUS = 1 << 32
_FRAME = struct.Struct(">IBBH")
# A transfer on handle 0: delivery id and tag are filled in; message format 0, not settled.
_TRANSFER = struct.Struct(">3sBBBBBIBBIBB")


class _Line(asyncio.Protocol):
    """One connection: bytes to frames."""

    def __init__(self, device: "AmqpTelemetryDevice") -> None:
        self._device = device
        self._reader = FrameReader()
        self.attached = asyncio.Event()
        self.lost = asyncio.Event()
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        address = f"/devices/{self._device.device_id}/messages/events"
        attach = Attach(
            "telemetry", 0, False, source=Source("device"), target=Target(address), initial_delivery_count=0
        )
        opening = Open(self._device.device_id, self._device.at.host)
        frames = [encode_frame(0, body) for body in (opening, Begin(None, 0, 5000, 5000), attach)]
        transport.write(ProtocolHeader(0).encode() + b"".join(frames))

    def data_received(self, data: bytes) -> None:
        for item in self._reader.receive(data):
            body = item.body if isinstance(item, Frame) else None
            if isinstance(body, Disposition):
                self._device.on_disposition(body)
            elif isinstance(body, Flow) and body.handle == 0:
                self.attached.set()
            elif isinstance(body, Close | Detach | End):
                self._device.faults.append(f"the server sent {body!r}")
                self.transport.abort()
        self._device.fill()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the name is asyncio's
        self.lost.set()
        self.attached.set()

    def abort(self) -> None:
        self.transport.abort()


@dataclass
class AmqpTelemetryDevice(TelemetryDevice):
    """The same promises. The first number of a connection is that of its first delivery."""

    _line: _Line | None = None
    _first: int = 0
    _head: bytes = b""

    async def _session(self) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_HANDSHAKE_SECONDS):
            _, line = await loop.create_connection(
                lambda: _Line(self), self.at.host, AMQP_PORT, ssl=self.at.context, server_hostname=self.at.host
            )
            await line.attached.wait()
        if line.lost.is_set():
            raise ConnectionEndedError("the server closed the connection")
        self.connections += 1
        self._first = self.sent
        # As most clients do, it says before each body where that goes.
        self._head = encode_message(Message(properties=Properties(to=f"/devices/{self.device_id}/messages/events")))
        self._line = self._client = line  # type: ignore[assignment]  # all that is done with it is to abort it
        self.fill()
        await line.lost.wait()
        self._line = None

    def on_disposition(self, disposition: Disposition) -> None:
        """Deliveries that the server vouched for."""
        now = time.monotonic()
        last = disposition.first if disposition.last is None else disposition.last
        for delivery_id in range(disposition.first, last + 1):
            expected, number, since = self._waiting.popleft()
            if (expected, disposition.state) != (delivery_id, Accepted()):
                self.faults.append(f"{disposition!r} came, {expected} was next")
            self.acknowledged.append(number)
            self.arrivals.append(now)
            self.latencies.append(now - since)
        if not self._waiting:
            self._drained.set()

    def fill(self) -> None:
        """Send what the window has room for."""
        line = self._line
        if line is None:
            return
        now = time.monotonic()
        batch: list[bytes] = []
        while len(self._waiting) < self.window and not self._stopping:
            delivery_id = (self.sent - self._first) % _MODULUS
            batch.append(self._frame(delivery_id, self._body(self.sent)))
            self._waiting.append((delivery_id, self.sent, now))
            self.sent += 1
        if batch:
            line.transport.write(b"".join(batch))

    def _frame(self, delivery_id: int, body: bytes) -> bytes:
        transfer = _TRANSFER.pack(b"\0\x53\x14", 0xC0, 15, 5, 0x43, 0x70, delivery_id, 0xA0, 4, delivery_id, 0x43, 0x42)
        message = self._head + b"\0\x53\x75\xb0" + len(body).to_bytes(4, "big") + body
        return _FRAME.pack(8 + len(transfer) + len(message), 2, 0, 0) + transfer + message
