"""New symmetric keys for many identities in one request: what may be asked for, and the answer. Sources: hub-service.md
2.7.

Not here: writing them (``hub/bulk_registry.py``).
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from muster.domain.bulk_registry import MAXIMUM_ITEMS, ItemError
from muster.domain.device import Identity, require_storable
from muster.domain.errors import ArgumentInvalidError, ArgumentNullError, TooManyDevicesError

POLICY_KEYS = ("primary", "secondary", "swap")


class RotatedIdentity(msgspec.Struct, rename="camel"):
    """Whose keys are asked for."""

    id: str | None = None
    module_id: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """Raises ArgumentNullError for one without an id, ArgumentInvalidError for one that cannot be looked up."""
        if not self.id:
            raise ArgumentNullError("Every item needs the id of a device.")
        require_storable(self.id, "id")
        require_storable(self.module_id, "moduleId")
        return self.id, self.module_id or ""


class KeyRotationBody(msgspec.Struct, rename="camel"):
    """The body of the request."""

    policy_key: str | None = None
    devices: tuple[RotatedIdentity, ...] = ()

    def require_valid(self) -> str:
        """Which keys are new: one of ``POLICY_KEYS``. Raises ArgumentInvalidError and TooManyDevicesError."""
        policy_key = (self.policy_key or "").lower()
        if policy_key not in POLICY_KEYS:
            raise ArgumentInvalidError(f"policyKey is {self.policy_key!r}; there are {', '.join(POLICY_KEYS)}.")
        if len(self.devices) > MAXIMUM_ITEMS:
            raise TooManyDevicesError(f"There are {len(self.devices)} items; {MAXIMUM_ITEMS} are allowed.")
        return policy_key


def rotated(identity: Identity, policy_key: str, make_key: Callable[[], str]) -> tuple[str, str]:
    """The two keys of an identity afterwards. Raises ArgumentInvalidError for one that has none."""
    if identity.authentication_type != "sas" or identity.primary_key is None or identity.secondary_key is None:
        raise ArgumentInvalidError(
            f"{identity.full_name} authenticates by {identity.authentication_type} and has no symmetric keys."
        )
    match policy_key:
        case "primary":
            return make_key(), identity.secondary_key
        case "secondary":
            return identity.primary_key, make_key()
        case _:
            return identity.secondary_key, identity.primary_key


def rotation_view(policy_key: str, identities: Sequence[Identity], errors: Sequence[ItemError]) -> dict[str, Any]:
    """The answer: the keys that are in force now, and what failed."""
    return {
        "policyKey": policy_key,
        "rotatedKeys": [
            {
                "id": identity.device_id,
                "moduleId": identity.module_id or None,
                "primaryKey": identity.primary_key,
                "secondaryKey": identity.secondary_key,
            }
            for identity in identities
        ],
        "errors": [
            {
                "id": item.device_id,
                "moduleId": item.module_id or None,
                "errorCode": item.error.name,
                "errorStatus": f"ErrorCode:{item.error.name};{item.error.message}",
            }
            for item in errors
        ],
    }
