"""The database port: one SQL text for SQLite and PostgreSQL, three verbs, and the errors a caller may see.

Not here: the drivers (``sqlite.py``, ``postgres.py``), the schema (``migrations/``) and its runner
(``migration.py``). SQL stands beside the operation that uses it (style-models.md 11.4 a).

**SQL.** Parameters are ``:name``. Values are integers of 64 bits, text, bytes and NULL; columns are
``BIGINT``, ``TEXT`` and ``{bytes}``; a boolean is 0 or 1, a time is microseconds since 1970 UTC, a document
is JSON text; a float is a parameter only, for what a query computes. Text holds no NUL character and no lone
surrogate. What differs between the databases is a closed list of tokens, written in braces outside of string
literals:

* ``{bytes}``: the binary column type;
* ``{for_update}``: after a SELECT, lock the rows read until the transaction ends;
* ``{skip_locked}``: the same, passing over rows that another transaction has locked.

**Transactions.** ``transact(body)`` commits all that ``body`` wrote, or nothing. A body has no side effect but its
statements, awaits nothing but its transaction, and may be run more than once. After a statement failed, the
transaction is lost: a body may not catch the error and go on (it may raise another one instead).

**Isolation, and what to lock.** On SQLite transactions come one after the other. On PostgreSQL they run at the same
time under READ COMMITTED: a statement sees what was committed when it began, and writers of one row wait for each
other. So what a body reads in order to decide what to write is read with ``{for_update}``, or the decision stands
in the writing statement (``WHERE etag = :etag``, ``ON CONFLICT DO NOTHING``). A count, or a row that is not there,
cannot be locked: lock the row that all writers share, such as the device's. Take several locks in one order
everywhere; what has to come after all other locks of a transaction is deferred (``Transaction.defer``). A driver
runs a body again when PostgreSQL gives it up (deadlock) or the connection breaks before COMMIT, at most five times
in all.

Measured against that (PostgreSQL 18, eight workers, then 32): an unlocked read-decide-write of one row lost 871
and 966 of 1,000 updates, a locked one none. SERIALIZABLE loses none without locks but runs bodies again, 1.4 and
2.5 times on the average and up to 18 times, because SKIP LOCKED and waiting for a row no longer help: "lock next
message" fell from 2,036 to 1,090 transactions/s and from 2,240 to 158, its 99th percentile rose from 27 to 1,378
ms; appends to four partitions fell from 960 to 731 and from 888 to 215 (``tests/bench/bench_store.py
--isolation``). Every way of claiming something has a contract test with many workers in
``tests/contract/test_database_claims.py``.

**Acknowledge.** When ``transact`` returns, the data is on disk. An error means: not stored, with one
exception that says so (:class:`OutcomeUnknownError`).
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from muster.domain.errors import UnavailableError

T = TypeVar("T")

Value = int | float | str | bytes | None
Row = tuple[Any, ...]


class DatabaseError(Exception):
    """Base of all that a database raises; errors of the driver's own library never reach a caller."""


class ConstraintViolationError(DatabaseError):
    """A foreign key, NOT NULL or CHECK refused the change."""


class UniqueViolationError(ConstraintViolationError):
    """The row exists: a primary key or a unique index refused a second one."""


class StatementError(DatabaseError):
    """The statement or a value is wrong: a bug of the caller, or a value that cannot be stored."""


class SchemaError(DatabaseError):
    """The schema of this database and the migrations of this code do not fit together."""


class DatabaseUnavailableError(DatabaseError, UnavailableError):
    """The database cannot serve now (connection lost, disk full); nothing was stored.

    Clients are told 503 with the default message; ``str(error)`` has the detail, for the log.
    """

    def __init__(self, detail: str) -> None:
        super().__init__()
        self.detail = detail

    def __str__(self) -> str:
        return self.detail


class DatabaseBusyError(DatabaseUnavailableError):
    """Too much is waiting, another process holds the lock, or the retries are used up; nothing was stored."""


