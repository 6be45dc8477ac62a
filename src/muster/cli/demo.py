"""``muster demo``: what ``make demo`` runs. An ephemeral server, the tutorial against it, and the time both took.

Hidden from the help: who wants to look around runs ``muster up`` and ``muster tutorial``.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from muster.cli.failure import CommandError
from muster.cli.target import Document, ephemeral_statuses
from muster.config import MQTT_PORT

app = typer.Typer(rich_markup_mode=None, add_completion=False)

START_SECONDS = 30.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.05
PORTAL_PORT = 8080
LAST_LOOPBACK = 250


@app.command()
def demo(
    *,
    python: Annotated[
        str | None,
        typer.Option(help="Python with the azure-iot-device package, for the device.", show_default=False),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Make an EC key: RSA with 4096 bits takes a while.")] = False,
    no_openssl: Annotated[
        bool, typer.Option("--no-openssl", help="Make the certificate with muster cert, not with openssl.")
    ] = False,
) -> None:
    """Start a server, run the tutorial, stop the server."""
    address = free_address()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="muster-demo-") as directory:
        server = _start_server(address)
        try:
            status = _wait_until_ready(server)
            ready = time.monotonic()
            print(f"muster up --ephemeral --address {address} was ready after {ready - began:.1f} s", flush=True)
            _run_tutorial(Path(directory), status, python, [*["--fast"] * fast, *["--no-openssl"] * no_openssl])
            told = time.monotonic()
        finally:
            _stop(server)
    if server.returncode != 0:
        raise CommandError(f"the server ended with exit code {server.returncode}", "its log is above")
    print(f"\nThe demo took {told - began:.1f} s: start {ready - began:.1f} s, tutorial {told - ready:.1f} s.")


def free_address() -> str:
    """The first loopback address on which nothing serves MQTT or a portal. Raises CommandError."""
    for last in range(1, LAST_LOOPBACK):
        address = f"127.0.0.{last}"
        if _is_free(address, MQTT_PORT) and _is_free(address, PORTAL_PORT):
            return address
    raise CommandError("every loopback address has a server on it", "stop one")


def _is_free(address: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError:
            return False
    return True


def _start_server(address: str) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-m", "muster", "up", "--ephemeral", "--address", address]
    return subprocess.Popen([*arguments, "--log-level", "warning"], stdin=subprocess.DEVNULL)  # noqa: S603 - our own command


def _wait_until_ready(server: subprocess.Popen[bytes]) -> Document:
    """The status file of this very server, once it is written. Raises CommandError."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if server.poll() is not None:
            raise CommandError(f"the server ended with exit code {server.returncode}", "it says why above")
        for status in ephemeral_statuses(os.environ):  # noqa: TID251 - where ephemeral servers are is told by it
            if status.get("pid") == server.pid:
                return status
        time.sleep(POLL_SECONDS)
    raise CommandError(f"the server was not ready within {START_SECONDS:.0f} s", "it may say why above")


def _run_tutorial(directory: Path, status: Document, python: str | None, options: list[str]) -> None:
    arguments = [sys.executable, "-m", "muster", "tutorial", "--directory", str(directory / "tutorial")]
    arguments += ["--data-dir", str(status["dataDirectory"]), *options]
    if python is not None:
        arguments += ["--python", python]
    environment = {name: value for name, value in os.environ.items() if name != "MUSTER_CONNECTION_STRING"}  # noqa: TID251 - passed on
    code = subprocess.run(arguments, env=environment, stdin=subprocess.DEVNULL, check=False).returncode  # noqa: S603 - our own command
    if code != 0:
        raise CommandError(f"the tutorial ended with exit code {code}", "it says why above")


def _stop(server: subprocess.Popen[bytes]) -> None:
    if server.poll() is None:
        server.send_signal(signal.SIGTERM)
    try:
        server.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
