"""The SQLite driver: one writer thread that commits in groups, and readers that are never blocked by it.

Not here: SQL of the project, and the schema. The port and its rules are in ``store/database.py``.

**Writes.** Bodies wait in one queue. The writer thread takes what is there (nothing is ever delayed to
gather more), runs each body between a savepoint and its release, commits once with ``synchronous=FULL`` and
tells the event loop once for the whole group. What arrives during a commit is the next group, so a lone
transaction has the latency of one commit and a thousand at once share one. A body that raises is rolled
back to its savepoint and fails alone; a failed COMMIT fails the group. Results are handed over in the order
of submission. A body is a coroutine, but here it never suspends: it is driven with one ``send(None)``, and
awaiting anything but its transaction is an error.

**GIL.** SQLite gives the interpreter lock away at every step, and an event loop that is never idle keeps it for a
switch interval each time before the writer has it back. So ``insert_rows`` puts up to 256 rows into one statement, and
opening a database lowers the switch interval of the process to 0.5 ms. Measured with 256 rows of 14 columns a commit:
5 µs of CPU a row against 8 with ``executemany``; beside a loop of pure Python 6 ms a commit, against 20 ms with the
interpreter's interval of 5 ms, 105 ms with ``executemany`` and 1,900 ms with both.

**Reads.** A SELECT runs on the event loop's own read-only connection: 16 µs for a row by key, against
110-125 by way of a thread. A read that needs more than about 10,000 steps of SQLite's machine (1 to 3 ms)
is interrupted and done again in the reader thread, so a large one does not hold up the loop.

**Checkpoints.** Copying the write-ahead log into the database is done by a third thread, because a commit
that does it takes 10 to 50 ms. The writer only helps out when the log has grown to four times its usual
size.
"""

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from muster.store.database import (
    Body,
    ConstraintViolationError,
    DatabaseBusyError,
    DatabaseClosedError,
    DatabaseError,
    DatabaseUnavailableError,
    Dialect,
    Done,
    Ending,
    Row,
    StatementError,
    Submission,
    UniqueViolationError,
    Value,
    await_submission,
    parameter_error,
    translate,
)

T = TypeVar("T")

SQLITE: Final = Dialect(
    name="sqlite",
    tokens={"bytes": "BLOB", "for_update": "", "skip_locked": ""},
    numbered=False,
    migration_lock="",
)

GROUP_LIMIT: Final = 1024
ROWS_PER_STATEMENT: Final = 256
# SQLite's own default; a statement with more variables is refused.
VARIABLES_PER_STATEMENT: Final = 32_766
INLINE_STEPS: Final = 5_000
SWITCH_INTERVAL: Final = 0.0005
# The log is cut to this size when it starts again; below it nothing is copied, so an idle server syncs
# nothing.
WAL_LIMIT: Final = 16 * 1024 * 1024
_CHECKPOINT: Final = "PRAGMA wal_checkpoint(PASSIVE)"

_log = logging.getLogger("muster.store")

_DRIVER_ERRORS: Final = (sqlite3.Error, sqlite3.Warning, OverflowError, UnicodeEncodeError)
_UNIQUE: Final = {
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
    sqlite3.SQLITE_CONSTRAINT_UNIQUE,
    sqlite3.SQLITE_CONSTRAINT_ROWID,
}
_STATEMENT: Final = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_RANGE,
    sqlite3.SQLITE_TOOBIG,
}
_RETRY_IN_THREAD: Final = {sqlite3.SQLITE_INTERRUPT, sqlite3.SQLITE_BUSY}

translate_cached = lru_cache(maxsize=2048)(partial(translate, SQLITE))


def neutral_error(error: BaseException) -> DatabaseError:
    """A new error of the port for one of ``sqlite3``, or for whatever else went wrong."""
    if isinstance(error, DatabaseError):
        return type(error)(str(error))
    if not isinstance(error, _DRIVER_ERRORS):
        return DatabaseUnavailableError(repr(error))
    if getattr(error, "sqlite_errorcode", None) in _UNIQUE:
        return UniqueViolationError(str(error))
    code = _primary_code(error)
    if code == sqlite3.SQLITE_CONSTRAINT:
        return ConstraintViolationError(str(error))
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return DatabaseBusyError(f"SQLite: {error}")
    if code in _STATEMENT:
        return StatementError(str(error))
    return DatabaseUnavailableError(f"SQLite: {error}")


