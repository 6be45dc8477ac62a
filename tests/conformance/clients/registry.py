"""A back end by azure-iot-hub: its registry manager and its job manager, method by method."""

from typing import Any

from azure.iot.hub import IoTHubJobManager, IoTHubRegistryManager
from azure.iot.hub.protocol.models import JobProperties
from conversation import converse


def call(connection_string: str, method: str, arguments: list[Any], options: dict[str, Any]) -> Any:
    """What a method of the registry manager returns, as plain JSON."""
    manager = IoTHubRegistryManager.from_connection_string(connection_string)
    return plain(getattr(manager, method)(*arguments, **options))


def transfer(connection_string: str, method: str, arguments: list[Any]) -> Any:
    """What a method of the job manager says to imports and exports; a dictionary is the description of one."""
    manager = IoTHubJobManager.from_connection_string(connection_string)
    given = [JobProperties(**one) if isinstance(one, dict) else one for one in arguments]
    return plain(getattr(manager, method)(*given))


def plain(value: Any) -> Any:
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value.serialize(keep_readonly=True) if hasattr(value, "serialize") else value


if __name__ == "__main__":
    converse({"call": call, "transfer": transfer})
