"""The registration records of a provisioning service: find, write, list, delete. Sources: dps.md 6.4, 10.

One record for each registration id; it survives its enrollment. Not here: how a record comes about
(``registrations.py``).
"""

from collections.abc import Callable

import msgspec

from muster.domain.documents import encode, read
from muster.domain.errors import RegistrationNotFoundError
from muster.domain.etag import require_match
from muster.domain.registration import Registration
from muster.domain.registration_id import registration_id_key
from muster.store.database import Database, Row, Transaction

_COLUMNS = (
    "registration_id, operation_id, status, created, last_updated, etag, substatus, assigned_hub, device_id,"
    " error_code, error_message, payload, enrollment_group_id, attestation"
)
_SELECT = f"SELECT {_COLUMNS} FROM registration WHERE id_scope = :id_scope AND registration_key = :key"


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
        enrollment_group_id=row[12],
        attestation=read(row[13], dict),
    )


class RegistrationRecords:
    """The records of all provisioning services; every operation names its id scope."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    async def find(self, id_scope: str, registration_id: str) -> Registration | None:
        row = await self._database.fetch_one(_SELECT, id_scope=id_scope, key=registration_id_key(registration_id))
        return _registration(row) if row else None

    async def find_in(self, tx: Transaction, id_scope: str, key: str) -> Registration | None:
        """The same inside a transaction; the row stays as it is until that ends. ``key`` is that of the id."""
        row = await tx.fetch_one(_SELECT + " {for_update}", id_scope=id_scope, key=key)
        return _registration(row) if row else None

    async def get(self, id_scope: str, registration_id: str) -> Registration:
        """Raises RegistrationNotFoundError."""
        registration = await self.find(id_scope, registration_id)
        if registration is None:
            raise RegistrationNotFoundError(f"Registration not found: {registration_id}.")
        return registration

    async def assigning(self) -> list[tuple[str, str, str]]:
        """Id scope, key and operation id of everything that is to be finished."""
        rows = await self._database.fetch_all(
            "SELECT id_scope, registration_key, operation_id FROM registration WHERE status = 'assigning'"
        )
        return [(row[0], row[1], row[2]) for row in rows]

    async def context(self, id_scope: str, key: str, operation: str) -> tuple[Registration, str] | None:
        """A record and its context while ``operation`` is still to be finished."""
        row = await self._database.fetch_one(_ASSIGNING, id_scope=id_scope, key=key, operation=operation)
        return (_registration(row), row[14]) if row else None

    async def context_in(self, tx: Transaction, id_scope: str, key: str) -> str:
        """The context of a record that is there."""
        row = await tx.fetch_one(
            "SELECT context FROM registration WHERE id_scope = :id_scope AND registration_key = :key",
            id_scope=id_scope,
            key=key,
        )
        assert row is not None, "the record is there, and locked"
        return str(row[0])

    async def assigning_in(self, tx: Transaction, id_scope: str, key: str, operation: str) -> Registration | None:
        """The record, locked, while ``operation`` is still to be finished."""
        row = await tx.fetch_one(_ASSIGNING + " {for_update}", id_scope=id_scope, key=key, operation=operation)
        return _registration(row) if row else None

    async def page(
        self, id_scope: str, group_id: str, continuation: str | None, size: int
    ) -> tuple[list[Registration], str | None]:
        """The records of a group in the order of their ids, and where the next page begins; None at the end."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM registration WHERE id_scope = :id_scope AND enrollment_group_id = :group_id"
            " AND registration_key > :after ORDER BY registration_key LIMIT :limit",
            id_scope=id_scope,
            group_id=group_id,
            after=continuation or "",
            limit=size + 1,
        )
        found = [_registration(row) for row in rows[:size]]
        return found, registration_id_key(found[-1].registration_id) if len(rows) > size else None

    async def latest(self, id_scope: str, limit: int) -> list[Registration]:
        """The records that changed last, newest first."""
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM registration WHERE id_scope = :id_scope ORDER BY last_updated DESC LIMIT :limit",
            id_scope=id_scope,
            limit=limit,
        )
        return [_registration(row) for row in rows]

    async def delete(self, id_scope: str, registration_id: str, if_match: str | None) -> None:
        """Delete the record; the device in the hub stays (dps.md 4.9).

        Raises RegistrationNotFoundError and PreconditionFailedError.
        """
        key = registration_id_key(registration_id)

        async def transaction(tx: Transaction) -> None:
            stored = await self.find_in(tx, id_scope, key)
            if stored is None:
                raise RegistrationNotFoundError(f"Registration not found: {registration_id}.")
            require_match(if_match, stored.etag)
            await tx.execute(
                "DELETE FROM registration WHERE id_scope = :id_scope AND registration_key = :key",
                id_scope=id_scope,
                key=key,
            )

        await self._database.transact(transaction)

    async def write(self, tx: Transaction, id_scope: str, registration: Registration, context: str) -> None:
        """Insert or replace a record. ``context`` is what a restart needs to finish it; ``{}`` when it is finished."""
        values = msgspec.structs.asdict(registration)
        payload = values.pop("payload")
        values["attestation"] = encode(values["attestation"])
        await tx.execute(
            _UPSERT,
            id_scope=id_scope,
            key=registration_id_key(registration.registration_id),
            payload=None if payload is None else encode(payload),
            context=context,
            **values,
        )


_ASSIGNING = (
    f"SELECT {_COLUMNS}, context FROM registration WHERE id_scope = :id_scope AND registration_key = :key"
    " AND operation_id = :operation AND status = 'assigning'"
)

_UPSERT = (
    "INSERT INTO registration (id_scope, registration_key, registration_id, operation_id, status, created,"
    " last_updated, etag, substatus, assigned_hub, device_id, error_code, error_message, payload,"
    " enrollment_group_id, attestation, context)"
    " VALUES (:id_scope, :key, :registration_id, :operation_id, :status, :created,"
    " :last_updated, :etag, :substatus, :assigned_hub, :device_id, :error_code, :error_message, :payload,"
    " :enrollment_group_id, :attestation, :context)"
    " ON CONFLICT (id_scope, registration_key) DO UPDATE SET registration_id = excluded.registration_id,"
    " operation_id = excluded.operation_id, status = excluded.status, created = excluded.created,"
    " last_updated = excluded.last_updated, etag = excluded.etag, substatus = excluded.substatus,"
    " assigned_hub = excluded.assigned_hub, device_id = excluded.device_id, error_code = excluded.error_code,"
    " error_message = excluded.error_message, payload = excluded.payload,"
    " enrollment_group_id = excluded.enrollment_group_id, attestation = excluded.attestation,"
    " context = excluded.context"
)
