"""Shared access policies and the rights they grant, of the hub and of the provisioning service.

Sources: hub-service.md 1.2, dps.md 6.8. Not here: where policies are stored, and token arithmetic (``sas.py``).
"""

from enum import StrEnum

import msgspec

from muster.domain.errors import ArgumentInvalidError


class Right(StrEnum):
    """Azure's names, as they stand in a policy's rights string."""

    REGISTRY_READ = "RegistryRead"
    REGISTRY_WRITE = "RegistryWrite"
    SERVICE_CONNECT = "ServiceConnect"
    DEVICE_CONNECT = "DeviceConnect"
    SERVICE_CONFIG = "ServiceConfig"
    ENROLLMENT_READ = "EnrollmentRead"
    ENROLLMENT_WRITE = "EnrollmentWrite"
    REGISTRATION_STATUS_READ = "RegistrationStatusRead"
    REGISTRATION_STATUS_WRITE = "RegistrationStatusWrite"


class AccessPolicy(msgspec.Struct, frozen=True):
    """One policy. ``rights`` is Azure's string, separated by comma and space."""

    name: str
    primary_key: str
    secondary_key: str
    rights: str

    @property
    def keys(self) -> tuple[str, str]:
        return (self.primary_key, self.secondary_key)

    def grants(self, wanted: Right) -> bool:
        """Whether one of this policy's rights is ``wanted`` or implies it."""
        own = self.rights.split(", ")
        return any(right in own for right in (wanted, *_IMPLIED_BY.get(wanted, ())))


_IMPLIED_BY: dict[Right, tuple[Right, ...]] = {
    Right.REGISTRY_READ: (Right.REGISTRY_WRITE,),
    Right.ENROLLMENT_READ: (Right.ENROLLMENT_WRITE,),
    # The owner policy of DPS names no registration right and yet reads and deletes registrations (dps.md 6.8).
    Right.REGISTRATION_STATUS_READ: (
        Right.REGISTRATION_STATUS_WRITE,
        Right.SERVICE_CONFIG,
        Right.ENROLLMENT_WRITE,
    ),
    Right.REGISTRATION_STATUS_WRITE: (Right.SERVICE_CONFIG, Right.ENROLLMENT_WRITE),
}

HUB_OWNER = "iothubowner"
HUB_POLICIES: dict[str, str] = {
    HUB_OWNER: "RegistryWrite, ServiceConnect, DeviceConnect",
    "service": "ServiceConnect",
    "device": "DeviceConnect",
    "registryRead": "RegistryRead",
    "registryReadWrite": "RegistryWrite",
}

HUB_RIGHTS = (Right.REGISTRY_READ, Right.REGISTRY_WRITE, Right.SERVICE_CONNECT, Right.DEVICE_CONNECT)

PROVISIONING_OWNER = "provisioningserviceowner"
PROVISIONING_POLICIES: dict[str, str] = {PROVISIONING_OWNER: "ServiceConfig, DeviceConnect, EnrollmentWrite"}

PROVISIONING_RIGHTS = (
    Right.SERVICE_CONFIG,
    Right.ENROLLMENT_READ,
    Right.ENROLLMENT_WRITE,
    Right.DEVICE_CONNECT,
    Right.REGISTRATION_STATUS_READ,
    Right.REGISTRATION_STATUS_WRITE,
)


def read_rights(text: str, allowed: tuple[Right, ...]) -> str:
    """A rights string as it is kept: clients join rights with or without a space (dps.md 7.4).

    Raises ArgumentInvalidError for a right that is not among ``allowed``, and for none at all.
    """
    by_name = {right.lower(): right for right in allowed}
    words = [word.strip() for word in text.split(",")]
    unknown = [word for word in words if word.lower() not in by_name]
    if unknown:
        raise ArgumentInvalidError(f"rights has {', '.join(map(repr, unknown))}; there are {', '.join(allowed)}.")
    return ", ".join(dict.fromkeys(by_name[word.lower()] for word in words))
