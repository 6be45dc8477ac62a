"""An operator of hubs by azure-mgmt-iothub, with tokens of ``muster token``."""

import base64
from typing import Any

from azure.mgmt.iothub import IotHubClient
from azure.mgmt.iothub.models import (
    CertificateDescription,
    CertificateProperties,
    CertificateVerificationDescription,
    EventHubConsumerGroupBodyDescription,
    EventHubConsumerGroupName,
    IotHubDescription,
    IotHubSkuInfo,
    OperationInputs,
    SharedAccessSignatureAuthorizationRule,
    TagsResource,
)
from conversation import converse
from resource_manager import GROUP, SUBSCRIPTION, TokenCredential, plain

EVENTS = "events"


def client(host: str, token: str) -> IotHubClient:
    return IotHubClient(TokenCredential(token), SUBSCRIPTION, base_url=f"https://{host}")


# Hubs


def looks(host: str, token: str, name: str) -> Any:
    """Everything that can only be read."""
    management = client(host, token)
    hubs = management.iot_hub_resource
    return {
        "operations": plain(management.operations.list()),
        "hub": plain(hubs.get(GROUP, name)),
        "by_subscription": plain(hubs.list_by_subscription()),
        "by_group": plain(hubs.list_by_resource_group(GROUP)),
        "stats": plain(hubs.get_stats(GROUP, name)),
        "quotas": plain(hubs.get_quota_metrics(GROUP, name)),
        "skus": plain(hubs.get_valid_skus(GROUP, name)),
        "health": plain(hubs.get_endpoint_health(GROUP, name)),
        "jobs": plain(hubs.list_jobs(GROUP, name)),
        "usages": plain(management.resource_provider_common.get_subscription_quota()),
    }


def check_name(host: str, token: str, name: str) -> Any:
    return plain(client(host, token).iot_hub_resource.check_name_availability(OperationInputs(name=name)))


def create(host: str, token: str, name: str) -> Any:
    hub = IotHubDescription(location="westus", sku=IotHubSkuInfo(name="S1", capacity=1))
    return plain(client(host, token).iot_hub_resource.begin_create_or_update(GROUP, name, hub).result())


def change(host: str, token: str, name: str, policies: list[dict[str, Any]], etag: str | None = None) -> Any:
    """Read the hub, replace its policies, put it back."""
    hubs = client(host, token).iot_hub_resource
    hub = hubs.get(GROUP, name)
    hub.properties.authorization_policies = [SharedAccessSignatureAuthorizationRule(**policy) for policy in policies]
    return plain(hubs.begin_create_or_update(GROUP, name, hub, if_match=etag or hub.etag).result())


def tag(host: str, token: str, name: str, tags: dict[str, str]) -> Any:
    return plain(client(host, token).iot_hub_resource.begin_update(GROUP, name, TagsResource(tags=tags)).result())


def keys(host: str, token: str, name: str) -> Any:
    return plain(client(host, token).iot_hub_resource.list_keys(GROUP, name))


def key(host: str, token: str, name: str, policy: str) -> Any:
    return plain(client(host, token).iot_hub_resource.get_keys_for_key_name(GROUP, name, policy))


# CA certificates


def upload(host: str, token: str, name: str, certificate: str, pem: str, etag: str | None = None) -> Any:
    properties = CertificateProperties(certificate=base64.b64encode(pem.encode()).decode())
    description = CertificateDescription(properties=properties)
    certificates = client(host, token).certificates
    return plain(certificates.create_or_update(GROUP, name, certificate, description, if_match=etag))


def certificates(host: str, token: str, name: str) -> Any:
    return plain(client(host, token).certificates.list_by_iot_hub(GROUP, name).value)


def certificate(host: str, token: str, name: str, certificate: str) -> Any:
    return plain(client(host, token).certificates.get(GROUP, name, certificate))


def generate(host: str, token: str, name: str, certificate: str, etag: str) -> Any:
    return plain(client(host, token).certificates.generate_verification_code(GROUP, name, certificate, etag))


def verify(host: str, token: str, name: str, certificate: str, etag: str, proof: str) -> Any:
    body = CertificateVerificationDescription(certificate=base64.b64encode(proof.encode()).decode())
    return plain(client(host, token).certificates.verify(GROUP, name, certificate, etag, body))


def remove(host: str, token: str, name: str, certificate: str, etag: str) -> None:
    client(host, token).certificates.delete(GROUP, name, certificate, etag)


# Consumer groups


def groups(host: str, token: str, name: str) -> Any:
    return plain(client(host, token).iot_hub_resource.list_event_hub_consumer_groups(GROUP, name, EVENTS))


def add_group(host: str, token: str, name: str, group: str) -> Any:
    body = EventHubConsumerGroupBodyDescription(properties=EventHubConsumerGroupName(name=group))
    hubs = client(host, token).iot_hub_resource
    made = plain(hubs.create_event_hub_consumer_group(GROUP, name, EVENTS, group, body))
    assert plain(hubs.get_event_hub_consumer_group(GROUP, name, EVENTS, group)) == made
    return made


def remove_group(host: str, token: str, name: str, group: str) -> None:
    client(host, token).iot_hub_resource.delete_event_hub_consumer_group(GROUP, name, EVENTS, group)


converse(
    {
        operation.__name__: operation
        for operation in (
            looks,
            check_name,
            create,
            change,
            tag,
            keys,
            key,
            upload,
            certificates,
            certificate,
            generate,
            verify,
            remove,
            groups,
            add_group,
            remove_group,
        )
    }
)
