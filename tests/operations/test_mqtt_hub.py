"""A device at its hub over MQTT, packet by packet (hub-device.md 3, 4; interop-facts.md 10, 11, 14, 25, 26)."""

import asyncio
import json
import time
from urllib.parse import quote

import pytest
from tests.support.fix_mqtt import HUB_HOST, MqttClient, MqttClients, until
from tests.support.fix_pki import expired, other_self_signed, self_signed
from tests.support.fix_services import KEY, Services

from muster.domain.c2d_message import C2dMessage, C2dProperties
from muster.domain.credential import Credential
from muster.domain.device import (
    AuthenticationBody,
    IdentityBody,
    SymmetricKeyBody,
    ThumbprintBody,
)
from muster.domain.message import Event
from muster.domain.module import ModuleBody
from muster.domain.sas import create_token, sign
from muster.domain.timestamp import SECOND
from muster.hub.authentication import DeviceLogin
from muster.hub.sessions import Notice
from muster.pki.certificate import sha1_thumbprint, sha256_thumbprint
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
    Unsuback,
    Unsubscribe,
)

KEY_2 = "ISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0A="
WRONG_KEY = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
EVENTS = "devices/d1/messages/events/"


async def create(services: Services, device_id: str = "d1", **members: object) -> None:
    keys = SymmetricKeyBody(KEY, KEY_2)
    body = IdentityBody(device_id=device_id, authentication=AuthenticationBody("sas", keys), **members)  # type: ignore[arg-type]  # by name
    await services.devices.put("hub", device_id, body, None)


async def update(services: Services, device_id: str = "d1", **members: object) -> None:
    keys = SymmetricKeyBody(KEY, KEY_2)
    fields = {"authentication": AuthenticationBody("sas", keys), **members}
    await services.devices.put("hub", device_id, IdentityBody(device_id=device_id, **fields), "*")  # type: ignore[arg-type]  # by name


async def create_x509(services: Services, primary: str | None, secondary: str | None = None) -> None:
    authentication = AuthenticationBody("selfSigned", None, ThumbprintBody(primary, secondary))
    await services.devices.put("hub", "d1", IdentityBody(device_id="d1", authentication=authentication), None)


@pytest.fixture(autouse=True)
async def machine_time(services: Services) -> None:
    """Certificates count by the machine's clock."""
    services.clock.now = time.time_ns() // 1000


@pytest.fixture
async def device(services: Services, mqtt: MqttClients) -> MqttClient:
    """``d1``, connected by its key."""
    await create(services)
    return await mqtt.to_hub("d1", key=KEY)


async def stored(services: Services) -> list[Event]:
    earliest, _ = await services.events.positions("hub")
    return (await services.events.read("hub", earliest, 1000))[0]


async def has_stored(services: Services) -> bool:
    return bool(await stored(services))


async def only_event(services: Services) -> Event:
    events = await stored(services)
    assert len(events) == 1
    return events[0]


async def connect(mqtt: MqttClients, packet: Connect, *certificates: bytes) -> int:
    """The code of CONNACK; with another one than 0 the connection must end."""
    client = mqtt.open(*certificates)
    await client.send(packet)
    connack = await client.receive(Connack)
    assert not connack.session_present
    if connack.return_code:
        await client.is_closed()
    return connack.return_code


# User names


