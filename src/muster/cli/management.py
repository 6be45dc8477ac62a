"""Resource Manager's routes for the commands: which server, a token of its data directory, and the requests.

Who may read the data directory may manage the server; there is no other way in. Not here: what the commands do.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import NOT_FOUND
from pathlib import Path
from typing import Any, NamedTuple

from muster.cli.client import Answer, Client, path
from muster.cli.failure import CommandError, RefusedError
from muster.cli.options import find_status
from muster.cli.output import printable
from muster.cli.target import Document, target_from_status
from muster.config import TOKEN_KEY_FILE

PROVISIONING_API_VERSION = "2022-02-05"
HUB_API_VERSION = "2023-06-30"

_SECOND = 1_000_000
_SUBJECT = "muster-cli"
# Any subscription and any resource group are taken: these are what answers show to who names none.
_GROUP = ("subscriptions", "00000000-0000-0000-0000-000000000000", "resourceGroups", "muster")
_PROVIDER = ("providers", "Microsoft.Devices")

Resource = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ManagementAccess:
    """Signs bearer tokens with the key of a data directory."""

    host: str
    key: bytes = field(repr=False)

    def authorization(self, now: int, life: int) -> str:
        from muster.domain.bearer import sign_bearer

        return f"Bearer {sign_bearer(self.key, _SUBJECT, now * _SECOND, life * _SECOND)}"

    def about(self, origin: str) -> str:
        return f"the token was signed with the key beside {origin}"


class Owner(NamedTuple):
    """A resource that has policies and CA certificates."""

    api_version: str
    kind: str
    name: str


def service_owner(name: str) -> Owner:
    return Owner(PROVISIONING_API_VERSION, "provisioningServices", name)


def hub_owner(name: str) -> Owner:
    return Owner(HUB_API_VERSION, "IotHubs", name)


class Management:
    """The provisioning service and the hubs of one server."""

    def __init__(self, client: Client, access: ManagementAccess) -> None:
        self.client = client
        self._access = access

    # The provisioning service

    def service(self) -> Resource:
        """The provisioning service, of which there is one. Raises as ``Client.request``."""
        answer = self._request("GET", PROVISIONING_API_VERSION, "provisioningServices")
        service: Resource = answer.document["value"][0]
        return service

    def put_service(self, service: Resource) -> Resource:
        return self.put(service_owner(str(service["name"])), service)

    # Either

    def put(self, owner: Owner, resource: Resource) -> Resource:
        """Send a resource back as it was changed. It is refused when somebody else changed it in between."""
        stored: Resource = self._request("PUT", *owner, body=resource).document
        return stored

    def policies(self, owner: Owner) -> list[Resource]:
        """The shared access policies with their keys."""
        rules: list[Resource] = self._request("POST", *owner, "listkeys").document["value"]
        return rules

    def certificates(self, owner: Owner) -> list[Resource]:
        found: list[Resource] = self._request("GET", *owner, "certificates").document["value"]
        return found

    def certificate(
        self, owner: Owner, method: str, name: str, *more: str, body: object = None, etag: str | None = None
    ) -> Resource:
        """Do something with a CA certificate. ``more`` is the word of what is to be done, if it is not the method."""
        headers = {"If-Match": etag} if etag else {}
        resource: Resource = self._request(
            method, *owner, "certificates", name, *more, body=body, headers=headers
        ).document
        return resource

    def find_certificate(self, owner: Owner, name: str) -> Resource | None:
        return _found(lambda: self.certificate(owner, "GET", name))

    # Hubs

    def hubs(self) -> list[Resource]:
        found: list[Resource] = self._request("GET", HUB_API_VERSION, "IotHubs").document["value"]
        return found

    def find_hub(self, name: str) -> Resource | None:
        def get() -> Resource:
            hub: Resource = self._request("GET", HUB_API_VERSION, "IotHubs", name).document
            return hub

        return _found(get)

    def require_hub(self, name: str) -> Resource:
        """Raises CommandError when there is none."""
        hub = self.find_hub(name)
        if hub is None:
            raise CommandError(f"there is no hub {printable(name)}", "`muster hub list` shows them all")
        return hub

    def put_hub(self, name: str, body: Resource) -> Resource:
        return self.put(hub_owner(name), body)

    def delete_hub(self, name: str, *, force: bool) -> int:
        """The status of the answer: 204 when there was none."""
        query = {"force": "true"} if force else {}
        return self._request("DELETE", HUB_API_VERSION, "IotHubs", name, query=query).status

    def hub_connection_string(self, hub: Resource) -> str:
        """The connection string of its owner policy."""
        rule = self._request(
            "POST", HUB_API_VERSION, "IotHubs", str(hub["name"]), "IotHubKeys", "iothubowner", "listkeys"
        ).document
        host = hub["properties"]["hostName"]
        return f"HostName={host};SharedAccessKeyName={rule['keyName']};SharedAccessKey={rule['primaryKey']}"

    def _request(
        self,
        method: str,
        api_version: str,
        *segments: str,
        body: object = None,
        headers: Document | None = None,
        query: dict[str, str] | None = None,
    ) -> Answer:
        return self.client.request(
            self._access,
            method,
            path(*_GROUP, *_PROVIDER, *segments),
            query={"api-version": api_version, **(query or {})},
            body=body,
            headers=headers,
        )


def connect_management(data_directory: Path | None) -> Management:
    """The running server of this data directory, or of the nearest. Raises CommandError."""
    status = running_server(data_directory)
    target = target_from_status(status)
    client = Client(target, clock=time.time)  # noqa: TID251 - the clock of the command line
    return Management(client, ManagementAccess(target.provisioning.host, token_key(status)))


def running_server(data_directory: Path | None) -> Document:
    """The status of the server that is to be managed. Raises CommandError."""
    status = find_status(data_directory)
    if status is None:
        raise CommandError(
            "found no running server from this directory",
            "start one with `muster up`, or name its data directory with --data-dir",
        )
    return status


def token_key(status: Document) -> bytes:
    """The key of a server's bearer tokens. Raises CommandError."""
    file = Path(str(status["dataDirectory"])) / TOKEN_KEY_FILE
    try:
        return file.read_bytes()
    except OSError as error:
        raise CommandError(
            f"cannot read {file}: {error.strerror}", "run this as the user who started the server"
        ) from error


def _found(get: Callable[[], Resource]) -> Resource | None:
    try:
        return get()
    except RefusedError as error:
        if error.status == NOT_FOUND:
            return None
        raise
