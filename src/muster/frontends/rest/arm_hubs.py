"""Resource Manager's routes of hubs: make one, look at it, remove it, read its keys. Sources: hub-service.md 10.

Documented in docs/arm.md. Not here: linking a hub to the provisioning service, which is a change of that.
"""

from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.c2d_message import C2dSettings
from muster.domain.cloud_to_device_resource import cloud_to_device_view, read_cloud_to_device
from muster.domain.errors import ArgumentInvalidError, ForbiddenError, PreconditionFailedError
from muster.domain.event_hub import event_hub_endpoint, event_hub_name
from muster.domain.hub_event import EventSettings, read_event_settings
from muster.domain.hub_resource import DEFAULT_PARTITION_COUNT, HubBody, require_new_hub, require_supported, tier_of
from muster.domain.resource import ResourceFacts, TagsBody, read_tags
from muster.dps.services import ProvisioningServices
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.arm import GROUP, PROVIDER, SUBSCRIPTION, BearerAccess, ResourceScope, management_routes
from muster.frontends.rest.arm_certificates import CertificateResources
from muster.frontends.rest.arm_hub_details import HubDetails
from muster.frontends.rest.arm_policies import PolicyResources, rule_views
from muster.frontends.rest.arm_provisioning import NameBody, name_answer
from muster.frontends.rest.requests import Guard
from muster.frontends.served_hosts import ServedHosts
from muster.hub.authorities import Authorities
from muster.hub.consumer_groups import ConsumerGroups
from muster.hub.devices import Devices
from muster.hub.hubs import Hub, Hubs
from muster.hub.usage import HubUsage

KIND = "Microsoft.Devices/IotHubs"

_ALL = f"{PROVIDER}/iothubs"
_ONE = f"{GROUP}{_ALL}/{{name}}"
_CREATED = 201


@dataclass(frozen=True, slots=True)
class HubResources:
    """The handlers; ``routes`` mounts them. ``key`` is what the policies of new hubs get, None for generated keys."""

    hubs: Hubs
    authorities: Authorities
    devices: Devices
    consumer_groups: ConsumerGroups
    usage: HubUsage
    services: ProvisioningServices
    hosts: ServedHosts
    access: BearerAccess
    key: str | None

    def routes(self, guard: Guard) -> list[Route]:
        certificates = CertificateResources(self.authorities, KIND, lambda request: self._find(request).name)
        details = HubDetails(KIND, self._find, self.hubs, self.devices, self.consumer_groups, self.usage)
        table = {
            (f"{SUBSCRIPTION}{PROVIDER}/checknameavailability", "POST"): self.check_name,
            (f"{SUBSCRIPTION}{_ALL}", "GET"): self.list_all,
            (f"{GROUP}{_ALL}", "GET"): self.list_all,
            (_ONE, "GET"): self.get,
            (_ONE, "PUT"): self.put,
            (_ONE, "PATCH"): self.patch,
            (_ONE, "DELETE"): self.delete,
            **PolicyResources(KIND, "IotHubKeys", self._find).table(_ONE),
            **certificates.table(_ONE),
            **details.table(_ONE),
        }
        return management_routes(table, self.access, guard, status.hub_management_body)

    def _find(self, request: Request) -> Hub:
        """Raises ResourceNotFoundError."""
        name = request.path_params["name"]
        hub = self.hubs.find(name)
        if hub is None:
            raise ResourceScope.of(request).not_found(KIND, name)
        return hub

    async def check_name(self, request: Request) -> Response:
        name = (await requests.read_record(request, NameBody)).name
        return requests.json_response(name_answer(name, taken=self.hubs.find(name) is not None))

    async def list_all(self, request: Request) -> Response:
        scope = ResourceScope.of(request)
        return requests.json_response({"value": [hub_view(hub, scope) for hub in self.hubs.all], "nextLink": None})

    async def get(self, request: Request) -> Response:
        return _response(self._find(request), request)

    async def put(self, request: Request) -> Response:
        """201 for a new hub, which is served when the answer is sent; 200 for one that exists."""
        body = await requests.read_record(request, HubBody)
        require_supported(body)
        if_match = request.headers.get("if-match")
        hub = self.hubs.find(request.path_params["name"])
        if hub is None:
            if if_match is not None:
                raise PreconditionFailedError(f"There is no hub {request.path_params['name']} to update.")
            return _response(await self._create(request.path_params["name"], body), request, _CREATED)
        _require_same(hub, body)
        policies = body.authorization_policies
        c2d = read_cloud_to_device(body.cloud_to_device, hub.c2d)
        events = read_event_settings(body.hub_events, body.retention_days, hub.events)
        updated = await self.hubs.update(hub.name, (if_match, body.etag), body.facts(hub.facts), policies, c2d, events)
        return _response(updated, request, with_policies=policies is not None)

    async def _create(self, name: str, body: HubBody) -> Hub:
        policies = body.authorization_policies
        host = require_new_hub(name, body, {hub.host_name: hub.name for hub in self.hubs.all})
        partition_count = body.partition_count or DEFAULT_PARTITION_COUNT
        settings = read_cloud_to_device(body.cloud_to_device, C2dSettings())
        events = read_event_settings(body.hub_events, body.retention_days, EventSettings())
        await self.hosts.add(host)
        try:
            return await self.hubs.create(
                name,
                host,
                body.facts(ResourceFacts()),
                partition_count=partition_count,
                well_known_key=self.key,
                policies=policies,
                c2d=settings,
                events=events,
            )
        except BaseException:
            if all(hub.host_name != host for hub in self.hubs.all):
                await self.hosts.remove(host)
            raise

    async def patch(self, request: Request) -> Response:
        body = await requests.read_record(request, TagsBody)
        hub = self._find(request)
        if body.tags is not None:
            facts = msgspec.structs.replace(hub.facts, tags=read_tags(body.tags))
            hub = await self.hubs.update(hub.name, (request.headers.get("if-match"),), facts)
        return _response(hub, request)

    async def delete(self, request: Request) -> Response:
        """A hub with devices goes only with ``force=true``, which is Muster's own; the first hub never."""
        hub = self.hubs.find(request.path_params["name"])
        if hub is None:
            return requests.no_content()
        if hub == self.hubs.all[0]:
            raise ForbiddenError(f"{hub.name} is the hub that every start of this Muster serves, and stays.")
        force = request.query_params.get("force", "").lower() == "true"
        await self.hubs.remove(hub.name, request.headers.get("if-match"), force=force)
        await self.services.load()
        await self.hosts.remove(hub.host_name)
        return Response(status_code=200)


