"""The REST APIs of one Muster, wired to its services: for the server, and for whoever serves them elsewhere.

Not here: listeners, and rules of any API.
"""

from collections.abc import Callable, Container, Iterable
from typing import Any, Protocol

from starlette.routing import Route
from starlette.types import ASGIApp

from muster.frontends.rest.app import create_app
from muster.frontends.rest.arm import BearerAccess
from muster.frontends.rest.arm_hubs import HubResources
from muster.frontends.rest.arm_provisioning import ProvisioningResources
from muster.frontends.rest.device_gate import DeviceGate
from muster.frontends.rest.dps_device import DpsDeviceApi
from muster.frontends.rest.dps_service import DpsServiceApi
from muster.frontends.rest.hub_device import HubDeviceApi, TelemetryStore
from muster.frontends.rest.hub_edge import HubEdgeApi
from muster.frontends.rest.hub_gate import HubGate
from muster.frontends.rest.hub_messages import HubMessagesApi
from muster.frontends.rest.hub_methods import HubMethodsApi
from muster.frontends.rest.hub_queries import HubQueriesApi
from muster.frontends.rest.hub_registry import HubRegistryApi
from muster.frontends.rest.hub_transfers import HubTransfersApi
from muster.frontends.rest.hub_twins import HubTwinsApi
from muster.frontends.rest.muster import MusterApi
from muster.frontends.rest.muster_provisioning import ProvisioningPreviewApi
from muster.frontends.rest.requests import Guard
from muster.frontends.served_hosts import ServedHosts
from muster.server.services import Clock, Services


class RestApi(Protocol):
    """What has routes."""

    def routes(self, guard: Guard) -> list[Route]: ...


def rest_app(services: Services, clock: Clock, apis: Iterable[RestApi]) -> ASGIApp:
    """One application of all ``apis``."""
    guard = Guard(services.reports.new_tracking_id, clock)
    return create_app([route for api in apis for route in api.routes(guard)], guard)


def provisioning_apis(services: Services, clock: Clock, hosts: Container[str]) -> list[RestApi]:
    """Those of the provisioning service, and Muster's own beside it. ``hosts`` are the names that are served."""
    return [
        DpsServiceApi(
            services.provisioning,
            services.enrollments,
            services.groups,
            services.records,
            services.throttles,
            services.group_reviews,
            services.access,
        ),
        DpsDeviceApi(services.provisioning, services.registrations, services.records, clock),
        ProvisioningPreviewApi(
            services.provisioning,
            services.enrollments,
            services.groups,
            services.records,
            services.attestations,
            services.allocations,
            services.access,
            hosts,
        ),
    ]


def hub_apis(services: Services, hosts: Container[str], telemetry: TelemetryStore | None = None) -> list[RestApi]:
    """Those of the hubs. ``telemetry`` is where telemetry goes, if not to the event log itself."""
    gate = HubGate(services.hubs, services.access)
    device_gate = DeviceGate(services.hubs, services.authentication)
    return [
        HubRegistryApi(gate, device_gate, services.devices, services.modules, services.bulk, services.c2d),
        HubTransfersApi(gate),
        HubEdgeApi(device_gate, services.edge_scopes),
        HubDeviceApi(device_gate, telemetry or services.events, services.c2d, services.sessions),
        HubMessagesApi(gate, services.c2d, services.feedback, hosts),
        HubTwinsApi(gate, services.twins),
        HubQueriesApi(gate, services.queries),
        HubMethodsApi(gate, services.methods),
    ]


def muster_api(services: Services, hosts: Container[str], describe: Callable[[], dict[str, Any]]) -> RestApi:
    """Muster's own. ``describe`` tells what is public of the server."""
    return MusterApi(
        services.hubs,
        services.provisioning,
        services.events,
        services.reports,
        services.access,
        hosts,
        describe,
    )


def management_apis(services: Services, hosts: ServedHosts, access: BearerAccess, key: str | None) -> list[RestApi]:
    """Resource Manager's. ``key`` is what the policies of new hubs get, None for generated keys."""
    return [
        ProvisioningResources(services.provisioning, services.authorities, access),
        HubResources(
            services.hubs,
            services.hub_authorities,
            services.devices,
            services.consumer_groups,
            services.usage,
            services.provisioning,
            hosts,
            access,
            key,
        ),
    ]
