"""Connections whose certificate was revoked while they were up: found, reported, and told to judge themselves again.

To be asked after each change of the revocation lists. Not here: a device that connects (``authentication.py``), and
how a connection ends.
"""

import asyncio
import logging
from collections.abc import Callable

from muster.domain.check_table import verdict
from muster.domain.credential import Credential
from muster.domain.report import Check
from muster.domain.revocation import Revocations, check_device
from muster.hub.authentication import refused_report
from muster.hub.reports import Attempt, Reports
from muster.hub.sessions import Notice, Session, Sessions

_log = logging.getLogger("muster.hub")

_AT_ONCE = 100
"""Connections that are judged before others get their turn: some 10 ms."""


class RevokedSessions:
    """The connections of this node, held against the revocation lists of now."""

    def __init__(
        self, sessions: Sessions, reports: Reports, revocations: Revocations, clock: Callable[[], int]
    ) -> None:
        self._sessions = sessions
        self._reports = reports
        self._revocations = revocations
        self._clock = clock
        self._reported: set[str] = set()

    async def end(self) -> int:
        """End those whose certificate, or one above it, is revoked; returns how many there are.

        Each leaves one report. A connection that could not judge itself, as the database was gone, is told again the
        next time. Raises DatabaseUnavailableError when the reports cannot be stored.
        """
        found: list[tuple[Session, tuple[Check, ...]]] = []
        for number, session in enumerate(self._sessions.here, 1):
            checks = self._judge(session)
            if verdict(checks) is not None:
                # As with a changed identity: the connection judges itself again, and finds that it may not go on.
                session.deliver(Notice.IDENTITY_CHANGED)
                found.append((session, checks))
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
        for session, checks in found:
            if session.session_id not in self._reported:
                await self._report(session, checks)
        self._reported = {session.session_id for session, _ in found}
        return len(found)

    def _judge(self, session: Session) -> tuple[Check, ...]:
        certificates, known = session.principal.certificates, self._revocations.known
        return check_device(known, certificates, self._clock()) if known is not None and certificates else ()

    async def _report(self, session: Session, checks: tuple[Check, ...]) -> None:
        hub, device_id, module_id = session.key
        name = f"{device_id}/{module_id}" if module_id else device_id
        credential = Credential(session.principal.certificates, "", "").describe()
        attempt = Attempt("hub", hub, "stay connected", name, credential, "")
        tracking_id = self._reports.new_tracking_id()
        _log.info("hub %s ends the connection of %s: its certificate is revoked, tracking %s", hub, name, tracking_id)
        report = refused_report(attempt, checks, tracking_id, self._clock(), "the connection was closed")
        await self._reports.record(report)
