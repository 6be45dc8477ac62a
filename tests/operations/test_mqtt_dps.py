"""Registering over MQTT, packet by packet (dps.md 2, 9.2).

What single clients send is replayed in ``tests/playbook/test_clients.py``.
"""

import base64
import json
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.fix_ca import intermediate, request, to_der
from tests.support.fix_mqtt import MqttClient, MqttClients
from tests.support.fix_pki import other_self_signed, self_signed
from tests.support.fix_services import ID_SCOPE, Services

from muster.domain.device import IdentityBody
from muster.domain.sas import create_token
from muster.domain.timestamp import SECOND
from muster.wire.mqtt_packets import (
    Connack,
    Connect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)

DEVICE = self_signed("dev-01")
PEM = DEVICE.certificate_pem.decode()
REGISTER = "$dps/registrations/PUT/iotdps-register/?$rid={}"
POLL = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={}&operationId={}"
RESPONSES = b"$dps/registrations/res/#"


@pytest.fixture(autouse=True)
async def enrolled(services: Services) -> None:
    """``dev-01`` is enrolled; certificates count by the machine's clock."""
    services.clock.now = time.time_ns() // 1000
    await services.enroll("dev-01", DEVICE.certificate_pem.decode())


@pytest.fixture
async def device(mqtt: MqttClients) -> MqttClient:
    """``dev-01``, connected and subscribed."""
    client = await mqtt.to_dps("dev-01", DEVICE.certificate)
    await client.subscribe(RESPONSES)
    return client


async def response(client: MqttClient) -> tuple[str, Any]:
    """The next answer: its topic behind the prefix, and its JSON. It is acknowledged."""
    packet = await client.receive(Publish)
    assert not packet.retain
    assert not packet.dup
    if packet.qos:
        await client.send(Puback(packet.packet_id))
    topic = packet.topic.decode()
    assert topic.startswith("$dps/registrations/res/")
    return topic.removeprefix("$dps/registrations/res/"), json.loads(packet.payload)


async def ask(client: MqttClient, topic: str, payload: bytes = b"", packet_id: int = 7) -> tuple[str, Any]:
    """Publish at QoS 1: PUBACK comes first, then the answer (one client fails otherwise)."""
    await client.publish(topic, payload, packet_id)
    return await response(client)


async def test_a_registration(device: MqttClient, services: Services) -> None:
    topic, body = await ask(device, REGISTER.format("r1"), b'{"payload": null, "registrationId": "dev-01"}')
    assert topic == "202/?$rid=r1&retry-after=3"
    assert body == {"operationId": body["operationId"], "status": "assigning"}
    await services.registrations.stop(within=60)
    topic, final = await ask(device, POLL.format("r2", body["operationId"]), b" ")
    assert topic == "200/?$rid=r2"
    assert final["operationId"] == body["operationId"]
    assert final["status"] == "assigned"
    state = final["registrationState"]
    assert set(state) == {
        "x509",
        "registrationId",
        "createdDateTimeUtc",
        "assignedHub",
        "deviceId",
        "status",
        "substatus",
        "lastUpdatedDateTimeUtc",
        "etag",
    }
    assert (state["assignedHub"], state["deviceId"]) == ("hub.example.net", "dev-01")
    assert (state["status"], state["substatus"], state["x509"]) == ("assigned", "initialAssignment", {})


async def registered(
    client: MqttClient, services: Services, payload: bytes = b"", poll: bytes = b"", qos: int = 1
) -> Any:
    """A registration from beginning to end, at this QoS."""
    await client.send(Publish(REGISTER.format(1).encode(), payload, qos, 2 if qos else 0))
    if qos:
        assert await client.receive(Puback) == Puback(2)
    topic, body = await response(client)
    assert topic == "202/?$rid=1&retry-after=3"
    await services.registrations.stop(within=60)
    await client.send(Publish(POLL.format(1, body["operationId"]).encode(), poll, qos, 3 if qos else 0))
    if qos:
        assert await client.receive(Puback) == Puback(3)
    topic, final = await response(client)
    assert topic == "200/?$rid=1"
    assert final["status"] == "assigned"
    return final


