"""``kill -9`` and SIGTERM under load, to Muster and to its PostgreSQL: whatever was acknowledged is there afterwards,
once and in order, and what was begun is finished at the next start.
"""

import asyncio
import contextlib
import itertools
import json
import random
import signal
import sqlite3
import subprocess
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from tests.support.fix_pki import self_signed
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_server import (
    DEVELOPMENT_KEY,
    ID_SCOPE,
    MusterServer,
    StartServer,
    clean_environment,
    free_address,
)
from tests.support.mqtt_client import (
    ConnectionEndedError,
    Endpoint,
    MqttClient,
    TelemetryDevice,
    device_token,
    endpoint,
    finish_registration,
    open_registration,
    start_registration,
)
from tests.support.service_client import ServiceClient

KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
DEVICES = 6
ROUNDS = 3
REGISTRATIONS = 24

PARTITION_COUNTERS = "SELECT partition, next_sequence_number, next_offset FROM event_partition ORDER BY partition"
PARTITION_ROWS = (
    "SELECT partition, sum(message_count), min(last_sequence_number - message_count) + 1, max(last_sequence_number),"
    " max(next_offset) FROM event_batch GROUP BY partition ORDER BY partition"
)
REGISTRATIONS_STORED = "SELECT registration_id, operation_id, status FROM registration"


class Data:
    """Where a server keeps its data, and how a test looks at it from the side."""

    def __init__(self, dsn: str | None) -> None:
        self.dsn = dsn

    @property
    def options(self) -> tuple[str, ...]:
        return ("--database", self.dsn) if self.dsn else ()

    async def rows(self, server: MusterServer, sql: str) -> list[tuple]:
        """The rows of a SELECT, which is the same for both databases."""
        if self.dsn is None:
            connection = sqlite3.connect(server.data_directory / "muster.db")
            try:
                return connection.execute(sql).fetchall()
            finally:
                connection.close()
        connection = await asyncpg.connect(self.dsn)
        try:
            return [tuple(row) for row in await connection.fetch(sql)]
        finally:
            await connection.close()


@pytest.fixture
async def postgres_data(postgres_server: PostgresServer) -> AsyncIterator[Data]:
    async with postgres_server.fresh_database() as dsn:
        yield Data(dsn)


@pytest.fixture(params=["sqlite", "postgres"])
def data(request: pytest.FixtureRequest) -> Data:
    """The test runs once on each."""
    return Data(None) if request.param == "sqlite" else request.getfixturevalue("postgres_data")


def service_client(server: MusterServer) -> ServiceClient:
    return ServiceClient(server.address, server.ca_file.read_text(), DEVELOPMENT_KEY)


def make_devices(server: MusterServer) -> list[TelemetryDevice]:
    """Devices with a key each, known to the hub."""
    at = endpoint(server.address, server.ca_file)
    names = [f"load-{number}" for number in range(DEVICES)]
    with service_client(server) as client:
        for name in names:
            client.create_device(name, key=KEY)
    return [TelemetryDevice(at, name, device_token(server.address, name, KEY)) for name in names]


@asynccontextmanager
async def under_load(devices: Sequence[TelemetryDevice]) -> AsyncIterator[None]:
    """All devices send, and reconnect, until the end of the block."""
    async with asyncio.TaskGroup() as group:
        for device in devices:
            group.create_task(device.run())
        try:
            yield
        finally:
            await asyncio.gather(*(device.stop() for device in devices))


async def until_acknowledged(devices: Sequence[TelemetryDevice], more: int) -> None:
    """Wait until each device has had so many more acknowledgements, two minutes at most."""
    goals = [len(device.acknowledged) + more for device in devices]
    async with asyncio.timeout(120):
        while any(len(device.acknowledged) < goal for device, goal in zip(devices, goals, strict=True)):  # noqa: ASYNC110 - many devices, no single event
            await asyncio.sleep(0.01)


async def until_silent(devices: Sequence[TelemetryDevice]) -> None:
    """Nobody stores anything: once what was stored before is told, nothing more is acknowledged."""
    before = -1
    async with asyncio.timeout(60):
        while before != (before := sum(len(device.acknowledged) for device in devices)):  # noqa: ASYNC110 - silence has no event
            await asyncio.sleep(0.5)


