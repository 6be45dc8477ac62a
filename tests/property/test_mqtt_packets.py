"""MQTT packets: what is encoded is decoded again, and nothing decodes to what cannot be encoded."""

from hypothesis import given
from hypothesis import strategies as st

from muster.wire.mqtt_decoder import MalformedPacket, decode, decode_all
from muster.wire.mqtt_packets import Packet
from tests.property.mqtt_strategies import packets


@given(st.lists(packets, max_size=5))
def test_packets_round_trip(written):
    assert decode_all(b"".join(packet.encode() for packet in written)) == written


@given(st.integers(0, 255), st.binary(max_size=40))
def test_any_bytes_are_a_packet_or_malformed(first_byte, body):
    try:
        packet = decode(first_byte, body)
    except MalformedPacket:
        return
    assert isinstance(packet, Packet)
    assert packet.encode() == bytes([first_byte, len(body)]) + body


@given(packets, st.data())
def test_a_damaged_packet_is_a_packet_or_malformed(packet, data):
    encoded = bytearray(packet.encode())
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] = data.draw(st.integers(0, 255))
    try:
        read = decode_all(bytes(encoded))
    except MalformedPacket:
        return
    assert decode_all(b"".join(packet.encode() for packet in read)) == read
