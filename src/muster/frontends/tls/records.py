"""Application data to TLS records and back, for connections whose handshake is done.

Two implementations of one small interface: pyOpenSSL's public calls, and the same calls of OpenSSL through
the bindings pyOpenSSL itself stands on, at half the cost (``docs/tls.md`` has the figures). The second
is taken where its parts are found; nothing else in the project knows of it.
"""

from collections.abc import Callable
from typing import Any

from OpenSSL import SSL

MAX_PLAIN = 16384
"""Most bytes of application data in one record."""

MAX_FEED = 32768
"""Most bytes ``receive`` takes at a time: OpenSSL's memory buffers keep the largest size they ever had."""

# Room for what comes out at most: one feed and the rest of a record before it.
_BUFFER_SIZE = 2 * MAX_FEED

_NEEDED_FUNCTIONS = ("SSL_read", "SSL_write", "SSL_get_error", "BIO_read", "BIO_write", "SSL_ERROR_WANT_READ")
_NEEDED_POINTERS = ("_ssl", "_into_ssl", "_from_ssl")


class PublicRecords:
    """The record layer on pyOpenSSL's public API.

    ``end`` says why nothing more can be received: SSL.ZeroReturnError after the peer's close_notify, another
    SSL.Error after a broken record or an alert; None as long as the connection lives.
    """

    __slots__ = ("_connection", "end")

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection
        self.end: SSL.Error | None = None

    def receive(self, data: bytes) -> bytes:
        """The application data that ``data``, at most ``MAX_FEED`` bytes, completes; sets ``end``."""
        if data:
            self._connection.bio_write(data)
        return self._drain(len(data) or MAX_PLAIN)

    def send(self, data: bytes) -> bytes:
        """The records that carry ``data``. SSL.Error when the connection cannot send any more."""
        output = []
        for start in range(0, len(data), MAX_PLAIN):
            plain = data[start : start + MAX_PLAIN]
            self._connection.sendall(plain)
            # An eighth is enough for the headers and tags of the smallest fragments that can be negotiated.
            output.append(self._connection.bio_read(len(plain) + len(plain) // 8 + 512))
        return b"".join(output)

    def output(self) -> bytes:
        """What OpenSSL wants to send by itself: alerts, answers to control messages. Often nothing."""
        try:
            return self._connection.bio_read(_BUFFER_SIZE)
        except SSL.WantReadError:
            return b""

    def close(self) -> bytes:
        """The close_notify alert; empty when it was sent before or cannot be sent any more."""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return b""
        return self.output()

    def _drain(self, size: int) -> bytes:
        """All that can be read now, ``size`` bytes at a time."""
        # An error counts when it comes twice: the first can be one that the verification of another
        # connection's certificates left in the queue of the thread (see ``advance_handshake``).
        parts = []
        doubt: SSL.Error | None = None
        while True:
            try:
                parts.append(self._connection.recv(size))
            except SSL.WantReadError:
                break
            except SSL.ZeroReturnError as closed:
                self.end = closed
                break
            except SSL.Error as error:
                if doubt is not None:
                    self.end = doubt
                    break
                doubt = error
        return b"".join(parts)


class DirectRecords(PublicRecords):
    """The record layer on the bindings below pyOpenSSL: no exception and no allocation for a record.

    ``buffer`` is shared by all connections of a thread; nothing stays in it from one call to the next.
    """

    __slots__ = ("_buffer", "_from_ssl", "_into_ssl", "_lib", "_ssl", "_view")

    def __init__(self, connection: SSL.Connection, lib: Any, buffer: Any, view: Any) -> None:
        super().__init__(connection)
        self._lib = lib
        self._buffer = buffer
        self._view = view
        self._ssl, self._into_ssl, self._from_ssl = (getattr(connection, name) for name in _NEEDED_POINTERS)

    def receive(self, data: bytes) -> bytes:
        lib, ssl, buffer = self._lib, self._ssl, self._buffer
        if data:
            lib.BIO_write(self._into_ssl, data, len(data))
        read = lib.SSL_read
        total = 0
        while (got := read(ssl, buffer + total, _BUFFER_SIZE - total)) > 0:
            total += got
        plain: bytes = self._view[:total]
        if lib.SSL_get_error(ssl, got) != lib.SSL_ERROR_WANT_READ:
            plain += self._drain(MAX_PLAIN)
        return plain

    def send(self, data: bytes) -> bytes:
        if len(data) > MAX_PLAIN:
            return super().send(data)
        sent = self._lib.SSL_write(self._ssl, data, len(data))
        if sent != len(data):  # less with a negotiated maximum fragment length; nothing when the connection is broken
            return super().send(data[max(sent, 0) :])
        size = self._lib.BIO_read(self._from_ssl, self._buffer, _BUFFER_SIZE)
        return self._view[:size]  # type: ignore[no-any-return]  # cffi is untyped


def record_layer() -> Callable[[SSL.Connection], PublicRecords]:
    """What makes the record layer of a connection: the direct one if this pyOpenSSL has what it needs.

    All record layers that one call's answer makes share a buffer, so they belong to one thread.
    """
    lib = getattr(SSL, "_lib", None)
    ffi = getattr(SSL, "_ffi", None)
    sample = SSL.Connection(SSL.Context(SSL.TLS_METHOD))
    found = all(hasattr(lib, name) for name in _NEEDED_FUNCTIONS)
    if ffi is None or not found or not all(hasattr(sample, name) for name in _NEEDED_POINTERS):
        return PublicRecords
    buffer = ffi.new("char[]", _BUFFER_SIZE)
    view = ffi.buffer(buffer)
    return lambda connection: DirectRecords(connection, lib, buffer, view)
