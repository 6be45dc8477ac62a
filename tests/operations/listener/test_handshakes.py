"""Handshakes beside the loop: what is connected goes on meanwhile, and nothing that comes early or leaves is lost."""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import pytest
from OpenSSL import SSL
from tests.operations.listener.test_listener import CONNECT, GET, hello, read_to_end
from tests.support.fix_listener import Listening, connected, listening, server_tls

from muster.frontends.listener import ListenerLimits
from muster.frontends.tls.context import make_context
from muster.frontends.tls.handshakes import Handshakes, Outcome
from muster.frontends.tls.transport import TlsLimits

Client = tuple[ssl.SSLObject, ssl.MemoryBIO, ssl.MemoryBIO]


class Gate:
    """Holds handshakes that ask for the name ``held``, inside OpenSSL."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self._opened = threading.Event()

    def open(self) -> None:
        self._opened.set()

    def __call__(self, connection: SSL.Connection) -> None:
        if connection.get_servername() == b"held":
            self.reached.set()
            assert self._opened.wait(30)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """What holds up the handshakes of every listener that the test opens."""
    gate = Gate()

    def make_gated(certificate_chain: bytes, private_key: bytes, password: bytes | None = None) -> SSL.Context:
        context = make_context(certificate_chain, private_key, password)
        context.set_tlsext_servername_callback(gate)
        return context

    monkeypatch.setattr("muster.frontends.tls.context.make_context", make_gated)
    yield gate
    gate.open()


async def test_what_is_connected_goes_on(gate: Gate) -> None:
    async with listening() as server, connected(server.address) as (reader, writer):
        held = asyncio.ensure_future(meet(server))
        await server.until(gate.reached.is_set)
        for _ in range(3):
            writer.write(CONNECT)
            assert await reader.readexactly(len(CONNECT)) == CONNECT
        assert not held.done()
        gate.open()
        assert await held == CONNECT
        assert server.listener.counters.handshakes == 2


async def meet(server: Listening) -> bytes:
    """What comes back to the client whose handshake is held."""
    async with connected(server.address, server_name="held") as (reader, writer):
        writer.write(CONNECT)
        return await reader.readexactly(len(CONNECT))


@pytest.mark.parametrize("abrupt", [False, True], ids=["FIN", "RST"])
async def test_client_that_leaves_in_the_middle_of_a_step(gate: Gate, no_traceback: None, *, abrupt: bool) -> None:
    async with listening() as server:
        tcp = await opened(server)
        _client, _incoming, outgoing = hello(name="held")
        await asyncio.get_running_loop().sock_sendall(tcp, outgoing.read())
        await server.until(gate.reached.is_set)
        if abrupt:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        tcp.close()
        if abrupt:
            await server.until_idle()
        gate.open()
        await server.until_idle()
        assert server.listener.counters.failed_handshakes == 1


async def test_time_limit_runs_in_a_step_too(gate: Gate, caplog: pytest.LogCaptureFixture) -> None:
    limits = ListenerLimits(tls=TlsLimits(handshake_timeout=1.0))
    async with listening(limits=limits) as server:
        tcp = await opened(server)
        _client, _incoming, outgoing = hello(name="held")
        await asyncio.get_running_loop().sock_sendall(tcp, outgoing.read())
        await server.until(gate.reached.is_set)
        await server.until_idle()
        gate.open()
        tcp.close()
    assert "(time-out)" in caplog.text
    assert server.listener.counters.failed_handshakes == 1


@pytest.mark.parametrize("size", [0, 1_000, 300_000])
async def test_all_that_follows_the_last_flight_at_once_arrives(size: int) -> None:
    """A client of TLS 1.3 may send its certificate, all it wants and its end in one piece."""
    said = GET + bytes(size)
    async with listening() as server:
        tcp = await opened(server)
        client, incoming, outgoing = hello()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(tcp, outgoing.read())
        await finish(client, incoming, tcp)
        client.write(said)
        with contextlib.suppress(ssl.SSLWantReadError):
            client.unwrap()
        await loop.sock_sendall(tcp, outgoing.read())
        tcp.shutdown(socket.SHUT_WR)
        await server.until_idle()
        tcp.close()
        (recorder,) = server.served
        assert recorder.received == said
        assert recorder.calls == ["made", "eof", "lost"]


async def test_hello_in_single_bytes() -> None:
    async with listening() as server:
        tcp = await opened(server)
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client, incoming, outgoing = hello()
        loop = asyncio.get_running_loop()
        for byte in outgoing.read():
            await loop.sock_sendall(tcp, bytes([byte]))
        await finish(client, incoming, tcp)
        await loop.sock_sendall(tcp, outgoing.read())
        client.write(CONNECT)
        await loop.sock_sendall(tcp, outgoing.read())
        await server.until(lambda: server.served and server.served[0].received == CONNECT)
        tcp.close()


async def test_garbage_behind_a_hello() -> None:
    async with listening() as server:
        tcp = await opened(server)
        _client, _incoming, outgoing = hello()
        await asyncio.get_running_loop().sock_sendall(tcp, outgoing.read() + b"\x17\x03\x03\x00\x20" + bytes(32))
        reader, writer = await asyncio.open_connection(sock=tcp)
        await read_to_end(reader)
        await server.until_idle()
        writer.close()
        assert server.listener.counters.failed_handshakes == 1


async def test_threads_end_with_the_listener() -> None:
    async with listening() as server:
        await server.until(lambda: workers() == 0)  # those of tests before
        async with connected(server.address):
            assert workers() > 0
        await server.until_idle()
    await server.until(lambda: workers() == 0)


def workers() -> int:
    return sum(thread.name.startswith("muster-handshakes") for thread in threading.enumerate())


async def test_steps_that_are_cancelled_are_not_taken() -> None:
    handshakes = Handshakes(asyncio.get_running_loop(), workers=1)
    told: list[Outcome] = []
    gate = Gate()
    tls = server_tls()
    connections = []
    for name in ("held", "localhost", "localhost"):
        connection = tls.connection()
        connection.bio_write(hello(name=name)[2].read())
        connections.append(connection)
    steps = [handshakes.advance(connection, told.append) for connection in connections]
    steps[1].cancel()
    gate.open()
    handshakes.close()
    await asyncio.sleep(0)
    assert told == [False, False]
    assert connections[2].bio_read(16)[:1] == b"\x16"
    with pytest.raises(SSL.WantReadError):
        connections[1].bio_read(16)


async def test_failure_is_told() -> None:
    handshakes = Handshakes(asyncio.get_running_loop(), workers=1)
    told: list[Outcome] = []
    connection = server_tls().connection()
    connection.bio_write(b"\x16\x03\x01\x00\x04\x7f\x00\x00\x00")
    handshakes.advance(connection, told.append)
    handshakes.close()
    await asyncio.sleep(0)
    assert isinstance(told[0], SSL.Error)


async def opened(server: Listening) -> socket.socket:
    tcp = socket.socket()
    tcp.setblocking(False)
    await asyncio.get_running_loop().sock_connect(tcp, server.address)
    return tcp


async def finish(client: ssl.SSLObject, incoming: ssl.MemoryBIO, tcp: socket.socket) -> None:
    """Take the server's flight; the client's last one is then ready."""
    done = False
    while not done:
        try:
            client.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            incoming.write(await asyncio.get_running_loop().sock_recv(tcp, 65536))
