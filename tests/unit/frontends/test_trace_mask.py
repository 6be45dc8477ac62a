"""Each secret here is `SECRET` (or spelled out); none may come through, however the stream is cut."""

import os
from urllib.parse import quote

import pytest

from muster.frontends.trace_mask import StreamMask
from muster.wire.mqtt_decoder import decode_all
from muster.wire.mqtt_packets import (
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Publish,
    Subscribe,
    Will,
)

SAS = b"SharedAccessSignature sr=h%2Fdevices%2Fd&sig=SECRET%2Bse%2Fcret%3D&se=1"


def masked(stream):
    """The stream masked in one piece, having tried it in two pieces at every cut, and byte by byte."""
    whole = StreamMask().mask(stream)
    assert len(whole) == len(stream)
    for cut in range(len(stream) + 1):
        mask = StreamMask()
        assert mask.mask(stream[:cut]) + mask.mask(stream[cut:]) == whole
    mask = StreamMask()
    assert b"".join(mask.mask(stream[position : position + 1]) for position in range(len(stream))) == whole
    return whole


# MQTT


CONNECT = Connect("d", username="h/d/?api-version=2021-04-12", password=SAS, keep_alive=60, will=Will(b"w", b"bye", 1))


def test_a_connect_keeps_all_but_its_password():
    (connect,) = decode_all(masked(CONNECT.encode()))
    assert connect.password == b"*" * len(SAS)
    connect.password = SAS
    assert connect == CONNECT


@pytest.mark.parametrize("token", [SAS.decode(), quote(SAS.decode(), safe="")])
def test_a_token_in_place_of_a_name_is_masked(token):
    stream = masked(Connect(token, username=token, will=Will(token.encode(), b"bye")).encode())
    assert b"SECRET" not in stream
    (connect,) = decode_all(stream)
    assert connect.client_id.startswith(token.partition("sig")[0])
    assert len(connect.client_id) == len(connect.username) == len(token)


@pytest.mark.parametrize("connect", [Connect("d"), Connect("d", username="u"), Connect("", username="u", password=b"")])
def test_a_connect_without_a_password_stays_as_it_is(connect):
    assert masked(connect.encode()) == connect.encode()


def test_a_second_connect_loses_its_password_too():
    packets = [CONNECT, Pingreq(), Subscribe(1, [(b"t", 1)]), CONNECT, Disconnect()]
    stream = masked(b"".join(packet.encode() for packet in packets))
    assert b"SECRET" not in stream
    assert [type(packet) for packet in decode_all(stream)] == [type(packet) for packet in packets]


def test_a_connect_of_another_level_is_masked_behind_its_head():
    mqtt_5 = b"\x10\x1c\x00\x04MQTT\x05\xc2\x00\x3c\x00\x00\x01d\x00\x01u\x00\x06SECRET"
    assert masked(mqtt_5) == mqtt_5[:12] + b"*" * (len(mqtt_5) - 12)


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"\x10\x08\x00\x04MQTT\x04\xc0", id="cut in the head"),
        pytest.param(b"\x10\x03\x00\x09M", id="a field longer than the packet"),
        pytest.param(b"\x10\x00", id="empty"),
        pytest.param(b"\x10\x01\x00", id="half a length"),
    ],
)
def test_a_connect_that_is_none_does_not_confuse_the_next(stream):
    assert b"SECRET" not in masked(stream + CONNECT.encode())


def test_a_length_that_is_wrong_does_not_show_a_token():
    """The second CONNECT seems to start two bytes behind its start; no server reads that far."""
    wrong = b"\x10\x0a\x00\x04MQTT\x04\xc0"
    assert b"SECRET" not in masked(wrong + CONNECT.encode())


def test_bytes_behind_the_last_field_of_a_connect_are_masked():
    assert masked(b"\x10\x13\x00\x04MQTT\x04\x02\x00\x00\x00\x01dSECRET") == (
        b"\x10\x13\x00\x04MQTT\x04\x02\x00\x00\x00\x01d******"
    )


def test_lost_framing_masks_everything_behind_it():
    assert masked(CONNECT.encode() + b"\xc0\xff\xff\xff\xffSECRET").endswith(b"\xc0\xff\xff\xff\xff******")


