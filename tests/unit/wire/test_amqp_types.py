"""AMQP 1.0 values: the bytes of each type as azure-eventhub's pyamqp and uamqp write them, and what is refused."""

import struct

import pytest

from muster.wire.amqp_decoder import decode, decode_one
from muster.wire.amqp_encoder import encode
from muster.wire.amqp_types import (
    MAX_DEPTH,
    MAX_EMPTY_ELEMENTS,
    Array,
    Byte,
    Char,
    Decimal32,
    Decimal64,
    Decimal128,
    DecodeError,
    Described,
    Double,
    Float,
    Int,
    Long,
    Short,
    Symbol,
    Timestamp,
    Ubyte,
    Uint,
    Ulong,
    Ushort,
    Uuid,
)

UUID = bytes.fromhex("f275ea5e0c574ad7b11ab20c563d3b71")
SELECTOR = "apache.org:selector-filter:string"
EXPRESSION = "amqp.annotation.x-opt-offset > '@latest'"

# Written by azure-eventhub 5.15.1 (pyamqp), or by uamqp 1.6.11 where pyamqp has no such type or writes it longer;
# the last ones by hand, from section 1.6.
VECTORS = [
    (None, "40"),
    (True, "41"),
    (False, "42"),
    (Ubyte(0), "5000"),
    (Ubyte(255), "50ff"),
    (Ushort(0), "600000"),
    (Ushort(65_535), "60ffff"),
    (Uint(0), "43"),
    (Uint(1), "5201"),
    (Uint(255), "52ff"),
    (Uint(256), "7000000100"),
    (Uint(2**32 - 1), "70ffffffff"),
    (Ulong(0), "44"),
    (Ulong(1), "5301"),
    (Ulong(255), "53ff"),
    (Ulong(256), "800000000000000100"),
    (Ulong(2**64 - 1), "80ffffffffffffffff"),
    (Byte(-128), "5180"),
    (Byte(127), "517f"),
    (Short(-32_768), "618000"),
    (Short(32_767), "617fff"),
    (Int(-128), "5480"),
    (Int(127), "547f"),
    (Int(200), "71000000c8"),
    (Int(-129), "71ffffff7f"),
    (Int(2**31 - 1), "717fffffff"),
    (Long(-128), "5580"),
    (Long(127), "557f"),
    (Long(128), "810000000000000080"),
    (Long(-(2**63)), "818000000000000000"),
    (Float(1.5), "723fc00000"),
    (Double(-0.1), "82bfb999999999999a"),
    (Timestamp(1_763_890_000_000), "830000019ab0097080"),
    (Timestamp(-1), "83ffffffffffffffff"),
    (Uuid(UUID), "98" + UUID.hex()),
    (b"", "a000"),
    (b"\x00\xff", "a00200ff"),
    ("", "a100"),
    ("dämm", "a10564c3a46d6d"),
    (Symbol(""), "a300"),
    (Symbol("x-opt-offset"), "a30c782d6f70742d6f6666736574"),
    (b"x" * 256, "b000000100" + "78" * 256),
    ("x" * 256, "b100000100" + "78" * 256),
    (Symbol("x" * 256), "b300000100" + "78" * 256),
    ([Uint(1), "a"], "c006025201a10161"),
    ([None] * 256, "d00000010400000100" + "40" * 256),
    ({Symbol("k"): Long(1), "k": Int(200)}, "c10e04a3016b5501a1016b71000000c8"),
    (Described(Symbol(SELECTOR), EXPRESSION), f"00a321{SELECTOR.encode().hex()}a128{EXPRESSION.encode().hex()}"),
    # by hand
    (Char(ord("€")), "73000020ac"),
    (Decimal32(b"\x01\x02\x03\x04"), "7401020304"),
    (Decimal64(b"\x01" * 8), "84" + "01" * 8),
    (Decimal128(b"\x01" * 16), "94" + "01" * 16),
    ([], "c00100"),
    ({}, "c10100"),
    (Array(0xA3, [Symbol("PLAIN"), Symbol("X")]), "e00a02a305504c41494e0158"),
    (Array(0xA1, ["0", "1"]), "e00602a101300131"),
    (Array(0xA1, ["x" * 256]), "f0" + "00000109" + "00000001" + "b1" + "00000100" + "78" * 256),
    (Array(0x80, [Ulong(1), Ulong(2)]), "e0120280" + "0000000000000001" + "0000000000000002"),
    (Array(0x56, [True, False]), "e00402560100"),
    (Array(0x40, [None, None]), "e0020240"),
    (Array(0x71, []), "e0020071"),
    (Array(0xD0, [[], [None]]), "e01302d0" + "0000000400000000" + "000000050000000140"),
    (Array(0x50, [Ubyte(7)], [Ulong(5)]), "e00601005305" + "5007"),
]
IDS = [f"{index}-{value!r:.40}" for index, (value, _) in enumerate(VECTORS)]


@pytest.mark.parametrize("value, octets", VECTORS, ids=IDS)
def test_a_value_is_written_and_read(value, octets):
    assert encode(value).hex() == octets
    assert decode_one(bytes.fromhex(octets)) == value


