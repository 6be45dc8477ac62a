"""A listener on loopback with protocols that record, and TLS clients for it."""

import asyncio
import functools
import logging
import ssl
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from muster.frontends.listener import Listener, ListenerLimits, Peer, Protocols, TapFactory
from muster.frontends.tls.context import ServerTls
from muster.frontends.tls.transport import TlsLimits
from tests.support.fix_pki import SERVER_AUTH, Identity, ec_key, make_certificate

HOST = "127.0.21.1"

VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}

SHORT_SNIFF = ListenerLimits(sniff_timeout=0.08)
SHORT_HANDSHAKE = ListenerLimits(tls=TlsLimits(handshake_timeout=0.08))
SHORT_CLOSE = ListenerLimits(tls=TlsLimits(close_timeout=0.05))
"""For tests in which this time-out is what is waited for, and no other may pass on a busy machine."""


@functools.cache
def server_identity(name: str = "localhost") -> Identity:
    key = ec_key(f"server {name}")
    return Identity(make_certificate(name, key=key, usages=(SERVER_AUTH,)), key)


def server_tls(name: str = "localhost") -> ServerTls:
    return tls_of(server_identity(name))


def tls_of(identity: Identity) -> ServerTls:
    return ServerTls(identity.chain_pem, identity.key_pem)


class Recorder(asyncio.Protocol):
    """Records what happens to it; sends everything back when ``echo`` is set."""

    transport: asyncio.Transport

    def __init__(self, spoken: str, peer: Peer, *, echo: bool) -> None:
        self.spoken = spoken
        self.peer = peer
        self.echo = echo
        self.received = bytearray()
        self.calls: list[str] = []
        self.lost = asyncio.Event()
        self.lost_with: Exception | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.calls.append("made")
        self.transport = transport  # type: ignore[assignment]  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.echo:
            self.transport.write(data)

    def eof_received(self) -> None:
        self.calls.append("eof")

    def pause_writing(self) -> None:
        self.calls.append("pause")
        if self.echo:
            self.transport.pause_reading()

    def resume_writing(self) -> None:
        self.calls.append("resume")
        if self.echo:
            self.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.lost_with = exc
        self.lost.set()


@dataclass
class Listening:
    """An open listener and what it served, in order."""

    listener: Listener
    address: tuple[str, int]
    served: list[Recorder] = field(default_factory=list)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for something that follows soon, 30 s at most."""
        async with asyncio.timeout(30):
            while not condition():  # noqa: ASYNC110  # what is waited for has no event
                await asyncio.sleep(0.001)

    async def until_idle(self) -> None:
        """Wait until no connection is left."""
        await self.until(lambda: self.listener.counters.open == 0)


@asynccontextmanager
async def listening(
    *,
    limits: ListenerLimits | None = None,
    echo: bool = True,
    tap_factory: TapFactory | None = None,
    tls: ServerTls | None = None,
    protocols: Protocols | None = None,
    host: str = HOST,
) -> AsyncIterator[Listening]:
    """A listener whose protocols are Recorders, unless others are given."""
    served: list[Recorder] = []

    def recording(spoken: str) -> Callable[[Peer], asyncio.Protocol]:
        def factory(peer: Peer) -> asyncio.Protocol:
            served.append(Recorder(spoken, peer, echo=echo))
            return served[-1]

        return factory

    recorders = Protocols(http=recording("http"), mqtt=recording("mqtt"), amqp=recording("amqp"))
    listener = Listener(protocols or recorders, tls=tls or server_tls(), limits=limits, tap_factory=tap_factory)
    address = await listener.listen(host, 0)
    try:
        yield Listening(listener, address, served)
    finally:
        await listener.close()


@functools.cache
def client_context(version: str = "1.3", identity: Identity | None = None) -> ssl.SSLContext:
    """A client that verifies nothing and presents ``identity``, however weak that is."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    if identity is not None:
        with tempfile.TemporaryDirectory() as directory:
            certificate, key = identity.write(Path(directory))
            context.load_cert_chain(certificate, key, password=identity.pass_phrase)
    return context


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def connected(
    address: tuple[str, int], version: str = "1.3", identity: Identity | None = None, server_name: str = "localhost"
) -> AsyncIterator[Streams]:
    """A TLS client's streams; the connection is dropped at the end."""
    reader, writer = await asyncio.open_connection(
        *address, ssl=client_context(version, identity), server_hostname=server_name
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.fixture
def no_traceback(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fails a test in which anything was logged with a traceback, or as an error."""
    caplog.set_level(logging.DEBUG)
    yield
    records = caplog.get_records("call")
    assert [record.getMessage() for record in records if record.exc_info or record.levelno >= logging.ERROR] == []
