"""Muster's own routes under ``/muster/v1/``: status, events, reports. Documented in docs/api.md.

Not here: what has Azure's own API.
"""

from collections.abc import AsyncIterator, Callable, Container
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from muster.domain.access_policy import AccessPolicy, Right
from muster.domain.errors import ArgumentInvalidError, MisdirectedRequestError, NotFoundError
from muster.domain.message import Event, event_view
from muster.dps.services import ProvisioningServices
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.requests import Guard
from muster.hub.access import ServiceAccess
from muster.hub.events import MAXIMUM_READ, EventLog, Position
from muster.hub.hubs import Hub, Hubs, UnknownHubError, host_without_port
from muster.hub.reports import Attempt, Reports, report_view

KEEP_ALIVE_SECONDS = 15.0
_SKIPPED = "x-muster-skipped"
_DEFAULT_TOP = 100


@dataclass(frozen=True, slots=True)
class MusterApi:
    """The handlers; ``routes`` mounts them. ``describe`` gives what the status route shows, without secrets."""

    hubs: Hubs
    services: ProvisioningServices
    events: EventLog
    reports: Reports
    access: ServiceAccess
    host_names: Container[str]
    describe: Callable[[], dict[str, Any]]

    def routes(self, guard: Guard) -> list[Route]:
        table = {
            "/muster/v1/status": self.get_status,
            "/muster/v1/events": self.get_events,
            "/muster/v1/reports": self.list_reports,
            "/muster/v1/reports/{id:path}": self.find_reports,
        }
        return [
            Route(path, guard(handler, status.provisioning_body), methods=["GET"]) for path, handler in table.items()
        ]

    def _require_host(self, request: Request) -> None:
        if host_without_port(requests.host(request)) not in self.host_names:
            raise MisdirectedRequestError

    async def get_status(self, request: Request) -> Response:
        self._require_host(request)
        return requests.json_response(self.describe())

    async def _authorize(self, request: Request, policies: dict[str, AccessPolicy], *rights: Right) -> None:
        self._require_host(request)
        credential = requests.credential(request)
        path = request.scope["path"]
        attempt = Attempt("hub", "", request.method, path, credential.describe(), credential.peer)
        hosts = (host_without_port(requests.host(request)), *(hub.host_name for hub in self.hubs.all))
        await self.access.require(attempt, credential, policies, hosts, requests.segments(request), rights)

    def _hub(self, request: Request) -> Hub:
        name = request.query_params.get("hub")
        try:
            return self.hubs.by_name(name) if name else self.hubs.by_host(requests.host(request))
        except UnknownHubError:
            names = ", ".join(hub.name for hub in self.hubs.all)
            raise NotFoundError(f"There is no hub {name or requests.host(request)!r}; there are {names}.") from None

    # Reports

    async def _authorize_reports(self, request: Request) -> None:
        """By a policy of the provisioning service, or of the hub that is asked: each hub has one of every name."""
        self._require_host(request)
        policies = {**self._hub(request).policies, **self.services.first.policies}
        await self._authorize(request, policies, Right.ENROLLMENT_READ, Right.SERVICE_CONNECT)

    async def list_reports(self, request: Request) -> Response:
        await self._authorize_reports(request)
        top = requests.integer(request.query_params.get("top"), 20)
        service = request.query_params.get("service")
        if service not in (None, "dps", "hub"):
            raise ArgumentInvalidError(f"service is {service!r}; dps and hub are allowed.")
        found = await self.reports.latest(min(max(top, 1), MAXIMUM_READ), service)
        return requests.json_response([report_view(report) for report in found])

    async def find_reports(self, request: Request) -> Response:
        await self._authorize_reports(request)
        identifier = request.path_params["id"]
        found = await self.reports.find(identifier)
        if not found:
            raise NotFoundError(
                f"There is no report for {identifier!r}: nothing with this tracking, registration or device id was"
                f" refused here,"
                " or its report is too old."
            )
        return requests.json_response([report_view(report) for report in found])

    # Events

    async def get_events(self, request: Request) -> Response:
        self._require_host(request)
        hub = self._hub(request)
        await self._authorize(request, hub.policies, Right.SERVICE_CONNECT)
        selection = _Selection.of(request, hub)
        streaming = "text/event-stream" in request.headers.get("accept", "")
        position = await self._position(request, hub, selection, "latest" if streaming else "earliest")
        skipped = await self.events.skipped(hub.name, position, selection.partition)
        headers = {_SKIPPED: str(skipped)} if skipped else {}
        if streaming:
            headers["Cache-Control"] = "no-store"
            stream = self._follow(hub, selection, position)
            return StreamingResponse(stream, media_type="text/event-stream", headers=headers)
        top = requests.integer(request.query_params.get("top"), _DEFAULT_TOP)
        events, following = await self.events.read(hub.name, position, top, selection.partition)
        views = [event_view(event) for event in events if selection.includes(event)]
        headers["x-muster-continuation"] = str(following)
        return requests.json_response(views, headers=headers)

    async def _position(self, request: Request, hub: Hub, selection: "_Selection", default: str) -> Position:
        continuation = request.headers.get("last-event-id") or request.query_params.get("continuation")
        if continuation:
            return _parse_position(continuation, hub)
        start = request.query_params.get("from", default)
        earliest, latest = await self.events.positions(hub.name)
        if start == "earliest":
            return earliest
        if start == "latest":
            return latest
        number = requests.integer(start, -1)
        if selection.partition is None or number < 0:
            raise ArgumentInvalidError("from is earliest, latest, or a sequence number together with partition.")
        numbers = list(latest.next_sequence_numbers)
        numbers[selection.partition] = number
        return Position(tuple(numbers))

    async def _follow(self, hub: Hub, selection: "_Selection", position: Position) -> AsyncIterator[bytes]:
        # The position after each single event is its id, so that a reader that reconnects misses and repeats none.
        numbers = list(position.next_sequence_numbers)
        yield b": following\n\n"
        async for events, _ in self.events.follow(hub.name, position, selection.partition, idle=KEEP_ALIVE_SECONDS):
            if not events:
                yield b": keep-alive\n\n"
            for event in events:
                numbers[event.partition] = event.sequence_number + 1
                if selection.includes(event):
                    data = msgspec.json.encode(event_view(event))
                    yield b"id: %s\nevent: event\ndata: %s\n\n" % (
                        str(Position(tuple(numbers))).encode(),
                        data,
                    )


@dataclass(frozen=True, slots=True)
class _Selection:
    """Which events a request asks for."""

    partition: int | None
    device_id: str | None
    source: str | None

    @classmethod
    def of(cls, request: Request, hub: Hub) -> "_Selection":
        """Raises ArgumentInvalidError for a partition that the hub does not have."""
        query = request.query_params
        text = query.get("partition")
        partition = None if text is None else requests.integer(text, -1)
        if partition is not None and not 0 <= partition < hub.partition_count:
            raise ArgumentInvalidError(f"partition is {text!r}; the hub has 0 to {hub.partition_count - 1}.")
        return cls(partition, query.get("deviceId"), query.get("source"))

    def includes(self, event: Event) -> bool:
        return (self.device_id in (None, event.origin.device_id)) and (self.source in (None, event.source))


def _parse_position(text: str, hub: Hub) -> Position:
    try:
        position = Position.parse(text)
    except ValueError:
        position = None
    if position is None or len(position.next_sequence_numbers) != hub.partition_count:
        raise ArgumentInvalidError(f"The continuation {text!r} is not one of this hub's.")
    return position
