"""The CA certificates of each hub, in memory and ready for chains: what the certificates of its devices lead to.

Few, rarely written, and needed by every connection: they are read once, and again after a change. Another node's change
is heard on the bus, and at the latest seen after a second. Not here: writing them (``authorities.py``).
"""

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from muster.bus.bus import Bus
from muster.domain.authority import Authority
from muster.domain.timestamp import SECOND
from muster.domain.x509_trust import CaCertificate, X509Trust
from muster.hub.authorities import Authorities, hub_certificates_changed_subject

_STALE = SECOND
_NEVER = -_STALE


class _Known(NamedTuple):
    """What was read of a hub, and when."""

    read: int
    certificates: list[CaCertificate]
    trust: X509Trust


class HubTrust:
    """The verified CA certificates of all hubs."""

    def __init__(self, authorities: Authorities, bus: Bus, clock: Callable[[], int]) -> None:
        self._authorities = authorities
        self._bus = bus
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._watched: set[str] = set()
        self._changes: Counter[str] = Counter()

    async def of(self, hub: str) -> X509Trust:
        """As it is now: after a write here as soon as the bus tells it, after one on another node within a second."""
        known = self._known.get(hub)
        now = self._clock()
        if known is not None and 0 <= now - known.read < _STALE:
            return known.trust
        if hub not in self._watched:
            self._watched.add(hub)
            self._bus.subscribe(hub_certificates_changed_subject(hub), lambda _message: self._forget(hub))
        changes = -1
        while changes != self._changes[hub]:  # what was read before a change must not be kept behind it
            changes = self._changes[hub]
            certificates = [_certificate(one) for one in await self._authorities.all(hub)]
        known = self._known.get(hub)
        # The same object as long as nothing changed: it remembers which CAs have proved to belong together, and whoever
        # was judged by it needs no second look.
        trust = known.trust if known is not None and known.certificates == certificates else X509Trust((), certificates)
        self._known[hub] = _Known(now, certificates, trust)
        return trust

    def _forget(self, hub: str) -> None:
        self._changes[hub] += 1
        known = self._known.get(hub)
        if known is not None:
            self._known[hub] = known._replace(read=_NEVER)


def _certificate(authority: Authority) -> CaCertificate:
    return CaCertificate(authority.name, authority.certificate.bytes(), authority.is_verified)
