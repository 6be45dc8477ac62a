"""What only SQLite's writer thread does: groups, savepoints, failed commits; and its files and readers."""

import asyncio
import logging
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from muster.domain.errors import ConflictError
from muster.store.database import (
    ConstraintViolationError,
    Database,
    DatabaseBusyError,
    DatabaseUnavailableError,
    StatementError,
    Transaction,
)
from muster.store.sqlite import WAL_LIMIT, SqliteDatabase, open_sqlite

PUT = "INSERT INTO box (id, data) VALUES (:id, :data)"


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    """A database that waits 50 ms for a lock and lets 20 transactions wait."""
    database = await open_sqlite(tmp_path / "small.db", durable=False, busy_timeout=0.05, queue_limit=20)
    await database.transact(create)
    yield database
    await database.close()


@pytest.fixture(autouse=True)
async def _table(sqlite_database: SqliteDatabase) -> None:
    await sqlite_database.transact(create)


async def create(transaction: Transaction) -> None:
    await transaction.execute("CREATE TABLE box (id BIGINT NOT NULL PRIMARY KEY, data {bytes})")
    await transaction.execute(
        "CREATE TABLE part (box BIGINT NOT NULL REFERENCES box (id) DEFERRABLE INITIALLY DEFERRED)"
    )


async def put(id_: int, transaction: Transaction, data: bytes | None = None) -> int:
    await transaction.execute(PUT, id=id_, data=data)
    return id_


async def ids(database: Database) -> list[int]:
    return [row[0] for row in await database.fetch_all("SELECT id FROM box ORDER BY id")]


class Gate:
    """A body that holds the writer thread until it is opened: what is submitted meanwhile is one group."""

    def __init__(self, database: Database) -> None:
        self._open = threading.Event()
        self._loop = asyncio.get_running_loop()
        self.held = asyncio.Event()
        self.passed = asyncio.ensure_future(database.transact(self._body))

    async def _body(self, _transaction: Transaction) -> None:
        self._loop.call_soon_threadsafe(self.held.set)
        assert self._open.wait(60)

    def open(self) -> None:
        self._open.set()


def files(directory: Path) -> dict[str, int]:
    """Names and modes."""
    return {file.name: stat.S_IMODE(file.stat().st_mode) for file in directory.iterdir()}


async def one_group(database: Database, *bodies: object) -> list[object]:
    """Outcomes of bodies that are certain to share one COMMIT."""
    gate = Gate(database)
    await gate.held.wait()
    waiting = [asyncio.ensure_future(database.transact(body)) for body in bodies]  # type: ignore[arg-type,var-annotated]  # any bodies
    await asyncio.sleep(0)
    gate.open()
    await gate.passed
    return await asyncio.gather(*waiting, return_exceptions=True)


async def test_a_body_that_fails_in_a_group_harms_no_neighbour(sqlite_database: SqliteDatabase):
    refusal = ConflictError("no")

    async def raises(transaction: Transaction) -> None:
        await put(50, transaction)
        raise refusal

    async def violates(transaction: Transaction) -> None:
        await put(51, transaction)
        await put(1, transaction)

    outcomes = await one_group(
        sqlite_database, partial(put, 1), raises, partial(put, 2), violates, raises, partial(put, 3)
    )
    assert outcomes[0:3:2] == [1, 2]
    assert outcomes[1] is refusal
    assert isinstance(outcomes[3], ConstraintViolationError)
    assert outcomes[5] == 3
    assert await ids(sqlite_database) == [1, 2, 3]


async def test_results_come_in_the_order_of_submission(sqlite_database: SqliteDatabase):
    order: list[int] = []
    finished = asyncio.Event()

    async def fails(_transaction: Transaction) -> None:
        raise ConflictError

    def done(number: int, _result: object, _error: BaseException | None) -> None:
        order.append(number)
        if len(order) == 3000:
            finished.set()

    for number in range(3000):
        sqlite_database.submit(fails if number % 7 == 0 else partial(put, number), partial(done, number))
        if number % 500 == 0:
            await asyncio.sleep(0)
    await finished.wait()
    assert order == list(range(3000))


