"""Masking does not depend on how a stream is cut, keeps its length, and keeps it MQTT."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from muster.frontends.trace_mask import StreamMask
from muster.wire.mqtt_decoder import decode_all
from muster.wire.mqtt_packets import Connect
from tests.property.mqtt_strategies import connects, from_client, packets

ANNOUNCED = st.sampled_from(
    [
        b"sig=",
        b"sig%3D",
        b"\r\nAuthorization: ",
        b'"primaryKey": "',
        b"SharedAccessKey=",
        b"\r\nUpgrade: websocket\r\n",
        b"\r\n\r\n",
        b"\xa3\x05PLAIN\xa0\x04",
        b"\x82\x85\x01\x02\x03\x04",
        b"-----BEGIN PRIVATE KEY-----",
        b"abc",
        b"&",
        b'"',
        b"\n",
    ]
)
streams = st.builds(
    lambda start, pieces: start + b"".join(pieces),
    st.sampled_from([b"", b"\x10", b"\x20", b"GET / HTTP/1.1\r\n", b"AMQP"]),
    st.lists(ANNOUNCED | st.binary(max_size=8) | packets.map(lambda packet: packet.encode()), max_size=12),
)


@given(streams, st.lists(st.integers(0, 300), max_size=8))
def test_any_cut_gives_the_same_masked_stream(stream, positions):
    edges = [0, *sorted(min(position, len(stream)) for position in positions), len(stream)]
    whole = StreamMask().mask(stream)
    assert len(whole) == len(stream)
    mask = StreamMask()
    assert b"".join(mask.mask(stream[start:end]) for start, end in pairwise(edges)) == whole
    mask = StreamMask()
    assert b"".join(mask.mask(stream[index : index + 1]) for index in range(len(stream))) == whole


@given(connects(), st.lists(from_client, max_size=6))
def test_mqtt_stays_what_it_was_but_for_the_password(connect, behind):
    written = [connect, *behind]
    read = decode_all(StreamMask().mask(b"".join(packet.encode() for packet in written)))
    assert isinstance(read[0], Connect)
    if connect.password is not None:
        assert read[0].password == b"*" * len(connect.password)
        read[0].password = connect.password
    assert read == written
