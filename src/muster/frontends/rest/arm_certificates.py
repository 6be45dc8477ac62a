"""Resource Manager's routes of CA certificates and their proof of possession, the same for hubs and provisioning
services. Sources: dps.md 7.5, hub-service.md 10.

Documented in docs/arm.md. Not here: the resources themselves (``arm_hubs.py``, ``arm_provisioning.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from muster.domain.authority import Authority, arm_properties
from muster.domain.errors import ArgumentNullError
from muster.frontends.rest import requests
from muster.frontends.rest.arm import ResourceScope, require_if_match
from muster.hub.authorities import Authorities


class _CertificateProperties(msgspec.Struct, rename="camel"):
    certificate: str | None = None
    is_verified: bool | None = None


class _CertificateBody(_CertificateProperties):
    """Older clients send the members at the top, newer ones in ``properties`` (dps.md 7.5)."""

    properties: _CertificateProperties | None = None


class _ProofBody(msgspec.Struct):
    certificate: str


@dataclass(frozen=True, slots=True)
class CertificateResources:
    """The handlers. ``kind`` is that of the resource that has certificates; ``owner`` is how it is called where they
    are stored, and raises ResourceNotFoundError.
    """

    authorities: Authorities
    kind: str
    owner: Callable[[Request], str]

    def table(self, resource: str) -> dict[tuple[str, str], requests.Handler]:
        """Handlers by path and method below the path of a ``resource``."""
        one = f"{resource}/certificates/{{certificate}}"
        return {
            (f"{resource}/certificates", "GET"): self.list_all,
            (one, "GET"): self.get,
            (one, "PUT"): self.put,
            (one, "DELETE"): self.delete,
            (f"{one}/generateverificationcode", "POST"): self.generate_verification_code,
            (f"{one}/verify", "POST"): self.verify,
        }

    def _target(self, request: Request) -> tuple[str, str]:
        """The owner, and the name of the certificate."""
        return self.owner(request), request.path_params["certificate"]

    async def list_all(self, request: Request) -> Response:
        found = await self.authorities.all(self.owner(request))
        return requests.json_response({"value": [self._view(request, item) for item in found]})

    async def get(self, request: Request) -> Response:
        return self._response(request, await self.authorities.get(*self._target(request)))

    async def put(self, request: Request) -> Response:
        owner, name = self._target(request)
        body = await requests.read_record(request, _CertificateBody)
        sent = body.properties or body
        if not sent.certificate:
            raise ArgumentNullError("certificate is required.")
        authority = await self.authorities.put(
            owner,
            name,
            sent.certificate,
            is_verified=bool(sent.is_verified),
            if_match=request.headers.get("if-match"),
        )
        return self._response(request, authority)

    async def delete(self, request: Request) -> Response:
        """200 with an empty body; 204 when there was none."""
        owner, name = self._target(request)
        if await self.authorities.find(owner, name) is None:
            return requests.no_content()
        await self.authorities.delete(owner, name, require_if_match(request))
        return Response(status_code=200)

    async def generate_verification_code(self, request: Request) -> Response:
        """The only answer that shows the code, and the certificate as it was uploaded."""
        authority = await self.authorities.new_verification_code(*self._target(request), require_if_match(request))
        return self._response(request, authority, with_code=True)

    async def verify(self, request: Request) -> Response:
        body = await requests.read_record(request, _ProofBody)
        authority = await self.authorities.verify(*self._target(request), body.certificate, require_if_match(request))
        return self._response(request, authority)

    def _view(self, request: Request, authority: Authority, *, with_code: bool = False) -> dict[str, Any]:
        resource = ResourceScope.of(request).id(self.kind, request.path_params["name"])
        return {
            "properties": arm_properties(authority, with_certificate=with_code),
            "id": f"{resource}/certificates/{authority.name}",
            "name": authority.name,
            "type": f"{self.kind}/Certificates",
            "etag": authority.etag,
        }

    def _response(self, request: Request, authority: Authority, *, with_code: bool = False) -> Response:
        return requests.json_response(self._view(request, authority, with_code=with_code), etag=authority.etag)
