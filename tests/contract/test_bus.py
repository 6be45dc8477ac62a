"""What every bus does, whichever carries it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from muster.bus.bus import Bus, LocalBus, Message, NoResponderError


@pytest.fixture(params=["local"])
async def bus(request: pytest.FixtureRequest) -> AsyncIterator[Bus]:
    made = {"local": LocalBus}[request.param]()
    yield made
    await made.close()


class Inbox:
    """A handler that keeps what it was given."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()

    def __call__(self, message: Message) -> None:
        self.messages.put_nowait(message)

    async def next(self) -> bytes:
        async with asyncio.timeout(30):
            return (await self.messages.get()).data


async def settled(bus: Bus) -> None:
    """Everything that was published before has been delivered."""
    inbox = Inbox()
    subscription = bus.subscribe("settled", inbox)
    bus.publish("settled", b"")
    await inbox.next()
    subscription.close()


async def test_every_subscriber_of_the_subject_is_told_in_order(bus: Bus):
    first, second, other = Inbox(), Inbox(), Inbox()
    bus.subscribe("device.a.c2d", first)
    bus.subscribe("device.a.c2d", second)
    bus.subscribe("device.b.c2d", other)
    for data in (b"1", b"2", b"3"):
        bus.publish("device.a.c2d", data)
    for inbox in (first, second):
        assert [await inbox.next() for _ in range(3)] == [b"1", b"2", b"3"]
    await settled(bus)
    assert other.messages.empty()


@pytest.mark.parametrize("subject", ["device.*.c2d", "device.>", "device.a", "device.a.c2d.more", "DEVICE.A.C2D"])
async def test_subjects_are_compared_whole(bus: Bus, subject: str):
    inbox = Inbox()
    bus.subscribe(subject, inbox)
    bus.publish("device.a.c2d", b"1")
    await settled(bus)
    assert inbox.messages.empty()


@pytest.mark.parametrize("subject", ["a b", "device.*", "device.>", "..", "", "Gerät/1", "a\nb"])
async def test_any_text_is_a_subject(bus: Bus, subject: str):
    inbox = Inbox()
    bus.subscribe(subject, inbox)
    bus.publish(subject, b"1")
    assert await inbox.next() == b"1"


async def test_a_handler_is_never_called_from_within_publish(bus: Bus):
    inbox = Inbox()
    bus.subscribe("a", inbox)
    bus.publish("a", b"1")
    assert inbox.messages.empty()
    assert await inbox.next() == b"1"


async def test_publishing_to_nobody_does_nothing(bus: Bus):
    bus.publish("nobody", b"1")
    await settled(bus)


async def test_a_closed_subscription_gets_nothing_more(bus: Bus):
    closed, open_ = Inbox(), Inbox()
    subscription = bus.subscribe("a", closed)
    bus.subscribe("a", open_)
    bus.publish("a", b"under way")
    subscription.close()
    subscription.close()
    bus.publish("a", b"later")
    assert [await open_.next(), await open_.next()] == [b"under way", b"later"]
    assert closed.messages.empty()


async def test_a_handler_may_subscribe_publish_and_close(bus: Bus):
    inbox = Inbox()

    def handler(message: Message) -> None:
        subscription.close()
        bus.subscribe("b", inbox)
        bus.publish("b", message.data)

    subscription = bus.subscribe("a", handler)
    bus.publish("a", b"1")
    bus.publish("a", b"2")
    assert await inbox.next() == b"1"
    await settled(bus)
    assert inbox.messages.empty()


async def test_a_handler_that_fails_harms_no_other(bus: Bus):
    reported = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context["exception"]))
    failure = RuntimeError("handler")
    inbox = Inbox()

    def handler(_message: Message) -> None:
        raise failure

    bus.subscribe("a", handler)
    bus.subscribe("a", inbox)
    bus.publish("a", b"1")
    assert await inbox.next() == b"1"
    assert reported == [failure]


async def test_a_request_gets_the_first_reply(bus: Bus):
    asked = Inbox()
    bus.subscribe("method", asked)
    bus.subscribe("method", lambda message: message.reply(message.data + b"!"))
    bus.subscribe("method", lambda message: message.reply(b"too late"))
    assert await bus.request("method", b"reboot", 5) == b"reboot!"
    assert await asked.next() == b"reboot"


async def test_a_reply_may_come_later(bus: Bus):
    asked = Inbox()
    bus.subscribe("method", asked)
    answer = asyncio.ensure_future(bus.request("method", b"reboot", 5))
    message = await asked.messages.get()
    await settled(bus)
    assert not answer.done()
    message.reply(b"done")
    assert await answer == b"done"


async def test_a_request_that_nobody_hears_fails_at_once(bus: Bus):
    with pytest.raises(NoResponderError):
        await bus.request("method", b"reboot", 60)
    subscription = bus.subscribe("method", Inbox())
    subscription.close()
    with pytest.raises(NoResponderError):
        await bus.request("method", b"reboot", 60)


async def test_a_request_that_nobody_answers_times_out(bus: Bus):
    asked = Inbox()
    bus.subscribe("method", asked)
    with pytest.raises(TimeoutError):
        await bus.request("method", b"reboot", 0)
    message = await asked.messages.get()
    message.reply(b"much too late")


async def test_a_published_message_takes_a_reply_and_drops_it(bus: Bus):
    done = Inbox()

    def handler(message: Message) -> None:
        message.reply(b"nobody asked")
        done(message)

    bus.subscribe("a", handler)
    bus.publish("a", b"1")
    assert await done.next() == b"1"


async def test_a_closed_bus_tells_nobody(bus: Bus):
    inbox = Inbox()
    bus.subscribe("a", inbox)
    bus.publish("a", b"under way")
    await bus.close()
    bus.publish("a", b"later")
    with pytest.raises(NoResponderError):
        await bus.request("a", b"later", 60)
    assert inbox.messages.empty()
