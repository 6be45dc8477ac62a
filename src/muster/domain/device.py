"""Device identities of a hub: rules for ids and bodies, the record, its JSON.

Sources: hub-service.md 2.2 to 2.4, hub-device.md 2. Not here: storing identities, and who is connected.
"""

import base64
import re
from typing import Any, Literal

import msgspec

from muster.domain.errors import ArgumentInvalidError, ArgumentNullError
from muster.domain.etag import counter_etag
from muster.domain.sas import require_key
from muster.domain.timestamp import iso_utc_or_never

AuthenticationType = Literal["sas", "selfSigned", "certificateAuthority"]
Status = Literal["enabled", "disabled"]

_DEVICE_ID = re.compile(r"[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}")
_THUMBPRINT = re.compile(r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}")
_MAXIMUM_STATUS_REASON = 128
_KEY_BYTES = 32


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """One device identity as stored (a module identity has a ``module_id``). Times in microseconds UTC; 0: never."""

    device_id: str
    module_id: str = ""
    generation_id: str
    etag: int
    status: Status
    status_reason: str | None = None
    status_updated: int = 0
    authentication_type: AuthenticationType
    primary_key: str | None = None
    secondary_key: str | None = None
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None
    iot_edge: bool = False
    device_scope: str | None = None
    parent_scopes: tuple[str, ...] = ()
    managed_by: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        return tuple(key for key in (self.primary_key, self.secondary_key) if key)


class ConnectionTimes(msgspec.Struct, frozen=True):
    """What the registry shows of an identity's connection; 0: never."""

    connected: bool = False
    state_updated: int = 0
    last_activity: int = 0


class SymmetricKeyBody(msgspec.Struct, rename="camel"):
    primary_key: str | None = None
    secondary_key: str | None = None


class ThumbprintBody(msgspec.Struct, rename="camel"):
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None


class AuthenticationBody(msgspec.Struct, rename="camel"):
    type: str | None = None
    symmetric_key: SymmetricKeyBody | None = None
    x509_thumbprint: ThumbprintBody | None = msgspec.field(default=None, name="x509Thumbprint")


class CapabilitiesBody(msgspec.Struct, rename="camel"):
    iot_edge: bool = False


class IdentityBody(msgspec.Struct, rename="camel"):
    """A PUT body; members that clients send back and the hub ignores are not listed."""

    device_id: str | None = None
    status: str | None = None
    status_reason: str | None = None
    authentication: AuthenticationBody | None = None
    capabilities: CapabilitiesBody | None = None


class Authentication(msgspec.Struct, frozen=True, kw_only=True):
    """How an identity proves itself."""

    type: AuthenticationType
    primary_key: str | None = None
    secondary_key: str | None = None
    primary_thumbprint: str | None = None
    secondary_thumbprint: str | None = None


def is_device_id(text: str) -> bool:
    """Whether ``text`` may name a device or module (hub-service.md 2.2)."""
    return _DEVICE_ID.fullmatch(text) is not None


def require_device_id(device_id: str) -> None:
    """Raise ArgumentInvalidError unless ``device_id`` may name a device."""
    if not is_device_id(device_id):
        raise ArgumentInvalidError(
            f"The device id {device_id!r} is not valid: 1 to 128 characters of A-Z a-z 0-9 - : . + % _ # * ? ! ( )"
            f" , = @ ; $ ' are allowed."
        )


def generation_id(now: int, random: bytes) -> str:
    """A new generation id: 18 decimal digits, like .NET ticks at ``now`` (microseconds), with a random tail."""
    ticks = now * 10 + 621_355_968_000_000_000
    return str(ticks - ticks % 1000 + int.from_bytes(random[:2], "big") % 1000)


def new_key(random: bytes) -> str:
    """A symmetric key of 32 random bytes, in base64."""
    assert len(random) == _KEY_BYTES
    return encode_key(random)


def encode_key(random: bytes) -> str:
    """A symmetric key as it travels: base64."""
    return base64.b64encode(random).decode()


def read_status(body: IdentityBody) -> Status:
    """The status a body asks for; ``enabled`` when it says nothing. Raises ArgumentInvalidError."""
    status = (body.status or "enabled").lower()
    if status not in ("enabled", "disabled"):
        raise ArgumentInvalidError(f"status is {body.status!r}; enabled and disabled are allowed.")
    if body.status_reason is not None and len(body.status_reason) > _MAXIMUM_STATUS_REASON:
        raise ArgumentInvalidError(
            f"statusReason has {len(body.status_reason)} characters; {_MAXIMUM_STATUS_REASON} are allowed."
        )
    return "enabled" if status == "enabled" else "disabled"


