"""MQTT on the wire: what SDKs never send, plain paho, raw sockets and WebSockets, on every TLS port."""

import base64
import ssl
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient
from tests.support.fix_pki import self_signed
from tests.support.fix_server import DEVELOPMENT_KEY, ID_SCOPE, MusterServer
from tests.support.raw_mqtt import RawMqtt
from websockets.sync.client import connect as open_websocket
from websockets.typing import Subprotocol

from muster.domain.sas import create_token, sign
from muster.wire.mqtt_decoder import decode_all
from muster.wire.mqtt_packets import (
    Connack,
    Connect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Suback,
    Subscribe,
)

KEY = base64.b64encode(bytes(range(32))).decode()
REGISTER = b"$dps/registrations/PUT/iotdps-register/?$rid=1"
RESPONSES = b"$dps/registrations/res/#"
SECONDS = 60.0


@pytest.fixture(scope="module")
def device(https: HttpsClient) -> str:
    """A device that authenticates by ``KEY``; its id."""
    https.create_device("raw", authentication=keys())
    return "raw"


def keys() -> dict[str, Any]:
    return {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}


def hub_connect(server: MusterServer, device_id: str, **options: Any) -> Connect:
    token = create_token(f"{server.address}/devices/{device_id}", KEY, int(time.time()) + 3600).encode()
    username = f"{server.address}/{device_id}/?api-version=2021-04-12"
    return Connect(device_id, **{"username": username, "password": token, **options})


def dps_connect(registration_id: str) -> Connect:
    return Connect(registration_id, username=f"{ID_SCOPE}/registrations/{registration_id}/api-version=2019-03-31")


@pytest.fixture
def raw(muster: MusterServer, device: str) -> Iterator[RawMqtt]:
    """The device's own connection, accepted."""
    with RawMqtt(muster) as client:
        client.send(hub_connect(muster, device))
        assert client.receive(Connack) == Connack()
        yield client


# Connecting


@pytest.mark.parametrize("port", [8883, 5671, 443])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["TLSv1.2", "TLSv1.3"])
@pytest.mark.parametrize("sni", [True, False], ids=["SNI", "no SNI"])
def test_every_port_speaks_mqtt(
    muster: MusterServer, device: str, port: int, version: ssl.TLSVersion, sni: bool
) -> None:
    with RawMqtt(muster, port, version, sni) as client:
        client.send(hub_connect(muster, device))
        assert client.receive(Connack) == Connack()
        client.send(Publish(f"devices/{device}/messages/events/".encode(), b"x", 1, 9))
        assert client.receive(Puback) == Puback(9)


def test_connect_in_many_records(muster: MusterServer, device: str) -> None:
    """As embedded stacks send it (interop-facts.md 10)."""
    with RawMqtt(muster) as client:
        for byte in hub_connect(muster, device).encode():
            client.send(bytes([byte]))
        assert client.receive(Connack) == Connack()


def test_everything_at_once(muster: MusterServer, device: str) -> None:
    with RawMqtt(muster) as client:
        topic = f"devices/{device}/messages/events/".encode()
        client.send(
            hub_connect(muster, device),
            Subscribe(1, [(b"$iothub/methods/POST/#", 2), (b"devices/+/messages/devicebound/#", 1), (b"x/#", 0)]),
            *(Publish(topic, b"x", 1, number) for number in range(2, 102)),
            Pingreq(),
        )
        assert client.receive(Connack) == Connack()
        answers = [client.receive(Packet) for _ in range(102)]
    assert Suback(1, [1, 1, 0]) in answers
    assert Pingresp() in answers
    assert [packet for packet in answers if isinstance(packet, Puback)] == [Puback(number) for number in range(2, 102)]


@pytest.mark.parametrize(
    "head",
    [b"\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x03raw", b"\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x03raw"],
    ids=["3.1", "5"],
)
def test_other_versions_of_mqtt(muster: MusterServer, head: bytes) -> None:
    with RawMqtt(muster) as client:
        client.send(b"\x10" + bytes([len(head)]) + head)
        assert client.receive(Connack) == Connack(1)
        client.is_closed()


