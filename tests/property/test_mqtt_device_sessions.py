"""A device's MQTT session against a model of it: what it is subscribed to, what waits, and what is under way.

Connections come and go, with and without a goodbye, and take over from each other; nothing is lost, nothing comes
without a subscription, all comes in order, and DUP says what came before.
"""

import asyncio
import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from muster.domain.c2d_message import C2dMessage, C2dProperties
from muster.domain.device import AuthenticationBody, IdentityBody, SymmetricKeyBody
from muster.store.migration import migrate
from muster.store.sqlite import open_sqlite
from muster.wire.mqtt_packets import Disconnect, Puback, Publish, Suback, Subscribe, Unsuback, Unsubscribe
from tests.support.fix_mqtt import MqttClient, MqttClients, until
from tests.support.fix_services import KEY, Clock, Services, build_services

WINDOW = 16
DEPTH = 50
MATCHING = (b"devices/d1/messages/devicebound/#", b"devices/+/messages/devicebound/#", b"#")
OTHERS = (b"$iothub/twin/res/#", b"devices/d2/messages/devicebound/#")
filters = st.sampled_from(MATCHING + OTHERS)


class MqttDeviceSessions(RuleBasedStateMachine):
    """One device. ``waiting`` and ``under_way`` hold numbers of messages, ``stored`` what the session remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = tempfile.TemporaryDirectory()
        self.services: Services = self.run(self.open())
        self.mqtt = MqttClients(self.services)
        self.client: MqttClient | None = None
        self.clean = False
        self.granted: dict[bytes, int] = {}
        self.stored: dict[bytes, int] | None = None
        self.waiting: list[int] = []
        self.under_way: dict[int, int] = {}
        self.came: set[int] = set()
        self.sent = 0
        self.packet_id = 0

    def run(self, coroutine):
        return self.loop.run_until_complete(coroutine)

    async def open(self) -> Services:
        clock = Clock()
        database = await open_sqlite(Path(self.directory.name) / "muster.db", durable=False)
        await migrate(database, clock())
        services = await build_services(database, clock)
        keys = AuthenticationBody("sas", SymmetricKeyBody(KEY, KEY))
        await services.devices.put("hub", "d1", IdentityBody(device_id="d1", authentication=keys), None)
        return services

    def teardown(self) -> None:
        self.run(self.end())
        self.loop.close()
        self.directory.cleanup()

    async def end(self) -> None:
        await self.mqtt.close()

        async def nothing_runs() -> bool:
            return asyncio.all_tasks() == {asyncio.current_task()}

        await until(nothing_runs)
        await self.has_settled(len(self.waiting) + len(self.under_way))
        await self.services.database.close()

    # The model

    @property
    def quality(self) -> int | None:
        """Of the messages: the highest of the filters that match; None without one."""
        return max((self.granted[name] for name in MATCHING if name in self.granted), default=None)

    def remember(self) -> None:
        if not self.clean:
            self.stored = dict(self.granted)

    def take_back(self) -> None:
        """What was not acknowledged waits again, in its place."""
        self.waiting = sorted([*self.waiting, *self.under_way.values()])
        self.under_way = {}

    def next_id(self) -> int:
        self.packet_id += 1
        return self.packet_id

    async def has_settled(self, count: int) -> None:
        async def counted() -> bool:
            return await self.services.c2d.count("hub", "d1") == count

        await until(counted)

    async def take_what_comes(self) -> None:
        """Exactly what the model says, and then nothing more."""
        client, quality = self.client, self.quality
        if client is None:
            return
        while quality is not None and self.waiting and len(self.under_way) < WINDOW:
            number = self.waiting.pop(0)
            got = await client.receive(Publish)
            again = quality == 1 and number in self.came
            assert (got.payload, got.qos, got.dup) == (b"%d" % number, quality, again)
            self.came.add(number)
            if quality:
                assert got.packet_id not in self.under_way
                self.under_way[got.packet_id] = number
        await self.has_settled(len(self.waiting) + len(self.under_way))
        packet_id = self.next_id()
        await client.send(Unsubscribe(packet_id, [b"nothing"]))
        assert await client.receive(Unsuback) == Unsuback(packet_id)

    # Rules

    @rule(clean=st.booleans())
    def connect(self, clean: bool) -> None:
        """Also while another connection is there, which then ends."""
        self.run(self.connect_one(clean))

    @rule(ways=st.lists(st.booleans(), min_size=2, max_size=4))
    def connect_in_a_row(self, ways: list[bool]) -> None:
        for clean in ways:
            self.run(self.connect_one(clean))

    async def connect_one(self, clean: bool) -> None:
        older = self.client
        present = not clean and self.stored is not None
        self.client = await self.mqtt.to_hub("d1", key=KEY, session=present, clean_session=clean)
        if older is not None:
            await older.is_closed()
        self.take_back()
        self.clean = clean
        self.granted = {} if clean else dict(self.stored or {})
        self.stored = None if clean else dict(self.granted)
        if self.quality is None:
            self.waiting = []
        await self.take_what_comes()

    @precondition(lambda self: self.client is not None)
    @rule(name=filters, quality=st.integers(0, 2))
    def subscribe(self, name: bytes, quality: int) -> None:
        self.run(self.subscribe_one(name, quality))

    async def subscribe_one(self, name: bytes, quality: int) -> None:
        assert self.client is not None
        was_subscribed = self.quality is not None
        packet_id = self.next_id()
        await self.client.send(Subscribe(packet_id, [(name, quality)]))
        assert await self.client.receive(Suback) == Suback(packet_id, [min(quality, 1)])
        self.granted[name] = min(quality, 1)
        self.remember()
        if not was_subscribed and self.quality is not None:
            self.waiting = []  # what waited was for nobody
        await self.take_what_comes()

    @precondition(lambda self: self.client is not None)
    @rule(name=filters)
    def subscribe_and_hear_at_once(self, name: bytes) -> None:
        """A message that is sent when SUBACK is there is for the device."""
        self.run(self.subscribe_and_send(name))

    async def subscribe_and_send(self, name: bytes) -> None:
        assert self.client is not None
        if len(self.waiting) + len(self.under_way) >= DEPTH:
            return
        was_subscribed = self.quality is not None
        packet_id = self.next_id()
        await self.client.send(Subscribe(packet_id, [(name, 1)]))
        assert await self.client.receive(Suback) == Suback(packet_id, [1])
        self.granted[name] = 1
        self.remember()
        if not was_subscribed and self.quality is not None:
            self.waiting = []
        await self.send_one()
        await self.take_what_comes()

    @precondition(lambda self: self.client is not None)
    @rule(name=filters)
    def unsubscribe(self, name: bytes) -> None:
        self.run(self.unsubscribe_one(name))

    async def unsubscribe_one(self, name: bytes) -> None:
        assert self.client is not None
        packet_id = self.next_id()
        await self.client.send(Unsubscribe(packet_id, [name]))
        assert await self.client.receive(Unsuback) == Unsuback(packet_id)
        self.granted.pop(name, None)
        self.remember()

    @precondition(lambda self: self.client is not None)
    @rule(goodbye=st.booleans())
    def leave(self, goodbye: bool) -> None:
        self.run(self.end_connection(goodbye))

    async def end_connection(self, goodbye: bool) -> None:
        assert self.client is not None
        if goodbye:
            await self.client.send(Disconnect())
            await self.client.is_closed()
        else:
            await self.client.leave()
        self.client = None
        self.take_back()

    @rule(count=st.integers(1, 20))
    def send(self, count: int) -> None:
        self.run(self.send_many(min(count, DEPTH - len(self.waiting) - len(self.under_way))))

    async def send_many(self, count: int) -> None:
        for _ in range(count):
            await self.send_one()
        await self.take_what_comes()

    async def send_one(self) -> None:
        self.sent += 1
        await self.services.c2d.send("hub", "d1", "", C2dMessage(C2dProperties(), b"%d" % self.sent))
        self.waiting.append(self.sent)

    @precondition(lambda self: self.under_way)
    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        chosen = data.draw(st.lists(st.sampled_from(sorted(self.under_way)), min_size=1, unique=True))
        self.run(self.acknowledge_all(chosen))

    async def acknowledge_all(self, packet_ids: list[int]) -> None:
        assert self.client is not None
        await self.client.send(*(Puback(packet_id) for packet_id in packet_ids))
        for packet_id in packet_ids:
            del self.under_way[packet_id]
        await self.take_what_comes()

    @precondition(lambda self: self.client is not None and not self.under_way)
    @rule(packet_id=st.integers(1, 0xFFFF))
    def acknowledge_what_is_not_under_way(self, packet_id: int) -> None:
        assert self.client is not None
        self.run(self.client.send(Puback(packet_id)))

    @invariant()
    def nothing_is_lost(self) -> None:
        self.run(self.has_settled(len(self.waiting) + len(self.under_way)))


TestMqttDeviceSessions = MqttDeviceSessions.TestCase
TestMqttDeviceSessions.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
