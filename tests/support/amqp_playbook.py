"""An AMQP connection's test as a trace: `>>` goes in, `<<` must come out, and nothing else may.

assert opened() >> Begin(None, 1, 100, 100) << sends(Begin(0, 1, 5000, 0xFFFF_FFFF, 255))
"""

from collections.abc import Callable

from muster.frontends.trace import TracedConnection
from muster.wire.amqp_connection import AmqpConnection
from muster.wire.amqp_frames import Frame, FrameReader, ProtocolHeader, encode_frame
from muster.wire.amqp_opening import CLOSED
from muster.wire.amqp_performatives import (
    RECEIVER,
    Accepted,
    Attach,
    Begin,
    Composite,
    Open,
    SaslInit,
    SaslResponse,
    Source,
    Target,
    Transfer,
)
from muster.wire.amqp_sessions import Attached, Delivery, Event, Link, Violation

SERVER_OPEN = Open("muster", None, 65_536, 8191, 240_000)
CLIENT_OPEN = Open("client", "hub.example", 65_536, 65_535)
SERVER_BEGIN = Begin(0, 1, 5000, 0xFFFF_FFFF, 255)
AMQP = ProtocolHeader(0)
SASL = ProtocolHeader(3)


class Sent:
    def __init__(self, items: list[object]) -> None:
        self.items = items


def sends(*items: object) -> Sent:
    """Frames, headers, or bodies on channel 0."""
    return Sent([Frame(0, item) if isinstance(item, Composite) else item for item in items])


class Refusal:
    def __init__(self, condition: str, reason: str) -> None:
        self.condition = condition
        self.reason = reason


def refuses(condition: str, reason: str = "") -> Refusal:
    return Refusal(condition, reason)


class Playbook:
    def __init__(self, connection: AmqpConnection | None = None) -> None:
        self.connection = connection or AmqpConnection(0, "muster")
        self.now = 0
        self.events: list[Event] = []
        self.sent: list[object] = []
        self.reader = FrameReader()
        self.link: Link | None = None

    def __rshift__(self, step: object) -> "Playbook":
        self.require_nothing_left()
        if isinstance(step, Composite):
            self.events += self.connection.receive(encode_frame(0, step), self.now)
        elif isinstance(step, (Frame, ProtocolHeader)):
            self.events += self.connection.receive(step.encode(), self.now)
        elif isinstance(step, bytes):
            self.events += self.connection.receive(step, self.now)
        elif isinstance(step, Callable):  # type: ignore[arg-type]
            self.events += step(self) or []  # type: ignore[operator]
        self.sent += self.reader.receive(self.connection.take_output())
        return self

    def __lshift__(self, outcome: object) -> "Playbook":
        if isinstance(outcome, Sent):
            for item in outcome.items:
                assert self.sent, f"{item!r} was not sent"
                assert self.sent[0] == item, f"sent {self.sent[0]!r}, not {item!r}"
                self.sent.pop(0)
            return self
        assert self.events, f"no event, where {outcome!r} was expected"
        event = self.events.pop(0)
        if isinstance(outcome, Refusal):
            assert isinstance(event, Violation), f"{event!r} is no violation"
            assert event.condition == outcome.condition, f"{event!r}, not {outcome.condition}"
            assert outcome.reason in event.reason, f"{event!r}, not {outcome.reason}"
            assert self.connection._state == CLOSED
        elif isinstance(outcome, type):
            assert isinstance(event, outcome), f"{event!r} is no {outcome.__name__}"
        else:
            assert event == outcome, f"{event!r}, not {outcome!r}"
        if isinstance(event, Attached):
            self.link = event.link
        return self

    def __bool__(self) -> bool:
        self.require_nothing_left()
        return True

    def require_nothing_left(self) -> None:
        assert not self.events, f"events nobody expected: {self.events}"
        assert not self.sent, f"frames nobody expected: {self.sent}"


def act(name: str, *arguments: object, **options: object) -> Callable[[Playbook], list[Event] | None]:
    """The step that calls a method of the connection; LINK among the arguments is the link attached last."""

    def step(play: Playbook) -> list[Event] | None:
        values = [play.link if argument is LINK else argument for argument in arguments]
        result = getattr(play.connection, name)(*values, **options)
        return result if isinstance(result, list) else None

    return step


class _TheLink:
    def __repr__(self) -> str:
        return "LINK"


LINK = _TheLink()


def after(seconds: float) -> Callable[[Playbook], list[Event]]:
    def step(play: Playbook) -> list[Event]:
        play.now += round(seconds * 1_000_000)
        return play.connection.expire(play.now)

    return step


def opened(connection: AmqpConnection | None = None, client: Open = CLIENT_OPEN) -> Playbook:
    return Playbook(connection) >> AMQP << sends(AMQP) >> client << client << sends(SERVER_OPEN)


def begun(client: Open = CLIENT_OPEN, window: int = 5000) -> Playbook:
    return opened(client=client) >> Begin(None, 0, window, 5000) << sends(SERVER_BEGIN)


SOURCE = Source("a")
TARGET = Target("b")


def receiving(credit: int = 10, size: int = 1000) -> Playbook:
    """A link on which the server receives, with credit."""
    play = begun() >> Attach("in", 3, False, 2, 0, SOURCE, TARGET, initial_delivery_count=0) << Attached
    play = play >> act("attach", LINK, max_message_size=size)
    play = play << sends(Attach("in", 3, True, 2, 0, SOURCE, TARGET, max_message_size=size))
    play >> act("grant", LINK, credit)
    play.sent.clear()
    return play


def sending(client: Open = CLIENT_OPEN, window: int = 5000) -> Playbook:
    """A link on which the server sends, without credit yet."""
    play = begun(client, window) >> Attach("out", 4, True, 0, 0, SOURCE, TARGET) << Attached
    play >> act("attach", LINK)
    play.sent.clear()
    return play


def message(delivery_id: int, *, more: bool = False, payload: bytes = b"x", settled: bool = False) -> Frame:
    return Frame(0, Transfer(3, delivery_id, b"t", 0, settled, more), payload)


def replay(connection: TracedConnection) -> list[Event]:
    """What the client of a recording sent, played to a connection that lets everybody in and takes everything."""
    play = AmqpConnection(0, "muster")
    events: list[Event] = []
    for record in connection.records:
        waiting = play.receive(record.data, 0) if record.direction == "received" else []
        while waiting:
            event = waiting.pop(0)
            events.append(event)
            if isinstance(event, (SaslInit, SaslResponse)):
                waiting += play.sasl_outcome(0, 0)
            elif isinstance(event, Attached):
                play.attach(event.link)
                if event.link.role == RECEIVER:
                    play.grant(event.link, 100)
            elif isinstance(event, Delivery):
                play.settle(event.link, [event.delivery_id], Accepted())
    return events
