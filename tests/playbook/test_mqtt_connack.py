"""CONNACK (section 3.2)."""

import pytest

from muster.wire.mqtt_packets import ACCEPTED, NOT_AUTHORIZED, Connack, Connect, Pingreq, Publish
from muster.wire.mqtt_session import MqttSession, ViolationKind
from tests.support.playbook import Playbook, act, connected, refuses, sends

CONNECT = Connect("dev-1", clean_session=False)


@pytest.mark.parametrize("code", [1, 2, 3, 4, 5])
def test_3_2_2_5_a_refusal_ends_the_connection(code):
    play = Playbook() >> CONNECT << CONNECT >> act.connack(code) << sends(Connack(code))
    assert play.session.closed
    assert not play.session.connected
    assert play.session.deadline() is None
    # [MQTT-3.1.4-5]: what a refused client sent behind its CONNECT is not processed.
    assert play >> Publish(b"t", b"") >> Pingreq()


def test_3_2_2_5_a_refusal_sends_nothing_that_was_owed():
    ping = Pingreq()
    assert (
        Playbook()
        >> CONNECT.encode() + ping.encode()
        << CONNECT
        << ping
        >> act.connack(NOT_AUTHORIZED)
        << sends(Connack(NOT_AUTHORIZED))
    )


def test_acceptance():
    play = connected()
    assert play.session.connected
    assert not play.session.closed


def test_3_2_2_1_a_clean_session_was_not_there_before():
    play = Playbook() >> Connect("dev-1", clean_session=True) << Connect("dev-1", clean_session=True)
    with pytest.raises(ValueError, match=r"MQTT-3\.2\.2-1"):
        play.session.connack(ACCEPTED, session_present=True)
    assert play >> act.connack(ACCEPTED) << sends(b"\x20\x02\x00\x00")


def test_3_2_2_4_a_refusal_has_no_session():
    play = Playbook() >> CONNECT << CONNECT
    with pytest.raises(ValueError, match=r"MQTT-3\.2\.2-4"):
        play.session.connack(NOT_AUTHORIZED, session_present=True)
    assert play.session.take_output() == b""


def test_a_return_code_that_does_not_exist():
    play = Playbook() >> CONNECT << CONNECT
    with pytest.raises(ValueError, match="no return code 6"):
        play.session.connack(6)


def test_connack_needs_a_connect_that_waits():
    with pytest.raises(RuntimeError, match="connack"):
        MqttSession(0).connack()
    with pytest.raises(RuntimeError, match="connack"):
        connected().session.connack()


def test_a_client_does_not_send_connack():
    assert connected() >> Connack() << refuses(ViolationKind.OUT_OF_ORDER, "table 2.1")
