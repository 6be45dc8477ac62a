"""A device and its hub in both directions over MQTT: sessions, twin, methods, messages from the cloud, wills.

Sources: hub-device.md 3.5 to 3.10, 5 to 7; hub-service.md 5.
"""

import asyncio
import json
from typing import Any

import pytest
from tests.support.fix_mqtt import MqttClient, MqttClients, until
from tests.support.fix_rest import RestClient
from tests.support.fix_services import KEY, Services, build_services

from muster.domain.c2d_message import C2dMessage, C2dProperties
from muster.domain.device import AuthenticationBody, IdentityBody, SymmetricKeyBody
from muster.domain.errors import (
    BadDeviceResponseError,
    DeviceConnectionClosedError,
    DeviceNotFoundError,
    DeviceNotOnlineError,
    GatewayTimeoutError,
    TooManyMethodsError,
)
from muster.domain.message import Event
from muster.domain.method import MethodAnswer, MethodInvocation
from muster.domain.timestamp import SECOND
from muster.hub.methods import MAXIMUM_IN_FLIGHT
from muster.wire.mqtt_packets import (
    Disconnect,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
)

METHODS = b"$iothub/methods/POST/#"
ANSWERS = b"$iothub/twin/res/#"
DESIRED = b"$iothub/twin/PATCH/properties/desired/#"
C2D = b"devices/d1/messages/devicebound/#"
VERSION = "api-version=2021-04-12"


async def create(services: Services, device_id: str = "d1") -> None:
    body = IdentityBody(device_id=device_id, authentication=AuthenticationBody("sas", SymmetricKeyBody(KEY, KEY)))
    await services.devices.put("hub", device_id, body, None)


@pytest.fixture(autouse=True)
async def _device(services: Services) -> None:
    await create(services)


async def connected(mqtt: MqttClients, *filters: bytes, session: bool = False, **options: Any) -> MqttClient:
    client = await mqtt.to_hub("d1", key=KEY, session=session, **{"clean_session": False, **options})
    for topic_filter in filters:
        await client.subscribe(topic_filter)
    return client


# Sessions


async def test_subscriptions_survive_the_connection(services: Services, mqtt: MqttClients) -> None:
    first = await connected(mqtt, METHODS, ANSWERS)
    await first.leave()
    second = await connected(mqtt, session=True)
    await second.send(Publish(b"$iothub/twin/GET/?$rid=1", b""))
    assert (await second.receive(Publish)).topic == b"$iothub/twin/res/200/?$rid=1"


async def test_subscriptions_survive_the_server(services: Services, mqtt: MqttClients) -> None:
    await connected(mqtt, ANSWERS)
    again = MqttClients(await build_services(services.database, services.clock))
    client = await connected(again, session=True)
    await client.send(Publish(b"$iothub/twin/GET/?$rid=1", b""))
    assert (await client.receive(Publish)).topic == b"$iothub/twin/res/200/?$rid=1"
    await again.close()


async def test_a_clean_session_ends_the_stored_one(mqtt: MqttClients) -> None:
    await connected(mqtt, ANSWERS)
    await connected(mqtt, clean_session=True)
    client = await connected(mqtt)
    await client.send(Publish(b"$iothub/twin/GET/?$rid=1", b"", 1, 7))
    assert await client.receive(Puback) == Puback(7)


async def test_an_unsubscribed_filter_is_forgotten(mqtt: MqttClients) -> None:
    first = await connected(mqtt, ANSWERS)
    await first.send(Unsubscribe(2, [ANSWERS, b"never/subscribed"]))
    assert await first.receive(Unsuback) == Unsuback(2)
    second = await connected(mqtt, session=True)
    await second.send(Publish(b"$iothub/twin/GET/?$rid=1", b"", 1, 7))
    assert await second.receive(Puback) == Puback(7)


async def test_a_deleted_device_leaves_no_session(services: Services, mqtt: MqttClients) -> None:
    await connected(mqtt, ANSWERS)
    await services.devices.delete("hub", "d1", "*")
    await create(services)
    await connected(mqtt)


async def test_a_displaced_connection_changes_no_session(services: Services, mqtt: MqttClients) -> None:
    first = await connected(mqtt, ANSWERS)
    await connected(mqtt, METHODS, session=True)
    assert first.transport.closing
    services.sessions  # noqa: B018 - the second connection's session is what counts
    third = await connected(mqtt, session=True)
    await third.send(Publish(b"$iothub/twin/GET/?$rid=1", b""))
    assert (await third.receive(Publish)).topic == b"$iothub/twin/res/200/?$rid=1"


