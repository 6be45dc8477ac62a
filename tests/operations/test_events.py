"""The event log: what is taken is acknowledged once and in order, what is stored is read once and in order."""

import asyncio
import dataclasses
import sqlite3
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.fix_mqtt import MqttClients
from tests.support.fix_services import KEY, NOW, Clock, Services, build_services

from muster.bus.bus import LocalBus
from muster.domain.device import AuthenticationBody, IdentityBody, SymmetricKeyBody
from muster.domain.errors import NotFoundError
from muster.domain.message import Event
from muster.domain.timestamp import SECOND
from muster.hub.event_batches import Head, Messages
from muster.hub.events import MAXIMUM_READ, EventLog, Position
from muster.store.database import DatabaseClosedError
from muster.store.migration import migrate
from muster.store.sqlite import open_sqlite
from muster.wire.mqtt_packets import Puback, Publish

PARTITIONS = 4
START = Position((0,) * PARTITIONS)
NO_SUCH_PARTITION = 99


def head(device_id: str, application_properties: str = "{}") -> Head:
    return ("Telemetry", device_id, "", "638", "{}", "", "{}", application_properties)


class Sender:
    """A connection: its messages are numbered, and it keeps what it is told of each of its batches."""

    def __init__(self, log: EventLog, name: str, partition: int, hub: str = "hub") -> None:
        self.log = log
        self.name = name
        self.partition = partition
        self.hub = hub
        self.sent = 0
        self.batches = 0
        self.told: list[tuple[int, BaseException | None]] = []
        self._news = asyncio.Event()

    def send(self, count: int = 1) -> None:
        """One batch of so many messages."""
        bodies = [f"{self.name} {self.sent + number}".encode() for number in range(count)]
        self.sent += count
        number = self.batches
        self.batches += 1
        self.log.append(
            self.hub, self.partition, Messages.of((head(self.name), bodies)), lambda error: self._hear(number, error)
        )

    def _hear(self, number: int, error: BaseException | None) -> None:
        self.told.append((number, error))
        self._news.set()

    async def settled(self) -> list[BaseException | None]:
        """What came of each batch, in their order, once all have been told of."""
        async with asyncio.timeout(30):
            while len(self.told) < self.batches:
                self._news.clear()
                await self._news.wait()
        await asyncio.sleep(0)  # a second call for one batch would come about now
        assert [number for number, _ in self.told] == list(range(self.batches)), "once each, and in order"
        return [error for _, error in self.told]


def bodies_of(events: Sequence[Event], name: str) -> list[str]:
    return [event.body.decode() for event in events if event.origin.device_id == name]


def numbered(name: str, count: int) -> list[str]:
    return [f"{name} {number}" for number in range(count)]


async def everything(log: EventLog, hub: str = "hub") -> list[Event]:
    """All events, by pages of 7."""
    position = START
    events: list[Event] = []
    while True:
        page, position = await log.read(hub, position, 7)
        if not page:
            return events
        events += page


async def count_transactions(services: Services) -> int:
    """How many transactions have changed the first partition: each of them reserves sequence numbers once."""
    row = await services.database.fetch_one("SELECT count FROM reserved")
    assert row is not None
    return int(row[0])


@pytest.fixture
async def counted(services: Services) -> Services:
    """The database counts the times that sequence numbers of partition 0 are reserved."""

    async def body(tx) -> None:
        await tx.execute("CREATE TABLE reserved (count BIGINT NOT NULL)")
        await tx.execute("INSERT INTO reserved (count) VALUES (0)")
        await tx.execute(
            "CREATE TRIGGER reserving AFTER UPDATE ON event_partition WHEN new.partition = 0"
            " BEGIN UPDATE reserved SET count = count + 1; END"
        )

    await services.database.transact(body)
    return services


# Taking


