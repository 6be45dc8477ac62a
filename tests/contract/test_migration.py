"""The migration runner on both databases."""

import asyncio
from importlib.resources import files
from pathlib import Path

import pytest

from muster.hub.event_batches import STORED, events_of, runs_of
from muster.store.database import Database, SchemaError, StatementError, Transaction
from muster.store.migration import load_migrations, migrate

OWN = files("muster.store").joinpath("migrations")
FIRST = """
-- The first: it's a comment; with {bytes} and :words in it.
CREATE TABLE box (id BIGINT NOT NULL PRIMARY KEY, data {bytes}, words TEXT DEFAULT 'a; {b} :c');
INSERT INTO box (id) VALUES (1);
"""
SECOND = "ALTER TABLE box ADD COLUMN size BIGINT"
RECORDED = "SELECT number, name, time, oldest_code FROM schema_version ORDER BY number"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    directory = tmp_path / "migrations"
    directory.mkdir()
    (directory / "README.md").write_text("not a migration")
    (directory / "0001_initial.sql").write_text(FIRST)
    return directory


async def test_each_migration_is_applied_once_and_recorded(database: Database, directory: Path):
    assert await migrate(database, 1_000, directory) == ["initial"]
    (directory / "0002_size.sql").write_text(SECOND)
    assert await migrate(database, 2_000, directory) == ["size"]
    assert await migrate(database, 3_000, directory) == []
    assert await database.fetch_all(RECORDED) == [(1, "initial", 1_000, 1), (2, "size", 2_000, 2)]
    assert await database.fetch_all("SELECT id, data, words, size FROM box") == [(1, None, "a; {b} :c", None)]


async def test_several_processes_may_migrate_at_once(database: Database, directory: Path):
    (directory / "0002_size.sql").write_text(SECOND)
    applied = await asyncio.gather(*(migrate(database, 1_000, directory) for _ in range(8)))
    assert sorted(name for names in applied for name in names) == ["initial", "size"]
    assert len(await database.fetch_all(RECORDED)) == 2


async def test_a_migration_that_fails_leaves_nothing_of_itself(database: Database, directory: Path):
    (directory / "0002_broken.sql").write_text("CREATE TABLE other (id BIGINT); INSERT INTO nowhere VALUES (1);")
    with pytest.raises(StatementError):
        await migrate(database, 1_000, directory)
    assert await database.fetch_all(RECORDED) == [(1, "initial", 1_000, 1)]
    (directory / "0002_broken.sql").write_text("CREATE TABLE other (id BIGINT);")
    assert await migrate(database, 2_000, directory) == ["broken"]


async def test_a_database_newer_than_the_code_is_refused(database: Database, directory: Path):
    (directory / "0002_size.sql").write_text(SECOND)
    await migrate(database, 1_000, directory)
    (directory / "0002_size.sql").unlink()
    with pytest.raises(SchemaError, match="has schema 0002 and needs code that knows 0002; this code knows up to 0001"):
        await migrate(database, 2_000, directory)


async def test_an_addition_that_older_code_need_not_know_is_accepted_by_it(database: Database, directory: Path):
    (directory / "0002_size.sql").write_text(f"-- oldest code: 0001\n{SECOND}")
    await migrate(database, 1_000, directory)
    (directory / "0002_size.sql").unlink()
    assert await migrate(database, 2_000, directory) == []


async def test_a_database_of_other_migrations_is_refused(database: Database, directory: Path):
    await migrate(database, 1_000, directory)
    (directory / "0001_initial.sql").rename(directory / "0001_first.sql")
    with pytest.raises(SchemaError, match="migration 0001 of the database is initial, of this code first"):
        await migrate(database, 2_000, directory)


async def test_musters_own_migrations_apply(database: Database):
    applied = await migrate(database, 1_000)
    assert applied[0] == "initial"
    assert await migrate(database, 2_000) == []


@pytest.mark.parametrize("name", ["0003_gap.sql", "0001_double.sql", "2_short.sql", "0002-dash.sql"])
def test_a_wrong_name_a_gap_and_a_double_are_refused(directory: Path, name: str):
    (directory / name).write_text("SELECT 1")
    with pytest.raises(SchemaError):
        load_migrations(directory)


async def test_events_with_a_row_each_become_batches(database: Database, tmp_path: Path):
    """What a log of an older Muster holds is read as it was."""
    older = tmp_path / "older"
    older.mkdir()
    for name, migration in load_migrations(OWN).items():
        if name < 7:
            file = f"{name:04}_{migration.name}.sql"
            (older / file).write_text(OWN.joinpath(file).read_text())
    await migrate(database, 1_000, older)
    head = ("Telemetry", "d\u00e9", "m", "638", "{}", "dtmi:x;1", '{"message-id":"7"}', '{"a":"\u20ac"}')
    rows = [
        ("hub", partition, number, 3 * number, 5_000 + number, *head, bytes([0, number % 256]))
        for partition in (0, 1)
        for number in range(7, 1_300)
    ]
    columns = "hub partition sequence_number event_offset enqueued_time source device_id module_id generation_id"
    columns += " authentication_method model_id system_properties application_properties body"

    async def fill(transaction: Transaction) -> None:
        await transaction.insert_rows("event", columns.split(), rows)

    await database.transact(fill)
    await migrate(database, 2_000)
    batches = await database.fetch_all(f"SELECT {STORED} FROM event_batch ORDER BY partition, last_sequence_number")
    events = [event for batch in batches for run in runs_of(batch, 0, 10) for event in events_of(run, batch[0])]
    assert [(event.partition, event.sequence_number, event.offset, event.body) for event in events] == [
        (row[1], row[2], str(row[3]), row[-1]) for row in rows
    ]
    assert events[5].origin.device_id == "d\u00e9"
    assert events[5].application_properties == {"a": "\u20ac"}
    with pytest.raises(StatementError):
        await database.fetch_all("SELECT 1 FROM event")
