"""The services of one Muster on a throw-away SQLite database, with a clock that tests move by hand."""

import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import pytest

from muster.bus.bus import LocalBus
from muster.ca_directory import CaDirectory
from muster.domain.allocation import WebhookAnswer
from muster.domain.enrollment import Enrollment, EnrollmentBody
from muster.domain.throttle import Rates
from muster.domain.timestamp import SECOND
from muster.dps.quotas import Quotas
from muster.dps.services import ProvisioningService
from muster.hub.hubs import Hub
from muster.pki.private_key import write_private_key
from muster.server import services as server_services
from muster.store.database import Database
from muster.store.migration import migrate
from muster.store.sqlite import open_sqlite
from tests.support import fix_ca

NOW = 1_790_000_000 * SECOND
KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
ID_SCOPE = "0ne00000001"
NO_CAS = Path("/nonexistent/ca")


class Clock:
    """The time of a test, in microseconds; it moves only when it is told to."""

    def __init__(self, now: int = NOW) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, microseconds: int) -> None:
        self.now += microseconds


class ScriptedWebhook:
    """A custom allocation webhook that answers what a test told it, or raises it."""

    def __init__(self) -> None:
        self.answer: WebhookAnswer | Exception = WebhookAnswer()
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def ask(self, url: str, request: dict[str, Any]) -> WebhookAnswer:
        self.asked.append((url, request))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@dataclass(frozen=True, slots=True)
class Services(server_services.Services):
    """What ``muster.server.services`` builds, in a test's hands."""

    clock: Clock
    webhook: ScriptedWebhook
    ca_directory: Path

    @property
    def hub(self) -> Hub:
        return self.hubs.all[0]

    @property
    def service(self) -> ProvisioningService:
        return self.provisioning.first

    def add_authority(self, name: str = "line-a", pass_phrase: str | None = None) -> CaDirectory:
        """The CA ``fix_ca.intermediate()``, where those are that issue for devices."""
        directory = CaDirectory(self.ca_directory)
        with directory.changing():
            directory.add(name, fix_ca.intermediate().chain, write_private_key(fix_ca.key("Line A"), pass_phrase))
        return directory

    async def twin(self, device_id: str, module_id: str = "", *, hub: str = "hub") -> dict[str, Any]:
        """The twin's JSON as a service client reads it."""
        view: dict[str, Any] = json.loads(msgspec.json.encode(await self.twins.get(hub, device_id, module_id)))
        return view

    async def enroll(self, registration_id: str, certificate_pem: str, **fields: object) -> None:
        """An individual enrollment by ``certificate_pem``; ``fields`` are members of the request's body."""
        x509 = {"clientCertificates": {"primary": {"certificate": certificate_pem}}}
        await self.enroll_by(registration_id, **{"attestation": {"type": "x509", "x509": x509}, **fields})

    async def enroll_by(self, registration_id: str, attestation: object, **fields: object) -> Enrollment:
        """An individual enrollment by any mechanism."""
        body = {"registrationId": registration_id, "attestation": attestation, **fields}
        return await self.enrollments.put(self.service, registration_id, msgspec.convert(body, EnrollmentBody), None)

    async def enroll_group(self, group_id: str, attestation: dict[str, Any], **fields: object) -> Enrollment:
        """An enrollment group by any mechanism."""
        body = {"enrollmentGroupId": group_id, "attestation": attestation, **fields}
        return await self.groups.put(self.service, group_id, msgspec.convert(body, EnrollmentBody), None)


async def build_services(
    database: Database,
    clock: Clock,
    ca_directory: Path = NO_CAS,
    *,
    rates: Rates | None = None,
    quotas: Quotas | None = None,
) -> Services:
    """All services on an open, migrated database, with one hub ``hub`` and one id scope that both know."""
    webhook = ScriptedWebhook()
    built = server_services.build_services(
        database, LocalBus(), clock, os.urandom, webhook, ca_directory, rates=rates, quotas=quotas
    )
    hub = await built.hubs.ensure("hub", "hub.example.net", partition_count=4, well_known_key=KEY)
    await built.provisioning.ensure(ID_SCOPE, "dps.example.net", (hub,), well_known_key=KEY)
    values = {field.name: getattr(built, field.name) for field in fields(built)}
    return Services(clock=clock, webhook=webhook, ca_directory=ca_directory, **values)


@pytest.fixture
def rates() -> Rates:
    """Any rate; a module that tests others has a fixture of the same name."""
    return Rates()


@pytest.fixture
def quotas() -> Quotas:
    """Azure's; a module that tests others has a fixture of the same name."""
    return Quotas()


@pytest.fixture
async def services(tmp_path: Path, rates: Rates, quotas: Quotas) -> AsyncIterator[Services]:
    clock = Clock()
    database = await open_sqlite(tmp_path / "muster.db", durable=False)
    await migrate(database, clock())
    built = await build_services(database, clock, tmp_path / "ca", rates=rates, quotas=quotas)
    yield built
    await built.registrations.stop(within=60)
    await database.close()
