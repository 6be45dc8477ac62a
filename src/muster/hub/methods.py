"""Direct methods: ask a connected device one thing, and wait for its answer.

A question lives in memory only: the bus carries it to the connection that listens, wherever that is, and carries the
answer back (style-models.md 11.14). Sources: hub-device.md 6, hub-service.md 5. Not here: any protocol.
"""

import asyncio
from collections.abc import Callable

import msgspec

from muster.bus.bus import Bus, Message, NoResponderError, Subscription
from muster.domain.errors import (
    DeviceConnectionClosedError,
    DeviceNotFoundError,
    DeviceNotOnlineError,
    GatewayTimeoutError,
    TooManyMethodsError,
)
from muster.domain.method import MethodAnswer, MethodInvocation, read_answer
from muster.hub.devices import Devices

MAXIMUM_IN_FLIGHT = 100
"""Questions that one connection may have open; Azure's number is not published."""

Serving = Subscription
"""``close()`` ends it."""

_CLOSED = b"closed"
_TOO_MANY = b"too many"
_NOT_HEARD = b"not heard"


class _Question(msgspec.Struct):
    name: str
    payload: msgspec.Raw
    seconds: int


class MethodCall:
    """A question in the hands of a connection, which settles it once; later settlements do nothing."""

    __slots__ = ("_message", "_until", "name", "payload")

    def __init__(self, message: Message, question: _Question) -> None:
        self._message = message
        self._until = asyncio.get_running_loop().time() + question.seconds
        self.name = question.name
        self.payload = bytes(question.payload)

    @property
    def is_over(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return asyncio.get_running_loop().time() > self._until

    def answer(self, status: int, body: bytes) -> None:
        """The device's status and its body as it came."""
        self._message.reply(b"%d %b" % (status, body))

    def give_up(self) -> None:
        """The connection ends, so no answer will come."""
        self._message.reply(_CLOSED)

    def refuse(self) -> None:
        """The connection has as many open questions as it may."""
        self._message.reply(_TOO_MANY)

    def is_not_heard(self) -> None:
        """The device listens for other methods, and not for this one."""
        self._message.reply(_NOT_HEARD)


class Methods:
    """Asks the devices of all hubs."""

    def __init__(self, devices: Devices, bus: Bus) -> None:
        self._devices = devices
        self._bus = bus

    async def invoke(self, hub: str, device_id: str, module_id: str, invocation: MethodInvocation) -> MethodAnswer:
        """Ask, and wait for the answer.

        Raises DeviceNotFoundError, DeviceNotOnlineError when the device does not listen within the connect time-out,
        GatewayTimeoutError when it does not answer in time, DeviceConnectionClosedError when it goes away meanwhile,
        TooManyMethodsError and BadDeviceResponseError.
        """
        if await self._devices.find(hub, device_id, module_id) is None:
            raise DeviceNotFoundError(f"{device_id}/{module_id}" if module_id else device_id)
        payload = msgspec.Raw(invocation.payload)
        question = msgspec.json.encode(_Question(invocation.name, payload, invocation.response_seconds))
        reply = await self._ask((hub, device_id, module_id), question, invocation)
        if reply == _NOT_HEARD:
            raise DeviceNotOnlineError
        if reply == _CLOSED:
            raise DeviceConnectionClosedError
        if reply == _TOO_MANY:
            raise TooManyMethodsError(f"{MAXIMUM_IN_FLIGHT} direct methods wait for the answer of this device.")
        status, _, body = reply.partition(b" ")
        return read_answer(int(status), body)

    async def _ask(self, key: tuple[str, str, str], question: bytes, invocation: MethodInvocation) -> bytes:
        subject = _method_subject(*key)
        listening = asyncio.Event()
        subscription = self._bus.subscribe(_listening_subject(*key), lambda _message: listening.set())
        try:
            async with asyncio.timeout(invocation.connect_seconds or None) as limit:
                while True:
                    listening.clear()
                    try:
                        # A device that was reached has its whole time to answer.
                        return await self._request(subject, question, invocation.response_seconds, limit)
                    except NoResponderError:
                        if not invocation.connect_seconds:
                            raise DeviceNotOnlineError from None
                    await listening.wait()
        except TimeoutError:
            raise DeviceNotOnlineError from None
        finally:
            subscription.close()

    async def _request(self, subject: str, question: bytes, seconds: float, connecting: asyncio.Timeout) -> bytes:
        until = connecting.when()
        connecting.reschedule(None)
        try:
            return await self._bus.request(subject, question, seconds)
        except TimeoutError:
            raise GatewayTimeoutError from None
        except NoResponderError:
            connecting.reschedule(until)
            raise

    def serve(self, hub: str, device_id: str, module_id: str, ask: Callable[[MethodCall], None]) -> Serving:
        """Have ``ask`` called with every question for this identity, until ``close()``; the device listens from now
        on.
        """

        def hear(message: Message) -> None:
            ask(MethodCall(message, msgspec.json.decode(message.data, type=_Question)))

        subscription = self._bus.subscribe(_method_subject(hub, device_id, module_id), hear)
        self._bus.publish(_listening_subject(hub, device_id, module_id), b"")
        return subscription


def _method_subject(hub: str, device_id: str, module_id: str) -> str:
    return f"method.{hub}.{device_id}/{module_id}"


def _listening_subject(hub: str, device_id: str, module_id: str) -> str:
    """Where a caller that waits for a device hears that it listens."""
    return f"listening.{hub}.{device_id}/{module_id}"