async def test_a_message_is_stored_whole(services: Services) -> None:
    sender = Sender(services.events, "d1", 2)
    run = (
        ("Telemetry", "d1", "m1", "638", '{"scope":"module"}', "dtmi:x;1", '{"message-id":"7"}', '{"a":"1"}'),
        [b"\0"],
    )
    told: list[BaseException | None] = []
    services.events.append("hub", 2, Messages.of(run), told.append)
    sender.send()
    await sender.settled()

    assert told == [None]
    first, second = await everything(services.events)
    assert (first.partition, first.sequence_number, first.offset, first.enqueued_time) == (2, 0, "0", NOW)
    assert (first.source, first.origin.device_id, first.origin.module_id) == ("Telemetry", "d1", "m1")
    assert (first.origin.generation_id, first.origin.authentication_method) == ("638", '{"scope":"module"}')
    assert first.origin.model_id == "dtmi:x;1"
    assert first.system_properties == {"message-id": "7"}
    assert first.application_properties == {"a": "1"}
    assert first.body == b"\0"
    assert (second.sequence_number, second.offset) == (1, "2")


async def test_the_properties_of_each_run_are_its_own(services: Services) -> None:
    told: list[BaseException | None] = []
    runs = [(head("d1", '{"n":"1"}'), [b"1", b"1"]), (head("d1", '{"n":"2"}'), [b"2"]), (head("d1"), [b""])]
    services.events.append("hub", 0, Messages.of(*runs), told.append)
    sender = Sender(services.events, "d2", 0)
    sender.send()
    await sender.settled()

    events = await everything(services.events)
    assert [event.application_properties.get("n") for event in events] == ["1", "1", "2", None, None]
    assert [event.body for event in events] == [b"1", b"1", b"2", b"", b"d2 0"]


async def test_connections_are_told_after_the_commit(services: Services, tmp_path: Path) -> None:
    path = tmp_path / "muster.db"
    seen: list[int] = []

    def committed(error: BaseException | None) -> None:
        assert error is None
        other = sqlite3.connect(path)
        seen.append(other.execute("SELECT sum(message_count) FROM event_batch").fetchone()[0])
        other.close()

    services.events.append("hub", 0, Messages.of((head("d1"), [b"1", b"2"])), committed)
    sender = Sender(services.events, "d2", 1)
    sender.send(3)
    await sender.settled()
    assert seen == [5]


async def test_what_gathers_during_a_commit_shares_the_next(counted: Services) -> None:
    senders = [Sender(counted.events, f"d{number}", 0) for number in range(20)]
    for _ in range(5):
        for sender in senders:
            sender.send(2)
        await asyncio.sleep(0)  # the first batch is on its way to the writer now
    for sender in senders:
        assert await sender.settled() == [None] * 5
    # How often the writer comes by in between is the machine's affair: once for each of the five turns at the most.
    assert await count_transactions(counted) <= 5
    events = await everything(counted.events)
    for sender in senders:
        assert bodies_of(events, sender.name) == numbered(sender.name, 10)


async def test_hubs_do_not_wait_for_each_other(services: Services) -> None:
    await services.hubs.ensure("other", "other.example.net", partition_count=PARTITIONS, well_known_key=KEY)
    senders = [Sender(services.events, "d1", 0), Sender(services.events, "d1", 0, "other")]
    for sender in senders:
        sender.send(3)
    for sender in senders:
        assert await sender.settled() == [None]
        events = await everything(services.events, sender.hub)
        assert [event.sequence_number for event in events] == [0, 1, 2]


async def test_no_more_is_read_while_too_much_waits_for_the_disk(services: Services) -> None:
    log = EventLog(services.database, services.bus, services.clock, waiting_limit=20_000)
    clients = MqttClients(dataclasses.replace(services, events=log))
    devices = []
    for name in ("d1", "d2"):
        keys = SymmetricKeyBody(KEY, KEY)
        identity = IdentityBody(device_id=name, authentication=AuthenticationBody("sas", keys))
        await services.devices.put("hub", name, identity, None)
        devices.append(await clients.to_hub(name, key=KEY))
    first, second = devices
    await first.send(Publish(b"devices/d1/messages/events/", bytes(15_000), 1, 1))
    assert first.transport.reading, "there is room yet"
    await second.send(Publish(b"devices/d2/messages/events/", bytes(15_000), 1, 1))
    assert log.is_full
    assert not second.transport.reading
    assert await second.receive(Puback) == Puback(1)
    assert second.transport.reading
    assert not log.is_full
    await clients.close()


