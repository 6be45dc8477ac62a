"""How many rows of a kind a provisioning service may have, counted so that no two writers share the last place.

Sources: dps.md 6.10. Not here: limits of a single document or request, which are rules of what they limit.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from muster.domain.errors import QuotaExceededError
from muster.domain.timestamp import SECOND
from muster.store.database import Database, Transaction

_FRESH = 10 * SECOND
_MARGIN = 100_000
"""Rows that cannot be written while an older count still serves."""


@dataclass(frozen=True, slots=True)
class Quotas:
    """What Azure documents (dps.md 6.10); the groups of each attestation type are counted for themselves."""

    registrations: int = 1_000_000
    individual_enrollments: int = 1_000_000
    groups_of_a_type: int = 100


@dataclass(frozen=True, slots=True)
class _Count:
    rows: int
    read: int


class Quota:
    """The rows of one table. ``what`` are they, in the plural."""

    def __init__(self, database: Database, clock: Callable[[], int], table: str, what: str, maximum: int) -> None:
        self._database = database
        self._clock = clock
        self._table = table
        self._what = what
        self._maximum = maximum
        self._known: dict[str, _Count] = {}
        self._counting = asyncio.Lock()

    async def is_near(self, id_scope: str) -> bool:
        """Whether a new row has to be counted in its transaction.

        Counting a million rows takes long, so far below the maximum a count that is some seconds old is enough.
        """
        if self._maximum <= _MARGIN:
            return True
        known = self._recent(id_scope)
        if known is None:
            async with self._counting:
                known = self._recent(id_scope) or await self._read(id_scope)
        return known.rows + _MARGIN >= self._maximum

    def _recent(self, id_scope: str) -> _Count | None:
        known = self._known.get(id_scope)
        return known if known is not None and 0 <= self._clock() - known.read < _FRESH else None

    async def _read(self, id_scope: str) -> _Count:
        row = await self._database.fetch_one(
            f"SELECT count(*) FROM {self._table} WHERE id_scope = :id_scope", id_scope=id_scope
        )
        assert row is not None, "a count has a row"
        known = self._known[id_scope] = _Count(row[0], self._clock())
        return known

    async def require_room(self, tx: Transaction, id_scope: str) -> None:
        """Raise QuotaExceededError unless there is room for one more row, which is this transaction's until it ends."""
        await lock_counts(tx, id_scope)
        row = await tx.fetch_one(f"SELECT count(*) FROM {self._table} WHERE id_scope = :id_scope", id_scope=id_scope)
        require_below(row[0] if row else 0, self._maximum, self._what)


async def lock_counts(tx: Transaction, id_scope: str) -> None:
    """Let the transactions that add rows to one service take turns, where they could exceed a maximum together."""
    await tx.fetch_one("SELECT 1 FROM provisioning_service WHERE id_scope = :id_scope {for_update}", id_scope=id_scope)


def require_below(count: int, maximum: int, what: str) -> None:
    """Raise QuotaExceededError when ``count`` of ``what`` are as many as are allowed."""
    if count >= maximum:
        raise QuotaExceededError(f"There are {count} {what}; {maximum} are allowed.")