async def test_a_peer_without_a_trace_keeps_nothing_from_the_newer_connection(
    services: Services, mqtt: MqttClients
) -> None:
    """From the moment at which it is displaced, though its socket waits for the peer (interop-facts.md 26)."""
    will = Will(b"devices/d1/messages/events/", b"gone", 1)
    older = await connected(mqtt, C2D, METHODS, will=will)
    older.transport.is_gone = True
    await send(services, b"1")
    assert (await older.receive(Publish)).payload == b"1"
    newer = await connected(mqtt, session=True)
    assert older.transport.closing
    await send(services, b"2")
    got = [await newer.receive(Publish) for _ in range(2)]
    assert sorted((one.payload, one.dup) for one in got) == [(b"1", True), (b"2", False)]
    asking = asyncio.ensure_future(services.methods.invoke("hub", "d1", "", invocation()))
    await newer.send(Publish(f"$iothub/methods/res/200/?$rid={await asked(newer)}".encode(), b""))
    assert await asking == MethodAnswer(200, b"null")
    older.protocol.connection_lost(None)  # at last
    await newer.publish("devices/d1/messages/events/", b"x")
    assert [event.body for event in await events(services)] == [b"gone", b"x"]
    _, registry = await services.devices.get("hub", "d1")
    assert registry.connected


async def test_what_a_device_subscribed_to_when_it_left_listens_for_nobody(
    services: Services, mqtt: MqttClients
) -> None:
    client = await connected(mqtt, clean_session=True)
    report = Publish(b"$iothub/twin/PATCH/properties/reported/", b'{"last":"words"}')
    await client.send(Subscribe(1, [(METHODS, 0), (C2D, 1), (DESIRED, 0)]), report)
    await client.leave()

    async def is_done() -> bool:
        return b"words" in await services.twins.device_document("hub", "d1", "")

    await until(is_done)
    with pytest.raises(DeviceNotOnlineError):
        await services.methods.invoke("hub", "d1", "", invocation())


async def test_many_filters_in_one_packet_are_granted_in_their_order(mqtt: MqttClients) -> None:
    client = await connected(mqtt)
    filters = [(METHODS, 0), (C2D, 2), (b"unknown/topic", 1), (b"devices/+/messages/devicebound/#", 1), (b"#", 0)]
    await client.send(Subscribe(3, filters))
    assert await client.receive(Suback) == Suback(3, [0, 1, 1, 1, 0])


async def test_a_session_has_a_bound(mqtt: MqttClients) -> None:
    client = await connected(mqtt)
    await client.send(Subscribe(3, [(b"f/%d" % number, 1) for number in range(101)]))
    await client.is_closed()


# Twin


@pytest.mark.parametrize("body", [b"", b" ", b"{"])
async def test_a_twin_is_read(services: Services, mqtt: MqttClients, body: bytes) -> None:
    client = await connected(mqtt, ANSWERS)
    await client.send(Publish(b"$iothub/twin/GET/?$rid=a%20b", body, 1, 9))
    answer = await client.receive(Publish)
    assert (answer.topic, answer.qos) == (b"$iothub/twin/res/200/?$rid=a%20b", 0)
    assert json.loads(answer.payload) == {"desired": {"$version": 1}, "reported": {"$version": 1}}
    assert await client.receive(Puback) == Puback(9)


