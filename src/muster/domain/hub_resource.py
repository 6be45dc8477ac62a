"""A hub as a resource: what a client may send to Resource Manager's routes. Sources: hub-service.md 10.

Only what makes a hub is there: its host name, its partitions. Not here: storing, and the JSON of answers.
"""

import ipaddress
import re
from collections.abc import Mapping
from typing import Any

import msgspec

from muster.domain.access_rules import AccessRuleBody
from muster.domain.errors import ArgumentInvalidError
from muster.domain.resource import ResourceBody, resource_name_problem

DEFAULT_PARTITION_COUNT = 4
MAXIMUM_PARTITION_COUNT = 32
MAXIMUM_HUBS = 50

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_LONGEST_HOST_NAME = 253

# What answers show and no client changes, and what is the same as nothing here.
_IGNORED = frozenset({"hostName", "provisioningState", "state", "locations", "eventHubEndpoints", "features"})
_SERVED = frozenset({"authorizationPolicies", "cloudToDevice", "hubEvents"})
_TIERS = {"F": "Free", "B": "Basic"}
# What clients send that put back a resource of Azure's: there it is what a new hub has.
_DEFAULTS: dict[str, Any] = {
    "minTlsVersion": "1.2",
    "publicNetworkAccess": "Enabled",
    "routing": {
        "fallbackRoute": {
            "name": "$fallback",
            "source": "DeviceMessages",
            "condition": "true",
            "endpointNames": ["events"],
            "isEnabled": True,
        }
    },
    "storageEndpoints": {"$default": {"sasTtlAsIso8601": "PT1H"}},
    "messagingEndpoints": {
        "fileNotifications": {"lockDurationAsIso8601": "PT1M", "ttlAsIso8601": "PT1H", "maxDeliveryCount": 10}
    },
}


def tier_of(sku: str) -> str:
    """The tier of a size: ``S1`` is ``Standard``, ``F1`` is ``Free``, ``B1`` is ``Basic``."""
    return _TIERS.get(sku[:1].upper(), "Standard")


class HubBody(ResourceBody):
    """The body of a PUT. ``properties.hostName`` is Azure's to read only; here it says where the hub is served."""

    properties: dict[str, Any] = msgspec.field(default_factory=dict)

    @property
    def host_name(self) -> str | None:
        """In lower case, an address in its shortest form. Raises ArgumentInvalidError."""
        host = self.properties.get("hostName")
        if not host:
            return None
        if not isinstance(host, str):
            raise ArgumentInvalidError("properties.hostName is not a text.")
        try:
            return str(ipaddress.ip_address(host.strip("[]")))
        except ValueError:
            if not _HOST_NAME.fullmatch(host) or len(host) > _LONGEST_HOST_NAME:
                raise ArgumentInvalidError(f"{host!r} is neither a host name nor an IP address.") from None
        return host.lower()

    @property
    def authorization_policies(self) -> list[AccessRuleBody] | None:
        """The policies that replace all there are; None when none are sent. Raises ArgumentInvalidError."""
        rules = self.properties.get("authorizationPolicies")
        if rules is None:
            return None
        try:
            return msgspec.convert(rules, list[AccessRuleBody])
        except msgspec.ValidationError as error:
            raise ArgumentInvalidError(f"properties.authorizationPolicies is not valid: {error}.") from None

    @property
    def partition_count(self) -> int | None:
        """What ``eventHubEndpoints.events.partitionCount`` asks for. Raises ArgumentInvalidError."""
        value = self._of_events("partitionCount")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAXIMUM_PARTITION_COUNT:
            raise ArgumentInvalidError(f"partitionCount is {value!r}; 1 to {MAXIMUM_PARTITION_COUNT} are allowed.")
        return value

    @property
    def cloud_to_device(self) -> object:
        """As it was sent; None: not at all."""
        return self.properties.get("cloudToDevice")

    @property
    def retention_days(self) -> object:
        """What ``eventHubEndpoints.events.retentionTimeInDays`` asks for, as it was sent. None: not sent."""
        return self._of_events("retentionTimeInDays")

    def _of_events(self, name: str) -> object:
        value: Any = self.properties
        for member in ("eventHubEndpoints", "events", name):
            value = value.get(member) if isinstance(value, dict) else None
        return value

    @property
    def hub_events(self) -> object:
        """Muster's own: the sources beside telemetry that are written to the log. None: not sent."""
        return self.properties.get("hubEvents")


def require_supported(body: HubBody) -> None:
    """Raise ArgumentInvalidError for what would change how Azure behaves, and does not exist here."""
    refused = [name for name, value in body.properties.items() if _means_something(name, value)]
    if body.wants_identity:
        refused.append("identity")
    if refused:
        raise ArgumentInvalidError(f"This Muster has no {', '.join(refused)} for hubs: leave it out.")


def _means_something(name: str, value: object) -> bool:
    return name not in _IGNORED | _SERVED and not _is_default(value, _DEFAULTS.get(name))


def _is_default(value: object, default: Any) -> bool:
    """Whether ``value`` asks for nothing but ``default``; members may be left out, and there may be empty ones."""
    if isinstance(value, dict):
        known = default if isinstance(default, dict) else {}
        return all(_is_default(member, known.get(name)) for name, member in value.items())
    if value is False:
        return default is None
    return not value or bool(value == default)


def require_new_hub(name: str, body: HubBody, host_names: Mapping[str, str]) -> str:
    """The host name of a hub that is to be made. ``host_names`` are those of the other hubs, with their names.

    Raises ArgumentInvalidError.
    """
    problem = resource_name_problem(name)
    if problem is not None:
        raise ArgumentInvalidError(f"{name!r} cannot be the name of a hub: {problem}.")
    host = body.host_name
    if host is None:
        raise ArgumentInvalidError(
            "A new hub needs properties.hostName: an IP address or a name of this machine under which it is served."
        )
    if host in host_names:
        raise ArgumentInvalidError(f"{host} is where the hub {host_names[host]} is served: choose another address.")
    if len(host_names) >= MAXIMUM_HUBS:
        raise ArgumentInvalidError(f"There are {len(host_names)} hubs; {MAXIMUM_HUBS} are allowed.")
    return host
