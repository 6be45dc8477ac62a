"""Fixtures are modules, one for each thing they provide; this only names them."""

pytest_plugins = ["tests.support.fix_server", "tests.support.fix_services"]
