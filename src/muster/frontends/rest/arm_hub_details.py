"""Resource Manager's routes below a hub: consumer groups, and what can be read of its use. Sources: hub-service.md 10.

Documented in docs/arm.md. Not here: the hub itself (``arm_hubs.py``), its CA certificates (``arm_certificates.py``).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from muster.domain.authority import rfc_1123
from muster.domain.consumer_group import ConsumerGroup
from muster.domain.hub_resource import MAXIMUM_HUBS, tier_of
from muster.frontends.rest import requests
from muster.frontends.rest.arm import PROVIDER, SUBSCRIPTION, ResourceScope
from muster.frontends.rest.hub_registry import statistics_view
from muster.frontends.rest.hub_transfers import no_container
from muster.hub.consumer_groups import ConsumerGroups
from muster.hub.devices import Devices, RegistryStatistics
from muster.hub.hubs import Hub, Hubs
from muster.hub.usage import HubUsage, messages_a_day

_ENDPOINT = "events"
"""The built-in endpoint, the only one that has consumer groups."""

_MAXIMUM_DEVICES = 1_000_000
_MAXIMUM_UNITS = 200


@dataclass(frozen=True, slots=True)
class HubDetails:
    """The handlers. ``find`` is the hub of a request, and raises ResourceNotFoundError."""

    kind: str
    find: Callable[[Request], Hub]
    hubs: Hubs
    devices: Devices
    consumer_groups: ConsumerGroups
    usage: HubUsage

    def table(self, resource: str) -> dict[tuple[str, str], requests.Handler]:
        """Handlers by path and method below the path of a ``resource``."""
        groups = f"{resource}/eventhubendpoints/{{endpoint}}/consumergroups"
        return {
            (groups, "GET"): self.list_groups,
            (f"{groups}/{{group_name}}", "GET"): self.get_group,
            (f"{groups}/{{group_name}}", "PUT"): self.put_group,
            (f"{groups}/{{group_name}}", "DELETE"): self.delete_group,
            (f"{resource}/quotametrics", "GET"): self.list_quota_metrics,
            (f"{resource}/iothubstats", "GET"): self.get_statistics,
            (f"{resource}/skus", "GET"): self.list_skus,
            (f"{resource}/routingendpointshealth", "GET"): self.list_endpoints_health,
            (f"{resource}/jobs", "GET"): self.list_jobs,
            (f"{resource}/jobs/{{job}}", "GET"): self.get_job,
            (f"{resource}/exportdevices", "POST"): self.refuse_transfer,
            (f"{resource}/importdevices", "POST"): self.refuse_transfer,
            (f"{SUBSCRIPTION}{PROVIDER}/usages", "GET"): self.list_usages,
        }

    # Consumer groups

    def _events(self, request: Request) -> Hub:
        """The hub, if the endpoint is its own. Raises ResourceNotFoundError."""
        hub = self.find(request)
        endpoint = request.path_params["endpoint"]
        if endpoint.lower() != _ENDPOINT:
            raise ResourceScope.of(request).not_found(f"{self.kind}/{hub.name}/eventHubEndpoints", endpoint)
        return hub

    async def list_groups(self, request: Request) -> Response:
        hub = self._events(request)
        groups = [self._group_view(request, hub, one) for one in await self.consumer_groups.all(hub.name)]
        return requests.json_response({"value": groups, "nextLink": None})

    async def get_group(self, request: Request) -> Response:
        hub, name = self._events(request), request.path_params["group_name"]
        group = await self.consumer_groups.find(hub.name, name)
        if group is None:
            raise ResourceScope.of(request).not_found(f"{self.kind}/{hub.name}/ConsumerGroups", name)
        return requests.json_response(self._group_view(request, hub, group))

    async def put_group(self, request: Request) -> Response:
        """The name is that of the path; a group has nothing else."""
        hub = self._events(request)
        group = await self.consumer_groups.put(hub.name, request.path_params["group_name"])
        return requests.json_response(self._group_view(request, hub, group))

    async def delete_group(self, request: Request) -> Response:
        hub, name = self._events(request), request.path_params["group_name"]
        if not await self.consumer_groups.delete(hub.name, name):
            raise ResourceScope.of(request).not_found(f"{self.kind}/{hub.name}/ConsumerGroups", name)
        return Response(status_code=200)

    def _group_view(self, request: Request, hub: Hub, group: ConsumerGroup) -> dict[str, Any]:
        resource = ResourceScope.of(request).id(self.kind, hub.name)
        return {
            "id": f"{resource}/eventHubEndpoints/{_ENDPOINT}/ConsumerGroups/{group.name}",
            "name": group.name,
            "type": f"{self.kind}/EventHubEndpoints/ConsumerGroups",
            "properties": {"created": rfc_1123(group.created)},
        }

    # What can be read

    async def _statistics(self, request: Request) -> RegistryStatistics:
        return await self.devices.statistics(self.find(request).name)

    async def list_quota_metrics(self, request: Request) -> Response:
        hub = self.find(request)
        found = await self._statistics(request)
        messages = messages_a_day(hub.facts.sku, hub.facts.capacity or 1)
        rows = (
            ("TotalMessages", await self.usage.messages_today(hub.name), messages),
            ("TotalDeviceCount", found.total, _MAXIMUM_DEVICES),
        )
        value = [{"name": name, "currentValue": current, "maxValue": maximum} for name, current, maximum in rows]
        return requests.json_response({"value": value, "nextLink": None})

    async def get_statistics(self, request: Request) -> Response:
        return requests.json_response(statistics_view(await self._statistics(request)))

    async def list_skus(self, request: Request) -> Response:
        hub = self.find(request)
        capacity = {"minimum": 1, "maximum": _MAXIMUM_UNITS, "default": 1, "scaleType": "Manual"}
        sku = {"name": hub.facts.sku, "tier": tier_of(hub.facts.sku)}
        return requests.json_response(
            {"value": [{"resourceType": self.kind, "sku": sku, "capacity": capacity}], "nextLink": None}
        )

    async def list_endpoints_health(self, request: Request) -> Response:
        """There is no endpoint beside the built-in one, which is not listed."""
        self.find(request)
        return requests.json_response({"value": [], "nextLink": None})

    async def list_jobs(self, request: Request) -> Response:
        """No import or export is ever taken."""
        self.find(request)
        return requests.json_response({"value": [], "nextLink": None})

    async def get_job(self, request: Request) -> Response:
        hub = self.find(request)
        raise ResourceScope.of(request).not_found(f"{self.kind}/{hub.name}/jobs", request.path_params["job"])

    async def refuse_transfer(self, request: Request) -> Response:
        self.find(request)
        raise no_container()

    async def list_usages(self, request: Request) -> Response:
        subscription = ResourceScope.of(request).subscription
        name = {"value": "IotHubCount", "localizedValue": "IoT hubs"}
        usage = {
            "id": f"/subscriptions/{subscription}/providers/Microsoft.Devices/usages/IotHubCount",
            "type": "Microsoft.Devices/usages",
            "unit": "Count",
            "currentValue": len(self.hubs.all),
            "limit": MAXIMUM_HUBS,
            "name": name,
        }
        return requests.json_response({"value": [usage], "nextLink": None})
