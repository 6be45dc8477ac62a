"""The queue of a device against a model of it: a list in memory, with the rules written down once more."""

import asyncio
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, multiple, rule

from muster.domain.c2d_message import C2dMessage, C2dProperties, C2dSettings
from muster.domain.device import IdentityBody
from muster.domain.errors import MessageLockLostError, QueueDepthExceededError
from muster.domain.timestamp import HOUR, MINUTE, SECOND
from muster.store.migration import migrate
from muster.store.sqlite import open_sqlite
from tests.support.fix_services import Clock, Services, build_services

HUB, DEVICE = "hub", "d"
DEPTH, LOCK, TIME_TO_LIVE = 50, 60 * SECOND, HOUR
TOLD = {
    "none": set(),
    "positive": {"Success"},
    "negative": {"Expired", "DeliveryCountExceeded", "Rejected", "Purged"},
    "full": {"Success", "Expired", "DeliveryCountExceeded", "Rejected", "Purged"},
}


@dataclass
class Message:
    """What the model knows of one message."""

    name: str
    ack: str
    expiry: int
    count: int = 0
    delivered: bool = False
    receiver: str = ""
    locked_until: int = 0
    token: str = ""


class Model:
    """All messages in their order, and all feedback since the last look."""

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.messages: list[Message] = []
        self.feedback: list[tuple[str, str]] = []

    def finish(self, message: Message, outcome: str) -> None:
        self.messages.remove(message)
        if outcome in TOLD[message.ack]:
            self.feedback.append((message.name, outcome))

    def come_back(self, message: Message, now: int) -> None:
        message.token = ""
        if message.count >= self.maximum:
            self.finish(message, "DeliveryCountExceeded")
        elif message.expiry <= now:
            self.finish(message, "Expired")

    def pass_time(self, now: int) -> None:
        for message in list(self.messages):
            if message.token and message.locked_until <= now:
                message.count += 1
                self.come_back(message, now)
            elif not message.token and message.expiry <= now:
                self.finish(message, "Expired")

    def next(self, receiver: str) -> Message | None:
        free = (one for one in self.messages if not one.token and (not receiver or one.receiver != receiver))
        return next(free, None)

    def locked(self, token: str) -> Message | None:
        return next((one for one in self.messages if one.token == token), None)


class C2dQueue(RuleBasedStateMachine):
    """Every operation on the real queue and on the model; after each, both agree."""

    tokens = Bundle("tokens")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.clock = Clock()
        self.sent = 0
        self.services: Services = self.run(self.open())

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def open(self) -> Services:
        database = await open_sqlite(Path(self.directory.name) / "muster.db", durable=False)
        await migrate(database, self.clock())
        services = await build_services(database, self.clock)
        await services.devices.put(HUB, DEVICE, IdentityBody(device_id=DEVICE), None)
        return services

    def teardown(self) -> None:
        self.run(self.services.database.close())
        self.loop.close()
        self.directory.cleanup()

    @initialize(maximum=st.sampled_from([1, 2, 10]))
    def begin(self, maximum: int) -> None:
        self.model = Model(maximum)
        hub = self.services.hub
        self.run(self.services.hubs.update(HUB, (), hub.facts, c2d=C2dSettings(maximum_delivery_count=maximum)))

    @rule(ack=st.sampled_from(list(TOLD)), life=st.sampled_from([0, 0, -SECOND, SECOND, 2 * MINUTE]))
    def send(self, ack: str, life: int) -> None:
        self.send_one(ack, life)

    @rule(count=st.integers(5, 30), ack=st.sampled_from(list(TOLD)))
    def send_many(self, count: int, ack: str) -> None:
        for _ in range(count):
            self.send_one(ack, 0)

    def send_one(self, ack: str, life: int) -> None:
        self.sent += 1
        name = f"m-{self.sent}"
        now = self.clock.now
        message = C2dMessage(C2dProperties(message_id=name, ack=ack, expiry=now + life if life else 0))
        self.model.pass_time(now)
        if len(self.model.messages) >= DEPTH:
            with pytest.raises(QueueDepthExceededError):
                self.run(self.services.c2d.send(HUB, DEVICE, "", message))
        else:
            self.run(self.services.c2d.send(HUB, DEVICE, "", message))
            self.model.messages.append(Message(name, ack, now + (life or TIME_TO_LIVE)))

    @rule(target=tokens, receiver=st.sampled_from(["", "a", "b"]))
    def lock(self, receiver: str):
        delivery = self.run(self.services.c2d.lock_next(HUB, DEVICE, "", receiver))
        self.model.pass_time(self.clock.now)
        expected = self.model.next(receiver)
        if delivery is None:
            assert expected is None
            return multiple()
        assert expected is not None
        assert (delivery.properties.message_id, delivery.delivery_count, delivery.redelivered) == (
            expected.name,
            expected.count,
            expected.delivered,
        )
        expected.token = delivery.lock_token
        expected.locked_until = self.clock.now + LOCK
        expected.receiver = receiver
        expected.delivered = True
        return delivery.lock_token

    @rule(token=tokens, operation=st.sampled_from(["complete", "reject", "abandon"]))
    def settle(self, token: str, operation: str) -> None:
        self.model.pass_time(self.clock.now)
        message = self.model.locked(token)
        settling = getattr(self.services.c2d, operation)(HUB, DEVICE, "", token)
        if message is None:
            with pytest.raises(MessageLockLostError):
                self.run(settling)
            return
        self.run(settling)
        if operation == "abandon":
            message.count += 1
            message.receiver = ""
            self.model.come_back(message, self.clock.now)
        else:
            self.model.finish(message, {"complete": "Success", "reject": "Rejected"}[operation])

    @rule(receiver=st.sampled_from(["a", "b"]))
    def release(self, receiver: str) -> None:
        self.run(self.services.c2d.release(HUB, DEVICE, "", receiver))
        self.model.pass_time(self.clock.now)
        for message in list(self.model.messages):
            if message.token and message.receiver == receiver:
                message.receiver = ""
                self.model.come_back(message, self.clock.now)

    @rule()
    def purge(self) -> None:
        self.model.pass_time(self.clock.now)
        assert self.run(self.services.c2d.purge(HUB, DEVICE)) == len(self.model.messages)
        for message in list(self.model.messages):
            self.model.finish(message, "Purged")

    @rule(seconds=st.sampled_from([1, 30, 60, 61]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds * SECOND)

    @rule()
    def sweep(self) -> None:
        self.run(self.services.sweeper.sweep())

    @rule()
    def read_feedback(self) -> None:
        found: list[tuple[str, str]] = []
        # As many batches of 64 as there may be records, each fifteen seconds after the one before.
        for _ in range(10):
            self.run(self.services.sweeper.sweep())
            self.clock.advance(15 * SECOND)
        self.run(self.services.sweeper.sweep())
        self.model.pass_time(self.clock.now)
        while (batch := self.run(self.services.feedback.lock_next(HUB))) is not None:
            found += [(record["originalMessageId"], record["statusCode"]) for record in json.loads(batch.body)]
            self.run(self.services.feedback.complete(HUB, batch.lock_token))
        assert sorted(found) == sorted(self.model.feedback)
        self.model.feedback = []

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "model"):
            self.model.pass_time(self.clock.now)
            assert self.run(self.services.c2d.count(HUB, DEVICE)) == len(self.model.messages)


TestC2dQueue = C2dQueue.TestCase
TestC2dQueue.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
