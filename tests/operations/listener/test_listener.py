"""What becomes of a connection: who serves it, how it ends, and what is counted."""

import asyncio
import gc
import socket
import ssl
import time
import weakref

import pytest
from tests.support.fix_listener import (
    SHORT_CLOSE,
    SHORT_HANDSHAKE,
    SHORT_SNIFF,
    Listening,
    Recorder,
    client_context,
    connected,
    listening,
)

from muster.frontends.listener import ListenerLimits, Peer, Protocols

CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"
AMQP = b"AMQP\x00\x01\x00\x00"
GET = b"GET / HTTP/1.1\r\n\r\n"

versions = pytest.mark.parametrize("version", ["1.2", "1.3"])


@pytest.mark.parametrize(
    ("greeting", "spoken"),
    [
        (CONNECT, "mqtt"),
        (AMQP, "amqp"),
        (GET, "http"),
        (b"AMQX rest", "http"),
        (b"\r\nPOST", "http"),
        (b"\x00\xff\x10", "mqtt"),
        (b"\x32\x07\x00\x01t\x00\x01", "mqtt"),
        (b"\xe0\x00", "mqtt"),
        (b"A B", "http"),
    ],
)
@pytest.mark.parametrize("pieces", ["whole", "bytes"])
async def test_first_bytes_decide_who_serves(greeting: bytes, spoken: str, pieces: str) -> None:
    async with listening() as server, connected(server.address) as (reader, writer):
        for piece in [greeting] if pieces == "whole" else [bytes([byte]) for byte in greeting]:
            writer.write(piece)
            await asyncio.sleep(0)  # a record of its own
        assert await reader.readexactly(len(greeting)) == greeting
        assert server.served[0].spoken == spoken
        assert server.served[0].received == greeting
        assert server.served[0].calls == ["made"]


async def test_protocol_that_is_not_served_is_left_to_http() -> None:
    recorder = Recorder("http", Peer(("", 0), ("", 0)), echo=True)
    protocols = Protocols(http=lambda _peer: recorder)
    async with listening(protocols=protocols) as server, connected(server.address) as (reader, writer):
        writer.write(CONNECT)
        assert await reader.readexactly(len(CONNECT)) == CONNECT
        assert recorder.received == CONNECT


async def test_silent_client_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(limits=SHORT_SNIFF) as server, connected(server.address) as (reader, writer):
        writer.write(b"AM")
        assert await reader.read() == b""
        await server.until_idle()
        assert server.listener.counters.silent == 1
        assert "said nothing" in caplog.text


async def test_client_that_leaves_before_it_speaks() -> None:
    async with listening() as server:
        async with connected(server.address):
            await server.until(lambda: server.listener.counters.handshakes == 1)
        await server.until_idle()
        assert server.listener.counters.silent == 0


async def test_handshake_has_a_time_limit(caplog: pytest.LogCaptureFixture) -> None:
    async with listening(limits=SHORT_HANDSHAKE) as server:
        for first in (b"", b"\x16\x03\x01\x02\x00\x01"):
            reader, writer = await asyncio.open_connection(*server.address)
            writer.write(first)
            assert await read_to_end(reader) == b""
            writer.close()
        await server.until_idle()
        assert server.listener.counters.failed_handshakes == 2
        assert "(time-out)" in caplog.text


