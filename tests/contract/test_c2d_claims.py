"""Cloud-to-device messages by many workers at once, on both databases: each is had by one, and nothing is lost."""

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from muster.domain.c2d_message import C2dDelivery, C2dMessage, C2dProperties
from muster.domain.device import IdentityBody
from muster.domain.errors import DeviceNotFoundError, MessageLockLostError, QueueDepthExceededError
from muster.domain.timestamp import HOUR, MINUTE
from muster.store.database import Database
from muster.store.migration import migrate
from tests.support.fix_services import Clock, Services, build_services

WORKERS = 8
HUB = "hub"
DEVICE = "d"


class Queues:
    """The services around queues, on one database, with a clock that tests move."""

    def __init__(self, database: Database, services: Services) -> None:
        self.database = database
        self.clock = services.clock
        self.hub = services.hub
        self.devices = services.devices
        self.c2d = services.c2d
        self.feedback = services.feedback
        self.sweeper = services.sweeper

    async def send(self, name: str, ack: str = "full") -> int:
        message = C2dMessage(C2dProperties(message_id=name, ack=ack))
        return (await self.c2d.send(HUB, DEVICE, "", message)).sequence_number

    async def lock(self) -> C2dDelivery | None:
        return await self.c2d.lock_next(HUB, DEVICE, "")

    async def outcomes(self) -> list[tuple[str, str]]:
        """All feedback there is, batch after batch."""
        found: list[tuple[str, str]] = []
        for _ in range(10):
            self.clock.advance(MINUTE)
            while (batch := await self.feedback.lock_next(HUB)) is not None:
                found += [(record["originalMessageId"], record["statusCode"]) for record in json.loads(batch.body)]
                await self.feedback.complete(HUB, batch.lock_token)
        return sorted(found)


@pytest.fixture
async def queues(database: Database) -> Queues:
    await migrate(database, 0)
    made = Queues(database, await build_services(database, Clock()))
    await made.devices.put(HUB, DEVICE, IdentityBody(device_id=DEVICE), None)
    return made


