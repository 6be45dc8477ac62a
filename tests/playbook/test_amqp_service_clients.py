"""Service clients that cannot be run here, frame by frame: .NET ServiceClient, Java ServiceClient and MessagingClient,
C iothub_messaging. They send what hub-service.md 6.2 to 6.6 and their sources say, and must get what they need.

The Azure CLI's commands run on the client that they stand on: tests/conformance/test_c2d_service.py.
"""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

from muster.domain.c2d_message import C2dDelivery
from muster.domain.device import IdentityBody
from muster.domain.module import ModuleBody
from muster.domain.timestamp import SECOND as ONE_SECOND
from muster.frontends.amqp.feedback import FeedbackLinks
from muster.frontends.amqp.links import Opener
from muster.frontends.amqp.service import DeviceboundLinks
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_frames import Frame
from muster.wire.amqp_messages import Data, Message, Properties
from muster.wire.amqp_performatives import (
    FIRST,
    RECEIVER,
    SECOND,
    SENDER,
    UNSETTLED,
    Accepted,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Fields,
    Flow,
    Open,
    Rejected,
    Released,
    SaslInit,
    Source,
    State,
    Target,
    Transfer,
)
from muster.wire.amqp_types import Double, Symbol, Uuid
from tests.support.fix_amqp import AMQP, AmqpClient, AmqpClients, put_token
from tests.support.fix_services import Services

HOST = "hub.example.net"
DEVICE = "pump#1"
FEEDBACK_TYPE = "application/vnd.microsoft.iothub.feedback.json"


@pytest.fixture
def receivers(services: Services) -> FeedbackLinks:
    return FeedbackLinks(services.hubs, services.feedback)


@pytest.fixture
async def openers(services: Services, receivers: FeedbackLinks) -> Sequence[Opener]:
    await services.devices.put("hub", DEVICE, IdentityBody(device_id=DEVICE), None)
    await services.modules.put("hub", DEVICE, "m", ModuleBody(device_id=DEVICE, module_id="m"), None)
    senders = DeviceboundLinks(services.hubs, services.c2d)
    return (senders.open, receivers.open)


async def plain(client: AmqpClient, policy: str, token: str, hostname: str | None = None) -> None:
    """SASL PLAIN with a policy's user and a token as its password."""
    response = b"\0" + f"{policy}@sas.root.hub".encode() + b"\0" + token.encode()
    await client.sasl(SaslInit("PLAIN", response, hostname))


async def is_answered(client: AmqpClient, asked: Attach) -> Attach:
    """A whole attach with what was asked: its name, the other role, the modes, and both termini."""
    answer = await client.receive(Attach)
    assert (answer.name, answer.role) == (asked.name, not asked.role)
    assert (answer.snd_settle_mode, answer.rcv_settle_mode) == (asked.snd_settle_mode, asked.rcv_settle_mode)
    assert (answer.source, answer.target) == (asked.source or Source(), asked.target or Target())
    assert answer.max_message_size
    return answer


async def has_credit(client: AmqpClient, asked: Attach) -> None:
    flow = await client.receive(Flow)
    assert (flow.handle, bool(flow.link_credit)) == (asked.handle, True)


def sent(link: Attach, number: int, tag: bytes, message: Message, **options: Any) -> Frame:
    return Frame(0, Transfer(link.handle, number, tag, 0, settled=False, **options), encode_message(message))


async def take(services: Services, module_id: str = "") -> C2dDelivery:
    delivery = await services.c2d.lock_next("hub", DEVICE, module_id)
    assert delivery is not None
    return delivery


async def leave_feedback(services: Services) -> None:
    """The device has what it was sent."""
    await services.c2d.complete("hub", DEVICE, "", (await take(services)).lock_token)
    await services.feedback.gather(services.hub)


def records(message: Message) -> list[dict[str, Any]]:
    assert isinstance(message.body, Data), "Java handles nothing else"
    assert len(message.body.sections) == 1, "the CLI takes the first"
    found: list[dict[str, Any]] = json.loads(message.body.joined())
    return found