def require_nothing_lost(server: MusterServer, devices: Sequence[TelemetryDevice]) -> None:
    """All that was acknowledged is in the log, once, in the order of each device, without a gap in any partition."""
    numbers: dict[str, list[int]] = defaultdict(list)
    next_in_partition: dict[int, int] = defaultdict(int)
    with service_client(server) as client:
        for event in client.events():
            assert event["sequenceNumber"] == next_in_partition[event["partition"]]
            next_in_partition[event["partition"]] += 1
            assert event["body"]["device"] == event["deviceId"]
            numbers[event["deviceId"]].append(event["body"]["seq"])
    for device in devices:
        assert device.faults == []
        assert device.acknowledged, f"{device.device_id} was never acknowledged anything"
        stored = numbers[device.device_id]
        assert all(one < two for one, two in itertools.pairwise(stored)), device.device_id
        missing = set(device.acknowledged).difference(stored)
        assert not missing, f"{device.device_id} lost {len(missing)} acknowledged messages: {sorted(missing)[:10]}"


async def require_counters_match(data: Data, server: MusterServer) -> None:
    """The counters of each partition say exactly what its rows say: both are of the same transactions."""
    counters = {row[0]: row[1:] for row in await data.rows(server, PARTITION_COUNTERS)}
    rows = {row[0]: row[1:] for row in await data.rows(server, PARTITION_ROWS)}
    assert rows
    for partition, (next_number, next_offset) in counters.items():
        if partition not in rows:
            assert (next_number, next_offset) == (0, 0)
            continue
        assert rows[partition] == (next_number, 0, next_number - 1, next_offset)


async def test_a_killed_server_loses_nothing_acknowledged(data: Data, start_server: StartServer) -> None:
    moments = random.Random(20_261_123)
    server = start_server(*data.options)
    devices = make_devices(server)
    for _ in range(ROUNDS):
        async with under_load(devices):
            await until_acknowledged(devices, 200)
            await asyncio.sleep(moments.uniform(0, 0.5))
            server.kill()
        await require_counters_match(data, server)
        await asyncio.to_thread(server.start)
        require_nothing_lost(server, devices)
    assert all(device.connections >= ROUNDS for device in devices)
    async with under_load(devices):
        await until_acknowledged(devices, 100)
    require_nothing_lost(server, devices)
    assert server.stop() == 0, server.output
    await require_counters_match(data, server)


async def test_a_server_that_is_asked_to_stop_under_load_keeps_its_word(data: Data, start_server: StartServer) -> None:
    server = start_server(*data.options)
    devices = make_devices(server)
    async with under_load(devices):
        await until_acknowledged(devices, 200)
        code = await asyncio.to_thread(server.stop, signal.SIGTERM)
    assert code == 0, server.output
    assert not server.status_file.exists()
    assert "Traceback" not in server.output, server.output
    await require_counters_match(data, server)
    await asyncio.to_thread(server.start)
    require_nothing_lost(server, devices)


# Registrations


@pytest.fixture
def enrolled(tmp_path: Path) -> dict[str, Path]:
    """Registration ids, and the directory with certificate and key of each."""
    names = [f"reg-{number:02}" for number in range(REGISTRATIONS)]
    for name in names:
        self_signed(name).write(tmp_path, name)
    return {name: tmp_path / name for name in names}


def registration_endpoint(server: MusterServer, files: Path) -> Endpoint:
    return endpoint(server.address, server.ca_file, files.with_suffix(".pem"), files.with_suffix(".key"))


async def register_until_killed(server: MusterServer, enrolled: dict[str, Path], moment: float) -> dict[str, str]:
    """All register again and again until the server is killed, ``moment`` seconds after each was told 202 once; the
    last operation id that each was told.
    """
    clients = {
        name: await open_registration(registration_endpoint(server, files), ID_SCOPE, name)
        for name, files in enrolled.items()
    }
    operations: dict[str, str] = {}
    all_answered = asyncio.Event()

    async def register(name: str, client: MqttClient) -> None:
        with contextlib.suppress(ConnectionEndedError):
            while True:
                operations[name] = await start_registration(client, name)
                if len(operations) == len(clients):
                    all_answered.set()

    async with asyncio.TaskGroup() as group:
        for name, client in clients.items():
            group.create_task(register(name, client))
        await all_answered.wait()
        await asyncio.sleep(moment)
        server.kill()
    for client in clients.values():
        client.abort()
    return operations


