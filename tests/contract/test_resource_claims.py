"""Resources that several operators change at once, on both databases: who loses is told, and nothing is lost."""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Sequence
from importlib.resources import files

import pytest

from muster.bus.bus import LocalBus
from muster.domain.access_rules import AccessRuleBody
from muster.domain.errors import ConflictError, NotFoundError, PreconditionFailedError
from muster.domain.provisioning_resource import LinkedHubBody, PropertiesBody, ProvisioningBody
from muster.domain.resource import ResourceFacts
from muster.dps.services import ProvisioningServices
from muster.hub.hubs import Hubs
from muster.store.database import Database, Transaction, split_statements
from muster.store.migration import migrate

WORKERS = 8
ID_SCOPE = "0ne00000001"
OWNER = AccessRuleBody(key_name="provisioningserviceowner", rights="ServiceConfig, EnrollmentWrite")


def clock() -> int:
    return 1_790_000_000_000_000


@pytest.fixture
async def hubs(database: Database) -> Hubs:
    await migrate(database, clock())
    made = Hubs(database, LocalBus(), clock, os.urandom, any_host=True)
    await made.ensure("first", "first.example.net", partition_count=1)
    return made


@pytest.fixture
async def services(database: Database, hubs: Hubs) -> ProvisioningServices:
    made = ProvisioningServices(database, LocalBus(), hubs, clock, os.urandom)
    await made.ensure(ID_SCOPE, "dps.example.net", hubs.all)
    return made


async def at_once(*changes: Awaitable[object]) -> Sequence[object]:
    """Their results, or what they raised."""
    return await asyncio.gather(*changes, return_exceptions=True)


def kinds(results: Sequence[object]) -> Counter[str]:
    return Counter(type(result).__name__ for result in results)


async def test_of_changes_to_one_version_one_wins(services: ProvisioningServices) -> None:
    body = ProvisioningBody(etag=services.first.etag)
    results = await at_once(*(services.put(ID_SCOPE, body, None) for _ in range(WORKERS)))
    assert kinds(results) == {"ProvisioningService": 1, PreconditionFailedError.__name__: WORKERS - 1}


async def test_every_change_is_whole(services: ProvisioningServices) -> None:
    def body(number: int) -> ProvisioningBody:
        policies = [OWNER, AccessRuleBody(key_name=f"own-{number}", rights="EnrollmentRead")]
        links = [LinkedHubBody(host_name="first.example.net", allocation_weight=number + 1)]
        return ProvisioningBody(
            tags={"number": str(number)}, properties=PropertiesBody(authorization_policies=policies, iot_hubs=links)
        )

    results = await at_once(*(services.put(ID_SCOPE, body(number), None) for number in range(WORKERS)))
    assert kinds(results) == {"ProvisioningService": WORKERS}
    await services.load()
    last = services.first
    number = int(last.facts.tags["number"])
    assert set(last.policies) == {"provisioningserviceowner", f"own-{number}"}
    assert [hub.allocation_weight for hub in last.linked_hubs] == [number + 1]


async def test_memory_ends_as_the_database(database: Database, services: ProvisioningServices, hubs: Hubs) -> None:
    await at_once(*(services.put_tags(ID_SCOPE, {"number": str(number)}, None) for number in range(20)))
    fresh = ProvisioningServices(database, LocalBus(), hubs, clock, os.urandom)
    await fresh.load()
    assert services.first == fresh.first


@pytest.mark.parametrize(("name", "host"), [("east", "{}.example.net"), ("east-{}", "east.example.net")])
async def test_a_name_and_an_address_are_given_once(hubs: Hubs, name: str, host: str) -> None:
    results = await at_once(
        *(
            hubs.create(name.format(number), host.format(number), ResourceFacts(), partition_count=2)
            for number in range(WORKERS)
        )
    )
    assert kinds(results) == {"Hub": 1, ConflictError.__name__: WORKERS - 1}
    assert len(hubs.all) == 2


async def test_a_removed_hub_is_removed_once_and_unlinked(hubs: Hubs, services: ProvisioningServices) -> None:
    await hubs.create("east", "east.example.net", ResourceFacts(), partition_count=2)
    links = [LinkedHubBody(host_name="first.example.net"), LinkedHubBody(host_name="east.example.net")]
    await services.put(ID_SCOPE, ProvisioningBody(properties=PropertiesBody(iot_hubs=links)), None)
    results = await at_once(*(hubs.remove("east", None, force=False) for _ in range(WORKERS)))
    assert kinds(results) == {"NoneType": 1, NotFoundError.__name__: WORKERS - 1}
    await services.load()
    assert [hub.name for hub in services.first.linked_hubs] == ["first"]
    await hubs.create("east", "east.example.net", ResourceFacts(), partition_count=2)


async def test_links_of_the_first_release_stay(database: Database) -> None:
    """A database of migration 0001 had a weight of 1 in every link that nobody had set."""
    first = files("muster.store").joinpath("migrations", "0001_initial.sql").read_text()
    assert "linked_hub" in first
    await _old_database(database, first)
    await migrate(database, clock())
    hubs = Hubs(database, LocalBus(), clock, os.urandom, any_host=True)
    await hubs.load()
    services = ProvisioningServices(database, LocalBus(), hubs, clock, os.urandom)
    await services.ensure(ID_SCOPE, "dps.example.net", ())
    service = services.first
    assert (service.name, service.etag, service.facts) == ("dps", "AAAAAAAAAAE=", ResourceFacts())
    assert [(hub.name, hub.policy, hub.allocation_weight) for hub in service.linked_hubs] == [
        ("plant", "iothubowner", None)
    ]


async def _old_database(database: Database, schema: str) -> None:
    async def create(tx: Transaction) -> None:
        for statement in split_statements(schema):
            await tx.execute(statement)
        await tx.execute("INSERT INTO hub (name, host_name, partition_count, created) VALUES ('plant', 'p.net', 1, 0)")
        await tx.execute(
            "INSERT INTO provisioning_service (id_scope, host_name, allocation_policy, created)"
            " VALUES (:scope, 'dps.example.net', 'hashed', 0)",
            scope=ID_SCOPE,
        )
        await tx.execute(
            "INSERT INTO linked_hub (id_scope, hub, apply_allocation_policy, allocation_weight)"
            " VALUES (:scope, 'plant', 1, 1)",
            scope=ID_SCOPE,
        )
        await tx.execute(
            "CREATE TABLE schema_version (number BIGINT NOT NULL PRIMARY KEY, name TEXT NOT NULL,"
            " time BIGINT NOT NULL, oldest_code BIGINT NOT NULL)"
        )
        await tx.execute("INSERT INTO schema_version VALUES (1, 'initial', 0, 1)")

    await database.transact(create)