class TestNetServiceClient:
    """No SASL, absolute addresses, ids in percent, a receiver that settles second."""

    CLIENT: Fields = {  # noqa: RUF012 - never changed
        Symbol("com.microsoft:timeout"): Double(60_000.0),
        Symbol("com.microsoft:client-version"): "Microsoft.Azure.Devices/1.38.0 (.NET 6.0.25; Linux; X64)",
    }

    async def connect(self, amqp: AmqpClients) -> AmqpClient:
        client = amqp.connect()
        await client.send(AMQP)
        assert await client.receive_header() == AMQP
        await client.send(Open("6f9d9f6e6f5e4c8a8f9d9f6e6f5e4c8a", HOST, 65_536, 8191))
        assert (await client.receive(Open)).max_frame_size == 65_536
        await client.send(Begin(None, 0, 5000, 5000, properties={}))
        await client.receive(Begin)
        token = amqp.policy_token("service")
        cbs = await client.cbs()
        message = put_token(f"amqps://{HOST}:5671/", token, "request1")
        assert message.application_properties is not None
        message.application_properties["type"] = "azure-devices.net:sastoken"
        status, reply = await cbs.request(message)
        assert status == 200
        assert reply.properties is not None
        assert reply.properties.correlation_id == "request1"
        return client

    async def sender(self, amqp: AmqpClients) -> tuple[AmqpClient, Attach]:
        client = await self.connect(amqp)
        target = Target(f"amqps://{HOST}:5671/messages/deviceBound")
        link = Attach(
            "9c1", 10, SENDER, target=target, initial_delivery_count=0, max_message_size=0, properties=self.CLIENT
        )
        await client.send(link)
        await is_answered(client, link)
        await has_credit(client, link)
        return client, link

    def message(self, device: str, **properties: Any) -> Message:
        to = f"/devices/{device}/messages/deviceBound"
        ack = {"iothub-ack": "full"}
        return Message(properties=Properties(to=to, **properties), application_properties=ack, body=Data((b"hello",)))

    async def test_sends(self, services: Services, amqp: AmqpClients) -> None:
        client, link = await self.sender(amqp)
        message = self.message("pump%231", message_id="m-1", user_id=b"ops", absolute_expiry_time=1_900_000_000_000)
        await client.send(sent(link, 0, (1).to_bytes(4, "little"), message, batchable=True))
        disposition = await client.receive(Disposition)
        assert (disposition.role, disposition.first, disposition.settled) == (RECEIVER, 0, True)
        assert disposition.state == Accepted()
        properties = (await take(services)).properties
        assert (properties.message_id, properties.user_id, properties.ack) == ("m-1", "ops", "full")
        assert properties.expiry == 1_900_000_000 * ONE_SECOND

    async def test_sends_to_a_module(self, services: Services, amqp: AmqpClients) -> None:
        client, link = await self.sender(amqp)
        await client.send(sent(link, 0, bytes(4), self.message("pump%231/modules/m")))
        assert (await client.receive(Disposition)).state == Accepted()
        assert (await take(services, "m")).body == b"hello"

    async def test_shows_the_words_and_the_tracking_id_of_a_rejection(
        self, services: Services, amqp: AmqpClients
    ) -> None:
        services.clock.now = 1_790_000_000 * ONE_SECOND
        client, link = await self.sender(amqp)
        await client.send(sent(link, 0, bytes(4), self.message("nobody")))
        state = (await client.receive(Disposition)).state
        assert isinstance(state, Rejected)
        assert state.error is not None
        assert state.error.condition == "amqp:not-found"
        assert state.error.description == "The hub hub has no device nobody."
        assert state.error.info is not None
        tracking_id = state.error.info[Symbol("com.microsoft:tracking-id")]
        assert isinstance(tracking_id, str)
        assert tracking_id.endswith("-G:0-TimeStamp:09/21/2026 14:13:20")

    @pytest.mark.parametrize("outcome", [Accepted(), Released()], ids=["CompleteAsync", "AbandonAsync"])
    async def test_receives_feedback(self, services: Services, amqp: AmqpClients, outcome: State) -> None:
        client, link = await self.sender(amqp)
        await client.send(sent(link, 0, bytes(4), self.message("pump%231", message_id="m-1")))
        await client.receive(Disposition)
        source = Source(f"amqps://{HOST}:5671/messages/serviceBound/feedback")
        receiver = Attach("9c2", 11, RECEIVER, rcv_settle_mode=SECOND, source=source, properties=self.CLIENT)
        await client.send(receiver)
        answer = await is_answered(client, receiver)
        assert answer.initial_delivery_count == 0
        await leave_feedback(services)
        await client.send(Flow(1, 5000, 1, 5000, 11, 0, 1))
        transfer, message = await client.receive_message()
        assert message.properties is not None
        assert message.properties.content_type == FEEDBACK_TYPE, "it refuses others"
        assert message.properties.user_id == b"hub", "it reads this without a look whether it is there"
        assert message.message_annotations is not None
        enqueued: Any = message.message_annotations[Symbol("iothub-enqueuedtime")]
        assert enqueued.value == services.clock.now // 1000
        assert [record["originalMessageId"] for record in records(message)] == ["m-1"]
        assert transfer.delivery_tag is not None
        UUID(bytes_le=transfer.delivery_tag)
        number = transfer.delivery_id
        assert number is not None
        await client.send(Disposition(RECEIVER, number, settled=False, state=outcome, batchable=True))
        settled = await client.receive(Disposition)
        # Anything but accepted it takes for a failure, of AbandonAsync too.
        assert (settled.role, settled.first, settled.settled, settled.state) == (SENDER, number, True, Accepted())
        again = await services.feedback.lock_next("hub")
        assert (again is None) == isinstance(outcome, Accepted)

    async def test_hears_that_its_lock_is_lost(self, services: Services, amqp: AmqpClients) -> None:
        client, link = await self.sender(amqp)
        await client.send(sent(link, 0, bytes(4), self.message("pump%231")))
        await client.receive(Disposition)
        receiver = Attach("9c2", 11, RECEIVER, rcv_settle_mode=SECOND, source=Source("/messages/serviceBound/feedback"))
        await client.send(receiver)
        await is_answered(client, receiver)
        await leave_feedback(services)
        await client.send(Flow(1, 5000, 1, 5000, 11, 0, 1))
        transfer, _ = await client.receive_message()
        services.clock.advance(61 * ONE_SECOND)
        await client.send(Disposition(RECEIVER, transfer.delivery_id or 0, settled=False, state=Accepted()))
        state = (await client.receive(Disposition)).state
        assert isinstance(state, Rejected)
        assert state.error is not None
        assert state.error.condition == "com.microsoft:message-lock-lost"

    async def test_receives_file_notifications(self, amqp: AmqpClients) -> None:
        client = await self.connect(amqp)
        source = Source(f"amqps://{HOST}:5671/messages/serviceBound/filenotifications")
        receiver = Attach("9c3", 12, RECEIVER, rcv_settle_mode=SECOND, source=source, properties=self.CLIENT)
        await client.send(receiver)
        await is_answered(client, receiver)
        await client.send(Flow(1, 5000, 1, 5000, 12, 0, 1))
        await client.send(Detach(12, closed=True))
        assert (await client.receive(Detach)).error is None


