"""CA certificates of a provisioning service: upload, proof of possession, deletion. Sources: dps.md 4.5, 7.5.

Not here: chains (``pki/verify.py``), and which enrollment refers to one.
"""

from collections.abc import Callable
from typing import TypeVar

import msgspec

from muster.bus.bus import Bus
from muster.domain.attestation_mechanism import StoredCertificate, read_certificate
from muster.domain.authority import (
    MAXIMUM_AUTHORITIES,
    MAXIMUM_NAME_LENGTH,
    Authority,
    proof_problem,
)
from muster.domain.errors import (
    ArgumentInvalidError,
    CaCertificateMissingError,
    PreconditionFailedError,
)
from muster.domain.etag import document_etag, require_match
from muster.dps.enrollments import enrollments_changed_subject
from muster.dps.quotas import lock_counts, require_below
from muster.pki.certificate import CertificateFormatError, read_certificates
from muster.store.database import Body, Database, Row, Transaction

T = TypeVar("T")

_CODE_BYTES = 24

_COLUMNS = (
    "name, certificate, sha1_thumbprint, sha256_thumbprint, is_verified, verification_code, etag, created, last_updated"
)
_SELECT = f"SELECT {_COLUMNS} FROM ca_certificate WHERE id_scope = :id_scope AND name_key = :key"


def _authority(row: Row) -> Authority:
    return Authority(
        name=row[0],
        certificate=StoredCertificate(row[1], row[2], row[3]),
        is_verified=bool(row[4]),
        verification_code=row[5],
        etag=row[6],
        created=row[7],
        last_updated=row[8],
    )