def _require_same(hub: Hub, body: HubBody) -> None:
    """What makes a hub cannot be changed. Raises ArgumentInvalidError."""
    if body.host_name not in (None, hub.host_name.lower()):
        raise ArgumentInvalidError(
            f"The hub {hub.name} is served as {hub.host_name}, which cannot be changed: devices know it. Make another"
            " hub."
        )
    if body.partition_count not in (None, hub.partition_count):
        raise ArgumentInvalidError(f"The hub {hub.name} has {hub.partition_count} partitions, which cannot be changed.")


def hub_view(hub: Hub, scope: ResourceScope) -> dict[str, Any]:
    """The resource, as far as there is something behind it (hub-service.md 10)."""
    partitions = [str(number) for number in range(hub.partition_count)]
    capacity = 1 if hub.facts.capacity is None else hub.facts.capacity
    return {
        "id": scope.id(KIND, hub.name),
        "name": hub.name,
        "type": KIND,
        "location": hub.facts.location,
        "tags": hub.facts.tags,
        "subscriptionid": scope.subscription,
        "resourcegroup": scope.group,
        "etag": hub.etag,
        "sku": {"name": hub.facts.sku, "tier": tier_of(hub.facts.sku), "capacity": capacity},
        "properties": {
            "provisioningState": "Succeeded",
            "state": "Active",
            "hostName": hub.host_name,
            "locations": [{"location": hub.facts.location, "role": "primary"}],
            "eventHubEndpoints": {
                "events": {
                    "retentionTimeInDays": hub.events.retention_days,
                    "partitionCount": hub.partition_count,
                    "partitionIds": partitions,
                    "path": event_hub_name(hub.name),
                    "endpoint": event_hub_endpoint(hub.host_name),
                }
            },
            "hubEvents": [source.value for source in hub.events.sources],
            "cloudToDevice": cloud_to_device_view(hub.c2d),
            "features": "None",
        },
    }


def _response(hub: Hub, request: Request, code: int = 200, *, with_policies: bool = False) -> Response:
    """Policies are shown only in the answer to who sent some, as of a provisioning service."""
    view = hub_view(hub, ResourceScope.of(request))
    if with_policies:
        view["properties"]["authorizationPolicies"] = rule_views(hub)
    response = requests.json_response(view)
    response.status_code = code
    return response
