"""Protocol headers, SASL, open, close, and idle time-outs (sections 2.2, 2.4 and 5.3)."""

import pytest

from muster.wire.amqp_frames import EMPTY_FRAME, FRAMING_ERROR, Frame, ProtocolHeader
from muster.wire.amqp_opening import ILLEGAL_STATE, INVALID_FIELD, MECHANISMS, NOT_ALLOWED, RESOURCE_LIMIT_EXCEEDED
from muster.wire.amqp_performatives import (
    Begin,
    Close,
    Error,
    Flow,
    Open,
    SaslChallenge,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
)
from muster.wire.amqp_sessions import Closed
from tests.support.amqp_playbook import (
    AMQP,
    CLIENT_OPEN,
    SASL,
    SERVER_BEGIN,
    SERVER_OPEN,
    Playbook,
    act,
    after,
    opened,
    refuses,
    sends,
)

PLAIN = SaslInit("PLAIN", b"\0user\0password")


def asked():
    return Playbook() >> SASL << sends(SASL, SaslMechanisms(MECHANISMS))


def test_without_sasl_as_node_does():
    assert opened()


def test_with_sasl():
    play = asked() >> PLAIN << PLAIN >> act("sasl_outcome", 0, 0, b"Welcome!") << sends(SaslOutcome(0, b"Welcome!"))
    assert play >> AMQP << sends(AMQP) >> CLIENT_OPEN << CLIENT_OPEN << sends(SERVER_OPEN)


def test_a_challenge_as_for_a_tpm():
    play = asked() >> PLAIN << PLAIN >> act("sasl_challenge", b"nonce") << sends(SaslChallenge(b"nonce"))
    play = play >> SaslResponse(b"answer") << SaslResponse(b"answer")
    assert play >> act("sasl_outcome", 0, 0) << sends(SaslOutcome(0))


def test_a_refused_login_ends_the_connection():
    play = asked() >> PLAIN << PLAIN >> act("sasl_outcome", 1, 0) << sends(SaslOutcome(1))
    assert play.connection.closed
    assert play >> AMQP


def test_what_comes_before_the_verdict_is_held():
    pipelined = PLAIN_FRAME + AMQP.encode() + Frame(0, CLIENT_OPEN).encode() + Frame(0, Begin(None, 0, 1, 1)).encode()
    play = asked() >> pipelined << PLAIN
    play = play >> act("sasl_outcome", 0, 0) << CLIENT_OPEN
    assert play << sends(SaslOutcome(0), AMQP, SERVER_OPEN, SERVER_BEGIN)


PLAIN_FRAME = Frame(0, PLAIN).encode()


def test_only_so_much_is_held():
    assert asked() >> PLAIN_FRAME + EMPTY_FRAME * 65 << PLAIN << refuses(NOT_ALLOWED, "before the SASL outcome")


@pytest.mark.parametrize("header", [ProtocolHeader(2), ProtocolHeader(0, 0, 9, 1), ProtocolHeader(1)])
def test_another_protocol_is_told_ours(header):
    assert Playbook() >> header << refuses(FRAMING_ERROR, "not supported") << sends(AMQP)


def test_a_second_sasl_layer_is_refused():
    play = asked() >> PLAIN << PLAIN >> act("sasl_outcome", 0, 0) << sends(SaslOutcome(0))
    assert play >> SASL << refuses(FRAMING_ERROR) << sends(AMQP)


def test_frames_before_the_header_are_refused():
    assert Playbook() >> CLIENT_OPEN << refuses(FRAMING_ERROR, "before the protocol header")
    assert Playbook() >> PLAIN << refuses(FRAMING_ERROR, "not allowed here")


def test_frames_before_open_are_refused_with_open_and_close():
    play = Playbook() >> AMQP << sends(AMQP) >> Begin(None, 0, 1, 1) << refuses(ILLEGAL_STATE, "before open")
    assert play << sends(SERVER_OPEN, Close(Error(ILLEGAL_STATE, "Begin before open (section 2.4.1)")))


def test_faults_after_open_close_with_the_error():
    play = opened() >> CLIENT_OPEN << refuses(ILLEGAL_STATE, "a second open")
    assert play << sends(Close(Error(ILLEGAL_STATE, "a second open (section 2.4.1)")))
    play = opened() >> Flow(0, 1, 1, 1) << refuses(NOT_ALLOWED, "no session")
    assert play << sends(Close(Error(NOT_ALLOWED, "Flow on channel 0, which has no session")))


def test_a_max_frame_size_below_the_least_is_refused():
    play = Playbook() >> AMQP << sends(AMQP) >> Open("c", max_frame_size=511) << refuses(INVALID_FIELD)
    play.sent.clear()
    assert play


def test_close_of_the_peer_is_answered():
    play = opened() >> Close(Error("a", "b")) << Closed(Error("a", "b")) << sends(Close())
    assert play.connection.closed
    assert play.connection.deadline() is None
    assert play >> EMPTY_FRAME


def test_close_of_this_side_waits_for_the_peers():
    play = opened() >> act("close", Error("x")) << sends(Close(Error("x")))
    assert not play.connection.closed
    assert play >> Begin(None, 0, 1, 1) >> Close() << Closed(None)
    assert play.connection.closed


def test_no_open_in_time():
    assert Playbook() >> after(29) >> after(1) << refuses(RESOURCE_LIMIT_EXCEEDED, "no open")


def test_silence_ends_the_connection():
    play = opened() >> after(239) >> EMPTY_FRAME >> after(239)
    assert play.connection.deadline() == (239 + 240) * 1_000_000
    play = play >> after(1) << refuses(RESOURCE_LIMIT_EXCEEDED, "no frame for 240 s")
    play.sent.clear()
    assert play


def test_a_peer_with_a_time_out_is_kept_content():
    play = opened(client=Open("c", idle_time_out=60_000))
    assert play.connection.deadline() == 30_000_000
    assert play >> after(29) >> after(1) << sends(Frame(0, None)) >> after(29) >> after(1) << sends(Frame(0, None))


def test_a_verdict_that_nobody_asked_for_is_a_bug():
    with pytest.raises(RuntimeError):
        opened().connection.sasl_outcome(0, 0)
