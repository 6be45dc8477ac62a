"""Every AMQP type as text."""

import math

import pytest

from muster.frontends.amqp.text import NoTextError, text_of
from muster.wire.amqp_types import (
    Array,
    Byte,
    Char,
    Decimal32,
    Decimal64,
    Decimal128,
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


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        ("grün", "grün"),
        ("", ""),
        (Symbol("application/json"), "application/json"),
        (True, "true"),
        (False, "false"),
        (b"gr\xc3\xbcn", "grün"),
        (Ubyte(255), "255"),
        (Ushort(65_535), "65535"),
        (Uint(0), "0"),
        (Ulong(2**64 - 1), "18446744073709551615"),
        (Byte(-1), "-1"),
        (Short(-2), "-2"),
        (Int(-3), "-3"),
        (Long(-(2**63)), "-9223372036854775808"),
        (Char(0x1F600), "😀"),
        (Timestamp(1_790_000_000_123), "2026-09-21T14:13:20.1230000Z"),
        (Timestamp(-30_610_224_000_000), "1000-01-01T00:00:00.0000000Z"),
        (Uuid(bytes(range(16))), "00010203-0405-0607-0809-0a0b0c0d0e0f"),
        (Double(21.5), "21.5"),
        (Double(2.0), "2"),
        (Double(0.1), "0.1"),
        (Double(1e300), "1e+300"),
        (Double(math.inf), "Infinity"),
        (Float(-math.inf), "-Infinity"),
        (Float(math.nan), "NaN"),
        (Float(0.10000000149011612), "0.1"),
        (Float(16_777_216.0), "16777216"),
        (Float(1.0000001192092896), "1.0000001"),
    ],
)
def test_text(value, text):
    assert text_of(value) == text


@pytest.mark.parametrize(
    "value",
    [
        b"\xff",
        Char(0xD800),
        Timestamp(2**62),
        Timestamp(-62_135_596_800_000),
        Decimal32(bytes(4)),
        Decimal64(bytes(8)),
        Decimal128(bytes(16)),
        Described(Symbol("com.microsoft:timespan"), Long(1)),
        Array(0x71, [Int(1)]),
        [],
        {},
    ],
)
def test_no_text(value):
    with pytest.raises(NoTextError):
        text_of(value)