def test_a_message_that_carries_a_secret():
    messages = [
        Publish(b"c2d", b'{"url":"https://x/?sv=1&sig=SECRET&sp=r"}', 1, 0x4142),
        Publish(b"t/sig=SECRET", b"SECRET stands here, but nothing announces it", 1, 0x4142),
        Publish(b"t", b"sig=SECRET", 0),
        Publish(b"tSECRET", b"", 0),
    ]
    # What sent CONNACK is a server, and its stream MQTT.
    stream = masked(b"".join(packet.encode() for packet in [Connack(), *messages]))
    assert decode_all(stream)[1:] == [
        Publish(b"c2d", b'{"url":"https://x/?sv=1&sig=******&sp=r"}', 1, 0x4142),
        # A value ends with its field: topic, packet identifier and payload do not run into each other.
        Publish(b"t/sig=******", b"SECRET stands here, but nothing announces it", 1, 0x4142),
        Publish(b"t", b"sig=******", 0),
        Publish(b"tSECRET", b"", 0),
    ]


# HTTP and AMQP


@pytest.mark.parametrize(
    "text, expected",
    [
        (b"Authorization: SECRET\r\nHost: h", b"Authorization:*******\r\nHost: h"),
        (b"AUTHORIZATION :\tSharedAccessSignature SECRET\r\n", b"AUTHORIZATION :" + b"*" * 29 + b"\r\n"),
        (b"proxy-authorization:SECRET\r\n", b"proxy-authorization:******\r\n"),
        (b"Cookie: session=SECRET\r\nSet-Cookie: a=SECRET\r\n", b"Cookie:***************\r\nSet-Cookie:*********\r\n"),
        (b"x?a=1&sig=SECRET&se=2", b"x?a=1&sig=******&se=2"),
        (b"SIG%3DSECRET%2F%3D se", b"SIG%3D" + b"*" * 12 + b" se"),
        (b"sr=a&sig=SECRET", b"sr=a&sig=******"),
        (b"sig=SEC,sig=RET;", b"sig=***,sig=***;"),
        (b"HostName=h;SharedAccessKey=SECRET+/==;x", b"HostName=h;SharedAccessKey=**********;x"),
        (b'{"primaryKey":"SECRET","secondaryKey" : "SECRET"}', b'{"primaryKey":"******","secondaryKey" : "******"}'),
        (b'"authenticationKey":\r\n "SECRET"', b'"authenticationKey":\r\n "******"'),
        (b'"PrimaryKey":"SEC\\/RET"', b'"PrimaryKey":"********"'),
        (b'"{\\"primaryKey\\":\\"SECRET\\"}"', b'"{\\"primaryKey\\":\\"*******"}"'),
        (b'"primaryKey":null,"x":"y"', b'"primaryKey":null,"x":"y"'),
        (
            b"-----BEGIN RSA PRIVATE KEY-----\nSECRET\n-----END RSA PRIVATE KEY-----\nand on",
            b"-----BEGIN RSA PRIVATE KEY-----********-----END RSA PRIVATE KEY-----\nand on",
        ),
        (b"-----BEGIN CERTIFICATE-----\nMII\n", b"-----BEGIN CERTIFICATE-----\nMII\n"),
    ],
)
def test_text(text, expected):
    head = b"POST /x HTTP/1.1\r\n"
    assert masked(head + text) == head + expected


def test_a_whole_request():
    request = (
        b"PUT /devices/d?api-version=2021-04-12 HTTP/1.1\r\nHost: hub\r\nAuthorization: " + SAS + b"\r\n\r\n"
        b'{"deviceId":"d","authentication":{"symmetricKey":{"primaryKey":"SECRET","secondaryKey":"SECRET"}}}'
    )
    whole = masked(request)
    assert b"SECRET" not in whole
    assert b'"deviceId":"d"' in whole
    assert b"Host: hub\r\n" in whole


def test_an_amqp_sasl_plain_response():
    header = b"AMQP\x03\x01\x00\x00"
    short = b"\x00\x00\x00\x24\x02\x01\x00\x00\x00\x53\x41\xc0\x17\x02\xa3\x05PLAIN\xa0\x0d\x00user\x00SECRET\x00rest"
    assert masked(header + short) == header + short.replace(b"\x00user\x00SECRET\x00", b"*" * 13)
    long = b"\x53\x41\xa3\x05PLAIN\xb0\x00\x00\x00\x08\x00\x00SECRETrest"
    assert masked(header + long) == header + long.replace(b"\x00\x00SECRET", b"*" * 8)
    anonymous = b"\x53\x41\xa3\x09ANONYMOUS\x40"
    assert masked(header + anonymous) == header + anonymous


