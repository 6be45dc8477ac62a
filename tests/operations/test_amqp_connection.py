"""AMQP connections: how they open, what ends links and connections, and their bounds (hub-device.md 9)."""

import asyncio
import logging
from collections.abc import Sequence

import pytest
from tests.support.amqp_node import Node, create
from tests.support.fix_amqp import AMQP, HUB_HOST, AmqpClient, AmqpClients
from tests.support.fix_services import Services

from muster.domain.errors import ThrottledError
from muster.domain.timestamp import SECOND
from muster.frontends.amqp.links import Opener
from muster.wire.amqp_frames import Frame
from muster.wire.amqp_messages import Data, Message
from muster.wire.amqp_performatives import (
    Accepted,
    Attach,
    Begin,
    Close,
    Detach,
    Disposition,
    End,
    Error,
    Flow,
    Open,
    Transfer,
)
from muster.wire.amqp_types import Described, Symbol, Ulong

BODY = Message(body=Data((b"x",)))
LARGE = b"x" * 100_000


@pytest.fixture
def node(services: Services) -> Node:
    return Node(services)


@pytest.fixture
def openers(node: Node) -> Sequence[Opener]:
    return (node.open,)


async def two_links(amqp: AmqpClients, node: Node) -> tuple[AmqpClient, Attach, Attach]:
    client = await amqp.open()
    first = await client.link("/free", sender=True)
    second = await client.link("/free", sender=True)
    assert len(node.links) == 2
    return client, first, second


async def still_works(client: AmqpClient, link: Attach) -> None:
    await client.settles(await client.transfer(link, BODY))


