"""Databases for tests: ``sqlite_database`` (no syncs), ``postgres_database``, and ``database``, which is both."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from muster.store.database import Database
from muster.store.postgres import PostgresDatabase, open_postgres
from muster.store.sqlite import SqliteDatabase, open_sqlite
from tests.support.fix_postgres import PostgresServer


@pytest.fixture
async def sqlite_database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """An empty SQLite database that is not durable: a test has no use for syncs."""
    database = await open_sqlite(tmp_path / "test.db", durable=False)
    yield database
    await database.close()


@pytest.fixture
async def postgres_database(postgres_server: PostgresServer) -> AsyncIterator[PostgresDatabase]:
    """An empty PostgreSQL database."""
    async with postgres_server.fresh_database() as dsn:
        database = await open_postgres(dsn)
        yield database
        await database.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest) -> Database:
    """For the contract suite: the test runs once on each."""
    opened: Database = request.getfixturevalue(f"{request.param}_database")
    return opened
