"""The fixtures of the contract suite; imported, because only the top conftest may name plugins."""

from tests.support.fix_database import database, postgres_database, sqlite_database
from tests.support.fix_postgres import postgres_server

__all__ = ["database", "postgres_database", "postgres_server", "sqlite_database"]
