"""The hub's device API: telemetry in, messages from the cloud out, one request at a time. Sources: hub-device.md 10.

A device that speaks HTTPS is never connected: each request proves itself. Not here: MQTT (``mqtt/hub.py``), and methods
that an edge module invokes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.c2d_message import LOCK_DURATION, require_lock_duration
from muster.domain.errors import ArgumentInvalidError, StorageNotConfiguredError, TooLargeError
from muster.domain.message import MAXIMUM_MESSAGE_BYTES, TELEMETRY, PropertyBag
from muster.domain.partition import partition_of
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.device_gate import DeviceGate
from muster.frontends.rest.message_headers import (
    BATCH_CONTENT_TYPE,
    ExactName,
    bag_of_headers,
    delivery_headers,
    read_batch,
)
from muster.frontends.rest.requests import Guard
from muster.hub.authentication import Principal
from muster.hub.c2d_messages import C2dMessages
from muster.hub.event_batches import Messages, Run
from muster.hub.sessions import Sessions

_LOCK_TIMEOUT = "iothub-messagelocktimeout"
_REJECT = frozenset({"reject", "?reject"})  # one client encodes the question mark a second time

_IDENTITIES = ("/devices/{id}", "/devices/{id}/modules/{module}")


class TelemetryStore(Protocol):
    """Where telemetry goes: the event log, or what wraps it."""

    async def store(self, hub: str, partition: int, messages: Messages) -> None: ...


@dataclass(frozen=True, slots=True)
class HubDeviceApi:
    """The handlers; ``routes`` mounts them."""

    gate: DeviceGate
    events: TelemetryStore
    c2d: C2dMessages
    sessions: Sessions

    def routes(self, guard: Guard) -> list[Route]:
        table = {
            ("/messages/events", "POST"): self.send,
            ("/messages/devicebound", "GET"): self.receive,
            ("/messages/devicebound/{token}", "DELETE"): self.settle,
            ("/messages/devicebound/{token}/abandon", "POST"): self.abandon,
            ("/files", "POST"): self.upload,
            ("/files/notifications", "POST"): self.upload,
            ("/files/notifications/{correlation}", "POST"): self.upload,
        }
        return [
            Route(identity + path, guard(handler, status.hub_body), methods=[method])
            for identity in _IDENTITIES
            for (path, method), handler in table.items()
        ]

    # Telemetry

    async def send(self, request: Request) -> Response:
        """204 when the messages are on disk."""
        principal = await self.gate.identity(request)
        body = await requests.read_body(request, MAXIMUM_MESSAGE_BYTES)
        if _is_batch(request):
            messages: Sequence[tuple[PropertyBag, bytes]] = read_batch(body)
        else:
            messages = [(bag_of_headers(requests.header_items(request)), body)]
        for bag, content in messages:
            if len(content) > bag.room:
                raise TooLargeError(
                    f"The message has {len(content) + bag.size} bytes with its properties; {MAXIMUM_MESSAGE_BYTES} are"
                    " allowed."
                )
        if messages:
            partition = partition_of(principal.identity.device_id, principal.hub.partition_count)
            await self.events.store(principal.hub.name, partition, Messages.of(*_runs(principal, messages)))
            self.sessions.active_without(principal)
        return requests.no_content()

    # Messages from the cloud

    async def receive(self, request: Request) -> Response:
        """The next message under a lock, or 204."""
        principal = await self.gate.identity(request)
        identity = principal.identity
        delivery = await self.c2d.lock_next(
            principal.hub.name, identity.device_id, identity.module_id, duration=_lock_duration(request)
        )
        if delivery is None:
            return requests.no_content()
        response = Response(delivery.body)
        response.raw_headers += [
            *delivery_headers(delivery),
            (ExactName(b"Content-Type"), b"application/octet-stream"),
        ]
        return response

    async def settle(self, request: Request) -> Response:
        """Complete; with ``reject`` in the query: reject. The path names the lock, whatever If-Match says."""
        principal = await self.gate.identity(request)
        identity = principal.identity
        operation = self.c2d.reject if _rejects(request) else self.c2d.complete
        await operation(principal.hub.name, identity.device_id, identity.module_id, requests.lock_token(request))
        return requests.no_content()

    async def abandon(self, request: Request) -> Response:
        """Back to the queue. A body, which one client sends, is ignored."""
        principal = await self.gate.identity(request)
        identity = principal.identity
        await self.c2d.abandon(principal.hub.name, identity.device_id, identity.module_id, requests.lock_token(request))
        return requests.no_content()

    # Files

    async def upload(self, request: Request) -> Response:
        """What a hub without a storage account answers (hub-device.md 10.4)."""
        await self.gate.identity(request)
        raise StorageNotConfiguredError


def _is_batch(request: Request) -> bool:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == BATCH_CONTENT_TYPE


def _runs(principal: Principal, messages: Sequence[tuple[PropertyBag, bytes]]) -> list[Run]:
    identity = principal.identity
    stamps = (
        TELEMETRY,
        identity.device_id,
        identity.module_id,
        identity.generation_id,
        principal.authentication_method,
        "",
    )
    return [((*stamps, bag.system_properties, bag.application_properties), [content]) for bag, content in messages]


def _lock_duration(request: Request) -> int:
    """One client has the header, another one an item of the query. Raises ArgumentInvalidError."""
    query = {name.lower(): value for name, value in request.query_params.items()}
    text = request.headers.get(_LOCK_TIMEOUT) or query.get(_LOCK_TIMEOUT)
    if not text:
        return LOCK_DURATION
    seconds = requests.integer(text, -1)
    if seconds < 0:
        raise ArgumentInvalidError(f"{_LOCK_TIMEOUT} is {text[:50]!r}, not a number of seconds.")
    return require_lock_duration(seconds)


def _rejects(request: Request) -> bool:
    names = parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return any(name.lower() in _REJECT for name, _ in names)
