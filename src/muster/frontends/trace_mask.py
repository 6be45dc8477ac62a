"""Takes credentials out of a stream of bytes: in any pieces, at once, and without changing a length.

One `StreamMask` for each direction of a connection. What becomes `*`, byte by byte:

* MQTT: the password of every CONNECT;
* HTTP: the values of Authorization, Proxy-Authorization, Cookie and Set-Cookie;
* AMQP: the response of SASL PLAIN;
* in all three: the values of `sig=` and `SharedAccessKey=`, the JSON values of primaryKey, secondaryKey and
  authenticationKey, and PEM private keys;
* the same inside WebSocket frames, whether the frames themselves are masked or not.

A secret always stands behind something that announces it, so nothing is held back to wait for what comes next,
and what has to be remembered are a few dozen bytes. What cannot be read (lost framing, compressed frames, a
CONNECT of another protocol level) is masked whole. Chunked or compressed HTTP bodies are not undone: an
announcement that is cut by a chunk boundary is not seen.
"""

import re
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from muster.wire.mqtt_packets import CONNECT, PROTOCOL_LEVEL, PUBLISH

_FOREVER = sys.maxsize
_LONGEST_ANNOUNCEMENT = 64  # bytes; no alternative of _ANNOUNCED is longer

# How a secret is announced; _VALUES says what it consists of, because it may be cut anywhere.
_TOKEN = rb"sig(?:=|%3d)|sharedaccesskey="
_HEADER = rb"\n(?:(?:proxy-)?authorization|(?:set-)?cookie)[ \t]{0,8}:"
_JSON = rb'"(?:primarykey|secondarykey|authenticationkey)\\{0,3}"\s{0,8}:\s{0,8}\\{0,3}"'
_PEM = rb"-----begin (?:[a-z]{1,10} ){0,2}private key-----"
# sasl-init: the mechanism as a symbol, then the response as a binary with one or four bytes of length
# (AMQP 1.0 part 5, 5.3.3.2).
_SASL = rb"\xa3\x05PLAIN(?:\xa0[\x00-\xff]|\xb0[\x00-\xff]{4})"
_ANNOUNCED = re.compile(
    rb"(?P<token>%s)|(?P<header>%s)|(?P<json>%s)|(?P<pem>%s)|(?P<sasl>%s)" % (_TOKEN, _HEADER, _JSON, _PEM, _SASL),
    re.IGNORECASE,
)
_VALUES = {
    "token": re.compile(rb"[\w%+/=.~-]*", re.ASCII),
    "header": re.compile(rb"[^\r\n]*"),
    "json": re.compile(rb'[^"]*'),
    "pem": re.compile(rb"[^-]*"),
}

