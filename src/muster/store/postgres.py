"""The PostgreSQL driver: a pool of asyncpg connections, each body in a transaction of its own.

Not here: SQL of the project, and the schema. The port and its rules are in ``store/database.py``, the choice of READ
COMMITTED and its measurement as well.

A body is run again, up to ``ATTEMPTS`` times in all, when PostgreSQL gives its transaction up (serialization failure,
deadlock) or the connection breaks before COMMIT. When it breaks during COMMIT nobody knows whether the data is stored:
the caller gets OutcomeUnknownError, and nothing is repeated. Bodies start in the order of submission and end in any.

``insert_rows`` is COPY. asyncpg's reset of a connection after each use is left out: it costs a round trip, and no body
changes its session.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, Final, TypeVar

import asyncpg

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
    OutcomeUnknownError,
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

# Any number will do as long as it stays the same; this one is "muster" in ASCII.
POSTGRES: Final = Dialect(
    name="postgres",
    tokens={"bytes": "BYTEA", "for_update": "FOR UPDATE", "skip_locked": "FOR UPDATE SKIP LOCKED"},
    numbered=True,
    migration_lock="SELECT pg_advisory_xact_lock(120351215609202)",
)

ATTEMPTS: Final = 5
_BEGIN: Final = "BEGIN ISOLATION LEVEL READ COMMITTED"

_DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    OverflowError,
    TypeError,
    UnicodeEncodeError,
)
# PostgreSQL gave the transaction up, or asyncpg's cached plan is older than a migration: the same body may
# succeed.
_GIVEN_UP: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
)
_BUSY: Final = (asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError, *_GIVEN_UP)
# SQLSTATE classes: connection, insufficient resources, operator intervention, system error, internal error.
_UNAVAILABLE_CLASSES: Final = ("08", "53", "57", "58", "XX")
_LOST_STATES: Final = ("08", "57P")
# InternalClientError: a statement on a connection that the server has ended, before asyncpg noticed.
_LOST_ERRORS: Final = (OSError, asyncpg.InternalClientError)

translate_cached = lru_cache(maxsize=2048)(partial(translate, POSTGRES))


def neutral_error(error: BaseException, *, lost: bool = False) -> DatabaseError:
    """A new error of the port for one of asyncpg. ``lost``: the connection is closed."""
    if isinstance(error, asyncpg.UniqueViolationError):
        return UniqueViolationError(str(error))
    if isinstance(error, asyncpg.IntegrityConstraintViolationError):
        return ConstraintViolationError(str(error))
    if isinstance(error, _BUSY):
        return DatabaseBusyError(f"PostgreSQL: {error}")
    state = getattr(error, "sqlstate", None) or ""
    if lost or isinstance(error, OSError) or state.startswith(_UNAVAILABLE_CLASSES):
        return DatabaseUnavailableError(f"PostgreSQL: {_detail(error)}")
    return StatementError(str(error))


def _detail(error: BaseException) -> str:
    return str(error) or repr(error)


def _is_closed(connection: asyncpg.Connection) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:
        return True  # the pool has taken a broken connection back


def _is_lost(error: BaseException, connection: asyncpg.Connection) -> bool:
    state = getattr(error, "sqlstate", None) or ""
    return isinstance(error, _LOST_ERRORS) or state.startswith(_LOST_STATES) or _is_closed(connection)


def _is_worth_another(error: BaseException, *, lost: bool) -> bool:
    return isinstance(error, _GIVEN_UP) or (lost and not isinstance(error, TimeoutError))


def _bind(sql: str, params: Mapping[str, Value]) -> tuple[str, list[Value]]:
    statement = translate_cached(sql)
    try:
        values = [params[name] for name in statement.names]
    except KeyError:
        raise parameter_error(statement, params) from None
    if len(values) != len(params):
        raise parameter_error(statement, params)
    return statement.text, values


def _count(tag: str) -> int:
    """Rows changed, from a command tag such as ``INSERT 0 3``, ``UPDATE 3`` or ``CREATE TABLE``."""
    words = tag.split()
    return int(words[-1]) if words[0] in {"INSERT", "UPDATE", "DELETE"} else 0


class PostgresTransaction(Ending):
    """The port's ``Transaction``; after ``again`` a new attempt is sensible."""

    __slots__ = ("_connection", "_error", "again")

    def __init__(self, connection: asyncpg.Connection) -> None:
        super().__init__()
        self._connection = connection
        self._error: DatabaseError | None = None
        self.again = False

    async def begin(self) -> None:
        await self._run(self._connection.execute(_BEGIN))

    async def execute(self, sql: str, **params: Value) -> int:
        text, values = self._bind(sql, params)
        return _count(await self._run(self._connection.execute(text, *values)))

    async def fetch_one(self, sql: str, **params: Value) -> Row | None:
        text, values = self._bind(sql, params)
        row = await self._run(self._connection.fetchrow(text, *values))
        return None if row is None else tuple(row)

    async def fetch_all(self, sql: str, **params: Value) -> list[Row]:
        text, values = self._bind(sql, params)
        return [tuple(row) for row in await self._run(self._connection.fetch(text, *values))]

    async def insert_rows(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        self.check()
        await self._run(self._connection.copy_records_to_table(table, columns=columns, records=rows))

    def _bind(self, sql: str, params: Mapping[str, Value]) -> tuple[str, list[Value]]:
        self.check()
        return _bind(sql, params)

    async def _run(self, statement: Awaitable[Any]) -> Any:
        try:
            return await statement
        except _DRIVER_ERRORS as error:
            lost = _is_lost(error, self._connection)
            self.again = _is_worth_another(error, lost=lost)
            self._error = neutral_error(error, lost=lost)
            raise self._error from error

    def check(self) -> None:
        """Refuse to go on after a failed statement: PostgreSQL turns such a COMMIT into a silent ROLLBACK."""
        if self._error is not None:
            raise StatementError(f"the transaction is lost, a statement failed: {self._error}") from self._error

    def end(self) -> None:
        """Make sure that nobody uses the transaction after its body."""
        self._error = StatementError("its body has ended")


class _AgainError(Exception):
    """The attempt was lost; ``__cause__`` is what the body raised."""


class PostgresDatabase:
    """The port's ``Database``; made by :func:`open_postgres`."""

    dialect = POSTGRES

    def __init__(self, pool: asyncpg.Pool, *, queue_limit: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._pool = pool
        self._queue_limit = queue_limit
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None

    async def transact(self, body: Body[T]) -> T:
        return await await_submission(self.submit, body)

    def submit(self, body: Body[T], done: Done[T]) -> Submission[T]:
        self._check_open()
        if len(self._tasks) >= self._queue_limit:
            raise DatabaseBusyError(f"{self._queue_limit} transactions are waiting")
        submission = Submission(body, done)
        task = self._loop.create_task(self._settle(submission))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return submission

    async def fetch_one(self, sql: str, **params: Value) -> Row | None:
        text, values = _bind(sql, params)
        row = await self._read(lambda connection: connection.fetchrow(text, *values))
        return None if row is None else tuple(row)

    async def fetch_all(self, sql: str, **params: Value) -> list[Row]:
        text, values = _bind(sql, params)
        return [tuple(row) for row in await self._read(lambda connection: connection.fetch(text, *values))]

    async def close(self) -> None:
        if self._closing is None:
            self._closing = self._loop.create_task(self._shut())
        await asyncio.shield(self._closing)

    async def _shut(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)
        await self._pool.close()

    def _check_open(self) -> None:
        if self._closing is not None:
            raise DatabaseClosedError("the database is closed")

    async def _settle(self, submission: Submission[T]) -> None:
        try:
            result, tellings = await self._persist(submission)
            submission.result, submission.tellings = result, tellings
        except BaseException as error:  # noqa: BLE001  # it is the caller's, who gets it
            submission.fail(error)
        try:
            submission.settle()
        except Exception as error:  # noqa: BLE001  # as for any callback of the event loop
            self._loop.call_exception_handler({"message": "a callback of submit() failed", "exception": error})

    async def _persist(self, submission: Submission[T]) -> tuple[T, Sequence[Callable[[], None]]]:
        for attempt in range(ATTEMPTS):
            # Whoever won gets a head start that grows: 0, 2, 8, 18, 32 ms.
            await asyncio.sleep(0.002 * attempt * attempt)
            try:
                return await self._attempt(submission)
            except _AgainError as lost:
                cause = lost.__cause__
        assert cause is not None
        raise cause

    async def _attempt(self, submission: Submission[T]) -> tuple[T, Sequence[Callable[[], None]]]:
        connection = await self._acquire()
        try:
            if submission.skipped:
                raise asyncio.CancelledError
            return await _run(connection, submission.body)
        finally:
            await self._release(connection)

    async def _read(self, query: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        for again in (True, False):
            self._check_open()
            connection = await self._acquire()
            try:
                return await query(connection)
            except _DRIVER_ERRORS as error:
                lost = _is_lost(error, connection)
                if not (again and _is_worth_another(error, lost=lost)):
                    raise neutral_error(error, lost=lost) from error
            finally:
                await self._release(connection)
        raise AssertionError("the second attempt returns or raises")

    async def _acquire(self) -> asyncpg.Connection:
        try:
            return await self._pool.acquire()
        except _DRIVER_ERRORS as error:
            raise DatabaseUnavailableError(f"PostgreSQL: no connection: {_detail(error)}") from error

    async def _release(self, connection: asyncpg.Connection) -> None:
        # A failure here says nothing about the transaction, which has its result; asyncpg drops the
        # connection.
        with contextlib.suppress(*_DRIVER_ERRORS):
            await self._pool.release(connection)


async def _run(connection: asyncpg.Connection, body: Body[T]) -> tuple[T, Sequence[Callable[[], None]]]:
    transaction = PostgresTransaction(connection)
    try:
        await transaction.begin()
        result = await transaction.run(transaction, body)
        transaction.check()
    except BaseException as error:
        await _roll_back(connection)
        if transaction.again:
            raise _AgainError from error
        raise
    finally:
        transaction.end()
    await _commit(connection)
    return result


async def _commit(connection: asyncpg.Connection) -> None:
    try:
        await connection.execute("COMMIT")
    except _DRIVER_ERRORS as error:
        if _is_lost(error, connection):
            raise OutcomeUnknownError(f"PostgreSQL: the connection broke during COMMIT: {_detail(error)}") from error
        failure = neutral_error(error)
        if isinstance(error, _GIVEN_UP):
            raise _AgainError from failure
        raise failure from error


async def _roll_back(connection: asyncpg.Connection) -> None:
    if _is_closed(connection):
        return
    try:
        await connection.execute("ROLLBACK")
    except _DRIVER_ERRORS:
        if not _is_closed(connection):
            connection.terminate()


async def open_postgres(
    dsn: str, *, connections: int = 10, queue_limit: int = 10_000, statement_timeout: float = 30.0
) -> PostgresDatabase:
    """Connect to the database that ``dsn`` names (``postgresql://user:password@host:5432/name``).

    ``connections`` is the size of the pool and so the number of transactions at once; ``queue_limit`` that
    of all that run or wait; ``statement_timeout`` in seconds, for connecting and for one statement. Errors:
    DatabaseUnavailableError.
    """
    try:
        pool = await asyncpg.create_pool(
            dsn,
            min_size=1,
            max_size=connections,
            timeout=statement_timeout,
            command_timeout=statement_timeout,
            init=_prepare,
            reset=_keep,
            server_settings={"application_name": "muster"},
        )
    except (*_DRIVER_ERRORS, ValueError) as error:
        raise DatabaseUnavailableError(f"PostgreSQL: no connection: {_detail(error)}") from error
    return PostgresDatabase(pool, queue_limit=queue_limit)


async def _prepare(connection: asyncpg.Connection) -> None:
    # sum() of BIGINT is NUMERIC here; it is an integer for the port.
    await connection.set_type_codec("numeric", schema="pg_catalog", encoder=str, decoder=int, format="text")
    # What is acknowledged is on disk, whatever the server's default; stronger settings are left alone.
    await connection.execute(
        "SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'"
    )


async def _keep(_connection: asyncpg.Connection) -> None:
    """In place of asyncpg's reset of a connection."""
