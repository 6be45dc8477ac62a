"""Minutes of devices that come and go at a server that is stopped and killed: is anything lost that was acknowledged?

    SOAK_MINUTES=10 make soak

Devices send numbered telemetry and receive numbered messages over MQTT. They drop their connections, say goodbye, and
take over from themselves; the server is stopped and killed in turns and started again on its data. In the end every
message that was acknowledged, by PUBACK or by 201, must have arrived; every event is there once, in the order of its
device; and what came to a device a second time said so. Prints one JSON object; the exit code is 1 when something was
lost. ``SOAK_DEVICES`` and ``SOAK_SEED`` choose how many devices, and the moments.
"""

import asyncio
import contextlib
import http.client
import itertools
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from muster.domain.sas import create_token
from muster.wire.mqtt_packets import Connect, Disconnect, Packet, Puback, Publish, Suback, Subscribe
from tests.bench.processes import memory_kib
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer, free_address
from tests.support.mqtt_client import ConnectionEndedError, Endpoint, MqttClient, endpoint
from tests.support.service_client import ServiceClient

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
VERSION = "api-version=2021-04-12"
WINDOW = 8
WAITING = 20
BACK_ENDS = 4
TOKEN_SECONDS = 24 * 3600
SEND_SECONDS = 0.05
LIFE_SECONDS = (0.3, 6.0)
SERVER_SECONDS = (4.0, 12.0)
END_SECONDS = 60.0
SHOWN = 10

ENDS = ("drop", "goodbye", "takeover", "takeover")


@dataclass
class Device:
    """One device, and all that was promised to it and by it."""

    at: Endpoint
    device_id: str
    moments: random.Random
    counts: Counter[str]
    sent: int = 0
    acknowledged: list[int] = field(default_factory=list)
    begun: int = 0
    accepted: set[int] = field(default_factory=set)
    received: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    listening: threading.Event = field(default_factory=threading.Event)
    stopping: bool = False

    async def run(self) -> None:
        """Connect again and again until ``stopping``."""
        older: MqttClient | None = None
        while not self.stopping:
            try:
                connection = await self._connect()
            except (OSError, TimeoutError, ConnectionEndedError):
                self.counts["failed connects"] += 1
                await asyncio.sleep(0.1)
                continue
            self.counts["connections"] += 1
            if older is not None:
                await self._is_displaced(older)
                older = None
            ending = self.moments.choice(ENDS)
            lost = await self._send(connection, self.moments.uniform(*LIFE_SECONDS))
            if lost or self.stopping:
                ending = "drop"
            self.counts[ending] += not lost
            if ending == "takeover":
                older = connection
            else:
                if ending == "goodbye":
                    connection.send(Disconnect())
                connection.abort()
        if older is not None:
            older.abort()

    async def _connect(self) -> MqttClient:
        """A connection that takes what comes. Only the first of all subscribes: the session remembers."""
        password = create_token(f"{self.at.host}/devices/{self.device_id}", KEY, int(time.time()) + TOKEN_SECONDS)
        connect = Connect(
            self.device_id,
            username=f"{self.at.host}/{self.device_id}/?{VERSION}",
            password=password.encode(),
            clean_session=False,
            keep_alive=60,
        )
        connection = await MqttClient.open(self.at, connect)
        if not self.listening.is_set():
            connection.send(Subscribe(1, [(f"devices/{self.device_id}/messages/devicebound/#".encode(), 1)]))
            await connection.next(Suback)
            self.listening.set()
        Link(self, connection)
        return connection

    async def _is_displaced(self, older: MqttClient) -> None:
        try:
            async with asyncio.timeout(END_SECONDS):
                await older.lost.wait()
        except TimeoutError:
            self.faults.append("an older connection did not end")
            older.abort()

    async def _send(self, connection: MqttClient, seconds: float) -> bool:
        """Send telemetry for so long; whether the connection was lost meanwhile."""
        until = time.monotonic() + seconds
        link: Link = connection.link  # type: ignore[attr-defined]  # set by Link
        while time.monotonic() < until and not connection.lost.is_set() and not self.stopping:
            while len(link.waiting) < WINDOW:
                link.send(self.sent)
                self.sent += 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SEND_SECONDS * self.moments.uniform(0.5, 4)):
                    await connection.lost.wait()
        return connection.lost.is_set()

    @property
    def missing(self) -> set[int]:
        return self.accepted - self.received


