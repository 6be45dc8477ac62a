"""What is stored comes back the same, and what cannot be stored is refused the same, on both databases."""

import pytest

from muster.store.database import (
    ConstraintViolationError,
    Database,
    StatementError,
    Transaction,
    UniqueViolationError,
    Value,
)

SMALLEST, LARGEST = -(2**63), 2**63 - 1


@pytest.fixture(autouse=True)
async def _tables(database: Database) -> None:
    async def create(transaction: Transaction) -> None:
        await transaction.execute(
            "CREATE TABLE box (id BIGINT NOT NULL PRIMARY KEY, number BIGINT, text TEXT, data {bytes})"
        )
        await transaction.execute("CREATE TABLE part (id BIGINT NOT NULL PRIMARY KEY, box BIGINT REFERENCES box (id))")
        await transaction.execute(
            "CREATE TABLE named (name TEXT NOT NULL UNIQUE, size BIGINT NOT NULL CHECK (size > 0))"
        )

    await database.transact(create)


PUT = "INSERT INTO box (id, number, text, data) VALUES (:id, :number, :text, :data)"
GET = "SELECT number, text, data FROM box WHERE id = :id"

VALUES = [
    (SMALLEST, "", b""),
    (LARGEST, "Grüße, 设备, 🌡️, \u202e", bytes(range(256))),
    (0, "it's :name {bytes} $1 -- \\ \" \n\t", b"\0"),
    (None, None, None),
    (1, "x" * 300_000, b"\xff" * 300_000),
]


@pytest.mark.parametrize("values", VALUES, ids=["least", "most", "punctuation", "null", "large"])
@pytest.mark.parametrize("bulk", [False, True], ids=["execute", "insert_rows"])
async def test_a_row_comes_back_as_it_was(database: Database, values: tuple[Value, ...], bulk: bool):
    async def put(transaction: Transaction):
        if bulk:
            await transaction.insert_rows("box", ["id", "number", "text", "data"], [(1, *values)])
        else:
            number, text, data = values
            await transaction.execute(PUT, id=1, number=number, text=text, data=data)
        return await transaction.fetch_one(GET, id=1)

    assert await database.transact(put) == values
    row = await database.fetch_one(GET, id=1)
    assert row == values
    assert type(row) is tuple
    assert await database.fetch_all(GET, id=1) == [values]


@pytest.mark.parametrize("count", [0, 1, 2, 255, 256, 257, 1000])
async def test_insert_rows_stores_every_row_once(database: Database, count: int):
    rows = [(number, f"text {number}") for number in range(count)]

    async def put(transaction: Transaction) -> None:
        await transaction.insert_rows("box", ["id", "text"], rows)

    await database.transact(put)
    assert await database.fetch_all("SELECT id, text FROM box ORDER BY id") == rows


async def test_insert_rows_takes_more_columns_than_fit_with_256_rows(database: Database):
    columns = [f"c{number}" for number in range(200)]
    rows = [tuple(range(start, start + 200)) for start in range(300)]

    async def put(transaction: Transaction) -> None:
        await transaction.execute(f"CREATE TABLE wide ({', '.join(f'{column} BIGINT' for column in columns)})")
        await transaction.insert_rows("wide", columns, rows)

    await database.transact(put)
    assert await database.fetch_all("SELECT * FROM wide ORDER BY c0") == rows


async def test_execute_counts_the_rows_it_changed(database: Database):
    async def work(transaction: Transaction):
        return [
            await transaction.execute("INSERT INTO box (id, number) VALUES (1, 1), (2, 2), (3, 3)"),
            await transaction.execute("INSERT INTO box (id) VALUES (1) ON CONFLICT DO NOTHING"),
            await transaction.execute("UPDATE box SET number = number + :by WHERE number >= :least", by=1, least=2),
            await transaction.execute("UPDATE box SET number = 0 WHERE id > 1 RETURNING id"),
            await transaction.execute("DELETE FROM box WHERE id = 99"),
            await transaction.execute("SELECT id FROM box"),
            await transaction.execute("CREATE TABLE other (id BIGINT)"),
        ]

    assert await database.transact(work) == [3, 0, 2, 2, 0, 0, 0]


