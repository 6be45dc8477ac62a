"""The pages: what each asks of the services, and which template shows it. All of them only read.

Not here: who may ask (``security.py``), and how facts are worded (``display.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp

from muster.domain.enrollment import Enrollment
from muster.domain.errors import NotFoundError
from muster.domain.registration import Registration
from muster.domain.registration_id import registration_id_problem
from muster.domain.report import Report
from muster.dps.enrollments import Enrollments
from muster.dps.registration_records import RegistrationRecords
from muster.dps.services import ProvisioningService, ProvisioningServices
from muster.hub.events import EventLog
from muster.hub.hubs import Hub, Hubs, UnknownHubError
from muster.hub.reports import Reports
from muster.pki.certificate import Certificate
from muster.portal import display
from muster.portal.live import MAXIMUM_ROWS, LiveLists
from muster.portal.security import CSRF_SCOPE
from muster.portal.templating import Templates

PAGE_SIZE = 25
OVERVIEW_ROWS = 8
_COUNTED = 100
_OF_ONE_DEVICE = 10
_LENGTHS = (str(OVERVIEW_ROWS), str(MAXIMUM_ROWS))

Crumb = tuple[str, str | None]
"""A breadcrumb: its text, and where it leads; None when that is not a page."""

PROVISIONING: tuple[Crumb, ...] = (("Device Provisioning Service", None),)
ENROLLMENTS: tuple[Crumb, ...] = (*PROVISIONING, ("Settings", None), ("Manage enrollments", "/enrollments"))


@dataclass(frozen=True, slots=True)
class ShownRegistration:
    """A registration record with the host name of its hub."""

    record: Registration
    hub_host: str | None


@dataclass(frozen=True, slots=True)
class EnrollmentRow:
    """One individual enrollment of the list."""

    enrollment: Enrollment
    certificates: list[display.ShownCertificate]
    registration: ShownRegistration | None


@dataclass(frozen=True, slots=True)
class Pages:
    """The handlers. ``describe`` gives what the status route shows; ``ca`` are the facts of ``ca_pem``."""

    provisioning: ProvisioningServices
    enrollments: Enrollments
    records: RegistrationRecords
    hubs: Hubs
    events: EventLog
    reports: Reports
    live: LiveLists
    templates: Templates
    clock: Callable[[], int]
    describe: Callable[[], dict[str, Any]]
    ca_pem: bytes
    ca: Certificate

    def page(
        self,
        request: Request,
        template: str,
        title: str,
        trail: tuple[Crumb, ...] = (),
        *,
        here: str = "",
        status: int = 200,
        **context: Any,
    ) -> Response:
        """A page of the layout; ``here`` is its entry in the navigation."""
        frame = {
            "title": title,
            "trail": trail,
            "here": here,
            "csrf_token": request.scope[CSRF_SCOPE],
            "service": self.provisioning.first,
            "clock_offset": _clock_offset(self.describe()),
        }
        return HTMLResponse(self.templates.render(template, **frame, **context), status)

    # Overview

    async def overview(self, request: Request) -> Response:
        hub = self._hub(request)
        after, arrivals = await self._last_arrivals(hub, OVERVIEW_ROWS)
        description = self.describe()
        return self.page(
            request,
            "overview.html",
            "Overview",
            here="overview",
            description=description,
            uptime=display.duration(int(description.get("uptimeSeconds", 0))),
            hub=hub,
            hubs=self.hubs.all,
            counts=await self._counts(),
            ca_expiry=display.expiry(self.ca, self.clock()),
            arrivals=arrivals,
            refusals=[display.refusal(report) for report in await self.reports.latest(OVERVIEW_ROWS)],
            after=after,
            rows=OVERVIEW_ROWS,
        )

    async def _counts(self) -> dict[str, str]:
        """How many there are of what; beyond a hundred only that there are more, for services count nothing."""
        page = await self.enrollments.page(self.provisioning.first.id_scope, size=_COUNTED)
        reports = await self.reports.latest(_COUNTED)
        messages = 0
        for hub in self.hubs.all:
            oldest, newest = await self.events.positions(hub.name)
            messages += sum(newest.next_sequence_numbers) - sum(oldest.next_sequence_numbers)
        return {
            "enrollments": f"{len(page.enrollments)}{'+' if page.continuation else ''}",
            "messages": f"{messages:,}",
            "reports": f"{len(reports)}{'+' if len(reports) == _COUNTED else ''}",
        }

    # Device Provisioning Service > Settings > Manage enrollments

    async def list_enrollments(self, request: Request) -> Response:
        service, after = self.provisioning.first, request.query_params.get("after")
        if after and registration_id_problem(after):
            raise NotFoundError("There is no such page of the list.")
        page = await self.enrollments.page(service.id_scope, after, PAGE_SIZE)
        rows = [
            EnrollmentRow(
                enrollment,
                display.shown_certificates(enrollment, self.clock()),
                await self._registration(service, enrollment.id),
            )
            for enrollment in page.enrollments
        ]
        return self.page(
            request,
            "enrollments.html",
            "Manage enrollments",
            (*ENROLLMENTS[:-1], ("Manage enrollments", None)),
            here="enrollments",
            rows=rows,
            after=after,
            continuation=page.continuation,
        )

    async def show_enrollment(self, request: Request) -> Response:
        service, registration_id = self.provisioning.first, request.query_params.get("registrationId", "").strip()
        legal = registration_id_problem(registration_id) is None
        enrollment = await self.enrollments.find(service.id_scope, registration_id) if legal else None
        if enrollment is None:
            return self._no_enrollment(request, registration_id)
        reports = await self.reports.find(registration_id, _OF_ONE_DEVICE)
        return self.page(
            request,
            "enrollment.html",
            enrollment.id,
            (*ENROLLMENTS, ("Individual enrollments", "/enrollments"), (enrollment.id, None)),
            here="enrollments",
            enrollment=enrollment,
            certificates=display.shown_certificates(enrollment, self.clock()),
            reprovision=display.reprovision_policy(enrollment.document.reprovision_policy),
            registration=await self._registration(service, registration_id),
            refusals=[display.refusal(report) for report in reports],
        )

    def _no_enrollment(self, request: Request, registration_id: str) -> Response:
        return self.page(
            request,
            "no_enrollment.html",
            "No such enrollment",
            (*ENROLLMENTS, ("Individual enrollments", "/enrollments")),
            here="enrollments",
            status=404,
            registration_id=registration_id,
        )

    async def _registration(self, service: ProvisioningService, registration_id: str) -> ShownRegistration | None:
        record = await self.records.find(service.id_scope, registration_id)
        return None if record is None else ShownRegistration(record, service.hub_host(record.assigned_hub))

    # Refusals

    async def list_refusals(self, request: Request) -> Response:
        subject = request.query_params.get("subject", "").strip()
        reports = await self._find_reports(subject) if subject else await self.reports.latest(MAXIMUM_ROWS)
        return self.page(
            request,
            "refusals.html",
            "Last refusals",
            (*PROVISIONING, ("Last refusals", None)),
            here="refusals",
            subject=subject,
            refusals=[display.refusal(report) for report in reports],
            rows=MAXIMUM_ROWS,
        )

    async def show_refusal(self, request: Request) -> Response:
        """One report, by its tracking id in any spelling, or the newest of a registration or device id."""
        found = await self._find_reports(request.path_params["identifier"])
        if not found:
            raise NotFoundError("No report has this id: nothing was refused under it, or the report is too old.")
        report = found[0]
        others = [other for other in await self.reports.find(report.subject, _OF_ONE_DEVICE) if other != report]
        return self.page(
            request,
            "refusal.html",
            f"{report.verdict.capitalize()}: {report.operation} {display.visible(report.subject)}",
            (*PROVISIONING, ("Last refusals", "/refusals"), (report.tracking_id, None)),
            here="refusals",
            refusal=display.refusal(report),
            others=[display.refusal(other) for other in others],
        )

    async def _find_reports(self, identifier: str) -> list[Report]:
        # Nobody's id holds a NUL, and no database finds one.
        return [] if "\0" in identifier else await self.reports.find(identifier, MAXIMUM_ROWS)

    # Arrivals, and what is live

    async def list_arrivals(self, request: Request) -> Response:
        hub = self._hub(request)
        after, arrivals = await self._last_arrivals(hub, MAXIMUM_ROWS)
        return self.page(
            request,
            "arrivals.html",
            "Last arrivals",
            (("IoT hub", None), ("Last arrivals", None)),
            here="arrivals",
            hub=hub,
            hubs=self.hubs.all,
            arrivals=arrivals,
            after=after,
            rows=MAXIMUM_ROWS,
        )

    async def stream(self, request: Request) -> ASGIApp:
        """Server-sent events: ``lists`` names arrivals, refusals or both; ``rows`` is the length of the lists."""
        query = request.query_params
        lists = query.get("lists", "").split(",")
        rows = query.get("rows", "")
        hub = self._hub(request) if "arrivals" in lists else None
        return await self.live.stream(
            hub=hub.name if hub else None,
            after=request.headers.get("last-event-id") or query.get("after"),
            refusals="refusals" in lists,
            rows=int(rows) if rows in _LENGTHS else MAXIMUM_ROWS,
        )

    async def _last_arrivals(self, hub: Hub | None, rows: int) -> tuple[str, list[display.Arrival]]:
        """Where a stream goes on, and the newest messages. The position is read first: twice is better than never."""
        if hub is None:
            return "", []
        _, newest = await self.events.positions(hub.name)
        return str(newest), [display.arrival(event) for event in await self.events.latest(hub.name, rows)]

    def _hub(self, request: Request) -> Hub | None:
        """The hub that the query names, else the first."""
        name = request.query_params.get("hub")
        if not name:
            return next(iter(self.hubs.all), None)
        try:
            return self.hubs.by_name(name)
        except UnknownHubError:
            raise NotFoundError("There is no hub of this name.") from None

    # Trust

    async def trust(self, request: Request) -> Response:
        digits = self.ca.sha256_thumbprint
        return self.page(
            request,
            "trust.html",
            "Trust this server",
            (("Trust this server", None),),
            here="trust",
            ca=self.ca,
            ca_expiry=display.expiry(self.ca, self.clock()),
            fingerprint=":".join(digits[index : index + 2] for index in range(0, len(digits), 2)),
        )

    async def certificate(self, _request: Request) -> Response:
        headers = {"content-disposition": 'attachment; filename="muster-ca.pem"'}
        return Response(self.ca_pem, media_type="application/x-pem-file", headers=headers)


def _clock_offset(description: dict[str, Any]) -> str:
    """``400 d 0 h ahead``, or nothing when the clock is right."""
    seconds = int(description.get("clockOffsetSeconds", 0))
    return f"{display.duration(abs(seconds))} {'ahead' if seconds > 0 else 'behind'}" if seconds else ""
