"""The hub's service API, what is not the registry: reading a twin. Sources: hub-service.md 3.

Not here: the registry (``hub_registry.py``), the device API.
"""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.hub_requests import HubRequests
from muster.frontends.rest.requests import Guard
from muster.hub.twins import Twins


@dataclass(frozen=True, slots=True)
class HubServiceApi:
    """The handlers; ``routes`` mounts them."""

    hub_requests: HubRequests
    twins: Twins

    def routes(self, guard: Guard) -> list[Route]:
        table = {("/twins/{id}", "GET"): self.get_twin}
        return [
            Route(path, guard(handler, status.hub_body), methods=[method]) for (path, method), handler in table.items()
        ]

    async def get_twin(self, request: Request) -> Response:
        hub = await self.hub_requests.authorize(request, Right.SERVICE_CONNECT)
        view = await self.twins.service_view(hub.name, request.path_params["id"])
        return requests.json_response(view, etag=view["etag"])
