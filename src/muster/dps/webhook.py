"""The custom allocation webhook: one POST with a time limit, tried again while the other side is overloaded. Sources:
dps.md 5.3.

Not here: what is sent, and what an answer means (``domain/allocation.py``).
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any, Protocol

import httpx
import msgspec

from muster.domain.allocation import WebhookAnswer, masked_url
from muster.domain.enrollment import read_initial_twin
from muster.domain.errors import (
    ArgumentInvalidError,
    CustomAllocationFailedError,
    CustomAllocationUnauthorizedError,
)
from muster.domain.twin import JsonObject

_log = logging.getLogger("muster.dps")

RETRY_DELAYS = (1.0, *(1.0 + 9.0 * step for step in range(1, 10)))
"""Seconds before each further attempt: about ten of them, 9 s apart, as the real service was seen to do."""

MAXIMUM_ANSWER_BYTES = 64 * 1024
_TOO_MANY_REQUESTS = 429
_UNAUTHORIZED = 401
_SERVER_ERRORS = 500
_SUCCESS = range(200, 300)


class _Body(msgspec.Struct, rename="camel"):
    """What is sent back; members that are null count as absent."""

    iot_hub_host_name: str | None = None
    initial_twin: JsonObject | None = None
    payload: Any = None


class Webhook(Protocol):
    """Asks a URL which hub to take."""

    async def ask(self, url: str, request: dict[str, Any]) -> WebhookAnswer:
        """Raises CustomAllocationFailedError and CustomAllocationUnauthorizedError."""
        ...


class HttpWebhook:
    """The webhook over HTTP(S): no redirects, bounded time and answer (DESIGN.md 5). Times in seconds."""

    def __init__(self, *, timeout: float = 10.0, retry_delays: Sequence[float] = RETRY_DELAYS) -> None:
        self._timeout = timeout
        self._retry_delays = tuple(retry_delays)

    async def ask(self, url: str, request: dict[str, Any]) -> WebhookAnswer:
        """See ``Webhook``. The URL is called as it is; a ``code`` in its query is also sent as ``x-functions-key``."""
        headers = {"Content-Type": "application/json; charset=utf-8"}
        try:
            code = httpx.URL(url).params.get("code")
        except httpx.InvalidURL as error:
            raise CustomAllocationFailedError(
                f"Custom allocation failed with {type(error).__name__}: {error}"
            ) from None
        if code and code.isascii() and code.isprintable():
            headers["x-functions-key"] = code
        content = msgspec.json.encode(request)
        outcome = ""
        async with httpx.AsyncClient(follow_redirects=False, timeout=self._timeout, trust_env=False) as client:
            for delay in (0.0, *self._retry_delays):
                if delay:
                    await asyncio.sleep(delay)
                outcome, answer, again = await self._attempt(client, url, headers, content)
                if answer is not None:
                    return answer
                _log.info("custom allocation by %s: %s", masked_url(url), outcome)
                if not again:
                    break
        raise CustomAllocationFailedError(f"Custom allocation failed {outcome}")

    async def _attempt(
        self, client: httpx.AsyncClient, url: str, headers: dict[str, str], content: bytes
    ) -> tuple[str, WebhookAnswer | None, bool]:
        """What happened in words, the answer if it was one, and whether to try again."""
        try:
            async with (
                asyncio.timeout(self._timeout),
                client.stream("POST", url, headers=headers, content=content) as response,
            ):
                body = await _bounded(response)
        except (TimeoutError, httpx.TimeoutException):
            return f"with no answer within {self._timeout:g} s", None, True
        except httpx.HTTPError as error:
            return f"with {type(error).__name__}: {error}", None, True
        status = response.status_code
        if status in _SUCCESS:
            return _decode(body)
        if status == _UNAUTHORIZED:
            raise CustomAllocationUnauthorizedError
        again = status == _TOO_MANY_REQUESTS or status >= _SERVER_ERRORS
        return f"with status code: {status}", None, again


async def _bounded(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > MAXIMUM_ANSWER_BYTES:
            raise CustomAllocationFailedError(
                f"Custom allocation failed with an answer of more than {MAXIMUM_ANSWER_BYTES} bytes"
            )
    return bytes(body)


def _decode(body: bytes) -> tuple[str, WebhookAnswer | None, bool]:
    body = body.removeprefix(b"\xef\xbb\xbf")
    if not body.strip():
        return "", WebhookAnswer(), False
    try:
        sent = msgspec.json.decode(body, type=_Body | None) or _Body()
        twin = read_initial_twin(sent.initial_twin)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ArgumentInvalidError) as error:
        return f"with an answer that is not valid: {error}", None, False
    return "", WebhookAnswer(sent.iot_hub_host_name, twin, sent.payload), False
