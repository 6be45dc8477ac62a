"""The hub's service API, registry: devices, modules, bulk, keys, statistics. Sources: hub-service.md 2.

Not here: twins and everything else of the service API (``hub_service.py``), and the rules of the registry.
"""

from dataclasses import dataclass

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from muster.domain.access_policy import Right
from muster.domain.bulk_registry import ExportImportDevice, bulk_view
from muster.domain.device import IdentityBody, identity_view
from muster.domain.documents import decode
from muster.domain.etag import counter_etag
from muster.domain.key_rotation import KeyRotationBody, rotation_view
from muster.domain.module import ModuleBody, module_view
from muster.frontends import status
from muster.frontends.rest import requests
from muster.frontends.rest.device_gate import DeviceGate, is_by_device
from muster.frontends.rest.hub_gate import HubGate
from muster.frontends.rest.requests import Guard
from muster.hub.bulk_registry import BulkRegistry
from muster.hub.c2d_messages import C2dMessages
from muster.hub.devices import MAXIMUM_LIST, Devices, RegistryStatistics
from muster.hub.hubs import Hub
from muster.hub.identity_records import Registered
from muster.hub.modules import Modules

_SOME_FAILED = 207
_BAD_REQUEST = 400
_BULK_FAILURE = "BulkRegistryOperationFailure"