async def test_a_failed_commit_fails_all_of_the_group_and_no_other(sqlite_database: SqliteDatabase):
    async def orphan(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO part (box) VALUES (77)")

    async def refused(_transaction: Transaction) -> None:
        raise ConflictError

    outcomes = await one_group(sqlite_database, partial(put, 1), orphan, refused, partial(put, 2))
    assert [type(outcome) for outcome in outcomes] == [ConstraintViolationError] * 4
    assert len({id(outcome) for outcome in outcomes}) == 4, "each caller has an exception of its own"
    assert await ids(sqlite_database) == []
    assert await sqlite_database.transact(partial(put, 3)) == 3
    assert await ids(sqlite_database) == [3]


async def test_a_full_disk_fails_the_group_and_the_writer_goes_on(sqlite_database: SqliteDatabase):
    async def limit(pages: int, transaction: Transaction) -> None:
        await transaction.execute(f"PRAGMA max_page_count = {pages}")

    await sqlite_database.transact(partial(limit, 30))
    large = partial(put, data=b"x" * 200_000)
    outcomes = await one_group(sqlite_database, partial(put, 1), partial(large, 2), partial(put, 3))
    assert [type(outcome) for outcome in outcomes] == [DatabaseUnavailableError] * 3
    with pytest.raises(DatabaseUnavailableError, match="full"):
        await sqlite_database.transact(partial(large, 4))
    assert await ids(sqlite_database) == []
    await sqlite_database.transact(partial(limit, 10_000))
    await sqlite_database.transact(partial(large, 5))
    assert await ids(sqlite_database) == [5]


async def test_a_body_that_awaits_something_else_fails_alone(sqlite_database: SqliteDatabase):
    async def sleeps(transaction: Transaction) -> None:
        await put(50, transaction)
        await asyncio.sleep(0)

    async def reads_around(transaction: Transaction) -> None:
        await put(51, transaction)
        await sqlite_database.fetch_one("SELECT 1")

    outcomes = await one_group(sqlite_database, partial(put, 1), sleeps, reads_around, partial(put, 2))
    assert outcomes[0] == 1
    assert outcomes[3] == 2
    assert [type(outcome) for outcome in outcomes[1:3]] == [RuntimeError] * 2
    assert "awaited something other than its transaction" in str(outcomes[1])
    assert "reads through its transaction" in str(outcomes[2])
    assert await ids(sqlite_database) == [1, 2]


async def test_not_even_system_exit_ends_the_writer(sqlite_database: SqliteDatabase):
    answer: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def leaves(_transaction: Transaction) -> None:
        raise SystemExit(3)

    sqlite_database.submit(leaves, lambda _, error: answer.set_result(error))
    assert isinstance(await answer, SystemExit)
    assert await sqlite_database.transact(partial(put, 1)) == 1


async def test_another_program_at_the_database_does_not_remove_the_log(small: SqliteDatabase, tmp_path: Path):
    """That program takes itself for the last one unless this one still holds its locks."""
    path = tmp_path / "small.db"
    await small.transact(partial(put, 1))
    program = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('SELECT 1 FROM box'); c.close()"
    looked = await asyncio.create_subprocess_exec(sys.executable, "-c", program, str(path))
    assert await looked.wait() == 0
    assert "small.db-wal" in files(tmp_path)
    assert await ids(small) == [1]


async def test_reads_go_on_during_a_long_write(sqlite_database: SqliteDatabase):
    gate = Gate(sqlite_database)
    await gate.held.wait()
    for _ in range(5):
        await asyncio.sleep(0)
        assert await sqlite_database.fetch_all("SELECT id FROM box") == []
    assert not gate.passed.done()
    gate.open()
    await gate.passed


async def test_a_slow_read_leaves_the_loop_free(sqlite_database: SqliteDatabase):
    slow = asyncio.ensure_future(
        sqlite_database.fetch_one(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :most) SELECT count(*) FROM n",
            most=1_000_000,
        )
    )
    turns = 0
    while not slow.done():
        turns += 1
        await asyncio.sleep(0)
        assert await sqlite_database.fetch_one("SELECT count(*) FROM box") == (0,)
    assert await slow == (1_000_000,)
    assert turns > 10


