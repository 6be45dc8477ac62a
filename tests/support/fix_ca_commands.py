"""``muster ca`` in a directory of the test's own."""

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from muster.cli import ca
from muster.cli.failure import CommandError


class CaCommands:
    """Runs the commands; ``path`` is where they run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, command: str, *arguments: object, text: str | None = None) -> Result:
        """``command`` is split at spaces, ``text`` is typed. Raises CommandError, as the command line catches it."""
        name, *words = command.split()
        result = CliRunner().invoke(_apps()[name], [*words, *map(str, arguments)], input=text)
        if isinstance(result.exception, CommandError):
            raise result.exception
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        return result

    def json(self, command: str, *arguments: object) -> Any:
        """What it says to programs."""
        return json.loads(self.run(command, *arguments, "-o", "json").stdout)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()


@functools.cache
def _apps() -> dict[str, typer.Typer]:
    """Each command alone: the runner makes all commands of an app anew for every run, and that takes its time."""
    apps = {}
    for command in ca.app.registered_commands:
        assert command.callback is not None
        name = command.name or command.callback.__name__
        apps[name] = typer.Typer(add_completion=False)
        apps[name].command(name)(command.callback)
    return apps


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CaCommands:
    """Nothing is there yet."""
    monkeypatch.chdir(tmp_path)
    return CaCommands(tmp_path)


@pytest.fixture(scope="session")
def _plant(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plant") / "ca"
    for words in ("init plant", "intermediate line-a"):
        CaCommands(path).run(words, "--ca-dir", path)
    return path


@pytest.fixture
def plant(commands: CaCommands, _plant: Path) -> CaCommands:
    """A root ``plant`` and an intermediate ``line-a`` in ``ca``."""
    shutil.copytree(_plant, commands.path / "ca")
    return commands
