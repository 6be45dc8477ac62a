"""Peers that do what AMQP allows and hardly anybody does: credit and drain in one read with the attach, credit that is
drained to its last message, deliveries that are given up, frames as small as there can be.
"""

import asyncio
from collections.abc import Sequence

import pytest
from tests.support.fix_amqp import HUB_HOST, AmqpClient, AmqpClients, put_token
from tests.support.fix_amqp_devices import Devices, data, devicebound_link, devices_opener, events_link
from tests.support.fix_services import Services

from muster.domain.event_hub import event_hub_name
from muster.domain.message import TELEMETRY
from muster.frontends.amqp.events import EventEndpoint
from muster.frontends.amqp.links import Opener
from muster.frontends.amqp.telemetry import WINDOW
from muster.hub.event_batches import Head, Messages
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_frames import Frame
from muster.wire.amqp_performatives import (
    Attach,
    Disposition,
    Flow,
    Transfer,
)
from muster.wire.amqp_types import Symbol, Ulong

ENTITY = event_hub_name("hub")
PARTITION = f"{ENTITY}/ConsumerGroups/$Default/Partitions/0"
HEAD: Head = (TELEMETRY, "d1", "", "638", "{}", "", "{}", "{}")


@pytest.fixture
def openers(services: Services) -> Sequence[Opener]:
    return (devices_opener(services), EventEndpoint(services.hubs, services.partition_readers).open)


async def store(services: Services, *bodies: bytes) -> None:
    await services.events.store("hub", 0, Messages.of((HEAD, list(bodies))))


async def reader(amqp: AmqpClients) -> AmqpClient:
    client = await amqp.open()
    cbs = await client.cbs()
    assert await cbs.put("x", amqp.policy_token()) == 200
    return client


async def connected(devices: Devices, amqp: AmqpClients, address: str) -> AmqpClient:
    """Who may attach this."""
    if not address.startswith("/devices"):
        return await reader(amqp)
    await devices.create()
    return await devices.connect()


def credit(link: Attach, amount: int, *, drain: bool = False, window: int = 5000) -> Flow:
    return Flow(1, window, 0, 5000, link.handle, 0, amount, drain=drain)


async def is_drained(client: AmqpClient, link: Attach, count: int) -> None:
    flow = await client.receive(Flow)
    assert (flow.handle, flow.delivery_count, flow.link_credit, flow.drain) == (link.handle, count, 0, True)


ADDRESSES = [
    "$cbs",
    "$management",
    f"{ENTITY}/$management",
    PARTITION,
    "/devices/d1/messages/devicebound",
    "/devices/d1/methods/devicebound",
    "/devices/d1/twin",
]


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("amount", [0, 7])
async def test_drain(devices: Devices, amqp: AmqpClients, address: str, amount: int) -> None:
    client = await connected(devices, amqp, address)
    link = await client.link(address, sender=False, credit=0)
    await client.send(credit(link, amount, drain=True))
    await is_drained(client, link, amount)


@pytest.mark.parametrize("address", ADDRESSES)
async def test_drain_in_one_read_with_the_attach(devices: Devices, amqp: AmqpClients, address: str) -> None:
    client = await connected(devices, amqp, address)
    link = client.attach(address, sender=False)
    await client.send(link, credit(link, 7, drain=True))
    await client.receive(Attach)
    await is_drained(client, link, 7)


async def test_drain_of_less_than_there_is(services: Services, amqp: AmqpClients) -> None:
    await store(services, b"0", b"1", b"2")
    client = await reader(amqp)
    link = await client.link(PARTITION, sender=False, credit=0)
    await client.send(credit(link, 2, drain=True))
    for _ in range(2):
        await client.receive_message()
    await is_drained(client, link, 2)


async def test_drain_of_less_messages_than_wait(devices: Devices) -> None:
    await devices.create()
    for _ in range(3):
        await devices.send_c2d()
    client = await devices.connect()
    link = await devicebound_link(client, credit=0)
    await client.send(credit(link, 2, drain=True))
    for _ in range(2):
        await client.receive_message()
    await is_drained(client, link, 2)