@pytest.mark.parametrize("username", ["", "raw", f"{ID_SCOPE}/registrations//api-version=2019-03-31", "a/b/c"])
def test_user_names_that_name_nothing(muster: MusterServer, username: str) -> None:
    with RawMqtt(muster) as client:
        client.send(Connect("raw", username=username, password=b"x"))
        assert client.receive(Connack) == Connack(5)
        client.is_closed()


# Registering


def test_a_registration_in_one_breath(muster: MusterServer, https: HttpsClient) -> None:
    """A refused one, as no certificate is presented; every answer in its order."""
    https.enroll("raw-dps", self_signed("raw-dps").certificate_pem.decode())
    with RawMqtt(muster) as client:
        client.send(dps_connect("raw-dps"), Subscribe(1, [(RESPONSES, 1)]), Publish(REGISTER, b"", 1, 2))
        assert client.receive(Connack) == Connack()
        assert client.receive(Suback) == Suback(1, [1])
        assert client.receive(Puback) == Puback(2)
        answer = client.receive(Publish)
        assert answer.topic == b"$dps/registrations/res/401/?$rid=1"
        assert (answer.qos, answer.retain) == (1, False)


# The end of a connection


def test_silence_ends_it(muster: MusterServer, device: str) -> None:
    """After one and a half times the keep-alive; any packet counts."""
    with RawMqtt(muster) as client:
        client.send(hub_connect(muster, device, keep_alive=4))
        assert client.receive(Connack) == Connack()
        time.sleep(3)
        asked = time.monotonic()
        client.send(Pingreq())
        assert client.receive(Pingresp) == Pingresp()
        client.is_closed()
        assert time.monotonic() - asked > 5.9


@pytest.mark.parametrize(
    "packet",
    [
        Publish(b"devices/other/messages/events/", b"x", 1, 1),
        Publish(b"nonsense", b"x", 0),
        Publish(b"devices/raw/messages/events/", b"x", 2, 1),
        Publish(b"devices/raw/messages/events/", bytes(256 * 1024 + 1), 1, 1),
        b"\x30\xff\xff\xff\x7f",  # announces 256 MiB
        b"\xf0\x00",
        b"\x00",
    ],
    ids=["foreign topic", "unknown topic", "QoS 2", "too large", "far too large", "reserved packet", "nonsense"],
)
def test_what_ends_it(raw: RawMqtt, packet: Packet | bytes) -> None:
    raw.send(packet)
    raw.is_closed()


def test_the_newest_connection_wins(muster: MusterServer, raw: RawMqtt, device: str) -> None:
    with RawMqtt(muster) as newer:
        newer.send(hub_connect(muster, device))
        assert newer.receive(Connack) == Connack()
        raw.is_closed()
        newer.send(Pingreq())
        assert newer.receive(Pingresp) == Pingresp()


def test_a_token_expires(muster: MusterServer, device: str) -> None:
    resource = f"{muster.address}/devices/{device}"
    token = create_token(resource, KEY, int(time.time()) - 288).encode()
    with RawMqtt(muster) as client:
        client.send(hub_connect(muster, device, password=token))
        assert client.receive(Connack) == Connack()
        client.is_closed()


def test_a_flood_is_taken_at_the_pace_of_the_disk(muster: MusterServer, https: HttpsClient) -> None:
    """8 MB without reading one answer: the server stops reading, and loses nothing."""
    https.create_device("flood", authentication=keys())
    topic = b"devices/flood/messages/events/"
    with RawMqtt(muster) as client:
        client.send(hub_connect(muster, "flood"))
        assert client.receive(Connack) == Connack()
        for start in range(1, 2001, 100):
            client.send(
                *(Publish(topic, b"%d " % number + bytes(4000), 1, number) for number in range(start, start + 100))
            )
        for number in range(1, 2001):
            assert client.receive(Puback) == Puback(number)


# WebSocket


