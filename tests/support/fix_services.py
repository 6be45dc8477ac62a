"""The services of one Muster on a throw-away SQLite database, with a clock that tests move by hand."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from muster.bus.bus import LocalBus
from muster.domain.enrollment import EnrollmentBody
from muster.domain.timestamp import SECOND
from muster.dps.enrollments import Enrollments
from muster.dps.registrations import Registrations
from muster.dps.services import ProvisioningService, ProvisioningServices
from muster.hub.access import ServiceAccess
from muster.hub.authentication import DeviceAuthentication
from muster.hub.devices import Devices
from muster.hub.events import EventLog
from muster.hub.hubs import Hub, Hubs
from muster.hub.reports import Reports
from muster.hub.sessions import Sessions
from muster.hub.twins import Twins
from muster.store.database import Database
from muster.store.migration import migrate
from muster.store.sqlite import open_sqlite

NOW = 1_790_000_000 * SECOND
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ID_SCOPE = "0ne00000001"


class Clock:
    """The time of a test, in microseconds; it moves only when it is told to."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, microseconds: int) -> None:
        self.now += microseconds


@dataclass(frozen=True, slots=True)
class Services:
    """What ``muster.server`` builds, in a test's hands."""

    clock: Clock
    database: Database
    bus: LocalBus
    hubs: Hubs
    provisioning: ProvisioningServices
    devices: Devices
    twins: Twins
    events: EventLog
    sessions: Sessions
    reports: Reports
    enrollments: Enrollments
    registrations: Registrations
    authentication: DeviceAuthentication
    access: ServiceAccess

    @property
    def hub(self) -> Hub:
        return self.hubs.all[0]

    @property
    def service(self) -> ProvisioningService:
        return self.provisioning.first

    async def enroll(self, registration_id: str, certificate_pem: str, **fields: object) -> None:
        """An individual enrollment by ``certificate_pem``; ``fields`` are members of the request's body."""
        import msgspec

        body = {
            "registrationId": registration_id,
            "attestation": {
                "type": "x509",
                "x509": {"clientCertificates": {"primary": {"certificate": certificate_pem}}},
            },
            **fields,
        }
        await self.enrollments.put(self.service, registration_id, msgspec.convert(body, EnrollmentBody), None)


async def build_services(database: Database, clock: Clock) -> Services:
    """All services on an open, migrated database, with one hub ``hub`` and one id scope that both know."""
    bus = LocalBus()
    entropy = os.urandom
    hubs = Hubs(database, clock, entropy, any_host=True)
    provisioning = ProvisioningServices(database, clock, entropy)
    reports = Reports(database, clock, entropy)
    devices = Devices(database, bus, clock, entropy)
    enrollments = Enrollments(database, clock, entropy)
    hub = await hubs.ensure("hub", "hub.example.net", partition_count=4, well_known_key=KEY)
    await provisioning.ensure(ID_SCOPE, "dps.example.net", (hub,), well_known_key=KEY)
    return Services(
        clock=clock,
        database=database,
        bus=bus,
        hubs=hubs,
        provisioning=provisioning,
        devices=devices,
        twins=Twins(database, devices),
        events=EventLog(database, bus, clock),
        sessions=Sessions(database, bus, clock, entropy),
        reports=reports,
        enrollments=enrollments,
        registrations=Registrations(database, provisioning, enrollments, devices, reports, clock, entropy),
        authentication=DeviceAuthentication(devices, reports, clock),
        access=ServiceAccess(reports, clock),
    )


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    clock = Clock()
    database = await open_sqlite(tmp_path / "muster.db", durable=False)
    await migrate(database, clock())
    built = await build_services(database, clock)
    yield built
    await built.registrations.stop()
    await database.close()
