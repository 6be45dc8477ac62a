"""A provisioning service as a resource: what a client may send to Resource Manager's routes, and what becomes of it.

The rules of partial updates are those of dps.md 7.4. Not here: storing, and the JSON of answers.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from muster.domain.access_policy import (
    HUB_OWNER,
    AccessPolicy,
    Right,
)
from muster.domain.access_rules import AccessRuleBody
from muster.domain.allocation import LinkedHub, PolicyName
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError, QuotaExceededError
from muster.domain.resource import ResourceBody
from muster.domain.timestamp import MINUTE

MAXIMUM_LINKED_HUBS = 50
MAXIMUM_WEIGHT = 1000

_MASKED = re.compile(r"\*+")
_MILLISECOND = 1000
_MAXIMUM_LATENCY = MINUTE
_ALLOCATION_POLICIES: dict[str, PolicyName] = {"hashed": "hashed", "geolatency": "geoLatency", "static": "static"}


class _Wire(msgspec.Struct, rename="camel", kw_only=True):
    pass


class LinkedHubBody(_Wire):
    """``latency_milliseconds`` is Muster's own; without it what is stored stays, for clients that do not know it."""

    connection_string: str | None = None
    host_name: str | None = None
    location: str | None = None
    apply_allocation_policy: bool | None = None
    allocation_weight: int | None = None
    latency_milliseconds: float | None = None


class PropertiesBody(_Wire):
    """Members that are read-only are not listed, and so ignored."""

    iot_hubs: list[LinkedHubBody] | None = None
    allocation_policy: str | None = None
    authorization_policies: list[AccessRuleBody] | None = None
    public_network_access: str | None = None
    ip_filter_rules: list[Any] | None = None
    private_endpoint_connections: list[Any] | None = None
    device_registry_namespaces: list[Any] | None = None
    enable_data_residency: bool | None = None
    disable_local_auth: bool | None = None


class ProvisioningBody(ResourceBody):
    """The body of a PUT."""

    properties: PropertiesBody = msgspec.field(default_factory=PropertiesBody)


class Linkable(Protocol):
    """A hub of this Muster."""

    @property
    def name(self) -> str: ...
    @property
    def host_name(self) -> str: ...
    @property
    def policies(self) -> Mapping[str, AccessPolicy]: ...


def require_supported(body: ProvisioningBody) -> None:
    """Raise ArgumentInvalidError for what would change how Azure behaves, and does not exist here."""
    properties = body.properties
    asked = {
        "sku.name other than S1": body.sku is not None and (body.sku.name or "S1").upper() != "S1",
        "identity": body.wants_identity,
        "publicNetworkAccess Disabled": (properties.public_network_access or "").lower() == "disabled",
        "ipFilterRules": bool(properties.ip_filter_rules),
        "privateEndpointConnections": bool(properties.private_endpoint_connections),
        "deviceRegistryNamespaces": bool(properties.device_registry_namespaces),
        "enableDataResidency": bool(properties.enable_data_residency),
        "disableLocalAuth": bool(properties.disable_local_auth),
    }
    refused = [name for name, wanted in asked.items() if wanted]
    if refused:
        raise ArgumentInvalidError(f"This Muster has no {', '.join(refused)}: leave it out.")


def read_allocation_policy(text: str) -> PolicyName:
    """The default of all enrollments: ``Hashed``, ``GeoLatency`` or ``Static`` (dps.md 5.2).

    Raises ArgumentInvalidError.
    """
    policy = _ALLOCATION_POLICIES.get(text.lower())
    if policy is None:
        raise ArgumentInvalidError(f"allocationPolicy is {text!r}; Hashed, GeoLatency and Static are allowed.")
    return policy


