"""DISCONNECT (section 3.14), the reserved types (table 2.1), and what comes after the end."""

import pytest

from muster.wire.mqtt_packets import Connect, Disconnect, Pingreq, Publish, Subscribe
from muster.wire.mqtt_session import MqttSession, ViolationKind
from tests.support.playbook import Playbook, act, connected, refuses


def test_disconnect_ends_the_connection():
    play = connected() >> Disconnect() << Disconnect()
    assert play
    assert play.session.closed
    assert play.session.deadline() is None


def test_3_14_4_2_what_a_client_sends_behind_disconnect_is_ignored():
    assert (
        connected()
        >> Disconnect().encode() + Publish(b"t", b"").encode() + b"\xff\xff"
        << Disconnect()
        >> Pingreq()
        >> b"\xff\xff"
    )


def test_disconnect_before_connack():
    connect = Connect("dev-1")
    assert (
        Playbook()
        >> connect.encode() + Disconnect().encode()
        << connect
        << Disconnect()
        >> act.connack()
        >> act.suback(1, [0])
    )


def test_after_the_end_an_action_does_nothing():
    """The client published, subscribed and left in one segment: the caller works on what it sent all the same."""
    message, subscribe = Publish(b"t", b"", 1, 7), Subscribe(8, [(b"t", 1)])
    play = connected(MqttSession(0, qos_2=True))
    play = (
        play
        >> message.encode() + subscribe.encode() + Disconnect().encode()
        << message
        << subscribe
        << Disconnect()
        >> act.puback(7)
        >> act.pubacks([7, 9])
        >> act.suback(8, [1])
        >> act.unsuback(8)
        >> act.pubrec(7)
        >> act.pubrel(7)
        >> act.connack()
    )
    assert play
    assert play.session.publish(b"t", b"", 1) == 0
    assert play.session.publish(b"t", b"") == 0
    assert play.session.in_flight_room == 16
    assert play.session.take_output() == b""


@pytest.mark.parametrize("raw, statement", [(b"\xe1\x00", "MQTT-2.2.2-2"), (b"\xe0\x01\x00", "after its last field")])
def test_3_14_1_1_a_malformed_disconnect(raw, statement):
    assert connected() >> raw << refuses(ViolationKind.MALFORMED, statement)


@pytest.mark.parametrize("first_byte", [0x00, 0x0F, 0xF0, 0xFF])
def test_reserved_packet_types(first_byte):
    assert connected() >> bytes([first_byte, 0]) << refuses(ViolationKind.MALFORMED, "table 2.1")


def test_4_8_0_1_after_a_violation_nothing_is_heard():
    play = connected() >> b"\x00" << refuses(ViolationKind.MALFORMED) >> Publish(b"t", b"") >> Connect("dev-1")
    assert play
    assert play.session.buffered == 0
