"""AMQP in a client's conversation (``trace_text.py``): a line for a protocol header or a frame, and below it what does
not fit there.

    > AMQP 3
    < AMQP 3
    < SASL-MECHANISMS PLAIN
    > SASL-INIT PLAIN
    >   hex 00
    >   text 0ne00000001/registrations/dev-1
    > ATTACH recv_link 0 receiver amqps://global.example.net/0ne00000001/registrations/dev-1
    >   api-version 2021-06-01
    < ATTACH recv_link 0 sender
    > TRANSFER 1 0
    >   property iotdps-operation-type iotdps-register
    >   data {"registrationId":"dev-1"}
    < DISPOSITION 0 accepted
    < TRANSFER 0 0
    <   property retry-after 3
    <   data (assigning)

Links go by their handles, deliveries by their numbers. ``hex``, ``text`` and ``base64`` are pieces of one binary;
``rest`` is the remainder of a challenge, which is kept. The mechanisms that must come are among those that come. Source
and target of an attach are the address, or one of them is ``other``; its answer must repeat both. A flow must give
credit.
"""

import base64
from collections.abc import Callable

from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_frames import Frame, FrameReader, ProtocolHeader, encode_frame
from muster.wire.amqp_messages import AmqpValue, Body, Data, Message, Properties
from muster.wire.amqp_performatives import (
    RECEIVER,
    SENDER,
    Accepted,
    Attach,
    Begin,
    Close,
    Composite,
    Detach,
    Disposition,
    End,
    Flow,
    Open,
    Rejected,
    SaslChallenge,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    SaslResponse,
    Source,
    Target,
    Transfer,
)
from muster.wire.amqp_types import Int, Symbol, Value
from tests.support.trace_text import Step, named

Below = list[tuple[str, str]]

_KEYWORDS = frozenset(
    {"hex", "text", "base64", "rest", "property", "correlation-id", "data", "value", "info", "api-version"}
    | {"client-version", "other"}
)
_PROPERTIES = {"api-version": "com.microsoft:api-version", "client-version": "com.microsoft:client-version"}
_ROLES = {"receiver": RECEIVER, "sender": SENDER}
_LARGEST_SASL_FRAME = 512


class AmqpTrace:
    """One connection of a conversation. ``compare`` raises AssertionError unless a text, or JSON, is as expected."""

    def __init__(self, compare: Callable[[str, str], None], compare_json: Callable[[bytes, str], None]) -> None:
        self._compare = compare
        self._compare_json = compare_json
        self._reader = FrameReader()
        self._attached: dict[int, Attach] = {}
        self.rest = b""
        """What was kept of challenges."""

    def sent(self, step: Step) -> bytes:
        """The bytes of a step. Raises KeyError for a word that is none."""
        word, *words = step.lines[0].split()
        below = _below(step)
        if word == "AMQP":
            return ProtocolHeader(int(words[0])).encode()
        body, payload = _SENT[word](words, below)
        if isinstance(body, Attach):
            self._attached[body.handle] = body
        return encode_frame(0, body, payload)

    def require(self, data: bytes, step: Step) -> None:
        """``data`` is what the step says."""
        word, *words = step.lines[0].split()
        (item,) = self._reader.receive(data)
        if word == "AMQP":
            assert item == ProtocolHeader(int(words[0]))
            return
        assert isinstance(item, Frame), f"{item!r} came"
        kind, compare = _EXPECTED[word]
        assert isinstance(item.body, kind), f"{item.body!r} came, not {step.lines[0]}"
        if isinstance(item.body, SaslChallenge):
            assert len(data) <= _LARGEST_SASL_FRAME
        compare(self, item, words, _below(step))

    # What must come

    def _mechanisms(self, frame: Frame, words: list[str], _below: Below) -> None:
        assert isinstance(frame.body, SaslMechanisms)
        assert set(words) <= set(frame.body.sasl_server_mechanisms)

    def _challenge(self, frame: Frame, _words: list[str], below: Below) -> None:
        assert isinstance(frame.body, SaslChallenge)
        expected, found = _binary(below), frame.body.challenge
        if ("rest", "") in below:
            found, rest = found[: len(expected)], found[len(expected) :]
            assert rest
            self.rest += rest
        assert found == expected

    def _outcome(self, frame: Frame, words: list[str], _below: Below) -> None:
        assert isinstance(frame.body, SaslOutcome)
        assert frame.body.code == int(words[0])

    def _attach(self, frame: Frame, words: list[str], _below: Below) -> None:
        assert isinstance(frame.body, Attach)
        name, handle, role = words
        asked = self._attached[int(handle)]
        assert (frame.body.name, frame.body.handle, frame.body.role) == (name, int(handle), _ROLES[role])
        assert (frame.body.source, frame.body.target) == (asked.source, asked.target)

    def _flow(self, frame: Frame, words: list[str], _below: Below) -> None:
        assert isinstance(frame.body, Flow)
        assert frame.body.handle == int(words[0])
        assert frame.body.link_credit

    def _disposition(self, frame: Frame, words: list[str], below: Below) -> None:
        assert isinstance(frame.body, Disposition)
        number, outcome, *condition = words
        assert (frame.body.role, frame.body.settled, frame.body.first) == (RECEIVER, True, int(number))
        if outcome == "accepted":
            assert frame.body.state == Accepted()
            return
        assert outcome == "rejected"
        assert isinstance(frame.body.state, Rejected), f"{frame.body.state!r} came"
        error = frame.body.state.error
        assert error is not None
        assert [error.condition] == condition
        expected = dict(text.split() for keyword, text in below if keyword == "info")
        assert (error.info or {}) == {Symbol(name): Int(int(value)) for name, value in expected.items()}
        self._compare_json((error.description or "").encode(), _one(below, "data"))

    def _transfer(self, frame: Frame, words: list[str], below: Below) -> None:
        assert isinstance(frame.body, Transfer)
        assert [frame.body.handle, frame.body.delivery_id] == [int(word) for word in words]
        message = decode_message(frame.payload)
        correlation = _one(below, "correlation-id") or None
        assert (message.properties.correlation_id if message.properties else None) == correlation
        properties = dict(text.split() for keyword, text in below if keyword == "property")
        assert (message.application_properties or {}) == {name: Int(int(text)) for name, text in properties.items()}
        assert isinstance(message.body, Data), "two clients cast it (dps.md 3.4)"
        self._compare_json(message.body.joined(), _one(below, "data"))

    def _anything(self, frame: Frame, words: list[str], below: Below) -> None:
        assert frame.body is not None
        assert not words
        assert not below


