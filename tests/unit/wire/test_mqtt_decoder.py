import pytest

from muster.wire.mqtt_decoder import (
    MalformedPacket,
    UnacceptableProtocol,
    decode,
    decode_all,
    decode_remaining_length,
    first_byte_fault,
)
from muster.wire.mqtt_packets import Pingreq, Puback, Publish
from tests.unit.wire.test_mqtt_packets import WIRE

# Both directions are tried here; what a server makes of a client's mistakes is in the playbooks.


@pytest.mark.parametrize("packet, encoded", WIRE, ids=lambda value: repr(value)[:40])
def test_decode(packet, encoded):
    assert decode(encoded[0], encoded[2:]) == packet
    assert decode_all(encoded) == [packet]


def test_decode_all():
    packets = [packet for packet, _ in WIRE]
    assert decode_all(b"".join(encoded for _, encoded in WIRE)) == packets
    assert decode_all(b"") == []


@pytest.mark.parametrize("rest", [b"\x30", b"\x30\x80", b"\x40\x02\x00"])
def test_decode_all_wants_whole_packets(rest):
    with pytest.raises(MalformedPacket, match="end inside a packet"):
        decode_all(b"\xc0\x00" + rest)


@pytest.mark.parametrize(
    "data, expected",
    [
        (b"\x00", (0, 1)),
        (b"\x7f\xff", (127, 1)),
        (b"\x80\x01", (128, 2)),
        (b"\xff\xff\xff\x7f", (268_435_455, 4)),
        (b"\x80\x00", (0, 2)),  # more bytes than needed: MQTT 3.1.1 does not forbid it
        (b"", (-1, 0)),
        (b"\xff\xff\xff", (-1, 3)),
    ],
)
def test_2_2_3_remaining_length(data, expected):
    assert decode_remaining_length(data, 0) == expected


def test_2_2_3_a_fifth_byte():
    with pytest.raises(MalformedPacket, match="more than four bytes"):
        decode_remaining_length(b"\x80\x80\x80\x80", 0)


def test_a_longer_length_than_needed_is_read():
    assert decode_all(b"\xc0\x80\x00\x40\x82\x80\x00\x00\x01") == [Pingreq(), Puback(1)]


@pytest.mark.parametrize(
    "first_byte, body, fault",
    [
        (0x20, b"\x02\x00", "3.2.2.1"),
        (0x20, b"\x00\x06", "table 3.1"),
        (0x20, b"\x01\x05", "MQTT-3.2.2-4"),
        (0x20, b"\x00", "ends inside a field"),
        (0x20, b"\x00\x00\x00", "after its last field"),
        (0x90, b"\x00\x01", "MQTT-3.8.4-5"),
        (0x90, b"\x00\x01\x03", "MQTT-3.9.3-2"),
        (0x90, b"\x00\x00\x00", "MQTT-2.3.1-1"),
        (0xB0, b"\x00\x00", "MQTT-2.3.1-1"),
        (0xD0, b"\x00", "after its last field"),
        (0x00, b"", "table 2.1"),
        (0xF0, b"", "table 2.1"),
        (0x36, b"\x00\x01t\x00\x01", "MQTT-3.3.1-4"),
    ],
)
def test_malformed_packets_of_a_server(first_byte, body, fault):
    with pytest.raises(MalformedPacket, match=fault):
        decode(first_byte, body)


def test_another_protocol_has_its_own_error_and_names_it_in_short():
    with pytest.raises(UnacceptableProtocol) as caught:
        decode(0x10, b"\x00\x28" + b"x" * 40 + b"\x04")
    assert str(caught.value).startswith("CONNECT speaks b'xxxxxxxxxxxxxxxx' level 4, not MQTT level 4")


def test_table_2_2_of_the_256_first_bytes_these_are_possible():
    possible = {first_byte for first_byte in range(256) if first_byte_fault(first_byte) is None}
    publish = {0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3A, 0x3B, 0x3C, 0x3D}
    assert possible == publish | {0x10, 0x20, 0x40, 0x50, 0x62, 0x70, 0x82, 0x90, 0xA2, 0xB0, 0xC0, 0xD0, 0xE0}


def test_an_empty_payload_is_one():
    assert decode(0x30, b"\x00\x01t") == Publish(b"t", b"")
