"""`muster up --trace FILE`: the decrypted bytes of every connection, with their times and without
credentials.

A trace is a file of JSON Lines, each with `connection` (counted from 1) and `time` (microseconds since 1970
UTC):

    {"connection":1,"time":1700000000000000,"peer":"127.0.0.1:50312 -> 127.0.0.1:8883 TLSv1.3"}
    {"connection":1,"time":1700000000000100,"direction":"received","data":"EBkA..."}
    {"connection":1,"time":1700000000000200,"direction":"sent","data":"IAIAAA=="}
    {"connection":1,"time":1700000000000300,"closed":true}

`data` is base64, one line for each piece as it was read or written. Credentials are masked by `trace_mask`,
which keeps every length, so that what was recorded can be replayed (`tests/playbook/test_trace_replay.py`).
"""

import logging
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

import msgspec

from muster.frontends.trace_mask import StreamMask

_log = logging.getLogger("muster.trace")

Direction = Literal["received", "sent"]


class TraceLine(msgspec.Struct, omit_defaults=True, forbid_unknown_fields=True):
    """One line: the start of a connection (`peer`), bytes (`direction` and `data`), or its end (`closed`)."""

    connection: int
    time: int
    peer: str | None = None
    direction: Direction | None = None
    data: bytes = b""
    closed: bool = False


class TracedPeer(Protocol):
    """Who is at the other end, as far as a trace tells it."""

    @property
    def remote(self) -> tuple[str, int]: ...
    @property
    def local(self) -> tuple[str, int]: ...
    @property
    def server_name(self) -> str | None: ...
    @property
    def tls_version(self) -> str | None: ...


class Tracer:
    """Writes a trace. `clock` gives microseconds since 1970 UTC.

    A path is created, or emptied, with mode 0600, and raises OSError if that cannot be done; an open binary
    file is written to and left open. A file that cannot be written to later (a full disk) ends the trace, not
    the service.
    """

    def __init__(self, target: Path | str | BinaryIO, clock: Callable[[], int]) -> None:
        self._owned = isinstance(target, (Path, str))
        self._file: BinaryIO | None = _create(target) if isinstance(target, (Path, str)) else target
        self._clock = clock
        self._connections = 0

    def open(self, peer: str) -> "Tap":
        """A new connection; `peer` is a description for people."""
        self._connections += 1
        self.write(TraceLine(self._connections, self._clock(), peer=peer))
        return Tap(self, self._connections, self._clock)

    def tap(self, peer: TracedPeer) -> "Tap":
        """A new connection of a listener's."""
        ends = f"{peer.remote[0]}:{peer.remote[1]} -> {peer.local[0]}:{peer.local[1]}"
        name = f" server name {peer.server_name}" if peer.server_name else ""
        return self.open(f"{ends} {peer.tls_version or 'without TLS'}{name}")

    def write(self, line: TraceLine) -> None:
        if self._file is None:
            return
        try:
            self._file.write(msgspec.json.encode(line) + b"\n")
        except OSError as error:
            _log.warning("the trace ends here: %s", error)
            self.close()

    def close(self) -> None:
        """Ends the trace; connections that are still open are traced no more."""
        if self._file is not None and self._owned:
            self._file.close()
        self._file = None


class Tap:
    """Records one connection."""

    def __init__(self, tracer: Tracer, connection: int, clock: Callable[[], int]) -> None:
        self._tracer = tracer
        self._connection = connection
        self._clock = clock
        self._received = StreamMask()
        self._sent = StreamMask()

    def received(self, data: bytes) -> None:
        self._record("received", self._received.mask(data))

    def sent(self, data: bytes) -> None:
        self._record("sent", self._sent.mask(data))

    def closed(self) -> None:
        self._tracer.write(TraceLine(self._connection, self._clock(), closed=True))

    def _record(self, direction: Direction, data: bytes) -> None:
        if data:
            self._tracer.write(TraceLine(self._connection, self._clock(), direction=direction, data=data))


def _create(path: Path | str) -> BinaryIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.fchmod(descriptor, 0o600)  # it may have been there with another mode
    # Unbuffered: a line is in the file when the bytes are, whatever becomes of the process.
    return os.fdopen(descriptor, "wb", buffering=0)


@dataclass(frozen=True, slots=True)
class TraceRecord:
    """Bytes that were read or written at once, credentials masked. `time` in microseconds since 1970 UTC."""

    time: int
    direction: Direction
    data: bytes


@dataclass(slots=True)
class TracedConnection:
    """One connection of a trace. `closed` is None if the trace ended first."""

    number: int
    peer: str
    opened: int
    records: list[TraceRecord] = field(default_factory=list)
    closed: int | None = None


def load_trace(path: Path | str) -> list[TracedConnection]:
    """The connections of a trace, in the order of their start. Raises ValueError naming a line that is none.

    A last line that is still being written, or was when the server was killed, does not count yet.
    """
    connections: dict[int, TracedConnection] = {}
    decoder = msgspec.json.Decoder(TraceLine)
    for number, text in enumerate(Path(path).read_bytes().splitlines(keepends=True), start=1):
        if not text.endswith(b"\n"):
            break
        try:
            line = decoder.decode(text)
            if line.peer is not None:
                connections[line.connection] = TracedConnection(line.connection, line.peer, line.time)
            elif line.direction is not None:
                record = TraceRecord(line.time, line.direction, line.data)
                connections[line.connection].records.append(record)
            else:
                connections[line.connection].closed = line.time
        except msgspec.MsgspecError as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        except KeyError:
            raise ValueError(f"{path}, line {number}: connection {line.connection} has no start") from None
    return list(connections.values())
