"""Conversations of clients that cannot be run here, replayed (``clients/*.toml``), and the tables they come from."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from muster.domain.throttle import Rates, read_rates
from tests.support.replay import Player
from tests.support.trace_text import ANSWERS, CLIENTS

REPOSITORY = Path(__file__).parents[2]
FILES = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")) for path in sorted(CLIENTS.glob("*.toml"))}
ROWS = FILES.pop("rows")
REPLAYS: list[dict[str, Any]] = [
    {"client": file["client"], **replay}
    for name, file in FILES.items()
    if name != "answers"
    for replay in file["replay"]
]
REPLAYED = {f"{section} {row}" for section, rows in ROWS["replayed"].items() for row in rows}


@pytest.fixture
def rates(request: pytest.FixtureRequest) -> Rates:
    """Those of the conversation."""
    return read_rates(request.node.callspec.params["replay"].get("limits", "off"))


@pytest.mark.parametrize("replay", [pytest.param(one, id=f"{one['client']} {one['title']}") for one in REPLAYS])
async def test_replay(player: Player, replay: dict[str, Any]) -> None:
    for condition in replay.get("given", ()):
        await player.prepare(condition)
    await player.play(replay["trace"])


def test_every_row_is_shown_and_every_conversation_shows_rows() -> None:
    shown = [set(replay["rows"]) for replay in REPLAYS]
    assert all(shown)
    assert set().union(*shown) == REPLAYED


def test_rows_that_are_shown_elsewhere_are() -> None:
    for row, place in ROWS["elsewhere"].items():
        file, _, name = place.partition("::")
        assert f"def {name}(" in (REPOSITORY / file).read_text(encoding="utf-8"), row


def test_every_answer_is_used() -> None:
    traces = "".join(replay["trace"] for replay in REPLAYS)
    assert [name for name in ANSWERS if f"({name})" not in traces] == []


def test_every_client_is_in_the_documentation() -> None:
    documented = (REPOSITORY / "docs" / "clients.md").read_text(encoding="utf-8")
    assert [replay["client"] for replay in REPLAYS if f"| {replay['client']} |" not in documented] == []
