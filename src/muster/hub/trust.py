"""The CA certificates of each hub, in memory and ready for chains: what the certificates of its devices lead to.

Few, rarely written, and needed by every connection: they are read once, and again after a change. Another node's change
is heard on the bus, and at the latest seen after a second. Not here: writing them (``authorities.py``).
"""

from collections.abc import Callable
from typing import NamedTuple

from muster.bus.bus import Bus
from muster.domain.authority import Authority
from muster.domain.timestamp import SECOND
from muster.domain.x509_trust import CaCertificate, X509Trust
from muster.hub.authorities import Authorities, hub_certificates_changed_subject

_STALE = SECOND


class _Known(NamedTuple):
    """What was read of a hub, and when."""

    read: int
    authorities: list[Authority]
    trust: X509Trust


class HubTrust:
    """The verified CA certificates of all hubs."""

    def __init__(self, authorities: Authorities, bus: Bus, clock: Callable[[], int]) -> None:
        self._authorities = authorities
        self._bus = bus
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._watched: set[str] = set()

    async def of(self, hub: str) -> X509Trust:
        """As it is now: after a write here as soon as the bus tells it, after one on another node within a second."""
        known = self._known.get(hub)
        now = self._clock()
        if known is not None and 0 <= now - known.read < _STALE:
            return known.trust
        if hub not in self._watched:
            self._watched.add(hub)
            self._bus.subscribe(hub_certificates_changed_subject(hub), lambda _message: self._forget(hub))
        authorities = await self._authorities.all(hub)
        # The same object as long as nothing changed: it remembers which CAs have proved to belong together.
        trust = known.trust if known is not None and known.authorities == authorities else _trust(authorities)
        self._known[hub] = _Known(now, authorities, trust)
        return trust

    def _forget(self, hub: str) -> None:
        self._known.pop(hub, None)


def _trust(authorities: list[Authority]) -> X509Trust:
    return X509Trust((), [CaCertificate(one.name, one.certificate.bytes(), one.is_verified) for one in authorities])