@pytest.mark.parametrize("payload", [b"", b" ", b"{}", b'{"payload":null}', b'{"registrationId":"DEV-01"}', b'{"x":1}'])
async def test_bodies_of_a_register(device: MqttClient, payload: bytes) -> None:
    topic, body = await ask(device, REGISTER.format(1), payload)
    assert topic == "202/?$rid=1&retry-after=3"
    assert body["status"] == "assigning"


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b'{"registrationId":"other"}', 400004),
        (b'{"registrationId":5}', 400004),
        (b"[]", 400004),
        (b"{", 400006),
        (b"\xff", 400006),
        (b'{"payload":' + b"[" * 50_000, 400006),
    ],
)
async def test_bodies_that_are_refused(device: MqttClient, payload: bytes, code: int) -> None:
    topic, body = await ask(device, REGISTER.format(1), payload)
    assert topic == "400/?$rid=1"
    assert body["errorCode"] == code
    assert "operationId" not in body  # one client tells errors by that
    topic, body = await ask(device, REGISTER.format(2))
    assert topic.startswith("202/")


@pytest.mark.parametrize(
    "rid", ["1", "a-b_c.d~", "%2F%20", "ü", "00000000-0000-0000-0000-000000000000", "a b", "x" * 1000, "%", "a/b", "$"]
)
async def test_the_rid_is_echoed_byte_for_byte(device: MqttClient, rid: str) -> None:
    topic, _ = await ask(device, REGISTER.format(rid))
    assert topic == f"202/?$rid={rid}&retry-after=3"


async def test_a_rid_that_leaves_no_room_for_an_answer(device: MqttClient) -> None:
    """Its topic would be longer than MQTT allows: it is the client's fault, and the next request is answered."""
    longest = 0xFFFF - len(REGISTER.format(""))
    await device.publish(REGISTER.format("x" * longest), b"")
    topic, _ = await ask(device, REGISTER.format("next"))
    assert topic == "202/?$rid=next&retry-after=3"


async def test_a_request_before_its_subscription(mqtt: MqttClients) -> None:
    """The answer waits for SUBACK."""
    client = await mqtt.to_dps("dev-01", DEVICE.certificate)
    await client.publish(REGISTER.format(1), b"")
    await client.send(Subscribe(2, [(RESPONSES, 1)]))
    assert await client.receive(Suback) == Suback(2, [1])
    assert (await response(client))[0] == "202/?$rid=1&retry-after=3"


async def test_everything_in_one_read(mqtt: MqttClients) -> None:
    client = mqtt.open(DEVICE.certificate)
    username = f"{ID_SCOPE}/registrations/dev-01/api-version=2019-03-31"
    await client.send(
        Connect("dev-01", username=username),
        Subscribe(1, [(RESPONSES, 1)]),
        Publish(REGISTER.format(1).encode(), b"", 1, 2),
    )
    assert await client.receive(Connack) == Connack()
    assert await client.receive(Suback) == Suback(1, [1])
    assert await client.receive(Puback) == Puback(2)
    assert (await response(client))[0] == "202/?$rid=1&retry-after=3"


async def test_everything_byte_for_byte(mqtt: MqttClients) -> None:
    client = mqtt.open(DEVICE.certificate)
    username = f"{ID_SCOPE}/registrations/dev-01/api-version=2019-03-31"
    await client.send(Connect("dev-01", username=username), piece=1)
    assert await client.receive(Connack) == Connack()
    await client.send(Subscribe(1, [(RESPONSES, 1)]), piece=1)
    assert await client.receive(Suback) == Suback(1, [1])
    await client.send(Publish(REGISTER.format(1).encode(), b"", 1, 2), piece=1)
    assert await client.receive(Puback) == Puback(2)
    assert (await response(client))[0] == "202/?$rid=1&retry-after=3"


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_answers_come_at_the_granted_qos(mqtt: MqttClients, qos: int) -> None:
    client = await mqtt.to_dps("dev-01", DEVICE.certificate)
    await client.subscribe(RESPONSES, qos)
    await client.publish(REGISTER.format(1), b"")
    assert (await client.receive(Publish)).qos == min(qos, 1)


@pytest.mark.parametrize("topic_filter", [b"#", b"$dps/#", b"$dps/registrations/res/+/+", b"$dps/registrations/+/+/#"])
async def test_filters_that_cover_the_answers(mqtt: MqttClients, topic_filter: bytes) -> None:
    """By MQTT's rules: ``#`` alone does not match a topic that begins with ``$`` [MQTT-4.7.2-1]."""
    client = await mqtt.to_dps("dev-01", DEVICE.certificate)
    await client.subscribe(topic_filter)
    await client.publish(REGISTER.format(1), b"")
    if topic_filter == b"#":
        await client.subscribe(RESPONSES)
    assert (await response(client))[0] == "202/?$rid=1&retry-after=3"