@pytest.mark.parametrize(
    "octets, value",
    [
        ("5601", True),
        ("5600", False),
        ("7000000005", Uint(5)),
        ("5200", Uint(0)),
        ("800000000000000005", Ulong(5)),
        ("7100000005", Int(5)),
        ("810000000000000005", Long(5)),
        ("b00000000161", b"a"),
        ("b10000000161", "a"),
        ("b30000000161", Symbol("a")),
        ("45", []),
        ("d0000000050000000140", [None]),
        ("d10000000400000000", {}),
        ("e01802b300000005504c41494e00000009414e4f4e594d4f5553", Array(0xA3, [Symbol("PLAIN"), Symbol("ANONYMOUS")])),
        ("e00c02b100000001300000000131", Array(0xA1, ["0", "1"])),
        ("e00100", Array(0x40, [])),
        ("f0000000050000000071", Array(0x71, [])),
        ("e0020341", Array(0x56, [True, True, True])),
        ("e0020245", Array(0xD0, [[], []])),
    ],
)
def test_another_form_of_a_value_is_read(octets, value):
    assert decode_one(bytes.fromhex(octets)) == value


def test_types_are_kept_apart():
    same = [Ubyte(5), Ushort(5), Uint(5), Ulong(5), Byte(5), Short(5), Int(5), Long(5), Timestamp(5), Char(5)]
    same += [Float(5.0), Double(5.0), "5", Symbol("5"), b"5", True]
    assert len({repr(value) for value in same}) == len(same)
    for index, value in enumerate(same):
        for other in same[:index]:
            assert value != other
        assert decode_one(encode(value)) == value


def test_floats_are_equal_by_their_bits():
    assert Double(float("nan")) == Double(float("nan"))
    assert Double(0.0) != Double(-0.0)
    assert decode_one(struct.pack(">Bd", 0x82, float("-inf"))) == Double(float("-inf"))


def test_decode_says_where_the_next_value_starts():
    assert decode(b"\x40\x52\x07\x41", 1) == (Uint(7), 3)


REFUSED = [
    ("", "where a constructor should be"),
    ("00", "where a constructor should be"),
    ("005370", "where a constructor should be"),
    ("52", "too early"),
    ("7000", "too early"),
    ("98" + "00" * 15, "too early"),
    ("a105aa", "too early"),
    ("b1000000", "too early"),
    ("b1ffffffff", "too early"),
    ("30", "no constructor 0x30"),
    ("5f00", "no constructor 0x5f"),
    ("46", "no constructor 0x46"),
    ("a200", "no constructor 0xa2"),
    ("c200", "no constructor 0xc2"),
    ("5602", "1.6.2"),
    ("7300110000", "1.6.16"),
    ("730000d800", "1.6.16"),
    ("a102c328", "1.6.20"),
    ("a301c3", "1.6.21"),
    ("c000", "no count"),
    ("d000000000", "no count"),
    ("c00102", "do not fit"),
    ("d000000004ffffffff", "do not fit"),
    ("c0020040", "follow the last value"),
    ("c003014040", "follow the last value"),
    ("c1020140", "without a value"),
    ("c1050440414041", "twice"),
    ("e00101", "no element constructor"),
    ("e003013000", "no constructor 0x30"),
    ("e0020030", "no constructor 0x30"),
    ("e002ff71", "where 0 can be"),
    ("f000000005ffffffff40", f"where {MAX_EMPTY_ELEMENTS} can be"),
    ("e00401500708", "follow the last element"),
    ("4040", "follow the value"),
]


@pytest.mark.parametrize("octets, reason", REFUSED)
def test_what_is_no_value_is_refused(octets, reason):
    with pytest.raises(DecodeError, match=reason):
        decode_one(bytes.fromhex(octets))


@pytest.mark.parametrize("key", ["c00100", "45", "c10100", "e00100", "00530140"])
def test_a_map_key_is_a_scalar(key):
    items = bytes.fromhex(key) + b"\x40"
    with pytest.raises(DecodeError, match="no scalar"):
        decode_one(bytes([0xC1, len(items) + 1, 2]) + items)


def nested(levels):
    value = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_depth_is_bounded():
    assert decode_one(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(ValueError, match="deeper"):
        encode(nested(MAX_DEPTH + 1))
    for shell in (b"\x00\x53\x01" * 100_000, b"\x00" * 100_000, b"\xd0\x00\x01\x00\x00\x00\x00\x00\x01" * 7_000):
        with pytest.raises(DecodeError):
            decode_one(shell)
    described = b"\x00\x53\x01" * (MAX_DEPTH + 1) + b"\x40"
    with pytest.raises(DecodeError, match="deeper"):
        decode_one(described)


@pytest.mark.parametrize(
    "value, reason",
    [
        (Ubyte(256), "does not fit"),
        (Ubyte(-1), "does not fit"),
        (Uint(2**32), "does not fit"),
        (Int(-(2**31) - 1), "does not fit"),
        (Ulong(-1), "does not fit"),
        (Float(1e300), "does not fit"),
        (Char(0xD800), "no character"),
        (Char(-1), "no character"),
        (Uuid(b"short"), "16 bytes"),
        ("\ud800", "cannot be written"),
        (Symbol("ä"), "cannot be written"),
        ({Described(Ulong(1), None): None}, "no scalar"),
        (Array(0x71, [Uint(1)]), "in an array of 0x71"),
        (Array(0x12, []), "no constructor 0x12"),
        (Array(0x40, [None] * (MAX_EMPTY_ELEMENTS + 1)), "nulls"),
    ],
)
def test_what_cannot_be_carried_is_a_value_error(value, reason):
    with pytest.raises(ValueError, match=reason):
        encode(value)


@pytest.mark.parametrize("value", [5, 1.0, ()])
def test_what_is_no_amqp_value(value):
    with pytest.raises((ValueError, TypeError)):  # compiled, the encoder does not even take it
        encode(value)
