"""Transactions: all or nothing, isolation, errors, callbacks, cancellation and closing, on both databases."""

import asyncio
import contextlib
from functools import partial

import pytest

from muster.domain.errors import ConflictError, UnavailableError
from muster.store.database import (
    Database,
    DatabaseClosedError,
    StatementError,
    Transaction,
    UniqueViolationError,
)


@pytest.fixture(autouse=True)
async def _table(database: Database) -> None:
    async def create(transaction: Transaction) -> None:
        await transaction.execute("CREATE TABLE box (id BIGINT NOT NULL PRIMARY KEY, number BIGINT NOT NULL)")

    await database.transact(create)


async def put(id_: int, transaction: Transaction) -> int:
    await transaction.execute("INSERT INTO box (id, number) VALUES (:id, 0)", id=id_)
    return id_


async def ids(database: Database) -> list[int]:
    return [row[0] for row in await database.fetch_all("SELECT id FROM box ORDER BY id")]


async def test_what_a_body_returns_is_returned_and_stored(database: Database):
    assert await database.transact(partial(put, 1)) == 1
    assert await ids(database) == [1]


async def test_a_body_that_raises_leaves_nothing_and_its_error_is_unchanged(database: Database):
    refusal = ConflictError("no")

    async def body(transaction: Transaction) -> None:
        await put(1, transaction)
        raise refusal

    with pytest.raises(ConflictError) as caught:
        await database.transact(body)
    assert caught.value is refusal
    assert await ids(database) == []


async def test_a_body_reads_what_it_wrote(database: Database):
    async def body(transaction: Transaction):
        await put(1, transaction)
        return await transaction.fetch_all("SELECT id FROM box")

    assert await database.transact(body) == [(1,)]


async def test_every_acknowledged_write_is_read_at_once(database: Database):
    async def worker(start: int) -> None:
        for id_ in range(start, start + 20):
            await database.transact(partial(put, id_))
            assert await database.fetch_one("SELECT id FROM box WHERE id = :id", id=id_) == (id_,)

    await asyncio.gather(*(worker(number * 100) for number in range(8)))


async def test_a_body_that_swallows_a_failed_statement_is_not_stored(database: Database):
    async def body(transaction: Transaction) -> None:
        await put(1, transaction)
        with contextlib.suppress(UniqueViolationError):
            await put(1, transaction)

    with pytest.raises(StatementError, match="transaction is lost"):
        await database.transact(body)
    assert await ids(database) == []


async def test_after_a_failed_statement_the_transaction_takes_no_other(database: Database):
    async def body(transaction: Transaction) -> None:
        try:
            await put(1, transaction)
            await put(1, transaction)
        except UniqueViolationError:
            await transaction.fetch_one("SELECT id FROM box")

    with pytest.raises(StatementError, match="transaction is lost"):
        await database.transact(body)


async def test_a_body_may_translate_the_error_of_a_statement(database: Database):
    async def body(transaction: Transaction) -> None:
        try:
            await put(1, transaction)
        except UniqueViolationError:
            raise ConflictError from None

    await database.transact(body)
    with pytest.raises(ConflictError):
        await database.transact(body)


async def test_a_transaction_ends_with_its_body(database: Database):
    async def body(transaction: Transaction) -> Transaction:
        return transaction

    leaked = await database.transact(body)
    with pytest.raises(StatementError, match="body has ended"):
        await put(1, leaked)
    assert await ids(database) == []


async def test_a_reader_does_not_see_what_is_not_committed(database: Database):
    seen = []

    async def body(transaction: Transaction) -> None:
        await transaction.insert_rows("box", ["id", "number"], [(number, 0) for number in range(3000)])
        await transaction.execute("UPDATE box SET number = 1")

    writing = asyncio.ensure_future(database.transact(body))
    while not writing.done():
        seen.append(await database.fetch_one("SELECT count(*), coalesce(sum(number), 0) FROM box"))
        await asyncio.sleep(0)
    await writing
    seen.append(await database.fetch_one("SELECT count(*), coalesce(sum(number), 0) FROM box"))
    assert set(seen) == {(0, 0), (3000, 3000)}


async def test_submit_calls_done_once_with_the_result_and_never_from_within(database: Database):
    calls = []
    finished = asyncio.Event()

    def done(result: int | None, error: BaseException | None) -> None:
        calls.append((result, error, asyncio.get_running_loop()))
        finished.set()

    database.submit(partial(put, 1), done)
    assert calls == []
    await finished.wait()
    assert calls == [(1, None, asyncio.get_running_loop())]
    assert await ids(database) == [1]


async def test_submit_calls_done_with_the_error(database: Database):
    refusal = ConflictError("no")
    answer: asyncio.Future[tuple[object, object]] = asyncio.get_running_loop().create_future()

    async def body(transaction: Transaction) -> int:
        await put(1, transaction)
        raise refusal

    database.submit(body, lambda result, error: answer.set_result((result, error)))
    assert await answer == (None, refusal)


async def test_a_callback_that_fails_harms_no_other(database: Database):
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    failure = RuntimeError("callback")

    def done(_result: int | None, _error: BaseException | None) -> None:
        raise failure

    database.submit(partial(put, 1), done)
    others = [database.transact(partial(put, id_)) for id_ in (2, 3)]
    assert await asyncio.gather(*others) == [2, 3]
    assert await database.transact(partial(put, 4)) == 4
    assert reported == [failure]
    assert await ids(database) == [1, 2, 3, 4]


async def test_a_skipped_body_is_not_run(database: Database):
    answer: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
    # As many as fill every connection, and the writer's first groups, so that the last one has to wait.
    fill = [asyncio.ensure_future(database.transact(partial(put, id_))) for id_ in range(100)]
    await asyncio.sleep(0)
    database.submit(partial(put, 1000), lambda _, error: answer.set_result(error)).skip()
    assert isinstance(await answer, asyncio.CancelledError)
    await asyncio.gather(*fill)
    assert await ids(database) == list(range(100))


async def test_cancelling_who_waits_stores_all_of_a_transaction_or_nothing(database: Database):
    async def body(start: int, transaction: Transaction) -> None:
        await put(start, transaction)
        await put(start + 1, transaction)

    waiting = [asyncio.ensure_future(database.transact(partial(body, start))) for start in range(0, 100, 2)]
    await asyncio.sleep(0)
    for task in waiting[::2]:
        task.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert outcomes[1::2] == [None] * 25
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::2])
    stored = await ids(database)
    assert {id_ | 1 for id_ in stored} == {id_ for id_ in stored if id_ % 2}
    assert set(stored) >= {id_ for start in range(2, 100, 4) for id_ in (start, start + 1)}


async def test_close_finishes_what_was_submitted_and_refuses_what_comes_later(database: Database):
    waiting = [asyncio.ensure_future(database.transact(partial(put, id_))) for id_ in range(50)]
    await asyncio.sleep(0)
    await asyncio.gather(database.close(), database.close())
    assert await asyncio.gather(*waiting) == list(range(50))
    await database.close()
    with pytest.raises(DatabaseClosedError):
        database.submit(partial(put, 99), lambda _result, _error: None)
    for refused in (
        database.transact(partial(put, 99)),
        database.fetch_one("SELECT 1"),
        database.fetch_all("SELECT 1"),
    ):
        with pytest.raises(DatabaseClosedError) as caught:
            await refused
        assert isinstance(caught.value, UnavailableError)
        assert caught.value.message == UnavailableError.message
