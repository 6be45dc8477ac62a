"""Faults that devices ask for over AMQP (hub-device.md 13): what happens when, and to whom."""

from collections.abc import AsyncIterator, Sequence

import pytest
from tests.support.fix_amqp import AmqpClient, AmqpClients, amqp_front_end
from tests.support.fix_amqp_devices import Devices, devicebound_link, devices_opener, events_link
from tests.support.fix_services import Services
from tests.support.timers import Timers

from muster.faults.amqp import FaultyAmqp
from muster.frontends.amqp.device_messages import BATCH_FORMAT
from muster.frontends.amqp.links import Opener
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_messages import Data, Message
from muster.wire.amqp_performatives import Accepted, Attach, Begin, Close, End, Rejected
from muster.wire.amqp_types import Value

EVENTS = "/devices/{}/messages/events"


@pytest.fixture
def openers(services: Services) -> Sequence[Opener]:
    return (devices_opener(services),)


@pytest.fixture
def timers(services: Services) -> Timers:
    return Timers(services)


class FaultyClients(AmqpClients):
    """Connections to a front end that injects faults."""

    def __init__(self, services: Services, openers: Sequence[Opener], timers: Timers) -> None:
        super().__init__(services, amqp_front_end(services, openers))
        faulty = FaultyAmqp(self.front_end, services.hubs, services.clock, timers.later)
        self.front_end = faulty  # type: ignore[assignment]  # wraps it


@pytest.fixture
async def amqp(services: Services, openers: Sequence[Opener], timers: Timers) -> AsyncIterator[FaultyClients]:
    clients = FaultyClients(services, openers, timers)
    yield clients
    await clients.finish()


@pytest.fixture(autouse=True)
async def _devices(devices: Devices) -> None:
    await devices.create("d1")
    await devices.create("d2")


@pytest.fixture
async def client(devices: Devices) -> AmqpClient:
    """A connection that d1 and d2 share."""
    return await devices.connect("d1", "d2")


def request(kind: str, delay: Value = "2", duration: Value = "20") -> Message:
    properties: dict[Value, Value] = {
        "AzIoTHub_FaultOperationType": kind,
        "AzIoTHub_FaultOperationCloseReason": "boom",
        "AzIoTHub_FaultOperationDelayInSecs": delay,
        "AzIoTHub_FaultOperationDurationInSecs": duration,
    }
    return Message(application_properties=properties, body=Data((kind.encode(),)))


def message(body: bytes) -> Message:
    return Message(body=Data((body,)))


async def ask(client: AmqpClient, link: Attach, kind: str) -> None:
    await client.settles(await client.transfer(link, request(kind)))


async def works(client: AmqpClient, link: Attach, body: bytes = b"x") -> None:
    await client.settles(await client.transfer(link, message(body)))


async def bodies(devices: Devices) -> list[bytes]:
    return [event.body for event in await devices.stored()]


class TestConnections:
    async def test_kill_tcp(self, devices: Devices, client: AmqpClient, timers: Timers) -> None:
        link = await events_link(client)
        await ask(client, link, "KillTcp")
        timers.advance(1.9)
        await works(client, link, b"still there")
        timers.advance(0.1)
        await client.is_closed()
        assert client.transport.aborted
        too_early = await devices.connect("d1", "d2")
        await works(too_early, await events_link(too_early, "d2"), b"of another device")
        await too_early.send(too_early.attach(EVENTS.format("d1"), sender=True))
        await too_early.is_closed()
        assert too_early.transport.aborted
        timers.advance(20)
        again = await devices.connect("d1")
        await works(again, await events_link(again), b"and back")
        assert sorted(await bodies(devices)) == [b"and back", b"of another device", b"still there"]

    @pytest.mark.parametrize("kind", ["ShutDownAmqp", "KillAmqpConnection"])
    async def test_close(self, client: AmqpClient, timers: Timers, kind: str) -> None:
        await ask(client, await events_link(client), kind)
        timers.advance(2)
        error = (await client.receive(Close)).error
        assert error is not None
        assert error.condition == "amqp:connection:forced"
        assert "400029" in (error.description or "")
        await client.send(Close())
        await client.is_closed()

    async def test_kill_session(self, devices: Devices, client: AmqpClient, timers: Timers) -> None:
        await ask(client, await events_link(client), "KillAmqpSession")
        timers.advance(2)
        assert (await client.receive(End)).error is not None
        await client.send(End(), Begin(None, 0, 5000, 5000))
        await client.receive(Begin)
        await works(client, await events_link(client), b"and back")
        assert await bodies(devices) == [b"and back"]