async def test_a_client_that_never_subscribes_is_not_remembered_for_ever(mqtt: MqttClients) -> None:
    client = await mqtt.to_dps("dev-01", DEVICE.certificate)
    for number in range(100):
        await client.publish(REGISTER.format(number), b"")
    await client.subscribe(RESPONSES)
    await client.send(Publish(REGISTER.format("last").encode(), b""))
    topics = [(await response(client))[0]]
    while "last" not in topics[-1]:
        topics.append((await response(client))[0])
    assert len(topics) < 50


async def test_after_unsubscribe_no_answer_comes(device: MqttClient) -> None:
    await device.send(Unsubscribe(5, [RESPONSES]))
    assert await device.receive(Unsuback) == Unsuback(5)
    await device.publish(REGISTER.format(1), b"")
    await device.send(Pingreq())
    assert await device.receive(Pingresp) == Pingresp()


@pytest.mark.parametrize(
    "topic",
    [
        "devices/dev-01/messages/events/",
        "$dps/registrations/PUT/iotdps-register",
        "$dps/registrations/res/202/?$rid=1",
        "$dps/registrations/POST/other/?$rid=1",
        "x",
    ],
)
async def test_unknown_topics_are_taken_and_ignored(device: MqttClient, topic: str) -> None:
    await device.publish(topic, b"{}")
    assert (await ask(device, REGISTER.format(1)))[0] == "202/?$rid=1&retry-after=3"


async def test_many_requests_are_answered_in_their_order(device: MqttClient) -> None:
    requests = [Publish(REGISTER.format(number).encode(), b"") for number in range(60)]
    await device.send(*requests)
    for number in range(60):
        assert (await response(device))[0] == f"202/?$rid={number}&retry-after=3"


async def test_answers_beyond_what_may_be_in_flight(device: MqttClient) -> None:
    """A client that acknowledges none of its answers still gets them."""
    await device.send(*(Publish(REGISTER.format(number).encode(), b"") for number in range(100)))
    received = [await device.receive(Publish) for _ in range(100)]
    assert [packet.topic.decode().split("=")[1].split("&")[0] for packet in received] == [str(n) for n in range(100)]


async def test_a_registration_in_progress_is_found_again(device: MqttClient, services: Services) -> None:
    """Asked twice at once: one operation (dps.md 11)."""
    await device.send(Publish(REGISTER.format(1).encode(), b""), Publish(REGISTER.format(2).encode(), b""))
    operations = {(await response(device))[1]["operationId"] for _ in range(2)}
    await services.registrations.stop(within=60)
    for operation in operations:
        assert (await ask(device, POLL.format(9, operation)))[0] == "200/?$rid=9"
    assert (await services.records.get(ID_SCOPE, "dev-01")).status == "assigned"


async def test_registering_again(device: MqttClient, services: Services) -> None:
    first = await registered(device, services)
    services.clock.advance(1_000_000)
    second = await registered(device, services)
    assert second["operationId"] != first["operationId"]
    # The middle part is that of the registration; the first creation stays.
    assert second["operationId"].split(".")[:2] == first["operationId"].split(".")[:2]
    before, after = first["registrationState"], second["registrationState"]
    assert after["createdDateTimeUtc"] == before["createdDateTimeUtc"]
    assert after["lastUpdatedDateTimeUtc"] > before["lastUpdatedDateTimeUtc"]
    assert after["substatus"] == "initialAssignment"


async def test_an_operation_that_was_overtaken(device: MqttClient, services: Services) -> None:
    """Two clients register one device at the same time: both learn what came of it, each under its own id."""
    first = (await registered(device, services))["operationId"]
    second = (await registered(device, services))["operationId"]
    for operation in (first, second):
        topic, final = await ask(device, POLL.format(9, operation))
        assert (topic, final["operationId"], final["status"]) == ("200/?$rid=9", operation, "assigned")


async def test_a_made_up_operation_of_the_right_registration(device: MqttClient, services: Services) -> None:
    operation = (await registered(device, services))["operationId"]
    other = operation[:-1] + ("1" if operation[-1] == "0" else "0")
    for made_up in (other, operation[:-1], operation + "0", operation.rpartition(".")[0], "5." + operation):
        assert (await ask(device, POLL.format(9, made_up)))[0] == "404/?$rid=9"


