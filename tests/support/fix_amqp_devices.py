"""Devices over AMQP in the test's own process: identities, and what is stored of what they send."""

from typing import Any

import pytest

from muster.domain.c2d_message import C2dMessage, C2dProperties
from muster.domain.device import AuthenticationBody, IdentityBody, SymmetricKeyBody
from muster.domain.message import Event
from muster.domain.module import ModuleBody
from muster.frontends.amqp.devices import AmqpDevices
from muster.frontends.device_services import DeviceServices
from muster.wire.amqp_messages import Data, Message
from muster.wire.amqp_performatives import Attach
from tests.support.fix_amqp import AmqpClient, AmqpClients
from tests.support.fix_services import KEY, Services

MODULE_KEY = "bW9kdWxlbW9kdWxlbW9kdWxlbW9kdWxlbW9kdWxlISE="
KEY_2 = "ISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0A="


def devices_opener(services: Services) -> Any:
    """The opener of the links of devices, as the server has it."""
    asked = DeviceServices(
        services.sessions, services.twins, services.methods, services.c2d, services.reports, services.clock
    )
    return AmqpDevices(services.hubs, services.events, asked).open


class Devices:
    """Identities of the hub, and connections that have proved to be them."""

    def __init__(self, services: Services, amqp: AmqpClients) -> None:
        self.services = services
        self.amqp = amqp

    async def create(self, device_id: str = "d1", **members: object) -> None:
        body = IdentityBody(device_id=device_id, authentication=_keys(), **members)  # type: ignore[arg-type]  # by name
        await self.services.devices.put("hub", device_id, body, None)

    async def update(self, device_id: str = "d1", **members: object) -> None:
        fields = {"authentication": _keys(), **members}
        body = IdentityBody(device_id=device_id, **fields)  # type: ignore[arg-type]  # by name
        await self.services.devices.put("hub", device_id, body, "*")

    async def create_module(self, device_id: str, module_id: str) -> None:
        keys = AuthenticationBody("sas", SymmetricKeyBody(MODULE_KEY, KEY_2))
        body = ModuleBody(device_id=device_id, module_id=module_id, authentication=keys)
        await self.services.modules.put("hub", device_id, module_id, body, None)

    async def connect(self, *device_ids: str) -> AmqpClient:
        """A connection with a token for each of these."""
        client = await self.amqp.open()
        cbs = await client.cbs()
        for device_id in device_ids or ("d1",):
            await cbs.put_device(device_id, KEY)
        return client

    async def stored(self) -> list[Event]:
        earliest, _ = await self.services.events.positions("hub")
        return (await self.services.events.read("hub", earliest, 1000))[0]

    async def send_c2d(self, body: str = "hello", device_id: str = "d1", module_id: str = "", **sent: object) -> None:
        message = C2dMessage(C2dProperties(**sent), body.encode())  # type: ignore[arg-type]  # by name
        await self.services.c2d.send("hub", device_id, module_id, message)

    async def waiting(self, device_id: str = "d1") -> int:
        return await self.services.c2d.count("hub", device_id)

    async def is_connected(self, device_id: str = "d1") -> bool:
        return bool((await self.services.twin(device_id))["connectionState"] == "Connected")


def _keys() -> AuthenticationBody:
    return AuthenticationBody("sas", SymmetricKeyBody(KEY, KEY_2))


def data(body: bytes = b"x", **sections: Any) -> Message:
    """A message with one data section."""
    return Message(body=Data((body,)), **sections)


async def events_link(client: AmqpClient, device_id: str = "d1", **options: Any) -> Attach:
    return await client.link(f"/devices/{device_id}/messages/events", sender=True, **options)


async def devicebound_link(client: AmqpClient, device_id: str = "d1", **options: Any) -> Attach:
    return await client.link(f"/devices/{device_id}/messages/devicebound", sender=False, **options)


@pytest.fixture
async def devices(services: Services, amqp: AmqpClients) -> Devices:
    return Devices(services, amqp)