async def test_a_slow_read_may_fail(sqlite_database: SqliteDatabase):
    with pytest.raises(StatementError, match="overflow"):
        await sqlite_database.fetch_one(
            "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000)"
            " SELECT sum(9223372036854775807) FROM n"
        )


async def test_a_read_that_takes_one_row_of_many_holds_no_snapshot(sqlite_database: SqliteDatabase):
    for id_ in (1, 2, 3):
        await sqlite_database.transact(partial(put, id_))
        await sqlite_database.fetch_one("SELECT id FROM box ORDER BY id")
    assert await sqlite_database.fetch_one("SELECT count(*) FROM box") == (3,)


async def test_the_files_are_the_owners_alone(sqlite_database: SqliteDatabase, tmp_path: Path):
    await sqlite_database.transact(partial(put, 1))
    assert files(tmp_path) == dict.fromkeys(["test.db", "test.db-wal", "test.db-shm"], 0o600)


async def test_an_open_file_is_closed_to_others_when_it_is_opened_again(tmp_path: Path):
    path = tmp_path / "lax.db"
    path.touch(0o644)
    database = await open_sqlite(path)
    await database.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_closing_leaves_one_file_with_everything_in_it(tmp_path: Path):
    path = tmp_path / "a ? strange # name.db"
    database = await open_sqlite(path)
    await database.transact(create)
    await database.transact(partial(put, 1))
    await database.close()
    assert [name for name in files(tmp_path) if name.startswith("a ")] == [path.name]
    again = await open_sqlite(path)
    assert await ids(again) == [1]
    await again.close()


async def test_only_a_database_can_be_opened(tmp_path: Path):
    path = tmp_path / "letter.txt"
    path.write_text("Dear reader, " * 100)
    for wrong in (path, tmp_path, tmp_path / "nowhere" / "muster.db"):
        with pytest.raises(DatabaseUnavailableError, match=r"cannot open .*"):
            await open_sqlite(wrong)


async def test_a_lock_held_by_another_process_is_told_as_busy(
    small: SqliteDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    other = sqlite3.connect(tmp_path / "small.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with caplog.at_level(logging.CRITICAL), pytest.raises(DatabaseBusyError, match="locked"):
        await small.transact(partial(put, 1))
    other.execute("ROLLBACK")
    other.close()
    assert await small.transact(partial(put, 2)) == 2
    assert await ids(small) == [2]


async def test_a_full_queue_is_told_at_once(small: SqliteDatabase):
    gate = Gate(small)
    await gate.held.wait()
    answers: list[int | None] = []
    all_answered = asyncio.Event()

    def answer(result: int | None, _error: BaseException | None) -> None:
        answers.append(result)
        if len(answers) == 20:
            all_answered.set()

    for number in range(20):
        small.submit(partial(put, number), answer)
    with pytest.raises(DatabaseBusyError, match="20 transactions are waiting"):
        small.submit(partial(put, 20), answer)
    assert answers == []
    gate.open()
    await gate.passed
    await all_answered.wait()
    assert await small.transact(partial(put, 99)) == 99
    assert answers == list(range(20))


async def test_the_log_does_not_grow_for_ever(sqlite_database: SqliteDatabase, tmp_path: Path):
    wal = tmp_path / "test.db-wal"
    most = 0
    for number in range(60):
        await sqlite_database.transact(partial(put, number, data=b"x" * 2_000_000))
        most = max(most, wal.stat().st_size)
    assert most > WAL_LIMIT, "the test writes too little"
    assert most < 5 * WAL_LIMIT


async def test_foreign_keys_are_enforced(sqlite_database: SqliteDatabase):
    async def drop(transaction: Transaction) -> None:
        await transaction.execute("DELETE FROM box WHERE id = 1")

    async def attach(transaction: Transaction) -> None:
        await put(1, transaction)
        await transaction.execute("INSERT INTO part (box) VALUES (1)")

    await sqlite_database.transact(attach)
    with pytest.raises(ConstraintViolationError):
        await sqlite_database.transact(drop)
