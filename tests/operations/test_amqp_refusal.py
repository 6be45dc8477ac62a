"""An AMQP client is refused in AMQP's own terms, with SASL and without."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.support.fix_listener import HOST

from muster.frontends.amqp import AmqpRefusal
from muster.frontends.listener import Listener, Peer, Protocols

AMQP_HEADER = b"AMQP\x00\x01\x00\x00"
SASL_HEADER = b"AMQP\x03\x01\x00\x00"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def frame(kind: int, performative: bytes) -> bytes:
    return (len(performative) + 8).to_bytes(4) + bytes((2, kind, 0, 0)) + performative


# Each with its first field alone: a client may leave the others out.
SASL_INIT = frame(1, b"\x00\x53\x41\xc0\x0c\x01\xa3\x09ANONYMOUS")
OPEN = frame(0, b"\x00\x53\x10\xc0\x05\x01\xa1\x02me")
BEGIN = frame(0, b"\x00\x53\x11\xc0\x02\x01\x40")
CLOSE = frame(0, b"\x00\x53\x18\xc0\x02\x01\x40")


def decode(data: bytes) -> tuple[Any, bytes]:
    """One AMQP value and what follows it; described values become (code, value)."""
    kind, rest = data[0], data[1:]
    match kind:
        case 0x00:
            code, rest = decode(rest)
            value, rest = decode(rest)
            return (code, value), rest
        case 0x40:
            return None, rest
        case 0x50 | 0x53:
            return rest[0], rest[1:]
        case 0x60:
            return int.from_bytes(rest[:2]), rest[2:]
        case 0x70:
            return int.from_bytes(rest[:4]), rest[4:]
        case 0xA1 | 0xA3:
            return rest[1 : 1 + rest[0]].decode(), rest[1 + rest[0] :]
        case 0xC0 | 0xD0 | 0xE0:
            width = 4 if kind == 0xD0 else 1
            size, body = int.from_bytes(rest[:width]), rest[width:]
            body, rest = body[:size], body[size:]
            assert len(body) == size
            count, items = int.from_bytes(body[:width]), body[width:]
            constructor, items = (items[:1], items[1:]) if kind == 0xE0 else (b"", items)
            values = []
            for _ in range(count):
                value, items = decode(constructor + items)
                values.append(value)
            assert items == b""
            return values, rest
    raise AssertionError(f"constructor {kind:#x}")


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, Any]:
    """Kind and performative of the next frame."""
    header = await reader.readexactly(8)
    assert header[4] == 2
    assert header[6:] == b"\0\0"
    value, rest = decode(await reader.readexactly(int.from_bytes(header[:4]) - 8))
    assert rest == b""
    return header[5], value


@pytest.fixture
async def streams() -> AsyncIterator[Streams]:
    """A client of a refusal that is not patient; without TLS, which changes nothing here."""

    def refuse(peer: Peer) -> asyncio.Protocol:
        return AmqpRefusal(peer, patience=0.1)

    listener = Listener(Protocols(http=refuse), tls=None)
    reader, writer = await asyncio.open_connection(*await listener.listen(HOST, 0))
    yield reader, writer
    writer.close()
    await listener.close()
    assert listener.counters.open == 0


async def expect_refusal(reader: asyncio.StreamReader) -> None:
    assert await reader.readexactly(8) == AMQP_HEADER
    kind, (code, fields) = await read_frame(reader)
    assert (kind, code) == (0, 0x10)
    assert fields == ["muster", None, 65536, 255, None, None, None, None, None, None]
    kind, (code, fields) = await read_frame(reader)
    assert (kind, code) == (0, 0x18)
    ((error, (condition, description, info)),) = fields
    assert (error, condition, info) == (0x1D, "amqp:not-implemented", None)
    assert "MQTT on port 8883" in description


async def test_client_without_sasl(streams: Streams) -> None:
    reader, writer = streams
    writer.write(AMQP_HEADER + OPEN)
    await expect_refusal(reader)
    writer.write(CLOSE)
    assert await reader.read() == b""


async def test_client_with_sasl_that_waits_for_each_answer(streams: Streams) -> None:
    reader, writer = streams
    writer.write(SASL_HEADER)
    assert await reader.readexactly(8) == SASL_HEADER
    assert await read_frame(reader) == (1, (0x40, [["ANONYMOUS", "PLAIN", "EXTERNAL", "MSSBCBS"]]))
    writer.write(SASL_INIT)
    assert await read_frame(reader) == (1, (0x44, [0, None]))
    writer.write(AMQP_HEADER)
    assert await reader.readexactly(8) == AMQP_HEADER
    writer.write(OPEN)
    kind, (code, _fields) = await read_frame(reader)
    assert (kind, code) == (0, 0x10)
    kind, (code, _fields) = await read_frame(reader)
    assert (kind, code) == (0, 0x18)
    writer.write(CLOSE)
    assert await reader.read() == b""


@pytest.mark.parametrize("size", [1, 3, 1000])
async def test_client_that_sends_everything_at_once(streams: Streams, size: int) -> None:
    reader, writer = streams
    everything = SASL_HEADER + SASL_INIT + AMQP_HEADER + OPEN + BEGIN + CLOSE
    for start in range(0, len(everything), size):
        writer.write(everything[start : start + size])
        await asyncio.sleep(0)
    assert await reader.readexactly(8) == SASL_HEADER
    await read_frame(reader)
    await read_frame(reader)
    await expect_refusal(reader)
    assert await reader.read() == b""


async def test_client_that_does_not_close_is_closed(streams: Streams) -> None:
    reader, writer = streams
    writer.write(AMQP_HEADER + OPEN)
    await expect_refusal(reader)
    assert await reader.read() == b""


async def test_client_that_says_nothing_is_closed(streams: Streams) -> None:
    reader, writer = streams
    writer.write(AMQP_HEADER)
    assert await reader.readexactly(8) == AMQP_HEADER
    assert await reader.read() == b""


@pytest.mark.parametrize("header", [b"AMQP\x00\x00\x09\x01", b"AMQP\x02\x01\x00\x00", b"AMQP\x01\x01\x00\x0a"])
async def test_other_versions_are_told_which_one_is_spoken(streams: Streams, header: bytes) -> None:
    reader, writer = streams
    writer.write(header)
    assert await reader.read() == AMQP_HEADER


@pytest.mark.parametrize("size", [0, 7, 65537, 0xFFFFFFFF])
async def test_frame_of_an_impossible_size_ends_it(streams: Streams, size: int) -> None:
    reader, writer = streams
    writer.write(AMQP_HEADER + size.to_bytes(4) + b"\x02\x00\x00\x00")
    assert await reader.read() == AMQP_HEADER


async def test_frames_of_nonsense_are_let_pass(streams: Streams) -> None:
    reader, writer = streams
    writer.write(AMQP_HEADER + frame(0, b"") + frame(0, b"\x00\x53") + frame(7, b"\x00\x53\x10") + OPEN)
    await expect_refusal(reader)
