"""What a connected device does besides telemetry: subscriptions, its twin, direct methods, messages from the cloud.

Requests are worked on one after the other in the order in which they came, each acknowledged when its work is done. A
device that only sends telemetry has no conversation. Sources: hub-device.md 3.5, 3.7, 3.10, 5, 6, 7.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial

from muster.domain.errors import ServiceError
from muster.frontends import status
from muster.frontends.device_services import DeviceServices
from muster.frontends.mqtt.c2d import MqttC2d
from muster.frontends.mqtt.connection import MqttProtocol
from muster.frontends.mqtt.methods import MqttMethods
from muster.frontends.mqtt.subscriptions import MAXIMUM_FILTERS, Subscriptions
from muster.frontends.mqtt.twin import MqttTwin
from muster.frontends.tasks import Tasks
from muster.frontends.topics import MethodResponse, TwinRequest, parse_method_response, parse_twin_request
from muster.hub.sessions import Session
from muster.observe import Operation
from muster.wire.mqtt_packets import Publish, Subscribe, Unsubscribe

_log = logging.getLogger("muster.mqtt")


class Conversation:
    """One connection. ``settled`` is told of each request that is finished, in the order of the requests."""

    def __init__(
        self, services: DeviceServices, connection: MqttProtocol, session: Session, *, clean_session: bool
    ) -> None:
        self._services = services
        self._connection = connection
        self._session = session
        self._clean_session = clean_session
        self._requests: deque[Callable[[], Awaitable[None]]] = deque()
        self._working = False
        self._is_over = False
        self._tasks = Tasks()
        self._work = Tasks()  # is finished even when the device leaves: it may say goodbye right behind a request
        self._subscriptions = Subscriptions(session.resumed or {})
        key = session.key
        self._twin = MqttTwin(
            services.twins, key, self._subscriptions, self._send, self._reply, self._tasks.spawn, self._error_body
        )
        self._methods = MqttMethods(services.methods, key, self._subscriptions, self._send)
        self._c2d = MqttC2d(services.c2d, key, session.session_id, self._subscriptions, connection, self._tasks.spawn)

    def opened(self) -> None:
        """Go on where the last connection of the session ended."""
        self._listen()
        if not self._c2d.is_subscribed:
            self._enqueue(self._c2d.settle_unheard)
        self._enqueue(self._prepare)

    def wait_for(self, earlier: asyncio.Task[None]) -> None:
        """Work on nothing before this is done."""
        self._enqueue(partial(_end_of, earlier))

    # Requests

    def subscribe(self, packet: Subscribe) -> None:
        self._enqueue(partial(self._subscribe, packet))

    def unsubscribe(self, packet: Unsubscribe) -> None:
        self._enqueue(partial(self._unsubscribe, packet))

    def publish(self, packet: Publish, settled: Callable[[], None]) -> bool:
        """Work on a request; ``settled`` is called when it is done. False when its topic is none that there is."""
        topic = packet.topic.decode()
        request = parse_twin_request(topic)
        if request is not None and (request.is_patch or request.rid is not None):
            self._enqueue(partial(self._ask_twin, request, packet.payload, settled))
            return True
        response = parse_method_response(topic)
        if response is not None:
            self._enqueue(partial(self._answer_method, response, packet.payload, settled))
            return True
        return False

    def acknowledged(self, packet_id: int) -> None:
        """PUBACK."""
        self._c2d.acknowledged(packet_id)

    def _enqueue(self, work: Callable[[], Awaitable[None]]) -> None:
        self._requests.append(work)
        if not self._working:
            self._working = True
            self._work.spawn(self._work_through())

    async def _work_through(self) -> None:
        try:
            while self._requests:
                try:
                    await self._requests.popleft()()
                except ServiceError as error:
                    self._connection.close(f"a request could not be answered: {error}")
                self._connection.flush_soon()
        finally:
            self._working = False

    async def _subscribe(self, packet: Subscribe) -> None:
        # Every filter is granted at QoS 1 at most, and never refused (hub-device.md 3.5).
        codes = self._subscriptions.add(packet.filters)
        if len(self._subscriptions) > MAXIMUM_FILTERS:
            self._connection.close(f"it has more than {MAXIMUM_FILTERS} subscriptions")
            return
        await self._keep()
        await self._prepare()
        self._connection.session.suback(packet.packet_id, codes)
        self._connection.flush()
        self._listen()

    async def _unsubscribe(self, packet: Unsubscribe) -> None:
        self._subscriptions.remove(packet.filters)
        await self._keep()
        await self._prepare()
        self._connection.session.unsuback(packet.packet_id)
        self._listen()

    async def _keep(self) -> None:
        if not self._clean_session:
            await self._services.sessions.keep_subscriptions(self._session, self._subscriptions.stored())

    async def _prepare(self) -> None:
        """Before the acknowledgement of a subscription: nothing is missed that happens when the device has it."""
        if not (self._is_over or self._connection.session.closed):
            await self._twin.subscriptions_changed()
            await self._c2d.prepare()

    def _listen(self) -> None:
        """Behind it: ask and send what the device is subscribed to now."""
        if not (self._is_over or self._connection.session.closed):
            self._methods.subscriptions_changed()
            self._c2d.subscriptions_changed()

    async def _ask_twin(self, request: TwinRequest, body: bytes, settled: Callable[[], None]) -> None:
        await self._twin.answer(request, body)
        settled()

    async def _answer_method(self, response: MethodResponse, body: bytes, settled: Callable[[], None]) -> None:
        self._methods.answered(response, body)
        settled()

    # To the device

    def _send(self, topic: bytes, payload: bytes) -> None:
        self._reply(topic, payload)
        self._connection.flush()

    def _reply(self, topic: bytes, payload: bytes) -> None:
        """Answer the request that is worked on: its acknowledgement follows, and both leave in one write."""
        session = self._connection.session
        if session.connected:
            session.publish(topic, payload)

    def _error_body(self, error: ServiceError) -> bytes:
        tracking_id = error.tracking_id or self._services.reports.new_tracking_id()
        Operation("twin", self._session.principal.identity.device_id).finished(error.code, tracking_id)
        return status.hub_plain_body(error, tracking_id, self._services.clock())

    def closed(self) -> None:
        """The connection is over."""
        self._is_over = True
        self._tasks.cancel()
        self._methods.close()
        self._c2d.stop()
        self._enqueue(self._leave)  # behind the requests that are still worked on, which may begin what it ends

    async def _leave(self) -> None:
        self._twin.close()
        try:
            await self._c2d.close()
        except ServiceError as error:
            _log.warning("messages for %s wait until their locks lapse: %s", self._session.key[1], error)


async def _end_of(task: asyncio.Task[None]) -> None:
    """However it ends."""
    await asyncio.wait((task,))