@pytest.mark.parametrize(
    ("path", "subprotocol"),
    [
        ("/$iothub/websocket", "mqtt"),
        ("/$iothub/websocket?iothub-no-client-cert=true", "mqtt"),
        ("/$iothub/websocket", "MQTT"),
        ("/mqtt", "mqtt"),
        ("/", "mqtt"),
    ],
)
def test_websockets(muster: MusterServer, device: str, path: str, subprotocol: str) -> None:
    """On any path; the sub-protocol comes back as it was written (dps.md 2.8). Packets and frames need not agree."""
    context = ssl.create_default_context(cafile=str(muster.ca_file))
    address = f"wss://{muster.address}{path}"
    with open_websocket(address, ssl=context, subprotocols=[Subprotocol(subprotocol)], open_timeout=SECONDS) as client:
        assert client.subprotocol == subprotocol
        connect = hub_connect(muster, device).encode()
        for piece in (connect[:1], connect[1:7], connect[7:]):
            client.send(piece)
        assert client.recv(SECONDS) == Connack().encode()
        topic = f"devices/{device}/messages/events/".encode()
        client.send(Publish(topic, b"1", 1, 1).encode() + Publish(topic, b"2", 1, 2).encode() + b"\xc0")
        client.send(b"\x00")
        received = b""
        while len(received) < 10:
            frame = client.recv(SECONDS)
            assert isinstance(frame, bytes)
            received += frame
        assert sorted(map(repr, decode_all(received))) == sorted(map(repr, [Puback(1), Puback(2), Pingresp()]))


# paho-mqtt


def test_paho(muster: MusterServer, https: HttpsClient, clients: OpenClient) -> None:
    """A project's own client: user name and tokens by hand, in every spelling, both qualities, both transports."""
    https.create_device("paho", authentication=keys())
    paho = clients("paho_device.py")
    expiry = int(time.time()) + 3600
    resources = ["{}/devices/paho", "{}%2Fdevices%2Fpaho", "{}%2fdevices%2fpaho"]
    requests: list[dict[str, Any]] = []
    for number, resource in enumerate(resources):
        text = resource.format(muster.address)
        signature = quote(sign(KEY, f"{text}\n{expiry}"), safe="")
        requests.append(
            {
                "client_id": "paho",
                "username": f"{muster.address}/paho/?api-version=2018-06-30",
                "password": f"SharedAccessSignature sr={text}&sig={signature}&se={expiry}",
                "messages": [
                    {"topic": "devices/paho/messages/events/", "body": f"{number + 1}{qos}", "qos": qos}
                    for qos in (0, 1)
                ],
                "subscribe": [["devices/paho/messages/devicebound/#", 1], ["$iothub/twin/res/#", 0], ["a/#", 2]],
                "transport": "websockets" if number == 1 else "tcp",
                "clean_session": number == 2,
            }
        )
    for request in requests:  # one after the other: a device has one connection
        result = paho.call("publish", **request)
        assert result == {"code": 0, "granted": [1, 0, 1], "acknowledged": 2, "connected": True}
    assert [event["body"] for event in https.events("paho", 6)] == [10, 11, 20, 21, 30, 31]


def test_paho_as_a_policy(muster: MusterServer, https: HttpsClient, clients: OpenClient) -> None:
    https.create_device("paho-policy", authentication=keys())
    token = create_token(muster.address, DEVELOPMENT_KEY, int(time.time()) + 3600, "device")
    result = clients("paho_device.py").call(
        "publish",
        client_id="paho-policy",
        username=f"{muster.address}/paho-policy/?api-version=2021-04-12",
        password=token,
        messages=[{"topic": "devices/paho-policy/messages/events/a=b", "body": "x", "qos": 1, "retain": True}],
    )
    assert (result["code"], result["acknowledged"]) == (0, 1)
    event = https.events("paho-policy", 1)[0]
    assert event["applicationProperties"] == {"a": "b", "mqtt-retain": "true"}
    assert '"scope":"hub"' in event["connectionAuthMethod"]


def test_paho_keeps_alive_and_is_refused(muster: MusterServer, https: HttpsClient, clients: OpenClient) -> None:
    https.create_device("paho-idle", authentication=keys())
    good = create_token(f"{muster.address}/devices/paho-idle", KEY, int(time.time()) + 3600)
    request = {
        "client_id": "paho-idle",
        "username": f"{muster.address}/paho-idle/?api-version=2021-04-12",
        "password": good,
        "messages": [],
    }
    paho = clients("paho_device.py")
    assert paho.call("publish", **request, keep_alive=5, stay_seconds=9)["connected"]
    assert paho.call("publish", **{**request, "password": good.replace("sig=", "sig=A")})["code"] == 5