async def at_once(worker: Callable[[int], Awaitable[None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for number in range(WORKERS):
            group.create_task(worker(number))  # type: ignore[arg-type]  # a coroutine function is what is passed


async def test_fifty_messages_are_taken_and_no_more(queues: Queues):
    numbers: list[int] = []
    refused = 0

    async def worker(number: int) -> None:
        nonlocal refused
        for attempt in range(10):
            try:
                numbers.append(await queues.send(f"{number}.{attempt}"))
            except QueueDepthExceededError:
                refused += 1

    await at_once(worker)
    assert sorted(numbers) == list(range(1, 51))
    assert refused == 10 * WORKERS - 50
    assert await queues.c2d.count(HUB, DEVICE) == 50


async def test_the_first_messages_of_a_queue_get_different_numbers(queues: Queues):
    numbers: list[int] = []

    async def worker(number: int) -> None:
        numbers.append(await queues.send(str(number)))

    await at_once(worker)
    assert sorted(numbers) == list(range(1, WORKERS + 1))


async def test_each_message_is_locked_by_one_and_in_order(queues: Queues):
    for number in range(50):
        await queues.send(str(number))
    locked: list[str] = []

    async def worker(_number: int) -> None:
        mine = []
        while (delivery := await queues.lock()) is not None:
            mine.append(delivery.sequence_number)
            locked.append(delivery.properties.message_id)
        assert mine == sorted(mine)

    await at_once(worker)
    assert Counter(locked) == {str(number): 1 for number in range(50)}


async def test_a_lock_is_settled_once_whatever_is_tried(queues: Queues):
    for number in range(24):
        await queues.send(str(number))
    tokens = []
    while (delivery := await queues.lock()) is not None:
        tokens.append(delivery.lock_token)
    settled: list[str] = []

    async def worker(number: int) -> None:
        operation = (queues.c2d.complete, queues.c2d.reject)[number % 2]
        for token in tokens:
            try:
                await operation(HUB, DEVICE, "", token)
                settled.append(token)
            except MessageLockLostError:
                pass

    await at_once(worker)
    assert Counter(settled) == dict.fromkeys(tokens, 1)
    assert [name for name, _ in await queues.outcomes()] == sorted(str(number) for number in range(24))


async def test_an_abandon_counts_once(queues: Queues):
    await queues.send("m")
    for count in range(9):
        delivery = await queues.lock()
        assert delivery is not None
        assert delivery.delivery_count == count
        token = delivery.lock_token

        async def worker(_number: int, token: str = token) -> None:
            with contextlib.suppress(MessageLockLostError):
                await queues.c2d.abandon(HUB, DEVICE, "", token)

        await at_once(worker)


async def test_what_is_due_happens_once(queues: Queues):
    for number in range(30):
        await queues.send(str(number))
    for _ in range(10):
        await queues.lock()
    queues.clock.advance(HOUR)

    async def worker(number: int) -> None:
        if number % 2:
            await queues.sweeper.sweep()
        else:
            assert await queues.lock() is None

    await at_once(worker)
    assert await queues.c2d.count(HUB, DEVICE) == 0
    assert await queues.outcomes() == sorted((str(number), "Expired") for number in range(30))


async def test_a_lapsed_lock_counts_once(queues: Queues):
    for number in range(10):
        await queues.send(str(number))
    while await queues.lock() is not None:
        pass
    queues.clock.advance(MINUTE)

    async def worker(_number: int) -> None:
        await queues.sweeper.sweep()

    await at_once(worker)
    counts = []
    while (delivery := await queues.lock()) is not None:
        counts.append(delivery.delivery_count)
    assert counts == [1] * 10


async def test_each_record_of_feedback_is_in_one_batch(queues: Queues):
    async def finish(number: int) -> None:
        for attempt in range(20):
            await queues.send(f"{number}.{attempt}")
            delivery = await queues.lock()
            if delivery is not None:
                await queues.c2d.complete(HUB, DEVICE, "", delivery.lock_token)
            await queues.feedback.gather(queues.hub)

    await at_once(finish)
    while (delivery := await queues.lock()) is not None:
        await queues.c2d.complete(HUB, DEVICE, "", delivery.lock_token)
    expected = sorted((f"{number}.{attempt}", "Success") for number in range(WORKERS) for attempt in range(20))
    assert await queues.outcomes() == expected


async def test_each_batch_is_had_by_one(queues: Queues):
    for number in range(6):
        await queues.send(str(number))
        delivery = await queues.lock()
        assert delivery is not None
        await queues.c2d.complete(HUB, DEVICE, "", delivery.lock_token)
        queues.clock.advance(MINUTE)
        await queues.feedback.gather(queues.hub)
    bodies: list[bytes] = []

    async def worker(_number: int) -> None:
        while (batch := await queues.feedback.lock_next(HUB)) is not None:
            bodies.append(batch.body)

    await at_once(worker)
    assert len(bodies) == 6
    assert len(set(bodies)) == 6


async def test_a_purge_among_others_tells_of_every_message_once(queues: Queues):
    sent: list[str] = []
    completed: list[str] = []

    async def worker(number: int) -> None:
        for attempt in range(10):
            if number == 0:
                await queues.c2d.purge(HUB, DEVICE)
                continue
            name = f"{number}.{attempt}"
            try:
                await queues.send(name)
                sent.append(name)
                delivery = await queues.lock()
                if delivery is not None:
                    await queues.c2d.complete(HUB, DEVICE, "", delivery.lock_token)
                    completed.append(delivery.properties.message_id)
            except (MessageLockLostError, QueueDepthExceededError):
                pass

    await at_once(worker)
    await queues.c2d.purge(HUB, DEVICE)
    outcomes = await queues.outcomes()
    assert [name for name, _ in outcomes] == sorted(sent)
    assert sorted(name for name, outcome in outcomes if outcome == "Success") == sorted(completed)


async def test_a_device_that_is_deleted_meanwhile_leaves_nothing(queues: Queues):
    async def worker(number: int) -> None:
        for attempt in range(10):
            try:
                if number == 0 and attempt == 5:
                    await queues.devices.delete(HUB, DEVICE, "*")
                await queues.send(f"{number}.{attempt}")
                await queues.lock()
            except (DeviceNotFoundError, QueueDepthExceededError):
                pass

    await at_once(worker)
    for table in ("queued_message", "feedback_record", "message_queue"):
        rows = await queues.database.fetch_all(f"SELECT hub FROM {table} WHERE device_id = :device", device=DEVICE)
        assert rows == []
