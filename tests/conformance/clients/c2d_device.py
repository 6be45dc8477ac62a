"""A device by azure-iot-device that receives messages from the cloud over MQTT."""

import queue
from typing import Any

from azure.iot.device import IoTHubDeviceClient, Message
from conversation import converse

_SECONDS = 90.0

clients: dict[str, IoTHubDeviceClient] = {}
inboxes: dict[str, "queue.Queue[Message]"] = {}


def connect(connection: str, connection_string: str, websockets: bool = False) -> None:
    """Connect, with a handler: that makes the SDK subscribe."""
    client = IoTHubDeviceClient.create_from_connection_string(connection_string, websockets=websockets)
    inbox = inboxes[connection] = queue.Queue()
    client.on_message_received = inbox.put
    client.connect()
    clients[connection] = client


def receive(connection: str, count: int) -> list[dict[str, Any]]:
    """The next messages, as the SDK shows them."""
    return [_plain(inboxes[connection].get(timeout=_SECONDS)) for _ in range(count)]


def _plain(message: Message) -> dict[str, Any]:
    return {
        "body": message.data.decode(),
        "messageId": message.message_id,
        "correlationId": message.correlation_id,
        "userId": message.user_id,
        "contentType": message.content_type,
        "contentEncoding": message.content_encoding,
        "ack": message.ack,
        "expiry": message.expiry_time_utc,
        "properties": message.custom_properties,
    }


def close(connection: str) -> None:
    clients.pop(connection).shutdown()


if __name__ == "__main__":
    converse({"connect": connect, "receive": receive, "close": close})
