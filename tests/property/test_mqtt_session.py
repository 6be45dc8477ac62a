"""The MQTT session: no bytes make it raise or grow, chunks make no difference, identifiers are never given twice."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from muster.wire.mqtt_packets import (
    Connect,
    Disconnect,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
)
from muster.wire.mqtt_session import MqttSession, Violation
from tests.property.mqtt_strategies import from_client, packets

LIMIT = 300


def new_session(*, connect: bool, qos_2: bool) -> MqttSession:
    session = MqttSession(0, max_packet_size=LIMIT, qos_2=qos_2)
    if connect:
        session.receive(Connect("dev-1").encode(), 0)
        session.connack()
        session.take_output()
    return session


def feed(session: MqttSession, chunks: list[bytes]) -> tuple[list[object], bytes]:
    """All events and all output; what must hold after each chunk is looked at on the way."""
    events: list[object] = []
    output = b""
    for chunk in chunks:
        events += session.receive(chunk, 1)
        output += session.take_output()
        assert session.buffered <= LIMIT
    for event in events[:-1]:
        assert not isinstance(event, (Violation, Disconnect))
    assert session.closed == bool(events and isinstance(events[-1], (Violation, Disconnect)))
    return events, output


def cut(data: bytes, positions: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(position, len(data)) for position in positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


positions = st.lists(st.integers(0, 400), max_size=12)
# Good packets with now and then something else among them, so that both paths are left and entered again.
streams = st.lists(
    st.one_of(from_client, packets).map(lambda packet: packet.encode()) | st.binary(max_size=6), max_size=12
)


@given(st.booleans(), st.booleans(), st.binary(max_size=600))
def test_any_bytes_give_events_or_a_violation(connect, qos_2, data):
    feed(new_session(connect=connect, qos_2=qos_2), [data])


@given(st.booleans(), st.booleans(), streams, positions)
@settings(max_examples=300)
def test_any_chunking_gives_the_same_events_and_the_same_output(connect, qos_2, stream, where):
    data = b"".join(stream)
    whole = feed(new_session(connect=connect, qos_2=qos_2), [data])
    in_chunks = feed(new_session(connect=connect, qos_2=qos_2), cut(data, where))
    one_by_one = feed(new_session(connect=connect, qos_2=qos_2), [bytes([byte]) for byte in data])
    assert whole == in_chunks == one_by_one


@given(st.lists(from_client, max_size=20))
def test_what_a_client_may_send_becomes_one_event_each(sent):
    events, _ = feed(new_session(connect=True, qos_2=False), [b"".join(packet.encode() for packet in sent)])
    # Nothing is in flight, so that a PUBACK settles nothing.
    assert events == [packet for packet in sent if not isinstance(packet, Puback)]


@given(st.integers(0, 65_535), st.none() | st.integers(1, 10**10), st.integers(0, 10**12))
def test_expire_does_nothing_before_the_deadline_and_ends_the_connection_at_it(keep_alive, max_silence, start):
    session = MqttSession(start, max_silence=max_silence)
    session.receive(Connect("dev-1", keep_alive=keep_alive).encode(), start)
    session.connack()
    deadline = session.deadline()
    assert (deadline is None) == (keep_alive == 0 and max_silence is None)
    if deadline is not None:
        assert session.expire(deadline - 1) == []
        assert session.connected
        assert len(session.expire(deadline)) == 1
        assert session.closed


class InFlight(RuleBasedStateMachine):
    """Messages to a client: the identifiers in flight against a plain set."""

    def __init__(self):
        super().__init__()
        self.session = MqttSession(0, max_in_flight=6, qos_2=True)
        self.session.receive(Connect("dev-1").encode(), 0)
        self.session.connack()
        self.session.take_output()
        self.session._last_packet_id = 65_530  # close to where the identifiers begin again
        self.waiting: dict[int, type] = {}

    def free(self):
        return len(self.waiting) < 6

    @precondition(free)
    @rule(qos=st.sampled_from([1, 2]))
    def publish(self, qos):
        packet_id = self.session.publish(b"t", b"", qos)
        assert 1 <= packet_id <= 65_535
        assert packet_id not in self.waiting
        assert self.session.take_output() == Publish(b"t", b"", qos, packet_id).encode()
        self.waiting[packet_id] = Puback if qos == 1 else Pubrec

    @precondition(free)
    @rule(data=st.data())
    def publish_again(self, data):
        packet_id = data.draw(st.integers(1, 65_535).filter(lambda number: number not in self.waiting))
        assert self.session.publish(b"t", b"", 1, dup=True, packet_id=packet_id) == packet_id
        self.session.take_output()
        self.waiting[packet_id] = Puback

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def settle(self, data):
        packet_id = data.draw(st.sampled_from(sorted(self.waiting)))
        acknowledgement = self.waiting[packet_id](packet_id)
        assert self.session.receive(acknowledgement.encode(), 0) == [acknowledgement]
        self.session.take_output()
        if isinstance(acknowledgement, Pubrec):
            self.waiting[packet_id] = Pubcomp
        else:
            del self.waiting[packet_id]

    @rule(packet_id=st.integers(1, 65_535), kind=st.sampled_from([Puback, Pubcomp]))
    def settle_what_does_not_wait(self, packet_id, kind):
        if self.waiting.get(packet_id) is not kind:
            assert self.session.receive(kind(packet_id).encode(), 0) == []

    @invariant()
    def room(self):
        assert self.session.in_flight_room == 6 - len(self.waiting)


TestInFlight = InFlight.TestCase
TestInFlight.settings = settings(max_examples=40, stateful_step_count=30)
