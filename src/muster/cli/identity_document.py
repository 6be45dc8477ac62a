"""Documents of device and module identities: a new one, what a change makes of one, and what is shown of one
(hub-service.md 2.2, 2.3).

Keys are shown only on request. Not here: requests (``cli/identity_requests.py``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from muster.cli.failure import CommandError
from muster.cli.output import short_time

Document = dict[str, Any]

_SLOTS = 2


class Authentication(StrEnum):
    """The choices of ``--auth``, as the hub spells them (hub-service.md 2.2)."""

    SAS = "sas"
    SELF_SIGNED = "selfSigned"
    CERTIFICATE_AUTHORITY = "certificateAuthority"


@dataclass(frozen=True, slots=True)
class IdentityChanges:
    """What the options of a command say; None and nothing: not said."""

    auth: Authentication | None = None
    thumbprints: Sequence[str] = ()
    primary_key: str | None = None
    secondary_key: str | None = None
    enabled: bool | None = None
    status_reason: str | None = None
    edge: bool | None = None
    parent_scope: str | None = None
    managed_by: str | None = None


def new_device(device_id: str, changes: IdentityChanges) -> Document:
    """The body of a creating PUT of a device. Raises CommandError."""
    device: Document = {"deviceId": device_id, "status": "enabled", "capabilities": {"iotEdge": False}}
    return changed(device, changes)


def new_module(device_id: str, module_id: str, changes: IdentityChanges) -> Document:
    """The body of a creating PUT of a module. Raises CommandError."""
    return changed({"deviceId": device_id, "moduleId": module_id}, changes)


def changed(identity: Document, changes: IdentityChanges) -> Document:
    """The identity with the changes; it is replaced as a whole, so the rest is sent as it was read.

    Raises CommandError for options that do not go together.
    """
    document = {**identity, "authentication": _authentication(identity.get("authentication"), changes)}
    if changes.enabled is not None:
        document["status"] = "enabled" if changes.enabled else "disabled"
    if changes.status_reason is not None:
        document["statusReason"] = changes.status_reason or None
    if changes.edge is not None:
        document["capabilities"] = {"iotEdge": changes.edge}
    if changes.managed_by is not None:
        document["managedBy"] = changes.managed_by or None
    if changes.parent_scope is not None:
        _set_parent(document, changes.parent_scope)
    return document


def _set_parent(document: Document, scope: str) -> None:
    """An edge device has a scope of its own and names its parent's beside it; another one stands in its parent's."""
    if document["capabilities"]["iotEdge"]:
        document["parentScopes"] = [scope] if scope else []
    else:
        document["deviceScope"] = scope or None
        document["parentScopes"] = []


def _authentication(stored: Document | None, changes: IdentityChanges) -> Document:
    kind = _kind(stored, changes)
    same = stored if stored is not None and stored.get("type") == kind else {}
    authentication: Document = {"type": kind}
    if kind == Authentication.SAS:
        keys = dict(same.get("symmetricKey") or {})
        keys.update(
            {
                name: key
                for name, key in (("primaryKey", changes.primary_key), ("secondaryKey", changes.secondary_key))
                if key is not None
            }
        )
        if keys:
            authentication["symmetricKey"] = keys
    elif kind == Authentication.SELF_SIGNED:
        thumbprints = same.get("x509Thumbprint")
        if changes.thumbprints:
            primary, secondary, *_ = [*changes.thumbprints, None]
            thumbprints = {"primaryThumbprint": primary, "secondaryThumbprint": secondary}
        if not thumbprints:
            raise CommandError("--auth selfSigned takes one or two --certificate", "the primary one comes first")
        authentication["x509Thumbprint"] = thumbprints
    return authentication


def _kind(stored: Document | None, changes: IdentityChanges) -> str:
    """How the identity authenticates afterwards; a certificate or a key says it too. Raises CommandError."""
    has_keys = changes.primary_key is not None or changes.secondary_key is not None
    said = {
        Authentication.SELF_SIGNED: bool(changes.thumbprints),
        Authentication.SAS: has_keys,
    }
    implied = [kind for kind, is_said in said.items() if is_said]
    if changes.auth is not None and any(kind is not changes.auth for kind in implied):
        raise CommandError("--certificate goes with --auth selfSigned, --primary-key with --auth sas")
    if len(implied) > 1:
        raise CommandError("--certificate and --primary-key do not go together")
    if len(changes.thumbprints) > _SLOTS:
        raise CommandError("--certificate can be given twice", "the primary one, then the secondary")
    before = stored.get("type") if stored is not None else None
    kind = changes.auth or (implied[0] if implied else before or Authentication.SAS)
    return str(kind)


def connection_string(host: str, identity: Document, *, secondary: bool = False) -> str:
    """That of a device or module, or what takes its place for one with a certificate. Raises CommandError."""
    authentication = identity.get("authentication") or {}
    head = f"HostName={host};DeviceId={identity.get('deviceId')}"
    if identity.get("moduleId"):
        head += f";ModuleId={identity['moduleId']}"
    if authentication.get("type") in (Authentication.SELF_SIGNED, Authentication.CERTIFICATE_AUTHORITY):
        return f"{head};x509=true"
    key = (authentication.get("symmetricKey") or {}).get("secondaryKey" if secondary else "primaryKey")
    if not key:
        raise CommandError("the answer holds no key", "use a policy with RegistryWrite, such as iothubowner")
    return f"{head};SharedAccessKey={key}"


def identity_rows(identity: Document) -> list[tuple[str, object]]:
    """A device or module identity without its keys."""
    authentication = identity.get("authentication") or {}
    thumbprints = authentication.get("x509Thumbprint") or {}
    ids: list[tuple[str, object]] = [("DeviceId", identity.get("deviceId"))]
    if "moduleId" in identity:
        own = [("ModuleId", identity["moduleId"]), ("Managed By", identity.get("managedBy"))]
    else:
        own = [
            ("Status", identity.get("status")),
            ("Status Reason", identity.get("statusReason")),
            ("Edge Enabled", (identity.get("capabilities") or {}).get("iotEdge", False)),
            ("Scope", identity.get("deviceScope")),
            ("Parent Scope", ", ".join(identity.get("parentScopes") or ())),
        ]
    return [
        *ids,
        *own,
        ("Authentication", authentication.get("type")),
        ("Primary Thumbprint", thumbprints.get("primaryThumbprint")),
        ("Secondary Thumbprint", thumbprints.get("secondaryThumbprint")),
        ("Connection", identity.get("connectionState")),
        ("Last Activity", when(identity.get("lastActivityTime"))),
        ("Messages Waiting", identity.get("cloudToDeviceMessageCount")),
        ("Generation Id", identity.get("generationId")),
        ("ETag", identity.get("etag")),
    ]


def when(text: object) -> str:
    """A time, or nothing for one that was never set (hub-service.md 2.2)."""
    return "" if str(text or "").startswith("0001-01-01") else short_time(text)


def exported(identity: Document) -> Document:
    """An identity as a bulk request takes it (hub-service.md 2.6)."""
    names = ("moduleId", "managedBy", "status", "statusReason", "authentication", "capabilities", "deviceScope")
    kept = {name: identity[name] for name in (*names, "parentScopes") if identity.get(name) is not None}
    return {"id": identity["deviceId"], **kept}


def thumbprint(file: Path) -> str:
    """SHA-256 of the first certificate in a file. Raises CommandError."""
    import base64
    import hashlib

    from muster.cli.attestation_document import read_certificate

    der = base64.b64decode(read_certificate(file).content)
    return hashlib.sha256(der).hexdigest().upper()
