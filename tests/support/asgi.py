"""Drives an ASGI application without a server: one request and its answer, or a stream that is read as it comes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

HOST = "localhost:8080"


@dataclass(frozen=True)
class Answer:
    """What an application answered; ``headers`` find a name in any case."""

    status: int
    headers: Headers
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


def http_scope(method: str, target: str, headers: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The scope of a request for ``target`` (path and query), with a Host of loopback unless ``headers`` have one."""
    path, _, query = target.partition("?")
    sent = {"host": HOST, **{name.lower(): value for name, value in (headers or {}).items()}}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path),
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.encode("latin-1"), value.encode("latin-1")) for name, value in sent.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("127.0.0.1", 8080),
        "state": {},
    }


async def ask(app: ASGIApp, method: str, target: str, headers: Mapping[str, str] | None = None) -> Answer:
    """Send one request without a body and wait for the end of the answer."""
    return await answer_of(app, http_scope(method, target, headers))


async def answer_of(app: ASGIApp, scope: dict[str, Any]) -> Answer:
    """The same for a scope that a test made."""
    messages: list[Message] = []
    request = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        for message in request:
            return message
        await asyncio.Event().wait()  # the client stays
        raise AssertionError

    async def send(message: Message) -> None:
        messages.append(message)

    async with asyncio.timeout(30):
        await app(scope, receive, send)
    start, *rest = messages
    assert start["type"] == "http.response.start"
    body = b"".join(message.get("body", b"") for message in rest)
    return Answer(start["status"], Headers(raw=list(start["headers"])), body)


@dataclass
class Stream:
    """A response that is still coming. ``chunks`` gives what has come; ``ended`` is set with the last of it."""

    start: asyncio.Future[Message]
    chunks: asyncio.Queue[bytes] = field(default_factory=asyncio.Queue)
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, part: bytes) -> bytes:
        """Read until the answer holds ``part``; returns all that was read for it."""
        read = b""
        async with asyncio.timeout(30):
            while part not in read:
                read += await self.chunks.get()
        return read


@asynccontextmanager
async def stream(app: ASGIApp, target: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[Stream]:
    """GET ``target`` and read the answer as it comes; at the end the client leaves, and the application has to end."""
    reading = Stream(asyncio.get_running_loop().create_future())
    request = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        for message in request:
            return message
        await reading.gone.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            reading.start.set_result(message)
        else:
            await reading.chunks.put(message.get("body", b""))
            if not message.get("more_body", False):
                reading.ended.set()

    async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
        tasks.create_task(_served(app, http_scope("GET", target, headers), receive, send))
        await reading.start
        try:
            yield reading
        finally:
            reading.gone.set()


async def _served(app: ASGIApp, scope: dict[str, Any], receive: Any, send: Any) -> None:
    await app(scope, receive, send)
