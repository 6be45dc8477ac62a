"""Events of a hub that are written with registry, twins, connections and telemetry at once, on both databases.

Nobody waits for who waits for him, no event is lost or written twice, and the sequence of each partition has no gap.
"""

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import AsyncIterator

import msgspec
import pytest

from muster.domain.bulk_registry import ExportImportDevice
from muster.domain.device import AuthenticationBody, IdentityBody
from muster.domain.hub_event import EventSettings, HubEventSource
from muster.domain.message import Event
from muster.hub.authentication import Principal
from muster.hub.event_batches import Head, Messages
from muster.hub.events import Position
from muster.store.database import Database, Transaction
from muster.store.migration import migrate
from tests.support.fix_services import Clock, Services, build_services

WORKERS = 8
ROUNDS = 6
BATCH = 20


@pytest.fixture
async def hub(database: Database) -> AsyncIterator[Services]:
    clock = Clock()
    await migrate(database, clock())
    services = await build_services(database, clock)
    await services.hubs.update("hub", (), services.hub.facts, events=EventSettings(tuple(HubEventSource)))
    yield services
    await services.registrations.stop(within=60)


async def everything(services: Services) -> list[Event]:
    position, events = Position((0, 0, 0, 0)), []
    while True:
        more, position = await services.events.read("hub", position, 1000)
        if not more:
            return events
        events += more


def require_no_gap(events: list[Event]) -> None:
    numbers = defaultdict(list)
    for event in events:
        numbers[event.partition].append(event.sequence_number)
    for found in numbers.values():
        assert found == list(range(len(found)))


def item(device_id: str, mode: str) -> ExportImportDevice:
    return ExportImportDevice(
        id=device_id, import_mode=mode, status="enabled", authentication=AuthenticationBody("sas")
    )


async def test_all_kinds_at_once(hub: Services) -> None:
    """Bulk requests in opposite orders touch all partitions; so do telemetry, twins and connections meanwhile."""
    names = [f"d{number}" for number in range(BATCH)]

    async def bulk(worker: int) -> None:
        order = names if worker % 2 else names[::-1]
        for _ in range(ROUNDS):
            await hub.bulk.write("hub", [item(f"w{worker}-{name}", "create") for name in order])
            await hub.bulk.write("hub", [item(f"w{worker}-{name}", "delete") for name in order])

    async def telemetry(partition: int) -> None:
        head: Head = ("Telemetry", "t", "", "1", "{}", "", "{}", "{}")
        for _ in range(ROUNDS * 10):
            await hub.events.store("hub", partition, Messages.of((head, [b"1", b"2"])))

    async def reports(worker: int) -> None:
        for number in range(ROUNDS * 5):
            await hub.twins.update_reported("hub", f"twin{worker % 2}", "", json.dumps({"n": number}).encode())

    async def connections(worker: int) -> None:
        identity, _ = await hub.devices.put("hub", f"c{worker}", IdentityBody(device_id=f"c{worker}"), None)
        principal = Principal(hub.hub, identity, "{}", None)
        for _ in range(ROUNDS * 2):
            hub.sessions.detach(await hub.sessions.attach(principal, lambda _notice: None))

    for number in range(2):
        await hub.devices.put("hub", f"twin{number}", IdentityBody(device_id=f"twin{number}"), None)
    async with asyncio.timeout(120), asyncio.TaskGroup() as group:
        for worker in range(WORKERS):
            group.create_task(bulk(worker))
            group.create_task(telemetry(worker % 4))
            group.create_task(reports(worker))
            group.create_task(connections(worker))
    events = await everything(hub)
    require_no_gap(events)
    assert len([event for event in events if event.source == "Telemetry"]) == WORKERS * ROUNDS * 10 * 2
    kinds = Counter(event.application_properties.get("opType") for event in events if event.source != "Telemetry")
    assert kinds["createDeviceIdentity"] == WORKERS * ROUNDS * BATCH + WORKERS + 2
    assert kinds["deleteDeviceIdentity"] == WORKERS * ROUNDS * BATCH
    assert kinds["updateTwin"] == WORKERS * ROUNDS * 5
    assert 0 <= kinds["deviceConnected"] - kinds["deviceDisconnected"] <= WORKERS


async def test_the_events_of_one_twin_are_in_the_order_of_its_versions(hub: Services) -> None:
    await hub.devices.put("hub", "d1", IdentityBody(device_id="d1"), None)

    async def worker(name: int) -> None:
        for number in range(ROUNDS * 2):
            await hub.twins.update_reported("hub", "d1", "", json.dumps({f"w{name}": number}).encode())

    await asyncio.gather(*(worker(name) for name in range(WORKERS)))
    changes = [event for event in await everything(hub) if event.source == "twinChangeEvents"]
    versions = [msgspec.json.decode(event.body)["version"] for event in changes]
    assert versions == list(range(3, 3 + WORKERS * ROUNDS * 2))


async def test_what_is_deferred_comes_last_and_what_is_lost_is_not_told(database: Database) -> None:
    await migrate(database, 1)
    steps: list[object] = []

    async def finish(_tx: Transaction, items: list[int]) -> None:
        steps.append(items)

    async def body(tx: Transaction) -> None:
        tx.defer(finish, 1)
        tx.after_commit(lambda: steps.append("committed"))
        tx.defer(finish, 2)
        steps.append("body")

    async def failing(tx: Transaction) -> None:
        await body(tx)
        raise KeyError

    await database.transact(body)
    assert steps == ["body", [1, 2], "committed"]
    steps.clear()
    with pytest.raises(KeyError):
        await database.transact(failing)
    assert steps == ["body"]