def test_an_amqp_put_token():
    message = b"AMQP\x00\x01\x00\x00\x00\x53\x77\xa1" + bytes([len(SAS)]) + SAS + b"\xa1\x02ok"
    assert b"SECRET" not in masked(message)
    assert masked(message).endswith(b"&se=1\xa1\x02ok")


# WebSocket


UPGRADE = (
    b"GET /$iothub/websocket HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
)
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: upgrade\r\n\r\n"


def frame(payload, *, key=b"", opcode=2, final=True, extension=0):
    head = bytes([(0x80 if final else 0) | extension | opcode])
    size = len(payload)
    marked = 0x80 if key else 0
    if size < 126:
        head += bytes([marked | size])
    elif size < 65_536:
        head += bytes([marked | 126]) + size.to_bytes(2, "big")
    else:
        head += bytes([marked | 127]) + size.to_bytes(8, "big")
    if key:
        payload = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return head + key + payload


KEY = b"\x12\xfe\x00\x77"
SAFE = CONNECT.encode().replace(SAS, b"*" * len(SAS))


@pytest.mark.parametrize("size", [10, 100, 250])
def test_a_password_inside_a_masked_frame(size):
    packet = Connect("x" * size, username="u", password=b"SECRET").encode()
    safe = packet.replace(b"SECRET", b"******")
    assert masked(UPGRADE + frame(packet, key=KEY)) == UPGRADE + frame(safe, key=KEY)


def test_a_password_inside_a_large_frame():
    packet = Connect("x" * 65_000, username="u" * 1000, password=b"SECRET").encode()
    stream = UPGRADE + frame(packet, key=KEY)
    safe = UPGRADE + frame(packet.replace(b"SECRET", b"******"), key=KEY)
    assert StreamMask().mask(stream) == safe


@pytest.mark.parametrize("cut", [1, 2, 20, 60, 100])
def test_a_packet_in_two_frames_with_a_ping_between(cut):
    """[MQTT-6.0.0-2]: packets are not aligned with frames."""
    packet = CONNECT.encode()
    ping = frame(b"\x10\x02hi", key=KEY, opcode=9)
    first, second = frame(packet[:cut], key=KEY, final=False), frame(packet[cut:], key=KEY[::-1], opcode=0)
    safe_first, safe_second = frame(SAFE[:cut], key=KEY, final=False), frame(SAFE[cut:], key=KEY[::-1], opcode=0)
    assert masked(UPGRADE + first + ping + second) == UPGRADE + safe_first + ping + safe_second


def test_frames_of_a_server():
    amqp = b"AMQP\x00\x01\x00\x00 sig=SECRET;"
    assert masked(ANSWER + frame(b"") + frame(amqp)) == ANSWER + frame(b"") + frame(amqp.replace(b"SECRET", b"******"))


def test_a_secret_in_a_control_frame():
    assert masked(ANSWER + frame(b"\x03\xe8sig=SECRET", opcode=8)) == ANSWER + frame(b"\x03\xe8sig=******", opcode=8)


def test_a_compressed_frame_and_all_behind_it_is_masked():
    head = frame(b"", key=KEY, extension=0x40)
    assert masked(UPGRADE + head + b"SECRETSECRET") == UPGRADE + head + b"*" * 12


def test_an_upgrade_that_was_refused_shows_nothing_of_what_follows():
    again = b"GET / HTTP/1.1\r\nAuthorization: SECRET\r\n\r\n"
    assert b"SECRET" not in masked(UPGRADE + again)


def test_an_ordinary_request_after_another_is_not_taken_for_frames():
    request = b"GET /a HTTP/1.1\r\nUpgrade: h2c\r\n\r\nGET /b HTTP/1.1\r\nCookie: SECRET\r\n\r\n"
    assert masked(request) == request.replace(b" SECRET", b"*******")


def test_nothing():
    assert StreamMask().mask(b"") == b""


def test_a_canary_of_random_bytes_never_comes_through():
    canary = os.urandom(24).hex().encode()
    for stream in (
        Connect("d", username="u", password=canary).encode(),
        UPGRADE + frame(Connect("d", username="u", password=canary).encode(), key=os.urandom(4)),
        b"GET / HTTP/1.1\r\nAuthorization: Bearer " + canary + b"\r\n\r\n",
        b'HTTP/1.1 200 OK\r\n\r\n{"primaryKey":"' + canary + b'"}',
    ):
        assert canary not in masked(stream)
