"""A wire core's test as a trace: `>>` goes in, `<<` must come out, and nothing else may.

    assert (
        Playbook()
        >> Connect("dev-1")                       # bytes or a packet, from the peer
        << Connect("dev-1")                       # the event
        >> act.connack(ACCEPTED)                  # an action of the session
        << sends(Connack(ACCEPTED))               # the bytes that left
        >> after(45)                              # seconds pass, and `expire` is called
    )

Each `>>` first sees to it that all events and bytes of the steps before have been named. The `assert` in
front does the same for the last step.
"""

from collections.abc import Callable

from muster.frontends.trace import TracedConnection
from muster.wire.mqtt_decoder import decode_all
from muster.wire.mqtt_packets import (
    ACCEPTED,
    Connack,
    Connect,
    Packet,
    Puback,
    Publish,
    Pubrec,
    Suback,
    Unsuback,
)
from muster.wire.mqtt_session import Event, MqttSession, Violation, ViolationKind

SECOND = 1_000_000


class Step:
    """Something that is done to the session."""

    def __init__(self, name: str, run: Callable[["Playbook"], None]) -> None:
        self.name = name
        self.run = run


class Actions:
    """`act.puback(7)`: the step that calls `session.puback(7)`."""

    def __getattr__(self, name: str) -> Callable[..., Step]:
        def step(*arguments: object, **options: object) -> Step:
            return Step(name, lambda play: getattr(play.session, name)(*arguments, **options))

        return step


act = Actions()


def after(seconds: float) -> Step:
    """The step that lets time pass and calls `expire`."""

    def run(play: "Playbook") -> None:
        play.now += round(seconds * SECOND)
        play.events += play.session.expire(play.now)

    return Step(f"after {seconds} s", run)


class Sent:
    """Bytes that must leave, packet after packet."""

    def __init__(self, content: bytes) -> None:
        self.content = content


def sends(*packets: Packet | bytes) -> Sent:
    return Sent(b"".join(packet if isinstance(packet, bytes) else packet.encode() for packet in packets))


class Refusal:
    """A violation of this kind whose reason names this statement; the session must be closed by then."""

    def __init__(self, kind: ViolationKind, statement: str) -> None:
        self.kind = kind
        self.statement = statement


def refuses(kind: ViolationKind, statement: str = "") -> Refusal:
    return Refusal(kind, statement)


class Playbook:
    def __init__(self, session: MqttSession | None = None, now: int = 0) -> None:
        self.session = MqttSession(now) if session is None else session
        self.now = now
        self.events: list[Event] = []
        self.output = b""

    def __rshift__(self, step: bytes | Packet | Step) -> "Playbook":
        self.require_nothing_left()
        if isinstance(step, Step):
            step.run(self)
        else:
            data = step if isinstance(step, bytes) else step.encode()
            self.events += self.session.receive(data, self.now)
        self.output += self.session.take_output()
        return self

    def __lshift__(self, outcome: Event | Sent | Refusal) -> "Playbook":
        if isinstance(outcome, Sent):
            length = len(outcome.content)
            assert self.output[:length] == outcome.content, f"sent {self.output!r}, not {outcome.content!r}"
            self.output = self.output[length:]
            return self
        assert self.events, f"no event, where {outcome!r} was expected"
        event = self.events.pop(0)
        if isinstance(outcome, Refusal):
            assert isinstance(event, Violation), f"{event!r} is no violation"
            assert event.kind is outcome.kind, f"{event!r}, not {outcome.kind}"
            assert outcome.statement in event.reason, f"{event.reason!r} does not name {outcome.statement!r}"
            assert self.session.closed
        else:
            assert event == outcome, f"{event!r} {event.values()}, not {outcome!r} {outcome.values()}"
        return self

    def __bool__(self) -> bool:
        self.require_nothing_left()
        return True

    def require_nothing_left(self) -> None:
        assert not self.events, f"events nobody expected: {self.events}"
        assert not self.output, f"bytes nobody expected: {self.output!r}"


def connected(session: MqttSession | None = None, connect: Connect | None = None) -> Playbook:
    """A playbook whose connection has been accepted."""
    play = Playbook(session)
    packet = connect or Connect("dev-1", keep_alive=60)
    return play >> packet << packet >> act.connack(ACCEPTED) << sends(Connack(ACCEPTED))


def replay(connection: TracedConnection, session: MqttSession | None = None) -> list[Event]:
    """Does again what a traced MQTT connection did, and asserts that the session sends what was sent.

    What was received is received again at its time. Each packet that was sent becomes the action that sends it,
    unless the session sends it by itself; then it must be the next one that it owes. Returns the events.
    """
    session = session or MqttSession(connection.opened)
    events: list[Event] = []
    owed = b""
    for record in connection.records:
        events += session.expire(record.time)
        if record.direction == "received":
            events += session.receive(record.data, record.time)
            owed += session.take_output()
            continue
        for packet in decode_all(record.data):
            encoded = packet.encode()
            if not owed.startswith(encoded):
                send_again(session, packet)
                owed = session.take_output() + owed
            assert owed.startswith(encoded), f"{packet} was sent, {owed!r} is sent now"
            owed = owed[len(encoded) :]
    assert not owed, f"{owed!r} was not sent"
    return events


def send_again(session: MqttSession, packet: Packet) -> None:
    match packet:
        case Connack():
            session.connack(packet.return_code, session_present=packet.session_present)
        case Publish():
            session.publish(
                packet.topic,
                packet.payload,
                packet.qos,
                retain=packet.retain,
                dup=packet.dup,
                packet_id=packet.packet_id if packet.dup else 0,
            )
        case Puback():
            session.puback(packet.packet_id)
        case Pubrec():
            session.pubrec(packet.packet_id)
        case Suback():
            session.suback(packet.packet_id, packet.return_codes)
        case Unsuback():
            session.unsuback(packet.packet_id)
        case _:
            raise AssertionError(f"{packet} was sent, and nothing asked for it")
