"""AMQP clients as fast as Python has them, for benchmarks: what goes by the thousand is made and read by hand.

    python -m tests.bench.amqp_load drain|publish|lag --host H --ca FILE ...

``drain`` reads one partition from its beginning over one link, ``publish`` sends telemetry from many devices, ``lag``
keeps readers that are behind until its standard input ends. Each prints one JSON object, with the names of
``tests/bench/load.py``.
"""

import argparse
import asyncio
import itertools
import json
import select
import socket
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from typing import Any

from muster.domain.event_hub import event_hub_name
from muster.domain.sas import create_token
from muster.wire.amqp_client import WINDOW, AmqpClient
from muster.wire.amqp_client_cbs import Cbs
from muster.wire.amqp_client_links import Answered, ClientEvent, ClientLink, Judged, Unlinked
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_frames import encode_frame
from muster.wire.amqp_messages import Data, Message
from muster.wire.amqp_performatives import (
    RECEIVER,
    SELECTOR_FILTER,
    SETTLED,
    Accepted,
    Disposition,
    Flow,
    Source,
    Target,
)
from muster.wire.amqp_sessions import Closed, Violation
from muster.wire.amqp_types import Described, Symbol
from tests.bench.load import SETTLE_SECONDS, latencies, server_cost
from tests.bench.processes import cpu_seconds
from tests.support.fix_server import DEVELOPMENT_KEY
from tests.support.mqtt_client import Endpoint, endpoint

AMQP_PORT = 5671
CREDIT = 5000
POLICY = "iothubowner"

_READ = 1_048_576
_MORSEL = 10
"""Events that a lagging reader takes at a time."""
_HEAD = Struct(">I")
_LONG = Struct(">q")
_TRANSFER = 0x14
_PERFORMATIVE = 10  # where a frame says what it is: after its head of 8 bytes and the constructor of a small ulong
# A transfer as rhea writes it, on handle 0: size, head, list of 11 fields, handle, delivery id, tag, and the rest.
_DEVICE_TRANSFER = Struct(">I12sI2sI8s")
_DEVICE_HEAD = bytes.fromhex("02 00 0000 00 53 14 c0 15 0b 43 70")
_DEVICE_TAG = bytes.fromhex("a0 04")
_DEVICE_END = bytes.fromhex("43 42 42 40 40 42 42 42")
_SEQUENCE_KEY = b"\xa3\x15x-opt-sequence-number\x81"


class FailedError(Exception):
    """The server did something else than it should."""


# Readers


def open_reader(options: argparse.Namespace, name: str) -> tuple[ssl.SSLSocket, ClientLink]:
    """A connection with one link from the beginning of a partition, which has no credit yet."""
    context = ssl.create_default_context(cafile=str(options.ca))
    stream = context.wrap_socket(socket.create_connection((options.host, AMQP_PORT)), server_hostname=options.host)
    core = AmqpClient(name, options.host, mechanism="ANONYMOUS")
    cbs = Cbs(core)
    audience = f"sb://{options.host}/{event_hub_name(options.hub)}"
    cbs.put(create_token(audience, DEVELOPMENT_KEY, int(time.time()) + 3600, POLICY), audience)
    for event in conversation(stream, core):
        answer = cbs.take(event)
        if answer is not None:
            if not answer.accepted:
                raise FailedError(answer)
            break
    begin = Described(Symbol(SELECTOR_FILTER), "amqp.annotation.x-opt-offset > '-1'")
    address = f"{event_hub_name(options.hub)}/ConsumerGroups/{options.group}/Partitions/{options.partition}"
    link = core.attach_receiver(name, Source(address, filter={Symbol(SELECTOR_FILTER): begin}))
    for event in conversation(stream, core):
        if isinstance(event, Answered) and event.link is link:
            return stream, link
    raise FailedError("the connection ended")


