"""Registrations: states, what a device and the service see of them, and operation ids.

Sources: dps.md 1.4, 1.5, 6.4. Not here: attestation (``attestation.py``), allocation (``allocation.py``), running
an operation.
"""

import hashlib
from typing import Any, Literal

import msgspec

from muster.domain.registration_id import registration_id_key
from muster.domain.timestamp import iso_utc

Status = Literal["unassigned", "assigning", "assigned", "failed", "disabled"]
Substatus = Literal["initialAssignment", "deviceDataMigrated", "deviceDataReset", "reprovisionedToInitialAssignment"]

_RANDOM_BYTES = 12

RETRY_AFTER = 3
"""Seconds after which a device asks again; 3, as the real service says, suits every client (dps.md 9.3)."""

MAXIMUM_MESSAGE_BYTES = 96 * 1024
"""What a device may send at once (dps.md 6.10)."""


class Registration(msgspec.Struct, frozen=True):
    """One registration record. ``assigned_hub`` is a hub's name; what a client sees is its host name."""

    registration_id: str
    operation_id: str
    status: Status
    created: int
    last_updated: int
    etag: str
    substatus: Substatus | None = None
    assigned_hub: str | None = None
    device_id: str | None = None
    error_code: int | None = None
    error_message: str | None = None
    payload: Any = None
    enrollment_group_id: str = ""
    attestation: dict[str, Any] = {}


def operation_id(id_scope: str, registration_id: str, random: bytes) -> str:
    """``5.<16 hex>.<guid>``: the middle is constant for a registration, the guid new each time, of 12 random bytes
    (dps.md 1.4).
    """
    prefix = _operation_prefix(id_scope, registration_id)
    return f"{prefix}{_guid(prefix, random.hex())}"


def is_operation_of(operation: str, id_scope: str, registration_id: str) -> bool:
    """Whether ``operation`` was an operation of this registration, be it the latest or an earlier one."""
    prefix = _operation_prefix(id_scope, registration_id)
    guid = operation.removeprefix(prefix)
    return operation == f"{prefix}{_guid(prefix, guid.replace('-', '')[: 2 * _RANDOM_BYTES])}"


def _guid(prefix: str, digits: str) -> str:
    """The last eight digits are made of the others: so what nobody was told is known without a list of all ids."""
    digits += hashlib.sha256(f"{prefix}{digits}".encode()).hexdigest()[:8]
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _operation_prefix(id_scope: str, registration_id: str) -> str:
    constant = hashlib.sha256(f"{id_scope}/{registration_id_key(registration_id)}".encode()).hexdigest()[:16]
    return f"5.{constant}."


def begun_view(registration: Registration) -> dict[str, Any]:
    """The answer to a register request: *assigning*, whatever was reached by then; a final status is for polls, and two
    clients accept nothing else (dps.md 1.1).
    """
    return {"operationId": registration.operation_id, "status": "assigning"}


def operation_view(registration: Registration, hub_host: str | None) -> dict[str, Any]:
    """The answer to a poll: dps.md 1.4. While assigning it holds a partial state, which one client insists on."""
    if registration.status == "assigning":
        state: dict[str, Any] = {"registrationId": registration.registration_id, "status": "assigning"}
    else:
        state = {**registration.attestation, **state_view(registration, hub_host)}
    return {
        "operationId": registration.operation_id,
        "status": registration.status,
        "registrationState": state,
    }


def state_view(registration: Registration, hub_host: str | None) -> dict[str, Any]:
    """The registration state as device and service both see it (dps.md 1.5, 6.4); what is not set is left out."""
    assigned = registration.status == "assigned"
    view = {
        "registrationId": registration.registration_id,
        "createdDateTimeUtc": iso_utc(registration.created),
        "assignedHub": hub_host if assigned else None,
        "deviceId": registration.device_id if assigned else None,
        "status": registration.status,
        "substatus": registration.substatus if assigned else None,
        "errorCode": registration.error_code,
        "errorMessage": registration.error_message,
        "lastUpdatedDateTimeUtc": iso_utc(registration.last_updated),
        "etag": registration.etag,
        "payload": registration.payload,
    }
    return {key: value for key, value in view.items() if value is not None}
