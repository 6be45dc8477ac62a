"""The bus port, and the bus of one process.

Not here: anything that must not be lost. The truth is in the database; the bus only *wakes* (a message is waiting,
a session was taken over) or carries one question with a time limit, and it may lose anything (style-models.md 11.4
d).

Subjects are compared whole, there are no wildcards; any text is one. Handlers are ordinary functions that the
event loop calls soon, never from within ``publish`` or ``request``.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol


class NoResponderError(Exception):
    """Nobody is subscribed to the subject of a request, so nobody will answer."""


class Message:
    """What a handler is given. ``reply(data)`` answers a request, now or later; for a publication it does nothing."""

    __slots__ = ("_answer", "data", "subject")

    def __init__(self, subject: str, data: bytes, answer: Callable[[bytes], None] | None = None) -> None:
        self.subject = subject
        self.data = data
        self._answer = answer

    def reply(self, data: bytes) -> None:
        if self._answer is not None:
            self._answer(data)


Handler = Callable[[Message], None]


class Subscription(Protocol):
    """What ``subscribe`` returns; ``close()`` ends it at once: not even what is already under way is delivered."""

    def close(self) -> None: ...


class Bus(Protocol):
    """All methods are called on one event loop."""

    def publish(self, subject: str, data: bytes) -> None:
        """Tell every subscriber of ``subject``, if there are any."""
        ...

    def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Call ``handler`` for every message on ``subject`` from now on."""
        ...

    async def request(self, subject: str, data: bytes, seconds: float) -> bytes:
        """Ask the subscribers of ``subject``; the first reply is the answer, later ones are dropped.

        Errors: NoResponderError at once when nobody is subscribed; TimeoutError when no reply came in ``seconds``.
        """
        ...

    async def close(self) -> None:
        """End all subscriptions."""
        ...


class _LocalSubscription:
    """One handler of one subject."""

    __slots__ = ("_bus", "_handler", "_subject")

    def __init__(self, bus: "LocalBus", subject: str, handler: Handler) -> None:
        self._bus: LocalBus | None = bus
        self._subject = subject
        self._handler = handler

    def deliver(self, message: Message) -> None:
        if self._bus is not None:
            self._handler(message)

    def close(self) -> None:
        if self._bus is not None:
            self._bus.forget(self._subject, self)
            self._bus = None


class LocalBus:
    """The bus of one process. A handler that fails is reported to the event loop and harms no other."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        # In the order of subscribing; a subject without subscriptions is not kept, there may be one for each device.
        self._subscriptions: dict[str, list[_LocalSubscription]] = {}

    def publish(self, subject: str, data: bytes) -> None:
        self._send(Message(subject, data))

    def subscribe(self, subject: str, handler: Handler) -> Subscription:
        subscription = _LocalSubscription(self, subject, handler)
        self._subscriptions.setdefault(subject, []).append(subscription)
        return subscription

    async def request(self, subject: str, data: bytes, seconds: float) -> bytes:
        answer: asyncio.Future[bytes] = self._loop.create_future()

        def reply(data: bytes) -> None:
            if not answer.done():
                answer.set_result(data)

        if not self._send(Message(subject, data, reply)):
            raise NoResponderError(subject)
        async with asyncio.timeout(seconds):
            return await answer

    def _send(self, message: Message) -> int:
        """Returns to how many."""
        subscriptions = self._subscriptions.get(message.subject, ())
        for subscription in subscriptions:
            self._loop.call_soon(subscription.deliver, message)
        return len(subscriptions)

    def forget(self, subject: str, subscription: _LocalSubscription) -> None:
        """For a subscription that closes."""
        subscriptions = self._subscriptions[subject]
        subscriptions.remove(subscription)
        if not subscriptions:
            del self._subscriptions[subject]

    async def close(self) -> None:
        for subscriptions in list(self._subscriptions.values()):
            for subscription in list(subscriptions):
                subscription.close()
