"""The registry of a hub with many writers at once, on both databases: an id is given once, and limits hold."""

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import Awaitable

import pytest

from muster.bus.bus import LocalBus
from muster.domain.bulk_registry import ExportImportDevice
from muster.domain.device import Authentication, AuthenticationBody, IdentityBody
from muster.domain.key_rotation import KeyRotationBody, RotatedIdentity
from muster.domain.module import ModuleBody
from muster.hub.activity import note_activity
from muster.hub.bulk_registry import BulkRegistry
from muster.hub.consumer_groups import ConsumerGroups
from muster.hub.devices import Devices
from muster.hub.events import EventLog
from muster.hub.hub_events import HubEvents
from muster.hub.hubs import Hubs
from muster.hub.identity_writes import IdentityWrites
from muster.hub.modules import Modules
from muster.hub.twins import Twins
from muster.store.database import Database, Transaction
from muster.store.migration import migrate

HUB = "first"
_NOW = itertools.count(1_790_000_000_000_000)


def clock() -> int:
    return next(_NOW)


class Registry:
    """Its parts on one database."""

    def __init__(self, database: Database) -> None:
        bus = LocalBus()
        hubs = Hubs(database, bus, clock, os.urandom, any_host=True)
        events = HubEvents(hubs.get, EventLog(database, bus, clock), bus, clock, os.urandom)
        writes = IdentityWrites(events, clock, os.urandom)
        self.database = database
        self.devices = Devices(database, bus, writes, clock)
        self.modules = Modules(database, bus, writes, clock)
        self.bulk = BulkRegistry(database, bus, writes, Twins(database, bus, clock), os.urandom)
        self.groups = ConsumerGroups(database, bus, clock)

    async def create(self, device_id: str) -> object:
        return await self.devices.put(HUB, device_id, IdentityBody(device_id=device_id), None)


@pytest.fixture
async def registry(database: Database) -> Registry:
    await migrate(database, clock())
    await Hubs(database, LocalBus(), clock, os.urandom, any_host=True).ensure(
        HUB, "first.example.net", partition_count=1
    )
    return Registry(database)


async def outcomes(*changes: Awaitable[object]) -> Counter[str]:
    """How often each kind of result or error came."""
    results = await asyncio.gather(*changes, return_exceptions=True)
    return Counter(type(result).__name__ for result in results)


async def test_an_id_is_given_once(registry: Registry) -> None:
    found = await outcomes(*(registry.create("d1") for _ in range(20)))
    assert found == {"tuple": 1, "DeviceAlreadyExistsError": 19}
    module = ModuleBody(module_id="m")
    found = await outcomes(*(registry.modules.put(HUB, "d1", "m", module, None) for _ in range(20)))
    assert found == {"tuple": 1, "ModuleAlreadyExistsError": 19}


async def test_fifty_modules_and_not_one_more(registry: Registry) -> None:
    await registry.create("d1")
    puts = (registry.modules.put(HUB, "d1", f"m{n}", ModuleBody(module_id=f"m{n}"), None) for n in range(60))
    assert await outcomes(*puts) == {"tuple": 50, "TooManyModulesError": 10}
    assert len(await registry.modules.list(HUB, "d1")) == 50


async def test_no_module_is_left_behind(registry: Registry) -> None:
    """Whichever comes first: a module without its device would be for ever."""
    for number in range(10):
        device_id = f"d{number}"
        await registry.create(device_id)
        await outcomes(
            registry.modules.put(HUB, device_id, "m", ModuleBody(module_id="m"), None),
            registry.devices.delete(HUB, device_id, "*"),
        )
        assert await registry.devices.find(HUB, device_id, "m") is None


async def test_registrations_and_creations_of_one_device(registry: Registry) -> None:
    """A registration goes on with the device that somebody else has just made."""

    async def provision() -> None:
        async def transaction(tx: Transaction) -> None:
            keys = Authentication(type="selfSigned", primary_thumbprint="AB" * 20)
            await registry.devices.provision(tx, HUB, "d1", keys, iot_edge=True, initial_twin=None)

        await registry.database.transact(transaction)

    found = await outcomes(*itertools.chain.from_iterable((provision(), registry.create("d1")) for _ in range(8)))
    assert found["NoneType"] == 8
    assert set(found) <= {"NoneType", "tuple", "DeviceAlreadyExistsError"}
    assert found["tuple"] <= 1
    assert [module.module_id for module, _ in await registry.modules.list(HUB, "d1")] == ["$edgeAgent", "$edgeHub"]


async def test_bulk_requests_at_once(registry: Registry) -> None:
    """In opposite orders: every item is written by one of them, and refused to the others."""
    items = [
        ExportImportDevice(id=f"d{n}", import_mode="create", status="enabled", authentication=AuthenticationBody("sas"))
        for n in range(20)
    ]
    orders = (items, items[::-1], items, items[::-1])
    failed = await asyncio.gather(*(registry.bulk.write(HUB, order) for order in orders))
    assert sum(len(errors) for errors in failed) == 60
    assert (await registry.devices.statistics(HUB)).total == 20


async def test_keys_change_places_as_often_as_they_are_told(registry: Registry) -> None:
    await registry.create("d1")
    before, _ = await registry.devices.get(HUB, "d1")
    swap = KeyRotationBody(policy_key="swap", devices=(RotatedIdentity(id="d1"),))
    await asyncio.gather(*(registry.bulk.rotate_keys(HUB, swap) for _ in range(21)))
    after, _ = await registry.devices.get(HUB, "d1")
    assert (after.primary_key, after.secondary_key) == (before.secondary_key, before.primary_key)
    assert after.etag == before.etag + 21


async def test_activity_of_an_identity_that_never_connected(registry: Registry) -> None:
    await registry.create("d1")

    def noting(device_id: str, now: int) -> Awaitable[None]:
        return registry.database.transact(lambda tx: note_activity(tx, HUB, device_id, "", now))

    await asyncio.gather(noting("d1", 5), noting("d1", 5), noting("nobody", 5))
    _, times = await registry.devices.get(HUB, "d1")
    assert (times.connected, times.state_updated, times.last_activity) == (False, 0, 5)


async def test_twenty_consumer_groups_and_not_one_more(registry: Registry) -> None:
    found = await outcomes(*(registry.groups.put(HUB, f"g{number}") for number in range(25)))
    assert found == {"ConsumerGroup": 19, "QuotaExceededError": 6}
    assert len(await registry.groups.all(HUB)) == 20  # with $Default
