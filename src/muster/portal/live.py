"""Live lists: server-sent events that carry the new rows of the last arrivals and the last refusals.

A stream of arrivals begins where its page was rendered, so nothing falls between, and goes on after the id that a
browser sends when it comes back. A row may be sent twice: browsers know a row by its id. A stream that falls behind
jumps to the newest rows, for a list shows the last ones, not all. Not here: the rows' HTML, and the event log itself
(``hub/events.py``).
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from muster.domain.documents import encode
from muster.domain.errors import ServiceError
from muster.domain.message import Event
from muster.domain.report import Report
from muster.hub.events import EventLog, Position
from muster.hub.reports import Reports

_log = logging.getLogger("muster.portal")

MAXIMUM_STREAMS = 32
MAXIMUM_ROWS = 50
"""The longest list, and so the most that a stream sends at once."""

_PACE_SECONDS = 0.5
_POLL_SECONDS = 1.0
_HEARTBEAT_SECONDS = 15.0
_IDLE_SECONDS = 60.0
_WRITE_SECONDS = 30.0
_RETRY_MILLISECONDS = 2000

Chunks = AsyncGenerator[bytes, None]
RenderArrivals = Callable[[list[Event]], str]
RenderRefusals = Callable[[list[Report]], str]


class LiveLists:
    """Makes the streams and bounds their number; ``close`` ends them."""

    def __init__(
        self, events: EventLog, reports: Reports, render_arrivals: RenderArrivals, render_refusals: RenderRefusals
    ) -> None:
        self._events = events
        self._reports = reports
        self._render_arrivals = render_arrivals
        self._render_refusals = render_refusals
        self._closing = asyncio.Event()
        self._open = 0

    def close(self) -> None:
        """End all streams, and refuse new ones."""
        self._closing.set()

    async def stream(self, *, hub: str | None, after: str | None, refusals: bool, rows: int) -> ASGIApp:
        """The answer that carries the messages of ``hub``, unless it is None, and the refusals, if they are asked for.

        Messages go on from the position ``after``, as a page or the id of an event spells it, and else from now. Of
        refusals the newest ``rows`` come at once, for a report may be written after another of a later time.
        """
        sources = []
        if hub is not None:
            _, newest = await self._events.positions(hub)
            sources.append(self._new_arrivals(hub, _resume(after, newest), rows))
        if refusals:
            sources.append(self._new_refusals(rows))
        return _Stream(self, sources)

    async def _new_arrivals(self, hub: str, position: Position, rows: int) -> Chunks:
        while True:
            async with contextlib.aclosing(self._events.follow(hub, position, idle=_IDLE_SECONDS)) as following:  # type: ignore[type-var]  # an async generator, declared as its interface
                async for events, reached in following:
                    if len(events) > rows:
                        break  # more than the list holds: go on with the newest
                    position = reached
                    if events:
                        yield self._arrivals_message(events, position)
                        await asyncio.sleep(_PACE_SECONDS)
                else:
                    return  # the log is closed: the server stops
            _, position = await self._events.positions(hub)
            yield self._arrivals_message(await self._events.latest(hub, rows), position)
            await asyncio.sleep(_PACE_SECONDS)

    def _arrivals_message(self, events: list[Event], position: Position) -> bytes:
        newest_first = sorted(events, key=lambda event: (event.enqueued_time, event.sequence_number), reverse=True)
        return f"id: {position}\n".encode() + _message("arrivals", self._render_arrivals(newest_first))

    async def _new_refusals(self, rows: int) -> Chunks:
        """Reports have no subject on the bus; one small read a second, while somebody looks, finds them."""
        seen: set[str] = set()
        while True:
            found = await self._reports.latest(rows)
            new = [report for report in found if report.tracking_id not in seen]
            seen = {report.tracking_id for report in found}
            if new:
                yield _message("refusals", self._render_refusals(new))
            await asyncio.sleep(_POLL_SECONDS)

    def admit(self) -> bool:
        """Whether one more stream may run; it has to ``leave``."""
        if self._open >= MAXIMUM_STREAMS or self._closing.is_set():
            return False
        self._open += 1
        return True

    def leave(self) -> None:
        self._open -= 1

    async def closing(self) -> None:
        """Return when the portal closes."""
        await self._closing.wait()


class _EndedError(Exception):
    """Ends the tasks of a stream."""


class _Stream:
    """The response: all sources at once, until the client goes, does not read, or the portal closes."""

    def __init__(self, lists: LiveLists, sources: list[Chunks]) -> None:
        self._lists = lists
        self._sources = [_heartbeat(), *sources]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._lists.admit():
            refusal = PlainTextResponse("Too many live pages are open.\n", 503, headers={"retry-after": "10"})
            await refusal(scope, receive, send)
            return
        try:
            headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            if scope["method"] != "HEAD":
                await self._run(receive, send)
            with contextlib.suppress(OSError):
                await _send_chunk(send, b"", more=False)
        finally:
            self._lists.leave()

    async def _run(self, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                for source in self._sources:
                    tasks.create_task(_pump(source, send))
                tasks.create_task(_until_gone(receive))
                tasks.create_task(_until_closing(self._lists))
        except* (_EndedError, OSError):
            pass
        except* ServiceError as errors:
            _log.warning("a live list ended: %s", errors.exceptions[0])


async def _pump(source: Chunks, send: Send) -> None:
    async with contextlib.aclosing(source):
        async for chunk in source:
            await _send_chunk(send, chunk)


async def _send_chunk(send: Send, chunk: bytes, *, more: bool = True) -> None:
    """Raises TimeoutError, which is an OSError, when the client does not read."""
    async with asyncio.timeout(_WRITE_SECONDS):
        await send({"type": "http.response.body", "body": chunk, "more_body": more})


async def _heartbeat() -> Chunks:
    """Tells the browser when to come back after an interruption, and from then on that the stream lives."""
    yield f"retry: {_RETRY_MILLISECONDS}\n\n".encode()
    while True:
        await asyncio.sleep(_HEARTBEAT_SECONDS)
        yield b": heartbeat\n\n"


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    raise _EndedError


async def _until_closing(lists: LiveLists) -> None:
    await lists.closing()
    raise _EndedError


def _message(name: str, html: str) -> bytes:
    """A server-sent event; its data is a JSON string, so that no text can end a line."""
    return f"event: {name}\ndata: {encode(html)}\n\n".encode()


def _resume(after: str | None, newest: Position) -> Position:
    """The position that ``after`` spells, not beyond the newest: a page may outlive the data that it was made from."""
    try:
        wanted = Position.parse(after or "")
    except ValueError:
        return newest
    if len(wanted.next_sequence_numbers) != len(newest.next_sequence_numbers):
        return newest
    return Position(tuple(map(min, wanted.next_sequence_numbers, newest.next_sequence_numbers)))
