"""A device and its hub in both directions over AMQP: messages from the cloud, direct methods, the twin.

Sources: hub-device.md 5 to 7, 9.5, 9.7, 9.8.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
import pytest
from tests.support.fix_amqp import AmqpClient
from tests.support.fix_amqp_devices import Devices, data, devicebound_link, devices_opener, events_link
from tests.support.fix_mqtt import until
from tests.support.fix_services import Services

from muster.domain.c2d_message import LOCK_DURATION
from muster.domain.errors import (
    DeviceConnectionClosedError,
    DeviceNotOnlineError,
    GatewayTimeoutError,
    ServiceError,
    TooManyMethodsError,
)
from muster.domain.method import MethodAnswer, MethodInvocation
from muster.domain.twin import TwinBody
from muster.hub.methods import MAXIMUM_IN_FLIGHT
from muster.wire.amqp_messages import AmqpValue, Data, Message, Properties
from muster.wire.amqp_performatives import (
    MIXED,
    SECOND,
    SETTLED,
    UNSETTLED,
    Accepted,
    Attach,
    Detach,
    Disposition,
    Flow,
    Modified,
    Received,
    Rejected,
    Released,
    State,
    Transfer,
)
from muster.wire.amqp_types import Int, Long, Symbol, Timestamp, Ubyte, Uint, Ulong, Uuid, Value

METHODS = "/devices/d1/methods/devicebound"
TWIN = "/devices/d1/twin"
NOTIFICATIONS = "/notifications/twin/properties/desired"
CORRELATION = Symbol("com.microsoft:channel-correlation-id")


@pytest.fixture
def openers(services: Services) -> Sequence[Any]:
    return (devices_opener(services),)


@pytest.fixture
async def client(devices: Devices) -> AmqpClient:
    """A connection of the device d1."""
    await devices.create()
    return await devices.connect()


async def settle(client: AmqpClient, transfer: Transfer, state: State | None, *, settled: bool = True) -> None:
    await client.send(Disposition(True, transfer.delivery_id or 0, settled=settled, state=state))


async def has_waiting(devices: Devices, count: int) -> None:
    async def is_so() -> bool:
        return await devices.waiting() == count

    await until(is_so)


# Messages from the cloud


async def test_what_a_device_gets(devices: Devices, client: AmqpClient) -> None:
    await devices.send_c2d(
        "hot",
        message_id="m1",
        correlation_id="c1",
        user_id="me",
        content_type="text/plain",
        content_encoding="utf-8",
        ack="full",
        expiry=2_000_000_000_000_000,
        creation_time=1_700_000_000_000_000,
        application={"color": "dark red"},
    )
    await devicebound_link(client)
    transfer, message = await client.receive_message()
    annotations = message.message_annotations
    assert annotations is not None
    token = annotations[Symbol("x-opt-lock-token")]
    assert isinstance(token, str)
    assert transfer.delivery_tag == UUID(token).bytes_le
    assert (transfer.settled, transfer.message_format) == (False, 0)
    assert annotations == {
        Symbol("x-opt-sequence-number"): Ulong(1),
        Symbol("iothub-enqueuedtime"): Timestamp(devices.services.clock.now // 1000),
        Symbol("iothub-deliverycount"): Ubyte(0),
        Symbol("x-opt-lock-token"): token,
    }
    assert message.properties == Properties(
        message_id="m1",
        user_id=b"me",
        to="/devices/d1/messages/devicebound",
        correlation_id="c1",
        content_type="text/plain",
        content_encoding="utf-8",
        absolute_expiry_time=2_000_000_000_000,
        creation_time=1_700_000_000_000,
    )
    assert message.application_properties == {"color": "dark red", "iothub-ack": "full"}
    assert message.body == Data((b"hot",))


@pytest.mark.parametrize(
    ("state", "outcome"),
    [
        (Accepted(), "Success"),
        (Rejected(), "Rejected"),
        (Released(), None),
        (Modified(delivery_failed=True), None),
        (None, None),
    ],
)
async def test_outcomes(devices: Devices, client: AmqpClient, state: State | None, outcome: str | None) -> None:
    await devices.send_c2d(message_id="m1", ack="full")
    link = await devicebound_link(client, credit=1)
    transfer, _ = await client.receive_message()
    await settle(client, transfer, state)
    if outcome is None:  # it comes again, and counts
        await client.grant(link, 2)
        _, message = await client.receive_message()
        assert (message.message_annotations or {})[Symbol("iothub-deliverycount")] == Ubyte(1)
        return
    await has_waiting(devices, 0)
    await devices.services.sweeper.sweep()
    batch = await devices.services.feedback.lock_next("hub")
    assert batch is not None
    assert [record["statusCode"] for record in json.loads(batch.body)] == [outcome]


async def test_a_receiver_that_settles_second_is_answered(devices: Devices, client: AmqpClient) -> None:
    await devices.send_c2d()
    await devicebound_link(client, rcv_settle_mode=SECOND)
    transfer, _ = await client.receive_message()
    await settle(client, transfer, Received(0, 0), settled=False)  # that is no outcome
    await settle(client, transfer, Accepted(), settled=False)
    answer = await client.receive(Disposition)
    assert answer == Disposition(False, transfer.delivery_id or 0, transfer.delivery_id, True, Accepted())
    assert await devices.waiting() == 0


async def test_a_lock_that_lapsed(devices: Devices, client: AmqpClient) -> None:
    await devices.send_c2d()
    await devicebound_link(client, rcv_settle_mode=SECOND)
    transfer, _ = await client.receive_message()
    devices.services.clock.advance(LOCK_DURATION + 1)
    await devices.services.sweeper.sweep()
    again, message = await client.receive_message()  # on the same link
    assert (message.message_annotations or {})[Symbol("iothub-deliverycount")] == Ubyte(1)
    await settle(client, transfer, Accepted(), settled=False)
    answer = await client.receive(Disposition)
    assert isinstance(answer.state, Rejected)
    assert answer.state.error is not None
    assert answer.state.error.condition == "com.microsoft:message-lock-lost"
    await settle(client, again, Accepted())
    await has_waiting(devices, 0)


async def test_credit_is_respected(devices: Devices, client: AmqpClient) -> None:
    for number in range(5):
        await devices.send_c2d(str(number))
    link = await devicebound_link(client, credit=2)
    bodies = [(await client.receive_message())[1].body for _ in range(2)]
    await client.send(Flow(1, 5000, 0, 5000, link.handle, 2, 2, drain=False, echo=True))
    bodies += [(await client.receive_message())[1].body for _ in range(2)] if await is_flow(client) else []
    assert bodies == [Data((str(number).encode(),)) for number in range(4)]
    await client.send(Flow(1, 5000, 0, 5000, link.handle, 4, 10, drain=True))
    _, last = await client.receive_message()
    assert last.body == Data((b"4",))
    drained = await client.receive(Flow)
    assert (drained.handle, drained.delivery_count, drained.link_credit) == (link.handle, 14, 0)


async def is_flow(client: AmqpClient) -> bool:
    return bool(await client.receive(Flow))


async def test_a_message_that_comes_later(devices: Devices, client: AmqpClient) -> None:
    await devicebound_link(client)
    await devices.send_c2d("later")
    _, message = await client.receive_message()
    assert message.body == Data((b"later",))


async def test_what_is_not_settled_waits_for_the_next_link(devices: Devices, client: AmqpClient) -> None:
    await devices.send_c2d("one")
    link = await devicebound_link(client)
    await client.receive_message()
    await client.send(Detach(link.handle, closed=True))
    await client.receive(Detach)
    await devicebound_link(client)
    _, message = await client.receive_message()
    assert message.body == Data((b"one",))
    assert (message.message_annotations or {})[Symbol("iothub-deliverycount")] == Ubyte(0)
    await client.leave()
    await devicebound_link(await devices.connect())


async def test_settled_transfers_complete_by_being_sent(devices: Devices, client: AmqpClient) -> None:
    await devices.send_c2d()
    await devicebound_link(client, snd_settle_mode=SETTLED)
    transfer, _ = await client.receive_message()
    assert transfer.settled
    await has_waiting(devices, 0)


async def test_a_second_receiver_ends_the_first(devices: Devices, client: AmqpClient) -> None:
    older = await devicebound_link(client)
    asked = client.attach("/devices/d1/messages/deviceBound", sender=False)
    await client.send(asked)
    await client.is_detached(older, "amqp:internal-error")
    await client.receive(Attach)
    await client.grant(asked, 1)
    await devices.send_c2d()
    transfer, _ = await client.receive_message()
    assert transfer.handle == asked.handle


async def test_a_message_for_a_module(devices: Devices, client: AmqpClient) -> None:
    await devices.create_module("d1", "m1")
    assert await (await client.cbs()).put("x", devices.amqp.policy_token("device")) == 200
    await client.link("/devices/d1/modules/m1/messages/devicebound", sender=False)
    await devices.send_c2d("for the module", module_id="m1")
    _, message = await client.receive_message()
    assert message.body == Data((b"for the module",))


# Methods


async def method_links(client: AmqpClient, **options: Any) -> tuple[Attach, Attach]:
    """To the hub, and from it."""
    properties = {CORRELATION: "methods:6f0b"}
    responses = await client.link(METHODS, sender=True, properties=properties, **options)
    return responses, await client.link(METHODS, sender=False, properties=properties, **options)


def invoke(devices: Devices, name: str = "reboot", payload: bytes = b'{"delay":5}', connect: int = 0) -> Any:
    invocation = MethodInvocation(name, payload, 30, connect)
    return asyncio.ensure_future(devices.services.methods.invoke("hub", "d1", "", invocation))


def answer_to(question: Message, status: Value, body: bytes = b'{"ok":true}') -> Message:
    assert question.properties is not None
    return Message(
        properties=Properties(correlation_id=question.properties.correlation_id),
        application_properties={"IoThub-status": status},
        body=Data((body,)),
    )


async def test_a_method(devices: Devices, client: AmqpClient) -> None:
    responses, requests = await method_links(client)
    asked = invoke(devices)
    transfer, question = await client.receive_message()
    assert (transfer.handle, transfer.settled) == (requests.handle, True)
    assert len(transfer.delivery_tag or b"") == 16
    assert question.application_properties == {"IoThub-methodname": "reboot"}
    assert question.body == Data((b'{"delay":5}',))
    assert question.properties is not None
    correlation = question.properties.correlation_id
    assert isinstance(correlation, Uuid)
    assert UUID(bytes=correlation.octets).version == 4
    await client.settles(await client.transfer(responses, answer_to(question, Int(200))))
    assert await asked == MethodAnswer(200, b'{"ok":true}')


@pytest.mark.parametrize("status", [Int(-7), Long(-7), "-7"])
@pytest.mark.parametrize("spelling", ["uuid", "text", "octets"])
async def test_spellings_of_an_answer(devices: Devices, client: AmqpClient, status: Value, spelling: str) -> None:
    responses, _ = await method_links(client)
    asked = invoke(devices)
    _, question = await client.receive_message()
    answer = answer_to(question, status, b"")
    assert answer.properties is not None
    correlation = answer.properties.correlation_id
    assert isinstance(correlation, Uuid)
    other: dict[str, Value] = {"text": str(UUID(bytes=correlation.octets)), "octets": correlation.octets}
    answer.properties.correlation_id = other.get(spelling, correlation)
    answer.body = None
    await client.transfer(responses, answer, settled=True)
    assert await asked == MethodAnswer(-7, b"null")


async def test_answers_that_are_none(devices: Devices, client: AmqpClient) -> None:
    responses, _ = await method_links(client)
    asked = invoke(devices)
    _, question = await client.receive_message()
    for bad in (
        Message(body=Data((b"x",))),
        answer_to(question, None),
        answer_to(question, "ok"),
        answer_to(question, Ulong(1 << 40)),
        b"nothing",
    ):
        await client.settles(await client.transfer(responses, bad), Rejected)
    stranger = Message(
        properties=Properties(correlation_id=Uuid(bytes(16))), application_properties={"IoThub-status": Int(200)}
    )
    await client.settles(await client.transfer(responses, stranger))  # nobody asks, or not any more
    await client.settles(await client.transfer(responses, answer_to(question, Uint(201))))
    assert (await asked).status == 201


async def test_several_methods_answered_in_any_order(devices: Devices, client: AmqpClient) -> None:
    responses, _ = await method_links(client)
    asked = [invoke(devices, f"m{number}") for number in range(10)]
    questions = {}
    for _ in asked:
        _, question = await client.receive_message()
        questions[(question.application_properties or {})["IoThub-methodname"]] = question
    for number in reversed(range(10)):
        await client.transfer(responses, answer_to(questions[f"m{number}"], Int(number)), settled=True)
    assert [answer.status for answer in await asyncio.gather(*asked)] == list(range(10))


async def test_only_both_links_listen(devices: Devices, client: AmqpClient) -> None:
    async def refuses() -> None:
        with pytest.raises(DeviceNotOnlineError):
            await invoke(devices)

    await refuses()
    responses = await client.link(METHODS, sender=True)
    await refuses()
    await client.link(METHODS, sender=False)
    asked = invoke(devices)
    await client.receive_message()
    await client.send(Detach(responses.handle, closed=True))
    await client.receive(Detach)
    with pytest.raises(DeviceConnectionClosedError):
        await asked
    await refuses()


async def test_a_caller_that_waits_for_the_device(devices: Devices, client: AmqpClient) -> None:
    asked = invoke(devices, connect=30)
    responses, _ = await method_links(client)
    _, question = await client.receive_message()
    await client.transfer(responses, answer_to(question, Int(200)))
    assert (await asked).status == 200


async def test_the_connection_ends_before_the_answer(devices: Devices, client: AmqpClient) -> None:
    await method_links(client)
    asked = invoke(devices)
    await client.receive_message()
    await client.leave()
    with pytest.raises(DeviceConnectionClosedError):
        await asked


async def test_silence(devices: Devices, client: AmqpClient) -> None:
    await method_links(client)
    invocation = MethodInvocation("reboot", b"null", 0, 0)
    with pytest.raises(GatewayTimeoutError):
        await devices.services.methods.invoke("hub", "d1", "", invocation)


async def test_too_many_questions(devices: Devices, client: AmqpClient) -> None:
    await method_links(client)
    asked = [invoke(devices) for _ in range(MAXIMUM_IN_FLIGHT)]
    for _ in asked:
        await client.receive_message()
    with pytest.raises(TooManyMethodsError):
        await invoke(devices)
    await client.leave()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(result, ServiceError) for result in results)


async def test_questions_wait_for_credit(devices: Devices, client: AmqpClient) -> None:
    responses = await client.link(METHODS, sender=True)
    requests = await client.link(METHODS, sender=False, credit=0)
    asked = invoke(devices)
    await events_link(client)  # something else goes on
    await client.grant(requests, 1)
    _, question = await client.receive_message()
    await client.transfer(responses, answer_to(question, Int(200)))
    assert (await asked).status == 200


# The twin


class Twin:
    """A pair of links, and what a device says on it."""

    def __init__(self, client: AmqpClient, requests: Attach, responses: Attach) -> None:
        self.client = client
        self.requests = requests
        self.responses = responses

    async def ask(
        self,
        operation: str,
        resource: Value = None,
        body: Data | AmqpValue | None = None,
        correlation: Value = "Get1",
        settled: bool = True,
        **annotations: Value,
    ) -> Message:
        """The answer."""
        keys: dict[Value, Value] = {Symbol("operation"): operation, Symbol("resource"): resource}
        keys |= {Symbol(name): value for name, value in annotations.items()}
        message = Message(message_annotations=keys, properties=Properties(correlation_id=correlation), body=body)
        delivery_id = await self.client.transfer(self.requests, message, settled=settled)
        if not settled:
            await self.client.settles(delivery_id)
        answer = await self.hear()
        assert answer.properties == Properties(correlation_id=correlation)
        return answer

    async def hear(self) -> Message:
        transfer, message = await self.client.receive_message()
        assert (transfer.handle, transfer.settled) == (self.responses.handle, True)
        assert len(transfer.delivery_tag or b"") == 16
        return message


async def twin_links(client: AmqpClient, correlation: str = "twin:6f0b", **options: Any) -> Twin:
    properties = {CORRELATION: correlation}
    options = {"snd_settle_mode": SETTLED, "properties": properties, **options}
    return Twin(
        client,
        await client.link(TWIN, sender=True, **options),
        await client.link(TWIN, sender=False, **options),
    )


async def desire(devices: Devices, **desired: object) -> None:
    body = msgspec.convert({"properties": {"desired": desired}}, TwinBody)
    await devices.services.twins.patch("hub", "d1", "", body, None)


@pytest.mark.parametrize("body", [None, Data((b" ",)), Data((b"",)), AmqpValue(None)])
@pytest.mark.parametrize("correlation", ["Get9c", Uuid(bytes(range(16))), Ulong(7)])
async def test_get(devices: Devices, client: AmqpClient, body: Any, correlation: Value) -> None:
    await desire(devices, interval=30)
    twin = await twin_links(client)
    answer = await twin.ask("GET", None, body, correlation)
    assert answer.message_annotations == {Symbol("status"): Int(200)}
    assert isinstance(answer.body, Data)
    assert json.loads(answer.body.joined()) == {
        "desired": {"interval": 30, "$version": 2},
        "reported": {"$version": 1},
    }


async def test_patch(devices: Devices, client: AmqpClient) -> None:
    twin = await twin_links(client, snd_settle_mode=MIXED)
    answer = await twin.ask("PATCH", "/properties/reported", Data((b'{"fw":"1"}',)), "p1", settled=False)
    assert answer.message_annotations == {Symbol("status"): Int(200), Symbol("version"): Long(2)}
    assert answer.body == Data((b"",))
    answer = await twin.ask(
        "PATCH", "/properties/reported", Data((b'{"fw":"2"}',)), "p2", version=Long(2), settled=False
    )
    assert (answer.message_annotations or {})[Symbol("version")] == Long(3)
    answer = await twin.ask(
        "PATCH", "/properties/reported", Data((b'{"fw":"3"}',)), "p3", version=Long(2), settled=False
    )
    assert answer.message_annotations == {Symbol("status"): Int(412)}
    assert (await devices.services.twin("d1"))["properties"]["reported"]["fw"] == "2"


@pytest.mark.parametrize(
    ("operation", "resource", "body", "status"),
    [
        ("PATCH", "/properties/reported", Data((b'{"a.b":1}',)), 400),
        ("PATCH", "/properties/reported", Data((b"{",)), 400),
        ("PATCH", "/properties/reported", None, 400),
        ("PATCH", "/properties/desired", Data((b"{}",)), 400),
        ("PUT", "/properties/reported", None, 400),
        ("POST", None, None, 400),
    ],
)
async def test_errors(client: AmqpClient, operation: str, resource: Value, body: Any, status: int) -> None:
    twin = await twin_links(client)
    answer = await twin.ask(operation, resource, body)
    assert answer.message_annotations == {Symbol("status"): Int(status)}
    assert isinstance(answer.body, Data)
    error = json.loads(answer.body.joined())
    assert error.keys() == {"errorCode", "trackingId", "message", "timestampUtc"}
    assert error["errorCode"] // 1000 == status


async def test_desired_properties(devices: Devices, client: AmqpClient) -> None:
    twin = await twin_links(client)
    await desire(devices, early=1)  # nobody has asked
    for _ in range(2):  # twice is fine
        answer = await twin.ask("PUT", NOTIFICATIONS)
        assert answer.message_annotations == {Symbol("status"): Int(200)}
    await desire(devices, interval=60, early=None)
    notice = await twin.hear()
    assert notice.properties is None
    assert notice.message_annotations == {
        Symbol("resource"): "/properties/desired",
        Symbol("version"): Long(3),
    }
    assert isinstance(notice.body, Data)
    assert json.loads(notice.body.joined()) == {"interval": 60, "early": None, "$version": 3}
    await twin.ask("DELETE", NOTIFICATIONS)
    await desire(devices, interval=61)
    answer = await twin.ask("GET")  # and nothing before it
    assert b'"interval":61' in answer.body.joined() if isinstance(answer.body, Data) else False


async def test_nothing_is_heard_after_the_links_went(devices: Devices, client: AmqpClient) -> None:
    twin = await twin_links(client)
    await twin.ask("PUT", NOTIFICATIONS)
    await client.send(Detach(twin.requests.handle, closed=True))
    await client.receive(Detach)
    await desire(devices, interval=1)
    again = await twin_links(client, "twin:other")
    answer = await again.ask("GET")
    assert (answer.message_annotations or {})[Symbol("status")] == Int(200)


async def test_two_pairs_are_told_apart(devices: Devices, client: AmqpClient) -> None:
    one, two = await twin_links(client, "twin:1"), await twin_links(client, "twin:2")
    await one.ask("GET")
    await two.ask("GET")
    await one.ask("PUT", NOTIFICATIONS)
    await desire(devices, interval=1)
    await one.hear()
    await two.ask("GET")


async def test_a_pair_without_a_correlation_id(client: AmqpClient) -> None:
    requests = await client.link(TWIN, sender=True)
    responses = await client.link(TWIN, sender=False)
    await Twin(client, requests, responses).ask("GET")


async def test_requests_are_answered_in_their_order(client: AmqpClient) -> None:
    twin = await twin_links(client)
    await client.grant(twin.responses, 1000)
    message = {Symbol("operation"): "PATCH", Symbol("resource"): "/properties/reported"}
    for number in range(150):
        patch = data(
            b'{"n":%d}' % number, message_annotations=message, properties=Properties(correlation_id=str(number))
        )
        await client.transfer(twin.requests, patch, settled=True)
        if number % 50 == 49:  # as many as there is credit for, and then more
            for expected in range(number - 49, number + 1):
                answer = await next_message(client)
                assert answer.properties == Properties(correlation_id=str(expected))
                assert (answer.message_annotations or {})[Symbol("version")] == Long(expected + 2)


async def next_message(client: AmqpClient) -> Message:
    while True:
        await client._until(client._take_output)
        if not isinstance(client.inbox[0], Flow):
            return (await client.receive_message())[1]
        client.inbox.pop(0)


async def test_a_device_that_wants_to_settle_answers(client: AmqpClient) -> None:
    twin = await twin_links(client, snd_settle_mode=UNSETTLED)
    annotations = {Symbol("operation"): "GET"}
    message = data(b" ", message_annotations=annotations, properties=Properties(correlation_id="1"))
    await client.settles(await client.transfer(twin.requests, message))
    transfer, _ = await client.receive_message()
    assert not transfer.settled
    await settle(client, transfer, Accepted(), settled=False)
    assert (await client.receive(Disposition)).settled


async def test_a_request_that_cannot_be_read_is_rejected(client: AmqpClient) -> None:
    twin = await twin_links(client, snd_settle_mode=UNSETTLED)
    await client.settles(await client.transfer(twin.requests, b"nothing"), Rejected)


async def test_a_patch_right_before_the_end_is_kept(devices: Devices, client: AmqpClient) -> None:
    twin = await twin_links(client)
    annotations = {Symbol("operation"): "PATCH", Symbol("resource"): "/properties/reported"}
    await client.transfer(twin.requests, data(b'{"last":true}', message_annotations=annotations), settled=True)
    await client.leave()

    async def is_kept() -> bool:
        return "last" in (await devices.services.twin("d1"))["properties"]["reported"]

    await until(is_kept)


async def test_the_twin_of_a_deleted_device(devices: Devices, client: AmqpClient) -> None:
    twin = await twin_links(client)
    await devices.services.devices.delete("hub", "d1", "*")
    await client.is_detached(twin.requests, "amqp:unauthorized-access")