class DatabaseClosedError(DatabaseUnavailableError):
    """``close()`` was called."""


class OutcomeUnknownError(DatabaseUnavailableError):
    """The connection was lost during COMMIT: the data may be stored or not. Never retried by a driver."""


class Transaction(Protocol):
    """What a body works with. Its rows are tuples in the order of the SELECT."""

    async def execute(self, sql: str, **params: Value) -> int:
        """Run one statement; returns the number of rows it inserted, updated or deleted."""
        ...

    async def fetch_one(self, sql: str, **params: Value) -> Row | None:
        """Run one SELECT, or one statement with RETURNING; the first row, or None."""
        ...

    async def fetch_all(self, sql: str, **params: Value) -> list[Row]:
        """Run one SELECT, or one statement with RETURNING; all rows."""
        ...

    async def insert_rows(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Value]]) -> None:
        """Append many rows the fastest way this database has; values stand in the order of ``columns``."""
        ...

    def defer(self, finish: "Finish[T]", item: T) -> None:
        """Call ``finish(transaction, items)`` once, after the body and before COMMIT, with all that was deferred to it.

        For rows that many transactions lock: they are locked for a short time, and after all others.
        """
        ...

    def after_commit(self, tell: Callable[[], None]) -> None:
        """Call ``tell`` on the loop after the commit, and not at all if there is none."""
        ...


Finish = Callable[[Transaction, list[T]], Awaitable[None]]


class Ending:
    """What is put off until the end of a transaction, the same for every driver."""

    __slots__ = ("_deferred", "_tellings")

    def __init__(self) -> None:
        self._deferred: dict[Finish[Any], list[Any]] | None = None
        self._tellings: list[Callable[[], None]] | None = None

    def defer(self, finish: Finish[T], item: T) -> None:
        if self._deferred is None:
            self._deferred = {}
        self._deferred.setdefault(finish, []).append(item)

    def after_commit(self, tell: Callable[[], None]) -> None:
        if self._tellings is None:
            self._tellings = []
        self._tellings.append(tell)

    async def run(self, transaction: Transaction, body: "Body[T]") -> tuple[T, Sequence[Callable[[], None]]]:
        """The body, then what it deferred; its result, and what to call after the commit."""
        result = await body(transaction)
        for finish, items in (self._deferred or {}).items():
            await finish(transaction, items)
        return result, self._tellings or ()


Body = Callable[[Transaction], Coroutine[Any, Any, T]]
Done = Callable[[T | None, BaseException | None], None]


class Submission(Generic[T]):
    """A body on its way. ``skip()`` before it was started leaves it out; later it changes nothing."""

    __slots__ = ("body", "done", "error", "result", "skipped", "tellings")

    def __init__(self, body: Body[T], done: Done[T]) -> None:
        self.body = body
        self.done = done
        self.result: T | None = None
        self.error: BaseException | None = None
        self.skipped = False
        self.tellings: Sequence[Callable[[], None]] = ()

    def skip(self) -> None:
        self.skipped = True

    def fail(self, error: BaseException) -> None:
        self.result = None
        self.error = error
        self.tellings = ()

    def settle(self) -> None:
        """On the loop, after the commit or instead of it."""
        try:
            for tell in self.tellings:
                tell()
        finally:
            self.done(self.result, self.error)


