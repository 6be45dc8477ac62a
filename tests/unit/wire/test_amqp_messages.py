"""AMQP 1.0 messages: sections as azure-eventhub's pyamqp and uamqp write them, and as both read ours."""

import pytest

from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_messages import AmqpSequence, AmqpValue, Data, Header, Message, Properties
from muster.wire.amqp_types import Array, DecodeError, Int, Long, Symbol, Timestamp, Ulong, Uuid

UUID = Uuid(bytes.fromhex("f275ea5e0c574ad7b11ab20c563d3b71"))
PROPERTIES = Properties(
    UUID,
    b"u",
    "/devices/d/messages/devicebound",
    "s",
    "r",
    "c",
    "application/json",
    "utf-8",
    1_763_890_000_000,
    1_763_890_000_001,
    "g",
    3,
    "rg",
)

READ = {
    # pyamqp: all sections, delivery annotations last
    "pyamqp": (
        Message(
            Header(True, 4, 1000, False, 2),
            {Symbol("d"): Int(1)},
            {Symbol("x-opt-offset"): "12"},
            PROPERTIES,
            {"operation": "READ"},
            Data((b"{}", b"2")),
            {Symbol("f"): True},
        ),
        (
            "005370c00d055601500470000003e8405202005372c11302a30c782d6f70742d6f6666736574a1023132005373c0730d98f2"
            "75ea5e0c574ad7b11ab20c563d3b71a00175a11f2f646576696365732f642f6d657373616765732f646576696365626f756e"
            "64a10173a10172a10163a3106170706c69636174696f6e2f6a736f6ea3057574662d38830000019ab0097080830000019ab0"
            "097081a101675203a1027267005374c11202a1096f7065726174696f6ea10452454144005375a0027b7d005375a001320053"
            "78c10602a301665601005371c10602a301645401"
        ),
    ),
    "pyamqp-value": (Message(body=AmqpValue("token")), "005377a105746f6b656e"),
    "pyamqp-sequence": (Message(body=AmqpSequence((["a", True],))), "005376c00602a101615601"),
    # uamqp: an int as message-id, strings as keys of annotations
    "uamqp": (
        Message(
            Header(),
            None,
            {"x-opt-p": Int(9)},
            Properties(Int(5), to="/x", content_type="application/json"),
            {"a": "b", "n": Int(7)},
            Data((b"hello",)),
        ),
        (
            "005370c006054040404043005372c10c02a107782d6f70742d705409005373c01d07540540a1022f78404040a3106170706c"
            "69636174696f6e2f6a736f6e005374c10c04a10161a10162a1016e5407005375a00568656c6c6f"
        ),
    ),
}

# Ours, read back by pyamqp and uamqp when they were pinned.
WRITTEN = {
    "all sections": (
        Message(
            Header(True, 4, 1000, False, 2),
            {Symbol("d"): Long(1)},
            {
                Symbol("x-opt-offset"): "12",
                Symbol("x-opt-sequence-number"): Long(300),
                Symbol("t"): Timestamp(1_763_890_000_000),
            },
            PROPERTIES,
            {"operation": "READ", "status-code": Int(200)},
            Data((b"{}", b"2")),
            {Symbol("f"): True},
        ),
        (
            "005370c00c0541500470000003e8425202005371c10602a301645501005372c13f06a30c782d6f70742d6f6666736574a102"
            "3132a315782d6f70742d73657175656e63652d6e756d62657281000000000000012ca30174830000019ab0097080005373c0"
            "730d98f275ea5e0c574ad7b11ab20c563d3b71a00175a11f2f646576696365732f642f6d657373616765732f646576696365"
            "626f756e64a10173a10172a10163a3106170706c69636174696f6e2f6a736f6ea3057574662d38830000019ab00970808300"
            "00019ab0097081a101675203a1027267005374c12404a1096f7065726174696f6ea10452454144a10b7374617475732d636f"
            "646571000000c8005375a0027b7d005375a00132005378c10502a3016641"
        ),
    ),
    "management reply": (
        Message(
            body=AmqpValue(
                {
                    "partition_ids": Array(0xA1, ["0", "1"]),
                    "created_at": Timestamp(5),
                    "e": [],
                    "is": False,
                    "n": Long(-1),
                }
            )
        ),
        (
            "005377c13d0aa10d706172746974696f6e5f696473e00602a101300131a10a637265617465645f6174830000000000000005"
            "a10165c00100a102697342a1016e55ff"
        ),
    ),
    "sequence": (Message(body=AmqpSequence((["a", True],))), "005376c00502a1016141"),
    "null value": (
        Message(properties=Properties(correlation_id=Ulong(0)), body=AmqpValue(None)),
        "005373c00e0d4040404040444040404040404000537740",
    ),
}


@pytest.mark.parametrize("name", READ)
def test_a_message_of_a_client_is_read(name):
    message, octets = READ[name]
    assert decode_message(bytes.fromhex(octets)) == message


@pytest.mark.parametrize("name", WRITTEN)
def test_a_message_is_written_and_read(name):
    message, octets = WRITTEN[name]
    assert encode_message(message).hex() == octets
    assert decode_message(bytes.fromhex(octets)) == message


def test_a_message_may_be_empty():
    assert decode_message(b"") == Message()
    assert encode_message(Message()) == b""


def test_descriptors_may_be_symbols():
    name = b"amqp:data:binary"
    assert decode_message(b"\x00\xa3" + bytes([len(name)]) + name + b"\xa0\x011") == Message(body=Data((b"1",)))


def test_data_sections_are_joined():
    assert Data((b"a",)).joined() == b"a"
    assert Data((b"a", b"b")).joined() == b"ab"


@pytest.mark.parametrize(
    "octets, reason",
    [
        ("40", "a section"),
        ("005310c00401a10163", "no map"),
        ("005310c10100", "no such section"),
        ("00a30178c10100", "no such section"),
        ("005371c00100", "no map"),
        ("005370c10100", "header is no list"),
        ("00537045" * 2, "a second section"),
        ("00537740" * 2, "a second section"),
        ("005375a000005377400053" + "75a000", "a second section"),
        ("005375a00000537740", "several kinds"),
        ("005375a10161", "no binary"),
        ("005376a10161", "no list"),
        ("005373c003024041", "properties.user_id: a binary"),
        ("005375", "where a constructor should be"),
    ],
)
def test_what_is_no_message_is_refused(octets, reason):
    with pytest.raises(DecodeError, match=reason):
        decode_message(bytes.fromhex(octets))
