"""Bounded buffers: fast writers meet slow readers, in both directions, in pieces of any size."""

import asyncio
import socket
import time

import pytest
from tests.support.fix_listener import Listening, Recorder, Streams, client_context, connected, listening

from muster.frontends.listener import ListenerLimits
from muster.frontends.tls.transport import TlsLimits

CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"
BLOCK = bytes(range(256)) * 256

versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


@versions
async def test_10_mb_come_back_intact(version: str) -> None:
    message = CONNECT + BLOCK * 160
    async with listening() as server, connected(server.address, version) as (reader, writer):
        writer.write(message)
        assert await reader.readexactly(len(message)) == message
        assert server.listener.counters.dropped == 0


@versions
async def test_pieces_of_one_byte(version: str) -> None:
    async with listening() as server, dribbling(server, 1) as address, connected(address, version) as (reader, writer):
        writer.write(CONNECT + BLOCK[:3000])
        assert await reader.readexactly(len(CONNECT) + 3000) == CONNECT + BLOCK[:3000]


@versions
@pytest.mark.parametrize("size", [5, 1000, 20_000])
async def test_pieces_of_any_size(version: str, size: int) -> None:
    message = CONNECT + BLOCK * (size // 1000) + BLOCK[:20_000]
    async with (
        listening() as server,
        dribbling(server, size) as address,
        connected(address, version) as (reader, writer),
    ):
        writer.write(message)
        assert await reader.readexactly(len(message)) == message


class dribbling:  # noqa: N801  # used like a function
    """The address of a relay that passes what a client sends in pieces of ``size`` bytes at most."""

    def __init__(self, server: Listening, size: int) -> None:
        self.server = server
        self.size = size
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> tuple[str, int]:
        self.relay = await asyncio.start_server(self.accept, "127.0.21.2", 0)
        host, port = self.relay.sockets[0].getsockname()
        return host, port

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(*self.server.address)
        for source, target, size in ((reader, onward_writer, self.size), (onward_reader, writer, 65536)):
            task = asyncio.get_running_loop().create_task(self.copy(source, target, size))
            self.tasks.add(task)

    async def copy(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, size: int) -> None:
        tcp: socket.socket = target.get_extra_info("socket")
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            while data := await source.read(65536):
                for start in range(0, len(data), size):
                    target.write(data[start : start + size])
                    await asyncio.sleep(0)
                await target.drain()
        except ConnectionError:
            pass
        finally:
            target.close()

    async def __aexit__(self, *_: object) -> None:
        self.relay.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def never_reading(server: Listening, streams: Streams) -> Recorder:
    """A client that has connected and then reads nothing."""
    writer = streams[1]
    writer.write(CONNECT)
    await server.until(lambda: server.served)
    writer.transport.pause_reading()
    return server.served[0]


@versions
async def test_writer_is_told_to_wait_and_to_go_on(version: str) -> None:
    limits = ListenerLimits(tls=TlsLimits(write_high_water=32_768))
    async with listening(limits=limits, echo=False) as server, connected(server.address, version) as streams:
        recorder = await never_reading(server, streams)
        recorder.transport.write(BLOCK)
        sent = len(BLOCK)
        while "pause" not in recorder.calls:
            await asyncio.sleep(0)
            recorder.transport.write(BLOCK)
            sent += len(BLOCK)
        # Beyond what the sockets hold there is one write more than the mark.
        assert 32_768 < recorder.transport.get_write_buffer_size() < 32_768 + 2 * len(BLOCK)
        assert "resume" not in recorder.calls
        streams[1].transport.resume_reading()
        assert await streams[0].readexactly(sent) == BLOCK * (sent // len(BLOCK))
        await server.until(lambda: "resume" in recorder.calls)
        recorder.transport.write(b"more")
        assert await streams[0].readexactly(4) == b"more"


async def test_marks_can_be_set_by_the_protocol() -> None:
    async with listening(echo=False) as server, connected(server.address) as streams:
        recorder = await never_reading(server, streams)
        recorder.transport.set_write_buffer_limits(high=100)
        recorder.transport.write(BLOCK)
        while "pause" not in recorder.calls:
            await asyncio.sleep(0)
            recorder.transport.write(BLOCK)
        assert recorder.transport.get_write_buffer_size() < 2 * len(BLOCK)


async def test_protocol_that_does_not_wait_is_cut_off_at_the_limit(caplog: pytest.LogCaptureFixture) -> None:
    limits = ListenerLimits(tls=TlsLimits(write_high_water=32_768, write_hard_limit=500_000))
    async with listening(limits=limits, echo=False) as server, connected(server.address) as streams:
        recorder = await never_reading(server, streams)
        for _ in range(2000):
            recorder.transport.write(BLOCK)
            await asyncio.sleep(0)
            if recorder.transport.is_closing():
                break
        await server.until_idle()
        assert isinstance(recorder.lost_with, ConnectionAbortedError)
        assert server.listener.counters.dropped == 1
        assert "does not read" in caplog.text


async def test_one_large_write_is_no_reason_to_cut() -> None:
    limits = ListenerLimits(tls=TlsLimits(write_high_water=32_768, write_hard_limit=500_000))
    async with listening(limits=limits, echo=False) as server, connected(server.address) as streams:
        recorder = await never_reading(server, streams)
        recorder.transport.write(BLOCK * 300)
        streams[1].transport.resume_reading()
        assert await streams[0].readexactly(len(BLOCK) * 300) == BLOCK * 300
        assert server.listener.counters.dropped == 0


STALLING = ListenerLimits(tls=TlsLimits(write_high_water=32_768, stall_timeout=0.05, close_timeout=0.05))


async def test_client_that_never_reads_is_dropped_in_time() -> None:
    async with listening(limits=STALLING, echo=False) as server, connected(server.address) as streams:
        recorder = await never_reading(server, streams)

        def is_gone() -> bool:
            while recorder.calls.count("pause") == recorder.calls.count("resume"):
                recorder.transport.write(BLOCK)
            return server.listener.counters.open == 0

        await server.until(is_gone)
        assert server.listener.counters.dropped == 1


async def test_client_that_never_reads_cannot_hold_a_closed_connection() -> None:
    async with listening(limits=STALLING, echo=False) as server, connected(server.address) as streams:
        recorder = await never_reading(server, streams)
        recorder.transport.write(BLOCK * 300)
        recorder.transport.close()
        await server.until_idle()
        assert recorder.calls[-1] == "lost"


@pytest.mark.parametrize("closed", [False, True], ids=["open", "closed"])
async def test_slow_client_is_not_dropped(closed: bool) -> None:
    limits = ListenerLimits(tls=TlsLimits(write_high_water=32_768, stall_timeout=1.0, close_timeout=0.01))
    size = 100 * len(BLOCK)

    def read_slowly() -> tuple[int, float]:
        start, received = time.monotonic(), 0
        with (
            socket.create_connection(server.address, timeout=60) as tcp,
            client_context().wrap_socket(tcp, server_hostname="localhost") as tls,
        ):
            tls.sendall(CONNECT)
            while received < size and (data := tls.recv(16 * 1024)):
                time.sleep(0.004)
                received += len(data)
        return received, time.monotonic() - start

    async with listening(limits=limits, echo=False) as server:
        reading = asyncio.get_running_loop().run_in_executor(None, read_slowly)
        await server.until(lambda: server.served)
        server.served[0].transport.write(100 * BLOCK)
        if closed:
            server.served[0].transport.close()
        received, duration = await reading
        assert received == size
        assert duration > limits.tls.stall_timeout
        assert server.listener.counters.dropped == 0


@versions
async def test_reader_that_pauses_stops_the_client(version: str) -> None:
    message = CONNECT + BLOCK * 300

    def send() -> None:
        with (
            socket.create_connection(server.address, timeout=60) as tcp,
            client_context(version).wrap_socket(tcp, server_hostname="localhost") as tls,
        ):
            tls.sendall(message)
            assert tls.recv(4) == b"done"

    async with listening(echo=False) as server:
        sending = asyncio.get_running_loop().run_in_executor(None, send)
        await server.until(lambda: server.served)
        recorder = server.served[0]
        assert recorder.transport.is_reading()
        recorder.transport.pause_reading()
        assert not recorder.transport.is_reading()
        before = len(recorder.received)
        await asyncio.sleep(0.05)
        assert not sending.done()
        assert len(recorder.received) == before
        # The rest is with the client and in the sockets; here is one read of the network at most.
        assert len(recorder.transport._lower._held) <= 256 * 1024
        recorder.transport.resume_reading()
        assert recorder.transport.is_reading()
        await server.until(lambda: len(recorder.received) == len(message))
        assert recorder.received == message
        recorder.transport.write(b"done")
        await sending


class Hesitating(Recorder):
    """Pauses whenever it gets something and goes on a little later."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self.transport.pause_reading()
        self.transport.resume_reading()
        self.transport.pause_reading()
        asyncio.get_running_loop().call_soon(self.transport.resume_reading)


@versions
async def test_reader_that_pauses_all_the_time_gets_everything(version: str) -> None:
    async with listening(echo=False) as server, connected(server.address, version) as (_reader, writer):
        writer.write(CONNECT)
        await server.until(lambda: server.served)
        recorder = Hesitating("mqtt", server.served[0].peer, echo=False)
        recorder.connection_made(server.served[0].transport)
        recorder.transport.set_protocol(recorder)
        writer.write(BLOCK * 40)
        await server.until(lambda: len(recorder.received) == 40 * len(BLOCK))
        assert recorder.received == BLOCK * 40


async def test_pause_from_the_first_moment_on() -> None:
    """What came in one piece with the end of the handshake waits inside OpenSSL then."""

    class Paused(Recorder):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            super().connection_made(transport)
            self.transport.pause_reading()

    async with listening(echo=False) as server:
        recorder: Paused | None = None
        original = server.listener.established

        def established(transport: object) -> asyncio.Protocol:
            nonlocal recorder
            recorder = Paused("any", original(transport)._hand_over("mqtt").peer, echo=False)  # type: ignore[arg-type]
            return recorder

        server.listener.established = established  # type: ignore[method-assign]
        async with connected(server.address) as (_reader, writer):
            writer.write(CONNECT)
            await server.until(lambda: recorder)
            await asyncio.sleep(0.02)
            assert recorder is not None
            assert recorder.received == b""
            recorder.transport.resume_reading()
            await server.until(lambda: recorder and recorder.received == CONNECT)


async def test_closing_while_paused() -> None:
    async with listening(echo=False) as server, connected(server.address) as (reader, writer):
        writer.write(CONNECT)
        await server.until(lambda: server.served)
        transport = server.served[0].transport
        transport.pause_reading()
        writer.write(BLOCK * 100)
        await asyncio.sleep(0.01)
        transport.write(b"goodbye")
        transport.close()
        transport.resume_reading()
        assert await reader.readexactly(7) == b"goodbye"
        await server.until_idle()
        assert server.served[0].received == CONNECT
