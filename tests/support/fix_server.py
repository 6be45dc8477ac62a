"""A whole Muster in a process of its own, and the unmodified clients that talk to it, each from its own environment.

Every server takes a loopback address of its own, so the ports that clients have built in are free there. Nothing of
the machine's own trust settings reaches a server or a client: what they need is set here.
"""

import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SDK_PYTHON = REPOSITORY / ".venv-sdk" / "bin" / "python"
CLIENTS = REPOSITORY / "tests" / "conformance" / "clients"

DEVELOPMENT_KEY = "bXVzdGVyLWRldi1rZXktdGhpcy1pcy1uby1zZWNyZXQ="
ID_SCOPE = "0ne00DE5EED"

_START_SECONDS = 120.0
_STOP_SECONDS = 60.0
_CLIENT_SECONDS = 240.0

_NETWORK = 250 * 250
_numbers = itertools.count(os.getpid())


def free_address() -> str:
    """A loopback address on which nothing listens: one network for each worker, begun anywhere by each test run."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    while True:
        number = next(_numbers) % _NETWORK
        address = f"127.{60 + worker}.{number // 250 + 1}.{number % 250 + 1}"
        with socket.socket() as probe:
            if probe.connect_ex((address, 8883)) != 0:
                return address


def clean_environment(**more: str) -> dict[str, str]:
    """What a user's shell has on any machine, and nothing that this one adds."""
    own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**own, **more}


class MusterServer:
    """One ``muster up``. ``start`` returns when it is ready; it may be stopped or killed and started again.

    With ``--host-name`` among the options, ``address`` is the name that clients dial.
    """

    def __init__(self, directory: Path, address: str, *options: str) -> None:
        self.directory = directory
        self.data_directory = directory / "data"
        self.address = address
        self.options = options
        self.log = directory / "server.log"
        self.ready_seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None

    # Life

    def start(self) -> "MusterServer":
        place = () if "--host-name" in self.options else ("--address", self.address)
        command = [sys.executable, "-m", "muster", "up", *place]
        command += ["--data-dir", str(self.data_directory), *self.options]
        started = time.monotonic()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.directory, env=clean_environment(), start_new_session=True
            )
        self._wait_until_ready(started)
        self.ready_seconds = time.monotonic() - started
        return self

    def _wait_until_ready(self, started: float) -> None:
        assert self._process is not None
        while not self._is_ready():
            if self._process.poll() is not None:
                raise AssertionError(f"muster up ended with {self._process.returncode}:\n{self.output}")
            if time.monotonic() - started > _START_SECONDS:
                raise AssertionError(f"muster up was not ready within {_START_SECONDS} s:\n{self.output}")
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            return bool(json.loads(self.status_file.read_text())["pid"] == self.pid)
        except (OSError, ValueError):
            return False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; returns its exit code."""
        assert self._process is not None
        if self.running:
            self._process.send_signal(number)
        return self._process.wait(_STOP_SECONDS)

    def kill(self) -> None:
        """``kill -9``: no clean-up of any kind."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(_STOP_SECONDS)

    # Facts

    @property
    def status_file(self) -> Path:
        return self.data_directory / "status.json"

    @property
    def status(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.status_file.read_text())
        return document

    @property
    def output(self) -> str:
        """Everything it printed and logged."""
        return self.log.read_text(errors="replace")

    @property
    def ca_file(self) -> Path:
        return self.data_directory / "ca.pem"

    @property
    def provisioning_connection_string(self) -> str:
        return str(self.status["provisioningService"]["connectionString"])

    @property
    def hub_connection_string(self) -> str:
        return str(self.status["hubs"][0]["connectionString"])

    @property
    def event_hub_connection_string(self) -> str:
        return str(self.status["hubs"][0]["eventHubConnectionString"])

    # Clients

    def trust(self) -> dict[str, str]:
        """What ``muster env`` exports."""
        trust = str(self.data_directory / "trust.pem")
        return {"SSL_CERT_FILE": trust, "REQUESTS_CA_BUNDLE": trust, "NODE_EXTRA_CA_CERTS": str(self.ca_file)}

    def sdk(
        self, script: str, *arguments: str, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``tests/conformance/clients/SCRIPT`` with the Python that has the unmodified SDKs."""
        if not SDK_PYTHON.exists():
            raise AssertionError(f"{SDK_PYTHON} is missing: run `make sdk`")
        result = subprocess.run(
            [str(SDK_PYTHON), "-W", "ignore", str(CLIENTS / script), *arguments],
            capture_output=True,
            text=True,
            timeout=_CLIENT_SECONDS,
            cwd=self.directory,
            env=clean_environment(MUSTER_HOST=self.address, **self.trust(), **environment),
            check=False,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{script} {arguments} failed:\n{result.stdout}\n{result.stderr}\n{self.output}")
        return result

    def sdk_json(self, script: str, *arguments: str, **environment: str) -> Any:
        """The JSON that a client script printed on its last line."""
        lines = self.sdk(script, *arguments, check=True, **environment).stdout.strip().splitlines()
        return json.loads(lines[-1])

    def cli(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run the ``muster`` command against this server."""
        result = subprocess.run(
            [sys.executable, "-m", "muster", *arguments],
            capture_output=True,
            text=True,
            timeout=_CLIENT_SECONDS,
            cwd=self.directory,
            env=clean_environment(MUSTER_DATA_DIR=str(self.data_directory)),
            check=False,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"muster {arguments} failed:\n{result.stdout}\n{result.stderr}\n{self.output}")
        return result

    def cli_json(self, *arguments: str) -> Any:
        return json.loads(self.cli(*arguments, "-o", "json").stdout)


StartServer = Callable[..., MusterServer]


@pytest.fixture
def start_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """``start_server("--clock", "+400d")`` starts another server for this test; all end with it."""
    servers: list[MusterServer] = []

    def start(*options: str) -> MusterServer:
        server = MusterServer(tmp_path_factory.mktemp("muster"), free_address(), *options)
        servers.append(server)
        return server.start()

    yield start
    for server in servers:
        if server.running:
            server.stop()


@pytest.fixture(scope="module")
def muster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MusterServer]:
    """One running server for the tests of a module, which keep out of each other's way by their device ids."""
    server = MusterServer(tmp_path_factory.mktemp("muster"), free_address()).start()
    yield server
    assert server.stop() == 0, server.output
    assert "Traceback" not in server.output, server.output
