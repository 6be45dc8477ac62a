"""CA certificates of hubs and of provisioning services: upload, proof of possession, deletion. Sources: dps.md 4.5,
7.5, hub-service.md 10.

The rules are the same for both; what differs is the table, and who is told. Not here: chains (``pki/verify.py``), and
what leans on a certificate.
"""

from collections.abc import Callable
from dataclasses import dataclass
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
    QuotaExceededError,
)
from muster.domain.etag import document_etag, require_match
from muster.pki.certificate import CertificateFormatError, read_certificates
from muster.store.database import Body, Database, Row, Transaction

T = TypeVar("T")

_CODE_BYTES = 24

_COLUMNS = (
    "name, certificate, sha1_thumbprint, sha256_thumbprint, is_verified, verification_code, etag, created, last_updated"
)


@dataclass(frozen=True, slots=True)
class AuthorityTable:
    """Where the certificates of one kind of service are: ``owner`` is the column that names it, ``parent`` the row that
    it names, as SQL up to its key. ``subject`` is the bus subject on which a change of an owner's certificates is told.
    """

    name: str
    owner: str
    parent: str
    subject: Callable[[str], str]


def hub_certificates_changed_subject(hub: str) -> str:
    """The bus subject on which a hub's CA certificates are told to have changed."""
    return f"certificates.{hub}"


HUB_CERTIFICATES = AuthorityTable("hub_certificate", "hub", "hub WHERE name", hub_certificates_changed_subject)


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
    """The CA certificates of all services of one kind; every operation names their owner: a hub, or an id scope."""

    def __init__(
        self,
        table: AuthorityTable,
        database: Database,
        bus: Bus,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._table = table
        self._of_owner = f"{table.name} WHERE {table.owner} = :owner"
        self._select = f"SELECT {_COLUMNS} FROM {self._of_owner} AND name_key = :key"
        self._database = database
        self._bus = bus
        self._clock = clock
        self._entropy = entropy

    async def find(self, owner: str, name: str) -> Authority | None:
        row = await self._database.fetch_one(self._select, owner=owner, key=name.lower())
        return _authority(row) if row else None

    async def get(self, owner: str, name: str) -> Authority:
        """Raises CaCertificateMissingError."""
        authority = await self.find(owner, name)
        if authority is None:
            raise CaCertificateMissingError(f"There is no CA certificate {name!r}.")
        return authority

    async def all(self, owner: str) -> list[Authority]:
        rows = await self._database.fetch_all(f"SELECT {_COLUMNS} FROM {self._of_owner} ORDER BY name_key", owner=owner)
        return [_authority(row) for row in rows]

    async def put(
        self, owner: str, name: str, certificate: str, *, is_verified: bool, if_match: str | None
    ) -> Authority:
        """Upload or replace; a replacement needs If-Match and loses its verification unless ``is_verified`` says
        otherwise.

        Raises ArgumentInvalidError, PreconditionFailedError and QuotaExceededError (25 are allowed).
        """
        if not 0 < len(name) <= MAXIMUM_NAME_LENGTH:
            raise ArgumentInvalidError(f"The name of a CA certificate has 1 to {MAXIMUM_NAME_LENGTH} characters.")
        stored = read_certificate("The CA certificate", certificate)

        async def transaction(tx: Transaction) -> Authority:
            before = await self._locked(tx, owner, name)
            if before is not None:
                if if_match is None:
                    raise PreconditionFailedError(f"The CA certificate {name!r} exists: an update needs If-Match.")
                require_match(if_match, before.etag)
            else:
                await self._require_room(tx, owner)
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
            await self._write(tx, owner, authority)
            return authority

        return await self._written(owner, transaction)

    async def _written(self, owner: str, transaction: Body[T]) -> T:
        result = await self._database.transact(transaction)
        self._bus.publish(self._table.subject(owner), b"")
        return result

    async def _require_room(self, tx: Transaction, owner: str) -> None:
        # A count cannot be locked: the owner's row is, so that no two uploads share the last place.
        await tx.fetch_one(f"SELECT 1 FROM {self._table.parent} = :owner {{for_update}}", owner=owner)
        row = await tx.fetch_one(f"SELECT count(*) FROM {self._of_owner}", owner=owner)
        if row is not None and row[0] >= MAXIMUM_AUTHORITIES:
            raise QuotaExceededError(f"There are {row[0]} CA certificates; {MAXIMUM_AUTHORITIES} are allowed.")

    async def new_verification_code(self, owner: str, name: str, if_match: str | None) -> Authority:
        """Begin a proof of possession: a new code, 48 upper-case hex digits. Raises CaCertificateMissingError."""

        def begin(before: Authority) -> Authority:
            return msgspec.structs.replace(before, verification_code=self._entropy(_CODE_BYTES).hex().upper())

        return await self._change(owner, name, if_match, begin)

    async def verify(self, owner: str, name: str, proof: str, if_match: str | None) -> Authority:
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

        return await self._change(owner, name, if_match, judge)

    async def _change(
        self, owner: str, name: str, if_match: str | None, change: Callable[[Authority], Authority]
    ) -> Authority:
        async def transaction(tx: Transaction) -> Authority:
            before = await self._locked(tx, owner, name)
            if before is None:
                raise CaCertificateMissingError(f"There is no CA certificate {name!r}.")
            require_match(if_match, before.etag)
            after = msgspec.structs.replace(change(before), etag=self._new_etag(), last_updated=self._clock())
            await self._write(tx, owner, after)
            return after

        return await self._written(owner, transaction)

    async def delete(self, owner: str, name: str, if_match: str | None) -> bool:
        """Delete it; False when there was none. Raises PreconditionFailedError."""

        async def transaction(tx: Transaction) -> bool:
            before = await self._locked(tx, owner, name)
            if before is None:
                return False
            require_match(if_match, before.etag)
            await tx.execute(
                f"DELETE FROM {self._of_owner} AND name_key = :key",
                owner=owner,
                key=name.lower(),
            )
            return True

        return await self._written(owner, transaction)

    def _new_etag(self) -> str:
        return document_etag(self._entropy(12))

    async def _locked(self, tx: Transaction, owner: str, name: str) -> Authority | None:
        row = await tx.fetch_one(self._select + " {for_update}", owner=owner, key=name.lower())
        return _authority(row) if row else None

    async def _write(self, tx: Transaction, owner: str, authority: Authority) -> None:
        await tx.execute(
            f"INSERT INTO {self._table.name} ({self._table.owner}, name_key, name, certificate,"
            " sha1_thumbprint, sha256_thumbprint, is_verified, verification_code, etag, created, last_updated)"
            " VALUES (:owner, :key, :name, :certificate, :sha1, :sha256, :is_verified, :code, :etag, :created,"
            " :updated)"
            f" ON CONFLICT ({self._table.owner}, name_key) DO UPDATE SET certificate = excluded.certificate,"
            " sha1_thumbprint = excluded.sha1_thumbprint, sha256_thumbprint = excluded.sha256_thumbprint,"
            " is_verified = excluded.is_verified, verification_code = excluded.verification_code, etag = excluded.etag,"
            " last_updated = excluded.last_updated",
            owner=owner,
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
