"""SIGKILL to whoever writes, and to PostgreSQL itself: nothing acknowledged is missing, nothing is stored in part."""

import asyncio
import itertools
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from muster.store.database import Database, DatabaseUnavailableError, OutcomeUnknownError, Transaction
from muster.store.postgres import open_postgres
from muster.store.sqlite import open_sqlite
from tests.support.appender import ROWS, append
from tests.support.fix_postgres import PostgresServer

REPOSITORY = Path(__file__).parents[2]
ENOUGH = 200


async def create(transaction: Transaction) -> None:
    await transaction.execute(
        "CREATE TABLE appended (number BIGINT NOT NULL, part BIGINT NOT NULL, PRIMARY KEY (number, part))"
    )


async def stored(database: Database) -> set[int]:
    """Numbers of the appends that are there, each of which must be whole."""
    rows = await database.fetch_all("SELECT number, count(*) FROM appended GROUP BY number")
    assert {count for _, count in rows} <= {ROWS}
    return {number for number, _ in rows}


async def kill_while_it_appends(kind: str, where: str) -> set[int]:
    """Numbers that the process had said to be stored when it was killed in the middle of its work."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.appender", kind, where),
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY / "src")},
    )
    assert process.stdout is not None
    acknowledged = [int(await process.stdout.readline()) for _ in range(ENOUGH)]
    process.kill()
    rest = (await process.stdout.read()).split(b"\n")
    await process.wait()
    assert process.returncode == -9
    return {*acknowledged, *(int(line) for line in rest[:-1])}


async def test_a_killed_process_loses_nothing_acknowledged_on_sqlite(tmp_path: Path):
    path = tmp_path / "kill.db"
    for killed in range(3):
        database = await open_sqlite(path)
        if killed == 0:
            await database.transact(create)
        before = await stored(database)
        await database.transact(lambda transaction: transaction.execute("DELETE FROM appended"))
        await database.close()
        assert killed == 0 or before
        acknowledged = await kill_while_it_appends("sqlite", str(path))
        database = await open_sqlite(path)
        assert acknowledged <= await stored(database)
        assert await database.fetch_all("PRAGMA integrity_check") == [("ok",)]
        await database.close()


async def test_a_killed_process_loses_nothing_acknowledged_on_postgres(postgres_server: PostgresServer):
    async with postgres_server.fresh_database() as dsn:
        database = await open_postgres(dsn)
        await database.transact(create)
        acknowledged = await kill_while_it_appends("postgres", dsn)
        assert acknowledged <= await stored(database)
        await database.close()


@pytest.fixture
def mortal_server() -> Iterator[PostgresServer]:
    server = PostgresServer(durable=True)
    yield server
    server.stop()


class Load:
    """Writers that go on whatever happens, and remember what they were told of each append."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._numbers = itertools.count()
        self._told = asyncio.Event()
        self.acknowledged: set[int] = set()
        self.refused: set[int] = set()
        self.unknown: set[int] = set()
        self.stopped = False

    async def write(self) -> None:
        while not self.stopped:
            number = next(self._numbers)
            try:
                await append(self.database, number)
            except OutcomeUnknownError:
                self.unknown.add(number)
            except DatabaseUnavailableError:
                self.refused.add(number)
            else:
                self.acknowledged.add(number)
            self._told.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._told.clear()
            await self._told.wait()


@pytest.fixture
async def load(mortal_server: PostgresServer) -> AsyncIterator[Load]:
    database = await open_postgres(mortal_server.dsn(), connections=4)
    await database.transact(create)
    yield Load(database)
    await database.close()


async def test_a_killed_postgres_loses_nothing_acknowledged(mortal_server: PostgresServer, load: Load):
    async with asyncio.TaskGroup() as group:
        for _ in range(8):
            group.create_task(load.write())
        await load.until(lambda: len(load.acknowledged) > ENOUGH)
        mortal_server.kill()
        await load.until(lambda: bool(load.refused))
        # In a thread: it runs an event loop of its own.
        await asyncio.to_thread(mortal_server.start)
        before = len(load.acknowledged)
        await load.until(lambda: len(load.acknowledged) > before + ENOUGH)
        load.stopped = True
    there = await stored(load.database)
    assert load.acknowledged <= there
    assert not load.refused & there
    assert there <= load.acknowledged | load.unknown
