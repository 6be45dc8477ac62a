"""AMQP clients, for now: an orderly refusal in AMQP's own terms, so that a client says why and does not retry
blindly.

A client may come with a SASL layer or without (interop-facts.md 5). Either way it gets as far as ``open`` and
is then told ``amqp:not-implemented``. Not here: the AMQP protocol itself.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import cast

from muster.frontends.listener import Peer

_log = logging.getLogger("muster.amqp")

_AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
_SASL_HEADER = b"AMQP\x03\x01\x00\x00"
_HEADER_SIZE = 8

_AMQP_FRAME, _SASL_FRAME = 0, 1
_SASL_MECHANISMS, _SASL_INIT, _SASL_OUTCOME = 0x40, 0x41, 0x44
_OPEN, _CLOSE, _ERROR = 0x10, 0x18, 0x1D

_MAX_FRAME_SIZE = 65536

_DESCRIPTION = (
    "AMQP is not served by this version of Muster. "
    "Devices can use MQTT on port 8883, or MQTT over WebSocket on port 443."
)


def _variable(constructor: int, data: bytes) -> bytes:
    """A value of variable width with a size of one byte: string (a1), symbol (a3)."""
    return bytes((constructor, len(data))) + data


def _described(code: int, fields: Iterable[bytes]) -> bytes:
    """A described list (list8) with all its fields: some clients index them by position (hub-service.md
    8.9).
    """
    values = tuple(fields)
    body = b"".join(values)
    return bytes((0x00, 0x53, code, 0xC0, len(body) + 1, len(values))) + body


def _frame(kind: int, performative: bytes) -> bytes:
    return (_HEADER_SIZE + len(performative)).to_bytes(4) + bytes((2, kind, 0, 0)) + performative


_NULL = b"\x40"


def _mechanisms() -> bytes:
    names = b"".join(bytes((len(name),)) + name for name in (b"ANONYMOUS", b"PLAIN", b"EXTERNAL", b"MSSBCBS"))
    array = bytes((0xE0, len(names) + 2, 4, 0xA3)) + names
    return _frame(_SASL_FRAME, _described(_SASL_MECHANISMS, [array]))


def _open() -> bytes:
    container, max_frame_size, channel_max = b"muster", _MAX_FRAME_SIZE, 255
    fields = (
        _variable(0xA1, container),
        _NULL,
        b"\x70" + max_frame_size.to_bytes(4),
        b"\x60" + channel_max.to_bytes(2),
    )
    return _frame(_AMQP_FRAME, _described(_OPEN, fields + (_NULL,) * 6))


def _close() -> bytes:
    condition = _variable(0xA3, b"amqp:not-implemented")
    error = _described(_ERROR, (condition, _variable(0xA1, _DESCRIPTION.encode()), _NULL))
    return _frame(_AMQP_FRAME, _described(_CLOSE, [error]))


# Any mechanism is let through: the refusal that follows names the cause, a failed SASL would name the
# credential.
_WELCOME = _frame(_SASL_FRAME, _described(_SASL_OUTCOME, (b"\x50\x00", _NULL)))
_OFFER = _SASL_HEADER + _mechanisms()
_REFUSAL = _open() + _close()


class AmqpRefusal(asyncio.Protocol):
    """Takes a client through the opening of AMQP and closes with the reason; ``patience`` bounds all of it,
    in seconds.
    """

    def __init__(self, peer: Peer, patience: float = 5.0) -> None:
        self._peer = peer
        self._patience = patience
        self._buffer = b""
        self._frames_follow = False
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._timer = asyncio.get_running_loop().call_later(self._patience, self._transport.close)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while not self._transport.is_closing() and (unit := self._next_unit()):
            if self._frames_follow:
                self._take_frame(unit)
            else:
                self._take_header(unit)

    def _next_unit(self) -> bytes:
        """The next header or frame; empty while it is not complete."""
        size = _HEADER_SIZE
        if len(self._buffer) < size:
            return b""
        if self._frames_follow:
            size = int.from_bytes(self._buffer[:4])
            if not _HEADER_SIZE <= size <= _MAX_FRAME_SIZE:
                self._transport.close()
                return b""
        unit, rest = self._buffer[:size], self._buffer[size:]
        if len(unit) < size:
            return b""
        self._buffer = rest
        return unit

    def _take_header(self, header: bytes) -> None:
        if header == _SASL_HEADER:
            self._transport.write(_OFFER)
        else:
            # To a header that is not served the answer is one that is, and the end (AMQP 1.0, 2.2).
            self._transport.write(_AMQP_HEADER)
            if header != _AMQP_HEADER:
                self._transport.close()
        self._frames_follow = True

    def _take_frame(self, frame: bytes) -> None:
        performative = frame[4 * frame[4] :]
        code = int.from_bytes(performative[2:3]) if performative.startswith(b"\x00\x53") else None
        if frame[5] == _SASL_FRAME:
            if code == _SASL_INIT:
                self._transport.write(_WELCOME)
                self._frames_follow = False
        elif code == _OPEN and not self._refused:
            self._refused = True
            self._transport.write(_REFUSAL)
            _log.info("AMQP from %s:%d refused: not served by this version", *self._peer.remote)
        elif code == _CLOSE:
            self._transport.close()
