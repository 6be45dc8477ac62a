"""CONNECT (section 3.1)."""

import pytest

from muster.wire.mqtt_packets import (
    ACCEPTED,
    IDENTIFIER_REJECTED,
    UNACCEPTABLE_PROTOCOL_VERSION,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Publish,
    Subscribe,
    Will,
)
from muster.wire.mqtt_session import MqttSession, ViolationKind
from tests.support.playbook import Playbook, act, after, connected, refuses, sends

DEVICE = Connect(
    "dev-1",
    username="hub.local/dev-1/?api-version=2021-04-12",
    password=b"SharedAccessSignature sr=hub.local%2Fdevices%2Fdev-1&sig=c2ln&se=1",
    clean_session=False,
    keep_alive=240,
    will=Will(b"devices/dev-1/messages/events/", b"gone", qos=1),
)


def raw_connect(
    *,
    name=b"\x00\x04MQTT",
    level=4,
    flags=0x02,
    keep_alive=b"\x00\x3c",
    payload=b"\x00\x05dev-1",
    first_byte=0x10,
):
    body = name + bytes([level, flags]) + keep_alive + payload
    return bytes([first_byte, len(body)]) + body


def test_a_connection_is_asked_for_and_granted():
    assert (
        Playbook()
        >> DEVICE
        << DEVICE
        >> act.connack(ACCEPTED, session_present=True)
        << sends(Connack(ACCEPTED, session_present=True))
    )


def test_connect_may_arrive_byte_by_byte():
    """Embedded stacks send it in several TLS records (interop-facts.md 10)."""
    play = Playbook()
    encoded = DEVICE.encode()
    for position in range(len(encoded) - 1):
        play = play >> encoded[position : position + 1]
    assert play >> encoded[-1:] << DEVICE


@pytest.mark.parametrize("packet", [Pingreq(), Publish(b"t", b""), Subscribe(1, [(b"t", 0)]), Disconnect()])
def test_3_1_0_1_the_first_packet_must_be_connect(packet):
    assert Playbook() >> packet << refuses(ViolationKind.OUT_OF_ORDER, "MQTT-3.1.0-1")


@pytest.mark.parametrize("stranger", [b"G", b"\x80\x2e", b"AMQP\x00\x01\x00\x00"])
def test_3_1_0_1_another_protocol_is_refused_by_its_first_byte(stranger):
    assert Playbook() >> stranger << refuses(ViolationKind.OUT_OF_ORDER, "MQTT-3.1.0-1")


def test_3_1_0_2_a_second_connect_is_a_violation():
    assert connected() >> Connect("dev-1") << refuses(ViolationKind.OUT_OF_ORDER, "MQTT-3.1.0-2")


def test_3_1_0_2_also_before_connack():
    first = Connect("dev-1")
    assert Playbook() >> first << first >> first << refuses(ViolationKind.OUT_OF_ORDER, "MQTT-3.1.0-2")


def test_3_1_2_2_mqtt_3_1_gets_connack_1():
    """The Paho C client falls back to MQIsdp after a refusal (interop-facts.md 10)."""
    assert (
        Playbook()
        >> raw_connect(name=b"\x00\x06MQIsdp", level=3)
        << refuses(ViolationKind.PROTOCOL_VERSION, "b'MQIsdp' level 3")
        << sends(Connack(UNACCEPTABLE_PROTOCOL_VERSION))
    )


def test_3_1_2_2_mqtt_5_gets_connack_1_in_mqtt_3_1_1_framing():
    """What stands behind the level is read by nobody: in MQTT 5 it has another layout."""
    properties = b"\x05\x11\x00\x00\x00\x3c"
    assert (
        Playbook()
        >> raw_connect(level=5, payload=properties + b"\x00\x05dev-1")
        << refuses(ViolationKind.PROTOCOL_VERSION, "level 5")
        << sends(b"\x20\x02\x00\x01")
    )


def test_3_1_2_1_an_unknown_protocol_name_gets_connack_1():
    assert (
        Playbook()
        >> raw_connect(name=b"\x00\x04mqtt")
        << refuses(ViolationKind.PROTOCOL_VERSION, "MQTT-3.1.2-1")
        << sends(Connack(UNACCEPTABLE_PROTOCOL_VERSION))
    )


