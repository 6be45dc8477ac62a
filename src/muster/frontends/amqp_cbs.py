"""The ``$cbs`` node: tokens put on a live AMQP connection. Sources: hub-device.md 9.2, hub-service.md 6.3.

What clients insist on: the request is accepted *before* the reply is sent (uamqp); the reply's correlation id has the
AMQP type of the request's message id (Java, C, pyamqp); ``status-code`` is an AMQP int, and 200 (Node). Not here:
whether a token counts (``amqp_claims.py``).
"""

from collections import deque
from typing import Final

from muster.domain.errors import ArgumentInvalidError, NotAllowedError, ServerError, ServiceError
from muster.frontends.amqp_addresses import Address
from muster.frontends.amqp_links import BaseLinkHead, LinkContext, LinkOpening
from muster.observe import Operation
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_messages import AmqpValue, Data, Message, Properties
from muster.wire.amqp_performatives import RECEIVER, SENDER, SETTLED, Accepted, Rejected, lookup
from muster.wire.amqp_sessions import Credit, Delivery, Disposed, Link
from muster.wire.amqp_types import DecodeError, Int, Value

_NODE: Final = "$cbs"
_CREDIT: Final = 100
_MAXIMUM_MESSAGE_SIZE: Final = 65_536
_OK: Final = 200


class _Node:
    """The node as one connection sees it: requests on some links, replies on others."""

    def __init__(self, context: LinkContext) -> None:
        self.context = context
        self._replies: deque[tuple[Link, bytes]] = deque()
        self._receivers: list[Link] = []
        self._sent = 0

    @property
    def has_room(self) -> bool:
        return len(self._replies) < _CREDIT

    def add(self, link: Link) -> None:
        self._receivers.append(link)

    def remove(self, link: Link) -> None:
        self._receivers.remove(link)

    def reply(self, request: Link, message: Message) -> None:
        self._replies.append((request, encode_message(message)))
        self.send()

    def send(self) -> None:
        """What there is credit for: each reply on a link of its request's session, or on any if it has none."""
        for _ in range(len(self._replies)):
            request, payload = self._replies.popleft()
            link = self._link_for(request)
            if link is None or link.credit <= 0 or not self.context.may_send(link):
                self._replies.append((request, payload))
                continue
            self._sent += 1
            settled = link.asked.snd_settle_mode == SETTLED
            self.context.core.transfer(link, self._sent.to_bytes(4), payload, settled=settled)
        self.context.flush_soon()

    def _link_for(self, request: Link) -> Link | None:
        same = [link for link in self._receivers if link.session is request.session]
        links = same or self._receivers
        return links[-1] if links else None


class _Requests(BaseLinkHead):
    """A link on which tokens come."""

    def __init__(self, node: _Node, link: Link) -> None:
        self._node = node
        self._link = link
        self._context = node.context

    def opened(self) -> None:
        self._context.core.grant(self._link, _CREDIT)

    def delivery(self, delivery: Delivery) -> None:
        core = self._context.core
        try:
            message = decode_message(delivery.payload)
        except DecodeError as fault:
            error = ArgumentInvalidError(f"The message cannot be read: {fault}")
            core.settle(self._link, [delivery.delivery_id], Rejected(self._context.error(error)))
            self._top_up()
            return
        core.settle(self._link, [delivery.delivery_id], Accepted())
        self._context.in_order(self._answer(message))

    async def _answer(self, message: Message) -> None:
        name = lookup(message.application_properties, "name")
        operation = Operation("put-token", name if isinstance(name, str) else "")
        code, description = _OK, "OK"
        try:
            await self._perform(message, name)
        except ServiceError as error:
            tracking_id = error.tracking_id or self._context.tracking_id()
            operation.finished(error.code, tracking_id)
            code, description = error.status, f"{error.name}: {error.message} Tracking ID:{tracking_id}"
        except Exception:  # noqa: BLE001 - the client gets an answer whatever happened
            tracking_id = self._context.tracking_id()
            operation.failed(tracking_id)
            code, description = ServerError().status, f"{ServerError.message} Tracking ID:{tracking_id}"
        else:
            operation.finished("accepted")
        message_id = message.properties.message_id if message.properties else None
        outcome: dict[Value, Value] = {"status-code": Int(code), "status-description": description}
        self._node.reply(
            self._link,
            Message(
                properties=Properties(correlation_id=message_id), application_properties=outcome, body=AmqpValue(None)
            ),
        )
        self._top_up()

    async def _perform(self, message: Message, name: Value) -> None:
        claims = self._context.claims
        audience = name if isinstance(name, str) else ""
        match lookup(message.application_properties, "operation"):
            case "put-token":
                await claims.put(_token(message), audience)
            case "delete-token":
                claims.delete(audience)
            case _:
                raise NotAllowedError("operation is neither put-token nor delete-token.")

    def _top_up(self) -> None:
        if self._link.credit <= _CREDIT // 2 and self._node.has_room:
            self._context.core.grant(self._link, _CREDIT)
            self._context.flush_soon()


class _Replies(BaseLinkHead):
    """A link on which answers go."""

    def __init__(self, node: _Node, link: Link) -> None:
        self._node = node
        self._link = link

    def opened(self) -> None:
        self._node.add(self._link)

    def credit(self, credit: Credit) -> None:
        self._node.send()
        if credit.drain:
            self._node.context.core.drained(self._link)

    def resumed(self) -> None:
        self._node.send()

    def disposed(self, disposed: Disposed) -> None:
        if not disposed.settled:
            self._node.context.core.settle(self._link, [disposed.delivery_id], disposed.state, role=SENDER)

    def closed(self) -> None:
        self._node.remove(self._link)


async def open_cbs(context: LinkContext, link: Link, address: Address) -> LinkOpening | None:
    """The opener of ``$cbs``, for which nobody has to have proved anything yet."""
    if address.words != (_NODE,):
        return None
    node = context.shared.get(_NODE)
    if node is None:
        node = context.shared[_NODE] = _Node(context)
    head = _Requests(node, link) if link.role == RECEIVER else _Replies(node, link)
    return LinkOpening(head, _MAXIMUM_MESSAGE_SIZE)


def _token(message: Message) -> str:
    """Raises ArgumentInvalidError."""
    match message.body:
        case AmqpValue(value=str() as text):
            return text
        case AmqpValue(value=bytes() as octets):
            return octets.decode(errors="replace")
        case Data() as data:
            return data.joined().decode(errors="replace")
    raise ArgumentInvalidError("The body holds no token.")
