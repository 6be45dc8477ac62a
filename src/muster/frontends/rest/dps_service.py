"""The DPS service API: individual enrollments, enrollment groups and registration states. Sources: dps.md 6.

Not here: the device API, and what makes an enrollment valid.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.attestation_mechanism import mechanism_view
from muster.domain.documents import any_case, decode
from muster.domain.enrollment import Enrollment, EnrollmentBody, service_view
from muster.domain.errors import ArgumentInvalidError, NotAllowedError
from muster.domain.registration import state_view
from muster.dps.enrollments import BULK_MODES, DEFAULT_PAGE, MAXIMUM_PAGE, Enrollments
from muster.dps.group_reviews import GroupReviews
from muster.dps.registration_records import RegistrationRecords
from muster.dps.services import ProvisioningService, ProvisioningServices
from muster.dps.throttles import Throttles
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.requests import Guard
from muster.hub.access import ServiceAccess
from muster.hub.hubs import host_without_port
from muster.hub.reports import Attempt


class _Query(msgspec.Struct):
    query: str = "*"


class _Bulk(msgspec.Struct, rename="camel"):
    mode: str
    enrollments: list[EnrollmentBody] | None = None
    enrollment_groups: list[EnrollmentBody] | None = None


_ITEM_TYPES = {"individual": "enrollment", "group": "enrollmentGroup"}
_ID_MEMBERS = {"individual": "registrationId", "group": "enrollmentGroupId"}


@dataclass(frozen=True, slots=True)
class DpsServiceApi:
    """The handlers; ``routes`` mounts them. ``individual`` and ``groups`` are served by the same ones."""

    services: ProvisioningServices
    individual: Enrollments
    groups: Enrollments
    records: RegistrationRecords
    throttles: Throttles
    group_reviews: GroupReviews
    access: ServiceAccess

    def routes(self, guard: Guard) -> list[Route]:
        table: dict[tuple[str, str], Any] = {
            ("/registrations/{id}", "GET"): self.get_registration,
            ("/registrations/{id}", "DELETE"): self.delete_registration,
            ("/registrations/{id}/query", "POST"): self.query_registrations,
        }
        for word, enrollments in (("enrollments", self.individual), ("enrollmentgroups", self.groups)):
            api = _EnrollmentsApi(self, enrollments)
            table |= {
                (f"/{word}", "POST"): api.bulk,
                (f"/{word}/{{id}}", "GET"): api.get,
                (f"/{word}/{{id}}", "PUT"): api.put,
                (f"/{word}/{{id}}", "DELETE"): api.delete,
                (f"/{word}/{{id}}", "POST"): api.query,
                (f"/{word}/{{id}}/attestationmechanism", "POST"): api.attestation_mechanism,
            }
        return [
            Route(path, guard(handler, status.provisioning_body), methods=[method])
            for (path, method), handler in table.items()
        ]

    async def authorize(self, request: Request, right: Right) -> ProvisioningService:
        """The instance that is asked.

        Raises UnauthorizedAccessError, InvalidProtocolVersionError and ThrottledError.
        """
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
        self.throttles.operation(service.id_scope)
        return service

    async def state(self, service: ProvisioningService, registration_id: str) -> dict[str, Any] | None:
        """The registration state of a device, None before its first attempt."""
        registration = await self.records.find(service.id_scope, registration_id)
        return state_view(registration, service.hub_host(registration.assigned_hub)) if registration else None

    async def get_registration(self, request: Request) -> Response:
        service = await self.authorize(request, Right.REGISTRATION_STATUS_READ)
        registration = await self.records.get(service.id_scope, request.path_params["id"])
        view = state_view(registration, service.hub_host(registration.assigned_hub))
        return requests.json_response(view, etag=registration.etag)

    async def delete_registration(self, request: Request) -> Response:
        service = await self.authorize(request, Right.REGISTRATION_STATUS_WRITE)
        if_match = request.headers.get("if-match")
        await self.records.delete(service.id_scope, request.path_params["id"], if_match)
        return requests.no_content()

    async def query_registrations(self, request: Request) -> Response:
        """The registrations of a group; for an individual enrollment's id its single record (dps.md 6.1)."""
        service = await self.authorize(request, Right.REGISTRATION_STATUS_READ)
        identifier = request.path_params["id"]
        size = _page_size(request)
        group = await self.groups.find(service.id_scope, identifier)
        continuation = None
        if group is not None:
            after = request.headers.get("x-ms-continuation")
            found, continuation = await self.records.page(service.id_scope, group.id, after, size)
        else:
            await self.individual.get(service.id_scope, identifier)
            single = await self.records.find(service.id_scope, identifier)
            found = [single] if single is not None else []
        views = [state_view(item, service.hub_host(item.assigned_hub)) for item in found]
        return _page_response(views, "deviceRegistration", size, continuation)


