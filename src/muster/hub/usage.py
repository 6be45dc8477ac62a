"""What a hub has used of its daily quota: messages that it took since midnight UTC. Sources: hub-service.md 10, 11.

Nothing here refuses anything.
"""

from collections.abc import Callable

from muster.domain.timestamp import SECOND
from muster.store.database import Database

_DAY = 86_400 * SECOND
_MESSAGES_A_DAY = {"F1": 8_000, "B1": 400_000, "S1": 400_000, "B2": 6_000_000, "S2": 6_000_000}
_LARGEST = 300_000_000


class HubUsage:
    """The usage of all hubs."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    async def messages_today(self, hub: str) -> int:
        """Of those that are still kept."""
        now = self._clock()
        row = await self._database.fetch_one(
            "SELECT coalesce(sum(message_count), 0) FROM event_batch WHERE hub = :hub AND enqueued_time >= :midnight",
            hub=hub,
            midnight=now - now % _DAY,
        )
        return int(row[0]) if row else 0


def messages_a_day(sku: str, units: int) -> int:
    """What a hub of that size may take in Azure."""
    return _MESSAGES_A_DAY.get(sku.upper(), _LARGEST) * units
