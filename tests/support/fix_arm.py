"""Resource Manager's routes in the test's own process, and a client that holds a token for them.

The server is that of a network with the name ``example.net``, so hubs have names below it and nothing has to be
listened on.
"""

import ipaddress
from collections.abc import Sequence
from typing import Any

import pytest

from muster.domain.bearer import sign_bearer
from muster.domain.timestamp import HOUR
from muster.frontends.rest.arm import BearerAccess
from muster.frontends.served_hosts import Ports, ServedHosts
from muster.pki.authority import create_authority, names_outside
from muster.server.rest import management_apis, rest_app
from tests.support.fix_rest import Answer, RestClient
from tests.support.fix_services import Services

TOKEN_KEY = bytes(range(32, 64))
SUBSCRIPTION = "/subscriptions/5ca1ab1e-0000-0000-0000-000000000001"
GROUP = f"{SUBSCRIPTION}/resourceGroups/line-a"
PROVIDER = "/providers/Microsoft.Devices"
SERVICE = f"{GROUP}{PROVIDER}/provisioningServices/dps"
HUBS = f"{GROUP}{PROVIDER}/IotHubs"
VERSION = "api-version=2022-02-05"

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


class RecordingCertifier:
    """A real CA for ``example.net``; ``renewed`` is what the server certificate was issued for, each time."""

    def __init__(self, *networks: str) -> None:
        self.authority = create_authority(
            ("example.net",), [ipaddress.ip_network(one) for one in networks], 1_790_000_000_000_000
        )
        self.renewed: list[set[str]] = []

    def outside(self, names: Sequence[str], addresses: Sequence[Address]) -> list[str]:
        return names_outside(self.authority.certificate_pem, names, addresses)

    def renew(self, names: Sequence[str], addresses: Sequence[Address]) -> None:
        self.renewed.append({*names, *map(str, addresses)})


class ManagementClient:
    """Asks the routes with a token that is good for an hour."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.certifier = RecordingCertifier()
        ports = Ports(8883, 5671, 443, 8443)
        self.hosts = ServedHosts(self.certifier, ports, ("example.net",), (), loopback=False)
        access = BearerAccess(TOKEN_KEY, services.clock)
        app = rest_app(services, services.clock, management_apis(services, self.hosts, access, None))
        self._rest = RestClient(app, services)

    def token(self) -> str:
        return f"Bearer {sign_bearer(TOKEN_KEY, 'test', self.services.clock(), HOUR)}"

    async def request(
        self,
        method: str,
        target: str,
        body: object = b"",
        *,
        authorization: str | None = "",
        if_match: str | None = None,
    ) -> Answer:
        """Ask. ``authorization`` is ``""`` for a good token, None for none; ``target`` gets an api-version if it has no
        query.
        """
        wanted = self.token() if authorization == "" else authorization
        headers: dict[str, Any] = {} if if_match is None else {"if_match": if_match}
        target = target if "?" in target else f"{target}?{VERSION}"
        return await self._rest.request(method, target, body, host="dps.example.net", authorization=wanted, **headers)

    async def get(self, target: str = SERVICE) -> Any:
        """The JSON of what must be there."""
        answer = await self.request("GET", target)
        assert answer.status == 200, answer
        return answer.json

    async def put(self, target: str, body: object, if_match: str | None = None) -> Any:
        """The JSON of a change that must be taken."""
        answer = await self.request("PUT", target, body, if_match=if_match)
        assert answer.status in (200, 201), answer
        return answer.json


@pytest.fixture
def arm(services: Services) -> ManagementClient:
    return ManagementClient(services)
