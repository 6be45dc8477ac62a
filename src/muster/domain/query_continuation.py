"""Continuation tokens: where the next page of a query begins. Sources: hub-service.md 4.1.

A token holds the sort key of the last row, not a number of rows, so what is written between two pages makes no row come
twice or be left out. It counts for one query of one hub and is checked when it comes back; it grants nothing.
"""

import base64
import binascii
import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import msgspec

from muster.domain.errors import ArgumentInvalidError

KeyKind = Literal["rank", "number", "text"]
KeyPart = int | float | str

_QUERY_BYTES = 9
_TYPES: dict[KeyKind, type] = {"rank": int, "number": float, "text": str}


class Continuation(msgspec.Struct, frozen=True, array_like=True):
    """``key`` is the sort key of the last row; ``left`` how many rows TOP still allows, None without TOP."""

    query: str
    left: int | None
    key: list[KeyPart]


def query_mark(hub: str, text: str) -> str:
    """What ties a token to its query."""
    digest = hashlib.sha256(f"{hub}\n{text}".encode()).digest()
    return base64.urlsafe_b64encode(digest[:_QUERY_BYTES]).decode()


def write_continuation(continuation: Continuation) -> str:
    """Text for a header."""
    return base64.urlsafe_b64encode(msgspec.json.encode(continuation)).decode()


def read_continuation(text: str, query: str, kinds: Sequence[KeyKind]) -> Continuation:
    """Raises ArgumentInvalidError for what ``write_continuation`` did not write for this query."""
    try:
        found = msgspec.json.decode(base64.b64decode(text, altchars=b"-_", validate=True), type=Continuation)
    except (msgspec.DecodeError, binascii.Error, ValueError, RecursionError):
        raise ArgumentInvalidError("BadRequest: x-ms-continuation is no continuation token.") from None
    if found.query != query:
        raise ArgumentInvalidError("BadRequest: x-ms-continuation belongs to another query.")
    key = [float(part) if kind == "number" and isinstance(part, int) else part for kind, part in zip(kinds, found.key)]  # noqa: B905 - compared below
    typed = len(found.key) == len(kinds) and all(map(_is_part, kinds, key))
    if not typed or (found.left is not None and found.left < 1):
        raise ArgumentInvalidError("BadRequest: x-ms-continuation is no continuation token.")
    return Continuation(found.query, found.left, key)


def _is_part(kind: KeyKind, part: KeyPart) -> bool:
    if not isinstance(part, _TYPES[kind]):
        return False
    if isinstance(part, str):
        return "\0" not in part
    return math.isfinite(part) if isinstance(part, float) else 0 <= part < 2**31
