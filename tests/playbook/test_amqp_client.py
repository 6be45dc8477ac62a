"""Our AMQP client against the frames of a server: what it sends, what it makes of the answers."""

import pytest

from muster.wire import amqp_performatives as p
from muster.wire.amqp_client import WINDOW, AmqpClient, plain_response
from muster.wire.amqp_client_links import Answered, Arrived, Credited, Judged, SaslRefused, Unlinked
from muster.wire.amqp_frames import EMPTY_FRAME, Frame, FrameReader, ProtocolHeader
from muster.wire.amqp_opening import ILLEGAL_STATE, MESSAGE_SIZE_EXCEEDED, NOT_ALLOWED, UNATTACHED_HANDLE
from muster.wire.amqp_sessions import Closed, Violation

HOST = "hub.example"
OPEN = p.Open("c", HOST, 65_536, 0)
BEGIN = p.Begin(None, 0, WINDOW, WINDOW, 255)
SERVER_OPEN = p.Open("s", None, 512, 0)
# A server may answer on a channel and with handles of its own.
CHANNEL = 3
SERVER_BEGIN = p.Begin(0, 7, 100, 100, 255)
AMQP, SASL = ProtocolHeader(0), ProtocolHeader(3)
HANDLE = 9
GOLDEN = (
    "00 00 00 5f 02 00 00 00 00 53 12 c0 52 0e a1 02 69 6e 43 41 50 02 50 00 "
    "00 53 28 c0 1a 0b a1 01 61 43 a3 0b 73 65 73 73 69 6f 6e 2d 65 6e 64 43 42 40 40 40 40 40 40 "
    "00 53 29 c0 14 07 40 43 a3 0b 73 65 73 73 69 6f 6e 2d 65 6e 64 43 42 40 40 "
    "40 42 40 80 00 00 00 00 00 10 00 00 40 40 40"
)


class Play:
    """A client with a server that says what the test says."""

    def __init__(self, **options):
        self.client = AmqpClient("c", HOST, **options)
        self.reader = FrameReader()

    def hears(self, *items):
        """The events in these headers, bodies on the session's channel, or frames."""
        frames = [Frame(CHANNEL, item) if isinstance(item, p.Composite) else item for item in items]
        data = b"".join([item if isinstance(item, bytes) else item.encode() for item in frames])
        return self.client.receive(data, 0)

    def says(self):
        """Headers and bodies that the client sent since the last time."""
        found = self.reader.receive(self.client.take_output())
        return [item.body if isinstance(item, Frame) else item for item in found]


def opened(**options):
    play = Play(**options)
    assert play.says() == [AMQP, OPEN, BEGIN]
    assert play.hears(AMQP, Frame(0, SERVER_OPEN), SERVER_BEGIN) == [SERVER_OPEN]
    return play


def sender(window=100, credit=5):
    """An open connection with a link to send on."""
    play = opened()
    link = play.client.attach_sender("out", p.Target("a"))
    asked = p.Attach("out", 0, p.SENDER, p.UNSETTLED, 0, p.Source(), p.Target("a"), initial_delivery_count=0)
    assert play.says() == [asked]
    answer = p.Attach("out", HANDLE, p.RECEIVER, source=p.Source(), target=p.Target("a"))
    flow = p.Flow(0, window, 7, 100, HANDLE, 0, credit)
    assert play.hears(answer, flow) == [Answered(link), Credited(link, credit)]
    return play, link


def receiver(credit=5, **options):
    play = opened(**options)
    link = play.client.attach_receiver("in", p.Source("a"), credit=credit)
    play.says()
    answer = p.Attach("in", HANDLE, p.SENDER, source=p.Source("a"), target=p.Target(), initial_delivery_count=40)
    assert play.hears(answer) == [Answered(link)]
    assert play.says() == [p.Flow(7, WINDOW, 0, WINDOW, 0, 40, credit)]
    return play, link


def transfer(number, payload=b"x", *, more=False, settled=False, aborted=False):
    return Frame(CHANNEL, p.Transfer(HANDLE, number, b"t", 0, settled, more, aborted=aborted), payload)


# Opening


