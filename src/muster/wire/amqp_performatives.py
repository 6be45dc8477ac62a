"""What AMQP 1.0 frames carry: performatives, SASL bodies, and the composite types inside them (parts 2, 3 and 5).

Plain records: fields in the order of the standard, with its defaults, and None where it has none. Integers,
texts and times of known type are ordinary int, str and bytes; a field of any type ("*" in the standard) and map
contents are the values of `amqp_types`. How each field looks on the wire is the table of `amqp_composites`.
Written so that mypyc can compile it.
"""

from dataclasses import dataclass
from typing import Final

from muster.wire.amqp_types import Described, Symbol, Ulong, Value

Fields = dict[Value, Value]  # a map with symbols as keys; some clients write strings

SENDER: Final = False  # roles
RECEIVER: Final = True

UNSETTLED: Final = 0  # snd-settle-mode
SETTLED: Final = 1
MIXED: Final = 2
FIRST: Final = 0  # rcv-settle-mode
SECOND: Final = 1

SASL_OK: Final = 0
SASL_AUTH: Final = 1
SASL_SYS: Final = 2

SELECTOR_FILTER: Final = "apache.org:selector-filter:string"
SELECTOR_DESCRIPTOR: Final = 0x0000_468C_0000_0004


class Composite:
    """A described list with a row in the table."""


class Performative(Composite):
    """The body of an AMQP frame."""


class SaslBody(Composite):
    """The body of a SASL frame."""


def lookup(fields: Fields | None, name: str) -> Value:
    """The value under this name, be the key a symbol, as it should, or a string, as uamqp writes it; or None."""
    if not fields:
        return None
    symbol = Symbol(name)
    return fields[symbol] if symbol in fields else fields.get(name)


@dataclass
class Error(Composite):
    """Why something ended (section 2.8.14)."""

    condition: str
    description: str | None = None
    info: Fields | None = None


# Delivery states (section 3.4)


@dataclass
class Received(Composite):
    section_number: int
    section_offset: int


@dataclass
class Accepted(Composite):
    pass


@dataclass
class Rejected(Composite):
    error: Error | None = None


@dataclass
class Released(Composite):
    pass


@dataclass
class Modified(Composite):
    delivery_failed: bool | None = None
    undeliverable_here: bool | None = None
    message_annotations: Fields | None = None


# A state that nobody here knows, such as that of a transaction, stays a described value.
State = Received | Accepted | Rejected | Released | Modified | Described


@dataclass
class Source(Composite):
    """Where a link's messages come from (section 3.5.3). `address` is a string with every client seen."""

    address: Value = None
    durable: int = 0
    expiry_policy: str = "session-end"
    timeout: int = 0
    dynamic: bool = False
    dynamic_node_properties: Fields | None = None
    distribution_mode: str | None = None
    filter: Fields | None = None
    default_outcome: State | None = None
    outcomes: tuple[str, ...] | None = None
    capabilities: tuple[str, ...] | None = None

    def selector(self) -> str | None:
        """The selector expression, however the client spelt filter, descriptor and text (hub-service.md 8.5)."""
        for key, value in (self.filter or {}).items():
            known = key in (Symbol(SELECTOR_FILTER), SELECTOR_FILTER)
            if isinstance(value, Described):
                known = known or value.descriptor in (Symbol(SELECTOR_FILTER), Ulong(SELECTOR_DESCRIPTOR))
                value = value.value  # noqa: PLW2901 - what is described
            if known:
                return _text(value)
        return None


def _text(value: Value) -> str | None:
    if isinstance(value, Symbol):
        return value.text
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value if isinstance(value, str) else None


@dataclass
class Target(Composite):
    """Where a link's messages go (section 3.5.4)."""

    address: Value = None
    durable: int = 0
    expiry_policy: str = "session-end"
    timeout: int = 0
    dynamic: bool = False
    dynamic_node_properties: Fields | None = None
    capabilities: tuple[str, ...] | None = None


# Performatives (section 2.7)


@dataclass
class Open(Performative):
    """`idle_time_out` is in milliseconds."""

    container_id: str
    hostname: str | None = None
    max_frame_size: int = 0xFFFF_FFFF
    channel_max: int = 0xFFFF
    idle_time_out: int | None = None
    outgoing_locales: tuple[str, ...] | None = None
    incoming_locales: tuple[str, ...] | None = None
    offered_capabilities: tuple[str, ...] | None = None
    desired_capabilities: tuple[str, ...] | None = None
    properties: Fields | None = None


@dataclass
class Begin(Performative):
    remote_channel: int | None
    next_outgoing_id: int
    incoming_window: int
    outgoing_window: int
    handle_max: int = 0xFFFF_FFFF
    offered_capabilities: tuple[str, ...] | None = None
    desired_capabilities: tuple[str, ...] | None = None
    properties: Fields | None = None


@dataclass
class Attach(Performative):
    name: str
    handle: int
    role: bool
    snd_settle_mode: int = MIXED
    rcv_settle_mode: int = FIRST
    source: Source | None = None
    target: Target | Described | None = None  # described: a coordinator of transactions
    unsettled: Fields | None = None
    incomplete_unsettled: bool = False
    initial_delivery_count: int | None = None
    max_message_size: int | None = None
    offered_capabilities: tuple[str, ...] | None = None
    desired_capabilities: tuple[str, ...] | None = None
    properties: Fields | None = None


@dataclass
class Flow(Performative):
    next_incoming_id: int | None
    incoming_window: int
    next_outgoing_id: int
    outgoing_window: int
    handle: int | None = None
    delivery_count: int | None = None
    link_credit: int | None = None
    available: int | None = None
    drain: bool = False
    echo: bool = False
    properties: Fields | None = None


@dataclass
class Transfer(Performative):
    handle: int
    delivery_id: int | None = None
    delivery_tag: bytes | None = None
    message_format: int | None = None
    settled: bool | None = None
    more: bool = False
    rcv_settle_mode: int | None = None
    state: State | None = None
    resume: bool = False
    aborted: bool = False
    batchable: bool = False


@dataclass
class Disposition(Performative):
    role: bool
    first: int
    last: int | None = None
    settled: bool = False
    state: State | None = None
    batchable: bool = False


@dataclass
class Detach(Performative):
    handle: int
    closed: bool = False
    error: Error | None = None


@dataclass
class End(Performative):
    error: Error | None = None


@dataclass
class Close(Performative):
    error: Error | None = None


# SASL (section 5.3.3). No repr shows a response.


@dataclass
class SaslMechanisms(SaslBody):
    sasl_server_mechanisms: tuple[str, ...]


@dataclass(repr=False)
class SaslInit(SaslBody):
    mechanism: str
    initial_response: bytes | None = None
    hostname: str | None = None

    def __repr__(self) -> str:
        return f"SaslInit({self.mechanism!r}, {_size(self.initial_response)}, {self.hostname!r})"


@dataclass(repr=False)
class SaslChallenge(SaslBody):
    challenge: bytes

    def __repr__(self) -> str:
        return f"SaslChallenge({_size(self.challenge)})"


@dataclass(repr=False)
class SaslResponse(SaslBody):
    response: bytes

    def __repr__(self) -> str:
        return f"SaslResponse({_size(self.response)})"


@dataclass
class SaslOutcome(SaslBody):
    code: int
    additional_data: bytes | None = None


def _size(octets: bytes | None) -> str:
    return "None" if octets is None else f"<{len(octets)} bytes>"
