"""Resource Manager's routes of provisioning services: the resource, its policies, linked hubs and CA certificates.

Sources: dps.md 7. Documented in docs/arm.md. Not here: hubs (``arm_hubs.py``), and the rules of updates.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.allocation import LinkedHub
from muster.domain.errors import ForbiddenError, QuotaExceededError
from muster.domain.provisioning_resource import ProvisioningBody
from muster.domain.resource import LOCATION, TagsBody, resource_name_problem
from muster.domain.timestamp import SECOND
from muster.dps.services import ProvisioningService, ProvisioningServices
from muster.frontends.rest import requests
from muster.frontends.rest.arm import (
    GROUP,
    PROVIDER,
    SUBSCRIPTION,
    BearerAccess,
    ResourceScope,
    management_routes,
)
from muster.frontends.rest.arm_certificates import CertificateResources
from muster.frontends.rest.arm_policies import PolicyResources, rule_views
from muster.frontends.rest.requests import Guard
from muster.hub.authorities import Authorities

KIND = "Microsoft.Devices/provisioningServices"

_ALL = f"{PROVIDER}/provisioningservices"
_ONE = f"{GROUP}{_ALL}/{{name}}"

_POLICY_NAMES = {"hashed": "Hashed", "geoLatency": "GeoLatency", "static": "Static"}
_MILLISECOND = SECOND // 1000


class NameBody(msgspec.Struct):
    """The body of a question for a name."""

    name: str


@dataclass(frozen=True, slots=True)
class ProvisioningResources:
    """The handlers; ``routes`` mounts them."""

    services: ProvisioningServices
    authorities: Authorities
    access: BearerAccess

    def routes(self, guard: Guard) -> list[Route]:
        certificates = CertificateResources(self.authorities, KIND, lambda request: self.find(request).id_scope)
        table = {
            (GROUP, "GET"): self.get_group,
            (f"{PROVIDER}/operations", "GET"): self.list_operations,
            (f"{SUBSCRIPTION}{PROVIDER}/checkprovisioningservicenameavailability", "POST"): self.check_name,
            (f"{SUBSCRIPTION}{_ALL}", "GET"): self.list_all,
            (f"{GROUP}{_ALL}", "GET"): self.list_all,
            (_ONE, "GET"): self.get,
            (_ONE, "PUT"): self.put,
            (_ONE, "PATCH"): self.patch,
            (_ONE, "DELETE"): self.delete,
            **PolicyResources(KIND, "keys", self.find).table(_ONE),
            (f"{_ONE}/skus", "GET"): self.list_skus,
            (f"{_ONE}/operationresults/{{operation}}", "GET"): self.get_operation,
            (f"{_ONE}/privatelinkresources", "GET"): self.list_private_link_resources,
            (f"{_ONE}/privateendpointconnections", "GET"): self.list_private_endpoint_connections,
            **certificates.table(_ONE),
        }
        return management_routes(table, self.access, guard)

    def find(self, request: Request) -> ProvisioningService:
        """Raises ResourceNotFoundError."""
        name = request.path_params["name"]
        service = self.services.find_by_name(name)
        if service is None:
            raise ResourceScope.of(request).not_found(KIND, name)
        return service

    async def get_group(self, request: Request) -> Response:
        """Azure's command line asks a group where it is, for who names no location (dps.md 7.6)."""
        scope = ResourceScope.of(request)
        group = {
            "id": f"/subscriptions/{scope.subscription}/resourceGroups/{scope.group}",
            "name": scope.group,
            "type": "Microsoft.Resources/resourceGroups",
            "location": LOCATION,
            "properties": {"provisioningState": "Succeeded"},
        }
        return requests.json_response(group)

    async def list_operations(self, _request: Request) -> Response:
        return requests.json_response({"value": [_operation(*words) for words in _OPERATIONS]})

    async def check_name(self, request: Request) -> Response:
        name = (await requests.read_record(request, NameBody)).name
        return requests.json_response(name_answer(name, taken=self.services.find_by_name(name) is not None))

    async def list_all(self, request: Request) -> Response:
        scope = ResourceScope.of(request)
        return requests.json_response({"value": [resource_view(service, scope) for service in self.services.all]})

    async def get(self, request: Request) -> Response:
        return requests.json_response(resource_view(self.find(request), ResourceScope.of(request)))

    async def put(self, request: Request) -> Response:
        """200: what is asked for is done. Policies are shown only in the answer to who sent some (dps.md 7.2)."""
        body = await requests.read_record(request, ProvisioningBody)
        name = request.path_params["name"]
        service = self.services.find_by_name(name)
        if service is None:
            raise QuotaExceededError(
                f"This Muster has one provisioning service, {self.services.first.name}, and takes no second one. For"
                " another one, start another Muster with its own data directory."
            )
        service = await self.services.put(service.id_scope, body, request.headers.get("if-match"))
        view = resource_view(service, ResourceScope.of(request))
        if body.properties.authorization_policies is not None:
            view["properties"]["authorizationPolicies"] = rule_views(service)
        return requests.json_response(view)

    async def patch(self, request: Request) -> Response:
        body = await requests.read_record(request, TagsBody)
        service = self.find(request)
        if body.tags is not None:
            service = await self.services.put_tags(service.id_scope, body.tags, request.headers.get("if-match"))
        return requests.json_response(resource_view(service, ResourceScope.of(request)))

    async def delete(self, request: Request) -> Response:
        name = request.path_params["name"]
        if self.services.find_by_name(name) is None:
            return requests.no_content()
        raise ForbiddenError(
            f"{name} is the only provisioning service of this Muster, and stays. To begin anew, stop the server and"
            " remove its data directory."
        )

    async def list_skus(self, request: Request) -> Response:
        self.find(request)
        return requests.json_response({"value": [{"name": "S1"}]})

    async def get_operation(self, request: Request) -> Response:
        """Whatever was begun is done."""
        self.find(request)
        return requests.json_response({"status": "Succeeded"})

    async def list_private_link_resources(self, request: Request) -> Response:
        self.find(request)
        return requests.json_response({"value": []})

    async def list_private_endpoint_connections(self, request: Request) -> Response:
        """A bare list, as the client's model has it."""
        self.find(request)
        return requests.json_response([])