@dataclass(frozen=True, slots=True)
class HubRegistryApi:
    """The handlers; ``routes`` mounts them."""

    gate: HubGate
    device_gate: DeviceGate
    devices: Devices
    modules: Modules
    bulk: BulkRegistry
    c2d: C2dMessages

    def routes(self, guard: Guard) -> list[Route]:
        table = {
            ("/devices", "GET"): self.list_devices,
            ("/devices", "POST"): self.write_many,
            ("/devices/keys/regenerate", "POST"): self.regenerate_keys,
            ("/devices/{id}", "GET"): self.get_device,
            ("/devices/{id}", "PUT"): self.put_device,
            ("/devices/{id}", "DELETE"): self.delete_device,
            ("/devices/{id}/commands", "DELETE"): self.purge_messages,
            ("/devices/{id}/modules", "GET"): self.list_modules,
            ("/devices/{id}/modules/{module}", "GET"): self.get_module,
            ("/devices/{id}/modules/{module}", "PUT"): self.put_module,
            ("/devices/{id}/modules/{module}", "DELETE"): self.delete_module,
            ("/statistics/devices", "GET"): self.device_statistics,
            ("/statistics/service", "GET"): self.service_statistics,
        }
        return [
            Route(path, guard(handler, status.hub_body), methods=[method]) for (path, method), handler in table.items()
        ]

    # Devices

    async def list_devices(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.REGISTRY_READ)
        top = requests.integer(request.query_params.get("top"), MAXIMUM_LIST)
        return requests.json_response([identity_view(*device) for device in await self.devices.list(hub.name, top)])

    async def get_device(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.REGISTRY_READ)
        return _device_response(await self.devices.get(hub.name, request.path_params["id"]))

    async def put_device(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.REGISTRY_WRITE)
        body = await requests.read_record(request, IdentityBody)
        device = await self.devices.put(hub.name, request.path_params["id"], body, _if_match(request))
        return _device_response(device)

    async def delete_device(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.REGISTRY_WRITE)
        await self.devices.delete(hub.name, request.path_params["id"], _if_match(request))
        return requests.no_content()

    async def purge_messages(self, request: Request) -> Response:
        """All messages that wait for the device go; whoever wants feedback of one gets it."""
        hub = await self.gate.authorize(request, Right.SERVICE_CONNECT, Right.REGISTRY_WRITE)
        device_id = request.path_params["id"]
        purged = await self.c2d.purge(hub.name, device_id)
        return requests.json_response({"totalMessagesPurged": purged, "deviceId": device_id, "moduleId": None})

    # Modules

    async def _hub_of_modules(self, request: Request, right: Right) -> Hub:
        """A device may manage its own modules: the daemons of IoT Edge do (hub-device.md 11)."""
        if is_by_device(request):
            return (await self.device_gate.device(request)).hub
        return await self.gate.authorize(request, right)

    async def list_modules(self, request: Request) -> Response:
        hub = await self._hub_of_modules(request, Right.REGISTRY_READ)
        modules = await self.modules.list(hub.name, request.path_params["id"])
        return requests.json_response([module_view(*module) for module in modules])

    async def get_module(self, request: Request) -> Response:
        hub = await self._hub_of_modules(request, Right.REGISTRY_READ)
        return _module_response(await self.modules.get(hub.name, *_module_key(request)))

    async def put_module(self, request: Request) -> Response:
        hub = await self._hub_of_modules(request, Right.REGISTRY_WRITE)
        body = await requests.read_record(request, ModuleBody)
        return _module_response(await self.modules.put(hub.name, *_module_key(request), body, _if_match(request)))

    async def delete_module(self, request: Request) -> Response:
        hub = await self._hub_of_modules(request, Right.REGISTRY_WRITE)
        await self.modules.delete(hub.name, *_module_key(request), _if_match(request))
        return requests.no_content()

    # Many at once

    async def write_many(self, request: Request) -> Response:
        """200, or 400 with the same body and the header by which one client tells it from other refusals."""
        hub = await self.gate.authorize(request, Right.REGISTRY_WRITE)
        errors = await self.bulk.write(hub.name, _items(await requests.read_body(request)))
        response = requests.json_response(bulk_view(errors))
        if errors:
            response.status_code = _BAD_REQUEST
            response.headers["IotHubErrorCode"] = _BULK_FAILURE
            response.headers["iothub-errorcode"] = _BULK_FAILURE
        return response

    async def regenerate_keys(self, request: Request) -> Response:
        """200, 207 when some failed, 400 when all did."""
        hub = await self.gate.authorize(request, Right.REGISTRY_WRITE)
        rotation = await self.bulk.rotate_keys(hub.name, await requests.read_record(request, KeyRotationBody))
        response = requests.json_response(rotation_view(rotation.policy_key, rotation.identities, rotation.errors))
        if rotation.errors:
            response.status_code = _SOME_FAILED if rotation.identities else _BAD_REQUEST
        if response.status_code == _BAD_REQUEST:
            response.headers["iothub-errorcode"] = _BULK_FAILURE
        return response

    # Statistics

    async def device_statistics(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.REGISTRY_READ)
        found = await self.devices.statistics(hub.name)
        return requests.json_response(statistics_view(found))

    async def service_statistics(self, request: Request) -> Response:
        hub = await self.gate.authorize(request, Right.SERVICE_CONNECT, Right.REGISTRY_READ)
        found = await self.devices.statistics(hub.name)
        return requests.json_response({"connectedDeviceCount": found.connected})


class _Wrapped(msgspec.Struct):
    """As the documentation has it; the hub and all clients take a bare array."""

    devices: list[ExportImportDevice]


def _items(body: bytes) -> list[ExportImportDevice]:
    """Raises what ``decode`` raises."""
    if body.lstrip().startswith(b"{"):
        return decode(body, _Wrapped).devices
    return decode(body, list[ExportImportDevice])


def _if_match(request: Request) -> str | None:
    return request.headers.get("if-match")


def _module_key(request: Request) -> tuple[str, str]:
    return request.path_params["id"], request.path_params["module"]


def _device_response(device: Registered) -> Response:
    return requests.json_response(identity_view(*device), etag=counter_etag(device[0].etag))


def _module_response(module: Registered) -> Response:
    return requests.json_response(module_view(*module), etag=counter_etag(module[0].etag))


def statistics_view(found: RegistryStatistics) -> dict[str, int]:
    """Devices of a hub, as its own API and Resource Manager tell them (hub-service.md 2.7)."""
    return {
        "totalDeviceCount": found.total,
        "enabledDeviceCount": found.enabled,
        "disabledDeviceCount": found.total - found.enabled,
    }
