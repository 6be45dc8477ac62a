"""What only PostgreSQL does: transactions at once, attempts, broken connections, an unknown outcome."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from muster.store.database import (
    ConstraintViolationError,
    Database,
    DatabaseBusyError,
    DatabaseUnavailableError,
    OutcomeUnknownError,
    StatementError,
    Transaction,
    split_statements,
)
from muster.store.postgres import ATTEMPTS, PostgresDatabase, open_postgres
from tests.support.fix_postgres import PostgresServer

SOCKET = ".s.PGSQL.5432"


@pytest.fixture(autouse=True)
async def _table(postgres_database: PostgresDatabase) -> None:
    async def create(transaction: Transaction) -> None:
        await transaction.execute("CREATE TABLE box (id BIGINT NOT NULL PRIMARY KEY, number BIGINT NOT NULL)")
        await transaction.insert_rows("box", ["id", "number"], [(1, 0), (2, 0)])

    await postgres_database.transact(create)


async def add(id_: int, transaction: Transaction) -> None:
    await transaction.execute("UPDATE box SET number = number + 1 WHERE id = :id", id=id_)


async def numbers(database: Database) -> list[int]:
    return [row[0] for row in await database.fetch_all("SELECT number FROM box ORDER BY id")]


async def schema_of(database: Database) -> str:
    row = await database.fetch_one("SELECT current_schema()")
    assert row is not None
    return str(row[0])


async def test_transactions_run_at_the_same_time(postgres_database: PostgresDatabase):
    barrier = asyncio.Barrier(5)

    async def body(transaction: Transaction) -> None:
        await transaction.fetch_one("SELECT 1")
        await barrier.wait()

    await asyncio.gather(*(postgres_database.transact(body) for _ in range(5)))


async def test_the_loser_of_a_deadlock_is_run_again(postgres_database: PostgresDatabase):
    attempts = 0
    barrier = asyncio.Barrier(2)

    async def body(first: int, second: int, transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await add(first, transaction)
        if attempts <= 2:
            await barrier.wait()
        await add(second, transaction)

    bodies = [partial(body, 1, 2), partial(body, 2, 1)]
    await asyncio.gather(*(postgres_database.transact(body) for body in bodies))
    assert attempts > 2  # a loser that comes back before the winner has woken can meet it in a second deadlock
    assert await numbers(postgres_database) == [2, 2]


@pytest.mark.parametrize("translated", [False, True])
async def test_a_body_that_never_gets_through_is_busy(postgres_database: PostgresDatabase, translated: bool):
    attempts = 0

    async def body(transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await add(1, transaction)
        try:
            await transaction.execute("DO $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '40001'; END$$")
        except DatabaseBusyError as error:
            raise (KeyError("mine") if translated else error) from None

    with pytest.raises(KeyError if translated else DatabaseBusyError):
        await postgres_database.transact(body)
    assert attempts == ATTEMPTS
    assert await numbers(postgres_database) == [0, 0]


async def test_a_body_whose_connection_breaks_is_run_again(postgres_database: PostgresDatabase):
    attempts = 0

    async def body(transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await add(1, transaction)
        if attempts == 1:
            await transaction.fetch_one("SELECT pg_terminate_backend(pg_backend_pid())")
        await add(2, transaction)

    await postgres_database.transact(body)
    assert attempts == 2
    assert await numbers(postgres_database) == [1, 1]


async def test_a_read_whose_connection_breaks_is_read_again(postgres_database: PostgresDatabase):
    async def breaks_once(transaction: Transaction) -> None:
        await transaction.execute("CREATE SEQUENCE attempt")

    await postgres_database.transact(breaks_once)
    row = await postgres_database.fetch_one(
        "SELECT CASE WHEN nextval('attempt') = 1 THEN pg_terminate_backend(pg_backend_pid()) END, 7"
    )
    assert row == (None, 7)


async def test_a_plan_older_than_a_migration_is_made_again(postgres_server: PostgresServer):
    async def look(transaction: Transaction):
        return await transaction.fetch_one("SELECT * FROM grows")

    async def create(transaction: Transaction) -> None:
        await transaction.execute("CREATE TABLE grows (a BIGINT)")
        await transaction.execute("INSERT INTO grows (a) VALUES (1)")

    async def widen(transaction: Transaction) -> None:
        await transaction.execute("ALTER TABLE grows ADD COLUMN b BIGINT DEFAULT 2")

    async with postgres_server.fresh_database() as dsn:
        one, other = await open_postgres(dsn, connections=1), await open_postgres(dsn, connections=1)
        await one.transact(create)
        assert await one.transact(look) == (1,)
        await other.transact(widen)
        assert await one.transact(look) == (1, 2)
        await one.close()
        await other.close()


async def test_a_statement_that_takes_too_long_is_given_up_once(postgres_server: PostgresServer):
    attempts = 0

    async def body(transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await transaction.fetch_one("SELECT 1 FROM pg_sleep(30)")

    database = await open_postgres(postgres_server.dsn(), connections=1, statement_timeout=1.0)
    with pytest.raises(DatabaseUnavailableError):
        await database.transact(body)
    with pytest.raises(DatabaseUnavailableError):
        await database.fetch_one("SELECT 1 FROM pg_sleep(30)")
    assert attempts == 1
    assert await database.fetch_one("SELECT 1") == (1,)
    await database.close()


async def test_a_full_queue_is_told_at_once(postgres_server: PostgresServer):
    release = asyncio.Event()

    async def body(_transaction: Transaction) -> int:
        await release.wait()
        return 1

    database = await open_postgres(postgres_server.dsn(), connections=2, queue_limit=5)
    waiting = [asyncio.ensure_future(database.transact(body)) for _ in range(5)]
    await asyncio.sleep(0)
    with pytest.raises(DatabaseBusyError, match="5 transactions"):
        await database.transact(body)
    release.set()
    assert await asyncio.gather(*waiting) == [1] * 5
    await database.close()


@pytest.mark.parametrize(("setting", "result"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")])
async def test_an_acknowledged_commit_is_on_disk(postgres_server: PostgresServer, setting: str, result: str):
    database = await open_postgres(f"{postgres_server.dsn()}&synchronous_commit={setting}")
    assert await database.fetch_one("SELECT current_setting('synchronous_commit')") == (result,)
    await database.close()


@pytest.mark.parametrize("dsn", ["postgresql://nobody@127.0.0.1:1/none", "http://somewhere", ""])
async def test_a_server_that_is_not_there_is_unavailable(dsn: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGHOST", "127.0.0.1")
    monkeypatch.setenv("PGPORT", "1")
    with pytest.raises(DatabaseUnavailableError, match="no connection"):
        await open_postgres(dsn)


DEFERRED = """
CREATE FUNCTION refuse() RETURNS TRIGGER LANGUAGE plpgsql AS
    'BEGIN RAISE EXCEPTION ''refused'' USING ERRCODE = ''STATE''; END';
