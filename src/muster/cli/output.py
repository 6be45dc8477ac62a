"""How answers are printed: JSON for programs, plain aligned columns for people.

All text that a device or a file controls passes through ``printable``: a terminal must not obey it. No
library is loaded for it: a command has to start at once. Not here: what is printed.
"""

import json
import re
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any


class Format(StrEnum):
    """The choices of ``--output``."""

    TABLE = "table"
    JSON = "json"


_SPACES = re.compile(r"[\t\r\n]+")


def printable(value: object) -> str:
    """The text of ``value`` on one line, with everything that is not plain text escaped; nothing for None."""
    if value is None:
        return ""
    text = _SPACES.sub(" ", str(value))
    return text if text.isprintable() else "".join(map(_escaped, text))


def json_text(value: Any, *, indent: int | None = 2) -> str:
    """JSON whose strings hold no terminal controls; letters of any script stay readable."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return text if text.replace("\n", "").isprintable() else "".join(map(_json_escaped, text))


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json_text(value))


def table_text(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns separated by two spaces, the headings first; never cut off and never wrapped."""
    lines = [list(headers), *([printable(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def record_text(rows: Iterable[tuple[str, object]]) -> str:
    """One ``Name : value`` line per row, the colons aligned, as PowerShell's list view has it.

    A row without a name goes on with the value above it.
    """
    pairs = [(name, printable(value)) for name, value in rows]
    width = max((len(name) for name, _ in pairs), default=0)
    return "\n".join(f"{name.ljust(width)} {':' if name else ' '} {value}".rstrip() for name, value in pairs)


def short_time(text: object) -> str:
    """``2026-11-23 17:00:00Z`` of an ISO time as both services send it; anything else as it is."""
    match = _ISO.match(str(text or ""))
    return f"{match[1]} {match[2]}Z" if match else printable(text)


_ISO = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?(?:Z|\+00:00)?$")


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode("ascii")


def _json_escaped(character: str) -> str:
    if character.isprintable() or character == "\n":
        return character
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))
