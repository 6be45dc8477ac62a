"""A back end by azure-iot-hub: its registry manager, method by method."""

from typing import Any

from azure.iot.hub import IoTHubRegistryManager
from conversation import converse


def call(connection_string: str, method: str, arguments: list[Any], options: dict[str, Any]) -> Any:
    """What a method of the registry manager returns, as plain JSON."""
    manager = IoTHubRegistryManager.from_connection_string(connection_string)
    return plain(getattr(manager, method)(*arguments, **options))


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.serialize(keep_readonly=True) if hasattr(value, "serialize") else value


if __name__ == "__main__":
    converse({"call": call})
