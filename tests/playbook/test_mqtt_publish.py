"""PUBLISH, from the client and to it (sections 3.3 and 4.3)."""

import pytest

from muster.wire.mqtt_packets import Connect, Puback, Pubcomp, Publish, Pubrec, Pubrel
from muster.wire.mqtt_session import MqttSession, ViolationKind
from tests.support.playbook import Playbook, act, connected, refuses, sends

TOPIC = b"devices/dev-1/messages/events/"


def qos_2():
    return connected(MqttSession(0, qos_2=True))


# From the client


@pytest.mark.parametrize(
    "packet",
    [
        Publish(TOPIC, b"", 0),
        Publish(TOPIC, b"21.5", 0),
        Publish(TOPIC, b"21.5", 0, retain=True),
        Publish(TOPIC, b"21.5", 1, 1),
        Publish(TOPIC, b"", 1, 65_535),
        Publish(TOPIC, b"21.5", 1, 7, retain=True, dup=True),
        Publish(TOPIC + b"room=d\xc3\xa4mmrig", b"x" * 127, 1, 7),
        Publish(TOPIC, b"x" * 300, 1, 7),
        Publish(TOPIC, b"x" * 16_384, 0),
        Publish(TOPIC, b"x" * 262_144, 1, 7),
        Publish(b"t" * 65_535, b"", 1, 7),
        Publish(b"\xef\xbb\xbft", b"", 0),
    ],
    ids=lambda packet: repr(packet)[:80],
)
def test_a_message_becomes_an_event(packet):
    assert connected() >> packet << packet


def test_many_in_one_read_keep_their_order():
    packets = [Publish(TOPIC, b"%d" % number, number % 2, number % 2 * number) for number in range(50)]
    play = connected() >> b"".join(packet.encode() for packet in packets)
    for packet in packets:
        play = play << packet
    assert play


def test_topic_text():
    assert Publish("devices/gerät".encode(), b"").topic_text == "devices/gerät"


MALFORMED = [
    pytest.param(b"\x36\x05\x00\x01t\x00\x01", "MQTT-3.3.1-4", id="QoS 3"),
    pytest.param(b"\x3e\x05\x00\x01t\x00\x01", "MQTT-3.3.1-4", id="QoS 3 with DUP"),
    pytest.param(b"\x38\x03\x00\x01t", "MQTT-3.3.1-2", id="DUP at QoS 0"),
    pytest.param(b"\x32\x05\x00\x01t\x00\x00", "MQTT-2.3.1-1", id="packet id 0"),
    pytest.param(b"\x32\x03\x00\x01t", "ends inside a field", id="no packet id"),
    pytest.param(b"\x32\x04\x00\x01t\x00", "ends inside a field", id="half a packet id"),
    pytest.param(b"\x30\x02\x00\x00", "MQTT-4.7.3-1", id="empty topic"),
    pytest.param(b"\x32\x04\x00\x00\x00\x01", "MQTT-4.7.3-1", id="empty topic at QoS 1"),
    pytest.param(b"\x30\x03\x00\x01#", "MQTT-3.3.2-2", id="topic #"),
    pytest.param(b"\x30\x05\x00\x03a/+", "MQTT-3.3.2-2", id="topic a/+"),
    pytest.param(b"\x30\x04\x00\x02a\x00", "MQTT-1.5.3-2", id="topic with U+0000"),
    pytest.param(b"\x30\x03\x00\x01\xff", "MQTT-1.5.3-1", id="topic no UTF-8"),
    pytest.param(b"\x30\x05\x00\x03\xed\xbf\xbf", "MQTT-1.5.3-1", id="topic a surrogate"),
    pytest.param(b"\x30\x04\x00\x02\xc0\x80", "MQTT-1.5.3-1", id="topic an overlong U+0000"),
    pytest.param(b"\x30\x03\x00\x02t", "ends inside a field", id="topic longer than the packet"),
    pytest.param(b"\x30\x01\x00", "ends inside a field", id="no topic length"),
    pytest.param(b"\x30\x00", "ends inside a field", id="nothing at all"),
]


@pytest.mark.parametrize("raw, statement", MALFORMED)
def test_a_malformed_publish_ends_the_connection(raw, statement):
    # Good messages around it: those before are delivered, those behind are not.
    good = Publish(b"t", b"", 0).encode()
    assert connected() >> good + raw + good * 3 << Publish(b"t", b"", 0) << refuses(ViolationKind.MALFORMED, statement)


def test_3_3_5_2_qos_2_is_off_unless_asked_for():
    """hub-device.md 3.7: the hub closes."""
    assert connected() >> Publish(TOPIC, b"", 2, 1) << refuses(ViolationKind.QOS_2, "QoS 2")


def test_a_packet_larger_than_the_limit_is_refused_when_its_length_has_arrived():
    session = MqttSession(0, max_packet_size=100)
    fits = Publish(b"t", b"x" * 95, 0)
    assert len(fits.encode()) == 100
    assert (
        connected(session)
        >> fits
        << fits
        >> Publish(b"t", b"x" * 96, 0).encode()[:2]
        << refuses(ViolationKind.TOO_LARGE, "a packet of 101 bytes is larger than 100")
    )


def test_a_packet_larger_than_the_limit_is_refused_when_it_is_all_there():
    session = MqttSession(0, max_packet_size=20_000)
    assert connected(session) >> Publish(b"t", b"x" * 20_000) << refuses(ViolationKind.TOO_LARGE, "larger than 20000")


