"""What device clients that cannot be installed here say over AMQP, frame by frame, and how strictly they read answers.

One class for each client of hub-device.md 9, 14.3: how it opens, in which order it proves who it is, its addresses,
link properties, settle modes, the types of its ids. Where a client takes a value apart, the test does it as strictly.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote
from uuid import UUID

import msgspec
import pytest
from tests.support.fix_amqp import AMQP, HUB_HOST, AmqpClient, put_token
from tests.support.fix_amqp_devices import Devices, devices_opener
from tests.support.fix_services import KEY, Services

from muster.domain.method import MethodAnswer, MethodInvocation
from muster.domain.twin import TwinBody
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_frames import Frame
from muster.wire.amqp_messages import Data, Message, Properties
from muster.wire.amqp_performatives import (
    FIRST,
    MIXED,
    SECOND,
    SETTLED,
    UNSETTLED,
    Accepted,
    Attach,
    Begin,
    Detach,
    Disposition,
    End,
    Fields,
    Flow,
    Open,
    Released,
    SaslInit,
    Source,
    Target,
    Transfer,
)
from muster.wire.amqp_types import Int, Long, Symbol, Ulong, Uuid, Value

BATCH = 0x8001_3700
NOTIFICATIONS = "/notifications/twin/properties/desired"
CORRELATION = Symbol("com.microsoft:channel-correlation-id")
API_VERSION = Symbol("com.microsoft:api-version")
CLIENT_VERSION = Symbol("com.microsoft:client-version")
MODEL_ID = Symbol("com.microsoft:model-id")
OPERATION = Symbol("operation")
RESOURCE = Symbol("resource")
STATUS = Symbol("status")


@pytest.fixture
def openers(services: Services) -> Sequence[Any]:
    return (devices_opener(services),)


class Client:
    """A connection of one of the clients, on as many channels as it uses. Handles are counted for each channel."""

    def __init__(self, raw: AmqpClient) -> None:
        self.raw = raw
        self._handles: dict[int, int] = {}
        self._deliveries: dict[int, int] = {}

    async def begin(self, channel: int, window: int = 5000) -> None:
        await self.raw.send(Begin(None, 0, window, window, 0x7FFF_FFFF), channel=channel)
        assert (await self.raw.receive(Begin)).remote_channel == channel

    async def link(
        self, channel: int, name: str, address: str, *, sender: bool, credit: int = 0, **options: Any
    ) -> Attach:
        """Attach, and what comes back: the echo with a terminus at both ends, and credit for a sender."""
        handle = self._handles[channel] = self._handles.get(channel, -1) + 1
        source, target = (Source(name), Target(address)) if sender else (Source(address), Target(name))
        count = 0 if sender else None
        asked = Attach(name, handle, not sender, source=source, target=target, initial_delivery_count=count, **options)
        await self.raw.send(asked, channel=channel)
        answer = await self.raw.receive(Attach)
        assert (answer.name, answer.role, answer.source, answer.target) == (name, sender, source, target)
        assert (answer.snd_settle_mode, answer.rcv_settle_mode) == (asked.snd_settle_mode, asked.rcv_settle_mode)
        if sender:
            flow = await self.raw.receive(Flow)
            assert flow.next_incoming_id is not None
            assert (flow.handle, bool(flow.link_credit)) == (handle, True)
        elif credit:
            await self.raw.send(Flow(1, 5000, 0, 5000, handle, 0, credit), channel=channel)
        return asked

    async def send(
        self, channel: int, link: Attach, message: Message | bytes, *, settled: bool = False, format: int = 0
    ) -> None:
        """Send; what is not settled must be accepted, and settled by the hub."""
        number = self._deliveries[channel] = self._deliveries.get(channel, -1) + 1
        payload = message if isinstance(message, bytes) else encode_message(message)
        transfer = Transfer(link.handle, number, number.to_bytes(4), format, settled)
        await self.raw.send(Frame(channel, transfer, payload))
        if not settled:
            await self.raw.settles(number)

    async def put_token(self, channel: int, link: Attach, audience: str, message_id: Value, key: str = KEY) -> None:
        """The reply comes behind the acceptance, and copies the id with its type."""
        token = self.raw.token(audience, key)
        await self.send(channel, link, put_token(audience, token, message_id))
        transfer, reply = await self.raw.receive_message()
        assert reply.properties is not None
        assert reply.properties.correlation_id == message_id
        assert (reply.application_properties or {})["status-code"] == Int(200)
        await self.raw.send(
            Disposition(True, transfer.delivery_id or 0, settled=True, state=Accepted()), channel=channel
        )


def lookup_data(message: Message) -> Any:
    """The JSON of a body, which has to be a data section."""
    assert isinstance(message.body, Data)
    return json.loads(message.body.joined())


async def ask(devices: Devices, device_id: str, name: str, payload: bytes) -> "asyncio.Future[MethodAnswer]":
    invocation = MethodInvocation(name, payload, 30, 0)
    asked = asyncio.ensure_future(devices.services.methods.invoke("hub", device_id, "", invocation))
    await asyncio.sleep(0)
    return asked


async def desire(devices: Devices, device_id: str, **desired: object) -> None:
    body = msgspec.convert({"properties": {"desired": desired}}, TwinBody)
    await devices.services.twins.patch("hub", device_id, "", body, None)


class TestC:
    """MSSBCBS, one session for all, ids as ulong, telemetry always in batches, addresses with scheme and host."""

    @staticmethod
    def address(path: str) -> str:
        return f"amqps://{HUB_HOST}/devices/dev-c/{path}"

    async def open(self, devices: Devices) -> Client:
        await devices.create("dev-c")
        raw = devices.amqp.connect()
        await raw.sasl(SaslInit("MSSBCBS", None, HUB_HOST))
        opening = Open("c-client", HUB_HOST, 0xFFFF_FFFF, 65_535, 240_000)
        await raw.send(AMQP, opening, Begin(None, 0, 0x7FFF_FFFF, 100, 0xFFFF_FFFF))
        await raw.receive_header()
        await raw.receive(Open)
        await raw.receive(Begin)
        client = Client(raw)
        requests = await client.link(0, "cbs-sender", "$cbs", sender=True, snd_settle_mode=UNSETTLED)
        await client.link(0, "cbs-receiver", "$cbs", sender=False, credit=10_000, rcv_settle_mode=FIRST)
        await client.put_token(0, requests, f"{HUB_HOST}/devices/dev-c", Ulong(0))
        return client

    async def test_telemetry(self, devices: Devices) -> None:
        client = await self.open(devices)
        properties: Fields = {CLIENT_VERSION: "iothubclient/1.15", MODEL_ID: "dtmi:x:y;1"}
        link = await client.link(
            0,
            "link-snd-dev-c-7f2e",
            self.address("messages/events"),
            sender=True,
            snd_settle_mode=UNSETTLED,
            rcv_settle_mode=FIRST,
            properties=properties,
            max_message_size=0xFFFF_FFFF_FFFF_FFFF,
        )
        inner = [
            Message(
                properties=Properties(message_id=f"m{number}", content_type="application/json"),
                application_properties={"temp": "21"},
                body=Data((b'{"n":%d}' % number,)),
            )
            for number in range(3)
        ]
        batch = Message(body=Data(tuple(map(encode_message, inner))))
        await client.send(0, link, batch, format=BATCH)
        events = await devices.stored()
        assert [event.body for event in events] == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
        assert [event.system_properties["message-id"] for event in events] == ["m0", "m1", "m2"]
        assert {event.origin.model_id for event in events} == {"dtmi:x:y;1"}

    async def test_messages_from_the_cloud(self, devices: Devices) -> None:
        client = await self.open(devices)
        path = self.address("messages/devicebound")
        options = {"rcv_settle_mode": FIRST, "max_message_size": 65_536}
        await client.link(0, "link-rcv-dev-c-19aa", path, sender=False, credit=10_000, **options)
        await devices.send_c2d("hot", "dev-c", message_id="m1", application={"color": "red"})
        transfer, message = await client.raw.receive_message()
        assert message.application_properties == {"color": "red"}
        await client.raw.send(Disposition(True, transfer.delivery_id or 0, settled=True, state=Released()))
        transfer, _ = await client.raw.receive_message()
        await client.raw.send(Disposition(True, transfer.delivery_id or 0, settled=True, state=Accepted()))
        await devices.send_c2d("next", "dev-c")
        _, message = await client.raw.receive_message()
        assert message.body == Data((b"next",))

    async def test_methods(self, devices: Devices) -> None:
        """The correlation id of the pair is the bare device id; that of a request has to be a uuid."""
        client = await self.open(devices)
        properties: Fields = {CORRELATION: "dev-c", API_VERSION: "2020-09-30"}
        path = self.address("methods/devicebound")
        await client.link(0, "methods_requests_link-dev-c", path, sender=False, credit=10_000, properties=properties)
        responses = await client.link(0, "methods_responses_link-dev-c", path, sender=True, properties=properties)
        asked = await ask(devices, "dev-c", "reboot", b'{"delay":5}')
        _, request = await client.raw.receive_message()
        assert request.properties is not None
        assert isinstance(request.properties.correlation_id, Uuid)
        assert (request.application_properties or {})["IoThub-methodname"] == "reboot"
        answer = Message(
            properties=Properties(correlation_id=request.properties.correlation_id),
            application_properties={"IoThub-status": Int(200)},
            body=Data((b"{}",)),
        )
        await client.send(0, responses, answer)
        assert await asked == MethodAnswer(200, b"{}")

    async def test_the_twin(self, devices: Devices) -> None:
        """It subscribes to changes only when its first answer has come."""
        client = await self.open(devices)
        properties: Fields = {CORRELATION: "twin:0b8f", API_VERSION: "2020-09-30", CLIENT_VERSION: "iothubclient/1.15"}
        path = self.address("twin/")
        requests = await client.link(0, "link-snd-twin", path, sender=True, properties=properties)
        await client.link(0, "link-rcv-twin", path, sender=False, credit=10_000, properties=properties)

        async def request(operation: str, resource: str | None, body: bytes, correlation: str) -> Message:
            annotations: Fields = {OPERATION: operation}
            if resource is not None:
                annotations[RESOURCE] = resource
            sent = Message(
                message_annotations=annotations,
                properties=Properties(correlation_id=correlation),
                body=Data((body,)),
            )
            await client.send(0, requests, sent)
            _, reply = await client.raw.receive_message()
            assert reply.properties == Properties(correlation_id=correlation)
            return reply

        reply = await request("GET", None, b" ", "1c0ffee0-0000-4000-8000-000000000001")
        assert (reply.message_annotations or {})[STATUS] == Int(200)
        assert lookup_data(reply) == {"desired": {"$version": 1}, "reported": {"$version": 1}}
        reply = await request("PUT", NOTIFICATIONS, b" ", "1c0ffee0-0000-4000-8000-000000000002")
        assert (reply.message_annotations or {})[STATUS] == Int(200)
        await desire(devices, "dev-c", interval=60)
        _, notice = await client.raw.receive_message()
        assert notice.properties is None
        assert lookup_data(notice) == {"interval": 60, "$version": 2}
        reply = await request("PATCH", "/properties/reported", b'{"fw":"1"}', "1c0ffee0-0000-4000-8000-000000000003")
        assert (reply.message_annotations or {})[STATUS] == Int(200)
        reply = await request("DELETE", NOTIFICATIONS, b" ", "1c0ffee0-0000-4000-8000-000000000004")
        assert (reply.message_annotations or {})[STATUS] == Int(200)


class TestNet:
    """No SASL, a session for each device of its pool beside those of ``$cbs``, encoded addresses with the port, link
    names that are the same for every kind, receivers that settle second, twins without a body.
    """

    @staticmethod
    def address(device_id: str, path: str) -> str:
        return f"amqps://{HUB_HOST}:5671/devices/{quote(device_id, safe='')}/{path}"

    async def open(self, devices: Devices, *device_ids: str) -> Client:
        """One connection of the pool: for each device a session, and its token in the session of ``$cbs``."""
        for device_id in device_ids:
            await devices.create(device_id)
        raw = devices.amqp.connect()
        await raw.send(AMQP, Open("net-client", HUB_HOST, 65_536, 8191, 120_000))
        await raw.receive_header()
        assert (await raw.receive(Open)).channel_max >= len(device_ids)
        client = Client(raw)
        await client.begin(0)
        requests = await client.link(0, "cbs-1-sender", "$cbs", sender=True, snd_settle_mode=MIXED)
        await client.link(0, "cbs-1-receiver", "$cbs", sender=False, credit=50, rcv_settle_mode=FIRST)
        for number, device_id in enumerate(device_ids):
            audience = f"{HUB_HOST}/devices/{quote(device_id, safe='')}"
            await client.put_token(0, requests, audience, f"put-{number}")
            await client.begin(number + 1)
        self.requests = requests
        return client

    async def test_a_pool(self, devices: Devices) -> None:
        names = ["pool-1", "pool 2#", "pool-3"]
        names[1] = "pool#2"
        client = await self.open(devices, *names)
        timeout: Fields = {Symbol("com.microsoft:timeout"): Ulong(60_000), CLIENT_VERSION: ".NET/1.42"}
        links = []
        for number, device_id in enumerate(names):
            path = self.address(device_id, "messages/events")
            links.append(
                await client.link(
                    number + 1,
                    f"{device_id}TelemetrySenderLink",
                    path,
                    sender=True,
                    snd_settle_mode=UNSETTLED,
                    properties=timeout,
                )
            )
        for number, link in enumerate(links):
            await client.send(number + 1, link, Message(body=Data((b"%d" % number,))))
        events = await devices.stored()
        assert sorted((event.body, event.origin.device_id) for event in events) == [
            (b"%d" % number, name) for number, name in enumerate(names)
        ]
        # One device goes: its links end, the session and the others stay; its token can be renewed and deleted.
        await devices.services.devices.delete("hub", names[0], "*")
        detach = await client.raw.receive(Detach)
        assert (detach.handle, detach.closed) == (links[0].handle, True)
        await client.send(2, links[1], Message(body=Data((b"still",))))
        audience = f"{HUB_HOST}/devices/{quote(names[1], safe='')}"
        await client.put_token(0, self.requests, audience, "put-again")
        await client.send(2, links[1], Message(body=Data((b"renewed",))))
        await client.raw.send(End(), channel=3)
        await client.raw.receive(End)
        assert devices.services.sessions.count == 1

    async def test_messages_from_the_cloud(self, devices: Devices) -> None:
        """The lock token is the delivery tag, a guid; the disposition is echoed as settled."""
        client = await self.open(devices, "dev-net")
        path = self.address("dev-net", "messages/deviceBound")
        await client.link(1, "DeviceBoundReceiverLink", path, sender=False, credit=50, rcv_settle_mode=SECOND)
        await devices.send_c2d("hot", "dev-net")
        transfer, message = await client.raw.receive_message()
        assert len(transfer.delivery_tag or b"") == 16
        token = (message.message_annotations or {})[Symbol("x-opt-lock-token")]
        assert str(UUID(bytes_le=transfer.delivery_tag)) == token
        number = transfer.delivery_id or 0
        await client.raw.send(Disposition(True, number, settled=False, state=Accepted()), channel=1)
        assert await client.raw.receive(Disposition) == Disposition(False, number, number, True, Accepted())
        assert await devices.waiting("dev-net") == 0

    async def test_methods_and_the_twin(self, devices: Devices) -> None:
        client = await self.open(devices, "dev-net")
        properties: Fields = {CORRELATION: "methods:5f1d", API_VERSION: "2020-09-30"}
        path = self.address("dev-net", "methods/deviceBound")
        options: dict[str, Any] = {"snd_settle_mode": SETTLED, "rcv_settle_mode": FIRST, "properties": properties}
        await client.link(1, "MethodsReceiverLink", path, sender=False, credit=50, **options)
        responses = await client.link(1, "MethodsSenderLink", path, sender=True, **options)
        asked = await ask(devices, "dev-net", "reboot", b"null")
        transfer, request = await client.raw.receive_message()
        assert transfer.settled
        assert request.properties is not None
        assert isinstance(request.properties.correlation_id, Uuid)
        answer = Message(
            properties=Properties(correlation_id=request.properties.correlation_id),
            application_properties={"IoThub-status": Int(200)},
        )
        await client.send(1, responses, answer, settled=True)
        assert await asked == MethodAnswer(200, b"null")

        options["properties"] = {CORRELATION: "twin:77aa", API_VERSION: "2020-09-30"}
        path = self.address("dev-net", "twin")
        await client.link(1, "TwinReceiverLink", path, sender=False, credit=50, **options)
        requests = await client.link(1, "TwinSenderLink", path, sender=True, **options)
        correlation = "Get1c0ffee0-0000-4000-8000-000000000001"
        get = Message(message_annotations={OPERATION: "GET"}, properties=Properties(correlation_id=correlation))
        await client.send(1, requests, get, settled=True)
        transfer, reply = await client.raw.receive_message()
        assert transfer.settled
        assert reply.properties == Properties(correlation_id=correlation)
        assert lookup_data(reply) == {"desired": {"$version": 1}, "reported": {"$version": 1}}

    async def test_a_second_client_takes_over(self, devices: Devices) -> None:
        """The links that end are those of the device, and the pool's connection stays."""
        client = await self.open(devices, "dev-a", "dev-b")
        links = [
            await client.link(number, "TelemetrySenderLink", self.address(name, "messages/events"), sender=True)
            for number, name in ((1, "dev-a"), (2, "dev-b"))
        ]
        other = await devices.connect("dev-a")
        await other.link("/devices/dev-a/messages/events", sender=True)
        detach = await client.raw.receive(Detach)
        assert detach.error is not None
        assert detach.error.condition == "amqp:internal-error"
        assert "Another AMQP Client has opened a Receive Link" in (detach.error.description or "")
        await client.send(2, links[1], Message(body=Data((b"x",))))


