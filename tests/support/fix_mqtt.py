"""MQTT connections in the test's own process: packets in, packets out, no socket between them.

``mqtt`` opens connections to the front end that serves ``services``. What a connection sends is read with the
wire core's decoder; bytes can be sent as well as packets, in pieces of any size.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

from muster.domain.sas import create_token
from muster.domain.timestamp import SECOND
from muster.frontends.device_services import DeviceServices
from muster.frontends.listener import Peer
from muster.frontends.mqtt.connection import MqttProtocol
from muster.frontends.mqtt.front_end import MqttFrontEnd
from muster.wire.mqtt_decoder import decode_all
from muster.wire.mqtt_packets import Connack, Connect, Packet, Puback, Publish, Suback, Subscribe
from tests.support.fix_services import ID_SCOPE, Services
from tests.support.memory_transport import MemoryClient

HUB_HOST = "hub.example.net"

_HOUR = 3600
_WAIT_SECONDS = 30.0

P = TypeVar("P", bound=Packet)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Let the loop run until ``condition`` holds. Raises TimeoutError after some seconds."""
    async with asyncio.timeout(_WAIT_SECONDS):
        while not await condition():  # noqa: ASYNC110 - what is waited for lies in a database, which sets no event
            await asyncio.sleep(0)


class MqttClient(MemoryClient):
    """One connection; ``inbox`` has packets."""

    def __init__(self, protocol: MqttProtocol) -> None:
        super().__init__(protocol)
        self.protocol = protocol

    async def send(self, *packets: Packet | bytes, piece: int | None = None) -> None:
        """Send all in one read, or ``piece`` bytes a read."""
        data = b"".join(packet if isinstance(packet, bytes) else packet.encode() for packet in packets)
        size = piece or len(data)
        for start in range(0, len(data), size):
            await self._until(lambda: self.transport.reading or self.transport.closing)
            if self.transport.closing:
                return
            self.protocol.data_received(data[start : start + size])

    async def receive(self, kind: type[P]) -> P:
        """The next packet, which must be of this kind."""
        await self._until(self._take_output)
        packet = self.inbox.pop(0)
        assert isinstance(packet, kind), f"{packet!r} is no {kind.__name__}"
        return packet

    async def is_refused(self, code: int) -> None:
        """The next packet must be CONNACK with this code, and then the end."""
        assert (await self.receive(Connack)).values() == (code, False)
        await self.is_closed()

    def _take_output(self) -> bool:
        if self.transport.output:
            self.inbox += decode_all(bytes(self.transport.output))
            self.transport.output.clear()
        return bool(self.inbox)

    # What devices do.

    async def subscribe(self, topic_filter: bytes, qos: int = 1) -> None:
        await self.send(Subscribe(1, [(topic_filter, qos)]))
        assert await self.receive(Suback) == Suback(1, [min(qos, 1)])

    async def publish(self, topic: str, payload: bytes, packet_id: int = 1) -> None:
        """At QoS 1, until it is acknowledged."""
        await self.send(Publish(topic.encode(), payload, 1, packet_id))
        assert await self.receive(Puback) == Puback(packet_id)


def mqtt_front_end(services: Services) -> MqttFrontEnd:
    """What the server serves MQTT with."""
    return MqttFrontEnd(
        services.hubs,
        services.authentication,
        services.events,
        DeviceServices(
            services.sessions, services.twins, services.methods, services.c2d, services.reports, services.clock
        ),
        services.registrations,
        services.clock,
    )


class MqttClients:
    """Opens connections."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._front_end = mqtt_front_end(services)
        self._opened: list[MqttClient] = []

    def open(self, *certificates: bytes) -> MqttClient:
        """A connection on which nothing was sent yet."""
        peer = Peer(("127.0.0.1", 40000), ("127.0.0.1", 8883), tls_version="TLSv1.2", certificates=certificates)
        client = MqttClient(self._front_end.protocol(peer))
        self._opened.append(client)
        return client

    async def to_dps(self, registration_id: str, *certificates: bytes, **options: Any) -> MqttClient:
        """A connection that was accepted as a registration."""
        client = self.open(*certificates)
        username = f"{ID_SCOPE}/registrations/{registration_id}/api-version=2019-03-31"
        await client.send(Connect(registration_id, username=username, **options))
        assert await client.receive(Connack) == Connack()
        return client

    async def to_hub(
        self, device_id: str, *, key: str = "", certificate: bytes | None = None, session: bool = False, **options: Any
    ) -> MqttClient:
        """A connection that was accepted as a device, by its key or certificate; ``session``: it goes on with one."""
        client = self.open(*([certificate] if certificate else []))
        await client.send(self.hub_connect(device_id, key=key, **options))
        assert await client.receive(Connack) == Connack(session_present=session)
        return client

    def hub_connect(self, device_id: str, *, key: str = "", life: int = _HOUR, **options: Any) -> Connect:
        """CONNECT of a device; with its key, a token that lives ``life`` seconds."""
        password = None
        if key:
            expiry = self._services.clock.now // SECOND + life
            password = create_token(f"{HUB_HOST}/devices/{device_id}", key, expiry).encode()
        username = f"{HUB_HOST}/{device_id}/?api-version=2019-10-01"
        return Connect(device_id, **{"username": username, "password": password, **options})

    async def close(self) -> None:
        for client in self._opened:
            await client.leave()


@pytest.fixture
async def mqtt(services: Services) -> Any:
    clients = MqttClients(services)
    yield clients
    await clients.close()
