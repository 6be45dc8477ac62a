"""Addresses: what can be listened on, and what a user is told about what cannot."""

import asyncio
import contextlib
import errno
import socket

import pytest
from tests.support.fix_listener import HOST, Recorder, connected, listening, server_tls

from muster.frontends.listener import (
    AddressMissingError,
    Listener,
    ListenerLimits,
    ListenError,
    Peer,
    PortRefusedError,
    PortTakenError,
    Protocols,
)

CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"


def make_listener(*, plain: bool = False) -> Listener:
    def http(peer: Peer) -> asyncio.Protocol:
        return Recorder("http", peer, echo=True)

    return Listener(Protocols(http=http), tls=None if plain else server_tls())


async def test_port_that_is_taken() -> None:
    async with listening() as server:
        with pytest.raises(PortTakenError) as caught:
            await make_listener().listen(*server.address)
        assert (caught.value.host, caught.value.port) == server.address
        assert f"{HOST} port {server.address[1]} is taken" in str(caught.value)


async def test_port_is_free_again_after_close() -> None:
    async with listening() as server, connected(server.address):
        pass
    again = make_listener()
    assert await again.listen(*server.address) == server.address
    await again.close()


async def test_port_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class RefusingSocket(socket.socket):
        """As for a user without the right, whoever runs the tests."""

        def bind(self, address: object) -> None:
            raise PermissionError(errno.EACCES, f"Permission denied: {address}")

    monkeypatch.setattr(socket, "socket", RefusingSocket)
    with pytest.raises(PortRefusedError) as caught:
        await make_listener().listen(HOST, 443)
    assert caught.value.port == 443
    assert "net.ipv4.ip_unprivileged_port_start=443" in str(caught.value)


async def test_address_that_this_machine_does_not_have() -> None:
    with pytest.raises(AddressMissingError, match=r"no address 192\.0\.2\.1"):
        await make_listener().listen("192.0.2.1", 0)


async def test_address_that_is_none() -> None:
    with pytest.raises(ListenError, match="not an IP address"):
        await make_listener().listen("hub.example", 0)


async def test_several_addresses_and_ipv6() -> None:
    async with listening() as server:
        try:
            address = await server.listener.listen("::1", 0)
        except AddressMissingError:
            pytest.skip("no ::1 on this machine")
        async with connected(address) as (reader, writer), connected(server.address) as (other_reader, other_writer):
            for one, to_one in ((reader, writer), (other_reader, other_writer)):
                to_one.write(CONNECT)
                assert await one.readexactly(len(CONNECT)) == CONNECT
        assert server.served[0].peer.local == address
        assert server.served[0].peer.remote[0] == "::1"


async def test_without_tls_http_is_served_and_counted() -> None:
    listener = make_listener(plain=True)
    address = await listener.listen(HOST, 0)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"\x10 anything")
    assert await reader.readexactly(10) == b"\x10 anything"
    assert listener.counters.accepted == listener.counters.open == 1
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await listener.drain(5)
    assert listener.counters.open == 0


async def test_drain_without_tls() -> None:
    listener = make_listener(plain=True)
    address = await listener.listen(HOST, 0)
    reader, writer = await asyncio.open_connection(*address)
    writer.write(b"x")
    assert await reader.readexactly(1) == b"x"
    await listener.drain(5)
    assert await reader.read() == b""
    assert listener.counters.open == 0
    writer.close()


async def test_limit_without_tls() -> None:
    recorder = Recorder("http", Peer(("", 0), ("", 0)), echo=True)
    listener = Listener(Protocols(http=lambda _peer: recorder), tls=None, limits=ListenerLimits(connections=1))
    address = await listener.listen(HOST, 0)
    first = await asyncio.open_connection(*address)
    first[1].write(b"x")
    assert await first[0].readexactly(1) == b"x"
    second = await asyncio.open_connection(*address)
    with contextlib.suppress(ConnectionError):
        assert await second[0].read() == b""
    assert listener.counters.refused_by_limit == 1
    assert listener.counters.open == 1
    await listener.close()
    assert recorder.calls == ["made", "lost"]
    for _reader, writer in (first, second):
        writer.close()


async def test_back_pressure_without_tls() -> None:
    listener = make_listener(plain=True)
    address = await listener.listen(HOST, 0)
    reader, writer = await asyncio.open_connection(*address)
    message = bytes(range(256)) * 40_000
    writer.write(message)
    assert await reader.readexactly(len(message)) == message
    writer.close()
    await listener.drain(5)