async def test_a_reply_waits_for_the_link_that_it_goes_to(amqp: AmqpClients) -> None:
    """Which comes with its credit in the read of the request, or after it."""
    client = await amqp.open()
    requests = await client.link("$cbs", sender=True)
    replies = client.attach("$cbs", sender=False)
    message = encode_message(put_token("x", amqp.policy_token(), Ulong(5)))
    await client.send(Frame(0, Transfer(requests.handle, 0, b"t", 0, False), message), replies, credit(replies, 10))
    await client.receive(Disposition)
    await client.receive(Attach)
    _, reply = await client.receive_message()
    assert reply.properties is not None
    assert reply.properties.correlation_id == Ulong(5)


async def test_an_echo_is_asked_for_in_one_read_with_the_attach(devices: Devices) -> None:
    await devices.create()
    client = await devices.connect()
    link = client.attach("/devices/d1/messages/devicebound", sender=False)
    await client.send(link, Flow(1, 5000, 0, 5000, link.handle, 0, 7, echo=True))
    await client.receive(Attach)
    flow = await client.receive(Flow)
    assert (flow.handle, flow.link_credit) == (link.handle, 7)


async def test_deliveries_that_are_given_up_cost_no_credit(devices: Devices) -> None:
    await devices.create()
    client = await devices.connect()
    link = await events_link(client)
    for number in range(2 * WINDOW):
        given_up = Transfer(link.handle, number, b"t", 0, False, more=True)
        await client.send(Frame(0, given_up, b"x"), Transfer(link.handle, number, aborted=True))
    client._next_delivery = 2 * WINDOW
    await client.settles(await client.transfer(link, data(b"kept")))
    assert [event.body for event in await devices.stored()] == [b"kept"]


async def test_replies_that_nobody_takes_hold_up_requests_only_as_long(amqp: AmqpClients) -> None:
    client = await amqp.open()
    requests = await client.link("$cbs", sender=True)
    replies = await client.link("$cbs", sender=False, credit=0)
    message = put_token("x", amqp.policy_token())
    [taken] = [link for link in client.protocol._heads if link.handle == requests.handle]
    sent = 0
    while taken.credit:
        await client.settles(await client.transfer(requests, message))
        sent += 1
        async with asyncio.timeout(30):
            while len(client.protocol.shared["$cbs"]._replies) < sent:  # noqa: ASYNC110 - nothing is sent that tells
                await asyncio.sleep(0)
    await client.grant(replies, 1000)
    for _ in range(sent):
        await client.receive_message()
    await client.settles(await client.transfer(requests, message))
    await client.receive_message()


@pytest.mark.parametrize(
    "address", ["/devices/d%001/messages/events", "/devices/d\0001/twin", "/devices/d1/modules/m%00/twin"]
)
async def test_an_id_that_no_database_takes(devices: Devices, address: str) -> None:
    await devices.create()
    client = await devices.connect()
    asked = client.attach(address, sender=True)
    await client.send(asked)
    await client.is_refused(asked, "amqp:unauthorized-access")


async def test_a_token_for_an_id_that_no_database_takes(amqp: AmqpClients) -> None:
    cbs = await (await amqp.open()).cbs()
    assert await cbs.put("x", amqp.token(f"{HUB_HOST}/devices/d%001")) == 401


async def test_a_consumer_group_that_no_database_takes(amqp: AmqpClients) -> None:
    client = await reader(amqp)
    asked = client.attach(f"{ENTITY}/ConsumerGroups/a%00b/Partitions/0", sender=False)
    await client.send(asked)
    await client.is_refused(asked, "amqp:not-found")


async def test_a_model_that_no_database_takes(devices: Devices) -> None:
    await devices.create()
    client = await devices.connect()
    asked = client.attach("/devices/d1/twin", sender=True, properties={Symbol("com.microsoft:model-id"): "dtmi:\0"})
    await client.send(asked)
    await client.is_refused(asked, "com.microsoft:argument-error")