class Authorities:
    """The CA certificates of all provisioning services; every operation names its id scope."""

    def __init__(self, database: Database, bus: Bus, clock: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._entropy = entropy

    async def find(self, id_scope: str, name: str) -> Authority | None:
        row = await self._database.fetch_one(_SELECT, id_scope=id_scope, key=name.lower())
        return _authority(row) if row else None

    async def get(self, id_scope: str, name: str) -> Authority:
        """Raises CaCertificateMissingError."""
        authority = await self.find(id_scope, name)
        if authority is None:
            raise CaCertificateMissingError(f"There is no CA certificate {name!r}.")
        return authority

    async def all(self, id_scope: str) -> list[Authority]:
        rows = await self._database.fetch_all(
            f"SELECT {_COLUMNS} FROM ca_certificate WHERE id_scope = :id_scope ORDER BY name_key", id_scope=id_scope
        )
        return [_authority(row) for row in rows]

    async def put(
        self, id_scope: str, name: str, certificate: str, *, is_verified: bool, if_match: str | None
    ) -> Authority:
        """Upload or replace; a replacement needs If-Match and loses its verification unless ``is_verified`` says
        otherwise.

        Raises ArgumentInvalidError, PreconditionFailedError and QuotaExceededError (25 are allowed).
        """
        if not 0 < len(name) <= MAXIMUM_NAME_LENGTH:
            raise ArgumentInvalidError(f"The name of a CA certificate has 1 to {MAXIMUM_NAME_LENGTH} characters.")
        stored = read_certificate("The CA certificate", certificate)

        async def transaction(tx: Transaction) -> Authority:
            before = await self._locked(tx, id_scope, name)
            if before is not None:
                if if_match is None:
                    raise PreconditionFailedError(f"The CA certificate {name!r} exists: an update needs If-Match.")
                require_match(if_match, before.etag)
            else:
                await self._require_room(tx, id_scope)
            now = self._clock()
            same = before is not None and before.certificate == stored
            authority = Authority(
                name=before.name if before else name,
                certificate=stored,
                is_verified=is_verified or (same and before is not None and before.is_verified),
                verification_code="",
                etag=self._new_etag(),
                created=before.created if before else now,
                last_updated=now,
            )
            await _write(tx, id_scope, authority)
            return authority

        return await self._written(id_scope, transaction)

    async def _written(self, id_scope: str, transaction: Body[T]) -> T:
        result = await self._database.transact(transaction)
        self._bus.publish(enrollments_changed_subject(id_scope), b"")
        return result

    @staticmethod
    async def _require_room(tx: Transaction, id_scope: str) -> None:
        await lock_counts(tx, id_scope)
        row = await tx.fetch_one("SELECT count(*) FROM ca_certificate WHERE id_scope = :id_scope", id_scope=id_scope)
        require_below(row[0] if row else 0, MAXIMUM_AUTHORITIES, "CA certificates")

    async def new_verification_code(self, id_scope: str, name: str, if_match: str | None) -> Authority:
        """Begin a proof of possession: a new code, 48 upper-case hex digits. Raises CaCertificateMissingError."""

        def begin(before: Authority) -> Authority:
            return msgspec.structs.replace(before, verification_code=self._entropy(_CODE_BYTES).hex().upper())

        return await self._change(id_scope, name, if_match, begin)

    async def verify(self, id_scope: str, name: str, proof: str, if_match: str | None) -> Authority:
        """Finish a proof of possession with the certificate that the CA signed for the code.

        Raises ArgumentInvalidError, which says what is wrong with the proof.
        """
        try:
            der = read_certificates(proof)[0]
        except CertificateFormatError as error:
            raise ArgumentInvalidError(f"The verification certificate cannot be read: {error}") from None

        def judge(before: Authority) -> Authority:
            problem = proof_problem(before, der, self._clock())
            if problem is not None:
                raise ArgumentInvalidError(f"The verification certificate does not prove possession: {problem}")
            return msgspec.structs.replace(before, is_verified=True, verification_code="")

        return await self._change(id_scope, name, if_match, judge)

    async def _change(
        self, id_scope: str, name: str, if_match: str | None, change: Callable[[Authority], Authority]
    ) -> Authority:
        async def transaction(tx: Transaction) -> Authority:
            before = await self._locked(tx, id_scope, name)
            if before is None:
                raise CaCertificateMissingError(f"There is no CA certificate {name!r}.")
            require_match(if_match, before.etag)
            after = msgspec.structs.replace(change(before), etag=self._new_etag(), last_updated=self._clock())
            await _write(tx, id_scope, after)
            return after

        return await self._written(id_scope, transaction)

    async def delete(self, id_scope: str, name: str, if_match: str | None) -> bool:
        """Delete it; False when there was none. Raises PreconditionFailedError."""

        async def transaction(tx: Transaction) -> bool:
            before = await self._locked(tx, id_scope, name)
            if before is None:
                return False
            require_match(if_match, before.etag)
            await tx.execute(
                "DELETE FROM ca_certificate WHERE id_scope = :id_scope AND name_key = :key",
                id_scope=id_scope,
                key=name.lower(),
            )
            return True

        return await self._written(id_scope, transaction)

    def _new_etag(self) -> str:
        return document_etag(self._entropy(12))

    @staticmethod
    async def _locked(tx: Transaction, id_scope: str, name: str) -> Authority | None:
        row = await tx.fetch_one(_SELECT + " {for_update}", id_scope=id_scope, key=name.lower())
        return _authority(row) if row else None


async def _write(tx: Transaction, id_scope: str, authority: Authority) -> None:
    await tx.execute(
        "INSERT INTO ca_certificate (id_scope, name_key, name, certificate, sha1_thumbprint, sha256_thumbprint,"
        " is_verified, verification_code, etag, created, last_updated)"
        " VALUES (:id_scope, :key, :name, :certificate, :sha1, :sha256, :is_verified, :code, :etag, :created, :updated)"
        " ON CONFLICT (id_scope, name_key) DO UPDATE SET certificate = excluded.certificate,"
        " sha1_thumbprint = excluded.sha1_thumbprint, sha256_thumbprint = excluded.sha256_thumbprint,"
        " is_verified = excluded.is_verified, verification_code = excluded.verification_code, etag = excluded.etag,"
        " last_updated = excluded.last_updated",
        id_scope=id_scope,
        key=authority.name.lower(),
        name=authority.name,
        certificate=authority.certificate.der,
        sha1=authority.certificate.sha1_thumbprint,
        sha256=authority.certificate.sha256_thumbprint,
        is_verified=int(authority.is_verified),
        code=authority.verification_code,
        etag=authority.etag,
        created=authority.created,
        updated=authority.last_updated,
    )
