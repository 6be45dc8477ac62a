"""Scopes of edge devices and of what hangs below them: what a write of a device makes of them.

An edge device has a scope of its own, for ever, and at most one parent; another device stands in the scope of its
parent, if it has one. Sources: hub-service.md 2.2, interop-facts.md 18.
"""

from typing import NamedTuple

from muster.domain.device import Identity, require_storable
from muster.domain.errors import ArgumentInvalidError

_PREFIX = "ms-azure-iot-edge://"
_UNIX_EPOCH_TICKS = 621_355_968_000_000_000


class Scopes(NamedTuple):
    """``device``: an edge device's own scope, another one's the scope of its parent. ``parents``: one or none."""

    device: str | None = None
    parents: tuple[str, ...] = ()


def scopes_after(
    stored: Identity | None,
    *,
    iot_edge: bool,
    device_scope: str | None,
    parent_scopes: tuple[str, ...] | None,
    device_id: str,
    now: int,
) -> Scopes:
    """The scopes of a device after a write that says these things; ``stored`` is what it was, ``now`` in microseconds.

    Raises ArgumentInvalidError for another scope of an edge device, and for a second parent.
    """
    parents = tuple(parent_scopes or ())
    if len(parents) > 1:
        raise ArgumentInvalidError(f"parentScopes has {len(parents)} elements; a device has one parent.")
    for scope in (device_scope, *parents):
        require_storable(scope, "A scope")
    if not iot_edge:
        # One that was an edge device loses its parent: what it sends back is its own scope.
        parent = None if stored is not None and stored.iot_edge else device_scope
        return Scopes(parent, (parent,)) if parent else Scopes()
    if stored is None:
        return Scopes(f"{_PREFIX}{device_id}-{now * 10 + _UNIX_EPOCH_TICKS}", parents)
    if not stored.iot_edge:
        return Scopes(f"{_PREFIX}{device_id}", parents)
    if device_scope != stored.device_scope:
        raise ArgumentInvalidError(f"Device scope is immutable: that of {device_id} is {stored.device_scope!r}.")
    return Scopes(stored.device_scope, parents)