class TestOpening:
    async def test_the_host_is_that_of_open_without_its_port(self, amqp: AmqpClients) -> None:
        client = amqp.connect(server_name="sni.example.net")
        assert client.protocol.host == "sni.example.net"
        await client.open(hostname="Hub.Example.Net:5671")
        assert client.protocol.host == "hub.example.net"
        assert client.protocol.claims.host == "hub.example.net"

    @pytest.mark.parametrize(("server_name", "host"), [("sni.example.net", "sni.example.net"), (None, "127.0.0.1")])
    async def test_without_a_host_it_is_the_name_in_tls(
        self, amqp: AmqpClients, server_name: str | None, host: str
    ) -> None:
        client = amqp.connect(server_name=server_name)
        await client.open(hostname=None)
        assert client.protocol.host == host

    async def test_what_is_said_of_it(self, amqp: AmqpClients) -> None:
        client = amqp.connect()
        assert client.protocol.describe() == "127.0.0.1:40000 AMQP TLSv1.2"
        answer = await client.open()
        assert (answer.max_frame_size, answer.channel_max, answer.idle_time_out) == (65_536, 1023, 240_000)

    async def test_more_sessions_than_there_can_be_end_it(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        await client.send(Begin(None, 0, 10, 10), channel=1024)
        error = (await client.receive(Close)).error
        assert error is not None
        assert error.condition == "amqp:connection:framing-error"
        await client.is_closed()


class TestRefusedLinks:
    @pytest.mark.parametrize("address", ["/nowhere", "", "$management/x", None])
    async def test_what_nobody_serves(self, amqp: AmqpClients, address: str | None) -> None:
        client = await amqp.open()
        for sender in (True, False):
            asked = client.attach(address, sender=sender)
            await client.send(asked)
            detach = await client.is_refused(asked, "amqp:not-found")
            assert detach.error is not None
            assert '"errorCode":404006' in (detach.error.description or "")
        await client.close()

    async def test_no_termini_at_all(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        asked = client.attach(None, sender=True, source=None, target=None)
        await client.send(asked)
        await client.is_refused(asked, "amqp:not-found")

    async def test_a_coordinator_of_transactions(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        asked = client.attach(None, sender=True, target=Described(Ulong(0x30), []))
        await client.send(asked)
        await client.is_refused(asked, "amqp:not-implemented")
        await client.link("/free", sender=True)

    async def test_who_proved_nothing(self, services: Services, amqp: AmqpClients) -> None:
        await create(services)
        client = await amqp.open()
        for address in ("/devices/d1/messages/events", "/service"):
            asked = client.attach(address, sender=True)
            await client.send(asked)
            detach = await client.is_refused(asked, "amqp:unauthorized-access")
            assert detach.error is not None
            assert detach.error.info is not None
            tracking_id = detach.error.info[Symbol("com.microsoft:tracking-id")]
            assert isinstance(tracking_id, str)
            (report,) = await services.reports.find(tracking_id)
            assert report.peer == "127.0.0.1:40000 AMQP TLSv1.2"
            assert tracking_id in (detach.error.description or "")

    async def test_a_bug_of_an_opener(self, amqp: AmqpClients, caplog: pytest.LogCaptureFixture) -> None:
        client = await amqp.open()
        asked = client.attach("/broken", sender=True)
        await client.send(asked)
        await client.is_refused(asked, "amqp:internal-error")
        assert "a bug of this opener" in caplog.text
        await client.link("/free", sender=True)

    async def test_too_many(self, amqp: AmqpClients, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("muster.frontends.amqp.connection._MAXIMUM_UNPROVEN_LINKS", 1)
        client = await amqp.open()
        link = await client.link("/free", sender=True)
        asked = client.attach("/free", sender=True)
        await client.send(asked)
        await client.is_refused(asked, "amqp:resource-limit-exceeded")
        await client.send(Detach(link.handle, closed=True))
        await client.receive(Detach)
        await client.link("/free", sender=True)

    async def test_who_has_proved_something_may_have_more(
        self, amqp: AmqpClients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("muster.frontends.amqp.connection._MAXIMUM_UNPROVEN_LINKS", 2)
        monkeypatch.setattr("muster.frontends.amqp.connection._MAXIMUM_LINKS", 3)
        client = await amqp.open()
        cbs = await client.cbs()
        asked = client.attach("/free", sender=True)
        await client.send(asked)
        await client.is_refused(asked, "amqp:resource-limit-exceeded")
        await client.send(Detach(asked.handle, closed=True))
        assert await cbs.put(HUB_HOST, amqp.policy_token()) == 200
        await client.link("/free", sender=True)
        asked = client.attach("/free", sender=True)
        await client.send(asked)
        await client.is_refused(asked, "amqp:resource-limit-exceeded")

    async def test_a_client_that_does_not_let_go_of_what_is_refused(
        self, amqp: AmqpClients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("muster.frontends.amqp.connection._MAXIMUM_UNPROVEN_LINKS", 2)
        client = await amqp.open()
        for _ in range(4):
            asked = client.attach("/nowhere", sender=True)
            await client.send(asked)
            await client.is_refused(asked, "amqp:not-found")
        await client.send(client.attach("/nowhere", sender=True))
        close = await client.receive(Close)
        assert close.error is not None
        assert close.error.condition == "amqp:resource-limit-exceeded"


class TestEnds:
    async def test_a_refused_message_ends_its_link_and_no_other(self, amqp: AmqpClients, node: Node) -> None:
        client, first, second = await two_links(amqp, node)
        await client.transfer(first, b"refuse")
        await client.is_detached(first, "amqp:internal-error")
        await still_works(client, second)
        assert [link.events[-1] for link in node.links] == ["closed", "delivery"]

    async def test_a_bug_ends_its_link_and_no_other(
        self, amqp: AmqpClients, node: Node, caplog: pytest.LogCaptureFixture
    ) -> None:
        client, first, second = await two_links(amqp, node)
        await client.transfer(first, b"break")
        await client.is_detached(first, "amqp:internal-error")
        assert "a bug of this head" in caplog.text
        await still_works(client, second)

    async def test_a_bug_when_a_link_opens(self, amqp: AmqpClients, node: Node) -> None:
        client = await amqp.open()
        faulty, free = client.attach("/faulty", sender=True), client.attach("/free", sender=True)
        await client.send(faulty, free)
        await client.is_refused(faulty, "amqp:internal-error")
        assert (await client.receive(Attach)).name == free.name
        assert node.links[0].events == ["opened", "closed"]

    async def test_a_bug_when_a_link_may_send_again(self, amqp: AmqpClients, node: Node) -> None:
        client = await amqp.open()
        link = await client.link("/free", sender=False)
        client.protocol.pause_writing()
        node.link.queue = [b"break"]
        node.link.send()
        client.protocol.resume_writing()
        await client.is_detached(link, "amqp:internal-error")
        await client.link("/free", sender=True)

    async def test_a_bug_behind_a_read(self, amqp: AmqpClients, node: Node, caplog: pytest.LogCaptureFixture) -> None:
        client, first, second = await two_links(amqp, node)
        await client.settles(await client.transfer(first, b"break after"))
        assert "a bug of this head" in caplog.text
        await still_works(client, second)

    async def test_a_bug_of_a_request_leaves_the_next_one_its_turn(
        self, amqp: AmqpClients, node: Node, caplog: pytest.LogCaptureFixture
    ) -> None:
        client, first, second = await two_links(amqp, node)

        async def fail() -> None:
            raise RuntimeError("a bug of this request")

        client.protocol.in_order(fail())
        await client.link("/free", sender=True)
        assert "a bug of this request" in caplog.text
        await still_works(client, first)
        await still_works(client, second)

    async def test_the_server_detaches_one_link(self, amqp: AmqpClients, node: Node) -> None:
        client, first, second = await two_links(amqp, node)
        node.links[0].context.detach(node.links[0].link, ThrottledError())
        node.links[0].context.detach(node.links[0].link, ThrottledError())
        await client.is_detached(first, "com.microsoft:device-container-throttled")
        await client.send(Detach(first.handle, closed=True))
        await still_works(client, second)
        assert node.links[0].events == ["opened", "closed"]

    async def test_the_client_detaches_one_link(self, amqp: AmqpClients, node: Node) -> None:
        client, first, second = await two_links(amqp, node)
        await client.send(Detach(first.handle, closed=True, error=Error("amqp:internal-error", "why not")))
        assert (await client.receive(Detach)).handle == first.handle
        await still_works(client, second)
        assert node.links[0].events == ["opened", "closed"]

    async def test_the_client_ends_a_session(self, amqp: AmqpClients, node: Node) -> None:
        client, _first, _second = await two_links(amqp, node)
        await client.send(End())
        await client.receive(End)
        assert [link.events for link in node.links] == [["opened", "closed"]] * 2
        await client.send(Begin(None, 0, 5000, 5000))
        await client.receive(Begin)
        await client.link("/free", sender=True)

    async def test_the_server_ends_a_session(self, amqp: AmqpClients, node: Node) -> None:
        client, _first, _second = await two_links(amqp, node)
        context, session = node.link.context, node.link.link.session
        context.end(session, Error("amqp:internal-error", "out of order"))
        context.end(session)
        assert (await client.receive(End)).error == Error("amqp:internal-error", "out of order")
        assert [link.events for link in node.links] == [["opened", "closed"]] * 2

    @pytest.mark.parametrize("error", [None, Error("amqp:internal-error", "out of battery")])
    async def test_the_client_closes(
        self, amqp: AmqpClients, node: Node, error: Error | None, caplog: pytest.LogCaptureFixture
    ) -> None:
        client, _first, _second = await two_links(amqp, node)
        with caplog.at_level(logging.INFO):
            await client.send(Close(error))
            await client.receive(Close)
            await client.is_closed()
        assert [link.events for link in node.links] == [["opened", "closed"]] * 2
        assert ("out of battery" in caplog.text) == (error is not None)

    async def test_the_client_is_gone(self, amqp: AmqpClients, node: Node) -> None:
        client, _first, _second = await two_links(amqp, node)
        await client.leave()
        assert [link.events for link in node.links] == [["opened", "closed"]] * 2

    async def test_the_server_stops(self, amqp: AmqpClients, node: Node) -> None:
        client, _first, _second = await two_links(amqp, node)
        client.protocol.shutdown()
        client.protocol.shutdown()
        end = await client.receive(End)
        assert end.error is not None
        assert end.error.condition == "amqp:link:detach-forced"
        close = await client.receive(Close)
        assert close.error is not None
        assert close.error.condition == "amqp:connection:forced"
        assert [link.events for link in node.links] == [["opened", "closed"]] * 2
        assert not client.transport.closing
        await client.send(Close())
        await client.is_closed()

    async def test_the_server_stops_before_a_client_has_opened(self, amqp: AmqpClients) -> None:
        client = amqp.connect()
        await client.send(AMQP)
        await client.receive_header()
        client.protocol.shutdown()
        await client.is_closed()

    async def test_nonsense_ends_the_connection(
        self, amqp: AmqpClients, node: Node, caplog: pytest.LogCaptureFixture
    ) -> None:
        client, _first, _second = await two_links(amqp, node)
        with caplog.at_level(logging.INFO):
            await client.send(b"\0\0\0\x09\x02\0\0\0\xff")
            close = await client.receive(Close)
            await client.is_closed()
        assert close.error is not None
        assert close.error.condition == "amqp:decode-error"
        assert "amqp:decode-error" in caplog.text
        assert [link.events for link in node.links] == [["opened", "closed"]] * 2

    async def test_a_link_that_is_gone_before_it_was_judged(self, amqp: AmqpClients, node: Node) -> None:
        client = await amqp.open()
        asked = client.attach("/free", sender=True)
        await client.send(asked, Detach(asked.handle, closed=True))
        await client.receive(Attach)
        await client.receive(Detach)
        await client.link("/free", sender=True)
        assert [link.events for link in node.links] == [["opened"]]

    async def test_a_client_that_is_gone_while_it_is_judged(self, amqp: AmqpClients, node: Node) -> None:
        client = await amqp.open()
        await client.send(client.attach("/slow", sender=True), client.attach("/free", sender=True))
        await client.leave()
        node.gate.set()
        async with asyncio.timeout(30):
            while not node.links or not node.link.events:  # noqa: ASYNC110 - nobody is there to be told
                await asyncio.sleep(0)
        assert [link.events for link in node.links] == [["closed"]]

    async def test_attaches_are_answered_in_their_order(self, amqp: AmqpClients, node: Node) -> None:
        client = await amqp.open()
        slow, free = client.attach("/slow", sender=True), client.attach("/free", sender=True)
        await client.send(slow, free)
        node.gate.set()
        assert [(await client.receive(Attach)).name for _ in range(2)] == [slow.name, free.name]


class TestTime:
    async def test_a_client_that_never_opens(self, services: Services, amqp: AmqpClients) -> None:
        client = amqp.connect()
        await client.send(AMQP)
        await client.receive_header()
        services.clock.advance(31 * SECOND)
        client.protocol.check_time()
        await client.receive(Open)
        await client.receive(Close)
        await client.is_closed()

    async def test_a_client_that_is_silent(self, services: Services, amqp: AmqpClients) -> None:
        client = await amqp.open()
        services.clock.advance(241 * SECOND)
        client.protocol.check_time()
        close = await client.receive(Close)
        assert close.error is not None
        assert close.error.condition == "amqp:resource-limit-exceeded"
        await client.is_closed()

    async def test_a_client_that_wants_to_hear_something(self, services: Services, amqp: AmqpClients) -> None:
        client = amqp.connect()
        await client.open(idle_time_out=10_000)
        services.clock.advance(5 * SECOND)
        client.protocol.check_time()
        assert await client._next(object) is None, "an empty frame"

    async def test_a_client_that_is_not_read_is_not_silent(self, services: Services, amqp: AmqpClients) -> None:
        client = amqp.connect()
        await client.open(idle_time_out=600_000)
        client.protocol.pause_reading()
        services.clock.advance(301 * SECOND)
        client.protocol.check_time()
        assert await client._next(object) is None, "an empty frame all the same"
        client.protocol.resume_reading()
        services.clock.advance(239 * SECOND)
        client.protocol.check_time()
        assert not client.transport.closing

    async def test_a_client_that_does_not_answer_a_close(
        self, amqp: AmqpClients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("muster.frontends.amqp.connection._PATIENCE", 0.01)
        client = await amqp.open()
        client.protocol.shutdown()
        await client.receive(Close)
        await client.is_closed()


class TestBounds:
    async def test_what_is_sent_waits_for_the_network(self, amqp: AmqpClients, node: Node) -> None:
        client = await amqp.open()
        await client.link("/free", sender=False)
        client.protocol.pause_writing()
        node.link.queue = [b"1", b"2"]
        node.link.send()
        assert node.link.queue == [b"1", b"2"]
        client.protocol.resume_writing()
        assert node.link.queue == []
        assert node.link.events == ["opened", "resumed"]
        assert [(await client._next(tuple))[1] for _ in range(2)] == [b"1", b"2"]

    async def test_what_is_sent_waits_for_the_window(self, amqp: AmqpClients, node: Node) -> None:
        client = amqp.connect()
        await client.send(AMQP, Open("client", HUB_HOST), Begin(None, 0, 2, 5000))
        link = client.attach("/free", sender=False)
        await client.send(link, Flow(1, 2, 0, 5000, link.handle, 0, 1000))
        await client._until(lambda: bool(node.links))
        node.link.queue = [b"%d" % number for number in range(200)]
        node.link.send()
        waiting = len(node.link.queue)
        assert 100 < waiting < 200
        await client.send(Flow(1, 1000, 0, 5000))
        assert node.link.queue == []
        assert "resumed" in node.link.events

    async def test_what_is_sent_waits_for_settlements(
        self, amqp: AmqpClients, node: Node, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("muster.frontends.amqp.connection._MAXIMUM_UNSETTLED", 3)
        client = await amqp.open()
        await client.link("/free", sender=False)
        node.link.queue = [b"%d" % number for number in range(5)]
        node.link.send()
        assert len(node.link.queue) == 2
        await client.send(Disposition(True, 0, 1, settled=True, state=Accepted()))
        assert node.link.queue == []

    async def test_a_head_that_is_held_back_may_end(self, amqp: AmqpClients, node: Node) -> None:
        client = await amqp.open()
        link = await client.link("/free", sender=False)
        client.protocol.pause_writing()
        node.link.queue = [b"1"]
        node.link.send()
        await client.send(Detach(link.handle, closed=True))
        client.protocol.resume_writing()
        assert node.link.events == ["opened", "closed"]

    async def test_incomplete_messages_fill_only_so_much(
        self, amqp: AmqpClients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("muster.frontends.amqp.connection._MAXIMUM_BUFFERED", 1_000_000)
        client = await amqp.open()
        links = [await client.link("/free", sender=True) for _ in range(12)]
        for number, link in enumerate(links):
            body = Transfer(link.handle, number, b"t", 0, more=True)
            for start in range(0, len(LARGE), 50_000):
                await client.send(Frame(0, body, LARGE[start : start + 50_000]))
        close = await client.receive(Close)
        assert close.error is not None
        assert close.error.condition == "amqp:resource-limit-exceeded"

    async def test_a_client_that_attaches_without_end_is_not_read(
        self, amqp: AmqpClients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("muster.frontends.amqp.connection._MAXIMUM_WAITING", 4)
        client = await amqp.open()
        asked = [client.attach("/free", sender=True) for _ in range(8)]
        client.protocol.data_received(b"".join(Frame(0, attach).encode() for attach in asked))
        assert not client.transport.reading
        for _ in asked:
            await client.receive(Attach)
        await client._until(lambda: client.transport.reading)

    async def test_it_is_read_again_when_nobody_holds_it_back(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        client.protocol.pause_reading("one")
        client.protocol.pause_reading("two")
        client.protocol.resume_reading("one")
        client.protocol.resume_reading("somebody else")
        assert not client.transport.reading
        client.protocol.resume_reading("two")
        assert client.transport.reading


class TestLog:
    async def test_a_refused_link_and_a_detached_one_leave_a_line(
        self, amqp: AmqpClients, node: Node, caplog: pytest.LogCaptureFixture
    ) -> None:
        with caplog.at_level(logging.INFO):
            client, first, _second = await two_links(amqp, node)
            asked = client.attach("/nowhere", sender=True)
            await client.send(asked)
            await client.is_refused(asked, "amqp:not-found")
            await client.transfer(first, b"refuse")
            await client.is_detached(first, "amqp:internal-error")
        assert "attach" in caplog.text
        assert "404006" in caplog.text
        assert "detached: amqp:internal-error" in caplog.text
