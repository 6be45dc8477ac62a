"""Shared access signature tokens: read, sign, verify.

The signature covers the literal ``sr`` and ``se`` text of the token: clients differ in whether and how they
percent-encode ``sr``, so nothing is re-encoded before hashing (dps.md 1.8, hub-device.md 2.2, hub-service.md 1.3).
Not here: which keys and resources apply; callers know that.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote

from muster.domain.check_table import check
from muster.domain.errors import ArgumentInvalidError
from muster.domain.report import Check
from muster.domain.timestamp import SECOND, iso_utc

CLOCK_SKEW = 300 * SECOND
"""How long a token is still taken after its expiry: five minutes (hub-device.md 2.2)."""

_EVENT_HUBS = "sb://"
_PREFIX = "SharedAccessSignature"
_MINIMUM_KEY_BYTES = 16
_MAXIMUM_KEY_BYTES = 64


@dataclass(frozen=True, slots=True)
class SasToken:
    """The raw texts of one token, and its expiry in microseconds."""

    resource: str
    signature: str
    expiry_text: str
    expiry: int
    key_name: str


class MalformedTokenError(ValueError):
    """The text is not a shared access signature; the message says what is missing."""


def parse_token(text: str) -> SasToken:
    """Read ``SharedAccessSignature sr=..&sig=..&se=..[&skn=..]``: any order, unknown items ignored, the first of
    doubles wins.

    Raises MalformedTokenError.
    """
    word, _, rest = text.strip().partition(" ")
    if word != _PREFIX or not rest:
        raise MalformedTokenError(f"it does not start with {_PREFIX!r} and one space")
    items: dict[str, str] = {}
    for piece in rest.strip().split("&"):
        key, separator, value = piece.partition("=")
        if separator:
            items.setdefault(key.lower(), value)
    missing = [name for name in ("sr", "sig", "se") if not items.get(name)]
    if missing:
        raise MalformedTokenError(f"it lacks {', '.join(missing)}")
    try:
        expiry = int(float(items["se"]) * SECOND)
    except (ValueError, OverflowError):
        raise MalformedTokenError("its expiry (se) is not a number of seconds") from None
    return SasToken(items["sr"], items["sig"], items["se"], expiry, unquote(items.get("skn", "")))


def sign(key: str, text: str) -> str:
    """Base64 HMAC-SHA256 of ``text`` under a base64 ``key``."""
    return _sign(base64.b64decode(key), text)


def _sign(key: bytes, text: str) -> str:
    return base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()


def create_token(resource: str, key: str, expiry_seconds: int, key_name: str = "") -> str:
    """A token over the percent-encoded ``resource``, as most SDKs write it."""
    encoded = quote(resource, safe="")
    signature = quote(sign(key, f"{encoded}\n{expiry_seconds}"), safe="")
    tail = f"&skn={quote(key_name, safe='')}" if key_name else ""
    return f"{_PREFIX} sr={encoded}&sig={signature}&se={expiry_seconds}{tail}"


def derive_device_key(group_key: str, registration_id: str) -> str:
    """The key of one device of an enrollment group (dps.md 4.3)."""
    return sign(group_key, registration_id)


def require_key(key: str, field: str) -> str:
    """A symmetric key as both services take it: base64 of 16 to 64 bytes. Raises ArgumentInvalidError."""
    try:
        length = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        raise ArgumentInvalidError(f"{field} is not base64.") from None
    if not _MINIMUM_KEY_BYTES <= length <= _MAXIMUM_KEY_BYTES:
        raise ArgumentInvalidError(f"{field} has {length} bytes; 16 to 64 are allowed.")
    return key


def covers(token_resource: str, path: Sequence[str], *, prefix: bool) -> bool:
    """Whether a token for ``token_resource`` may be used on ``path`` (host first), ignoring case, scheme, port and a
    trailing ``/``.

    With ``prefix`` (policy tokens) a shorter resource covers everything below it. Text behind the path is
    tolerated: device tools append such (hub-device.md 2.2).
    """
    wanted = [part.lower() for part in path]
    once = unquote(token_resource)
    return any(_covers(text, wanted, prefix=prefix) for text in (token_resource, once, unquote(once)))


def _covers(text: str, wanted: list[str], *, prefix: bool) -> bool:
    parts = text.partition("://")[2] or text
    got = [part.lower() for part in parts.strip("/").split("/")]
    if not _same_host(got[0], wanted[0]):
        return False
    if got[1 : len(wanted)] == wanted[1:] and len(got) >= len(wanted):
        return True
    return prefix and wanted[1 : len(got)] == got[1:]


def _same_host(got: str, wanted: str) -> bool:
    if got == wanted:
        return True
    host, _, port = got.rpartition(":")
    return port.isdigit() and host == wanted


def signature_matches(token: SasToken, keys: Iterable[str]) -> bool:
    """Whether one of the base64 ``keys`` made this token's signature, over the resource as sent, decoded, or encoded
    again.

    Event Hubs clients, whose resources begin with ``sb://``, take the text of a key for the key.
    """
    signature = unquote(token.signature)
    secrets = [base64.b64decode(key) for key in keys]
    if unquote(token.resource).lower().startswith(_EVENT_HUBS):
        secrets += [key.encode() for key in keys]
    signed = (_sign(secret, text) for secret in secrets for text in _signed_texts(token))
    return any(hmac.compare_digest(text.encode(), signature.encode()) for text in signed)


def _signed_texts(token: SasToken) -> list[str]:
    decoded = unquote(token.resource)
    upper = quote(decoded, safe="")
    spellings = dict.fromkeys((token.resource, decoded, upper, _lower_hex(upper)))
    return [f"{spelling}\n{token.expiry_text}" for spelling in spellings]


def _lower_hex(encoded: str) -> str:
    pieces = encoded.split("%")
    return "%".join([pieces[0], *(piece[:2].lower() + piece[2:] for piece in pieces[1:])])


def check_token(
    token: SasToken, keys: Sequence[str], hosts: Sequence[str], path: Sequence[str], *, policy: bool, now: int
) -> tuple[Check, ...]:
    """The named checks of one token: audience, expiry, signature.

    ``hosts`` are the names under which the service is addressed; ``path`` is what follows the host; ``policy``
    tells that ``keys`` belong to a shared access policy, so that a prefix of the path is enough. ``now`` is in
    microseconds.
    """
    wanted = "/".join(path)
    audience = any(covers(token.resource, (host, *path), prefix=policy) for host in hosts)
    alive = token.expiry + CLOCK_SKEW >= now
    signed = signature_matches(token, keys)
    return (
        check(
            "sas.audience",
            passed=audience,
            detail=f"the token is for {unquote(token.resource)!r}"
            + ("" if audience else f"; wanted is {'/'.join(filter(None, (hosts[0], wanted)))!r}"),
            fix=f"sign the token for sr={'/'.join(filter(None, (hosts[0], wanted)))}",
        ),
        check(
            "sas.expiry",
            passed=alive,
            detail=_expiry_detail(token, now),
            fix="sign a new token; if its life looks right, set the clock of the machine that signs",
        ),
        check(
            "sas.signature",
            passed=signed,
            detail="the signature is that of a configured key" if signed else "no configured key makes this signature",
            fix="sign with the base64-decoded primary or secondary key, over the sr and se texts exactly as they"
            " stand in the token",
        ),
    )


def _expiry_detail(token: SasToken, now: int) -> str:
    seconds = (token.expiry - now) // SECOND
    if not -(2**40) < seconds < 2**40:
        return "the expiry (se) is far out of range: it is counted in seconds since 1970"
    when = iso_utc(max(token.expiry, 0))
    return (
        f"the token expires {when}, in {seconds} s" if seconds >= 0 else f"the token expired {when}, {-seconds} s ago"
    )