def test_a_remaining_length_has_four_bytes_at_most():
    assert connected() >> b"\x30\xff\xff\xff\xff" << refuses(ViolationKind.MALFORMED, "2.2.3")


def test_before_connack_the_fast_path_has_the_same_rules():
    connect = Connect("dev-1")
    assert (
        Playbook()
        >> connect.encode() + Publish(b"t", b"1", 1, 1).encode() + b"\x30\x02\x00\x00"
        << connect
        << Publish(b"t", b"1", 1, 1)
        << refuses(ViolationKind.MALFORMED, "MQTT-4.7.3-1")
    )


# To the client


def test_qos_0_to_the_client():
    play = connected() >> act.publish(b"$iothub/twin/res/200/?$rid=1", b"{}")
    assert play << sends(Publish(b"$iothub/twin/res/200/?$rid=1", b"{}"))
    assert play.session.publish(b"t", b"") == 0
    assert play.session.in_flight_room == 16


def test_4_3_2_1_qos_1_to_the_client_is_in_flight_until_puback():
    play = connected() >> act.publish(b"c2d", b"hello", 1) << sends(Publish(b"c2d", b"hello", 1, 1))
    assert play.session.in_flight_room == 15
    assert play >> act.publish(b"c2d", b"again", 1) << sends(Publish(b"c2d", b"again", 1, 2))
    assert play >> Puback(1) << Puback(1)
    assert play.session.in_flight_room == 15


def test_2_3_1_4_identifiers_go_round_and_leave_out_what_is_in_flight():
    play = connected(MqttSession(0, max_in_flight=5))
    session = play.session
    session._last_packet_id = 65_533
    for taken in (65_535, 1):
        session.publish(b"t", b"", 1, packet_id=taken)
    assert [session.publish(b"t", b"", 1) for _ in range(3)] == [65_534, 2, 3]
    with pytest.raises(RuntimeError, match="5 messages are in flight"):
        session.publish(b"t", b"", 1)
    session.take_output()
    assert play >> Puback(1) << Puback(1)
    assert session.publish(b"t", b"", 1) == 4


def test_4_4_0_1_an_unsettled_message_keeps_its_identifier_on_the_next_connection():
    again = Publish(b"c2d", b"hello", 1, 2, dup=True)
    assert (
        connected()
        >> act.publish(b"c2d", b"hello", 1, dup=True, packet_id=2)
        << sends(again)
        >> act.publish(b"c2d", b"new", 1)
        << sends(Publish(b"c2d", b"new", 1, 1))
        >> act.publish(b"c2d", b"newer", 1)
        << sends(Publish(b"c2d", b"newer", 1, 3))
        >> Puback(2)
        << Puback(2)
    )


def test_an_identifier_in_flight_cannot_be_asked_for():
    session = connected().session
    session.publish(b"t", b"", 1, packet_id=2)
    with pytest.raises(ValueError, match="2 is in flight"):
        session.publish(b"t", b"", 1, packet_id=2)


@pytest.mark.parametrize(
    "arguments, options, fault",
    [
        ((b"", b""), {}, "MQTT-4.7.3-1"),
        ((b"a/#", b""), {}, "MQTT-3.3.2-2"),
        ((b"a\x00", b""), {}, "MQTT-1.5.3-2"),
        ((b"a" * 65_536, b""), {}, "longer than 65535"),
        ((b"a", b"", 3), {}, "MQTT-3.3.1-4"),
        ((b"a", b"", 2), {}, "QoS 2 is turned off"),
        ((b"a", b""), {"dup": True}, "MQTT-3.3.1-2"),
        ((b"a", b""), {"packet_id": 1}, "MQTT-2.3.1-5"),
        ((b"a", b"", 1), {"packet_id": 65_536}, "MQTT-2.3.1-1"),
    ],
)
def test_what_the_protocol_cannot_carry_is_not_queued(arguments, options, fault):
    session = connected().session
    with pytest.raises(ValueError, match=fault):
        session.publish(*arguments, **options)
    assert session.take_output() == b""
    assert session.in_flight_room == 16


def test_a_message_to_a_client_that_is_not_connected():
    with pytest.raises(RuntimeError, match="not been accepted"):
        MqttSession(0).publish(b"t", b"")


# QoS 2, where it is on (section 4.3.3)


def test_4_3_3_2_a_qos_2_message_is_delivered_once():
    message = Publish(b"t", b"1", 2, 9)
    again = Publish(b"t", b"1", 2, 9, dup=True)
    assert (
        qos_2()
        >> message
        << message
        >> again  # PUBREC is still to come: nothing to do
        >> act.pubrec(9)
        << sends(Pubrec(9))
        >> again  # PUBREC was lost: once more
        << sends(Pubrec(9))
        >> Pubrel(9)
        << sends(Pubcomp(9))
        >> message  # a new message with the identifier of the old one
        << message
    )


def test_4_3_3_1_a_qos_2_message_to_the_client():
    play = (
        qos_2()
        >> act.publish(b"t", b"1", 2)
        << sends(Publish(b"t", b"1", 2, 1))
        >> Pubrec(1)
        << Pubrec(1)
        << sends(Pubrel(1))
    )
    assert play.session.in_flight_room == 15
    assert play >> Pubcomp(1) << Pubcomp(1)
    assert play.session.in_flight_room == 16
