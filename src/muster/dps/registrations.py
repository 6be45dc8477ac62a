"""Registrations: a device asks for its hub, is judged, gets an operation, and is assigned in the background.

The answer to a register request leaves when *assigning* is on disk; identity, initial twin and *assigned* are then
written in one transaction; what a stop interrupts is resumed at the next start (style-models.md 11.13). Sources:
dps.md 1, 4, 5, 10. Not here: any transport, and the checks themselves (``domain/attestation.py``).
"""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from muster.domain.attestation import attest_x509_individual
from muster.domain.check_table import check, shell_word, verdict
from muster.domain.credential import Credential
from muster.domain.device import Authentication
from muster.domain.documents import decode, encode, read
from muster.domain.enrollment import IndividualEnrollment
from muster.domain.errors import (
    ArgumentInvalidError,
    EnrollmentNotFoundError,
    RegistrationNotFoundError,
    ServerError,
    ServiceError,
)
from muster.domain.etag import document_etag, require_match
from muster.domain.registration import LinkedHub, Registration, choose_hub, is_operation_of, operation_id
from muster.domain.registration_id import registration_id_key
from muster.domain.report import Check, Outcome, Report, refusals
from muster.dps.enrollments import Enrollments
from muster.dps.services import ProvisioningService, ProvisioningServices
from muster.hub.authentication import refused_report
from muster.hub.devices import Devices
from muster.hub.reports import Attempt, Reports
from muster.pki.certificate import sha1_thumbprint
from muster.store.database import Database, DatabaseUnavailableError, Row, Transaction

_log = logging.getLogger("muster.dps")

_RETRY_DELAYS = (0.1, 1.0, 5.0)
"""Seconds between attempts to finish an operation while the database cannot serve."""

_COLUMNS = (
    "registration_id, operation_id, status, created, last_updated, etag, substatus, assigned_hub, device_id,"
    " error_code, error_message, payload"
)
_SELECT = f"SELECT {_COLUMNS} FROM registration WHERE id_scope = :id_scope AND registration_key = :key"


class RegisterBody(msgspec.Struct, rename="camel"):
    """The body of a register request; ``payload`` is any JSON value (dps.md 1.3)."""

    registration_id: str | None = None
    payload: Any = None


class _Context(msgspec.Struct, rename="camel"):
    """What a restart needs to finish an *assigning* registration."""

    thumbprint: str
    tracking_id: str
    credential: str
    peer: str


@dataclass(frozen=True, slots=True)
class DeviceLogin:
    """Who a device says it is, on one connection."""

    id_scope: str
    registration_id: str


@dataclass(frozen=True, slots=True)
class Operation:
    """A registration as its device polls it. ``hub_host``: the host name of the assigned hub."""

    registration: Registration
    hub_host: str | None
    tracking_id: str


def _registration(row: Row) -> Registration:
    return Registration(
        registration_id=row[0],
        operation_id=row[1],
        status=row[2],
        created=row[3],
        last_updated=row[4],
        etag=row[5],
        substatus=row[6],
        assigned_hub=row[7],
        device_id=row[8],
        error_code=row[9],
        error_message=row[10],
        payload=read(row[11], object) if row[11] is not None else None,
    )


