"""Service clients that receive what becomes of their messages: the link ``/messages/serviceBound/feedback``.

*Theory of operation.* The batches of a hub are one queue, and all receivers compete for it. A batch goes out under a
lock, whose token is the delivery tag; the receiver's outcome settles it. What a link leaves unsettled when it ends
waits again at once, and what it holds too long when its lock lapses: for this link too, for each lock has a receiver's
name of its own.

Sources: hub-service.md 6.6, 6.7, A.3, A.4. Not here: how batches come to be (``hub/feedback.py``). File uploads do not
exist yet, so their link is silent.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from uuid import UUID

from muster.domain.access_policy import Right
from muster.domain.c2d_message import C2dDelivery
from muster.domain.errors import MessageLockLostError, NotAllowedError, ServiceError
from muster.frontends import status
from muster.frontends.amqp.addresses import Address
from muster.frontends.amqp.claims import ServiceClaim
from muster.frontends.amqp.links import BaseLinkHead, LinkContext, LinkOpening
from muster.frontends.amqp.service import hub_of
from muster.frontends.tasks import Tasks
from muster.hub.c2d_messages import Following
from muster.hub.feedback import Feedback
from muster.hub.hubs import Hubs, UnknownHubError
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_messages import Data, Message, Properties
from muster.wire.amqp_performatives import (
    RECEIVER,
    SENDER,
    SETTLED,
    Accepted,
    Modified,
    Received,
    Rejected,
    Released,
    State,
)
from muster.wire.amqp_sessions import Credit, Disposed, Link
from muster.wire.amqp_types import Symbol, Timestamp

_log = logging.getLogger("muster.amqp")

_FEEDBACK = ("messages", "servicebound", "feedback")
_FILE_NOTIFICATIONS = ("messages", "servicebound", "filenotifications")


@dataclass(frozen=True, slots=True)
class FeedbackLinks:
    """Takes the links of receivers. ``work`` outlives connections: it gives back what they held."""

    hubs: Hubs
    feedback: Feedback
    work: Tasks = field(default_factory=Tasks)

    async def open(self, context: LinkContext, link: Link, address: Address) -> LinkOpening | None:
        """Raises UnauthorizedAccessError, NotFoundError, and NotAllowedError for a sender."""
        if address.words not in (_FEEDBACK, _FILE_NOTIFICATIONS):
            return None
        hub = hub_of(self.hubs, context)
        claim = await context.claims.service(hub, (Right.SERVICE_CONNECT,), address.segments)
        if link.role == RECEIVER:
            raise NotAllowedError(f"From {address.text} messages are received; nothing can be sent to it.")
        if address.words == _FILE_NOTIFICATIONS:
            return LinkOpening(SilentHead(context, link, claim))
        return LinkOpening(FeedbackHead(context, link, hub.name, claim, self.feedback, self.work))


class SilentHead(BaseLinkHead):
    """A receiver's link on which nothing comes. It ends with the right to it."""

    def __init__(self, context: LinkContext, link: Link, claim: ServiceClaim) -> None:
        self._context = context
        self._link = link
        self._claim = claim
        self._unwatch: Callable[[], None] | None = None

    def opened(self) -> None:
        self._unwatch = self._context.claims.watch(self._claim, self._end)

    def _end(self, error: ServiceError) -> None:
        self._context.detach(self._link, error)

    def credit(self, credit: Credit) -> None:
        if credit.drain:
            self._context.core.drained(self._link)

    def closed(self) -> None:
        if self._unwatch is not None:
            self._unwatch()


