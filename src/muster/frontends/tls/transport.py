"""TLS between a plain TCP transport below and an ordinary asyncio protocol above, in two small objects.

``TlsProtocol`` is what the TCP transport talks to: handshake, decryption, the watch over peers that hang.
``TlsTransport`` is what the protocol above talks to. Both directions are bounded: a paused reader stops
decryption and the TCP transport, and a peer that does not read is told apart from a slow one and dropped.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Protocol, cast

from OpenSSL import SSL

from muster.frontends.tls.context import (
    ServerTls,
    explain,
    looks_like_tls,
    peer_certificates,
    server_name,
)
from muster.frontends.tls.handshakes import Handshakes, Outcome, Step
from muster.frontends.tls.records import MAX_FEED, PublicRecords

_log = logging.getLogger("muster.listener")

FailureKind = Literal["closed", "plain text", "time-out", "protocol"]


@dataclass(frozen=True, slots=True)
class TlsLimits:
    """Times in seconds, sizes in bytes of TLS records."""

    handshake_timeout: float = 20.0
    stall_timeout: float = 60.0
    """How long a peer may take nothing at all of what waits for it."""
    close_timeout: float = 2.0
    """How long a closed connection waits for the peer to close too, once everything is flushed."""
    write_high_water: int = 64 * 1024
    write_hard_limit: int = 8 * 1024 * 1024
    """A write on top of this much that the peer has not read drops the connection."""


# What a connection may send while a step of its handshake is taken, in bytes; then it is not read until that is done.
_MOST_HELD = 65536


class Tap(Protocol):
    """Sees the decrypted bytes of one connection."""

    def received(self, data: bytes) -> None: ...

    def sent(self, data: bytes) -> None: ...

    def closed(self) -> None: ...


class TlsOwner(Protocol):
    """What a TlsProtocol asks and tells the listener that made it."""

    def admit(self, connection: "TlsProtocol") -> bool:
        """Whether this connection, just accepted, may stay; False drops it."""

    def established(self, transport: "TlsTransport") -> asyncio.Protocol:
        """The protocol to run on a connection whose handshake is done."""

    def handshake_failed(self, kind: FailureKind, detail: str, remote: tuple[str, int]) -> None: ...

    def dropped(self, reason: str, remote: tuple[str, int]) -> None:
        """An established connection is given up because of what the peer does."""

    def closed(self, connection: "TlsProtocol") -> None:
        """An admitted connection is gone."""


class _Phase(Enum):
    HANDSHAKE = 1
    OPEN = 2
    PAUSED = 3  # the protocol above reads nothing for now
    CLOSING = 4  # what still comes is thrown away


# Looked up for every read: a module's name costs less than a member of an Enum.
_HANDSHAKE, _OPEN, _PAUSED, _CLOSING = _Phase


class TlsProtocol(asyncio.Protocol):
    """The lower half: one accepted TCP connection."""

    __slots__ = (
        "_connection",
        "_failure",
        "_handshakes",
        "_held",
        "_limits",
        "_loop",
        "_owner",
        "_peer_is_done",
        "_phase",
        "_records",
        "_release",
        "_step",
        "_tcp",
        "_timer",
        "_tls",
        "_transport",
        "_unread",
        "_upper",
    )

    _tcp: asyncio.Transport
    _records: PublicRecords
    _upper: asyncio.Protocol
    _transport: "TlsTransport"

    def __init__(
        self,
        tls: ServerTls,
        handshakes: Handshakes,
        owner: TlsOwner,
        limits: TlsLimits,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._tls = tls
        self._handshakes = handshakes
        self._owner = owner
        self._limits = limits
        self._loop = loop
        self._phase = _HANDSHAKE
        self._connection: SSL.Connection | None = None
        self._step: Step | None = None
        self._peer_is_done = False
        self._timer: asyncio.TimerHandle | None = None
        self._release: asyncio.Handle | None = None
        self._held = b""
        self._unread = 0
        self._failure: Exception | None = None

    # What the TCP transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._tcp = cast("asyncio.Transport", transport)  # uvloop's is one in all but ancestry
        if not self._owner.admit(self):
            self._tcp.abort()
            return
        self._tcp.set_write_buffer_limits(high=self._limits.write_high_water)
        self._set_timer(self._limits.handshake_timeout, self._handshake_expired)

    def data_received(self, data: bytes) -> None:
        if len(data) <= MAX_FEED:
            self._feed(data)
            return
        for start in range(0, len(data), MAX_FEED):
            self._feed(data[start : start + MAX_FEED])

    def eof_received(self) -> bool:
        if self._step is not None and self._phase is _HANDSHAKE:
            self._peer_is_done = True
            return True  # the peer may have said all it wants, and wait for the answer
        if self._phase in (_OPEN, _PAUSED):
            self._upper.eof_received()
            self.shut(peer_is_done=True)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_timer()
        if self._step is not None:
            self._step.cancel()
        phase, self._phase = self._phase, _CLOSING
        if phase is _HANDSHAKE and self._connection is not None:
            self._report_failure("closed", "the peer closed the connection in the middle of it")
        if self._is_established():
            self._transport.lost()
            self._upper.connection_lost(self._failure or exc)
            # The two halves and the protocol above refer to each other: cut here, they are freed here.
            del self._upper, self._transport, self._records
        self._connection = None
        self._held = b""
        self._owner.closed(self)

    def pause_writing(self) -> None:
        if self._is_established():
            self._transport.blocked = True
            self._unread = self._tcp.get_write_buffer_size()
            if self._phase is not _CLOSING:
                self._set_timer(self._limits.stall_timeout, self._stalled)
                self._upper.pause_writing()

    def resume_writing(self) -> None:
        if self._is_established():
            self._transport.blocked = False
            if self._phase is not _CLOSING:
                self._clear_timer()
                self._upper.resume_writing()

    # What the listener calls.

    def finish(self) -> None:
        """End in good order: a protocol above that has ``shutdown`` may finish what it has begun."""
        if not self._is_established():
            self.abort()
            return
        shutdown: Callable[[], None] | None = getattr(self._upper, "shutdown", None)
        if shutdown is None:
            self.shut()
        else:
            shutdown()

    def abort(self) -> None:
        """Drop the connection now; connection_lost follows."""
        self._phase = _CLOSING
        self._tcp.abort()

    # What the upper half calls.

    @property
    def upper(self) -> asyncio.Protocol:
        return self._upper

    @upper.setter
    def upper(self, protocol: asyncio.Protocol) -> None:
        self._upper = protocol

    @property
    def is_closing(self) -> bool:
        return self._phase is _CLOSING

    @property
    def is_reading(self) -> bool:
        return self._phase is _OPEN or self._release is not None

    def pause(self) -> None:
        """Decrypt nothing more and read nothing more, until ``resume``."""
        if self._release is not None:
            self._release.cancel()
            self._release = None
        if self._phase is _OPEN:
            self._phase = _PAUSED
            self._tcp.pause_reading()

    def resume(self) -> None:
        """Go on reading, in the next round of the loop: what waits here first."""
        if self._phase is _PAUSED and self._release is None:
            self._release = self._loop.call_soon(self._release_held)

    def shut(self, *, peer_is_done: bool = False) -> None:
        """Flush, say close_notify, and wait a little for the peer to close.

        Closing a socket on which unread bytes wait resets the connection, and the peer may lose what was sent
        last: the refusal, of all things. So the socket is only closed after the peer has closed or had its
        time.
        """
        if self._phase is _CLOSING:
            return
        reading = self._phase is not _PAUSED
        self._phase = _CLOSING
        self._held = b""
        if farewell := self._records.close():
            self._tcp.write(farewell)
        if peer_is_done or self._tcp.is_closing():
            self._tcp.close()
            return
        self._tcp.write_eof()
        if not reading:
            self._tcp.resume_reading()
        # One more than there is, so that what is not flushed by then counts as progress, once.
        self._unread = self._tcp.get_write_buffer_size() + 1
        self._set_timer(self._limits.close_timeout, self._stalled)

    def sent(self, size: int) -> None:
        """So much was written while the peer was not reading."""
        self._unread += size

    def overflowed(self) -> bool:
        """Whether the peer leaves too much unread; it is dropped then."""
        waiting = self._tcp.get_write_buffer_size()
        if waiting <= self._limits.write_hard_limit:
            return False
        self._drop(f"the peer does not read: {waiting} bytes wait for it")
        return True

    def broken(self, error: SSL.Error) -> None:
        """The connection can carry nothing more, by what OpenSSL says."""
        if self._phase is _CLOSING:
            return
        self._failure = ConnectionAbortedError(f"TLS: {explain(error)}")
        _log.debug("TLS connection with %s:%d failed: %s", *self._remote(), explain(error))
        self._phase = _CLOSING
        if alert := self._records.output():
            self._tcp.write(alert)
        self._tcp.close()

    # Inside.

    def _is_established(self) -> bool:
        return hasattr(self, "_upper")

    def _feed(self, data: bytes) -> None:
        if self._phase is _OPEN:
            self._decrypt(data)
        elif self._phase is _HANDSHAKE:
            self._shake_hands(data)
        elif self._phase is _PAUSED:
            self._held += data

    def _decrypt(self, data: bytes) -> None:
        records = self._records
        plain = records.receive(data)
        if plain:
            if self._transport.tap is not None:
                self._transport.tap.received(plain)
            self._upper.data_received(plain)
        elif answer := records.output():
            self._tcp.write(answer)
        if records.end is not None:
            self._ended(records.end)

    def _ended(self, reason: SSL.Error) -> None:
        if not isinstance(reason, SSL.ZeroReturnError):
            self.broken(reason)
        elif self._phase is not _CLOSING:
            self._upper.eof_received()
            self.shut(peer_is_done=True)

    def _release_held(self) -> None:
        self._release = None
        if self._phase is not _PAUSED:
            return
        self._phase = _OPEN
        held, self._held = self._held, b""
        with self._failing_alone():
            self._decrypt(b"")  # what came along with the end of the handshake may wait inside OpenSSL
            self.data_received(held)
        if self._phase is _OPEN:
            self._tcp.resume_reading()

    @contextlib.contextmanager
    def _failing_alone(self) -> Iterator[None]:
        """An error of the protocol above ends its connection: as the TCP transport does for what it calls itself."""
        try:
            yield
        except Exception as error:
            self._failure = error
            self.abort()
            raise

    def _shake_hands(self, data: bytes) -> None:
        if self._step is not None:  # the connection is a thread's for now
            reading = len(self._held) <= _MOST_HELD
            self._held += data
            if reading and len(self._held) > _MOST_HELD:
                self._tcp.pause_reading()
            return
        if self._connection is None:
            if not looks_like_tls(data):
                self._fail("plain text", _name_plain_text(data))
                return
            self._connection = self._tls.connection()
        self._connection.bio_write(data)
        self._step = self._handshakes.advance(self._connection, self._shaken)

    def _shaken(self, outcome: Outcome) -> None:
        """A step of the handshake has been taken."""
        self._step = None
        connection = self._connection
        if self._phase is not _HANDSHAKE or connection is None:
            return  # dropped meanwhile
        self._flush_handshake(connection)
        if isinstance(outcome, SSL.Error):
            self._fail("protocol", explain(outcome))
            return
        held, self._held = self._held, b""
        if len(held) > _MOST_HELD:
            self._tcp.resume_reading()
        with self._failing_alone():
            if outcome:
                self._establish(connection)
            if held:
                self.data_received(held)
            if self._peer_is_done and self._step is None:
                if self._phase is _HANDSHAKE:
                    self._tcp.close()
                else:
                    self.eof_received()

    def _flush_handshake(self, connection: SSL.Connection) -> None:
        with contextlib.suppress(SSL.WantReadError):
            self._tcp.write(connection.bio_read(MAX_FEED))

    def _establish(self, connection: SSL.Connection) -> None:
        self._clear_timer()
        self._phase = _OPEN
        self._records = self._tls.records(connection)
        self._transport = TlsTransport(self, self._tcp, connection, self._records)
        self._upper = self._owner.established(self._transport)
        self._upper.connection_made(self._transport)
        if self._phase is _OPEN:
            self._decrypt(b"")

    def _handshake_expired(self) -> None:
        self._report_failure("time-out", f"not done after {self._limits.handshake_timeout:g} s")
        self._phase = _CLOSING
        self._tcp.abort()

    def _fail(self, kind: FailureKind, detail: str) -> None:
        self._report_failure(kind, detail)
        self._clear_timer()
        self._phase = _CLOSING
        self._tcp.close()

    def _report_failure(self, kind: FailureKind, detail: str) -> None:
        self._owner.handshake_failed(kind, detail, self._remote())

    def _stalled(self) -> None:
        """The time is up in which the peer should have read something, or closed."""
        waiting = self._tcp.get_write_buffer_size()
        if waiting == 0:
            self._tcp.abort()  # closing, all is flushed, and the peer keeps the connection open
        elif waiting < self._unread:
            self._unread = waiting
            self._set_timer(self._limits.stall_timeout, self._stalled)
        else:
            self._drop(f"the peer does not read: {waiting} bytes wait for it, none was taken in time")

    def _drop(self, reason: str) -> None:
        self._owner.dropped(reason, self._remote())
        self._failure = ConnectionAbortedError(reason)
        self.abort()

    def _remote(self) -> tuple[str, int]:
        return address_pair(self._tcp.get_extra_info("peername"))

    def _set_timer(self, delay: float, callback: Callable[[], None]) -> None:
        self._clear_timer()
        self._timer = self._loop.call_later(delay, callback)

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class TlsTransport(asyncio.Transport):
    """The upper half: what the protocol above reads its peer from and writes to.

    ``get_extra_info`` knows "peername" and "sockname" as (host, port), "socket", "sslcontext", "ssl_object", and of the
    handshake "tls_version", "server_name" and "peer_certificates". ``tap`` sees every byte, ``blocked`` says
    that the peer is slow.
    """

    __slots__ = ("_connection", "_lower", "_records", "_tcp", "blocked", "tap")

    def __init__(
        self, lower: TlsProtocol, tcp: asyncio.Transport, connection: SSL.Connection, records: PublicRecords
    ) -> None:
        self._lower = lower
        self._tcp = tcp
        self._connection = connection
        self._records = records
        self.blocked = False
        self.tap: Tap | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        lower = self._lower
        if lower.is_closing or not data or (self.blocked and lower.overflowed()):
            return
        plain = data if type(data) is bytes else bytes(data)
        try:
            records = self._records.send(plain)
        except SSL.Error as error:
            lower.broken(error)
            return
        if self.tap is not None:
            self.tap.sent(plain)
        if self.blocked:
            lower.sent(len(records))
        self._tcp.write(records)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        self._lower.shut()

    def abort(self) -> None:
        self._lower.abort()

    def is_closing(self) -> bool:
        return self._lower.is_closing

    def pause_reading(self) -> None:
        self._lower.pause()

    def resume_reading(self) -> None:
        self._lower.resume()

    def is_reading(self) -> bool:
        return self._lower.is_reading

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._lower.upper = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._lower.upper

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._tcp.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._tcp.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        match name:
            case "peername" | "sockname":
                return address_pair(self._tcp.get_extra_info(name))
            case "socket":
                return self._tcp.get_extra_info(name)
            case "sslcontext":
                return self._connection.get_context()
            case "ssl_object":
                return self._connection
            case "tls_version":
                return self._connection.get_protocol_version_name()
            case "server_name":
                return server_name(self._connection)
            case "peer_certificates":
                return peer_certificates(self._connection)
        return default

    def lost(self) -> None:
        """The connection is gone: the tap is told."""
        if self.tap is not None:
            self.tap.closed()


def address_pair(address: Any) -> tuple[str, int]:
    """Host and port of a socket address; ("", 0) when the peer left before it could be asked."""
    return (str(address[0]), int(address[1])) if address else ("", 0)


def _name_plain_text(first: bytes) -> str:
    if first.startswith(b"\x10"):
        return "MQTT without TLS"
    if first.startswith(b"AMQP"):
        return "AMQP without TLS"
    if first[:1].isalpha():
        return "HTTP without TLS"
    return "neither TLS nor a protocol that is served here"
