"""The hub's service API: twins of devices and modules. Sources: hub-service.md 3.

Not here: rules of twins, and queries (``hub_queries.py``).
"""

from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.twin import TwinBody
from muster.domain.twin_view import TwinView
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.hub_gate import HubGate
from muster.frontends.rest.requests import Guard
from muster.hub.twins import Twins


@dataclass(frozen=True, slots=True)
class HubTwinsApi:
    """The handlers; ``routes`` mounts them. If-Match is optional everywhere (hub-service.md 3.1)."""

    gate: HubGate
    twins: Twins

    def routes(self, guard: Guard) -> list[Route]:
        handlers = {"GET": self.get, "PATCH": self.patch, "PUT": self.replace}
        return [
            Route(path, guard(handler, status.hub_body), methods=[method])
            for path in ("/twins/{id}", "/twins/{id}/modules/{module_id}")
            for method, handler in handlers.items()
        ]

    async def get(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.SERVICE_CONNECT)
        return _answer(await self.twins.get(hub.name, *_ids(request)))

    async def patch(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.SERVICE_CONNECT)
        body = await requests.read_record(request, TwinBody)
        return _answer(await self.twins.patch(hub.name, *_ids(request), body, request.headers.get("if-match")))

    async def replace(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.SERVICE_CONNECT)
        body = await requests.read_record(request, TwinBody)
        return _answer(await self.twins.replace(hub.name, *_ids(request), body, request.headers.get("if-match")))


def _ids(request: Request) -> tuple[str, str]:
    return request.path_params["id"], request.path_params.get("module_id", "")


def _answer(view: TwinView) -> Response:
    return requests.json_response(view, etag=view.etag)
