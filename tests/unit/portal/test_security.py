"""The guard: Host, origin, CSRF token, start token, and the headers of every answer."""

import re
from collections.abc import Mapping

import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from muster.portal.security import CSRF_HEADER, CSRF_SCOPE, MAXIMUM_SESSIONS, Guard
from tests.support.asgi import Answer, answer_of, ask, http_scope

TOKEN = "a start token"


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    """What the guard guards: answers with the CSRF token."""
    await PlainTextResponse(scope[CSRF_SCOPE])(scope, receive, send)


class Counter:
    """Random bytes of a test: different each time."""

    def __init__(self) -> None:
        self._calls = 0

    def __call__(self, size: int) -> bytes:
        self._calls += 1
        return self._calls.to_bytes(size)


def guard(start_token: str | None = None) -> Guard:
    return Guard(
        inner,
        host_names=["Muster.Example", "127.0.0.5", "fd00::5"],
        start_token=start_token,
        sign_in_page="<p>sign in</p>",
        public_paths=["/static/portal.css"],
        entropy=Counter(),
    )


# The host


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8080",
        "LocalHost:1",
        "127.0.0.1:8080",
        "[::1]:8080",
        "[::1]",
        "muster.example",
        "MUSTER.example:8080",
        "127.0.0.5:80",
        "[fd00::5]:8080",
    ],
)
async def test_own_names_are_served(host: str) -> None:
    assert (await ask(guard(), "GET", "/", {"host": host})).status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "localhost@evil.example",
        "evil.example:localhost",
        "localhost:8080:80",
        "127.0.0.2",
        "127.1",
        "[::2]",
        "[::1",
        "::1",
        "",
        "localhost, evil.example",
        "localhost\tx",
    ],
)
async def test_any_other_host_is_misdirected(host: str) -> None:
    assert (await ask(guard(), "GET", "/", {"host": host})).status == 421


async def test_a_request_without_a_host_or_with_two_is_misdirected() -> None:
    scope = http_scope("GET", "/")
    for headers in ([], [(b"host", b"localhost"), (b"host", b"evil.example")]):
        assert (await answer_of(guard(), {**scope, "headers": headers})).status == 421


