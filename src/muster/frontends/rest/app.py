"""The HTTPS application of the TLS ports: all public APIs side by side, told apart by path (DESIGN.md 4).

Not here: the portal, which has a port and an application of its own.
"""

from collections.abc import Callable, MutableMapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from muster.domain.errors import NotAllowedError, NotFoundError
from muster.frontends import status
from muster.frontends.rest.requests import Guard

# Every second segment of a path is a word of the API, the others are ids; words compare without case (hub-
# service.md 1.5).
_MUSTER = "muster"


def create_app(routes: Sequence[Route], guard: Guard) -> ASGIApp:
    """The application of ``routes``; what none of them takes is a 404 or 405 in Azure's error shape."""

    async def not_found(request: Request) -> Response:
        raise NotFoundError(f"There is nothing at {request.method} {request.scope['path']}.")

    async def not_allowed(request: Request) -> Response:
        raise NotAllowedError(f"{request.method} is not allowed at {request.scope['path']}.")

    def handler(function: Callable[[Request], Any]) -> Callable[[Request, Exception], Any]:
        guarded = guard(function, status.provisioning_body)
        return lambda request, _error: guarded(request)

    app = Starlette(routes=list(routes), exception_handlers={404: handler(not_found), 405: handler(not_allowed)})
    app.router.redirect_slashes = False
    return PathSpelling(app)


class PathSpelling:
    """One spelling of paths: fixed words in lower case, no slash at the end; and the method that a header names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": canonical_path(scope["path"]), "method": _method(scope)}
        await self._app(scope, receive, send)


def canonical_path(path: str) -> str:
    """``/Devices/D1/`` becomes ``/devices/D1``: words stand at even places, ids between them."""
    parts = path.strip("/").split("/")
    if parts[0].lower() == _MUSTER:
        return "/" + "/".join([*(part.lower() for part in parts[:3]), *parts[3:]])
    return "/" + "/".join(part.lower() if index % 2 == 0 else part for index, part in enumerate(parts))


def _method(scope: MutableMapping[str, Any]) -> str:
    """Java sends PATCH as POST with ``X-HTTP-Method-Override`` (hub-service.md 1.5)."""
    method: str = scope["method"]
    if method == "POST":
        for name, value in scope["headers"]:
            if name == b"x-http-method-override":
                return str(value.decode("latin-1").upper())
    return method
