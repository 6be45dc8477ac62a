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
from muster.domain.allocation import WebhookAnswer
from muster.domain.enrollment import Enrollment, EnrollmentBody
from muster.domain.timestamp import SECOND
from muster.dps.services import ProvisioningService
from muster.hub.hubs import Hub
from muster.server import services as server_services
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

    @property
    def hub(self) -> Hub:
        return self.hubs.all[0]

    @property
    def service(self) -> ProvisioningService:
        return self.provisioning.first

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


async def build_services(database: Database, clock: Clock) -> Services:
    """All services on an open, migrated database, with one hub ``hub`` and one id scope that both know."""
    webhook = ScriptedWebhook()
    built = server_services.build_services(database, LocalBus(), clock, os.urandom, webhook)
    hub = await built.hubs.ensure("hub", "hub.example.net", partition_count=4, well_known_key=KEY)
    await built.provisioning.ensure(ID_SCOPE, "dps.example.net", (hub,), well_known_key=KEY)
    values = {field.name: getattr(built, field.name) for field in fields(built)}
    return Services(clock=clock, webhook=webhook, **values)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    clock = Clock()
    database = await open_sqlite(tmp_path / "muster.db", durable=False)
    await migrate(database, clock())
    built = await build_services(database, clock)
    yield built
    await built.registrations.stop()
    await database.close()
