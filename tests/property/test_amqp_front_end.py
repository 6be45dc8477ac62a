"""The AMQP front end: whatever a client sends, nothing is raised, every head ends once, and the end comes in order."""

import asyncio
import logging
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muster.frontends.amqp.connection import AmqpProtocol
from muster.store.migration import migrate
from muster.store.sqlite import open_sqlite
from muster.wire import amqp_performatives as p
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_frames import Frame, FrameReader, ProtocolHeader
from muster.wire.amqp_opening import CLOSED
from tests.property.amqp_strategies import frames
from tests.support.amqp_node import Node, create
from tests.support.fix_amqp import HUB_HOST, AmqpClients, amqp_front_end, put_token
from tests.support.fix_services import KEY, Clock, Services, build_services

ADDRESSES = ("$cbs", "/free", "/broken", "/service", "/devices/d1/messages/events", "/nowhere", None)

small = st.integers(0, 3)
addresses = st.sampled_from(ADDRESSES)
requests = st.sampled_from(
    [b"refuse", b"break", b"\xff", encode_message(put_token("x", "no token")), encode_message(put_token("x", None))]
)
likely = st.one_of(
    st.builds(
        p.Attach,
        st.just("l"),
        small,
        st.just(p.SENDER),
        source=st.builds(p.Source),
        target=st.builds(p.Target, addresses),
    ),
    st.builds(p.Attach, st.just("l"), small, st.just(p.RECEIVER), source=st.builds(p.Source, addresses)),
    st.builds(p.Flow, small, st.integers(0, 9), small, small, small, small, small, drain=st.booleans()),
    st.builds(p.Disposition, st.booleans(), small, st.none() | small, st.booleans()),
    st.builds(p.Detach, small, st.booleans()),
    st.builds(p.Begin, st.none(), small, st.integers(0, 9), small),
    st.builds(p.End),
)
steps = st.one_of(
    st.builds(Frame, st.integers(0, 1), likely),
    st.builds(Frame, st.just(0), st.builds(p.Transfer, small, small, st.just(b"t"), settled=st.booleans()), requests),
)
plain = st.sampled_from([b"\0d1@sas.hub\0t", b"\0iothubowner\0" + KEY.encode(), b"\0\0", b"", None, b"\0x\0y\0z"])
mechanisms = st.sampled_from(["ANONYMOUS", "PLAIN", "EXTERNAL", "MSSBCBS", "TPM", "x"])
openings = st.one_of(
    st.just([]),
    st.builds(
        lambda mechanism, response: [ProtocolHeader(3), Frame(0, p.SaslInit(mechanism, response))], mechanisms, plain
    ),
)
START = [ProtocolHeader(0), Frame(0, p.Open("c", HUB_HOST)), Frame(0, p.Begin(None, 0, 9, 9))]
rest = st.lists(frames.map(lambda frame: frame.encode()) | st.binary(max_size=12), max_size=2)


class Place:
    """Services and a loop for all examples, to which a failed one leaves nothing."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.services: Services = self.loop.run_until_complete(self._build())

    async def _build(self) -> Services:
        clock = Clock()
        database = await open_sqlite(Path(self.directory.name) / "muster.db", durable=False)
        await migrate(database, clock())
        services = await build_services(database, clock)
        await create(services)
        return services

    def close(self) -> None:
        self.loop.run_until_complete(self._end())
        self.loop.close()
        self.directory.cleanup()

    async def _end(self) -> None:
        await self.services.registrations.stop(within=60)
        await self.services.database.close()


@pytest.fixture(scope="module")
def place():
    here = Place()
    yield here
    here.close()


class Failures(logging.Handler):
    """What failed where nobody could be told."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


async def settled(protocol: AmqpProtocol) -> None:
    """All that was begun is done."""
    await protocol._work.finish()
    await protocol._tasks.finish()


async def converse(services: Services, chunks: list[bytes]) -> None:
    failures = Failures()
    loggers = [logging.getLogger(name) for name in ("asyncio", "muster.connection")]
    for logger in loggers:
        logger.addHandler(failures)
    node = Node(services)
    client = AmqpClients(services, amqp_front_end(services, [node.open])).connect()
    protocol = client.protocol
    for chunk in chunks:
        if client.transport.closing:
            break
        if client.transport.reading:
            protocol.data_received(chunk)
        await settled(protocol)
    sent = FrameReader(0x100_0000).receive(bytes(client.transport.output))
    assert all(isinstance(item, (ProtocolHeader, Frame)) for item in sent)
    if client.transport.closing:
        assert protocol.core._state == CLOSED
        for last in sent[-1:]:  # nothing at all is the answer to what is not AMQP
            assert isinstance(last, ProtocolHeader) or isinstance(last.body, (p.Close, p.SaslOutcome)), last
    await client.leave()
    await settled(protocol)
    for link in node.links:
        assert link.events[-1] == "closed", link.events
        assert link.events.count("closed") == 1
        assert link.events.count("opened") <= 1
    assert not protocol.claims._leanings
    for logger in loggers:
        logger.removeHandler(failures)
    assert not failures.records


@given(openings, st.lists(steps.map(lambda frame: frame.encode()), max_size=15), rest, st.booleans())
@settings(max_examples=150)
def test_any_frames(place, opening, parts, others, whole):
    chunks = [*(item.encode() for item in [*opening, *START]), *parts, *others]
    place.loop.run_until_complete(converse(place.services, [b"".join(chunks)] if whole else chunks))


@given(st.binary(max_size=60), st.integers(0, 3))
@settings(max_examples=40)
def test_any_bytes(place, data, started):
    chunks = [item.encode() for item in START[:started]]
    place.loop.run_until_complete(converse(place.services, [*chunks, data]))