_UPGRADE = re.compile(rb"\nupgrade:[ \t]{0,8}websocket[ \t]{0,8}(?=\r\n)", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"
_CONNECT_HEAD = 4  # bytes: level, flags, keep alive
_FRAME_LENGTHS = {126: 2, 127: 8}  # bytes of length that follow the seven bits (RFC 6455 section 5.2)


class Mask(Protocol):
    def mask(self, data: bytes) -> bytes:
        """The next bytes of the stream, masked: as many as were given."""


class StreamMask:
    """Masks one direction of a connection, whatever is spoken: the first byte tells MQTT from the rest."""

    def __init__(self) -> None:
        self._mask: Mask | None = None

    def mask(self, data: bytes) -> bytes:
        if not data:
            return b""
        if self._mask is None:
            # A client's first packet is CONNECT, a server's CONNACK.
            self._mask = _PlannedMask(_mqtt()) if data[0] in (0x10, 0x20) else _HttpMask()
        return self._mask.mask(data)


def _keep(data: bytes) -> bytes:
    return data


def _hide(data: bytes) -> bytes:
    return b"*" * len(data)


# Text: HTTP and AMQP, and what is inside MQTT messages


class _TextMask:
    """Masks what an announcement stands before."""

    def __init__(self) -> None:
        self._context = b""  # the end of what came before: an announcement may have begun there
        self._value: re.Pattern[bytes] | None = None  # what a value consists of that goes on
        self._counted = 0  # bytes left of a value whose length is known

    def mask(self, data: bytes) -> bytes:
        known = len(self._context)
        text = self._context + data
        masked = bytearray(text)
        position = self._end_of_value(text, known)
        masked[known:position] = _hide(text[known:position])
        if position == known:
            position = 0
        while (announced := _ANNOUNCED.search(text, position)) is not None:
            self._begin_value(announced)
            position = self._end_of_value(text, announced.end())
            masked[announced.end() : position] = _hide(text[announced.end() : position])
        self._context = text[max(position, len(text) - _LONGEST_ANNOUNCEMENT) :]
        return bytes(masked[known:])

    def _begin_value(self, announced: re.Match[bytes]) -> None:
        kind = announced.lastgroup or ""
        if kind == "sasl":
            self._counted = int.from_bytes(announced.group()[8:], "big")
        else:
            self._value = _VALUES[kind]

    def _end_of_value(self, text: bytes, start: int) -> int:
        """Where the value that goes on at `start` ends, or the text does."""
        end = min(start + self._counted, len(text))
        self._counted -= end - start
        if self._value is not None:
            found = self._value.match(text, start)
            end = start if found is None else found.end()
            if end < len(text):
                self._value = None
        return end


class _HttpMask:
    """Text, until a head that upgrades to WebSocket ends; frames from there on.

    The same header announces it in the request and in its answer, so each direction sees it for itself.
    """

    def __init__(self) -> None:
        self._text = _TextMask()
        self._frames: _PlannedMask | None = None
        self._context = b""
        self._upgrading = False

    def mask(self, data: bytes) -> bytes:
        if self._frames is not None:
            return self._frames.mask(data)
        head_end = self._end_of_upgrading_head(data)
        if head_end is None:
            return self._text.mask(data)
        self._frames = _PlannedMask(_websocket())
        return self._text.mask(data[:head_end]) + self._frames.mask(data[head_end:])

    def _end_of_upgrading_head(self, data: bytes) -> int | None:
        text = self._context + data
        position = 0
        if not self._upgrading:
            upgrade = _UPGRADE.search(text)
            if upgrade is None:
                self._context = text[-_LONGEST_ANNOUNCEMENT:]
                return None
            self._upgrading = True
            position = upgrade.end()
        end = text.find(_HEAD_END, position)
        if end < 0:
            self._context = text[max(position, len(text) - len(_HEAD_END) + 1) :]
            return None
        return end + len(_HEAD_END) - len(self._context)


# Framed protocols: a plan says region after region how to treat the bytes to come


@dataclass(frozen=True, slots=True)
class _Region:
    length: int
    treat: Callable[[bytes], bytes]
    wanted: bool = False  # does the plan want to see these bytes?


_Plan = Generator[_Region, bytes, None]
_Field = Generator[_Region, bytes, int]


def _read(length: int) -> _Region:
    return _Region(length, _keep, wanted=True)


class _PlannedMask:
    """Follows a plan, which never ends and gets the bytes of each region it wanted."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan
        self._region = next(plan)
        self._left = self._region.length
        self._read = bytearray()

    def mask(self, data: bytes) -> bytes:
        masked = bytearray()
        position = 0
        while position < len(data):
            piece = data[position : position + self._left]
            masked += self._region.treat(piece)
            if self._region.wanted:
                self._read += piece
            position += len(piece)
            self._left -= len(piece)
            while not self._left:
                self._region = self._plan.send(bytes(self._read))
                self._left = self._region.length
                self._read.clear()
        return bytes(masked)


def _mqtt() -> _Plan:
    """MQTT packets (MQTT 3.1.1 section 2). Each region stays in its packet, however wrong its lengths."""
    while True:
        first_byte = (yield _read(1))[0]
        length = 0
        for shift in (0, 7, 14, 21):
            byte = (yield _read(1))[0]
            length |= (byte & 0x7F) << shift
            if not byte & 0x80:
                break
        else:
            yield _Region(_FOREVER, _hide)
        if first_byte >> 4 == CONNECT:
            yield from _mqtt_connect(length)
        elif first_byte >> 4 == PUBLISH:
            yield from _mqtt_publish(first_byte, length)
        else:
            yield _Region(length, _TextMask().mask)


def _mqtt_connect(left: int) -> _Plan:
    left = yield from _mqtt_field(left, _keep)  # protocol name
    head = yield _read(min(_CONNECT_HEAD, left))
    left -= len(head)
    if len(head) == _CONNECT_HEAD and head[0] == PROTOCOL_LEVEL:
        left = yield from _mqtt_field(left, _TextMask().mask)  # client id
        if head[1] & 0x04:
            left = yield from _mqtt_field(left, _TextMask().mask)  # will topic
            left = yield from _mqtt_field(left, _TextMask().mask)
        if head[1] & 0x80:
            left = yield from _mqtt_field(left, _TextMask().mask)  # user name
        if head[1] & 0x40:
            left = yield from _mqtt_field(left, _hide)
    yield _Region(left, _hide)


def _mqtt_publish(first_byte: int, left: int) -> _Plan:
    left = yield from _mqtt_field(left, _TextMask().mask)
    packet_id = min(2, left) if first_byte & 0x06 else 0
    yield _Region(packet_id, _keep)
    yield _Region(left - packet_id, _TextMask().mask)


def _mqtt_field(left: int, treat: Callable[[bytes], bytes]) -> _Field:
    """A field with its length in front; what is left of the packet behind it."""
    size = yield _read(min(2, left))
    left -= len(size)
    length = min(int.from_bytes(size, "big"), left)
    yield _Region(length, treat)
    return left - length


def _websocket() -> _Plan:
    """WebSocket frames (RFC 6455 section 5.2). A packet may go on from frame to frame: one mask for all."""
    messages = StreamMask()
    while True:
        head = yield _read(2)
        length = head[1] & 0x7F
        if length in _FRAME_LENGTHS:
            length = int.from_bytes((yield _read(_FRAME_LENGTHS[length])), "big")
        key = yield _read(4 if head[1] & 0x80 else 0)
        if head[0] & 0x70:  # an extension was agreed on: compression, most likely
            yield _Region(_FOREVER, _hide)
        inner: Mask = _TextMask() if head[0] & 0x08 else messages  # a control frame may stand between two others
        yield _Region(length, _Keyed(key, inner).mask)


class _Keyed:
    """Masks below the XOR of a WebSocket frame (RFC 6455 section 5.3), if it has one."""

    def __init__(self, key: bytes, inner: Mask) -> None:
        self._key = key
        self._inner = inner
        self._done = 0

    def mask(self, data: bytes) -> bytes:
        if not self._key:
            return self._inner.mask(data)
        start = self._done % 4
        self._done += len(data)
        pad = (self._key * (len(data) // 4 + 2))[start : start + len(data)]
        return _xor(self._inner.mask(_xor(data, pad)), pad)


def _xor(data: bytes, pad: bytes) -> bytes:
    return (int.from_bytes(data, "big") ^ int.from_bytes(pad, "big")).to_bytes(len(data), "big")
