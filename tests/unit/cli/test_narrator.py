import sys

import pytest

from muster.cli.failure import CommandError
from muster.cli.narrator import Narrator, finish, stop


def python(script):
    return [sys.executable, "-c", script]


@pytest.fixture
def narrator(tmp_path):
    (tmp_path / "below").mkdir()
    return Narrator(tmp_path, {"FROM": "environment"})


def test_steps_are_numbered(narrator, capsys):
    narrator.step("one")
    narrator.step("two")
    assert capsys.readouterr().out == "\nStep 1: one\n-----------\n\nStep 2: two\n-----------\n"


def test_a_command_is_shown_and_what_it_prints_passed_on(narrator, capsys):
    script = "import os, sys; print(os.environ['FROM'], os.path.basename(os.getcwd()), flush=True);"
    script += "print('\\x1b[2J', file=sys.stderr)"
    output = narrator.run("show this", python(script), place="below")
    assert output == "environment below\n\\x1b[2J"
    assert capsys.readouterr().out == "\n  $ show this\n  environment below\n  \\x1b[2J\n"


def test_a_quiet_command_is_heard_only_when_it_fails(narrator, capsys):
    narrator.run("quiet", python("print('noise')"), quiet=True)
    assert "noise" not in capsys.readouterr().out
    with pytest.raises(CommandError, match=r"`quiet` ended with exit code 3 instead of 0\n  noise"):
        narrator.run("quiet", python("print('noise'); raise SystemExit(3)"), quiet=True)


def test_success_is_a_failure_where_a_refusal_was_expected(narrator):
    assert narrator.run("refused", python("raise SystemExit(1)"), expected=1) == ""
    with pytest.raises(CommandError, match="exit code 0 instead of 1") as caught:
        narrator.run("refused", python("pass"), expected=1, advice="ask why")
    assert caught.value.advice == "ask why"


def test_a_command_that_is_not_there_is_named(narrator):
    with pytest.raises(CommandError, match="cannot run /none/such: No such file"):
        narrator.run("none", ["/none/such"])


def test_a_background_command_is_ready_when_it_says_so(narrator):
    script = "import sys; print('ready now', file=sys.stderr, flush=True); print(sys.stdin.read() or 'done')"
    assert finish(narrator.start("watch", python(script), "ready"), 10) == "done\n"


def test_a_background_command_that_ends_early_says_why(narrator):
    with pytest.raises(CommandError, match="ended before it was ready: no server"):
        narrator.start("watch", python("import sys; print('no server', file=sys.stderr)"), "ready")


def test_a_background_command_that_does_not_end_is_stopped(narrator):
    script = "import sys, time; print('ready', file=sys.stderr, flush=True); time.sleep(60)"
    process = narrator.start("watch", python(script), "ready")
    assert finish(process, 0.01) is None
    assert process.poll() is not None
    stop(process)


def test_asking_is_silent(narrator, capsys):
    assert narrator.ask(python("print(1)")) == "1\n"
    assert narrator.ask(python("print(1); raise SystemExit(1)")) is None
    assert capsys.readouterr().out == ""


def test_paragraphs_keep_their_distance_but_not_from_a_heading(narrator, capsys):
    narrator.step("one")
    narrator.say("first " * 30)
    narrator.say("second")
    lines = capsys.readouterr().out.split("\n")
    assert lines[3].startswith("first")
    assert max(len(line) for line in lines) <= 96
    assert lines[-3:] == ["", "second", ""]


def test_what_runs_beside_is_told_line_by_line(narrator, capsys):
    script = "print('ready \\x1b[2J', flush=True); print('more', flush=True); print('done', flush=True)"
    with narrator.accompany("beside", python(script)) as companion:
        assert companion.tell("ready", 60) == "ready \\x1b[2J"
        assert capsys.readouterr().out == "\n  $ beside\n  ready \\x1b[2J\n"
        assert companion.tell("done", 60, quiet=True) == "done"
        assert capsys.readouterr().out == ""
        assert companion.end(60) == 0
        with pytest.raises(CommandError, match="`beside` did not print `again`, but nothing"):
            companion.tell("again", 60)


def test_what_runs_beside_says_something_else_and_is_ended(narrator):
    script = "import time; print('other', flush=True); time.sleep(60)"
    with narrator.accompany("beside", python(script)) as companion:
        companion.tell("other", 60)
        with pytest.raises(CommandError, match="did not print `ready`"):
            companion.tell("ready", 0.05)
        assert companion.end(0.05) is None
    assert companion.end(0) is not None
