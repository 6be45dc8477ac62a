"""What the store costs: durable appends through submit(), lone transactions, reads, isolation. Prints one JSON object.

    python -m tests.bench.bench_store [--seconds 2.0] [--databases sqlite,postgres] [--directory DIR] [--isolation]

Rows of 14 columns go into a table (256-byte bodies), with the reservation of their sequence numbers, one batch in
flight after the other. CPU is that of this process, for PostgreSQL that of the server beside it. `busy` does the same
while the event loop has no idle moment. The SQLite file is made in DIR (the current directory by default: /tmp may be
memory). `--isolation` compares PostgreSQL's levels for three patterns at 8 and 32 connections.
"""

import argparse
import asyncio
import itertools
import json
import resource
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvloop

from muster.store import postgres
from muster.store.database import Body, Database, Transaction
from muster.store.migration import migrate
from muster.store.postgres import open_postgres
from muster.store.sqlite import open_sqlite
from tests.support.fix_postgres import PostgresServer

COLUMNS = (
    "hub",
    "partition",
    "sequence_number",
    "event_offset",
    "enqueued_time",
    "source",
    "device_id",
    "module_id",
    "generation_id",
    "authentication_method",
    "model_id",
    "system_properties",
    "application_properties",
    "body",
)
AUTHENTICATION = '{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}'
RESERVE = (
    "UPDATE event_partition SET next_sequence_number = next_sequence_number + :count"
    " WHERE hub = 'h' AND partition = :partition RETURNING next_sequence_number"
)
READ = "SELECT device_id, body FROM event WHERE hub = 'h' AND partition = 0 AND sequence_number = :number"
PAGE = (
    "SELECT sequence_number, device_id, enqueued_time, system_properties, application_properties, body FROM event"
    " WHERE hub = 'h' AND partition = 0 AND sequence_number >= :number ORDER BY sequence_number LIMIT 100"
)
TABLE = """
CREATE TABLE event (
    hub TEXT NOT NULL,
    partition BIGINT NOT NULL,
    sequence_number BIGINT NOT NULL,
    event_offset BIGINT NOT NULL,
    enqueued_time BIGINT NOT NULL,
    source TEXT NOT NULL,
    device_id TEXT NOT NULL,
    module_id TEXT NOT NULL,
    generation_id TEXT NOT NULL,
    authentication_method TEXT NOT NULL,
    model_id TEXT NOT NULL,
    system_properties TEXT NOT NULL,
    application_properties TEXT NOT NULL,
    body {bytes} NOT NULL,
    PRIMARY KEY (hub, partition, sequence_number)
)"""
CpuClock = Callable[[], float]


def append(count: int, partition: int = 0) -> Body[None]:
    async def body(transaction: Transaction) -> None:
        row = await transaction.fetch_one(RESERVE, count=count, partition=partition)
        assert row is not None
        tail = ("Telemetry", "device-0001", "", "638", AUTHENTICATION, "", "{}", '{"unit":"C"}', b"x" * 256)
        rows = [("h", partition, n, n, 1_700_000_000_000_000, *tail) for n in range(row[0] - count, row[0])]
        await transaction.insert_rows("event", COLUMNS, rows)

    return body


async def prepare(database: Database) -> None:
    await migrate(database, 0)

    async def body(transaction: Transaction) -> None:
        await transaction.execute(TABLE)
        await transaction.execute("INSERT INTO hub (name, host_name, partition_count, created) VALUES ('h', 'h', 4, 0)")
        heads = [("h", number, 0, 0) for number in range(4)]
        columns = ["hub", "partition", "next_sequence_number", "next_offset"]
        await transaction.insert_rows("event_partition", columns, heads)

    await database.transact(body)


def own_cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def server_cpu(server: PostgresServer) -> float:
    """Seconds of the server's processes, those that ended included."""
    ticks = 0
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name_end = status.read_text().rpartition(")")
        except OSError:
            continue
        fields = name_end[2].split()
        if int(status.parent.name) == server.pid:
            ticks += sum(map(int, fields[11:15]))
        elif int(fields[1]) == server.pid:
            ticks += sum(map(int, fields[11:13]))
    return ticks / 100


