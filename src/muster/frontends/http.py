"""HTTP on connections that are accepted already: uvicorn's protocol class, fed by our listener.

An ASGI application finds who is asking as ``request.state.peer``. A request that asks for a WebSocket leaves
HTTP for ``muster.frontends.websocket``. Not here: routes; and TLS, which is done when the first byte arrives.

The constructor of uvicorn's class and the methods overridden here are semi-internal: the version is pinned,
and ``tests/operations/listener/test_http_embedding.py`` is the contract.
"""

import asyncio
import logging
from collections.abc import Callable
from email.utils import formatdate
from functools import partial

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from muster.frontends.listener import Peer
from muster.frontends.websocket import WebSocketProtocol, WebSocketServices

_log = logging.getLogger("muster.http")

_MICROSECONDS = 1_000_000

# A client that sends more requests than this without reading the answers is not one of ours.
_MAX_PIPELINED = 64

_HEADERS_TOO_LARGE = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class HttpFactory:
    """Makes the HTTP protocol of each connection; called with a ``Peer``, as the listener does.

    ``server`` is the ``Server`` header of every answer, none by default. Times are in seconds, sizes in
    bytes. ``request_timeout`` bounds the arrival of a request's headers, and then each wait for more of its
    body, as long as the application reads it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        clock: Callable[[], int],
        websockets: WebSocketServices | None = None,
        server: str | None = None,
        keep_alive_timeout: int = 120,
        request_timeout: float = 60.0,
        max_header_size: int = 64 * 1024,
    ) -> None:
        self.request_timeout = request_timeout
        self.max_header_size = max_header_size
        self.config = Config(
            _ending_quietly(app),
            interface="asgi3",
            lifespan="off",
            ws=partial(WebSocketProtocol, websockets) if websockets else None,  # type: ignore[arg-type]  # only called
            log_config=None,
            access_log=False,
            proxy_headers=False,  # a client may not say who it is
            timeout_keep_alive=keep_alive_timeout,
        )
        self.state = ServerState()
        self._clock = clock
        self._server_header = [(b"server", server.encode("latin-1"))] if server else []
        self._dated = -1

    def __call__(self, peer: Peer) -> asyncio.Protocol:
        if not self.config.loaded:
            self.config.load()
        return HttpProtocol(self, peer)

    def refresh_headers(self) -> None:
        """Bring the ``Date`` of the answers up to date."""
        second = self._clock() // _MICROSECONDS
        if second != self._dated:
            self._dated = second
            date = formatdate(second, usegmt=True).encode("ascii")
            self.state.default_headers = [(b"date", date), *self._server_header]

    async def finish(self, within: float) -> None:
        """Wait for requests that are still being served, and cancel them after ``within`` seconds.

        For after the listener is drained or closed.
        """
        if running := tuple(self.state.tasks):
            _done, late = await asyncio.wait(running, timeout=within)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)


class HttpProtocol(HttpToolsProtocol):
    """One HTTP connection: uvicorn's, with limits in time and size that uvicorn leaves to a proxy."""

    def __init__(self, factory: HttpFactory, peer: Peer) -> None:
        super().__init__(config=factory.config, server_state=factory.state, app_state={"peer": peer})
        self.logger = _log
        self._factory = factory
        self._header_size: int | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._start_deadline()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._deadline is None and not self._is_answering():
            self._start_deadline()
        super().data_received(data)
        if self._header_size is not None:
            self._header_size += len(data)
            if self._header_size > self._factory.max_header_size and not self.transport.is_closing():
                self.transport.write(_HEADERS_TOO_LARGE)
                self.transport.close()
        elif self._deadline is not None:
            self._start_deadline()

    def on_message_begin(self) -> None:
        self._factory.refresh_headers()
        self._header_size = 0
        if self._deadline is None:
            self._start_deadline()
        super().on_message_begin()
        # Of every header in ``scope["headers"]`` the name as it was sent: some names are data, whose case counts.
        self._header_names: list[bytes] = []
        self.scope["state"]["header_names"] = self._header_names

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._header_names.append(name)

    def on_headers_complete(self) -> None:
        self._header_size = None
        super().on_headers_complete()
        if len(self.pipeline) > _MAX_PIPELINED:
            self.transport.abort()

    def on_message_complete(self) -> None:
        self._stop_deadline()
        super().on_message_complete()

    def _should_upgrade_to_ws(self) -> bool:
        """Only inside TLS: what is served in WebSockets is served nowhere else without it."""
        return self.scheme == "https" and super()._should_upgrade_to_ws()

    def handle_websocket_upgrade(self) -> None:
        self._stop_deadline()
        if self._is_answering():
            self.transport.close()  # the answer to the request before would end up inside the WebSocket
            return
        super().handle_websocket_upgrade()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: the request was served as what it is without the upgrade."""

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn's annotation leaves out that there is none at first
        return cycle is not None and not cycle.response_complete

    def _start_deadline(self) -> None:
        self._stop_deadline()
        self._deadline = self.loop.call_later(self._factory.request_timeout, self._expired)

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expired(self) -> None:
        if self.flow.read_paused:
            self._start_deadline()  # it is the application that does not read
        else:
            self.transport.close()


def _ending_quietly(app: ASGIApp) -> ASGIApp:
    """The application, for which it is no error to lose its client in the middle of a request, nor to be
    cancelled.
    """

    async def served(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except ClientDisconnect:
            _log.debug("the client left before its request was complete")
        except asyncio.CancelledError:
            # Only the end of the server cancels a request, in ``finish``; uvicorn would log it as a failure.
            _log.info("a request was cancelled: the server stops")

    return served
