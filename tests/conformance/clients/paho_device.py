"""Devices by plain paho-mqtt, as many a project writes them: user name, password and topics by hand."""

import os
import ssl
import threading
from typing import Any

import paho.mqtt.client as mqtt
from conversation import converse

HOST = os.environ["MUSTER_HOST"]
_SECONDS = 60.0


def publish(
    client_id: str,
    username: str,
    password: str,
    messages: list[dict[str, Any]],
    keep_alive: int = 60,
    clean_session: bool = False,
    subscribe: list[list[Any]] | None = None,
    transport: str = "tcp",
    stay_seconds: float = 0.0,
) -> dict[str, Any]:
    """Connect, subscribe, publish ``{topic, body, qos, retain}``, stay a while, and leave.

    The answer has CONNACK's code, the granted qualities, and whether the connection was still there at the end.
    """
    client = mqtt.Client(client_id, clean_session=clean_session, protocol=mqtt.MQTTv311, transport=transport)
    client.username_pw_set(username, password)
    client.tls_set_context(ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"]))
    if transport == "websockets":
        client.ws_set_options(path="/$iothub/websocket")
    seen: dict[str, Any] = {"code": None, "granted": [], "acknowledged": 0}
    answered, granted = threading.Event(), threading.Event()

    def on_connect(_client: Any, _data: Any, _flags: Any, code: int) -> None:
        seen["code"] = code
        answered.set()

    def on_subscribe(_client: Any, _data: Any, _id: int, qualities: Any) -> None:
        seen["granted"] = list(qualities)
        granted.set()

    client.on_connect, client.on_subscribe = on_connect, on_subscribe
    client.connect(HOST, 443 if transport == "websockets" else 8883, keep_alive)
    client.loop_start()
    if not answered.wait(_SECONDS):
        raise TimeoutError("no CONNACK")
    if seen["code"] == 0:
        if subscribe:
            client.subscribe([(name, qos) for name, qos in subscribe])
            if not granted.wait(_SECONDS):
                raise TimeoutError("no SUBACK")
        for message in messages:
            sent = client.publish(
                message["topic"], message["body"], message.get("qos", 0), message.get("retain", False)
            )
            sent.wait_for_publish(_SECONDS)
            seen["acknowledged"] += int(sent.is_published())
        threading.Event().wait(stay_seconds)
        seen["connected"] = client.is_connected()
        client.disconnect()
    client.loop_stop()
    return seen


if __name__ == "__main__":
    converse({"publish": publish})