class TestJava:
    """ANONYMOUS, frames of 4096 bytes, a session for ``$cbs`` and one for each device, uuids for ids; the devices of a
    multiplexed connection prove themselves one after the other, each before its own session begins.
    """

    async def open(self, devices: Devices, *device_ids: str) -> Client:
        for device_id in device_ids:
            await devices.create(device_id)
        raw = devices.amqp.connect()
        await raw.sasl(SaslInit("ANONYMOUS", b"", HUB_HOST))
        await raw.send(AMQP, Open("java-client", HUB_HOST, 4096, 65_535, 230_000))
        await raw.receive_header()
        await raw.receive(Open)
        client = Client(raw)
        await client.begin(0)
        tag = Symbol("com.microsoft:client-version")
        cbs: Fields = {tag: "java/2.1"}
        requests = await client.link(0, "cbs-sender-1", "$cbs", sender=True, snd_settle_mode=UNSETTLED, properties=cbs)
        await client.link(0, "cbs-receiver-1", "$cbs", sender=False, credit=1024, properties=cbs)
        for number, device_id in enumerate(device_ids):
            message_id = Uuid(number.to_bytes(16))
            await client.put_token(0, requests, f"{HUB_HOST}/devices/{device_id}", message_id)
        for number in range(len(device_ids)):
            await client.begin(number + 1)
        return client

    async def links(self, client: Client, channel: int, device_id: str) -> Attach:
        """Those that every device opens first: telemetry, with the device id as the correlation id, and devicebound."""
        properties: Fields = {CORRELATION: device_id, API_VERSION: "2020-09-30", MODEL_ID: "dtmi:x:y;1"}
        path = f"/devices/{device_id}/messages"
        events = await client.link(
            channel,
            f"events-{device_id}",
            f"{path}/events",
            sender=True,
            snd_settle_mode=UNSETTLED,
            rcv_settle_mode=FIRST,
            properties=properties,
        )
        await client.link(
            channel,
            f"bound-{device_id}",
            f"{path}/devicebound",
            sender=False,
            credit=1024,
            rcv_settle_mode=FIRST,
            properties=properties,
        )
        return events

    async def test_a_multiplexed_connection(self, devices: Devices) -> None:
        names = [f"mux-{number}" for number in range(20)]
        client = await self.open(devices, *names)
        links = [await self.links(client, number + 1, name) for number, name in enumerate(names)]
        assert devices.services.sessions.count == len(names)
        for number, link in enumerate(links):
            message = Message(
                properties=Properties(message_id=f"m{number}", correlation_id="c"),
                application_properties={"n": str(number)},
                body=Data((b"%d" % number,)),
            )
            await client.send(number + 1, link, message)
        assert len(await devices.stored()) == len(names)
        # A device that is disabled loses its links; the client ends the session and begins it again later.
        await devices.update(names[3], status="disabled")
        handles = {(await client.raw.receive(Detach)).handle for _ in range(2)}
        assert handles == {0, 1}
        await client.raw.send(End(), channel=4)
        await client.raw.receive(End)
        await devices.update(names[3])
        await client.begin(4)
        client._handles.pop(4)
        client._deliveries.pop(4)
        link = await self.links(client, 4, names[3])
        await client.send(4, link, Message(body=Data((b"back",))))
        await client.send(5, links[4], Message(body=Data((b"unharmed",))))

    async def test_a_message_that_takes_several_frames(self, devices: Devices) -> None:
        client = await self.open(devices, "dev-java")
        await self.links(client, 1, "dev-java")
        await devices.send_c2d("x" * 20_000, "dev-java")
        transfer, message = await client.raw.receive_message()
        assert transfer.more
        assert message.body == Data((b"x" * 20_000,))

    async def test_the_twin(self, devices: Devices) -> None:
        """Its use is blocked until the subscription is accepted and answered; ids are uuids, versions are ints."""
        client = await self.open(devices, "dev-java")
        properties: Fields = {CORRELATION: "twin:41c2", API_VERSION: "2020-09-30"}
        path = "/devices/dev-java/twin"
        requests = await client.link(1, "twin-s", path, sender=True, snd_settle_mode=UNSETTLED, properties=properties)
        await client.link(1, "twin-r", path, sender=False, credit=1024, rcv_settle_mode=FIRST, properties=properties)

        async def request(number: int, body: bytes, **annotations: Value) -> Message:
            correlation = Uuid(number.to_bytes(16))
            keys: Fields = {Symbol(name): value for name, value in annotations.items()}
            sent = Message(
                message_annotations=keys, properties=Properties(correlation_id=correlation), body=Data((body,))
            )
            await client.send(1, requests, sent)
            _, reply = await client.raw.receive_message()
            assert reply.properties == Properties(correlation_id=correlation)
            assert isinstance(reply.body, Data)
            return reply

        reply = await request(1, b"", operation="PUT", resource=NOTIFICATIONS)
        assert (reply.message_annotations or {})[STATUS] == Int(200)
        reply = await request(2, b"", operation="GET")
        assert lookup_data(reply)["reported"] == {"$version": 1}
        reply = await request(3, b'{"fw":"1"}', operation="PATCH", resource="/properties/reported", version=Long(1))
        assert (reply.message_annotations or {})[STATUS] == Int(200)
        version = (reply.message_annotations or {})[Symbol("version")]
        assert isinstance(version, Long)
        assert version.value == 2
        await desire(devices, "dev-java", interval=1)
        _, notice = await client.raw.receive_message()
        assert (notice.message_annotations or {})[RESOURCE] == "/properties/desired"
        assert lookup_data(notice) == {"interval": 1, "$version": 2}
