"""What a principal leans on besides its identity: the policy whose key signed its token, the CA certificates of its
hub.

Not here: revocation lists (``revoked_sessions.py``), and what becomes of a connection whose grounds changed
(``leaning_sessions.py``).
"""

from muster.hub.authentication import Principal
from muster.hub.hubs import Hubs
from muster.hub.trust import HubTrust


class Grounds:
    """What principals were judged by, held against what there is now."""

    def __init__(self, hubs: Hubs, trust: HubTrust) -> None:
        self._hubs = hubs
        self._trust = trust

    async def changed(self, principal: Principal) -> bool:
        """Whether its policy, or the CA certificates of its hub, are not those any more that it was judged by."""
        policy, trust = principal.policy, principal.trust
        if policy is None and trust is None:
            return False
        hub = self._hubs.get(principal.hub.name)
        if hub is None or (policy is not None and hub.policies.get(policy.name) != policy):
            return True
        return trust is not None and await self._trust.of(hub.name) is not trust
