"""The migration runner: numbered SQL files, each applied once, in one transaction, on either database.

Not here: the schema itself, which is ``migrations/0001_initial.sql`` and its successors.

A file is named ``NNNN_words.sql``; numbers start at 1 and have no gaps. Its statements end with ``;`` and
may hold the tokens of ``store/database.py``. A line ``-- oldest code: NNNN`` says that code whose newest
migration is NNNN can still work with the database afterwards (the change only adds); without it only code
that knows this migration can. A database that needs newer code refuses to open. A line ``-- then: words`` names a
module of ``muster.store.migrations`` whose ``convert(transaction)`` does what SQL cannot, after the statements.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from muster.store.database import Database, SchemaError, Transaction, split_statements

_FILE: Final = re.compile(r"(\d{4})_(\w+)\.sql")
_OLDEST_CODE: Final = re.compile(r"^-- oldest code: (\d{4})$", re.MULTILINE)
_CONVERSION: Final = re.compile(r"^-- then: (\w+)$", re.MULTILINE)

_CREATE: Final = """
CREATE TABLE IF NOT EXISTS schema_version (
    number BIGINT NOT NULL PRIMARY KEY,
    name TEXT NOT NULL,
    time BIGINT NOT NULL,
    oldest_code BIGINT NOT NULL
)"""
_RECORD: Final = """
INSERT INTO schema_version (number, name, time, oldest_code)
VALUES (:number, :name, :time, :oldest_code)"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. ``oldest_code``: the migration that code has to know at least to work with the result;
    ``conversion``: the module that ends it, or ``""``.
    """

    number: int
    name: str
    oldest_code: int
    statements: tuple[str, ...]
    conversion: str


async def migrate(database: Database, now: int, source: Traversable | None = None) -> list[str]:
    """Bring the schema up to date; returns the names of the migrations that were applied, in their order.

    ``now`` is recorded, in microseconds since 1970 UTC. ``source`` is a directory of SQL files, by default
    Muster's own. Several processes may call this at once. Errors: SchemaError when the database is newer
    than this code or was made by other migrations, or when the files are not numbered 1, 2, 3, ...
    """
    migrations = load_migrations(source or files("muster.store").joinpath("migrations"))

    async def look(transaction: Transaction) -> set[int]:
        await _lock(database, transaction)
        await transaction.execute(_CREATE)
        return await _applied(transaction, migrations)

    applied = await database.transact(look)
    pending = [migration for migration in migrations.values() if migration.number not in applied]
    return [migration.name for migration in pending if await _apply(database, migration, migrations, now)]


def load_migrations(source: Traversable) -> dict[int, Migration]:
    """The migrations of a directory by number. Errors: SchemaError for a wrong name, a gap, a double."""
    migrations: dict[int, Migration] = {}
    for file in sorted(source.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            migration = _parse(file.name, file.read_text(encoding="utf-8"))
            if migration.number != len(migrations) + 1:
                raise SchemaError(f"migration {len(migrations) + 1:04} is expected where {file.name} is")
            migrations[migration.number] = migration
    return migrations


def _parse(file_name: str, text: str) -> Migration:
    match = _FILE.fullmatch(file_name)
    if match is None:
        raise SchemaError(f"a migration is named like 0001_initial.sql, not {file_name}")
    number = int(match[1])
    oldest = _OLDEST_CODE.search(text)
    conversion = _CONVERSION.search(text)
    return Migration(
        number,
        match[2],
        int(oldest[1]) if oldest else number,
        tuple(split_statements(text)),
        conversion[1] if conversion else "",
    )


async def _apply(database: Database, migration: Migration, known: Mapping[int, Migration], now: int) -> bool:
    async def apply(transaction: Transaction) -> bool:
        await _lock(database, transaction)
        if migration.number in await _applied(transaction, known):
            return False  # another process was faster
        for statement in migration.statements:
            await transaction.execute(statement)
        if migration.conversion:
            await import_module(f"muster.store.migrations.{migration.conversion}").convert(transaction)
        await transaction.execute(
            _RECORD,
            number=migration.number,
            name=migration.name,
            time=now,
            oldest_code=migration.oldest_code,
        )
        return True

    return await database.transact(apply)


async def _lock(database: Database, transaction: Transaction) -> None:
    if database.dialect.migration_lock:
        await transaction.execute(database.dialect.migration_lock)


async def _applied(transaction: Transaction, known: Mapping[int, Migration]) -> set[int]:
    """Numbers of what is in the database, once it is certain that this code may work with it."""
    rows = await transaction.fetch_all("SELECT number, name, oldest_code FROM schema_version ORDER BY number")
    for number, name, oldest_code in rows:
        if oldest_code > len(known):
            raise SchemaError(
                f"the database has schema {rows[-1][0]:04} and needs code that knows {oldest_code:04};"
                f" this code knows up to {len(known):04}. Use the newer Muster, or a backup made before it"
            )
        if number in known and known[number].name != name:
            here = known[number].name
            raise SchemaError(f"migration {number:04} of the database is {name}, of this code {here}")
    return {row[0] for row in rows}
