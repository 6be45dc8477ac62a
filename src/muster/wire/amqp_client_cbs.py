"""Tokens put through the `$cbs` links of an `AmqpClient` (hub-service.md 6.3).

Feed `take` with every event of the client; the links are this module's, so the caller may ignore the rest.
Written so that mypyc can compile it.
"""

from collections import deque
from dataclasses import dataclass
from typing import Final

from muster.wire.amqp_client import AmqpClient
from muster.wire.amqp_client_links import Arrived, ClientEvent, Credited
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_messages import AmqpValue, Message, Properties
from muster.wire.amqp_performatives import Accepted, Fields, Source, Target
from muster.wire.amqp_types import DecodeError, Int, Ulong

SAS_TOKEN: Final = "servicebus.windows.net:sastoken"  # noqa: S105 - a type, not a token

_NODE: Final = "$cbs"
_ACCEPTED_CODES: Final = range(200, 300)


@dataclass
class TokenAnswer:
    """What became of the oldest token that had no answer: an HTTP status, and in words."""

    status: int
    description: str

    @property
    def accepted(self) -> bool:
        return self.status in _ACCEPTED_CODES


class Cbs:
    """The `$cbs` node of the server, seen through this client."""

    def __init__(self, client: AmqpClient) -> None:
        self._client = client
        self._requests = client.attach_sender("cbs-requests", Target(_NODE))
        self._answers = client.attach_receiver("cbs", Source(_NODE), credit=10)
        self._waiting: deque[bytes] = deque()  # for credit
        self._count = 0

    def put(self, token: str, audience: str, kind: str = SAS_TOKEN) -> None:
        """Puts a token for an audience; a `TokenAnswer` follows."""
        properties = Properties(Ulong(self._count), to=_NODE, reply_to=self._answers.name)
        application: Fields = {"operation": "put-token", "type": kind, "name": audience}
        message = Message(properties=properties, application_properties=application, body=AmqpValue(token))
        self._waiting.append(encode_message(message))
        self._count += 1
        self._flush()

    def take(self, event: ClientEvent) -> TokenAnswer | None:
        """The answer in an event, if it is one."""
        if isinstance(event, Credited) and event.link is self._requests:
            self._flush()
        if not isinstance(event, Arrived) or event.link is not self._answers:
            return None
        self._client.settle(event.link, [event.delivery_id], Accepted())
        self._client.grant(event.link, 10)
        return _read_answer(event.payload)

    def _flush(self) -> None:
        while self._waiting and self._requests.credit > 0:
            tag = b"%d" % (self._count - len(self._waiting))
            self._client.transfer(self._requests, tag, self._waiting.popleft())


def _read_answer(payload: bytes) -> TokenAnswer:
    try:
        said = decode_message(payload).application_properties or {}
    except DecodeError as fault:
        return TokenAnswer(0, f"an answer that cannot be read: {fault}")
    status, description = said.get("status-code"), said.get("status-description")
    return TokenAnswer(
        status.value if isinstance(status, Int) else 0, description if isinstance(description, str) else ""
    )
