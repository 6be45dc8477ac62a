"""Muster's own routes about provisioning: dry runs of attestation and of allocation. Documented in docs/api.md.

Nothing is written by them, and no report is kept. Not here: the checks and policies, which are those of real
registrations (``dps/attestations.py``, ``dps/allocations.py``).
"""

import asyncio
import base64
import binascii
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.allocation import LinkedHub, masked_url
from muster.domain.check_table import CHECKS, verdict
from muster.domain.credential import Credential
from muster.domain.enrollment import Enrollment
from muster.domain.errors import (
    ArgumentInvalidError,
    ArgumentNullError,
    CustomAllocationFailedError,
    EnrollmentNotFoundError,
    MisdirectedRequestError,
    ServiceError,
)
from muster.domain.registration import Registration
from muster.domain.report import Check, refusals
from muster.domain.timestamp import parse_iso
from muster.dps.allocations import Allocations, Plan
from muster.dps.attestations import Attestations, DeviceLogin
from muster.dps.enrollments import Enrollments
from muster.dps.registration_records import RegistrationRecords
from muster.dps.services import ProvisioningService, ProvisioningServices
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.requests import Guard
from muster.hub.access import ServiceAccess
from muster.hub.hubs import host_without_port
from muster.hub.reports import Attempt

WEBHOOK_SECONDS = 20.0
"""For all attempts together: who asks for a preview waits for it."""

_MAXIMUM_CERTIFICATES = 32


class _Attestation(msgspec.Struct, rename="camel"):
    """``certificates``: base64 of DER, the device's own first. ``at``: ISO 8601; now if not given."""

    registration_id: str | None = None
    certificates: list[str] = []
    enrollment_id: str | None = None
    group_id: str | None = None
    at: str | None = None


