from muster.bus.bus import LocalBus, Message


def ignore(_message: Message) -> None:
    pass


async def test_a_subject_without_subscriptions_takes_no_memory():
    bus = LocalBus()
    subscriptions = [bus.subscribe(f"device.{number % 10}", ignore) for number in range(100)]
    assert len(bus._subscriptions) == 10
    for subscription in subscriptions[:95]:
        subscription.close()
    assert len(bus._subscriptions) == 5
    await bus.close()
    assert bus._subscriptions == {}
