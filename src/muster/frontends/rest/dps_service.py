"""The DPS service API: individual enrollments and registration states. Sources: dps.md 6.

Not here: the device API, and what makes an enrollment valid.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.documents import decode
from muster.domain.enrollment import EnrollmentBody, IndividualEnrollment, service_view
from muster.domain.errors import ArgumentInvalidError, NotAllowedError
from muster.domain.registration import state_view
from muster.dps.enrollments import DEFAULT_PAGE, Enrollments
from muster.dps.registrations import Registrations
from muster.dps.services import ProvisioningService, ProvisioningServices
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.requests import Guard
from muster.hub.access import ServiceAccess
from muster.hub.hubs import host_without_port
from muster.hub.reports import Attempt


class _Query(msgspec.Struct):
    query: str = "*"


@dataclass(frozen=True, slots=True)
class DpsServiceApi:
    """The handlers; ``routes`` mounts them."""

    services: ProvisioningServices
    enrollments: Enrollments
    registrations: Registrations
    access: ServiceAccess

    def routes(self, guard: Guard) -> list[Route]:
        table = {
            ("/enrollments/{id}", "GET"): self.get_enrollment,
            ("/enrollments/{id}", "PUT"): self.put_enrollment,
            ("/enrollments/{id}", "DELETE"): self.delete_enrollment,
            ("/enrollments/{id}", "POST"): self.query_enrollments,
            ("/registrations/{id}", "GET"): self.get_registration,
            ("/registrations/{id}", "DELETE"): self.delete_registration,
        }
        return [
            Route(path, guard(handler, status.provisioning_body), methods=[method])
            for (path, method), handler in table.items()
        ]

    async def _authorize(self, request: Request, right: Right) -> ProvisioningService:
        """The instance that is asked; raises UnauthorizedAccessError and InvalidProtocolVersionError."""
        service = self.services.first
        credential = requests.credential(request)
        attempt = Attempt(
            "dps",
            service.id_scope,
            request.method,
            request.scope["path"],
            credential.describe(),
            credential.peer,
        )
        hosts = (service.host_name, host_without_port(requests.host(request)))
        path = requests.segments(request)
        await self.access.require(attempt, credential, service.policies, hosts, path, (right,))
        requests.require_api_version(request)
        return service

    async def get_enrollment(self, request: Request) -> Response:
        service = await self._authorize(request, Right.ENROLLMENT_READ)
        enrollment = await self.enrollments.get(service.id_scope, request.path_params["id"])
        return await self._enrollment_response(service, enrollment)

    async def put_enrollment(self, request: Request) -> Response:
        service = await self._authorize(request, Right.ENROLLMENT_WRITE)
        body = await requests.read_record(request, EnrollmentBody)
        if_match = request.headers.get("if-match")
        enrollment = await self.enrollments.put(service, request.path_params["id"], body, if_match)
        return await self._enrollment_response(service, enrollment)

    async def _enrollment_response(self, service: ProvisioningService, enrollment: IndividualEnrollment) -> Response:
        view = service_view(enrollment)
        state = await self._state(service, enrollment.registration_id)
        if state is not None:
            view["registrationState"] = state
        return requests.json_response(view, etag=enrollment.etag)

    async def _state(self, service: ProvisioningService, registration_id: str) -> dict[str, Any] | None:
        registration = await self.registrations.find(service.id_scope, registration_id)
        return state_view(registration, self.registrations.hub_host(service, registration)) if registration else None

    async def delete_enrollment(self, request: Request) -> Response:
        service = await self._authorize(request, Right.ENROLLMENT_WRITE)
        await self.enrollments.delete(service.id_scope, request.path_params["id"], request.headers.get("if-match"))
        return requests.no_content()

    async def query_enrollments(self, request: Request) -> Response:
        """POST ``/enrollments/query``; the query text is taken as "all" (dps.md 6.5, interop-facts.md 9)."""
        service = await self._authorize(request, Right.ENROLLMENT_READ)
        if request.path_params["id"].lower() != "query":
            raise NotAllowedError
        body = await requests.read_body(request)
        if body.strip():
            decode(body, _Query)
        size = requests.integer(request.headers.get("x-ms-max-item-count"), DEFAULT_PAGE)
        if size == 0:
            raise ArgumentInvalidError("x-ms-max-item-count must be at least 1.")
        page = await self.enrollments.page(service.id_scope, request.headers.get("x-ms-continuation"), size)
        headers = {"x-ms-item-type": "enrollment", "x-ms-max-item-count": str(size)}
        if page.continuation is not None:
            headers["x-ms-continuation"] = page.continuation
        return requests.json_response([service_view(enrollment) for enrollment in page.enrollments], headers=headers)

    async def get_registration(self, request: Request) -> Response:
        service = await self._authorize(request, Right.REGISTRATION_STATUS_READ)
        registration = await self.registrations.get(service.id_scope, request.path_params["id"])
        view = state_view(registration, self.registrations.hub_host(service, registration))
        return requests.json_response(view, etag=registration.etag)

    async def delete_registration(self, request: Request) -> Response:
        service = await self._authorize(request, Right.REGISTRATION_STATUS_WRITE)
        if_match = request.headers.get("if-match")
        await self.registrations.delete(service.id_scope, request.path_params["id"], if_match)
        return requests.no_content()
