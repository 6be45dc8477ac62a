"""Service clients receive feedback over AMQP: the batch, its settlement, credit, competing receivers, ends of links."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest
from tests.support.fix_amqp import AmqpClient, AmqpClients
from tests.support.fix_services import Services

from muster.domain.c2d_message import FEEDBACK_INTERVAL, C2dDelivery, C2dMessage, C2dProperties
from muster.domain.device import IdentityBody
from muster.domain.timestamp import HOUR, MINUTE
from muster.frontends.amqp.feedback import FeedbackLinks
from muster.frontends.amqp.links import Opener
from muster.wire.amqp_messages import Data, Message
from muster.wire.amqp_performatives import (
    FIRST,
    SECOND,
    SETTLED,
    Accepted,
    Attach,
    Detach,
    Disposition,
    Flow,
    Modified,
    Received,
    Rejected,
    Released,
    Source,
    State,
    Transfer,
)
from muster.wire.amqp_types import Symbol, Timestamp

ADDRESS = "/messages/serviceBound/feedback"
LOCK = MINUTE


class Hub:
    """A hub with one device, whose messages leave feedback."""

    def __init__(self, services: Services, opener: FeedbackLinks) -> None:
        self.services = services
        self.opener = opener
        self.clock = services.clock

    async def complete_one(self, message_id: str) -> None:
        """A message is sent and completed, fifteen seconds after the last batch: a batch of its own."""
        c2d = self.services.c2d
        self.clock.advance(FEEDBACK_INTERVAL)
        await c2d.send("hub", "d", "", C2dMessage(C2dProperties(message_id=message_id, ack="full")))
        delivery = await c2d.lock_next("hub", "d", "")
        assert delivery is not None
        await c2d.complete("hub", "d", "", delivery.lock_token)
        await self.services.feedback.gather(self.services.hub)

    async def waits(self) -> C2dDelivery | None:
        """The next batch, for a receiver over HTTPS."""
        await self.opener.work.finish()
        return await self.services.feedback.lock_next("hub")


@pytest.fixture
async def hub(services: Services) -> Hub:
    await services.devices.put("hub", "d", IdentityBody(device_id="d"), None)
    return Hub(services, FeedbackLinks(services.hubs, services.feedback))


@pytest.fixture
def openers(hub: Hub) -> Sequence[Opener]:
    return (hub.opener.open,)


class Receiver:
    """A service client with a link to receive on."""

    def __init__(self, client: AmqpClient, link: Attach) -> None:
        self.client = client
        self.link = link

    async def take(self) -> tuple[Transfer, Message]:
        return await self.client.receive_message()

    async def take_ids(self) -> tuple[int, list[str]]:
        """The delivery id of the next batch and what messages it is about."""
        transfer, message = await self.take()
        assert transfer.delivery_id is not None
        return transfer.delivery_id, message_ids(message)

    async def dispose(self, delivery_id: int, state: State | None, *, settled: bool = True) -> None:
        await self.client.send(Disposition(True, delivery_id, settled=settled, state=state))

    async def has_nothing(self) -> None:
        """An answer to a flow comes, and nothing before it."""
        await self.client.send(Flow(1, 5000, 0, 5000, echo=True))
        assert isinstance(await self.client._next(Flow), Flow)


def message_ids(message: Message) -> list[str]:
    assert isinstance(message.body, Data)
    return [record["originalMessageId"] for record in json.loads(message.body.joined())]


async def service_client(amqp: AmqpClients, policy: str = "service") -> AmqpClient:
    client = await amqp.open()
    cbs = await client.cbs()
    assert await cbs.put("hub.example.net", amqp.policy_token(policy)) == 200
    return client


async def receiver_of(amqp: AmqpClients, credit: int = 10, address: str = ADDRESS, **options: Any) -> Receiver:
    client = await service_client(amqp)
    return Receiver(client, await client.link(address, sender=False, credit=credit, **options))


@pytest.fixture
async def receiver(amqp: AmqpClients) -> Receiver:
    return await receiver_of(amqp)


async def test_a_batch(hub: Hub, receiver: Receiver) -> None:
    await hub.complete_one("m-1")
    transfer, message = await receiver.take()
    assert (transfer.settled, transfer.message_format) == (False, 0)
    assert transfer.delivery_tag is not None
    assert len(transfer.delivery_tag) == 16
    properties = message.properties
    assert properties is not None
    assert properties.content_type == "application/vnd.microsoft.iothub.feedback.json"
    assert (properties.user_id, properties.to) == (b"hub", ADDRESS)
    enqueued = {Symbol("iothub-enqueuedtime"): Timestamp(hub.clock.now // 1000)}
    assert message.message_annotations == enqueued
    assert isinstance(message.body, Data)
    assert len(message.body.sections) == 1
    (record,) = json.loads(message.body.joined())
    assert record.pop("enqueuedTimeUtc").endswith("Z")
    assert record.pop("deviceGenerationId")
    assert record == {
        "originalMessageId": "m-1",
        "statusCode": "Success",
        "description": "Success",
        "deviceId": "d",
    }


async def test_the_tag_is_the_lock_token_in_the_order_of_net(hub: Hub, receiver: Receiver) -> None:
    await hub.complete_one("m-1")
    transfer, _ = await receiver.take()
    assert transfer.delivery_tag is not None
    await hub.services.feedback.complete("hub", str(UUID(bytes_le=transfer.delivery_tag)))


async def test_what_waits_comes_when_there_is_credit(hub: Hub, amqp: AmqpClients) -> None:
    await hub.complete_one("m-1")
    receiver = await receiver_of(amqp, credit=0)
    await receiver.has_nothing()
    await receiver.client.grant(receiver.link, 1)
    assert (await receiver.take_ids())[1] == ["m-1"]


async def test_credit_is_kept_to(hub: Hub, amqp: AmqpClients) -> None:
    receiver = await receiver_of(amqp, credit=1)
    await hub.complete_one("m-1")
    await hub.complete_one("m-2")
    assert (await receiver.take_ids())[1] == ["m-1"]
    await receiver.has_nothing()
    await receiver.client.send(Flow(2, 5000, 0, 5000, receiver.link.handle, 1, 1))
    assert (await receiver.take_ids())[1] == ["m-2"]


@pytest.mark.parametrize("address", ["amqps://hub.example.net/messages/servicebound/feedback", ADDRESS.lower()])
async def test_spellings_of_the_address(hub: Hub, amqp: AmqpClients, address: str) -> None:
    receiver = await receiver_of(amqp, address=address)
    await hub.complete_one("m-1")
    assert (await receiver.take_ids())[1] == ["m-1"]


@pytest.mark.parametrize("state", [Accepted(), Rejected()])
async def test_what_is_accepted_or_rejected_is_gone(hub: Hub, receiver: Receiver, state: State) -> None:
    await hub.complete_one("m-1")
    delivery_id, _ = await receiver.take_ids()
    await receiver.dispose(delivery_id, state)
    assert await hub.waits() is None
    hub.clock.advance(LOCK)
    assert await hub.waits() is None


@pytest.mark.parametrize("state", [Released(), Modified(), Modified(True, True)])
async def test_what_is_released_comes_again_ten_times(hub: Hub, receiver: Receiver, state: State) -> None:
    await hub.complete_one("m-1")
    for _ in range(10):
        delivery_id, ids = await receiver.take_ids()
        assert ids == ["m-1"]
        await receiver.dispose(delivery_id, state)
    assert await hub.waits() is None


@pytest.mark.parametrize("default", [None, Accepted(), Released()])
async def test_what_is_settled_without_an_outcome(hub: Hub, amqp: AmqpClients, default: State | None) -> None:
    receiver = await receiver_of(amqp, 1, source=Source(ADDRESS, default_outcome=default))
    await hub.complete_one("m-1")
    delivery_id, _ = await receiver.take_ids()
    await receiver.dispose(delivery_id, None)
    waits = await hub.waits()
    assert (waits is None) == isinstance(default, Accepted)
    assert waits is None or waits.delivery_count == isinstance(default, Released)


async def test_what_is_no_outcome_yet(hub: Hub, receiver: Receiver) -> None:
    await hub.complete_one("m-1")
    delivery_id, _ = await receiver.take_ids()
    await receiver.dispose(delivery_id, Received(0, 0), settled=False)
    await receiver.dispose(delivery_id, None, settled=False)
    assert await hub.waits() is None
    await receiver.dispose(delivery_id, Released())
    assert (await receiver.take_ids())[1] == ["m-1"]


@pytest.mark.parametrize("state", [Accepted(), Released()])
async def test_a_receiver_that_settles_second_is_answered(hub: Hub, amqp: AmqpClients, state: State) -> None:
    receiver = await receiver_of(amqp, 1, rcv_settle_mode=SECOND)
    await hub.complete_one("m-1")
    delivery_id, _ = await receiver.take_ids()
    await receiver.dispose(delivery_id, state, settled=False)
    answer = await receiver.client.receive(Disposition)
    assert (answer.role, answer.first, answer.settled, answer.state) == (False, delivery_id, True, Accepted())
    assert (await hub.waits() is None) == isinstance(state, Accepted)


async def test_a_receiver_that_settles_second_is_told_that_its_lock_is_lost(hub: Hub, amqp: AmqpClients) -> None:
    receiver = await receiver_of(amqp, 1, rcv_settle_mode=SECOND)
    await hub.complete_one("m-1")
    delivery_id, _ = await receiver.take_ids()
    hub.clock.advance(LOCK)
    await receiver.dispose(delivery_id, Accepted(), settled=False)
    answer = await receiver.client.receive(Disposition)
    assert isinstance(answer.state, Rejected)
    assert answer.state.error is not None
    assert answer.state.error.condition == "com.microsoft:message-lock-lost"
    assert await hub.waits() is not None


async def test_a_receiver_of_settled_messages(hub: Hub, amqp: AmqpClients) -> None:
    receiver = await receiver_of(amqp, 1, snd_settle_mode=SETTLED, rcv_settle_mode=FIRST)
    await hub.complete_one("m-1")
    transfer, message = await receiver.take()
    assert transfer.settled
    assert message_ids(message) == ["m-1"]
    await hub.opener.work.finish()
    hub.clock.advance(LOCK)
    assert await hub.waits() is None


async def test_receivers_compete(hub: Hub, amqp: AmqpClients) -> None:
    receivers = [await receiver_of(amqp, credit=1) for _ in range(3)]
    for number in range(3):
        await hub.complete_one(f"m-{number}")
    found = [ids for receiver in receivers for ids in (await receiver.take_ids())[1]]
    assert sorted(found) == ["m-0", "m-1", "m-2"]


@pytest.mark.parametrize("end", ["detach", "leave", "close"])
async def test_what_a_link_leaves_unsettled_waits_again_at_once(hub: Hub, amqp: AmqpClients, end: str) -> None:
    receiver = await receiver_of(amqp)
    await hub.complete_one("m-1")
    await hub.complete_one("m-2")
    assert [(await receiver.take_ids())[1] for _ in range(2)] == [["m-1"], ["m-2"]]
    client = receiver.client
    if end == "detach":
        await client.send(Detach(receiver.link.handle, closed=True))
        await client.receive(Detach)
    elif end == "leave":
        await client.leave()
    else:
        await client.close()
    other = await receiver_of(amqp)
    found = [(await other.take_ids())[1] for _ in range(2)]
    assert sorted(found) == [["m-1"], ["m-2"]]


async def test_a_lapsed_lock_lets_the_same_link_have_the_batch_again(hub: Hub, receiver: Receiver) -> None:
    await hub.complete_one("m-1")
    first, _ = await receiver.take_ids()
    hub.clock.advance(LOCK)
    await hub.complete_one("m-2")
    again = [await receiver.take_ids() for _ in range(2)]
    assert sorted(ids for _, ids in again) == [["m-1"], ["m-2"]]
    await receiver.dispose(first, Accepted())
    for delivery_id, _ in again:
        await receiver.dispose(delivery_id, Accepted())
    assert await hub.waits() is None


async def test_drain(hub: Hub, amqp: AmqpClients) -> None:
    receiver = await receiver_of(amqp, credit=0)
    await hub.complete_one("m-1")
    await receiver.client.grant(receiver.link, 5, drain=True)
    assert (await receiver.take_ids())[1] == ["m-1"]
    drained = await receiver.client._next(Flow)
    assert isinstance(drained, Flow)
    assert (drained.handle, drained.delivery_count, drained.link_credit) == (receiver.link.handle, 5, 0)


async def test_file_notifications_are_silent(hub: Hub, amqp: AmqpClients) -> None:
    receiver = await receiver_of(amqp, 5, "/messages/serviceBound/filenotifications")
    await hub.complete_one("m-1")
    await receiver.has_nothing()
    await receiver.client.grant(receiver.link, 5, drain=True)
    drained = await receiver.client._next(Flow)
    assert isinstance(drained, Flow)
    assert (drained.handle, drained.delivery_count, drained.link_credit) == (receiver.link.handle, 5, 0)
    await receiver.client.close()


@pytest.mark.parametrize("address", [ADDRESS, "/messages/serviceBound/filenotifications"])
async def test_nothing_can_be_sent_there(amqp: AmqpClients, address: str) -> None:
    client = await service_client(amqp)
    asked = client.attach(address, sender=True)
    await client.send(asked)
    await client.is_refused(asked, "amqp:not-allowed")


@pytest.mark.parametrize("address", [ADDRESS, "/messages/serviceBound/filenotifications"])
async def test_the_right_is_needed(amqp: AmqpClients, address: str) -> None:
    client = await service_client(amqp, "registryReadWrite")
    asked = client.attach(address, sender=False)
    await client.send(asked)
    await client.is_refused(asked, "amqp:unauthorized-access")


async def test_the_link_ends_with_its_token(hub: Hub, receiver: Receiver) -> None:
    await hub.complete_one("m-1")
    await receiver.take_ids()
    hub.clock.advance(3 * HOUR)
    receiver.client.protocol.check_time()
    await receiver.client.is_detached(receiver.link, "amqp:unauthorized-access")


async def test_the_hub_is_gone(hub: Hub, receiver: Receiver) -> None:
    await hub.services.hubs.remove("hub", None, force=True)
    await receiver.client.is_detached(receiver.link, "amqp:unauthorized-access")


async def test_the_database_is_gone(hub: Hub, amqp: AmqpClients) -> None:
    first = await receiver_of(amqp, credit=1)
    await hub.complete_one("m-1")
    delivery_id, _ = await first.take_ids()
    second = await receiver_of(amqp, credit=0)
    await hub.opener.work.finish()
    await hub.services.database.close()
    await second.client.grant(second.link, 1)
    await second.client.is_detached(second.link, "amqp:internal-error")
    await first.dispose(delivery_id, Accepted(), settled=False)
    answer = await first.client.receive(Disposition)
    assert isinstance(answer.state, Rejected)
    assert answer.state.error is not None
    assert answer.state.error.condition == "amqp:internal-error"


async def test_the_database_is_gone_when_a_link_ends(
    hub: Hub, amqp: AmqpClients, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = await receiver_of(amqp, credit=1)
    await hub.complete_one("m-1")
    await receiver.take_ids()
    await hub.opener.work.finish()
    await hub.services.database.close()
    await receiver.client.close()
    await hub.opener.work.finish()
    assert "waits until its lock lapses" in caplog.text
