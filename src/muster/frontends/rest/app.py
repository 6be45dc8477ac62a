"""The HTTPS application of the TLS ports: all public APIs side by side, told apart by path (DESIGN.md 4).

Not here: the portal, which has a port and an application of its own.
"""

from collections.abc import MutableMapping, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from muster.domain.errors import NotAllowedError, NotFoundError
from muster.frontends import status
from muster.frontends.rest.requests import ErrorBody, Guard

# Every second segment of a path is a word of the API, the others are ids; words compare without case (hub-
# service.md 1.5).
_MUSTER = "muster"
_PROVISIONING_WORDS = frozenset({_MUSTER, "enrollments", "enrollmentgroups", "registrations"})
_MANAGEMENT_WORDS = frozenset({"subscriptions", "providers"})
_REGISTRATIONS = "registrations"
_NO_ID_SCOPES = _PROVISIONING_WORDS | _MANAGEMENT_WORDS | {"devices", "twins", "digitaltwins"}
"""First words of paths in which a device may be called ``registrations``."""
_NOT_ALLOWED = 405


def create_app(routes: Sequence[Route], guard: Guard) -> ASGIApp:
    """The application of ``routes``; what none of them takes is a 404 or 405 in the error shape of its service."""

    async def not_found(request: Request) -> Response:
        raise NotFoundError(f"There is nothing at {request.method} {request.scope['path']}.")

    async def not_allowed(request: Request) -> Response:
        raise NotAllowedError(f"{request.method} is not allowed at {request.scope['path']}.")

    async def refuse(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        path = request.scope["path"]
        refusal = not_allowed if error.status_code == _NOT_ALLOWED or _lacks_id(path) else not_found
        response = await guard(refusal, _error_body(path))(request)
        if refusal is not_allowed:
            response.headers["Allow"] = ", ".join(_allowed(routes, path))
        return response

    # A path of the provisioning service begins with an id scope: any other that fits has words there.
    ordered = sorted(routes, key=lambda route: route.path.startswith("/{"))
    for route in ordered:  # HEAD is not GET: some GETs lock a message for who reads it
        (route.methods or set()).discard("HEAD")
    app = Starlette(routes=ordered, exception_handlers={HTTPException: refuse})
    app.router.redirect_slashes = False
    return PathSpelling(app)


def _error_body(path: str) -> ErrorBody:
    """The shape of errors at a path that no route takes: that of the service its first word belongs to."""
    word = path.split("/")[1]
    if _of_device(path):
        return status.provisioning_body
    if word in _MANAGEMENT_WORDS:
        return status.management_body
    return status.provisioning_body if word in _PROVISIONING_WORDS else status.hub_body


def _of_device(path: str) -> bool:
    """Whether it is a path of a device that registers: ``/{idScope}/registrations...``."""
    words = path.split("/")
    return len(words) > 2 and words[2] == _REGISTRATIONS and words[1] not in _NO_ID_SCOPES  # noqa: PLR2004 - see above


def _lacks_id(path: str) -> bool:
    """Whether it is one without a registration id, which is 405 (dps.md 1.7)."""
    return _of_device(path) and not any(path.split("/")[3:4])


def _allowed(routes: Sequence[Route], path: str) -> list[str]:
    return sorted(
        {method for route in routes if route.path_regex.match(path) for method in route.methods or ()},
    )


class PathSpelling:
    """One spelling of paths: fixed words in lower case, no slash at the end; and the method that a header names."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": canonical_path(scope["path"]), "method": _method(scope)}
        await self._app(scope, receive, send)


def canonical_path(path: str) -> str:
    """``/Devices/D1/`` becomes ``/devices/D1``: words stand at even places, ids between them.

    Others have another order: a device's ``/{idScope}/registrations/{id}/register``, messages and files of a hub, and
    Resource Manager's, which has one word at an odd place.
    """
    parts = path.strip("/").split("/")
    words = [part.lower() for part in parts]
    if words[0] == _MUSTER:
        return "/" + "/".join([*words[:3], *parts[3:]])
    if len(parts) > 1 and words[1] == _REGISTRATIONS and words[0] not in _NO_ID_SCOPES:
        return "/" + "/".join(
            word if index % 2 else part for index, (word, part) in enumerate(zip(words, parts, strict=True))
        )
    if words[0] in _MANAGEMENT_WORDS:
        parts = [word if word == "microsoft.devices" else part for word, part in zip(words, parts, strict=True)]
    ids = _message_ids(words) or range(1, len(words), 2)
    return "/" + "/".join(
        part if index in ids else word for index, (word, part) in enumerate(zip(words, parts, strict=True))
    )


def _message_ids(words: Sequence[str]) -> frozenset[int]:
    """The places of ids in the paths of a hub's messages and files, which have two words in a row; else nothing."""
    if words[0] == "messages":
        return frozenset((3,))
    if words[0] == "devices":
        for place in (2, 4):  # of a device, of a module
            if words[place : place + 1] in (["messages"], ["files"]):
                return frozenset((*range(1, place, 2), place + 2))
    return frozenset()


def _method(scope: MutableMapping[str, Any]) -> str:
    """Java sends PATCH as POST with ``X-HTTP-Method-Override`` (hub-service.md 1.5)."""
    method: str = scope["method"]
    if method == "POST":
        for name, value in scope["headers"]:
            if name == b"x-http-method-override":
                return str(value.decode("latin-1").upper())
    return method
