"""Which device or module asks over HTTPS: each request proves itself. Sources: hub-device.md 10.1, 11.

Not here: service clients (``hub_gate.py``), and any route.
"""

from dataclasses import dataclass

from starlette.requests import Request

from muster.domain.errors import NotFoundError
from muster.domain.sas import MalformedTokenError, parse_token
from muster.frontends.rest import requests
from muster.hub.authentication import DeviceAuthentication, DeviceLogin, Principal
from muster.hub.hubs import Hubs, UnknownHubError


@dataclass(frozen=True, slots=True)
class DeviceGate:
    """Judges devices and modules of all hubs."""

    hubs: Hubs
    authentication: DeviceAuthentication

    async def identity(self, request: Request) -> Principal:
        """The device or module of the path. Raises what refuses it, with a report; NotFoundError,
        InvalidProtocolVersionError.
        """
        return await self._authenticate(request, request.path_params.get("module", ""))

    async def device(self, request: Request) -> Principal:
        """The device of the path, for its modules too: as which a host's daemon asks. Raises the same."""
        return await self._authenticate(request, "")

    async def _authenticate(self, request: Request, module_id: str) -> Principal:
        host = requests.host(request)
        try:
            hub = self.hubs.by_host(host)
        except UnknownHubError:
            raise NotFoundError(f"No hub is served as {host!r}.") from None
        login = DeviceLogin(hub, host, request.path_params["id"], module_id)
        principal = await self.authentication.authenticate(login, requests.credential(request))
        requests.require_api_version(request)
        return principal


def is_by_device(request: Request) -> bool:
    """Whether a request comes with what devices prove themselves with, and not with the key of a policy."""
    credential = requests.credential(request)
    if not credential.token:
        return bool(credential.certificates)
    try:
        return not parse_token(credential.token).key_name
    except MalformedTokenError:
        return False
