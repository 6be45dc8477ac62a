"""Requests to the registry of a hub, for ``muster device`` and ``muster module`` (hub-service.md 2).

Not here: documents (``cli/identity_document.py``), and printing.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from muster.cli.client import HUB_API_VERSION, Client, path
from muster.cli.failure import CommandError, RefusedError
from muster.cli.identity_document import Document
from muster.cli.output import printable
from muster.cli.query_requests import query_rows

_REGENERATE_API_VERSION = "2024-03-31"
_BATCH = 100
_MOST = 1000
_BAD_REQUEST = 400


class Registry:
    """The devices and modules of one hub; an id of "" is no module."""

    def __init__(self, client: Client) -> None:
        self._client = client

    @property
    def host(self) -> str:
        return self._client.target.hub.host

    def devices(self, top: int = _MOST) -> list[Document]:
        return list(self._ask("GET", "devices", query={"top": top}) or [])

    def identities(self) -> Iterator[Document]:
        """All devices, each followed by its modules; those of a disabled one cannot be read.

        When there are more than one answer lists, queries tell the ids.
        """
        listed = self.devices()
        if len(listed) < _MOST:
            for device in listed:
                yield from self._with_modules(device)
            return
        known = {device["deviceId"]: device for device in listed}
        owners = {row["deviceId"] for row in query_rows(self._client, "SELECT deviceId FROM devices.modules")}
        for row in query_rows(self._client, "SELECT deviceId FROM devices"):
            device_id = row["deviceId"]
            device = known.get(device_id) or self.get(device_id)
            yield from self._with_modules(device) if device_id in owners else (device,)

    def _with_modules(self, device: Document) -> Iterator[Document]:
        yield device
        if device["status"] == "enabled":
            yield from self.modules(device["deviceId"])

    def modules(self, device_id: str) -> list[Document]:
        return list(self._ask("GET", "devices", device_id, "modules") or [])

    def get(self, device_id: str, module_id: str = "") -> Document:
        return dict(self._ask("GET", *_segments(device_id, module_id)))

    def create(self, document: Document) -> Document:
        return dict(self._ask("PUT", *_segments(document["deviceId"], document.get("moduleId", "")), body=document))

    def replace(self, document: Document, etag: str) -> Document:
        segments = _segments(document["deviceId"], document.get("moduleId", ""))
        return dict(self._ask("PUT", *segments, body=document, etag=etag))

    def delete(self, device_id: str, module_id: str, etag: str) -> None:
        self._ask("DELETE", *_segments(device_id, module_id), etag=etag)

    def regenerate(self, device_id: str, module_id: str, which: str) -> Document:
        """The two keys afterwards. Raises CommandError."""
        body = {"policyKey": which, "devices": [{"id": device_id, "moduleId": module_id or None}]}
        version = {"api-version": _REGENERATE_API_VERSION}
        try:
            answer = self._ask("POST", "devices", "keys", "regenerate", body=body, query=version)
        except RefusedError as error:
            failed = _errors(error)
            if not failed:
                raise
            raise CommandError(printable(failed[0].get("errorStatus"))) from error
        return dict(answer["rotatedKeys"][0])

    def bulk(self, items: Sequence[Document]) -> list[Document]:
        """Write many; returns those that failed."""
        failed: list[Document] = []
        for start in range(0, len(items), _BATCH):
            try:
                self._ask("POST", "devices", body=list(items[start : start + _BATCH]))
            except RefusedError as error:
                refused = _errors(error)
                if not refused:
                    raise
                failed += refused
        return failed

    def scope(self, parent: str | None) -> str | None:
        """The scope of an edge device; "" for none, None when nothing was said. Raises CommandError."""
        if not parent:
            return parent
        device = self.get(parent)
        if not (device.get("capabilities") or {}).get("iotEdge"):
            raise CommandError(
                f"{printable(parent)} is no IoT Edge device",
                f"make it one: muster device update {printable(parent)} --edge",
            )
        return str(device["deviceScope"])

    def _ask(
        self,
        method: str,
        *segments: str,
        body: object = None,
        query: dict[str, Any] | None = None,
        etag: str | None = None,
    ) -> Any:
        headers = {} if etag is None else {"If-Match": etag if etag == "*" else f'"{etag}"'}
        return self._client.request(
            self._client.target.hub,
            method,
            path(*segments),
            query={"api-version": HUB_API_VERSION, **(query or {})},
            body=body,
            headers=headers,
        ).document


def _segments(device_id: str, module_id: str) -> tuple[str, ...]:
    return ("devices", device_id, "modules", module_id) if module_id else ("devices", device_id)


def _errors(error: RefusedError) -> list[Document]:
    """What failed, if that is what a refusal of a bulk request says."""
    document = error.document
    if error.status != _BAD_REQUEST or not isinstance(document, dict):
        return []
    return list(document.get("errors") or [])
