"""Where connections come in: binds addresses, counts and limits what is open, hands each connection to its
protocol.

One listener serves any number of addresses, with TLS or, for the portal, without. It judges no one: any
client certificate is accepted in the handshake and goes into ``Peer``.
"""

import asyncio
import contextlib
import errno
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from muster.frontends.sniffer import Sniffer, Spoken
from muster.frontends.tls.context import ServerTls
from muster.frontends.tls.handshakes import Handshakes
from muster.frontends.tls.transport import (
    FailureKind,
    Tap,
    TlsLimits,
    TlsProtocol,
    TlsTransport,
    address_pair,
)

_log = logging.getLogger("muster.listener")

_BACKLOG = 4096

# What the system holds for a slow peer, in bytes (Linux takes twice that). Left alone it grows to megabytes,
# and hides for minutes whether the peer reads at all.
_SEND_BUFFER = 256 * 1024

# A connection that ended without a word from the network (a cable pulled, a NAT entry lost) is found after 2
# minutes and 3 probes; MQTT's keep-alive is faster where the device asked for one.
_KEEP_ALIVE = (("TCP_KEEPIDLE", 120), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 3))


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. ``remote`` and ``local`` are (host, port).

    ``certificates`` is what the client sent, as DER, in its order, the leaf first; empty if it sent none, as
    without TLS. ``server_name`` (SNI) is the client's text: hostile, and absent from old clients
    (interop-facts.md 2).
    """

    remote: tuple[str, int]
    local: tuple[str, int]
    server_name: str | None = None
    tls_version: str | None = None
    certificates: tuple[bytes, ...] = ()


ProtocolFactory = Callable[[Peer], asyncio.Protocol]
TapFactory = Callable[[Peer], Tap | None]


@dataclass(frozen=True, slots=True)
class Protocols:
    """Who serves what. A protocol without a factory gets HTTP's answer to nonsense: 400."""

    http: ProtocolFactory
    mqtt: ProtocolFactory | None = None
    amqp: ProtocolFactory | None = None

    def serving(self, spoken: Spoken) -> ProtocolFactory:
        factory: ProtocolFactory | None = getattr(self, spoken)
        return factory or self.http


@dataclass(frozen=True, slots=True)
class ListenerLimits:
    """``connections`` counts all that are open at a listener, handshakes included; times are in seconds."""

    connections: int = 20_000
    sniff_timeout: float = 20.0
    tls: TlsLimits = field(default_factory=TlsLimits)


@dataclass(slots=True)
class ListenerCounters:
    """``accepted`` is without ``refused_by_limit``, ``failed_handshakes`` is with ``plain_text``."""

    accepted: int = 0
    handshakes: int = 0
    failed_handshakes: int = 0
    plain_text: int = 0
    silent: int = 0
    dropped: int = 0
    refused_by_limit: int = 0
    open: int = 0


class ListenError(OSError):
    """An address cannot be listened on. The message says what to do."""

    def __init__(self, host: str, port: int, message: str) -> None:
        super().__init__(message)
        self.host = host
        self.port = port


class PortTakenError(ListenError):
    """Another process listens there already."""


class PortRefusedError(ListenError):
    """The system does not let this user listen on that port."""


class AddressMissingError(ListenError):
    """The machine has no such address (often ::1 in a container)."""


