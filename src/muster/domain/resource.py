"""What every resource of Resource Manager has: a name, a location, tags, a size.

Sources: dps.md 7.1, 7.2, hub-service.md 10. Not here: what is particular to one kind (``provisioning_resource.py``,
``hub_resource.py``).
"""

import ipaddress
import re

import msgspec

from muster.domain.errors import ArgumentInvalidError

MAXIMUM_TAGS = 50
LOCATION = "local"
"""The region of what was never given one."""

_SHORTEST, _LONGEST = 3, 50
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?")


class ResourceFacts(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """What clients say of a resource and get back as they wrote it; it changes nothing here."""

    location: str = LOCATION
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    sku: str = "S1"
    capacity: int | None = None


class SkuBody(msgspec.Struct):
    name: str | None = None
    capacity: int | None = None


class TagsBody(msgspec.Struct):
    """The body of a PATCH."""

    tags: dict[str, str] | None = None


class IdentityBody(msgspec.Struct):
    """The managed identity that a resource would have."""

    type: str | None = None


class ResourceBody(msgspec.Struct, kw_only=True):
    """The body of a PUT, without the properties."""

    location: str | None = None
    tags: dict[str, str] | None = None
    sku: SkuBody | None = None
    etag: str | None = None
    identity: IdentityBody | None = None

    def facts(self, stored: ResourceFacts) -> ResourceFacts:
        """Location and size stay when they are not sent; tags are replaced as a whole, so without any they go.

        Raises ArgumentInvalidError.
        """
        sku = self.sku or SkuBody()
        return ResourceFacts(
            location=self.location or stored.location,
            tags=read_tags(self.tags),
            sku=sku.name or stored.sku,
            capacity=stored.capacity if sku.capacity is None else sku.capacity,
        )

    @property
    def wants_identity(self) -> bool:
        return self.identity is not None and (self.identity.type or "None").lower() != "none"


def read_tags(tags: dict[str, str] | None) -> dict[str, str]:
    """Raises ArgumentInvalidError for more than 50."""
    if tags is not None and len(tags) > MAXIMUM_TAGS:
        raise ArgumentInvalidError(f"There are {len(tags)} tags; {MAXIMUM_TAGS} are allowed.")
    return tags or {}


def resource_name(host_name: str) -> str:
    """The first label of a host name, as clients compute it (hub-service.md 0.2); an IP address as it is."""
    try:
        ipaddress.ip_address(host_name)
    except ValueError:
        return host_name.partition(".")[0]
    return host_name


def resource_name_problem(name: str) -> str | None:
    """Why ``name`` cannot be chosen for a new resource; None when it can."""
    if not _SHORTEST <= len(name) <= _LONGEST:
        return f"it has {len(name)} characters; {_SHORTEST} to {_LONGEST} are allowed"
    if not _NAME.fullmatch(name):
        return "letters, digits and hyphens are allowed, with no hyphen at either end"
    if name.isdigit():
        return "a name of digits only is not allowed"
    return None
