"""What the connections of MQTT and AMQP have in common: who is there, writing, and a sudden end."""

import asyncio
import logging
import socket
import struct
from abc import abstractmethod

from muster.frontends.listener import Peer

_RESET = struct.pack("ii", 1, 0)
"""Linger for no time: what closes then resets."""


class PeerProtocol(asyncio.Protocol):
    """One connection above TLS or WebSocket, that speaks ``name``."""

    name: str
    log: logging.Logger
    transport: asyncio.Transport

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._lost = False
        self._flushing = False

    @abstractmethod
    def flush(self) -> None:
        """Write what there is to say; close when the conversation is over."""

    def flush_soon(self) -> None:
        """``flush`` as soon as the loop is free: what is said until then leaves in the same write."""
        if not self._flushing:
            self._flushing = True
            asyncio.get_running_loop().call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self.flush()

    def describe(self) -> str:
        """Where the peer is and what it speaks, for logs and reports."""
        host, port = self.peer.remote
        return f"{host}:{port} {self.name} {self.peer.tls_version or ''}".strip()

    def eof_received(self) -> bool:
        return False

    def abort(self, reason: str) -> None:
        """Break the connection as a broken network does: no goodbye of any protocol, a reset on TCP."""
        if self._lost:
            return
        self.log.info("%s aborted: %s", self.describe(), reason)
        sock = self.transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()
