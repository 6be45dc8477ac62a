"""Many writers of one twin at once, on both databases: no write is lost, no version is given twice, one etag wins."""

import asyncio
import json
from collections.abc import AsyncIterator

import msgspec
import pytest

from muster.domain.device import IdentityBody
from muster.domain.errors import DeviceNotFoundError, PreconditionFailedError
from muster.domain.twin import TwinBody
from muster.store.database import Database
from muster.store.migration import migrate
from tests.support.fix_services import Clock, Services, build_services

WORKERS = 8
WRITES = 10


@pytest.fixture
async def hub(database: Database) -> AsyncIterator[Services]:
    clock = Clock()
    await migrate(database, clock())
    services = await build_services(database, clock)
    await services.devices.put("hub", "d1", IdentityBody(device_id="d1"), None)
    yield services
    await services.registrations.stop(within=60)


def desired(**values: object) -> TwinBody:
    return msgspec.convert({"properties": {"desired": values}}, TwinBody)


async def test_reports_of_many_workers_are_all_there(hub: Services) -> None:
    versions: list[int] = []

    async def worker(number: int) -> None:
        for write in range(WRITES):
            patch = json.dumps({f"w{number}": {str(write): write}}).encode()
            versions.append(await hub.twins.update_reported("hub", "d1", "", patch))

    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(worker(number))
    assert sorted(versions) == list(range(2, 2 + WORKERS * WRITES))
    reported = json.loads(await hub.twins.device_document("hub", "d1"))["reported"]
    assert reported.pop("$version") == 1 + WORKERS * WRITES
    assert reported == {f"w{number}": {str(write): write for write in range(WRITES)} for number in range(WORKERS)}


async def test_devices_and_services_do_not_undo_each_other(hub: Services) -> None:
    heard: list[tuple[int, dict[str, int]]] = []
    tasks: list[asyncio.Task[None]] = []
    changes = await hub.twins.follow_desired(
        "hub",
        "d1",
        "",
        lambda version, document: heard.append((version, json.loads(document))),
        lambda coroutine: tasks.append(asyncio.get_running_loop().create_task(coroutine)),
    )

    async def service(number: int) -> None:
        for write in range(WRITES):
            await hub.twins.patch("hub", "d1", "", desired(**{f"w{number}": write}), "*")

    async def device() -> None:
        for write in range(WRITES):
            await hub.twins.update_reported("hub", "d1", "", json.dumps({"n": write}).encode())

    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(service(number))
        group.create_task(device())
    await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    changes.close()
    document = json.loads(await hub.twins.device_document("hub", "d1"))
    assert document["reported"] == {"n": WRITES - 1, "$version": 1 + WRITES}
    wanted = {f"w{number}": WRITES - 1 for number in range(WORKERS)}
    assert document["desired"] == {**wanted, "$version": 1 + WORKERS * WRITES}
    # Whoever applies what was heard, in the order in which it was heard, has what there is.
    applied: dict[str, int] = {}
    for _, change in heard:
        applied |= change
    assert applied == document["desired"]
    assert [version for version, _ in heard] == sorted({version for version, _ in heard})


async def test_one_etag_has_one_winner(hub: Services) -> None:
    wins = refusals = 0

    async def worker(number: int) -> None:
        nonlocal wins, refusals
        own = 0
        while own < WRITES:
            etag = (await hub.twins.get("hub", "d1")).etag
            try:
                await hub.twins.replace("hub", "d1", "", desired(number=number), f'"{etag}"')
            except PreconditionFailedError:
                refusals += 1
            else:
                own += 1
                wins += 1

    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(worker(number))
    view = await hub.twins.get("hub", "d1")
    assert wins == WORKERS * WRITES
    assert view.version == 2 + wins
    assert refusals > 0, "the workers never met"


async def test_deleting_under_writes(hub: Services) -> None:
    """Each write is either in the twin or refused; nothing is left of a deleted one."""

    async def write() -> None:
        with pytest.raises(DeviceNotFoundError):
            while True:
                await hub.twins.patch("hub", "d1", "", desired(a=1), None)

    async with asyncio.TaskGroup() as group:
        for _ in range(WORKERS):
            group.create_task(write())
        await hub.devices.delete("hub", "d1", "*")
    assert await hub.database.fetch_all("SELECT device_id FROM twin") == []
