"""``muster token`` and where the management commands take their keys from; the server is not needed."""

import json

import pytest
from typer.testing import CliRunner

from muster.cli.failure import CommandError
from muster.cli.main import app
from muster.cli.management import ManagementAccess, running_server, token_key
from muster.domain.bearer import verify_bearer
from tests.unit.cli.statuses import write_status

KEY = bytes(range(32))
NOW = 1_790_000_000


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The data directory of a server, which the commands find."""
    directory = tmp_path / "data"
    write_status(directory)
    (directory / "token.key").write_bytes(KEY)
    monkeypatch.setenv("MUSTER_DATA_DIR", str(directory))
    monkeypatch.setattr("time.time", lambda: NOW)
    return directory


def run(*arguments):
    result = CliRunner().invoke(app, ["token", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.mark.usefixtures("data")
def test_the_token_stands_alone_on_its_line():
    token = run().removesuffix("\n")
    assert verify_bearer(f"Bearer {token}", KEY, NOW * 1_000_000) == "muster"
    assert "\n" not in token


@pytest.mark.usefixtures("data")
def test_for_programs():
    answer = json.loads(run("--hours", "8", "--subject", "ann", "-o", "json"))
    assert answer["expires_on"] == NOW + 8 * 3600
    assert answer["tokenType"] == "Bearer"
    almost = (NOW + 8 * 3600 - 1) * 1_000_000
    assert verify_bearer(f"Bearer {answer['accessToken']}", KEY, almost) == "ann"


def test_it_is_made_by_the_clock_of_the_server(data):
    write_status(data, clockOffsetSeconds=400 * 86400)
    later = (NOW + 400 * 86400) * 1_000_000
    assert verify_bearer(f"Bearer {run().strip()}", KEY, later) == "muster"


def test_a_key_that_cannot_be_read(data):
    (data / "token.key").unlink()
    with pytest.raises(CommandError, match="cannot read") as caught:
        run()
    assert "the user who started the server" in caught.value.advice


def test_no_server(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MUSTER_DATA_DIR", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    with pytest.raises(CommandError, match="no running server"):
        running_server(None)


def test_requests_are_signed_for_the_time_that_is_asked_for(data):
    status = running_server(data)
    access = ManagementAccess("localhost", token_key(status))
    header = access.authorization(NOW, 60)
    assert verify_bearer(header, KEY, (NOW + 59) * 1_000_000) == "muster-cli"
    assert KEY.hex() not in repr(access)
    assert str(KEY) not in repr(access)
