"""Individual enrollments: create, replace, read, delete, list. Sources: dps.md 6.1, 6.2, 6.5, 6.7.

Not here: registrations, and what makes a body valid (``domain/enrollment.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass

from muster.domain.documents import encode, read
from muster.domain.enrollment import EnrollmentBody, EnrollmentDocument, IndividualEnrollment, read_document
from muster.domain.errors import ArgumentInvalidError, EnrollmentNotFoundError, PreconditionFailedError
from muster.domain.etag import document_etag, require_match
from muster.domain.registration_id import registration_id_key
from muster.dps.services import ProvisioningService
from muster.store.database import Database, Row, Transaction

DEFAULT_PAGE = 100
MAXIMUM_PAGE = 1000

_COLUMNS = "registration_id, etag, provisioning_status, created, last_updated, document"
_SELECT = f"SELECT {_COLUMNS} FROM individual_enrollment WHERE id_scope = :id_scope AND registration_key = :key"


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list, and where the next one begins; None at the end."""

    enrollments: list[IndividualEnrollment]
    continuation: str | None


def _enrollment(row: Row) -> IndividualEnrollment:
    return IndividualEnrollment(row[0], row[1], row[2], row[3], row[4], read(row[5], EnrollmentDocument))


class Enrollments:
    """The enrollments of all provisioning services; every operation names its id scope."""

    def __init__(self, database: Database, clock: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy

    async def find(self, id_scope: str, registration_id: str) -> IndividualEnrollment | None:
        row = await self._database.fetch_one(_SELECT, id_scope=id_scope, key=registration_id_key(registration_id))
        return _enrollment(row) if row else None

    async def find_in(self, tx: Transaction, id_scope: str, registration_id: str) -> IndividualEnrollment | None:
        """The same inside a transaction; the row stays as it is until that ends."""
        row = await tx.fetch_one(_SELECT + " {for_update}", id_scope=id_scope, key=registration_id_key(registration_id))
        return _enrollment(row) if row else None

    async def lock_in(self, tx: Transaction, id_scope: str, key: str) -> None:
        """Let transactions on one enrollment take turns. ``key`` is the registration id's."""
        await tx.fetch_one(
            "SELECT 1 FROM individual_enrollment WHERE id_scope = :id_scope AND registration_key = :key {for_update}",
            id_scope=id_scope,
            key=key,
        )

    async def get(self, id_scope: str, registration_id: str) -> IndividualEnrollment:
        """Raises EnrollmentNotFoundError."""
        enrollment = await self.find(id_scope, registration_id)
        if enrollment is None:
            raise _not_found(registration_id)
        return enrollment

    async def put(
        self, service: ProvisioningService, registration_id: str, body: EnrollmentBody, if_match: str | None
    ) -> IndividualEnrollment:
        """Create or replace; with If-Match only replace (dps.md 6.7). Raises what the body's rules raise and
        PreconditionFailedError.
        """
        _require_linked(service, body)

        async def transaction(tx: Transaction) -> IndividualEnrollment:
            stored = await self.find_in(tx, service.id_scope, registration_id)
            if stored is None and if_match is not None:
                raise PreconditionFailedError(
                    f"Precondition failed: there is no enrollment {registration_id!r} to update."
                )
            if stored is not None:
                require_match(if_match, stored.etag)
            now = self._clock()
            enrollment = IndividualEnrollment(
                registration_id=stored.registration_id if stored else registration_id,
                etag=document_etag(self._entropy(12)),
                provisioning_status=body.provisioning_status or "enabled",
                created=stored.created if stored else now,
                last_updated=now,
                document=read_document(registration_id, body, stored.document if stored else None),
            )
            await _write(tx, service.id_scope, enrollment)
            return enrollment

        return await self._database.transact(transaction)

    async def delete(self, id_scope: str, registration_id: str, if_match: str | None) -> None:
        """Delete the enrollment; device and registration record stay (dps.md 4.9).

        Raises EnrollmentNotFoundError and PreconditionFailedError.
        """

        async def transaction(tx: Transaction) -> None:
            stored = await self.find_in(tx, id_scope, registration_id)
            if stored is None:
                raise _not_found(registration_id)
            require_match(if_match, stored.etag)
            await tx.execute(
                "DELETE FROM individual_enrollment WHERE id_scope = :id_scope AND registration_key = :key",
                id_scope=id_scope,
                key=registration_id_key(registration_id),
            )

        await self._database.transact(transaction)

    async def page(self, id_scope: str, continuation: str | None = None, size: int = DEFAULT_PAGE) -> Page:
        """A page in the order of the registration ids. ``continuation`` is that of the page before; it is the last id
        shown.
        """
        size = max(1, min(size, MAXIMUM_PAGE))
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM individual_enrollment WHERE id_scope = :id_scope AND registration_key > :after"
            " ORDER BY registration_key LIMIT :limit",
            id_scope=id_scope,
            after=continuation or "",
            limit=size + 1,
        )
        enrollments = [_enrollment(row) for row in rows[:size]]
        more = len(rows) > size
        return Page(enrollments, registration_id_key(enrollments[-1].registration_id) if more else None)


async def _write(tx: Transaction, id_scope: str, enrollment: IndividualEnrollment) -> None:
    await tx.execute(
        "INSERT INTO individual_enrollment (id_scope, registration_key, registration_id, etag,"
        " provisioning_status, created,"
        " last_updated, document) VALUES (:id_scope, :key, :registration_id, :etag, :provisioning_status, :created,"
        " :last_updated, :document) ON CONFLICT (id_scope, registration_key) DO UPDATE SET etag = excluded.etag,"
        " provisioning_status = excluded.provisioning_status, last_updated = excluded.last_updated,"
        " document = excluded.document",
        id_scope=id_scope,
        key=registration_id_key(enrollment.registration_id),
        registration_id=enrollment.registration_id,
        etag=enrollment.etag,
        provisioning_status=enrollment.provisioning_status,
        created=enrollment.created,
        last_updated=enrollment.last_updated,
        document=encode(enrollment.document),
    )


def _require_linked(service: ProvisioningService, body: EnrollmentBody) -> None:
    linked = {hub.host_name.lower() for hub in service.linked_hubs}
    for host in (*(body.iot_hubs or ()), *filter(None, (body.iot_hub_host_name,))):
        if host.lower() not in linked:
            raise ArgumentInvalidError(
                f"The IoT hub {host!r} is not linked; there are {', '.join(sorted(linked)) or 'none'}."
            )


def _not_found(registration_id: str) -> EnrollmentNotFoundError:
    return EnrollmentNotFoundError(f"Enrollment not found: {registration_id}.")
