"""The portal as a person sees it, in a browser: finding an enrollment, what arrives by itself, and hostile text."""

from collections.abc import Callable
from urllib.parse import quote

import pytest
from selenium.webdriver.chrome.webdriver import WebDriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.browser.conftest import START_TOKEN, PortalServer
from tests.support.fix_pki import Identity, ec_key, make_certificate, other_self_signed, self_signed
from tests.support.fix_portal import HOSTILE, HOSTILE_ATTRIBUTE, send_event, try_to_register

_SECONDS = 60.0


def enroll(server: PortalServer, registration_id: str, identity: Identity, **fields: object) -> None:
    server.run(server.services.enroll(registration_id, identity.certificate_pem.decode(), **fields))


def one(browser: WebDriver, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def texts(browser: WebDriver, selector: str) -> list[str]:
    """What stands in all elements, read at once: rows may move meanwhile."""
    script = "return [...document.querySelectorAll(arguments[0])].map(element => element.innerText)"
    found: list[str] = browser.execute_script(script, selector)
    return found


def wait_until(browser: WebDriver, holds: Callable[[], object]) -> None:
    WebDriverWait(browser, _SECONDS, poll_frequency=0.05).until(lambda _: holds())


def wait_until_live(browser: WebDriver) -> None:
    wait_until(browser, lambda: texts(browser, "[data-stream-state]") == ["Live"])


def mark(browser: WebDriver) -> None:
    """Leave a mark that a reload would wipe away."""
    browser.execute_script("window.marked = true")


def is_marked(browser: WebDriver) -> bool:
    return bool(browser.execute_script("return window.marked === true"))


def assert_nothing_ran(browser: WebDriver) -> None:
    """No script of a device has run, and our own pages gave the browser nothing to complain about."""
    assert browser.execute_script("return window.pwned") is None
    assert browser.get_log("browser") == []


# Journeys


def test_an_operator_finds_an_enrollment(browser: WebDriver, server: PortalServer) -> None:
    """Step 3 of the tutorial: Manage enrollments, Individual enrollments, and there it is."""
    enroll(server, "raspberrypi-b", self_signed("raspberrypi-b"), initialTwin={"tags": {"site": "A"}})
    server.run(try_to_register(server.services, "raspberrypi-b", self_signed("raspberrypi-b")))
    browser.get(server.address)
    browser.find_element(By.LINK_TEXT, "Manage enrollments").click()
    assert one(browser, "#individual").text == "Individual enrollments"
    assert "364 days left" in one(browser, "tbody tr").text
    browser.find_element(By.LINK_TEXT, "raspberrypi-b").click()
    assert one(browser, "h1").text == "raspberrypi-b"
    trail = texts(browser, ".trail li")
    assert trail == [
        "Device Provisioning Service",
        "Settings",
        "Manage enrollments",
        "Individual enrollments",
        "raspberrypi-b",
    ]
    shown = one(browser, "main").text
    assert "initialAssignment" in shown
    assert "hub.example.net" in shown
    assert '"site": "A"' in shown
    assert_nothing_ran(browser)


def test_arrivals_appear_by_themselves(browser: WebDriver, server: PortalServer) -> None:
    server.run(send_event(server.services, "before", b"{}"))
    browser.get(f"{server.address}/arrivals")
    wait_until_live(browser)
    mark(browser)
    server.run(send_event(server.services, "pump-01", b'{"temperature":21.5}', {"alert": "high"}))
    wait_until(browser, lambda: texts(browser, "tbody th") == ["pump-01", "before"])
    assert '{"temperature":21.5}' in texts(browser, "tbody tr")[0]
    assert texts(browser, ".properties") == ["alert\nhigh"]
    assert is_marked(browser)
    assert_nothing_ran(browser)


def test_the_first_arrival_replaces_the_invitation(browser: WebDriver, server: PortalServer) -> None:
    browser.get(f"{server.address}/arrivals")
    wait_until_live(browser)
    assert "Nothing has arrived yet" in one(browser, "main").text
    server.run(send_event(server.services, "pump-01", b"1"))
    wait_until(browser, lambda: texts(browser, "tbody th") == ["pump-01"])
    assert "Nothing has arrived yet" not in one(browser, "main").text


def test_a_list_keeps_its_length(browser: WebDriver, server: PortalServer) -> None:
    browser.get(server.address)
    wait_until_live(browser)
    for number in range(10):
        server.run(send_event(server.services, f"d{number}", b"x"))
    newest_first = [f"d{number}" for number in range(9, 1, -1)]
    wait_until(browser, lambda: texts(browser, "[data-live=arrivals] th") == newest_first)


def test_refusals_appear_by_themselves_and_lead_to_the_reason(browser: WebDriver, server: PortalServer) -> None:
    enroll(server, "pump-01", self_signed("pump-01"))
    browser.get(f"{server.address}/refusals")
    wait_until_live(browser)
    mark(browser)
    tracking_id = server.run(try_to_register(server.services, "pump-01", other_self_signed("pump-01")))
    wait_until(browser, lambda: texts(browser, "tbody th") == ["pump-01"])
    assert is_marked(browser)
    one(browser, "tbody .when a").click()
    assert tracking_id in browser.current_url
    refused = one(browser, ".checks .refused").text
    assert "The certificate is the enrolled one, primary or secondary" in refused
    assert "Fix" in refused
    assert "401002 Invalid certificate." in one(browser, "main").text
    assert_nothing_ran(browser)


def test_the_overview_shows_both_lists_live(browser: WebDriver, server: PortalServer) -> None:
    browser.get(server.address)
    wait_until_live(browser)
    mark(browser)
    server.run(send_event(server.services, "pump-01", b"1"))
    server.run(try_to_register(server.services, "stranger"))
    wait_until(browser, lambda: texts(browser, "[data-live=arrivals] th") == ["pump-01"])
    wait_until(browser, lambda: texts(browser, "[data-live=refusals] th") == ["stranger"])
    assert is_marked(browser)


def test_a_paused_list_stands_still_and_goes_on_without_a_gap(browser: WebDriver, server: PortalServer) -> None:
    browser.get(f"{server.address}/arrivals")
    wait_until_live(browser)
    one(browser, "[data-stream-toggle]").click()
    assert texts(browser, "[data-stream-state]") == ["Paused"]
    server.run(send_event(server.services, "meanwhile", b"1"))
    one(browser, "[data-stream-toggle]").click()
    wait_until_live(browser)
    server.run(send_event(server.services, "after", b"1"))
    wait_until(browser, lambda: texts(browser, "tbody th") == ["after", "meanwhile"])


def test_a_page_finds_its_server_again(browser: WebDriver, server: PortalServer) -> None:
    browser.get(f"{server.address}/arrivals")
    wait_until_live(browser)
    server.run(server.interrupt())
    wait_until(browser, lambda: texts(browser, "[data-stream-state]")[0].startswith("Not live"))
    server.run(send_event(server.services, "meanwhile", b"1"))
    server.run(server.resume())
    wait_until(browser, lambda: texts(browser, "tbody th") == ["meanwhile"])
    wait_until_live(browser)


def test_the_address_of_the_banner_signs_in(browser: WebDriver, server: PortalServer) -> None:
    browser.get(f"{server.guarded_address}/enrollments")
    assert one(browser, "h1").text == "This portal needs its start token"
    browser.get(f"{server.guarded_address}/?token={START_TOKEN}")
    assert browser.current_url == f"{server.guarded_address}/"
    assert one(browser, "h1").text == "Overview"
    wait_until_live(browser)
    assert browser.execute_script("return document.cookie") == ""


# Hostile text


def hostile_pages(server: PortalServer) -> list[str]:
    """Put hostile text wherever a device can put some, and name the pages that show it."""
    identity = Identity(make_certificate(HOSTILE, key=ec_key("hostile")), ec_key("hostile"))
    enroll(server, "hostile", identity, initialTwin={"tags": {"t": HOSTILE, "u": HOSTILE_ATTRIBUTE}})
    for registration_id in ("hostile", HOSTILE, HOSTILE_ATTRIBUTE):
        server.run(try_to_register(server.services, registration_id, identity))
    server.run(send_event(server.services, HOSTILE_ATTRIBUTE, HOSTILE.encode(), {HOSTILE: HOSTILE_ATTRIBUTE}))
    return [
        "/",
        "/arrivals",
        "/refusals",
        f"/refusals/{quote(HOSTILE, safe='')}",
        f"/refusals/{quote(HOSTILE_ATTRIBUTE, safe='')}",
        f"/refusals?subject={quote(HOSTILE_ATTRIBUTE)}",
        "/refusals/hostile",
        "/enrollments",
        "/enrollments/individual?registrationId=hostile",
    ]


def test_hostile_text_is_shown_and_never_runs(browser: WebDriver, server: PortalServer) -> None:
    shown = {}
    for target in hostile_pages(server):
        browser.get(server.address + target)
        assert one(browser, "nav.side").is_displayed()
        shown[target] = one(browser, "main").text
        assert_nothing_ran(browser)
    assert HOSTILE in shown["/arrivals"]
    assert HOSTILE_ATTRIBUTE in shown["/arrivals"]
    assert HOSTILE in shown["/refusals"]
    assert HOSTILE in shown["/enrollments/individual?registrationId=hostile"]
    assert HOSTILE_ATTRIBUTE.replace('"', '\\"') in shown["/enrollments/individual?registrationId=hostile"]
    assert HOSTILE in shown["/refusals/hostile"]


@pytest.mark.parametrize("target", ["/", "/arrivals", "/refusals"])
def test_hostile_text_that_comes_live_never_runs(browser: WebDriver, server: PortalServer, target: str) -> None:
    browser.get(server.address + target)
    wait_until_live(browser)
    hostile_pages(server)
    expected = [HOSTILE_ATTRIBUTE, HOSTILE] if target == "/refusals" else [HOSTILE_ATTRIBUTE]
    wait_until(browser, lambda: set(expected) <= set(texts(browser, "tbody th")))
    assert_nothing_ran(browser)


def test_markup_that_got_in_all_the_same_would_not_run(browser: WebDriver, server: PortalServer) -> None:
    """The second line of defence, and the proof that a script that runs, or tries to, would be noticed above."""
    browser.get(server.address)
    inject = "document.body.insertAdjacentHTML('beforeend', arguments[0])"
    browser.execute_script(inject, '<img src="/static/none.svg" onerror="window.pwned=1"><p style="color:red">p</p>')
    messages: list[str] = []

    def complained() -> bool:
        messages.extend(entry["message"] for entry in browser.get_log("browser"))
        return sum("Content Security Policy" in message for message in messages) >= 2

    wait_until(browser, complained)
    assert browser.execute_script("return window.pwned") is None
    browser.execute_script("window.pwned = 1")
    with pytest.raises(AssertionError):
        assert_nothing_ran(browser)


# Looks


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_pages_fit_into_the_window(browser: WebDriver, server: PortalServer, width: int) -> None:
    enroll(server, "a-registration-id-" + "x" * 100, self_signed("d"))
    server.run(send_event(server.services, "d" * 128, b"x" * 3_000, {"k" * 200: "v" * 2_000}))
    tracking_id = server.run(try_to_register(server.services, "s" * 128))
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        detail = "/enrollments/individual?registrationId=a-registration-id-" + "x" * 100
        for target in ("/", "/enrollments", detail, "/arrivals", "/refusals", f"/refusals/{tracking_id}", "/trust"):
            browser.get(server.address + target)
            assert browser.execute_script("return document.documentElement.scrollWidth") <= width, target
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_everything_can_be_reached_and_read_without_seeing_it(browser: WebDriver, server: PortalServer) -> None:
    enroll(server, "pump-01", self_signed("pump-01"))
    tracking_id = server.run(try_to_register(server.services, "pump-01"))
    targets = (
        "/",
        "/enrollments",
        "/enrollments/individual?registrationId=pump-01",
        "/arrivals",
        "/refusals",
        "/trust",
    )
    for target in (*targets, f"/refusals/{tracking_id}"):
        browser.get(server.address + target)
        facts = browser.execute_script(
            """
            const all = (selector) => [...document.querySelectorAll(selector)];
            const ids = all("[id]").map((element) => element.id);
            const labels = all("[aria-labelledby]").map((element) => element.getAttribute("aria-labelledby"));
            return {
              lang: document.documentElement.lang,
              mains: all("main").length,
              headings: all("h1").length,
              scopeless: all("th:not([scope])").length,
              unlabelled: all("input, select").filter((field) => field.labels.length === 0).length,
              nameless: all("button, a").filter((element) => element.innerText.trim() === "").length,
              doubles: ids.filter((id, index) => ids.indexOf(id) !== index),
              dangling: labels.filter((id) => !ids.includes(id)).length,
            };
            """
        )
        assert facts == {
            "lang": "en",
            "mains": 1,
            "headings": 1,
            "scopeless": 0,
            "unlabelled": 0,
            "nameless": 0,
            "doubles": [],
            "dangling": 0,
        }, target