async def test_reported_properties_are_patched(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, ANSWERS)
    await client.send(Publish(b"$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"fw":"1","old":1}', 1, 9))
    assert (await client.receive(Publish)).values()[:2] == (b"$iothub/twin/res/204/?$rid=1&$version=2", b"")
    assert await client.receive(Puback) == Puback(9)
    await client.send(Publish(b"$iothub/twin/PATCH/properties/reported/?$rid=2&$version=2", b'{"old":null}'))
    assert (await client.receive(Publish)).topic == b"$iothub/twin/res/204/?$rid=2&$version=3"
    reported = (await services.twin("d1"))["properties"]["reported"]
    assert {key: value for key, value in reported.items() if key != "$metadata"} == {"fw": "1", "$version": 3}


@pytest.mark.parametrize(
    ("query", "body", "code"),
    [
        ("$rid=1", b"{", 400006),
        ("$rid=1", b"[]", 400004),
        ("$rid=1", b"", 400005),
        ("$rid=1", b'{"a.b":1}', 400004),
        ("$rid=1&$version=7", b'{"a":1}', 412001),
        ("$rid=1&$version=x", b'{"a":1}', 400004),
    ],
)
async def test_a_wrong_patch_is_answered(mqtt: MqttClients, query: str, body: bytes, code: int) -> None:
    client = await connected(mqtt, ANSWERS)
    await client.send(Publish(f"$iothub/twin/PATCH/properties/reported/?{query}".encode(), body))
    answer = await client.receive(Publish)
    assert answer.topic == f"$iothub/twin/res/{code // 1000}/?$rid=1".encode()
    error = json.loads(answer.payload)
    assert error.keys() == {"errorCode", "trackingId", "message", "timestampUtc"}
    assert error["errorCode"] == code


async def test_a_patch_without_rid_is_executed_in_silence(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, ANSWERS)
    await client.send(Publish(b"$iothub/twin/PATCH/properties/reported/", b'{"a":1}', 1, 4))
    assert await client.receive(Puback) == Puback(4)
    assert (await services.twin("d1"))["properties"]["reported"]["a"] == 1


@pytest.mark.parametrize(
    "topic",
    [
        b"$iothub/twin/GET/",
        b"$iothub/twin/POST/?$rid=1",
        b"$iothub/twin/PATCH/properties/desired/?$rid=1",
        b"$iothub/methods/POST/x/?$rid=1",
        b"$iothub/methods/res/ok/?$rid=1",
        b"$iothub/methods/res/99999999999/?$rid=1",
        b"$iothub/",
        b"devices/d2/messages/events/",
        b"devices/d1/messages/devicebound/",
    ],
)
async def test_other_topics_end_the_connection(mqtt: MqttClients, topic: bytes) -> None:
    client = await connected(mqtt, ANSWERS)
    await client.send(Publish(topic, b"", 1, 5))
    await client.is_closed()


async def test_pubacks_come_in_the_order_of_the_messages(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt)
    telemetry = [Publish(b"devices/d1/messages/events/", b"x", 1, number) for number in (1, 2, 4, 6)]
    get = [Publish(b"$iothub/twin/GET/?$rid=1", b"", 1, number) for number in (3, 5)]
    await client.send(telemetry[0], telemetry[1], get[0], telemetry[2], get[1], telemetry[3])
    assert [(await client.receive(Puback)).packet_id for _ in range(6)] == [1, 2, 3, 4, 5, 6]


async def test_requests_right_before_the_goodbye_are_done(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt)
    await client.send(Publish(b"$iothub/twin/PATCH/properties/reported/?$rid=1", b'{"last":true}'), Disconnect())

    async def is_reported() -> bool:
        return "last" in (await services.twin("d1"))["properties"]["reported"]

    await until(is_reported)


async def test_desired_changes_are_heard(mqtt: MqttClients, rest: RestClient) -> None:
    client = await connected(mqtt, DESIRED)
    patch = {"properties": {"desired": {"interval": 60, "fan": {"mode": None}}}, "tags": {"a": 1}}
    await rest.request("PATCH", f"/twins/d1?{VERSION}", patch)
    heard = await client.receive(Publish)
    assert (heard.topic, heard.qos) == (b"$iothub/twin/PATCH/properties/desired/?$version=2", 0)
    assert json.loads(heard.payload) == {"interval": 60, "fan": {"mode": None}, "$version": 2}
    await rest.request("PATCH", f"/twins/d1?{VERSION}", {"tags": {"a": 2}})
    await client.send(Unsubscribe(2, [DESIRED]))
    assert await client.receive(Unsuback) == Unsuback(2)
    await rest.request("PATCH", f"/twins/d1?{VERSION}", {"properties": {"desired": {"interval": 61}}})
    await client.subscribe(DESIRED)
    await rest.request("PATCH", f"/twins/d1?{VERSION}", {"properties": {"desired": {"interval": 62}}})
    assert (await client.receive(Publish)).topic == b"$iothub/twin/PATCH/properties/desired/?$version=4"


async def test_a_restored_session_hears_desired_changes(mqtt: MqttClients, rest: RestClient) -> None:
    await (await connected(mqtt, DESIRED)).leave()
    client = await connected(mqtt, session=True)
    await client.send(Subscribe(5, [(b"any", 0)]))
    assert await client.receive(Suback) == Suback(5, [0])  # what was restored is followed by now
    await rest.request("PATCH", f"/twins/d1?{VERSION}", {"properties": {"desired": {"interval": 1}}})
    assert (await client.receive(Publish)).topic == b"$iothub/twin/PATCH/properties/desired/?$version=2"


# Methods


def invocation(name: str = "reboot", payload: bytes = b'{"delay":5}', response: int = 30, connect: int = 0) -> Any:
    return MethodInvocation(name, payload, response, connect)


async def asked(client: MqttClient) -> str:
    """The rid of the next question."""
    question = await client.receive(Publish)
    assert (question.qos, question.retain) == (0, False)
    return question.topic.decode().partition("?$rid=")[2]


async def test_a_method_is_asked_and_answered(mqtt: MqttClients, rest: RestClient) -> None:
    client = await connected(mqtt, METHODS)
    body = {"methodName": "reboot", "payload": {"delay": 5}, "responseTimeoutInSeconds": 30}
    asking = asyncio.ensure_future(rest.request("POST", f"/twins/d1/methods?{VERSION}", body))
    question = await client.receive(Publish)
    assert question.values()[:2] == (b"$iothub/methods/POST/reboot/?$rid=1", b'{"delay": 5}')
    await client.send(Publish(b"$iothub/methods/res/200/?$rid=1", b'{"ok": true}', 1, 8))
    assert await client.receive(Puback) == Puback(8)
    answer = await asking
    assert (answer.status, answer.json) == (200, {"status": 200, "payload": {"ok": True}})


@pytest.mark.parametrize(
    ("body", "payload"), [(b"", b"null"), (b"null", b"null"), (b' "x" ', b'"x"'), (b"[1]", b"[1]")]
)
async def test_any_json_is_an_answer(services: Services, mqtt: MqttClients, body: bytes, payload: bytes) -> None:
    client = await connected(mqtt, METHODS)
    asking = asyncio.ensure_future(services.methods.invoke("hub", "d1", "", invocation()))
    await client.send(Publish(f"$iothub/methods/res/-1/?$rid={await asked(client)}".encode(), body))
    assert await asking == MethodAnswer(-1, payload)


async def test_an_answer_that_is_no_json(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, METHODS)
    asking = asyncio.ensure_future(services.methods.invoke("hub", "d1", "", invocation()))
    await client.send(Publish(f"$iothub/methods/res/200/?$rid={await asked(client)}".encode(), b"ok"))
    with pytest.raises(BadDeviceResponseError):
        await asking


async def test_answers_in_any_order_and_to_nobody(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, METHODS)
    asking = [asyncio.ensure_future(services.methods.invoke("hub", "d1", "", invocation(f"m{n}"))) for n in range(3)]
    rids = [await asked(client) for _ in asking]
    for rid in ["unknown", *reversed(rids), rids[0], ""]:
        await client.send(Publish(f"$iothub/methods/res/200/?$rid={rid}".encode(), f'"{rid}"'.encode(), 1, 3))
        assert await client.receive(Puback) == Puback(3)
    assert [(await one).payload for one in asking] == [f'"{rid}"'.encode() for rid in rids]


@pytest.mark.parametrize("filters", [(), (ANSWERS, DESIRED, C2D), (b"$iothub/methods/POST/other/#",)])
async def test_a_device_that_does_not_listen(services: Services, mqtt: MqttClients, filters: tuple[bytes, ...]) -> None:
    await connected(mqtt, *filters)
    with pytest.raises(DeviceNotOnlineError):
        await services.methods.invoke("hub", "d1", "", invocation())


async def test_nobody_knows_the_device(services: Services) -> None:
    with pytest.raises(DeviceNotFoundError):
        await services.methods.invoke("hub", "nobody", "", invocation())
    with pytest.raises(DeviceNotFoundError):
        await services.methods.invoke("hub", "d1", "nothing", invocation())


async def test_a_caller_waits_for_the_device_to_connect(services: Services, mqtt: MqttClients) -> None:
    asking = asyncio.ensure_future(services.methods.invoke("hub", "d1", "", invocation(connect=30)))
    await asyncio.sleep(0)
    client = await connected(mqtt, METHODS)
    await client.send(Publish(f"$iothub/methods/res/200/?$rid={await asked(client)}".encode(), b""))
    assert await asking == MethodAnswer(200, b"null")


async def test_a_device_that_leaves_before_it_answers(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, METHODS)
    asking = asyncio.ensure_future(services.methods.invoke("hub", "d1", "", invocation()))
    await asked(client)
    await client.leave()
    with pytest.raises(DeviceConnectionClosedError):
        await asking


async def test_a_device_that_does_not_answer(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, METHODS)
    with pytest.raises(GatewayTimeoutError):
        await services.methods.invoke("hub", "d1", "", invocation(response=0))
    rid = await asked(client)
    await client.send(Publish(f"$iothub/methods/res/200/?$rid={rid}".encode(), b"", 1, 3))
    assert await client.receive(Puback) == Puback(3)


async def test_too_many_methods_at_once(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, METHODS)
    asking = [
        asyncio.ensure_future(services.methods.invoke("hub", "d1", "", invocation())) for _ in range(MAXIMUM_IN_FLIGHT)
    ]
    for _ in asking:
        await asked(client)
    with pytest.raises(TooManyMethodsError):
        await services.methods.invoke("hub", "d1", "", invocation())
    await client.leave()
    closed = await asyncio.gather(*asking, return_exceptions=True)
    assert {type(one) for one in closed} == {DeviceConnectionClosedError}


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, 400005),
        ({"methodName": ""}, 400005),
        ({"methodName": "a/b"}, 400004),
        ({"methodName": "a b"}, 400004),
        ({"methodName": "x" * 101}, 400004),
        ({"methodName": "x", "responseTimeoutInSeconds": 4}, 400004),
        ({"methodName": "x", "responseTimeoutInSeconds": 301}, 400004),
        ({"methodName": "x", "connectTimeoutInSeconds": -1}, 400004),
        ({"methodName": "x", "connectTimeoutInSeconds": 20, "responseTimeoutInSeconds": 10}, 400004),
        ({"methodName": "x", "responseTimeoutInSeconds": "10"}, 400004),
        ({"methodName": "x", "payload": "y" * 131072}, 413001),
        ({"methodName": "x"}, 404103),
        (b"{", 400006),
    ],
)
async def test_refusals_of_an_invocation(rest: RestClient, body: object, code: int) -> None:
    answer = await rest.request("POST", f"/twins/d1/methods?{VERSION}", body)
    assert answer.status == code // 1000
    assert answer.headers["iothub-errorcode"]
    assert answer.json["ExceptionMessage"] == ""
    error = json.loads(answer.json["Message"])
    assert error["errorCode"] == code
    assert error["info"] == ({"timeout": "00:00:00"} if code == 404103 else {})


