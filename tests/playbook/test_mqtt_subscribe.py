"""SUBSCRIBE and SUBACK (sections 3.8 and 3.9)."""

import pytest

from muster.wire.mqtt_packets import SUBSCRIPTION_FAILED, Suback, Subscribe
from muster.wire.mqtt_session import MqttSession, ViolationKind
from tests.support.playbook import act, connected, refuses, sends


@pytest.mark.parametrize(
    "filters",
    [
        [(b"$dps/registrations/res/#", 1)],
        [(b"devices/+/messages/devicebound/#", 0)],
        [(b"#", 2), (b"+", 0), (b"/", 1), (b"+/+", 1), (b"a//b", 0), (b"\xc3\xa4/#", 0)],
    ],
)
def test_3_8_4_1_subscribe_is_answered_by_suback(filters):
    codes = [min(qos, 1) for _, qos in filters]
    assert (
        connected()
        >> Subscribe(10, filters)
        << Subscribe(10, filters)
        >> act.suback(10, codes)
        << sends(Suback(10, codes))
    )


def test_3_9_3_a_return_code_for_each_filter_in_order():
    assert connected() >> act.suback(1, [0, 1, 2, SUBSCRIPTION_FAILED]) << sends(b"\x90\x06\x00\x01\x00\x01\x02\x80")


@pytest.mark.parametrize("codes, statement", [([], "MQTT-3.8.4-5"), ([3], "MQTT-3.9.3-2"), ([0, 0x81], "MQTT-3.9.3-2")])
def test_a_suback_that_does_not_exist(codes, statement):
    session = connected().session
    with pytest.raises(ValueError, match=statement):
        session.suback(1, codes)
    assert session.take_output() == b""


def test_suback_before_connack():
    with pytest.raises(RuntimeError, match="not been accepted"):
        MqttSession(0).suback(1, [0])


def raw_subscribe(payload, packet_id=b"\x00\x01", first_byte=0x82):
    return bytes([first_byte, len(packet_id + payload)]) + packet_id + payload


@pytest.mark.parametrize(
    "raw, statement",
    [
        pytest.param(raw_subscribe(b"\x00\x01t\x00", first_byte=0x80), "MQTT-2.2.2-2", id="flags, see [MQTT-3.8.1-1]"),
        pytest.param(raw_subscribe(b"\x00\x01t\x00", packet_id=b"\0\0"), "MQTT-2.3.1-1", id="packet id 0"),
        pytest.param(raw_subscribe(b""), "MQTT-3.8.3-3", id="no filter"),
        pytest.param(raw_subscribe(b"\x00\x01t\x03"), "MQTT-3-8.3-4", id="QoS 3"),
        pytest.param(raw_subscribe(b"\x00\x01t\x10"), "MQTT-3-8.3-4", id="reserved bits of the QoS"),
        pytest.param(raw_subscribe(b"\x00\x01t"), "ends inside a field", id="no QoS"),
        pytest.param(raw_subscribe(b"\x00\x09t\x00"), "ends inside a field", id="filter cut"),
        pytest.param(raw_subscribe(b"\x00\x01t\x00\x00"), "ends inside a field", id="second filter cut"),
        pytest.param(raw_subscribe(b"\x00\x00\x00"), "MQTT-4.7.3-1", id="empty filter"),
        pytest.param(raw_subscribe(b"\x00\x01\xff\x00"), "MQTT-1.5.3-1", id="filter no UTF-8"),
        pytest.param(raw_subscribe(b"\x00\x02a\x00\x00"), "MQTT-1.5.3-2", id="filter with U+0000"),
        pytest.param(raw_subscribe(b"\x00\x03#/a\x00"), "MQTT-4.7.1-2", id="#/a"),
        pytest.param(b"\x82\x01\x00", "ends inside a field", id="half a packet id"),
    ],
)
def test_a_malformed_subscribe(raw, statement):
    assert connected() >> raw << refuses(ViolationKind.MALFORMED, statement)


def test_a_client_does_not_send_suback():
    assert connected() >> Suback(1, [0]) << refuses(ViolationKind.OUT_OF_ORDER, "table 2.1")