@pytest.mark.parametrize(
    ("first", "name"),
    [(GET, "HTTP"), (CONNECT, "MQTT"), (AMQP, "AMQP"), (b"\x00\x01\x02", "neither"), (b"\x16\x00\x00", "neither")],
)
async def test_plain_text_on_a_tls_port(first: bytes, name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with listening() as server:
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(first)
        assert await read_to_end(reader) == b""
        await server.until_idle()
        assert f"plain text on a TLS port: {name}" in caplog.text
        assert server.listener.counters.plain_text == server.listener.counters.failed_handshakes == 1
        writer.close()


async def test_connection_limit() -> None:
    async with listening(limits=ListenerLimits(connections=2)) as server:
        async with connected(server.address), connected(server.address):
            for _ in range(3):
                with pytest.raises((OSError, EOFError)):
                    await asyncio.open_connection(*server.address, ssl=client_context(), server_hostname="x")
            assert server.listener.counters.refused_by_limit == 3
            assert server.listener.counters.accepted == server.listener.counters.open == 2
        await server.until_idle()
        async with connected(server.address) as (reader, writer):
            writer.write(CONNECT)
            assert await reader.readexactly(len(CONNECT)) == CONNECT


def hello(version: str = "1.3", name: str = "localhost") -> tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]:
    """A client in memory, its first flight ready."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(version).wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return client, incoming, outgoing


@pytest.mark.parametrize("abrupt", [False, True], ids=["FIN", "RST"])
@pytest.mark.parametrize("stage", range(6))
async def test_clients_that_vanish_leave_nothing_behind(stage: int, abrupt: bool) -> None:
    async with listening() as server:
        await vanish_at(stage, server, abrupt=abrupt)
        await server.until(lambda: server.listener.counters.accepted == 1)
        await server.until_idle()
        assert server.listener.counters.failed_handshakes == (1 if stage in (1, 2) else 0)
        for recorder in server.served:
            assert recorder.calls[-1] == "lost"
            assert recorder.calls.count("lost") == 1


async def vanish_at(stage: int, server: Listening, *, abrupt: bool) -> None:
    """Connect and leave: at once, in the hello, after it, before the last flight, after the handshake, in a record."""
    loop = asyncio.get_running_loop()
    tcp = socket.socket()
    tcp.setblocking(False)
    await loop.sock_connect(tcp, server.address)
    client, incoming, outgoing = hello()
    first = outgoing.read()
    if stage == 1:
        await loop.sock_sendall(tcp, first[:40])
    if stage >= 2:
        await loop.sock_sendall(tcp, first)
    if stage >= 3:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                incoming.write(await loop.sock_recv(tcp, 65536))
        await loop.sock_sendall(tcp, outgoing.read())
        await server.until(lambda: server.listener.counters.handshakes == 1)
    if stage >= 4:
        client.write(CONNECT)
        await loop.sock_sendall(tcp, outgoing.read())
        await server.until(lambda: server.served and server.served[0].received == CONNECT)
    if stage >= 5:
        client.write(bytes(1000))
        await loop.sock_sendall(tcp, outgoing.read()[:500])
    if abrupt:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    tcp.close()


@versions
async def test_close_notify_is_the_end_of_input(version: str) -> None:
    async with listening() as server, connected(server.address, version) as (reader, writer):
        writer.write(CONNECT)
        await reader.readexactly(len(CONNECT))
        writer.close()
        await server.served[0].lost.wait()
        assert server.served[0].calls == ["made", "eof", "lost"]
        assert server.served[0].lost_with is None


@versions
async def test_close_flushes_and_says_goodbye(version: str) -> None:
    def read_everything() -> bytes:
        # A blocking client: uvloop's own TLS client loses the end of what it has not read when the server closes.
        with (
            socket.create_connection(server.address, timeout=60) as tcp,
            client_context(version).wrap_socket(tcp, server_hostname="localhost") as tls,
        ):
            tls.sendall(CONNECT)
            parts = []
            while part := tls.recv(65536):  # an end without close_notify is an exception
                parts.append(part)
            return b"".join(parts)

    async with listening(echo=False) as server:
        reading = asyncio.get_running_loop().run_in_executor(None, read_everything)
        await server.until(lambda: server.served)
        transport = server.served[0].transport
        message = bytes(range(256)) * 8000
        transport.write(message)
        transport.close()
        transport.write(b"too late")
        assert transport.is_closing()
        assert await reading == message
        await server.until_idle()
        assert server.served[0].calls[-1] == "lost"


async def test_refusal_arrives_although_the_client_goes_on_sending() -> None:
    """A socket that is closed while input arrives resets the connection: the client's next write fails."""

    class Refusing(Recorder):
        def data_received(self, data: bytes) -> None:
            self.calls.append(f"data {data[:1].hex()}")
            self.transport.write(b"refused")
            self.transport.close()

    def send_first_read_later() -> bytes:
        with (
            socket.create_connection(server.address, timeout=60) as tcp,
            client_context().wrap_socket(tcp, server_hostname="localhost") as tls,
        ):
            tls.sendall(CONNECT)
            for _ in range(20):
                time.sleep(0.002)
                tls.sendall(bytes(50_000))
            return tls.recv(100)

    refusing = Refusing("mqtt", Peer(("", 0), ("", 0)), echo=False)
    async with listening(protocols=Protocols(http=lambda _peer: refusing)) as server:
        assert await asyncio.get_running_loop().run_in_executor(None, send_first_read_later) == b"refused"
        await server.until_idle()
        assert refusing.calls == ["made", "data 10", "lost"]


