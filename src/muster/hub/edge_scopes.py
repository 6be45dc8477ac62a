"""What stands in the scope of an edge device, for the gateway on it: itself, its children, their modules.

A gateway authenticates what connects to it, so it is told identities with their keys. It may ask for edge devices below
its own as well. Sources: hub-device.md 11. Not here: how scopes come about (``domain/edge_scope.py``).
"""

from collections.abc import Callable
from typing import NamedTuple

from muster.domain.device import Identity, is_device_id
from muster.domain.errors import ArgumentInvalidError, UnauthorizedAccessError
from muster.domain.module import EDGE_HUB
from muster.hub.identity_records import (
    Registered,
    find_identity,
    find_registered,
    list_modules_in_scope,
    list_scope,
)
from muster.store.database import Database

MAXIMUM_PAGE = 1000
_LONGEST_CHAIN = 10


class ScopePage(NamedTuple):
    """Devices and modules in a scope; ``following`` is where to go on, None at the end."""

    devices: list[Registered]
    modules: list[Registered]
    following: str | None = None


class EdgeScopes:
    """The scopes of all hubs."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    async def gateway(self, hub: str, device_id: str, module_id: str) -> Identity:
        """The edge device on which this module is the gateway. Raises UnauthorizedAccessError for any other module."""
        device = await find_identity(self._database, hub, device_id)
        if module_id != EDGE_HUB or device is None or not device.iot_edge:
            raise UnauthorizedAccessError(f"Only {EDGE_HUB} of an IoT Edge device may ask what is in its scope.")
        return device

    async def page(self, hub: str, edge: Identity, after: str, limit: int) -> ScopePage:
        """Up to ``limit`` devices, those that follow the id ``after`` in their order, with the modules of each.

        A child that is an edge device has a scope of its own, so its modules are not among them.
        """
        scope, limit = edge.device_scope or "", limit if 0 < limit <= MAXIMUM_PAGE else MAXIMUM_PAGE
        found = await list_scope(self._database, hub, scope, after, limit + 1, self._clock())
        devices, more = found[:limit], len(found) > limit
        if not devices:
            return ScopePage([], [])
        last = devices[-1][0].device_id
        modules = await list_modules_in_scope(self._database, hub, scope, after, last, self._clock())
        return ScopePage(devices, modules, last if more else None)

    async def member(self, hub: str, edge: Identity, device_id: str, module_id: str) -> ScopePage:
        """One device, or one module with its device. Raises ArgumentInvalidError when it is not in the scope: by that a
        gateway learns that it is not any more.
        """
        device = None
        if is_device_id(device_id):
            device = await find_registered(self._database, hub, device_id, "", self._clock())
        if device is None or not _is_below(device[0], edge):
            raise ArgumentInvalidError(f"The device {device_id} is not in the scope of {edge.device_id}.")
        if not module_id:
            return ScopePage([device], [])
        module = None
        if is_device_id(module_id):
            module = await find_registered(self._database, hub, device_id, module_id, self._clock())
        if module is None:
            raise ArgumentInvalidError(f"The module {device_id}/{module_id} is not in the scope of {edge.device_id}.")
        return ScopePage([device], [module])

    async def descendant(self, hub: str, actor: Identity, chain: str) -> Identity:
        """The edge device that ``actor`` asks for: the first of a ``chain`` of device ids that ends with its own, each
        the child of the next. Raises UnauthorizedAccessError.
        """
        names = [name for name in chain.split(";") if name and not name.endswith(f"/{EDGE_HUB}")]
        if not names or names[-1] != actor.device_id or len(names) > _LONGEST_CHAIN:
            raise UnauthorizedAccessError(f"The chain {chain[:200]!r} does not end with {actor.device_id}.")
        edge = actor
        for name in reversed(names[:-1]):
            child = await find_identity(self._database, hub, name) if is_device_id(name) else None
            if child is None or not child.iot_edge or not _is_below(child, edge):
                raise UnauthorizedAccessError(f"{name} is no IoT Edge device below {edge.device_id}.")
            edge = child
        return edge


def _is_below(device: Identity, edge: Identity) -> bool:
    return edge.device_scope in (device.device_scope, *device.parent_scopes)
