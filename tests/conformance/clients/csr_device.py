"""A device that asks for its certificate when it registers, as Microsoft's device client for .NET does, by paho-mqtt:
no client for Python or Node.js has that yet.
"""

import json
import os
import queue
import ssl
import time
from typing import Any

import paho.mqtt.client as mqtt
from conversation import converse

HOST = os.environ["MUSTER_HOST"]
_SECONDS = 90.0
_POLL_SECONDS = 0.2


def register(
    registration_id: str,
    id_scope: str,
    csr: str,
    password: str = "",
    certificate: str | None = None,
    key: str | None = None,
    api_version: str = "2025-07-01-preview",
    member: str = "csr",
) -> Any:
    """The last answer: its status and its JSON. ``member`` of the body has the request."""
    context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
    if certificate is not None:
        context.load_cert_chain(certificate, key)
    client = mqtt.Client(registration_id, clean_session=True, protocol=mqtt.MQTTv311)
    client.username_pw_set(f"{id_scope}/registrations/{registration_id}/api-version={api_version}", password or None)
    client.tls_set_context(context)
    events: queue.Queue[Any] = queue.Queue()
    client.on_connect = lambda *arguments: events.put(arguments[3])
    client.on_subscribe = lambda *_arguments: events.put("subscribed")
    client.on_message = lambda *arguments: events.put((arguments[2].topic, json.loads(arguments[2].payload)))
    client.connect(HOST, 8883)
    client.loop_start()
    try:
        if (code := events.get(timeout=_SECONDS)) != 0:
            raise ConnectionError(f"CONNACK {code}")
        client.subscribe("$dps/registrations/res/#", 1)
        events.get(timeout=_SECONDS)
        body = json.dumps({"registrationId": registration_id, member: csr})
        client.publish("$dps/registrations/PUT/iotdps-register/?$rid=1", body, 1)
        status, answer = _answer(events.get(timeout=_SECONDS))
        while status == 202:
            time.sleep(_POLL_SECONDS)
            place = f"$dps/registrations/GET/iotdps-get-operationstatus/?$rid=1&operationId={answer['operationId']}"
            client.publish(place, "", 1)
            status, answer = _answer(events.get(timeout=_SECONDS))
        return {"status": status, "answer": answer}
    finally:
        client.disconnect()
        client.loop_stop()


def _answer(event: tuple[str, Any]) -> tuple[int, Any]:
    topic, answer = event
    return int(topic.removeprefix("$dps/registrations/res/").partition("/")[0]), answer


if __name__ == "__main__":
    converse({"register": register})
