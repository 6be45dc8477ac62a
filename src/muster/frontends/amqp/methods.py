"""Direct methods over AMQP: questions to a device on one link, its answers on the other. Source: hub-device.md 9.8.

A device listens while it has both links. Not here: who asks, and time limits (``hub/methods.py``).
"""

import logging
from uuid import UUID

from muster.domain.errors import ArgumentInvalidError, FormatError, ServiceError
from muster.frontends.amqp.device_links import DeviceLinks, NoticesHead, RequestsHead
from muster.frontends.amqp.device_messages import body_of, integer_of, uuid_of
from muster.hub.methods import MAXIMUM_IN_FLIGHT, MethodCall, Methods, Serving
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_messages import Data, Message, Properties
from muster.wire.amqp_performatives import lookup
from muster.wire.amqp_sessions import Delivery, Link
from muster.wire.amqp_types import DecodeError, Uuid

_log = logging.getLogger("muster.amqp")

_NAME = "IoThub-methodname"
_STATUS = "IoThub-status"
_INT_BITS = 31


class MethodLinks:
    """The questions to one identity on one connection."""

    def __init__(self, device: DeviceLinks, methods: Methods) -> None:
        self._device = device
        self._methods = methods
        self._requests: list[MethodRequestsHead] = []
        self._responses: list[MethodResponsesHead] = []
        self._serving: Serving | None = None
        self._open: dict[UUID, MethodCall] = {}
        self._asked = 0

    def opened(self, head: "MethodRequestsHead | MethodResponsesHead") -> None:
        """A link more; with both kinds there the device listens."""
        self._of(head).append(head)
        if self._requests and self._responses and self._serving is None:
            self._serving = self._methods.serve(*self._device.key, self._ask)

    def closed(self, head: "MethodRequestsHead | MethodResponsesHead") -> None:
        """A link less; who waits for an answer that cannot come any more hears it."""
        heads = self._of(head)
        if head in heads:
            heads.remove(head)
        if self._requests and self._responses:
            return
        if self._serving is not None:
            self._serving.close()
            self._serving = None
        for call in self._open.values():
            call.give_up()
        self._open.clear()

    def _of(self, head: "MethodRequestsHead | MethodResponsesHead") -> list[object]:
        return self._requests if isinstance(head, MethodRequestsHead) else self._responses  # type: ignore[return-value]

    def _ask(self, call: MethodCall) -> None:
        for over in [key for key, one in self._open.items() if one.is_over]:
            del self._open[over]
        if len(self._open) >= MAXIMUM_IN_FLIGHT:
            call.refuse()
            return
        self._asked += 1
        # One client sends an answer's correlation id as a uuid only if its text is one of RFC 4122's.
        correlation = UUID(int=int(self._device.session_id, 16) ^ self._asked, version=4)
        self._open[correlation] = call
        self._requests[-1].send(
            encode_message(
                Message(
                    properties=Properties(correlation_id=Uuid(correlation.bytes)),
                    application_properties={_NAME: call.name},
                    body=Data((call.payload,)),
                )
            )
        )

    def answer(self, message: Message) -> None:
        """The device answers; to a question that nobody asks any more, nothing happens. Raises ArgumentInvalidError."""
        correlation = uuid_of(message.properties.correlation_id if message.properties else None)
        status = integer_of(lookup(message.application_properties, _STATUS))
        if correlation is None:
            raise ArgumentInvalidError("The correlation id of a method's answer is not that of its question.")
        if status is None or status.bit_length() > _INT_BITS:
            raise ArgumentInvalidError(f"{_STATUS} of a method's answer is no number of 32 bits.")
        body = body_of(message)
        call = self._open.pop(correlation, None)
        if call is not None:
            call.answer(status, body)


class MethodRequestsHead(NoticesHead):
    """The link from the hub to the device."""

    def __init__(self, device: DeviceLinks, link: Link, methods: MethodLinks) -> None:
        super().__init__(device, link)
        self._methods = methods

    def opened(self) -> None:
        self._methods.opened(self)

    def closed(self) -> None:
        self._methods.closed(self)
        super().closed()


class MethodResponsesHead(RequestsHead):
    """The link from the device to the hub."""

    def __init__(self, device: DeviceLinks, link: Link, methods: MethodLinks) -> None:
        super().__init__(device, link)
        self._methods = methods

    def opened(self) -> None:
        super().opened()
        self._methods.opened(self)

    def delivery(self, delivery: Delivery) -> None:
        refused: ServiceError | None = None
        try:
            self._methods.answer(decode_message(delivery.payload))
        except DecodeError as error:
            refused = FormatError(f"The message cannot be read: {error}.")
        except ServiceError as error:
            refused = error
        if refused is not None:
            _log.info("%s: the answer to a method is not taken: %s", self.context.describe(), refused)
        self.take(delivery, refused)
        self.device.active()
        self.replenish(0)

    def closed(self) -> None:
        self._methods.closed(self)
        super().closed()