# Messages from the cloud


def message(body: bytes = b"hello", **properties: Any) -> C2dMessage:
    return C2dMessage(C2dProperties(**{"message_id": "m-1", **properties}), body)


async def send(services: Services, *bodies: bytes, **properties: Any) -> None:
    for body in bodies:
        await services.c2d.send("hub", "d1", "", message(body, **properties))


async def is_empty(services: Services) -> bool:
    return await services.c2d.count("hub", "d1") == 0


async def test_a_message_is_delivered_and_completed(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, C2D)
    await send(services, b"hello", ack="full", application={"color": "dark red"})
    got = await client.receive(Publish)
    assert got.topic == (
        b"devices/d1/messages/devicebound/%24.mid=m-1&%24.to=%2Fdevices%2Fd1%2Fmessages%2Fdevicebound"
        b"&iothub-ack=full&color=dark%20red"
    )
    assert (got.payload, got.qos, got.dup, got.retain) == (b"hello", 1, False, False)
    assert not await is_empty(services)
    await client.send(Puback(got.packet_id))
    await until(lambda: is_empty(services))


async def test_at_qos_0_sending_completes(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt)
    await client.subscribe(C2D, 0)
    await send(services, b"1", b"2")
    got = [await client.receive(Publish) for _ in range(2)]
    assert [(one.payload, one.qos) for one in got] == [(b"1", 0), (b"2", 0)]
    await until(lambda: is_empty(services))


