"""What the playbooks do not show: limits of the constructor, memory, and the two ways a PUBLISH is read."""

import pytest

from muster.wire.mqtt_packets import Connect, Pingreq, Publish
from muster.wire.mqtt_session import DEFAULT_MAX_PACKET_SIZE, MqttSession, Violation, ViolationKind
from tests.playbook.test_mqtt_publish import MALFORMED
from tests.support.playbook import connected


@pytest.mark.parametrize("limits", [{"max_packet_size": 1}, {"max_in_flight": 0}, {"max_in_flight": 65_536}], ids=str)
def test_limits_that_the_protocol_does_not_allow(limits):
    with pytest.raises(ValueError):
        MqttSession(0, **limits)


def test_the_default_limit_takes_the_largest_hub_message():
    session = connected().session
    largest = Publish(b"t" * 65_535, b"x" * 262_144, 1, 1)
    assert len(largest.encode()) <= DEFAULT_MAX_PACKET_SIZE
    assert session.receive(largest.encode(), 0) == [largest]


def test_an_incomplete_packet_is_kept_and_not_read_again_until_it_is_complete():
    session = connected().session
    encoded = Publish(b"t", b"x" * 1000).encode()
    for position in range(len(encoded) - 1):
        assert session.receive(encoded[position : position + 1], 0) == []
        assert session.buffered == position + 1
    assert session.receive(encoded[-1:] + b"\xc0", 0) == [Publish(b"t", b"x" * 1000)]
    assert session.buffered == 1
    assert session.receive(b"\x00", 0) == [Pingreq()]
    assert session.buffered == 0


def test_an_incomplete_packet_is_dropped_at_the_end():
    session = connected(connect=Connect("d", keep_alive=10)).session
    session.receive(b"\x30\x7f", 0)
    assert session.buffered == 2
    assert len(session.expire(15_000_000)) == 1
    assert session.buffered == 0
    assert session.receive(b"\x00" * 200, 15_000_000) == []
    assert session.buffered == 0


def test_nothing_at_all():
    session = connected().session
    assert session.receive(b"", 1) == []
    assert session.take_output() == b""


def test_output_is_handed_over_once():
    session = connected().session
    session.receive(b"\xc0\x00" * 2, 0)
    session.puback(1)
    assert session.take_output() == b"\xd0\x00\xd0\x00\x40\x02\x00\x01"
    assert session.take_output() == b""


def test_the_fast_path_gives_the_next_message_with_the_same_topic_the_same_object():
    session = connected().session
    first, second, other = session.receive(
        b"".join(Publish(topic, b"").encode() for topic in (b"a/b", b"a/b", b"a/c")), 0
    )
    assert first.topic is second.topic
    assert other.topic == b"a/c"


@pytest.mark.parametrize("raw, statement", MALFORMED)
def test_the_fast_path_and_the_ordinary_one_refuse_for_the_same_reason(raw, statement):
    """Byte by byte, a packet never reaches the fast path."""
    at_once, one_by_one = connected().session, connected().session
    padding = b"\xc0\x00" * 4
    events = at_once.receive(raw + padding, 0)
    others = [event for byte in raw + padding for event in one_by_one.receive(bytes([byte]), 0)]
    assert events == others
    assert isinstance(events[-1], Violation)


@pytest.mark.parametrize("size", [10, 100, 16_000, 17_000])
def test_the_fast_path_knows_the_size_limit(size):
    session = connected(MqttSession(0, max_packet_size=size + 20)).session
    small, large = Publish(b"t", b"x" * size), Publish(b"t", b"x" * (size + 20))
    events = session.receive(small.encode() + large.encode() + small.encode(), 0)
    assert events[0] == small
    assert [event.kind for event in events[1:]] == [ViolationKind.TOO_LARGE]


def test_a_violation_says_what_and_why():
    violation = Violation(ViolationKind.TOO_LARGE, "a packet of 9 bytes is larger than 8")
    assert violation == Violation(ViolationKind.TOO_LARGE, "a packet of 9 bytes is larger than 8")
    assert repr(violation).startswith("Violation(<ViolationKind.TOO_LARGE: 'packet too large'>, 'a packet")
