"""uvicorn's protocol class behind our listener: the contract with a class that is not quite public, and our limits."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from tests.support.fix_listener import HOST, Streams, connected, listening, server_tls
from tests.support.fix_pki import chain_leaf

from muster.frontends.http import HttpFactory
from muster.frontends.listener import Listener, ListenerLimits, Protocols
from muster.frontends.rest.message_headers import ExactName
from muster.frontends.tls.transport import TlsLimits

# The other event loop meets the transport below in the tests of the listener.
pytestmark = pytest.mark.asyncio(loop_factories=["uvloop"])

NOON = 1_790_000_000 * 1_000_000
ANSWER = b"HTTP/1.1 200 OK\r\n"


class App:
    """A Starlette application with one route for each thing that is tested."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.go_on = asyncio.Event()
        self.scopes: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.ended: list[str] = []
        handlers = (self.echo, self.who, self.names, self.wait, self.stream, self.ignore, self.fail)
        self.app = Starlette(
            routes=[Route(f"/{handler.__name__}", handler, methods=["GET", "POST"]) for handler in handlers]
        )

    async def echo(self, request: Request) -> Response:
        body = await request.body()
        self.bodies.append(body)
        return PlainTextResponse(body)

    async def who(self, request: Request) -> Response:
        peer = request.state.peer
        scope = {name: request.scope[name] for name in ("client", "server", "scheme", "http_version")}
        return JSONResponse(
            {"remote": peer.remote, "certificates": [der.hex() for der in peer.certificates], "scope": scope}
        )

    async def names(self, request: Request) -> Response:
        response = JSONResponse([name.decode() for name in request.state.header_names])
        response.raw_headers += [(ExactName(b"ETag"), b"1"), (b"Other", b"2")]
        return response

    async def wait(self, _request: Request) -> Response:
        self.started.set()
        await self.go_on.wait()
        self.ended.append("wait")
        return PlainTextResponse("done")

    async def stream(self, _request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            try:
                for _ in range(2000):
                    yield bytes(16_384)
                    self.started.set()
            finally:
                self.ended.append("stream")

        return StreamingResponse(body())

    async def ignore(self, request: Request) -> Response:
        """Does not read the body for a while."""
        self.started.set()
        await self.go_on.wait()
        return PlainTextResponse(str(len(await request.body())))

    async def fail(self, _request: Request) -> Response:
        raise RuntimeError("a bug")


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[App, Listener, HttpFactory, tuple[str, int]]]:
    app = App()
    limits = options.pop("limits", None)
    factory = HttpFactory(app.app, clock=lambda: NOON, **options)
    async with listening(protocols=Protocols(http=factory), limits=limits) as server:
        yield app, server.listener, factory, server.address
    await factory.finish(0.05)