def test_sasl_before_everything_else():
    play = Play(mechanism="PLAIN", response=plain_response("me", "secret"))
    link = play.client.attach_sender("out", p.Target("a"))
    assert play.says() == [SASL]
    assert play.hears(SASL) == []
    assert play.hears(Frame(0, p.SaslMechanisms(("EXTERNAL", "PLAIN")))) == []
    assert play.says() == [p.SaslInit("PLAIN", b"\0me\0secret", HOST)]
    assert play.hears(Frame(0, p.SaslOutcome(0))) == []
    header, opening, beginning, attach = play.says()
    assert (header, opening, beginning, attach.name) == (AMQP, OPEN, BEGIN, "out")
    assert play.hears(AMQP, Frame(0, SERVER_OPEN)) == [SERVER_OPEN]
    assert link.answer is None


def test_sasl_refused():
    play = Play(mechanism="PLAIN")
    play.hears(SASL, Frame(0, p.SaslMechanisms(("PLAIN",))))
    assert play.hears(Frame(0, p.SaslOutcome(1))) == [SaslRefused(1)]
    assert play.client.closed
    assert play.hears(AMQP) == []


def test_a_mechanism_that_is_not_offered():
    play = Play(mechanism="PLAIN")
    [violation] = play.hears(SASL, Frame(0, p.SaslMechanisms(("EXTERNAL", "ANONYMOUS"))))
    assert violation.reason == "SASL PLAIN is not offered, but EXTERNAL, ANONYMOUS"
    assert play.says() == [SASL]


@pytest.mark.parametrize(
    ("options", "items", "condition"),
    [
        ({}, [SASL], NOT_ALLOWED),
        ({"mechanism": "PLAIN"}, [AMQP], NOT_ALLOWED),
        ({}, [AMQP, AMQP], NOT_ALLOWED),
        ({}, [Frame(0, SERVER_OPEN)], ILLEGAL_STATE),
        ({"mechanism": "PLAIN"}, [Frame(0, p.SaslOutcome(0))], ILLEGAL_STATE),
        ({"mechanism": "PLAIN"}, [SASL, Frame(0, SERVER_OPEN)], ILLEGAL_STATE),
        ({"mechanism": "PLAIN"}, [SASL, Frame(0, p.SaslChallenge(b""))], NOT_ALLOWED),
        ({}, [AMQP, Frame(0, p.SaslOutcome(0))], ILLEGAL_STATE),
        ({}, [AMQP, SERVER_BEGIN], ILLEGAL_STATE),
        ({}, [AMQP, Frame(0, SERVER_OPEN), Frame(0, SERVER_OPEN)], ILLEGAL_STATE),
        ({}, [AMQP, Frame(0, SERVER_OPEN), SERVER_BEGIN, SERVER_BEGIN], NOT_ALLOWED),
        ({}, [AMQP, Frame(0, SERVER_OPEN), p.Begin(1, 7, 1, 1)], NOT_ALLOWED),
        ({}, [AMQP, Frame(0, SERVER_OPEN), SERVER_BEGIN, Frame(0, p.End())], NOT_ALLOWED),
        ({}, [AMQP, Frame(0, SERVER_OPEN), SERVER_BEGIN, p.Attach("x", 0, p.SENDER)], NOT_ALLOWED),
        ({}, [AMQP, Frame(0, SERVER_OPEN), SERVER_BEGIN, p.Detach(0)], UNATTACHED_HANDLE),
        ({}, [AMQP, Frame(0, SERVER_OPEN), SERVER_BEGIN, p.Flow(0, 1, 0, 1, 4)], UNATTACHED_HANDLE),
        ({}, [AMQP, Frame(0, SERVER_OPEN), SERVER_BEGIN, p.Transfer(4, 0, b"")], UNATTACHED_HANDLE),
        ({}, [AMQP, b"\0\0\0\1\2\0\0\0"], "amqp:connection:framing-error"),
    ],
)
def test_what_a_server_does_wrong(options, items, condition):
    play = Play(**options)
    event = play.hears(*items)[-1]
    assert isinstance(event, Violation)
    assert event.condition == condition
    assert play.client.closed
    last = play.says()[-1]
    assert isinstance(last, p.Close) == (items[:2] == [AMQP, Frame(0, SERVER_OPEN)])


def test_empty_frames_keep_the_server_content():
    play = Play()
    play.says()
    assert play.client.deadline() is None
    play.hears(AMQP, Frame(0, p.Open("s", None, 512, 0, 60_000)), EMPTY_FRAME)
    assert play.client.deadline() == 30_000_000
    play.client.expire(29_999_999)
    assert play.client.take_output() == b""
    play.client.expire(30_000_000)
    assert play.client.take_output() == EMPTY_FRAME
    assert play.client.deadline() == 60_000_000


