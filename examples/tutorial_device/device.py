"""The device of the tutorial: registers, connects to the hub it is assigned, sends host name and IP address.

It knows nothing of Muster: it uses the standard library and the unmodified azure-iot-device package, and with
the environment variables of another provisioning service it runs against that.

    pip install azure-iot-device
    python device.py [FILE]        FILE holds the environment variables, .env if not given
"""
# ruff: noqa: T201, INP001, TID251 - a small program for a terminal that takes its settings from the environment

import json
import os
import socket
import sys
import uuid
from pathlib import Path

from azure.iot.device import X509, IoTHubDeviceClient, Message, ProvisioningDeviceClient


def read_env_file(file: Path) -> None:
    """Set the environment variables in ``file``, one NAME=value per line."""
    for line in file.read_text(encoding="utf-8").splitlines():
        name, separator, value = line.strip().removeprefix("export ").partition("=")
        if separator and not name.startswith("#"):
            os.environ[name.strip()] = value.strip().strip("'\"")


def register(certificate: X509) -> tuple[str, str]:
    """Ask the provisioning service for this device's hub. Gives the hub and the device id there."""
    host, id_scope = os.environ["DPS_HOST"], os.environ["DPS_SCOPEID"]
    registration_id = os.environ["DPS_REGISTRATIONID"]
    print(f"Registering {registration_id} with {host}, id scope {id_scope}")
    client = ProvisioningDeviceClient.create_from_x509_certificate(
        provisioning_host=host, registration_id=registration_id, id_scope=id_scope, x509=certificate
    )
    result = client.register()
    state = result.registration_state
    if result.status != "assigned":
        sys.exit(f"The registration ended as {result.status}")
    print(f"Assigned to hub {state.assigned_hub} as device {state.device_id} ({state.sub_status})")
    return state.assigned_hub, state.device_id


def address_towards(host: str) -> str:
    """The IP address under which this machine talks to ``host``; nothing is sent to find out."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, 8883, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def send_greeting(hub: str, device_id: str, certificate: X509) -> None:
    """Connect to the hub with the same certificate and send one message of JSON."""
    client = IoTHubDeviceClient.create_from_x509_certificate(x509=certificate, hostname=hub, device_id=device_id)
    try:
        client.connect()
        print(f"Connected to {hub}")
        body = json.dumps({"hostname": socket.gethostname(), "ip": address_towards(hub)})
        message = Message(body, str(uuid.uuid4()), content_encoding="utf-8", content_type="application/json")
        client.send_message(message)
        print(f"Sent message {message.message_id}: {body}")
    finally:
        client.shutdown()
    print("Disconnected")


def main() -> None:
    read_env_file(Path(sys.argv[1] if len(sys.argv) > 1 else ".env"))
    certificate = X509(
        cert_file=os.environ["X509_CERT_FILE"],
        key_file=os.environ["X509_KEY_FILE"],
        pass_phrase=os.environ.get("X509_PASS_PHRASE") or None,
    )
    hub, device_id = register(certificate)
    send_greeting(hub, device_id, certificate)


def reasons(error: BaseException | None) -> str:
    """The error and what caused it: the SDK puts what the service answered into the cause."""
    texts = []
    while error is not None:
        texts.append(str(error) or type(error).__name__)
        error = error.__cause__
    return ": ".join(texts)


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001 - whatever stops a device is told in one line
        sys.exit(f"Failed: {reasons(error)}")
