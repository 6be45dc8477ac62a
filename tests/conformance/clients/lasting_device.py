"""A device by azure-iot-device that stays: it reconnects by itself, answers methods, and receives messages.

Methods: ``echo`` gives back its payload, ``fail`` answers 500, ``sleep`` never answers.
"""

import queue
import threading
from typing import Any

from azure.iot.device import IoTHubDeviceClient, Message, MethodRequest, MethodResponse
from conversation import converse

_SECONDS = 90.0


class Device:
    """One client and what it went through."""

    def __init__(self, connection_string: str, **options: Any) -> None:
        self.client = IoTHubDeviceClient.create_from_connection_string(connection_string, **options)
        self.inbox: queue.Queue[Message] = queue.Queue()
        self.states: list[bool] = []
        self.changed = threading.Condition()
        self.client.on_connection_state_change = self._state_changed
        self.client.on_message_received = self.inbox.put
        self.client.on_method_request_received = self._answer

    def _state_changed(self) -> None:
        with self.changed:
            self.states.append(self.client.connected)
            self.changed.notify_all()

    def _answer(self, request: MethodRequest) -> None:
        if request.name == "sleep":
            return
        status = 500 if request.name == "fail" else 200
        self.client.send_method_response(MethodResponse.create_from_method_request(request, status, request.payload))


_devices: dict[str, Device] = {}


def connect(connection: str, connection_string: str, **options: Any) -> None:
    device = _devices[connection] = Device(connection_string, **options)
    device.client.connect()


def send(connection: str, body: str, properties: dict[str, str] | None = None) -> None:
    """Until it is acknowledged, over a reconnect if need be."""
    message = Message(body)
    message.custom_properties.update(properties or {})
    _devices[connection].client.send_message(message)


def expect_reconnect(connection: str) -> None:
    """What happens to the connection counts from now on."""
    _devices[connection].states.clear()


def wait_for_reconnect(connection: str) -> None:
    """Until the SDK has seen the connection go and come again."""
    device = _devices[connection]
    with device.changed:
        # Told late, the SDK may be connected again by the time that it is asked: two changes are enough.
        if not device.changed.wait_for(lambda: len(device.states) > 1 and device.states[-1], _SECONDS):
            raise TimeoutError(f"{connection} went through {device.states}")


def receive(connection: str) -> str:
    """The body of the next message from the cloud."""
    body: str = _devices[connection].inbox.get(timeout=_SECONDS).data.decode()
    return body


def close(connection: str) -> None:
    _devices.pop(connection).client.shutdown()


if __name__ == "__main__":
    converse(
        {
            "connect": connect,
            "send": send,
            "expect_reconnect": expect_reconnect,
            "wait_for_reconnect": wait_for_reconnect,
            "receive": receive,
            "close": close,
        }
    )
