"""The back end of the tutorial: sends a message to a device with the unmodified azure-iot-hub package, over AMQP.

It knows nothing of Muster: with the connection string of another hub it talks to that.

    pip install azure-iot-hub
    python back_end.py DEVICE TEXT [FILE]        FILE holds the environment variables, back_end.env if not given
"""
# ruff: noqa: T201, INP001, TID251 - a small program for a terminal that takes its settings from the environment

import os
import shlex
import sys
from pathlib import Path

from azure.iot.hub import IoTHubRegistryManager


def read_env_file(file: Path) -> None:
    """Set the environment variables in ``file``, one NAME=value per line, as ``muster status -o env`` writes them."""
    for line in file.read_text(encoding="utf-8").splitlines():
        name, separator, value = line.partition("=")
        if separator:
            os.environ[name] = "".join(shlex.split(value))


def main() -> None:
    device_id, text, *files = sys.argv[1:]
    read_env_file(Path(files[0] if files else "back_end.env"))
    manager = IoTHubRegistryManager.from_connection_string(os.environ["IOTHUB_CONNECTION_STRING"])
    manager.send_c2d_message(device_id, text)
    print(f"Sent to {device_id} over AMQP: {text}")


if __name__ == "__main__":
    main()