async def test_a_websocket_is_refused() -> None:
    sent = []

    async def send(message: Mapping[str, object]) -> None:
        sent.append(message)

    async def receive() -> dict[str, object]:
        return {"type": "websocket.connect"}

    await guard()({**http_scope("GET", "/"), "type": "websocket"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


# What other sites may make a browser send


SAME_ORIGIN = {"origin": "http://localhost:8080", "sec-fetch-site": "same-origin"}


async def csrf_token(app: Guard, headers: Mapping[str, str] | None = None) -> str:
    return (await ask(app, "GET", "/", headers)).text


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "origin",
    [SAME_ORIGIN, {"origin": "http://localhost:8080"}, {"sec-fetch-site": "same-origin"}],
    ids=["both", "origin", "fetch site"],
)
async def test_an_unsafe_request_of_our_own_page_passes(method: str, origin: dict[str, str]) -> None:
    app = guard()
    assert (await ask(app, method, "/", {**origin, CSRF_HEADER: await csrf_token(app)})).status == 200


@pytest.mark.parametrize(
    "origin",
    [
        {},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://localhost:8080"},
        {"origin": "http://localhost"},
        {"origin": "http://localhost:8081"},
        {"origin": "http://127.0.0.1:8080"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "http://evil.example", "sec-fetch-site": "same-origin"},
        {"origin": "http://localhost:8080", "sec-fetch-site": "same-site"},
    ],
)
async def test_an_unsafe_request_of_another_page_is_refused(origin: dict[str, str]) -> None:
    app = guard()
    assert (await ask(app, "POST", "/", {**origin, CSRF_HEADER: await csrf_token(app)})).status == 403


@pytest.mark.parametrize("sent", [{}, {CSRF_HEADER: ""}, {CSRF_HEADER: "f" * 64}, {CSRF_HEADER: "\xff"}])
async def test_an_unsafe_request_needs_the_csrf_token(sent: dict[str, str]) -> None:
    assert (await ask(guard(), "POST", "/", {**SAME_ORIGIN, **sent})).status == 403


async def test_the_csrf_token_of_another_server_is_wrong() -> None:
    app = guard()
    other = Guard(
        inner, host_names=[], start_token=None, sign_in_page="", public_paths=[], entropy=lambda size: b"\xaa" * size
    )
    assert (await ask(app, "POST", "/", {**SAME_ORIGIN, CSRF_HEADER: await csrf_token(other)})).status == 403


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"}, 403),
        ({"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, 200),
        ({"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}, 200),
        ({"sec-fetch-site": "none", "sec-fetch-mode": "navigate"}, 200),
    ],
)
async def test_other_sites_may_link_here_and_nothing_else(headers: dict[str, str], status: int) -> None:
    assert (await ask(guard(), "GET", "/", headers)).status == status


# The start token


def cookie(answer: Answer) -> dict[str, str]:
    return {"cookie": answer.headers["set-cookie"].partition(";")[0]}


async def signed_in(app: Guard, headers: Mapping[str, str] | None = None) -> dict[str, str]:
    return cookie(await ask(app, "GET", "/?token=a%20start%20token", headers))


async def test_without_a_start_token_nobody_signs_in() -> None:
    answer = await ask(guard(), "GET", "/?token=anything")
    assert answer.status == 200
    assert "set-cookie" not in answer.headers


async def test_with_a_start_token_every_page_asks_for_it() -> None:
    app = guard(TOKEN)
    tokens = ("/?token=", "/?token=wrong", "/?token=a%20start")
    for path in ("/", "/stream", "/ca.pem", *tokens, "/static/", "/static/none", "/static/portal.css/", "/static/../"):
        answer = await ask(app, "GET", path)
        assert (answer.status, answer.text) == (401, "<p>sign in</p>")
    assert (await ask(app, "GET", "/static/portal.css")).status == 200


async def test_the_start_token_begins_a_session_and_leaves_the_address() -> None:
    app = guard(TOKEN)
    answer = await ask(app, "GET", "/?token=a%20start%20token")
    assert answer.status == 303
    assert answer.headers["location"] == "/"
    set_cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in set_cookie
    assert "samesite=strict" in set_cookie
    assert "path=/" in set_cookie
    assert "token" not in set_cookie
    assert "secure" not in set_cookie
    assert (await ask(app, "GET", "/anything", cookie(answer))).status == 200


async def test_over_https_the_cookie_is_secure() -> None:
    scope = {**http_scope("GET", "/?token=a%20start%20token"), "scheme": "https"}
    assert "secure" in (await answer_of(guard(TOKEN), scope)).headers["set-cookie"].lower()


async def test_the_token_is_taken_on_the_first_page_only() -> None:
    """Elsewhere a redirect to the path could be made to leave the server."""
    assert (await ask(guard(TOKEN), "GET", "//evil.example/?token=a%20start%20token")).status == 401


async def test_a_made_up_session_is_none() -> None:
    app = guard(TOKEN)
    name = (await signed_in(app))["cookie"].partition("=")[0]
    for value in ("", "0" * 64, TOKEN):
        assert (await ask(app, "GET", "/", {"cookie": f"{name}={value}"})).status == 401


async def test_sessions_are_bounded_and_the_oldest_goes() -> None:
    app = guard(TOKEN)
    first, second = await signed_in(app), await signed_in(app)
    for _ in range(MAXIMUM_SESSIONS - 1):
        last = await signed_in(app)
    assert (await ask(app, "GET", "/", first)).status == 401
    assert (await ask(app, "GET", "/", second)).status == 200
    assert (await ask(app, "GET", "/", last)).status == 200


async def test_two_ports_of_a_host_have_cookies_of_their_own() -> None:
    names = {
        (await signed_in(guard(TOKEN), {"host": host}))["cookie"].partition("=")[0]
        for host in ("localhost:8080", "localhost:8081", "localhost")
    }
    assert len(names) == 3


async def test_the_csrf_token_belongs_to_the_session() -> None:
    app = guard(TOKEN)
    one, other = await signed_in(app), await signed_in(app)
    token = await csrf_token(app, one)
    assert (await ask(app, "POST", "/", {**SAME_ORIGIN, **one, CSRF_HEADER: token})).status == 200
    assert (await ask(app, "POST", "/", {**SAME_ORIGIN, **other, CSRF_HEADER: token})).status == 403


# Headers


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("GET", "/static/portal.css", {}, 200),
        ("GET", "/", {"host": "evil.example"}, 421),
        ("POST", "/", {}, 403),
        ("GET", "/", {}, 401),
        ("GET", "/?token=a%20start%20token", {}, 303),
    ],
)
async def test_every_answer_has_the_headers(method: str, target: str, headers: dict[str, str], status: int) -> None:
    answer = await ask(guard(TOKEN), method, target, headers)
    assert answer.status == status
    policy = answer.headers["content-security-policy"]
    assert dict(re.findall(r"([\w-]+) ([^;]+)", policy)) == {
        "default-src": "'self'",
        "frame-ancestors": "'none'",
        "base-uri": "'none'",
        "form-action": "'self'",
        "object-src": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert answer.headers["cache-control"] == "no-store"
    assert not [name for name in answer.headers if name.startswith("access-control")]
