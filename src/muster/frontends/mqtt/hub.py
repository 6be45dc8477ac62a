"""A device that is connected to its hub over MQTT: telemetry in, PUBACKs out after the commit; its will at its end.

What else it does is ``mqtt/conversation.py``. The path of a message is batched from end to end: one look at the
topic, one append for all that a read brought, one write of all PUBACKs; no task
and no future for a single message (DESIGN.md 4). Sources: hub-device.md 3, 4.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from muster.domain.credential import Credential
from muster.domain.errors import ServiceError
from muster.domain.message import TELEMETRY, PropertyBag, marked_as_will, parse_property_bag
from muster.domain.partition import partition_of
from muster.frontends.device_services import DeviceServices
from muster.frontends.mqtt.acknowledgements import Acknowledgements, Owed
from muster.frontends.mqtt.c2d import settle_unheard
from muster.frontends.mqtt.connection import MqttProtocol
from muster.frontends.mqtt.conversation import Conversation
from muster.frontends.tasks import Tasks
from muster.frontends.topics import HUB_REQUESTS, telemetry_prefix
from muster.hub.authentication import DeviceAuthentication, DeviceLogin, Principal
from muster.hub.event_batches import Head, Messages, Run
from muster.hub.events import EventLog
from muster.hub.sessions import Notice, Session
from muster.wire.mqtt_packets import Connect, Disconnect, Puback, Publish, Subscribe, Unsubscribe
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
        events: EventLog,
        services: DeviceServices,
        login: DeviceLogin,
        credential: Credential,
        principal: Principal,
        connect: Connect,
        model_id: str,
    ) -> None:
        identity = principal.identity
        self._connection = connection
        self._authentication = authentication
        self._services = services
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
        self._acknowledgements = Acknowledgements()
        self._clean_session = connect.clean_session
        self._will = connect.will
        self._model_id = model_id
        self.session_present = False
        self._session: Session | None = None
        self._conversation: Conversation | None = None
        self._tasks = Tasks()
        self._settling: asyncio.Task[None] | None = None

    @property
    def key(self) -> tuple[str, str, str]:
        """Hub, device id, module id or empty."""
        identity = self._principal.identity
        return self._hub, identity.device_id, identity.module_id

    @property
    def telemetry_prefix(self) -> bytes:
        """What the topics of its telemetry begin with."""
        return self._prefix

    def acknowledge(self, packet_id: int) -> None:
        """A PUBLISH that somebody else took out of what came: its turn is behind all that came earlier."""
        self._settled(self._acknowledgements.owe((packet_id,)), 0, 0, self._connection.flush_soon)

    async def attach(self) -> None:
        """Become the identity's connection."""
        sessions, identity = self._services.sessions, self._principal.identity
        if self._model_id:
            twins = self._services.twins
            await twins.announce_model(self._hub, identity.device_id, identity.module_id, self._model_id)
        self._session = await sessions.attach(self._principal, self._deliver, clean_session=self._clean_session)
        self.session_present = self._session.resumed is not None

    def opened(self) -> None:
        if self._session is None:
            return
        if self._session.resumed:
            self._converse().opened()
        else:
            self._settling = self._tasks.spawn(settle_unheard(self._services.c2d, self._session.key, self._connection))

    def _converse(self) -> Conversation:
        if self._conversation is None:
            assert self._session is not None
            self._conversation = Conversation(
                self._services, self._connection, self._session, clean_session=self._clean_session
            )
            if self._settling is not None and not self._settling.done():
                self._conversation.wait_for(self._settling)
        return self._conversation

    def deadline(self) -> int | None:
        return self._principal.expiry

    def closed(self) -> None:
        self._tasks.cancel()
        if self._conversation is not None:
            self._conversation.closed()
        if self._session is not None:
            session, self._session = self._session, None
            self._services.sessions.detach(session)
            self._publish_will()

    def _deliver(self, notice: Notice) -> None:
        match notice:
            case Notice.DISPLACED:
                self._connection.close("a newer connection of the same identity took over")
            case Notice.IDENTITY_CHANGED:
                self._tasks.spawn(self._judge_again())

    async def _judge_again(self) -> None:
        try:
            holds = await self._authentication.still_holds(self._login, self._credential, self._principal)
        except ServiceError as error:
            self._connection.close(f"it could not be judged again after a change: {error}")
            return
        if not holds:
            self._connection.close("the identity was deleted or disabled, or its credential does not count any more")

    def handle(self, events: Sequence[Event]) -> None:
        position = 0
        while True:
            position = self._take_telemetry(events, position)
            if position == len(events) or not self._react(events[position]):
                break
            position += 1

    def _take_telemetry(self, events: Sequence[Event], position: int) -> int:
        """Append the messages from ``position`` on, up to what is none; returns where that is."""
        runs: list[Run] = []
        packet_ids: list[int] = []
        count = size = 0
        topic: bytes | None = None
        for position in range(position, len(events)):  # noqa: B020, PLR1704 - it is where the caller goes on
            event = events[position]
            if not isinstance(event, Publish):
                break
            # The core has one object for equal topics that follow each other: a run is told at a glance.
            if event.topic is not topic or event.retain:
                if not self._choose_bag(event):
                    break
                bodies: list[bytes] = []
                runs.append((self._head, bodies))
                topic = event.topic
            length = len(event.payload)
            if length > self._room:
                break
            bodies.append(event.payload)
            count += 1
            size += length
            if event.qos:
                packet_ids.append(event.packet_id)
        else:
            position = len(events)
        if count:
            self._append(Messages(runs, count, size), packet_ids)
        return position

    def _react(self, event: Event) -> bool:
        """Whatever is not telemetry, or is none that can be taken; False after closing the connection."""
        match event:
            case Publish():
                return self._request(event)
            case Puback():
                self._converse().acknowledged(event.packet_id)
            case Subscribe():
                self._converse().subscribe(event)
            case Unsubscribe():
                self._converse().unsubscribe(event)
            case Disconnect():
                self._will = None
            case _:
                pass
        return True

    def _request(self, event: Publish) -> bool:
        """Twins and methods; False after closing the connection for what the hub does not take."""
        if not event.topic.startswith(HUB_REQUESTS):
            if self._choose_bag(event):
                reason = f"it sent {len(event.payload)} bytes, {self._room} were allowed"
            else:
                reason = f"it published to {event.topic[:200]!r}, which is no topic of its own"
            self._connection.close(reason)
            return False
        # Its acknowledgement comes behind those of the telemetry before it.
        owed = self._acknowledgements.owe((event.packet_id,) if event.qos else ())
        self._pending_messages += 1
        if not self._converse().publish(event, partial(self._settled, owed, 1, 0, self._connection.flush_soon)):
            self._connection.close(f"it published to {event.topic[:200]!r}, which is no topic of the hub's")
            return False
        if self._is_full():
            self._connection.pause_reading()
        return True

    def _choose_bag(self, event: Publish) -> bool:
        """Make the properties in this topic those of the next messages; False when it is no telemetry topic."""
        chosen = (event.topic, event.retain)
        if chosen == self._chosen:
            return True
        bag = self._bags.get(chosen)
        if bag is None:
            bag = self._parse(event.topic, retained=event.retain)
            if bag is None:
                return False
            if len(self._bags) >= _BAG_CACHE:
                self._bags.clear()
            self._bags[chosen] = bag
        self._chosen = chosen
        self._head = (*self._stamps, bag.system_properties, bag.application_properties)
        self._room = bag.room
        return True

    def _parse(self, topic: bytes, *, retained: bool) -> PropertyBag | None:
        """The properties in a telemetry topic of the device's own; None for another topic."""
        prefix = self._prefix
        if topic == prefix:
            return parse_property_bag("", retained=retained)
        if not topic.startswith(prefix + b"/"):
            return None
        return parse_property_bag(topic[len(prefix) + 1 :].decode(), retained=retained)

    def _append(self, messages: Messages, packet_ids: list[int]) -> None:
        count, size = messages.count, messages.size
        self._pending_messages += count
        self._pending_bytes += size
        owed = self._acknowledgements.owe(packet_ids)
        self._events.append(self._hub, self._partition, messages, partial(self._committed, count, size, owed))
        if self._is_full() or self._events.is_full:
            self._connection.pause_reading()  # until the commit of these

    def _committed(self, count: int, size: int, owed: Owed, error: BaseException | None) -> None:
        if error is not None:
            self._connection.close(f"its messages could not be stored: {error}")
            return
        if self._session is not None:
            self._services.sessions.active(self._session)
        self._settled(owed, count, size, self._connection.flush)

    def _settled(self, owed: Owed, count: int, size: int, flush: Callable[[], None]) -> None:
        """The work behind these is done: acknowledge what may be acknowledged now, and read on."""
        self._pending_messages -= count
        self._pending_bytes -= size
        packet_ids = self._acknowledgements.settle(owed)
        session = self._connection.session
        if packet_ids and session.connected:
            session.pubacks(packet_ids)
            flush()
        if not self._is_full():
            self._connection.resume_reading()

    def _publish_will(self) -> None:
        """What the device left for the case that it does not say goodbye: telemetry, marked (hub-device.md 3.9)."""
        will, self._will = self._will, None
        if will is None:
            return
        bag = self._parse(will.topic, retained=will.retain)
        if bag is None:
            _log.info(
                "%s: its will is not published: %r is no topic of its own",
                self._connection.describe(),
                will.topic[:200],
            )
            return
        bag = marked_as_will(bag)
        head = (*self._stamps, bag.system_properties, bag.application_properties)

        def stored(error: BaseException | None) -> None:
            if error is not None:
                _log.warning("%s: its will was not stored: %s", self._connection.describe(), error)

        self._events.append(self._hub, self._partition, Messages.of((head, [will.payload])), stored)

    def _is_full(self) -> bool:
        return self._pending_messages >= _MAXIMUM_PENDING_MESSAGES or self._pending_bytes >= _MAXIMUM_PENDING_BYTES