def test_close_waits_for_the_servers():
    play, link = sender()
    play.client.close()
    assert play.says() == [p.Close()]
    play.client.transfer(link, b"t", b"x")
    play.client.detach(link)
    play.client.grant(link, 3)
    assert play.client.attach_sender("late", p.Target("a")).detached
    assert play.says() == []
    assert play.hears(p.Flow(0, 1, 7, 1), Frame(0, p.Close())) == [Closed(None)]
    assert play.client.closed
    assert play.says() == []


def test_the_server_closes():
    play = opened()
    error = p.Error("amqp:connection:forced", "going down")
    assert play.hears(Frame(0, p.Close(error))) == [Closed(error)]
    assert play.says() == [p.Close()]


def test_close_before_open_is_the_end():
    play = Play()
    play.client.close()
    assert play.client.closed


def test_the_end_of_the_session_ends_the_links():
    play, link = sender()
    error = p.Error("amqp:internal-error")
    assert play.hears(p.End(error)) == [Unlinked(link, error)]
    assert play.says() == [p.End(), p.Close()]
    assert link.detached


# Sending


def test_a_message_and_its_verdict():
    play, link = sender()
    assert play.client.transfer(link, b"t", b"hello") == 0
    assert link.credit == 4
    [body] = play.says()
    assert body == p.Transfer(0, 0, b"t", 0, settled=False)
    verdict = p.Rejected(p.Error("amqp:not-found"))
    assert play.hears(p.Disposition(p.RECEIVER, 0, None, settled=True, state=verdict)) == [Judged(link, 0, verdict)]
    assert play.hears(p.Disposition(p.RECEIVER, 0, None, settled=True, state=verdict)) == []


def test_verdicts_on_a_range_and_of_the_sort_that_is_to_be_settled():
    play, link = sender()
    for _ in range(4):
        play.client.transfer(link, b"t", b"x")
    play.says()
    assert play.hears(p.Disposition(p.RECEIVER, 0, 3, state=p.Received(0, 0))) == []
    heard = play.hears(p.Disposition(p.RECEIVER, 1, 2, settled=False, state=p.Accepted()))
    assert heard == [Judged(link, 1, p.Accepted()), Judged(link, 2, p.Accepted())]
    assert play.says() == [p.Disposition(p.SENDER, 1, 2, settled=True, state=p.Accepted())]
    assert list(link.unsettled) == [0, 3]


def test_no_credit_no_transfer():
    play, link = sender(credit=1)
    with pytest.raises(ValueError, match="32 bytes"):
        play.client.transfer(link, bytes(33), b"x")
    play.client.transfer(link, b"t", b"x", settled=True)
    assert not link.unsettled
    with pytest.raises(RuntimeError, match="no credit"):
        play.client.transfer(link, b"t", b"x")
    assert play.hears(p.Flow(1, 100, 7, 100, HANDLE, 1, 2)) == [Credited(link, 2)]
    assert play.hears(p.Flow(1, 100, 7, 100, HANDLE, 0, 0)) == [Credited(link, 0)]
    with pytest.raises(RuntimeError, match="receives nothing"):
        play.client.grant(link, 1)


def test_a_large_message_goes_in_frames_within_the_window():
    play, link = sender(window=2)
    play.client.transfer(link, b"t", bytes(range(250)) * 5)
    data = play.client.take_output()
    frames = FrameReader(512).receive(data)  # SERVER_OPEN asked for no more
    assert [frame.body.more for frame in frames] == [True, True]
    assert play.hears(p.Flow(2, 2, 7, 100)) == []
    frames += FrameReader(512).receive(play.client.take_output())
    assert [frame.body.more for frame in frames] == [True, True, False]
    assert b"".join([frame.payload for frame in frames]) == bytes(range(250)) * 5


def test_frames_of_a_link_that_has_gone_do_not_go():
    play, link = sender(window=0)
    play.client.transfer(link, b"t", b"x")
    assert play.says() == []
    error = p.Error("amqp:resource-deleted")
    assert play.hears(p.Detach(HANDLE, closed=True, error=error)) == [Unlinked(link, error)]
    assert play.says() == [p.Detach(0, closed=True)]
    assert play.hears(p.Flow(0, 9, 7, 100)) == []
    assert play.says() == []
    assert play.client.transfer(link, b"t", b"x") == -1


