"""Faults over AMQP: of the connection, of a session, of each kind of link, and messages that are rejected for a while.

A request is a message on a telemetry link; it is accepted and not stored. Source: hub-device.md 13.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

from muster.domain.errors import FaultInjectionError, ForcedByFaultError, ServiceError
from muster.domain.timestamp import SECOND
from muster.faults.requests import ERRORS, KILL_TCP, TYPE, Fault, Key, Later, find_fault
from muster.frontends.amqp.addresses import Address, parse_address
from muster.frontends.amqp.connection import LINK_DETACH_FORCED, AmqpProtocol, address_of
from muster.frontends.amqp.device_messages import BATCH_FORMAT
from muster.frontends.amqp.front_end import AmqpFrontEnd
from muster.frontends.amqp.links import LinkContext, LinkHead, LinkOpening
from muster.frontends.listener import Peer
from muster.hub.hubs import Hubs, UnknownHubError
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_messages import Data, Message
from muster.wire.amqp_performatives import RECEIVER, SENDER, Accepted, Error, Rejected
from muster.wire.amqp_sessions import Delivery, Link
from muster.wire.amqp_types import DecodeError

_log = logging.getLogger("muster.faults")

_CLOSE: Final = frozenset({"shutdownamqp", "killamqpconnection"})

_KILL_SESSION: Final = "killamqpsession"

# What follows the identity in an address, and the server's role: the fault that ends such a link.
_KINDS: Final[Mapping[tuple[tuple[str, ...], bool], str]] = {
    (("messages", "events"), RECEIVER): "killamqpd2clink",
    (("messages", "devicebound"), SENDER): "killamqpc2dlink",
    (("methods", "devicebound"), SENDER): "killamqpmethodreqlink",
    (("methods", "devicebound"), RECEIVER): "killamqpmethodresplink",
    (("twin",), RECEIVER): "killamqptwinlinkreq",
    (("twin",), SENDER): "killamqptwinlinkresp",
    (("$cbs",), RECEIVER): "killamqpcbslinkreq",
    (("$cbs",), SENDER): "killamqpcbslinkresp",
}
_OF_LINKS: Final = frozenset(_KINDS.values())
_OF_CONNECTIONS: Final = _CLOSE | {KILL_TCP, _KILL_SESSION}
_NOBODY: Final = ("", "", "")

_TYPE_BYTES: Final = TYPE.encode()


class FaultyAmqp:
    """Makes the protocol of each connection, as the front end that it wraps does. ``clock`` in microseconds."""

    def __init__(
        self, front_end: AmqpFrontEnd, hubs: Hubs, clock: Callable[[], int], later: Later | None = None
    ) -> None:
        self._front_end = front_end
        self._hubs = hubs
        self._clock = clock
        self._later = later
        self._killed: dict[Key, int] = {}
        self._rejecting: dict[Key, tuple[int, type[ServiceError]]] = {}

    def protocol(self, peer: Peer) -> AmqpProtocol:
        """A protocol for one connection."""
        services = self._front_end.connection_services
        protocol = AmqpProtocol(peer, replace(services, open_link=self._open_link))
        protocol.shared[FaultyAmqp] = _Connection(protocol)
        return protocol

    async def _open_link(self, context: LinkContext, link: Link) -> LinkOpening:
        address = parse_address(address_of(link) or "", context.host)
        key, rest = self._identity(address)
        connection: _Connection = context.shared[FaultyAmqp]
        if self._clock() < self._killed.get(key, 0):
            # Every SDK tries again after that; Node's gets stuck when it is refused two links at once.
            connection.protocol.abort("its line is down: killtcp was asked for")
            raise FaultInjectionError
        opening = await self._front_end.open_link(context, link)
        kind = _KINDS.get((rest, link.role), "")
        connection.add(link, key, kind)
        if kind == "killamqpd2clink":
            opening.head = _FaultyTelemetry(opening.head, connection, link, key, self)
        return opening

    def _identity(self, address: Address) -> tuple[Key, tuple[str, ...]]:
        """Whose link that would be, and what follows the identity in the address."""
        match address.words:
            case ("devices", _, "modules", _, *rest):
                ids = address.segments[1], address.segments[3]
            case ("devices", _, *rest):
                ids = address.segments[1], ""
            case words:
                return _NOBODY, words
        try:
            return (self._hubs.by_host(address.host).name, *ids), tuple(rest)
        except UnknownHubError:
            return _NOBODY, tuple(rest)

    def rejection(self, key: Key) -> ServiceError | None:
        """What the messages of this identity are rejected with now."""
        until, error = self._rejecting.get(key, (0, ServiceError))
        return error() if self._clock() < until else None

    def plan(self, fault: Fault, connection: "_Connection", link: Link, key: Key) -> None:
        """Have it happen when its delay is over."""
        what = f"{fault.kind[:50]!r} of {key[1]}"
        if fault.kind not in ERRORS and fault.kind not in _OF_LINKS and fault.kind not in _OF_CONNECTIONS:
            _log.warning("%s: no fault is injected: there is no %s over AMQP", connection.protocol.describe(), what)
            return
        _log.info("%s: a fault is injected in %g s: %s", connection.protocol.describe(), fault.delay, what)
        later = self._later or asyncio.get_running_loop().call_later
        later(fault.delay, partial(self._strike, fault, connection, link, key))

    def _strike(self, fault: Fault, connection: "_Connection", link: Link, key: Key) -> None:
        protocol = connection.protocol
        reason = f"{fault.kind} was asked for: {fault.reason[:200]!r}"
        now = self._clock()
        until = now + int(fault.duration * SECOND)
        told = protocol.error(ForcedByFaultError())
        _log.info("%s: now, as %s", protocol.describe(), reason)
        if fault.kind in ERRORS:
            self._rejecting = {one: entry for one, entry in self._rejecting.items() if entry[0] > now}
            self._rejecting[key] = until, ERRORS[fault.kind]
        elif fault.kind == KILL_TCP:
            self._killed = {one: end for one, end in self._killed.items() if end > now}
            self._killed[key] = until
            protocol.abort(reason)
        elif fault.kind in _CLOSE:
            protocol.close(reason, told)
        elif fault.kind == _KILL_SESSION:
            protocol.end(link.session, told)
        else:
            for one in connection.links(key, fault.kind):
                protocol.detach(one, Error(LINK_DETACH_FORCED, told.description, told.info))


class _Connection:
    """The links of one connection, and what ends each of them."""

    def __init__(self, protocol: AmqpProtocol) -> None:
        self.protocol = protocol
        self._links: dict[Link, tuple[Key, str]] = {}

    def add(self, link: Link, key: Key, kind: str) -> None:
        self._links = {one: entry for one, entry in self._links.items() if not self.protocol.core.is_gone(one)}
        self._links[link] = key, kind

    def links(self, key: Key, kind: str) -> list[Link]:
        """Those of an identity, or of ``$cbs``, which is nobody's."""
        return [link for link, (owner, own) in self._links.items() if own == kind and owner in (key, _NOBODY)]