async def spin(until: asyncio.Event) -> None:
    """Leave the event loop no idle moment, in turns of about 50 µs of pure Python."""
    while not until.is_set():
        for _ in range(1000):
            pass
        await asyncio.sleep(0)


async def appends(database: Database, batch: int, seconds: float, cpu: dict[str, CpuClock]) -> dict[str, Any]:
    """One batch after the other, each submitted when the one before is acknowledged."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    body = append(batch)
    latencies: list[float] = []
    begun = time.perf_counter()
    before = {name: clock() for name, clock in cpu.items()}
    submitted = begun

    def done(_result: None, error: BaseException | None) -> None:
        nonlocal submitted
        now = time.perf_counter()
        latencies.append(now - submitted)
        if error is not None:
            finished.set_exception(error)
        elif now - begun > seconds:
            finished.set_result(None)
        else:
            submitted = now
            database.submit(body, done)

    database.submit(body, done)
    await finished
    elapsed = time.perf_counter() - begun
    rows = batch * len(latencies)
    used = {name: (clock() - before[name]) / rows * 1e6 for name, clock in cpu.items()}
    return {
        "rows_per_second": round(rows / elapsed),
        **{f"{name}_us_per_row": round(value, 2) for name, value in used.items()},
        **percentiles(latencies, "commit"),
    }


def percentiles(latencies: list[float], name: str) -> dict[str, float]:
    latencies.sort()
    return {
        f"{name}_p50_ms": round(latencies[len(latencies) // 2] * 1e3, 3),
        f"{name}_p99_ms": round(latencies[int(len(latencies) * 0.99)] * 1e3, 3),
        f"{name}_max_ms": round(latencies[-1] * 1e3, 3),
    }


async def timed(operation: Callable[[], Awaitable[Any]], seconds: float, name: str) -> dict[str, float]:
    latencies = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        await operation()
        latencies.append(time.perf_counter() - begun)
        await asyncio.sleep(0)
    return percentiles(latencies, name)


async def measure(database: Database, seconds: float, cpu: dict[str, CpuClock]) -> dict[str, Any]:
    await prepare(database)
    result: dict[str, Any] = {}
    await appends(database, 50, seconds / 4, cpu)
    for batch in (1, 50, 256):
        result[f"append_{batch}"] = await appends(database, batch, seconds, cpu)
    over = asyncio.Event()
    spinning = asyncio.ensure_future(spin(over))
    for batch in (1, 50, 256):
        busy = await appends(database, batch, seconds, {})
        result[f"append_{batch}_busy"] = busy
    over.set()
    await spinning
    numbers = itertools.cycle(range(0, 1000, 37))
    single = append(1)
    result["lone_transact"] = await timed(lambda: database.transact(single), seconds, "latency")
    result["read_one"] = await timed(lambda: database.fetch_one(READ, number=next(numbers)), seconds / 2, "latency")
    result["read_100"] = await timed(lambda: database.fetch_all(PAGE, number=next(numbers)), seconds / 2, "latency")
    return result


@asynccontextmanager
async def sqlite_database(directory: Path) -> AsyncIterator[Database]:
    with tempfile.TemporaryDirectory(dir=directory) as temporary:
        database = await open_sqlite(Path(temporary) / "bench.db")
        yield database
        await database.close()


@asynccontextmanager
async def postgres_database(server: PostgresServer, connections: int = 10) -> AsyncIterator[Database]:
    async with server.fresh_database() as dsn:
        database = await open_postgres(dsn, connections=connections)
        yield database
        await database.close()


COUNT = "SELECT etag FROM twin WHERE device_id = 'd' {lock}"
SET = "UPDATE twin SET etag = :etag WHERE device_id = 'd'"
LOCK_NEXT = (
    "UPDATE event SET enqueued_time = 0 WHERE (hub, partition, sequence_number) = (SELECT hub, partition,"
    " sequence_number FROM event WHERE hub = 'h' AND partition = 3 AND enqueued_time > 0"
    " ORDER BY sequence_number LIMIT 1 {skip_locked}) RETURNING sequence_number"
)
TWIN = (
    "INSERT INTO twin (hub, device_id, module_id, etag, version, model_id, tags, desired, desired_metadata,"
    " desired_version, reported, reported_metadata, reported_version)"
    " VALUES ('h', 'd', '', 0, 1, '', '{}', '{}', '{}', 1, '{}', '{}', 1)"
)


def pattern(name: str, lock: str, number: int) -> Body[Any]:
    """Read a hot row, decide, write it; append to one of four partitions; lock the next message of a queue."""
    if name == "append_50":
        return append(50, number % 3)

    async def read_decide_write(transaction: Transaction) -> None:
        row = await transaction.fetch_one(COUNT.replace("{lock}", lock))
        assert row is not None
        await transaction.execute(SET, etag=row[0] + 1)

    async def lock_next(transaction: Transaction) -> Any:
        return await transaction.fetch_one(LOCK_NEXT)

    return read_decide_write if name == "read_decide_write" else lock_next


async def contend(database: Database, workers: int, name: str, lock: str, total: int) -> dict[str, Any]:
    numbers = iter(range(total))
    attempts = 0
    worst = 0
    latencies = []

    async def worker() -> None:
        nonlocal attempts, worst
        for number in numbers:
            mine = 0
            body = pattern(name, lock, number)

            async def counted(transaction: Transaction, body: Body[Any] = body) -> Any:
                nonlocal mine
                mine += 1
                return await body(transaction)

            begun = time.perf_counter()
            await database.transact(counted)
            latencies.append(time.perf_counter() - begun)
            attempts += mine
            worst = max(worst, mine)

    begun = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(workers)))
    elapsed = time.perf_counter() - begun
    return {
        "transactions_per_second": round(total / elapsed),
        "attempts": round(attempts / total, 2),
        "worst_attempts": worst,
        **percentiles(latencies, "latency"),
    }


async def isolation(server: PostgresServer) -> dict[str, Any]:
    """The levels side by side; the driver's own is READ COMMITTED. Attempts are not bounded here."""
    result: dict[str, Any] = {}
    postgres.ATTEMPTS = 1000  # type: ignore[misc]  # only here, to see how many are needed
    levels = (("READ COMMITTED", "{for_update}"), ("READ COMMITTED", ""), ("REPEATABLE READ", ""), ("SERIALIZABLE", ""))
    for workers, (level, lock) in itertools.product((8, 32), levels):
        postgres._BEGIN = f"BEGIN ISOLATION LEVEL {level}"  # type: ignore[misc]  # the constant that is compared
        async with postgres_database(server, workers) as database:
            await prepare(database)
            await database.transact(lambda transaction: transaction.execute(TWIN))
            await database.transact(append(600, 3))
            row: dict[str, Any] = {}
            for name, total in (("read_decide_write", 1000), ("append_50", 400), ("lock_next", 600)):
                row[name] = await contend(database, workers, name, lock, total)
            etag = await database.fetch_one("SELECT etag FROM twin")
            assert etag is not None
            row["read_decide_write"]["lost_updates"] = 1000 - etag[0]
        result[f"{level}{', locked' if lock else ''}, {workers} workers"] = row
    return result


async def main(arguments: argparse.Namespace) -> dict[str, Any]:
    result: dict[str, Any] = {"python": sys.version.split()[0]}
    if "sqlite" in arguments.databases:
        async with sqlite_database(arguments.directory) as database:
            result["sqlite"] = await measure(database, arguments.seconds, {"cpu": own_cpu})
    if "postgres" in arguments.databases or arguments.isolation:
        server = await asyncio.to_thread(PostgresServer, durable=True)
        try:
            if "postgres" in arguments.databases:
                clocks = {"cpu": own_cpu, "server_cpu": lambda: server_cpu(server)}
                async with postgres_database(server) as database:
                    result["postgres"] = await measure(database, arguments.seconds, clocks)
            if arguments.isolation:
                result["isolation"] = await isolation(server)
        finally:
            server.stop()
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Cost of the store, as JSON.")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--databases", default="sqlite,postgres")
    parser.add_argument("--directory", type=Path, default=Path.cwd())
    parser.add_argument("--isolation", action="store_true")
    print(json.dumps(uvloop.run(main(parser.parse_args())), indent=2))
