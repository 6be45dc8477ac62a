"""Registrations: a device asks for its hub, is judged, gets an operation, and is assigned in the background.

The answer to a register request leaves when *assigning* is on disk; identity, twin and *assigned* are then written
in one transaction; what a stop interrupts is resumed at the next start (style-models.md 11.13). Sources: dps.md 1,
4.6, 5, 10. Not here: any transport, the verdict (``attestations.py``), which hub (``allocations.py``), and the
records themselves.
"""

import asyncio
import base64
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from muster.domain.check_table import check, verdict
from muster.domain.credential import Credential
from muster.domain.device import Authentication, new_key
from muster.domain.documents import decode, encode, read
from muster.domain.enrollment import Enrollment
from muster.domain.errors import (
    ArgumentInvalidError,
    EnrollmentNotFoundError,
    RegistrationNotFoundError,
    ServerError,
    ServiceError,
    TooLargeError,
)
from muster.domain.etag import document_etag
from muster.domain.registration import (
    MAXIMUM_MESSAGE_BYTES,
    Registration,
    Substatus,
    is_operation_of,
    operation_id,
)
from muster.domain.registration_id import registration_id_key
from muster.domain.report import Check, Outcome, Report, refusals
from muster.dps.allocations import Allocation, Allocations
from muster.dps.attestations import Attestations, DeviceLogin, device_keys
from muster.dps.enrollments import Enrollments
from muster.dps.quotas import Quota
from muster.dps.registration_records import RegistrationRecords
from muster.dps.services import ProvisioningService, ProvisioningServices
from muster.dps.throttles import Throttles
from muster.dps.tpm_challenges import TpmChallenges, TpmOffer
from muster.hub.authentication import refused_report
from muster.hub.devices import Devices
from muster.hub.reports import Attempt, Reports
from muster.pki.certificate import sha1_thumbprint
from muster.store.database import Database, DatabaseUnavailableError, Transaction

_log = logging.getLogger("muster.dps")

_RETRY_DELAYS = (0.1, 1.0, 5.0)
"""Seconds between attempts to finish an operation while the database cannot serve."""


class RegisterBody(msgspec.Struct, rename="camel"):
    """The body of a register request; ``payload`` is any JSON value (dps.md 1.3)."""

    registration_id: str | None = None
    payload: Any = None
    tpm: TpmOffer | None = None
    csr: str | None = None


class Context(msgspec.Struct, rename="camel", kw_only=True):
    """What a restart needs to finish an *assigning* registration."""

    group_id: str = ""
    thumbprint: str = ""
    tracking_id: str
    credential: str
    peer: str
    payload: Any = None
    certificate: str = ""
    tpm: TpmOffer | None = None


@dataclass(frozen=True, slots=True)
class Operation:
    """A registration as its device polls it. ``hub_host``: the host name of the assigned hub."""

    registration: Registration
    hub_host: str | None
    tracking_id: str


