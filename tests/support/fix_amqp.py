"""AMQP connections in the test's own process: performatives in, performatives out, no socket between them.

``amqp`` opens connections to the front end that serves ``services``; ``openers`` (a fixture of the module under test)
says which addresses there are beside ``$cbs``. What a connection sends is read with the wire core's decoder.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import pytest

from muster.domain.sas import create_token
from muster.domain.timestamp import SECOND
from muster.frontends.amqp.claims import ClaimServices
from muster.frontends.amqp.connection import AmqpProtocol
from muster.frontends.amqp.front_end import AmqpFrontEnd
from muster.frontends.amqp.links import LinkContext, Opener
from muster.frontends.amqp.sasl import SaslExchange
from muster.frontends.listener import Peer
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_frames import Frame, FrameReader, ProtocolHeader, encode_frame
from muster.wire.amqp_messages import AmqpValue, Message, Properties
from muster.wire.amqp_performatives import (
    Accepted,
    Attach,
    Begin,
    Close,
    Composite,
    Detach,
    Disposition,
    Flow,
    Open,
    SaslInit,
    SaslMechanisms,
    SaslOutcome,
    Source,
    Target,
    Transfer,
)
from muster.wire.amqp_types import Ulong, Value
from tests.support.fix_services import KEY, Services
from tests.support.memory_transport import MemoryClient

HUB_HOST = "hub.example.net"
AMQP = ProtocolHeader(0)
SASL = ProtocolHeader(3)

_HOUR = 3600

C = TypeVar("C", bound=Composite)


class AmqpClient(MemoryClient):
    """One connection; ``inbox`` has protocol headers, and bodies of frames.

    Transfers come as ``(Transfer, payload)``. Everything is on channel 0 unless ``send`` is told another.
    """

    def __init__(self, protocol: AmqpProtocol, token: Callable[..., str]) -> None:
        super().__init__(protocol)
        self.protocol = protocol
        self.token = token
        self._reader = FrameReader()
        self._next_delivery = 0
        self._handles = 0

    async def send(self, *items: Composite | ProtocolHeader | Frame | bytes, channel: int = 0) -> None:
        """Send all in one read."""
        await self.send_bytes(b"".join(_encode(item, channel) for item in items))

    async def send_bytes(self, data: bytes) -> None:
        await self._until(lambda: self.transport.reading or self.transport.closing)
        if not self.transport.closing:
            self.protocol.data_received(data)

    async def receive(self, kind: type[C]) -> C:
        """The next frame, which must have a body of this kind; flows are passed over unless one is wanted."""
        body = await self._next(kind)
        assert isinstance(body, kind), f"{body!r} is no {kind.__name__}"
        return body

    async def receive_header(self) -> ProtocolHeader:
        header = await self._next(ProtocolHeader)
        assert isinstance(header, ProtocolHeader), f"{header!r} is no header"
        return header

    async def receive_message(self) -> tuple[Transfer, Message]:
        """The next delivery, whole."""
        item = await self._next(tuple)
        assert isinstance(item, tuple), f"{item!r} is no transfer"
        transfer, payload = item
        more = transfer.more
        while more:
            following, piece = await self._next(tuple)
            payload += piece
            more = following.more
        return transfer, decode_message(payload)

    async def _next(self, wanted: type[Any]) -> Any:
        while True:
            await self._until(self._take_output)
            item = self.inbox.pop(0)
            if isinstance(item, Flow) and wanted is not Flow:
                continue
            return item

    def _take_output(self) -> bool:
        if self.transport.output:
            for item in self._reader.receive(bytes(self.transport.output)):
                assert isinstance(item, (ProtocolHeader, Frame)), f"the server sent {item!r}"
                if isinstance(item, Frame) and isinstance(item.body, Transfer):
                    self.inbox.append((item.body, item.payload))
                else:
                    self.inbox.append(item.body if isinstance(item, Frame) else item)
            self.transport.output.clear()
        return bool(self.inbox)

    # What clients do

    async def sasl(self, init: SaslInit, code: int = 0) -> SaslOutcome:
        """The SASL layer, to its outcome, which must have this code."""
        await self.send(SASL)
        assert await self.receive_header() == SASL
        await self.receive(SaslMechanisms)
        await self.send(init)
        outcome = await self.receive(SaslOutcome)
        assert outcome.code == code
        return outcome

    async def open(self, hostname: str | None = HUB_HOST, **options: Any) -> Open:
        """Header, open and a session on channel 0."""
        await self.send(AMQP, Open("client", hostname, **options), Begin(None, 0, 5000, 5000))
        assert await self.receive_header() == AMQP
        answer = await self.receive(Open)
        await self.receive(Begin)
        return answer

    def attach(self, address: str | None, *, sender: bool, **options: Any) -> Attach:
        """An attach with a handle of its own; ``sender``: the client sends. It is not sent yet."""
        handle, self._handles = self._handles, self._handles + 1
        source, target = (Source("client"), Target(address)) if sender else (Source(address), Target("client"))
        asked: dict[str, Any] = {"source": source, "target": target, **options}
        count = 0 if sender else None
        return Attach(f"link-{handle}", handle, not sender, initial_delivery_count=count, **asked)

    async def link(self, address: str, *, sender: bool, credit: int = 100, **options: Any) -> Attach:
        """A link that is taken; a receiver has given ``credit``, a sender has got some."""
        asked = self.attach(address, sender=sender, **options)
        await self.send(asked)
        answer = await self.receive(Attach)
        assert answer.name == asked.name
        if sender:
            flow = await self.receive(Flow)
            assert (flow.handle, bool(flow.link_credit)) == (asked.handle, True)
        elif credit:
            await self.grant(asked, credit)
        return asked

    async def is_refused(self, asked: Attach, condition: str) -> Detach:
        """The server must echo this attach and then detach with the error."""
        answer = await self.receive(Attach)
        assert answer.name == asked.name
        assert answer.source is not None
        assert answer.target is not None
        return await self.is_detached(asked, condition)

    async def is_detached(self, link: Attach, condition: str) -> Detach:
        detach = await self.receive(Detach)
        assert detach.error is not None
        assert (detach.handle, detach.closed, detach.error.condition) == (link.handle, True, condition)
        return detach

    async def grant(self, link: Attach, credit: int, *, drain: bool = False) -> None:
        await self.send(Flow(1, 5000, 0, 5000, link.handle, 0, credit, drain=drain))

    async def transfer(self, link: Attach, payload: Message | bytes, *, settled: bool = False, format: int = 0) -> int:
        """Send a message in one frame; returns its delivery id."""
        delivery_id, self._next_delivery = self._next_delivery, self._next_delivery + 1
        data = payload if isinstance(payload, bytes) else encode_message(payload)
        body = Transfer(link.handle, delivery_id, delivery_id.to_bytes(4), format, settled)
        await self.send(Frame(0, body, data))
        return delivery_id

    async def settles(self, delivery_id: int, state: type[Any] = Accepted) -> Disposition:
        """The server must settle this delivery so."""
        disposition = await self.receive(Disposition)
        assert (disposition.first, disposition.role, disposition.settled) == (delivery_id, True, True)
        assert isinstance(disposition.state, state), f"{disposition.state!r} is no {state.__name__}"
        return disposition

    async def close(self) -> None:
        """An orderly end."""
        await self.send(Close())
        await self.receive(Close)
        await self.is_closed()

    # $cbs

    async def cbs(self) -> "Cbs":
        """A pair of links to ``$cbs``."""
        return Cbs(self, await self.link("$cbs", sender=False, credit=10_000), await self.link("$cbs", sender=True))


class Cbs:
    """Puts tokens."""

    def __init__(self, client: AmqpClient, replies: Attach, requests: Attach) -> None:
        self._client = client
        self.replies = replies
        self.requests = requests

    async def request(self, message: Message, *, settled: bool = False) -> tuple[int, Message]:
        """Send a request; the reply's status and all of it. It must be accepted before the reply comes."""
        delivery_id = await self._client.transfer(self.requests, message, settled=settled)
        if not settled:
            await self._client.settles(delivery_id)
        transfer, reply = await self._client.receive_message()
        if not transfer.settled:
            await self._client.send(Disposition(True, transfer.delivery_id or 0, settled=True, state=Accepted()))
        assert reply.application_properties is not None
        status: Any = reply.application_properties["status-code"]
        return status.value, reply

    async def put(self, audience: str, token: str, message_id: Value = Ulong(0)) -> int:  # noqa: B008 - a value
        """The status of the reply."""
        return (await self.request(put_token(audience, token, message_id)))[0]

    async def put_device(self, device_id: str, key: str, **options: Any) -> None:
        """A device's own token, which must be taken."""
        audience = f"{HUB_HOST}/devices/{device_id}"
        assert await self.put(audience, self._client.token(audience, key, **options)) == 200


