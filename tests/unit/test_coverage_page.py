"""docs/coverage.md is held to the tests that it names."""

import re
from pathlib import Path

TESTS = Path(__file__).parent.parent
PAGE = (TESTS.parent / "docs" / "coverage.md").read_text()
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line.startswith("| ")]
NAMED = re.compile(r"`([a-z0-9_/]+\.py)(?:::(\w+))?`")
STATES = ("done", "partly: ", "not: ")


def test_every_row_has_a_state() -> None:
    rows = [row for row in ROWS if row[0] != "surface"]
    assert len(rows) > 60
    for row in rows:
        assert len(row) == 3, row
        assert row[1].startswith(STATES), row
        assert row[1] != "done" or NAMED.search(row[2]), f"{row[0]} is shown by nothing"


def test_every_test_is_there() -> None:
    named = NAMED.findall(PAGE)
    assert len(named) == PAGE.count(".py")
    for path, name in named:
        text = (TESTS / path).read_text()
        assert not name or re.search(rf"^ *(async def|def|class) {name}\b", text, re.MULTILINE), f"{path}::{name}"