def name_answer(name: str, *, taken: bool) -> dict[str, Any]:
    """Whether a name can be had; the reason is ``Invalid`` also for one that is free (dps.md 7.1)."""
    problem = resource_name_problem(name)
    if taken:
        return {"nameAvailable": False, "reason": "AlreadyExists", "message": f"The name {name!r} is taken."}
    if problem is not None:
        return {"nameAvailable": False, "reason": "Invalid", "message": f"{name!r} cannot be a name: {problem}."}
    return {"nameAvailable": True, "reason": "Invalid", "message": None}


def resource_view(service: ProvisioningService, scope: ResourceScope) -> dict[str, Any]:
    """The resource of dps.md 7.2. Azure's command line reads ``resourcegroup``, which its model does not know."""
    facts = service.facts
    sku: dict[str, Any] = {"name": facts.sku, "tier": "Standard"}
    if facts.capacity is not None:
        sku["capacity"] = facts.capacity
    return {
        "etag": service.etag,
        "name": service.name,
        "location": facts.location,
        "properties": {
            "state": "Active",
            "provisioningState": "Succeeded",
            "iotHubs": [_linked_hub_view(hub, facts.location) for hub in service.linked_hubs],
            "allocationPolicy": _POLICY_NAMES[service.allocation_policy],
            "serviceOperationsHostName": service.host_name,
            "deviceProvisioningHostName": service.host_name,
            "idScope": service.id_scope,
        },
        "resourcegroup": scope.group,
        "type": KIND,
        "id": scope.id(KIND, service.name),
        "subscriptionid": scope.subscription,
        "tags": facts.tags,
        "sku": sku,
    }


def _linked_hub_view(hub: LinkedHub, location: str) -> dict[str, Any]:
    """What was not set is not shown (dps.md 7.2); ``latencyMilliseconds`` is Muster's own."""
    view: dict[str, Any] = {}
    if hub.apply_allocation_policy is not None:
        view["applyAllocationPolicy"] = hub.apply_allocation_policy
    if hub.allocation_weight is not None:
        view["allocationWeight"] = hub.allocation_weight
    if hub.latency:
        view["latencyMilliseconds"] = hub.latency / _MILLISECOND
    return {
        **view,
        "name": hub.host_name,
        "connectionString": f"HostName={hub.host_name};SharedAccessKeyName={hub.policy};SharedAccessKey=****",
        "location": hub.location or location,
    }


_OPERATIONS = (
    ("provisioningServices", "Read", "Get a provisioning service"),
    ("provisioningServices", "Write", "Change a provisioning service"),
    ("provisioningServices", "listkeys/Action", "Get the shared access policies of a provisioning service"),
    ("provisioningServices/certificates", "Read", "Get a CA certificate"),
    ("provisioningServices/certificates", "Write", "Upload a CA certificate"),
    ("provisioningServices/certificates", "Delete", "Delete a CA certificate"),
    ("IotHubs", "Read", "Get a hub"),
    ("IotHubs", "Write", "Create or change a hub"),
    ("IotHubs", "Delete", "Delete a hub"),
    ("IotHubs", "listkeys/Action", "Get the shared access policies of a hub"),
    ("IotHubs/certificates", "Read", "Get a CA certificate of a hub"),
    ("IotHubs/certificates", "Write", "Upload a CA certificate of a hub"),
    ("IotHubs/certificates", "Delete", "Delete a CA certificate of a hub"),
    ("iotHubs/eventHubEndpoints/consumerGroups", "Read", "Get a consumer group"),
    ("iotHubs/eventHubEndpoints/consumerGroups", "Write", "Create a consumer group"),
    ("iotHubs/eventHubEndpoints/consumerGroups", "Delete", "Delete a consumer group"),
)


def _operation(resource: str, action: str, text: str) -> dict[str, Any]:
    return {
        "name": f"Microsoft.Devices/{resource}/{action}",
        "display": {"provider": "Microsoft Devices", "resource": resource, "operation": text, "description": text},
    }