# Failing


async def test_a_batch_that_fails_takes_along_what_gathered_behind_it(services: Services) -> None:
    bad, good = Sender(services.events, "bad", NO_SUCH_PARTITION), Sender(services.events, "good", 0)
    good.send()
    bad.send()
    await asyncio.sleep(0)  # the first batch is on its way to the writer now
    good.send()
    good.send()
    assert [type(error) for error in await good.settled()] == [NotFoundError] * 3
    assert [type(error) for error in await bad.settled()] == [NotFoundError]

    good.send()
    assert (await good.settled())[3:] == [None]
    events = await everything(services.events)
    assert [(event.sequence_number, event.body) for event in events] == [(0, b"good 3")], (
        "nothing is left of the others"
    )


async def test_everybody_is_told_that_the_database_is_closed(services: Services) -> None:
    sender, other = Sender(services.events, "d1", 0), Sender(services.events, "d2", 1)
    await services.database.close()
    sender.send()
    other.send()
    await asyncio.sleep(0)
    sender.send()
    assert {type(error) for error in await sender.settled()} == {DatabaseClosedError}
    assert {type(error) for error in await other.settled()} == {DatabaseClosedError}
    sender.send()
    assert {type(error) for error in await sender.settled()} == {DatabaseClosedError}
    assert services.events._waiting == 0, "what failed waits no more"


async def test_a_commit_that_fails_is_told_and_the_next_is_not(services: Services) -> None:
    # A foreign key that is checked at COMMIT: the rows can be written, and not committed.
    async def forbid(tx) -> None:
        await tx.execute("CREATE TABLE allowed (partition BIGINT PRIMARY KEY)")
        await tx.execute(
            "CREATE TABLE sent (partition BIGINT REFERENCES allowed (partition) DEFERRABLE INITIALLY DEFERRED)"
        )
        await tx.execute(
            "CREATE TRIGGER sending AFTER INSERT ON event_batch BEGIN INSERT INTO sent VALUES (new.partition); END"
        )
        await tx.execute("INSERT INTO allowed (partition) VALUES (1)")

    await services.database.transact(forbid)
    refused, allowed = Sender(services.events, "d1", 0), Sender(services.events, "d2", 1)
    refused.send(2)
    assert None not in await refused.settled()
    allowed.send(2)
    assert await allowed.settled() == [None]
    events = await everything(services.events)
    assert [(event.sequence_number, event.body) for event in events] == [(0, b"d2 0"), (1, b"d2 1")]


async def test_a_connection_that_cannot_be_told_keeps_nobody_from_hearing(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_error: BaseException | None) -> None:
        raise RuntimeError("gone")

    sender = Sender(services.events, "d1", 0)
    services.events.append("hub", 0, Messages.of((head("d0"), [b"0"])), broken)
    sender.send()
    assert await sender.settled() == [None]
    assert "gone" in caplog.text


# Reading


@pytest.fixture
async def filled(services: Services) -> EventLog:
    """Partition 0 has 30 events, partition 1 has 5, partition 3 has 1; each a second later than the one before."""
    for partition, count in ((0, 30), (1, 5), (3, 1)):
        sender = Sender(services.events, f"d{partition}", partition)
        for _ in range(count):
            sender.send()
            await sender.settled()
            services.clock.advance(SECOND)
    return services.events


async def test_positions(services: Services, filled: EventLog) -> None:
    assert await filled.positions("hub") == (START, Position((30, 5, 0, 1)))

    async def forget(tx) -> None:
        await tx.execute("DELETE FROM event_batch WHERE partition = 0 AND last_sequence_number < 10")
        await tx.execute("DELETE FROM event_batch WHERE partition = 1")

    await services.database.transact(forget)
    assert await filled.positions("hub") == (Position((10, 5, 0, 0)), Position((30, 5, 0, 1)))


async def test_a_read_shows_something_of_every_partition(filled: EventLog) -> None:
    events, position = await filled.read("hub", START, 8)
    assert len(events) == 8
    assert {event.partition for event in events} == {0, 1, 3}
    assert sum(position.next_sequence_numbers) == 8


