"""A connection in the test's own process: the transport below a protocol of the server, a client at its other end."""

import asyncio
from abc import abstractmethod
from collections.abc import Callable
from typing import Any

_WAIT_SECONDS = 60.0


class MemoryTransport(asyncio.Transport):
    """Keeps what is written; tells its protocol of the end as a socket does, soon after.

    Unless the peer ``is_gone``, without a trace: then a socket that is closed waits for it.
    """

    def __init__(self, protocol: asyncio.Protocol, written: Callable[[], None]) -> None:
        super().__init__()
        self._protocol = protocol
        self._written = written
        self.output = bytearray()
        self.reading = True
        self.closing = False
        self.aborted = False
        self.is_gone = False

    def write(self, data: Any) -> None:
        if not self.closing:  # as a socket that is gone, it forgets what comes too late
            self.output += data
            self._written()

    def close(self) -> None:
        if not self.closing:
            self.closing = True
            if not self.is_gone:
                asyncio.get_running_loop().call_soon(self._lose)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def _lose(self) -> None:
        self._protocol.connection_lost(None)
        self._written()

    def is_closing(self) -> bool:
        return self.closing

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True
        self._written()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class MemoryClient:
    """What it received and nobody took yet is in ``inbox``."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self._changed = asyncio.Event()
        self.transport = MemoryTransport(protocol, self._changed.set)
        self.inbox: list[Any] = []
        protocol.connection_made(self.transport)

    async def is_closed(self) -> None:
        """The server must end the connection, without another word."""
        await self._until(lambda: self.transport.closing)
        self._take_output()
        assert not self.inbox, f"{self.inbox} came before the end"

    async def leave(self) -> None:
        """The client's end of the connection goes away, without a word."""
        self.transport.abort()
        await asyncio.sleep(0)

    @abstractmethod
    def _take_output(self) -> bool:
        """Move what the server has written to ``inbox``; whether there is something."""

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_WAIT_SECONDS):
            while not condition():
                self._changed.clear()
                await self._changed.wait()
