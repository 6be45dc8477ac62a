"""Each way of claiming something, by many workers at once, on both databases (style-models.md 11.4 b).

The tables are the test's own; the statements are written as the operations write theirs. A statement that is right
for one worker and wrong for eight is what this file is for: "lock next message" without ``{skip_locked}`` gave
nearly every message to two workers.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from muster.store.database import Database, Transaction

WORKERS = 8

SCHEMA = """
CREATE TABLE thing (id TEXT NOT NULL PRIMARY KEY, value BIGINT NOT NULL, etag BIGINT NOT NULL);
CREATE TABLE message (
    device TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    lock_token TEXT,
    locked_until BIGINT NOT NULL,
    delivery_count BIGINT NOT NULL,
    PRIMARY KEY (device, sequence)
);
CREATE TABLE session (device TEXT NOT NULL PRIMARY KEY, id TEXT, epoch BIGINT NOT NULL);
CREATE TABLE partition_head (number BIGINT NOT NULL PRIMARY KEY, next_sequence BIGINT NOT NULL);
CREATE TABLE event (
    number BIGINT NOT NULL,
    sequence BIGINT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (number, sequence)
);
"""


@pytest.fixture(autouse=True)
async def _tables(database: Database) -> None:
    async def create(transaction: Transaction) -> None:
        for statement in SCHEMA.split(";")[:-1]:
            await transaction.execute(statement)
        await transaction.execute("INSERT INTO thing (id, value, etag) VALUES ('a', 0, 0)")
        await transaction.execute("INSERT INTO partition_head (number, next_sequence) VALUES (0, 0), (1, 0)")

    await database.transact(create)


async def at_once(worker: Callable[[int], Awaitable[None]], workers: int = WORKERS) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(workers):
            group.create_task(worker(number))  # type: ignore[arg-type]  # a coroutine function is what is passed


async def test_compare_and_set_on_the_etag_loses_no_update(database: Database):
    refused = 0

    async def worker(_number: int) -> None:
        nonlocal refused
        wins = 0
        while wins < 15:
            value, etag = await database.fetch_one("SELECT value, etag FROM thing WHERE id = 'a'")

            async def body(transaction: Transaction, value: int = value, etag: int = etag) -> int:
                return await transaction.execute(
                    "UPDATE thing SET value = :value, etag = etag + 1 WHERE id = 'a' AND etag = :etag",
                    value=value + 1,
                    etag=etag,
                )

            changed = await database.transact(body)
            wins += changed
            refused += 1 - changed

    await at_once(worker)
    assert await database.fetch_one("SELECT value, etag FROM thing WHERE id = 'a'") == (15 * WORKERS, 15 * WORKERS)
    assert refused > 0, "the workers never met"


async def test_read_decide_write_under_a_lock_loses_no_update(database: Database):
    async def body(transaction: Transaction) -> None:
        (value,) = await transaction.fetch_one("SELECT value FROM thing WHERE id = 'a' {for_update}")
        await transaction.execute("UPDATE thing SET value = :value WHERE id = 'a'", value=value + 1)

    async def worker(_number: int) -> None:
        for _ in range(15):
            await database.transact(body)

    await at_once(worker)
    assert await database.fetch_one("SELECT value FROM thing WHERE id = 'a'") == (15 * WORKERS,)


async def test_insert_or_nothing_has_one_winner(database: Database):
    winners: list[str] = []

    async def worker(_number: int) -> None:
        for key in range(30):

            async def body(transaction: Transaction, key: str = f"key {key}") -> int:
                return await transaction.execute(
                    "INSERT INTO thing (id, value, etag) VALUES (:id, 0, 0) ON CONFLICT (id) DO NOTHING", id=key
                )

            if await database.transact(body):
                winners.append(f"key {key}")

    await at_once(worker)
    assert Counter(winners) == {f"key {key}": 1 for key in range(30)}


async def test_bounded_enqueue_never_passes_the_depth(database: Database):
    accepted: list[int] = []

    def enqueue(sequence: int) -> Callable[[Transaction], Awaitable[int]]:
        async def body(transaction: Transaction) -> int:
            # An aggregate cannot be locked: the row that all enqueuers share is.
            await transaction.fetch_one("SELECT id FROM thing WHERE id = 'a' {for_update}")
            return await transaction.execute(
                "INSERT INTO message (device, sequence, locked_until, delivery_count)"
                " SELECT 'a', :sequence, 0, 0 WHERE (SELECT count(*) FROM message WHERE device = 'a') < :depth",
                sequence=sequence,
                depth=50,
            )

        return body

    async def worker(number: int) -> None:
        for sequence in range(number * 10, number * 10 + 10):
            accepted.extend([sequence] * await database.transact(enqueue(sequence)))

    await at_once(worker)
    assert len(accepted) == 50
    stored = await database.fetch_all("SELECT sequence FROM message ORDER BY sequence")
    assert [row[0] for row in stored] == sorted(accepted)


async def fill(database: Database, count: int) -> None:
    columns = ["device", "sequence", "lock_token", "locked_until", "delivery_count"]

    async def body(transaction: Transaction) -> None:
        await transaction.insert_rows("message", columns, [("a", number, None, 0, 0) for number in range(count)])

    await database.transact(body)


LOCK_NEXT = """
UPDATE message SET lock_token = :token, locked_until = :until, delivery_count = delivery_count + 1
WHERE (device, sequence) = (
    SELECT device, sequence FROM message WHERE device = :device AND locked_until <= :now
    ORDER BY sequence LIMIT 1 {skip_locked}
)
RETURNING sequence"""


async def test_lock_next_message_gives_each_to_one_worker(database: Database):
    await fill(database, 300)
    locked: list[int] = []

    async def worker(number: int) -> None:
        async def body(transaction: Transaction) -> int | None:
            row = await transaction.fetch_one(LOCK_NEXT, token=f"token {number}", until=60, now=1, device="a")
            return None if row is None else row[0]

        mine = []
        while (sequence := await database.transact(body)) is not None:
            mine.append(sequence)
        assert mine == sorted(mine)
        locked.extend(mine)

    await at_once(worker)
    # A worker that finds all of the rest locked stops early; nobody stops while a message is free.
    assert Counter(locked) == dict.fromkeys(range(300), 1)
    assert await database.fetch_all("SELECT delivery_count, count(*) FROM message GROUP BY delivery_count") == [
        (1, 300)
    ]


async def test_a_lock_token_settles_once(database: Database):
    await fill(database, 20)
    settled: list[int] = []

    async def lock(transaction: Transaction) -> None:
        await transaction.execute("UPDATE message SET lock_token = CAST(sequence AS TEXT), locked_until = 60")

    async def worker(_number: int) -> None:
        for sequence in range(20):

            async def body(transaction: Transaction, token: str = str(sequence)) -> int:
                return await transaction.execute(
                    "DELETE FROM message WHERE device = 'a' AND lock_token = :token AND locked_until > :now",
                    token=token,
                    now=1,
                )

            settled.extend([sequence] * await database.transact(body))

    await database.transact(lock)
    await at_once(worker)
    assert sorted(settled) == list(range(20))


async def test_a_session_displaces_exactly_the_one_before(database: Database):
    displaced: list[str | None] = []
    epochs: list[int] = []

    def take_over(session: str) -> Callable[[Transaction], Awaitable[tuple[str | None, int]]]:
        async def body(transaction: Transaction) -> tuple[str | None, int]:
            await transaction.execute(
                "INSERT INTO session (device, epoch) VALUES ('a', 0) ON CONFLICT (device) DO NOTHING"
            )
            (before,) = await transaction.fetch_one("SELECT id FROM session WHERE device = 'a' {for_update}")
            row = await transaction.fetch_one(
                "UPDATE session SET id = :id, epoch = epoch + 1 WHERE device = 'a' RETURNING epoch", id=session
            )
            return before, row[0]

        return body

    async def worker(number: int) -> None:
        for attempt in range(10):
            before, epoch = await database.transact(take_over(f"{number}.{attempt}"))
            displaced.append(before)
            epochs.append(epoch)

    await at_once(worker)
    (last,) = await database.fetch_one("SELECT id FROM session WHERE device = 'a'")
    everyone = [f"{number}.{attempt}" for number in range(WORKERS) for attempt in range(10)]
    assert Counter([*displaced, last]) == Counter([None, *everyone])
    assert sorted(epochs) == list(range(1, 10 * WORKERS + 1))


RESERVE = (
    "UPDATE partition_head SET next_sequence = next_sequence + :count WHERE number = :number RETURNING next_sequence"
)


async def test_runs_of_sequence_numbers_are_disjoint_and_have_no_gap(database: Database):
    runs: list[tuple[int, int]] = []

    async def worker(number: int) -> None:
        for attempt in range(15):
            count = 1 + (number * 7 + attempt * 3) % 5

            async def body(transaction: Transaction, count: int = count) -> tuple[int, int]:
                (end,) = await transaction.fetch_one(RESERVE, number=0, count=count)
                return end - count, end

            runs.append(await database.transact(body))

    await at_once(worker)
    runs.sort()
    assert [run[0] for run in runs] == [0, *(run[1] for run in runs[:-1])]


def append(number: int, texts: list[str]) -> Callable[[Transaction], Awaitable[None]]:
    async def body(transaction: Transaction) -> None:
        (end,) = await transaction.fetch_one(RESERVE, number=number, count=len(texts))
        rows = [(number, sequence, text) for sequence, text in enumerate(texts, end - len(texts))]
        await transaction.insert_rows("event", ["number", "sequence", "body"], rows)

    return body


FOLLOW = "SELECT sequence, body FROM event WHERE number = :number AND sequence >= :next ORDER BY sequence LIMIT 7"


async def test_a_reader_that_follows_sees_every_row_once_and_in_order(database: Database):
    total = 12 * 3 * WORKERS // 2

    async def writer(worker: int) -> None:
        for batch in range(12):
            await database.transact(append(worker % 2, [f"{worker} {batch} {number}" for number in range(3)]))

    async def follow(number: int) -> list[str]:
        seen: list[str] = []
        while len(seen) < total:
            rows = await database.fetch_all(FOLLOW, number=number, next=len(seen))
            assert [row[0] for row in rows] == list(range(len(seen), len(seen) + len(rows))), "a gap"
            seen.extend(row[1] for row in rows)
            await asyncio.sleep(0)
        return seen

    readers = [asyncio.ensure_future(follow(number)) for number in (0, 0, 1)]
    await at_once(writer)
    first, second, other = await asyncio.gather(*readers)
    assert first == second
    assert Counter(first + other) == {
        f"{worker} {batch} {number}": 1 for worker in range(WORKERS) for batch in range(12) for number in range(3)
    }
    for worker in range(WORKERS):
        mine = [text for text in first + other if text.startswith(f"{worker} ")]
        assert mine == [f"{worker} {batch} {number}" for batch in range(12) for number in range(3)]


TRIM = """
DELETE FROM event WHERE number = :number AND sequence IN (
    SELECT sequence FROM event WHERE number = :number AND sequence < :before ORDER BY sequence LIMIT 10
)"""


async def test_trimming_removes_the_oldest_once_while_others_append(database: Database):
    removed = 0
    await database.transact(append(0, ["old"] * 200))

    async def trim(transaction: Transaction) -> int:
        return await transaction.execute(TRIM, number=0, before=150)

    async def worker(number: int) -> None:
        nonlocal removed
        if number % 2:
            for _ in range(10):
                await database.transact(append(0, ["new"]))
        else:
            while count := await database.transact(trim):
                removed += count

    await at_once(worker)
    left = await database.fetch_all("SELECT sequence, body FROM event WHERE number = 0 ORDER BY sequence")
    new = 10 * WORKERS // 2
    assert removed == 150
    assert left == [*((sequence, "old") for sequence in range(150, 200)), *((200 + n, "new") for n in range(new))]