class Listener:
    """Accepts connections on the addresses given to ``listen``.

    With ``tls``, every connection is served by what its first bytes ask for; without, by ``protocols.http``
    alone.
    """

    def __init__(
        self,
        protocols: Protocols,
        *,
        tls: ServerTls | None,
        limits: ListenerLimits | None = None,
        tap_factory: TapFactory | None = None,
    ) -> None:
        self.counters = ListenerCounters()
        self._protocols = protocols
        self._tls = tls
        self._handshakes: Handshakes | None = None
        self._limits = limits or ListenerLimits()
        self._tap_factory = tap_factory
        self._servers: list[asyncio.Server] = []
        self._connections: set[TlsProtocol | PlainProtocol] = set()
        self._full = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept connections on an address, given as a number (``127.0.0.1``, ``::1``); port 0 takes a free
        one.

        Returns the address and port in use. PortTakenError, PortRefusedError, AddressMissingError or another
        ListenError when that cannot be.
        """
        loop = asyncio.get_running_loop()
        if self._tls is not None and self._handshakes is None:
            self._handshakes = Handshakes(loop)
        listening = _bind(host, port)
        server = await loop.create_server(self._new_connection, sock=listening, backlog=_BACKLOG)
        self._servers.append(server)
        return address_pair(server.sockets[0].getsockname())

    def stop_listening(self, host: str, port: int) -> None:
        """Close one address; its open connections stay. Nothing happens when it is not listened on."""
        for server in list(self._servers):
            if address_pair(server.sockets[0].getsockname()) == (host, port):
                self._servers.remove(server)
                server.close()

    def stop_accepting(self) -> None:
        """Close the addresses; open connections stay."""
        for server in self._servers:
            server.close()
        self._servers.clear()

    async def drain(self, within: float) -> None:
        """Stop accepting, let connections finish what they do; drop what is left after ``within`` seconds."""
        self.stop_accepting()
        for connection in list(self._connections):
            connection.finish()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._idle.wait()
        await self.close()

    async def close(self) -> None:
        """Stop accepting and drop every connection now."""
        self.stop_accepting()
        for connection in list(self._connections):
            connection.abort()
        await self._idle.wait()
        if self._handshakes is not None:
            self._handshakes.close()

    # What connections call.

    def admit(self, connection: "TlsProtocol | PlainProtocol") -> bool:
        if len(self._connections) >= self._limits.connections:
            self.counters.refused_by_limit += 1
            if not self._full:
                self._full = True
                _log.warning("%d connections are open, the limit: more are refused", len(self._connections))
            return False
        self._connections.add(connection)
        self.counters.accepted += 1
        self.counters.open = len(self._connections)
        self._idle.clear()
        return True

    def closed(self, connection: "TlsProtocol | PlainProtocol") -> None:
        if connection not in self._connections:
            return  # it was not admitted
        self._connections.discard(connection)
        self.counters.open = len(self._connections)
        self._full = False
        if not self._connections:
            self._idle.set()

    def established(self, transport: TlsTransport) -> asyncio.Protocol:
        self.counters.handshakes += 1
        peer = Peer(
            remote=transport.get_extra_info("peername"),
            local=transport.get_extra_info("sockname"),
            server_name=transport.get_extra_info("server_name"),
            tls_version=transport.get_extra_info("tls_version"),
            certificates=transport.get_extra_info("peer_certificates"),
        )
        if self._tap_factory is not None:
            transport.tap = self._tap_factory(peer)

        def hand_over(spoken: Spoken) -> asyncio.Protocol:
            return self._protocols.serving(spoken)(peer)

        def silent() -> None:
            self.counters.silent += 1
            _log.info("%s:%d said nothing after the TLS handshake: dropped", *peer.remote)

        return Sniffer(hand_over, silent, self._limits.sniff_timeout)

    def handshake_failed(self, kind: FailureKind, detail: str, remote: tuple[str, int]) -> None:
        self.counters.failed_handshakes += 1
        if kind == "plain text":
            self.counters.plain_text += 1
            _log.warning("plain text on a TLS port: %s, from %s:%d: closed", detail, *remote)
        else:
            _log.info("TLS handshake with %s:%d failed (%s): %s", *remote, kind, detail)

    def dropped(self, reason: str, remote: tuple[str, int]) -> None:
        self.counters.dropped += 1
        _log.info("connection of %s:%d dropped: %s", *remote, reason)

    def _new_connection(self) -> asyncio.Protocol:
        if self._tls is None or self._handshakes is None:
            return PlainProtocol(self, self._protocols.http)
        return TlsProtocol(self._tls, self._handshakes, self, self._limits.tls, asyncio.get_running_loop())


class PlainProtocol(asyncio.Protocol):
    """A connection without TLS: counts it, and passes everything on to what ``factory`` makes."""

    def __init__(self, owner: Listener, factory: ProtocolFactory) -> None:
        self._owner = owner
        self._factory = factory
        self._upper: asyncio.Protocol | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but ancestry
        if not self._owner.admit(self):
            self._transport.abort()
            return
        remote, local = (address_pair(transport.get_extra_info(name)) for name in ("peername", "sockname"))
        self._upper = self._factory(Peer(remote, local))
        self._upper.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._upper is not None:
            self._upper.data_received(data)

    def eof_received(self) -> bool | None:
        return None if self._upper is None else self._upper.eof_received()

    def pause_writing(self) -> None:
        if self._upper is not None:
            self._upper.pause_writing()

    def resume_writing(self) -> None:
        if self._upper is not None:
            self._upper.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._upper is not None:
            self._upper.connection_lost(exc)
        self._owner.closed(self)

    def finish(self) -> None:
        shutdown: Callable[[], None] | None = getattr(self._upper, "shutdown", None)
        if shutdown is None:
            self._transport.close()
        else:
            shutdown()

    def abort(self) -> None:
        self._transport.abort()


def _bind(host: str, port: int) -> socket.socket:
    """A listening socket. TCP options set here are inherited by every accepted connection."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror as error:
        raise ListenError(host, port, f"{host!r} is not an IP address") from error
    family, kind, protocol, _name, address = found[0]
    try:
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise _explained(error, host, port) from error
    try:
        _set_options(listening)
        listening.bind(address)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise _explained(error, host, port) from error
    return listening


def _set_options(listening: socket.socket) -> None:
    # Without it a restart would have to wait for the last connections' TIME_WAIT. (On Windows it means
    # something else.)
    if os.name == "posix":
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listening.family == socket.AF_INET6:
        listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    # Nagle's algorithm costs a CONNACK 40 ms when it follows the end of the handshake.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _KEEP_ALIVE:
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _explained(error: OSError, host: str, port: int) -> ListenError:
    where = f"{host} port {port}"
    match error.errno:
        case errno.EADDRINUSE:
            return PortTakenError(
                host,
                port,
                f"{where} is taken by another process: stop it, or listen on another address or port",
            )
        case errno.EACCES | errno.EPERM:
            return PortRefusedError(
                host,
                port,
                f"{where} is refused to this user: allow it (on Linux: sudo sysctl -w "
                f"net.ipv4.ip_unprivileged_port_start={port}) or listen on a port above 1023",
            )
        case errno.EADDRNOTAVAIL | errno.EAFNOSUPPORT:
            return AddressMissingError(host, port, f"this machine has no address {host}")
    return ListenError(host, port, f"cannot listen on {where}: {error.strerror}")
