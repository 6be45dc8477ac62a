"""A back end by azure-iot-hub that asks direct methods of devices and modules."""

from typing import Any

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import CloudToDeviceMethod
from conversation import converse


def invoke(
    connection_string: str,
    ids: list[str],
    name: str,
    payload: Any = None,
    response_seconds: int | None = None,
    connect_seconds: int | None = None,
) -> dict[str, Any]:
    """What the device answers; ``ids`` are device and perhaps module."""
    manager = IoTHubRegistryManager.from_connection_string(connection_string)
    method = CloudToDeviceMethod(
        method_name=name,
        payload=payload,
        response_timeout_in_seconds=response_seconds,
        connect_timeout_in_seconds=connect_seconds,
    )
    ask = manager.invoke_device_method if len(ids) == 1 else manager.invoke_device_module_method
    result = ask(*ids, method)
    return {"status": result.status, "payload": result.payload}


if __name__ == "__main__":
    converse({"invoke": invoke})
