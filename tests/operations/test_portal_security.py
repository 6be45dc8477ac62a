"""The security defaults hold for every route of the portal, the event stream included."""

from pathlib import Path

import pytest
from tests.support.asgi import Answer, ask
from tests.support.fix_portal import portal_of
from tests.support.fix_services import ID_SCOPE, Services

from muster.portal.app import Portal
from muster.portal.security import CSRF_HEADER, RESPONSE_HEADERS

ROUTES = (
    "/",
    "/enrollments",
    "/enrollments/individual?registrationId=d",
    "/arrivals",
    "/refusals",
    "/refusals/t",
    "/stream?lists=arrivals,refusals",
    "/trust",
    "/ca.pem",
    "/static/portal.css",
    "/nowhere",
    "/static/nowhere",
)


@pytest.fixture
def portal(services: Services) -> Portal:
    return portal_of(services)


def assert_guarded(answer: Answer, status: int) -> None:
    assert answer.status == status
    assert {name: answer.headers[name] for name in RESPONSE_HEADERS} == RESPONSE_HEADERS
    assert not [name for name in answer.headers if name.startswith("access-control")]


async def test_a_foreign_host_is_misdirected(portal: Portal) -> None:
    for target in ROUTES:
        assert_guarded(await ask(portal, "GET", target, {"host": "rebound.example"}), 421)


async def test_another_site_cannot_fetch(portal: Portal) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors", "origin": "http://evil.example"}
    for target in ROUTES:
        assert_guarded(await ask(portal, "GET", target, headers), 403)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nothing_can_be_changed(portal: Portal, method: str) -> None:
    """Not by another site, and not by our own pages either: they only read."""
    token = (await ask(portal, "GET", "/")).text.partition('name="csrf-token" content="')[2].partition('"')[0]
    own = {"origin": "http://localhost:8080", CSRF_HEADER: token}
    for target in ROUTES:
        assert_guarded(await ask(portal, method, target, {"origin": "http://evil.example"}), 403)
        assert_guarded(await ask(portal, method, target, own), 404 if target == "/nowhere" else 405)


async def test_with_a_start_token_every_page_but_the_static_files_asks_for_it(services: Services) -> None:
    portal = portal_of(services, start_token="f00dcafe")
    for target in ROUTES:
        answer = await ask(portal, "GET", target)
        assert ID_SCOPE not in answer.text
        assert_guarded(answer, 200 if target == "/static/portal.css" else 401)
        if answer.status == 401:
            assert "banner" in answer.text
            assert "f00dcafe" not in answer.text


async def test_the_sign_in_page_needs_no_session_for_what_it_loads(services: Services) -> None:
    portal = portal_of(services, start_token="f00dcafe")
    page = (await ask(portal, "GET", "/")).text
    style = page.partition('rel="stylesheet" href="')[2].partition('"')[0]
    assert (await ask(portal, "GET", style)).status == 200


async def test_a_session_opens_every_page(services: Services) -> None:
    portal = portal_of(services, start_token="f00dcafe")
    answer = await ask(portal, "GET", "/?token=f00dcafe")
    assert answer.status == 303
    cookie = {"cookie": answer.headers["set-cookie"].partition(";")[0]}
    for target in ("/", "/enrollments", "/arrivals", "/refusals", "/trust", "/ca.pem"):
        assert (await ask(portal, "GET", target, cookie)).status == 200


async def test_what_is_shown_is_not_kept(portal: Portal) -> None:
    for target in ROUTES:
        if not target.startswith(("/static/", "/stream")):
            assert (await ask(portal, "GET", target)).headers["cache-control"] == "no-store"


def test_the_documentation_names_every_header_and_every_page() -> None:
    page = Path(__file__).parents[2] / "docs" / "portal.md"
    text = " ".join(page.read_text().split())
    for name, value in RESPONSE_HEADERS.items():
        assert name in text.lower()
        assert value in text
    for target in ROUTES:
        if "nowhere" not in target and "static" not in target:
            assert f"`{target.partition('?')[0]}".removesuffix("/t") in text
