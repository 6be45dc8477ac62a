"""Sessions and links: begin, attach, flow, transfer, disposition, detach, end (sections 2.5 to 2.7)."""

import pytest

from muster.wire.amqp_connection import (
    HANDLE_IN_USE,
    MESSAGE_SIZE_EXCEEDED,
    TRANSFER_LIMIT_EXCEEDED,
    UNATTACHED_HANDLE,
)
from muster.wire.amqp_frames import FRAMING_ERROR, Frame
from muster.wire.amqp_opening import NOT_ALLOWED
from muster.wire.amqp_performatives import (
    Accepted,
    Attach,
    Begin,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Open,
    Released,
    Source,
    Target,
    Transfer,
)
from muster.wire.amqp_sessions import Attached, Credit, Delivery, Detached, Disposed, Ended
from muster.wire.amqp_types import Symbol
from tests.support.amqp_playbook import (
    LINK,
    SERVER_BEGIN,
    SOURCE,
    TARGET,
    act,
    begun,
    message,
    opened,
    receiving,
    refuses,
    sending,
    sends,
)


def delivery(play, number, payload=b"x", *, settled=False):
    return Delivery(play.link, number, b"t", 0, settled, payload)


def test_begin_twice_is_refused():
    play = begun() >> Begin(None, 0, 1, 1) << refuses(NOT_ALLOWED, "has a session")
    play.sent.clear()
    assert play


def test_begin_on_a_channel_that_cannot_be():
    play = opened() >> Frame(8192, Begin(None, 0, 1, 1)) << refuses(FRAMING_ERROR, "8191 is the last")
    play.sent.clear()
    assert play


def test_end_is_answered_and_what_follows_ignored_as_pyamqp_needs():
    play = begun() >> End() << Ended << sends(End()) >> Detach(0, closed=True)
    assert play >> Begin(None, 0, 1, 1) << sends(SERVER_BEGIN)


def test_a_link_without_source_and_target_gets_both():
    play = begun() >> Attach("l", 0, False) << Attached >> act("attach", LINK)
    assert play << sends(Attach("l", 0, True, source=Source(), target=Target(), max_message_size=1_048_576))


def test_a_refused_link_is_attached_and_detached():
    play = (
        begun()
        >> Attach("l", 0, True, 1, 0, SOURCE, TARGET)
        << Attached
        >> act("refuse", LINK, Error("amqp:not-found"))
    )
    attach = Attach("l", 0, False, 1, 0, SOURCE, TARGET, initial_delivery_count=0, max_message_size=1_048_576)
    play = play << sends(attach, Detach(0, closed=True, error=Error("amqp:not-found")))
    assert play >> Detach(0, closed=True)


def test_a_handle_in_use_ends_the_session_only():
    play = begun() >> Attach("l", 0, True) << Attached >> Attach("m", 0, True) << Ended
    assert play << sends(End(Error(HANDLE_IN_USE, "handle 0 is attached")))
    assert not play.connection.closed


def test_a_handle_beyond_the_last_is_refused():
    play = begun() >> Attach("l", 256, True) << refuses(FRAMING_ERROR, "255 is the last")
    play.sent.clear()
    assert play


def test_an_unattached_handle_ends_the_session_only():
    play = begun() >> Frame(0, Transfer(9, 0, b"t"), b"x") << Ended
    assert play << sends(End(Error(UNATTACHED_HANDLE, "handle 9 is not attached")))


def test_detach_is_answered():
    play = receiving() >> Detach(3, closed=True)
    assert play << Detached(play.link, True, None) << sends(Detach(3, closed=True))
    assert play >> message(0) >> act("grant", LINK, 5)


def test_deliveries_are_settled_in_runs():
    play = receiving()
    for number in range(4):
        play = play >> message(number) << delivery(play, number)
    play = play >> act("settle", LINK, [0, 1, 3, 7], Accepted())
    play = play << sends(
        Disposition(True, 0, 1, settled=True, state=Accepted()), Disposition(True, 3, 3, settled=True, state=Accepted())
    )
    assert play >> act("settle", LINK, [0], Accepted())


def test_a_settled_delivery_needs_no_disposition():
    play = receiving() >> message(0, settled=True)
    assert play << delivery(play, 0, settled=True) >> act("settle", LINK, [0], Accepted())


def test_a_delivery_of_many_frames():
    play = receiving() >> message(0, more=True, payload=b"a")
    play = play >> Frame(0, Transfer(3, more=True), b"b") >> Frame(0, Transfer(3), b"c")
    assert play << delivery(play, 0, b"abc")
    assert play.connection.buffered == 0


def test_an_aborted_delivery_is_forgotten_and_costs_no_credit():
    play = receiving() >> message(0, more=True) >> Transfer(3, aborted=True)
    play = play << sends(Flow(2, 4998, 1, 0xFFFF_FFFF, 3, 1, 10)) >> message(1)
    assert play << delivery(play, 1)


