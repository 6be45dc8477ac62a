"""The DPS device API over HTTPS: register, poll, look up. Sources: dps.md 1.

Not here: MQTT (``mqtt/dps.py``), and what makes a registration.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.errors import ServiceError, TpmChallengeError, UnsupportedMediaTypeError
from muster.domain.registration import RETRY_AFTER, begun_view, operation_view, state_view
from muster.dps.attestations import DeviceLogin
from muster.dps.registration_records import RegistrationRecords
from muster.dps.registrations import Registrations
from muster.dps.services import ProvisioningServices
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.requests import Guard

_ACCEPTED = 202
_FINISHED = 200


@dataclass(frozen=True, slots=True)
class DpsDeviceApi:
    """The handlers; ``routes`` mounts them."""

    services: ProvisioningServices
    registrations: Registrations
    records: RegistrationRecords
    clock: Callable[[], int]

    def routes(self, guard: Guard) -> list[Route]:
        table = {
            ("/{scope}/registrations/{id}/register", "PUT"): self.register,
            ("/{scope}/registrations/{id}/operations/{operation}", "GET"): self.poll,
            ("/{scope}/registrations/{id}", "POST"): self.look_up,
        }
        return [Route(path, guard(handler, _error_body), methods=[method]) for (path, method), handler in table.items()]

    async def register(self, request: Request) -> Response:
        """Always 202: two clients accept nothing else (dps.md 1.1)."""
        login = _login(request)
        _require_json(request)
        body = await requests.read_body(request)
        operation = await self.registrations.register(login, requests.credential(request), body)
        view = begun_view(operation.registration)
        location = f"https://{requests.host(request)}{request.scope['path']}"
        return _response(view, _ACCEPTED, {"Location": location, "x-ms-request-id": operation.tracking_id})

    async def poll(self, request: Request) -> Response:
        """202 while assigning, 200 when finished in whatever way. A body, which one client sends, is ignored."""
        login = _login(request)
        operation = await self.registrations.poll(login, requests.credential(request), request.path_params["operation"])
        view = operation_view(operation.registration, operation.hub_host)
        return _response(view, _ACCEPTED if operation.registration.status == "assigning" else _FINISHED)

    async def look_up(self, request: Request) -> Response:
        """The current record of the device that asks, without a chain that was issued to it (dps.md 1.1, 1.3, 1.5)."""
        login = _login(request)
        body = await requests.read_body(request)
        await self.registrations.require_credential(login, requests.credential(request), body)
        service = self.services.find(login.id_scope)
        assert service is not None, "the credential was judged by it"
        registration = await self.records.get(service.id_scope, login.registration_id)
        shown = registration.attestation if registration.status != "assigning" else {}
        view = {**shown, **state_view(registration, service.hub_host(registration.assigned_hub))}
        for name in ("issuedCertificateChain", "issuedClientCertificate"):
            view.pop(name, None)
        return _response(view, _FINISHED)


def _login(request: Request) -> DeviceLogin:
    version = requests.require_api_version(request)
    return DeviceLogin(request.path_params["scope"], request.path_params["id"], version)


def _require_json(request: Request) -> None:
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise UnsupportedMediaTypeError


def _response(view: dict[str, Any], code: int, headers: dict[str, str] | None = None) -> Response:
    more = {"Retry-After": str(RETRY_AFTER)} if code == _ACCEPTED else {}
    return Response(
        status.ascii_json(view),
        status_code=code,
        media_type="application/json; charset=utf-8",
        headers={**(headers or {}), **more},
    )


def _error_body(error: ServiceError, tracking_id: str, now: int) -> bytes:
    """A challenge has a body of its own, and only a TPM ever gets one (dps.md 4.6, 9.2)."""
    if isinstance(error, TpmChallengeError):
        return status.ascii_json(
            {
                "message": error.message,
                "authenticationKey": error.authentication_key,
                # The real service has this member; a nonce in it would make the challenge worthless.
                "unencryptedAuthenticationKey": None,
                "keyName": "registration",
            }
        )
    return status.provisioning_body(error, tracking_id, now)