@pytest.mark.parametrize(
    "username",
    [
        f"{HUB_HOST}/d1/?api-version=2021-04-12&DeviceClientType=py-azure-iot-device%2F2.14.0",
        f"{HUB_HOST}/d1/?api-version=2020-09-30&model-id=dtmi%3Aa%3Ab%3B1",
        f"{HUB_HOST}/d1/?api-version=2020-09-30&model-id=dtmi:a:b;1",
        f"{HUB_HOST}/d1/api-version=2016-11-14",
        f"{HUB_HOST}/d1/DeviceClientType=iothubclient%2F1.1.0",
        f"{HUB_HOST}/d1/&api-version=2018-06-30",
        f"{HUB_HOST}/d1/?api-version=x&api-version=y&&=&auth-chain=a;b&authMethod=",
        f"{HUB_HOST}/d1/",
        f"{HUB_HOST}/d1",
        f"{HUB_HOST.upper()}/d1/?api-version=2021-04-12",
        f"{HUB_HOST}:8883/d1/?api-version=2021-04-12",
        "gateway.example.com/d1/?api-version=2021-04-12",
        "myhub.azure-devices.net/d1/?api-version=2021-04-12",
        "192.0.2.7/d1/?api-version=2021-04-12",
    ],
)
async def test_forms_of_a_user_name(services: Services, mqtt: MqttClients, username: str) -> None:
    await create(services)
    host = username.partition("/")[0]
    token = create_token(f"{host}/devices/d1", KEY, services.clock.now // SECOND + 60).encode()
    assert await connect(mqtt, Connect("d1", username=username, password=token, clean_session=False)) == 0


@pytest.mark.parametrize(
    ("client_id", "username"),
    [
        ("d1", None),
        ("d1", ""),
        ("d1", HUB_HOST),
        ("d1", f"{HUB_HOST}/"),
        ("d1", f"{HUB_HOST}/d2/?api-version=2021-04-12"),
        ("d1", f"{HUB_HOST}/D1/?api-version=2021-04-12"),
        ("d1", f"{HUB_HOST}/d11/?api-version=2021-04-12"),
        ("d1", "/d1/?api-version=2021-04-12"),
        ("D1", f"{HUB_HOST}/D1/?api-version=2021-04-12"),
        ("", f"{HUB_HOST}/d1/?api-version=2021-04-12"),
        ("d1/m1", f"{HUB_HOST}/d1/m1/?api-version=2021-04-12"),
        ("d1/m1/x", f"{HUB_HOST}/d1/m1/x/?api-version=2021-04-12"),
        ("/", f"{HUB_HOST}//?api-version=2021-04-12"),
    ],
)
async def test_user_names_that_are_refused(
    services: Services, mqtt: MqttClients, client_id: str, username: str | None
) -> None:
    await create(services)
    token = create_token(f"{HUB_HOST}/devices/d1", KEY, services.clock.now // SECOND + 60).encode()
    password = None if username is None else token
    assert await connect(mqtt, Connect(client_id, username=username, password=password)) == 5


@pytest.mark.parametrize(
    ("client_id", "username"),
    [
        ("mine", f"{HUB_HOST}/d1/?api-version=2021-04-12"),
        ("", f"{HUB_HOST}/d1/?api-version=2021-04-12"),
        ("d1", f"{HUB_HOST}/d1?api-version=2021-04-12"),
        ("d1", HUB_HOST),
        ("d1", None),
    ],
)
async def test_a_user_name_that_names_nobody_is_explained(
    services: Services, mqtt: MqttClients, client_id: str, username: str | None
) -> None:
    """Under the name by which its owner looks for it, and without the token."""
    await create(services)
    token = create_token(f"{HUB_HOST}/devices/d1", KEY, services.clock.now // SECOND + 60).encode()
    password = None if username is None else token
    assert await connect(mqtt, Connect(client_id, username=username, password=password)) == 5
    (report,) = await services.reports.latest()
    assert report.subject == (username or "/d1").partition("/")[2].partition("/")[0] or client_id
    assert (report.scope, report.answer) == ("hub", "CONNACK 5 over MQTT, 401002 elsewhere")
    assert [(item.id, item.outcome) for item in report.checks] == [("device.user-name", "refused")]
    assert f'the client id is "{client_id}"' in report.checks[0].detail
    assert "sig=" not in report.checks[0].detail


@pytest.mark.parametrize("device_id", ["AZaz09-:.+%_#*?!(),=@;$'", "a?api-version=1", "a%2Fb", "x" * 128])
async def test_ids_with_every_legal_character(services: Services, mqtt: MqttClients, device_id: str) -> None:
    """They stand unencoded in client id, user name and topic, and encoded in the token."""
    await create(services, device_id)
    client = mqtt.open()
    resource = f"{HUB_HOST}/devices/{quote(device_id, safe='')}"
    token = create_token(resource, KEY, services.clock.now // SECOND + 60).encode()
    username = f"{HUB_HOST}/{device_id}/?api-version=2021-04-12"
    await client.send(Connect(device_id, username=username, password=token))
    assert await client.receive(Connack) == Connack()
    await client.publish(f"devices/{device_id}/messages/events/a=1", b"x")
    event = await only_event(services)
    assert (event.origin.device_id, event.application_properties) == (device_id, {"a": "1"})
    await client.subscribe(f"devices/{device_id}/messages/devicebound/#".encode())
    await services.c2d.send("hub", device_id, "", C2dMessage(C2dProperties(), b"y"))
    message = await client.receive(Publish)
    assert message.topic.startswith(f"devices/{device_id}/messages/devicebound/%24.to=".encode())
    assert message.payload == b"y"


# Credentials


@pytest.mark.parametrize("key", [KEY, KEY_2])
@pytest.mark.parametrize("resource", ["{}/devices/d1", "{}%2Fdevices%2Fd1", "{}%2fdevices%2fd1", "{}/devices/D1"])
async def test_spellings_of_a_token(services: Services, mqtt: MqttClients, key: str, resource: str) -> None:
    """The signature covers the text as it was sent, raw or encoded in either case (interop-facts.md 8)."""
    await create(services)
    text = resource.format(HUB_HOST)
    expiry = services.clock.now // SECOND + 60
    signature = quote(sign(key, f"{text}\n{expiry}"), safe="")
    lower = "%".join(
        [piece if index == 0 else piece[:2].lower() + piece[2:] for index, piece in enumerate(signature.split("%"))]
    )
    for sig in (signature, lower):
        for token in (
            f"SharedAccessSignature sr={text}&sig={sig}&se={expiry}",
            f"SharedAccessSignature sig={sig}&se={expiry}&skn=&sr={text}",
        ):
            packet = mqtt.hub_connect("d1", password=token.encode())
            assert await connect(mqtt, packet) == 0, token


async def test_tokens_that_are_refused(services: Services, mqtt: MqttClients) -> None:
    await create(services)
    now = services.clock.now // SECOND
    good = create_token(f"{HUB_HOST}/devices/d1", KEY, now + 60)
    cases = {
        "sas.signature": create_token(f"{HUB_HOST}/devices/d1", WRONG_KEY, now + 60),
        "sas.expiry": create_token(f"{HUB_HOST}/devices/d1", KEY, now - 301),
        "sas.audience": create_token(f"{HUB_HOST}/devices/d2", KEY, now + 60),
        "sas.format": good.replace("sig=", "sag="),
        "sas.policy": create_token(f"{HUB_HOST}/devices/d1", KEY, now + 60, "nobody"),
        "sas.right": create_token(f"{HUB_HOST}/devices/d1", KEY, now + 60, "service"),
    }
    for check_id, token in cases.items():
        assert await connect(mqtt, mqtt.hub_connect("d1", password=token.encode())) == 5
        report = (await services.reports.find("d1"))[0]
        refused = [item for item in report.checks if item.outcome == "refused"]
        assert check_id in [item.id for item in refused]
        assert all(item.fix for item in refused)
        services.clock.advance(SECOND)


@pytest.mark.parametrize("altered", range(0, 44, 7))
async def test_one_altered_byte_of_a_signature(services: Services, mqtt: MqttClients, altered: int) -> None:
    await create(services)
    expiry = services.clock.now // SECOND + 60
    resource = quote(f"{HUB_HOST}/devices/d1", safe="")
    signature = sign(KEY, f"{resource}\n{expiry}")
    other = "A" if signature[altered] != "A" else "B"
    changed = quote(signature[:altered] + other + signature[altered + 1 :], safe="")
    token = f"SharedAccessSignature sr={resource}&sig={changed}&se={expiry}"
    assert await connect(mqtt, mqtt.hub_connect("d1", password=token.encode())) == 5


@pytest.mark.parametrize("resource", [HUB_HOST, f"{HUB_HOST}/devices", f"{HUB_HOST}/devices/d1", f"{HUB_HOST}/"])
@pytest.mark.parametrize("policy", ["iothubowner", "device"])
async def test_a_policy_may_act_as_a_device(services: Services, mqtt: MqttClients, resource: str, policy: str) -> None:
    """interop-facts.md 14; the messages say so."""
    await create(services)
    token = create_token(resource, KEY, services.clock.now // SECOND + 60, policy)
    client = mqtt.open()
    await client.send(mqtt.hub_connect("d1", password=token.encode()))
    assert await client.receive(Connack) == Connack()
    await client.publish(EVENTS, b"x")
    method = json.loads((await only_event(services)).origin.authentication_method)
    assert method == {"scope": "hub", "type": "sas", "issuer": "iothub", "acceptingIpFilterRule": None}


async def test_a_device_token_for_all_devices_is_refused(services: Services, mqtt: MqttClients) -> None:
    """A prefix counts for policies only."""
    await create(services)
    token = create_token(f"{HUB_HOST}/devices", KEY, services.clock.now // SECOND + 60)
    assert await connect(mqtt, mqtt.hub_connect("d1", password=token.encode())) == 5


async def test_unknown_and_disabled_devices(services: Services, mqtt: MqttClients) -> None:
    await create(services, status="disabled", status_reason="sold")
    for device_id, check_id in (("d1", "device.enabled"), ("d9", "device.exists")):
        assert await connect(mqtt, mqtt.hub_connect(device_id, key=KEY)) == 5
        report = (await services.reports.find(device_id))[0]
        assert [item.id for item in report.checks if item.outcome == "refused"] == [check_id]
        assert report.answer.startswith("CONNACK 5")


async def test_no_command_of_a_report_is_written_by_a_client(services: Services, mqtt: MqttClients) -> None:
    device_id = "x;rm$(date)'#"
    assert await connect(mqtt, mqtt.hub_connect(device_id, key=KEY)) == 5
    report = (await services.reports.find(device_id))[0]
    assert report.checks[0].fix.endswith("muster device create DEVICE-ID")


@pytest.mark.parametrize("digest", [sha1_thumbprint, sha256_thumbprint])
@pytest.mark.parametrize("case", [str.upper, str.lower])
@pytest.mark.parametrize("slot", ["primary", "secondary"])
async def test_thumbprints(services: Services, mqtt: MqttClients, digest: object, case: object, slot: str) -> None:
    identity = self_signed("anything")
    thumbprint = case(digest(identity.certificate))  # type: ignore[operator]  # functions of one text
    other = sha1_thumbprint(other_self_signed("d1").certificate)
    await (create_x509(services, thumbprint, other) if slot == "primary" else create_x509(services, other, thumbprint))
    client = await mqtt.to_hub("d1", certificate=identity.certificate)
    await client.publish(EVENTS, b"x")
    method = json.loads((await only_event(services)).origin.authentication_method)
    assert (method["scope"], method["type"], method["issuer"]) == ("device", "x509Certificate", "external")


async def test_certificates_that_are_refused(services: Services, mqtt: MqttClients) -> None:
    good, old = self_signed("d1"), expired("d1")
    await create_x509(services, sha1_thumbprint(good.certificate), sha1_thumbprint(old.certificate))
    packet = mqtt.hub_connect("d1")
    cases = {
        "device.certificate-presented": (),
        "device.thumbprint": (other_self_signed("d1").certificate,),
        "device.certificate-dates": (old.certificate,),
    }
    for check_id, certificates in cases.items():
        assert await connect(mqtt, packet, *certificates) == 5
        report = (await services.reports.find("d1"))[0]
        assert [item.id for item in report.checks if item.outcome == "refused"] == [check_id]
        services.clock.advance(SECOND)
    assert await connect(mqtt, packet, b"no certificate") == 5
    assert await connect(mqtt, packet, good.certificate) == 0


async def test_a_key_for_a_certificate_and_the_other_way_round(services: Services, mqtt: MqttClients) -> None:
    identity = self_signed("d1")
    await create_x509(services, sha1_thumbprint(identity.certificate))
    assert await connect(mqtt, mqtt.hub_connect("d1", key=KEY), identity.certificate) == 5
    await create(services, "d2")
    assert await connect(mqtt, mqtt.hub_connect("d2"), self_signed("d2").certificate) == 5


async def test_a_certificate_beside_a_token_is_not_asked_for(services: Services, mqtt: MqttClients) -> None:
    await create(services)
    assert await connect(mqtt, mqtt.hub_connect("d1", key=KEY), self_signed("d1").certificate) == 0


# Telemetry


async def test_a_message(device: MqttClient, services: Services) -> None:
    await device.publish("devices/d1/messages/events/a=1&%24.mid=m-1", b'{"t":21}', 77)
    event = await only_event(services)
    identity, _ = await services.devices.get("hub", "d1")
    assert (event.source, event.sequence_number, event.offset) == ("Telemetry", 0, "0")
    assert event.enqueued_time == services.clock.now
    assert event.body == b'{"t":21}'
    assert event.system_properties == {"message-id": "m-1"}
    assert event.application_properties == {"a": "1"}
    assert event.origin.generation_id == identity.generation_id
    method = json.loads(event.origin.authentication_method)
    assert method == {"scope": "device", "type": "sas", "issuer": "iothub", "acceptingIpFilterRule": None}


@pytest.mark.parametrize(
    ("bag", "system", "application"),
    [
        ("", {}, {}),
        ("a=1", {}, {"a": "1"}),
        ("a=1/", {}, {"a": "1"}),
        ("?a=1", {}, {"a": "1"}),
        ("a=1&b=2&a=3", {}, {"a": "3", "b": "2"}),
        ("a", {}, {"a": ""}),
        ("a=", {}, {"a": ""}),
        ("=a", {}, {"": "a"}),
        ("a=b=c", {}, {"a": "b=c"}),
        ("&&a=1&&", {}, {"a": "1"}),
        ("a%20b=c%26d%3De%2Ff%25", {}, {"a b": "c&d=e/f%"}),
        ("a=x+y", {}, {"a": "x+y"}),
        ("at=2026-11-24T04:00:00+01:00&n=#1", {}, {"at": "2026-11-24T04:00:00+01:00", "n": "#1"}),
        ("a=x/y z", {}, {"a": "x/y z"}),
        ("a=%C3%BC&ü=ü", {}, {"a": "ü", "ü": "ü"}),
        ("a=%", {}, {"a": "%"}),
        ("a=%zz", {}, {"a": "%zz"}),
        ("$.mid=1&%24.cid=2&%24.CT=3", {"message-id": "1", "correlation-id": "2", "$.CT": "3"}, {}),
        (
            "%24.ct=application%2fjson&%24.ce=utf-8",
            {"content-type": "application/json", "content-encoding": "utf-8"},
            {},
        ),
        (
            "$.uid=u&$.to=t&$.exp=2026-01-01T00%3A00%3A00",
            {"user-id": "u", "to": "t", "absolute-expiry-time": "2026-01-01T00:00:00"},
            {},
        ),
        (
            "$.ctime=x&$.on=o&$.sub=s",
            {"iothub-creation-time-utc": "x", "iothub-outputname": "o", "dt-subject": "s"},
            {},
        ),
        ("iothub-ack=full&iothub-x=1", {"iothub-ack": "full"}, {"iothub-x": "1"}),
    ],
)
async def test_property_bags(
    device: MqttClient, services: Services, bag: str, system: dict[str, str], application: dict[str, str]
) -> None:
    await device.publish(EVENTS + bag, b"x")
    event = await only_event(services)
    assert event.system_properties == system
    assert event.application_properties == application


@pytest.mark.parametrize("end", ["", "/"])
async def test_a_topic_without_a_bag(device: MqttClient, services: Services, end: str) -> None:
    await device.publish(f"devices/d1/messages/events{end}", b"")
    event = await only_event(services)
    assert (event.body, event.application_properties) == (b"", {})


async def test_a_device_speaks_for_nobody_else(device: MqttClient, services: Services) -> None:
    """The hub's own stamps say who sent a message; what the message says of it does not count."""
    await device.publish(EVENTS + "$.cdid=d2&$.cmid=m2&a=1", b"x")
    event = await only_event(services)
    assert event.origin.device_id == "d1"
    assert event.system_properties == {}
    assert event.application_properties == {"a": "1"}


async def test_a_retained_message_is_marked(device: MqttClient, services: Services) -> None:
    await device.send(Publish(EVENTS.encode() + b"a=1", b"x", 1, 1, retain=True))
    assert await device.receive(Puback) == Puback(1)
    await device.publish(EVENTS + "a=1", b"y", 2)
    marked, plain = await stored(services)
    assert marked.application_properties == {"a": "1", "mqtt-retain": "true"}
    assert plain.application_properties == {"a": "1"}


async def test_quality_of_service_0(device: MqttClient, services: Services) -> None:
    await device.send(*(Publish(EVENTS.encode(), b"%d" % number) for number in range(10)), Pingreq())
    assert await device.receive(Pingresp) == Pingresp()
    await device.publish(EVENTS, b"10")
    assert [event.body for event in await stored(services)] == [b"%d" % number for number in range(11)]


async def test_acknowledgements_come_in_order(device: MqttClient, services: Services) -> None:
    """Of packets at both qualities, in one read and in pieces."""
    packets: list[bytes] = []
    for number in range(1, 301):
        qos = 0 if number % 3 == 0 else 1
        packets.append(Publish(EVENTS.encode(), b"%d" % number, qos, number if qos else 0).encode())
    await device.send(*packets[:100])
    await device.send(*packets[100:], piece=7)
    for number in range(1, 301):
        if number % 3:
            assert await device.receive(Puback) == Puback(number)
    assert [event.body for event in await stored(services)] == [b"%d" % number for number in range(1, 301)]


async def test_more_than_a_window_of_messages(device: MqttClient, services: Services) -> None:
    """A client that floods is read as fast as its messages reach the disk."""
    body = b"x" * 10_000
    await device.send(*(Publish(EVENTS.encode(), body, 1, number) for number in range(1, 2001)), piece=65_536)
    for number in range(1, 2001):
        assert await device.receive(Puback) == Puback(number)
    earliest, latest = await services.events.positions("hub")
    assert sum(latest.next_sequence_numbers) - sum(earliest.next_sequence_numbers) == 2000


async def test_the_same_packet_again(device: MqttClient, services: Services) -> None:
    """At least once: nothing is thrown away as a duplicate."""
    await device.publish(EVENTS, b"x", 5)
    await device.send(Publish(EVENTS.encode(), b"x", 1, 5, dup=True))
    assert await device.receive(Puback) == Puback(5)
    assert len(await stored(services)) == 2


@pytest.mark.parametrize(("body", "taken"), [(262_144 - 3, True), (262_144 - 2, False)])
async def test_the_largest_message(device: MqttClient, services: Services, body: int, taken: bool) -> None:
    """256 KiB of body and properties: names and values of those of the application, values of the others."""
    topic = EVENTS + "ab=&%24.mid=m"
    if taken:
        await device.publish(topic, bytes(body))
        assert len((await only_event(services)).body) == body
    else:
        await device.send(Publish(topic.encode(), bytes(body), 1, 1))
        await device.is_closed()
        assert await stored(services) == []


@pytest.mark.parametrize(
    "topic",
    [
        "devices/d2/messages/events/",
        "devices/D1/messages/events/",
        "devices/d1/messages/eventsX",
        "devices/d1/messages/event",
        "devices/d1/Messages/Events/",
        "devices/d1/modules/m1/messages/events/",
        "devices/d1/messages/devicebound/",
        "/devices/d1/messages/events/",
        "devices/d1+/messages/events/",
        "$dps/registrations/PUT/iotdps-register/?$rid=1",
        "x",
    ],
)
async def test_a_foreign_topic_ends_the_connection(device: MqttClient, services: Services, topic: str) -> None:
    """Without PUBACK; what came before it in the same read is kept."""
    await device.send(
        Publish(EVENTS.encode(), b"before", 0),
        Publish(topic.encode(), b"x", 1, 1),
        Publish(EVENTS.encode(), b"after", 0),
    )
    await device.is_closed()
    await device.leave()
    await until(lambda: has_stored(services))
    assert [event.body for event in await stored(services)] == [b"before"]


async def test_quality_of_service_2_ends_the_connection(device: MqttClient, services: Services) -> None:
    await device.send(Publish(EVENTS.encode(), b"x", 2, 1))
    await device.is_closed()
    assert await stored(services) == []


async def test_a_second_connect_ends_the_connection(device: MqttClient, mqtt: MqttClients) -> None:
    await device.send(mqtt.hub_connect("d1", key=KEY))
    await device.is_closed()


async def test_a_model_id(services: Services, mqtt: MqttClients) -> None:
    await create(services)
    client = mqtt.open()
    username = f"{HUB_HOST}/d1/?api-version=2020-09-30&model-id=dtmi%3Aa%3Ab%3B1"
    await client.send(mqtt.hub_connect("d1", key=KEY, username=username))
    assert await client.receive(Connack) == Connack()
    await client.publish(EVENTS + "%24.sub=thermostat1", b"x")
    event = await only_event(services)
    assert event.origin.model_id == "dtmi:a:b;1"
    twin = await services.twin("d1")
    assert (twin["modelId"], twin["version"]) == ("dtmi:a:b;1", 2)
    found = await services.queries.page("hub", "SELECT deviceId FROM devices WHERE modelId = 'dtmi:a:b;1'", None, 10)
    assert found.items == [{"deviceId": "d1"}]
    assert event.system_properties == {"dt-subject": "thermostat1"}


# Subscriptions


async def test_every_filter_is_granted(device: MqttClient) -> None:
    filters = [
        b"devices/d1/messages/devicebound/#",
        b"devices/+/messages/devicebound/#",
        b"devices/d1/messages/#",
        b"$iothub/methods/POST/#",
        b"$iothub/twin/res/#",
        b"$iothub/twin/PATCH/properties/desired/#",
        b"devices/d1/modules/m1/messages/devicebound/#",
        b"#",
        b"nonsense/+/x",
    ]
    await device.send(Subscribe(3, [(name, index % 3) for index, name in enumerate(filters)]))
    assert await device.receive(Suback) == Suback(3, [min(index % 3, 1) for index in range(len(filters))])
    await device.send(Unsubscribe(4, [filters[0], b"never/subscribed"]))
    assert await device.receive(Unsuback) == Unsuback(4)


# Time


async def test_a_token_ends_the_connection_it_opened(services: Services, mqtt: MqttClients) -> None:
    """Five minutes after its expiry, as it is still taken until then."""
    await create(services)
    client = mqtt.open()
    await client.send(mqtt.hub_connect("d1", key=KEY, life=-299))
    assert await client.receive(Connack) == Connack()
    services.clock.advance(2 * SECOND)
    await client.is_closed()


@pytest.mark.parametrize(("keep_alive", "seconds"), [(60, 90), (0, 1767), (1740, 1767)])
async def test_silence_that_is_allowed(services: Services, mqtt: MqttClients, keep_alive: int, seconds: int) -> None:
    """One and a half times the keep-alive, and 29.45 minutes at most (hub-device.md 3.6)."""
    await create(services)
    client = mqtt.open()
    await client.send(mqtt.hub_connect("d1", key=KEY, keep_alive=keep_alive))
    assert await client.receive(Connack) == Connack()
    assert client.protocol.session.deadline() == services.clock.now + seconds * SECOND


# One connection


async def connection_state(services: Services, device_id: str = "d1") -> bool:
    _, times = await services.devices.get("hub", device_id)
    return times.connected


async def is_disconnected(services: Services) -> bool:
    return not await connection_state(services)


async def test_the_registry_shows_the_connection(services: Services, mqtt: MqttClients) -> None:
    await create(services)
    assert not await connection_state(services)
    client = await mqtt.to_hub("d1", key=KEY)
    assert await connection_state(services)
    _, times = await services.devices.get("hub", "d1")
    assert times.state_updated == times.last_activity == services.clock.now
    await client.send(Disconnect())
    await client.is_closed()
    await until(lambda: is_disconnected(services))


async def test_sending_is_activity(device: MqttClient, services: Services) -> None:
    """Shown once a minute, so that it costs nothing."""
    connected = services.clock.now
    services.clock.advance(59 * SECOND)
    await device.publish(EVENTS, b"x")
    services.clock.advance(SECOND)
    await device.publish(EVENTS, b"x")

    async def is_shown() -> bool:
        _, times = await services.devices.get("hub", "d1")
        assert times.connected
        assert times.state_updated == connected
        assert times.last_activity in (connected, services.clock.now), "not at 59 s"
        return times.last_activity == services.clock.now

    await until(is_shown)


async def test_a_module_hears_what_becomes_of_its_device_while_it_connects(
    services: Services, mqtt: MqttClients
) -> None:
    """Between the look at its credential and its session, the device is disabled."""
    await create(services)
    keys = AuthenticationBody("sas", SymmetricKeyBody(KEY, KEY))
    await services.modules.put("hub", "d1", "m", ModuleBody(module_id="m", authentication=keys), None)
    token = create_token(f"{HUB_HOST}/devices/d1/modules/m", KEY, services.clock.now // SECOND + 60)
    login = DeviceLogin(services.hub, HUB_HOST, "d1", "m")
    principal = await services.authentication.authenticate(login, Credential((), token, "test"))
    await update(services, status="disabled")
    heard: list[Notice] = []
    session = await services.sessions.attach(principal, heard.append)
    assert heard == [Notice.IDENTITY_CHANGED]
    services.sessions.detach(session)


async def test_the_newest_connection_wins(device: MqttClient, services: Services, mqtt: MqttClients) -> None:
    newer = await mqtt.to_hub("d1", key=KEY_2)
    await device.is_closed()
    await newer.publish(EVENTS, b"x")
    assert services.sessions.count == 1
    assert await connection_state(services)


async def test_a_refused_connection_displaces_nobody(device: MqttClient, mqtt: MqttClients) -> None:
    assert await connect(mqtt, mqtt.hub_connect("d1", key=WRONG_KEY)) == 5
    await device.publish(EVENTS, b"x")


async def test_many_connections_at_once(services: Services, mqtt: MqttClients) -> None:
    """One is left in the end, and the registry says so."""
    await create(services)
    clients = [mqtt.open() for _ in range(20)]
    await asyncio.gather(*(client.send(mqtt.hub_connect("d1", key=KEY)) for client in clients))

    async def one_is_left() -> bool:
        return len([client for client in clients if not client.transport.closing]) == 1

    await until(one_is_left)
    assert services.sessions.count == 1
    survivor = next(client for client in clients if not client.transport.closing)
    assert await survivor.receive(Connack) == Connack()
    await survivor.publish(EVENTS, b"x")
    assert await connection_state(services)


async def test_a_client_that_leaves_before_the_verdict(services: Services, mqtt: MqttClients) -> None:
    """It leaves nothing behind: no session, and no device that seems connected for ever."""
    await create(services)
    for steps in range(25):
        client = mqtt.open()
        await client.send(mqtt.hub_connect("d1", key=KEY))
        for _ in range(steps):
            await asyncio.sleep(0)
        await client.leave()

    async def nothing_runs() -> bool:
        return asyncio.all_tasks() == {asyncio.current_task()}

    await until(nothing_runs)
    await until(lambda: is_disconnected(services))
    assert services.sessions.count == 0


async def test_messages_right_behind_connect(services: Services, mqtt: MqttClients) -> None:
    """PUBLISH may come before CONNACK went (hub-device.md 3.1)."""
    await create(services)
    client = mqtt.open()
    await client.send(
        mqtt.hub_connect("d1", key=KEY),
        Subscribe(1, [(b"$iothub/methods/POST/#", 0)]),
        Publish(EVENTS.encode(), b"1", 1, 2),
        Publish(EVENTS.encode(), b"2", 1, 3),
    )
    assert await client.receive(Connack) == Connack()
    answers = [await client.receive(Packet) for _ in range(3)]
    assert Suback(1, [0]) in answers
    assert [answer for answer in answers if isinstance(answer, Puback)] == [Puback(2), Puback(3)]


async def test_a_device_that_says_all_in_one_breath(services: Services, mqtt: MqttClients) -> None:
    """CONNECT, PUBLISH and DISCONNECT without waiting for anything: the message counts."""
    await create(services)
    client = mqtt.open()
    await client.send(mqtt.hub_connect("d1", key=KEY), Publish(EVENTS.encode(), b"x"), Disconnect())
    await until(lambda: has_stored(services))
    await until(lambda: is_disconnected(services))
    assert services.sessions.count == 0


async def test_nothing_counts_before_a_refusal(services: Services, mqtt: MqttClients) -> None:
    await create(services)
    client = mqtt.open()
    await client.send(mqtt.hub_connect("d1", key=WRONG_KEY), Publish(EVENTS.encode(), b"x", 1, 1))
    await client.is_refused(5)
    assert await stored(services) == []


# The identity changes


async def test_deleting_a_device_ends_its_connection(device: MqttClient, services: Services) -> None:
    await services.devices.delete("hub", "d1", "*")
    await device.is_closed()


async def test_disabling_a_device_ends_its_connection(device: MqttClient, services: Services) -> None:
    await update(services, status="disabled")
    await device.is_closed()


async def test_replacing_its_key_ends_its_connection(device: MqttClient, services: Services) -> None:
    await update(services, authentication=AuthenticationBody("sas", SymmetricKeyBody(KEY_2, KEY_2)))
    await device.is_closed()


async def test_another_thumbprint_ends_its_connection(services: Services, mqtt: MqttClients) -> None:
    identity = self_signed("d1")
    await create_x509(services, sha1_thumbprint(identity.certificate))
    client = await mqtt.to_hub("d1", certificate=identity.certificate)
    await update(services, authentication=AuthenticationBody("selfSigned", None, ThumbprintBody("ab" * 20)))
    await client.is_closed()


async def test_a_change_that_concerns_no_credential_leaves_it_alone(device: MqttClient, services: Services) -> None:
    await update(services, status_reason="inspected")
    for _ in range(20):
        await asyncio.sleep(0)
    await device.publish(EVENTS, b"x")


async def test_a_device_made_anew_is_another_device(device: MqttClient, services: Services) -> None:
    """With the same id and keys: a connection belongs to the generation that it was opened for."""
    # Both in one commit, so that the connection is never without an identity of its name.
    await asyncio.gather(services.devices.delete("hub", "d1", "*"), create(services))
    await device.is_closed()


async def test_other_devices_are_left_alone(device: MqttClient, services: Services, mqtt: MqttClients) -> None:
    await create(services, "d2")
    other = await mqtt.to_hub("d2", key=KEY)
    await services.devices.delete("hub", "d1", "*")
    await device.is_closed()
    await other.publish("devices/d2/messages/events/", b"x")


# The database fails


async def test_without_a_database_nobody_is_connected(services: Services, mqtt: MqttClients) -> None:
    await create(services)
    client = mqtt.open()
    await services.database.close()
    await client.send(mqtt.hub_connect("d1", key=KEY))
    await client.is_refused(3)
    assert services.sessions.count == 0


async def test_a_message_that_is_not_stored_is_not_acknowledged(device: MqttClient, services: Services) -> None:
    await services.database.close()
    await device.send(Publish(EVENTS.encode(), b"x", 1, 1))
    await device.is_closed()