@pytest.mark.parametrize("operation", ["", "5.0000000000000000.none", "%2F", "x" * 500])
async def test_an_unknown_operation(device: MqttClient, operation: str) -> None:
    topic, body = await ask(device, POLL.format(1, operation))
    assert topic == "404/?$rid=1"
    assert body["errorCode"] == 404202


async def test_the_operation_of_another_registration(mqtt: MqttClients, device: MqttClient, services: Services) -> None:
    other = self_signed("dev-02")
    await services.enroll("dev-02", other.certificate_pem.decode())
    _, body = await ask(device, REGISTER.format(1))
    await services.registrations.stop(within=60)
    stranger = await mqtt.to_dps("dev-02", other.certificate)
    await stranger.subscribe(RESPONSES)
    topic, _ = await ask(stranger, POLL.format(1, body["operationId"]))
    assert topic == "404/?$rid=1"


async def test_a_disabled_enrollment(mqtt: MqttClients, services: Services) -> None:
    """202, then 200 with status disabled and a registration state (dps.md 4.9)."""
    await services.enroll("dev-01", DEVICE.certificate_pem.decode(), provisioningStatus="disabled")
    client = await mqtt.to_dps("dev-01", DEVICE.certificate)
    await client.subscribe(RESPONSES)
    topic, body = await ask(client, REGISTER.format(1))
    assert topic == "202/?$rid=1&retry-after=3"
    await services.registrations.stop(within=60)
    topic, final = await ask(client, POLL.format(2, body["operationId"]))
    assert topic == "200/?$rid=2"
    assert final["status"] == "disabled"
    state = final["registrationState"]
    assert (state["status"], state["registrationId"]) == ("disabled", "dev-01")
    assert not {"assignedHub", "deviceId", "substatus", "errorCode"} & set(state)
    report = (await services.reports.find("dev-01"))[0]
    assert report.verdict == "disabled"


async def refusal(client: MqttClient) -> tuple[str, Any]:
    await client.subscribe(RESPONSES)
    return await ask(client, REGISTER.format("r"))


async def test_refusals_come_as_answers(mqtt: MqttClients, services: Services) -> None:
    """CONNECT is accepted, the register message gets 401 (dps.md 2.1)."""
    await services.enroll("dev-03", DEVICE.certificate_pem.decode())
    cases = {
        "x509.thumbprint": await mqtt.to_dps("dev-01", other_self_signed("dev-01").certificate),
        "x509.certificate-presented": await mqtt.to_dps("dev-01"),
        "enrollment.exists": await mqtt.to_dps("dev-02", self_signed("dev-02").certificate),
        "x509.common-name": await mqtt.to_dps("dev-03", DEVICE.certificate),
    }
    for check_id, client in cases.items():
        topic, body = await refusal(client)
        assert topic == "401/?$rid=r"
        assert set(body) == {"errorCode", "trackingId", "message", "timestampUtc"}
        assert body["errorCode"] == 401002
        report = (await services.reports.find(body["trackingId"]))[0]
        assert [item.id for item in report.checks if item.outcome == "refused"] == [check_id]


async def test_an_unknown_id_scope(mqtt: MqttClients, services: Services) -> None:
    client = mqtt.open(DEVICE.certificate)
    await client.send(Connect("dev-01", username="0neFFFFFFFF/registrations/dev-01/api-version=2019-03-31"))
    assert await client.receive(Connack) == Connack()
    topic, body = await refusal(client)
    assert topic == "401/?$rid=r"
    report = (await services.reports.find("dev-01"))[0]
    assert (report.tracking_id, report.scope) == (body["trackingId"], "0neFFFFFFFF")
    assert report.checks[0].id == "id-scope.known"


