"""Programs that use the unmodified SDKs for Node.js, driven as those for Python are."""

import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.support.fix_clients import SdkClient
from tests.support.fix_server import REPOSITORY, MusterServer

SCRIPTS = REPOSITORY / "tests" / "conformance" / "node"


class NodeClient(SdkClient):
    """One running script of ``tests/conformance/node``."""

    @staticmethod
    def command(script: str) -> list[str]:
        node = shutil.which("node")
        if node is None or not (SCRIPTS / "node_modules").exists():
            raise AssertionError(f"Node.js or {SCRIPTS / 'node_modules'} is missing: run `make node`")
        return [node, "--no-deprecation", str(SCRIPTS / script)]


OpenNodeClient = Callable[[str], NodeClient]


@pytest.fixture(scope="module")
def node_clients(muster: MusterServer) -> Iterator[OpenNodeClient]:
    """Starts a script for the server of the module, or finds it running."""
    running: dict[str, NodeClient] = {}

    def find(script: str) -> NodeClient:
        if script not in running:
            running[script] = NodeClient(muster, script)
        return running[script]

    yield find
    for client in running.values():
        client.close()
