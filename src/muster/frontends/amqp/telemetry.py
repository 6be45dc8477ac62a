"""Telemetry over AMQP: what a device sends on one link, accepted after the commit.

The path of a message is batched from end to end, as over MQTT: one look at what comes before its body, one append for
all that a read brought, one disposition for each run of deliveries; no task and no future for a single message.
Sources: hub-device.md 4, 9.5, 9.6. Not here: properties (``amqp/device_messages.py``).
"""

from functools import partial

from muster.domain.errors import FormatError, ServiceError, UnavailableError
from muster.domain.message import PropertyBag
from muster.domain.partition import partition_of
from muster.frontends.amqp.device_links import ACCEPTED, DeviceHead, DeviceLinks
from muster.frontends.amqp.device_messages import BATCH_FORMAT, TelemetryReader
from muster.hub.event_batches import Messages, Run
from muster.hub.events import EventLog
from muster.wire.amqp_performatives import Rejected
from muster.wire.amqp_sessions import Delivery, Link
from muster.wire.amqp_types import DecodeError

WINDOW = 512
"""Deliveries of one link that may be under way to the disk or to the server."""

_WINDOW_STEP = WINDOW // 4
_MAXIMUM_PENDING_BYTES = 2 * 1024 * 1024


class TelemetryHead(DeviceHead):
    """One link to ``messages/events``."""

    def __init__(self, device: DeviceLinks, link: Link, events: EventLog) -> None:
        super().__init__(device, link)
        principal = device.principal
        self._events = events
        self._hub = principal.hub.name
        self._partition = partition_of(principal.identity.device_id, principal.hub.partition_count)
        self._reader = TelemetryReader()
        # What the read that is worked on has brought.
        self._bag: PropertyBag | None = None
        self._bodies: list[bytes] = []
        self._runs: list[Run] = []
        self._delivery_ids: list[int] = []
        self._deliveries = 0
        self._count = 0
        self._size = 0
        # What is under way to the disk.
        self._pending = 0
        self._pending_bytes = 0

    def opened(self) -> None:
        self.context.core.grant(self.link, WINDOW)

    def delivery(self, delivery: Delivery) -> None:
        try:
            if delivery.message_format == BATCH_FORMAT:
                for bag, body in list(self._reader.read_batch(delivery.payload)):
                    self._add(bag, body)
            else:
                self._add(*self._reader.read(delivery.payload))
        except DecodeError as error:
            self._reject(delivery, FormatError(f"The message cannot be read: {error}."))
            return
        except ServiceError as error:
            self._reject(delivery, error)
            return
        if not delivery.settled:
            self._delivery_ids.append(delivery.delivery_id)
        self._deliveries += 1
        if self._deliveries == 1:
            self.context.after_read(self._append)

    def _add(self, bag: PropertyBag, body: bytes) -> None:
        if bag is not self._bag:
            self._bag = bag
            self._bodies = []
            head = (*self.device.stamps, bag.system_properties, bag.application_properties)
            self._runs.append((head, self._bodies))
        self._bodies.append(body)
        self._count += 1
        self._size += len(body)

    def _reject(self, delivery: Delivery, error: ServiceError) -> None:
        if not delivery.settled:
            self.context.core.settle(self.link, (delivery.delivery_id,), Rejected(self.error(error)))
        self._replenish()

    def _append(self) -> None:
        """Hand over what one read has brought."""
        deliveries, size, delivery_ids = self._deliveries, self._size, self._delivery_ids
        messages = Messages(self._runs, self._count, size)
        self._bag, self._runs, self._delivery_ids = None, [], []
        self._deliveries = self._count = self._size = 0
        if not messages.count:  # a batch of nothing
            self.context.core.settle(self.link, delivery_ids, ACCEPTED)
            return
        self._pending += deliveries
        self._pending_bytes += size
        committed = partial(self._committed, deliveries, size, delivery_ids)
        self._events.append(self._hub, self._partition, messages, committed)
        if self._pending_bytes >= _MAXIMUM_PENDING_BYTES or self._events.is_full:
            self.context.pause_reading(self)  # until some of it is on disk

    def _committed(self, deliveries: int, size: int, delivery_ids: list[int], error: BaseException | None) -> None:
        self._pending -= deliveries
        self._pending_bytes -= size
        if error is None:
            self.context.core.settle(self.link, delivery_ids, ACCEPTED)
            self.device.active()
        elif delivery_ids:
            refusal = UnavailableError(f"The messages could not be stored: {error}.")
            self.context.core.settle(self.link, delivery_ids, Rejected(self.error(refusal)))
        if self._pending_bytes < _MAXIMUM_PENDING_BYTES:
            self.context.resume_reading(self)
        self._replenish()
        self.context.flush_soon()

    def _replenish(self) -> None:
        """Grant again what was used up, in steps; what waits for the disk counts as used."""
        room = WINDOW - self._pending - self._deliveries - self.link.credit
        if room >= _WINDOW_STEP and not self.link.detached:
            self.context.core.grant(self.link, self.link.credit + room)

    def closed(self) -> None:
        self.context.resume_reading(self)
        super().closed()
