"""Cloud-to-device messages as service clients write them."""

import pytest

from muster.domain.c2d_message import C2dMessage, C2dProperties
from muster.domain.errors import ArgumentInvalidError, InvalidOperationError
from muster.frontends.amqp.c2d_message import read_message, recipients
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_messages import AmqpSequence, AmqpValue, Data, Header, Message, Properties
from muster.wire.amqp_types import DecodeError, Double, Int, Symbol, Uint, Ulong, Uuid

NOW = 1_790_000_000_000_000
UUID = bytes.fromhex("00112233445566778899aabbccddeeff")


def read(message: Message) -> C2dMessage:
    return read_message(encode_message(message), NOW)


def properties_of(**values: object) -> C2dProperties:
    return read(Message(properties=Properties(**values))).properties


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("/devices/d/messages/devicebound", [("d", "")]),
        ("/devices/d/messages/deviceBound", [("d", "")]),
        ("devices/d/messages/devicebound", [("d", "")]),
        ("/devices/d/messages/devicebound/", [("d", "")]),
        ("amqps://hub.example.net:5671/devices/d/messages/devicebound", [("d", "")]),
        ("/DEVICES/D/Messages/DeviceBound", [("D", "")]),
        ("/devices/d/modules/m/messages/deviceBound", [("d", "m")]),
        ("/devices/a%2Fb/messages/devicebound", [("a%2Fb", ""), ("a/b", "")]),
        ("/devices/a%23b/modules/m%24/messages/devicebound", [("a%23b", "m%24"), ("a#b", "m$")]),
        ("/devices/a#b?c/messages/devicebound", [("a#b?c", "")]),
        ("/devices/a+b/messages/devicebound", [("a+b", "")]),
        ("/devices/a%2Bb/messages/devicebound", [("a%2Bb", ""), ("a+b", "")]),
        ("/devices/dev 1/x/messages/devicebound", [("dev 1/x", "")]),
        ("/devices/50%/messages/devicebound", [("50%", "")]),
        ("/devices/a%00/messages/devicebound", [("a%00", "")]),
    ],
)
def test_whom_it_is_for(to, expected):
    assert list(recipients(to)) == expected


@pytest.mark.parametrize(
    "to",
    [
        "",
        "d",
        "/devices/d",
        "/devices//messages/devicebound",
        "/devices/d/messages/events",
        "/devices/d/messages/devicebound/x",
        "/messages/devicebound",
        "/devices/\0/messages/devicebound",
        f"/devices/{'d' * 3000}/messages/devicebound",
    ],
)
def test_no_recipient(to):
    with pytest.raises(InvalidOperationError):
        recipients(to)


def test_all_properties():
    message = read(
        Message(
            properties=Properties(
                message_id="m-1",
                user_id=b"ops",
                to="/devices/d/messages/devicebound",
                correlation_id="c-1",
                content_type="application/json",
                content_encoding="utf-8",
                absolute_expiry_time=1_790_000_001_000,
                creation_time=1_790_000_000_500,
            ),
            application_properties={"iothub-ack": "full", "color": "red", "celsius": Double(21.5), "nothing": None},
            body=Data((b"he", b"llo")),
        )
    )
    assert message.body == b"hello"
    assert message.properties == C2dProperties(
        message_id="m-1",
        user_id="ops",
        to="/devices/d/messages/devicebound",
        correlation_id="c-1",
        content_type="application/json",
        content_encoding="utf-8",
        expiry=1_790_000_001_000_000,
        creation_time=1_790_000_000_500_000,
        application={"iothub-ack": "full", "color": "red", "celsius": "21.5"},
    )


def test_nothing_at_all():
    assert read_message(b"", NOW) == C2dMessage(C2dProperties())


@pytest.mark.parametrize(
    ("value", "text"),
    [("m-1", "m-1"), (Uuid(UUID), "00112233-4455-6677-8899-aabbccddeeff"), (Ulong(7), "7"), (Int(7), "7"), (b"m", "m")],
)
def test_ids_of_every_type(value, text):
    found = properties_of(message_id=value, correlation_id=value)
    assert (found.message_id, found.correlation_id) == (text, text)


def test_an_id_without_a_text():
    with pytest.raises(ArgumentInvalidError, match="message-id"):
        properties_of(message_id=b"\xff")


def test_a_user_id_that_is_no_text():
    assert properties_of(user_id=b"a\xffb").user_id == "a�b"


@pytest.mark.parametrize(
    ("milliseconds", "expiry"),
    [
        (None, 0),
        (0, 0),
        (-62_135_596_800_000, 0),
        (1, 1000),
        (253_402_300_799_999, 253_402_300_799_999_000),
        (2**63 - 1, 253_402_300_799_999_000),
    ],
)
def test_expiry(milliseconds, expiry):
    assert properties_of(absolute_expiry_time=milliseconds).expiry == expiry


def test_a_time_to_live():
    assert read(Message(header=Header(ttl=5000))).properties.expiry == NOW + 5_000_000
    both = Message(header=Header(ttl=5000), properties=Properties(absolute_expiry_time=7))
    assert read(both).properties.expiry == 7000
    assert read(Message(header=Header(ttl=0))).properties.expiry == 0


@pytest.mark.parametrize(
    ("body", "content"),
    [
        (None, b""),
        (Data((b"",)), b""),
        (AmqpValue(None), b""),
        (AmqpValue("é"), b"\xc3\xa9"),
        (AmqpValue(b"\0"), b"\0"),
    ],
)
def test_bodies(body, content):
    assert read(Message(body=body)).body == content


@pytest.mark.parametrize("body", [AmqpValue(Uint(1)), AmqpValue({"a": "b"}), AmqpSequence((["a"],))])
def test_a_body_that_cannot_be(body):
    with pytest.raises(ArgumentInvalidError):
        read(Message(body=body))


@pytest.mark.parametrize("fields", [{"a": ["b"]}, {"a": b"\xff"}, {b"\xff": "a"}, {"a": {"b": "c"}}])
def test_application_properties_that_cannot_be(fields):
    with pytest.raises(ArgumentInvalidError):
        read(Message(application_properties=fields))


def test_names_of_application_properties():
    fields = {Symbol("a"): "1", b"b": "2", Int(3): "3"}
    assert read(Message(application_properties=fields)).properties.application == {"a": "1", "b": "2", "3": "3"}


def test_what_is_no_message():
    with pytest.raises(DecodeError):
        read_message(b"\x00\x53\x75", NOW)
