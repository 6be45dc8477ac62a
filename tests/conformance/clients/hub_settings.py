"""A hub as a resource by azure-mgmt-iothub: how it keeps messages for devices."""

from datetime import timedelta
from typing import Any

from azure.mgmt.iothub import IotHubClient
from azure.mgmt.iothub.models import CloudToDeviceProperties, FeedbackProperties, IotHubDescription, IotHubProperties
from conversation import converse
from resource_manager import GROUP, SUBSCRIPTION, TokenCredential


def keep(host: str, token: str, name: str, deliveries: int, hours: int, lock_seconds: int) -> Any:
    """Put the hub back with other settings; those that it shows then."""
    client = IotHubClient(TokenCredential(token), SUBSCRIPTION, base_url=f"https://{host}")
    hub = client.iot_hub_resource.get(GROUP, name)
    settings = CloudToDeviceProperties(
        max_delivery_count=deliveries,
        default_ttl_as_iso8601=timedelta(hours=hours),
        feedback=FeedbackProperties(lock_duration_as_iso8601=timedelta(seconds=lock_seconds)),
    )
    description = IotHubDescription(
        location=hub.location, sku=hub.sku, properties=IotHubProperties(cloud_to_device=settings)
    )
    client.iot_hub_resource.begin_create_or_update(GROUP, name, description).result()
    shown = client.iot_hub_resource.get(GROUP, name).properties.cloud_to_device
    return {
        "deliveries": shown.max_delivery_count,
        "hours": shown.default_ttl_as_iso8601.total_seconds() / 3600,
        "lockSeconds": shown.feedback.lock_duration_as_iso8601.total_seconds(),
        "feedbackDeliveries": shown.feedback.max_delivery_count,
    }


if __name__ == "__main__":
    converse({"keep": keep})
