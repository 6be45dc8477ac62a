"""The device of the tutorial goes on: it answers methods, takes messages from the cloud, and follows its twin.

It registers as ``device.py`` beside it does, then listens until its method ``stop`` is called, or until Ctrl-C.

    python both_ways.py [FILE]        FILE holds the environment variables, .env if not given
"""
# ruff: noqa: INP001, TID251 - a small program for a terminal that takes its settings from the environment

import json
import os
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any

from azure.iot.device import X509, IoTHubDeviceClient, Message, MethodRequest, MethodResponse
from device import read_env_file, reasons, register

say = partial(print, flush=True)


class Device:
    """What the device does with what it hears."""

    def __init__(self, client: IoTHubDeviceClient) -> None:
        self.client = client
        self.stopped = threading.Event()

    def listen(self) -> None:
        """Connect, catch up with the twin, and listen until told to stop."""
        self.client.on_message_received = self.take_message
        self.client.on_method_request_received = self.answer
        self.client.on_twin_desired_properties_patch_received = self.apply
        self.client.connect()
        self.apply(self.client.get_twin()["desired"])
        say("Listening")
        self.stopped.wait()

    def take_message(self, message: Message) -> None:
        say(f"Message from the cloud: {message.data.decode()}")

    def answer(self, request: MethodRequest) -> None:
        if request.name == "blink":
            status, payload = 200, {"blinked": (request.payload or {}).get("times", 1)}
        elif request.name == "stop":
            status, payload = 200, {}
        else:
            status, payload = 404, {"error": f"this device has no method {request.name}"}
        say(f"Method {request.name} with {json.dumps(request.payload)}: {status} {json.dumps(payload)}")
        self.client.send_method_response(MethodResponse.create_from_method_request(request, status, payload))
        if request.name == "stop":
            self.stopped.set()

    def apply(self, desired: dict[str, Any]) -> None:
        """Make the wishes come true, and report it."""
        wishes = {name: value for name, value in desired.items() if not name.startswith("$")}
        if wishes:
            say(f"Desired properties, version {desired['$version']}: {json.dumps(wishes)}")
            self.client.patch_twin_reported_properties(wishes)
            say(f"Reported: {json.dumps(wishes)}")


def main() -> None:
    read_env_file(Path(sys.argv[1] if len(sys.argv) > 1 else ".env"))
    certificate = X509(
        cert_file=os.environ["X509_CERT_FILE"],
        key_file=os.environ["X509_KEY_FILE"],
        pass_phrase=os.environ.get("X509_PASS_PHRASE") or None,
    )
    hub, device_id = register(certificate)
    client = IoTHubDeviceClient.create_from_x509_certificate(x509=certificate, hostname=hub, device_id=device_id)
    try:
        Device(client).listen()
    except KeyboardInterrupt:
        pass
    finally:
        client.shutdown()
    say("Disconnected")


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001 - whatever stops a device is told in one line
        sys.exit(f"Failed: {reasons(error)}")
