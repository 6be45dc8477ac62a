"""The AMQP connection: no bytes make it raise or grow, chunks make no difference, what it sends can be read."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.wire import amqp_connection as core
from muster.wire import amqp_performatives as p
from muster.wire.amqp_connection import AmqpConnection
from muster.wire.amqp_frames import Frame, FrameFault, FrameReader, ProtocolHeader
from muster.wire.amqp_sessions import Attached, Closed, Credit, Delivery, Violation
from tests.property.amqp_strategies import frames

FRAME = 2048
MESSAGE = 100


def answer(connection, event):
    """A caller that takes every link and every delivery, and sends what it may."""
    if isinstance(event, (p.SaslInit, p.SaslResponse)):
        return connection.sasl_outcome(0, 1)
    if isinstance(event, Attached):
        connection.attach(event.link, max_message_size=MESSAGE)
        if event.link.role == p.RECEIVER:
            connection.grant(event.link, 3)
    elif isinstance(event, Delivery):
        connection.settle(event.link, [event.delivery_id], p.Accepted())
    elif isinstance(event, Credit) and event.link.answered and event.link.credit:
        connection.transfer(event.link, b"tag", bytes(700))
        if event.drain:
            connection.drained(event.link)
    return []


class AtLength(AmqpConnection):
    """A connection that takes no transfer the short way."""

    def _take_brief(self, *_):
        return False


def feed(chunks, kind=AmqpConnection):
    connection = kind(0, "muster", max_frame_size=FRAME)
    reader = FrameReader(0x100_0000)
    events, sent = [], []
    for chunk in chunks:
        waiting = connection.receive(chunk, 1)
        while waiting:
            event = waiting.pop(0)
            events.append(event)
            waiting += answer(connection, event)
        sent += reader.receive(connection.take_output())
        assert connection.buffered <= FRAME + MESSAGE * 300
    for event in events[:-1]:
        assert not isinstance(event, (Violation, Closed))
    assert not any(isinstance(item, FrameFault) for item in sent)
    return [(type(event).__name__, getattr(event, "payload", None)) for event in events], sent


def cut(data, positions):
    edges = [0, *sorted(min(position, len(data)) for position in positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


small = st.integers(0, 3)
likely = st.one_of(
    st.builds(p.Begin, st.none(), small, st.integers(0, 9), small),
    st.builds(p.Attach, st.just("l"), small, st.booleans(), max_message_size=st.none() | small),
    st.builds(p.Flow, st.none() | small, st.integers(0, 9), small, small, st.none() | small, small, small),
    st.builds(p.Flow, small, small, small, small, small, small, small, drain=st.booleans(), echo=st.booleans()),
    st.builds(p.Transfer, small, small, st.just(b"t"), more=st.booleans(), aborted=st.booleans()),
    st.builds(p.Disposition, st.booleans(), small, st.none() | small, st.booleans()),
    st.builds(p.Detach, small, st.booleans()),
    st.builds(p.End),
)
steps = st.one_of(
    st.builds(Frame, st.integers(0, 1), likely), st.builds(Frame, st.just(0), st.builds(p.Transfer, small), st.binary())
)
START = [
    ProtocolHeader(0).encode(),
    Frame(0, p.Open("c", max_frame_size=512)).encode(),
    Frame(0, p.Begin(None, 0, 9, 9)).encode(),
    Frame(0, p.Attach("a", 0, p.SENDER)).encode(),
    Frame(0, p.Attach("b", 1, p.RECEIVER)).encode(),
    Frame(0, p.Flow(1, 9, 0, 9, 1, 0, 3)).encode(),
]
streams = st.lists(steps.map(lambda frame: frame.encode()), max_size=20)
others = st.lists(frames.map(lambda frame: frame.encode()) | st.binary(max_size=12), max_size=2)


@given(streams, others)
@settings(max_examples=200)
def test_any_frames_give_events_or_a_violation(parts, others):
    feed([*START, *parts, *others])


@given(st.binary(max_size=100), st.integers(0, 4))
def test_any_bytes_give_events_or_a_violation(data, started):
    feed([*START[:started], data])


@given(streams, others, st.integers(1, 40))
def test_chunks_make_no_difference(parts, others, size):
    """Frame by frame or cut small: what is answered between two frames is the same."""
    whole = [*START, *parts, *others]
    assert feed(whole) == feed([piece for part in whole for piece in cut(part, range(size, len(part), size))])


@pytest.mark.skipif(core.__file__.endswith(".so"), reason="nothing overrides a method of a compiled class")
@given(streams, others)
@settings(max_examples=200)
def test_the_short_way_of_a_transfer_makes_no_difference(parts, others):
    whole = [*START, *parts, *others]
    assert feed(whole) == feed(whole, AtLength)
