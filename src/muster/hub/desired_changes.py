"""How a connected device hears of its desired properties: one message on the bus for each committed write.

The message is the document that the device is sent, with its version before it, so that usually nothing is read again.
The bus may lose anything, and with several nodes messages may overtake each other: who follows knows the last
version it has passed on. The next one is passed on as it is; an older one is left out; after a gap the desired
properties are read and passed on as a whole, as after a replacement. What is lost without a successor stays unheard
until the next write or the next GET, as for a device that was offline. Nothing is ever queued (hub-device.md 7.7).
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from muster.bus.bus import Bus, Message, Subscription
from muster.domain.documents import encode
from muster.domain.errors import DeviceNotFoundError
from muster.domain.twin import JsonObject


def twin_changed_subject(hub: str, device_id: str, module_id: str) -> str:
    """The bus subject on which the connection of an identity hears of its desired properties."""
    return f"twin.{hub}.{device_id}/{module_id}"


def twin_changed_message(version: int, document: JsonObject) -> bytes:
    """``9 {"interval":60,"$version":9}``."""
    return f"{version} {encode(document)}".encode()


class DesiredChanges:
    """What one connection follows; made by ``Twins.follow_desired``."""

    def __init__(
        self,
        read: Callable[[], Awaitable[tuple[int, bytes]]],
        deliver: Callable[[int, bytes], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._read = read
        self._deliver = deliver
        self._spawn = spawn
        self._subscription: Subscription | None = None
        self._passed_on = 0
        self._announced = 0
        self._reading = True
        self._early: list[Message] = []

    async def open(self, bus: Bus, subject: str) -> None:
        """Hear from now on. Raises what ``read`` raises, and follows nothing then."""
        self._subscription = bus.subscribe(subject, self._hear)
        try:
            self._passed_on, _ = await self._read()
        except BaseException:
            self.close()
            raise
        self._reading = False
        early, self._early = self._early, []
        for message in early:
            self._hear(message)

    def close(self) -> None:
        """Nothing is delivered after it. Twice is fine."""
        if self._subscription is not None:
            self._subscription.close()
            self._subscription = None

    def _hear(self, message: Message) -> None:
        digits, _, document = message.data.partition(b" ")
        version = int(digits)
        self._announced = max(self._announced, version)
        if self._reading:
            if not self._passed_on:
                self._early.append(message)
        elif version == self._passed_on + 1:
            self._pass_on(version, document)
        elif version > self._passed_on:
            self._reading = True
            self._spawn(self._catch_up())

    async def _catch_up(self) -> None:
        try:
            while self._subscription is not None and self._passed_on < self._announced:
                version, document = await self._read()
                if version <= self._passed_on:
                    return
                self._pass_on(version, document)
        except DeviceNotFoundError:
            self.close()
        finally:
            self._reading = False

    def _pass_on(self, version: int, document: bytes) -> None:
        if self._subscription is not None:
            self._passed_on = version
            self._deliver(version, document)
