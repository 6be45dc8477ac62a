"""The reference of the command line has every command and every option, and none that is not there."""

import re
from pathlib import Path

import pytest
import typer

from muster.cli.main import app

REFERENCE = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
COMMON = {"--help", "-h", "--output", "-o", "--connection-string", "--data-dir"}
"""Explained once, in the sections before the commands."""


def commands(command, name):
    """Every command that does something, by its full name."""
    below = [(each, command.get_command(None, each)) for each in getattr(command, "list_commands", lambda _: [])(None)]
    if not below:
        yield name, command
    for each, subcommand in below:
        yield from commands(subcommand, f"{name} {each}")


def options(command):
    return {name for param in command.params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")}


ROOT = typer.main.get_command(app)
COMMANDS = dict(commands(ROOT, "muster"))
SECTIONS = dict(re.findall(r"^## (muster [a-z0-9 -]+)\n(.*?)(?=^## |\Z)", REFERENCE, re.MULTILINE | re.DOTALL))


def mentioned(text):
    return set(re.findall(r"`(--?[a-z][a-z-]*)", text))


def test_every_command_has_a_section_and_every_section_a_command():
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_is_described_and_every_description_has_an_option(name):
    real = options(COMMANDS[name])
    assert real - COMMON - mentioned(SECTIONS[name]) == set()
    assert mentioned(SECTIONS[name]) - real - {"--host-name", "--update"} == set()


def test_the_options_of_muster_itself_are_described():
    head = REFERENCE.partition("\n## muster ")[0]
    assert options(ROOT) - mentioned(head) == set()
    assert COMMON - mentioned(head) == set()


def test_every_example_is_of_its_command_with_options_that_exist():
    for name, text in SECTIONS.items():
        examples = re.findall(r"^    (.*)$", text, re.MULTILINE)
        assert examples, name
        for example in examples:
            assert name in example
            used = set(re.findall(r"(?<= )(--?[a-z][a-z-]*)", example))
            assert used - options(COMMANDS[name]) == set(), example
