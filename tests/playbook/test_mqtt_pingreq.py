"""PINGREQ, PINGRESP (sections 3.12 and 3.13) and the keep alive time they serve (section 3.1.2.10)."""

import pytest

from muster.wire.mqtt_packets import Connect, Pingreq, Pingresp, Publish
from muster.wire.mqtt_session import MqttSession, ViolationKind
from tests.support.playbook import Playbook, act, after, connected, refuses, sends

MINUTE = 60_000_000


def test_3_12_4_1_pingreq_is_answered_at_once():
    assert connected() >> Pingreq() << Pingreq() << sends(Pingresp())


@pytest.mark.parametrize("raw, statement", [(b"\xc1\x00", "MQTT-2.2.2-2"), (b"\xc0\x01\x00", "after its last field")])
def test_a_malformed_pingreq(raw, statement):
    assert connected() >> raw << refuses(ViolationKind.MALFORMED, statement)


def test_a_client_does_not_send_pingresp():
    assert connected() >> Pingresp() << refuses(ViolationKind.OUT_OF_ORDER, "table 2.1")


def test_3_1_2_24_silence_of_one_and_a_half_times_the_keep_alive_ends_the_connection():
    play = connected(connect=Connect("dev-1", keep_alive=60)) >> after(89.999999) >> after(0.000001)
    assert play << refuses(ViolationKind.KEEP_ALIVE_TIMEOUT, "no packet for 90 s, with a keep alive of 60 s")
    assert play.session.deadline() is None
    assert play >> Pingreq() >> after(1000)


def test_any_packet_restarts_the_keep_alive_time():
    play = connected(connect=Connect("dev-1", keep_alive=60))
    for packet in (Publish(b"t", b""), Publish(b"t", b"", 1, 1), Publish(b"t", b"x" * 20_000)):
        play = play >> after(89) >> packet << packet
    assert play >> after(89) >> Pingreq() << Pingreq() << sends(Pingresp())
    assert play >> after(89) >> after(1) << refuses(ViolationKind.KEEP_ALIVE_TIMEOUT, "MQTT-3.1.2-24")


def test_a_packet_that_trickles_in_does_not_restart_it():
    play = connected(connect=Connect("dev-1", keep_alive=60)) >> after(60) >> b"\x30\x05\x00\x01"
    assert play >> after(30) << refuses(ViolationKind.KEEP_ALIVE_TIMEOUT, "MQTT-3.1.2-24")


def test_the_keep_alive_time_runs_before_connack_too():
    connect = Connect("dev-1", keep_alive=10)
    assert Playbook() >> connect << connect >> after(15) << refuses(ViolationKind.KEEP_ALIVE_TIMEOUT, "for 15 s")


@pytest.mark.parametrize(
    "keep_alive, max_silence, allowed",
    [
        (60, None, 90 * 1_000_000),
        (1, None, 1_500_000),
        (0, None, None),
        (65_535, None, 98_302_500_000),
        (60, 1767 * 1_000_000, 90 * 1_000_000),
        (1177, 1767 * 1_000_000, 1_765_500_000),
        (1178, 1767 * 1_000_000, 1_767_000_000),
        (65_535, 1767 * 1_000_000, 1_767_000_000),
        (0, 1767 * 1_000_000, 1_767_000_000),
    ],
)
def test_how_much_silence_is_allowed(keep_alive, max_silence, allowed):
    """Capped at 29.45 minutes, keep alive 0 is the cap (hub-device.md 3.6), or never (dps.md 2.1)."""
    session = MqttSession(1000, max_silence=max_silence)
    session.receive(Connect("dev-1", keep_alive=keep_alive).encode(), 5000)
    assert session.deadline() == (None if allowed is None else 5000 + allowed)
    session.connack()
    assert session.deadline() == (None if allowed is None else 5000 + allowed)


def test_the_default_cap_is_the_hubs():
    play = connected(connect=Connect("dev-1", keep_alive=0))
    assert play.session.deadline() == 1_767_000_000


def test_another_cap_once_the_caller_knows_whom_the_client_wants():
    connect = Connect("dev-1", keep_alive=0)
    assert (
        Playbook()
        >> connect
        << connect
        >> act.set_max_silence(None)
        >> act.connack()
        << sends(b"\x20\x02\x00\x00")
        >> after(1_000_000)
        >> act.set_max_silence(5 * MINUTE)
        >> after(1)
        << refuses(ViolationKind.KEEP_ALIVE_TIMEOUT, "for 300 s, with a keep alive of 0 s")
    )


def test_the_deadline_before_connect():
    session = MqttSession(1000, connect_timeout=5000)
    assert session.deadline() == 6000
    assert session.expire(5999) == []
    assert not session.closed