def _primary_code(error: BaseException) -> int:
    """SQLite's result code without its extension; SQLITE_ERROR for what Python's own layer raised."""
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def _bind(sql: str, params: Mapping[str, Value]) -> str:
    statement = translate_cached(sql)
    if len(params) != len(statement.names):
        raise parameter_error(statement, params)
    for value in params.values():
        if isinstance(value, str) and "\0" in value:
            raise StatementError("text with a NUL character cannot be stored")
    return statement.text


class SqliteTransaction(Ending):
    """The port's ``Transaction``; its methods never suspend."""

    __slots__ = ("_connection", "_error")

    def __init__(self, connection: sqlite3.Connection) -> None:
        super().__init__()
        self._connection = connection
        self._error: DatabaseError | None = None

    async def execute(self, sql: str, **params: Value) -> int:
        cursor = self._run(sql, params)
        if cursor.description is not None:
            # RETURNING: the rows are counted when the last one has been read.
            cursor.fetchall()
        return max(cursor.rowcount, 0)

    async def fetch_one(self, sql: str, **params: Value) -> Row | None:
        return _first(self._run(sql, params))

    async def fetch_all(self, sql: str, **params: Value) -> list[Row]:
        return self._run(sql, params).fetchall()

    async def insert_rows(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        width = len(columns)
        # sqlite3 takes a bytearray as it is; for bytes it looks for an adapter first, which costs as much as the row.
        blobs = [column for column in range(width) if rows and type(rows[0][column]) is bytes]
        for count, start in _chunks(len(rows), VARIABLES_PER_STATEMENT // width):
            values: list[Any] = []
            for row in rows[start : start + count]:
                values += row
            for column in blobs:
                values[column::width] = [bytearray(v) if type(v) is bytes else v for v in values[column::width]]
            self._execute(_insert(table, tuple(columns), count), values)

    def _run(self, sql: str, params: Mapping[str, Value]) -> sqlite3.Cursor:
        return self._execute(_bind(sql, params), params)

    def _execute(self, text: str, params: Mapping[str, Value] | Sequence[Value]) -> sqlite3.Cursor:
        self.check()
        try:
            return self._connection.execute(text, params)
        except _DRIVER_ERRORS as error:
            self._error = neutral_error(error)
            raise self._error from error

    def check(self) -> None:
        """Refuse to go on after a failed statement: PostgreSQL would not either."""
        if self._error is not None:
            raise StatementError(f"the transaction is lost, a statement failed: {self._error}") from self._error

    def end(self) -> None:
        """Make sure that nobody uses the transaction after its body."""
        self._error = StatementError("its body has ended")


def _first(cursor: sqlite3.Cursor) -> Row | None:
    row: Row | None = cursor.fetchone()
    cursor.close()
    return row


@lru_cache(maxsize=256)
def _insert(table: str, columns: tuple[str, ...], count: int) -> str:
    row = f"({', '.join('?' * len(columns))})"
    # Names of tables and columns come from our own code, never from a client.
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES {', '.join([row] * count)}"


def _chunks(total: int, limit: int) -> Iterator[tuple[int, int]]:
    """(count, start) of each statement: powers of two, so that few statements are ever prepared."""
    start = 0
    count = ROWS_PER_STATEMENT
    while start < total:
        while count > total - start or count > limit:
            count //= 2
        yield count, start
        start += count


def _drive(body: Coroutine[Any, Any, T]) -> T:
    try:
        body.send(None)
    except StopIteration as stop:
        return cast("T", stop.value)
    body.close()
    raise RuntimeError("a transaction body awaited something other than its transaction")


class _Checkpointer:
    """The thread that copies the write-ahead log into the database; ``grown`` is called by the writer."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._wal = f"{path}-wal"
        self._connection = connection
        self._wake = threading.Event()
        self._pass = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._work, name="muster-checkpoint", daemon=True)
        self._thread.start()

    def grown(self, writer: sqlite3.Connection) -> None:
        """After a group: wake the thread when the log is long; help when it does not keep up.

        The log starts again from its beginning when all of it has been copied and the writer comes next.
        Under constant load the thread always misses the newest frames; they are few, and the writer copies
        them.
        """
        size = os.stat(self._wal).st_size  # noqa: PTH116 - once a commit, and a Path costs ten times as much
        if size > WAL_LIMIT:
            self._wake.set()
        if size > 4 * WAL_LIMIT:
            with self._pass:
                writer.execute(_CHECKPOINT)

    def _work(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            if self._stopped:
                return
            try:
                with self._pass:
                    self._connection.execute(_CHECKPOINT)
            except sqlite3.Error as error:
                # The data is safe in the log; the next pass tries again, and a full disk is told to the
                # writers.
                _log.warning("checkpoint failed: %s", error)

    def stop(self) -> None:
        self._stopped = True
        self._wake.set()
        self._thread.join()
        self._connection.close()


class _Writer:
    """The thread that runs bodies and commits them; ``None`` in the queue ends it."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        checkpointer: _Checkpointer,
        deliver: Callable[[list[Submission[Any]]], None],
    ) -> None:
        self.queue: queue.SimpleQueue[Submission[Any] | None] = queue.SimpleQueue()
        self._connection = connection
        self._checkpointer = checkpointer
        self._deliver = deliver
        self.thread = threading.Thread(target=self._work, name="muster-writer", daemon=True)
        self.thread.start()

    def _work(self) -> None:
        last = False
        while not last:
            group, last = self._take_group()
            if not group:
                continue
            try:
                self._commit(group)
            except BaseException as error:  # noqa: BLE001  # the thread lives on whatever happened
                self._fail(group, error)
            self._deliver(group)
            self._check_log()

    def _take_group(self) -> tuple[list[Submission[Any]], bool]:
        group: list[Submission[Any]] = []
        submission = self.queue.get()
        while submission is not None:
            group.append(submission)
            if len(group) == GROUP_LIMIT:
                return group, False
            try:
                submission = self.queue.get_nowait()
            except queue.Empty:
                return group, False
        return group, True

    def _commit(self, group: list[Submission[Any]]) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        alone = len(group) == 1
        for submission in group:
            if submission.skipped:
                submission.fail(asyncio.CancelledError())
            else:
                self._run(submission, alone=alone)
        if self._connection.in_transaction:
            self._connection.execute("COMMIT")

    def _run(self, submission: Submission[Any], *, alone: bool) -> None:
        if not alone:
            self._connection.execute("SAVEPOINT body")
        transaction = SqliteTransaction(self._connection)
        try:
            submission.result, submission.tellings = _drive(transaction.run(transaction, submission.body))
            transaction.check()
        except BaseException as error:  # noqa: BLE001  # it is the caller's, who gets it
            submission.fail(error)
            self._undo(error, alone=alone)
        else:
            if not alone:
                self._connection.execute("RELEASE body")
        finally:
            transaction.end()

    def _undo(self, error: BaseException, *, alone: bool) -> None:
        if alone:
            self._rollback()
        elif not self._connection.in_transaction:
            raise DatabaseUnavailableError(f"SQLite rolled all of the group back: {error}") from error
        else:
            self._connection.execute("ROLLBACK TO body")
            self._connection.execute("RELEASE body")

    def _fail(self, group: list[Submission[Any]], error: BaseException) -> None:
        """All of the group failed, also a body that raised: it may have read what its neighbours wrote."""
        _log.error("a group of %d transactions failed: %s", len(group), error)
        for submission in group:
            failure = neutral_error(error)
            failure.__cause__ = error
            submission.fail(failure)
        try:
            self._rollback()
        except sqlite3.Error as second:
            _log.error("rollback failed, it is tried again with the next group: %s", second)

    def _rollback(self) -> None:
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _check_log(self) -> None:
        try:
            self._checkpointer.grown(self._connection)
        except (OSError, sqlite3.Error) as error:
            _log.warning("checkpoint failed: %s", error)


class SqliteDatabase:
    """The port's ``Database``; made by :func:`open_sqlite`."""

    dialect = SQLITE

    def __init__(self, path: Path, *, durable: bool, busy_timeout: float, queue_limit: int) -> None:
        sys.setswitchinterval(min(SWITCH_INTERVAL, sys.getswitchinterval()))
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._queue_limit = queue_limit
        self._closing: asyncio.Future[None] | None = None
        connect = partial(_connect, path, durable=durable)
        self._write = connect(timeout=busy_timeout)
        self._inline = connect(timeout=0, read_only=True)
        self._inline.set_progress_handler(self._tick, INLINE_STEPS)
        self._ticks = 0
        self._slow = connect(timeout=busy_timeout, read_only=True)
        self._readers = ThreadPoolExecutor(1, thread_name_prefix="muster-reader")
        self._checkpointer = _Checkpointer(path, connect(timeout=busy_timeout))
        self._writer = _Writer(self._write, self._checkpointer, self._deliver)

    async def transact(self, body: Body[T]) -> T:
        return await await_submission(self.submit, body)

    def submit(self, body: Body[T], done: Done[T]) -> Submission[T]:
        self._check_open()
        if self._writer.queue.qsize() >= self._queue_limit:
            raise DatabaseBusyError(f"{self._queue_limit} transactions are waiting")
        submission = Submission(body, done)
        self._writer.queue.put(submission)
        return submission

    async def fetch_one(self, sql: str, **params: Value) -> Row | None:
        return await self._read(_first, sql, params)

    async def fetch_all(self, sql: str, **params: Value) -> list[Row]:
        return await self._read(sqlite3.Cursor.fetchall, sql, params)

    async def _read(self, take: Callable[[sqlite3.Cursor], T], sql: str, params: Mapping[str, Value]) -> T:
        self._check_open()
        if threading.get_ident() != self._thread:
            raise RuntimeError("a transaction body reads through its transaction")
        text = _bind(sql, params)
        self._ticks = 0
        try:
            return take(self._inline.execute(text, params))
        except sqlite3.OperationalError as error:
            if _primary_code(error) not in _RETRY_IN_THREAD:
                raise neutral_error(error) from error
        except _DRIVER_ERRORS as error:
            raise neutral_error(error) from error
        return await self._loop.run_in_executor(self._readers, self._read_slowly, take, text, params)

    def _read_slowly(self, take: Callable[[sqlite3.Cursor], T], text: str, params: Mapping[str, Value]) -> T:
        try:
            return take(self._slow.execute(text, params))
        except _DRIVER_ERRORS as error:
            raise neutral_error(error) from error

    def _tick(self) -> bool:
        # The steps count on from one use of a statement to the next: only the second tick tells of a slow
        # read.
        self._ticks += 1
        return self._ticks > 1

    def _deliver(self, group: list[Submission[Any]]) -> None:
        try:
            self._loop.call_soon_threadsafe(_hand_over, self._loop, group)
        except RuntimeError:
            _log.warning("the event loop is closed, nobody waits for %d transactions", len(group))

    def _check_open(self) -> None:
        if self._closing is not None:
            raise DatabaseClosedError("the database is closed")

    async def close(self) -> None:
        if self._closing is None:
            self._inline.close()
            self._closing = self._loop.run_in_executor(self._readers, self._shut)
            self._readers.shutdown(wait=False)
        await asyncio.shield(self._closing)

    def _shut(self) -> None:
        self._slow.close()
        self._writer.queue.put(None)
        self._writer.thread.join()
        self._checkpointer.stop()
        # The last connection to close copies the log into the database and removes it.
        self._write.close()


def _hand_over(loop: asyncio.AbstractEventLoop, group: list[Submission[Any]]) -> None:
    for submission in group:
        try:
            submission.settle()
        except Exception as error:  # noqa: BLE001  # one bad callback must not stop the others
            loop.call_exception_handler({"message": "a callback of submit() failed", "exception": error})


async def open_sqlite(
    path: Path, *, durable: bool = True, busy_timeout: float = 5.0, queue_limit: int = 10_000
) -> SqliteDatabase:
    """Open or create the database file, readable by its owner only.

    ``durable=False`` leaves out every sync to the disk, for data that need not survive. ``busy_timeout`` is
    in seconds, for another process that holds the lock; ``queue_limit`` is the number of transactions that
    may wait. Errors: DatabaseUnavailableError when the file cannot be opened or is not a database.
    """
    try:
        _make_private(path)
        return SqliteDatabase(path, durable=durable, busy_timeout=busy_timeout, queue_limit=queue_limit)
    except (OSError, sqlite3.Error) as error:
        raise DatabaseUnavailableError(f"cannot open {path}: {error}") from error


def _make_private(path: Path) -> None:
    """Create the file, or make it its owner's alone; SQLite gives the log and its index the same mode.

    A file that is there is never opened: closing any descriptor of it drops the POSIX locks that this process holds on
    it, SQLite's among them. The next program that opens and closes the database would take itself for the last one
    and remove the log, while this process goes on writing to it.
    """
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _connect(path: Path, *, durable: bool, timeout: float, read_only: bool = False) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}",
        uri=True,
        timeout=timeout,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    try:
        if not read_only:
            _prepare(connection, durable=durable)
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    except (OSError, sqlite3.Error):
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, *, durable: bool) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
    if mode != "wal":
        raise OSError("this file system cannot hold a write-ahead log")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    connection.execute("PRAGMA wal_autocheckpoint = 0")
    connection.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
    connection.execute("PRAGMA foreign_keys = ON")
