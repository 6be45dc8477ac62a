"""What clients that cannot be installed here say over MQTT, packet by packet, and what they make of the answers.

One row for each client of hub-device.md 14.2 and 14.3: how it connects and subscribes, its qualities of service, the
spelling of its topics, and how it takes the hub's topics apart, which is written down here as strictly as it does it.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

import msgspec
import pytest
from tests.support.fix_mqtt import HUB_HOST, MqttClient, MqttClients, until
from tests.support.fix_services import KEY, Services

from muster.domain.c2d_message import C2dMessage, C2dProperties
from muster.domain.device import AuthenticationBody, IdentityBody, SymmetricKeyBody
from muster.domain.method import MethodInvocation
from muster.domain.module import ModuleBody
from muster.domain.sas import sign
from muster.domain.timestamp import SECOND
from muster.domain.twin import TwinBody
from muster.wire.mqtt_packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
)

C2D = "devices/{id}/messages/devicebound/#"
METHODS = "$iothub/methods/POST/#"
ANSWERS = "$iothub/twin/res/#"
DESIRED = "$iothub/twin/PATCH/properties/desired/#"


# Tokens


def encoded_token(resource: str, expiry: int) -> str:
    """.NET, Java, Embedded C."""
    encoded = quote(resource, safe="")
    signature = quote(sign(KEY, f"{encoded}\n{expiry}"), safe="")
    return f"SharedAccessSignature sr={encoded}&sig={signature}&se={expiry}"


def raw_token(resource: str, expiry: int) -> str:
    """C: the resource as it is, hex digits in lower case, and an empty name of a policy."""
    signature = sign(KEY, f"{resource}\n{expiry}")
    for character in "+/=":
        signature = signature.replace(character, f"%{ord(character):02x}")
    return f"SharedAccessSignature sr={resource}&sig={signature}&se={expiry}&skn="


# How a client takes topics apart: a method's into name and rid, a twin's answer into status, rid and version, and the
# bag of a message into properties.

Method = tuple[str, str]
TwinAnswer = tuple[int, str, str | None]


def c_method(topic: str) -> Method:
    name, separator, rest = topic.removeprefix("$iothub/methods/POST/").partition("/")
    assert separator
    assert rest.startswith("?$rid=")
    return name, rest.removeprefix("?$rid=")


def c_twin(topic: str) -> TwinAnswer:
    parts = topic.split("/")
    assert parts[:3] == ["$iothub", "twin", "res"]
    assert parts[4].startswith("?$rid=")
    rid, _, rest = parts[4].removeprefix("?$rid=").partition("&")
    return int(parts[3]), rid, rest.removeprefix("$version=") or None


def c_bag(topic: str) -> dict[str, str]:
    """System properties are told by the literal ``%24``."""
    found: dict[str, str] = {}
    for piece in topic.split("/messages/devicebound/")[1].split("&"):
        name, separator, value = piece.partition("=")
        assert separator
        found[name.replace("%24.", "$.") if name.startswith("%24.") else unquote(name)] = unquote(value)
    assert not any("$" in piece for piece in topic.rsplit("/", maxsplit=1)[-1].split("&"))
    return found


def embedded_method(topic: str) -> Method:
    head, found, rid = topic.partition("/?$rid=")
    assert found
    return head.removeprefix("$iothub/methods/POST/"), rid


def embedded_twin(topic: str) -> TwinAnswer:
    status, _, query = topic.removeprefix("$iothub/twin/res/").partition("/?")
    items = dict(item.split("=", 1) for item in query.split("&"))
    return int(status), items["$rid"], items.get("$version")


def net_method(topic: str) -> Method:
    segments = topic.split("/")
    return segments[3], segments[4][6:]


def net_twin(topic: str) -> TwinAnswer:
    status, found, rest = topic.removeprefix("$iothub/twin/res/").partition("/?$rid=")
    assert found
    rid, _, version = rest.partition("&$version=")
    return int(status), rid, version or None


def net_bag(topic: str) -> dict[str, str]:
    bag = topic.split("/")[4]
    return {unquote(name): unquote(value) for name, value in (piece.split("=") for piece in bag.split("&"))}


def java_twin(topic: str) -> TwinAnswer:
    status, query = topic.removeprefix("$iothub/twin/res/").split("/")
    assert len(status) == 3
    items = dict(item.split("=") for item in query.removeprefix("?").split("&"))
    version = items.get("$version")
    return int(status), items["$rid"], None if version is None else str(int(version))


def java_bag(topic: str) -> dict[str, str]:
    """It begins at the first ``%24``, and every key must have a value."""
    found: dict[str, str] = {}
    for piece in topic[topic.index("%24") :].split("&"):
        name, value = piece.split("=")
        assert value
        found[unquote(name)] = unquote(value)
    return found


# The clients


@dataclass(frozen=True)
class Client:
    """One row. ``opening`` are the SUBSCRIBEs of its first connection, a tuple of filters each; ``reopening`` those of
    every later one.
    """

    name: str
    query: str
    opening: tuple[tuple[tuple[str, int], ...], ...]
    reopening: tuple[tuple[tuple[str, int], ...], ...]
    keep_alive: int
    telemetry: str
    qualities: tuple[int, int, int]
    rid: str
    get_body: bytes
    method: Callable[[str], Method]
    twin: Callable[[str], TwinAnswer]
    bag: Callable[[str], dict[str, str]]
    token: Callable[[str, int], str] = encoded_token
    module_filters: tuple[str, ...] = ()
    ping: bool = False


CLIENTS = [
    Client(
        "C",
        "?api-version=2020-09-30&DeviceClientType=iothubclient%2F1.15.0%20(native%3B%20Linux%3B%20x86_64)",
        ((("$iothub/twin/res/#", 0), (METHODS, 0), (C2D, 1)), ((DESIRED, 0),)),
        ((("$iothub/twin/res/#", 0), (METHODS, 0), (C2D, 1)), ((DESIRED, 0),)),
        240,
        "devices/{id}/messages/events/path=a/b c?d&%24.mid=m-1&%24.ct=application%2fjson&%24.ce=utf-8",
        (1, 0, 0),
        "7",
        b"",
        c_method,
        c_twin,
        c_bag,
        raw_token,
        ("devices/{id}/#",),
        ping=True,
    ),
    Client(
        "Embedded C",
        "?api-version=2020-09-30&DeviceClientType=azsdk-c%2F1.6.0",
        (
            (("devices/+/messages/devicebound/#", 1),),
            ((METHODS, 0),),
            ((ANSWERS, 0),),
            ((DESIRED, 0),),
        ),
        (),
        240,
        "devices/{id}/messages/events/path=a%2Fb%20c%3Fd&%24.mid=m-1&%24.ct=application%2Fjson&%24.ce=utf-8",
        (0, 0, 0),
        "get_twin",
        b"",
        embedded_method,
        embedded_twin,
        c_bag,
        ping=True,
    ),
    Client(
        "middleware",
        "?api-version=2020-09-30&DeviceClientType=c%2F1.6.0%28FreeRTOS%29",
        ((("devices/+/messages/devicebound/#", 1),), ((METHODS, 0),), ((ANSWERS, 0),), ((DESIRED, 0),)),
        ((("devices/+/messages/devicebound/#", 1),), ((METHODS, 0),)),
        240,
        "devices/{id}/messages/events/%24.mid=m-1&%24.ct=application%2Fjson&%24.ce=utf-8&path=a%2Fb%20c%3Fd",
        (1, 0, 0),
        "3",
        b"",
        embedded_method,
        embedded_twin,
        c_bag,
    ),
    Client(
        ".NET",
        "?api-version=2020-09-30&DeviceClientType=Microsoft.Azure.Devices.Client%2F1.42.0%20%28.NET%206.0%3B%20X64%29",
        (((ANSWERS, 1),), ((C2D, 1),), ((METHODS, 1),), ((DESIRED, 1),)),
        (((ANSWERS, 1),), ((METHODS, 1),), ((DESIRED, 1),)),
        300,
        "devices/{id}/messages/events/%24.mid=m-1&%24.ct=application%2Fjson&%24.ce=utf-8&path=a%2Fb%20c%3Fd/",
        (1, 0, 0),
        "0f8fad5b-d9cb-469f-a165-70867728950e",
        b"",
        net_method,
        net_twin,
        net_bag,
        module_filters=("devices/{id}/#",),
        ping=True,
    ),
    Client(
        "Java",
        "?api-version=2020-09-30&DeviceClientType=com.microsoft.azure.sdk.iot.iot-device-client%2F2.5.0",
        (((C2D, 1),), ((METHODS, 1),), ((ANSWERS, 1),), ((DESIRED, 1),)),
        (((C2D, 1),), ((METHODS, 1),), ((ANSWERS, 1),), ((DESIRED, 1),)),
        230,
        "devices/{id}/messages/events/%24.mid=m-1&path=a%2Fb%20c%3Fd&%24.ct=application%2Fjson&%24.ce=utf-8",
        (1, 1, 1),
        "0",
        b"",
        net_method,
        java_twin,
        java_bag,
        module_filters=("devices/{id}/messages/devicebound/#",),
    ),
    Client(
        "an old SDK",
        "api-version=2016-11-14",
        (((C2D, 1),), ((METHODS, 0),), ((ANSWERS, 0),), ((DESIRED, 0),)),
        (),
        0,
        "devices/{id}/messages/events/path=a%2Fb%20c%3Fd&$.mid=m-1&$.ct=application%2Fjson&$.ce=utf-8",
        (1, 0, 0),
        "1",
        b" ",
        embedded_method,
        embedded_twin,
        c_bag,
    ),
]

of_each_client = pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])


class Playing:
    """A client on the wire. ``identity`` is ``d1``, or ``d1/m1`` of a module."""

    def __init__(self, services: Services, mqtt: MqttClients, client: Client, identity: str = "d1") -> None:
        self.services = services
        self.mqtt = mqtt
        self.client = client
        self.identity = identity
        self.topic_id = identity.replace("/", "/modules/")
        self.packet_id = 0
        self.connection: MqttClient

    def next_id(self) -> int:
        self.packet_id += 1
        return self.packet_id

    def connect_packet(self, **options: Any) -> Connect:
        expiry = self.services.clock.now // SECOND + 3600
        token = self.client.token(f"{HUB_HOST}/devices/{self.topic_id}", expiry)
        return Connect(
            self.identity,
            username=f"{HUB_HOST}/{self.identity}/{self.client.query}",
            password=token.encode(),
            clean_session=False,
            keep_alive=self.client.keep_alive,
            **options,
        )

    def subscribe_packet(self, filters: tuple[tuple[str, int], ...]) -> Subscribe:
        return Subscribe(self.next_id(), [(self.text(name), qos) for name, qos in filters])

    def text(self, template: str) -> bytes:
        return template.replace("{id}", self.topic_id).encode()

    def publish_packet(self, topic: str, body: bytes, qos: int) -> Publish:
        return Publish(self.text(topic), body, qos, self.next_id() if qos else 0)

    async def connect(self, *, again: bool = False) -> None:
        """As its first connection, or as a later one."""
        self.connection = self.mqtt.open()
        await self.connection.send(self.connect_packet())
        assert await self.connection.receive(Connack) == Connack(session_present=again)
        for filters in self.client.reopening if again else self.client.opening:
            packet = self.subscribe_packet(filters)
            await self.connection.send(packet)
            assert await self.connection.receive(Suback) == Suback(packet.packet_id, [qos for _, qos in filters])

    async def publish(self, topic: str, body: bytes, qos: int, *, answered: bool = False) -> Publish | None:
        """Send; the answer if one comes, then the acknowledgement if one is owed."""
        packet = self.publish_packet(topic, body, qos)
        await self.connection.send(packet)
        answer = await self.connection.receive(Publish) if answered else None
        if qos:
            assert await self.connection.receive(Puback) == Puback(packet.packet_id)
        return answer

    # What it does.

    async def sends_telemetry(self) -> None:
        await self.publish(self.client.telemetry, b'{"t":1}', self.client.qualities[0])

        async def is_stored() -> bool:
            return bool((await self.services.events.read("hub", earliest, 10))[0])

        earliest, _ = await self.services.events.positions("hub")
        await until(is_stored)
        [event] = (await self.services.events.read("hub", earliest, 10))[0]
        assert event.system_properties == {
            "message-id": "m-1",
            "content-type": "application/json",
            "content-encoding": "utf-8",
        }
        assert event.application_properties == {"path": "a/b c?d"}

    async def uses_its_twin(self, version: int) -> None:
        """``version`` is that of what it reported so far."""
        rid, quality = self.client.rid, self.client.qualities[1]
        got = await self.publish(f"$iothub/twin/GET/?$rid={rid}", self.client.get_body, quality, answered=True)
        assert got is not None
        assert (got.qos, self.client.twin(got.topic_text)) == (0, (200, rid, None))
        assert json.loads(got.payload)["reported"]["$version"] == version
        patch = f"$iothub/twin/PATCH/properties/reported/?$rid={rid}"
        body = json.dumps({"number": version}).encode()
        got = await self.publish(patch, body, quality, answered=True)
        assert got is not None
        assert self.client.twin(got.topic_text) == (204, rid, str(version + 1))
        assert got.payload == b""
        got = await self.publish(f"{patch}&$version={version}", body, quality, answered=True)
        assert got is not None
        assert self.client.twin(got.topic_text)[:2] == (412, rid)

    async def hears_what_is_desired(self, number: int) -> None:
        device_id, _, module_id = self.identity.partition("/")
        body = msgspec.convert({"properties": {"desired": {"number": number}}}, TwinBody)
        await self.services.twins.patch("hub", device_id, module_id, body, None)
        got = await self.connection.receive(Publish)
        version = int(got.topic_text.removeprefix("$iothub/twin/PATCH/properties/desired/?$version="))
        assert json.loads(got.payload) == {"number": number, "$version": version}
        assert (got.qos, got.retain) == (0, False)

    async def answers_a_method(self, name: str) -> None:
        device_id, _, module_id = self.identity.partition("/")
        invocation = MethodInvocation(name, b'{"a":1}', 30, 0)
        asking = asyncio.ensure_future(self.services.methods.invoke("hub", device_id, module_id, invocation))
        got = await self.connection.receive(Publish)
        asked, rid = self.client.method(got.topic_text)
        assert (asked, got.payload, got.qos) == (name, b'{"a":1}', 0)
        await self.publish(f"$iothub/methods/res/200/?$rid={rid}", b'{"ok":1}', self.client.qualities[2])
        answer = await asking
        assert (answer.status, answer.payload) == (200, b'{"ok":1}')

    async def takes_a_message(self, body: bytes, *, dup: bool = False) -> None:
        got = await self.connection.receive(Publish)
        assert (got.payload, got.qos, got.dup, got.retain) == (body, 1, dup, False)
        assert got.topic_text.startswith(f"devices/{self.topic_id}/messages/devicebound/")
        bag = self.client.bag(got.topic_text)
        assert bag["$.to"] == f"/devices/{self.topic_id}/messages/devicebound"
        assert (bag["$.mid"], bag["path"]) == ("m-1", "a/b c?d")
        await self.connection.send(Puback(got.packet_id))

    async def pings(self) -> None:
        await self.connection.send(Pingreq())
        assert await self.connection.receive(Pingresp) == Pingresp()


async def tell(services: Services, body: bytes) -> None:
    message = C2dMessage(C2dProperties(message_id="m-1", application={"path": "a/b c?d"}), body)
    await services.c2d.send("hub", "d1", "", message)


async def is_empty(services: Services) -> bool:
    return await services.c2d.count("hub", "d1") == 0


@pytest.fixture(autouse=True)
async def _identities(services: Services) -> None:
    keys = AuthenticationBody("sas", SymmetricKeyBody(KEY, KEY))
    await services.devices.put("hub", "d1", IdentityBody(device_id="d1", authentication=keys), None)
    module = ModuleBody(device_id="d1", module_id="m1", authentication=keys)
    await services.modules.put("hub", "d1", "m1", module, None)


@of_each_client
async def test_a_life(services: Services, mqtt: MqttClients, client: Client) -> None:
    """It connects, does all that there is, is cut off, and goes on where it was."""
    playing = Playing(services, mqtt, client)
    await playing.connect()
    await playing.sends_telemetry()
    await playing.uses_its_twin(1)
    await playing.hears_what_is_desired(1)
    await playing.answers_a_method("reboot-1.x_y")
    await tell(services, b"first")
    await playing.takes_a_message(b"first")
    await until(lambda: is_empty(services))
    if client.ping:
        await playing.pings()
    await playing.connection.leave()
    await playing.connect(again=True)
    await playing.uses_its_twin(2)
    await playing.hears_what_is_desired(2)
    await playing.answers_a_method("again")
    await tell(services, b"second")
    await playing.takes_a_message(b"second")
    await playing.connection.send(Disconnect())
    await playing.connection.is_closed()


@of_each_client
async def test_messages_that_waited_come_before_any_subscription(
    services: Services, mqtt: MqttClients, client: Client
) -> None:
    playing = Playing(services, mqtt, client)
    await playing.connect()
    await playing.connection.leave()
    await tell(services, b"waited")
    connection = playing.connection = mqtt.open()
    await connection.send(playing.connect_packet())
    assert await connection.receive(Connack) == Connack(session_present=True)
    await playing.takes_a_message(b"waited")
    await until(lambda: is_empty(services))


@of_each_client
async def test_all_in_one_breath(services: Services, mqtt: MqttClients, client: Client) -> None:
    """Packets before CONNACK: CONNACK is the first answer all the same, and the others keep their order."""
    playing = Playing(services, mqtt, client)
    subscribes = [playing.subscribe_packet(filters) for filters in client.opening]
    telemetry = playing.publish_packet(client.telemetry, b"1", 1)
    get = playing.publish_packet(f"$iothub/twin/GET/?$rid={client.rid}", client.get_body, 1)
    breath: list[Packet] = [playing.connect_packet(), *subscribes, telemetry, get]
    connection = mqtt.open()
    await connection.send(*breath, piece=11)
    assert await connection.receive(Connack) == Connack()
    rest: list[Packet] = [await connection.receive(Packet) for _ in range(len(subscribes) + 3)]
    assert [packet.packet_id for packet in rest if isinstance(packet, Suback)] == [one.packet_id for one in subscribes]
    acknowledged = [packet.packet_id for packet in rest if isinstance(packet, Puback)]
    assert acknowledged == [telemetry.packet_id, get.packet_id]
    [answer] = [packet for packet in rest if isinstance(packet, Publish)]
    assert client.twin(answer.topic_text) == (200, client.rid, None)


@of_each_client
async def test_acknowledgements_in_the_order_of_the_messages(
    services: Services, mqtt: MqttClients, client: Client
) -> None:
    """Telemetry, twin and answers of methods in turns: .NET ends a connection whose PUBACKs are in disorder."""
    playing = Playing(services, mqtt, client)
    await playing.connect()
    topics = [client.telemetry, "$iothub/twin/PATCH/properties/reported/?$rid=1", "$iothub/methods/res/200/?$rid=99"]
    packets = [playing.publish_packet(topics[number % 3], b'{"a":1}', 1) for number in range(30)]
    await playing.connection.send(*packets)
    received = [await playing.connection.receive(Packet) for _ in range(40)]
    acknowledged = [packet.packet_id for packet in received if isinstance(packet, Puback)]
    assert acknowledged == [packet.packet_id for packet in packets]


@pytest.mark.parametrize(
    "client", [client for client in CLIENTS if client.module_filters], ids=lambda client: client.name
)
async def test_a_module(services: Services, mqtt: MqttClients, client: Client) -> None:
    playing = Playing(services, mqtt, client, "d1/m1")
    await playing.connect()
    packet = playing.subscribe_packet(tuple((name, 1) for name in client.module_filters))
    await playing.connection.send(packet)
    assert await playing.connection.receive(Suback) == Suback(packet.packet_id, [1] * len(client.module_filters))
    await playing.sends_telemetry()
    await playing.uses_its_twin(1)
    await playing.hears_what_is_desired(1)
    await playing.answers_a_method("reboot")


async def test_c_publishes_again_what_was_not_acknowledged(services: Services, mqtt: MqttClients) -> None:
    """With DUP, on the same connection: at least once, so both are kept, and both are acknowledged."""
    playing = Playing(services, mqtt, CLIENTS[0])
    await playing.connect()
    topic = b"devices/d1/messages/events/"
    await playing.connection.send(Publish(topic, b"x", 1, 500), Publish(topic, b"x", 1, 500, dup=True))
    for _ in range(2):
        assert await playing.connection.receive(Puback) == Puback(500)
    earliest, _ = await services.events.positions("hub")
    assert len((await services.events.read("hub", earliest, 10))[0]) == 2


async def test_net_names_the_gateway(services: Services, mqtt: MqttClients) -> None:
    """With a gateway, .NET has its name in the user name, and the hub's in the token."""
    playing = Playing(services, mqtt, CLIENTS[3])
    packet = playing.connect_packet()
    assert packet.username is not None
    packet.username = packet.username.replace(HUB_HOST, "gateway.local")
    connection = mqtt.open()
    await connection.send(packet)
    assert await connection.receive(Connack) == Connack()
