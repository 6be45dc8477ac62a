"""Consumer groups of the event logs of all hubs: list, create, delete. Sources: hub-service.md 10.

Not here: reading events (``partition_readers.py``), and where a reader stands.
"""

from collections.abc import Callable

from muster.bus.bus import Bus
from muster.domain.consumer_group import (
    DEFAULT_GROUP,
    MAXIMUM_GROUPS,
    ConsumerGroup,
    is_default,
    require_group_name,
)
from muster.domain.errors import ForbiddenError, QuotaExceededError
from muster.store.database import Database, Transaction

CONSUMER_GROUP_DELETED = "consumer-group-deleted"
"""The bus subject on which it is told; the message is hub and group in lower case, with a NUL between them."""


class ConsumerGroups:
    """The groups of all hubs; every operation names its hub. ``$Default`` is always there."""

    def __init__(self, database: Database, bus: Bus, clock: Callable[[], int]) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock

    async def all(self, hub: str) -> list[ConsumerGroup]:
        """``$Default`` first, the others in the order of their names."""
        rows = await self._database.fetch_all(
            "SELECT g.name, g.created FROM consumer_group g WHERE g.hub = :hub ORDER BY g.name_key", hub=hub
        )
        return [await self._default(hub), *(ConsumerGroup(*row) for row in rows)]

    async def find(self, hub: str, name: str) -> ConsumerGroup | None:
        """By its name in any case."""
        if is_default(name):
            return await self._default(hub)
        row = await self._database.fetch_one(
            "SELECT name, created FROM consumer_group WHERE hub = :hub AND name_key = :key", hub=hub, key=name.lower()
        )
        return ConsumerGroup(*row) if row else None

    async def _default(self, hub: str) -> ConsumerGroup:
        """As old as its hub."""
        row = await self._database.fetch_one("SELECT created FROM hub WHERE name = :hub", hub=hub)
        return ConsumerGroup(DEFAULT_GROUP, row[0] if row else 0)

    async def put(self, hub: str, name: str) -> ConsumerGroup:
        """The group, which is made unless it exists. Raises ArgumentInvalidError and QuotaExceededError."""
        known = await self.find(hub, name)
        if known is not None:
            return known
        require_group_name(name)

        async def transaction(tx: Transaction) -> None:
            await tx.fetch_one("SELECT name FROM hub WHERE name = :hub {for_update}", hub=hub)
            row = await tx.fetch_one("SELECT count(*) FROM consumer_group WHERE hub = :hub", hub=hub)
            if row is not None and row[0] + 1 >= MAXIMUM_GROUPS:  # $Default has no row
                raise QuotaExceededError(f"There are {row[0] + 1} consumer groups; {MAXIMUM_GROUPS} are allowed.")
            await tx.execute(
                "INSERT INTO consumer_group (hub, name_key, name, created) VALUES (:hub, :key, :name, :now)"
                " ON CONFLICT DO NOTHING",
                hub=hub,
                key=name.lower(),
                name=name,
                now=self._clock(),
            )

        await self._database.transact(transaction)
        made = await self.find(hub, name)
        return made or ConsumerGroup(name, self._clock())

    async def delete(self, hub: str, name: str) -> bool:
        """Delete it; False when there was none. Raises ForbiddenError for ``$Default``."""
        if is_default(name):
            raise ForbiddenError(f"The consumer group {DEFAULT_GROUP} stays.")

        async def transaction(tx: Transaction) -> bool:
            deleted = await tx.execute(
                "DELETE FROM consumer_group WHERE hub = :hub AND name_key = :key", hub=hub, key=name.lower()
            )
            return bool(deleted)

        found = await self._database.transact(transaction)
        if found:
            self._bus.publish(CONSUMER_GROUP_DELETED, f"{hub}\0{name.lower()}".encode())
        return found