class _FaultyTelemetry:
    """The head of a telemetry link, and before it whoever takes out the requests for faults."""

    def __init__(self, head: LinkHead, connection: _Connection, link: Link, key: Key, faults: FaultyAmqp) -> None:
        self._head = head
        self._connection = connection
        self._link = link
        self._key = key
        self._faults = faults
        self.opened = head.opened
        self.disposed = head.disposed
        self.credit = head.credit
        self.resumed = head.resumed
        self.closed = head.closed

    def delivery(self, delivery: Delivery) -> None:
        error = self._faults.rejection(self._key)
        if error is not None:
            self._answer(delivery, Rejected(self._connection.protocol.error(error)))
            return
        if _TYPE_BYTES in delivery.payload.lower():
            try:
                fault, rest = _take_out(delivery)
            except DecodeError:
                fault, rest = None, delivery
            if fault is not None:
                self._faults.plan(fault, self._connection, self._link, self._key)
                if rest is None:
                    self._answer(delivery, Accepted())
                    return
                delivery = rest
        self._head.delivery(delivery)

    def _answer(self, delivery: Delivery, state: Accepted | Rejected) -> None:
        """Settle it, and give back the credit that it took, of which the head knows nothing."""
        core = self._connection.protocol.core
        core.settle(self._link, [delivery.delivery_id], state)
        core.grant(self._link, self._link.credit + 1)


def _take_out(delivery: Delivery) -> tuple[Fault | None, Delivery | None]:
    """The fault that a delivery asks for, and what else is in it. Raises DecodeError.

    C devices send every message as a batch of one and put the properties on the batch.
    """
    message = decode_message(delivery.payload)
    fault = _fault_of(message)
    if fault is not None:
        return fault, None
    if delivery.message_format != BATCH_FORMAT or not isinstance(message.body, Data):
        return None, delivery
    others: list[bytes] = []
    for section in message.body.sections:
        found = _fault_of(decode_message(section))
        if found is None:
            others.append(section)
        fault = fault or found
    if not others:
        return fault, None
    return fault, replace(delivery, payload=encode_message(replace(message, body=Data(tuple(others)))))


def _fault_of(message: Message) -> Fault | None:
    properties = message.application_properties or {}
    return find_fault({name: str(value) for name, value in properties.items() if isinstance(name, str)})
