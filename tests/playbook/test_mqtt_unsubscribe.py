"""UNSUBSCRIBE and UNSUBACK (sections 3.10 and 3.11)."""

import pytest

from muster.wire.mqtt_packets import Unsuback, Unsubscribe
from muster.wire.mqtt_session import MqttSession, ViolationKind
from tests.support.playbook import act, connected, refuses, sends


@pytest.mark.parametrize("filters", [[b"$dps/registrations/res/#"], [b"a/+", b"#", b"b"]])
def test_3_10_4_4_unsubscribe_is_answered_by_unsuback(filters):
    assert (
        connected()
        >> Unsubscribe(11, filters)
        << Unsubscribe(11, filters)
        >> act.unsuback(11)
        << sends(b"\xb0\x02\x00\x0b")
    )


def test_unsuback_by_the_rules_of_actions():
    with pytest.raises(RuntimeError, match="not been accepted"):
        MqttSession(0).unsuback(1)
    with pytest.raises(ValueError, match=r"MQTT-2\.3\.1-1"):
        connected().session.unsuback(0)


@pytest.mark.parametrize(
    "raw, statement",
    [
        pytest.param(b"\xa0\x05\x00\x01\x00\x01t", "MQTT-2.2.2-2", id="flags, see [MQTT-3.10.1-1]"),
        pytest.param(b"\xa2\x05\x00\x00\x00\x01t", "MQTT-2.3.1-1", id="packet id 0"),
        pytest.param(b"\xa2\x02\x00\x01", "MQTT-3.10.3-2", id="no filter"),
        pytest.param(b"\xa2\x04\x00\x01\x00\x00", "MQTT-4.7.3-1", id="empty filter"),
        pytest.param(b"\xa2\x05\x00\x01\x00\x01\xff", "MQTT-1.5.3-1", id="filter no UTF-8"),
        pytest.param(b"\xa2\x05\x00\x01\x00\x02t", "ends inside a field", id="filter cut"),
    ],
)
def test_a_malformed_unsubscribe(raw, statement):
    assert connected() >> raw << refuses(ViolationKind.MALFORMED, statement)


def test_a_client_does_not_send_unsuback():
    assert connected() >> Unsuback(1) << refuses(ViolationKind.OUT_OF_ORDER, "table 2.1")
