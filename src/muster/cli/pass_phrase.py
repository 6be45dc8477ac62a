"""Pass phrases on the command line: from an option, the first line of a file, or asked for. They are never printed.

Not here: what is encrypted with them.
"""

import getpass
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import typer

from muster.cli.failure import CommandError

T = TypeVar("T")


def choose_pass_phrase(text: str | None, file: Path | None, *, ask: bool = False, options: str = "") -> str | None:
    """The pass phrase for something new; None when no option asks for one. ``options`` is what they begin with.

    Raises CommandError, and typer's usage error when there is more than one.
    """
    prefix = f"--{options}pass-phrase"
    if (text is not None) + (file is not None) + ask > 1:
        more = f"{prefix}-file and --ask" if ask else f"{prefix}-file"
        raise typer.BadParameter(f"give only one of {prefix}, {more}")
    if ask:
        text = _prompt("Pass phrase", confirm=True)
    if file is not None:
        text = first_line(file)
    if text == "":
        raise CommandError("the pass phrase is empty", "leave the option out for a key that is not encrypted")
    return text


def first_line(file: Path) -> str:
    """Raises CommandError."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise CommandError(f"cannot read {file}: it is not UTF-8 text") from error
    return lines[0] if lines else ""


def unlock(read: Callable[[str | None], T], given: str | None, what: str) -> T:
    """What ``read`` makes of the pass phrase that was given; without one it is asked for, if there is need of it.

    ``what`` is what is to be read. Raises CommandError.
    """
    from muster.pki.private_key import PassPhraseError

    try:
        return read(given)
    except PassPhraseError as error:
        if given is not None:
            raise CommandError(f"{what}: {error}") from error
    try:
        given = _prompt(f"Pass phrase of {what}")
    except typer.Abort:
        raise CommandError(f"{what} needs a pass phrase", "give it with an option: see --help") from None
    try:
        return read(given)
    except PassPhraseError as error:
        raise CommandError(f"{what}: {error}") from error


def _prompt(text: str, *, confirm: bool = False) -> str:
    """Ask a person, or read standard input where there is no terminal. Raises typer.Abort on Ctrl-C, and
    CommandError when nothing comes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return str(typer.prompt(text, hide_input=True, confirmation_prompt=confirm, err=True))
    except getpass.GetPassWarning:
        line = sys.stdin.readline()
        print(file=sys.stderr)
        if not line:
            raise CommandError(
                "there is no terminal to ask on", "give the pass phrase by an option: see --help"
            ) from None
        return line.rstrip("\r\n")
