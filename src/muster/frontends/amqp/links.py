"""What the heads of AMQP links are written against: the one thing that happens on a link, and what it may ask of its
connection.

*Theory of operation.* The peer attaches a link; each opener is asked in turn whether the address is its own. The one
that says yes gives a ``LinkOpening`` with a head; the attach is answered; ``opened`` is called, and then every event of
the link until ``closed``. One opener works at a time: attaches and what was given to ``in_order`` are worked on in the
order in which they came, so that two links of one device never race for it.

*Output.* What a head does in answer to an event is written when all events of that read were dispatched. Elsewhere
it calls ``flush`` or ``flush_soon``. A head that sends much asks ``may_send`` before each transfer; after a no it waits
for ``resumed``.

*Different from the first sketch:* ``LinkContext`` is a protocol that ``AmqpProtocol`` satisfies; ``Claims.service``
returns a ``ServiceClaim``, which ``Claims.watch`` takes beside a ``Principal``; ``BaseLinkHead.resumed`` and
``LinkContext.may_send`` hold back transfers; ``LinkContext.after_read``, ``in_order``, ``tracking_id`` and ``error``
are new; ``Address`` has ``text``, ``query`` and ``words``.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from muster.domain.errors import ServiceError
from muster.frontends.amqp.addresses import Address
from muster.frontends.amqp.claims import Claims
from muster.frontends.listener import Peer
from muster.wire.amqp_connection import AmqpConnection
from muster.wire.amqp_performatives import Error, Fields
from muster.wire.amqp_sessions import Credit, Delivery, Disposed, Link, Session


class LinkHead(Protocol):
    """What happens on one link after its attach was answered."""

    def opened(self) -> None:
        """The answer to the attach is queued: grant credit, start following."""
        ...

    def delivery(self, delivery: Delivery) -> None:
        """The peer sent a message."""
        ...

    def disposed(self, disposed: Disposed) -> None:
        """The peer's verdict on what was sent to it."""
        ...

    def credit(self, credit: Credit) -> None:
        """The peer as receiver gave credit; with ``drain`` it wants ``drained`` when there is nothing more."""
        ...

    def resumed(self) -> None:
        """``may_send`` said no, and would now say yes."""
        ...

    def closed(self) -> None:
        """Link, session or connection is gone, whoever ended it; called exactly once, and nothing after it."""
        ...


class BaseLinkHead:
    """Does nothing at any of it."""

    def opened(self) -> None:
        pass

    def delivery(self, delivery: Delivery) -> None:
        pass

    def disposed(self, disposed: Disposed) -> None:
        pass

    def credit(self, credit: Credit) -> None:
        pass

    def resumed(self) -> None:
        pass

    def closed(self) -> None:
        pass


class LinkContext(Protocol):
    """A connection as the heads of its links see it. ``core`` grants, settles, transfers and drains.

    ``host`` is the open's hostname without its port, in lower case; the server name of TLS where that is missing.
    ``shared`` is state of the connection that several links share, under a key of its owner's.
    """

    peer: Peer
    core: AmqpConnection
    claims: Claims
    clock: Callable[[], int]
    host: str
    shared: dict[object, Any]

    def flush(self) -> None:
        """Write what the core has to say."""
        ...

    def flush_soon(self) -> None:
        """``flush`` as soon as the loop is free: what is said until then leaves in the same write."""
        ...

    def after_read(self, call: Callable[[], None]) -> None:
        """Call it once, when all events of the read that is being worked on were dispatched, before the flush.

        For heads that batch what one read brought. Outside of a read it is called at once.
        """
        ...

    def may_send(self, link: Link) -> bool:
        """Whether the peer takes what is sent; if not, the link's ``resumed`` is called when it does again."""
        ...

    def pause_reading(self, holder: object = None) -> None:
        """Read nothing more from the peer, until ``resume_reading`` by the same holder and by all others."""
        ...

    def resume_reading(self, holder: object = None) -> None:
        """Read on, unless somebody else holds it back."""
        ...

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task that ends with the connection."""
        ...

    def in_order(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run it when all that was attached or put here before is done; nothing that comes later overtakes it."""
        ...

    def describe(self) -> str:
        """Where the client is and what it speaks, for logs and reports."""
        ...

    def tracking_id(self) -> str:
        """A new one, for an answer that has no report."""
        ...

    def error(self, error: ServiceError) -> Error:
        """How it is told, in a rejected outcome for instance."""
        ...

    def detach(self, link: Link, error: ServiceError | Error) -> None:
        """End one link, with condition, description and info; logged."""
        ...

    def end(self, session: Session, error: Error | None = None) -> None:
        """End one session and all its links."""
        ...

    def close(self, reason: str, error: Error | None = None) -> None:
        """End the connection; ``reason`` is for the log."""
        ...


@dataclass(slots=True)
class LinkOpening:
    """An attach that is taken. ``max_message_size`` in bytes, 0 for 1 MiB; ``properties`` go into the answer;
    ``outcome`` into the log: a head may end its link as soon as it is opened.
    """

    head: LinkHead
    max_message_size: int = 0
    properties: Fields | None = None
    outcome: object = "accepted"


Opener = Callable[[LinkContext, Link, Address], Awaitable[LinkOpening | None]]
"""None: not my address. Raises ServiceError for a refusal: the link is attached with the full echo, then detached."""
