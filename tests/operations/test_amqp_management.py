"""The ``$management`` node of an event hub: what is read, how it is typed, and who is told what."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.fix_amqp import AmqpClient, AmqpClients, Cbs
from tests.support.fix_services import KEY, NOW, Services

from muster.domain.event_hub import event_hub_name
from muster.frontends.amqp.events import EventEndpoint
from muster.frontends.amqp.links import Opener
from muster.frontends.event_messages import NEVER
from muster.hub.event_batches import Head, Messages
from muster.wire.amqp_messages import AmqpValue, Message, Properties
from muster.wire.amqp_types import Array, Int, Long, Symbol, Timestamp, Ulong, Uuid, Value

HOST = "hub.example.net"
ENTITY = event_hub_name("hub")
HEAD: Head = ("Telemetry", "dev-1", "", "638", "{}", "", "{}", "{}")
HUB_TYPE = "com.microsoft:eventhub"
PARTITION_TYPE = "com.microsoft:partition"


@pytest.fixture
def openers(services: Services) -> Sequence[Opener]:
    return (EventEndpoint(services.hubs, services.partition_readers).open,)


async def management(client: AmqpClient, address: str = "$management") -> Cbs:
    """A pair of links, which work as those of ``$cbs`` do."""
    return Cbs(client, await client.link(address, sender=False), await client.link(address, sender=True))


@pytest.fixture
async def node(amqp: AmqpClients) -> Cbs:
    client = await amqp.open()
    cbs = await client.cbs()
    assert await cbs.put(HOST, amqp.policy_token()) == 200
    return await management(client)


def read(kind: str = HUB_TYPE, message_id: Value = None, **more: Value) -> Message:
    properties: dict[Value, Value] = {"operation": "READ", "type": kind, "name": ENTITY, **more}
    return Message(
        properties=Properties(message_id=message_id, reply_to="me"),
        application_properties={name: value for name, value in properties.items() if value is not None},
        body=AmqpValue(None),
    )


def content(reply: Message) -> dict[Any, Any]:
    assert isinstance(reply.body, AmqpValue)
    assert isinstance(reply.body.value, dict)
    return reply.body.value


async def test_the_event_hub(node: Cbs) -> None:
    status, reply = await node.request(read(message_id=Ulong(7)))
    assert (status, reply.properties.correlation_id) == (200, Ulong(7))
    assert reply.application_properties == {"status-code": Int(200), "status-description": "OK"}
    assert content(reply) == {
        "name": ENTITY,
        "type": HUB_TYPE,
        "created_at": Timestamp(NOW // 1000),
        "partition_count": Int(4),
        "partition_ids": Array(0xA1, ["0", "1", "2", "3"]),
        "georeplication_factor": Int(1),
    }


async def test_a_partition(node: Cbs, services: Services) -> None:
    empty = {
        "name": ENTITY,
        "type": PARTITION_TYPE,
        "partition": "2",
        "begin_sequence_number": Long(0),
        "last_enqueued_sequence_number": Long(-1),
        "last_enqueued_offset": "-1",
        "last_enqueued_time_utc": Timestamp(NEVER),
        "is_partition_empty": True,
    }
    request = read(PARTITION_TYPE, Uuid(bytes(16)), partition="2")
    status, reply = await node.request(request)
    assert (status, reply.properties.correlation_id, content(reply)) == (200, Uuid(bytes(16)), empty)
    await services.events.store("hub", 2, Messages.of((HEAD, [b"one", b"two"])))
    filled = {
        **empty,
        "last_enqueued_sequence_number": Long(1),
        "last_enqueued_offset": "4",
        "last_enqueued_time_utc": Timestamp(NOW // 1000),
        "is_partition_empty": False,
    }
    assert content((await node.request(request))[1]) == filled
    await services.database.transact(lose_all)
    gone = {
        **empty,
        "begin_sequence_number": Long(2),
        "last_enqueued_sequence_number": Long(1),
        "last_enqueued_offset": "7",
    }
    assert content((await node.request(request))[1]) == gone


async def lose_all(tx: Any) -> None:
    await tx.execute("DELETE FROM event_batch")


@pytest.mark.parametrize(
    "changes",
    [
        {"operation": "read"},
        {"type": "COM.MICROSOFT:EventHub"},
        {"name": ENTITY.upper()},
        {"name": Symbol(ENTITY)},
    ],
)
async def test_spellings(node: Cbs, changes: dict[str, Value]) -> None:
    message = read()
    message.application_properties.update(changes)
    assert (await node.request(message))[0] == 200


async def test_the_node_below_an_event_hub_needs_no_name(amqp: AmqpClients) -> None:
    client = await amqp.open()
    cbs = await client.cbs()
    audience = f"sb://{HOST}/{ENTITY}/$management"
    assert await cbs.put(audience, amqp.policy_token(audience=audience)) == 200
    node = await management(client, f"{ENTITY}/$management")
    assert (await node.request(read(name=None)))[0] == 200


@pytest.mark.parametrize(
    "changes, status, condition, words",
    [
        ({"operation": "DELETE"}, 405, "amqp:not-allowed", "'DELETE' is not READ"),
        ({"operation": None}, 405, "amqp:not-allowed", "is not READ"),
        ({"type": "com.microsoft:queue"}, 400, "com.microsoft:argument-error", "com.microsoft:queue"),
        ({"type": None}, 400, "com.microsoft:argument-error", "neither"),
        ({"name": "other"}, 404, "amqp:not-found", "'sb://hub.example.net/other' could not be found"),
        ({"name": None}, 404, "amqp:not-found", "could not be found"),
        ({"type": PARTITION_TYPE, "partition": "4"}, 400, "com.microsoft:argument-out-of-range", "'4'"),
        ({"type": PARTITION_TYPE}, 400, "com.microsoft:argument-out-of-range", "''"),
    ],
)
async def test_what_is_refused(node: Cbs, changes: dict[str, Value], status: int, condition: str, words: str) -> None:
    told, reply = await node.request(changed(changes))
    outcome = reply.application_properties
    assert (told, outcome["error-condition"]) == (status, Symbol(condition))
    assert words in outcome["status-description"]
    assert "TrackingId:" in outcome["status-description"]
    assert (await node.request(read()))[0] == 200, "the node goes on"


def changed(changes: dict[str, Value]) -> Message:
    message = read()
    for name, value in changes.items():
        if value is None:
            del message.application_properties[name]
        else:
            message.application_properties[name] = value
    return message


async def test_who_proved_nothing_reads_nothing(amqp: AmqpClients, services: Services) -> None:
    node = await management(await amqp.open())
    status, reply = await node.request(read())
    assert (status, reply.application_properties["error-condition"]) == (401, Symbol("amqp:unauthorized-access"))
    (report,) = await services.reports.latest(10)
    assert report.tracking_id in reply.application_properties["status-description"]


async def test_a_request_may_bring_its_own_token(amqp: AmqpClients) -> None:
    node = await management(await amqp.open())
    wrong = amqp.token(f"sb://{HOST}/{ENTITY}", KEY[::-1].replace("=", "A") + "=", "service")
    assert (await node.request(read(security_token=wrong)))[0] == 401
    assert (await node.request(read(security_token=amqp.policy_token())))[0] == 200


async def test_requests_wait_for_the_credit_of_replies(amqp: AmqpClients) -> None:
    client = await amqp.open()
    cbs = await client.cbs()
    assert await cbs.put(HOST, amqp.policy_token()) == 200
    replies = await client.link("$management", sender=False, credit=0)
    requests = await client.link("$management", sender=True)
    delivery = await client.transfer(requests, read())
    await client.settles(delivery)
    await client.grant(replies, 1)
    _, reply = await client.receive_message()
    assert reply.application_properties["status-code"] == Int(200)
