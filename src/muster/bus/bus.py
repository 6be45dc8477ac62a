"""The bus port and the in-process bus: wake somebody, or ask one question with a time limit.

The bus may lose anything: truth is in the database, so a lost message costs time and nothing else (style-models.md
11.4 d). Subjects are exact; there are no wildcards.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

_log = logging.getLogger("muster.bus")

Handler = Callable[[bytes], None]
Answer = Callable[[bytes], bytes | None]


class Subscription(Protocol):
    """An interest in a subject, until it is closed."""

    def close(self) -> None:
        """After this the handler is not called any more. Twice is fine."""
        ...


class Bus(Protocol):
    """What both buses do. Handlers run on the event loop, soon after, never inside ``publish``."""

    def publish(self, subject: str, data: bytes) -> None:
        """Tell all who subscribed; nobody may be there."""
        ...

    def subscribe(self, subject: str, handler: Handler) -> Subscription:
        """Call ``handler(data)`` for each message on ``subject``."""
        ...


class LocalBus:
    """The bus of a single process."""

    def __init__(self) -> None:
        self._subscriptions: dict[str, list[_LocalSubscription]] = {}

    def publish(self, subject: str, data: bytes) -> None:
        subscriptions = self._subscriptions.get(subject)
        if subscriptions:
            asyncio.get_running_loop().call_soon(_deliver, tuple(subscriptions), data)

    def subscribe(self, subject: str, handler: Handler) -> Subscription:
        subscription = _LocalSubscription(self, subject, handler)
        self._subscriptions.setdefault(subject, []).append(subscription)
        return subscription

    def leave(self, subscription: "_LocalSubscription") -> None:
        there = self._subscriptions.get(subscription.subject, [])
        if subscription in there:
            there.remove(subscription)
        if not there:
            self._subscriptions.pop(subscription.subject, None)


class _LocalSubscription:
    __slots__ = ("_bus", "closed", "handler", "subject")

    def __init__(self, bus: LocalBus, subject: str, handler: Handler) -> None:
        self._bus = bus
        self.subject = subject
        self.handler = handler
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self._bus.leave(self)


def _deliver(subscriptions: tuple[_LocalSubscription, ...], data: bytes) -> None:
    for subscription in subscriptions:
        if not subscription.closed:
            try:
                subscription.handler(data)
            except Exception:  # noqa: BLE001 - one bad handler must not keep the others from hearing
                _log.exception("a handler of %s failed", subscription.subject)
