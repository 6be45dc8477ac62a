"""Nodes that answer: a client sends requests on one link and gets each reply on another (``$cbs``, ``$management``).

What clients insist on: a request is accepted *before* its reply is sent (uamqp); the reply's correlation id has the
AMQP type of the request's message id (Java, C, pyamqp). Which address a reply should go to is not read: clients name it
in several ways, and have one link for replies in a session. Sources: hub-service.md 6.3, A.3.

Not here: what is asked, and who may ask it.
"""

from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

from muster.domain.errors import ArgumentInvalidError
from muster.frontends.amqp.links import BaseLinkHead, LinkContext, LinkOpening
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_messages import Message, Properties
from muster.wire.amqp_performatives import RECEIVER, SENDER, SETTLED, Accepted, Rejected
from muster.wire.amqp_sessions import Credit, Delivery, Disposed, Link
from muster.wire.amqp_types import DecodeError

_CREDIT: Final = 100
_MAXIMUM_MESSAGE_SIZE: Final = 65_536

Answer = Callable[[Message], Awaitable[Message]]
"""The reply to a request; it raises nothing. Its properties are replaced."""


class RequestNode:
    """The node as one connection sees it: requests on some links, replies on others."""

    def __init__(self, context: LinkContext, answer: Answer) -> None:
        self.context = context
        self.answer = answer
        self._replies: deque[tuple[Link, bytes]] = deque()
        self._receivers: list[Link] = []
        self._requests: list[_Requests] = []
        self._sent = 0

    def open(self, link: Link) -> LinkOpening:
        """One more link of the node, in either direction."""
        head = _Requests(self, link) if link.role == RECEIVER else _Replies(self, link)
        return LinkOpening(head, _MAXIMUM_MESSAGE_SIZE)

    def ask(self, head: "_Requests") -> None:
        self._requests.append(head)

    def forget(self, head: "_Requests") -> None:
        if head in self._requests:
            self._requests.remove(head)

    @property
    def has_room(self) -> bool:
        return len(self._replies) < _CREDIT

    def add(self, link: Link) -> None:
        self._receivers.append(link)

    def remove(self, link: Link) -> None:
        if link in self._receivers:
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
        for head in self._requests:
            head.top_up()
        self.context.flush_soon()

    def _link_for(self, request: Link) -> Link | None:
        same = [link for link in self._receivers if link.session is request.session]
        links = same or self._receivers
        return links[-1] if links else None


class _Requests(BaseLinkHead):
    """A link on which requests come."""

    def __init__(self, node: RequestNode, link: Link) -> None:
        self._node = node
        self._link = link
        self._context = node.context

    def opened(self) -> None:
        self._node.ask(self)
        self._context.core.grant(self._link, _CREDIT)

    def closed(self) -> None:
        self._node.forget(self)

    def delivery(self, delivery: Delivery) -> None:
        core = self._context.core
        try:
            message = decode_message(delivery.payload)
        except DecodeError as fault:
            error = ArgumentInvalidError(f"The message cannot be read: {fault}")
            core.settle(self._link, [delivery.delivery_id], Rejected(self._context.error(error)))
            self.top_up()
            return
        core.settle(self._link, [delivery.delivery_id], Accepted())
        self._context.in_order(self._answer(message))

    async def _answer(self, message: Message) -> None:
        reply = await self._node.answer(message)
        message_id = message.properties.message_id if message.properties else None
        reply.properties = Properties(correlation_id=message_id)
        self._node.reply(self._link, reply)

    def top_up(self) -> None:
        """Grant credit again, when most of it is used up and replies do not wait."""
        if self._link.credit <= _CREDIT // 2 and self._node.has_room:
            self._context.core.grant(self._link, _CREDIT)
            self._context.flush_soon()


class _Replies(BaseLinkHead):
    """A link on which answers go."""

    def __init__(self, node: RequestNode, link: Link) -> None:
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
