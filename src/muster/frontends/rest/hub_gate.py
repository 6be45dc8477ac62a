"""Which hub a REST request asks, and whether it may: what every route of the hub's service API begins with.

Not here: any route, and devices. Sources: hub-service.md 1.1 to 1.5.
"""

from dataclasses import dataclass

from starlette.requests import Request

from muster.domain.access_policy import Right
from muster.domain.errors import NotFoundError
from muster.frontends.rest import requests
from muster.hub.access import ServiceAccess
from muster.hub.hubs import Hub, Hubs, UnknownHubError, host_without_port
from muster.hub.reports import Attempt


@dataclass(frozen=True, slots=True)
class HubGate:
    """Judges service clients of all hubs."""

    hubs: Hubs
    access: ServiceAccess

    async def authorize(self, request: Request, *rights: Right) -> Hub:
        """The hub that is asked, if the client's policy has one of ``rights``.

        Raises UnauthorizedAccessError, InvalidProtocolVersionError and NotFoundError.
        """
        try:
            hub = self.hubs.by_host(requests.host(request))
        except UnknownHubError:
            raise NotFoundError(f"No hub is served as {requests.host(request)!r}.") from None
        credential = requests.credential(request)
        attempt = Attempt(
            "hub",
            hub.name,
            request.method,
            request.scope["path"],
            credential.describe(),
            credential.peer,
        )
        hosts = (hub.host_name, host_without_port(requests.host(request)))
        await self.access.require(attempt, credential, hub.policies, hosts, requests.segments(request), rights)
        requests.require_api_version(request)
        return hub
