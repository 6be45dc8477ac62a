"""A consumer by azure-eventhub, sync and aio: properties, and readers that collect events until they are closed."""

import asyncio
import os
import threading
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from azure.eventhub import EventData, EventHubConsumerClient, EventHubProducerClient, TransportType
from azure.eventhub.aio import EventHubConsumerClient as AioConsumerClient
from conversation import converse

_WAIT_SECONDS = 150.0

_readers: dict[str, "Reader"] = {}


def options(connection_string: str, websockets: bool = False, group: str = "$Default", **more: Any) -> dict[str, Any]:
    transport = TransportType.AmqpOverWebsocket if websockets else TransportType.Amqp
    return {
        "conn_str": connection_string,
        "consumer_group": group,
        "transport_type": transport,
        "connection_verify": os.environ["SSL_CERT_FILE"],
        "retry_total": 1,
        **more,
    }


def plain(value: Any) -> Any:
    """What JSON can say of a value, with its type where that matters."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {plain(key): plain(item) for key, item in value.items()}
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


def event(data: EventData) -> dict[str, Any]:
    raw = data.raw_amqp_message
    return {
        "body": data.body_as_str(),
        "offset": data.offset,
        "sequenceNumber": data.sequence_number,
        "enqueuedTime": plain(data.enqueued_time),
        "partitionKey": plain(data.partition_key),
        "properties": plain(data.properties),
        "systemProperties": plain(data.system_properties),
        "contentType": data.content_type,
        "contentEncoding": plain(raw.properties and raw.properties.content_encoding),
        "messageId": plain(data.message_id),
        "correlationId": plain(data.correlation_id),
    }


class Reader:
    """Collects what a consumer is given, on one partition or on all."""

    def __init__(self, aio: bool, client: dict[str, Any], receive: dict[str, Any]) -> None:
        self.events: list[dict[str, Any]] = []
        self.last: dict[str, Any] = {}
        self.errors: list[str] = []
        self._counts: Counter[str] = Counter()
        self._changed = threading.Condition()
        self._client: Any = None
        self._loop: Any = None
        run = self._run_aio if aio else self._run
        self._thread = threading.Thread(target=run, args=(client, receive), daemon=True)
        self._thread.start()

    def take(self, context: Any, batch: list[EventData]) -> None:
        with self._changed:
            for data in batch:
                self.events.append({"partition": context.partition_id, **event(data)})
                self._counts[data.system_properties[b"iothub-connection-device-id"].decode()] += 1
            self.last = plain(context.last_enqueued_event_properties or {})
            self._changed.notify_all()

    def fail(self, error: Exception) -> None:
        with self._changed:
            condition = getattr(error, "error", None) or getattr(error, "condition", None)
            self.errors.append(f"{type(error).__name__} {condition}: {error}")
            self._changed.notify_all()

    def _run(self, client: dict[str, Any], receive: dict[str, Any]) -> None:
        self._client = EventHubConsumerClient.from_connection_string(**client)
        try:
            # By batches: one event at a time, it looks at every partition in between, and waits for the empty ones.
            self._client.receive_batch(self.take, on_error=lambda _context, error: self.fail(error), **receive)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.fail(error)

    def _run_aio(self, client: dict[str, Any], receive: dict[str, Any]) -> None:
        asyncio.run(self._receive_aio(client, receive))

    async def _receive_aio(self, client: dict[str, Any], receive: dict[str, Any]) -> None:
        self._loop = asyncio.get_running_loop()
        self._client = AioConsumerClient.from_connection_string(**client)

        async def take(context: Any, data: EventData) -> None:
            self.take(context, [data])

        async def fail(_context: Any, error: Exception) -> None:
            self.fail(error)

        try:
            await self._client.receive(take, on_error=fail, **receive)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            self.fail(error)

    def wait(self, counts: dict[str, int], errors: int, last: list[str]) -> None:
        """Until so many events of each of these devices have come, and so many errors, and this last event."""

        def came() -> bool:
            if last and not any(event["body"] == last[1] and last[0] == event["partitionKey"] for event in self.events):
                return False
            return len(self.errors) >= errors and all(self._counts[name] >= count for name, count in counts.items())

        with self._changed:
            if not self._changed.wait_for(came, _WAIT_SECONDS):
                raise TimeoutError(f"{dict(self._counts)} events, {self.errors}")

    def close(self) -> None:
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(_WAIT_SECONDS)
        else:
            self._client.close()
        self._thread.join(_WAIT_SECONDS)


def start(
    reader: str,
    aio: bool = False,
    position: Any = "-1",
    position_is_time: bool = False,
    receive: dict[str, Any] | None = None,
    **client: Any,
) -> None:
    given = dict(receive or {})
    if position is not None:
        given["starting_position"] = datetime.fromtimestamp(position, UTC) if position_is_time else position
    _readers[reader] = Reader(aio, options(**client), given)


def wait(
    reader: str, counts: dict[str, int] | None = None, errors: int = 0, last: list[str] | None = None
) -> list[str]:
    """Once there are so many events of devices, so many errors, and this event of a device: the errors."""
    known = _readers[reader]
    known.wait(counts or {}, errors, last or [])
    return known.errors


def some(reader: str) -> bool:
    """Whether anything has come."""
    return bool(_readers[reader].events)


def close(reader: str) -> dict[str, Any]:
    known = _readers.pop(reader)
    known.close()
    return {"events": known.events, "errors": known.errors, "last": known.last}


def properties(aio: bool = False, **client: Any) -> dict[str, Any]:
    """Of the event hub and of all its partitions."""
    if aio:
        return asyncio.run(_properties_aio(client))
    with EventHubConsumerClient.from_connection_string(**options(**client)) as consumer:
        found = consumer.get_eventhub_properties()
        partitions = [consumer.get_partition_properties(number) for number in found["partition_ids"]]
    return {"eventHub": plain(found), "ids": list(found["partition_ids"]), "partitions": [plain(p) for p in partitions]}


async def _properties_aio(client: dict[str, Any]) -> dict[str, Any]:
    async with AioConsumerClient.from_connection_string(**options(**client)) as consumer:
        found = await consumer.get_eventhub_properties()
        partitions = [await consumer.get_partition_properties(number) for number in found["partition_ids"]]
    return {"eventHub": plain(found), "ids": list(found["partition_ids"]), "partitions": [plain(p) for p in partitions]}


def partition(number: str, **client: Any) -> dict[str, Any]:
    with EventHubConsumerClient.from_connection_string(**options(**client)) as consumer:
        return plain(consumer.get_partition_properties(number))


def send(connection_string: str) -> None:
    """Send to the event hub, which is read only."""
    given = options(connection_string)
    del given["consumer_group"]
    with EventHubProducerClient.from_connection_string(**given) as producer:
        producer.send_batch([EventData("x")])


if __name__ == "__main__":
    converse(
        {
            "start": start,
            "wait": wait,
            "some": some,
            "close": close,
            "properties": properties,
            "partition": partition,
            "send": send,
        }
    )
