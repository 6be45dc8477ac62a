import os
import resource
import subprocess
import sys

import pytest
import typer

from muster.cli import main as main_module
from muster.cli.failure import CommandError
from muster.cli.main import COMMANDS, app, main

HEAVY = {"asyncio", "cryptography", "starlette", "rich", "ssl", "http.client", "sqlite3", "muster.server"}
START_SECONDS = 1.0
"""Five times the target, for busy machines: CPU time of the process, not time on the wall."""


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "muster", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def call_main(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["muster", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    return caught.value.code


@pytest.fixture(autouse=True)
def no_server_nearby(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    for name in ("MUSTER_CONNECTION_STRING", "MUSTER_DATA_DIR", "MUSTER_DEBUG"):
        monkeypatch.delenv(name, raising=False)


def test_version_starts_at_once():
    """By its own use of a processor, which a busy machine slows too: one try of five is enough."""

    def used() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = run("--version")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.stdout.startswith("muster ")
        return (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)

    assert any(used() < START_SECONDS for _ in range(5))


@pytest.mark.parametrize("arguments", [["--help"], ["enrollment", "create", "--help"], ["why", "--help"]])
def test_help_loads_nothing_heavy(arguments):
    script = (
        "import sys\nsys.argv = ['muster', *sys.argv[1:]]\n"
        "from muster.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit:\n    print(' '.join(sys.modules), file=sys.stderr)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120, check=True
    )
    assert "Usage: muster" in result.stdout
    assert set(result.stderr.split()) & HEAVY == set()


def test_the_lines_of_the_help_are_those_of_the_commands():
    group = typer.main.get_command(app)
    for name, entry in COMMANDS.items():
        command = group.get_command(None, name)
        assert command.get_short_help_str(100) == entry.help, name
        assert command.hidden is entry.hidden, name


def test_the_help_lists_the_commands_and_not_the_hidden_ones(monkeypatch, capsys):
    assert call_main(monkeypatch, "--help") == 0
    output = capsys.readouterr().out
    for name, entry in COMMANDS.items():
        assert (f"\n  {name} " in output) is not entry.hidden


@pytest.mark.parametrize("arguments", [["nonsense"], ["device", "nonsense"], ["why", "--nonsense"], ["device", "show"]])
def test_wrong_usage_is_exit_code_2(monkeypatch, capsys, arguments):
    assert call_main(monkeypatch, *arguments) == 2
    assert "Usage: muster" in capsys.readouterr().err


def test_no_server_is_two_lines_and_exit_code_1(monkeypatch, capsys):
    string = "HostName=localhost:1;SharedAccessKeyName=service;SharedAccessKey=AAAA"
    assert call_main(monkeypatch, "device", "list", "--connection-string", string) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    first, second = captured.err.splitlines()
    assert first == "muster: nothing answers on https://localhost:1"
    assert "`muster up`" in second


def test_a_failure_without_advice_is_one_line(monkeypatch, capsys):
    def fail(**_):
        raise CommandError("no")

    monkeypatch.setattr(main_module, "app", fail)
    assert call_main(monkeypatch) == 1
    assert capsys.readouterr().err == "muster: no\n"


def test_an_unexpected_error_is_no_stack_trace(monkeypatch, capsys):
    def fail(**_):
        raise TypeError("a bug")

    monkeypatch.setattr(main_module, "app", fail)
    assert call_main(monkeypatch) == 1
    error = capsys.readouterr().err
    assert "unexpected error: TypeError: a bug" in error
    assert "MUSTER_DEBUG=1" in error
    assert "Traceback" not in error


def test_a_stack_trace_is_there_for_who_asks(monkeypatch):
    def fail(**_):
        raise TypeError("a bug")

    monkeypatch.setattr(main_module, "app", fail)
    monkeypatch.setenv("MUSTER_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["muster"])
    with pytest.raises(TypeError, match="a bug"):
        main()


def test_ctrl_c_is_quiet(monkeypatch, capsys):
    def interrupt(**_):
        raise KeyboardInterrupt

    monkeypatch.setattr(main_module, "app", interrupt)
    assert call_main(monkeypatch) == 130
    assert capsys.readouterr().err == ""
