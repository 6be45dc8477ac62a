"""``muster up`` from outside: ready soon, private, clear when it cannot start, clean when it stops."""

import base64
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_server import (
    DEVELOPMENT_KEY,
    ID_SCOPE,
    MusterServer,
    StartServer,
    clean_environment,
    free_address,
)


def up(directory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """A start that is expected to fail."""
    return subprocess.run(
        [sys.executable, "-m", "muster", "up", *options],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=directory,
        env=clean_environment(),
        check=False,
    )


def start_and_stop(command: list[str], directory: Path, **environment: str) -> tuple[str, dict[str, Any]]:
    """Everything that a start printed until it was asked to stop, and its status file."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=directory,
        env=clean_environment(**environment),
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    while not lines or "muster why" not in lines[-1]:
        lines.append(process.stdout.readline())
        assert process.poll() is None, "".join(lines)
    status = json.loads((directory / "data" / "status.json").read_text())
    process.send_signal(signal.SIGTERM)
    lines.append(process.stdout.read())
    process.stdout.close()
    assert process.wait(60) == 0
    return "".join(lines), status


def test_the_development_identity_is_the_documented_one(muster: MusterServer) -> None:
    status = muster.status
    assert status["provisioningService"]["idScope"] == ID_SCOPE
    assert status["wellKnownIdentity"] is True
    assert DEVELOPMENT_KEY in status["provisioningService"]["connectionString"]
    assert base64.b64decode(DEVELOPMENT_KEY) == b"muster-dev-key-this-is-no-secret"
    assert status["hubs"][0]["host"] == muster.address
    assert {endpoint["port"] for endpoint in status["endpoints"]} == {443, 5671, 8883}


def test_it_is_ready_soon(start_server: StartServer) -> None:
    """The promise is two seconds. One try of five has to keep five, as the machine may be busy."""
    assert any(start_server().ready_seconds < 5.0 for _ in range(5))


def test_its_files_are_private(muster: MusterServer) -> None:
    assert stat.S_IMODE(muster.data_directory.stat().st_mode) == 0o700
    files = [path for path in muster.data_directory.iterdir() if path.is_file()]
    assert {"muster.db", "ca.key", "status.json"} <= {path.name for path in files}
    assert {path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in files} == {
        path.name: "0o600" for path in files
    }


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_cleanly(start_server: StartServer, number: signal.Signals) -> None:
    server = start_server()
    assert server.stop(number) == 0, server.output
    assert not server.status_file.exists()
    assert "Traceback" not in server.output
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((server.address, 8883), 1)


def test_every_address_is_a_host_of_the_portal_and_of_its_own_routes(start_server: StartServer) -> None:
    second = free_address()
    server = start_server("--address", second)
    trust = ssl.create_default_context(cafile=server.ca_file)
    for address in (server.address, second):
        for url in (f"http://{address}:8080/", f"https://{address}/muster/v1/status"):
            with urllib.request.urlopen(url, context=trust if url.startswith("https") else None, timeout=60) as answer:
                assert answer.status == 200, url


def test_it_keeps_its_data(start_server: StartServer) -> None:
    server = start_server()
    server.cli("device", "create", "kept")
    ca = server.ca_file.read_bytes()
    server.stop()
    server.start()
    assert server.cli_json("device", "show", "kept")["deviceId"] == "kept"
    assert server.ca_file.read_bytes() == ca


def test_an_ephemeral_one_leaves_nothing(tmp_path: Path) -> None:
    address = free_address()
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "muster", "up", "--ephemeral", "--address", address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=tmp_path,
        env=clean_environment(XDG_RUNTIME_DIR=str(runtime)),
        text=True,
    )
    assert process.stdout is not None
    while "ready" not in process.stdout.readline():
        assert process.poll() is None
    assert len(list(runtime.glob("muster-*/status.json"))) == 1
    process.send_signal(signal.SIGTERM)
    process.stdout.read()
    process.stdout.close()
    assert process.wait(60) == 0
    assert list(runtime.iterdir()) == []
    assert list(tmp_path.iterdir()) == [runtime]


def test_another_address_than_loopback_is_refused(tmp_path: Path) -> None:
    result = up(tmp_path, "--address", "192.0.2.1")
    assert result.returncode != 0
    assert "not a loopback address" in result.stderr
    assert "--host-name" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("--host-name", "bad name!"), "The host name 'bad name!' is no DNS name"),
        (("--trace", "nowhere/trace.jsonl"), "The trace nowhere/trace.jsonl cannot be written: No such file"),
    ],
)
def test_what_cannot_be_served_is_told_in_one_line(tmp_path: Path, arguments: tuple[str, str], wanted: str) -> None:
    address = () if "--host-name" in arguments else ("--address", free_address())
    result = up(tmp_path, *arguments, *address)
    assert result.returncode == 1
    assert wanted in result.stderr
    assert "unexpected" not in result.stderr


def test_an_address_that_is_none_is_refused(tmp_path: Path) -> None:
    result = up(tmp_path, "--address", "somewhere")
    assert result.returncode != 0
    assert "is not an IP address" in result.stderr


def test_data_with_development_keys_is_not_served_on_a_network(muster: MusterServer, start_server: StartServer) -> None:
    server = start_server()
    server.stop()
    result = up(
        server.directory,
        *("--host-name", "muster.example", "--listen", free_address(), "--data-dir", str(server.data_directory)),
    )
    assert result.returncode != 0
    assert "development keys" in result.stderr
    assert "--data-dir" in result.stderr


def test_a_named_host_has_secrets_of_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "muster", "up", "--host-name", "muster.plant.example"]
    command += ["--listen", free_address(), "--data-dir", str(tmp_path / "data")]
    banner, status = start_and_stop(command, tmp_path)
    key = status["hubs"][0]["connectionString"].partition("SharedAccessKey=")[2]
    assert status["wellKnownIdentity"] is False
    assert len(base64.b64decode(key)) == 32
    assert key not in banner
    assert DEVELOPMENT_KEY not in banner
    assert status["provisioningService"]["idScope"] != ID_SCOPE
    assert status["hubs"][0]["name"] == "muster"
    assert status["portal"].startswith("http://muster.plant.example:8080/?token=")


def test_a_port_that_is_taken_is_told(tmp_path: Path) -> None:
    address = free_address()
    with socket.create_server((address, 8883)):
        result = up(tmp_path, "--address", address)
    assert result.returncode != 0
    assert f"{address} port 8883 is taken" in result.stderr
    assert "--address 127.0.0.2" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / ".muster" / "status.json").exists()


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """For everybody. Not pytest's: every session that starts closes that of all sessions to other users."""
    with tempfile.TemporaryDirectory(prefix="muster-open-") as name:
        Path(name).chmod(0o777)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_without_the_right_to_443_it_serves_8443(open_directory: Path) -> None:
    # A kernel that lets everyone bind 443 has nothing to refuse: then this shows that 443 is served.
    address = free_address()
    command = [sys.executable, "-m", "muster", "up", "--address", address, "--data-dir", str(open_directory / "data")]
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *command]
    text, status = start_and_stop(command, open_directory, HOME=str(open_directory), PYTHONDONTWRITEBYTECODE="1")
    first_free = int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text())
    if first_free > 443:
        assert status["httpsPort"] == 8443
        assert "sysctl -w net.ipv4.ip_unprivileged_port_start=443" in text
    else:
        assert status["httpsPort"] == 443