class Registrations:
    """The registrations of all provisioning services. ``start`` and ``stop`` frame its background work."""

    def __init__(
        self,
        database: Database,
        services: ProvisioningServices,
        enrollments: Enrollments,
        groups: Enrollments,
        records: RegistrationRecords,
        attestations: Attestations,
        allocations: Allocations,
        tpm_challenges: TpmChallenges,
        devices: Devices,
        reports: Reports,
        quota: Quota,
        throttles: Throttles,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._services = services
        self._enrollments = enrollments
        self._groups = groups
        self._records = records
        self._attestations = attestations
        self._allocations = allocations
        self._tpm_challenges = tpm_challenges
        self._devices = devices
        self._reports = reports
        self._quota = quota
        self._throttles = throttles
        self._clock = clock
        self._entropy = entropy
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Resume what an earlier process left *assigning*; returns how many."""
        interrupted = await self._records.assigning()
        for id_scope, key, operation in interrupted:
            self._assign_soon(id_scope, key, operation)
        return len(interrupted)

    async def stop(self) -> None:
        """Wait for what is being assigned; what does not finish is resumed at the next start."""
        if self._running:
            _done, late = await asyncio.wait(self._running, timeout=5)
            for task in late:
                task.cancel()

    def new_tracking_id(self) -> str:
        """For an answer that has no report."""
        return self._reports.new_tracking_id()

    # Register

    async def register(self, login: DeviceLogin, credential: Credential, body: bytes) -> Operation:
        """Judge the device and begin an operation; the answer is 202 with what this returns.

        Raises what the first refusing check says, with a stored report; ArgumentInvalidError for a body that
        contradicts the login; TpmChallengeError for a TPM that has to prove itself first; TooLargeError,
        ThrottledError and QuotaExceededError.
        """
        self._throttles.registration(login.id_scope)
        if len(body) > MAXIMUM_MESSAGE_BYTES:
            raise TooLargeError(f"The message has {len(body)} bytes; {MAXIMUM_MESSAGE_BYTES} are allowed.")
        tracking_id = self._reports.new_tracking_id()
        request = decode(body, RegisterBody) if body.strip() else RegisterBody()
        _require_same_id(login, request)
        if request.csr:
            raise ArgumentInvalidError("csr is not served by this version.")
        found = await self._attestations.judge(login, credential, tpm=request.tpm is not None)
        checks = found.checks
        if (
            found.enrollment is not None
            and found.service is not None
            and request.tpm is not None
            and not refusals(checks)
        ):
            checks += await self._tpm_challenges.judge(found.service, found.enrollment, login, credential, request.tpm)
        attempt = Attempt(
            "dps", login.id_scope, "register", login.registration_id, credential.describe(), credential.peer
        )
        error = verdict(checks)
        if error is not None or found.service is None or found.enrollment is None:
            assert error is not None, "a refusal names its error"
            answer = f"{error.code} {error.message}"
            await self._reports.record(refused_report(attempt, checks, tracking_id, self._clock(), answer))
            raise error(tracking_id=tracking_id)
        context = _context(found.enrollment, credential, request, attempt, tracking_id)
        report = _remark(attempt, checks, tracking_id, self._clock())
        registration = await self._begin(found.service, found.enrollment, login, context, report)
        if registration.status == "assigning":
            key = registration_id_key(registration.registration_id)
            self._assign_soon(found.service.id_scope, key, registration.operation_id)
        return Operation(registration, None, tracking_id)

    async def _begin(
        self,
        service: ProvisioningService,
        enrollment: Enrollment,
        login: DeviceLogin,
        context: Context,
        report: Report | None,
    ) -> Registration:
        """Write *assigning* with a new operation, or find the operation that is already running for this device."""
        individual = enrollment.kind == "individual"
        registration_id = enrollment.id if individual else login.registration_id
        key = registration_id_key(registration_id)
        counted = await self._quota.is_near(service.id_scope)

        async def transaction(tx: Transaction) -> Registration:
            # Two first registrations at once take turns here.
            await (self._enrollments if individual else self._groups).lock_in(
                tx, service.id_scope, registration_id_key(enrollment.id)
            )
            stored = await self._records.find_in(tx, service.id_scope, key)
            if stored is not None and stored.status == "assigning":
                return stored
            if stored is None and counted:
                await self._quota.require_room(tx, service.id_scope)
            now = self._clock()
            registration = Registration(
                registration_id=registration_id,
                operation_id=operation_id(service.id_scope, registration_id, self._entropy(16)),
                status="assigning",
                created=stored.created if stored else now,
                last_updated=now,
                etag=document_etag(self._entropy(12)),
                assigned_hub=stored.assigned_hub if stored else None,
                device_id=stored.device_id if stored else None,
                enrollment_group_id=context.group_id,
            )
            await self._records.write(tx, service.id_scope, registration, encode(context))
            if report is not None:
                await self._reports.insert(tx, report)
            return registration

        return await self._database.transact(transaction)

    # Assign

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
        found = await self._records.context(id_scope, key, operation)
        if service is None or found is None:
            return
        stored, context = found[0], read(found[1], Context)
        enrollment = await self._enrollment(id_scope, stored, context)
        if not enrollment.enabled:
            await self._conclude_disabled(id_scope, key, operation)
            return
        allocation = await self._allocations.allocate(
            service, enrollment, stored.registration_id, stored, _runtime(enrollment, context)
        )
        device_id = await self._assign_to(service, enrollment, stored, context, allocation)
        if device_id is not None:
            hub = allocation.choice.hub
            self._devices.announce_change(hub.name, device_id)
            _log.info(
                "registration %s assigned to %s as %s: %s", key, hub.host_name, device_id, allocation.choice.reason
            )

    async def _enrollment(self, id_scope: str, stored: Registration, context: Context) -> Enrollment:
        if context.group_id:
            enrollment = await self._groups.find(id_scope, context.group_id)
        else:
            enrollment = await self._enrollments.find(id_scope, stored.registration_id)
        if enrollment is None:
            raise EnrollmentNotFoundError(
                f"Enrollment not found: that of {stored.registration_id} was deleted meanwhile."
            )
        return enrollment

    async def _conclude_disabled(self, id_scope: str, key: str, operation: str) -> None:
        async def transaction(tx: Transaction) -> None:
            stored = await self._records.assigning_in(tx, id_scope, key, operation)
            if stored is not None:
                await self._conclude(tx, id_scope, stored, status="disabled")

        await self._database.transact(transaction)

    async def _assign_to(
        self,
        service: ProvisioningService,
        enrollment: Enrollment,
        stored: Registration,
        context: Context,
        allocation: Allocation,
    ) -> str | None:
        """Write device and *assigned* in one transaction; the device id, or None when another process was faster."""
        hub = allocation.choice.hub.name
        # A new deviceId of the enrollment counts only after the record was deleted (dps.md 4.9).
        device_id = stored.device_id or enrollment.device_id(stored.registration_id)
        authentication, attestation = self._credentials(enrollment, stored, context)
        key = registration_id_key(stored.registration_id)

        async def transaction(tx: Transaction) -> str | None:
            current = await self._records.assigning_in(tx, service.id_scope, key, stored.operation_id)
            if current is None:
                return None
            substatus = await self._provision(tx, enrollment, current, allocation, device_id, authentication)
            if context.tpm is not None:
                await self._tpm_challenges.finished(tx, service.id_scope, enrollment, key, context.tpm)
            await self._conclude(
                tx,
                service.id_scope,
                current,
                status="assigned",
                substatus=substatus,
                assigned_hub=hub,
                device_id=device_id,
                attestation=attestation,
                payload=allocation.answer.payload,
            )
            return device_id

        return await self._database.transact(transaction)

    def _credentials(
        self, enrollment: Enrollment, stored: Registration, context: Context
    ) -> tuple[Authentication, dict[str, Any]]:
        """What the hub knows the device by (dps.md 5.5), and what its registration state shows of it (dps.md 1.5)."""
        group = {"enrollmentGroupId": context.group_id} if context.group_id else {}
        match enrollment.mechanism.type:
            case "x509":
                return Authentication(type="selfSigned", primary_thumbprint=context.thumbprint), {"x509": group}
            case "symmetricKey":
                if enrollment.kind == "group":
                    primary, secondary = device_keys(enrollment, stored.registration_id)
                else:
                    primary, secondary = enrollment.mechanism.keys
                return Authentication(type="sas", primary_key=primary, secondary_key=secondary), {"symmetricKey": group}
            case "tpm":
                assert context.tpm is not None, "a TPM enrollment is registered with a TPM's keys"
                key = self._entropy(32)
                blob = self._tpm_challenges.blob(context.tpm, key)
                encoded = new_key(key)
                authentication = Authentication(type="sas", primary_key=encoded, secondary_key=encoded)
                return authentication, {"tpm": {"authenticationKey": base64.b64encode(blob).decode()}}

    async def _provision(
        self,
        tx: Transaction,
        enrollment: Enrollment,
        current: Registration,
        allocation: Allocation,
        device_id: str,
        authentication: Authentication,
    ) -> Substatus:
        """The device in its hub, moved there from another one if need be (dps.md 5.4)."""
        hub, initial_twin = allocation.choice.hub.name, allocation.answer.initial_twin
        substatus: Substatus = "initialAssignment"
        moved = None
        if current.assigned_hub is not None and current.assigned_hub != hub:
            keep = enrollment.document.reprovision_policy.migrate_device_data
            moved = await self._devices.take(tx, current.assigned_hub, device_id)
            substatus = "deviceDataMigrated" if keep and moved is not None else "deviceDataReset"
            moved = moved if keep else None
        await self._devices.provision(
            tx,
            hub,
            device_id,
            authentication,
            iot_edge=enrollment.document.capabilities.iot_edge,
            initial_twin=initial_twin or enrollment.document.initial_twin,
            moved_twin=None if initial_twin is not None else moved,
        )
        return substatus

    async def _conclude(self, tx: Transaction, id_scope: str, stored: Registration, **changes: Any) -> None:
        final = msgspec.structs.replace(
            stored,
            last_updated=self._clock(),
            etag=document_etag(self._entropy(12)),
            error_code=None,
            error_message=None,
        )
        await self._records.write(tx, id_scope, msgspec.structs.replace(final, **changes), "{}")

    async def _fail(self, id_scope: str, key: str, operation: str, error: ServiceError) -> None:
        async def transaction(tx: Transaction) -> None:
            stored = await self._records.assigning_in(tx, id_scope, key, operation)
            if stored is None:
                return
            await self._conclude(
                tx, id_scope, stored, status="failed", error_code=error.code, error_message=error.message
            )
            await self._reports.insert(tx, _failed_report(id_scope, stored, context, error, self._clock()))

        found = await self._records.context(id_scope, key, operation)
        if found is not None:
            context = read(found[1], Context)
            await self._database.transact(transaction)

    # Poll

    async def status(self, login: DeviceLogin, operation: str) -> Operation:
        """What a poll sees. Raises RegistrationNotFoundError unless it is an operation of this registration, and
        ThrottledError.

        An operation that a later one overtook is answered with what the later one reached, so that of two clients
        that register one device at the same time both come to an end (dps.md 10, 4).
        """
        self._throttles.poll(login.id_scope, login.registration_id)
        return await self._status(login, operation)

    async def _status(self, login: DeviceLogin, operation: str) -> Operation:
        service = self._services.find(login.id_scope)
        registration = await self._records.find(service.id_scope, login.registration_id) if service else None
        known = service and registration and is_operation_of(operation, service.id_scope, login.registration_id)
        if service is None or registration is None or not known:
            raise RegistrationNotFoundError(f"Operation not found: {operation}.")
        asked = msgspec.structs.replace(registration, operation_id=operation)
        return Operation(asked, service.hub_host(registration.assigned_hub), "")

    async def poll(self, login: DeviceLogin, credential: Credential, operation: str) -> Operation:
        """``status`` for a device that has not proven itself on this connection.

        A TPM signs with keys that change while it registers: there, knowing the id of the latest operation counts,
        which nobody else was told.
        """
        found = await self._status(login, operation)
        service = self._services.find(login.id_scope)
        assert service is not None, "it has the operation"
        latest = await self._records.get(service.id_scope, login.registration_id)
        enrollment = await self._enrollments.find(service.id_scope, login.registration_id)
        by_tpm = enrollment is not None and enrollment.mechanism.type == "tpm"
        if not (by_tpm and latest.operation_id == operation):
            await self._require_credential(login, credential)
        self._throttles.poll(login.id_scope, login.registration_id)
        return found

    async def require_credential(self, login: DeviceLogin, credential: Credential) -> None:
        """For transports that prove themselves with every request: raise as ``register`` does, with a stored report;
        what may then be read counts as a poll.
        """
        await self._require_credential(login, credential)
        self._throttles.poll(login.id_scope, login.registration_id)

    async def _require_credential(self, login: DeviceLogin, credential: Credential) -> None:
        found = await self._attestations.judge(login, credential)
        error = verdict(found.checks)
        if error is None:
            return
        tracking_id = self._reports.new_tracking_id()
        attempt = Attempt("dps", login.id_scope, "poll", login.registration_id, credential.describe(), credential.peer)
        answer = f"{error.code} {error.message}"
        await self._reports.record(refused_report(attempt, found.checks, tracking_id, self._clock(), answer))
        raise error(tracking_id=tracking_id)


def _require_same_id(login: DeviceLogin, request: RegisterBody) -> None:
    sent = request.registration_id
    if sent and registration_id_key(sent) != registration_id_key(login.registration_id):
        raise ArgumentInvalidError(f"registrationId in the body is {sent!r}, the login says {login.registration_id!r}.")


def _context(
    enrollment: Enrollment, credential: Credential, request: RegisterBody, attempt: Attempt, tracking_id: str
) -> Context:
    by_certificate = enrollment.mechanism.type == "x509"
    leaf = credential.certificates[0] if by_certificate and credential.certificates else b""
    custom = enrollment.document.custom_allocation is not None
    return Context(
        group_id=enrollment.id if enrollment.kind == "group" else "",
        thumbprint=sha1_thumbprint(leaf) if leaf else "",
        tracking_id=tracking_id,
        credential=attempt.credential,
        peer=attempt.peer,
        payload=request.payload,
        # Only a webhook is shown the certificate.
        certificate=base64.b64encode(leaf).decode() if custom else "",
        tpm=request.tpm if enrollment.mechanism.type == "tpm" else None,
    )


def _runtime(enrollment: Enrollment, context: Context) -> dict[str, Any]:
    """What a custom allocation webhook is told of the device (dps.md 5.3)."""
    runtime: dict[str, Any] = {}
    match enrollment.mechanism.type:
        case "x509":
            runtime["x509"] = {"clientCertificates": {"primary": {"certificate": context.certificate}}}
        case "symmetricKey":
            runtime["symmetricKey"] = {}
        case "tpm":
            runtime["tpm"] = msgspec.to_builtins(context.tpm)
    if context.payload is not None:
        runtime["payload"] = context.payload
    return runtime


def _remark(attempt: Attempt, checks: tuple[Check, ...], tracking_id: str, now: int) -> Report | None:
    """The report of a registration that goes on although a check warned, or towards *disabled*."""
    if refusals(checks):
        disabled = refused_report(attempt, checks, tracking_id, now, "202, then 200 with status disabled")
        return msgspec.structs.replace(disabled, verdict="disabled")
    if any(item.outcome is Outcome.WARNED for item in checks):
        warned = refused_report(attempt, checks, tracking_id, now, "accepted")
        return msgspec.structs.replace(warned, verdict="warned")
    return None


def _failed_report(id_scope: str, stored: Registration, context: Context, error: ServiceError, now: int) -> Report:
    attempt = Attempt("dps", id_scope, "register", stored.registration_id, context.credential, context.peer)
    failed = check(
        "allocation.webhook-answer" if error.name.startswith("CustomAllocation") else "allocation.hub-available",
        passed=False,
        detail=error.message,
        fix=_ALLOCATION_FIX,
    )
    report = refused_report(
        attempt, (failed,), context.tracking_id, now, f"200 with status failed, {error.code} {error.message}"
    )
    return msgspec.structs.replace(report, verdict="failed")


_ALLOCATION_FIX = (
    "link the hub that the enrollment names, or name a linked one; a webhook has to answer 200 with iotHubHostName."
    " To see what would be decided: muster allocation preview REGISTRATION-ID"
)