async def test_a_token_that_is_refused(mqtt: MqttClients, services: Services) -> None:
    """Over MQTT, and nowhere else, *Unauthorized* has the number 401000 (dps.md 11)."""
    key = base64.b64encode(bytes(32)).decode()
    keys = {"primaryKey": key, "secondaryKey": key}
    await services.enroll_by("by-key", {"type": "symmetricKey", "symmetricKey": keys})
    now = services.clock() // SECOND
    cases = {
        ("by-key", key, now - 600): "sas.expiry",
        ("by-key", base64.b64encode(b"another key, of 24 bytes").decode(), now + 60): "sas.signature",
        ("dev-01", key, now + 60): "enrollment.attestation",
        ("nobody", key, now + 60): "enrollment.exists-for-key",
    }
    for (name, own, expiry), check_id in cases.items():
        token = create_token(f"{ID_SCOPE}/registrations/{name}", own, expiry, "registration")
        client = mqtt.open()
        username = f"{ID_SCOPE}/registrations/{name}/api-version=2019-03-31"
        await client.send(Connect(name, username=username, password=token.encode()))
        assert await client.receive(Connack) == Connack()
        topic, body = await refusal(client)
        assert (topic, body["errorCode"], body["message"]) == ("401/?$rid=r", 401000, "Unauthorized")
        report = (await services.reports.find(body["trackingId"]))[0]
        assert [item.id for item in report.checks if item.outcome == "refused"] == [check_id]
        assert report.answer == "401002 Unauthorized, over MQTT 401000"


async def test_an_expired_certificate(mqtt: MqttClients, services: Services) -> None:
    services.clock.advance(400 * 86_400_000_000)
    topic, body = await refusal(await mqtt.to_dps("dev-01", DEVICE.certificate))
    assert topic == "401/?$rid=r"
    report = (await services.reports.find(body["trackingId"]))[0]
    assert [item.id for item in report.checks if item.outcome == "refused"] == ["x509.not-after"]


async def test_answers_are_ascii(device: MqttClient) -> None:
    """One client decodes them so (dps.md 2.5)."""
    await device.publish(REGISTER.format(1), '{"registrationId":"gerät-😀"}'.encode())
    packet = await device.receive(Publish)
    assert packet.payload.isascii()
    assert "gerät-😀" in json.loads(packet.payload)["message"]


async def test_case_of_the_registration_id(mqtt: MqttClients, services: Services) -> None:
    """The enrollment's own spelling is what the device and the hub see (dps.md 4.2)."""
    client = await mqtt.to_dps("DEV-01", DEVICE.certificate)
    await client.subscribe(RESPONSES)
    final = await registered(client, services)
    assert final["registrationState"]["registrationId"] == "dev-01"
    assert final["registrationState"]["deviceId"] == "dev-01"


async def test_an_encoded_registration_id(mqtt: MqttClients, services: Services) -> None:
    named = self_signed("a:b")
    await services.enroll("a:b", named.certificate_pem.decode())
    client = mqtt.open(named.certificate)
    await client.send(Connect("a:b", username=f"{ID_SCOPE.lower()}/registrations/a%3Ab/api-version=2019-03-31"))
    assert await client.receive(Connack) == Connack()
    await client.subscribe(RESPONSES)
    await registered(client, services)


async def test_the_second_slot(mqtt: MqttClients, services: Services) -> None:
    """A registration with the other certificate gives the hub that one's thumbprint (dps.md 5.5)."""
    other = other_self_signed("dev-01")
    await services.enroll(
        "dev-01",
        DEVICE.certificate_pem.decode(),
        attestation={
            "type": "x509",
            "x509": {
                "clientCertificates": {
                    "primary": {"certificate": DEVICE.certificate_pem.decode()},
                    "secondary": {"certificate": other.certificate_pem.decode()},
                }
            },
        },
    )
    thumbprints = set()
    for identity in (DEVICE, other):
        client = await mqtt.to_dps("dev-01", identity.certificate)
        await client.subscribe(RESPONSES)
        await registered(client, services)
        stored, _ = await services.devices.get("hub", "dev-01")
        thumbprints.add(stored.primary_thumbprint)
        await mqtt.to_hub("dev-01", certificate=identity.certificate)
    assert len(thumbprints) == 2


async def test_registering_again_leaves_the_hub_connection_alone(mqtt: MqttClients, services: Services) -> None:
    """As long as it is with the same certificate; with the other one the hub forgets the first (dps.md 5.5)."""
    client = await mqtt.to_dps("dev-01", DEVICE.certificate)
    await client.subscribe(RESPONSES)
    await registered(client, services)
    connected = await mqtt.to_hub("dev-01", certificate=DEVICE.certificate)
    await registered(client, services)
    await connected.publish("devices/dev-01/messages/events/", b"x")
    other = other_self_signed("dev-01")
    await services.enroll("dev-01", other.certificate_pem.decode())
    newer = await mqtt.to_dps("dev-01", other.certificate)
    await newer.subscribe(RESPONSES)
    await registered(newer, services)
    await connected.is_closed()


