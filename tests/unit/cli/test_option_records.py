"""Records of options: what typer sees of them, and what the command gets."""

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from muster.cli.option_records import with_records


@dataclass(frozen=True)
class Size:
    width: Annotated[int, typer.Option(help="How wide.")] = 1
    marks: Annotated[list[str] | None, typer.Option("--mark", help="A mark.")] = None


def command(got):
    app = typer.Typer()

    @app.command()
    @with_records
    def draw(name: str, *, first: bool = False, size: Size, last: bool = False) -> None:
        """Draw it."""
        got.append((name, first, size, last))

    return app


def test_fields_are_options_in_the_place_of_the_record():
    options = [param.name for param in typer.main.get_command(command([])).params]
    assert options[:5] == ["name", "first", "width", "marks", "last"]


def test_the_command_gets_the_record():
    got = []
    arguments = ["a", "--width", "7", "--mark", "x", "--mark", "y", "--last"]
    assert CliRunner().invoke(command(got), arguments).exit_code == 0
    assert got == [("a", False, Size(7, ["x", "y"]), True)]


def test_defaults_are_those_of_the_record():
    got = []
    assert CliRunner().invoke(command(got), ["a"]).exit_code == 0
    assert got == [("a", False, Size(), False)]


def test_a_wrong_value_is_wrong_usage():
    assert CliRunner().invoke(command([]), ["a", "--width", "wide"]).exit_code == 2
