"""Registrations: a device asks for its hub, is judged, gets an operation, and polls it until it is finished.

The answer to a register request leaves when *assigning* is on disk. Sources: dps.md 1, 4.6, 10. Not here: any
transport, the verdict (``attestations.py``), what becomes of an operation (``assignments.py``), and the records
themselves.
"""

import base64
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from muster.domain.check_table import verdict
from muster.domain.credential import Credential
from muster.domain.csr import check_csr, is_former
from muster.domain.documents import decode, encode, read
from muster.domain.enrollment import Enrollment
from muster.domain.errors import (
    ArgumentInvalidError,
    RegistrationConflictError,
    RegistrationNotFoundError,
    ServiceError,
    TokenExpiredError,
    TooLargeError,
    UnauthorizedAccessError,
    UnauthorizedError,
)
from muster.domain.etag import document_etag
from muster.domain.registration import MAXIMUM_MESSAGE_BYTES, Registration, is_operation_of, operation_id
from muster.domain.registration_id import registration_id_key
from muster.domain.report import Check, Outcome, Report, refusals
from muster.domain.tpm_offer import TpmOffer
from muster.dps.assignments import Assignments, Context
from muster.dps.attestations import Attestations, DeviceLogin, Verdict
from muster.dps.enrollments import Enrollments
from muster.dps.issuances import IssuanceOrder
from muster.dps.quotas import Quota
from muster.dps.registration_records import RegistrationRecords
from muster.dps.services import ProvisioningService, ProvisioningServices
from muster.dps.throttles import Throttles
from muster.dps.tpm_challenges import TpmChallenges
from muster.hub.authentication import refused_report
from muster.hub.reports import Attempt, Reports
from muster.pki.certificate import sha1_thumbprint
from muster.pki.certificate_order import new_serial_number
from muster.store.database import Database, Transaction