class TestJavaServiceClient:
    """1.x: SASL PLAIN, a connection for each message, which it closes as soon as it knows; a host name with a port."""

    CLIENT: Fields = {  # noqa: RUF012 - never changed
        Symbol("com.microsoft:client-version"): "com.microsoft.azure.sdk.iot.iot-service-client/1.24.0"
    }

    async def connect(self, amqp: AmqpClients) -> AmqpClient:
        client = amqp.connect()
        await plain(client, "service", amqp.policy_token("service"), HOST)
        await client.open(f"{HOST}:5671", idle_time_out=60_000)
        return client

    def message(self, device: str) -> Message:
        # The names of its enumeration, in lower case.
        return Message(
            properties=Properties(
                message_id="m-1", to=f"/devices/{device}/messages/devicebound", correlation_id="c-1", user_id=b"ops"
            ),
            application_properties={"iothub-ack": "positiveonly", "color": "red"},
            body=Data((b"",)),
        )

    @pytest.mark.parametrize(("device", "outcome"), [(DEVICE, Accepted), ("nobody", Rejected)])
    async def test_sends(self, services: Services, amqp: AmqpClients, device: str, outcome: type[Any]) -> None:
        client = await self.connect(amqp)
        link = Attach(
            "sender",
            0,
            SENDER,
            target=Target("/messages/devicebound"),
            initial_delivery_count=0,
            properties=self.CLIENT,
        )
        await client.send(link)
        await is_answered(client, link)
        await has_credit(client, link)
        await client.send(sent(link, 0, b"0", self.message(device)))
        disposition = await client.receive(Disposition)
        assert disposition.settled
        assert isinstance(disposition.state, outcome)
        if isinstance(disposition.state, Rejected):
            assert disposition.state.error is not None, "it reads the condition without a look whether it is there"
        await client.send(Detach(0, closed=True), End(), Close())
        assert (await client.receive(Detach)).error is None
        await client.receive(End)
        await client.receive(Close)
        await client.is_closed()
        if outcome is Accepted:
            properties = (await take(services)).properties
            assert (properties.ack, properties.application) == ("positive", {"color": "red"})

    async def test_receives_feedback_and_leaves_without_a_word_about_it(
        self, services: Services, amqp: AmqpClients
    ) -> None:
        sender = await self.connect(amqp)
        link = await sender.link("/messages/devicebound", sender=True)
        await sender.settles(await sender.transfer(link, self.message(DEVICE)))
        await leave_feedback(services)
        address = "/messages/servicebound/feedback"
        for _ in range(2):  # it comes again: nobody has accepted it
            client = await self.connect(amqp)
            receiver = Attach("receiver", 0, RECEIVER, source=Source(address), target=Target(address))
            await client.send(receiver, Flow(1, 5000, 0, 5000))
            await is_answered(client, receiver)
            await client.send(Flow(1, 5000, 0, 5000, 0, 0, 1024))
            _, message = await client.receive_message()
            assert records(message)[0]["enqueuedTimeUtc"][:19] == "2026-09-21T14:13:20"
            await client.send(End(), Close())
            await client.receive(End)
            await client.receive(Close)
            await client.is_closed()