class Link:
    """The packets of one connection."""

    def __init__(self, device: Device, connection: MqttClient) -> None:
        self.device = device
        self.connection = connection
        self.waiting: dict[int, int] = {}
        self._next_id = 1
        connection.link = self  # type: ignore[attr-defined]  # the connection of this link
        connection.on_packets = self._take
        early = []
        while not connection.packets.empty():
            packet = connection.packets.get_nowait()
            if packet is not None:
                early.append(packet)
        self._take(early)

    def send(self, number: int) -> None:
        packet_id = self._next_id
        self._next_id = packet_id % 0xFFFF + 1
        self.waiting[packet_id] = number
        topic = f"devices/{self.device.device_id}/messages/events/"
        self.connection.send(Publish(topic.encode(), b'{"seq":%d}' % number, 1, packet_id))

    def _take(self, packets: list[Packet]) -> None:
        device = self.device
        for packet in packets:
            match packet:
                case Puback():
                    device.acknowledged.append(self.waiting.pop(packet.packet_id))
                case Publish():
                    number = int(packet.payload)
                    if number in device.received:
                        device.counts["messages again"] += 1
                        if not packet.dup:
                            device.faults.append(f"message {number} came again without DUP")
                    device.received.add(number)
                    self.connection.send(Puback(packet.packet_id))
                case _:
                    device.faults.append(f"{packet!r} came")


class BackEnd(threading.Thread):
    """Sends messages to some devices, over whatever server there is."""

    def __init__(self, server: MusterServer, devices: list[Device]) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._devices = devices
        self._trust = server.ca_file.read_text()
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(SEND_SECONDS):
            try:
                with ServiceClient(self._server.address, self._trust, DEVELOPMENT_KEY) as client:
                    while not self.stopping.wait(SEND_SECONDS):
                        for device in self._devices:
                            self._send(client, device)
            except (OSError, http.client.HTTPException):
                continue

    @staticmethod
    def _send(client: ServiceClient, device: Device) -> None:
        if not device.listening.is_set() or len(device.missing) >= WAITING:
            return
        device.begun += 1
        number = device.begun
        token = create_token(device.at.host, DEVELOPMENT_KEY, int(time.time()) + TOKEN_SECONDS, "iothubowner")
        device.unsure.add(number)
        client.request("POST", f"/muster/v1/c2d/{device.device_id}", token, {"body": str(number)})
        device.unsure.remove(number)
        device.accepted.add(number)


