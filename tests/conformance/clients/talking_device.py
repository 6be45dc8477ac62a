"""Devices and modules by azure-iot-device that do all that there is over MQTT: twin, methods, messages from the cloud.

They reconnect by themselves, each second; what they hear is kept until it is asked for.
"""

import asyncio
import queue
import threading
import time
from collections import defaultdict
from collections.abc import Coroutine
from typing import Any

from azure.iot.device import IoTHubDeviceClient, IoTHubModuleClient, MethodRequest, MethodResponse
from azure.iot.device.aio import IoTHubDeviceClient as AioDeviceClient
from azure.iot.device.aio import IoTHubModuleClient as AioModuleClient
from conversation import converse

_SECONDS = 90.0

_loop = asyncio.new_event_loop()
_clients: dict[str, Any] = {}
_heard: dict[tuple[str, str], "queue.Queue[Any]"] = defaultdict(queue.Queue)


def done(result: Any) -> Any:
    """What a call of either API comes to."""
    if isinstance(result, Coroutine):
        return asyncio.run_coroutine_threadsafe(result, _loop).result(_SECONDS)
    return result


async def make(connection_string: str, api: str = "sync", module: bool = False, websockets: bool = False) -> Any:
    """A client; one of the aio API belongs to the loop in which it is made."""
    classes = (IoTHubModuleClient, AioModuleClient) if module else (IoTHubDeviceClient, AioDeviceClient)
    return classes[api != "sync"].create_from_connection_string(
        connection_string, websockets=websockets, connection_retry_interval=1, keep_alive=20
    )


def connect(connection: str, **options: Any) -> None:
    """Open ``connection``, with handlers for all that a hub sends: the SDK subscribes as they are set."""
    client = _clients[connection] = done(make(**options))
    done(client.connect())

    def respond(request: MethodRequest) -> Any:
        _heard[connection, "method"].put({"name": request.name, "payload": request.payload})
        if request.name == "silent":
            return None
        status, payload = {"fail": (500, {"error": "broken"}), "nothing": (204, None)}.get(
            request.name, (200, {"echo": request.payload})
        )
        return client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))

    async def respond_later(request: MethodRequest) -> None:
        answer = respond(request)
        if answer is not None:
            await answer

    client.on_method_request_received = respond_later if options.get("api") == "aio" else respond
    client.on_twin_desired_properties_patch_received = _heard[connection, "desired"].put
    client.on_message_received = lambda message: _heard[connection, "message"].put(message.data.decode())


def heard(connection: str, kind: str, count: int = 1) -> list[Any]:
    """The next of ``desired``, ``method`` or ``message``."""
    return [_heard[connection, kind].get(timeout=_SECONDS) for _ in range(count)]


def twin(connection: str) -> Any:
    return done(_clients[connection].get_twin())


def report(connection: str, patch: dict[str, Any]) -> None:
    done(_clients[connection].patch_twin_reported_properties(patch))


def wait_until_connected(connection: str, connected: bool) -> None:
    deadline = time.monotonic() + _SECONDS
    while _clients[connection].connected != connected:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{connection}: connected is still {not connected}")
        time.sleep(0.02)


def close(connection: str) -> None:
    done(_clients.pop(connection).shutdown())


if __name__ == "__main__":
    threading.Thread(target=_loop.run_forever, daemon=True).start()
    converse(
        {
            "connect": connect,
            "heard": heard,
            "twin": twin,
            "report": report,
            "wait_until_connected": wait_until_connected,
            "close": close,
        }
    )
