"""DISCONNECT (section 3.14), the reserved types (table 2.1), and what comes after the end."""

import pytest

from muster.wire.mqtt_packets import Connect, Disconnect, Pingreq, Publish
from muster.wire.mqtt_session import ViolationKind
from tests.support.playbook import Playbook, connected, refuses


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
    play = Playbook() >> connect.encode() + Disconnect().encode() << connect << Disconnect()
    assert play
    with pytest.raises(RuntimeError, match="connack"):
        play.session.connack()


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
