"""Devices and modules over AMQP: whose links they are, telemetry, connection state, takeover (hub-device.md 3.4, 9)."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.fix_amqp import HUB_HOST, AmqpClients
from tests.support.fix_amqp_devices import MODULE_KEY, Devices, data, devicebound_link, devices_opener, events_link
from tests.support.fix_mqtt import MqttClients, until
from tests.support.fix_services import KEY, Services

from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_frames import Frame
from muster.wire.amqp_messages import AmqpSequence, AmqpValue, Data, Message, Properties
from muster.wire.amqp_performatives import (
    Accepted,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Flow,
    Rejected,
    Transfer,
)
from muster.wire.amqp_types import Double, Int, Symbol, Timestamp, Ubyte, Ulong, Uuid

BATCH = 0x8001_3700
TWIN = "/devices/d1/twin"


@pytest.fixture
def openers(services: Services) -> Sequence[Any]:
    return (devices_opener(services),)


@pytest.fixture(autouse=True)
async def d1(devices: Devices) -> None:
    await devices.create()


# Addresses


@pytest.mark.parametrize(
    "address",
    [
        "/devices/d1/messages/events",
        "devices/d1/messages/events",
        "/devices/d1/messages/Events/",
        f"amqps://{HUB_HOST}/devices/d1/messages/events",
        f"amqps://{HUB_HOST}:5671/devices/d%31/messages/events",
    ],
)
async def test_spellings_of_an_address(devices: Devices, address: str) -> None:
    client = await devices.connect()
    link = await client.link(address, sender=True)
    await client.settles(await client.transfer(link, data()))
    assert [event.origin.device_id for event in await devices.stored()] == ["d1"]


@pytest.mark.parametrize("device_id", ["a#b", "a?b", "a%b", "a$b", "(a)'!*,:=@"])
async def test_ids_that_a_client_does_not_encode(devices: Devices, device_id: str) -> None:
    await devices.create(device_id)
    client = await devices.connect(device_id)
    link = await events_link(client, device_id)
    await client.settles(await client.transfer(link, data()))
    assert [event.origin.device_id for event in await devices.stored()] == [device_id]


@pytest.mark.parametrize(
    ("address", "sender"),
    [
        ("/devices/d1/messages/events", False),
        ("/devices/d1/messages/devicebound", True),
        ("/devices/d1/messages/other", True),
        ("/devices/d1/modules/m1", True),
        ("/devices/d1/messages/events/more", True),
        ("/devices/d1", True),
    ],
)
async def test_what_is_no_link_of_a_device(devices: Devices, address: str, sender: bool) -> None:
    client = await devices.connect()
    asked = client.attach(address, sender=sender)
    await client.send(asked)
    detach = await client.is_refused(asked, "amqp:not-found")
    assert detach.error is not None
    assert '"errorCode":404006' in (detach.error.description or "")


async def test_a_device_without_a_proof_is_refused(devices: Devices) -> None:
    await devices.create("d2")
    client = await devices.connect("d1")
    asked = client.attach("/devices/d2/messages/events", sender=True)
    await client.send(asked)
    await client.is_refused(asked, "amqp:unauthorized-access")
    await events_link(client)  # and the connection goes on


async def test_a_policy_token_proves_all_devices(devices: Devices, amqp: AmqpClients) -> None:
    await devices.create("d2")
    client = await amqp.open()
    assert await (await client.cbs()).put(HUB_HOST, amqp.policy_token("device")) == 200
    for device_id in ("d1", "d2"):
        link = await events_link(client, device_id)
        await client.settles(await client.transfer(link, data()))
    methods = {event.origin.device_id: event.origin.authentication_method for event in await devices.stored()}
    assert methods.keys() == {"d1", "d2"}
    assert all('"scope":"hub"' in method for method in methods.values())


# Telemetry


async def test_properties(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client, properties={Symbol("com.microsoft:model-id"): "dtmi:x:y;1"})
    properties = Properties(
        message_id="m1",
        correlation_id=Uuid(bytes(range(16))),
        user_id=b"me",
        to="/devices/d1/messages/events",
        content_type="application/json",
        content_encoding="utf-8",
        absolute_expiry_time=1_800_000_000_000,
        creation_time=1_700_000_000_123,
    )
    application = {
        "text": "a",
        "whole": Int(-5),
        "part": Double(2.5),
        "truth": True,
        "nothing": None,
        "when": Timestamp(1_700_000_000_000),
        "octets": b"ab",
        "name": Symbol("s"),
        "iothub-outputname": "alerts",
        "iothub-message-schema": "s1",
        "iothub-connection-device-id": "somebody else",
    }
    annotations = {Symbol("dt-subject"): "part", Symbol("iothub-interface-id"): "i", Symbol("x-opt-other"): Ubyte(1)}
    message = data(
        b'{"t":1}', properties=properties, application_properties=application, message_annotations=annotations
    )
    await client.settles(await client.transfer(link, message))
    (event,) = await devices.stored()
    assert event.body == b'{"t":1}'
    assert event.origin.model_id == "dtmi:x:y;1"
    assert event.system_properties == {
        "message-id": "m1",
        "correlation-id": "00010203-0405-0607-0809-0a0b0c0d0e0f",
        "user-id": "me",
        "to": "/devices/d1/messages/events",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "absolute-expiry-time": "2027-01-15T08:00:00.0000000Z",
        "iothub-creation-time-utc": "2023-11-14T22:13:20.1230000Z",
        "dt-subject": "part",
        "iothub-interface-id": "i",
        "iothub-outputname": "alerts",
        "iothub-message-schema": "s1",
    }
    assert event.application_properties == {
        "text": "a",
        "whole": "-5",
        "part": "2.5",
        "truth": "true",
        "nothing": "",
        "when": "2023-11-14T22:13:20.0000000Z",
        "octets": "ab",
        "name": "s",
    }


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        (None, b""),
        (Data((b"",)), b""),
        (Data((b"a", b"b")), b"ab"),
        (AmqpValue("ä"), "ä".encode()),
        (AmqpValue(b"a"), b"a"),
        (AmqpValue(None), b""),
    ],
)
async def test_bodies(devices: Devices, body: Any, stored: bytes) -> None:
    client = await devices.connect()
    link = await events_link(client)
    await client.settles(await client.transfer(link, Message(properties=Properties(message_id="m"), body=body)))
    assert [event.body for event in await devices.stored()] == [stored]


@pytest.mark.parametrize(
    ("payload", "condition"),
    [
        (encode_message(Message(body=AmqpSequence(([Int(1)],)))), "com.microsoft:argument-error"),
        (encode_message(Message(body=AmqpValue(Ulong(1)))), "com.microsoft:argument-error"),
        (b"\x00\x53\x75\xa0\xff", "com.microsoft:argument-error"),
        (b"hello", "com.microsoft:argument-error"),
        (encode_message(data(bytes(262_145))), "amqp:link:message-size-exceeded"),
        (
            encode_message(data(bytes(262_140), application_properties={"abc": "de"})),
            "amqp:link:message-size-exceeded",
        ),
    ],
)
async def test_a_message_that_cannot_be_taken_is_rejected_alone(
    devices: Devices, payload: bytes, condition: str
) -> None:
    client = await devices.connect()
    link = await events_link(client)
    refused = await send_in_frames(client, link, 0, payload)
    state = (await client.settles(refused, Rejected)).state
    assert isinstance(state, Rejected)
    assert state.error is not None
    assert state.error.condition == condition
    await client.send(Frame(0, Transfer(link.handle, 1, b"1", 0, False), encode_message(data())))
    await client.settles(1)
    assert [event.body for event in await devices.stored()] == [b"x"]


async def send_in_frames(client: Any, link: Attach, delivery_id: int, payload: bytes) -> int:
    pieces = [payload[at : at + 60_000] for at in range(0, len(payload), 60_000)]
    for index, piece in enumerate(pieces):
        more = index < len(pieces) - 1
        await client.send(Frame(0, Transfer(link.handle, delivery_id, b"t", 0, False, more), piece))
    return delivery_id


async def test_the_largest_message_is_taken(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client)
    await client.settles(await send_in_frames(client, link, 0, encode_message(data(bytes(262_144)))))
    assert [len(event.body) for event in await devices.stored()] == [262_144]


async def test_above_a_mebibyte_the_link_is_broken(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client)
    other = await events_link(client)
    await send_in_frames(client, link, 0, bytes(1_048_577))
    await client.is_detached(link, "amqp:link:message-size-exceeded")
    await client.settles(await client.transfer(other, data()))


async def test_what_one_read_brings_is_accepted_as_one_range(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client)
    message = encode_message(data())
    frames = [Frame(0, Transfer(link.handle, number, b"%d" % number, 0, False), message) for number in range(50)]
    await client.send(*frames)
    assert await client.receive(Disposition) == Disposition(True, 0, 49, settled=True, state=Accepted())
    assert len(await devices.stored()) == 50


async def test_messages_in_their_order_whatever_their_properties(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client)
    frames = []
    for number in range(20):
        message = data(b"%d" % number, application_properties={"n": str(number % 3)})
        frames.append(Frame(0, Transfer(link.handle, number, b"t", 0, False), encode_message(message)))
    await client.send(*frames)
    await client.receive(Disposition)
    events = await devices.stored()
    assert [event.body for event in events] == [b"%d" % number for number in range(20)]
    assert [event.application_properties["n"] for event in events] == [str(number % 3) for number in range(20)]


async def test_settled_transfers_are_kept_without_an_answer(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client)
    await client.transfer(link, data(b"quiet"), settled=True)
    await client.settles(await client.transfer(link, data(b"loud")))
    assert [event.body for event in await devices.stored()] == [b"quiet", b"loud"]


async def test_a_batch(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client)
    sections = tuple(encode_message(data(b"%d" % n, application_properties={"n": Int(n)})) for n in range(3))
    await client.settles(await client.transfer(link, Message(body=Data(sections)), format=BATCH))
    events = await devices.stored()
    assert [(event.body, event.application_properties) for event in events] == [
        (b"0", {"n": "0"}),
        (b"1", {"n": "1"}),
        (b"2", {"n": "2"}),
    ]


async def test_a_batch_with_a_bad_message_is_rejected_whole(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client)
    batch = Message(body=Data((encode_message(data(b"good")), b"bad")))
    await client.settles(await client.transfer(link, batch, format=BATCH), Rejected)
    await client.settles(await client.transfer(link, Message(body=AmqpValue("x")), format=BATCH), Rejected)
    await client.settles(await client.transfer(link, Message(), format=BATCH), Rejected)
    assert await devices.stored() == []


async def test_credit_is_granted_again(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client)
    message = encode_message(data())
    for start in range(0, 2000, 50):
        numbers = range(start, start + 50)
        await client.send(*[Frame(0, Transfer(link.handle, n, b"t", 0, False), message) for n in numbers])
        while not isinstance(await client._next(object), Disposition):
            pass
    assert len(await devices.stored()) == 1000  # what one read of the log gives
    assert (await devices.services.events.positions("hub"))[1].next_sequence_numbers.count(2000) == 1


async def test_what_cannot_be_stored_is_rejected(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client)

    async def drop(tx: Any) -> None:
        await tx.execute("UPDATE event_partition SET partition = partition + 100")

    await devices.services.events._database.transact(drop)
    state = (await client.settles(await client.transfer(link, data()), Rejected)).state
    assert isinstance(state, Rejected)
    assert state.error is not None
    assert state.error.condition == "amqp:internal-error"


# Connection state and takeover


async def test_a_device_is_connected_while_it_has_a_link(devices: Devices) -> None:
    client = await devices.connect()
    assert not await devices.is_connected()
    first, second = await events_link(client), await devicebound_link(client)
    assert await devices.is_connected()
    await client.send(Detach(first.handle, closed=True))
    await client.receive(Detach)
    assert await devices.is_connected()
    await client.send(Detach(second.handle, closed=True))
    await client.receive(Detach)
    await gone(devices, "d1")


async def gone(devices: Devices, device_id: str) -> None:
    """The registry follows in a moment."""

    async def is_gone() -> bool:
        return not await devices.is_connected(device_id)

    await until(is_gone)


async def test_the_end_of_the_connection_ends_all(devices: Devices) -> None:
    await devices.create("d2")
    client = await devices.connect("d1", "d2")
    await events_link(client, "d1")
    await events_link(client, "d2")
    assert devices.services.sessions.count == 2
    await client.leave()
    assert devices.services.sessions.count == 0
    await gone(devices, "d1")
    await gone(devices, "d2")


async def test_the_newest_connection_wins(devices: Devices) -> None:
    await devices.create("d2")
    older = await devices.connect("d1", "d2")
    link, twin = await events_link(older), await older.link(TWIN, sender=True)
    other = await events_link(older, "d2")
    newer = await devices.connect()
    await events_link(newer)
    for ended in (link, twin):
        detach = await older.is_detached(ended, "amqp:internal-error")
        assert detach.error is not None
        assert '"errorCode":409002' in (detach.error.description or "")
    await older.settles(await older.transfer(other, data()))  # the other device on it stays
    assert await devices.is_connected()
    await events_link(older)  # it may come back, and then the other one goes
    await newer.receive(Detach)


async def test_takeover_by_mqtt_and_of_mqtt(devices: Devices, mqtt: MqttClients) -> None:
    client = await devices.connect()
    link = await events_link(client)
    packet = await mqtt.to_hub("d1", key=KEY)
    await client.is_detached(link, "amqp:internal-error")
    await events_link(client)
    await packet.is_closed()


async def test_a_link_may_be_attached_again(devices: Devices) -> None:
    client = await devices.connect()
    link = await events_link(client)
    await client.send(Detach(link.handle, closed=True))
    await client.receive(Detach)
    again = await events_link(client)
    await client.settles(await client.transfer(again, data()))


async def test_deleting_a_device_ends_its_links_only(devices: Devices) -> None:
    await devices.create("d2")
    client = await devices.connect("d1", "d2")
    link, other = await events_link(client, "d1"), await events_link(client, "d2")
    await devices.services.devices.delete("hub", "d1", "*")
    await client.is_detached(link, "amqp:unauthorized-access")
    await client.settles(await client.transfer(other, data()))


async def test_disabling_a_device_ends_its_links_and_those_of_its_modules(devices: Devices) -> None:
    await devices.create_module("d1", "m1")
    client = await devices.connect()
    cbs = await client.cbs()
    assert await cbs.put("x", client.token(f"{HUB_HOST}/devices/d1/modules/m1", MODULE_KEY)) == 200
    device = await events_link(client)
    module = await client.link("/devices/d1/modules/m1/messages/events", sender=True)
    await devices.update(status="disabled")
    ended = {(await client.receive(Detach)).handle, (await client.receive(Detach)).handle}
    assert ended == {device.handle, module.handle}
    asked = client.attach("/devices/d1/messages/events", sender=True)
    await client.send(asked)
    await client.is_refused(asked, "amqp:unauthorized-access")


async def test_a_module(devices: Devices) -> None:
    await devices.create_module("d1", "m1")
    client = await devices.amqp.open()
    cbs = await client.cbs()
    assert await cbs.put("x", client.token(f"{HUB_HOST}/devices/d1/modules/m1", MODULE_KEY)) == 200
    link = await client.link("/devices/d1/modules/m1/messages/events", sender=True)
    inputs = await client.link("/devices/d1/modules/m1/messages/events", sender=False)
    await client.settles(await client.transfer(link, data()))
    (event,) = await devices.stored()
    assert (event.origin.device_id, event.origin.module_id) == ("d1", "m1")
    await client.grant(inputs, 5, drain=True)
    flow = await client.receive(Flow)
    assert (flow.handle, flow.link_credit) == (inputs.handle, 0)
    asked = client.attach("/devices/d1/messages/events", sender=True)
    await client.send(asked)
    await client.is_refused(asked, "amqp:unauthorized-access")  # the module's token is not the device's


async def test_the_end_of_a_session_ends_its_links_only(devices: Devices) -> None:
    await devices.create("d2")
    client = await devices.connect("d1", "d2")
    await events_link(client, "d1")
    await client.send(Begin(None, 0, 5000, 5000), channel=1)
    await client.receive(Begin)
    asked = client.attach("/devices/d2/messages/events", sender=True)
    await client.send(asked, channel=1)
    await client.receive(Attach)
    await client.receive(Flow)
    assert devices.services.sessions.count == 2
    await client.send(End(), channel=1)
    await client.receive(End)
    assert devices.services.sessions.count == 1
    await client.send(Close())
    await client.receive(Close)
    assert devices.services.sessions.count == 0