CREATE CONSTRAINT TRIGGER refused AFTER UPDATE ON box DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION refuse();
"""


@pytest.mark.parametrize(
    ("state", "error", "attempts"),
    [("23503", ConstraintViolationError, 1), ("40001", DatabaseBusyError, ATTEMPTS)],
)
async def test_a_commit_that_postgres_refuses_is_no_unknown_outcome(
    postgres_database: PostgresDatabase, state: str, error: type[Exception], attempts: int
):
    made = 0

    async def refuse(transaction: Transaction) -> None:
        for statement in split_statements(DEFERRED.replace("STATE", state)):
            await transaction.execute(statement)

    async def body(transaction: Transaction) -> None:
        nonlocal made
        made += 1
        await add(1, transaction)

    await postgres_database.transact(refuse)
    with pytest.raises(error) as caught:
        await postgres_database.transact(body)
    assert type(caught.value) is error
    assert made == attempts
    assert await numbers(postgres_database) == [0, 0]


async def test_a_wrong_value_is_told_before_it_is_sent(postgres_database: PostgresDatabase):
    async def body(transaction: Transaction) -> None:
        await transaction.insert_rows("box", ["id", "number"], [(3, "three")])

    with pytest.raises(StatementError):
        await postgres_database.transact(body)


class CommitCutter:
    """A proxy that breaks the connection at the next COMMIT, before or after the server has done it."""

    def __init__(self, server: Path) -> None:
        self._server = server / SOCKET
        self._connections: list[asyncio.Task[None]] = []
        self.moment: str | None = None

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.append(task)
        from_server, to_server = await asyncio.open_unix_connection(self._server)
        ways = [
            asyncio.ensure_future(self._to_server(reader, to_server)),
            asyncio.ensure_future(self._to_client(from_server, writer)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        for end in (writer, to_server):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _to_server(self, client: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
        while data := await client.read(65536):
            if b"COMMIT\0" in data and self.moment == "before":
                return
            server.write(data)
            if b"COMMIT\0" in data and self.moment == "after":
                self.moment = "answer"

    async def _to_client(self, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(65536):
            if self.moment == "answer":
                return
            client.write(data)

    async def finished(self) -> None:
        await asyncio.gather(*self._connections)


@pytest.fixture
async def cutter(postgres_server: PostgresServer) -> AsyncIterator[tuple[CommitCutter, Path]]:
    # A socket's path must be short, pytest's directories are not.
    directory = Path(tempfile.mkdtemp(prefix="muster-cut-"))
    cutter = CommitCutter(postgres_server.directory)
    proxy = await asyncio.start_unix_server(cutter.connected, directory / SOCKET)
    yield cutter, directory
    proxy.close()
    await cutter.finished()
    shutil.rmtree(directory)


@pytest.mark.parametrize(("moment", "stored"), [("before", 0), ("after", 1)])
async def test_an_unknown_outcome_is_told_and_never_retried(
    postgres_database: PostgresDatabase, cutter: tuple[CommitCutter, Path], moment: str, stored: int
):
    proxy, directory = cutter
    schema = await schema_of(postgres_database)
    database = await open_postgres(f"postgresql://muster@/postgres?host={directory}&search_path={schema}")
    attempts = 0

    async def body(transaction: Transaction) -> None:
        nonlocal attempts
        attempts += 1
        await add(1, transaction)

    proxy.moment = moment
    with pytest.raises(OutcomeUnknownError, match="COMMIT"):
        await database.transact(body)
    proxy.moment = None
    assert attempts == 1
    assert await numbers(postgres_database) == [stored, 0]
    await database.transact(partial(add, 2))
    assert await numbers(postgres_database) == [stored, 1]
    await database.close()
