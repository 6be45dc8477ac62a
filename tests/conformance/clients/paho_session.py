"""A device by plain paho-mqtt that keeps a connection, subscribes by hand, and goes without a word."""

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
    """A client of paho in a thread of its own; what it hears waits in ``inbox``."""

    def __init__(self, client_id: str, username: str, password: str, clean_session: bool, will: Any) -> None:
        self.client = mqtt.Client(client_id, clean_session=clean_session, protocol=mqtt.MQTTv311)
        self.client.username_pw_set(username, password)
        self.client.tls_set_context(ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]))
        if will:
            self.client.will_set(will["topic"], will["body"], 1)
        self.connack: queue.Queue[dict[str, Any]] = queue.Queue()
        self.granted: queue.Queue[list[int]] = queue.Queue()
        self.inbox: queue.Queue[dict[str, Any]] = queue.Queue()
        self.gone = threading.Event()
        self.client.on_connect = lambda _client, _data, flags, code: self.connack.put(
            {"code": code, "sessionPresent": bool(flags["session present"])}
        )
        self.client.on_subscribe = lambda _client, _data, _id, granted: self.granted.put(list(granted))
        self.client.on_disconnect = lambda *_: self.gone.set()
        self.client.on_message = lambda _client, _data, message: self.inbox.put(
            {
                "topic": message.topic,
                "body": message.payload.decode(),
                "qos": message.qos,
                "retain": bool(message.retain),
            }
        )


_connections: dict[str, Connection] = {}


def connect(
    connection: str, client_id: str, username: str, password: str, clean_session: bool = False, will: Any = None
) -> dict[str, Any]:
    """What CONNACK says."""
    made = _connections[connection] = Connection(client_id, username, password, clean_session, will)
    made.client.connect(HOST, 8883, 60)
    made.client.loop_start()
    return made.connack.get(timeout=_SECONDS)


def subscribe(connection: str, filters: list[list[Any]]) -> list[int]:
    """What SUBACK says."""
    one = _connections[connection]
    one.client.subscribe([(name, qos) for name, qos in filters])
    return one.granted.get(timeout=_SECONDS)


def publish(connection: str, topic: str, body: str, qos: int) -> None:
    _connections[connection].client.publish(topic, body, qos).wait_for_publish(_SECONDS)


def heard(connection: str, count: int = 1) -> list[dict[str, Any]]:
    return [_connections[connection].inbox.get(timeout=_SECONDS) for _ in range(count)]


def cut(connection: str) -> None:
    """The socket ends without DISCONNECT."""
    one = _connections.pop(connection)
    one.client.loop_stop()
    one.client.socket().close()


def close(connection: str) -> None:
    one = _connections.pop(connection)
    one.client.disconnect()
    one.gone.wait(_SECONDS)
    one.client.loop_stop()


if __name__ == "__main__":
    converse(
        {
            "connect": connect,
            "subscribe": subscribe,
            "publish": publish,
            "heard": heard,
            "cut": cut,
            "close": close,
        }
    )