async def test_closed_connection_waits_only_a_little_for_the_client() -> None:
    async with listening(limits=SHORT_CLOSE, echo=False) as server, connected(server.address) as (_reader, writer):
        writer.write(CONNECT)
        await server.until(lambda: server.served)
        writer.transport.pause_reading()  # so that the client does not notice
        server.served[0].transport.close()
        await server.until_idle()
        assert server.served[0].lost_with is None


@versions
async def test_abort_drops_at_once(version: str) -> None:
    async with listening(echo=False) as server, connected(server.address, version) as (reader, writer):
        writer.write(CONNECT)
        await server.until(lambda: server.served)
        server.served[0].transport.abort()
        assert server.served[0].transport.is_closing()
        assert await read_to_end(reader) == b""
        await server.until_idle()
        assert server.served[0].calls == ["made", "lost"]


async def test_broken_record_ends_the_connection() -> None:
    async with listening() as server:
        loop = asyncio.get_running_loop()
        tcp = socket.socket()
        tcp.setblocking(False)
        await loop.sock_connect(tcp, server.address)
        client, incoming, outgoing = hello("1.2")
        await loop.sock_sendall(tcp, outgoing.read())
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                if flight := outgoing.read():
                    await loop.sock_sendall(tcp, flight)
                incoming.write(await loop.sock_recv(tcp, 65536))
        client.write(CONNECT)
        record = outgoing.read()
        await loop.sock_sendall(tcp, record)
        client.write(b"more")
        record = bytearray(outgoing.read())
        record[-1] ^= 1
        await loop.sock_sendall(tcp, record)
        await server.until_idle()
        tcp.close()
        assert isinstance(server.served[0].lost_with, ConnectionAbortedError)
        assert "bad record mac" in str(server.served[0].lost_with)


async def test_write_that_openssl_refuses_ends_the_connection() -> None:
    async with listening(echo=False) as server, connected(server.address) as (_reader, writer):
        writer.write(CONNECT)
        await server.until(lambda: server.served)
        transport = server.served[0].transport
        transport.get_extra_info("ssl_object").shutdown()
        transport.write(b"too late")
        assert transport.is_closing()
        await server.until_idle()
        assert "protocol is shutdown" in str(server.served[0].lost_with)


@versions
async def test_transport_is_an_ordinary_one(version: str) -> None:
    async with listening(echo=False) as server, connected(server.address, version) as (reader, writer):
        writer.write(CONNECT)
        await server.until(lambda: server.served)
        recorder = server.served[0]
        transport = recorder.transport
        transport.write(b"bytes;")
        transport.write(bytearray(b"bytearray;"))
        transport.write(memoryview(b"memoryview;"))
        transport.write(b"")
        transport.writelines([b"write", b"lines;"])
        assert await reader.readexactly(38) == b"bytes;bytearray;memoryview;writelines;"
        assert transport.get_extra_info("peername") == writer.get_extra_info("sockname")[:2]
        assert transport.get_extra_info("sockname") == server.address
        assert transport.get_extra_info("sslcontext") is not None
        assert transport.get_extra_info("ssl_object").get_cipher_name()
        assert transport.get_extra_info("unheard of", "default") == "default"
        assert not transport.can_write_eof()
        assert transport.get_write_buffer_size() == 0
        assert transport.get_protocol() is recorder
        other = Recorder("other", recorder.peer, echo=False)
        transport.set_protocol(other)
        writer.write(b"more")
        await server.until(lambda: other.received == b"more")


async def test_tap_sees_what_is_inside() -> None:
    class Tape:
        def __init__(self, peer: Peer) -> None:
            self.peer = peer
            self.seen: list[tuple[str, bytes]] = []

        def received(self, data: bytes) -> None:
            self.seen.append(("received", data))

        def sent(self, data: bytes) -> None:
            self.seen.append(("sent", data))

        def closed(self) -> None:
            self.seen.append(("closed", b""))

    tapes: list[Tape] = []

    def tap(peer: Peer) -> Tape | None:
        if peer.server_name != "tapped":
            return None
        tapes.append(Tape(peer))
        return tapes[-1]

    async with listening(tap_factory=tap) as server:
        for name in ("tapped", "other"):
            async with connected(server.address, server_name=name) as (reader, writer):
                writer.write(CONNECT)
                await reader.readexactly(len(CONNECT))
        await server.until_idle()
    (tape,) = tapes
    assert tape.seen == [("received", CONNECT), ("sent", CONNECT), ("closed", b"")]


