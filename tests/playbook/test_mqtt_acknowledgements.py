"""PUBACK, PUBREC, PUBREL, PUBCOMP (sections 3.4 to 3.7)."""

import pytest

from muster.wire.mqtt_packets import Connect, Puback, Pubcomp, Publish, Pubrec, Pubrel
from muster.wire.mqtt_session import MqttSession, ViolationKind
from tests.support.playbook import Playbook, act, connected, refuses, sends


def qos_2():
    return connected(MqttSession(0, qos_2=True))


# PUBACK


def test_4_3_2_2_puback_to_the_client():
    message = Publish(b"t", b"1", 1, 300)
    assert connected() >> message << message >> act.puback(300) << sends(b"\x40\x02\x01\x2c")


@pytest.mark.parametrize("identifiers", [[], [1], [1, 2], [65_535, 1, 300], list(range(1, 200)), (5, 5)])
def test_pubacks_are_the_same_as_many_times_puback(identifiers):
    one_by_one = connected().session
    for packet_id in identifiers:
        one_by_one.puback(packet_id)
    assert connected() >> act.pubacks(identifiers) << sends(one_by_one.take_output())


@pytest.mark.parametrize("identifiers", [[0], [65_536], [1, 0], [1, 65_536], [-1]])
def test_2_3_1_1_an_identifier_that_does_not_exist(identifiers):
    session = connected().session
    with pytest.raises(ValueError, match=r"MQTT-2\.3\.1-1"):
        session.pubacks(identifiers)
    assert session.take_output() == b""


def test_puback_before_connack():
    play = Playbook() >> Connect("dev-1") << Connect("dev-1")
    for act_wrongly in (lambda: play.session.puback(1), lambda: play.session.pubacks([1, 2])):
        with pytest.raises(RuntimeError, match="not been accepted"):
            act_wrongly()


@pytest.mark.parametrize("stranger", [Puback(1), Puback(65_535)])
def test_a_puback_nobody_waits_for_is_tolerated(stranger):
    """A client may acknowledge what an earlier connection sent."""
    assert connected() >> stranger


def test_a_second_puback_is_tolerated():
    assert (
        connected()
        >> act.publish(b"t", b"", 1)
        << sends(Publish(b"t", b"", 1, 1))
        >> Puback(1)
        << Puback(1)
        >> Puback(1)
    )


@pytest.mark.parametrize(
    "raw, statement",
    [
        (b"\x40\x02\x00\x00", "MQTT-2.3.1-1"),
        (b"\x40\x01\x01", "ends inside a field"),
        (b"\x40\x03\x00\x01\x00", "after its last field"),
        (b"\x41\x02\x00\x01", "MQTT-2.2.2-2"),
    ],
)
def test_a_malformed_puback(raw, statement):
    assert connected() >> raw << refuses(ViolationKind.MALFORMED, statement)


# The packets of QoS 2


@pytest.mark.parametrize("packet", [Pubrec(1), Pubrel(1), Pubcomp(1)])
def test_the_packets_of_qos_2_are_off_unless_asked_for(packet):
    assert connected() >> packet << refuses(ViolationKind.QOS_2, "QoS 2")


@pytest.mark.parametrize(
    "raw, statement",
    [
        (b"\x60\x02\x00\x01", "MQTT-2.2.2-2"),  # [MQTT-3.6.1-1]: PUBREL has flags 0010
        (b"\x52\x02\x00\x01", "MQTT-2.2.2-2"),
        (b"\x72\x02\x00\x01", "MQTT-2.2.2-2"),
        (b"\x50\x02\x00\x00", "MQTT-2.3.1-1"),
        (b"\x62\x02\x00\x00", "MQTT-2.3.1-1"),
        (b"\x70\x00", "ends inside a field"),
    ],
)
def test_a_malformed_packet_of_qos_2(raw, statement):
    assert qos_2() >> raw << refuses(ViolationKind.MALFORMED, statement)


def test_pubrec_goes_to_a_message_that_waits_for_it():
    session = qos_2().session
    with pytest.raises(ValueError, match="no QoS 2 message 1"):
        session.pubrec(1)
    with pytest.raises(RuntimeError, match="not been accepted"):
        MqttSession(0, qos_2=True).pubrec(1)


def test_pubrec_goes_out_once():
    message = Publish(b"t", b"", 2, 1)
    play = qos_2() >> message << message >> act.pubrec(1) << sends(Pubrec(1))
    with pytest.raises(ValueError, match="no QoS 2 message 1"):
        play.session.pubrec(1)


def test_4_3_3_1_pubrel_before_pubrec_is_a_violation():
    message = Publish(b"t", b"", 2, 1)
    assert qos_2() >> message << message >> Pubrel(1) << refuses(ViolationKind.OUT_OF_ORDER, "MQTT-4.3.3-1")


def test_4_4_0_1_an_unknown_pubrel_is_answered():
    """The message went to an earlier connection; without PUBCOMP the client would ask for ever."""
    assert qos_2() >> Pubrel(5) << sends(Pubcomp(5))


def test_an_unknown_pubrec_is_answered_too():
    assert qos_2() >> Pubrec(5) << sends(Pubrel(5)) >> Pubcomp(5)


def test_pubrec_again():
    assert (
        qos_2()
        >> act.publish(b"t", b"", 2)
        << sends(Publish(b"t", b"", 2, 1))
        >> Pubrec(1)
        << Pubrec(1)
        << sends(Pubrel(1))
        >> Pubrec(1)
        << sends(Pubrel(1))
        >> Pubcomp(1)
        << Pubcomp(1)
        >> Pubcomp(1)
    )


@pytest.mark.parametrize("wrong", [Puback(1), Pubcomp(1)])
def test_another_acknowledgement_than_the_one_awaited_settles_nothing(wrong):
    play = qos_2() >> act.publish(b"t", b"", 2) << sends(Publish(b"t", b"", 2, 1)) >> wrong
    assert play.session.in_flight_room == 15


def test_4_4_0_1_a_pubrel_is_sent_again_on_the_next_connection():
    play = qos_2() >> act.pubrel(3) << sends(Pubrel(3))
    assert play.session.in_flight_room == 15
    assert play >> Pubcomp(3) << Pubcomp(3)


def test_pubrel_by_the_rules_of_actions():
    with pytest.raises(ValueError, match="turned off"):
        connected().session.pubrel(1)
    with pytest.raises(RuntimeError, match="not been accepted"):
        MqttSession(0, qos_2=True).pubrel(1)
    session = qos_2().session
    session.pubrel(1)
    with pytest.raises(ValueError, match="1 is in flight"):
        session.pubrel(1)


def test_3_2_0_1_answers_of_the_qos_2_flow_wait_for_connack():
    connect = Connect("dev-1", clean_session=False)
    assert (
        Playbook(MqttSession(0, qos_2=True))
        >> connect.encode() + Pubrel(4).encode() + Pubrec(6).encode()
        << connect
        >> act.connack(session_present=True)
        << sends(b"\x20\x02\x01\x00", Pubcomp(4), Pubrel(6))
    )