def conversation(stream: ssl.SSLSocket, core: AmqpClient) -> Iterator[ClientEvent]:
    while not core.closed:
        stream.sendall(core.take_output())
        for event in core.receive(stream.recv(_READ), 0):
            if isinstance(event, (Unlinked, Closed, Violation)):
                raise FailedError(event)
            yield event


class Reader:
    """Counts events and requires that none is missing."""

    def __init__(self, stream: ssl.SSLSocket, link: ClientLink) -> None:
        assert link.answer is not None
        self._stream = stream
        self._handle = link.handle
        self._unsettled = link.answer.snd_settle_mode != SETTLED
        self._settled = 0
        self._rest = b""
        self.count = 0

    def grant(self, credit: int) -> None:
        output = b""
        if self._unsettled and self._settled < self.count:
            last = self.count - 1
            verdict = Disposition(RECEIVER, self._settled, last, settled=True, state=Accepted())
            output = encode_frame(0, verdict)
            self._settled = self.count
        flow = Flow(self.count + 1, WINDOW, 0, WINDOW, self._handle, self.count, credit)
        self._stream.sendall(output + encode_frame(0, flow))

    def read(self) -> int:
        """How many events came with the next bytes."""
        data = self._stream.recv(_READ)
        if not data:
            raise FailedError("the server ended the connection")
        if self._rest:
            data = self._rest + data
        position, before, present, count = 0, self.count, len(data), self.count
        while present - position >= 4:
            end = position + _HEAD.unpack_from(data, position)[0]
            if end > present:
                break
            if data[position + _PERFORMATIVE] == _TRANSFER:
                at = data.index(_SEQUENCE_KEY, position, end) + len(_SEQUENCE_KEY)
                if _LONG.unpack_from(data, at)[0] != count:
                    raise FailedError(f"event {_LONG.unpack_from(data, at)[0]} came, {count} is next")
                count += 1
            elif end - position > 8 and data[position + _PERFORMATIVE] != 0x13:
                raise FailedError(f"frame {data[position:end]!r:.300}")
            position = end
        self._rest = data[position:]
        self.count = count
        return count - before


def drain(options: argparse.Namespace) -> dict[str, Any]:
    """Read ``--count`` events as fast as they come."""
    reader = Reader(*open_reader(options, "drain"))
    began, cpu = time.monotonic(), cpu_seconds(options.server_pid)
    own = time.process_time()
    reader.grant(CREDIT)
    granted = CREDIT
    while reader.count < options.count:
        reader.read()
        if granted - reader.count <= CREDIT // 2:
            granted = reader.count + CREDIT
            reader.grant(CREDIT)
    took = time.monotonic() - began
    return {
        "events": reader.count,
        "per_s": round(reader.count / took),
        "reader_cpu_us_each": round((time.process_time() - own) / reader.count * 1e6, 2),
        "server": server_cost(cpu, cpu_seconds(options.server_pid), reader.count),
        "errors": {"total": 0},
    }


def lag(options: argparse.Namespace) -> dict[str, Any]:
    """Keep readers that take ``--rate`` events a second each, of a log with far more, until standard input ends."""
    readers = [Reader(*open_reader(options, f"lag-{number}")) for number in range(options.count)]
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], _MORSEL / options.rate)[0]:
        for reader in readers:
            wanted = reader.count + _MORSEL
            reader.grant(_MORSEL)
            while reader.count < wanted:
                reader.read()
    return {"events": sum(reader.count for reader in readers), "errors": {"total": 0}}


# Devices


