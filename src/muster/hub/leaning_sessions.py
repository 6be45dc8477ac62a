"""Connections that lean on a policy or on CA certificates of their hub: told to judge themselves again when those
change.

Sources: hub-device.md 12. Not here: changes of identities, of which each session hears itself (``sessions.py``), and
how a connection ends.
"""

import asyncio
import logging

from muster.bus.bus import Bus, Message, Subscription
from muster.hub.authorities import hub_certificates_changed_subject
from muster.hub.grounds import Grounds
from muster.hub.hubs import HUBS_CHANGED, Hubs
from muster.hub.sessions import Notice, Sessions

_log = logging.getLogger("muster.hub")

_AT_ONCE = 100
"""Connections that are looked at before others get their turn."""

_AGAIN_SECONDS = 1.0


class LeaningSessions:
    """The connections of this node, looked at after each change of a hub's policies or CA certificates."""

    def __init__(self, sessions: Sessions, grounds: Grounds, hubs: Hubs, bus: Bus) -> None:
        self._sessions = sessions
        self._grounds = grounds
        self._hubs = hubs
        self._bus = bus
        self._subscriptions: dict[str, Subscription] = {}
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Watch until ``stop``."""
        self._follow(HUBS_CHANGED)
        self._follow_hubs()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        for subscription in self._subscriptions.values():
            subscription.close()
        self._subscriptions.clear()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    def _follow_hubs(self) -> None:
        for hub in self._hubs.all:
            self._follow(hub_certificates_changed_subject(hub.name))

    def _follow(self, subject: str) -> None:
        if subject not in self._subscriptions:
            self._subscriptions[subject] = self._bus.subscribe(subject, self._tell)

    def _tell(self, _message: Message) -> None:
        self._changed.set()

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            self._follow_hubs()
            try:
                await self._look()
            except Exception:  # noqa: BLE001 - whatever it is, the connections have to be looked at
                _log.exception("connections could not be looked at after a change of their hub")
                await asyncio.sleep(_AGAIN_SECONDS)
                self._changed.set()

    async def _look(self) -> None:
        for number, session in enumerate(self._sessions.here, 1):
            if await self._grounds.changed(session.principal):
                session.deliver(Notice.IDENTITY_CHANGED)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