_EXPECTED: dict[str, tuple[type[Composite], Callable[[AmqpTrace, Frame, list[str], Below], None]]] = {
    "SASL-MECHANISMS": (SaslMechanisms, AmqpTrace._mechanisms),
    "SASL-CHALLENGE": (SaslChallenge, AmqpTrace._challenge),
    "SASL-OUTCOME": (SaslOutcome, AmqpTrace._outcome),
    "OPEN": (Open, AmqpTrace._anything),
    "BEGIN": (Begin, AmqpTrace._anything),
    "ATTACH": (Attach, AmqpTrace._attach),
    "FLOW": (Flow, AmqpTrace._flow),
    "TRANSFER": (Transfer, AmqpTrace._transfer),
    "DISPOSITION": (Disposition, AmqpTrace._disposition),
    "DETACH": (Detach, lambda _trace, frame, words, _below: _require_handle(frame, words)),
    "END": (End, AmqpTrace._anything),
    "CLOSE": (Close, AmqpTrace._anything),
}


def _require_handle(frame: Frame, words: list[str]) -> None:
    assert isinstance(frame.body, Detach)
    assert [frame.body.handle] == [int(word) for word in words]
    assert frame.body.error is None


# What is sent


def _attach(words: list[str], below: Below) -> Attach:
    name, handle, role, address = words
    properties: dict[Value, Value] = {
        Symbol(_PROPERTIES[keyword]): text for keyword, text in below if keyword in _PROPERTIES
    }
    own = _one(below, "other") or address
    sends = _ROLES[role] == SENDER
    count = 0 if sends else None
    source, target = Source(own if sends else address), Target(address if sends else own)
    return Attach(name, int(handle), _ROLES[role], 2, 0, source, target, None, False, count, properties=properties)


def _transfer(words: list[str], below: Below) -> tuple[Composite, bytes]:
    handle, number = (int(word) for word in words)
    message = Message(body=_message_body(below))
    correlation = _one(below, "correlation-id")
    if correlation:
        message.properties = Properties(correlation_id=correlation)
    properties = dict(text.split(maxsplit=1) for keyword, text in below if keyword == "property")
    truths = {"true": True, "false": False}
    message.application_properties = {name: truths.get(text, text) for name, text in properties.items()}
    return Transfer(handle, number, number.to_bytes(4, "big"), 0, settled=False), encode_message(message)


def _message_body(below: Below) -> Body | None:
    for keyword, text in below:
        if keyword == "data":
            return Data((text.encode(),))
        if keyword == "value":
            return AmqpValue(text)
    return None


def _alone(body: Composite) -> tuple[Composite, bytes]:
    return body, b""


_SENT: dict[str, Callable[[list[str], Below], tuple[Composite, bytes]]] = {
    "SASL-INIT": lambda words, below: _alone(SaslInit(words[0], _binary(below) or None, " ".join(words[1:]) or None)),
    "SASL-RESPONSE": lambda _words, below: _alone(SaslResponse(_binary(below))),
    "OPEN": lambda words, _below: _alone(Open(words[0], words[1])),
    "BEGIN": lambda _words, _below: _alone(Begin(None, 0, 100, 100)),
    "ATTACH": lambda words, below: _alone(_attach(words, below)),
    "FLOW": lambda words, _below: _alone(Flow(1, 100, 0, 100, int(words[0]), 0, int(words[1]))),
    "TRANSFER": _transfer,
    "DISPOSITION": lambda words, _below: _alone(
        Disposition(RECEIVER, int(words[0]), None, settled=True, state={"accepted": Accepted()}[words[1]])
    ),
    "DETACH": lambda words, _below: _alone(Detach(int(words[0]), closed=True)),
    "END": lambda _words, _below: _alone(End()),
    "CLOSE": lambda _words, _below: _alone(Close()),
}


def _below(step: Step) -> Below:
    """Keywords and what stands behind them; a line without a keyword goes on with the one before."""
    found: Below = []
    for line in step.lines[1:]:
        keyword, _, text = line.strip().partition(" ")
        if keyword in _KEYWORDS:
            found.append((keyword, text))
        else:
            keyword, text = found.pop()
            found.append((keyword, f"{text} {line.strip()}"))
    return [(keyword, named(text) if keyword == "data" else text) for keyword, text in found]


def _one(below: Below, wanted: str) -> str:
    return next((text for keyword, text in below if keyword == wanted), "")


def _binary(below: Below) -> bytes:
    read: dict[str, Callable[[str], bytes]] = {
        "hex": bytes.fromhex,
        "text": str.encode,
        "base64": base64.b64decode,
        "rest": lambda _text: b"",
    }
    return b"".join(read[keyword](text) for keyword, text in below)


def frame_length(data: bytes) -> int | None:
    """Of the header or frame that ``data`` begins with; None while that cannot be told."""
    if len(data) < 8:
        return None
    return 8 if data.startswith(b"AMQP") else int.from_bytes(data[:4], "big")
