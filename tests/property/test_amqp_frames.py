"""AMQP frames: chunks make no difference, no bytes make the reader raise or grow, messages round-trip."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_frames import EMPTY_FRAME, FrameFault, FrameReader, ProtocolHeader
from muster.wire.amqp_types import DecodeError
from tests.property.amqp_strategies import frames, messages

LIMIT = 4096
headers = st.builds(ProtocolHeader, *[st.integers(0, 255)] * 4)
positions = st.lists(st.integers(0, 1000), max_size=12)


def read(chunks):
    """What is read, and what must hold after each chunk."""
    reader = FrameReader(LIMIT)
    found = []
    for chunk in chunks:
        found += reader.receive(chunk)
        assert reader.buffered <= LIMIT
    assert not any(isinstance(item, FrameFault) for item in found[:-1])
    return found


def cut(data, positions):
    edges = [0, *sorted(min(position, len(data)) for position in positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


@given(st.lists(frames | headers, max_size=5), positions)
def test_frames_round_trip_in_any_chunks(written, positions):
    assert read(cut(b"".join(item.encode() for item in written), positions)) == written


@given(st.lists(frames.map(lambda frame: frame.encode()) | st.binary(max_size=12), max_size=6), positions)
def test_any_bytes_in_any_chunks_are_the_same(parts, positions):
    data = b"".join(parts)
    assert read(cut(data, positions)) == read([data])


@given(frames, st.data())
def test_a_damaged_frame_is_a_frame_or_a_fault(frame, data):
    octets = bytearray(frame.encode())
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    for item in read([bytes(octets), EMPTY_FRAME]):
        if not isinstance(item, FrameFault):
            assert read([item.encode()]) == [item]


@given(messages)
def test_messages_round_trip(message):
    assert decode_message(encode_message(message)) == message


@given(messages, st.data())
def test_a_damaged_message_is_a_message_or_refused(message, data):
    octets = bytearray(encode_message(message) or b"\0")
    octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    try:
        read = decode_message(bytes(octets))
    except DecodeError:
        return
    assert decode_message(encode_message(read)) == read
