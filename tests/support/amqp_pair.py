"""Our own AMQP client and server joined in memory: what one writes the other reads, until both are silent."""

from collections.abc import Callable, Iterator

from muster.wire import amqp_performatives as p
from muster.wire.amqp_client import AmqpClient
from muster.wire.amqp_client_links import ClientEvent
from muster.wire.amqp_connection import AmqpConnection
from muster.wire.amqp_sessions import Attached, Credit, Event

Answer = Callable[[AmqpConnection, Event], list[Event] | None]


def welcome(server: AmqpConnection, event: Event) -> list[Event]:
    """A server that takes everybody and every link, and grants ten messages."""
    if isinstance(event, p.SaslInit):
        return server.sasl_outcome(0, 1)
    if isinstance(event, Attached):
        server.attach(event.link)
        if event.link.role == p.RECEIVER:
            server.grant(event.link, 10)
    return []


class Pair:
    """`answer` is what the server does for each event, `size` how many bytes travel at once; both remember events."""

    def __init__(
        self,
        client: AmqpClient,
        server: AmqpConnection | None = None,
        *,
        answer: Answer = welcome,
        size: int = 1_000_000,
    ) -> None:
        self.client = client
        self.server = server or AmqpConnection(0, "muster")
        self.answer = answer
        self.size = size
        self.heard: list[ClientEvent] = []
        self.seen: list[Event] = []

    def run(self) -> "Pair":
        while (to_server := self.client.take_output()) + (to_client := self.server.take_output()):
            for piece in self._cut(to_server):
                waiting = self.server.receive(piece, 1)
                while waiting:
                    event = waiting.pop(0)
                    self.seen.append(event)
                    waiting += self.answer(self.server, event) or []
            for piece in self._cut(to_client):
                self.heard += self.client.receive(piece, 1)
        return self

    def credit(self) -> int:
        """What the server may send on the link whose credit it heard of last."""
        return [event for event in self.seen if isinstance(event, Credit)][-1].link.credit

    def _cut(self, data: bytes) -> Iterator[bytes]:
        return (data[start : start + self.size] for start in range(0, len(data), self.size))
