"""A process to be killed: four writers append to a database and print the number of each append once it is stored.

``python -m tests.support.appender sqlite PATH`` or ``... postgres DSN``. The rows of append N are (N, 0), (N, 1) and
(N, 2) in the table ``appended``, which exists.
"""

import asyncio
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

from muster.store.database import Database, Transaction
from muster.store.postgres import open_postgres
from muster.store.sqlite import open_sqlite

WRITERS = 4
ROWS = 3


async def append(database: Database, number: int) -> None:
    """Store all rows of one number, or none."""

    async def body(transaction: Transaction) -> None:
        await transaction.insert_rows("appended", ["number", "part"], [(number, part) for part in range(ROWS)])

    await database.transact(body)


async def write(database: Database, numbers: Iterator[int]) -> None:
    for number in numbers:
        await append(database, number)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


async def main(kind: str, where: str) -> None:
    database = await (open_sqlite(Path(where)) if kind == "sqlite" else open_postgres(where))
    numbers = itertools.count()
    async with asyncio.TaskGroup() as group:
        for _ in range(WRITERS):
            group.create_task(write(database, numbers))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
