"""The Event Hubs-compatible endpoint, frame by frame: where reading starts, who may read, credit, how readers end."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.fix_amqp import AmqpClient, AmqpClients
from tests.support.fix_services import Services

from muster.domain.event_hub import event_hub_name
from muster.domain.sas import create_token
from muster.domain.timestamp import SECOND
from muster.frontends.amqp.events import EventEndpoint
from muster.frontends.amqp.links import Opener
from muster.hub.event_batches import Head, Messages
from muster.wire.amqp_frames import EMPTY_FRAME
from muster.wire.amqp_messages import Data, Message
from muster.wire.amqp_performatives import Attach, Detach, Flow, SaslInit, Source
from muster.wire.amqp_types import Described, Int, Long, Symbol, Timestamp, Ulong, Value

HOST = "hub.example.net"
ENTITY = event_hub_name("hub")
PARTITION = f"{ENTITY}/ConsumerGroups/$Default/Partitions/1"
HEAD: Head = ("Telemetry", "dev-1", "", "638", "{}", "", "{}", "{}")
SELECTOR = "apache.org:selector-filter:string"
EPOCH = Symbol("com.microsoft:epoch")


@pytest.fixture
def openers(services: Services) -> Sequence[Opener]:
    return (EventEndpoint(services.hubs, services.partition_readers).open,)


@pytest.fixture
async def client(amqp: AmqpClients) -> AmqpClient:
    return await authorized(amqp)


async def authorized(amqp: AmqpClients, policy: str = "service", **options: Any) -> AmqpClient:
    client = amqp.connect()
    await client.open(max_frame_size=65_536)
    cbs = await client.cbs()
    token = amqp.policy_token(policy, f"sb://{HOST}/{ENTITY}", **options)
    assert await cbs.put(f"sb://{HOST}/{ENTITY}", token) == 200
    return client


async def fill(services: Services, count: int, partition: int = 1, size: int = 10, step: int = SECOND) -> None:
    """So many events, one later than the other."""
    for number in range(count):
        body = str(number).encode().ljust(size, b".")
        await services.events.store("hub", partition, Messages.of((HEAD, [body])))
        services.clock.advance(step)


def source(selector: str | None, address: str = PARTITION, descriptor: Value = Symbol(SELECTOR)) -> dict[str, Any]:  # noqa: B008
    """The options of an attach with this filter."""
    filters = {} if selector is None else {Symbol(SELECTOR): Described(descriptor, selector)}
    return {"source": Source(address, filter=filters)}


async def bodies(client: AmqpClient, count: int) -> list[int]:
    return [number(await event(client)) for _ in range(count)]


def number(message: Message) -> int:
    assert isinstance(message.body, Data)
    return int(message.body.joined().rstrip(b"."))


async def event(client: AmqpClient) -> Message:
    transfer, message = await client.receive_message()
    assert transfer.settled
    return message


async def is_silent(client: AmqpClient) -> None:
    """Nothing more comes, not even later."""
    for _ in range(20):
        await asyncio.sleep(0)
    client._take_output()
    assert not client.inbox


async def answer(client: AmqpClient, asked: Attach) -> Attach:
    await client.send(asked)
    return await client.receive(Attach)


# Where reading starts


@pytest.mark.parametrize(
    "selector, first",
    [
        (None, 0),
        ("amqp.annotation.x-opt-offset > '-1'", 0),
        ("amqp.annotation.x-opt-offset > '22'", 3),
        ("amqp.annotation.x-opt-offset >= '22'", 2),
        ("amqp.annotation.x-opt-offset > '23'", 3),
        ("amqp.annotation.x-opt-sequence-number > '3'", 4),
        ("amqp.annotation.x-opt-sequence-number >= 3", 3),
        ("amqp.annotation.x-opt-enqueued-time > '1790000001000'", 2),
        ("amqp.annotation.x-opt-enqueued-time >= '1790000001000'", 1),
        ("amqp.annotation.x-opt-enqueuedtimeutc > 1790000002999", 3),
        ("amqp.annotation.x-opt-enqueued-time > '1'", 0),
    ],
)
async def test_where_reading_starts(services: Services, client: AmqpClient, selector: str | None, first: int) -> None:
    await fill(services, 5)
    await client.link(PARTITION, sender=False, **source(selector))
    assert await bodies(client, 5 - first) == list(range(first, 5))
    await is_silent(client)


async def test_only_what_is_new_begins_with_the_attach(services: Services, client: AmqpClient) -> None:
    await fill(services, 3)
    selector = "amqp.annotation.x-opt-offset > '@latest'"
    link = await client.link(PARTITION, sender=False, credit=0, **source(selector, descriptor=Ulong(0x468C_0000_0004)))
    await fill(services, 2)
    await client.grant(link, 10)
    assert await bodies(client, 2) == [0, 1]


@pytest.mark.parametrize(
    "selector, words",
    [
        (
            "amqp.annotation.x-opt-sequence-number > '7'",
            "The supplied sequence number '7' is invalid. The last sequence",
        ),
        ("amqp.annotation.x-opt-offset > '999'", "The supplied offset '999' is invalid. The last offset in the system"),
        ("x > 1", "not understood"),
    ],
)
async def test_positions_that_do_not_exist(services: Services, client: AmqpClient, selector: str, words: str) -> None:
    await fill(services, 2)
    asked = client.attach(PARTITION, sender=False, **source(selector))
    await client.send(asked)
    detach = await client.is_refused(asked, "com.microsoft:argument-error")
    assert words in detach.error.description


async def test_behind_the_newest_event_is_no_mistake(services: Services, client: AmqpClient) -> None:
    await fill(services, 2)
    await client.link(PARTITION, sender=False, **source("amqp.annotation.x-opt-sequence-number > '1'"))
    await fill(services, 1)
    assert await bodies(client, 1) == [0]


async def test_events_that_were_not_kept_are_passed_over(services: Services, client: AmqpClient) -> None:
    await fill(services, 5)
    link = await client.link(PARTITION, sender=False, credit=1, **source(None))
    assert await bodies(client, 1) == [0]

    async def lose(tx: Any) -> None:
        await tx.execute("DELETE FROM event_batch WHERE last_sequence_number < 3")

    await services.database.transact(lose)
    await client.send(Flow(1, 5000, 0, 5000, link.handle, 1, 10))
    assert await bodies(client, 2) == [3, 4]


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        PARTITION,
        f"/{PARTITION}",
        f"amqps://{HOST}:5671/{PARTITION}",
        f"amqps://{HOST}/{ENTITY.upper()}/consumergroups/%24default/partitions/1",
    ],
)
async def test_spellings(services: Services, client: AmqpClient, address: str) -> None:
    await fill(services, 1)
    await client.link(address, sender=False)
    assert await bodies(client, 1) == [0]


@pytest.mark.parametrize(
    "address, condition, words",
    [
        (f"{ENTITY}/ConsumerGroups/none/Partitions/1", "amqp:not-found", "could not be found"),
        (f"{ENTITY}/ConsumerGroups/$Default/Partitions/4", "com.microsoft:argument-out-of-range", "'4'"),
        (f"{ENTITY}/ConsumerGroups/$Default/Partitions/x", "com.microsoft:argument-out-of-range", "'x'"),
        (f"{ENTITY}/ConsumerGroups/$Default/Partitions/01", "com.microsoft:argument-out-of-range", "'01'"),
        ("other/ConsumerGroups/$Default/Partitions/1", "amqp:not-found", "'other' could not be found"),
        ("other/$management", "amqp:not-found", "'other' could not be found"),
        (ENTITY, "amqp:not-allowed", "Events are read at"),
    ],
)
async def test_what_there_is_not(client: AmqpClient, address: str, condition: str, words: str) -> None:
    asked = client.attach(address, sender=False)
    await client.send(asked)
    detach = await client.is_refused(asked, condition)
    assert words in detach.error.description
    assert "TrackingId:" in detach.error.description


@pytest.mark.parametrize("address", [ENTITY, f"{ENTITY}/Partitions/1", PARTITION, f"{ENTITY}/Publishers/p"])
async def test_nobody_sends(client: AmqpClient, address: str) -> None:
    asked = client.attach(address, sender=True)
    await client.send(asked)
    detach = await client.is_refused(asked, "amqp:unauthorized-access")
    assert "'Send' claim(s) are required" in detach.error.description


async def test_a_group_of_ones_own(services: Services, client: AmqpClient) -> None:
    await services.consumer_groups.put("hub", "Analytics")
    await fill(services, 1)
    link = await client.link(f"{ENTITY}/ConsumerGroups/aNALYTICS/Partitions/1", sender=False)
    assert await bodies(client, 1) == [0]
    await services.consumer_groups.delete("hub", "analytics")
    await client.is_detached(link, "amqp:not-found")


# Who may read


async def test_nobody_reads_without_a_right(amqp: AmqpClients, services: Services) -> None:
    client = await amqp.open()
    asked = client.attach(PARTITION, sender=False)
    await client.send(asked)
    await client.is_refused(asked, "amqp:unauthorized-access")
    cbs = await client.cbs()
    assert await cbs.put(HOST, amqp.policy_token("registryRead")) == 200
    asked = client.attach(PARTITION, sender=False)
    await client.send(asked)
    await client.is_refused(asked, "amqp:unauthorized-access")
    assert len(await services.reports.latest(10)) == 2


async def test_the_key_of_an_event_hubs_client_is_its_text(amqp: AmqpClients, services: Services) -> None:
    key = services.hub.policies["service"].primary_key
    text_key = base64.b64encode(key.encode()).decode()
    token = create_token(f"sb://{HOST}/{ENTITY}", text_key, services.clock.now // SECOND + 60, "service")
    client = await amqp.open()
    cbs = await client.cbs()
    assert await cbs.put(f"sb://{HOST}/{ENTITY}", token) == 200
    await client.link(PARTITION, sender=False)


@pytest.mark.parametrize("password", ["key", "token"])
async def test_a_login_by_sasl_needs_no_token(amqp: AmqpClients, services: Services, password: str) -> None:
    """Readers that send the name and the key of a policy, or a token of it, and nothing else (interop-facts.md 6)."""
    await fill(services, 1)
    key = services.hub.policies["iothubowner"].primary_key
    secret = key if password == "key" else amqp.policy_token("iothubowner", f"sb://{HOST}/{ENTITY}")
    client = amqp.connect()
    await client.sasl(SaslInit("PLAIN", f"\0iothubowner\0{secret}".encode()))
    await client.open()
    await client.link(PARTITION, sender=False, credit=1)
    assert await bodies(client, 1) == [0]


async def test_a_token_that_expires_ends_its_readers_alone(amqp: AmqpClients, services: Services) -> None:
    client = await authorized(amqp, life=60)
    link = await client.link(PARTITION, sender=False)
    for _ in range(2):
        services.clock.advance(200 * SECOND)
        await client.send_bytes(EMPTY_FRAME)
    client.protocol.check_time()
    await client.is_detached(link, "amqp:unauthorized-access")
    assert not client.transport.closing


# Credit


async def test_no_more_than_credit_allows(services: Services, client: AmqpClient) -> None:
    await fill(services, 6)
    link = await client.link(PARTITION, sender=False, credit=2)
    assert await bodies(client, 2) == [0, 1]
    await is_silent(client)
    await client.send(Flow(1, 5000, 0, 5000, link.handle, 2, 3))
    assert await bodies(client, 3) == [2, 3, 4]
    await is_silent(client)


async def test_news_comes_to_who_has_credit(services: Services, client: AmqpClient) -> None:
    await client.link(PARTITION, sender=False)
    await fill(services, 3)
    assert await bodies(client, 3) == [0, 1, 2]
    await fill(services, 2, partition=2)
    await is_silent(client)


async def test_drain(services: Services, client: AmqpClient) -> None:
    await fill(services, 3)
    link = await client.link(PARTITION, sender=False, credit=0)
    await client.grant(link, 10, drain=True)
    assert await bodies(client, 3) == [0, 1, 2]
    flow = await client.receive(Flow)
    assert (flow.handle, flow.delivery_count, flow.link_credit, flow.drain) == (link.handle, 10, 0, True)
    await fill(services, 1)
    await is_silent(client)


async def test_thousands_and_large_ones(services: Services, client: AmqpClient) -> None:
    runs = Messages.of((HEAD, [str(index).encode() for index in range(1000)]))
    await services.events.store("hub", 1, runs)
    await services.events.store("hub", 1, Messages.of((HEAD, [b"1000".ljust(250_000, b".") for _ in range(20)])))
    link = await client.link(PARTITION, sender=False, credit=1020)
    assert await bodies(client, 1000) == list(range(1000))
    assert await bodies(client, 20) == [1000] * 20
    assert link.handle >= 0


async def test_a_small_session_window(services: Services, client: AmqpClient) -> None:
    await fill(services, 5)
    asked = client.attach(PARTITION, sender=False)
    await answer(client, asked)
    # The reply of $cbs was the first transfer of the session.
    await client.send(Flow(2, 2, 0, 5000, asked.handle, 0, 100))
    assert await bodies(client, 2) == [0, 1]
    await is_silent(client)
    await client.send(Flow(4, 100, 0, 5000))
    assert await bodies(client, 3) == [2, 3, 4]


async def test_a_peer_that_does_not_read(services: Services, client: AmqpClient) -> None:
    """Its connection takes no more: nothing is read from the log for it."""
    await fill(services, 2)
    asked = client.attach(PARTITION, sender=False)
    await answer(client, asked)
    client.protocol.pause_writing()
    await client.grant(asked, 100)
    await is_silent(client)
    client.protocol.resume_writing()
    assert await bodies(client, 2) == [0, 1]


async def test_settled_as_on_azure_whatever_is_asked(services: Services, client: AmqpClient) -> None:
    asked = client.attach(PARTITION, sender=False, snd_settle_mode=0, rcv_settle_mode=1)
    told = await answer(client, asked)
    assert (told.snd_settle_mode, told.rcv_settle_mode) == (1, 0)
    await fill(services, 1)
    await client.grant(asked, 1)
    await event(client)


async def test_runtime_metrics_for_who_wants_them(services: Services, client: AmqpClient) -> None:
    await fill(services, 3)
    capability = ("com.microsoft:enable-receiver-runtime-metric",)
    await client.link(PARTITION, sender=False, credit=1, desired_capabilities=capability)
    told = (await event(client)).delivery_annotations
    assert told == {
        Symbol("last_enqueued_sequence_number"): Long(2),
        Symbol("last_enqueued_offset"): "22",
        Symbol("last_enqueued_time_utc"): Timestamp(1_790_000_002_000),
        Symbol("runtime_info_retrieval_time_utc"): Timestamp(1_790_000_003_000),
    }


async def test_readers_that_are_behind_lose_nothing_while_devices_send(services: Services, amqp: AmqpClients) -> None:
    """They rest then, in turns; each sees every event once and in order all the same."""
    count, more = 1200, 60
    await services.events.store("hub", 1, Messages.of((HEAD, [b"%d" % index for index in range(count)])))
    readers = [await authorized(amqp) for _ in range(5)]

    async def send() -> None:
        for index in range(count, count + more):
            await services.events.store("hub", 1, Messages.of((HEAD, [b"%d" % index])))

    async def read(client: AmqpClient) -> list[int]:
        await client.link(PARTITION, sender=False, credit=count + more)
        return await bodies(client, count + more)

    found = await asyncio.gather(send(), *map(read, readers))
    assert found[1:] == [list(range(count + more))] * 5


# Owner levels


async def reader(client: AmqpClient, epoch: int | None, name: str = "") -> Attach:
    """One that asks for nothing."""
    properties: dict[Value, Value] = {} if epoch is None else {EPOCH: Long(epoch)}
    if name:
        properties[Symbol("com.microsoft:receiver-name")] = name
    return await client.link(PARTITION, sender=False, credit=0, properties=properties)


async def refused(client: AmqpClient, epoch: int | None, condition: str) -> str:
    properties: dict[Value, Value] = {} if epoch is None else {EPOCH: Long(epoch)}
    asked = client.attach(PARTITION, sender=False, properties=properties)
    await client.send(asked)
    return str((await client.is_refused(asked, condition)).error.description)


async def test_a_higher_owner_level_displaces(services: Services, amqp: AmqpClients, client: AmqpClient) -> None:
    other = await authorized(amqp)
    free = await reader(client, None, "free")
    low = await reader(other, 1, "low")
    detach = await client.is_detached(free, "amqp:link:stolen")
    assert detach.error.description.startswith(
        "New receiver 'low' with higher epoch of '1' is created hence current receiver 'free' is getting disconnected."
    )
    assert "At least one receiver for the endpoint is created with epoch of '1'" in await refused(
        client, None, "amqp:link:stolen"
    )
    assert "Receiver 'low' with a higher epoch '1' already exists. Receiver 'nil' with epoch 0" in await refused(
        client, 0, "amqp:link:stolen"
    )
    same = await reader(client, 1)
    await other.is_detached(low, "amqp:link:stolen")
    await fill(services, 1)
    await client.grant(same, 1)
    assert await bodies(client, 1) == [0]


async def test_an_owner_that_goes_leaves_room(amqp: AmqpClients, client: AmqpClient) -> None:
    other = await authorized(amqp)
    await reader(other, 7)
    await other.leave()
    await reader(client, None)


async def test_owner_levels_are_of_a_group_and_a_partition(amqp: AmqpClients, services: Services) -> None:
    await services.consumer_groups.put("hub", "second")
    client = await authorized(amqp)
    await reader(client, 7)
    for address in (PARTITION.replace("$Default", "second"), PARTITION.removesuffix("1") + "2"):
        await client.link(address, sender=False)


async def test_an_owner_level_that_is_none(client: AmqpClient) -> None:
    for value in (Long(-1), "1", True):
        asked = client.attach(PARTITION, sender=False, properties={EPOCH: value})
        await client.send(asked)
        await client.is_refused(asked, "com.microsoft:argument-error")


async def test_five_readers_without_an_owner_level(client: AmqpClient) -> None:
    links = [await reader(client, None, name) for name in "abcde"]
    told = await refused(client, None, "amqp:resource-limit-exceeded")
    assert "which is 5. List of connected receivers - a, b, c, d, e." in told
    await client.send(Detach(links[0].handle, closed=True))
    await client.receive(Detach)
    await reader(client, None)


async def test_a_hub_that_is_deleted_ends_its_readers(services: Services, amqp: AmqpClients) -> None:
    hub = await services.hubs.ensure("second", "second.example.net", partition_count=2, well_known_key="AAAA" * 11)
    client = amqp.connect()
    await client.open("second.example.net")
    cbs = await client.cbs()
    key = hub.policies["service"].primary_key
    assert await cbs.put("second.example.net", amqp.token("second.example.net", key, "service")) == 200
    link = await client.link(f"{event_hub_name('second')}/ConsumerGroups/$Default/Partitions/0", sender=False)
    await services.hubs.remove("second", None, force=True)
    detach: Any = await client._next(object)
    assert detach.handle == link.handle
    assert detach.error.condition in ("amqp:not-found", "amqp:unauthorized-access")


# The hub's own events


@pytest.mark.parametrize(
    "address, path",
    [
        ("messages/events", f"{ENTITY}/"),
        ("/messages/events/$management", f"{ENTITY}/$management"),
        (f"amqps://{HOST}/messages/events/$management", f"{ENTITY}/$management"),
        (
            f"amqps://{HOST}/Messages/Events/ConsumerGroups/$Default/Partitions/0",
            f"{ENTITY}/ConsumerGroups/$Default/Partitions/0",
        ),
    ],
)
@pytest.mark.parametrize("sender", [False, True])
async def test_the_hub_redirects(amqp: AmqpClients, address: str, path: str, sender: bool) -> None:
    client = await amqp.open()
    cbs = await client.cbs()
    assert await cbs.put(HOST, amqp.policy_token("iothubowner", f"{HOST}/messages/events")) == 200
    asked = client.attach(address, sender=sender)
    await client.send(asked)
    detach = await client.is_refused(asked, "amqp:link:redirect")
    info = {key.text: value for key, value in detach.error.info.items()}
    assert info.pop("com.microsoft:tracking-id")
    assert info == {
        "hostname": HOST,
        "network-host": HOST,
        "port": Int(5671),
        "address": f"amqps://{HOST}:5671/{path}",
    }


async def test_the_hub_redirects_only_who_may_read(amqp: AmqpClients) -> None:
    client = await amqp.open()
    asked = client.attach("messages/events", sender=False)
    await client.send(asked)
    await client.is_refused(asked, "amqp:unauthorized-access")