class Database(Protocol):
    """An open database; all methods are called on the event loop that opened it.

    The functions that open one are ``sqlite.open_sqlite`` and ``postgres.open_postgres``.
    """

    @property
    def dialect(self) -> "Dialect":
        """How SQL text is spelled here; the migration runner and the query language ask for it, nobody else should."""
        ...

    async def transact(self, body: Body[T]) -> T:
        """Run ``body(transaction)`` and commit; returns what the body returned, or raises what it raised.

        If the waiting task is cancelled, a transaction that was not started is left out; one that was
        started goes on to its end.
        """
        ...

    def submit(self, body: Body[T], done: Done[T]) -> Submission[T]:
        """``transact`` without a future: ``done(result, error)`` is called on the loop after the commit.

        ``error`` is None on success. ``done`` is never called from within ``submit``. Errors:
        DatabaseClosedError and DatabaseBusyError (the queue is full) are raised at once, and ``done`` is not
        called then.
        """
        ...

    async def fetch_one(self, sql: str, **params: Value) -> Row | None:
        """The first row of a SELECT on committed data, or None; sees all that was acknowledged before."""
        ...

    async def fetch_all(self, sql: str, **params: Value) -> list[Row]:
        """All rows of a SELECT on committed data; one SELECT is one consistent snapshot."""
        ...

    async def close(self) -> None:
        """Finish what was submitted, then close; later calls raise DatabaseClosedError. Twice is fine."""
        ...


async def await_submission(submit: Callable[[Body[T], Done[T]], Submission[T]], body: Body[T]) -> T:
    """``transact`` in terms of ``submit``, the same for every driver."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def done(result: T | None, error: BaseException | None) -> None:
        if future.cancelled():
            return
        if error is None:
            future.set_result(result)  # type: ignore[arg-type]  # without an error the result is a T
        else:
            future.set_exception(error)

    submission = submit(body, done)
    try:
        return await future
    except asyncio.CancelledError:
        submission.skip()
        raise


@dataclass(frozen=True, slots=True)
class Dialect:
    """How SQL text is spelled for one database. ``numbered``: parameters are $1, $2, ... instead of :name."""

    name: str
    tokens: Mapping[str, str]
    numbered: bool
    migration_lock: str


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL text as the driver takes it, and the names of its parameters in the order of $1, $2, ..."""

    text: str
    names: tuple[str, ...]


# String literals, quoted identifiers, comments and casts are matched first: nothing inside them is replaced.
_LEXEMES = re.compile(
    r"""
      (?P<verbatim> '(?:[^']|'')*' | "(?:[^"]|"")*" | --[^\n]* | /\*.*?\*/ | :: )
    | :(?P<parameter> [A-Za-z_][A-Za-z0-9_]* )
    | \{(?P<token> [^{}]* )\}
    | (?P<end> ; )
    """,
    re.VERBOSE | re.DOTALL,
)


def translate(dialect: Dialect, sql: str) -> Statement:
    """SQL of this project in the words of ``dialect``. Drivers keep the result in a cache.

    Errors: StatementError for a token that is not on the list of this module.
    """
    names: dict[str, int] = {}

    def replace(match: re.Match[str]) -> str:
        if (name := match["parameter"]) is not None:
            number = names.setdefault(name, len(names) + 1)
            return f"${number}" if dialect.numbered else match[0]
        if (token := match["token"]) is not None:
            if token not in dialect.tokens:
                raise StatementError(f"unknown token {{{token}}}; there are {', '.join(sorted(dialect.tokens))}")
            return dialect.tokens[token]
        return match[0]

    text = _LEXEMES.sub(replace, sql)
    return Statement(text, tuple(names))


def split_statements(script: str) -> list[str]:
    """The statements of a script, without their semicolons; empty ones are left out."""
    ends = [match.start() for match in _LEXEMES.finditer(script) if match["end"]]
    starts = [0, *(end + 1 for end in ends)]
    parts = [script[start:end].strip() for start, end in zip(starts, [*ends, len(script)], strict=True)]
    return [part for part in parts if _has_words(part)]


def _has_words(part: str) -> bool:
    without_comments = _LEXEMES.sub(lambda match: "" if match[0].startswith(("--", "/*")) else match[0], part)
    return bool(without_comments.strip())


def parameter_error(statement: Statement, params: Iterable[str]) -> StatementError:
    """What to raise when the parameters given are not those of the statement; names them."""
    given = set(params)
    missing = [name for name in statement.names if name not in given]
    surplus = sorted(given.difference(statement.names))
    return StatementError(f"parameters missing: {missing}, not in the statement: {surplus}: {statement.text}")
