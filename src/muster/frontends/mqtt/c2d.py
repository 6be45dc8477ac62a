"""Cloud-to-device messages over MQTT: one connected device gets what waits for it. Source: hub-device.md 5, 3.8.

A message goes out under a lock, and PUBACK completes it; at QoS 0 sending it does. What a connection leaves without
PUBACK waits for the next one. Not here: the queue (``hub/c2d_messages.py``).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from muster.domain.c2d_message import property_bag
from muster.domain.errors import MessageLockLostError
from muster.frontends.mqtt.connection import MqttProtocol
from muster.frontends.mqtt.subscriptions import Subscriptions
from muster.frontends.tasks import Tasks
from muster.frontends.topics import c2d_topic
from muster.hub.c2d_messages import C2dMessages, Following

_log = logging.getLogger("muster.mqtt")

Spawn = Callable[[Coroutine[Any, Any, None]], object]


async def settle_unheard(messages: C2dMessages, key: tuple[str, str, str], connection: MqttProtocol) -> None:
    """What waits for a device that connects and is not subscribed will never reach it (hub-device.md 3.10)."""
    settled = await messages.settle_unheard(*key)
    if settled:
        _log.info(
            "%s: %s is not subscribed to messages from the cloud: %d that waited are completed, and lost to it",
            connection.describe(),
            key[1],
            settled,
        )


class MqttC2d:
    """The messages of one connection. ``receiver`` names the connection in the locks that it holds."""

    def __init__(
        self,
        messages: C2dMessages,
        key: tuple[str, str, str],
        receiver: str,
        subscriptions: Subscriptions,
        connection: MqttProtocol,
        spawn: Spawn,
    ) -> None:
        self._messages = messages
        self._key = key
        self._receiver = receiver
        self._subscriptions = subscriptions
        self._connection = connection
        self._spawn = spawn
        # Whatever the properties are, the topic has one level more: any name shows whether a filter matches.
        self._sample = self._topic("x")
        self._following: Following | None = None
        self._locks: dict[int, str] = {}
        self._holds = False  # whether this connection may hold a lock
        self._settling = Tasks()
        self._sending = False
        self._wanted = False

    def _topic(self, bag: str) -> bytes:
        return c2d_topic(self._key[1], self._key[2], bag).encode()

    async def prepare(self) -> None:
        """Before a subscription is acknowledged: what waits until then is not for this device, what comes then is."""
        if self.is_subscribed and self._following is None:
            await self.settle_unheard()

    def subscriptions_changed(self) -> None:
        """Send what waits, or stop sending."""
        if self.is_subscribed and self._following is None:
            self.start()
        elif not self.is_subscribed:
            self.stop()

    async def settle_unheard(self) -> None:
        """For a device that connects without a subscription."""
        await settle_unheard(self._messages, self._key, self._connection)

    @property
    def is_subscribed(self) -> bool:
        return self._subscriptions.qos(self._sample) is not None

    def start(self) -> None:
        """Send what waits and what will come."""
        self._following = self._messages.follow(*self._key, self._wake)
        self._wake()

    def stop(self) -> None:
        """Send no more."""
        if self._following is not None:
            self._following.close()
            self._following = None

    def _wake(self) -> None:
        self._wanted = True
        if not self._sending:
            self._sending = True
            self._spawn(self._send())

    async def _send(self) -> None:
        try:
            while self._wanted and self._has_room():
                self._wanted = False
                while await self._send_next():
                    if not self._has_room():
                        self._wanted = True  # PUBACK makes room
                        return
        finally:
            self._sending = False

    def _has_room(self) -> bool:
        session = self._connection.session
        return self._following is not None and session.connected and session.in_flight_room > 0

    async def _send_next(self) -> bool:
        """Lock the next message and send it; False when none waits, or none is wanted any more."""
        self._holds = True
        delivery = await self._messages.lock_next(*self._key, self._receiver)
        if delivery is None:
            self._holds = bool(self._locks)
            return False
        qos = self._subscriptions.qos(self._sample)
        if qos is None:  # unsubscribed meanwhile: the lock lapses, or ends with the connection
            return False
        topic = self._topic(property_bag(delivery.properties))
        again = bool(qos) and delivery.redelivered
        packet_id = self._connection.session.publish(topic, delivery.body, qos, dup=again)
        self._connection.flush()
        if packet_id:
            self._locks[packet_id] = delivery.lock_token
        elif qos == 0:
            # Even if the device leaves now: it has the message.
            await asyncio.shield(self._settling.spawn(self._complete(delivery.lock_token)))
        return True

    def acknowledged(self, packet_id: int) -> None:
        """PUBACK."""
        lock_token = self._locks.pop(packet_id, None)
        if lock_token is not None:
            self._settling.spawn(self._complete(lock_token))
        if self._wanted:
            self._wake()

    async def _complete(self, lock_token: str) -> None:
        try:
            await self._messages.complete(*self._key, lock_token)
        except MessageLockLostError:
            _log.info("%s: a message was acknowledged after its lock had lapsed", self._connection.describe())

    async def close(self) -> None:
        """The connection is over: what it did not acknowledge waits again."""
        self.stop()
        await self._settling.finish()
        if self._holds:
            await self._messages.release(*self._key, self._receiver)
