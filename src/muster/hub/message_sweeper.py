"""What becomes due while nobody asks: messages expire, locks lapse, feedback goes out.

Readers do the same for their own queue, so this only bounds how late others hear of it. Not here: the rules.
"""

from collections.abc import Callable

from muster.bus.bus import Bus
from muster.domain.c2d_message import C2dSettings
from muster.hub import message_queue
from muster.hub.c2d_messages import c2d_subject
from muster.hub.feedback import Feedback, feedback_queue, feedback_subject
from muster.hub.hubs import Hubs, UnknownHubError
from muster.hub.message_queue import Queue
from muster.hub.sweeping import Sweeping
from muster.store.database import Database, Transaction

SWEEP_SECONDS = 1.0
_AT_ONCE = 200


class MessageSweeper(Sweeping):
    """Sweeps the queues of all hubs, a bounded number of messages in one transaction."""

    what = "messages"
    seconds = SWEEP_SECONDS

    def __init__(self, database: Database, bus: Bus, hubs: Hubs, feedback: Feedback, clock: Callable[[], int]) -> None:
        super().__init__()
        self._database = database
        self._bus = bus
        self._hubs = hubs
        self._feedback = feedback
        self._clock = clock

    def _maximum(self, queue: Queue) -> int:
        try:
            settings = self._hubs.by_name(queue.hub).c2d
        except UnknownHubError:  # removed a moment ago
            settings = C2dSettings()
        return (
            settings.feedback.maximum_delivery_count
            if queue == feedback_queue(queue.hub)
            else (settings.maximum_delivery_count)
        )

    async def sweep(self) -> None:
        """Do all that is due now, and tell receivers."""
        while await self._sweep_some() == _AT_ONCE:
            pass
        for (name,) in await self._database.fetch_all("SELECT DISTINCT hub FROM feedback_record"):
            hub = self._hubs.find(name)
            if hub is not None:
                await self._feedback.gather(hub)

    async def _sweep_some(self) -> int:
        now = self._clock()
        if await self._database.fetch_one("SELECT 1 FROM queued_message WHERE due <= :now LIMIT 1", now=now) is None:
            return 0

        async def body(tx: Transaction) -> list[Queue]:
            return await message_queue.settle_all_due(tx, self._maximum, now, _AT_ONCE)

        queues = await self._database.transact(body)
        for queue in dict.fromkeys(queues):
            subject = feedback_subject(queue.hub) if queue == feedback_queue(queue.hub) else c2d_subject(*queue)
            self._bus.publish(subject, b"")
        return len(queues)