async def test_an_interrupted_assignment_is_finished_by_the_next_start(
    data: Data, start_server: StartServer, enrolled: dict[str, Path]
) -> None:
    moments = random.Random(20_261_124)
    server = start_server(*data.options)
    with service_client(server) as client:
        for name in enrolled:
            client.enroll(name, self_signed(name).certificate_pem.decode())
    interrupted: set[str] = set()
    for _ in range(20):
        told = await register_until_killed(server, enrolled, moments.uniform(0, 0.3))
        stored = {row[0]: row[1:] for row in await data.rows(server, REGISTRATIONS_STORED)}
        assert stored.keys() == enrolled.keys(), "all were told 202"
        # Not the ones whose 202 was lost with the server: those that were told, and not assigned.
        interrupted = {name for name, row in stored.items() if row == (told[name], "assigning")}
        unfinished = sum(status == "assigning" for _, status in stored.values())
        await asyncio.to_thread(server.start)
        for name, (operation, _) in stored.items():
            at = registration_endpoint(server, enrolled[name])
            client = await open_registration(at, ID_SCOPE, name)
            answer = await finish_registration(client, operation, 0.05)
            assert answer["status"] == "assigned", answer
            assert answer["registrationState"]["assignedHub"] == server.address
            client.abort()
        if interrupted:
            break
    assert interrupted, "no kill came between 202 and the assignment"
    with service_client(server) as client:
        for name in interrupted:
            assert client.registration(name)["status"] == "assigned"
            assert client.device(name)["status"] == "enabled"
    assert f"{unfinished} interrupted registrations" in server.output


# The database goes away


@pytest.fixture
def mortal_postgres() -> Iterator[PostgresServer]:
    """A server of this test's own."""
    server = PostgresServer(durable=True)
    yield server
    server.stop()


async def test_a_killed_postgres_costs_connections_and_nothing_else(
    mortal_postgres: PostgresServer, start_server: StartServer
) -> None:
    server = start_server("--database", mortal_postgres.dsn())
    devices = make_devices(server)
    async with under_load(devices):
        for _ in range(ROUNDS):
            await until_acknowledged(devices, 200)
            mortal_postgres.kill()
            await until_silent(devices)
            await asyncio.to_thread(mortal_postgres.start)
        await until_acknowledged(devices, 200)
    assert server.running, server.output
    assert all(device.connections > ROUNDS for device in devices)
    require_nothing_lost(server, devices)
    await require_counters_match(Data(mortal_postgres.dsn()), server)
    assert "ERROR   muster" not in server.output, server.output


# Starts that must not be


def failing_start(directory: Path, *options: str) -> tuple[int, str]:
    """Exit code and output of a ``muster up`` that is expected to refuse."""
    result = subprocess.run(
        [sys.executable, "-m", "muster", "up", *options],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=directory,
        env=clean_environment(),
        check=False,
    )
    return result.returncode, result.stdout + result.stderr


def test_a_second_server_on_the_same_data_is_refused(muster: MusterServer, tmp_path: Path) -> None:
    code, output = failing_start(tmp_path, "--address", free_address(), "--data-dir", str(muster.data_directory))
    assert code != 0
    assert f"Another muster uses the data directory {muster.data_directory}" in output
    assert "Traceback" not in output
    assert json.loads(muster.status_file.read_text())["pid"] == muster.pid, "the first one is still to be found"
    assert muster.running


def test_a_second_server_on_the_same_address_is_refused(muster: MusterServer, tmp_path: Path) -> None:
    code, output = failing_start(tmp_path, "--address", muster.address, "--data-dir", str(tmp_path / "other"))
    assert code != 0
    assert f"{muster.address} port 8883 is taken by another process" in output
    assert "Traceback" not in output
    assert not (tmp_path / "other" / "status.json").exists()


def test_the_lock_of_a_killed_server_is_gone_with_it(start_server: StartServer) -> None:
    server = start_server()
    server.kill()
    assert server.status_file.exists(), "nothing was cleaned up"
    server.start()
    assert server.status["pid"] == server.pid