def test_a_message_too_large_detaches_the_link_only():
    play = receiving(size=5) >> message(0, more=True, payload=b"123") >> Frame(0, Transfer(3), b"456")
    error = Error(MESSAGE_SIZE_EXCEEDED, "a message of more than 5 bytes")
    play = play << Detached(play.link, True, error) << sends(Detach(3, closed=True, error=error))
    assert play >> message(1) >> Detach(3, closed=True)
    assert play.connection.buffered == 0


def test_a_transfer_without_credit_detaches_the_link_only():
    play = receiving(credit=1) >> message(0)
    play = play << delivery(play, 0) >> message(1)
    error = Error(TRANSFER_LIMIT_EXCEEDED, "a transfer without credit (section 2.6.7)")
    assert play << Detached(play.link, True, error) << sends(Detach(3, closed=True, error=error))


def test_an_error_is_cut_where_the_peer_takes_no_more():
    play = sending(Open("c", max_frame_size=512))
    error = Error("amqp:not-found", "ü" * 400, {Symbol("com.microsoft:tracking-id"): "1"})
    play = play >> act("detach", LINK, error)
    (frame,) = play.sent
    assert isinstance(frame, Frame)
    assert 500 < len(frame.encode()) <= 512
    assert isinstance(frame.body, Detach)
    told = frame.body.error
    assert told is not None
    assert (told.condition, told.info) == (error.condition, error.info)
    assert set(told.description or "") == {"ü"}
    assert error.description == "ü" * 400


def test_credit_is_granted():
    play = receiving() >> message(0)
    play = play << delivery(play, 0) >> act("grant", LINK, 50)
    assert play << sends(Flow(1, 4999, 1, 0xFFFF_FFFF, 3, 1, 50))


def test_the_session_window_is_opened_again():
    play = receiving(credit=5000)
    for number in range(2500):
        play.connection.receive(message(number, settled=True).encode(), 0)
    play = play >> b""
    assert play << sends(Flow(2500, 5000, 1, 0xFFFF_FFFF))


def flow(credit, count=0, *, drain=False, echo=False, window=5000):
    return Flow(1, window, 0, 5000, 4, count, credit, None, drain, echo)


def test_a_delivery_within_credit_and_its_outcome():
    play = sending() >> flow(2)
    play = play << Credit(play.link, 2, False) >> act("transfer", LINK, b"tag", b"payload")
    play = play << sends(Frame(0, Transfer(4, 0, b"tag", 0, False), b"payload"))
    play = play >> act("transfer", LINK, b"tag2", b"", settled=True)
    play = play << sends(Frame(0, Transfer(4, 1, b"tag2", 0, True)))
    play = play >> Disposition(True, 0, 1, settled=False, state=Released())
    play = play << Disposed(play.link, 0, False, Released())
    play = play >> act("settle", LINK, [0], Released(), role=False)
    assert play << sends(Disposition(False, 0, 0, settled=True, state=Released()))
    with pytest.raises(RuntimeError, match="no credit"):
        play.connection.transfer(play.link, b"t", b"x")


def test_a_disposition_may_cover_any_range():
    play = sending() >> flow(2)
    play = play << Credit(play.link, 2, False) >> act("transfer", LINK, b"t", b"")
    play = play << sends(Frame(0, Transfer(4, 0, b"t", 0, False)))
    play = play >> Disposition(True, 0, 0xFFFF_FFFF, settled=True, state=Accepted())
    assert play << Disposed(play.link, 0, True, Accepted())


def test_a_large_message_is_cut_to_the_peers_frame_size():
    play = sending(Open("c", max_frame_size=512)) >> flow(1)
    play = play << Credit(play.link, 1, False) >> act("transfer", LINK, b"t", bytes(1200))
    frames = list(play.sent)
    play.sent.clear()
    assert [frame.body.more for frame in frames] == [True, True, False]
    assert b"".join(frame.payload for frame in frames) == bytes(1200)
    assert all(len(frame.encode()) <= 512 for frame in frames)
    assert len(frames[0].encode()) == 512


def test_transfers_wait_for_the_session_window():
    play = sending(window=1) >> flow(5, window=1)
    play = play << Credit(play.link, 5, False) >> act("transfer", LINK, b"1", b"a")
    play = play << sends(Frame(0, Transfer(4, 0, b"1", 0, False), b"a")) >> act("transfer", LINK, b"2", b"b")
    play = play >> Flow(2, 1, 0, 5000)
    assert play << sends(Frame(0, Transfer(4, 1, b"2", 0, False), b"b"))


def test_drain():
    play = sending() >> flow(10, drain=True)
    play = play << Credit(play.link, 10, True) >> act("drained", LINK)
    assert play << sends(Flow(0, 5000, 1, 0xFFFF_FFFF, 4, 10, 0, None, True))
    play = play >> flow(3, count=10)
    assert play << Credit(play.link, 3, False)