class Soak:
    """The whole of it."""

    def __init__(self, directory: Path, minutes: float, count: int, seed: int) -> None:
        self.moments = random.Random(seed)
        self.seconds = minutes * 60
        self.counts: Counter[str] = Counter()
        self.server = MusterServer(directory, free_address()).start()
        at = endpoint(self.server.address, self.server.ca_file)
        self.devices = [
            Device(at, f"soak-{number}", random.Random(f"{seed}/{number}"), self.counts) for number in range(count)
        ]
        with self._service() as client:
            for device in self.devices:
                client.create_device(device.device_id, key=KEY)

    def _service(self) -> ServiceClient:
        return ServiceClient(self.server.address, self.server.ca_file.read_text(), DEVELOPMENT_KEY)

    async def run(self) -> dict[str, Any]:
        """Do it; what is to be said of it."""
        began = time.monotonic()
        back_ends = [BackEnd(self.server, self.devices[number::BACK_ENDS]) for number in range(BACK_ENDS)]
        running = [asyncio.ensure_future(device.run()) for device in self.devices]
        for back_end in back_ends:
            back_end.start()
        await self._restart_until(began + self.seconds)
        for back_end in back_ends:
            back_end.stopping.set()
        for back_end in back_ends:
            await asyncio.to_thread(back_end.join)
        await self._until_all_has_come()
        for device in self.devices:
            device.stopping = True
        await asyncio.gather(*running)
        memory = memory_kib(self.server.pid)
        events = await asyncio.to_thread(self._events)
        code = await asyncio.to_thread(self.server.stop)
        return self._report(round(time.monotonic() - began, 1), events, memory, code)

    async def _restart_until(self, end: float) -> None:
        """Stop and kill the server in turns, until it is time."""
        for way in itertools.cycle((signal.SIGTERM, signal.SIGKILL)):
            pause = self.moments.uniform(*SERVER_SECONDS)
            if time.monotonic() + pause > end:
                await asyncio.sleep(max(0.0, end - time.monotonic()))
                return
            await asyncio.sleep(pause)
            code = await asyncio.to_thread(self.server.stop, way)
            self.counts[way.name] += 1
            if way == signal.SIGTERM and code != 0:
                self.counts["stops that failed"] += 1
            await asyncio.to_thread(self.server.start)

    async def _until_all_has_come(self) -> None:
        end = time.monotonic() + END_SECONDS
        while any(device.missing for device in self.devices) and time.monotonic() < end:  # noqa: ASYNC110 - of all devices
            await asyncio.sleep(0.1)

    def _events(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = defaultdict(list)
        with self._service() as client:
            for event in client.events():
                if event["source"] == "Telemetry":
                    found[event["deviceId"]].append(event["body"]["seq"])
        return found

    def _report(self, seconds: float, events: dict[str, list[int]], memory: int, code: int) -> dict[str, Any]:
        faults = [f"{device.device_id}: {fault}" for device in self.devices for fault in device.faults]
        lost_events = lost_messages = 0
        for device in self.devices:
            stored = events[device.device_id]
            lost_events += len(set(device.acknowledged).difference(stored))
            lost_messages += len(device.missing)
            if any(one >= two for one, two in itertools.pairwise(stored)):
                faults.append(f"{device.device_id}: its events are not in order, or not there once")
            if not device.acknowledged or not device.accepted:
                faults.append(f"{device.device_id}: nothing was acknowledged")
            if strange := device.received - device.accepted - device.unsure:
                faults.append(f"{device.device_id}: {sorted(strange)[:SHOWN]} were never sent")
        if code or self.counts["stops that failed"]:
            faults.append("the server did not stop as it was asked to")
        if "Traceback" in self.server.output:
            faults.append(f"the server logged a traceback: {self.server.log}")
        return {
            "seconds": seconds,
            "devices": len(self.devices),
            **dict(sorted(self.counts.items())),
            "events acknowledged": sum(len(device.acknowledged) for device in self.devices),
            "events stored": sum(map(len, events.values())),
            "messages accepted": sum(len(device.accepted) for device in self.devices),
            "messages received": sum(len(device.received) for device in self.devices),
            "server KiB": memory,
            "lost events": lost_events,
            "lost messages": lost_messages,
            "faults": faults[:SHOWN],
        }


def main() -> int:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # not what is written to a connection that was just lost
    minutes = float(os.environ.get("SOAK_MINUTES", "10"))
    count = int(os.environ.get("SOAK_DEVICES", "20"))
    seed = int(os.environ.get("SOAK_SEED", "1"))
    directory = Path(tempfile.mkdtemp(prefix="muster-soak-"))
    soak = Soak(directory, minutes, count, seed)
    try:
        report = asyncio.run(soak.run())
    finally:
        if soak.server.running:
            soak.server.kill()
    print(json.dumps(report, indent=2))
    return int(bool(report["lost events"] or report["lost messages"] or report["faults"]))


if __name__ == "__main__":
    sys.exit(main())
