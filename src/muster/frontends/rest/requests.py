"""What every REST route needs of a request: who asks, in which version, with which body; and the one place that
renders errors.

Not here: any route. Sources: hub-service.md 1.5, 1.6, dps.md 1.10, 6.8.
"""

import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from muster.domain.credential import Credential
from muster.domain.documents import decode
from muster.domain.errors import (
    ArgumentInvalidError,
    BearerTokenRefusedError,
    InvalidProtocolVersionError,
    ServerError,
    ServiceError,
    TooLargeError,
)
from muster.frontends import status
from muster.observe import Operation

T = TypeVar("T")

Handler = Callable[[Request], Awaitable[Response]]
ErrorBody = Callable[[ServiceError, str, int], bytes]

MAXIMUM_BODY_BYTES = 1024 * 1024

_LONGEST_NUMBER = 18
"""Digits that fit into the 64 bits of a column."""

_API_VERSION = re.compile(r"\d{4}-\d\d-\d\d(-preview)?", re.IGNORECASE)
_JSON = "application/json; charset=utf-8"


def credential(request: Request) -> Credential:
    """The certificates of the connection and the Authorization header."""
    peer = request.state.peer
    host, port = peer.remote
    return Credential(
        peer.certificates,
        request.headers.get("authorization", ""),
        f"{host}:{port} HTTPS {peer.tls_version}".strip(),
    )


def host(request: Request) -> str:
    """The Host header as sent."""
    return request.headers.get("host", "")


def segments(request: Request) -> tuple[str, ...]:
    """The decoded segments of the path, which a token's resource may name."""
    return tuple(part for part in request.scope["path"].split("/") if part)


def require_api_version(request: Request) -> str:
    """Any well-formed date is taken (interop-facts.md 20). Raises InvalidProtocolVersionError."""
    value = request.query_params.get("api-version", "")
    if _API_VERSION.fullmatch(value) is None:
        raise InvalidProtocolVersionError(
            f"api-version is {value!r}; send a date such as 2021-04-12." if value else None
        )
    return value


async def read_body(request: Request, maximum: int = MAXIMUM_BODY_BYTES) -> bytes:
    """The whole body. Raises TooLargeError beyond ``maximum`` bytes."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > maximum:
            raise TooLargeError(f"The body has more than {maximum} bytes.")
    return bytes(body)


def lock_token(request: Request) -> str:
    """The lock token in a path; a client may leave the quotes of the tag on."""
    token: str = request.path_params["token"]
    return token.strip('"').lower()


def header_items(request: Request) -> list[tuple[str, str]]:
    """All headers, their names in the case in which they were sent; values are UTF-8, or else Latin-1."""
    names: list[bytes] = request.state.header_names
    values = (value for _, value in request.scope["headers"])
    return [(name.decode("latin-1"), _header_text(value)) for name, value in zip(names, values, strict=True)]


def _header_text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


async def read_record(request: Request, record: type[T]) -> T:
    """The body as a record. Raises what ``documents.decode`` raises, and TooLargeError."""
    return decode(await read_body(request), record)


def integer(text: str | None, default: int) -> int:
    """A whole number of a header or query; ``default`` when it is absent, none, or longer than any that is meant."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > _LONGEST_NUMBER:
        return default
    return int(text)


def json_response(value: object, *, etag: str | None = None, headers: dict[str, str] | None = None) -> Response:
    """200 with JSON; the tag also as a quoted header (hub-service.md 1.5)."""
    response = Response(msgspec.json.encode(value), media_type=_JSON, headers=headers)
    if etag is not None:
        response.headers["ETag"] = f'"{etag}"'
    return response


def _require_storable(request: Request) -> None:
    """Raises ArgumentInvalidError for a NUL in the path: no database compares one, so nothing has it in its name."""
    if "\0" in request.scope["path"]:
        raise ArgumentInvalidError("The path has a NUL character.")


def no_content() -> Response:
    return Response(status_code=204)


class Guard:
    """Wraps handlers: one INFO line for each request, and the only place where REST errors are caught."""

    def __init__(self, new_tracking_id: Callable[[], str], clock: Callable[[], int]) -> None:
        self._new_tracking_id = new_tracking_id
        self._clock = clock

    def __call__(self, handler: Handler, body: ErrorBody) -> Handler:
        """``body`` renders errors in the shape of the handler's service."""

        async def guarded(request: Request) -> Response:
            operation = Operation(request.method, request.scope["path"])
            try:
                _require_storable(request)
                response = await handler(request)
            except ServiceError as error:
                tracking_id = error.tracking_id or self._new_tracking_id()
                operation.finished(error.code, tracking_id)
                return self._error(error, tracking_id, body)
            except ClientDisconnect:
                operation.finished("left")
                raise
            except Exception:  # noqa: BLE001 - the client gets an answer whatever happened
                tracking_id = self._new_tracking_id()
                operation.failed(tracking_id)
                return self._error(ServerError(), tracking_id, body)
            operation.finished(response.status_code)
            if "x-ms-request-id" not in response.headers:
                response.headers["x-ms-request-id"] = self._new_tracking_id()
            return response

        return guarded

    def _error(self, error: ServiceError, tracking_id: str, body: ErrorBody) -> Response:
        headers: dict[str, Any] = {"x-ms-request-id": tracking_id}
        if body in (status.hub_body, status.hub_nested_body):
            headers["iothub-errorcode"] = error.name
        elif body in (status.management_body, status.hub_management_body) and isinstance(
            error, BearerTokenRefusedError
        ):
            headers["WWW-Authenticate"] = 'Bearer error="invalid_token"'
        else:
            headers["x-ms-error-code"] = str(error.code)
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        content = body(error, tracking_id, self._clock())
        return Response(content, status_code=error.status, media_type=_JSON, headers=headers)
