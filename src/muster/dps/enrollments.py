"""Individual enrollments and enrollment groups: create, replace, read, delete, list, bulk. Sources: dps.md 6.1 to
6.7, 6.10.

Both kinds have a table of the same shape, and one class of operations. Not here: registrations, and what makes a body
valid (``domain/enrollment.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from muster.bus.bus import Bus
from muster.domain.attestation_mechanism import GENERATED_KEY_BYTES, Mechanism
from muster.domain.device import encode_key
from muster.domain.documents import encode, read
from muster.domain.enrollment import (
    Enrollment,
    EnrollmentBody,
    EnrollmentDocument,
    Kind,
    read_document,
    read_status,
)
from muster.domain.errors import (
    ArgumentInvalidError,
    ConflictError,
    EnrollmentNotFoundError,
    PreconditionFailedError,
    ServiceError,
)
from muster.domain.etag import ANY, document_etag, require_match
from muster.domain.registration_id import registration_id_key
from muster.dps.quotas import Quota, Quotas, lock_counts, require_below
from muster.dps.services import ProvisioningService
from muster.store.database import Database, Row, Transaction

DEFAULT_PAGE = 100
MAXIMUM_PAGE = 1000
MAXIMUM_BULK = 10

BulkMode = Literal["create", "update", "updateIfMatchETag", "delete"]
BULK_MODES: tuple[BulkMode, ...] = ("create", "update", "updateIfMatchETag", "delete")
"""In any case: the service client for Node.js spells the third another way than the API (dps.md 6.6)."""


@dataclass(frozen=True, slots=True)
class Page:
    """Part of a list, and where the next one begins; None at the end."""

    enrollments: list[Enrollment]
    continuation: str | None


class BulkError(msgspec.Struct, frozen=True):
    """What went wrong with one item of a bulk operation."""

    id: str
    error: ServiceError


@dataclass(frozen=True, slots=True)
class _Table:
    """Where a kind is kept: the table, and its columns for the id and for the id in lower case."""

    kind: Kind
    name: str
    id: str
    key: str


_TABLES = {
    "individual": _Table("individual", "individual_enrollment", "registration_id", "registration_key"),
    "group": _Table("group", "enrollment_group", "group_id", "group_key"),
}


def enrollments_changed_subject(id_scope: str) -> str:
    """The bus subject on which those who keep groups in memory hear that one was written or deleted."""
    return f"groups.{id_scope}"


class Enrollments:
    """The enrollments of one kind, of all provisioning services; every operation names its id scope."""

    def __init__(
        self,
        kind: Kind,
        database: Database,
        bus: Bus,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes],
        quotas: Quotas,
    ) -> None:
        self.kind: Kind = kind
        self._table = _TABLES[kind]
        self._columns = f"{self._table.id}, etag, provisioning_status, created, last_updated, document"
        self._select = (
            f"SELECT {self._columns} FROM {self._table.name} WHERE id_scope = :id_scope AND {self._table.key} = :key"
        )
        self._database = database
        self._bus = bus
        self._clock = clock
        self._entropy = entropy
        self._quotas = quotas
        self._individual = Quota(
            database, clock, "individual_enrollment", "individual enrollments", quotas.individual_enrollments
        )

    async def find(self, id_scope: str, id: str) -> Enrollment | None:
        row = await self._database.fetch_one(self._select, id_scope=id_scope, key=registration_id_key(id))
        return self._enrollment(row) if row else None

    async def find_in(self, tx: Transaction, id_scope: str, id: str) -> Enrollment | None:
        """The same inside a transaction; the row stays as it is until that ends."""
        row = await tx.fetch_one(self._select + " {for_update}", id_scope=id_scope, key=registration_id_key(id))
        return self._enrollment(row) if row else None

    async def lock_in(self, tx: Transaction, id_scope: str, key: str) -> None:
        """Let transactions on one enrollment take turns. ``key`` is that of its id."""
        await tx.fetch_one(
            f"SELECT 1 FROM {self._table.name} WHERE id_scope = :id_scope AND {self._table.key} = :key {{for_update}}",
            id_scope=id_scope,
            key=key,
        )

    async def get(self, id_scope: str, id: str) -> Enrollment:
        """Raises EnrollmentNotFoundError."""
        enrollment = await self.find(id_scope, id)
        if enrollment is None:
            raise _not_found(id)
        return enrollment

    async def all(self, id_scope: str) -> list[Enrollment]:
        """Every enrollment of this kind; for groups, of which there are few."""
        rows = await self._database.fetch_all(
            f"SELECT {self._columns} FROM {self._table.name} WHERE id_scope = :id_scope ORDER BY {self._table.key}",
            id_scope=id_scope,
        )
        return [self._enrollment(row) for row in rows]

    async def put(
        self,
        service: ProvisioningService,
        id: str,
        body: EnrollmentBody,
        if_match: str | None,
        api_version: str = "",
    ) -> Enrollment:
        """Create or replace, as a client of ``api_version``; with If-Match only replace (dps.md 6.7).

        Raises what the body's rules raise, PreconditionFailedError and QuotaExceededError.
        """
        _require_linked(service, body)
        counted = self.kind == "group" or await self._individual.is_near(service.id_scope)

        async def transaction(tx: Transaction) -> Enrollment:
            stored = await self.find_in(tx, service.id_scope, id)
            if stored is None and if_match is not None:
                raise PreconditionFailedError(f"Precondition failed: there is no enrollment {id!r} to update.")
            if stored is not None:
                require_match(if_match, stored.etag)
            before = stored.document if stored else None
            document = read_document(self.kind, id, body, before, self._new_key, api_version)
            if counted:
                await self._require_room(tx, service.id_scope, stored, document.mechanism)
            return await self._write(tx, service.id_scope, id, body, stored, document)

        enrollment = await self._database.transact(transaction)
        self._bus.publish(enrollments_changed_subject(service.id_scope), b"")
        return enrollment

    async def _write(
        self,
        tx: Transaction,
        id_scope: str,
        id: str,
        body: EnrollmentBody,
        stored: Enrollment | None,
        document: EnrollmentDocument,
    ) -> Enrollment:
        now = self._clock()
        enrollment = Enrollment(
            kind=self.kind,
            id=stored.id if stored else id,
            etag=document_etag(self._entropy(12)),
            provisioning_status=read_status(body),
            created=stored.created if stored else now,
            last_updated=now,
            document=document,
        )
        await self._upsert(tx, id_scope, enrollment)
        return enrollment

    async def _upsert(self, tx: Transaction, id_scope: str, enrollment: Enrollment) -> None:
        table = self._table
        values: dict[str, Any] = {
            "id_scope": id_scope,
            table.key: registration_id_key(enrollment.id),
            table.id: enrollment.id,
            "etag": enrollment.etag,
            "provisioning_status": enrollment.provisioning_status,
            "created": enrollment.created,
            "last_updated": enrollment.last_updated,
            "document": encode(enrollment.document),
        }
        if self.kind == "group":
            values["attestation_type"] = enrollment.mechanism.type
        changes = [name for name in values if name not in ("id_scope", table.key, table.id, "created")]
        await tx.execute(
            f"INSERT INTO {table.name} ({', '.join(values)}) VALUES ({', '.join(f':{name}' for name in values)})"
            f" ON CONFLICT (id_scope, {table.key}) DO UPDATE SET"
            f" {', '.join(f'{name} = excluded.{name}' for name in changes)}",
            **values,
        )

    async def keep_mechanism(
        self, tx: Transaction, id_scope: str, enrollment: Enrollment, mechanism: Mechanism
    ) -> None:
        """Store a mechanism that a registration completed (a storage root key that was learned); no new etag."""
        document = msgspec.structs.replace(enrollment.document, mechanism=mechanism)
        await self._upsert(tx, id_scope, msgspec.structs.replace(enrollment, document=document))

    async def _require_room(
        self, tx: Transaction, id_scope: str, stored: Enrollment | None, mechanism: Mechanism
    ) -> None:
        """Raise QuotaExceededError when this would be one more than are allowed; of groups each type counts."""
        if self.kind == "individual":
            if stored is None:
                await self._individual.require_room(tx, id_scope)
            return
        if stored is not None and stored.mechanism.type == mechanism.type:
            return
        await lock_counts(tx, id_scope)
        row = await tx.fetch_one(
            f"SELECT count(*) FROM {self._table.name} WHERE id_scope = :id_scope AND attestation_type = :type",
            id_scope=id_scope,
            type=mechanism.type,
        )
        what = f"enrollment groups of type {mechanism.type}"
        require_below(row[0] if row else 0, self._quotas.groups_of_a_type, what)

    def _new_key(self) -> str:
        return encode_key(self._entropy(GENERATED_KEY_BYTES))

    async def delete(self, id_scope: str, id: str, if_match: str | None) -> None:
        """Delete the enrollment; devices and registration records stay (dps.md 4.9).

        Raises EnrollmentNotFoundError and PreconditionFailedError.
        """

        async def transaction(tx: Transaction) -> None:
            stored = await self.find_in(tx, id_scope, id)
            if stored is None:
                raise _not_found(id)
            require_match(if_match, stored.etag)
            await tx.execute(
                f"DELETE FROM {self._table.name} WHERE id_scope = :id_scope AND {self._table.key} = :key",
                id_scope=id_scope,
                key=registration_id_key(id),
            )

        await self._database.transact(transaction)
        self._bus.publish(enrollments_changed_subject(id_scope), b"")

    async def bulk(
        self, service: ProvisioningService, mode: BulkMode, items: Sequence[EnrollmentBody], api_version: str
    ) -> list[BulkError]:
        """Each item for itself, in order; what failed, empty when all went well (dps.md 6.6).

        Raises ArgumentInvalidError for more than 10 items or one without an id.
        """
        if len(items) > MAXIMUM_BULK:
            raise ArgumentInvalidError(f"A bulk operation has {len(items)} items; {MAXIMUM_BULK} are allowed.")
        errors = []
        for item in items:
            if item.id is None:
                raise ArgumentInvalidError("Every item of a bulk operation needs its id.")
            try:
                await self._bulk_item(service, mode, item.id, item, api_version)
            except ServiceError as error:
                errors.append(BulkError(item.id, error))
        return errors

    async def _bulk_item(
        self, service: ProvisioningService, mode: BulkMode, id: str, item: EnrollmentBody, api_version: str
    ) -> None:
        match mode:
            case "create":
                if await self.find(service.id_scope, id) is not None:
                    raise ConflictError(f"The enrollment {id!r} exists.")
                await self.put(service, id, item, None, api_version)
            case "update":
                await self.get(service.id_scope, id)
                await self.put(service, id, item, ANY, api_version)
            case "updateIfMatchETag":
                await self.get(service.id_scope, id)
                if not isinstance(item.etag, str):
                    raise PreconditionFailedError("Mode updateIfMatchETag needs the etag of every item.")
                await self.put(service, id, item, item.etag, api_version)
            case "delete":
                await self.delete(service.id_scope, id, item.etag if isinstance(item.etag, str) else None)

    async def page(self, id_scope: str, continuation: str | None = None, size: int = DEFAULT_PAGE) -> Page:
        """A page in the order of the ids. ``continuation`` is that of the page before; it is the last id shown."""
        size = max(1, min(size, MAXIMUM_PAGE))
        rows = await self._database.fetch_all(
            f"SELECT {self._columns} FROM {self._table.name} WHERE id_scope = :id_scope AND {self._table.key} > :after"
            f" ORDER BY {self._table.key} LIMIT :limit",
            id_scope=id_scope,
            after=continuation or "",
            limit=size + 1,
        )
        enrollments = [self._enrollment(row) for row in rows[:size]]
        more = len(rows) > size
        return Page(enrollments, registration_id_key(enrollments[-1].id) if more else None)

    def _enrollment(self, row: Row) -> Enrollment:
        return Enrollment(self.kind, row[0], row[1], row[2], row[3], row[4], read(row[5], EnrollmentDocument))


def _require_linked(service: ProvisioningService, body: EnrollmentBody) -> None:
    linked = {hub.host_name.lower() for hub in service.linked_hubs}
    for host in (*(body.iot_hubs or ()), *filter(None, (body.iot_hub_host_name,))):
        if host.lower() not in linked:
            raise ArgumentInvalidError(
                f"The IoT hub {host!r} is not linked; there are {', '.join(sorted(linked)) or 'none'}."
            )


def _not_found(id: str) -> EnrollmentNotFoundError:
    return EnrollmentNotFoundError(f"Enrollment not found: {id}.")