class FeedbackHead(SilentHead):
    """One receiver's link."""

    def __init__(
        self, context: LinkContext, link: Link, hub: str, claim: ServiceClaim, feedback: Feedback, work: Tasks
    ) -> None:
        super().__init__(context, link, claim)
        self._hub = hub
        self._feedback = feedback
        self._work = work
        self._name = context.tracking_id()
        self._count = 0
        # Delivery id -> who holds the lock, and its token.
        self._held: dict[int, tuple[str, str]] = {}
        self._settles = link.asked.snd_settle_mode == SETTLED
        self._following: Following | None = None
        self._is_closed = False
        self._sending = False
        self._wanted = False

    def opened(self) -> None:
        super().opened()
        self._following = self._feedback.follow(self._hub, self._wake)

    def credit(self, credit: Credit) -> None:
        del credit
        self._wake()

    def resumed(self) -> None:
        self._wake()

    def closed(self) -> None:
        super().closed()
        self._is_closed = True
        if self._following is not None:
            self._following.close()
        held, self._held = self._held, {}
        if held:
            self._work.spawn(self._give_back([receiver for receiver, _ in held.values()]))

    # Sending

    def _wake(self) -> None:
        self._wanted = True
        if not self._sending and not self._is_closed and (self._link.credit > 0 or self._link.drain):
            self._sending = True
            # Not a task of the connection: a lock that is just being taken must be given back.
            self._work.spawn(self._send())

    async def _send(self) -> None:
        try:
            while self._wanted and self._has_room():
                self._wanted = False
                while self._has_room() and await self._send_next():
                    pass
            if self._link.drain and not self._is_closed:
                self._context.core.drained(self._link)
                self._context.flush_soon()
        except ServiceError as error:
            if not self._is_closed:
                self._context.detach(self._link, error)
                self._context.flush_soon()
        except UnknownHubError:
            _log.info("%s: the hub %s was deleted", self._context.describe(), self._hub)
        finally:
            self._sending = False

    def _has_room(self) -> bool:
        return not self._is_closed and self._link.credit > 0 and self._context.may_send(self._link)

    async def _send_next(self) -> bool:
        """Lock the next batch and send it; False when none waits."""
        self._count += 1
        receiver = f"{self._name}/{self._count}"
        batch = await self._feedback.lock_next(self._hub, receiver)
        if batch is None:
            return False
        if not self._has_room():
            await self._give_back([receiver])
            return False
        tag = UUID(batch.lock_token).bytes_le
        delivery_id = self._context.core.transfer(self._link, tag, encode_batch(batch), settled=self._settles)
        self._context.flush_soon()
        if self._settles:
            await self._settle(batch.lock_token, Accepted())
        else:
            self._held[delivery_id] = (receiver, batch.lock_token)
        return True

    async def _give_back(self, receivers: list[str]) -> None:
        for receiver in receivers:
            try:
                await self._feedback.release(self._hub, receiver)
            except ServiceError as error:
                _log.warning("a batch of feedback waits until its lock lapses: %s", error)

    # Settlement

    def disposed(self, disposed: Disposed) -> None:
        state = disposed.state
        if isinstance(state, Received) or (state is None and not disposed.settled):
            return  # not its last word
        held = self._held.pop(disposed.delivery_id, None)
        if held is not None:
            self._work.spawn(self._judge(disposed, *held))

    async def _judge(self, disposed: Disposed, receiver: str, lock_token: str) -> None:
        source = self._link.asked.source
        state = disposed.state or (source.default_outcome if source else None)
        if not isinstance(state, Accepted | Rejected | Released | Modified):
            await self._give_back([receiver])
            answer: State = Accepted()
        else:
            answer = await self._settle(lock_token, state)
        if not disposed.settled and not self._is_closed:
            self._context.core.settle(self._link, (disposed.delivery_id,), answer, role=SENDER)
            self._context.flush_soon()

    async def _settle(self, lock_token: str, state: State) -> State:
        """What a receiver that settles second is told: ``accepted`` whatever its outcome was, or why not.

        .NET takes any other answer as a failure; Azure's own servers say ``accepted`` to ``released`` too.
        """
        try:
            if isinstance(state, Released | Modified):
                await self._feedback.abandon(self._hub, lock_token)
            else:
                await self._feedback.complete(self._hub, lock_token)
        except UnknownHubError:
            return Accepted()  # it was deleted, and its feedback with it
        except ServiceError as error:
            if isinstance(error, MessageLockLostError):
                _log.info("%s: feedback was settled after its lock had lapsed", self._context.describe())
            else:
                _log.warning("%s: feedback could not be settled: %s", self._context.describe(), error)
            return Rejected(status.amqp_outcome_error(error, self._context.tracking_id(), self._context.clock()))
        return Accepted()


def encode_batch(batch: C2dDelivery) -> bytes:
    """A batch of feedback as it travels (hub-service.md 6.6)."""
    properties = batch.properties
    return encode_message(
        Message(
            message_annotations={Symbol("iothub-enqueuedtime"): Timestamp(batch.enqueued_time // 1000)},
            properties=Properties(
                message_id=properties.message_id,
                user_id=properties.user_id.encode(),
                to=properties.to,
                content_type=properties.content_type,
            ),
            body=Data((batch.body,)),
        )
    )