async def ask(streams: Streams, request: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Status line, headers and body of the answer to a request."""
    streams[1].write(request)
    return await read_answer(streams[0])


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, dict[bytes, bytes], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    status, *lines = head[:-4].split(b"\r\n")
    headers = dict(line.lower().split(b": ", 1) for line in lines)
    return status + b"\r\n", headers, await reader.readexactly(int(headers.get(b"content-length", b"0")))


def get(path: str, *headers: str) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def post(path: str, body: bytes, *headers: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(head).encode() + body


async def test_names_of_headers_keep_their_case_where_it_counts() -> None:
    async with serving() as (_app, _listener, _factory, address), connected(address, "1.3") as streams:
        for name in ("X-One", "x-TWO"):
            streams[1].write(get("/names", f"{name}: 1", "Expect: 100-continue"))
            head = await streams[0].readuntil(b"\r\n\r\n")
            assert b"\r\nETag: 1\r\n" in head
            assert b"\r\nother: 2\r\n" in head
            length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
            assert json.loads(await streams[0].readexactly(length)) == ["Host", name, "Expect"]


async def test_application_sees_who_asks() -> None:
    identity = chain_leaf()
    async with serving() as (_app, _listener, _factory, address), connected(address, "1.2", identity) as streams:
        local = streams[1].get_extra_info("sockname")[:2]
        lies = ("X-Forwarded-For: 192.0.2.1", "X-Forwarded-Proto: http", "Forwarded: for=192.0.2.1")
        for headers in ((), lies):
            status, _headers, body = await ask(streams, get("/who", *headers))
            assert status == ANSWER
            assert json.loads(body) == {
                "remote": list(local),
                "certificates": [der.hex() for der in (identity.certificate, *identity.chain)],
                "scope": {"client": list(local), "server": list(address), "scheme": "https", "http_version": "1.1"},
            }


async def test_without_tls() -> None:
    listener = Listener(Protocols(http=HttpFactory(App().app, clock=lambda: NOON)), tls=None)
    address = await listener.listen(HOST, 0)
    streams = await asyncio.open_connection(*address)
    _status, _headers, body = await ask(streams, get("/who"))
    document = json.loads(body)
    assert document["scope"] == {
        "client": list(streams[1].get_extra_info("sockname")),
        "server": list(address),
        "scheme": "http",
        "http_version": "1.1",
    }
    assert document["certificates"] == []
    assert listener.counters.open == 1
    await listener.drain(30)
    assert await streams[0].read() == b""
    assert listener.counters.open == 0
    streams[1].close()


async def test_date_follows_the_clock_and_no_server_is_named() -> None:
    async with serving() as (_app, _listener, _factory, address), connected(address) as streams:
        _status, headers, _body = await ask(streams, get("/echo"))
        assert headers[b"date"] == b"mon, 21 sep 2026 14:13:20 gmt"
        assert b"server" not in headers


async def test_server_can_be_named() -> None:
    async with serving(server="Microsoft-HTTPAPI/2.0") as (_app, _, _factory, address), connected(address) as streams:
        _status, headers, _body = await ask(streams, get("/echo"))
        assert headers[b"server"] == b"microsoft-httpapi/2.0"
        assert headers[b"date"]


async def test_chunked_body() -> None:
    async with serving() as (_app, _listener, _factory, address), connected(address) as streams:
        head = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        status, _headers, body = await ask(streams, head + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")
        assert (status, body) == (ANSWER, b"hello world")


async def test_large_body_in_small_pieces() -> None:
    message = bytes(range(256)) * 1024
    async with serving() as (_app, _listener, _factory, address), connected(address) as streams:
        request = post("/echo", message)
        for start in range(0, len(request), 5000):
            streams[1].write(request[start : start + 5000])
            await asyncio.sleep(0)
        assert (await read_answer(streams[0]))[2] == message


async def test_expect_100_continue() -> None:
    async with serving() as (_app, _listener, _factory, address), connected(address) as streams:
        request = post("/echo", b"hello", "Expect: 100-continue")
        streams[1].write(request[:-5])
        assert await streams[0].readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert (await ask(streams, b"hello"))[2] == b"hello"


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with serving() as (_app, _listener, _factory, address), connected(address) as streams:
        streams[1].write(b"".join(post("/echo", b"%d" % number) for number in range(20)))
        answers = [await read_answer(streams[0]) for _ in range(20)]
        assert [body for _status, _headers, body in answers] == [b"%d" % number for number in range(20)]


async def test_too_many_pipelined_requests() -> None:
    async with serving() as (app, listener, _factory, address), connected(address) as streams:
        streams[1].write(get("/wait") * 100)
        assert await read_to_end(streams[0]) == b""
        app.go_on.set()
        await until(lambda: listener.counters.open == 0)


async def test_connection_close_and_http_1_0() -> None:
    async with serving() as (_app, _listener, _factory, address):
        for request in (get("/echo", "Connection: close"), b"GET /echo HTTP/1.0\r\n\r\n"):
            async with connected(address) as streams:
                status, headers, _body = await ask(streams, request)
                assert status == ANSWER
                assert headers[b"connection"] == b"close"
                assert await streams[0].read() == b""


async def test_nonsense_is_answered_with_400() -> None:
    async with serving() as (_app, _listener, _factory, address), connected(address) as streams:
        status, _headers, _body = await ask(streams, b"NONSENSE\r\n\r\n")
        assert status == b"HTTP/1.1 400 Bad Request\r\n"
        assert await streams[0].read() == b""


async def test_bug_in_a_handler_is_answered_with_500_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (_app, _listener, _factory, address), connected(address) as streams:
        status, _headers, body = await ask(streams, get("/fail"))
        assert status == b"HTTP/1.1 500 Internal Server Error\r\n"
        assert body == b"Internal Server Error"
    (record,) = [record for record in caplog.records if record.exc_info]
    assert record.name == "muster.http"
    caplog.clear()  # the traceback belongs there


async def test_upgrade_to_something_else_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    async with serving() as (_app, _listener, _factory, address), connected(address) as streams:
        upgrade = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAA")
        assert (await ask(streams, get("/echo", *upgrade)))[0] == ANSWER
        assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_header_that_is_too_large() -> None:
    async with serving(max_header_size=5000) as (_app, _listener, _factory, address), connected(address) as streams:
        assert (await ask(streams, get("/echo", "X-Long: " + "x" * 4000)))[0] == ANSWER
        for _ in range(20):
            streams[1].write(b"GET /echo HTTP/1.1\r\nX-Long: " if _ == 0 else b"x" * 1000)
            await asyncio.sleep(0.001)
        assert (await streams[0].read()).startswith(b"HTTP/1.1 431 ")


async def test_headers_of_several_requests_are_not_added_up() -> None:
    async with serving(max_header_size=5000) as (_app, _listener, _factory, address), connected(address) as streams:
        for _ in range(5):
            assert (await ask(streams, post("/echo", bytes(20_000), "X-Long: " + "x" * 3000)))[0] == ANSWER


SLOW_REQUESTS = [b"", b"GET /echo HTTP/1.1\r\n", b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell"]


@pytest.mark.parametrize("begun", SLOW_REQUESTS)
@pytest.mark.parametrize("place", ["first", "second"])
async def test_request_has_a_time_limit(begun: bytes, place: str) -> None:
    async with serving(request_timeout=0.5) as (_app, listener, _factory, address), connected(address) as streams:
        if place == "second":
            assert (await ask(streams, get("/echo")))[0] == ANSWER
        streams[1].write(begun or b"\r\n")  # an empty line before a request is allowed
        assert await streams[0].read() == b""
        await until(lambda: listener.counters.open == 0)


async def test_time_limit_is_for_the_client_not_for_the_application() -> None:
    async with serving(request_timeout=1.0) as (app, _listener, _factory, address), connected(address) as streams:
        request = post("/ignore", bytes(1_000_000))
        streams[1].write(request)
        await app.started.wait()
        await asyncio.sleep(1.1)
        app.go_on.set()
        assert (await read_answer(streams[0]))[2] == b"1000000"


async def test_idle_connection_is_closed() -> None:
    async with serving(keep_alive_timeout=0) as (_app, _listener, _factory, address), connected(address) as streams:
        assert (await ask(streams, get("/echo")))[0] == ANSWER
        assert await streams[0].read() == b""


async def test_client_that_leaves_in_the_middle_of_its_body() -> None:
    async with serving() as (app, listener, _factory, address):
        async with connected(address) as streams:
            streams[1].write(post("/echo", b"hello")[:-2])
            await asyncio.sleep(0.01)
        await until(lambda: listener.counters.open == 0)
        assert app.bodies == []


async def test_client_that_leaves_before_the_answer() -> None:
    async with serving() as (app, listener, factory, address):
        async with connected(address) as streams:
            streams[1].write(get("/wait"))
            await app.started.wait()
        await until(lambda: listener.counters.open == 0)
        app.go_on.set()
        await factory.finish(30)
        assert app.ended == ["wait"]


async def test_client_that_leaves_in_the_middle_of_the_answer() -> None:
    async with serving() as (app, listener, factory, address):
        async with connected(address) as streams:
            streams[1].write(get("/stream"))
            await streams[0].readexactly(100_000)
        await until(lambda: listener.counters.open == 0)
        await factory.finish(30)
        assert app.ended == ["stream"]


async def test_client_that_does_not_read_the_answer_stops_it_and_is_dropped() -> None:
    limits = ListenerLimits(tls=TlsLimits(stall_timeout=0.05))
    async with serving(limits=limits) as (app, listener, factory, address), connected(address) as streams:
        streams[1].transport.pause_reading()
        streams[1].write(get("/stream"))
        await app.started.wait()
        await until(lambda: listener.counters.open == 0)
        assert listener.counters.dropped == 1
        await factory.finish(30)
        assert app.ended == ["stream"]


async def test_drain_lets_requests_finish_and_closes_idle_connections() -> None:
    async with serving() as (app, listener, _factory, address), connected(address) as busy, connected(address) as idle:
        assert (await ask(idle, get("/echo")))[0] == ANSWER
        busy[1].write(get("/wait"))
        await app.started.wait()
        draining = asyncio.ensure_future(listener.drain(30))
        assert await idle[0].read() == b""
        assert not draining.done()
        app.go_on.set()
        assert (await read_answer(busy[0]))[2] == b"done"
        assert await busy[0].read() == b""
        await draining


async def test_handler_that_hangs_is_cancelled_in_the_end() -> None:
    async with serving() as (app, listener, factory, address):
        async with connected(address) as streams:
            streams[1].write(get("/wait"))
            await app.started.wait()
            await listener.drain(0.01)
            await factory.finish(0.01)
        assert factory.state.tasks == set()
        assert app.ended == []


async def test_mqtt_and_http_on_one_port() -> None:
    """The listener hands HTTP over after it has looked at the first bytes."""
    factory = HttpFactory(App().app, clock=lambda: NOON)
    async with listening() as recorders:
        protocols = Protocols(http=factory, mqtt=recorders.listener._protocols.mqtt)
        listener = Listener(protocols, tls=server_tls())
        address = await listener.listen(HOST, 0)
        async with connected(address) as web, connected(address) as device:
            assert (await ask(web, get("/echo")))[0] == ANSWER
            device[1].write(b"\x10\x00")
            assert await device[0].readexactly(2) == b"\x10\x00"
        await listener.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # what is waited for has no event
            await asyncio.sleep(0.001)


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read()
    except ConnectionError:
        return b""
