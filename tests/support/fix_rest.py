"""The REST application in the test's own process: requests in, answers out, no socket between them.

``rest`` asks the application of ``services``, as a client of the network would; a request is signed as the owner of
the API that it asks unless the test says otherwise.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

import pytest
from starlette.types import ASGIApp, Message, Scope

from muster.domain.sas import create_token
from muster.domain.timestamp import SECOND
from muster.frontends.listener import Peer
from muster.server.rest import hub_apis, muster_api, provisioning_apis, rest_app
from tests.support.fix_services import KEY, Services

DPS_HOST = "dps.example.net"
HUB_HOST = "hub.example.net"
DPS_OWNER = "provisioningserviceowner"
HUB_OWNER = "iothubowner"
VERSION = "api-version=2021-10-01"

_HOUR = 3600
_WAIT_SECONDS = 30.0
_PEER = Peer(("127.0.0.1", 40001), ("127.0.0.1", 443), tls_version="TLSv1.3")


@dataclass(frozen=True)
class Answer:
    """An answer; the names of its headers in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class EventStream:
    """A stream of server-sent events while it is open."""

    status: int
    headers: dict[str, str]
    _chunks: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    _rest: bytes = b""

    async def block(self) -> bytes:
        """The next block: a comment, or the lines of one event."""
        while b"\n\n" not in self._rest:
            self._rest += await asyncio.wait_for(self._chunks.get(), _WAIT_SECONDS)
        block, self._rest = self._rest.split(b"\n\n", 1)
        return block

    async def event(self) -> tuple[str, dict[str, Any]]:
        """The next event: its id and its data. Comments are passed over."""
        while (block := await self.block()).startswith(b":"):
            pass
        fields = dict(line.split(": ", 1) for line in block.decode().splitlines())
        assert fields["event"] == "event"
        return fields["id"], json.loads(fields["data"])


class RestClient:
    """Asks one application."""

    def __init__(self, app: ASGIApp, services: Services) -> None:
        self._app = app
        self._services = services
        self.peer = _PEER

    def token(self, policy: str, host: str, *, key: str = KEY, resource: str | None = None, life: int = _HOUR) -> str:
        """A token of a policy, that lives ``life`` seconds from the services' clock on."""
        return create_token(resource or host, key, self._services.clock.now // SECOND + life, policy)

    async def request(
        self,
        method: str,
        target: str,
        body: object = b"",
        *,
        host: str | None = None,
        authorization: str | None = "",
        complete: bool = True,
        **headers: str,
    ) -> Answer:
        """Ask. ``authorization`` is ``""`` for the owner's own token, None for no such header.

        Of ``headers``, underscores in a name without hyphens stand for hyphens. A body that is not bytes is sent as
        JSON; one that is not ``complete`` is half of it, and the client leaves then.
        """
        wanted = _host_of(target) if host is None else host
        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

        scope = self._scope(method, target, wanted, authorization, headers)
        await self._app(scope, _receiver(_encoded(body), complete=complete), send)
        start = messages[0]
        content = b"".join(message.get("body", b"") for message in messages[1:])
        return Answer(start["status"], _decoded(start["headers"]), content)

    @asynccontextmanager
    async def stream(self, target: str, *, host: str = HUB_HOST, **headers: str) -> AsyncIterator[EventStream]:
        """The events of ``target`` as they come, until the block is left."""
        scope = self._scope("GET", target, host, "", {"accept": "text/event-stream", **headers})
        chunks: asyncio.Queue[bytes] = asyncio.Queue()
        started: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        left = asyncio.Event()

        async def receive() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                started.set_result(message)
            else:
                chunks.put_nowait(message.get("body", b""))

        serving = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            await asyncio.wait((serving, started), timeout=_WAIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            start = started.result()
            yield EventStream(start["status"], _decoded(start["headers"]), chunks)
        finally:
            left.set()
            await asyncio.wait_for(serving, _WAIT_SECONDS)

    def _scope(self, method: str, target: str, host: str, authorization: str | None, headers: dict[str, str]) -> Scope:
        path, _, query = target.partition("?")
        own = {"host": host, **{_header_name(name): value for name, value in headers.items()}}
        if authorization is not None:
            owner = DPS_OWNER if host.startswith(DPS_HOST) else HUB_OWNER
            own["authorization"] = authorization or self.token(owner, host)
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "https",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in own.items()],
            "client": _PEER.remote,
            "server": _PEER.local,
            "state": {"peer": self.peer, "header_names": [name.encode() for name in own]},
        }


def _host_of(target: str) -> str:
    return DPS_HOST if target.lower().startswith(("/enrollments", "/registrations")) else HUB_HOST


def _header_name(name: str) -> str:
    return name if "-" in name else name.replace("_", "-")


def _encoded(body: object) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def _decoded(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode().lower(): value.decode("latin-1") for name, value in headers}


def _receiver(body: bytes, *, complete: bool) -> Any:
    # Two pieces, as a body of some size arrives.
    half = len(body) // 2
    messages: list[Message] = [{"type": "http.request", "body": body[:half], "more_body": True}]
    if complete:
        messages.append({"type": "http.request", "body": body[half:], "more_body": False})

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive


@pytest.fixture
def rest(services: Services) -> RestClient:
    hosts = frozenset({DPS_HOST, HUB_HOST, "localhost", "127.0.0.1", "::1"})
    apis = [
        *provisioning_apis(services, services.clock, hosts),
        *hub_apis(services, hosts),
        muster_api(services, hosts, lambda: {"version": "1"}),
    ]
    return RestClient(rest_app(services, services.clock, apis), services)