@dataclass(frozen=True, slots=True)
class ProvisioningPreviewApi:
    """The handlers; ``routes`` mounts them."""

    services: ProvisioningServices
    individual: Enrollments
    groups: Enrollments
    records: RegistrationRecords
    attestations: Attestations
    allocations: Allocations
    access: ServiceAccess
    host_names: Container[str]

    def routes(self, guard: Guard) -> list[Route]:
        table: dict[tuple[str, str], Any] = {
            ("/muster/v1/attestations", "POST"): self.attest,
            ("/muster/v1/allocations/{id:path}", "GET"): self.allocate,
        }
        return [
            Route(path, guard(handler, status.provisioning_body), methods=[method])
            for (path, method), handler in table.items()
        ]

    async def _authorize(self, request: Request) -> ProvisioningService:
        host = host_without_port(requests.host(request))
        if host not in self.host_names:
            raise MisdirectedRequestError
        service = self.services.first
        credential = requests.credential(request)
        path = request.scope["path"]
        attempt = Attempt("dps", service.id_scope, request.method, path, credential.describe(), credential.peer)
        hosts = (host, service.host_name)
        rights = (Right.ENROLLMENT_READ,)
        await self.access.require(attempt, credential, service.policies, hosts, requests.segments(request), rights)
        return service

    # Attestation

    async def attest(self, request: Request) -> Response:
        """What a registration with these certificates would be answered, and why."""
        service = await self._authorize(request)
        body = await requests.read_record(request, _Attestation)
        registration_id = body.registration_id or body.enrollment_id
        if not registration_id:
            raise ArgumentNullError("registrationId is required.")
        login = DeviceLogin(service.id_scope, registration_id)
        credential = Credential(_certificates(body.certificates), "", "")
        attestations = self.attestations if body.at is None else self.attestations.at(_time(body.at))
        found = await attestations.judge(login, credential)
        decides = found.enrollment
        named = await self._named(service, body)
        if named is not None:
            found = await attestations.judge_by(named, login, credential)
        return requests.json_response(
            {
                "registrationId": registration_id,
                "enrollment": _reference(found.enrollment),
                "decides": _reference(decides),
                **_judged(found.checks),
                "credential": credential.describe(),
                "checks": msgspec.to_builtins(found.checks),
            }
        )

    async def _named(self, service: ProvisioningService, body: _Attestation) -> Enrollment | None:
        """The enrollment that is to be judged by, if the body names one. Raises EnrollmentNotFoundError."""
        if body.enrollment_id and body.group_id:
            raise ArgumentInvalidError("enrollmentId and groupId are both given; name one of them.")
        if body.enrollment_id:
            return await self.individual.get(service.id_scope, body.enrollment_id)
        if body.group_id:
            return await self.groups.get(service.id_scope, body.group_id)
        return None

    # Allocation

    async def allocate(self, request: Request) -> Response:
        """Where a device would be assigned if it registered now, and why."""
        service = await self._authorize(request)
        registration_id = request.path_params["id"]
        record = await self.records.find(service.id_scope, registration_id)
        enrollment = await self._enrollment(service, registration_id, record, request.query_params.get("groupId"))
        ask = request.query_params.get("ask") == "1"
        view = {
            "registrationId": registration_id,
            "deviceId": enrollment.device_id(registration_id),
            "enrollment": _reference(enrollment),
            "provisioningStatus": enrollment.provisioning_status,
            "policy": enrollment.policy(service.allocation_policy),
            "currentHub": service.hub_host(record.assigned_hub) if record else None,
        }
        try:
            plan = self.allocations.plan(service, enrollment, registration_id, record)
            found = await self._landing(service, enrollment, registration_id, record, plan, ask=ask)
        except ServiceError as error:
            found = {"hub": None, "reason": "", "candidates": [], "answer": f"{error.code} {error.message}"}
        return requests.json_response({**view, **found})

    async def _enrollment(
        self, service: ProvisioningService, registration_id: str, record: Registration | None, group_id: str | None
    ) -> Enrollment:
        """That of the device: its own, the group that is named, or the group it registered by."""
        own = await self.individual.find(service.id_scope, registration_id)
        if own is not None:
            return own
        group_id = group_id or (record.enrollment_group_id if record else None)
        if not group_id:
            raise EnrollmentNotFoundError(
                f"There is no individual enrollment {registration_id!r}, and nothing was registered by that name: say"
                " groupId to preview a device of a group."
            )
        return await self.groups.get(service.id_scope, group_id)

    async def _landing(
        self,
        service: ProvisioningService,
        enrollment: Enrollment,
        registration_id: str,
        record: Registration | None,
        plan: Plan,
        *,
        ask: bool,
    ) -> dict[str, Any]:
        view: dict[str, Any] = {"candidates": [_hub_view(hub) for hub in plan.among], "answer": ""}
        choice = plan.choice
        if choice is None:
            custom = enrollment.document.custom_allocation
            assert custom is not None, "a custom policy is stored with its webhook"
            view["webhook"] = masked_url(custom.webhook_url)
            if not ask:
                reason = f"policy custom: the webhook {view['webhook']} is asked when the device registers"
                return {**view, "hub": None, "reason": reason}
            runtime: dict[str, Any] = {"symmetricKey": {}} if enrollment.mechanism.type == "symmetricKey" else {}
            try:
                async with asyncio.timeout(WEBHOOK_SECONDS):
                    found = await self.allocations.allocate(service, enrollment, registration_id, record, runtime)
            except TimeoutError:
                raise CustomAllocationFailedError(
                    f"Custom allocation failed with no usable answer within {WEBHOOK_SECONDS:g} s"
                ) from None
            choice = found.choice
        return {**view, "hub": _hub_view(choice.hub), "reason": choice.reason}


def _certificates(texts: list[str]) -> tuple[bytes, ...]:
    """Raises ArgumentInvalidError. What is inside is left to the checks."""
    if len(texts) > _MAXIMUM_CERTIFICATES:
        raise ArgumentInvalidError(f"There are {len(texts)} certificates; {_MAXIMUM_CERTIFICATES} are allowed.")
    try:
        return tuple(base64.b64decode(text, validate=True) for text in texts)
    except (binascii.Error, ValueError):
        raise ArgumentInvalidError("certificates takes base64 of DER, the device's own first.") from None


def _time(text: str) -> int:
    try:
        return parse_iso(text)
    except ValueError as error:
        raise ArgumentInvalidError(f"at is not valid: {error}.") from None


def _judged(checks: tuple[Check, ...]) -> dict[str, str]:
    error = verdict(checks)
    if error is not None:
        return {"verdict": "refused", "answer": f"{error.code} {error.message}"}
    if refusals(checks):
        return {"verdict": "disabled", "answer": CHECKS["enrollment.enabled"].answer}
    return {"verdict": "accepted", "answer": ""}


def _reference(enrollment: Enrollment | None) -> dict[str, str] | None:
    return {"kind": enrollment.kind, "id": enrollment.id} if enrollment else None


def _hub_view(hub: LinkedHub) -> dict[str, Any]:
    return {
        "name": hub.name,
        "hostName": hub.host_name,
        "allocationWeight": hub.weight,
        "latencyMilliseconds": hub.latency / 1000,
    }