async def test_returning_changes_all_rows_whoever_fetches(database: Database):
    async def work(transaction: Transaction):
        await transaction.execute("INSERT INTO box (id, number) VALUES (1, 0), (2, 0), (3, 0)")
        one = await transaction.fetch_one("UPDATE box SET number = 7 RETURNING number")
        rest = await transaction.fetch_all("DELETE FROM box WHERE id > 1 RETURNING id")
        return one, sorted(rest)

    assert await database.transact(work) == ((7,), [(2,), (3,)])
    assert await database.fetch_all("SELECT id, number FROM box") == [(1, 7)]


async def test_sums_and_counts_are_integers(database: Database):
    async def put(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO box (id, number) VALUES (1, 2), (2, 3)")

    await database.transact(put)
    row = await database.fetch_one("SELECT sum(number), count(*), max(number) FROM box")
    assert row == (5, 2, 3)
    assert [type(value) for value in row] == [int, int, int]


async def test_nothing_found_is_none_and_an_empty_list(database: Database):
    async def look(transaction: Transaction):
        return await transaction.fetch_one(GET, id=1), await transaction.fetch_all(GET, id=1)

    assert await database.transact(look) == (None, [])
    assert await database.fetch_one(GET, id=1) is None
    assert await database.fetch_all(GET, id=1) == []


REFUSED = [
    (UniqueViolationError, "INSERT INTO box (id) VALUES (1)", {}),
    (UniqueViolationError, "INSERT INTO named (name, size) VALUES ('a', 1), ('a', 1)", {}),
    (ConstraintViolationError, "INSERT INTO part (id, box) VALUES (1, 77)", {}),
    (ConstraintViolationError, "INSERT INTO named (name, size) VALUES (NULL, 1)", {}),
    (ConstraintViolationError, "INSERT INTO named (name, size) VALUES ('a', 0)", {}),
    (StatementError, "SELECT nothing FROM nowhere", {}),
    (StatementError, "SELEKT 1", {}),
    (StatementError, "SELECT id FROM box WHERE id = :id", {}),
    (StatementError, "SELECT id FROM box WHERE id = :id", {"other": 1}),
    (StatementError, "SELECT id FROM box WHERE id = :id", {"id": 1, "other": 1}),
    (StatementError, "SELECT id FROM box {for_share}", {}),
    (StatementError, "INSERT INTO box (id) VALUES (:id)", {"id": LARGEST + 1}),
    (StatementError, "INSERT INTO box (id, text) VALUES (2, :text)", {"text": "a\0b"}),
    (StatementError, "INSERT INTO box (id, text) VALUES (2, :text)", {"text": "\ud800"}),
]


@pytest.mark.parametrize(("error", "sql", "params"), REFUSED)
async def test_errors_are_the_ports_own(database: Database, error: type[Exception], sql: str, params: dict[str, Value]):
    async def put(transaction: Transaction) -> None:
        await transaction.execute("INSERT INTO box (id) VALUES (1)")

    async def refused(transaction: Transaction) -> None:
        await transaction.execute(sql, **params)

    await database.transact(put)
    with pytest.raises(error) as caught:
        await database.transact(refused)
    assert type(caught.value) is error


@pytest.mark.parametrize(("error", "sql", "params"), [case for case in REFUSED if case[1].startswith("SEL")])
async def test_reads_have_the_same_errors(
    database: Database, error: type[Exception], sql: str, params: dict[str, Value]
):
    for fetch in (database.fetch_one, database.fetch_all):
        with pytest.raises(error) as caught:
            await fetch(sql, **params)
        assert type(caught.value) is error


async def test_insert_rows_tells_of_a_row_that_exists_and_of_one_too_large(database: Database):
    async def twice(transaction: Transaction) -> None:
        await transaction.insert_rows("box", ["id"], [(1,), (2,), (1,)])

    async def large(transaction: Transaction) -> None:
        await transaction.insert_rows("box", ["id"], [(1,), (LARGEST + 1,)])

    with pytest.raises(UniqueViolationError):
        await database.transact(twice)
    with pytest.raises(StatementError):
        await database.transact(large)
    assert await database.fetch_all("SELECT id FROM box") == []