class Device(asyncio.Protocol):
    """A device that sends ``window`` messages at a time, by X.509 and without SASL."""

    def __init__(self, name: str, host: str, window: int) -> None:
        self.name = name
        self.window = window
        self.acknowledged = 0
        self.took: list[tuple[float, float]] = []
        self.fault: object = None
        self.stopping = False
        self.ended = asyncio.Event()
        self._core = AmqpClient(name, host)
        self._link = self._core.attach_sender("telemetry", Target(f"/devices/{name}/messages/events"))
        self._numbers = itertools.count()
        self._since: dict[int, float] = {}
        body = f'{{"device":"{name}","pad":"'.encode()
        body += b"x" * (254 - len(body)) + b'"}'
        self._message = encode_message(Message(body=Data((body,))))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self._core.take_output())

    def data_received(self, data: bytes) -> None:
        now = time.monotonic()
        for event in self._core.receive(data, 0):
            if isinstance(event, Judged):
                if not isinstance(event.state, Accepted):
                    self.fault = event
                self.took.append((now, now - self._since.pop(event.delivery_id)))
                self.acknowledged += 1
            elif isinstance(event, (Unlinked, Closed, Violation)):
                self.fault = event
        self._fill(now)

    def _fill(self, now: float) -> None:
        link = self._link
        output = [self._core.take_output()]
        size = _DEVICE_TRANSFER.size + len(self._message)
        while link.credit > 0 and len(self._since) < self.window and not self.stopping:
            number = next(self._numbers)
            head = _DEVICE_TRANSFER.pack(size, _DEVICE_HEAD, number, _DEVICE_TAG, number, _DEVICE_END)
            output += [head, self._message]
            link.credit -= 1
            link.delivery_count += 1
            link.unsettled[number] = None
            self._since[number] = now
        self._transport.write(b"".join(output))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.stopping:
            self.fault = self.fault or exc or "the connection ended"
        self.ended.set()

    def stop(self) -> None:
        self.stopping = True
        self._transport.abort()


async def publish(options: argparse.Namespace) -> dict[str, Any]:
    """Telemetry of ``--count`` devices for a while; only what is acknowledged while it is measured counts."""
    names = sorted(path.stem for path in options.certificates.glob("*.crt"))[: options.count]
    devices = [Device(name, options.host, options.window) for name in names]
    loop = asyncio.get_running_loop()
    for device in devices:
        at = _endpoint(options, device.name)
        await loop.create_connection(
            lambda device=device: device, at.host, AMQP_PORT, ssl=at.context, server_hostname=at.host
        )
    async with asyncio.timeout(60):
        while not all(device.acknowledged for device in devices):
            _require_no_fault(devices)
            await asyncio.sleep(0.01)
    await asyncio.sleep(SETTLE_SECONDS / 2)
    began, cpu = time.monotonic(), cpu_seconds(options.server_pid)
    await asyncio.sleep(options.seconds)
    ended, cpu_after = time.monotonic(), cpu_seconds(options.server_pid)
    _require_no_fault(devices)
    for device in devices:
        device.stop()
    took = [latency for device in devices for arrival, latency in device.took if began <= arrival < ended]
    return {
        "msgs_per_s": round(len(took) / (ended - began)),
        "lat_us": latencies(took),
        "server": server_cost(cpu, cpu_after, len(took)),
        "errors": {"total": 0},
    }


def _require_no_fault(devices: list[Device]) -> None:
    for device in devices:
        if device.fault is not None:
            raise FailedError(device.name, device.fault)


def _endpoint(options: argparse.Namespace, name: str) -> Endpoint:
    files = options.certificates / name
    return endpoint(options.host, options.ca, files.with_suffix(".crt"), files.with_suffix(".key"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["drain", "publish", "lag"])
    parser.add_argument("--host", required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--server-pid", type=int, required=True)
    parser.add_argument("--count", type=int, required=True, help="of events, devices or readers")
    parser.add_argument("--hub", default="", help="whose events to read")
    parser.add_argument("--group", default="$Default")
    parser.add_argument("--partition", type=int, default=0)
    parser.add_argument("--rate", type=float, default=100.0, help="events a second that each lagging reader takes")
    parser.add_argument("--certificates", type=Path, help="directory of NAME.crt and NAME.key")
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    if options.mode == "publish":
        print(json.dumps(asyncio.run(publish(options))))
    else:
        print(json.dumps((drain if options.mode == "drain" else lag)(options)))


if __name__ == "__main__":
    main()
