"""Who may speak to the portal, and what every answer carries, as one ASGI wrapper (docs/portal.md).

It looks at the Host first (DNS rebinding), then at where a browser says the request comes from, then at the start
token. Not here: escaping what devices send; templates do that.
"""

import hashlib
import hmac
import re
from collections.abc import Callable, Collection, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Entropy = Callable[[int], bytes]

CSRF_HEADER = "x-muster-csrf-token"
CSRF_SCOPE = "muster.csrf_token"
"""Where pages find the token that unsafe requests have to send back."""

MAXIMUM_SESSIONS = 64
ALWAYS_ALLOWED_HOSTS = frozenset({"localhost", "127.0.0.1", "::1"})

RESPONSE_HEADERS = {
    "content-security-policy": (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}

_SAFE_METHODS = ("GET", "HEAD")
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:/@\s]+))(?::(\d{1,5}))?")
_KEY_BYTES = 32


class Guard:
    """Wraps the portal's application. ``start_token`` None: no sign-in, as on loopback.

    ``sign_in_page`` is the HTML that answers a request without a session; ``public_paths`` need none, because that page
    loads them. ``entropy(n)`` gives n random bytes.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host_names: Collection[str],
        start_token: str | None,
        sign_in_page: str,
        public_paths: Collection[str],
        entropy: Entropy,
    ) -> None:
        self._app = app
        self._hosts = ALWAYS_ALLOWED_HOSTS | {name.lower().strip("[]") for name in host_names}
        self._start_token = start_token
        self._sign_in_page = sign_in_page
        self._public_paths = frozenset(public_paths)
        self._entropy = entropy
        self._csrf_key = entropy(_KEY_BYTES)
        self._sessions: dict[str, None] = {}  # in the order in which they began

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        elif scope["type"] != "http":
            await self._app(scope, receive, send)
        else:
            await self._answer(scope, receive, _with_headers(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        host = self._allowed_host(headers)
        if host is None:
            refusal: Response | None = _text(421, "This server does not answer under that host name.")
        else:
            session = self._session(headers, host)
            csrf_token = self._csrf_token(session)
            scope[CSRF_SCOPE] = csrf_token
            refusal = _foreign(scope, headers, csrf_token) or self._sign_in(scope, host, session)
        await (refusal or self._app)(scope, receive, send)

    def _allowed_host(self, headers: Headers) -> re.Match[str] | None:
        """The one Host header, when it names this server; any port."""
        hosts = headers.getlist("host")
        match = _HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        return match if match and (match[1] or match[2]).lower() in self._hosts else None

    def _csrf_token(self, session: str | None) -> str:
        return hmac.new(self._csrf_key, (session or "").encode(), hashlib.sha256).hexdigest()

    # The start token

    def _session(self, headers: Headers, host: re.Match[str]) -> str | None:
        """The session that the cookie names, if there is one."""
        session = cookie_parser(headers.get("cookie", "")).get(_cookie_name(host), "")
        return session if session in self._sessions else None

    def _sign_in(self, scope: Scope, host: re.Match[str], session: str | None) -> Response | None:
        """None when the request may go on; a redirect into a new session for the right token; else the sign-in page."""
        if self._start_token is None or scope["path"] in self._public_paths:
            return None
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", []) if scope["path"] == "/" else []
        if given:
            right = hmac.compare_digest(given[0].encode(), self._start_token.encode())
            return self._begin_session(scope, host) if right else self._unauthorized()
        return None if session is not None else self._unauthorized()

    def _begin_session(self, scope: Scope, host: re.Match[str]) -> Response:
        while len(self._sessions) >= MAXIMUM_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session = self._entropy(_KEY_BYTES).hex()
        self._sessions[session] = None
        response = RedirectResponse("/", status_code=303)
        secure = scope.get("scheme") == "https"
        response.set_cookie(_cookie_name(host), session, httponly=True, samesite="strict", secure=secure)
        return response

    def _unauthorized(self) -> Response:
        return HTMLResponse(self._sign_in_page, status_code=401)


def _cookie_name(host: re.Match[str]) -> str:
    """With the port: browsers share cookies between the ports of a host, and two Musters are two portals."""
    return f"muster-portal-{host[3] or 'default'}"


def _foreign(scope: Scope, headers: Headers, csrf_token: str) -> Response | None:
    """A refusal for what another site made a browser send: anything unsafe, and reads that are no navigation."""
    site = headers.get("sec-fetch-site")
    if scope["method"] in _SAFE_METHODS:
        navigation = headers.get("sec-fetch-mode") == "navigate"
        foreign = site in ("cross-site", "same-site") and not navigation
        return _text(403, "Another site asked for this.") if foreign else None
    origin = headers.get("origin")
    if origin is None and site is None:
        return _text(403, "This request does not say which page it comes from.")
    if site not in (None, "same-origin") or origin not in (None, f"{scope['scheme']}://{headers['host']}"):
        return _text(403, "Another site sent this request.")
    sent = headers.get(CSRF_HEADER, "")
    if not hmac.compare_digest(sent.encode("latin-1"), csrf_token.encode()):
        return _text(403, "The CSRF token is missing or wrong: reload the page.")
    return None


def _with_headers(send: Send) -> Send:
    """``send`` that completes the headers of the response."""

    async def complete(message: Message) -> None:
        if message["type"] == "http.response.start":
            _complete_headers(message)
        await send(message)

    return complete


def _complete_headers(message: MutableMapping[str, Any]) -> None:
    headers = MutableHeaders(scope=message)
    headers.update(RESPONSE_HEADERS)
    headers.setdefault("cache-control", "no-store")


def _text(status: int, text: str) -> Response:
    return PlainTextResponse(text + "\n", status_code=status)
