"""The fixtures of the fault tests; imported, because only the top conftest may name plugins."""

from collections.abc import AsyncIterator

import pytest
from tests.support.fix_postgres import PostgresServer, postgres_server

__all__ = ["postgres_dsn", "postgres_server"]


@pytest.fixture
async def postgres_dsn(postgres_server: PostgresServer) -> AsyncIterator[str]:
    """An empty PostgreSQL database."""
    async with postgres_server.fresh_database() as dsn:
        yield dsn
