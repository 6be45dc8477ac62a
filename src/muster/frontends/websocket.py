"""MQTT and AMQP over WebSocket: the upgrade, and frames as the byte stream that the protocol inside reads and
writes.

The sub-protocol decides who serves a socket, on any path (interop-facts.md 3). Framing is the sans-IO core of
the ``websockets`` library; what the frames carry is not looked at.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import urlsplit

from websockets.exceptions import NegotiationError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from muster.frontends.listener import Peer, ProtocolFactory

_log = logging.getLogger("muster.websocket")

# The library writes whole frames to its log at DEBUG, tokens included: it gets a logger that never lets them
# out.
_core_log = logging.getLogger("muster.websocket.core")
_core_log.setLevel(logging.ERROR)


_DATA = frozenset({Opcode.BINARY, Opcode.CONT})


@dataclass(frozen=True, slots=True)
class WebSocketServices:
    """What is served inside WebSockets. ``allowed_origins`` are pages, as ``https://host:port``, that may
    open one.
    """

    mqtt: ProtocolFactory | None = None
    amqp: ProtocolFactory | None = None
    allowed_origins: frozenset[str] = frozenset()
    max_frame_size: int = 1024 * 1024
    """Largest frame taken from a client, in bytes; a message may have any number of them."""

    def serving(self, subprotocol: str) -> ProtocolFactory | None:
        """Who serves a sub-protocol, in any spelling: C devices ask for ``MQTT``, others for ``mqtt`` (dps.md
        2.8, 3.9).
        """
        name = subprotocol.lower()
        if name == "mqtt":
            return self.mqtt
        return self.amqp if name.startswith("amqp") else None


class _Core(ServerProtocol):
    """The library's core, with our choice among the sub-protocols that a client offers."""

    def __init__(self, services: WebSocketServices) -> None:
        super().__init__(max_size=(None, services.max_frame_size), logger=_core_log)
        self._services = services

    def select_subprotocol(self, subprotocols: Sequence[Subprotocol]) -> Subprotocol:
        """The first that is served, in the client's spelling: some abort when it is not echoed."""
        for name in subprotocols:
            if self._services.serving(name) is not None:
                return name
        raise NegotiationError("no sub-protocol that is served here was offered: mqtt, AMQPWSB10")


class WebSocketProtocol(asyncio.Protocol):
    """One WebSocket, from the request that asks for it on. The keywords are those of uvicorn's own
    classes.
    """

    def __init__(
        self,
        services: WebSocketServices,
        *,
        config: object,  # noqa: ARG002  # part of the signature
        server_state: object,  # noqa: ARG002  # part of the signature
        app_state: dict[str, Any],
    ) -> None:
        self._services = services
        self._peer: Peer = app_state["peer"]
        self._upper: asyncio.Protocol | None = None
        self._core = _Core(services)

    # What the transport below calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._core.receive_data(data)
        events = self._core.events_received()
        for request in events:
            if isinstance(request, Request):
                self._answer(request)
        self._deliver([event for event in events if isinstance(event, Frame)])
        self.flush()

    def eof_received(self) -> None:
        self._core.receive_eof()
        if self._upper is not None:
            self._upper.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        upper, self._upper = self._upper, None
        if upper is not None:
            upper.connection_lost(exc)

    def pause_writing(self) -> None:
        if self._upper is not None:
            self._upper.pause_writing()

    def resume_writing(self) -> None:
        if self._upper is not None:
            self._upper.resume_writing()

    def shutdown(self) -> None:
        """The server stops: the protocol inside may finish, or the client is told that the server goes
        away.
        """
        shutdown = getattr(self._upper, "shutdown", None)
        if shutdown is None:
            self.close(CloseCode.GOING_AWAY)
        else:
            shutdown()

    # What the transport above calls.

    def send(self, data: bytes) -> None:
        self._core.send_binary(data)
        self.flush()

    def close(self, code: CloseCode = CloseCode.NORMAL_CLOSURE) -> None:
        if self._core.state is State.OPEN:
            self._core.send_close(code)
            self.flush()
        self._transport.close()

    def flush(self) -> None:
        """Write what the core has to say; the transport is closed when it has said its last."""
        output = self._core.data_to_send()
        if not output:
            return
        if data := b"".join(output):
            self._transport.write(data)
        if SEND_EOF in output:
            self._transport.close()

    @property
    def is_closing(self) -> bool:
        return self._core.state is not State.OPEN

    @property
    def upper(self) -> asyncio.Protocol | None:
        return self._upper

    @upper.setter
    def upper(self, protocol: asyncio.Protocol) -> None:
        self._upper = protocol

    # Inside.

    def _answer(self, request: Request) -> None:
        if self._is_foreign(request):
            response = self._core.reject(HTTPStatus.FORBIDDEN, "Pages of other origins may not open WebSockets here.\n")
        else:
            response = self._core.accept(request)
        self._core.send_response(response)
        self.flush()
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            _log.info("WebSocket of %s:%d refused: %d", *self._peer.remote, response.status_code)
            return
        factory = self._services.serving(self._core.subprotocol or "")
        assert factory is not None  # _select saw to it
        self._upper = factory(self._peer)
        self._upper.connection_made(WebSocketTransport(self, self._transport))

    def _is_foreign(self, request: Request) -> bool:
        """Whether a browser asks on behalf of a page that did not come from here: its cookie is a client
        certificate.
        """
        here = [_authority(f"https://{host}") for host in request.headers.get_all("Host")]
        origins = set(request.headers.get_all("Origin")) - self._services.allowed_origins
        return any(_authority(origin) not in here for origin in origins)

    def _deliver(self, frames: list[Frame]) -> None:
        """Pass on what frames carry, all in one piece: the protocol inside batches what it gets at once."""
        refused = next((place for place, frame in enumerate(frames) if frame.opcode is Opcode.TEXT), len(frames))
        carried = b"".join(frame.data for frame in frames[:refused] if frame.opcode in _DATA)
        if carried and self._upper is not None:
            self._upper.data_received(carried)
        if refused < len(frames):
            self._core.fail(CloseCode.UNSUPPORTED_DATA, "binary frames only")
        elif frames and frames[-1].opcode is Opcode.CLOSE and self._upper is not None:
            self._upper.eof_received()


class WebSocketTransport(asyncio.Transport):
    """What the protocol inside a WebSocket writes to: every write becomes one binary frame."""

    __slots__ = ("_lower", "_transport")

    def __init__(self, lower: WebSocketProtocol, transport: asyncio.Transport) -> None:
        self._lower = lower
        self._transport = transport

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if data and not self.is_closing():
            self._lower.send(bytes(data))

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self._lower.close()

    def abort(self) -> None:
        self._transport.abort()

    def is_closing(self) -> bool:
        return self._lower.is_closing or self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def is_reading(self) -> bool:
        return self._transport.is_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._lower.upper = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        upper = self._lower.upper
        assert upper is not None  # there is one as long as there is a connection
        return upper

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._transport.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)


def _authority(url: str) -> tuple[str | None, int | None]:
    """Host and port, in a form that can be compared: ``Host`` may carry ``:443`` or not (interop-facts.md
    3).
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None, None
    return parts.hostname, port or {"https": 443, "http": 80}.get(parts.scheme)
