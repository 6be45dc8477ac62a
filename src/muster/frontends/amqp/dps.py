"""A device that registers over AMQP: two links of one address, requests on one and answers on the other.

A refusal comes as the outcome *rejected* of the request, with the service's JSON: there every client looks for it; an
ended link is a network fault to some (dps.md 3.5). So links are given to everybody, and what is judged is the request.
Not here: the SASL mechanism ``TPM`` (``amqp/tpm.py``), and what makes a registration. Sources: dps.md 3.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from muster.domain.credential import Credential
from muster.domain.errors import ArgumentInvalidError, FormatError, ServerError, ServiceError
from muster.domain.registration import MAXIMUM_MESSAGE_BYTES, RETRY_AFTER, begun_view, operation_view
from muster.domain.registration_id import registration_id_key
from muster.dps.attestations import DeviceLogin
from muster.dps.registrations import Operation, Registrations
from muster.dps.tpm_dialogues import TpmDialogues
from muster.frontends import status
from muster.frontends.amqp.addresses import Address
from muster.frontends.amqp.links import BaseLinkHead, LinkContext, LinkOpening
from muster.frontends.amqp.tpm import TpmExchange
from muster.observe import Operation as Observed
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_messages import AmqpValue, Data, Message, Properties
from muster.wire.amqp_performatives import RECEIVER, SENDER, SETTLED, Accepted, Rejected, lookup
from muster.wire.amqp_sessions import Credit, Delivery, Disposed, Link
from muster.wire.amqp_types import DecodeError, Int, Symbol, Value

_VERSION = "com.microsoft:api-version"
_TYPE, _OPERATION_ID = "iotdps-operation-type", "iotdps-operation-id"
_REGISTER, _STATUS = "iotdps-register", "iotdps-get-operationstatus"

_SEGMENTS = 3
_WAITING = 16
"""Requests and answers of one registration that may wait; as much credit is given."""

_SECTIONS_BYTES = 32 * 1024
"""What a message may have besides the body that the service limits."""


@dataclass(frozen=True, slots=True)
class DpsLinks:
    """Opens the links of devices that register."""

    registrations: Registrations
    dialogues: TpmDialogues
    clock: Callable[[], int]

    def begin_tpm(self, context: LinkContext) -> TpmExchange:
        """The SASL dialogue of a connection; what it proves counts for the links of that registration."""
        exchange = TpmExchange(self.dialogues, context.describe())
        context.shared[TpmExchange] = exchange
        return exchange

    async def open(self, context: LinkContext, link: Link, address: Address) -> LinkOpening | None:
        """Takes ``{id scope}/registrations/{registration id}``, whoever asks for it."""
        words = address.words
        # A hub's device may be called "registrations", and has a link for its twin.
        if len(words) != _SEGMENTS or words[1] != "registrations" or words[0] == "devices":
            return None
        id_scope, _, registration_id = address.segments
        key = (DpsLinks, link.session, id_scope, registration_id)
        conversation = context.shared.get(key)
        if conversation is None:
            conversation = _Conversation(context, self.registrations, self.clock, key)
            context.shared[key] = conversation
        if link.role == SENDER:
            return LinkOpening(_Answers(conversation, link))
        login = DeviceLogin(id_scope, registration_id, _text(lookup(link.asked.properties, _VERSION)))
        head = _Requests(conversation, link, login)
        return LinkOpening(head, max_message_size=MAXIMUM_MESSAGE_BYTES + _SECTIONS_BYTES)


def _proven_tpm(context: LinkContext, login: DeviceLogin) -> Credential | None:
    """What the connection has proved itself with in SASL, if that was for this registration."""
    exchange: TpmExchange | None = context.shared.get(TpmExchange)
    if exchange is None or exchange.proof is None:
        return None
    who, credential = exchange.proof
    return credential if _place(who) == _place(login) else None


def _place(login: DeviceLogin) -> tuple[str, str]:
    return login.id_scope.lower(), registration_id_key(login.registration_id)


class _Requests(BaseLinkHead):
    """What a device asks."""

    def __init__(self, conversation: "_Conversation", link: Link, login: DeviceLogin) -> None:
        self._conversation = conversation
        self._link = link
        self._login = login
        conversation.links.add(link)

    def opened(self) -> None:
        self._conversation.grant(self._link)

    def delivery(self, delivery: Delivery) -> None:
        self._conversation.ask(self._login, delivery)

    def closed(self) -> None:
        self._conversation.closed(self._link)


class _Answers(BaseLinkHead):
    """What it is told."""

    def __init__(self, conversation: "_Conversation", link: Link) -> None:
        self._conversation = conversation
        self._link = link
        conversation.links.add(link)

    def opened(self) -> None:
        self._conversation.answers_to = self._link
        self._conversation.send()  # credit may have come behind the attach

    def credit(self, credit: Credit) -> None:
        self._conversation.send()
        if credit.drain and self._link.credit:
            self._conversation.context.core.drained(self._link)

    def disposed(self, disposed: Disposed) -> None:
        if not disposed.settled:
            core = self._conversation.context.core
            core.settle(self._link, [disposed.delivery_id], disposed.state, role=SENDER)

    def closed(self) -> None:
        self._conversation.closed(self._link)


class _Conversation:
    """One registration on one session: requests are worked on one after the other, answers wait for credit."""

    def __init__(
        self, context: LinkContext, registrations: Registrations, clock: Callable[[], int], key: object
    ) -> None:
        self.context = context
        self.links: set[Link] = set()
        self.answers_to: Link | None = None
        self._registrations = registrations
        self._clock = clock
        self._key = key
        self._requests: deque[tuple[DeviceLogin, Delivery]] = deque()
        self._answers: deque[bytes] = deque()
        self._sent = 0
        self._working = False
        self._proven = False

    def closed(self, link: Link) -> None:
        self.links.discard(link)
        if link is self.answers_to:
            self.answers_to = None
        if not self.links:
            self.context.shared.pop(self._key, None)

    # Requests

    def grant(self, link: Link) -> None:
        """As much credit as there is room, unless most of it is still there."""
        room = _WAITING - len(self._requests) - len(self._answers)
        if room > link.credit <= _WAITING // 2:
            self.context.core.grant(link, room)

    def ask(self, login: DeviceLogin, delivery: Delivery) -> None:
        self._requests.append((login, delivery))
        if not self._working:
            self._working = True
            self.context.spawn(self._work())

    async def _work(self) -> None:
        try:
            while self._requests:
                login, delivery = self._requests.popleft()
                await self._answer(login, delivery)
                self.grant(delivery.link)
                self.context.flush_soon()
        finally:
            self._working = False

    async def _answer(self, login: DeviceLogin, delivery: Delivery) -> None:
        observed = Observed("register", login.registration_id)
        try:
            message = _read(delivery.payload)
            operation_id = _operation_id(message)
            if operation_id is None:
                operation = await self._registrations.register(login, self._credential(login), _body(message))
                self._proven = True
            else:
                observed = Observed("operation-status", login.registration_id)
                operation = await self._poll(login, operation_id)
        except ServiceError as error:
            tracking_id = error.tracking_id or self._registrations.new_tracking_id()
            observed.finished(error.code, tracking_id)
            self._reject(delivery, error, tracking_id)
        except Exception:  # noqa: BLE001 - the client gets an answer whatever happened
            tracking_id = self._registrations.new_tracking_id()
            observed.failed(tracking_id)
            self._reject(delivery, ServerError(), tracking_id)
        else:
            observed.finished(operation.registration.status, operation.tracking_id)
            self._accept(delivery, message, operation, begun=operation_id is None)

    async def _poll(self, login: DeviceLogin, operation_id: str) -> Operation:
        """Who has registered on this connection need not prove itself again."""
        if self._proven:
            return await self._registrations.status(login, operation_id)
        return await self._registrations.poll(login, self._credential(login), operation_id)

    def _credential(self, login: DeviceLogin) -> Credential:
        proof = _proven_tpm(self.context, login)
        if proof is not None:
            return proof
        return self.context.claims.credential(f"{login.id_scope}/registrations/{login.registration_id}")

    # Answers

    def _reject(self, delivery: Delivery, error: ServiceError, tracking_id: str) -> None:
        told = status.provisioning_amqp_error(error, tracking_id, self._clock())
        if delivery.settled:
            self.context.detach(delivery.link, told)
        else:
            self.context.core.settle(delivery.link, [delivery.delivery_id], Rejected(told))

    def _accept(self, delivery: Delivery, request: Message, operation: Operation, *, begun: bool) -> None:
        """The outcome first, then the answer (dps.md 3.4)."""
        if not delivery.settled:
            self.context.core.settle(delivery.link, [delivery.delivery_id], Accepted())
        registration = operation.registration
        view = begun_view(registration) if begun else operation_view(registration, operation.hub_host)
        answer = Message(body=Data((status.ascii_json(view),)))
        if request.properties is not None and request.properties.correlation_id is not None:
            answer.properties = Properties(correlation_id=request.properties.correlation_id)
        if view["status"] == "assigning":
            answer.application_properties = {name: Int(RETRY_AFTER) for name in status.RETRY_AFTER_NAMES}
        self._answers.append(encode_message(answer))
        self.send()

    def send(self) -> None:
        """What the device has credit for."""
        link, core = self.answers_to, self.context.core
        while link is not None and self._answers and link.credit > 0 and not link.detached:
            self._sent += 1
            tag, answer = self._sent.to_bytes(4, "big"), self._answers.popleft()
            core.transfer(link, tag, answer, settled=link.asked.snd_settle_mode == SETTLED)
        for one in self.links:
            if one.role == RECEIVER:
                self.grant(one)


def _read(payload: bytes) -> Message:
    """Raises FormatError."""
    try:
        return decode_message(payload)
    except DecodeError as error:
        raise FormatError(f"This is no AMQP message: {error}.") from None


def _operation_id(message: Message) -> str | None:
    """Of a status request; None for a register request. Raises ArgumentInvalidError for any other."""
    properties = message.application_properties
    kind = _text(lookup(properties, _TYPE))
    if kind == _REGISTER:
        return None
    if kind == _STATUS:
        return _text(lookup(properties, _OPERATION_ID))
    raise ArgumentInvalidError(f"{_TYPE} is {kind!r}, neither {_REGISTER} nor {_STATUS}.")


def _body(message: Message) -> bytes:
    """The JSON of a register request; one client sends none (dps.md 3.3). Raises FormatError."""
    match message.body:
        case None | AmqpValue(None):
            return b""
        case Data():
            return message.body.joined()
        case AmqpValue(str(text)):
            return text.encode()
        case AmqpValue(bytes(data)):
            return data
        case _:
            raise FormatError("The body is neither a data section nor a text.")


def _text(value: Value) -> str:
    return value.text if isinstance(value, Symbol) else value if isinstance(value, str) else ""
