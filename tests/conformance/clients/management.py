"""An operator by azure-mgmt-iothubprovisioningservices, with tokens of ``muster token``."""

import time
from typing import Any

from azure.core import MatchConditions
from azure.mgmt.iothubprovisioningservices import IotDpsClient
from azure.mgmt.iothubprovisioningservices.models import (
    CertificateProperties,
    CertificateResponse,
    IotHubDefinitionDescription,
    OperationInputs,
    ProvisioningServiceDescription,
    SharedAccessSignatureAuthorizationRuleAccessRightsDescription,
    TagsResource,
    VerificationCodeRequest,
)
from conversation import converse
from resource_manager import GROUP, SUBSCRIPTION, TokenCredential, plain


def client(host: str, token: str) -> IotDpsClient:
    return IotDpsClient(TokenCredential(token), SUBSCRIPTION, base_url=f"https://{host}")


# The resource


def get(host: str, token: str, name: str) -> Any:
    return plain(client(host, token).iot_dps_resource.get(name, GROUP))


def lists(host: str, token: str) -> Any:
    """By subscription and by resource group."""
    resources = client(host, token).iot_dps_resource
    return [plain(resources.list_by_subscription()), plain(resources.list_by_resource_group(GROUP))]


def looks(host: str, token: str, name: str) -> Any:
    """Everything else that can only be read."""
    management = client(host, token)
    resources = management.iot_dps_resource
    return {
        "operations": plain(management.operations.list()),
        "skus": plain(resources.list_valid_skus(name, GROUP)),
        "links": plain(resources.list_private_link_resources(GROUP, name)),
        "connections": plain(resources.list_private_endpoint_connections(GROUP, name)),
        "operation": plain(resources.get_operation_result("aW9x", GROUP, name, asyncinfo="true")),
    }


def check_name(host: str, token: str, name: str) -> Any:
    inputs = OperationInputs(name=name)
    return plain(client(host, token).iot_dps_resource.check_provisioning_service_name_availability(inputs))


def change(
    host: str,
    token: str,
    name: str,
    *,
    allocation_policy: str | None = None,
    hubs: list[dict[str, Any]] | None = None,
    policies: list[dict[str, Any]] | None = None,
    etag: str | None = None,
) -> Any:
    """Read the resource, change it, put it back; ``seconds`` is how long the operation took."""
    resources = client(host, token).iot_dps_resource
    resource: ProvisioningServiceDescription = resources.get(name, GROUP)
    if allocation_policy is not None:
        resource.properties.allocation_policy = allocation_policy
    if hubs is not None:
        known = {hub.name: hub for hub in resource.properties.iot_hubs or ()}
        resource.properties.iot_hubs = [
            known[hub["name"]] if "name" in hub else IotHubDefinitionDescription(**hub) for hub in hubs
        ]
    if policies is not None:
        resource.properties.authorization_policies = [
            SharedAccessSignatureAuthorizationRuleAccessRightsDescription(**policy) for policy in policies
        ]
    if etag is not None:
        resource.etag = etag
    started = time.monotonic()
    stored = resources.begin_create_or_update(GROUP, name, resource).result()
    return {**plain(stored), "seconds": time.monotonic() - started}


def create(host: str, token: str, name: str) -> Any:
    resource = ProvisioningServiceDescription(location="westus", properties={}, sku={"name": "S1", "capacity": 1})
    return plain(client(host, token).iot_dps_resource.begin_create_or_update(GROUP, name, resource).result())


def delete(host: str, token: str, name: str) -> None:
    client(host, token).iot_dps_resource.begin_delete(name, GROUP).result()


def tag(host: str, token: str, name: str, tags: dict[str, str]) -> Any:
    return plain(client(host, token).iot_dps_resource.begin_update(GROUP, name, TagsResource(tags=tags)).result())


def keys(host: str, token: str, name: str) -> Any:
    return plain(client(host, token).iot_dps_resource.list_keys(name, GROUP))


def key(host: str, token: str, name: str, policy: str) -> Any:
    return plain(client(host, token).iot_dps_resource.list_keys_for_key_name(name, policy, GROUP))


# CA certificates


def upload(
    host: str, token: str, name: str, certificate: str, pem: str, *, verified: bool = False, etag: str | None = None
) -> Any:
    """``certificate`` is the name; the SDK sends the base64 of what it is given."""
    properties = CertificateProperties(certificate=pem.encode(), is_verified=verified)
    condition = {"etag": etag, "match_condition": MatchConditions.IfNotModified} if etag else {}
    description = CertificateResponse(properties=properties)
    certificates = client(host, token).dps_certificate
    return plain(certificates.create_or_update(GROUP, name, certificate, description, **condition))


def certificates(host: str, token: str, name: str) -> Any:
    return plain(client(host, token).dps_certificate.list(GROUP, name).value)


def certificate(host: str, token: str, name: str, certificate: str) -> Any:
    model = client(host, token).dps_certificate.get(certificate, GROUP, name)
    dates = model.properties.expiry, model.properties.created, model.properties.updated
    return {**plain(model), "dates": [date.isoformat() for date in dates]}


def generate(host: str, token: str, name: str, certificate: str, etag: str) -> Any:
    answer = client(host, token).dps_certificate.generate_verification_code(
        certificate, GROUP, name, etag=etag, match_condition=MatchConditions.IfNotModified
    )
    return plain(answer)


def verify(host: str, token: str, name: str, certificate: str, etag: str, proof: str) -> Any:
    request = VerificationCodeRequest(certificate=proof)
    answer = client(host, token).dps_certificate.verify_certificate(
        certificate, GROUP, name, request, etag=etag, match_condition=MatchConditions.IfNotModified
    )
    return plain(answer)


def remove(host: str, token: str, name: str, certificate: str, etag: str = "*") -> None:
    condition = MatchConditions.IfPresent if etag == "*" else MatchConditions.IfNotModified
    client(host, token).dps_certificate.delete(GROUP, name, certificate, etag=etag, match_condition=condition)


converse(
    {
        operation.__name__: operation
        for operation in (
            get,
            lists,
            looks,
            check_name,
            change,
            create,
            delete,
            tag,
            keys,
            key,
            upload,
            certificates,
            certificate,
            generate,
            verify,
            remove,
        )
    }
)
