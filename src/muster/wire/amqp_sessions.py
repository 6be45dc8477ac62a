"""Sessions and links of an AMQP 1.0 connection seen from the server: their state, and what happens on them.

`amqp_connection` moves them. A link has one handle for both directions: the server opens none by itself, so the
peer's numbers are free. Written so that mypyc can compile it.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from muster.wire.amqp_performatives import (
    FIRST,
    RECEIVER,
    SETTLED,
    Attach,
    Begin,
    Error,
    Open,
    SaslInit,
    SaslResponse,
    State,
    Transfer,
)

MODULUS: Final = 0x1_0000_0000  # of serial numbers (section 2.8.10)


class Link:
    """A link that the peer attached. `role` is the server's: does it receive here?"""

    __slots__ = (
        "answered",
        "asked",
        "credit",
        "delivery_count",
        "detached",
        "drain",
        "echo",
        "first",
        "handle",
        "max_message_size",
        "name",
        "partial",
        "role",
        "session",
    )

    def __init__(self, session: "Session", asked: Attach) -> None:
        self.session = session
        self.asked = asked
        self.name = asked.name
        self.handle = asked.handle
        self.role = not asked.role
        self.answered = False
        self.detached = False  # this side has detached; what the peer still sends is ignored
        self.credit = 0
        self.delivery_count = asked.initial_delivery_count or 0 if self.role == RECEIVER else 0
        self.drain = False
        self.echo = False  # a flow is owed as soon as the attach is answered
        self.max_message_size = 0
        self.first: Transfer | None = None  # of a delivery whose frames are still arriving
        self.partial = bytearray()

    def send_settled(self) -> None:
        """What is sent here needs no disposition, whatever was asked for; the answer to attach says so."""
        self.asked.snd_settle_mode = SETTLED
        self.asked.rcv_settle_mode = FIRST

    def __repr__(self) -> str:
        return f"Link({self.name!r}, channel {self.session.channel}, handle {self.handle})"


class Session:
    """A session that the peer began; the server answers on the same channel number."""

    __slots__ = (
        "channel",
        "detached_handles",
        "draining",
        "ended",
        "incoming_window",
        "links",
        "next_delivery_id",
        "next_incoming_id",
        "next_outgoing_id",
        "pending",
        "received",
        "remote_incoming_window",
        "unsettled_in",
        "unsettled_out",
    )

    def __init__(self, channel: int, begin: Begin, incoming_window: int) -> None:
        self.channel = channel
        self.next_incoming_id = begin.next_outgoing_id
        self.incoming_window = incoming_window
        self.next_outgoing_id = 1
        self.remote_incoming_window = begin.incoming_window
        self.next_delivery_id = 0
        self.links: dict[int, Link] = {}
        self.detached_handles: set[int] = set()
        self.ended = False
        self.received: int | None = None  # the last delivery id that came
        self.unsettled_in: dict[int, Link] = {}
        self.unsettled_out: dict[int, Link] = {}
        self.pending: deque[tuple[Transfer, bytes]] = deque()  # frames that wait for the peer's window
        self.draining: list[Link] = []  # links that are drained when those have gone


# Events


@dataclass
class Attached:
    """The peer wants a link: `attach` or `refuse` it."""

    link: Link


@dataclass(slots=True)
class Delivery:
    """A complete message arrived. If it is not `settled`, `settle` it when the work behind it is done."""

    link: Link
    delivery_id: int
    delivery_tag: bytes
    message_format: int
    settled: bool
    payload: bytes


@dataclass(slots=True)
class Disposed:
    """The peer has judged a delivery that was sent to it. If it has not `settled` it, `settle` it as sender."""

    link: Link
    delivery_id: int
    settled: bool
    state: State | None


@dataclass(slots=True)
class Credit:
    """A receiver allows this many more deliveries; with `drain` it wants them now, or `drained`."""

    link: Link
    credit: int
    drain: bool


@dataclass
class Detached:
    """A link is over, by the peer or for its fault."""

    link: Link
    closed: bool
    error: Error | None


@dataclass
class Ended:
    """A session is over, by the peer or for its fault, and all links in it."""

    session: Session
    error: Error | None


@dataclass
class Closed:
    """The connection is over: the peer has closed it."""

    error: Error | None


@dataclass
class Violation:
    """The end of the connection by the peer's fault. `reason` is for logs and reports and holds no secret."""

    condition: str
    reason: str


Event = SaslInit | SaslResponse | Open | Attached | Delivery | Disposed | Credit | Detached | Ended | Closed | Violation