def read_authentication(body: AuthenticationBody | None, random_keys: tuple[bytes, bytes]) -> Authentication:
    """The authentication a body asks for; keys that it does not bring are made from 2 x 32 random bytes.

    Without a type: ``sas``, or ``selfSigned`` when there are thumbprints only (interop-facts.md 17).
    Raises ArgumentInvalidError.
    """
    keys = (body.symmetric_key if body else None) or SymmetricKeyBody()
    thumbprints = (body.x509_thumbprint if body else None) or ThumbprintBody()
    has_thumbprint = bool(thumbprints.primary_thumbprint or thumbprints.secondary_thumbprint)
    match (body.type if body else None) or ("selfSigned" if has_thumbprint and not keys.primary_key else "sas"):
        case "sas":
            primary, secondary = _read_keys(keys, random_keys)
            return Authentication(type="sas", primary_key=primary, secondary_key=secondary)
        case "selfSigned":
            for value in (thumbprints.primary_thumbprint, thumbprints.secondary_thumbprint):
                _require_thumbprint(value)
            return Authentication(
                type="selfSigned",
                primary_thumbprint=thumbprints.primary_thumbprint or None,
                secondary_thumbprint=thumbprints.secondary_thumbprint or None,
            )
        case "certificateAuthority":
            raise ArgumentInvalidError(
                "authentication.type certificateAuthority is not served by this version: use selfSigned or sas."
            )
        case other:
            raise ArgumentInvalidError(f"authentication.type is {other!r}; sas and selfSigned are allowed.")


def _read_keys(keys: SymmetricKeyBody, random_keys: tuple[bytes, bytes]) -> tuple[str, str]:
    if bool(keys.primary_key) != bool(keys.secondary_key):
        raise ArgumentInvalidError("Either no keys or both keys can be set.")
    if keys.primary_key and keys.secondary_key:
        return require_key(keys.primary_key, "primaryKey"), require_key(keys.secondary_key, "secondaryKey")
    return new_key(random_keys[0]), new_key(random_keys[1])


def _require_thumbprint(value: str | None) -> None:
    if value and _THUMBPRINT.fullmatch(value) is None:
        raise ArgumentInvalidError(f"StringIsNotThumbprint: {value!r} is not 40 or 64 hexadecimal digits.")


def require_same_id(device_id: str, in_body: str | None) -> None:
    """Raise unless the body's ``deviceId`` is there and is the path's (hub-service.md 2.2)."""
    if in_body is None:
        raise ArgumentNullError("deviceId is required in the body.")
    if in_body != device_id:
        raise ArgumentInvalidError(f"deviceId in the body is {in_body!r}, in the path {device_id!r}.")


def identity_view(identity: Identity, times: ConnectionTimes, c2d_message_count: int = 0) -> dict[str, Any]:
    """The JSON of hub-service.md 2.2."""
    view: dict[str, Any] = {
        "deviceId": identity.device_id,
        "generationId": identity.generation_id,
        "etag": counter_etag(identity.etag),
        "connectionState": "Connected" if times.connected else "Disconnected",
        "status": identity.status,
        "statusReason": identity.status_reason,
        "connectionStateUpdatedTime": iso_utc_or_never(times.state_updated),
        "statusUpdatedTime": iso_utc_or_never(identity.status_updated),
        "lastActivityTime": iso_utc_or_never(times.last_activity),
        "cloudToDeviceMessageCount": c2d_message_count,
        "authentication": {
            "symmetricKey": {"primaryKey": identity.primary_key, "secondaryKey": identity.secondary_key},
            "x509Thumbprint": {
                "primaryThumbprint": identity.primary_thumbprint,
                "secondaryThumbprint": identity.secondary_thumbprint,
            },
            "type": identity.authentication_type,
        },
        "capabilities": {"iotEdge": identity.iot_edge},
    }
    if identity.device_scope:
        view["deviceScope"] = identity.device_scope
    if identity.parent_scopes:
        view["parentScopes"] = list(identity.parent_scopes)
    return view
