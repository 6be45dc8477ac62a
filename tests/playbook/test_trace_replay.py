"""Recorded connections, replayed: every file in `traces/`, written by `muster up --trace FILE` or by hand.

A recording that is dropped into that folder is a test from then on. Connections that speak something else than MQTT
or AMQP on bare TLS are passed over.
"""

from pathlib import Path
from typing import Any

import pytest

from muster.frontends.trace import TracedConnection, TraceRecord, load_trace
from muster.wire import amqp_sessions
from muster.wire.amqp_performatives import Open, SaslInit
from muster.wire.amqp_sessions import Attached, Closed, Delivery
from muster.wire.mqtt_packets import (
    NOT_AUTHORIZED,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Pingresp,
    Puback,
    Publish,
    Pubrec,
    Subscribe,
)
from muster.wire.mqtt_session import MqttSession, Violation
from tests.support.amqp_playbook import replay as replay_amqp
from tests.support.playbook import SECOND, replay

TRACES = Path(__file__).parent / "traces"


def recordings(first: bytes) -> list[Any]:
    """The recorded connections that begin so."""
    return [
        pytest.param(connection, id=f"{path.stem}-{connection.number}")
        for path in sorted(TRACES.glob("*.jsonl"))
        for connection in load_trace(path)
        if connection.records and connection.records[0].data.startswith(first)
    ]


@pytest.mark.parametrize("connection", recordings(b"\x10"))
def test_a_recorded_connection_replays(connection):
    assert replay(connection)


@pytest.mark.parametrize("connection", recordings(b"AMQP"))
def test_a_recorded_amqp_connection_replays(connection):
    events = replay_amqp(connection)
    assert events
    assert not isinstance(events[-1], amqp_sessions.Violation)


def test_the_shipped_amqp_traces_are_what_their_names_say():
    device, service, key, refused = (replay_amqp(one) for one in load_trace(TRACES / "amqp_node.jsonl"))
    # $cbs and telemetry: a token and a message.
    assert isinstance(device[0], Open)
    assert isinstance(device[-1], Closed)
    assert [type(event) for event in device if isinstance(event, (Attached, Delivery))] == [
        Attached,
        Attached,
        Delivery,
        Attached,
        Delivery,
    ]
    assert isinstance(service[0], SaslInit)
    assert isinstance(service[-1], Closed)
    assert [type(event) for event in key] == [SaslInit, Open, Closed]
    assert [type(event) for event in refused] == [SaslInit]


def test_the_shipped_traces_are_what_their_names_say():
    registration = replay(load_trace(TRACES / "dps_registration.jsonl")[0])
    assert [type(event) for event in registration] == [
        Connect,
        Subscribe,
        Publish,
        Puback,
        Publish,
        Puback,
        Publish,
        Puback,
        Disconnect,
    ]
    telemetry, refused, mqtt_5 = (replay(connection) for connection in load_trace(TRACES / "hub_telemetry.jsonl"))
    assert sum(isinstance(event, Publish) for event in telemetry) == 3
    assert isinstance(refused[-1], Connect)
    assert isinstance(mqtt_5[-1], Violation)


def recorded(*records):
    """A connection with a record each second; packets that a client sends are named first in each pair."""
    lines = [
        TraceRecord(number * SECOND, direction, b"".join(packet.encode() for packet in packets))
        for number, (direction, *packets) in enumerate(records)
    ]
    return TracedConnection(1, "a test", 0, lines)


CONNECT = ("received", Connect("dev-1", keep_alive=60))
CONNACK = ("sent", Connack())


def test_what_the_session_owes_may_have_left_together_with_other_packets():
    pings = recorded(CONNECT, ("received", Pingreq()), ("sent", Connack(), Pingresp(), Puback(3)))
    assert replay(pings) == [CONNECT[1], Pingreq()]


@pytest.mark.parametrize(
    "records",
    [
        pytest.param([CONNECT, CONNACK, ("sent", Publish(b"c2d", b"", 1, 2))], id="another packet id"),
        pytest.param([CONNECT, CONNACK, ("received", Pingreq())], id="an answer that was not sent"),
        pytest.param([CONNECT, CONNACK, ("sent", Pingresp())], id="an answer to nothing"),
        pytest.param([CONNECT, CONNACK, ("received", Pingreq()), ("sent", Puback(1))], id="out of order"),
    ],
)
def test_a_recording_that_the_session_would_not_repeat_is_noticed(records):
    with pytest.raises(AssertionError):
        replay(recorded(*records))


def test_a_recording_in_which_the_session_should_have_expired():
    late = TracedConnection(
        1,
        "a test",
        0,
        [
            TraceRecord(0, "received", Connect("dev-1", keep_alive=1).encode()),
            TraceRecord(2 * SECOND, "sent", Connack().encode()),
        ],
    )
    with pytest.raises(AssertionError, match="Connack"):
        replay(late)


def test_messages_of_an_earlier_connection_and_qos_2_are_replayed_too():
    again = recorded(
        ("received", Connect("dev-1", clean_session=False)),
        ("sent", Connack(session_present=True), Publish(b"c2d", b"", 1, 77, dup=True)),
        ("received", Publish(b"t", b"", 2, 5), Puback(77)),
        ("sent", Pubrec(5)),
    )
    events = replay(again, MqttSession(0, qos_2=True))
    assert events[1:] == [Publish(b"t", b"", 2, 5), Puback(77)]


def test_a_refused_connection():
    assert replay(recorded(CONNECT, ("sent", Connack(NOT_AUTHORIZED)))) == [CONNECT[1]]
