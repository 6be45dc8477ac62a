"""AMQP values: what is encoded is decoded again, and any bytes are a value or refused."""

from hypothesis import given
from hypothesis import strategies as st

from muster.wire.amqp_decoder import decode_one
from muster.wire.amqp_encoder import encode
from muster.wire.amqp_types import DecodeError
from tests.property.amqp_strategies import values


@given(values)
def test_values_round_trip(value):
    octets = encode(value)
    read = decode_one(octets)
    assert read == value
    assert encode(read) == octets


def require_value_or_refusal(octets):
    try:
        value = decode_one(octets)
    except DecodeError:
        return
    assert decode_one(encode(value)) == value


# Bytes that are constructors more often than chance has it.
constructors = st.sampled_from(
    bytes.fromhex("00404142434445505152535455566061707172737480818283849498a0a1a3b0b1b3c0c1d0d1e0f00102")
)
octets = st.lists(constructors | st.integers(0, 255), max_size=40).map(bytes)


@given(st.binary(max_size=60) | octets)
def test_any_bytes_are_a_value_or_refused(octets):
    require_value_or_refusal(octets)


@given(values, st.data())
def test_a_damaged_value_is_a_value_or_refused(value, data):
    octets = bytearray(encode(value))
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    require_value_or_refusal(bytes(octets))
    require_value_or_refusal(bytes(octets[: data.draw(st.integers(0, len(octets)))]))
