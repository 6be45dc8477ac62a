"""The SQLite driver where it goes wrong: the machinery fails, and the writer thread goes on."""

import asyncio
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest

from muster.store import sqlite
from muster.store.database import DatabaseError, DatabaseUnavailableError, Transaction
from muster.store.sqlite import SqliteDatabase, neutral_error, open_sqlite


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[SqliteDatabase]:
    database = await open_sqlite(tmp_path / "test.db", durable=False)
    await database.transact(create)
    yield database
    await database.close()


async def create(transaction: Transaction) -> None:
    await transaction.execute("CREATE TABLE box (id BIGINT NOT NULL PRIMARY KEY, data {bytes})")


async def put(id_: int, transaction: Transaction) -> int:
    await transaction.insert_rows("box", ["id", "data"], [(id_, b"x" * 300_000)])
    return id_


def size(file: Path) -> int:
    return file.stat().st_size


def test_what_is_not_sqlites_is_unavailable_with_its_name():
    assert str(neutral_error(MemoryError("gone"))) == "MemoryError('gone')"
    assert type(neutral_error(MemoryError())) is DatabaseUnavailableError


def test_a_file_system_without_a_log_is_refused():
    connection = sqlite3.connect(":memory:")
    with pytest.raises(OSError, match="write-ahead log"):
        sqlite._prepare(connection, durable=True)
    connection.close()


async def test_a_writer_without_a_connection_tells_everyone(database: SqliteDatabase):
    async def closes(_transaction: Transaction) -> None:
        database._write.close()

    outcomes = await asyncio.gather(
        *(database.transact(body) for body in (closes, partial(put, 1), partial(put, 2))), return_exceptions=True
    )
    assert all(isinstance(outcome, DatabaseError) for outcome in outcomes)
    with pytest.raises(DatabaseError, match="closed"):
        await database.transact(partial(put, 3))


async def test_the_writer_copies_the_log_when_it_is_far_too_long(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(sqlite, "WAL_LIMIT", 64 * 1024)
    database = await open_sqlite(tmp_path / "small.db", durable=False)
    # Without its connection the thread can copy nothing: what is copied, the writer copied.
    database._checkpointer._connection.close()
    with caplog.at_level(logging.WARNING):
        await database.transact(create)
        for id_ in range(20):
            await database.transact(partial(put, id_))
    assert "checkpoint failed" in caplog.text
    assert size(tmp_path / "small.db") > 15 * 300_000
    assert size(tmp_path / "small.db-wal") < 5 * 300_000
    await database.close()


async def test_a_log_that_has_vanished_does_not_end_the_writer(
    database: SqliteDatabase, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with caplog.at_level(logging.WARNING):
        (tmp_path / "test.db-wal").unlink()
        assert await database.transact(partial(put, 1)) == 1
        assert await database.transact(partial(put, 2)) == 2
    assert "checkpoint failed" in caplog.text


def test_a_writer_whose_event_loop_is_gone_goes_on_and_ends(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    entered, release = threading.Event(), threading.Event()

    async def waits(_transaction: Transaction) -> None:
        entered.set()
        release.wait(10)

    with asyncio.Runner() as runner:
        database = runner.run(open_sqlite(tmp_path / "left.db", durable=False))
        runner.get_loop().call_soon(database.submit, waits, print)
        runner.run(asyncio.to_thread(entered.wait, 10))
    with caplog.at_level(logging.WARNING):
        release.set()
        database._inline.close()
        database._shut()
    assert "nobody waits for 1 transactions" in caplog.text
