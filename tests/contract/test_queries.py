"""Queries on both databases against an oracle that evaluates them on the twins' JSON (hub-service.md 4).

Random twins and random queries: SQLite, PostgreSQL and plain Python have to agree on every row, in every order, in
pages of every size. ``MUSTER_QUERY_EXAMPLES=250`` makes it look longer.
"""

import asyncio
import json
import os
from collections.abc import Coroutine
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from muster.domain.device import Identity
from muster.domain.query_parser import parse_query
from muster.domain.twin import InitialProperties, InitialTwin, new_twin, patch_reported
from muster.hub.twin_records import insert_twin
from muster.store.database import Database, Transaction
from muster.store.migration import migrate
from muster.store.postgres import open_postgres
from muster.store.sqlite import open_sqlite
from tests.property.query_strategies import queries
from tests.property.twin_strategies import sections
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_services import Clock, Services, build_services
from tests.support.query_oracle import answer

NOW = 1_790_000_000_000_000
T = TypeVar("T")


class Hub:
    """Services on one database, used from a test that is not a coroutine: hypothesis wants those."""

    def __init__(self, runner: asyncio.Runner, services: Services) -> None:
        self._runner = runner
        self.services = services

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def rows(self, query: str, size: int) -> list[dict[str, Any]]:
        return self.run(all_pages(self.services, query, size))