def read_linked_hubs(
    bodies: Sequence[LinkedHubBody], linked: Sequence[LinkedHub], hubs: Sequence[Linkable]
) -> tuple[LinkedHub, ...]:
    """The linked hubs that replace all there were, of which ``linked`` are. Only ``hubs`` can be linked.

    Raises ArgumentInvalidError, ArgumentNullError and QuotaExceededError.
    """
    if len(bodies) > MAXIMUM_LINKED_HUBS:
        raise QuotaExceededError(f"There are {len(bodies)} linked hubs; {MAXIMUM_LINKED_HUBS} are allowed.")
    before = {hub.name: hub for hub in linked}
    found: dict[str, LinkedHub] = {}
    for body in bodies:
        hub = _linked_hub(body, before, hubs)
        if hub.name in found:
            raise ArgumentInvalidError(f"The hub {hub.host_name} is linked twice.")
        found[hub.name] = hub
    return tuple(found.values())


def _linked_hub(body: LinkedHubBody, before: Mapping[str, LinkedHub], hubs: Sequence[Linkable]) -> LinkedHub:
    fields = _connection_string(body.connection_string or "")
    host = fields.get("hostname") or body.host_name
    if not host:
        raise ArgumentNullError("A linked hub needs its connectionString, which names it: HostName=...")
    hub = _find(host, hubs)
    stored = before.get(hub.name)
    return LinkedHub(
        name=hub.name,
        host_name=hub.host_name,
        policy=_policy(fields, hub, stored),
        location=body.location or (stored.location if stored else ""),
        apply_allocation_policy=body.apply_allocation_policy,
        allocation_weight=_weight(body.allocation_weight, host),
        latency=_latency(body.latency_milliseconds, host, stored),
    )


def _connection_string(text: str) -> dict[str, str]:
    pieces = (piece.partition("=") for piece in text.split(";"))
    return {name.strip().lower(): value.strip() for name, separator, value in pieces if separator}


def _find(host: str, hubs: Sequence[Linkable]) -> Linkable:
    name, _, port = host.lower().rpartition(":")
    wanted = {host.lower(), name} if port.isdigit() else {host.lower()}
    for hub in hubs:
        if hub.host_name.lower() in wanted:
            return hub
    raise ArgumentInvalidError(
        f"The hub {host!r} is not one of this Muster, and only its own can be linked: devices are created in them"
        f" directly. There are {', '.join(hub.host_name for hub in hubs)}; add one with `muster hub add`."
    )


def _policy(fields: Mapping[str, str], hub: Linkable, stored: LinkedHub | None) -> str:
    """The policy that the connection string names. A masked key is that of the link as it is (dps.md 7.4)."""
    key = fields.get("sharedaccesskey", "")
    if not key or _MASKED.fullmatch(key):
        if stored is not None:
            return stored.policy
        if "sharedaccesskey" not in fields and "sharedaccesskeyname" not in fields:
            return HUB_OWNER
        raise ArgumentInvalidError(
            f"The hub {hub.host_name} is not linked yet: its connection string needs the key, and not a mask."
        )
    name = fields.get("sharedaccesskeyname", "")
    policy = hub.policies.get(name)
    if policy is None or key not in policy.keys:
        raise ArgumentInvalidError(f"The hub {hub.host_name} has no policy {name!r} with the key that was sent.")
    missing = [right for right in (Right.REGISTRY_WRITE, Right.SERVICE_CONNECT) if not policy.grants(right)]
    if missing:
        raise ArgumentInvalidError(
            f"The policy {name} of {hub.host_name} lacks {' and '.join(missing)}, which a linked hub needs."
        )
    return name


def _weight(sent: int | None, host: str) -> int | None:
    if sent is not None and not 1 <= sent <= MAXIMUM_WEIGHT:
        raise ArgumentInvalidError(f"allocationWeight of {host} is {sent}; 1 to {MAXIMUM_WEIGHT} are allowed.")
    return sent


def _latency(sent: float | None, host: str, stored: LinkedHub | None) -> int:
    if sent is None:
        return stored.latency if stored else 0
    if not 0 <= sent * _MILLISECOND <= _MAXIMUM_LATENCY:
        raise ArgumentInvalidError(f"latencyMilliseconds of {host} is {sent:g}; 0 to 60000 are allowed.")
    return round(sent * _MILLISECOND)