class Registrations:
    """The registrations of all provisioning services. ``start`` and ``stop`` frame its background work."""

    def __init__(
        self,
        database: Database,
        services: ProvisioningServices,
        enrollments: Enrollments,
        devices: Devices,
        reports: Reports,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._services = services
        self._enrollments = enrollments
        self._devices = devices
        self._reports = reports
        self._clock = clock
        self._entropy = entropy
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Resume what an earlier process left *assigning*; returns how many."""
        rows = await self._database.fetch_all(
            "SELECT id_scope, registration_key, operation_id FROM registration WHERE status = 'assigning'"
        )
        for id_scope, key, operation in rows:
            self._assign_soon(id_scope, key, operation)
        return len(rows)

    async def stop(self) -> None:
        """Wait for what is being assigned; what does not finish is resumed at the next start."""
        if self._running:
            await asyncio.wait(self._running, timeout=5)

    def new_tracking_id(self) -> str:
        """For an answer that has no report."""
        return self._reports.new_tracking_id()

    async def register(self, login: DeviceLogin, credential: Credential, body: bytes) -> Operation:
        """Judge the device and begin an operation; the answer is 202 with what this returns.

        Raises what the first refusing check says, with a stored report; ArgumentInvalidError for a body that
        contradicts the login.
        """
        tracking_id = self._reports.new_tracking_id()
        request = decode(body, RegisterBody) if body.strip() else RegisterBody()
        self._require_same_id(login, request)
        service = self._services.find(login.id_scope)
        enrollment = await self._enrollments.find(service.id_scope, login.registration_id) if service else None
        checks = self._judge(login, credential, service, enrollment)
        error = verdict(checks)
        attempt = Attempt(
            "dps", login.id_scope, "register", login.registration_id, credential.describe(), credential.peer
        )
        if error is not None or service is None or enrollment is None:
            assert error is not None, "a refusal names its error"
            answer = f"{error.code} {error.message}"
            await self._reports.record(refused_report(attempt, checks, tracking_id, self._clock(), answer))
            raise error(tracking_id=tracking_id)
        report = _remark(attempt, checks, tracking_id, self._clock())
        context = _Context(sha1_thumbprint(credential.certificates[0]), tracking_id, attempt.credential, attempt.peer)
        registration = await self._begin(service, enrollment, context, report)
        if registration.status == "assigning":
            self._assign_soon(service.id_scope, registration_id_key(login.registration_id), registration.operation_id)
        return Operation(registration, None, tracking_id)

    @staticmethod
    def _require_same_id(login: DeviceLogin, request: RegisterBody) -> None:
        sent = request.registration_id
        if sent and registration_id_key(sent) != registration_id_key(login.registration_id):
            raise ArgumentInvalidError(
                f"registrationId in the body is {sent!r}, the login says {login.registration_id!r}."
            )

    def _judge(
        self,
        login: DeviceLogin,
        credential: Credential,
        service: ProvisioningService | None,
        enrollment: IndividualEnrollment | None,
    ) -> tuple[Check, ...]:
        known = check(
            "id-scope.known",
            passed=service is not None,
            detail=f"the id scope is {login.id_scope!r}" + ("" if service else "; this service does not have it"),
            fix=f"use the id scope that the banner and `muster status` show: {self._services.first.id_scope}",
        )
        if service is None:
            return (known,)
        exists = check(
            "enrollment.exists",
            passed=enrollment is not None,
            detail=f"there is {'an' if enrollment else 'no'} individual enrollment for {login.registration_id!r}",
            fix="enroll the device: muster enrollment create --certificate FILE",
        )
        if enrollment is None:
            return (known, exists)
        attested = attest_x509_individual(
            credential.certificates, enrollment.enrolled_certificates(), login.registration_id, self._clock()
        )
        enabled = check(
            "enrollment.enabled",
            passed=enrollment.provisioning_status == "enabled",
            detail=f"the enrollment is {enrollment.provisioning_status}",
            fix="enable it: muster enrollment update"
            f" {shell_word(enrollment.registration_id, 'REGISTRATION-ID')} --enable",
        )
        return (known, exists, *attested, enabled)

    async def _begin(
        self,
        service: ProvisioningService,
        enrollment: IndividualEnrollment,
        context: _Context,
        report: Report | None,
    ) -> Registration:
        """Write *assigning* with a new operation, or find the operation that is already running for this device."""
        key = registration_id_key(enrollment.registration_id)

        async def transaction(tx: Transaction) -> Registration:
            await self._enrollments.lock_in(
                tx, service.id_scope, key
            )  # two first registrations at once take turns here
            row = await tx.fetch_one(_SELECT + " {for_update}", id_scope=service.id_scope, key=key)
            stored = _registration(row) if row else None
            if stored is not None and stored.status == "assigning":
                return stored
            now = self._clock()
            registration = Registration(
                registration_id=enrollment.registration_id,
                operation_id=operation_id(service.id_scope, enrollment.registration_id, self._entropy(16)),
                status="assigning",
                created=stored.created if stored else now,
                last_updated=now,
                etag=document_etag(self._entropy(12)),
                assigned_hub=stored.assigned_hub if stored else None,
                device_id=stored.device_id if stored else None,
            )
            await _write(tx, service.id_scope, registration, encode(context))
            if report is not None:
                await self._reports.insert(tx, report)
            return registration

        return await self._database.transact(transaction)

    def _assign_soon(self, id_scope: str, key: str, operation: str) -> None:
        task = asyncio.get_running_loop().create_task(self._assign(id_scope, key, operation))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _assign(self, id_scope: str, key: str, operation: str) -> None:
        """Finish one operation: assigned, disabled or failed. While the database cannot serve it is tried again."""
        for delay in (*_RETRY_DELAYS, None):
            try:
                await self._finish_or_fail(id_scope, key, operation)
            except DatabaseUnavailableError as error:
                if delay is None:
                    _log.warning("registration %s stays assigning until the next start: %s", key, error)
                    return
                await asyncio.sleep(delay)
            else:
                return

    async def _finish_or_fail(self, id_scope: str, key: str, operation: str) -> None:
        try:
            await self._finish(id_scope, key, operation)
        except DatabaseUnavailableError:
            raise
        except ServiceError as error:
            await self._fail(id_scope, key, operation, error)
        except Exception:  # noqa: BLE001 - whatever happened, the operation ends as failed
            _log.exception("registration %s failed", key)
            await self._fail(id_scope, key, operation, ServerError())

    async def _finish(self, id_scope: str, key: str, operation: str) -> None:
        service = self._services.find(id_scope)
        assert service is not None, "a service is never removed"

        async def transaction(tx: Transaction) -> tuple[LinkedHub, str] | None:
            found = await _assigning(tx, id_scope, key, operation)
            if found is None:
                return None
            stored, context = found
            enrollment = await self._enrollments.find_in(tx, id_scope, key)
            if enrollment is None:
                raise EnrollmentNotFoundError(f"Enrollment not found: {stored.registration_id} was deleted meanwhile.")
            if enrollment.provisioning_status == "disabled":
                await self._conclude(tx, id_scope, stored, status="disabled")
                return None
            hub = choose_hub(stored.registration_id, service.linked_hubs, enrollment.named_hubs)
            # A new deviceId of the enrollment counts only after the record was deleted (dps.md 4.9).
            device_id = stored.device_id or enrollment.device_id
            await self._devices.provision(
                tx,
                hub.name,
                device_id,
                Authentication(type="selfSigned", primary_thumbprint=context.thumbprint),
                iot_edge=enrollment.document.capabilities.iot_edge,
                initial_twin=enrollment.document.initial_twin,
            )
            await self._conclude(
                tx,
                id_scope,
                stored,
                status="assigned",
                substatus="initialAssignment",
                assigned_hub=hub.name,
                device_id=device_id,
            )
            return hub, device_id

        assigned = await self._database.transact(transaction)
        if assigned is not None:
            self._devices.announce_change(assigned[0].name, assigned[1])
            _log.info("registration %s assigned to %s as %s", key, assigned[0].host_name, assigned[1])

    async def _conclude(self, tx: Transaction, id_scope: str, stored: Registration, **changes: Any) -> None:
        final = msgspec.structs.replace(
            stored,
            last_updated=self._clock(),
            etag=document_etag(self._entropy(12)),
            error_code=None,
            error_message=None,
        )
        await _write(tx, id_scope, msgspec.structs.replace(final, **changes), "{}")

    async def _fail(self, id_scope: str, key: str, operation: str, error: ServiceError) -> None:
        async def transaction(tx: Transaction) -> None:
            found = await _assigning(tx, id_scope, key, operation)
            if found is None:
                return
            stored, context = found
            await self._conclude(
                tx, id_scope, stored, status="failed", error_code=error.code, error_message=error.message
            )
            await self._reports.insert(tx, _failed_report(id_scope, stored, context, error, self._clock()))

        await self._database.transact(transaction)

    async def status(self, login: DeviceLogin, operation: str) -> Operation:
        """What a poll sees. Raises RegistrationNotFoundError unless it is an operation of this registration.

        An operation that a later one overtook is answered with what the later one reached, so that of two clients
        that register one device at the same time both come to an end (dps.md 10, 4).
        """
        service = self._services.find(login.id_scope)
        registration = await self.find(service.id_scope, login.registration_id) if service else None
        known = service and registration and is_operation_of(operation, service.id_scope, login.registration_id)
        if service is None or registration is None or not known:
            raise RegistrationNotFoundError(f"Operation not found: {operation}.")
        asked = msgspec.structs.replace(registration, operation_id=operation)
        return Operation(asked, self.hub_host(service, registration), "")

    @staticmethod
    def hub_host(service: ProvisioningService, registration: Registration) -> str | None:
        """The host name under which the assigned hub is served now; the hub's name if it is not linked any more."""
        hosts = {hub.name: hub.host_name for hub in service.linked_hubs}
        return hosts.get(registration.assigned_hub, registration.assigned_hub) if registration.assigned_hub else None

    async def find(self, id_scope: str, registration_id: str) -> Registration | None:
        row = await self._database.fetch_one(_SELECT, id_scope=id_scope, key=registration_id_key(registration_id))
        return _registration(row) if row else None

    async def get(self, id_scope: str, registration_id: str) -> Registration:
        """Raises RegistrationNotFoundError."""
        registration = await self.find(id_scope, registration_id)
        if registration is None:
            raise RegistrationNotFoundError(f"Registration not found: {registration_id}.")
        return registration

    async def delete(self, id_scope: str, registration_id: str, if_match: str | None) -> None:
        """Delete the record; the device in the hub stays (dps.md 4.9). Raises RegistrationNotFoundError,
        PreconditionFailedError.
        """
        key = registration_id_key(registration_id)

        async def transaction(tx: Transaction) -> None:
            row = await tx.fetch_one(_SELECT + " {for_update}", id_scope=id_scope, key=key)
            if row is None:
                raise RegistrationNotFoundError(f"Registration not found: {registration_id}.")
            require_match(if_match, _registration(row).etag)
            await tx.execute(
                "DELETE FROM registration WHERE id_scope = :id_scope AND registration_key = :key",
                id_scope=id_scope,
                key=key,
            )

        await self._database.transact(transaction)

    async def latest(self, id_scope: str, limit: int) -> list[Registration]:
        """The registrations that changed last, newest first."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM registration WHERE id_scope = :id_scope ORDER BY last_updated DESC LIMIT :limit",
            id_scope=id_scope,
            limit=limit,
        )
        return [_registration(row) for row in rows]


async def _assigning(tx: Transaction, id_scope: str, key: str, operation: str) -> tuple[Registration, _Context] | None:
    """The registration with its context while this operation is still to be finished; locked."""
    row = await tx.fetch_one(
        f"SELECT {_COLUMNS}, context FROM registration WHERE id_scope = :id_scope AND registration_key = :key"
        " AND operation_id = :operation AND status = 'assigning' {for_update}",
        id_scope=id_scope,
        key=key,
        operation=operation,
    )
    return (_registration(row), read(row[12], _Context)) if row else None


async def _write(tx: Transaction, id_scope: str, registration: Registration, context: str) -> None:
    values = msgspec.structs.asdict(registration)
    payload = values.pop("payload")
    await tx.execute(
        "INSERT INTO registration (id_scope, registration_key, registration_id, operation_id, status, created,"
        " last_updated,"
        " etag, substatus, assigned_hub, device_id, error_code, error_message, payload, context)"
        " VALUES (:id_scope, :key, :registration_id, :operation_id, :status, :created, :last_updated,"
        " :etag, :substatus, :assigned_hub, :device_id, :error_code, :error_message, :payload, :context)"
        " ON CONFLICT (id_scope, registration_key) DO UPDATE SET registration_id = excluded.registration_id,"
        " operation_id = excluded.operation_id, status = excluded.status, created = excluded.created,"
        " last_updated = excluded.last_updated, etag = excluded.etag, substatus = excluded.substatus,"
        " assigned_hub = excluded.assigned_hub, device_id = excluded.device_id, error_code = excluded.error_code,"
        " error_message = excluded.error_message, payload = excluded.payload, context = excluded.context",
        id_scope=id_scope,
        key=registration_id_key(registration.registration_id),
        payload=None if payload is None else encode(payload),
        context=context,
        **values,
    )


def _remark(attempt: Attempt, checks: tuple[Check, ...], tracking_id: str, now: int) -> Report | None:
    """The report of a registration that goes on although a check warned, or towards *disabled*."""
    if refusals(checks):
        disabled = refused_report(attempt, checks, tracking_id, now, "202, then 200 with status disabled")
        return msgspec.structs.replace(disabled, verdict="disabled")
    if any(item.outcome is Outcome.WARNED for item in checks):
        warned = refused_report(attempt, checks, tracking_id, now, "accepted")
        return msgspec.structs.replace(warned, verdict="warned")
    return None


def _failed_report(id_scope: str, stored: Registration, context: _Context, error: ServiceError, now: int) -> Report:
    attempt = Attempt("dps", id_scope, "register", stored.registration_id, context.credential, context.peer)
    report = refused_report(
        attempt,
        (
            check(
                "allocation.hub-available",
                passed=False,
                detail=error.message,
                fix="link the hub that the enrollment names, or name a linked one",
            ),
        ),
        context.tracking_id,
        now,
        f"200 with status failed, {error.code} {error.message}",
    )
    return msgspec.structs.replace(report, verdict="failed")
