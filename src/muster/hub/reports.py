"""Reports of refusals: recorded under their tracking id before the client gets its answer, and found again.

Both services use this. Their number and age are bounded. Not here: the checks that a report holds.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from muster.domain.documents import encode, read
from muster.domain.report import LONGEST_SUBJECT, Report, bounded, clipped
from muster.domain.timestamp import DAY, iso_utc
from muster.observe import redact
from muster.store.database import Database, Transaction

MAXIMUM_REPORTS = 10_000
MAXIMUM_AGE = 30 * DAY
_PRUNE_EVERY = 100


@dataclass(frozen=True, slots=True)
class Attempt:
    """Who tried what: the part of a report that is known before any check ran.

    ``service`` is ``dps`` or ``hub``; ``scope`` its id scope or hub name; ``peer`` describes the connection.
    """

    service: str
    scope: str
    operation: str
    subject: str
    credential: str
    peer: str


class Reports:
    """The stored reports of all services of this Muster."""

    def __init__(self, database: Database, clock: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._recorded = 0

    def new_tracking_id(self) -> str:
        """A guid, as Azure's tracking ids begin."""
        digits = self._entropy(16).hex()
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))

    async def record(self, report: Report) -> None:
        """Store a report; when this returns, ``find`` finds it."""

        async def body(tx: Transaction) -> None:
            await self.insert(tx, report)

        await self._database.transact(body)

    async def insert(self, tx: Transaction, report: Report) -> None:
        """The same, inside a transaction of the caller. A token that a client put where an id belongs is taken out."""
        report = bounded(report)
        await tx.execute(
            "INSERT INTO report (tracking_id, scope, service, subject_key, time, document)"
            " VALUES (:tracking_id, :scope, :service, :subject_key, :time, :document)"
            # A registration that was accepted with a warning and then failed: the failure is what counts.
            " ON CONFLICT (tracking_id) DO UPDATE SET time = excluded.time, document = excluded.document",
            tracking_id=report.tracking_id,
            scope=report.scope,
            service=report.service,
            subject_key=redact(report.subject).lower(),
            time=report.time,
            document=redact(encode(report)),
        )
        self._recorded += 1
        if self._recorded % _PRUNE_EVERY == 1:
            await self._prune(tx)

    async def _prune(self, tx: Transaction) -> None:
        await tx.execute("DELETE FROM report WHERE time < :oldest", oldest=self._clock() - MAXIMUM_AGE)
        boundary = await tx.fetch_one(
            "SELECT time FROM report ORDER BY time DESC LIMIT 1 OFFSET :maximum", maximum=MAXIMUM_REPORTS
        )
        if boundary is not None:
            await tx.execute("DELETE FROM report WHERE time <= :time", time=boundary[0])

    async def find(self, identifier: str, limit: int = 20) -> list[Report]:
        """Reports under a tracking id, or of a registration or device id in any case; newest first."""
        rows = await self._database.fetch_all(
            "SELECT document FROM report WHERE tracking_id = :tracking_id OR subject_key = :subject_key"
            " ORDER BY time DESC LIMIT :limit",
            tracking_id=_tracking_guid(identifier),
            subject_key=redact(clipped(identifier, LONGEST_SUBJECT)).lower(),
            limit=limit,
        )
        return [read(row[0], Report) for row in rows]

    async def latest(self, limit: int = 20, service: str | None = None) -> list[Report]:
        """The newest reports, of one service or of both."""
        rows = await self._database.fetch_all(
            "SELECT document FROM report WHERE service = :service OR :service = '' ORDER BY time DESC LIMIT :limit",
            service=service or "",
            limit=limit,
        )
        return [read(row[0], Report) for row in rows]


def _tracking_guid(text: str) -> str:
    """The guid inside a tracking id as clients print it: 32 hex digits without hyphens, with ``-G:..-TimeStamp:..``
    behind.
    """
    head = text.strip().lower().partition("-g")[0] if "timestamp:" in text.lower() else text.strip().lower()
    digits = head.replace("-", "")
    if len(digits) == 32 and all(digit in "0123456789abcdef" for digit in digits):  # noqa: PLR2004 - a guid's digits
        return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))
    return text


def report_view(report: Report) -> dict[str, Any]:
    """A report as JSON: the stored form with its time in ISO 8601."""
    view: dict[str, Any] = msgspec.to_builtins(report)
    view["timeUtc"] = iso_utc(view.pop("time"))
    return view
