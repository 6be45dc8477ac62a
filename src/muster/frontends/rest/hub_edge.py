"""What the gateway of an edge device asks of the hub: who may connect to it. Sources: hub-device.md 11.

Asked as the module ``$edgeHub``. Not here: what is in a scope (``hub/edge_scopes.py``).
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.device import Identity, identity_view, is_device_id
from muster.domain.errors import ArgumentInvalidError
from muster.domain.module import module_view
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.device_gate import DeviceGate
from muster.frontends.rest.requests import Guard
from muster.hub.edge_scopes import EdgeScopes, ScopePage

_MODULE = "/devices/{id}/modules/{module}"


class _TargetScope(msgspec.Struct, rename="camel"):
    auth_chain: str
    page_size: int = 0
    continuation_link: str | None = None


class _OnBehalfOf(msgspec.Struct, rename="camel"):
    target_device_id: str
    auth_chain: str
    target_module_id: str | None = None


@dataclass(frozen=True, slots=True)
class HubEdgeApi:
    """The handlers; ``routes`` mounts them."""

    gate: DeviceGate
    scopes: EdgeScopes

    def routes(self, guard: Guard) -> list[Route]:
        table = {
            ("devicesandmodulesindevicescope", "GET"): self.list_scope,
            ("deviceandmoduleindevicescope", "GET"): self.get_member,
            ("devicesandmodulesintargetdevicescope", "POST"): self.list_target_scope,
            ("getdeviceandmoduleonbehalfof", "POST"): self.get_on_behalf_of,
        }
        return [
            Route(f"{_MODULE}/{word}", guard(handler, status.hub_body), methods=[method])
            for (word, method), handler in table.items()
        ]

    async def _gateway(self, request: Request) -> tuple[str, Identity]:
        """The hub and the edge device that asks."""
        principal = await self.gate.identity(request)
        hub, identity = principal.hub.name, principal.identity
        return hub, await self.scopes.gateway(hub, identity.device_id, identity.module_id)

    async def list_scope(self, request: Request) -> Response:
        """A page; the link to the next one is its path and query."""
        hub, edge = await self._gateway(request)
        query = request.query_params
        count = requests.integer(query.get("deviceCount"), 0)
        page = await self.scopes.page(hub, edge, _place(query.get("continuationToken")), count)
        link = None
        if page.following is not None:
            path = f"/devices/{quote(edge.device_id, safe='')}/modules/$edgeHub/devicesAndModulesInDeviceScope"
            token, version = _token(page.following), query["api-version"]
            link = f"{path}?{urlencode({'deviceCount': count, 'continuationToken': token, 'api-version': version})}"
        return _answer(page, link)

    async def get_member(self, request: Request) -> Response:
        """400 when it is not in the scope: by that the gateway learns that it has left."""
        hub, edge = await self._gateway(request)
        query = request.query_params
        page = await self.scopes.member(hub, edge, query.get("targetDeviceId", ""), query.get("targetModuleId", ""))
        return _answer(page)

    async def list_target_scope(self, request: Request) -> Response:
        """A page of the scope of an edge device below; what is called a link is sent back in the next body."""
        hub, edge = await self._gateway(request)
        body = await requests.read_record(request, _TargetScope)
        target = await self.scopes.descendant(hub, edge, body.auth_chain)
        page = await self.scopes.page(hub, target, _place(body.continuation_link), body.page_size)
        return _answer(page, None if page.following is None else _token(page.following))

    async def get_on_behalf_of(self, request: Request) -> Response:
        """For the gateway of an edge device below."""
        hub, edge = await self._gateway(request)
        body = await requests.read_record(request, _OnBehalfOf)
        target = await self.scopes.descendant(hub, edge, body.auth_chain)
        return _answer(await self.scopes.member(hub, target, body.target_device_id, body.target_module_id or ""))


def _answer(page: ScopePage, link: str | None = None) -> Response:
    answer: dict[str, Any] = {
        "devices": [identity_view(*device) for device in page.devices],
        "modules": [module_view(*module) for module in page.modules],
        "continuationLink": link,
    }
    return requests.json_response(answer, headers={"Cache-Control": "no-store"})


def _token(device_id: str) -> str:
    return base64.urlsafe_b64encode(device_id.encode()).decode()


def _place(token: str | None) -> str:
    """The id after which to go on; "" is the beginning. Raises ArgumentInvalidError."""
    if not token:
        return ""
    try:
        place = base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        place = ""
    if not is_device_id(place):
        raise ArgumentInvalidError(f"The continuation {token[:100]!r} is not one of this hub's.")
    return place
