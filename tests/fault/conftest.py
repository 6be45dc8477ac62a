"""The fixtures of the fault tests; imported, because only the top conftest may name plugins."""

from tests.support.fix_postgres import postgres_server

__all__ = ["postgres_server"]
