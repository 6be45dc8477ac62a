"""The names at the root of a twin, as queries spell and show them. Sources: hub-service.md 4.2.

Names at the root compare without case and are shown in Azure's spelling; names below it are taken as they stand.
"""

ROOTS = {
    name.lower(): name
    for name in (
        "deviceId",
        "moduleId",
        "etag",
        "deviceEtag",
        "status",
        "statusReason",
        "statusUpdateTime",
        "connectionState",
        "lastActivityTime",
        "cloudToDeviceMessageCount",
        "authenticationType",
        "x509Thumbprint",
        "modelId",
        "version",
        "tags",
        "properties",
        "capabilities",
        "deviceScope",
        "parentScopes",
        "configurations",
    )
}

_COLLECTION = "devices"
_MODULES = "modules"


def canonical_path(parts: tuple[str, ...], *, alias: str | None, modules: bool) -> tuple[str, ...]:
    """A path without the collection's name or alias before it, its root in Azure's spelling.

    ``devices.deviceId`` means ``deviceId`` in a query of modules as well.
    """
    if len(parts) > 1 and alias is not None and parts[0].lower() == alias.lower():
        parts = parts[1:]
    elif len(parts) > 1 and parts[0].lower() == _COLLECTION:
        parts = parts[1:]
        if modules and len(parts) > 1 and parts[0].lower() == _MODULES:
            parts = parts[1:]
    return (ROOTS.get(parts[0].lower(), parts[0]), *parts[1:])
