"""A hub as a resource by azure-mgmt-iothub: how it keeps messages for devices."""

import time
from datetime import timedelta
from typing import Any

from azure.core.credentials import AccessToken
from azure.mgmt.iothub import IotHubClient
from azure.mgmt.iothub.models import CloudToDeviceProperties, FeedbackProperties, IotHubDescription, IotHubProperties
from conversation import converse

GROUP = "line-a"
SUBSCRIPTION = "5ca1ab1e-0000-0000-0000-000000000001"


class Credential:
    """A token that somebody else made."""

    def __init__(self, token: str) -> None:
        self._token = token

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        assert scopes == ("https://management.azure.com/.default",), scopes
        return AccessToken(self._token, int(time.time()) + 3600)


def keep(host: str, token: str, name: str, deliveries: int, hours: int, lock_seconds: int) -> Any:
    """Put the hub back with other settings; those that it shows then."""
    client = IotHubClient(Credential(token), SUBSCRIPTION, base_url=f"https://{host}")
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
