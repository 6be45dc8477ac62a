"""What all routes of Azure Resource Manager share: the bearer token, the scope of a request, ids. Sources: DESIGN.md 2,
dps.md 7, hub-service.md 10.

Everything happens at once: no answer ever refers to an operation that is still running. Not here: any resource.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.bearer import BearerTokenError, verify_bearer
from muster.domain.errors import BearerTokenRefusedError, PreconditionFailedError, ResourceNotFoundError
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.requests import ErrorBody, Guard, Handler

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = SUBSCRIPTION + "/resourcegroups/{group}"
PROVIDER = "/providers/microsoft.devices"

RESOURCE_GROUP = "muster"
"""The resource group of everything, for who asks without naming one; who names one is told that one."""


@dataclass(frozen=True, slots=True)
class BearerAccess:
    """Judges bearer tokens by the one ``key`` of this Muster; who has a valid one may do everything."""

    key: bytes
    clock: Callable[[], int]

    def require(self, request: Request) -> None:
        """Raise BearerTokenRefusedError, which says what is wrong and what to do."""
        try:
            verify_bearer(request.headers.get("authorization", ""), self.key, self.clock())
        except BearerTokenError as error:
            raise BearerTokenRefusedError(
                f"The bearer token is refused: {error}. For a token that this server takes, run `muster token`."
            ) from None


@dataclass(frozen=True, slots=True)
class ResourceScope:
    """Where a client looks for resources. Any subscription and any resource group are taken."""

    subscription: str
    group: str

    @classmethod
    def of(cls, request: Request) -> "ResourceScope":
        params = request.path_params
        return cls(params["subscription"], params.get("group", RESOURCE_GROUP))

    def id(self, kind: str, name: str) -> str:
        """The id of a resource of ``kind``, such as ``Microsoft.Devices/IotHubs``."""
        return f"/subscriptions/{self.subscription}/resourceGroups/{self.group}/providers/{kind}/{name}"

    def not_found(self, kind: str, name: str) -> ResourceNotFoundError:
        return ResourceNotFoundError(f"The Resource '{kind}/{name}' under resource group '{self.group}' was not found.")


def management_routes(
    table: Mapping[tuple[str, str], Handler],
    access: BearerAccess,
    guard: Guard,
    error_body: ErrorBody = status.management_body,
) -> list[Route]:
    """Routes for (path, method), none of which does anything before the token and the api-version were judged."""

    def judged(handler: Handler) -> Handler:
        async def handle(request: Request) -> Response:
            access.require(request)
            requests.require_api_version(request)
            return await handler(request)

        return guard(handle, error_body)

    return [Route(path, judged(handler), methods=[method]) for (path, method), handler in table.items()]


def require_if_match(request: Request) -> str:
    """The If-Match header of an operation that needs one. Raises PreconditionFailedError."""
    value = request.headers.get("if-match")
    if value is None:
        raise PreconditionFailedError("This operation needs If-Match: the etag of the certificate, or *.")
    return value
