"""The hub's service API: the device registry, and reading a twin. Sources: hub-service.md 1, 2, 3.

Not here: the device API, and the rules of the registry.
"""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.device import IdentityBody, identity_view
from muster.domain.errors import NotFoundError
from muster.domain.etag import counter_etag
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.requests import Guard
from muster.hub.access import ServiceAccess
from muster.hub.devices import MAXIMUM_LIST, Devices
from muster.hub.hubs import Hub, Hubs, UnknownHubError, host_without_port
from muster.hub.reports import Attempt
from muster.hub.twins import Twins


@dataclass(frozen=True, slots=True)
class HubServiceApi:
    """The handlers; ``routes`` mounts them."""

    hubs: Hubs
    devices: Devices
    twins: Twins
    access: ServiceAccess

    def routes(self, guard: Guard) -> list[Route]:
        table = {
            ("/devices", "GET"): self.list_devices,
            ("/devices/{id}", "GET"): self.get_device,
            ("/devices/{id}", "PUT"): self.put_device,
            ("/devices/{id}", "DELETE"): self.delete_device,
            ("/twins/{id}", "GET"): self.get_twin,
        }
        return [
            Route(path, guard(handler, status.hub_body), methods=[method]) for (path, method), handler in table.items()
        ]

    async def _authorize(self, request: Request, *rights: Right) -> Hub:
        """The hub that is asked; raises UnauthorizedAccessError, InvalidProtocolVersionError and NotFoundError."""
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

    async def get_twin(self, request: Request) -> Response:
        hub = await self._authorize(request, Right.SERVICE_CONNECT)
        view = await self.twins.service_view(hub.name, request.path_params["id"])
        return requests.json_response(view, etag=view["etag"])