async def test_failure_of_a_protocol_ends_its_connection_only() -> None:
    class Failing(Recorder):
        def data_received(self, data: bytes) -> None:
            raise RuntimeError(f"a bug with {data!r}")

    failing = Failing("http", Peer(("", 0), ("", 0)), echo=False)
    contexts: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: contexts.append(context))
    recorder = Recorder("mqtt", Peer(("", 0), ("", 0)), echo=True)
    protocols = Protocols(http=lambda _peer: failing, mqtt=lambda _peer: recorder)
    async with listening(protocols=protocols) as server, connected(server.address) as (reader, writer):
        writer.write(CONNECT)
        assert await reader.readexactly(len(CONNECT)) == CONNECT
        async with connected(server.address) as (other_reader, other_writer):
            other_writer.write(GET)
            assert await read_to_end(other_reader) == b""
            await failing.lost.wait()
        writer.write(b"still there")
        assert await reader.readexactly(11) == b"still there"
    assert len(contexts) == 1
    assert isinstance(contexts[0]["exception"], RuntimeError)


async def test_nothing_of_a_closed_connection_stays_in_memory() -> None:
    async with listening() as server:
        async with connected(server.address) as (reader, writer):
            writer.write(CONNECT)
            await reader.readexactly(len(CONNECT))
            left = [weakref.ref(server.served[0]), weakref.ref(server.served[0].transport.get_extra_info("ssl_object"))]
            gc.collect()
            gc.disable()  # from here on it must go by itself
        try:
            await server.until_idle()
            server.served.clear()
            await server.until(lambda: not any(reference() for reference in left))
        finally:
            gc.enable()


async def test_options_of_tcp_reach_accepted_sockets() -> None:
    async with listening() as server, connected(server.address) as (reader, writer):
        writer.write(CONNECT)
        await reader.readexactly(len(CONNECT))
        accepted: socket.socket = server.served[0].transport._tcp.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 120


class Finishing(Recorder):
    """Has something to finish when the server stops."""

    def shutdown(self) -> None:
        self.calls.append("shutdown")
        self.transport.write(b"goodbye")
        self.transport.close()


async def test_drain_lets_protocols_finish() -> None:
    finishing = Finishing("mqtt", Peer(("", 0), ("", 0)), echo=False)
    plain = Recorder("http", Peer(("", 0), ("", 0)), echo=False)
    protocols = Protocols(http=lambda _peer: plain, mqtt=lambda _peer: finishing)
    async with listening(protocols=protocols) as server:
        in_handshake = await asyncio.open_connection(*server.address)
        async with connected(server.address) as (one, to_one), connected(server.address) as (other, to_other):
            to_one.write(CONNECT)
            to_other.write(GET)
            await server.until(lambda: finishing.received and plain.received)
            await server.listener.drain(5)
            assert await one.read() == b"goodbye"
            assert await other.read() == b""
            assert finishing.calls[:2] == ["made", "shutdown"]
            assert finishing.calls[-1] == plain.calls[-1] == "lost"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*server.address)
        in_handshake[1].close()
        assert server.listener.counters.open == 0


async def test_drain_drops_who_does_not_finish() -> None:
    class Stubborn(Recorder):
        def shutdown(self) -> None:
            self.calls.append("shutdown")

    stubborn = Stubborn("mqtt", Peer(("", 0), ("", 0)), echo=False)
    protocols = Protocols(http=lambda _peer: stubborn)
    async with listening(protocols=protocols) as server, connected(server.address) as (_reader, writer):
        writer.write(GET)
        await server.until(lambda: stubborn.received)
        await server.listener.drain(0.02)
        assert stubborn.calls == ["made", "shutdown", "lost"]


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """Until the other end is closed, in whatever way."""
    try:
        return await reader.read()
    except (ConnectionError, ssl.SSLError):
        return b""
