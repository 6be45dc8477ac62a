"""Devices by plain paho-mqtt, step by step: whatever they connect with, publish and subscribe to, by hand."""

import os
import queue
import ssl
import threading
from typing import Any

import paho.mqtt.client as mqtt
from conversation import converse

HOST = os.environ["MUSTER_HOST"]
_SECONDS = 60.0


class Connection:
    """One client, from CONNECT on; what it is sent waits in ``received``."""

    def __init__(self, client_id: str, username: str, password: str | None, options: dict[str, Any]) -> None:
        self.code: int | None = None
        self.received: queue.Queue[dict[str, Any]] = queue.Queue()
        self._answered, self._granted = threading.Event(), threading.Event()
        self._qualities: list[int] = []
        transport = options.get("transport", "tcp")
        self.client = mqtt.Client(client_id, clean_session=True, protocol=mqtt.MQTTv311, transport=transport)
        self.client.username_pw_set(username, password)
        context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
        if options.get("certificate"):
            context.load_cert_chain(options["certificate"], options["key"])
        self.client.tls_set_context(context)
        if transport == "websockets":
            self.client.ws_set_options(path="/$iothub/websocket")
        self.client.on_connect = self._connected
        self.client.on_subscribe = self._subscribed
        self.client.on_message = self._arrived
        self.client.connect(HOST, 443 if transport == "websockets" else 8883)
        self.client.loop_start()
        if not self._answered.wait(_SECONDS):
            raise TimeoutError("no CONNACK")

    def subscribe(self, topic_filter: str, qos: int) -> list[int]:
        self._granted.clear()
        self.client.subscribe(topic_filter, qos)
        if not self._granted.wait(_SECONDS):
            raise TimeoutError("no SUBACK")
        return self._qualities

    def end(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()

    def _connected(self, _client: Any, _data: Any, _flags: Any, code: int) -> None:
        self.code = code
        self._answered.set()

    def _subscribed(self, _client: Any, _data: Any, _id: int, qualities: Any) -> None:
        self._qualities = list(qualities)
        self._granted.set()

    def _arrived(self, _client: Any, _data: Any, message: mqtt.MQTTMessage) -> None:
        self.received.put({"topic": message.topic, "body": message.payload.decode(), "qos": message.qos})


_connections: dict[str, Connection] = {}


def connect(connection: str, client_id: str, username: str, password: str | None = None, **options: Any) -> int | None:
    """The return code of CONNACK; the connection stays when that is 0."""
    made = Connection(client_id, username, password, options)
    if made.code == 0:
        _connections[connection] = made
    else:
        made.end()
    return made.code


def subscribe(connection: str, topic_filter: str, qos: int = 1) -> list[int]:
    return _connections[connection].subscribe(topic_filter, qos)


def publish(connection: str, topic: str, body: str | None = None, qos: int = 1) -> None:
    """Returns when it is acknowledged, or sent if ``qos`` is 0."""
    sent = _connections[connection].client.publish(topic, body, qos)
    sent.wait_for_publish(_SECONDS)
    if not sent.is_published():
        raise TimeoutError("no PUBACK")


def receive(connection: str, seconds: float = _SECONDS) -> dict[str, Any] | None:
    """The next message; None when there is none in that time."""
    try:
        return _connections[connection].received.get(timeout=seconds)
    except queue.Empty:
        return None


def ask(connection: str, topic: str, body: str | None = None, qos: int = 1) -> dict[str, Any] | None:
    """Publish, and the next message."""
    publish(connection, topic, body, qos)
    return receive(connection)


def close(connection: str) -> None:
    _connections.pop(connection).end()


if __name__ == "__main__":
    converse(
        {
            "connect": connect,
            "subscribe": subscribe,
            "publish": publish,
            "receive": receive,
            "ask": ask,
            "close": close,
        }
    )
