"""Entity tags of both services, and how clients spell them in If-Match.

DPS shows base64 of a quoted document id (dps.md 1.5), the hub base64 of a decimal counter (hub-service.md 2.2), and
Resource Manager base64 of eight bytes (dps.md 7.2).
"""

import base64
import binascii

from muster.domain.errors import PreconditionFailedError

ANY = "*"


def document_etag(random: bytes) -> str:
    """A new DPS tag from 12 random bytes: base64 of ``"61008d46-0000-0100-0000-5e8fe3d10000"``, quotes included."""
    digits = random.hex()
    text = f'"{digits[:8]}-0000-{digits[8:12]}-0000-{digits[12:20]}0000"'
    return base64.b64encode(text.encode()).decode()


def document_id(etag: str) -> str:
    """The quoted id that a DPS tag is made of, as webhooks are told it (dps.md 5.3)."""
    return _decoded(etag)


def counter_etag(counter: int) -> str:
    """The hub's tag of a counter: base64 of its decimal digits, without quotes."""
    return base64.b64encode(str(counter).encode()).decode()


def twin_etag(counter: int) -> str:
    """A twin's tag of a counter: base64 of eight bytes, ``AAAAAAAAAAE=`` at its birth (hub-service.md 3.2)."""
    return base64.b64encode(counter.to_bytes(8, "big")).decode()


def resource_etag(random: bytes) -> str:
    """A new tag of a resource from 4 random bytes: base64 of eight, ``AAAAAA3ez90=``."""
    return base64.b64encode(random.rjust(8, b"\0")).decode()


def matches(if_match: str, etag: str) -> bool:
    """Whether an If-Match value names ``etag``.

    Clients send it raw, in double quotes, weak (``W/``), or decoded (``"61008d46-..."``); ``*`` matches anything
    (dps.md 6.7, hub-service.md 2.4).
    """
    wanted = _unquoted(if_match)
    return wanted in (ANY, etag) or wanted == _unquoted(_decoded(etag))


def require_match(if_match: str | None, etag: str) -> None:
    """Raise PreconditionFailedError unless ``if_match`` is absent or names ``etag``."""
    if if_match is not None and not matches(if_match, etag):
        raise PreconditionFailedError


def _unquoted(value: str) -> str:
    value = value.strip().removeprefix("W/")
    if len(value) > 1 and value[0] == value[-1] == '"':
        return value[1:-1]
    return value


def _decoded(etag: str) -> str:
    try:
        return base64.b64decode(etag, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return etag
