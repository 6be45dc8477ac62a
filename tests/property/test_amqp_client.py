"""The AMQP client: no bytes make it raise or grow; with our own server every message arrives, whatever the chunks."""

from hypothesis import given, settings
from hypothesis import strategies as st

from muster.wire import amqp_performatives as p
from muster.wire.amqp_client import AmqpClient
from muster.wire.amqp_client_links import Arrived, Judged, SaslRefused
from muster.wire.amqp_connection import AmqpConnection
from muster.wire.amqp_frames import Frame, FrameFault, FrameReader, ProtocolHeader
from muster.wire.amqp_sessions import Closed, Credit, Delivery, Violation
from tests.property.amqp_strategies import frames
from tests.support.amqp_pair import Pair, welcome

FRAME, MESSAGE = 2048, 100

small = st.integers(0, 3)
likely = st.one_of(
    st.builds(p.Attach, st.sampled_from(["in", "out"]), small, st.booleans()),
    st.builds(p.Flow, small, small, small, small, st.none() | small, small, small, echo=st.booleans()),
    st.builds(p.Transfer, small, small, st.just(b"t"), more=st.booleans(), aborted=st.booleans()),
    st.builds(p.Disposition, st.booleans(), small, st.none() | small, st.booleans(), st.just(p.Accepted())),
    st.builds(p.Detach, small, st.booleans()),
    st.builds(p.End),
)
START = [
    ProtocolHeader(0).encode(),
    Frame(0, p.Open("s", max_frame_size=512)).encode(),
    Frame(0, p.Begin(0, 0, 9, 9)).encode(),
    Frame(0, p.Attach("out", 0, p.RECEIVER)).encode(),
    Frame(0, p.Flow(0, 9, 0, 9, 0, 0, 3)).encode(),
    Frame(0, p.Attach("in", 1, p.SENDER)).encode(),
]
steps = st.one_of(
    st.builds(Frame, st.just(0), likely), st.builds(Frame, st.just(0), st.builds(p.Transfer, small), st.binary())
)
streams = st.lists((steps | frames).map(lambda frame: frame.encode()) | st.binary(max_size=12), max_size=20)


@given(streams, st.integers(0, len(START)), st.booleans())
@settings(max_examples=200)
def test_any_frames_give_events_or_a_violation(parts, started, sasl):
    client = AmqpClient("c", "h", mechanism="PLAIN" if sasl else None, max_frame_size=FRAME, max_message_size=MESSAGE)
    sending, receiving = client.attach_sender("out", p.Target("a")), client.attach_receiver("in", p.Source("a"))
    reader, sent, events = FrameReader(0x100_0000), [], []
    for chunk in [*START[:started], *parts]:
        events += client.receive(chunk, 1)
        client.grant(receiving, 3)
        if sending.credit:
            client.transfer(sending, b"tag", bytes(700))
        client.settle(receiving, list(receiving.unsettled), p.Accepted())
        sent += reader.receive(client.take_output())
        assert client.buffered <= FRAME + 2 * MESSAGE
    for event in events[:-1]:
        assert not isinstance(event, (Violation, Closed, SaslRefused))
    assert not any(isinstance(item, FrameFault) for item in sent)


@given(
    messages=st.lists(st.binary(max_size=1500), max_size=12),
    size=st.integers(1, 700),
    frame=st.integers(512, 1200),
    sasl=st.sampled_from([None, "PLAIN", "ANONYMOUS", "EXTERNAL"]),
)
@settings(max_examples=50, deadline=None)
def test_every_message_arrives_and_comes_back(messages, size, frame, sasl):
    """A server that sends what it receives back to the receiver: all arrive whole, in order, and are judged."""
    echoed = []

    def answer(server, event):
        if isinstance(event, Delivery):
            server.settle(event.link, [event.delivery_id], p.Accepted())
            server.grant(event.link, 10)
            echoed.append(event.payload)
        elif isinstance(event, Credit):
            while event.link.credit and echoed:
                server.transfer(event.link, b"tag", echoed.pop(0))
        return welcome(server, event)

    client = AmqpClient("c", "h", mechanism=sasl, max_frame_size=frame)
    server = AmqpConnection(0, "muster", max_frame_size=frame)
    pair = Pair(client, server, answer=answer, size=size)
    link = client.attach_sender("out", p.Target("a"))
    pair.run()
    for payload in messages:
        client.transfer(link, b"t", payload)
        pair.run()
    assert [event.state for event in pair.heard if isinstance(event, Judged)] == [p.Accepted()] * len(messages)
    back = client.attach_receiver("in", p.Source("a"), credit=4)
    arrived = []
    while len(arrived) < len(messages):
        pair.run()
        new = [event for event in pair.heard if isinstance(event, Arrived)][len(arrived) :]
        assert new
        client.settle(back, [event.delivery_id for event in new], p.Accepted())
        client.grant(back, 4)
        arrived += new
    assert [event.payload for event in arrived] == messages
    client.close()
    pair.run()
    assert client.closed
    assert server.closed
    assert not any(isinstance(event, Violation) for event in [*pair.heard, *pair.seen])
