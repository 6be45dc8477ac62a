"""Assignments: what happens after a register request was answered: hub, identity, twin, *assigned*.

They run in the background: *assigning* is on disk before, and what a stop interrupts is resumed at the next start
(style-models.md 11.13). Sources: dps.md 1.4, 5, 10. Not here: the request and its verdict (``registrations.py``), and
which hub (``allocations.py``).
"""

import asyncio
import base64
import logging
from collections.abc import Callable
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from muster.domain.check_table import check
from muster.domain.device import Authentication, new_key
from muster.domain.documents import read
from muster.domain.enrollment import Enrollment
from muster.domain.errors import (
    CertificateIssuanceFailedError,
    EnrollmentNotFoundError,
    ServerError,
    ServiceError,
)
from muster.domain.etag import document_etag
from muster.domain.registration import Registration, Substatus
from muster.domain.registration_id import registration_id_key
from muster.domain.report import Check, Report
from muster.domain.tpm_offer import TpmOffer
from muster.dps.allocations import Allocation, Allocations
from muster.dps.attestations import device_keys
from muster.dps.enrollments import Enrollments
from muster.dps.issuances import Chain, IssuanceOrder, Issuances
from muster.dps.registration_records import RegistrationRecords
from muster.dps.services import ProvisioningService, ProvisioningServices
from muster.dps.tpm_challenges import TpmChallenges
from muster.hub.authentication import refused_report
from muster.hub.devices import Devices
from muster.hub.reports import Attempt, Reports
from muster.pki.certificate import sha1_thumbprint
from muster.store.database import Database, DatabaseUnavailableError, Transaction

_log = logging.getLogger("muster.dps")

_RETRY_DELAYS = (0.1, 1.0, 5.0)
"""Seconds between attempts to finish an operation while the database cannot serve."""


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
    order: IssuanceOrder | None = None


class Assignments:
    """The background work of all provisioning services. ``start`` and ``stop`` frame it."""

    def __init__(
        self,
        database: Database,
        services: ProvisioningServices,
        enrollments: Enrollments,
        groups: Enrollments,
        records: RegistrationRecords,
        allocations: Allocations,
        tpm_challenges: TpmChallenges,
        issuances: Issuances,
        devices: Devices,
        reports: Reports,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._services = services
        self._enrollments = enrollments
        self._groups = groups
        self._records = records
        self._allocations = allocations
        self._tpm_challenges = tpm_challenges
        self._issuances = issuances
        self._devices = devices
        self._reports = reports
        self._clock = clock
        self._entropy = entropy
        self._running: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Resume what an earlier process left *assigning*; returns how many."""
        interrupted = await self._records.assigning()
        for id_scope, key, operation in interrupted:
            self.begin(id_scope, key, operation)
        return len(interrupted)

    async def stop(self, within: float) -> None:
        """Wait so many seconds for what is being assigned; what does not finish is resumed at the next start."""
        if self._running:
            _done, late = await asyncio.wait(self._running, timeout=within)
            for task in late:
                task.cancel()

    def begin(self, id_scope: str, key: str, operation: str) -> None:
        """Finish in the background the ``operation`` that stands as *assigning* under the ``key`` of its id."""
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
        chain = await self._issuances.issue(context.order) if context.order is not None else ()
        device_id = await self._assign_to(service, enrollment, stored, context, allocation, chain)
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
        chain: Chain,
    ) -> str | None:
        """Write device and *assigned* in one transaction; the device id, or None when another process was faster."""
        hub = allocation.choice.hub.name
        # A new deviceId of the enrollment counts only after the record was deleted (dps.md 4.9).
        device_id = stored.device_id or enrollment.device_id(stored.registration_id)
        authentication, attestation = self._credentials(enrollment, stored, context)
        if chain:
            authentication = Authentication(type="selfSigned", primary_thumbprint=sha1_thumbprint(chain[0]))
            attestation |= _issued_view(chain, former=context.order is not None and context.order.former)
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
            keep = enrollment.migrates_data
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


def _issued_view(chain: Chain, *, former: bool) -> dict[str, Any]:
    """What the registration state shows of a certificate that was issued (dps.md 1.5). ``former``: as PEM, what the
    device presents in a handshake; the root is not part of that.
    """
    if not former:
        return {"issuedCertificateChain": [base64.b64encode(one).decode() for one in chain]}
    shown = [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM).decode() for one in chain[:-1] or chain]
    return {"issuedClientCertificate": "".join(shown)}


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


def _failed_report(id_scope: str, stored: Registration, context: Context, error: ServiceError, now: int) -> Report:
    attempt = Attempt("dps", id_scope, "register", stored.registration_id, context.credential, context.peer)
    answer = f"200 with status failed, {error.code} {error.message}"
    report = refused_report(attempt, _failed_checks(error), context.tracking_id, now, answer)
    return msgspec.structs.replace(report, verdict="failed")


def _failed_checks(error: ServiceError) -> tuple[Check, ...]:
    if isinstance(error, CertificateIssuanceFailedError):
        return tuple(check(one.id, passed=False, detail=one.detail, fix=one.fix) for one in error.problems)
    failed = "allocation.webhook-answer" if error.name.startswith("CustomAllocation") else "allocation.hub-available"
    return (check(failed, passed=False, detail=error.message, fix=_ALLOCATION_FIX),)


_ALLOCATION_FIX = (
    "link the hub that the enrollment names, or name a linked one; a webhook has to answer 200 with iotHubHostName."
    " To see what would be decided: muster allocation preview REGISTRATION-ID"
)
