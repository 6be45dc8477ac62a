"""What a connection speaks, told by its first bytes: every TLS port serves MQTT, AMQP and HTTP.

A small protocol that collects until the answer is certain and then hands the connection over. It knows
nothing of the protocols themselves.
"""

import asyncio
from collections.abc import Callable
from typing import Literal, cast

Spoken = Literal["mqtt", "amqp", "http"]

_AMQP_HEADER = b"AMQP"
_LINE_BREAKS = b"\r\n"


def sniff(first: bytes) -> Spoken | None:
    """What a client speaks whose first bytes these are; None when more are needed (at most four are).

    A request of HTTP begins with a letter, or with the end of a line. What begins with anything else is for MQTT, which
    closes without a word unless it is CONNECT (hub-device.md 3.1).
    """
    if first.startswith(_AMQP_HEADER):
        return "amqp"
    if _AMQP_HEADER.startswith(first):
        return None
    return "http" if first[:1].isalpha() or first[:1] in _LINE_BREAKS else "mqtt"


class Sniffer(asyncio.Protocol):
    """The first protocol of a connection: ``hand_over`` makes the one that stays."""

    __slots__ = ("_first", "_hand_over", "_silent", "_timeout", "_timer", "_transport")

    _transport: asyncio.Transport

    def __init__(
        self, hand_over: Callable[[Spoken], asyncio.Protocol], silent: Callable[[], None], timeout: float
    ) -> None:
        """``silent`` is called before a client is dropped that said too little for ``timeout`` seconds."""
        self._hand_over = hand_over
        self._silent = silent
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None
        self._first = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but ancestry
        self._timer = asyncio.get_running_loop().call_later(self._timeout, self._expired)

    def data_received(self, data: bytes) -> None:
        self._first += data
        spoken = sniff(self._first)
        if spoken is None:
            return
        self._clear_timer()
        protocol = self._hand_over(spoken)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        protocol.data_received(self._first)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio's signature
        self._clear_timer()

    def _expired(self) -> None:
        self._silent()
        self._transport.abort()

    def _clear_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
