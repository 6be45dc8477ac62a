"""WebSockets: the sub-protocol decides who serves, and frames are a byte stream to the protocol inside."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from tests.support.fix_listener import HOST, Listening, Recorder, client_context, connected, listening
from tests.support.fix_pki import chain_leaf
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from muster.frontends.http import HttpFactory
from muster.frontends.listener import Listener, ListenerLimits, Peer, Protocols
from muster.frontends.tls.transport import TlsLimits
from muster.frontends.websocket import WebSocketServices

# The other event loop meets the transport below in the tests of the listener.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

CONNECT = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00"


@asynccontextmanager
async def serving(
    *, echo: bool = True, limits: ListenerLimits | None = None, **options: Any
) -> AsyncIterator[Listening]:
    """A listener with WebSockets for Recorders; ``served`` has them in order."""
    served: list[Recorder] = []

    def recording(spoken: str) -> Any:
        def factory(peer: Peer) -> asyncio.Protocol:
            served.append(Recorder(spoken, peer, echo=echo))
            return served[-1]

        return factory

    services = WebSocketServices(**{"mqtt": recording("mqtt"), "amqp": recording("amqp"), **options})
    factory = HttpFactory(Starlette(), clock=lambda: 0, websockets=services)
    async with listening(protocols=Protocols(http=factory), limits=limits) as server:
        yield Listening(server.listener, server.address, served)
    await factory.finish(0.05)


def dial(server: Listening, *subprotocols: str, path: str = "/$iothub/websocket", **options: Any) -> connect:
    host, port = server.address
    context = options.pop("context", None) or client_context()
    return connect(
        f"wss://{host}:{port}{path}",
        ssl=context,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        proxy=None,
        open_timeout=60,
        **options,
    )


@pytest.mark.parametrize(
    "path", ["/$iothub/websocket", "/", "/mqtt", "/%24iothub/websocket?iothub-no-client-cert=true"]
)
@pytest.mark.parametrize(
    ("offered", "chosen", "spoken"),
    [
        (["mqtt"], "mqtt", "mqtt"),
        (["MQTT"], "MQTT", "mqtt"),
        (["AMQPWSB10"], "AMQPWSB10", "amqp"),
        (["amqpwsb10"], "amqpwsb10", "amqp"),
        (["mqttv9", "Mqtt", "AMQPWSB10"], "Mqtt", "mqtt"),
    ],
)
async def test_subprotocol_decides_on_any_path(path: str, offered: list[str], chosen: str, spoken: str) -> None:
    async with serving() as server, dial(server, *offered, path=path) as client:
        assert client.subprotocol == chosen
        await client.send(CONNECT)
        assert await client.recv() == CONNECT
        assert server.served[0].spoken == spoken
        assert server.served[0].calls == ["made"]


async def test_peer_is_the_one_of_the_connection() -> None:
    identity = chain_leaf()
    context = client_context("1.2", identity)
    async with serving() as server, dial(server, "mqtt", context=context) as client:
        await client.send(CONNECT)
        await client.recv()
        recorder = server.served[0]
        assert recorder.peer.certificates == (identity.certificate, *identity.chain)
        assert recorder.transport.get_extra_info("peername") == recorder.peer.remote == client.local_address


@pytest.mark.parametrize("offered", [[], ["soap"], ["mqttx", "xamqp"]])
async def test_no_known_subprotocol_is_refused(offered: list[str]) -> None:
    async with serving() as server:
        with pytest.raises(InvalidStatus) as caught:
            await dial(server, *offered)
        assert caught.value.response.status_code == 400
        assert server.served == []
        await server.until_idle()


async def test_subprotocol_that_is_not_served_is_refused() -> None:
    async with serving(amqp=None) as server:
        with pytest.raises(InvalidStatus) as caught:
            await dial(server, "AMQPWSB10")
        assert caught.value.response.status_code == 400


async def test_without_websockets_an_upgrade_is_an_ordinary_request() -> None:
    factory = HttpFactory(Starlette(), clock=lambda: 0)
    async with listening(protocols=Protocols(http=factory)) as server:
        with pytest.raises(InvalidStatus) as caught:
            await dial(server, "mqtt")
        assert caught.value.response.status_code == 404


async def test_without_tls_there_are_no_websockets() -> None:
    services = WebSocketServices(mqtt=lambda peer: Recorder("mqtt", peer, echo=True))
    factory = HttpFactory(Starlette(), clock=lambda: 0, websockets=services)
    listener = Listener(Protocols(http=factory), tls=None)
    host, port = await listener.listen(HOST, 0)
    with pytest.raises(InvalidStatus) as caught:
        await connect(f"ws://{host}:{port}/", subprotocols=[Subprotocol("mqtt")], proxy=None)
    assert caught.value.response.status_code == 404
    await listener.drain(30)


async def test_permessage_deflate_is_not_negotiated() -> None:
    async with serving() as server, dial(server, "mqtt", compression="deflate") as client:
        assert client.protocol.extensions == []


HERE = "https://{host}:{port}"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (HERE, True),
        ("http://{host}:{port}", True),
        ("https://{host}", False),
        ("https://evil.example", False),
        ("https://{host}.evil.example:{port}", False),
        ("http://localhost:3000", False),
        ("null", False),
        ("https://[", False),
        ("https://plant.example:8443", True),
    ],
)
async def test_pages_of_other_origins_are_refused(origin: str, allowed: bool) -> None:
    async with serving(allowed_origins=frozenset({"https://plant.example:8443"})) as server:
        host, port = server.address
        dialling = dial(server, "mqtt", origin=Origin(origin.format(host=host, port=port)))
        if allowed:
            async with dialling:
                assert len(server.served) == 1
        else:
            with pytest.raises(InvalidStatus) as caught:
                await dialling
            assert caught.value.response.status_code == 403
            assert server.served == []


async def test_origin_with_and_without_the_default_port() -> None:
    """Paho says ``https://host:443`` where the Host header may have the port or not (interop-facts.md 3)."""
    request = (
        "GET / HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\n"
        "Upgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Protocol: mqtt\r\n"
        "Sec-WebSocket-Key: c2FtcGxlLW5vbmNlLTAwMQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    async with serving() as server:
        for host, origin in (
            ("hub.example", "https://hub.example:443"),
            ("hub.example:443", "https://HUB.example"),
            ("hub.example:443", "https://hub.example:443"),
        ):
            async with connected(server.address) as (reader, writer):
                writer.write(request.format(host=host, origin=origin).encode())
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


async def test_origin_without_a_host_is_refused() -> None:
    async with serving() as server, connected(server.address) as (reader, writer):
        writer.write(
            b"GET / HTTP/1.1\r\nOrigin: https://x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: c2FtcGxlLW5vbmNlLTAwMQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: mqtt\r\n\r\n"
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 403 ")


@pytest.mark.parametrize(
    ("removed", "status"), [("Sec-WebSocket-Key", 400), ("Sec-WebSocket-Version", 400), ("Sec-WebSocket-Protocol", 400)]
)
async def test_incomplete_upgrade_is_refused(removed: str, status: int) -> None:
    headers = {
        "Host": "x",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "c2FtcGxlLW5vbmNlLTAwMQ==",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "mqtt",
    }
    del headers[removed]
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    async with serving() as server, connected(server.address) as (reader, writer):
        writer.write(f"GET / HTTP/1.1\r\n{head}\r\n".encode())
        assert (await reader.read()).startswith(f"HTTP/1.1 {status} ".encode())
        await server.until_idle()


async def test_header_too_long_for_the_library_is_refused() -> None:
    async with serving() as server:
        with pytest.raises(InvalidStatus) as caught:
            await dial(server, "mqtt", additional_headers={"X-Long": "x" * 20_000})
        assert caught.value.response.status_code == 431
        await server.until_idle()


async def test_upgrade_behind_an_unanswered_request_is_closed() -> None:
    gate = asyncio.Event()

    async def waiting(scope: Any, receive: Any, send: Any) -> None:
        await gate.wait()

    services = WebSocketServices(mqtt=lambda peer: Recorder("mqtt", peer, echo=True))
    factory = HttpFactory(waiting, clock=lambda: 0, websockets=services)
    async with listening(protocols=Protocols(http=factory)) as server, connected(server.address) as (reader, writer):
        writer.write(
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        )
        assert await reader.read() == b""
        await server.until_idle()
        gate.set()
        await factory.finish(5)


async def test_frames_are_a_byte_stream() -> None:
    async with serving(echo=False) as server, dial(server, "mqtt") as client:
        for piece in (CONNECT[:1], CONNECT[1:5], CONNECT[5:] + b"more"):
            await client.send(piece)
        await server.until(lambda: server.served[0].received == CONNECT + b"more")
        await client.send([b"in ", b"frag", b"ments"])
        await server.until(lambda: server.served[0].received.endswith(b"in fragments"))
        await client.send(b"")
        await client.ping()
        transport = server.served[0].transport
        transport.write(b"one")
        transport.write(bytearray(b"two"))
        transport.writelines([b"thr", b"ee"])
        transport.write(b"")
        assert [await client.recv() for _ in range(3)] == [b"one", b"two", b"three"]


async def test_ping_is_answered() -> None:
    async with serving() as server, dial(server, "mqtt") as client:
        async with asyncio.timeout(30):
            await (await client.ping(b"are you there"))


async def test_text_is_refused_after_what_came_before_it() -> None:
    async with serving(echo=False) as server, dial(server, "mqtt") as client:
        await client.send(b"fine")
        await client.send("text")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1003
        await server.until_idle()
        assert server.served[0].received == b"fine"
        assert server.served[0].calls[-1] == "lost"


async def test_frame_that_is_too_large_is_refused() -> None:
    async with serving(echo=False, max_frame_size=1000) as server, dial(server, "mqtt", close_timeout=0.1) as client:
        for _ in range(5):
            await client.send(bytes(1000))
        await server.until(lambda: len(server.served[0].received) == 5000)
        await client.send(bytes(1001))
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1009
        await server.until_idle()


async def test_message_may_be_larger_than_a_frame() -> None:
    async with serving(echo=False, max_frame_size=1000) as server, dial(server, "mqtt") as client:
        await client.send([bytes(1000)] * 50)
        await server.until(lambda: len(server.served[0].received) == 50_000)


async def test_large_transfers() -> None:
    message = bytes(range(256)) * 2000
    async with serving() as server, dial(server, "mqtt", max_size=None) as client:
        sending = asyncio.ensure_future(send_many(client, message, 8))
        received = b""
        while len(received) < 8 * len(message):
            part = await client.recv()
            assert isinstance(part, bytes)
            received += part
        assert received == message * 8
        await sending


async def send_many(client: ClientConnection, message: bytes, times: int) -> None:
    for _ in range(times):
        await client.send(message)


async def test_client_closes() -> None:
    async with serving() as server:
        async with dial(server, "mqtt") as client:
            await client.close(1000, "bye")
            assert client.close_code == 1000
        await server.until_idle()
        assert server.served[0].calls == ["made", "eof", "lost"]
        assert server.served[0].lost_with is None


async def test_last_frame_before_the_close_is_delivered() -> None:
    async with serving(echo=False) as server:
        async with dial(server, "mqtt") as client:
            await client.send(b"last words")
        await server.until_idle()
        assert server.served[0].received == b"last words"


async def test_server_closes_with_1000() -> None:
    async with serving(echo=False) as server, dial(server, "mqtt") as client:
        transport = server.served[0].transport
        transport.write(b"last words")
        transport.close()
        assert transport.is_closing()
        transport.write(b"too late")
        transport.close()
        assert await client.recv() == b"last words"
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1000
        await server.until_idle()


@pytest.mark.parametrize("who", ["client", "server"])
async def test_abrupt_end(who: str) -> None:
    async with serving(echo=False) as server, dial(server, "mqtt", close_timeout=0.1) as client:
        if who == "client":
            client.transport.abort()
        else:
            server.served[0].transport.abort()
        await server.until_idle()
        assert server.served[0].calls[-1] == "lost"


async def test_tcp_ends_without_a_close_frame() -> None:
    async with serving(echo=False) as server:
        async with dial(server, "mqtt", close_timeout=0.1) as client:
            client.transport.close()
            await server.until_idle()
        assert server.served[0].calls == ["made", "eof", "lost"]


async def test_drain_says_going_away() -> None:
    async with serving(echo=False) as server, dial(server, "mqtt") as client:
        await server.listener.drain(30)
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1001
        assert server.listener.counters.open == 0


async def test_drain_lets_the_protocol_inside_finish() -> None:
    class Finishing(Recorder):
        def shutdown(self) -> None:
            self.transport.write(b"goodbye")
            self.transport.close()

    async with serving(mqtt=lambda peer: Finishing("mqtt", peer, echo=False)) as server, dial(server, "mqtt") as client:
        await server.listener.drain(30)
        assert await client.recv() == b"goodbye"
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert client.close_code == 1000


async def test_back_pressure_reaches_the_protocol_inside() -> None:
    limits = ListenerLimits(tls=TlsLimits(write_high_water=32_768))
    async with serving(echo=False, limits=limits) as server, dial(server, "mqtt", max_queue=1) as client:
        recorder = server.served[0]
        sent = 0
        while "pause" not in recorder.calls:
            recorder.transport.write(bytes(60_000))
            sent += 60_000
            await asyncio.sleep(0)
        assert recorder.transport.get_write_buffer_size() < 32_768 + 2 * 60_000
        while sent:
            sent -= len(await client.recv())
        await server.until(lambda: "resume" in recorder.calls)


async def test_reading_can_be_paused() -> None:
    async with serving(echo=False) as server, dial(server, "mqtt") as client:
        recorder = server.served[0]
        recorder.transport.pause_reading()
        assert not recorder.transport.is_reading()
        await client.send(CONNECT)
        await asyncio.sleep(0.02)
        assert recorder.received == b""
        recorder.transport.resume_reading()
        assert recorder.transport.is_reading()
        await server.until(lambda: recorder.received == CONNECT)


async def test_transport_is_an_ordinary_one() -> None:
    async with serving(echo=False) as server, dial(server, "mqtt") as client:
        recorder = server.served[0]
        transport = recorder.transport
        assert transport.get_protocol() is recorder
        assert not transport.can_write_eof()
        transport.set_write_buffer_limits(high=1000)
        assert isinstance(transport.get_extra_info("ssl_object"), object)
        assert transport.get_extra_info("unheard of", "default") == "default"
        other = Recorder("other", recorder.peer, echo=False)
        transport.set_protocol(other)
        await client.send(b"more")
        await server.until(lambda: other.received == b"more")
