"""The hub's service API: the device registry. Sources: hub-service.md 1, 2.

Not here: the device API, and the rules of the registry.
"""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.device import IdentityBody, identity_view
from muster.domain.etag import counter_etag
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.hub_gate import HubGate
from muster.frontends.rest.requests import Guard
from muster.hub.access import ServiceAccess
from muster.hub.devices import MAXIMUM_LIST, Devices
from muster.hub.hubs import Hub, Hubs


@dataclass(frozen=True, slots=True)
class HubServiceApi:
    """The handlers; ``routes`` mounts them."""

    hubs: Hubs
    devices: Devices
    access: ServiceAccess

    def routes(self, guard: Guard) -> list[Route]:
        table = {
            ("/devices", "GET"): self.list_devices,
            ("/devices/{id}", "GET"): self.get_device,
            ("/devices/{id}", "PUT"): self.put_device,
            ("/devices/{id}", "DELETE"): self.delete_device,
        }
        return [
            Route(path, guard(handler, status.hub_body), methods=[method]) for (path, method), handler in table.items()
        ]

    async def _authorize(self, request: Request, *rights: Right) -> Hub:
        return await HubGate(self.hubs, self.access).authorize(request, *rights)

    async def list_devices(self, request: Request) -> Response:
        hub = await self._authorize(request, Right.REGISTRY_READ)
        top = requests.integer(request.query_params.get("top"), MAXIMUM_LIST)
        return requests.json_response([identity_view(*device) for device in await self.devices.list(hub.name, top)])

    async def get_device(self, request: Request) -> Response:
        hub = await self._authorize(request, Right.REGISTRY_READ)
        identity, times = await self.devices.get(hub.name, request.path_params["id"])
        return requests.json_response(identity_view(identity, times), etag=counter_etag(identity.etag))

    async def put_device(self, request: Request) -> Response:
        hub = await self._authorize(request, Right.REGISTRY_WRITE)
        body = await requests.read_record(request, IdentityBody)
        if_match = request.headers.get("if-match")
        identity, times = await self.devices.put(hub.name, request.path_params["id"], body, if_match)
        return requests.json_response(identity_view(identity, times), etag=counter_etag(identity.etag))

    async def delete_device(self, request: Request) -> Response:
        hub = await self._authorize(request, Right.REGISTRY_WRITE)
        await self.devices.delete(hub.name, request.path_params["id"], request.headers.get("if-match"))
        return requests.no_content()
