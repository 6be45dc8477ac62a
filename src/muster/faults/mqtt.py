"""Faults over MQTT. A request is acknowledged and not stored. Source: hub-device.md 13."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from muster.domain.errors import FaultInjectionError
from muster.domain.message import parse_property_bag
from muster.domain.timestamp import SECOND
from muster.faults.requests import KILL_TCP, TYPE, Fault, Key, Later, read_fault
from muster.frontends.listener import Peer
from muster.frontends.mqtt.connection import Head, MqttProtocol
from muster.frontends.mqtt.front_end import MqttFrontEnd
from muster.frontends.mqtt.hub import HubHead
from muster.frontends.topics import parse_hub_user_name
from muster.hub.hubs import UnknownHubError
from muster.wire.mqtt_packets import Connect, Publish
from muster.wire.mqtt_session import Event

_log = logging.getLogger("muster.faults")

_SHUT_DOWN: Final = frozenset({"shutdownmqtt", "invokethrottling", "invokemaxmessagequota", "invokeautherror"})


class FaultyMqtt:
    """Makes the protocol of each connection, as the front end that it wraps does. ``clock`` in microseconds."""

    def __init__(self, front_end: MqttFrontEnd, clock: Callable[[], int], later: Later | None = None) -> None:
        self._front_end = front_end
        self._clock = clock
        self._later = later
        self._killed: dict[Key, int] = {}

    def protocol(self, peer: Peer) -> MqttProtocol:
        """A protocol for one connection."""
        return MqttProtocol(peer, self._clock, self._choose_head)

    async def _choose_head(self, connection: MqttProtocol, connect: Connect) -> Head:
        key = self._key(connect)
        if key is not None and self._clock() < self._killed.get(key, 0):
            raise FaultInjectionError
        head = await self._front_end.choose_head(connection, connect)
        return _FaultyHead(head, connection, self) if isinstance(head, HubHead) else head

    def _key(self, connect: Connect) -> Key | None:
        user = parse_hub_user_name(connect.username or "", connect.client_id)
        if user is None:
            return None
        try:
            return self._front_end.hubs.by_host(user.host).name, user.device_id, user.module_id
        except UnknownHubError:
            return None

    def plan(self, fault: Fault, connection: MqttProtocol, key: Key) -> None:
        """Have it happen to this connection when its delay is over."""
        what = f"{fault.kind[:50]!r} of {key[1]}"
        if fault.kind != KILL_TCP and fault.kind not in _SHUT_DOWN:
            _log.warning("%s: no fault is injected: there is no %s over MQTT", connection.describe(), what)
            return
        _log.info("%s: a fault is injected in %g s: %s", connection.describe(), fault.delay, what)
        later = self._later or asyncio.get_running_loop().call_later
        later(fault.delay, partial(self._strike, fault, connection, key))

    def _strike(self, fault: Fault, connection: MqttProtocol, key: Key) -> None:
        reason = f"{fault.kind} was asked for: {fault.reason[:200]!r}"
        if fault.kind != KILL_TCP:
            connection.close(reason)
            return
        now = self._clock()
        self._killed = {one: until for one, until in self._killed.items() if until > now}
        self._killed[key] = now + int(fault.duration * SECOND)
        connection.abort(reason)


class _FaultyHead:
    """The head of a device, and before it whoever takes out the requests for faults."""

    def __init__(self, head: HubHead, connection: MqttProtocol, faults: FaultyMqtt) -> None:
        self._head = head
        self._connection = connection
        self._faults = faults
        self.session_present = head.session_present
        self.opened = head.opened
        self.deadline = head.deadline
        self.closed = head.closed

    def handle(self, events: Sequence[Event]) -> None:
        done = 0
        for position, event in enumerate(events):
            if not isinstance(event, Publish) or (fault := self._fault(event)) is None:
                continue
            if position > done:
                self._head.handle(events[done:position])
            done = position + 1
            if self._connection.transport.is_closing():
                return
            if event.qos:
                self._head.acknowledge(event.packet_id)
            self._faults.plan(fault, self._connection, self._head.key)
        if done < len(events):
            self._head.handle(events[done:])

    def _fault(self, event: Publish) -> Fault | None:
        prefix = self._head.telemetry_prefix + b"/"
        if TYPE.encode() not in event.topic.lower() or not event.topic.startswith(prefix):
            return None
        return read_fault(parse_property_bag(event.topic[len(prefix) :].decode()).application_properties)
