import pytest

from muster.wire.mqtt_packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Pingreq,
    Pingresp,
    Puback,
    Pubcomp,
    Publish,
    Pubrec,
    Pubrel,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    Will,
    encode_remaining_length,
)

# One packet of each kind with its bytes, worked out by hand from the figures of chapter 3.
WIRE = [
    (
        Connect(
            "a", username="u", password=b"p", clean_session=False, keep_alive=300, will=Will(b"w", b"x", 1, retain=True)
        ),
        b"\x10\x19\x00\x04MQTT\x04\xec\x01\x2c\x00\x01a\x00\x01w\x00\x01x\x00\x01u\x00\x01p",
    ),
    (Connect(""), b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x00\x00\x00"),
    (Connect("d", username=""), b"\x10\x0f\x00\x04MQTT\x04\x82\x00\x00\x00\x01d\x00\x00"),
    (Connect("d", will=Will(b"w", b"", 2)), b"\x10\x12\x00\x04MQTT\x04\x16\x00\x00\x00\x01d\x00\x01w\x00\x00"),
    (Connack(), b"\x20\x02\x00\x00"),
    (Connack(session_present=True), b"\x20\x02\x01\x00"),
    (Connack(5), b"\x20\x02\x00\x05"),
    (Publish(b"a/b", b"hi"), b"\x30\x07\x00\x03a/bhi"),
    (Publish(b"a/b", b"hi", 1, 10), b"\x32\x09\x00\x03a/b\x00\x0ahi"),
    (Publish(b"a", b"", 2, 258, retain=True, dup=True), b"\x3d\x05\x00\x01a\x01\x02"),
    (Puback(1), b"\x40\x02\x00\x01"),
    (Pubrec(0x1234), b"\x50\x02\x12\x34"),
    (Pubrel(65_535), b"\x62\x02\xff\xff"),
    (Pubcomp(2), b"\x70\x02\x00\x02"),
    (Subscribe(10, [(b"a/b", 1), (b"c/d", 2)]), b"\x82\x0e\x00\x0a\x00\x03a/b\x01\x00\x03c/d\x02"),
    (Suback(10, [0, 2, 0x80]), b"\x90\x05\x00\x0a\x00\x02\x80"),
    (Unsubscribe(10, [b"a/b", b"c/d"]), b"\xa2\x0c\x00\x0a\x00\x03a/b\x00\x03c/d"),
    (Unsuback(10), b"\xb0\x02\x00\x0a"),
    (Pingreq(), b"\xc0\x00"),
    (Pingresp(), b"\xd0\x00"),
    (Disconnect(), b"\xe0\x00"),
]


@pytest.mark.parametrize("packet, encoded", WIRE, ids=lambda value: repr(value)[:40])
def test_encode(packet, encoded):
    assert packet.encode() == encoded


# Table 2.4.
@pytest.mark.parametrize(
    "length, encoded",
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (321, b"\xc1\x02"),
        (16_383, b"\xff\x7f"),
        (16_384, b"\x80\x80\x01"),
        (2_097_151, b"\xff\xff\x7f"),
        (2_097_152, b"\x80\x80\x80\x01"),
        (268_435_455, b"\xff\xff\xff\x7f"),
    ],
)
def test_2_2_3_remaining_length(length, encoded):
    assert encode_remaining_length(length) == encoded


@pytest.mark.parametrize("length", [-1, 268_435_456])
def test_2_2_3_a_length_that_does_not_fit(length):
    with pytest.raises(ValueError, match="too large"):
        encode_remaining_length(length)


@pytest.mark.parametrize(
    "packet, fault",
    [
        (Connect("a\x00"), "MQTT-1.5.3-2"),
        (Connect("x" * 65_536), "65535"),
        (Connect("\ud800"), "surrogates"),
        (Connect("a", username="\x00"), "MQTT-1.5.3-2"),
        (Connect("a", password=b"p"), "MQTT-3.1.2-22"),
        (Connect("a", username="u", password=b"p" * 65_536), "65535"),
        (Connect("a", will=Will(b"", b"")), "MQTT-4.7.3-1"),
        (Connect("a", will=Will(b"#", b"")), "MQTT-3.3.2-2"),
        (Connect("a", will=Will(b"w", b"", 3)), "MQTT-3.1.2-14"),
        (Connect("a", will=Will(b"w", b"x" * 65_536)), "65535"),
        (Connect("a", keep_alive=65_536), "keep alive of 65536"),
        (Connect("a", keep_alive=-1), "keep alive of -1"),
        (Connack(6), "return code 6"),
        (Connack(1, session_present=True), "MQTT-3.2.2-4"),
        (Publish(b"", b""), "MQTT-4.7.3-1"),
        (Publish(b"a", b"", 3, 1), "MQTT-3.3.1-4"),
        (Publish(b"a", b"", 1), "MQTT-2.3.1-1"),
        (Publish(b"a", b"", 0, 1), "MQTT-2.3.1-5"),
        (Publish(b"a", b"", dup=True), "MQTT-3.3.1-2"),
        (Puback(0), "MQTT-2.3.1-1"),
        (Pubrec(65_536), "MQTT-2.3.1-1"),
        (Subscribe(1, []), "MQTT-3.8.3-3"),
        (Subscribe(1, [(b"a", 3)]), "MQTT-3-8.3-4"),
        (Subscribe(1, [(b"#/a", 0)]), "MQTT-4.7.1-2"),
        (Subscribe(0, [(b"a", 0)]), "MQTT-2.3.1-1"),
        (Suback(1, []), "MQTT-3.8.4-5"),
        (Suback(1, [4]), "MQTT-3.9.3-2"),
        (Unsubscribe(1, []), "MQTT-3.10.3-2"),
        (Unsubscribe(1, [b""]), "MQTT-4.7.3-1"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_the_protocol_cannot_carry(packet, fault):
    with pytest.raises(ValueError, match=fault):
        packet.encode()


def test_a_packet_of_no_kind_has_no_bytes():
    with pytest.raises(NotImplementedError):
        Packet().encode()


def test_packets_are_equal_by_kind_and_value():
    assert Puback(1) == Puback(1)
    assert Puback(1) != Puback(2)
    assert Puback(1) != Pubrec(1)
    assert Puback(1) != 1
    assert Pingreq() == Pingreq()
    assert Pingreq() != Pingresp()
    assert Subscribe(1, [(b"a", 0)]) == Subscribe(1, ((b"a", 0),))
    assert Publish(b"a", b"", 1, 1) != Publish(b"a", b"", 1, 1, dup=True)
    assert len({Puback(1), Puback(1), Puback(2), Connect("a"), Connect("a")}) == 3


def test_no_repr_shows_a_password_or_a_payload():
    connect = Connect("dev-1", username="hub/dev-1", password=b"hunter2", will=Will(b"w", b"last words"))
    assert repr(connect) == (
        "Connect('dev-1', username='hub/dev-1', password=<7 bytes>, clean_session=True, keep_alive=0,"
        " will=Will(b'w', <10 bytes>, qos=0, retain=False))"
    )
    assert "password=None" in repr(Connect("dev-1"))
    assert (
        repr(Publish(b"t", b"secret", 1, 7)) == "Publish(b't', <6 bytes>, qos=1, packet_id=7, retain=False, dup=False)"
    )
    assert repr(Puback(7)) == "Puback(7)"
    assert repr(Pingreq()) == "Pingreq()"
    assert repr(Subscribe(1, [(b"a", 0)])) == "Subscribe(1, ((b'a', 0),))"