async def test_at_qos_0_a_message_is_done_with_whoever_leaves_then(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt)
    await client.subscribe(C2D, 0)
    await send(services, b"1")
    assert (await client.receive(Publish)).payload == b"1"
    await client.leave()
    await until(lambda: is_empty(services))


async def test_what_was_not_acknowledged_comes_again(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, C2D)
    await send(services, b"1", b"2")
    got = [await client.receive(Publish) for _ in range(2)]
    await client.send(Puback(got[0].packet_id))
    await client.leave()
    second = await connected(mqtt, session=True)
    again = await second.receive(Publish)
    assert (again.payload, again.dup) == (b"2", True)
    await second.send(Puback(again.packet_id))
    await until(lambda: is_empty(services))


async def test_messages_that_came_meanwhile_follow_connack(services: Services, mqtt: MqttClients) -> None:
    await (await connected(mqtt, C2D)).leave()
    await send(services, b"1", b"2", b"3")
    client = await connected(mqtt, session=True)
    assert [(await client.receive(Publish)).payload for _ in range(3)] == [b"1", b"2", b"3"]


async def test_at_most_16_are_under_way(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, C2D)
    await send(services, *(b"%d" % number for number in range(20)))
    first = [await client.receive(Publish) for _ in range(16)]
    await client.send(Subscribe(9, [(b"other", 0)]))
    assert await client.receive(Suback) == Suback(9, [0])  # and no seventeenth message before it
    await client.send(*(Puback(one.packet_id) for one in first))
    rest = [await client.receive(Publish) for _ in range(4)]
    assert [int(one.payload) for one in first + rest] == list(range(20))
    await client.send(*(Puback(one.packet_id) for one in rest))
    await until(lambda: is_empty(services))


