"""A load of our own, for where no load generator in C is at hand: slower than the server, but the server's CPU for one
operation comes out the same.

    python -m tests.bench.load publish|publish-amqp|register|idle|twin-read|twin-update --host H --ca FILE
        --certificates DIR --server-pid P ...

Prints one JSON object, with the names that ``mqttload`` has for the same things.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from muster.wire.mqtt_packets import Connect, Packet, Publish, Suback, Subscribe
from tests.bench.processes import cpu_seconds, memory_kib
from tests.support.amqp_telemetry import AmqpTelemetryDevice
from tests.support.mqtt_client import (
    Endpoint,
    MqttClient,
    TelemetryDevice,
    endpoint,
    finish_registration,
    open_registration,
    start_registration,
)

AT_ONCE = 16
"""Handshakes at a time."""

SETTLE_SECONDS = 1.0
POLL_SECONDS = 0.02


async def in_parallel(work: Callable[[str], Awaitable[None]], names: Sequence[str]) -> None:
    """Do it for every name, ``AT_ONCE`` at a time."""
    waiting = iter(names)

    async def worker() -> None:
        for name in waiting:
            await work(name)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


def server_cost(before: float, after: float, count: int) -> dict[str, float]:
    return {"cpu_s": round(after - before, 2), "cpu_us_each": round((after - before) * 1e6 / max(count, 1), 2)}


def latencies(seconds: Sequence[float]) -> dict[str, int]:
    if len(seconds) < 2:
        return {}
    percentiles = statistics.quantiles(seconds, n=100, method="inclusive")
    return {"p50": round(percentiles[49] * 1e6), "p99": round(percentiles[98] * 1e6)}


class TwinDevice:
    """A device that reads its twin, or patches it, each time that the answer to the last request has come."""

    def __init__(self, at: Endpoint, name: str, *, update: bool) -> None:
        self._at = at
        self._name = name
        self._update = update
        self._since = 0.0
        self.client: MqttClient | None = None
        self.finished: list[tuple[float, float]] = []
        """When each answer came, in seconds of the monotonic clock, and how long it took."""

    async def start(self) -> None:
        user_name = f"{self._at.host}/{self._name}/?api-version=2021-04-12"
        client = await MqttClient.open(self._at, Connect(self._name, username=user_name, keep_alive=240))
        client.send(Subscribe(1, ((b"$iothub/twin/res/#", 0),)))
        await client.next(Suback)
        client.on_packets = self._answered
        self.client = client
        self._request(client)

    def _request(self, client: MqttClient) -> None:
        number = len(self.finished)
        self._since = time.monotonic()
        if self._update:
            client.send(
                Publish(f"$iothub/twin/PATCH/properties/reported/?$rid={number}".encode(), b'{"n":%d}' % number)
            )
        else:
            client.send(Publish(f"$iothub/twin/GET/?$rid={number}".encode(), b""))

    def _answered(self, packets: list[Packet]) -> None:
        status = b"/204/" if self._update else b"/200/"
        assert self.client is not None
        for packet in packets:
            assert isinstance(packet, Publish), packet
            assert status in packet.topic, packet
            now = time.monotonic()
            self.finished.append((now, now - self._since))
            self._request(self.client)


class Load:
    """The devices of a directory of certificates against one server."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.pid: int = options.server_pid
        names = sorted(path.stem for path in options.certificates.glob("*.crt"))
        self.names = names[options.first : options.first + options.count]

    def endpoint(self, name: str) -> Endpoint:
        files = self.options.certificates / name
        return endpoint(self.options.host, self.options.ca, files.with_suffix(".crt"), files.with_suffix(".key"))

    async def publish(self, kind: type[TelemetryDevice] = TelemetryDevice) -> dict[str, Any]:
        window: int = self.options.window
        devices = [kind(self.endpoint(name), name, window=window) for name in self.names]
        async with asyncio.TaskGroup() as group:
            for device in devices:
                group.create_task(device.run())
            async with asyncio.timeout(60):
                while not all(device.acknowledged for device in devices):  # noqa: ASYNC110 - many devices, no single event
                    await asyncio.sleep(0.01)
            await asyncio.sleep(SETTLE_SECONDS / 2)
            began, cpu = time.monotonic(), cpu_seconds(self.pid)
            await asyncio.sleep(self.options.seconds)
            ended, cpu_after = time.monotonic(), cpu_seconds(self.pid)
            await asyncio.gather(*(device.stop() for device in devices))
        took = [
            latency
            for device in devices
            for arrival, latency in zip(device.arrivals, device.latencies, strict=True)
            if began <= arrival < ended
        ]
        again = sum(device.connections - 1 for device in devices) + sum(len(device.faults) for device in devices)
        return {
            "msgs_per_s": round(len(took) / (ended - began)),
            "lat_us": latencies(took),
            "server": server_cost(cpu, cpu_after, len(took)),
            "errors": {"total": again},
        }

    async def publish_amqp(self) -> dict[str, Any]:
        return await self.publish(AmqpTelemetryDevice)

    async def register(self) -> dict[str, Any]:
        took: list[float] = []

        async def register(name: str) -> None:
            at = self.endpoint(name)  # loading the files is no part of a registration
            began = time.monotonic()
            client = await open_registration(at, self.options.scope, name)
            operation = await start_registration(client, name)
            answer = await finish_registration(client, operation, POLL_SECONDS)
            assert answer["status"] == "assigned", answer
            client.abort()
            took.append(time.monotonic() - began)

        began, cpu = time.monotonic(), cpu_seconds(self.pid)
        await in_parallel(register, self.names)
        ended, cpu_after = time.monotonic(), cpu_seconds(self.pid)
        return {
            "per_s": round(len(took) / (ended - began), 1),
            "lat_us": latencies(took),
            "server": server_cost(cpu, cpu_after, len(took)),
            "errors": {"total": 0},
        }

    async def twin(self, *, update: bool) -> dict[str, Any]:
        devices = {name: TwinDevice(self.endpoint(name), name, update=update) for name in self.names}
        await in_parallel(lambda name: devices[name].start(), self.names)
        await asyncio.sleep(SETTLE_SECONDS / 2)
        began, cpu = time.monotonic(), cpu_seconds(self.pid)
        await asyncio.sleep(self.options.seconds)
        ended, cpu_after = time.monotonic(), cpu_seconds(self.pid)
        took = [latency for device in devices.values() for at, latency in device.finished if began <= at < ended]
        lost = 0
        for device in devices.values():
            assert device.client is not None
            lost += device.client.lost.is_set()
            device.client.abort()
        return {
            "per_s": round(len(took) / (ended - began)),
            "lat_us": latencies(took),
            "server": server_cost(cpu, cpu_after, len(took)),
            "errors": {"total": lost},
        }

    async def idle(self) -> dict[str, Any]:
        clients: list[MqttClient] = []

        async def connect(name: str) -> None:
            at = self.endpoint(name)
            user_name = f"{at.host}/{name}/?api-version=2021-04-12"
            clients.append(await MqttClient.open(at, Connect(name, username=user_name, keep_alive=240)))

        before = memory_kib(self.pid)
        await in_parallel(connect, self.names)
        await asyncio.sleep(SETTLE_SECONDS)
        after = memory_kib(self.pid)
        lost = sum(client.lost.is_set() for client in clients)
        for client in clients:
            client.abort()
        each = round((after - before) / len(clients), 2)
        return {"server": {"kib_per_connection": each}, "errors": {"total": lost}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["publish", "publish-amqp", "register", "idle", "twin-read", "twin-update"])
    parser.add_argument("--host", required=True)
    parser.add_argument("--ca", type=Path, required=True)
    parser.add_argument("--certificates", type=Path, required=True, help="directory of NAME.crt and NAME.key")
    parser.add_argument("--scope", default="", help="id scope")
    parser.add_argument("--first", type=int, default=0, help="index of the first device")
    parser.add_argument("--count", type=int, default=100, help="devices")
    parser.add_argument("--window", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--server-pid", type=int, required=True)
    options = parser.parse_args()
    load = Load(options)
    modes = {
        "publish": load.publish,
        "publish-amqp": load.publish_amqp,
        "register": load.register,
        "idle": load.idle,
        "twin-read": partial(load.twin, update=False),
        "twin-update": partial(load.twin, update=True),
    }
    print(json.dumps(asyncio.run(modes[options.mode]())))


if __name__ == "__main__":
    main()
