"""Revocation lists while the server runs: looked at every two seconds, put to use when they change.

Not here: reading them (``revocation_files.py``), and what follows for a device (``domain/revocation.py``).
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from muster.config import ConfigurationError
from muster.domain.revocation import Revocations
from muster.hub.revoked_sessions import RevokedSessions
from muster.pki.certificate import utc_text
from muster.pki.known_revocations import KnownRevocations, Standing
from muster.pki.revocation import RevocationList
from muster.revocation_files import RevocationFiles

POLL_SECONDS = 2.0

_log = logging.getLogger("muster.revocation")

_REASONS = {
    Standing.NOT_SIGNED: "the CA of that name that is known did not sign it, or may not: it does not count",
    Standing.SIGNER_UNKNOWN: "the certificate of that CA is not beside it: it counts only for devices that send that"
    " certificate, and where it is a CA certificate of the provisioning service; put it into the same directory",
}


class RevocationWatch:
    """Follows files and directories for as long as the server runs."""

    def __init__(
        self,
        paths: Sequence[Path],
        revocations: Revocations,
        sessions: RevokedSessions,
        clock: Callable[[], int],
    ) -> None:
        self._files = RevocationFiles(paths)
        self._revocations = revocations
        self._sessions = sessions
        self._clock = clock
        self._overdue: set[bytes] = set()
        self._sweep = False

    def start(self) -> asyncio.Task[None]:
        """Read everything, and follow it until the task is cancelled. Raises ConfigurationError for what is broken."""
        reading = self._files.read()
        if reading.problems:
            raise ConfigurationError(f"Revocation lists: {'; '.join(reading.problems)}.")
        self._use(self._files.known())
        if not self._known.lists:
            _log.warning("there is no revocation list yet, so nothing is revoked: muster ca crl makes one")
        return asyncio.create_task(self._follow())

    @property
    def _known(self) -> KnownRevocations:
        known = self._revocations.known
        assert known is not None, "started"
        return known

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.look()
            except Exception:  # noqa: BLE001 - whatever it is, the next look has to come
                _log.exception("revocation lists could not be looked at")

    async def look(self) -> None:
        """Read what changed, put it to use, and end connections whose certificate is revoked now."""
        reading = await asyncio.to_thread(self._files.read)
        for problem in reading.problems:
            _log.warning("revocation lists: %s", problem)
        if reading.changed:
            known = await asyncio.to_thread(self._files.known)
            self._use(known)
            self._sweep = True
        self._warn_of_overdue()
        if self._sweep:
            # Once more until none is left, should one not have been able to judge itself.
            self._sweep = await self._sessions.end() > 0

    def _use(self, known: KnownRevocations) -> None:
        self._revocations.known = known
        for one in known.lists:
            standing = known.standing(one)
            if standing is Standing.COUNTS:
                _log.info("%s counts", _described(one))
            elif standing in _REASONS:
                _log.warning("%s: %s", _described(one), _REASONS[standing])
        self._warn_of_overdue()

    def _warn_of_overdue(self) -> None:
        """Once for each list."""
        now = self._clock()
        overdue = {one.der: one for one in self._known.lists if one.next_update is not None and now > one.next_update}
        for der, one in overdue.items():
            if der not in self._overdue and self._known.standing(one) is not Standing.OLDER:
                _log.warning("%s: a newer list is overdue; what this one revokes goes on to count", _described(one))
        self._overdue = set(overdue)


def _described(one: RevocationList) -> str:
    due = f", next due {utc_text(one.next_update)}" if one.next_update is not None else ""
    return f"list {one.number} of {one.issuer_name} in {one.source} ({len(one.revocations)} revoked{due})"