@pytest.mark.parametrize(
    "topic_filter", [b"devices/+/messages/devicebound/#", b"devices/d1/messages/#", b"devices/d1/#", b"#"]
)
async def test_every_filter_that_matches(services: Services, mqtt: MqttClients, topic_filter: bytes) -> None:
    client = await connected(mqtt, topic_filter)
    await send(services, b"x")
    assert (await client.receive(Publish)).payload == b"x"


async def test_what_waits_for_a_device_without_subscription_is_lost(services: Services, mqtt: MqttClients) -> None:
    await send(services, b"early", ack="full")
    client = await connected(mqtt)
    await until(lambda: is_empty(services))
    await send(services, b"still too early")
    await client.subscribe(C2D)
    await send(services, b"right")
    assert (await client.receive(Publish)).payload == b"right"


async def test_a_device_that_unsubscribes_gets_no_more(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, C2D)
    await client.send(Unsubscribe(3, [C2D]))
    assert await client.receive(Unsuback) == Unsuback(3)
    await send(services, b"x")
    await client.subscribe(ANSWERS)
    await client.send(Publish(b"$iothub/twin/GET/?$rid=1", b""))
    assert (await client.receive(Publish)).topic == b"$iothub/twin/res/200/?$rid=1"


async def test_late_and_unknown_acknowledgements_do_nothing(services: Services, mqtt: MqttClients) -> None:
    client = await connected(mqtt, C2D)
    await send(services, b"x")
    got = await client.receive(Publish)
    services.clock.advance(61 * SECOND)
    await client.send(Puback(got.packet_id), Puback(got.packet_id), Puback(77))
    await client.subscribe(b"any")
    assert await services.c2d.count("hub", "d1") == 1


# Wills


async def events(services: Services) -> list[Event]:
    earliest, _ = await services.events.positions("hub")
    return (await services.events.read("hub", earliest, 1000))[0]


@pytest.fixture
async def with_will(mqtt: MqttClients) -> MqttClient:
    will = Will(b"devices/d1/messages/events/kind=last&%24.ct=text%2Fplain", b"gone", 1, retain=True)
    return await connected(mqtt, will=will)


async def test_a_will_is_published_at_a_sudden_end(services: Services, with_will: MqttClient) -> None:
    await with_will.leave()

    async def is_there() -> bool:
        return bool(await events(services))

    await until(is_there)
    [event] = await events(services)
    assert event.body == b"gone"
    assert event.application_properties == {"kind": "last", "mqtt-retain": "true", "iothub-MessageType": "Will"}
    assert event.system_properties == {"content-type": "text/plain"}


async def test_a_goodbye_takes_the_will_back(services: Services, mqtt: MqttClients, with_will: MqttClient) -> None:
    await with_will.send(Disconnect())
    await with_will.is_closed()
    client = await connected(mqtt, session=True)
    await client.publish("devices/d1/messages/events/", b"x")
    assert [event.body for event in await events(services)] == [b"x"]


async def test_a_will_for_somebody_elses_topic_is_not_published(services: Services, mqtt: MqttClients) -> None:
    first = await connected(mqtt, will=Will(b"devices/d2/messages/events/", b"x"))
    await first.leave()
    client = await connected(mqtt, session=True)
    await client.publish("devices/d1/messages/events/", b"x")
    assert [event.body for event in await events(services)] == [b"x"]
