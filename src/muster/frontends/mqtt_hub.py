"""A device that is connected to its hub over MQTT: telemetry in, PUBACKs out after the commit.

The path of a message is batched from end to end: one look at the topic, one append for all that a read brought,
one write of all PUBACKs; no task and no future for a single message (DESIGN.md 4). Sources: hub-device.md 3, 4.
"""

import logging
from collections.abc import Sequence
from functools import partial

from muster.domain.credential import Credential
from muster.domain.message import TELEMETRY, PropertyBag, parse_property_bag
from muster.domain.partition import partition_of
from muster.frontends.mqtt_connection import MqttProtocol
from muster.frontends.tasks import Tasks
from muster.frontends.topics import telemetry_prefix
from muster.hub.authentication import DeviceAuthentication, DeviceLogin, Principal
from muster.hub.events import EventLog, Head, Messages, Run
from muster.hub.sessions import Notice, Session, Sessions
from muster.wire.mqtt_packets import Publish, Subscribe, Unsubscribe
from muster.wire.mqtt_session import Event

_log = logging.getLogger("muster.mqtt")

_MAXIMUM_PENDING_MESSAGES = 512
_MAXIMUM_PENDING_BYTES = 2 * 1024 * 1024
_BAG_CACHE = 64


class HubHead:
    """The work of one authenticated device connection."""

    def __init__(
        self,
        connection: MqttProtocol,
        authentication: DeviceAuthentication,
        sessions: Sessions,
        events: EventLog,
        login: DeviceLogin,
        credential: Credential,
        principal: Principal,
        model_id: str,
    ) -> None:
        identity = principal.identity
        self._connection = connection
        self._authentication = authentication
        self._sessions = sessions
        self._events = events
        self._login = login
        self._credential = credential
        self._principal = principal
        self._hub = principal.hub.name
        self._partition = partition_of(identity.device_id, principal.hub.partition_count)
        self._stamps = (
            TELEMETRY,
            identity.device_id,
            identity.module_id,
            identity.generation_id,
            principal.authentication_method,
            model_id,
        )
        self._prefix = telemetry_prefix(identity.device_id, identity.module_id).encode()
        self._bags: dict[tuple[bytes, bool], PropertyBag] = {}
        # The topic and RETAIN of the last message, what its bag makes of the stamps, and the room it leaves for a body.
        self._chosen: tuple[bytes, bool] | None = None
        self._head: Head
        self._room = 0
        self._pending_messages = 0
        self._pending_bytes = 0
        self._session: Session | None = None
        self._tasks = Tasks()

    async def attach(self) -> None:
        """Become the identity's connection."""
        self._session = await self._sessions.attach(self._principal, self._deliver)

    def deadline(self) -> int | None:
        return self._principal.expiry

    def closed(self) -> None:
        self._tasks.cancel()
        if self._session is not None:
            session, self._session = self._session, None
            self._sessions.detach(session)

    def _deliver(self, notice: Notice) -> None:
        match notice:
            case Notice.DISPLACED:
                self._connection.close("a newer connection of the same identity took over")
            case Notice.IDENTITY_CHANGED:
                self._tasks.spawn(self._judge_again())

    async def _judge_again(self) -> None:
        if not await self._authentication.still_holds(self._login, self._credential, self._principal):
            self._connection.close("the identity was deleted or disabled, or its credential does not count any more")

    def handle(self, events: Sequence[Event]) -> None:
        runs: list[Run] = []
        packet_ids: list[int] = []
        count = size = 0
        topic: bytes | None = None
        for event in events:
            if isinstance(event, Publish):
                # The core has one object for equal topics that follow each other: a run is told at a glance.
                if event.topic is not topic or event.retain:
                    if not self._choose_bag(event):
                        break
                    bodies: list[bytes] = []
                    runs.append((self._head, bodies))
                    topic = event.topic
                length = len(event.payload)
                if length > self._room:
                    self._connection.close(f"it sent {length} bytes, {self._room} were allowed")
                    break
                bodies.append(event.payload)
                count += 1
                size += length
                if event.qos:
                    packet_ids.append(event.packet_id)
            elif isinstance(event, Subscribe):
                # Every filter is granted at QoS 1 at most, and never refused (hub-device.md 3.5).
                self._connection.session.suback(event.packet_id, [min(qos, 1) for _, qos in event.filters])
            elif isinstance(event, Unsubscribe):
                self._connection.session.unsuback(event.packet_id)
        if count:
            self._append(Messages(runs, count, size), packet_ids)

    def _choose_bag(self, event: Publish) -> bool:
        """Make the properties in this topic those of the next messages; False after closing the connection."""
        chosen = (event.topic, event.retain)
        if chosen == self._chosen:
            return True
        bag = self._bags.get(chosen)
        if bag is None:
            bag = self._parse(event)
            if bag is None:
                self._connection.close(f"it published to {event.topic[:200]!r}, which is no topic of its own")
                return False
            if len(self._bags) >= _BAG_CACHE:
                self._bags.clear()
            self._bags[chosen] = bag
        self._chosen = chosen
        self._head = (*self._stamps, bag.system_properties, bag.application_properties)
        self._room = bag.room
        return True

    def _parse(self, event: Publish) -> PropertyBag | None:
        prefix = self._prefix
        if event.topic == prefix:
            return parse_property_bag("", retained=event.retain)
        if not event.topic.startswith(prefix + b"/"):
            return None
        return parse_property_bag(event.topic[len(prefix) + 1 :].decode(), retained=event.retain)

    def _append(self, messages: Messages, packet_ids: list[int]) -> None:
        count, size = messages.count, messages.size
        self._pending_messages += count
        self._pending_bytes += size
        self._events.append(self._hub, self._partition, messages, partial(self._committed, count, size, packet_ids))
        if self._is_full() or self._events.is_full:
            self._connection.pause_reading()  # until the commit of these

    def _committed(self, count: int, size: int, packet_ids: Sequence[int], error: BaseException | None) -> None:
        self._pending_messages -= count
        self._pending_bytes -= size
        if error is not None:
            self._connection.close(f"its messages could not be stored: {error}")
            return
        session = self._connection.session
        if packet_ids and session.connected:
            session.pubacks(packet_ids)
            self._connection.flush()
        if not self._is_full():
            self._connection.resume_reading()

    def _is_full(self) -> bool:
        return self._pending_messages >= _MAXIMUM_PENDING_MESSAGES or self._pending_bytes >= _MAXIMUM_PENDING_BYTES
