"""What the SASL mechanisms of AMQP say about who a client is. Sources: hub-device.md 9.1, 9.3, hub-service.md 6.2,
dps.md 3.1, interop-facts.md 5, 6, 13.

Pure. Not here: whether that is true (``amqp/claims.py``), and the steps of TPM, which belong to provisioning.
"""

from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import unquote

from muster.wire.amqp_performatives import SaslChallenge, SaslInit, SaslOutcome, SaslResponse

ANONYMOUS: Final = "ANONYMOUS"
PLAIN: Final = "PLAIN"
EXTERNAL: Final = "EXTERNAL"
MSSBCBS: Final = "MSSBCBS"
TPM: Final = "TPM"
MECHANISMS: tuple[str, ...] = (EXTERNAL, MSSBCBS, ANONYMOUS, PLAIN)
"""Those of a single step; uamqp and pyamqp give up when theirs is missing (hub-service.md 6.2)."""

_AT_HUB = "@sas."
_AT_ROOT = "root."


class SaslExchange(Protocol):
    """A mechanism of several steps, for one connection."""

    async def step(self, body: SaslInit | SaslResponse) -> SaslChallenge | SaslOutcome:
        """The answer to what the client said. Raises ServiceError for a refusal, with the report's tracking id."""
        ...


@dataclass(frozen=True, slots=True)
class DeviceUser:
    """``{device}@sas.{hub}`` or ``{device}/{module}@sas.{hub}``; ``hub`` is the hub's short name."""

    device_id: str
    module_id: str
    hub: str


@dataclass(frozen=True, slots=True)
class PolicyUser:
    """``{policy}@sas.root.{hub}``, or the name alone with ``hub`` empty, as Event Hubs clients send it."""

    name: str
    hub: str


@dataclass(frozen=True, slots=True)
class RegistrationUser:
    """``{id scope}/registrations/{registration id}``."""

    id_scope: str
    registration_id: str


User = DeviceUser | PolicyUser | RegistrationUser


def read_plain(response: bytes | None) -> tuple[str, str] | None:
    """User and password of a PLAIN response (RFC 4616); None for what is none. The identity to act as is ignored."""
    try:
        match (response or b"").split(b"\0"):
            case [_, user, password]:
                return user.decode(), password.decode()
    except UnicodeDecodeError:
        pass
    return None


def read_user(text: str) -> User:
    """Who that is; a name without any of the known forms is that of a policy."""
    name, at, hub = text.rpartition(_AT_HUB)
    if at:
        if hub.lower().startswith(_AT_ROOT):
            return PolicyUser(name, hub[len(_AT_ROOT) :])
        device_id, _, module_id = name.partition("/")
        return DeviceUser(device_id, module_id, hub)
    match text.split("/"):
        case [id_scope, "registrations", registration_id]:
            return RegistrationUser(unquote(id_scope), unquote(registration_id))
    return PolicyUser(text, "")
