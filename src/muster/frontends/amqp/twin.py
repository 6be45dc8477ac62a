"""The twin over AMQP: a device asks on one link and is answered on the other, where it also hears of what is desired.

Requests of one identity are worked on one after the other, as they came. Source: hub-device.md 7, 9.8. Not here: rules
(``domain/twin.py``).
"""

from collections import deque

from muster.domain.errors import ArgumentInvalidError, FormatError, ServiceError
from muster.frontends import status
from muster.frontends.amqp.device_links import DeviceLinks, NoticesHead, RequestsHead, text_of
from muster.frontends.amqp.device_messages import body_of, integer_of
from muster.frontends.tasks import Tasks
from muster.hub.desired_changes import DesiredChanges
from muster.hub.twins import Twins
from muster.observe import Operation
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_messages import Data, Message, Properties
from muster.wire.amqp_performatives import Fields, lookup
from muster.wire.amqp_sessions import Delivery, Link
from muster.wire.amqp_types import DecodeError, Int, Long, Symbol, Value

_REPORTED = "/properties/reported"
_DESIRED = "/properties/desired"
_NOTIFICATIONS = "/notifications/twin/properties/desired"
_OK = 200

_RESOURCE = Symbol("resource")
_STATUS = Symbol("status")
_VERSION = Symbol("version")


class TwinLinks:
    """The twin of one identity on one connection."""

    def __init__(self, device: DeviceLinks, twins: Twins) -> None:
        self._device = device
        self._twins = twins
        self._asking: list[TwinRequestsHead] = []
        self._answered: list[TwinResponsesHead] = []
        self._waiting: deque[tuple[TwinRequestsHead, Message]] = deque()
        self._working = False
        self._work = Tasks()  # is finished even when the device leaves: it may say goodbye right behind a request
        self._changes: DesiredChanges | None = None
        self._hearing: set[str] = set()  # the pairs that want to hear of desired properties

    def asks(self, head: "TwinRequestsHead", message: Message) -> None:
        """A request; the answer comes after those of all that came before it."""
        self._waiting.append((head, message))
        if not self._working:
            self._working = True
            self._work.spawn(self._work_through())

    async def _work_through(self) -> None:
        try:
            while self._waiting:
                head, message = self._waiting.popleft()
                answer = await self._answer(head, message)
                correlation = message.properties.correlation_id if message.properties else None
                if correlation is not None:  # without one nobody could tell what is answered
                    self._say(head.correlation, Properties(correlation_id=correlation), *answer)
                self._device.active()
                head.worked_on()
        finally:
            self._working = False

    async def _answer(self, head: "TwinRequestsHead", message: Message) -> tuple[Fields, bytes]:
        """The annotations and the body of the answer."""
        try:
            version, body = await self._do(head, message)
        except ServiceError as error:
            return {_STATUS: Int(error.status)}, self._error_body(error)
        return {_STATUS: Int(_OK)} | ({_VERSION: Long(version)} if version else {}), body

    async def _do(self, head: "TwinRequestsHead", message: Message) -> tuple[int, bytes]:
        """The version and the body that a request comes to. Raises ServiceError."""
        annotations = message.message_annotations
        operation = text_of(lookup(annotations, "operation")).upper()
        resource = text_of(lookup(annotations, "resource")).lower()
        match operation, resource:
            case "GET", _:
                return 0, await self._twins.device_document(*self._device.key)
            case "PATCH", "/properties/reported":
                expected = _expected(lookup(annotations, "version"))
                return await self._twins.update_reported(*self._device.key, body_of(message), expected), b""
            case "PUT", "/notifications/twin/properties/desired":
                await self._hear(head)
            case "DELETE", "/notifications/twin/properties/desired":
                self._stop_hearing(head.correlation)
            case _:
                raise ArgumentInvalidError(f"A twin knows no {operation[:20]!r} of {resource[:100]!r}.")
        return 0, b""

    async def _hear(self, head: "TwinRequestsHead") -> None:
        if head not in self._asking:
            return
        self._hearing.add(head.correlation)
        if self._changes is None:
            changes = await self._twins.follow_desired(*self._device.key, self._desired, self._device.context.spawn)
            if self._hearing:
                self._changes = changes
            else:  # the links went meanwhile
                changes.close()

    def _stop_hearing(self, correlation: str) -> None:
        self._hearing.discard(correlation)
        if not self._hearing and self._changes is not None:
            self._changes.close()
            self._changes = None

    def _desired(self, version: int, document: bytes) -> None:
        for correlation in self._hearing:
            self._say(correlation, None, {_RESOURCE: _DESIRED, _VERSION: Long(version)}, document)

    def _say(self, correlation: str, properties: Properties | None, annotations: Fields, body: bytes) -> None:
        """On the link of the same pair; on the newest one when the pair has none."""
        pair = [head for head in self._answered if head.correlation == correlation] or self._answered
        if pair:
            message = Message(message_annotations=annotations, properties=properties, body=Data((body,)))
            pair[-1].send(encode_message(message))

    def _error_body(self, error: ServiceError) -> bytes:
        context = self._device.context
        tracking_id = error.tracking_id or context.tracking_id()
        Operation("twin", self._device.key[1]).finished(error.code, tracking_id)
        return status.hub_plain_body(error, tracking_id, context.clock())

    def opened(self, head: "TwinRequestsHead | TwinResponsesHead") -> None:
        if isinstance(head, TwinRequestsHead):
            self._asking.append(head)
        else:
            self._answered.append(head)

    def closed(self, head: "TwinRequestsHead | TwinResponsesHead") -> None:
        """A pair that has lost one of its links hears nothing more."""
        if isinstance(head, TwinRequestsHead):
            if head in self._asking:
                self._asking.remove(head)
        elif head in self._answered:
            self._answered.remove(head)
        if not self._answered or not any(other.correlation == head.correlation for other in self._asking):
            self._stop_hearing(head.correlation)


def _expected(version: Value) -> int | None:
    """Raises ArgumentInvalidError."""
    if version is None:
        return None
    number = integer_of(version)
    if number is None or number < 0:
        raise ArgumentInvalidError("The version of a patch is not a number.")
    return number


class TwinRequestsHead(RequestsHead):
    """The link from the device to the hub."""

    def __init__(self, device: DeviceLinks, link: Link, twin: TwinLinks) -> None:
        super().__init__(device, link)
        self._twin = twin
        self._under_way = 0

    def opened(self) -> None:
        super().opened()
        self._twin.opened(self)

    def delivery(self, delivery: Delivery) -> None:
        try:
            message = decode_message(delivery.payload)
        except DecodeError as error:
            self.take(delivery, FormatError(f"The message cannot be read: {error}."))
            self.replenish(self._under_way)
            return
        self.take(delivery)
        self._under_way += 1
        self._twin.asks(self, message)

    def worked_on(self) -> None:
        """One of the requests is answered."""
        self._under_way -= 1
        self.replenish(self._under_way)

    def closed(self) -> None:
        self._twin.closed(self)
        super().closed()


class TwinResponsesHead(NoticesHead):
    """The link from the hub to the device."""

    def __init__(self, device: DeviceLinks, link: Link, twin: TwinLinks) -> None:
        super().__init__(device, link)
        self._twin = twin

    def opened(self) -> None:
        self._twin.opened(self)

    def closed(self) -> None:
        self._twin.closed(self)
        super().closed()