class TestLinks:
    @pytest.mark.parametrize(
        ("kind", "address", "sender"),
        [
            ("KillAmqpC2DLink", "/devices/d1/messages/devicebound", False),
            ("KillAmqpc2dLink", "/devices/d1/messages/deviceBound", False),
            ("KillAmqpMethodReqLink", "/devices/d1/methods/devicebound", False),
            ("KillAmqpMethodRespLink", "/devices/d1/methods/devicebound", True),
            ("KillAmqpTwinLinkReq", "/devices/d1/twin", True),
            ("KillAmqpTwinLinkResp", "/devices/d1/twin", False),
        ],
    )
    async def test_that_of_the_device_and_no_other(
        self, client: AmqpClient, timers: Timers, kind: str, address: str, sender: bool
    ) -> None:
        link = await client.link(address, sender=sender)
        await client.link(address.replace("d1", "d2"), sender=sender)
        events = await events_link(client)
        await ask(client, events, kind)
        timers.advance(2)
        await client.is_detached(link, "amqp:link:detach-forced")
        await works(client, events)
        await client.link(address, sender=sender)

    async def test_of_telemetry(self, client: AmqpClient, timers: Timers) -> None:
        link, other, second = await events_link(client), await devicebound_link(client), await events_link(client, "d2")
        assert other.handle
        await ask(client, link, "KillAmqpD2CLink")
        timers.advance(2)
        await client.is_detached(link, "amqp:link:detach-forced")
        await works(client, second)
        await works(client, await events_link(client))

    @pytest.mark.parametrize(("kind", "handle"), [("KillAmqpCBSLinkResp", 0), ("KillAmqpCBSLinkReq", 1)])
    async def test_of_cbs(self, client: AmqpClient, timers: Timers, kind: str, handle: int) -> None:
        link = await events_link(client)
        await ask(client, link, kind)
        timers.advance(2)
        cbs = Attach("link", handle, role=False)
        await client.is_detached(cbs, "amqp:link:detach-forced")
        await works(client, link)


class TestRejected:
    @pytest.mark.parametrize(
        ("kind", "condition"),
        [
            ("InvokeThrottling", "com.microsoft:device-container-throttled"),
            ("InvokeMaxMessageQuota", "amqp:resource-limit-exceeded"),
            ("InvokeAuthError", "amqp:unauthorized-access"),
        ],
    )
    async def test_for_a_while(
        self, devices: Devices, client: AmqpClient, timers: Timers, kind: str, condition: str
    ) -> None:
        link, other = await events_link(client), await events_link(client, "d2")
        await ask(client, link, kind)
        await works(client, link, b"before")
        timers.advance(2)
        for _ in range(600):  # more than there is credit at once
            settled = await client.settles(await client.transfer(link, message(b"refused")), Rejected)
            assert isinstance(settled.state, Rejected)
            assert settled.state.error is not None
            assert settled.state.error.condition == condition
        await works(client, other, b"of another device")
        timers.advance(20)
        await works(client, link, b"after")
        assert sorted(await bodies(devices)) == [b"after", b"before", b"of another device"]


class TestRequests:
    async def test_what_there_is_not_does_nothing(
        self, devices: Devices, client: AmqpClient, timers: Timers, caplog: pytest.LogCaptureFixture
    ) -> None:
        link = await events_link(client)
        await ask(client, link, "ShutDownMqtt")
        assert "there is no 'shutdownmqtt'" in caplog.text
        timers.advance(100)
        await works(client, link)
        assert await bodies(devices) == [b"x"]

    async def test_on_a_batch(self, devices: Devices, client: AmqpClient, timers: Timers) -> None:
        """The C SDK."""
        link = await events_link(client)
        batch = request("KillAmqpD2CLink")
        batch.body = Data((encode_message(message(b"inner")),))
        await client.settles(await client.transfer(link, batch, format=BATCH_FORMAT))
        assert await bodies(devices) == []
        timers.advance(2)
        await client.is_detached(link, "amqp:link:detach-forced")

    async def test_within_a_batch(self, devices: Devices, client: AmqpClient, timers: Timers) -> None:
        link = await events_link(client)
        parts = [message(b"1"), request("KillAmqpD2CLink"), message(b"2")]
        batch = Message(body=Data(tuple(encode_message(part) for part in parts)))
        await client.settles(await client.transfer(link, batch, format=BATCH_FORMAT), Accepted)
        assert await bodies(devices) == [b"1", b"2"]
        timers.advance(2)
        await client.is_detached(link, "amqp:link:detach-forced")

    async def test_a_body_that_only_speaks_of_it(self, devices: Devices, client: AmqpClient, timers: Timers) -> None:
        link = await events_link(client)
        await works(client, link, b"AzIoTHub_FaultOperationType")
        await client.settles(await client.transfer(link, b"\xffAzIoTHub_FaultOperationType"), Rejected)
        timers.advance(100)
        await works(client, link)
        assert len(await bodies(devices)) == 2

    async def test_of_a_client_that_is_gone(self, client: AmqpClient, timers: Timers) -> None:
        link = await events_link(client)
        for kind in ("KillTcp", "ShutDownAmqp", "KillAmqpSession", "KillAmqpD2CLink", "KillAmqpCBSLinkReq"):
            await ask(client, link, kind)
        await client.leave()
        timers.advance(2)