class TestJavaMessagingClient:
    """2.x: SASL ANONYMOUS and ``$cbs`` with a uuid, one link for many messages, delivery tags in decimal."""

    async def connect(self, amqp: AmqpClients) -> AmqpClient:
        client = amqp.connect()
        await client.sasl(SaslInit("ANONYMOUS", None, HOST))
        await client.open(HOST, idle_time_out=120_000)
        cbs = await client.cbs()
        message_id = Uuid(bytes(range(16)))
        status, reply = await cbs.request(put_token(HOST, amqp.policy_token("service"), message_id))
        assert status == 200
        assert reply.properties is not None
        assert reply.properties.correlation_id == message_id
        return client

    async def test_sends_many(self, services: Services, amqp: AmqpClients) -> None:
        client = await self.connect(amqp)
        link = await client.link("/messages/devicebound", sender=True)
        to = f"/devices/{DEVICE}/messages/devicebound"
        for number in range(10):
            message = Message(properties=Properties(message_id=str(number), to=to), body=Data((b"x",)))
            await client.send(sent(link, number + 1, str(number).encode(), message))
            assert (await client.receive(Disposition)).state == Accepted()
        assert [(await take(services)).properties.message_id for _ in range(10)] == [
            str(number) for number in range(10)
        ]

    @pytest.mark.parametrize("state", [Accepted(), Released(), Rejected()], ids=["COMPLETE", "ABANDON", "REJECT"])
    async def test_receives_feedback(self, services: Services, amqp: AmqpClients, state: State) -> None:
        client = await self.connect(amqp)
        sender = await client.link("/messages/devicebound", sender=True)
        to = f"/devices/{DEVICE}/messages/devicebound"
        ack = {"iothub-ack": "full"}
        message = Message(
            properties=Properties(message_id="m-1", to=to), application_properties=ack, body=Data((b"x",))
        )
        await client.settles(await client.transfer(sender, message))
        receiver = await client.link("/messages/serviceBound/feedback", sender=False, credit=1)
        await leave_feedback(services)
        transfer, batch = await client.receive_message()
        assert records(batch)[0]["statusCode"] == "Success"
        await client.send(Disposition(RECEIVER, transfer.delivery_id or 0, settled=True, state=state))
        await client.send(Flow(transfer.delivery_id, 5000, 0, 5000, receiver.handle, 1, 1))
        if isinstance(state, Released):
            _, again = await client.receive_message()
            assert records(again) == records(batch)
        await client.close()


