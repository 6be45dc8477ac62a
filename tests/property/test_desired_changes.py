"""Whatever the bus loses, repeats or lets overtake: versions only rise, and the last one heard has what there is."""

import asyncio
import json
from collections.abc import Coroutine
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from muster.bus.bus import LocalBus
from muster.hub.desired_changes import DesiredChanges, twin_changed_message

SUBJECT = "twin.hub.d1/"


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 2)), max_size=15),
)
def test_any_order_of_messages(first: int, said: list[tuple[int, int]]) -> None:
    """``said``: the versions as their messages come, and for how many turns of the loop nothing follows."""
    heard = asyncio.run(follow(first, said))
    versions = [version for version, _ in heard]
    assert versions == sorted(set(versions))
    assert all(document["$version"] == version for version, document in heard)
    assert all(version > first for version in versions)
    newest = max([first, *(version for version, _ in said)])
    assert (versions or [first])[-1] == newest
    # Between two versions that are heard nothing is missing: the later one is the next, or tells everything.
    before = first
    for version, document in heard:
        assert version == before + 1 or document["whole"]
        before = version


async def follow(first: int, said: list[tuple[int, int]]) -> list[tuple[int, dict[str, Any]]]:
    bus = LocalBus()
    current = first
    heard: list[tuple[int, dict[str, Any]]] = []
    tasks: list[asyncio.Task[None]] = []

    async def read() -> tuple[int, bytes]:
        await asyncio.sleep(0)
        return current, json.dumps({"whole": True, "$version": current}).encode()

    def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
        tasks.append(asyncio.get_running_loop().create_task(coroutine))

    changes = DesiredChanges(read, lambda version, document: heard.append((version, json.loads(document))), spawn)
    await changes.open(bus, SUBJECT)
    for version, turns in said:
        current = max(current, version)  # a message is sent after its commit
        bus.publish(SUBJECT, twin_changed_message(version, {"whole": False, "$version": version}))
        for _ in range(turns):
            await asyncio.sleep(0)
    await asyncio.sleep(0)
    while tasks:
        await tasks.pop(0)
    changes.close()
    return heard