@dataclass(frozen=True, slots=True)
class _EnrollmentsApi:
    """The handlers of one kind of enrollment."""

    api: DpsServiceApi
    enrollments: Enrollments

    async def get(self, request: Request) -> Response:
        service = await self.api.authorize(request, Right.ENROLLMENT_READ)
        enrollment = await self.enrollments.get(service.id_scope, request.path_params["id"])
        return await self._response(service, enrollment, keys=False)

    async def put(self, request: Request) -> Response:
        service = await self.api.authorize(request, Right.ENROLLMENT_WRITE)
        body = await requests.read_record(request, EnrollmentBody)
        if_match = request.headers.get("if-match")
        version = requests.require_api_version(request)
        enrollment = await self.enrollments.put(service, request.path_params["id"], body, if_match, version)
        response = await self._response(service, enrollment, keys=True)
        if enrollment.kind == "group":
            await self._review(request, service, enrollment, response)
        return response

    async def _review(
        self, request: Request, service: ProvisioningService, group: Enrollment, response: Response
    ) -> None:
        """Warnings are in a report whose tracking id a header has: the body is Azure's."""
        credential = requests.credential(request)
        attempt = Attempt("dps", service.id_scope, "write-group", group.id, credential.describe(), credential.peer)
        tracking_id = await self.api.group_reviews.review(group, attempt)
        if tracking_id is not None:
            response.headers["x-muster-tracking-id"] = tracking_id

    async def _response(self, service: ProvisioningService, enrollment: Enrollment, *, keys: bool) -> Response:
        view = service_view(enrollment, keys=keys)
        if enrollment.kind == "individual":
            state = await self.api.state(service, enrollment.id)
            if state is not None:
                view["registrationState"] = state
        return requests.json_response(view, etag=enrollment.etag)

    async def delete(self, request: Request) -> Response:
        service = await self.api.authorize(request, Right.ENROLLMENT_WRITE)
        if_match = request.headers.get("if-match")
        await self.enrollments.delete(service.id_scope, request.path_params["id"], if_match)
        return requests.no_content()

    async def query(self, request: Request) -> Response:
        """POST ``/enrollments/query``; the query text is taken as "all" (dps.md 6.5, interop-facts.md 9)."""
        service = await self.api.authorize(request, Right.ENROLLMENT_READ)
        if request.path_params["id"].lower() != "query":
            raise NotAllowedError
        body = await requests.read_body(request)
        if body.strip():
            decode(body, _Query)
        size = _page_size(request)
        page = await self.enrollments.page(service.id_scope, request.headers.get("x-ms-continuation"), size)
        views = [service_view(enrollment) for enrollment in page.enrollments]
        return _page_response(views, _ITEM_TYPES[self.enrollments.kind], size, page.continuation)

    async def attestation_mechanism(self, request: Request) -> Response:
        """The mechanism with its keys; the right is that of who may set them (dps.md 6.1)."""
        service = await self.api.authorize(request, Right.ENROLLMENT_WRITE)
        enrollment = await self.enrollments.get(service.id_scope, request.path_params["id"])
        return requests.json_response(mechanism_view(enrollment.mechanism, keys=True))

    async def bulk(self, request: Request) -> Response:
        """Each item for itself; the answer is 200 also when some failed (dps.md 6.6)."""
        service = await self.api.authorize(request, Right.ENROLLMENT_WRITE)
        body = await requests.read_record(request, _Bulk)
        items = body.enrollments if self.enrollments.kind == "individual" else body.enrollment_groups
        mode = any_case("mode", body.mode, BULK_MODES)
        version = requests.require_api_version(request)
        failed = await self.enrollments.bulk(service, mode, items or body.enrollments or [], version)
        member = _ID_MEMBERS[self.enrollments.kind]
        errors = [{member: item.id, "errorCode": item.error.code, "errorStatus": item.error.message} for item in failed]
        return requests.json_response({"isSuccessful": not errors, "errors": errors})


def _page_size(request: Request) -> int:
    """Raises ArgumentInvalidError for 0."""
    size = requests.integer(request.headers.get("x-ms-max-item-count"), DEFAULT_PAGE)
    if size == 0:
        raise ArgumentInvalidError("x-ms-max-item-count must be at least 1.")
    return min(size, MAXIMUM_PAGE)


def _page_response(views: list[dict[str, Any]], item_type: str, size: int, continuation: str | None) -> Response:
    headers = {"x-ms-item-type": item_type, "x-ms-max-item-count": str(size)}
    if continuation is not None:
        headers["x-ms-continuation"] = continuation
    return requests.json_response(views, headers=headers)
