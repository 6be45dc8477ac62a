"""A back end by azure-iot-hub that sends messages to devices over AMQP; and what the Azure CLI's commands for messages
and feedback do with uamqp, which they stand on (``az iot device c2d-message send``, ``az iot hub monitor-feedback``).
"""

import json
import time
import uuid
from typing import Any
from urllib.parse import quote

import uamqp
from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.sastoken import SasToken
from conversation import converse

_TOKEN_SECONDS = 360

managers: dict[str, IoTHubRegistryManager] = {}


def connect(connection: str, connection_string: str, websockets: bool = False) -> None:
    transport = uamqp.TransportType.AmqpOverWebsocket if websockets else uamqp.TransportType.Amqp
    managers[connection] = IoTHubRegistryManager.from_connection_string(connection_string, transport_type=transport)


def send(connection: str, device_id: str, body: str, properties: dict[str, Any] | None = None) -> None:
    """Raises the manager's Exception when the hub rejects the message."""
    managers[connection].send_c2d_message(device_id, body, properties or {})


def close(connection: str) -> None:
    managers.pop(connection).amqp_svc_client.disconnect_sync()


# The Azure CLI


def _cli_endpoint(host: str, policy: str, key: str, operation: str) -> str:
    """The CLI logs in by SASL PLAIN: user and password stand in the address, which uamqp takes apart."""
    user = f"{policy}@sas.root.{host.partition('.')[0]}"
    token = str(SasToken(host, key, policy, _TOKEN_SECONDS))
    return f"amqps://{quote(user, safe='')}:{quote(token, safe='')}@{host}{operation}"


def _container() -> str:
    return f"IoTPlatformCliExtension/0.25.0/{uuid.uuid4()}"


def cli_send(host: str, policy: str, key: str, device_id: str, body: str, ack: str, **properties: Any) -> list[str]:
    """``az iot device c2d-message send``; what became of the message in uamqp's words."""
    system = uamqp.message.MessageProperties()
    system.to = f"/devices/{device_id}/messages/devicebound"
    for name, value in properties.items():
        setattr(system, name, value)
    system.content_encoding = "utf-8"
    message = uamqp.Message(body=body.encode(), properties=system, application_properties={"iothub-ack": ack})
    target = _cli_endpoint(host, policy, key, "/messages/devicebound")
    client = uamqp.SendClient(target=target, auth=None, client_name=_container())
    client.queue_message(message)
    return [state.name for state in client.send_all_messages()]


def cli_feedback(host: str, policy: str, key: str, wait_on_id: str, seconds: float) -> dict[str, Any] | None:
    """``az iot hub monitor-feedback --wait-on-msg``: the record of that message; None when it did not come in time."""
    source = _cli_endpoint(host, policy, key, "/messages/servicebound/feedback")
    client = uamqp.ReceiveClient(source=source, auth=None, client_name=_container(), timeout=seconds * 1000)
    deadline = time.monotonic() + seconds
    try:
        for message in client.receive_messages_iter():
            for record in json.loads(next(message.get_data())):
                if record["originalMessageId"] == wait_on_id:
                    message.accept()
                    return dict(record)
            if time.monotonic() > deadline:
                break
    finally:
        client.close()
    return None


if __name__ == "__main__":
    operations = {"connect": connect, "send": send, "close": close, "cli_send": cli_send, "cli_feedback": cli_feedback}
    converse(operations)
