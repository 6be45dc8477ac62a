"""Devices by azure-iot-device: registering with DPS, connecting to a hub, sending. Both of its APIs."""

import asyncio
import base64
import os
import threading
import time
from collections.abc import Coroutine
from typing import Any

from azure.iot.device import X509, IoTHubDeviceClient, IoTHubModuleClient, Message, ProvisioningDeviceClient
from azure.iot.device.aio import IoTHubDeviceClient as AioDeviceClient
from azure.iot.device.aio import IoTHubModuleClient as AioModuleClient
from azure.iot.device.aio import ProvisioningDeviceClient as AioProvisioningClient
from conversation import converse

HOST = os.environ["MUSTER_HOST"]
NO_KEY = base64.b64encode(bytes(32)).decode()

_loop = asyncio.new_event_loop()
_connections: dict[str, Any] = {}


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine of the aio API, whose clients all live in one loop."""
    return asyncio.run_coroutine_threadsafe(coroutine, _loop).result()


def x509(certificate: str | None, key: str | None, pass_phrase: str | None) -> X509:
    return X509(cert_file=certificate, key_file=key, pass_phrase=pass_phrase)


# DPS


def register(
    registration_id: str,
    id_scope: str,
    certificate: str | None = None,
    key: str | None = None,
    pass_phrase: str | None = None,
    symmetric_key: str = NO_KEY,
    api: str = "sync",
    payload: Any = None,
    **options: Any,
) -> Any:
    """All that the result of a registration says. Without a certificate the client is made with a symmetric
    key, which is how a device with this SDK comes without a certificate.
    """
    arguments: dict[str, Any] = {
        "provisioning_host": HOST,
        "registration_id": registration_id,
        "id_scope": id_scope,
        **options,
    }
    client_class = ProvisioningDeviceClient if api == "sync" else AioProvisioningClient
    if certificate is None:
        client = client_class.create_from_symmetric_key(symmetric_key=symmetric_key, **arguments)
    else:
        client = client_class.create_from_x509_certificate(x509=x509(certificate, key, pass_phrase), **arguments)
    client.provisioning_payload = payload
    result = client.register() if api == "sync" else run(client.register())
    state = result.registration_state
    return {
        "operationId": result.operation_id,
        "status": result.status,
        "assignedHub": state.assigned_hub,
        "deviceId": state.device_id,
        "subStatus": state.sub_status,
        "created": state.created_date_time,
        "lastUpdated": state.last_update_date_time,
        "etag": state.etag,
        "payload": state.response_payload,
        "text": str(result),
    }


# Hub


def connect(
    connection: str,
    api: str = "sync",
    connection_string: str | None = None,
    sas_token: str | None = None,
    device_id: str | None = None,
    module_id: str | None = None,
    certificate: str | None = None,
    key: str | None = None,
    pass_phrase: str | None = None,
    **options: Any,
) -> None:
    """Open ``connection``: by a connection string, by a token, or by a certificate. The SDK does not reconnect.

    With ``module_id``, which also belongs into a connection string, it is that of a module.
    """
    classes = (IoTHubModuleClient, AioModuleClient) if module_id else (IoTHubDeviceClient, AioDeviceClient)
    client_class = classes[0 if api == "sync" else 1]
    options = {"connection_retry": False, **options}
    if connection_string is not None:
        client = client_class.create_from_connection_string(connection_string, **options)
    elif sas_token is not None:
        client = client_class.create_from_sastoken(sas_token, **options)
    else:
        names = {"device_id": device_id, **({"module_id": module_id} if module_id else {})}
        client = client_class.create_from_x509_certificate(
            x509=x509(certificate, key, pass_phrase), hostname=HOST, **names, **options
        )
    _connections[connection] = client
    client.connect() if api == "sync" else run(client.connect())


def message(description: dict[str, Any]) -> Message:
    """``body`` is text, ``bodyBase64`` bytes; the other members are those of the SDK's message."""
    encoded = description.get("bodyBase64")
    body = description.get("body", "") if encoded is None else base64.b64decode(encoded)
    made = Message(
        body,
        message_id=description.get("messageId"),
        content_encoding=description.get("contentEncoding"),
        content_type=description.get("contentType"),
    )
    made.correlation_id = description.get("correlationId")
    made.user_id = description.get("userId")
    made.custom_properties.update(description.get("properties", {}))
    return made


def send(connection: str, messages: list[dict[str, Any]]) -> None:
    """Send one after the other, each when the one before is acknowledged."""
    client = _connections[connection]
    for description in messages:
        sending = client.send_message(message(description))
        if sending is not None:
            run(sending)


def report(connection: str, patch: dict[str, Any]) -> None:
    """Report properties (sync)."""
    _connections[connection].patch_twin_reported_properties(patch)


def send_at_once(connection: str, messages: list[dict[str, Any]]) -> None:
    """Send without waiting in between (aio)."""
    client = _connections[connection]

    async def all_of_them() -> None:
        await asyncio.gather(*(client.send_message(message(description)) for description in messages))

    run(all_of_them())


def connected(connection: str) -> bool:
    return bool(_connections[connection].connected)


def wait_until_closed(connection: str, seconds: float) -> float:
    """The seconds until the SDK noticed that the connection is gone; fails when it does not in time."""
    started = time.monotonic()
    while _connections[connection].connected:
        if time.monotonic() - started > seconds:
            raise TimeoutError(f"{connection} is still connected after {seconds} s")
        time.sleep(0.02)
    return time.monotonic() - started


def close(connection: str) -> None:
    client = _connections.pop(connection)
    closing = client.shutdown()
    if closing is not None:
        run(closing)


if __name__ == "__main__":
    threading.Thread(target=_loop.run_forever, daemon=True).start()
    converse(
        {
            "register": register,
            "connect": connect,
            "send": send,
            "report": report,
            "send_at_once": send_at_once,
            "connected": connected,
            "wait_until_closed": wait_until_closed,
            "close": close,
        }
    )