async def test_a_read_of_one_partition(filled: EventLog) -> None:
    events, position = await filled.read("hub", START, 20, partition=1)
    assert [event.sequence_number for event in events] == [0, 1, 2, 3, 4]
    assert position == Position((0, 5, 0, 0))
    assert await filled.read("hub", position, 20, partition=1) == ([], position)


@pytest.mark.parametrize(("asked", "given"), [(-1, 1), (0, 1), (1, 1), (36, 36), (37, 36), (10**9, 36)])
async def test_how_many_a_read_gives(filled: EventLog, asked: int, given: int) -> None:
    events, _ = await filled.read("hub", START, asked)
    assert len(events) == given


async def test_no_read_gives_more_than_the_maximum(services: Services) -> None:
    sender = Sender(services.events, "d1", 0)
    sender.send(MAXIMUM_READ + 1)
    await sender.settled()
    events, position = await services.events.read("hub", START, 10**9)
    assert len(events) == MAXIMUM_READ
    assert len((await services.events.read("hub", position, 10**9))[0]) == 1


async def test_a_large_commit_is_stored_in_parts_and_read_from_anywhere(services: Services) -> None:
    runs = [(head("d1", f'{{"n":"{number}"}}'), [b"x" * number] * 200) for number in range(9)]
    runs += [(head("d1"), [b"y" * 200_000] * 4), (head("d1"), [b"z"] * 1100)]
    told: list[BaseException | None] = []
    services.events.append("hub", 0, Messages.of(*runs), told.append)
    events = await until_read(services.events, 2904)
    bodies = [body for _, run in runs for body in run]
    assert [event.body for event in events] == bodies
    assert [event.sequence_number for event in events] == list(range(2904))
    offsets = [sum(len(body) + 1 for body in bodies[:number]) for number in range(2904)]
    assert [int(event.offset) for event in events] == offsets
    largest = await services.database.fetch_one("SELECT max(message_count), max(length(runs)) FROM event_batch")
    assert largest is not None
    assert largest[0] <= 512
    assert largest[1] < 1_000_000
    for number in (1, 511, 512, 1802, 2903):
        some, _ = await services.events.read("hub", Position((number, 0, 0, 0)), 3)
        assert some == events[number : number + 3]


async def until_read(log: EventLog, count: int) -> list[Event]:
    """All events, when there are so many."""
    events: list[Event] = []
    async for some, _ in log.follow("hub", START, idle=30):
        events += some
        if len(events) >= count:
            break
    return events


async def test_the_latest_are_the_newest_of_all_partitions(filled: EventLog) -> None:
    events = await filled.latest("hub", 8)
    assert [event.origin.device_id for event in events] == ["d3", *["d1"] * 5, "d0", "d0"]
    assert [event.sequence_number for event in events] == [0, 4, 3, 2, 1, 0, 29, 28]


def test_a_position_is_text_and_back() -> None:
    position = Position((0, 12, 3))
    assert str(position) == "0-12-3"
    assert Position.parse("0-12-3") == position


@pytest.mark.parametrize("text", ["", "-", "1-", "-1", "1--2", "a", "1.5", " 1", "1-2\n", "٣", "9" * 40])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        Position.parse(text)


# Following


async def test_a_follower_misses_nothing_and_sees_nothing_twice(services: Services) -> None:
    log = services.events
    senders = [Sender(log, f"d{number}", number % PARTITIONS) for number in range(8)]
    for sender in senders:
        sender.send(5)
    goal = 8 * (5 + 40 * 3)
    followed: list[Event] = []

    async def follow() -> None:
        async for events, _ in log.follow("hub", START, idle=10):
            followed.extend(events)
            if len(followed) >= goal:
                return

    async def send(sender: Sender, turns: int) -> None:
        for number in range(40):
            sender.send(3)
            for _ in range((number * turns) % 7):
                await asyncio.sleep(0)
        await sender.settled()

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(follow())
        for turns, sender in enumerate(senders):
            group.create_task(send(sender, turns))

    assert len(followed) == goal
    for partition in range(PARTITIONS):
        numbers = [event.sequence_number for event in followed if event.partition == partition]
        assert numbers == list(range(len(numbers)))
    for sender in senders:
        assert bodies_of(followed, sender.name) == numbered(sender.name, sender.sent)