def test_a_refused_link():
    play = opened()
    link = play.client.attach_sender("out", p.Target("a"))
    error = p.Error("amqp:unauthorized-access", "no")
    refused = p.Detach(HANDLE, closed=True, error=error)
    assert play.hears(p.Attach("out", HANDLE, p.RECEIVER), refused) == [Answered(link), Unlinked(link, error)]


# Receiving


def test_messages_arrive():
    play, link = receiver()
    assert play.hears(transfer(0, b"a"), transfer(1, b"b", settled=True)) == [
        Arrived(link, 0, b"t", False, b"a"),
        Arrived(link, 1, b"t", True, b"b"),
    ]
    assert (link.credit, link.delivery_count) == (3, 42)
    play.client.settle(link, [0, 1], p.Accepted())
    play.client.settle(link, [0], p.Accepted())
    assert play.says() == [p.Disposition(p.RECEIVER, 0, 0, settled=True, state=p.Accepted())]
    play.client.grant(link, 20)
    assert play.says() == [p.Flow(9, WINDOW, 0, WINDOW, 0, 42, 20)]


def test_runs_of_messages_are_settled_together():
    play, link = receiver()
    play.hears(*[transfer(number) for number in range(4)])
    play.client.settle(link, [0, 1, 3], p.Released())
    first, second = play.says()
    assert (first.first, first.last, second.first, second.last) == (0, 1, 3, 3)


def test_the_server_settles_what_it_sent():
    play, link = receiver()
    play.hears(transfer(0))
    assert play.hears(p.Disposition(p.SENDER, 0, None, settled=True, state=p.Accepted())) == []
    assert not link.unsettled


def test_a_message_in_frames_and_an_aborted_one():
    play, link = receiver()
    assert play.hears(transfer(0, b"a", more=True), transfer(0, b"b", more=True)) == []
    assert play.client.buffered == 2
    assert play.hears(transfer(0, b"c", settled=True)) == [Arrived(link, 0, b"t", True, b"abc")]
    assert play.hears(transfer(1, b"a", more=True), transfer(1, b"b", aborted=True)) == []
    assert play.client.buffered == 0
    assert play.hears(transfer(2, b"d"))[0].payload == b"d"


def test_a_message_that_is_too_large():
    play, _ = receiver(max_message_size=10)
    play.hears(transfer(0, bytes(8), more=True))
    [event] = play.hears(transfer(0, bytes(8)))
    assert isinstance(event, Unlinked)
    assert event.error.condition == MESSAGE_SIZE_EXCEEDED
    assert play.says() == [p.Detach(0, closed=True, error=event.error)]
    assert play.hears(transfer(1), p.Detach(HANDLE, closed=True)) == []


def test_detached_before_the_answer():
    play = opened()
    link = play.client.attach_receiver("in", p.Source("a"), credit=3)
    play.client.detach(link)
    play.says()
    assert play.hears(p.Attach("in", HANDLE, p.SENDER), p.Detach(HANDLE, closed=True)) == []
    assert play.says() == []
    assert play.client.attach_receiver("in", p.Source("a")).handle == 0


def test_credit_before_the_answer_waits_for_it():
    play = opened()
    link = play.client.attach_receiver("in", p.Source("a"))
    play.client.grant(link, 4)
    [attach] = play.says()
    assert (attach.role, attach.source.address) == (p.RECEIVER, "a")
    play.hears(p.Attach("in", HANDLE, p.SENDER, initial_delivery_count=0))
    assert play.says() == [p.Flow(7, WINDOW, 0, WINDOW, 0, 0, 4)]


def test_flows_are_echoed_on_request():
    play, _ = receiver()
    play.hears(p.Flow(0, 100, 7, 100, echo=True))
    play.hears(p.Flow(0, 100, 7, 100, HANDLE, 40, 5, echo=True))
    bare, of_link = play.says()
    assert (bare.handle, of_link.handle, of_link.link_credit) == (None, 0, 5)


def test_all_fields_are_written():
    """A server of Azure's may look for them by position; the bytes of an attach are these."""
    play = opened()
    play.client.attach_receiver("in", p.Source("a"))
    assert play.client.take_output().hex(" ") == GOLDEN