def test_drained_comes_behind_what_waits_for_the_window():
    play = sending(window=0) >> flow(2, window=0, drain=True)
    play = play << Credit(play.link, 2, True) >> act("transfer", LINK, b"1", b"a") >> act("drained", LINK)
    play = play >> Flow(1, 1, 0, 5000)
    play = play << sends(Frame(0, Transfer(4, 0, b"1", 0, False), b"a"))
    assert play << sends(Flow(0, 5000, 2, 0xFFFF_FFFF, 4, 2, 0, None, True))


def test_echo_is_answered():
    assert begun() >> Flow(1, 1, 0, 1, echo=True) << sends(Flow(0, 5000, 1, 0xFFFF_FFFF))


def test_echo_before_the_answer_to_attach_is_answered_behind_it():
    play = begun() >> Attach("out", 4, True, 0, 0, SOURCE, TARGET) << Attached
    play = play >> Flow(1, 5000, 0, 5000, 4, 0, 7, echo=True) << Credit(play.link, 7, False) >> act("attach", LINK)
    play.sent.pop(0)
    assert play << sends(Flow(0, 5000, 1, 0xFFFF_FFFF, 4, 0, 7))


def test_a_failure_of_one_session_leaves_the_others():
    play = begun() >> Frame(1, Begin(None, 0, 1, 1))
    play = play << sends(Frame(1, Begin(1, 1, 5000, 0xFFFF_FFFF, 255)))
    play = play >> Transfer(9, 0, b"t") << Ended
    play.sent.clear()
    assert play >> Frame(1, Attach("l", 0, True)) << Attached


def many(*payloads, settled=True):
    return act("transfer_many", LINK, list(payloads), settled=settled)


def test_many_deliveries_at_once():
    play = sending() >> flow(3)
    play = play << Credit(play.link, 3, False) >> many(b"a", b"", settled=True)
    play = play << sends(Frame(0, Transfer(4, 0, b"\0\0\0\0", 0, True), b"a"))
    play = play << sends(Frame(0, Transfer(4, 1, b"\0\0\0\1", 0, True)))
    play = play >> many(b"c", settled=False) << sends(Frame(0, Transfer(4, 2, b"\0\0\0\2", 0, False), b"c"))
    play = play >> Disposition(True, 0, 2, settled=True, state=Accepted())
    play = play << Disposed(play.link, 2, True, Accepted())
    with pytest.raises(RuntimeError, match="no credit for 1"):
        play.connection.transfer_many(play.link, [b"x"])
    assert play >> flow(1, count=3) << Credit(play.link, 1, False)


def test_many_deliveries_are_written_like_one():
    """What the short way writes differs from the table's in the width of integers alone."""
    play = sending() >> flow(2)
    play.events.clear()
    play.connection.transfer_many(play.link, [b"x" * 300], settled=True)
    written = play.connection.take_output()
    play.connection.transfer(play.link, b"\0\0\0\1", b"x" * 300, settled=True)
    assert len(written) == len(play.connection.take_output()) + 2 * 3
    play.sent += play.reader.receive(written)
    assert play << sends(Frame(0, Transfer(4, 0, b"\0\0\0\0", 0, True), b"x" * 300))


def test_many_deliveries_of_which_one_is_large():
    play = sending(Open("c", max_frame_size=512)) >> flow(3)
    play = play << Credit(play.link, 3, False) >> many(b"a", bytes(600), b"c", settled=True)
    frames = list(play.sent)
    play.sent.clear()
    assert [(frame.body.delivery_id, frame.body.more) for frame in frames] == [
        (0, False),
        (1, True),
        (1, False),
        (2, False),
    ]
    assert all(len(frame.encode()) <= 512 for frame in frames)


def test_many_deliveries_wait_for_the_session_window():
    play = sending(window=1) >> flow(3, window=1)
    play = play << Credit(play.link, 3, False) >> many(b"a", b"b")
    play = play << sends(Frame(0, Transfer(4, 0, b"\0\0\0\0", 0, True), b"a")) >> many(b"c")
    play = play >> Flow(2, 2, 0, 5000)
    play = play << sends(Frame(0, Transfer(4, 1, b"\0\0\0\1", 0, True), b"b"))
    assert play << sends(Frame(0, Transfer(4, 2, b"\0\0\0\2", 0, True), b"c"))


def test_a_sender_may_say_that_it_sends_settled():
    play = begun() >> Attach("out", 4, True, 0, 1, SOURCE, TARGET) << Attached
    play.link.send_settled()
    play = play >> act("attach", LINK)
    answer = Attach("out", 4, False, 1, 0, SOURCE, TARGET, initial_delivery_count=0, max_message_size=1_048_576)
    assert play << sends(answer)