async def test_a_follower_goes_on_from_any_position_it_was_given(services: Services) -> None:
    log = services.events
    sender, other = Sender(log, "d1", 0), Sender(log, "d2", 1)
    position = START
    seen: list[bytes] = []
    for count in (1, 150, 2):
        sender.send(count)
        other.send(count)
        await sender.settled()
        while sum(position.next_sequence_numbers) < sender.sent + other.sent:
            follower = log.follow("hub", position, idle=10)
            events, position = await anext(follower)
            await follower.aclose()
            seen += [event.body for event in events]
    assert sorted(seen) == sorted(f"{name} {number}".encode() for name in ("d1", "d2") for number in range(153))


async def test_a_follower_hears_the_silence(services: Services) -> None:
    follower = services.events.follow("hub", START, idle=0.01)
    assert await anext(follower) == ([], START)
    sender = Sender(services.events, "d1", 3)
    sender.send()
    await sender.settled()
    events, position = await anext(follower)
    assert [event.body for event in events] == [b"d1 0"]
    assert position == Position((0, 0, 0, 1))
    await follower.aclose()


async def test_a_follower_of_one_partition_sees_that_one(services: Services) -> None:
    senders = [Sender(services.events, f"d{number}", number) for number in range(PARTITIONS)]
    for sender in senders:
        sender.send(2)
    for sender in senders:
        await sender.settled()
    follower = services.events.follow("hub", START, 2, idle=10)
    events, position = await anext(follower)
    assert [event.body for event in events] == [b"d2 0", b"d2 1"]
    assert position == Position((0, 0, 2, 0))
    await follower.aclose()


async def test_closing_ends_those_who_follow_and_nothing_else(services: Services) -> None:
    async def follow() -> list[Event]:
        return [event async for events, _ in services.events.follow("hub", START, idle=60) for event in events]

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        tasks = [group.create_task(follow()) for _ in range(3)]
        await asyncio.sleep(0)
        services.events.close()
    assert [task.result() for task in tasks] == [[], [], []]
    sender = Sender(services.events, "d1", 0)
    sender.send()
    assert await sender.settled() == [None]
    assert len(await everything(services.events)) == 1


# Any order of things


STEPS = st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 5), st.integers(1, 9))), max_size=40)
"""None lets the loop turn once; otherwise this sender sends so many messages at once."""


@given(steps=STEPS, page=st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_whatever_happens_the_log_is_in_order(steps: list[tuple[int, int] | None], page: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(append_and_read(Path(directory), steps, page))


async def append_and_read(directory: Path, steps: list[tuple[int, int] | None], page: int) -> None:
    clock = Clock()
    database = await open_sqlite(directory / "muster.db", durable=False)
    try:
        await migrate(database, clock())
        await build_services(database, clock)
        log = EventLog(database, LocalBus(), clock)
        senders = [Sender(log, f"d{number}", number % 3) for number in range(6)]
        for step in steps:
            if step is None:
                await asyncio.sleep(0)
            else:
                senders[step[0]].send(step[1])
        for sender in senders:
            assert set(await sender.settled()) <= {None}
        await require_order(log, senders, page)
    finally:
        await database.close()


async def require_order(log: EventLog, senders: list[Sender], page: int) -> None:
    position, newest = await log.positions("hub")
    events: list[Event] = []
    while len(events) < sum(newest.next_sequence_numbers):
        more, position = await log.read("hub", position, page)
        assert 0 < len(more) <= page
        events += more
    assert position == newest
    by_partition: dict[int, list[Event]] = defaultdict(list)
    for event in events:
        by_partition[event.partition].append(event)
    for partition, there in by_partition.items():
        assert [event.sequence_number for event in there] == list(range(newest.next_sequence_numbers[partition]))
        offsets = [int(event.offset) for event in there]
        assert offsets == sorted(set(offsets)), "offsets grow, and no two are equal"
    for sender in senders:
        assert bodies_of(events, sender.name) == numbered(sender.name, sender.sent)
