"""Service clients send messages to devices over AMQP: what is accepted, what is rejected and why, order and credit."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.fix_amqp import AmqpClient, AmqpClients
from tests.support.fix_services import Services

from muster.domain.c2d_message import MAXIMUM_QUEUE_DEPTH, C2dDelivery
from muster.domain.device import IdentityBody
from muster.domain.module import ModuleBody
from muster.frontends.amqp.links import Opener
from muster.frontends.amqp.service import CREDIT, DeviceboundLinks
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_frames import Frame
from muster.wire.amqp_messages import AmqpValue, Data, Message, Properties
from muster.wire.amqp_performatives import (
    SECOND,
    UNSETTLED,
    Accepted,
    Attach,
    Detach,
    Disposition,
    Error,
    Flow,
    Rejected,
    Transfer,
)
from muster.wire.amqp_types import Symbol

ADDRESS = "/messages/devicebound"


@pytest.fixture
async def openers(services: Services) -> Sequence[Opener]:
    for device_id in ("d", "e", "a#b", "50%25"):
        await services.devices.put("hub", device_id, IdentityBody(device_id=device_id), None)
    await services.modules.put("hub", "d", "m$", ModuleBody(device_id="d", module_id="m$"), None)
    return (DeviceboundLinks(services.hubs, services.c2d).open,)


def message(to: str | None = "/devices/d/messages/devicebound", body: bytes = b"hello", **properties: Any) -> Message:
    return Message(properties=Properties(to=to, **properties), body=Data((body,)))


class Sender:
    """A service client with a link to send on."""

    def __init__(self, client: AmqpClient, link: Attach) -> None:
        self.client = client
        self.link = link

    async def send(self, sent: Message | bytes, **options: Any) -> int:
        return await self.client.transfer(self.link, sent, **options)

    async def is_accepted(self, sent: Message) -> None:
        await self.client.settles(await self.send(sent))

    async def is_rejected(self, sent: Message | bytes, condition: str, **options: Any) -> Error:
        disposition = await self.client.settles(await self.send(sent, **options), Rejected)
        assert isinstance(disposition.state, Rejected)
        error = disposition.state.error
        assert error is not None
        assert error.condition == condition, error
        return error


async def service_client(amqp: AmqpClients, policy: str = "service") -> AmqpClient:
    client = await amqp.open()
    cbs = await client.cbs()
    assert await cbs.put("https://hub.example.net", amqp.policy_token(policy)) == 200
    return client


@pytest.fixture
async def sender(amqp: AmqpClients) -> Sender:
    client = await service_client(amqp)
    return Sender(client, await client.link(ADDRESS, sender=True))


async def take(services: Services, device_id: str = "d", module_id: str = "") -> C2dDelivery | None:
    return await services.c2d.lock_next("hub", device_id, module_id)


async def bodies(services: Services, device_id: str) -> list[bytes]:
    found = []
    while delivery := await take(services, device_id):
        found.append(delivery.body)
    return found


async def test_a_message_is_on_disk_when_it_is_accepted(services: Services, sender: Sender) -> None:
    await sender.is_accepted(message(message_id="m-1", user_id=b"ops"))
    delivery = await take(services)
    assert delivery is not None
    assert (delivery.body, delivery.properties.message_id, delivery.properties.user_id) == (b"hello", "m-1", "ops")
    assert delivery.properties.to == "/devices/d/messages/devicebound"


@pytest.mark.parametrize(
    "address",
    [
        "amqps://hub.example.net/messages/devicebound",
        "amqps://hub.example.net:5671/messages/deviceBound",
        "/messages/deviceBound",
        "messages/devicebound",
    ],
)
async def test_spellings_of_the_address(services: Services, amqp: AmqpClients, address: str) -> None:
    client = await service_client(amqp)
    await Sender(client, await client.link(address, sender=True)).is_accepted(message())
    assert await services.c2d.count("hub", "d") == 1


@pytest.mark.parametrize(
    ("to", "device_id", "module_id"),
    [
        ("/devices/a%23b/messages/devicebound", "a#b", ""),
        ("/devices/a#b/messages/deviceBound", "a#b", ""),
        ("/devices/50%25/messages/devicebound", "50%25", ""),
        ("/devices/50%2525/messages/devicebound", "50%25", ""),
        ("/devices/d/modules/m$/messages/devicebound", "d", "m$"),
        ("/devices/d/modules/m%24/messages/deviceBound", "d", "m$"),
        ("amqps://hub.example.net/devices/d/messages/devicebound", "d", ""),
    ],
)
async def test_spellings_of_the_recipient(
    services: Services, sender: Sender, to: str, device_id: str, module_id: str
) -> None:
    await sender.is_accepted(message(to))
    delivery = await take(services, device_id, module_id)
    assert delivery is not None
    assert delivery.properties.to == to


@pytest.mark.parametrize(
    ("sent", "condition", "words"),
    [
        (message("/devices/nobody/messages/devicebound"), "amqp:not-found", "nobody"),
        (message("/devices/d/modules/x/messages/devicebound"), "amqp:not-found", "module d/x"),
        (message("/devices/dev 1/x/messages/devicebound"), "amqp:not-found", "dev 1/x"),
        (message("/devices/n%6Fbody/messages/devicebound"), "amqp:not-found", "nobody"),
        (message(None), "amqp:not-allowed", "'to'"),
        (Message(), "amqp:not-allowed", "'to'"),
        (message("/devices/d"), "amqp:not-allowed", "'to'"),
        (message(message_id="m" * 129), "com.microsoft:argument-error", "messageId"),
        (message(message_id="m\0"), "com.microsoft:argument-error", "$.mid"),
        (message(message_id=b"\xff"), "com.microsoft:argument-error", "message-id"),
    ],
)
async def test_what_cannot_be_queued_is_rejected(
    services: Services, sender: Sender, sent: Message, condition: str, words: str
) -> None:
    services.clock.now = 1_790_000_000_000_000
    error = await sender.is_rejected(sent, condition)
    assert error.description is not None
    assert words in error.description
    info = error.info
    assert info is not None
    assert str(info[Symbol("com.microsoft:tracking-id")]).endswith("-G:0-TimeStamp:09/21/2026 14:13:20")
    await sender.is_accepted(message())


async def test_a_message_that_is_too_large(services: Services, sender: Sender) -> None:
    payload = encode_message(message(body=b"x" * 65_537))
    head = Transfer(sender.link.handle, 0, b"t", 0, settled=False, more=True)
    await sender.client.send(Frame(0, head, payload[:60_000]))
    await sender.client.send(Frame(0, Transfer(sender.link.handle), payload[60_000:]))
    disposition = await sender.client.settles(0, Rejected)
    assert isinstance(disposition.state, Rejected)
    assert disposition.state.error is not None
    assert disposition.state.error.condition == "amqp:link:message-size-exceeded"
    assert await services.c2d.count("hub", "d") == 0


async def test_application_properties(services: Services, sender: Sender) -> None:
    sent = message()
    sent.application_properties = {"iothub-ack": "negativeonly", "color": "red", "null": None}
    await sender.is_accepted(sent)
    delivery = await take(services)
    assert delivery is not None
    assert (delivery.properties.ack, delivery.properties.application) == ("negative", {"color": "red"})
    sent.application_properties = {"iothub-ack": "sometimes"}
    await sender.is_rejected(sent, "com.microsoft:argument-error")
    sent.application_properties = {"list": ["a"]}
    await sender.is_rejected(sent, "com.microsoft:argument-error")


async def test_what_is_no_message(sender: Sender) -> None:
    await sender.is_rejected(b"\x00\x53\x75", "amqp:decode-error")
    sent = message()
    sent.body = AmqpValue({"a": "b"})
    await sender.is_rejected(sent, "com.microsoft:argument-error")
    await sender.is_rejected(message(), "amqp:not-allowed", format=0x8001_3700)


async def test_a_message_that_is_long_expired_is_taken_and_fed_back(services: Services, sender: Sender) -> None:
    sent = message(absolute_expiry_time=1000, message_id="old")
    sent.application_properties = {"iothub-ack": "full"}
    await sender.is_accepted(sent)
    assert await take(services) is None
    batch = await services.feedback.lock_next("hub")
    assert batch is not None
    assert b'"statusCode":"Expired"' in batch.body


async def test_the_51st_message_is_rejected_and_others_are_not_harmed(services: Services, sender: Sender) -> None:
    count = MAXIMUM_QUEUE_DEPTH + 1
    for _ in range(count):
        await sender.send(message())
    await sender.send(message("/devices/e/messages/devicebound"))
    states: dict[int, Any] = {}
    while len(states) <= count:
        disposition = await _next_disposition(sender.client)
        last = disposition.first if disposition.last is None else disposition.last
        states |= dict.fromkeys(range(disposition.first, last + 1), disposition.state)
    assert isinstance(states.pop(count + 1), Accepted)
    rejected = states.pop(count)
    assert isinstance(rejected, Rejected)
    assert rejected.error is not None
    assert rejected.error.condition == "amqp:resource-limit-exceeded"
    assert {type(state) for state in states.values()} == {Accepted}
    assert await services.c2d.count("hub", "d") == MAXIMUM_QUEUE_DEPTH
    assert await services.c2d.count("hub", "e") == 1


async def _next_disposition(client: AmqpClient) -> Disposition:
    while True:
        item = await client._next(Disposition)
        if isinstance(item, Disposition):
            return item
        assert isinstance(item, Flow), f"{item!r} is no disposition"


async def test_messages_of_one_read_keep_their_order(services: Services, sender: Sender) -> None:
    frames = []
    for number in range(40):
        body = message(f"/devices/{'de'[number % 2]}/messages/devicebound", str(number).encode())
        transfer = Transfer(sender.link.handle, number + 1, bytes((number,)), 0, settled=False)
        frames.append(Frame(0, transfer, encode_message(body)))
    await sender.client.send(*frames)
    settled = 0
    while settled < 40:
        disposition = await _next_disposition(sender.client)
        assert isinstance(disposition.state, Accepted)
        settled += (disposition.last or disposition.first) - disposition.first + 1
    assert await bodies(services, "d") == [str(number).encode() for number in range(0, 40, 2)]
    assert await bodies(services, "e") == [str(number).encode() for number in range(1, 40, 2)]


async def test_credit_comes_again(services: Services, sender: Sender) -> None:
    for _ in range(CREDIT * 2):
        delivery_id = await sender.send(message())
        assert (await _next_disposition(sender.client)).first == delivery_id
        delivery = await take(services)
        assert delivery is not None
        await services.c2d.complete("hub", "d", "", delivery.lock_token)


async def test_a_settled_message_is_queued_although_its_sender_leaves(services: Services, sender: Sender) -> None:
    await sender.send(message(), settled=True)
    await sender.client.leave()
    while not await services.c2d.count("hub", "d"):
        pass


async def test_the_database_is_gone(services: Services, sender: Sender) -> None:
    await services.database.close()
    error = await sender.is_rejected(message(), "amqp:internal-error")
    assert error.description == "The service is not available."


async def test_the_hub_is_gone(services: Services, sender: Sender) -> None:
    await services.hubs.remove("hub", None, force=True)
    await sender.client.is_detached(sender.link, "amqp:unauthorized-access")


async def test_a_link_of_uamqp(services: Services, amqp: AmqpClients) -> None:
    client = await service_client(amqp)
    link = await client.link(ADDRESS, sender=True, snd_settle_mode=UNSETTLED, rcv_settle_mode=SECOND)
    await Sender(client, link).is_accepted(message())
    assert await services.c2d.count("hub", "d") == 1


async def test_nothing_can_be_received_from_there(amqp: AmqpClients) -> None:
    client = await service_client(amqp)
    asked = client.attach(ADDRESS, sender=False)
    await client.send(asked)
    await client.is_refused(asked, "amqp:not-allowed")


@pytest.mark.parametrize("policy", ["device", "registryReadWrite"])
async def test_the_right_is_needed(amqp: AmqpClients, policy: str) -> None:
    client = await service_client(amqp, policy)
    asked = client.attach(ADDRESS, sender=True)
    await client.send(asked)
    await client.is_refused(asked, "amqp:unauthorized-access")


async def test_a_token_is_needed(amqp: AmqpClients) -> None:
    client = await amqp.open()
    asked = client.attach(ADDRESS, sender=True)
    await client.send(asked)
    await client.is_refused(asked, "amqp:unauthorized-access")


async def test_the_link_ends_with_its_token(services: Services, amqp: AmqpClients) -> None:
    client = await amqp.open()
    cbs = await client.cbs()
    assert await cbs.put("hub.example.net", amqp.policy_token(life=60)) == 200
    link = await client.link(ADDRESS, sender=True)
    services.clock.advance(3_600_000_000)
    client.protocol.check_time()
    detach = await client.receive(Detach)
    assert detach.handle == link.handle
    assert detach.error is not None
    assert detach.error.condition == "amqp:unauthorized-access"