async def all_pages(services: Services, query: str, size: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    continuation: str | None = None
    while True:
        page = await services.queries.page("hub", query, continuation, size)
        assert len(page.items) <= size
        rows += json.loads(msgspec.json.encode(page.items))
        if page.continuation is None:
            return rows
        assert len(page.items) == size
        continuation = page.continuation


async def opened(database: Database) -> Services:
    clock = Clock(NOW)
    await migrate(database, clock())
    return await build_services(database, clock)


@pytest.fixture(scope="module")
def runner() -> Any:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def sqlite_hub(runner: asyncio.Runner, tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("queries") / "muster.db"
    services = runner.run(opened(runner.run(open_sqlite(file, durable=False))))
    yield Hub(runner, services)
    runner.run(services.registrations.stop(within=60))
    runner.run(services.database.close())


@pytest.fixture(scope="module")
def postgres_hub(runner: asyncio.Runner, postgres_server: PostgresServer) -> Any:
    context = postgres_server.fresh_database()
    services = runner.run(opened(runner.run(open_postgres(runner.run(context.__aenter__())))))
    yield Hub(runner, services)
    runner.run(services.registrations.stop(within=60))
    runner.run(services.database.close())
    runner.run(context.__aexit__(None, None, None))


class Written(msgspec.Struct):
    """A twin and its identity as a test wants it."""

    device_id: str
    module_id: str
    tags: dict[str, Any]
    desired: dict[str, Any]
    reported: dict[str, Any]
    thumbprint: str | None
    iot_edge: bool
    scopes: list[str]
    connected: bool


def writtens(device_id: str, module_id: str) -> st.SearchStrategy[Written]:
    return st.builds(
        Written,
        st.just(device_id),
        st.just(module_id),
        sections(nulls=False),
        sections(nulls=False),
        sections(nulls=False),
        st.none() | st.just("AB" * 20),
        st.booleans(),
        st.just([]) | st.just(["ms-azure-iot-edge://p-1"]),
        st.booleans(),
    )


NAMES = [("d1", ""), ("D2", ""), ("d-3", ""), ("d_4", ""), ("d1", "m1"), ("d1", "M2"), ("d-3", "m1")]
fleets = st.tuples(*(writtens(*names) for names in NAMES)).map(list)


async def write(services: Services, fleet: list[Written]) -> list[dict[str, Any]]:
    """Make the hub hold these twins and nothing else; their JSON."""

    async def body(tx: Transaction) -> None:
        for table in ("identity", "twin", "connection"):
            await tx.execute(f"DELETE FROM {table}")
        for one in fleet:
            await _insert(tx, one)

    await services.database.transact(body)
    return [await services.twin(one.device_id, one.module_id) for one in fleet]


async def _insert(tx: Transaction, one: Written) -> None:
    identity = Identity(
        device_id=one.device_id,
        module_id=one.module_id,
        generation_id="1",
        etag=7,
        status="enabled",
        authentication_type="selfSigned" if one.thumbprint else "sas",
    )
    await tx.execute(
        "INSERT INTO identity (hub, device_id, module_id, generation_id, etag, status, status_updated,"
        " authentication_type, primary_thumbprint, iot_edge, parent_scopes, created) VALUES ('hub', :device_id,"
        " :module_id, '1', 7, 'enabled', 0, :type, :thumbprint, :iot_edge, :scopes, 0)",
        device_id=one.device_id,
        module_id=one.module_id,
        type=identity.authentication_type,
        thumbprint=one.thumbprint,
        iot_edge=int(one.iot_edge),
        scopes=json.dumps(one.scopes) if one.scopes else None,
    )
    twin = new_twin(InitialTwin(one.tags, InitialProperties(one.desired)), NOW)
    twin = patch_reported(twin, one.reported, None, NOW + 1_234_567).twin if one.reported else twin
    await insert_twin(tx, "hub", identity, twin)
    if one.connected:
        await tx.execute(
            "INSERT INTO connection (hub, device_id, module_id, session_id, connected, connection_state_updated,"
            " last_activity) VALUES ('hub', :device_id, :module_id, 's', :now, :now, :now)",
            device_id=one.device_id,
            module_id=one.module_id,
            now=NOW - 1,
        )


def normalized(value: Any) -> Any:
    """Sums and averages may differ in the last digits, and 2.0 is 2."""
    if isinstance(value, float):
        return round(value, 6) + 0.0
    if isinstance(value, dict):
        return {key: normalized(item) for key, item in value.items()}
    return [normalized(item) for item in value] if isinstance(value, list) else value


@given(fleets, st.lists(st.tuples(queries(), st.integers(1, 8)), min_size=10, max_size=20))
@settings(
    max_examples=int(os.environ.get("MUSTER_QUERY_EXAMPLES", "12")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate),
)
def test_both_databases_agree_with_the_oracle(
    sqlite_hub: Hub, postgres_hub: Hub, fleet: list[Written], asked: list[tuple[str, int]]
) -> None:
    hubs = (sqlite_hub, postgres_hub)
    twins = [hub.run(write(hub.services, fleet)) for hub in hubs]
    assert twins[0] == twins[1]
    for text, size in asked:
        expected = answer(twins[0], parse_query(text))
        for hub in hubs:
            assert normalized(hub.rows(text, size)) == normalized(expected), text


EXTREMES = {
    "max": 1.7976931348623157e308,
    "min": 5e-324,
    "whole": 4503599627370495,
    "least": -4503599627370496,
    "zero": -0.0,
    "text": "x" * 4096,
    "quote": "'\\\"\u2028",
    "astral": "\U0001f600",
}


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ("tags.max = 1.7976931348623157e308", True),
        ("tags.max > 1e308 AND tags.max > tags.whole", True),
        ("tags.max * 2 > 0", False),
        ("NOT (tags.max * 2 > 0)", False),
        ("tags.max - tags.max = 0", False),
        ("tags.min > 0 AND tags.min < 1e-300", True),
        ("tags.min / 2 = 0", False),
        ("tags.whole = 4503599627370495 AND tags.whole != 4503599627370494", True),
        ("tags.whole + 1 = 4503599627370496", True),
        ("tags.least < -4503599627370495", True),
        ("tags.zero = 0", True),
        ("1 / tags.zero = 0 OR 1 % tags.zero = 0", False),
        ("7 % 3 = 1 AND -7 % 3 = -1 AND 7.5 % -2 = 1.5", True),
        ("tags.whole % 1e-10 = 0", False),
        ("7 / 2 = 3.5", True),
        ("ENDSWITH(tags.text, 'xxx') AND STARTSWITH(tags.text, '')", True),
        ("STARTSWITH('x', tags.text)", False),
        ("ENDSWITH('x', tags.text)", False),
        ("CONTAINS(tags.quote, '\\'\\\\')", True),
        ("tags.quote = '\\'\\\\\"\u2028'", True),
        ("tags.astral > '\\uffff' AND tags.astral = '\\ud83d\\ude00'", True),
        ("LOWER('ABCÉ') = 'abcÉ' AND UPPER('abcß') = 'ABCß'", True),
        ("'a' < 'b' AND 'B' < 'a' AND 'a' < 'é'", True),
        ("'1' = 1", False),
        ("'1' != 1 AND null != 0 AND true != 'true'", True),
        ("'1' < 2 OR NOT ('1' < 2)", False),
        ("null = null AND NOT (null != null)", True),
        ("null < null OR null <= null", False),
        ("undefined = undefined OR undefined != 1", False),
        ("false < true", True),
        ("tags = tags OR properties.desired != 1", False),
        ("1 IN [2, undefined] OR 1 NOT IN [2, undefined]", False),
        ("1 IN [1, undefined] AND null IN [null] AND null NOT IN [1]", True),
        ("5 OR NOT 5", False),
        ("true AND NOT false", True),
    ],
)
def test_values_at_the_edge(sqlite_hub: Hub, postgres_hub: Hub, condition: str, holds: bool) -> None:
    fleet = [Written("edge", "", EXTREMES, {}, {}, None, False, [], False)]
    for hub in (sqlite_hub, postgres_hub):
        twins = hub.run(write(hub.services, fleet))
        query = f"SELECT deviceId FROM devices WHERE {condition}"
        assert bool(answer(twins, parse_query(query))) is holds, "the oracle"
        assert bool(hub.rows(query, 10)) is holds, hub.services.database.dialect.name


def test_extremes_in_groups_and_orders(sqlite_hub: Hub, postgres_hub: Hub) -> None:
    fleet = [
        Written(f"edge-{key}", "", {"v": value, "w": 1e308}, {}, {}, None, False, [], False)
        for key, value in EXTREMES.items()
    ]
    for hub in (sqlite_hub, postgres_hub):
        twins = hub.run(write(hub.services, fleet))
        for query in (
            "SELECT tags.v AS v, COUNT() AS n FROM devices GROUP BY tags.v",
            "SELECT deviceId, tags.v AS v FROM devices ORDER BY tags.v DESC",
            "SELECT MAX(tags.v) AS high, MIN(tags.v) AS low FROM devices",
        ):
            for size in (1, 3, 10):
                assert hub.rows(query, size) == answer(twins, parse_query(query)), query
        # What would overflow is left out of sums.
        assert hub.rows("SELECT SUM(tags.w) AS s, COUNT() AS n FROM devices", 1) == [{"n": len(EXTREMES)}]
