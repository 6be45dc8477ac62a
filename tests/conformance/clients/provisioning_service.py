"""A back end by azure-iot-deviceprovisioning: every operation of its three groups, as plain JSON."""

from typing import Any

from azure.iot.deviceprovisioning import DeviceProvisioningClient
from conversation import converse


def call(connection_string: str, group: str, method: str, given: list[Any], **named: Any) -> Any:
    """``group`` is ``enrollment``, ``enrollment_group`` or ``device_registration_state``."""
    with DeviceProvisioningClient.from_connection_string(connection_string) as client:
        return getattr(getattr(client, group), method)(*given, **named)


def pages(connection_string: str, group: str, given: list[Any], size: int) -> list[list[Any]]:
    """What a query finds, page by page."""
    with DeviceProvisioningClient.from_connection_string(connection_string) as client:
        return [list(page) for page in getattr(client, group).query(*given, top=size).by_page()]


if __name__ == "__main__":
    converse({"call": call, "pages": pages})
