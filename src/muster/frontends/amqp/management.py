"""The ``$management`` node of an event hub: what there is to read. Sources: hub-service.md 8.4.

The replies are maps whose types clients read literally: ``partition_ids`` is an array of strings, sequence numbers are
longs, offsets strings, times timestamps. Not here: reading events.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from muster.domain.access_policy import Right
from muster.domain.errors import (
    ArgumentInvalidError,
    NotAllowedError,
    NotFoundError,
    ServerError,
    ServiceError,
)
from muster.domain.event_hub import event_hub_name
from muster.frontends import status
from muster.frontends.amqp.links import LinkContext
from muster.frontends.amqp.requests import RequestNode
from muster.frontends.event_messages import enqueued_timestamp
from muster.hub.hubs import Hub
from muster.hub.partition_log import PartitionLog
from muster.hub.partition_readers import partition_number
from muster.observe import Operation
from muster.wire.amqp_messages import AmqpValue, Message
from muster.wire.amqp_performatives import lookup
from muster.wire.amqp_types import Array, Int, Long, Symbol, Timestamp, Value

EVENT_HUB: Final = "com.microsoft:eventhub"
PARTITION: Final = "com.microsoft:partition"

_STRINGS: Final = 0xA1
_OK: Final = 200
_MILLISECOND: Final = 1000


@dataclass(frozen=True, slots=True)
class Management:
    """Answers for all event hubs. ``find`` is a hub by the name of its event hub, in any case."""

    find: Callable[[str], Hub | None]
    log: PartitionLog

    def node(self, context: LinkContext, entity: str) -> RequestNode:
        """The node of one connection. ``entity``: the event hub of the address, for requests that name none."""
        return RequestNode(context, partial(self._answer, context, entity))

    async def _answer(self, context: LinkContext, entity: str, message: Message) -> Message:
        request = message.application_properties
        asked = {name: _text(lookup(request, name)) for name in ("operation", "type", "name", "partition")}
        asked["name"] = asked["name"] or entity
        token = _text(lookup(request, "security_token"))
        operation = Operation("management", " ".join(filter(None, asked.values())))
        try:
            content = await self._read(context, asked, token)
        except ServiceError as error:
            error.tracking_id = error.tracking_id or context.tracking_id()
            operation.finished(error.code, error.tracking_id)
            return _refusal(context, error)
        except Exception:  # noqa: BLE001 - the client gets an answer whatever happened
            failure = ServerError(tracking_id=context.tracking_id())
            operation.failed(failure.tracking_id or "")
            return _refusal(context, failure)
        operation.finished("accepted")
        outcome: dict[Value, Value] = {"status-code": Int(_OK), "status-description": "OK"}
        return Message(application_properties=outcome, body=AmqpValue(content))

    async def _read(self, context: LinkContext, asked: dict[str, str], token: str) -> dict[Value, Value]:
        if asked["operation"].upper() != "READ":
            raise NotAllowedError(f"The operation {asked['operation'][:50]!r} is not READ.")
        kind = asked["type"].lower()
        if kind not in (EVENT_HUB, PARTITION):
            raise ArgumentInvalidError(f"The type {asked['type'][:50]!r} is neither {EVENT_HUB} nor {PARTITION}.")
        hub = self.find(asked["name"])
        if hub is None:
            raise NotFoundError(
                f"The messaging entity 'sb://{context.host}/{asked['name'][:100]}' could not be found."
                " To know more visit https://aka.ms/sbResourceMgrExceptions."
            )
        if token:
            await context.claims.put(token, "")
        await context.claims.service(hub, (Right.SERVICE_CONNECT,), (event_hub_name(hub.name),))
        return await (self._event_hub(hub) if kind == EVENT_HUB else self._partition(hub, asked["partition"]))

    async def _event_hub(self, hub: Hub) -> dict[Value, Value]:
        partitions: list[Value] = [str(number) for number in range(hub.partition_count)]
        return {
            "name": event_hub_name(hub.name),
            "type": EVENT_HUB,
            "created_at": Timestamp(await self.log.created(hub.name) // _MILLISECOND),
            "partition_count": Int(hub.partition_count),
            "partition_ids": Array(_STRINGS, partitions),
            "georeplication_factor": Int(1),
        }

    async def _partition(self, hub: Hub, partition: str) -> dict[Value, Value]:
        information = await self.log.information(hub.name, partition_number(hub, partition))
        return {
            "name": event_hub_name(hub.name),
            "type": PARTITION,
            "partition": partition,
            "begin_sequence_number": Long(information.begin_sequence_number),
            "last_enqueued_sequence_number": Long(information.last_sequence_number),
            "last_enqueued_offset": str(information.last_offset),
            "last_enqueued_time_utc": enqueued_timestamp(information),
            "is_partition_empty": information.is_empty,
        }


def _refusal(context: LinkContext, error: ServiceError) -> Message:
    told = status.event_hub_error(error, error.tracking_id or "", context.clock())
    outcome: dict[Value, Value] = {
        "status-code": Int(error.status),
        "status-description": told.description,
        "statusDescription": told.description,  # the spelling under which azure-eventhub looks for it here
        "error-condition": Symbol(told.condition),
    }
    return Message(application_properties=outcome, body=AmqpValue(None))


def _text(value: Value) -> str:
    if isinstance(value, Symbol):
        return value.text
    return value if isinstance(value, str) else ""
