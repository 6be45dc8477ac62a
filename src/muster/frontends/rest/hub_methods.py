"""The hub's service API: direct methods on devices and modules. Source: hub-service.md 5.

Not here: rules and time limits (``domain/method.py``), and how the device is asked.
"""

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.method import answer_view, read_invocation
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.hub_gate import HubGate
from muster.frontends.rest.requests import Guard
from muster.hub.methods import Methods


@dataclass(frozen=True, slots=True)
class HubMethodsApi:
    """The handlers; ``routes`` mounts them."""

    gate: HubGate
    methods: Methods

    def routes(self, guard: Guard) -> list[Route]:
        return [
            Route(path, guard(self.invoke, status.hub_nested_body), methods=["POST"])
            for path in ("/twins/{id}/methods", "/twins/{id}/modules/{module_id}/methods")
        ]

    async def invoke(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.SERVICE_CONNECT)
        invocation = read_invocation(await requests.read_body(request))
        device_id, module_id = request.path_params["id"], request.path_params.get("module_id", "")
        answer = await self.methods.invoke(hub.name, device_id, module_id, invocation)
        return requests.json_response(msgspec.Raw(answer_view(answer)))
