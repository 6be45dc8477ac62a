"""The portal as one ASGI application: its routes, and the one place where errors become pages.

It speaks to services only. Not here: its port, which the composition root opens apart from the TLS ports,
because browsers ask for certificates there.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from muster.domain.errors import ServiceError
from muster.dps.enrollments import Enrollments
from muster.dps.registration_records import RegistrationRecords
from muster.dps.services import ProvisioningServices
from muster.hub.events import EventLog
from muster.hub.hubs import Hubs
from muster.hub.reports import Reports
from muster.observe import Operation
from muster.pki.certificate import parse_certificate, read_certificates
from muster.portal.live import LiveLists
from muster.portal.pages import Pages
from muster.portal.security import Guard
from muster.portal.static_files import StaticFiles
from muster.portal.templating import Templates

Handler = Callable[[Request], Awaitable[ASGIApp]]

_SERVER_ERROR = 500
_TITLES = {404: "Not found", 405: "Not allowed", _SERVER_ERROR: "Something went wrong", 503: "Not available now"}
_TEXTS = {404: "There is no such page.", 405: "This page can only be read."}


class Portal:
    """An ASGI application; ``close`` ends its live streams, so that a server can stop."""

    def __init__(self, app: ASGIApp, live: LiveLists) -> None:
        self._app = app
        self._live = live

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)

    def close(self) -> None:
        self._live.close()


def create_portal(
    *,
    provisioning: ProvisioningServices,
    enrollments: Enrollments,
    records: RegistrationRecords,
    hubs: Hubs,
    events: EventLog,
    reports: Reports,
    host_names: frozenset[str],
    clock: Callable[[], int],
    start_token: str | None,
    ca_certificate: bytes,
    describe: Callable[[], dict[str, Any]],
    entropy: Callable[[int], bytes] = os.urandom,
) -> Portal:
    """The portal over these services.

    It answers under ``host_names`` and the names of loopback. With ``start_token`` every page but the static files
    asks for it. ``ca_certificate`` is PEM; ``describe`` gives what may be known of the server, without secrets;
    ``clock`` gives microseconds UTC; ``entropy(n)`` gives n random bytes. Raises CertificateFormatError.
    """
    static_files = StaticFiles()
    templates = Templates(static_files.address)
    live = LiveLists(events, reports, templates.arrival_rows, templates.refusal_rows)
    pages = Pages(
        provisioning=provisioning,
        enrollments=enrollments,
        records=records,
        hubs=hubs,
        events=events,
        reports=reports,
        live=live,
        templates=templates,
        clock=clock,
        describe=describe,
        ca_pem=ca_certificate,
        ca=parse_certificate(read_certificates(ca_certificate)[0]),
    )
    guard = Guard(
        _routes(pages, static_files),
        host_names=host_names,
        start_token=start_token,
        sign_in_page=templates.render("sign_in.html"),
        public_paths=static_files.paths,
        entropy=entropy,
    )
    return Portal(guard, live)


def _routes(pages: Pages, static_files: StaticFiles) -> ASGIApp:
    table: dict[str, Handler] = {
        "/": pages.overview,
        "/enrollments": pages.list_enrollments,
        "/enrollments/individual": pages.show_enrollment,
        "/arrivals": pages.list_arrivals,
        "/refusals": pages.list_refusals,
        "/refusals/{identifier:path}": pages.show_refusal,
        "/stream": pages.stream,
        "/trust": pages.trust,
        "/ca.pem": pages.certificate,
    }
    routes = [Route(path, _endpoint(pages, handler), methods=["GET"]) for path, handler in table.items()]
    routes.append(Route("/static/{name}", static_files.serve, methods=["GET"]))

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _error_page(pages, request, error.status_code, _TEXTS.get(error.status_code, ""))

    app = Starlette(routes=routes, exception_handlers={HTTPException: refused})
    app.router.redirect_slashes = False
    return app


def _endpoint(pages: Pages, handler: Handler) -> Handler:
    """``handler`` with its errors as pages, and with its line in the log when it shows a person something."""
    name = handler.__name__

    async def endpoint(request: Request) -> ASGIApp:
        operation = Operation(f"portal.{name}", request.client.host if request.client else "-")
        try:
            response = await handler(request)
        except ServiceError as error:
            response = _error_page(pages, request, error.status, error.message)
        except Exception:  # noqa: BLE001 - the one place that catches everything
            tracking_id = pages.reports.new_tracking_id()
            operation.failed(tracking_id)
            return _error_page(pages, request, _SERVER_ERROR, f"The log has the reason under {tracking_id}.")
        if isinstance(response, Response):
            operation.finished(response.status_code)
        return response

    return endpoint


def _error_page(pages: Pages, request: Request, status: int, text: str) -> Response:
    title = _TITLES.get(status, "Not possible")
    return pages.page(request, "error.html", title, status=status, text=text)
