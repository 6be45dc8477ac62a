"""Cloud-to-device messages: queued, locked, settled, expired, and what senders hear of it."""

import asyncio
import json

import msgspec
import pytest
from tests.support.fix_rest import VERSION, RestClient
from tests.support.fix_services import Services

from muster.domain.c2d_message import C2dDelivery, C2dMessage, C2dProperties, C2dSettings, FeedbackSettings
from muster.domain.device import IdentityBody
from muster.domain.errors import DeviceNotFoundError, MessageLockLostError, QueueDepthExceededError
from muster.domain.timestamp import HOUR, MINUTE, SECOND, iso_utc
from muster.hub.c2d_messages import Sent, c2d_subject

HUB = "hub"
DEVICE = "dev-a"


class Queue:
    """The operations on one device's queue, and the feedback of its hub."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.c2d = services.c2d
        self.clock = services.clock

    async def send(self, body: str = "hello", **properties: object) -> Sent:
        return await self.c2d.send(HUB, DEVICE, "", C2dMessage(C2dProperties(**properties), body.encode()))

    async def lock(self, receiver: str = "") -> C2dDelivery | None:
        return await self.c2d.lock_next(HUB, DEVICE, "", receiver)

    async def take(self, receiver: str = "") -> C2dDelivery:
        delivery = await self.lock(receiver)
        assert delivery is not None
        return delivery

    async def complete(self, delivery: C2dDelivery) -> None:
        await self.c2d.complete(HUB, DEVICE, "", delivery.lock_token)

    async def abandon(self, delivery: C2dDelivery) -> None:
        await self.c2d.abandon(HUB, DEVICE, "", delivery.lock_token)

    async def count(self) -> int:
        return await self.c2d.count(HUB, DEVICE)

    async def feedback(self) -> list[dict]:
        """The next batch, completed."""
        batch = await self.services.feedback.lock_next(HUB)
        if batch is None:
            return []
        await self.services.feedback.complete(HUB, batch.lock_token)
        records: list[dict] = json.loads(batch.body)
        return records

    async def outcomes(self) -> list[tuple[str, str]]:
        return [(record["originalMessageId"], record["statusCode"]) for record in await self.feedback()]

    async def settings(self, settings: C2dSettings) -> None:
        await self.services.hubs.update(HUB, (), self.services.hub.facts, c2d=settings)


@pytest.fixture
async def queue(services: Services) -> Queue:
    await services.devices.put(HUB, DEVICE, IdentityBody(device_id=DEVICE), None)
    return Queue(services)


# One message


async def test_a_message_arrives_as_it_was_sent(queue: Queue):
    sent = await queue.send("cold", message_id="m-1", ack="full", application={"color": "red"})
    delivery = await queue.take()
    assert sent == Sent(1, queue.clock.now, queue.clock.now + HOUR)
    assert (delivery.body, delivery.sequence_number, delivery.enqueued_time) == (b"cold", 1, queue.clock.now)
    assert (delivery.delivery_count, delivery.redelivered) == (0, False)
    assert delivery.locked_until == queue.clock.now + MINUTE
    assert delivery.properties == C2dProperties(
        message_id="m-1", ack="full", to="/devices/dev-a/messages/devicebound", application={"color": "red"}
    )


async def test_completed_is_gone(queue: Queue):
    await queue.send(message_id="m-1", ack="full")
    await queue.complete(await queue.take())
    assert await queue.count() == 0
    assert await queue.lock() is None
    assert await queue.outcomes() == [("m-1", "Success")]


async def test_rejected_is_gone(queue: Queue):
    await queue.send(message_id="m-1", ack="negative")
    delivery = await queue.take()
    await queue.c2d.reject(HUB, DEVICE, "", delivery.lock_token)
    assert await queue.count() == 0
    assert await queue.outcomes() == [("m-1", "Rejected")]


async def test_a_locked_message_is_nobody_elses(queue: Queue):
    await queue.send()
    await queue.take()
    assert await queue.lock() is None
    assert await queue.count() == 1


async def test_messages_come_in_their_order(queue: Queue):
    for number in range(5):
        await queue.send(str(number))
    assert [(await queue.take()).body for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]


async def test_each_identity_has_its_own_queue(queue: Queue):
    await queue.services.devices.put(HUB, "dev-b", IdentityBody(device_id="dev-b"), None)
    await queue.send()
    assert await queue.c2d.lock_next(HUB, "dev-b", "") is None
    assert await queue.c2d.count(HUB, "dev-b") == 0


async def test_who_is_not_there_gets_no_message(queue: Queue):
    with pytest.raises(DeviceNotFoundError, match="nobody"):
        await queue.c2d.send(HUB, "nobody", "", C2dMessage(C2dProperties()))
    with pytest.raises(DeviceNotFoundError, match="dev-a/nothing"):
        await queue.c2d.send(HUB, DEVICE, "nothing", C2dMessage(C2dProperties()))
    with pytest.raises(DeviceNotFoundError):
        await queue.c2d.purge(HUB, "nobody")


# Depth


async def test_the_51st_message_is_refused(queue: Queue):
    for number in range(50):
        await queue.send(str(number))
    await queue.take()
    with pytest.raises(QueueDepthExceededError, match="50 messages"):
        await queue.send("one too many")
    assert await queue.count() == 50


async def test_expired_messages_make_room(queue: Queue):
    for number in range(50):
        await queue.send(str(number))
    queue.clock.advance(HOUR)
    assert (await queue.send("next")).sequence_number == 51
    assert await queue.count() == 1


# Time


async def test_a_message_expires_after_an_hour(queue: Queue):
    await queue.send(message_id="m-1", ack="full")
    queue.clock.advance(HOUR - 1)
    assert await queue.count() == 1
    queue.clock.advance(1)
    assert await queue.count() == 0
    assert await queue.lock() is None
    assert await queue.outcomes() == [("m-1", "Expired")]


async def test_an_expired_message_does_not_count_before_it_is_swept(queue: Queue, rest: RestClient):
    """Wherever it is counted: of the device, of its twin, in a query."""
    await queue.send(expiry=queue.clock.now + HOUR)
    await queue.send(expiry=queue.clock.now + SECOND)
    await queue.send(expiry=queue.clock.now + 2 * SECOND)

    async def counts() -> set[int]:
        query = "SELECT cloudToDeviceMessageCount AS n FROM devices WHERE cloudToDeviceMessageCount > 0"
        answers = [
            (await rest.request("GET", f"/devices/{DEVICE}?{VERSION}")).json,
            (await rest.request("GET", f"/devices?{VERSION}")).json[0],
            (await rest.request("GET", f"/twins/{DEVICE}?{VERSION}")).json,
        ]
        rows = (await rest.request("POST", f"/devices/query?{VERSION}", {"query": query})).json
        return {answer["cloudToDeviceMessageCount"] for answer in answers} | {row["n"] for row in rows}

    assert await counts() == {3}
    queue.clock.advance(SECOND)
    assert await counts() == {2}
    # Under a lock the other one waits for its lock to lapse, and is gone then.
    await queue.take()
    await queue.take()
    queue.clock.advance(2 * SECOND)
    assert await counts() == {2}
    queue.clock.advance(MINUTE)
    assert await counts() == {1}
    assert await queue.count() == 1


async def test_a_message_may_say_when_it_expires(queue: Queue):
    expiry = queue.clock.now + 5 * SECOND
    assert (await queue.send(expiry=expiry)).expiry == expiry
    queue.clock.advance(5 * SECOND)
    assert await queue.lock() is None


async def test_a_hub_may_say_when_messages_expire(queue: Queue):
    await queue.settings(C2dSettings(default_time_to_live=MINUTE))
    assert (await queue.send()).expiry == queue.clock.now + MINUTE


async def test_a_message_does_not_expire_under_a_lock(queue: Queue):
    await queue.send(message_id="m-1", ack="full", expiry=queue.clock.now + SECOND)
    delivery = await queue.take()
    queue.clock.advance(30 * SECOND)
    await queue.complete(delivery)
    assert await queue.outcomes() == [("m-1", "Success")]


async def test_an_expired_message_that_comes_back_is_gone(queue: Queue):
    await queue.send(message_id="m-1", ack="full", expiry=queue.clock.now + SECOND)
    delivery = await queue.take()
    queue.clock.advance(30 * SECOND)
    await queue.abandon(delivery)
    assert await queue.outcomes() == [("m-1", "Expired")]


# Coming back


async def test_an_abandoned_message_is_the_next_one_again(queue: Queue):
    await queue.send("first")
    await queue.send("second")
    await queue.abandon(await queue.take("link"))
    delivery = await queue.take("link")
    assert (delivery.body, delivery.delivery_count, delivery.redelivered) == (b"first", 1, True)


async def test_a_lapsed_lock_counts_as_a_delivery(queue: Queue):
    await queue.send()
    delivery = await queue.take()
    queue.clock.advance(MINUTE)
    with pytest.raises(MessageLockLostError):
        await queue.complete(delivery)
    again = await queue.take()
    assert (again.delivery_count, again.lock_token != delivery.lock_token) == (1, True)


async def test_a_receiver_does_not_get_back_what_it_let_lapse(queue: Queue):
    await queue.send("first")
    await queue.send("second")
    await queue.take("connection 1")
    queue.clock.advance(MINUTE)
    assert (await queue.take("connection 1")).body == b"second"
    assert (await queue.take("connection 2")).body == b"first"


async def test_a_connection_that_is_gone_gives_back_what_it_had(queue: Queue):
    await queue.send("first")
    await queue.send("second")
    delivery = await queue.take("connection 1")
    await queue.take("connection 2")
    await queue.c2d.release(HUB, DEVICE, "", "connection 1")
    with pytest.raises(MessageLockLostError):
        await queue.complete(delivery)
    again = await queue.take("connection 3")
    assert (again.body, again.delivery_count, again.redelivered) == (b"first", 0, True)
    assert await queue.lock("connection 3") is None


async def test_a_restart_gives_back_what_connections_had(queue: Queue):
    await queue.send("over MQTT")
    await queue.send("over HTTPS")
    await queue.take("connection")
    held = await queue.take()
    await queue.c2d.release_all()
    assert (await queue.take("another")).body == b"over MQTT"
    await queue.complete(held)


@pytest.mark.parametrize("maximum", [10, 1])
async def test_a_message_that_always_comes_back_is_given_up(queue: Queue, maximum: int):
    await queue.settings(C2dSettings(maximum_delivery_count=maximum))
    await queue.send(message_id="m-1", ack="full")
    for count in range(maximum):
        delivery = await queue.take()
        assert delivery.delivery_count == count
        if count % 2:
            queue.clock.advance(MINUTE)
        else:
            await queue.abandon(delivery)
    assert await queue.lock() is None
    assert await queue.outcomes() == [("m-1", "DeliveryCountExceeded")]


@pytest.mark.parametrize("operation", ["complete", "reject", "abandon"])
async def test_a_lock_settles_once(queue: Queue, operation: str):
    await queue.send()
    delivery = await queue.take()
    await getattr(queue.c2d, operation)(HUB, DEVICE, "", delivery.lock_token)
    with pytest.raises(MessageLockLostError):
        await getattr(queue.c2d, operation)(HUB, DEVICE, "", delivery.lock_token)


async def test_a_lock_token_is_of_one_device(queue: Queue):
    await queue.services.devices.put(HUB, "dev-b", IdentityBody(device_id="dev-b"), None)
    await queue.send()
    delivery = await queue.take()
    with pytest.raises(MessageLockLostError):
        await queue.c2d.complete(HUB, "dev-b", "", delivery.lock_token)


# The end of a queue


async def test_purge(queue: Queue):
    for number in range(3):
        await queue.send(message_id=f"m-{number}", ack="negative")
    await queue.take()
    assert await queue.c2d.purge(HUB, DEVICE) == 3
    assert await queue.c2d.purge(HUB, DEVICE) == 0
    assert await queue.outcomes() == [("m-0", "Purged"), ("m-1", "Purged"), ("m-2", "Purged")]


async def test_a_deleted_device_takes_its_messages_and_feedback_along(queue: Queue):
    await queue.send(message_id="done", ack="full")
    await queue.complete(await queue.take())
    await queue.send(message_id="waits", ack="full")
    await queue.services.devices.delete(HUB, DEVICE, "*")
    assert await queue.feedback() == []
    await queue.services.devices.put(HUB, DEVICE, IdentityBody(device_id=DEVICE), None)
    assert await queue.lock() is None
    assert (await queue.send()).sequence_number == 1


# Feedback


async def test_a_record_of_feedback(queue: Queue):
    await queue.send(message_id="m-17", ack="positive")
    delivery = await queue.take()
    queue.clock.advance(10 * SECOND)
    await queue.complete(delivery)
    identity, _ = await queue.services.devices.get(HUB, DEVICE)
    batch = await queue.services.feedback.lock_next(HUB)
    assert batch is not None
    assert json.loads(batch.body) == [
        {
            "originalMessageId": "m-17",
            "enqueuedTimeUtc": iso_utc(queue.clock.now),
            "statusCode": "Success",
            "description": "Success",
            "deviceId": DEVICE,
            "deviceGenerationId": identity.generation_id,
        }
    ]
    assert batch.properties.content_type == "application/vnd.microsoft.iothub.feedback.json"
    assert batch.properties.user_id == HUB


async def finish(queue: Queue, count: int, start: int = 0) -> None:
    for number in range(start, start + count):
        await queue.send(message_id=f"m-{number}", ack="full")
        await queue.complete(await queue.take())


async def test_a_batch_goes_out_fifteen_seconds_after_the_one_before(queue: Queue):
    await finish(queue, 1)
    assert len(await queue.feedback()) == 1
    await finish(queue, 2, 1)
    queue.clock.advance(15 * SECOND - 1)
    assert await queue.feedback() == []
    queue.clock.advance(1)
    assert await queue.outcomes() == [("m-1", "Success"), ("m-2", "Success")]


async def test_a_full_batch_goes_out_at_once(queue: Queue):
    await finish(queue, 1)
    await queue.feedback()
    await finish(queue, 65, 1)
    assert len(await queue.feedback()) == 64
    assert await queue.feedback() == []
    queue.clock.advance(15 * SECOND)
    assert await queue.outcomes() == [("m-65", "Success")]


async def test_a_clock_that_was_set_back_holds_nothing_up(queue: Queue):
    await finish(queue, 1)
    await queue.feedback()
    queue.clock.advance(-HOUR)
    await finish(queue, 1, 1)
    assert len(await queue.feedback()) == 1


async def test_a_batch_is_locked_abandoned_and_dropped(queue: Queue):
    await queue.settings(C2dSettings(feedback=FeedbackSettings(maximum_delivery_count=2)))
    await finish(queue, 1)
    feedback = queue.services.feedback
    first = await feedback.lock_next(HUB)
    assert first is not None
    assert await feedback.lock_next(HUB) is None
    await feedback.abandon(HUB, first.lock_token)
    second = await feedback.lock_next(HUB)
    assert second is not None
    assert second.body == first.body
    with pytest.raises(MessageLockLostError):
        await feedback.complete(HUB, first.lock_token)
    queue.clock.advance(MINUTE)
    assert await feedback.lock_next(HUB) is None


async def test_feedback_waits_an_hour(queue: Queue):
    await finish(queue, 1)
    await queue.services.sweeper.sweep()
    queue.clock.advance(HOUR)
    assert await queue.feedback() == []


async def test_a_reader_that_is_gone_gives_its_batch_back(queue: Queue):
    await finish(queue, 1)
    assert await queue.services.feedback.lock_next(HUB, "link") is not None
    await queue.services.feedback.release(HUB, "link")
    assert len(await queue.feedback()) == 1


# Who is woken


async def woken(queue: Queue, subject: str) -> list[str]:
    heard: list[str] = []
    queue.services.bus.subscribe(subject, lambda message: heard.append(message.subject))
    return heard


async def test_receivers_are_woken(queue: Queue):
    subject = c2d_subject(HUB, DEVICE, "")
    heard = await woken(queue, subject)
    await queue.send()
    await asyncio.sleep(0)
    assert heard == [subject]
    await queue.abandon(await queue.take())
    await asyncio.sleep(0)
    assert heard == [subject] * 2
    await queue.take("connection")
    await queue.c2d.release(HUB, DEVICE, "", "connection")
    await asyncio.sleep(0)
    assert heard == [subject] * 3


async def test_the_sweeper_wakes_receivers_of_what_lapsed(queue: Queue):
    await queue.send(message_id="m-1", ack="full", expiry=queue.clock.now + HOUR)
    await queue.take()
    subject = c2d_subject(HUB, DEVICE, "")
    heard = await woken(queue, subject)
    await queue.services.sweeper.sweep()
    queue.clock.advance(MINUTE)
    await queue.services.sweeper.sweep()
    await asyncio.sleep(0)
    assert heard == [subject]
    assert (await queue.take()).delivery_count == 1


async def test_the_sweeper_makes_feedback_of_what_expired(queue: Queue):
    await queue.send(message_id="m-1", ack="full")
    queue.clock.advance(HOUR)
    heard = await woken(queue, "feedback.hub")
    await queue.services.sweeper.sweep()
    await asyncio.sleep(0)
    assert heard
    assert await queue.outcomes() == [("m-1", "Expired")]


async def test_settings_are_kept_and_read_again(queue: Queue):
    settings = C2dSettings(5, MINUTE, FeedbackSettings(10 * SECOND, 2 * HOUR, 3))
    await queue.settings(settings)
    await queue.services.hubs.load()
    assert queue.services.hubs.by_name(HUB).c2d == settings
    assert msgspec.json.decode(msgspec.json.encode(settings), type=C2dSettings) == settings