def put_token(audience: str, token: Value, message_id: Value = None, operation: str = "put-token") -> Message:
    return Message(
        properties=Properties(message_id=message_id, to="$cbs", reply_to="cbs"),
        application_properties={
            "operation": operation,
            "type": "servicebus.windows.net:sastoken",
            "name": audience,
        },
        body=AmqpValue(token),
    )


def _encode(item: Composite | ProtocolHeader | Frame | bytes, channel: int) -> bytes:
    if isinstance(item, bytes):
        return item
    return encode_frame(channel, item) if isinstance(item, Composite) else item.encode()


class AmqpClients:
    """Opens connections."""

    def __init__(self, services: Services, front_end: AmqpFrontEnd) -> None:
        self._services = services
        self.front_end = front_end
        self._opened: list[AmqpClient] = []

    def connect(self, *certificates: bytes, server_name: str | None = HUB_HOST) -> AmqpClient:
        """A connection on which nothing was sent yet."""
        peer = Peer(("127.0.0.1", 40000), ("127.0.0.1", 5671), server_name, "TLSv1.2", certificates)
        client = AmqpClient(self.front_end.protocol(peer), self.token)
        self._opened.append(client)
        return client

    async def open(self, *certificates: bytes) -> AmqpClient:
        """A connection without SASL, open, with a session."""
        client = self.connect(*certificates)
        await client.open()
        return client

    def token(self, audience: str, key: str = KEY, policy: str = "", *, life: int = _HOUR) -> str:
        """A token for ``audience`` that lives ``life`` seconds."""
        return create_token(audience, key, self._services.clock.now // SECOND + life, policy)

    def policy_token(self, policy: str = "service", audience: str = HUB_HOST, *, life: int = _HOUR) -> str:
        return self.token(audience, KEY, policy, life=life)

    async def finish(self) -> None:
        for client in self._opened:
            await client.leave()


def amqp_front_end(
    services: Services, openers: Sequence[Opener] = (), tpm: Callable[[LinkContext], SaslExchange] | None = None
) -> AmqpFrontEnd:
    """What the server serves AMQP with, and these addresses; with ``tpm`` also that mechanism of SASL."""
    claims = ClaimServices(services.hubs, services.authentication, services.access, services.clock)
    return AmqpFrontEnd(claims, services.reports, openers, tpm)


@pytest.fixture
def openers() -> Sequence[Opener]:
    """A module that tests links has a fixture of the same name."""
    return ()


@pytest.fixture
async def amqp(services: Services, openers: Sequence[Opener]) -> Any:
    clients = AmqpClients(services, amqp_front_end(services, openers))
    yield clients
    await clients.finish()
