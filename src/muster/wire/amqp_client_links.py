"""Links of an `AmqpClient` and what happens on them and on its connection.

Written so that mypyc can compile it.
"""

from dataclasses import dataclass

from muster.wire.amqp_performatives import Attach, Error, Open, State, Transfer
from muster.wire.amqp_sessions import Closed, Violation


class ClientLink:
    """A link that this side attached. `role` is this side's; `credit` is what a sender has left."""

    __slots__ = (
        "answer",
        "credit",
        "delivery_count",
        "detached",
        "first",
        "handle",
        "name",
        "partial",
        "role",
        "unsettled",
    )

    def __init__(self, name: str, handle: int, *, role: bool) -> None:
        self.name = name
        self.handle = handle
        self.role = role
        self.answer: Attach | None = None
        self.detached = False
        self.credit = 0
        self.delivery_count = 0
        self.first: Transfer | None = None  # of a delivery whose frames are still arriving
        self.partial = bytearray()
        self.unsettled: dict[int, None] = {}  # deliveries that nobody has settled, in their order

    def __repr__(self) -> str:
        return f"ClientLink({self.name!r}, handle {self.handle})"


# Events


@dataclass
class SaslRefused:
    """The end: the server does not take what the SASL mechanism said."""

    code: int


@dataclass
class Answered:
    """The server knows of the link. If it refuses it, `Unlinked` follows."""

    link: ClientLink


@dataclass
class Credited:
    """A sender may send this many messages."""

    link: ClientLink
    credit: int


@dataclass
class Arrived:
    """A complete message. If it is not `settled`, `settle` it."""

    link: ClientLink
    delivery_id: int
    delivery_tag: bytes
    settled: bool
    payload: bytes


@dataclass
class Judged:
    """The server's verdict on a message that was sent to it."""

    link: ClientLink
    delivery_id: int
    state: State | None


@dataclass
class Unlinked:
    """The server has ended a link, or the session that it was in."""

    link: ClientLink
    error: Error | None


ClientEvent = SaslRefused | Open | Answered | Credited | Arrived | Judged | Unlinked | Closed | Violation
