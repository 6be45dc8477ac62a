"""The hub's service API: queries of devices and modules. Sources: hub-service.md 4.

Not here: the language, and its evaluation.
"""

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.errors import ArgumentInvalidError
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.hub_gate import HubGate
from muster.frontends.rest.requests import Guard
from muster.hub.queries import DEFAULT_PAGE, MAXIMUM_PAGE, Queries


class _Query(msgspec.Struct):
    query: str | None = None


@dataclass(frozen=True, slots=True)
class HubQueriesApi:
    """The handler; ``routes`` mounts it."""

    gate: HubGate
    queries: Queries

    def routes(self, guard: Guard) -> list[Route]:
        return [Route("/devices/query", guard(self.query, status.hub_body), methods=["POST"])]

    async def query(self, request: Request) -> Response:
        """One page. The item type is spelled as .NET parses it, and the last page has no continuation header: Node
        would ask for ever (hub-service.md 4.1).
        """
        hub = await self.gate.authorize(request, Right.SERVICE_CONNECT, Right.REGISTRY_READ)
        body = await requests.read_record(request, _Query)
        size = _page_size(request.headers.get("x-ms-max-item-count"))
        page = await self.queries.page(hub.name, body.query, request.headers.get("x-ms-continuation"), size)
        headers: dict[str, str] = {"x-ms-item-type": page.item_type}
        if page.continuation is not None:
            headers["x-ms-continuation"] = page.continuation
        return requests.json_response(page.items, headers=headers)


def _page_size(text: str | None) -> int:
    """100 unless the client says otherwise, 1,000 at most. Raises ArgumentInvalidError for 0 and what is no number."""
    if text is None or not text.strip():
        return DEFAULT_PAGE
    size = requests.integer(text.strip(), 0)
    if size == 0:
        raise ArgumentInvalidError(f"BadRequest: x-ms-max-item-count is {text!r}: send a whole number from 1 on.")
    return min(size, MAXIMUM_PAGE)