class TestCIothubMessaging:
    """SASL PLAIN, both links at once on one session, a window of 2 to the 31st, credit by the ten thousand."""

    async def test_sends_and_receives_feedback(
        self, services: Services, amqp: AmqpClients, receivers: FeedbackLinks
    ) -> None:
        client = amqp.connect()
        await plain(client, "iothubowner", amqp.policy_token("iothubowner"))
        await client.send(AMQP)
        assert await client.receive_header() == AMQP
        await client.send(Open("some", HOST))
        await client.receive(Open)
        await client.send(Begin(None, 0, 2_147_483_647, 255 * 1024))
        await client.receive(Begin)
        version: Fields = {Symbol("com.microsoft:client-version"): "iothubserviceclient/1.1.0"}
        target, source = (
            Target(f"amqps://{HOST}/messages/deviceBound"),
            Source(f"amqps://{HOST}/messages/serviceBound/feedback"),
        )
        sender = Attach("sender-link", 0, SENDER, UNSETTLED, FIRST, Source("ingress"), target, {}, False, 0, None)
        receiver = Attach("receiver-link", 1, RECEIVER, UNSETTLED, FIRST, source, Target("receiver_001"))
        sender.properties = receiver.properties = version
        await client.send(sender, receiver, Flow(1, 2_147_483_647, 0, 255 * 1024, 1, 0, 10_000))
        await is_answered(client, sender)
        await has_credit(client, sender)
        await is_answered(client, receiver)
        properties = Properties(message_id="m-1", to=f"/devices/{DEVICE}/messages/deviceBound", correlation_id="c-1")
        application: Fields = {"iothub-ack": "full"}
        message = Message(properties=properties, application_properties=application, body=Data((b"hello",)))
        await client.send(sent(sender, 0, (0).to_bytes(4, "big"), message))
        assert (await client.receive(Disposition)).state == Accepted()
        await leave_feedback(services)
        _, batch = await client.receive_message()
        (record,) = records(batch)
        assert record["originalMessageId"] == "m-1"
        assert {"deviceId", "deviceGenerationId", "description", "enqueuedTimeUtc", "statusCode"} < set(record)
        await client.send(Disposition(RECEIVER, 0, 0, settled=True, state=Accepted()))
        await client.send(Detach(0, closed=True), Detach(1, closed=True), End(), Close())
        for kind in (Detach, Detach, End, Close):
            await client.receive(kind)
        await receivers.work.finish()
        services.clock.advance(61 * ONE_SECOND)
        assert await services.feedback.lock_next("hub") is None
