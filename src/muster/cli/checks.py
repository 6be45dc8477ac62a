"""How named checks are printed: one line each, what is wrong marked, the fixes below.

Not here: the checks; the server, or ``muster.domain``, evaluated them.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from muster.cli.output import printable

Document = Mapping[str, Any]


class Marks(NamedTuple):
    """What stands before a check, by its outcome."""

    passed: str
    warned: str
    refused: str
    skipped: str


SYMBOLS = Marks("✓", "!", "✗", "·")
WORDS = Marks("ok  ", "warn", "NO  ", "skip")
"""For terminals that cannot show the symbols."""

COLOURED = Marks("\x1b[32m✓\x1b[0m", "\x1b[33m!\x1b[0m", "\x1b[31m✗\x1b[0m", "·")

_CHECK_WIDTH = 28


def marks() -> Marks:
    """Those that standard output can show."""
    if "utf" not in (sys.stdout.encoding or "").lower():
        return WORDS
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ  # noqa: TID251 - a convention of terminals
    return COLOURED if coloured else SYMBOLS


def check_lines(checks: Sequence[Document], marks: Marks) -> list[str]:
    """Every check, and what to do about those that say it."""
    width = max([_CHECK_WIDTH, *(len(check["id"]) for check in checks)])
    lines = [_check_line(check, marks, width) for check in checks]
    fixes = [f"    {printable(check['id'])}: {printable(check['fix'])}" for check in checks if check.get("fix")]
    return [*lines, "", "  Fix", *fixes] if fixes else lines


def _check_line(check: Document, marks: Marks, width: int) -> str:
    mark = getattr(marks, str(check["outcome"]), marks.skipped)
    return f"  {mark} {printable(check['id']).ljust(width)} {printable(check['detail'])}"
