"""Every command that a check or an advice names is a command, with the options that it is given."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

from muster.cli.main import app
from muster.observe import redact

SOURCES = Path(__file__).parents[3] / "src" / "muster"
FILES = sorted(file for file in SOURCES.rglob("*.py") if SOURCES / "cli" not in file.parents)
_HOLE = "X"
_END = re.compile(r"[,;:)(\"'`]|\. |\.$|$| in its | then | (?:shows|makes|lists|tells|leads|has) | \|")


def texts(file):
    """The string constants of a module, f-strings with X in place of what is put in; docstrings are none of them."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    inside = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)} - {
        id(node) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr)
    }
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if id(node) in inside or id(node) in documentation:
            continue
        if isinstance(node, ast.JoinedStr):
            yield "".join(part.value if isinstance(part, ast.Constant) else _HOLE for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def advice():
    for file in FILES:
        for text in texts(file):
            if "muster " in text:
                yield str(file.relative_to(SOURCES)), text


def commands():
    for file, text in advice():
        for found in re.finditer(r"\bmuster (?=[a-z])(?!uses )", text):
            rest = text[found.start() :]
            yield file, rest[: _END.search(rest).start()].strip()


COMMANDS = sorted(set(commands()))
ROOT = typer.main.get_command(app)


def test_there_are_some():
    assert len(COMMANDS) > 25
    assert ("domain/chain_checks.py", "muster group update GROUP --secondary-certificate inter.pem") in COMMANDS
    assert ("domain/revocation.py", "muster ca unhold X") in COMMANDS


@pytest.mark.parametrize(("file", "text"), COMMANDS)
def test_it_exists(file, text):
    words = shlex.split(text)[1:]
    command = ROOT
    while words and hasattr(command, "get_command"):
        below = command.get_command(None, words[0])
        assert below is not None, f"{file}: there is no {text!r}"
        command, words = below, words[1:]
    assert not hasattr(command, "get_command"), f"{file}: {text!r} names no command"
    arguments = takes(command, words, text)
    places = [param for param in command.params if param.param_type_name == "argument"]
    room = None if any(param.nargs == -1 for param in places) else len(places)
    assert room is None or len(arguments) <= room, f"{text!r} has {arguments}, the command takes {room}"
    assert len(arguments) >= sum(param.required for param in places) or not words, f"{text!r} lacks an argument"


def test_nothing_of_it_is_taken_for_a_secret():
    """Reports are stored redacted, and what follows the word key and a colon is a key."""
    assert [text for _, text in advice() if redact(text) != text] == []


def takes(command, words, text):
    """The arguments of a command line, its options taken away; each has to exist, and to get its value."""
    options = {name: param for param in command.params for name in (*param.opts, *param.secondary_opts)}
    arguments = []
    words = iter(words)
    for word in words:
        if not word.startswith("-"):
            arguments.append(word)
            continue
        assert word in options, f"{text!r}: there is no option {word}"
        if not options[word].is_flag:
            assert next(words, None), f"{text!r}: {word} needs a value"
    return arguments
