"""A back end by azure-iot-hub over HTTPS: its runtime manager reads feedback, its protocol layer purges queues."""

from typing import Any

from azure.iot.hub import IoTHubHttpRuntimeManager
from conversation import converse


def receive(connection_string: str) -> dict[str, Any] | None:
    """The next batch; the manager's own method drops it, so the layer below is asked for the whole answer."""
    manager = IoTHubHttpRuntimeManager.from_connection_string(connection_string)
    response = manager.protocol.cloud_to_device_messages.receive_feedback_notification(raw=True).response
    if response.status_code != 200:
        return None
    headers = {name.lower(): value for name, value in response.headers.items()}
    return {"headers": headers, "records": response.json()}


def complete(connection_string: str, lock_token: str) -> None:
    IoTHubHttpRuntimeManager.from_connection_string(connection_string).complete_feedback_notification(lock_token)


def abandon(connection_string: str, lock_token: str) -> None:
    IoTHubHttpRuntimeManager.from_connection_string(connection_string).abandon_feedback_notification(lock_token)


def purge(connection_string: str, device_id: str) -> dict[str, Any]:
    manager = IoTHubHttpRuntimeManager.from_connection_string(connection_string)
    result = manager.protocol.cloud_to_device_messages.purge_cloud_to_device_message_queue(device_id)
    return {"purged": result.total_messages_purged, "deviceId": result.device_id, "moduleId": result.module_id}


if __name__ == "__main__":
    converse({"receive": receive, "complete": complete, "abandon": abandon, "purge": purge})
