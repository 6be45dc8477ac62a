"""A back end by azure-iot-hub that reads, writes and queries twins."""

from typing import Any

from azure.iot.hub import IoTHubRegistryManager
from azure.iot.hub.models import QuerySpecification, Twin, TwinProperties
from conversation import converse


def twin(
    connection_string: str,
    method: str,
    ids: list[str],
    tags: Any = None,
    desired: Any = None,
    etag: str | None = None,
) -> Any:
    """What a twin method of the registry manager returns, as plain JSON; ``ids`` are device and perhaps module."""
    manager = IoTHubRegistryManager.from_connection_string(connection_string)
    given: list[Any] = []
    if not method.startswith("get"):
        properties = None if desired is None else TwinProperties(desired=desired)
        given = [Twin(tags=tags, properties=properties), *([etag] if etag else [])]
    return getattr(manager, method)(*ids, *given).serialize(keep_readonly=True)


def pages(connection_string: str, query: str, size: int | None = None) -> Any:
    """All pages of a query: for each its type, and its items with what a projection gave them."""
    manager = IoTHubRegistryManager.from_connection_string(connection_string)
    found: list[Any] = []
    continuation: str | None = None
    while True:
        result = manager.query_iot_hub(QuerySpecification(query=query), continuation, size)
        found.append({"type": result.type, "items": [item(one) for one in result.items]})
        continuation = result.continuation_token
        if not continuation:
            return found


def item(one: Any) -> dict[str, Any]:
    known = {key: value for key, value in one.serialize(keep_readonly=True).items() if value is not None}
    return {**known, **one.additional_properties}


if __name__ == "__main__":
    converse({"twin": twin, "pages": pages})
