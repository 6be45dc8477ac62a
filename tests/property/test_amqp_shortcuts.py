"""The short ways through what clients send most: they read what the long way reads, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.wire.amqp_composites import (
    compose,
    decode_message,
    encode_message,
    read_plain_transfer,
    split_data,
    split_sections,
)
from muster.wire.amqp_decoder import decode
from muster.wire.amqp_encoder import encode
from muster.wire.amqp_frames import FrameFault, FrameReader, encode_accepted, encode_frame
from muster.wire.amqp_messages import Data
from muster.wire.amqp_performatives import Accepted, Disposition, Transfer
from muster.wire.amqp_types import DecodeError, Described, Uint, Ulong
from tests.property.amqp_strategies import messages

numbers = st.sampled_from([0, 1, 255, 256, 65_536, 0x8001_3700]) | st.integers(0, 2**32 - 1)
flags = st.none() | st.booleans()
fields = st.tuples(
    numbers.map(Uint),
    st.none() | numbers.map(Uint),
    st.none() | st.binary(max_size=40),
    st.none() | numbers.map(Uint),
    flags,
    flags,
    st.none(),
    st.none(),
    flags,
    flags,
    flags,
)


@st.composite
def transfers(draw):
    """As clients write them: trailing fields may be left out."""
    given = list(draw(fields))[: draw(st.integers(1, 11))]
    return encode(Described(Ulong(0x14), given))


def check_transfer(octets):
    """Either way says the same: a transfer and where it ends, or that it is none."""
    short = read_plain_transfer(octets, 0, len(octets))
    if short is not None:
        value, position = decode(octets)
        handle, number, start, end, *rest, following = short
        assert (Transfer(handle, number, octets[start:end], *rest), following) == (compose(value), position)


@given(transfers(), st.binary(max_size=4))
def test_transfers(octets, payload):
    check_transfer(octets + payload)


@given(transfers(), st.binary(max_size=4), st.data())
def test_damaged_transfers(octets, payload, data):
    damaged = bytearray(octets + payload)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(4, len(damaged)))
    check_transfer(bytes(damaged[:cut]))


def test_what_most_clients_write_is_read_the_short_way():
    octets = encode(Described(Ulong(0x14), [Uint(1), Uint(7), b"abcd", Uint(0), False]))
    assert read_plain_transfer(octets, 0, len(octets)) == (1, 7, 12, 16, 0, False, False, len(octets))
    assert read_plain_transfer(octets, 0, len(octets) - 1) is None


@st.composite
def streams(draw):
    """Frames of a few links that look alike, some of them damaged behind their size."""
    parts = []
    for number in draw(st.lists(numbers, max_size=12)):
        handle, tag, settled, more = draw(st.tuples(st.integers(0, 2), st.binary(max_size=2), flags, st.booleans()))
        frame = bytearray(encode_frame(draw(st.integers(0, 1)), Transfer(handle, number, tag, 0, settled, more), b"x"))
        if draw(st.integers(0, 4)) == 0:
            frame[draw(st.integers(4, len(frame) - 1))] = draw(st.sampled_from([0x43, 0x52, 0x70, 0x40, 0, 1, 255]))
        parts.append(bytes(frame))
    return parts


@given(streams(), st.binary(max_size=30))
def test_what_is_known_of_earlier_transfers_makes_no_difference(parts, rest):
    wanted = []
    for part in parts:
        wanted += FrameReader().receive(part)
        if isinstance(wanted[-1], FrameFault):
            break
    else:
        wanted += FrameReader().receive(rest)
    assert FrameReader().receive(b"".join([*parts, rest])) == wanted


@given(st.integers(0, 65_535), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.booleans())
def test_accepted_deliveries(channel, first, last, role):
    [frame] = FrameReader().receive(encode_accepted(channel, first, last, role=role))
    assert (frame.channel, frame.body) == (channel, Disposition(role, first, last, settled=True, state=Accepted()))


def check_split(octets):
    split = split_data(octets)
    if split is None:
        return
    head, body = split
    try:
        message = decode_message(head)
    except DecodeError:
        with pytest.raises(DecodeError):
            decode_message(octets)
        return
    message.body = Data((body,))
    assert decode_message(octets) == message


@given(messages)
def test_split_messages(message):
    octets = encode_message(message)
    check_split(octets)
    if isinstance(message.body, Data) and len(message.body.sections) == 1 and message.footer is None:
        split = split_data(octets)
        assert split is not None
        assert split[1] == message.body.sections[0]


@given(messages, st.data())
def test_split_damaged_messages(message, data):
    octets = bytearray(encode_message(message) or b"\x00")
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    check_split(bytes(octets))


@given(st.binary(max_size=40))
def test_split_anything(octets):
    check_split(octets)
    check_split(b"\x00\x53\x75\xa0" + octets)


@given(messages)
def test_sections(message):
    message.body = message.footer = None
    octets = encode_message(message)
    sections = split_sections(octets)
    assert sections is not None
    assert b"".join(section for _, section in sections) == octets
    for code, section in sections:
        assert section[2] == code
        decode_message(section)


@given(st.binary(max_size=40))
def test_sections_of_anything(octets):
    sections = split_sections(octets)
    assert sections is None or b"".join(section for _, section in sections) == octets
