"""An AMQP 1.0 message: its sections (part 3). Bytes to `Message` and back are in `amqp_composites`.

Written so that mypyc can compile it.
"""

from dataclasses import dataclass

from muster.wire.amqp_performatives import Composite, Fields
from muster.wire.amqp_types import Value


@dataclass
class Header(Composite):
    """Section 3.2.1. `ttl` is in milliseconds."""

    durable: bool = False
    priority: int = 4
    ttl: int | None = None
    first_acquirer: bool = False
    delivery_count: int = 0


@dataclass
class Properties(Composite):
    """Section 3.2.4. Times are milliseconds since 1970.

    `message_id` and `correlation_id` keep their type: ulong, uuid, binary or string, and the int that uamqp writes.
    """

    message_id: Value = None
    user_id: bytes | None = None
    to: str | None = None
    subject: str | None = None
    reply_to: str | None = None
    correlation_id: Value = None
    content_type: str | None = None
    content_encoding: str | None = None
    absolute_expiry_time: int | None = None
    creation_time: int | None = None
    group_id: str | None = None
    group_sequence: int | None = None
    reply_to_group_id: str | None = None


@dataclass
class Data:
    """A body of data sections."""

    sections: tuple[bytes, ...]

    def joined(self) -> bytes:
        return self.sections[0] if len(self.sections) == 1 else b"".join(self.sections)


@dataclass
class AmqpSequence:
    """A body of sequence sections."""

    sections: "tuple[list[Value], ...]"


@dataclass
class AmqpValue:
    """A body of one value section; the value may be None."""

    value: Value


Body = Data | AmqpSequence | AmqpValue


@dataclass
class Message:
    """All of it optional here, also the body: clients leave it out (hub-device.md 9.8)."""

    header: Header | None = None
    delivery_annotations: Fields | None = None
    message_annotations: Fields | None = None
    properties: Properties | None = None
    application_properties: Fields | None = None
    body: Body | None = None
    footer: Fields | None = None