class RegisterBody(msgspec.Struct, rename="camel"):
    """The body of a register request; ``payload`` is any JSON value (dps.md 1.3).

    ``client_certificate_csr`` counts in one version of the API alone, and is then ``csr`` too.
    """

    registration_id: str | None = None
    payload: Any = None
    tpm: TpmOffer | None = None
    csr: str | None = None
    client_certificate_csr: str | None = None


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
        tpm_challenges: TpmChallenges,
        assignments: Assignments,
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
        self._tpm_challenges = tpm_challenges
        self._assignments = assignments
        self._reports = reports
        self._quota = quota
        self._throttles = throttles
        self._clock = clock
        self._entropy = entropy

    async def start(self) -> int:
        """Resume what an earlier process left *assigning*; returns how many."""
        return await self._assignments.start()

    async def stop(self, within: float = 5.0) -> None:
        """Wait so many seconds for what is being assigned."""
        await self._assignments.stop(within)

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
        request = _read_request(login, credential, body)
        found, order = await self._judge(login, credential, request)
        checks = found.checks
        attempt = Attempt(
            "dps", login.id_scope, "register", login.registration_id, credential.describe(), credential.peer
        )
        error = _refusal(checks)
        if error is not None or found.service is None or found.enrollment is None:
            assert error is not None, "a refusal names its error"
            await self._reports.record(refused_report(attempt, checks, tracking_id, self._clock(), _told(error)))
            raise error(tracking_id=tracking_id)
        context = _context(found.enrollment, credential, request, attempt, tracking_id, order)
        report = _remark(attempt, checks, tracking_id, self._clock())
        registration = await self._begin(found.service, found.enrollment, login, context, report)
        if registration.status == "assigning":
            key = registration_id_key(registration.registration_id)
            self._assignments.begin(found.service.id_scope, key, registration.operation_id)
        return Operation(registration, None, tracking_id)

    async def _judge(
        self, login: DeviceLogin, credential: Credential, request: RegisterBody
    ) -> tuple[Verdict, IssuanceOrder | None]:
        """All that a register request is judged by, and what is to be asked of a CA. Raises TpmChallengeError."""
        found = await self._attestations.judge(login, credential, tpm=request.tpm is not None)
        service, enrollment, checks = found.service, found.enrollment, found.checks
        order = None
        if service is not None and enrollment is not None and request.tpm is not None and not refusals(checks):
            if credential.tpm is not None:
                checks += self._tpm_challenges.judge_proven(enrollment, request.tpm)
            else:
                checks += await self._tpm_challenges.judge(service, enrollment, login, credential, request.tpm)
        if enrollment is not None and request.csr is not None and not refusals(checks):
            former = request.client_certificate_csr is not None
            more, order = self._judge_csr(login, enrollment, request.csr, former=former)
            checks += more
        return replace(found, checks=checks), order

    def _judge_csr(
        self, login: DeviceLogin, enrollment: Enrollment, csr: str, *, former: bool
    ) -> tuple[tuple[Check, ...], IssuanceOrder | None]:
        """The checks, and what is to be asked of the CA. The serial number is chosen now: so the same is never issued
        twice.
        """
        policy = enrollment.issuance_policy
        checks, request = check_csr(
            csr, login.registration_id, login.api_version, is_issued=policy is not None, former=former
        )
        if policy is None or request is None:
            return checks, None
        number = f"{new_serial_number(self._entropy):X}"
        return checks, IssuanceOrder(
            policy.authority, policy.profile, login.registration_id, request, number, former=former
        )

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
                await self._require_same_csr(tx, service.id_scope, stored, context)
                return stored
            if stored is None and counted:
                await self._quota.require_room(tx, service.id_scope)
            now = self._clock()
            registration = Registration(
                registration_id=registration_id,
                operation_id=operation_id(service.id_scope, registration_id, self._entropy(12)),
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

    async def _require_same_csr(self, tx: Transaction, id_scope: str, stored: Registration, context: Context) -> None:
        """A certificate for another key is no answer to this request (dps.md 11). Raises RegistrationConflictError."""
        if context.order is None:
            return
        key = registration_id_key(stored.registration_id)
        running = read(await self._records.context_in(tx, id_scope, key), Context).order
        if running is None or running.request != context.order.request:
            raise RegistrationConflictError("Another registration of this device, without this csr, is being assigned.")

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
        if service is None or registration is None or not _is_known(operation, service, registration):
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

    async def require_credential(self, login: DeviceLogin, credential: Credential, body: bytes = b"") -> None:
        """For transports that prove themselves with every request: raise as ``register`` does, with a stored report;
        what may then be read counts as a poll.

        ``body`` is that of a lookup, the same as to register with; only a TPM's keys matter in it.
        """
        await self._require_credential(login, credential, body)
        self._throttles.poll(login.id_scope, login.registration_id)

    async def _require_credential(self, login: DeviceLogin, credential: Credential, body: bytes = b"") -> None:
        request = _read_request(login, credential, body)
        if request.csr is not None:
            raise ArgumentInvalidError("csr belongs into a register request; here nothing is issued.")
        found, _ = await self._judge(login, credential, request)
        checks = found.checks
        error = _refusal(checks)
        if error is None:
            return
        tracking_id = self._reports.new_tracking_id()
        attempt = Attempt("dps", login.id_scope, "poll", login.registration_id, credential.describe(), credential.peer)
        await self._reports.record(refused_report(attempt, checks, tracking_id, self._clock(), _told(error)))
        raise error(tracking_id=tracking_id)


def _is_known(operation: str, service: ProvisioningService, registration: Registration) -> bool:
    """Whether it is the latest operation of the registration, or was one."""
    if operation == registration.operation_id:
        return True
    return is_operation_of(operation, service.id_scope, registration.registration_id)


def _refusal(checks: tuple[Check, ...]) -> type[ServiceError] | None:
    """The error to raise. This service has one number for every fault of a token; 401003 is the hub's (dps.md 6.9)."""
    error = verdict(checks)
    return UnauthorizedAccessError if error is TokenExpiredError else error


def _told(error: type[ServiceError]) -> str:
    """What the device is told, as reports say it."""
    over_mqtt = f", over MQTT {UnauthorizedError.code}" if error is UnauthorizedAccessError else ""
    return f"{error.code} {error.message}{over_mqtt}"


def _read_request(login: DeviceLogin, credential: Credential, body: bytes) -> RegisterBody:
    """The body, which may be empty. Raises as ``decode``, and ArgumentInvalidError when it contradicts the login or the
    TPM that has logged in.
    """
    request = decode(body, RegisterBody) if body.strip() else RegisterBody()
    sent = request.registration_id
    if sent and registration_id_key(sent) != registration_id_key(login.registration_id):
        raise ArgumentInvalidError(f"registrationId in the body is {sent!r}, the login says {login.registration_id!r}.")
    former = request.client_certificate_csr if is_former(login.api_version) and request.csr is None else None
    request = msgspec.structs.replace(request, csr=former or request.csr, client_certificate_csr=former)
    if credential.tpm is None:
        return request
    if request.tpm is not None and request.tpm != credential.tpm:
        raise ArgumentInvalidError("tpm in the body has other keys than the TPM of this connection.")
    return msgspec.structs.replace(request, tpm=credential.tpm)


def _context(
    enrollment: Enrollment,
    credential: Credential,
    request: RegisterBody,
    attempt: Attempt,
    tracking_id: str,
    order: IssuanceOrder | None,
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
        order=order,
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
