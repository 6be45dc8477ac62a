"""The custom allocation webhook over real HTTP: what its answers mean (dps.md 5.3)."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from muster.domain.allocation import WebhookAnswer
from muster.domain.errors import CustomAllocationFailedError, CustomAllocationUnauthorizedError
from muster.domain.twin import InitialProperties, InitialTwin
from muster.dps.webhook import HttpWebhook

HUB = "east.example.net"


class Endpoint:
    """A server on loopback that gives one ``answer`` to every request, which it remembers."""

    def __init__(self) -> None:
        self.answer = (200, b"")
        self.head = ""
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.head = (await reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in self.head.lower().splitlines() if line.startswith("content-length:"))
        await reader.readexactly(int(length.partition(":")[2]))
        status, body = self.answer
        head = f"HTTP/1.1 {status} Answer\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    endpoint = Endpoint()
    server = await asyncio.start_server(endpoint.serve, "127.0.0.1", 0)
    endpoint.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/allocate"
    yield endpoint
    server.close()


async def ask(endpoint: Endpoint, answer: object, status: int = 200, query: str = "") -> WebhookAnswer:
    endpoint.answer = (status, answer if isinstance(answer, bytes) else json.dumps(answer).encode())
    webhook = HttpWebhook(timeout=30, retry_delays=())
    return await webhook.ask(endpoint.url + query, {"linkedHubs": [HUB]})


def twin(tags: dict[str, Any], desired: dict[str, Any]) -> InitialTwin:
    return InitialTwin(tags, InitialProperties(desired))


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        (None, None),
        ({}, twin({}, {})),
        ({"tags": {"line": "7"}, "properties": {"desired": {"rate": 5}}}, twin({"line": "7"}, {"rate": 5})),
        ({"tags": None, "properties": {"desired": {"rate": 5}}}, twin({}, {"rate": 5})),
        ({"tags": {"line": "7", "version": None}, "properties": None}, twin({"line": "7"}, {})),
        ({"tags": {"line": "7"}, "properties": {"desired": None}}, twin({"line": "7"}, {})),
    ],
)
async def test_twins(endpoint: Endpoint, sent: object, meant: InitialTwin | None) -> None:
    """Members that models write as null count as absent, as in an enrollment."""
    answer = await ask(endpoint, {"iotHubHostName": HUB, "initialTwin": sent, "payload": {"site": "north"}})
    assert answer == WebhookAnswer(HUB, meant, {"site": "north"})


@pytest.mark.parametrize("body", [b"", b" ", b"null", b"{}", b'\xef\xbb\xbf{"iotHubHostName": null}'])
async def test_answers_without_a_hub(endpoint: Endpoint, body: bytes) -> None:
    assert await ask(endpoint, body) == WebhookAnswer()


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b'"\xff"',
        b'{"payload": ' + b"[" * 50_000,
        {"iotHubHostName": 5},
        {"iotHubHostName": HUB, "initialTwin": "none"},
        {"iotHubHostName": HUB, "initialTwin": {"tags": {"a.b": 1}}},
        {"iotHubHostName": HUB, "initialTwin": {"properties": {"desired": {"$own": 1}}}},
        {"iotHubHostName": HUB, "initialTwin": {"tags": {"a": "x\0"}}},
        {"iotHubHostName": HUB, "payload": "x" * 70_000},
    ],
)
async def test_answers_that_are_not_valid(endpoint: Endpoint, body: object) -> None:
    with pytest.raises(CustomAllocationFailedError, match=r"^Custom allocation failed with an answer"):
        await ask(endpoint, body)


@pytest.mark.parametrize("status", [302, 400, 403, 404, 429, 500])
async def test_statuses_that_are_failures(endpoint: Endpoint, status: int) -> None:
    with pytest.raises(CustomAllocationFailedError, match=rf"^Custom allocation failed with status code: {status}$"):
        await ask(endpoint, b"", status)


async def test_a_webhook_that_refuses(endpoint: Endpoint) -> None:
    with pytest.raises(CustomAllocationUnauthorizedError):
        await ask(endpoint, b"", 401)


async def test_the_key_of_a_function(endpoint: Endpoint) -> None:
    await ask(endpoint, {}, query="?code=a%20b")
    assert "x-functions-key: a b" in endpoint.head
    await ask(endpoint, {}, query="?code=%C3%BC")
    assert "code=%C3%BC" in endpoint.head
    assert "x-functions-key" not in endpoint.head


async def test_a_url_that_is_none() -> None:
    with pytest.raises(CustomAllocationFailedError, match="InvalidURL"):
        await HttpWebhook(retry_delays=()).ask("https://h:x/", {})