@pytest.mark.parametrize(
    "raw, statement",
    [
        pytest.param(raw_connect(first_byte=0x11), "MQTT-2.2.2-2", id="fixed header flags"),
        pytest.param(raw_connect(flags=0x03), "MQTT-3.1.2-3", id="reserved connect flag"),
        pytest.param(raw_connect(flags=0x0A), "MQTT-3.1.2-13", id="will QoS without will"),
        pytest.param(raw_connect(flags=0x22), "MQTT-3.1.2-15", id="will retain without will"),
        pytest.param(raw_connect(flags=0x1E), "MQTT-3.1.2-14", id="will QoS 3"),
        pytest.param(raw_connect(flags=0x42), "MQTT-3.1.2-22", id="password without user name"),
        pytest.param(raw_connect(flags=0x82), "ends inside a field", id="user name flag, no user name"),
        pytest.param(raw_connect(flags=0xC2, payload=b"\0\x01d\0\x01u"), "ends inside", id="password missing"),
        pytest.param(raw_connect(flags=0x06, payload=b"\0\x01d\0\x01t"), "ends inside", id="will message missing"),
        pytest.param(raw_connect(payload=b""), "ends inside a field", id="no client id"),
        pytest.param(raw_connect(payload=b"\x00\x05dev-1x"), "after its last field", id="bytes left over"),
        pytest.param(raw_connect(payload=b"\x00\x02\xc3\x28"), "MQTT-1.5.3-1", id="client id no UTF-8"),
        pytest.param(raw_connect(payload=b"\x00\x03\xed\xa0\x80"), "MQTT-1.5.3-1", id="client id, a surrogate"),
        pytest.param(raw_connect(payload=b"\x00\x02a\x00"), "MQTT-1.5.3-2", id="client id with U+0000"),
        pytest.param(raw_connect(flags=0x82, payload=b"\0\x01d\0\x01\xff"), "MQTT-1.5.3-1", id="user name no UTF-8"),
        pytest.param(
            raw_connect(flags=0x06, payload=b"\0\x01d\0\x01\xff\0\0"),
            "MQTT-1.5.3-1",
            id="will topic no UTF-8",
        ),
        pytest.param(
            raw_connect(flags=0x06, payload=b"\0\x01d\0\x01#\0\0"), "MQTT-3.3.2-2", id="will topic a wildcard"
        ),
        pytest.param(b"\x10\x05\x00\x04MQT", "ends inside a field", id="cut in the protocol name"),
        pytest.param(b"\x10\x06\x00\x04MQTT", "ends inside a field", id="cut before the level"),
        pytest.param(b"\x10\x07\x00\x04MQTT\x04", "ends inside a field", id="cut before the flags"),
    ],
)
def test_3_1_4_1_a_connect_against_the_rules_is_closed_without_connack(raw, statement):
    assert Playbook() >> raw << refuses(ViolationKind.MALFORMED, statement)


def test_3_1_3_6_an_empty_client_id_with_a_clean_session_is_for_the_caller_to_judge():
    packet = Connect("", clean_session=True)
    assert Playbook() >> packet << packet >> act.connack(IDENTIFIER_REJECTED) << sends(Connack(IDENTIFIER_REJECTED))


def test_3_1_3_8_an_empty_client_id_without_a_clean_session_gets_connack_2():
    assert (
        Playbook()
        >> Connect("", clean_session=False)
        << refuses(ViolationKind.CLIENT_ID, "MQTT-3.1.3-8")
        << sends(Connack(IDENTIFIER_REJECTED))
    )


def test_1_5_3_3_a_byte_order_mark_stays():
    packet = Connect("\ufeffdev-1")
    assert Playbook() >> packet << packet
    assert raw_connect(payload=b"\x00\x08\xef\xbb\xbfdev-1") == Connect("\ufeffdev-1", keep_alive=60).encode()


def test_3_1_3_5_a_client_id_may_be_longer_than_23_bytes_and_hold_any_character():
    packet = Connect("dev/modül-" + "x" * 128)
    assert Playbook() >> packet << packet


def test_3_1_4_packets_behind_connect_are_delivered_before_connack():
    connect, subscribe, publish = Connect("dev-1"), Subscribe(1, [(b"t", 1)]), Publish(b"t", b"1", 1, 2)
    assert (
        Playbook()
        >> connect.encode() + subscribe.encode() + publish.encode()
        << connect
        << subscribe
        << publish
        >> act.connack(ACCEPTED)
        << sends(Connack(ACCEPTED))
        >> act.puback(2)
        << sends(b"\x40\x02\x00\x02")
    )


def test_3_2_0_1_a_pingresp_waits_for_connack():
    connect = Connect("dev-1")
    assert (
        Playbook()
        >> connect.encode() + Pingreq().encode() * 2
        << connect
        << Pingreq()
        << Pingreq()
        >> act.connack(ACCEPTED)
        << sends(Connack(ACCEPTED), Pingresp(), Pingresp())
        >> Pingreq()
        << Pingreq()
        << sends(Pingresp())
    )


def test_section_3_1_4_connect_has_to_come_in_time():
    assert (
        Playbook(MqttSession(0, connect_timeout=10_000_000))
        >> b"\x10"
        >> after(9.999999)
        >> after(0.000001)
        << refuses(ViolationKind.CONNECT_TIMEOUT, "3.1.4")
        >> DEVICE
    )