@pytest.mark.parametrize(
    "username",
    [
        None,
        "",
        "dev-01",
        f"{ID_SCOPE}",
        f"{ID_SCOPE}/registrations",
        f"{ID_SCOPE}/registrations/",
        f"{ID_SCOPE}/registrations//api-version=2019-03-31",
        "/registrations/dev-01/api-version=2019-03-31",
        f"{ID_SCOPE}/devices/dev-01/api-version=2019-03-31",
    ],
)
async def test_user_names_that_name_nothing(mqtt: MqttClients, username: str | None) -> None:
    client = mqtt.open(DEVICE.certificate)
    await client.send(Connect("dev-01", username=username))
    await client.is_refused(5)


@pytest.mark.parametrize("api_version", ["", "/", "/api-version=2021-06-01", "/api-version=x&api-version=y&&a=b&c"])
async def test_ends_of_a_user_name(mqtt: MqttClients, api_version: str) -> None:
    client = mqtt.open(DEVICE.certificate)
    await client.send(Connect("dev-01", username=f"{ID_SCOPE}/registrations/dev-01{api_version}"))
    assert await client.receive(Connack) == Connack()


async def test_a_device_of_a_hub_may_be_called_registrations(mqtt: MqttClients, services: Services) -> None:
    """Its user name looks like a registration's; it is told by what stands where the id would."""
    await services.devices.put("hub", "registrations", IdentityBody(device_id="registrations"), None)
    key = (await services.devices.get("hub", "registrations"))[0].primary_key
    assert key is not None
    client = await mqtt.to_hub("registrations", key=key)
    await client.publish("devices/registrations/messages/events/", b"x")
    events, _ = await services.events.read("hub", (await services.events.positions("hub"))[0], 10)
    assert [event.origin.device_id for event in events] == ["registrations"]


async def test_a_registration_id_may_be_registrations(mqtt: MqttClients, services: Services) -> None:
    named = self_signed("registrations")
    await services.enroll("registrations", named.certificate_pem.decode())
    client = await mqtt.to_dps("registrations", named.certificate)
    await client.subscribe(RESPONSES)
    await registered(client, services)


async def test_a_client_without_keep_alive_is_left_alone(mqtt: MqttClients, device: MqttClient) -> None:
    assert device.protocol.session.deadline() is None
    asked = await mqtt.to_dps("dev-01", DEVICE.certificate, keep_alive=60)
    assert asked.protocol.session.deadline() is not None


async def test_net_asks_for_a_certificate(mqtt: MqttClients, services: Services) -> None:
    """Microsoft.Azure.Iot.Device: ``csr`` in the register, the chain in the poll; its key never travels."""
    services.add_authority()
    attestation = {"type": "x509", "x509": {"clientCertificates": {"primary": {"certificate": PEM}}}}
    await services.enroll_by("dev-01", attestation, credentialPolicyName="line-a")
    client = mqtt.open(DEVICE.certificate)
    user = f"{ID_SCOPE}/registrations/dev-01/api-version=2025-07-01-preview&ClientVersion=.NET%2F2.0"
    await client.send(Connect("dev-01", username=user))
    assert await client.receive(Connack) == Connack()
    await client.subscribe(RESPONSES)

    csr = base64.b64encode(request("dev-01").public_bytes(Encoding.DER)).decode()
    body = json.dumps({"registrationId": "dev-01", "csr": csr}).encode()
    topic, accepted = await ask(client, REGISTER.format(1), body)
    assert topic == "202/?$rid=1&retry-after=3"
    await services.registrations.stop(within=60)
    topic, final = await ask(client, POLL.format(2, accepted["operationId"]))
    assert topic == "200/?$rid=2"
    chain = [base64.b64decode(one) for one in final["registrationState"]["issuedCertificateChain"]]
    assert chain[1:] == [to_der(one) for one in intermediate().chain]


async def test_net_asks_for_a_certificate_in_a_version_without(mqtt: MqttClients, services: Services) -> None:
    """What Microsoft.Azure.Iot.Device says of the service: it rejects ``csr`` in a version that does not know it."""
    client = await mqtt.to_dps("dev-01", DEVICE.certificate)
    await client.subscribe(RESPONSES)
    topic, refusal = await ask(client, REGISTER.format(1), b'{"csr":"TUlJ"}')
    assert topic == "400/?$rid=1"
    assert (refusal["errorCode"], refusal["message"]) == (400004, "Invalid certificate signing request.")
