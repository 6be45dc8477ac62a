"""Bearer tokens of the management plane: JSON Web Tokens (RFC 7519) that this Muster signs and judges itself.

HMAC SHA-256 and no other algorithm, so nothing unsigned is ever taken. Times are arguments, in microseconds. Not
here: where the key is kept, and what a token's holder may do.
"""

from collections.abc import Sequence

import msgspec
from jwt import InvalidAlgorithmError, InvalidSignatureError, InvalidTokenError, PyJWS

from muster.domain.timestamp import MINUTE, SECOND, iso_utc

ALGORITHM = "HS256"
ISSUER = "muster"
AUDIENCE = "https://management.azure.com/"
"""What Azure's management clients ask a token for, with ``.default`` behind it when they name a scope."""

CLOCK_SKEW = 5 * MINUTE
"""How far in the future a token may have been issued: the clocks of two machines differ."""

_SCHEME = "bearer"
_SCOPE = ".default"
_LATEST = 2**53

_SIGNATURES = PyJWS(algorithms=[ALGORITHM])


class BearerTokenError(ValueError):
    """The token is not taken; the message says why, as a clause that begins with a small letter."""


class _Claims(msgspec.Struct):
    """Times are in seconds."""

    iss: str
    aud: str | list[str]
    sub: str
    exp: float
    iat: float = 0


def sign_bearer(key: bytes, subject: str, now: int, life: int) -> str:
    """A token for ``subject`` that lives ``life`` microseconds from ``now`` on."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": subject,
        "iat": now // SECOND,
        "exp": (now + life) // SECOND,
    }
    return _SIGNATURES.encode(msgspec.json.encode(claims), key, ALGORITHM)


def verify_bearer(authorization: str, key: bytes, now: int) -> str:
    """The subject of the token in an Authorization header. Raises BearerTokenError."""
    if not authorization:
        raise BearerTokenError("there is no Authorization header")
    scheme, _, token = authorization.strip().partition(" ")
    if scheme.lower() != _SCHEME:
        raise BearerTokenError("the Authorization header does not begin with 'Bearer'")
    claims = _signed_claims(token.strip(), key)
    if claims.iss != ISSUER:
        raise BearerTokenError(f"its issuer (iss) is {claims.iss!r}; {ISSUER!r} is taken")
    audiences = [claims.aud] if isinstance(claims.aud, str) else claims.aud
    if not _has_audience(audiences):
        raise BearerTokenError(f"its audience (aud) is {', '.join(audiences)!r}; {AUDIENCE} is taken")
    _require_time(claims, now)
    return claims.sub


def _signed_claims(token: str, key: bytes) -> _Claims:
    try:
        content = _SIGNATURES.decode(token, key, algorithms=[ALGORITHM])
    except InvalidAlgorithmError:
        raise BearerTokenError(f"it is not signed with {ALGORITHM}, the only algorithm that is taken") from None
    except InvalidSignatureError:
        raise BearerTokenError("its signature is not one of this server's key: it is another server's token") from None
    except InvalidTokenError:
        raise BearerTokenError("it is not a JSON Web Token") from None
    try:
        return msgspec.json.decode(content, type=_Claims)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BearerTokenError(f"its claims cannot be read: {error}") from None


def _has_audience(audiences: Sequence[str]) -> bool:
    wanted = AUDIENCE.rstrip("/")
    return any(audience.removesuffix(_SCOPE).rstrip("/").lower() == wanted for audience in audiences)


def _require_time(claims: _Claims, now: int) -> None:
    expiry, issued = (int(min(max(value, 0), _LATEST)) * SECOND for value in (claims.exp, claims.iat))
    if now >= expiry:
        raise BearerTokenError(f"it expired {iso_utc(expiry)}")
    if issued > now + CLOCK_SKEW:
        raise BearerTokenError("it was issued in the future: the clock of the machine that signed it is ahead")
