import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from muster.cli.failure import CommandError
from muster.cli.pass_phrase import choose_pass_phrase, first_line, unlock
from muster.pki.private_key import PassPhraseError


def asked(function, text):
    """What the function gives, or raises, when a person types ``text``."""
    app = typer.Typer()
    answers = []
    app.command()(lambda: answers.append(function()))
    result = CliRunner().invoke(app, [], input=text)
    if isinstance(result.exception, CommandError):
        raise result.exception
    return answers, result.output


def read(pass_phrase):
    """Something that is locked with ``right``."""
    if pass_phrase != "right":
        raise PassPhraseError("needed" if pass_phrase is None else "wrong")
    return "opened"


def test_none_is_asked_for():
    assert choose_pass_phrase(None, None) is None


def test_it_is_given(tmp_path):
    (tmp_path / "file").write_text("from a file\nsecond line\n")
    assert choose_pass_phrase("typed", None) == "typed"
    assert choose_pass_phrase(None, tmp_path / "file") == "from a file"


def test_it_is_asked_for_twice():
    choose = lambda: choose_pass_phrase(None, None, ask=True)  # noqa: E731 - it is handed on
    answers, output = asked(choose, "typed\ntyped\n")
    assert answers == ["typed"]
    assert "typed" not in output
    assert asked(choose, "typed\nmistyped\n")[0] == []


def test_without_a_terminal_it_is_read_from_standard_input(tmp_path):
    program = (
        "from muster.cli.pass_phrase import choose_pass_phrase;"
        "print(choose_pass_phrase(None, None, ask=True) == 'typed')"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        input="typed\n",
        capture_output=True,
        text=True,
        cwd=tmp_path,
        start_new_session=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "True\n")
    assert result.stderr == "Pass phrase:\n"


@pytest.mark.parametrize("ask", [False, True])
def test_only_one_may_be_given(tmp_path, ask):
    with pytest.raises(typer.BadParameter, match="give only one of --ca-pass-phrase, --ca-pass-phrase-file"):
        choose_pass_phrase("typed", tmp_path / "file", ask=ask, options="ca-")


def test_it_is_not_empty(tmp_path):
    (tmp_path / "file").write_text("")
    for text, file in (("", None), (None, tmp_path / "file")):
        with pytest.raises(CommandError, match="is empty"):
            choose_pass_phrase(text, file)


def test_a_file_that_cannot_be_read(tmp_path):
    (tmp_path / "file").write_bytes(b"\xff")
    with pytest.raises(CommandError, match="not UTF-8"):
        first_line(tmp_path / "file")
    with pytest.raises(CommandError, match="No such file"):
        first_line(tmp_path / "missing")


def test_what_is_not_locked_is_opened():
    assert unlock(lambda _: "opened", None, "the key") == "opened"


def test_what_is_locked_is_opened_with_what_was_given():
    assert unlock(read, "right", "the key") == "opened"
    with pytest.raises(CommandError, match="the key: wrong"):
        unlock(read, "left", "the key")


def test_what_is_locked_is_asked_for_when_nothing_was_given():
    answers, output = asked(lambda: unlock(read, None, "the key"), "right\n")
    assert answers == ["opened"]
    assert "Pass phrase of the key" in output
    with pytest.raises(CommandError, match="the key: wrong"):
        asked(lambda: unlock(read, None, "the key"), "left\n")
    with pytest.raises(CommandError, match="needs a pass phrase"):
        asked(lambda: unlock(read, None, "the key"), "")
