"""Cloud-to-device messages over AMQP: one receiver gets what waits for it, under locks that its dispositions settle.

Sources: hub-device.md 5, 9.5, 9.7. Not here: the queue (``hub/c2d_messages.py``).
"""

import logging
from dataclasses import dataclass

from muster.domain.c2d_message import C2dDelivery
from muster.domain.errors import MessageLockLostError, ServiceError
from muster.frontends.amqp.device_links import DeviceHead, DeviceLinks
from muster.frontends.amqp.device_messages import delivery_tag, device_message
from muster.frontends.tasks import Tasks
from muster.hub.c2d_messages import C2dMessages, Following
from muster.wire.amqp_performatives import SENDER, SETTLED, Accepted, Received, Rejected, State
from muster.wire.amqp_sessions import Credit, Disposed, Link

_log = logging.getLogger("muster.amqp")


@dataclass(slots=True)
class _Lock:
    """Of a message that went out. ``until`` is when it lapses, in microseconds; 0 when that has been seen."""

    token: str
    receiver: str
    until: int


class C2dHead(DeviceHead):
    """One link from ``messages/devicebound``."""

    def __init__(self, device: DeviceLinks, link: Link, messages: C2dMessages) -> None:
        super().__init__(device, link)
        self._messages = messages
        self._following: Following | None = None
        self._work = Tasks()  # goes on when the link is gone: what was settled is settled, what was not is given back
        self._leaving = Tasks()
        self._receiver = device.new_receiver()
        self._locks: dict[int, _Lock] = {}
        self._ready: tuple[C2dDelivery, str] | None = None  # locked, by which name; there was no credit then
        self._open = True
        self._sending = False
        self._wanted = False
        self._drain = False

    def opened(self) -> None:
        self._following = self._messages.follow(*self.device.key, self._wake)
        self._wake()

    def credit(self, credit: Credit) -> None:
        self._drain = credit.drain
        self._wake()

    def resumed(self) -> None:
        self._wake()

    def _wake(self) -> None:
        self._wanted = True
        if not self._sending and (self._may_send() or self._drain):
            self._sending = True
            self._work.spawn(self._send())

    def _may_send(self) -> bool:
        link = self.link
        return self._open and not link.detached and link.credit > 0 and self.context.may_send(link)

    async def _send(self) -> None:
        try:
            while self._wanted and self._may_send():
                self._wanted = False
                self._see_lapsed()
                while self._may_send() and await self._send_next():
                    pass
                # A lock that lapsed meanwhile: its message was not for the name by which the last look asked.
                self._wanted |= self._see_lapsed()
            if self._drain and self._open:
                self._drain = False
                self.context.core.drained(self.link)
                self.context.flush_soon()
        finally:
            self._sending = False

    def _see_lapsed(self) -> bool:
        """A message whose lock the device let lapse comes to it again, which needs another name; whether there was
        one.
        """
        now = self.context.clock()
        before = self._receiver
        for lock in self._locks.values():
            if lock.until and lock.until <= now:
                lock.until = 0
                if lock.receiver == self._receiver:
                    self._receiver = self.device.new_receiver()
        return self._receiver != before

    async def _send_next(self) -> bool:
        """Lock the next message and send it; False when none waits, or there is no credit any more."""
        ready, self._ready = self._ready, None
        if ready is not None and ready[0].locked_until > self.context.clock():
            delivery, receiver = ready
        else:
            receiver = self._receiver
            found = await self._messages.lock_next(*self.device.key, receiver)
            if found is None:
                return False
            delivery = found
        if not self._may_send():
            self._ready, self._wanted = (delivery, receiver), True
            return False
        settled = self.link.asked.snd_settle_mode == SETTLED
        delivery_id = self.context.core.transfer(
            self.link, delivery_tag(delivery.lock_token), device_message(delivery), settled=settled
        )
        if settled:
            await self._settle_as(Accepted(), delivery.lock_token)
        else:
            self._locks[delivery_id] = _Lock(delivery.lock_token, receiver, delivery.locked_until)
        self.context.flush_soon()
        return True

    def disposed(self, disposed: Disposed) -> None:
        final = disposed.settled or not (disposed.state is None or isinstance(disposed.state, Received))
        if final and (lock := self._locks.pop(disposed.delivery_id, None)) is not None:
            self._work.spawn(self._settle(disposed, lock.token))

    async def _settle(self, disposed: Disposed, lock_token: str) -> None:
        """Do as the device says, and answer it if it waits for that (hub-device.md 9.5)."""
        state = await self._settle_as(disposed.state, lock_token)
        if not disposed.settled:
            self.context.core.settle(self.link, (disposed.delivery_id,), state, role=SENDER)
            self.context.flush_soon()

    async def _settle_as(self, state: State | None, lock_token: str) -> State | None:
        """The outcome: the same, or why it is another one."""
        try:
            match state:
                case Accepted():
                    await self._messages.complete(*self.device.key, lock_token)
                case Rejected():
                    await self._messages.reject(*self.device.key, lock_token)
                case _:  # released or modified, or settled without a word
                    await self._messages.abandon(*self.device.key, lock_token)
        except MessageLockLostError as error:
            _log.info("%s: a message was settled after its lock had lapsed", self.context.describe())
            return Rejected(self.error(error))
        except ServiceError as error:
            _log.warning("%s: a message could not be settled: %s", self.context.describe(), error)
            return Rejected(self.error(error))
        self.device.active()
        return state

    def closed(self) -> None:
        self._open = False
        if self._following is not None:
            self._following.close()
            self._following = None
        self._leaving.spawn(self._give_back())
        super().closed()

    async def _give_back(self) -> None:
        """What the device did not settle waits again (hub-device.md 9.7)."""
        await self._work.finish()
        receivers = {lock.receiver for lock in self._locks.values() if lock.until}
        if self._ready is not None:
            receivers.add(self._ready[1])
        for receiver in receivers:
            try:
                await self._messages.release(*self.device.key, receiver)
            except ServiceError as error:
                _log.warning("messages for %s wait until their locks lapse: %s", self.device.key[1], error)


class SilentHead(DeviceHead):
    """A link from a module's inputs: only an Edge hub sends there (hub-device.md 5.5)."""

    def credit(self, credit: Credit) -> None:
        if credit.drain:
            self.context.core.drained(self.link)
