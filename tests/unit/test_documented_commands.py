"""Every ``muster ...`` line of the documentation is one that the command line takes."""

import re
import shlex
from pathlib import Path

import pytest
import typer

from muster.cli.main import app

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
ROOT = typer.main.get_command(app)

_BLOCK = re.compile(r"^```.*?^```|(?:^(?: {4}|\t).*\n)+", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(
    r"(?:^\s*(?:\$ |sudo )?|[;&|(] ?)muster (?P<arguments>(?:\"[^\"\n]*\"|'[^'\n]*'|[^|>#;&)\n\"'])*)", re.MULTILINE
)


def documented():
    for page in PAGES:
        for block in _BLOCK.finditer(page.read_text(encoding="utf-8")):
            for found in _COMMAND.finditer(block[0].replace("\\\n", " ")):
                yield pytest.param(found["arguments"].strip(), id=f"{page.name}: muster {found['arguments'].strip()}")


def parse(arguments):
    """Parse without running: an argument that nothing takes, or one that is missing, raises a usage error."""
    command, words, name = ROOT, shlex.split(arguments), "muster"
    while hasattr(command, "get_command") and words and not words[0].startswith("-"):
        below = command.get_command(None, words[0])
        assert below is not None, f"{name} has no {words[0]}"
        name, command, words = f"{name} {words[0]}", below, words[1:]
    with command.make_context(name, words):
        return name


@pytest.mark.parametrize("arguments", list(documented()))
def test_it_is_one(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parse(arguments)


def test_there_are_some_in_the_first_pages():
    pages = {parameter.id.partition(":")[0] for parameter in documented()}
    assert {"README.md", "tutorial.md", "cli.md", "ca.md", "arm.md", "checks.md"} <= pages


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("enrolment list", "has no enrolment"),
        ("enrollment list --json", "No such option"),
        ("enrollment show", "Missing"),
        ("enrollment list a", "unexpected extra argument"),
    ],
)
def test_wrong_ones_are_found(wrong, says):
    with pytest.raises(Exception, match=says):
        parse(wrong)
