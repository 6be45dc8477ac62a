"""A device that registers over MQTT: register and status requests in, answers out, one after the other.

The verdict comes on the register message, never on CONNECT: SDKs take a refused connection for a network fault.
Sources: dps.md 2.
"""

from collections import deque
from collections.abc import Callable, Sequence

from muster.domain.credential import Credential
from muster.domain.errors import ServerError, ServiceError
from muster.domain.registration import RETRY_AFTER, begun_view, operation_view
from muster.dps.attestations import DeviceLogin
from muster.dps.registrations import Operation, Registrations
from muster.frontends import status
from muster.frontends.mqtt.connection import MqttProtocol
from muster.frontends.tasks import Tasks
from muster.frontends.topics import RegistrationRequest, parse_registration_topic, registration_response
from muster.observe import Operation as Observed
from muster.wire.mqtt_packets import Publish, Subscribe, Unsubscribe
from muster.wire.mqtt_session import Event
from muster.wire.mqtt_topics import matches

_MAXIMUM_WAITING = 16
_ACCEPTED = 202
_FINISHED = 200


class DpsHead:
    """The work of one accepted DPS login."""

    session_present = False

    def __init__(
        self,
        connection: MqttProtocol,
        registrations: Registrations,
        login: DeviceLogin,
        credential: Credential,
        clock: Callable[[], int],
    ) -> None:
        self._connection = connection
        self._registrations = registrations
        self._login = login
        self._credential = credential
        self._clock = clock
        self._tasks = Tasks()
        self._requests: deque[tuple[RegistrationRequest, bytes]] = deque()
        self._working = False
        self._proven = False
        self._filters: dict[bytes, int] = {}
        # Of a client that never subscribes, the newest answers are kept.
        self._unsent: deque[tuple[bytes, bytes]] = deque(maxlen=_MAXIMUM_WAITING)

    def deadline(self) -> int | None:
        return None

    def closed(self) -> None:
        self._tasks.cancel()

    def opened(self) -> None:
        """Nothing waits for a device that registers."""

    def handle(self, events: Sequence[Event]) -> None:
        session = self._connection.session
        for event in events:
            match event:
                case Publish():
                    self._publish(event)
                case Subscribe():
                    self._filters.update({name: min(qos, 1) for name, qos in event.filters})
                    session.suback(event.packet_id, [min(qos, 1) for _, qos in event.filters])
                    self._send_unsent()
                case Unsubscribe():
                    for name in event.filters:
                        self._filters.pop(name, None)
                    session.unsuback(event.packet_id)
                case _:
                    pass

    def _publish(self, event: Publish) -> None:
        if event.qos:
            # One client demands PUBACK before the answer (dps.md 2.6).
            self._connection.session.puback(event.packet_id)
        request = parse_registration_topic(event.topic.decode())
        if request is None:
            return  # what the real service does with other topics is not known; ignoring is safe (dps.md 2.7)
        self._requests.append((request, event.payload))
        if len(self._requests) > _MAXIMUM_WAITING:
            self._connection.pause_reading()
        if not self._working:
            self._working = True
            self._tasks.spawn(self._work())

    async def _work(self) -> None:
        try:
            while self._requests:
                request, payload = self._requests.popleft()
                await self._answer(request, payload)
                if len(self._requests) <= _MAXIMUM_WAITING:
                    self._connection.resume_reading()
        finally:
            self._working = False

    async def _poll(self, operation_id: str) -> Operation:
        """Who has registered on this connection need not prove itself again."""
        if self._proven:
            return await self._registrations.status(self._login, operation_id)
        return await self._registrations.poll(self._login, self._credential, operation_id)

    async def _answer(self, request: RegistrationRequest, payload: bytes) -> None:
        observed = Observed(
            "register" if request.operation_id is None else "operation-status", self._login.registration_id
        )
        try:
            if request.operation_id is None:
                operation = await self._registrations.register(self._login, self._credential, payload)
                self._proven = True
            else:
                operation = await self._poll(request.operation_id)
        except ServiceError as error:
            tracking_id = error.tracking_id or self._registrations.new_tracking_id()
            observed.finished(error.code, tracking_id)
            topic = registration_response(error.status, request.rid, error.retry_after)
            self._send(topic, status.provisioning_mqtt_body(error, tracking_id, self._clock()))
        except Exception:  # noqa: BLE001 - the client gets an answer whatever happened
            tracking_id = self._registrations.new_tracking_id()
            observed.failed(tracking_id)
            topic = registration_response(ServerError.code // 1000, request.rid)
            self._send(topic, status.provisioning_mqtt_body(ServerError(), tracking_id, self._clock()))
        else:
            observed.finished(operation.registration.status, operation.tracking_id)
            self._send_operation(request, operation)

    def _send_operation(self, request: RegistrationRequest, operation: Operation) -> None:
        view = operation_view(operation.registration, operation.hub_host)
        assigning = operation.registration.status == "assigning"
        if request.operation_id is None:
            view, assigning = begun_view(operation.registration), True
        topic = registration_response(
            _ACCEPTED if assigning else _FINISHED, request.rid, RETRY_AFTER if assigning else None
        )
        self._send(topic, status.ascii_json(view))

    def _send(self, topic: str, payload: bytes) -> None:
        self._unsent.append((topic.encode(), payload))
        self._send_unsent()
        self._connection.flush()

    def _send_unsent(self) -> None:
        """Answers wait for the subscription, which one may bring after its request (dps.md 2.2)."""
        session = self._connection.session
        waiting, self._unsent = self._unsent, deque(maxlen=_MAXIMUM_WAITING)
        for topic, payload in waiting:
            granted = [qos for name, qos in self._filters.items() if matches(name, topic)]
            if granted and session.connected:
                session.publish(topic, payload, 1 if max(granted) and session.in_flight_room else 0)
            else:
                self._unsent.append((topic, payload))
