"""Queries of devices and modules, page after page, for the commands (hub-service.md 4). Not here: printing."""

from collections.abc import Iterator
from typing import Any

from muster.cli.client import HUB_API_VERSION, Client

MAXIMUM_PAGE = 1000


def query_rows(client: Client, text: str, top: int | None = None) -> Iterator[dict[str, Any]]:
    """What a query finds, at most ``top`` rows. Raises as ``Client.request``."""
    continuation: str | None = None
    left = top
    while left is None or left:
        size = MAXIMUM_PAGE if left is None else min(left, MAXIMUM_PAGE)
        headers = {"x-ms-max-item-count": str(size)}
        if continuation:
            headers["x-ms-continuation"] = continuation
        answer = client.request(
            client.target.hub,
            "POST",
            "/devices/query",
            query={"api-version": HUB_API_VERSION},
            body={"query": text},
            headers=headers,
        )
        rows = answer.document or []
        yield from rows
        left = None if left is None else left - len(rows)
        continuation = answer.headers.get("x-ms-continuation")
        if not continuation:
            return
