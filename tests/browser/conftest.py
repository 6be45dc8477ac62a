"""A headless Chromium, and a portal on real services for it, on a free port of loopback."""

import asyncio
import shutil
import threading
import time
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.chrome.webdriver import WebDriver

from muster.frontends.http import HttpFactory
from muster.frontends.listener import Listener, Protocols
from muster.portal.app import Portal
from muster.store.migration import migrate
from muster.store.sqlite import open_sqlite
from tests.support.fix_portal import portal_of
from tests.support.fix_services import Clock, Services, build_services

T = TypeVar("T")

INSTALL = "Chromium is missing; install it with: apt-get install --yes chromium chromium-driver"

START_TOKEN = "0123456789abcdef"

_ADDRESS = "127.0.0.1"
_SECONDS = 60.0
_OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebDriver]:
    """One browser with a profile of its own for all tests; selenium is told where everything is and fetches nothing."""
    binary = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.fail(INSTALL)
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for option in (*_OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    browser.set_page_load_timeout(_SECONDS)
    yield browser
    browser.quit()


@pytest.fixture
def browser(chromium: WebDriver) -> Iterator[WebDriver]:
    """The browser on an empty page, its console read and its cookies gone."""
    chromium.delete_all_cookies()
    chromium.get("about:blank")
    chromium.get_log("browser")
    yield chromium
    chromium.get("about:blank")


class PortalServer:
    """The services of one Muster with two portals, without and with a start token; tests call ``run`` from outside."""

    services: Services
    address: str
    guarded_address: str

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="portal", daemon=True)

    def start(self) -> None:
        self._thread.start()
        self.run(self._open())

    def stop(self) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_SECONDS)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine where the services live."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    async def interrupt(self) -> None:
        """Drop every connection and accept none, until ``resume``."""
        await self._listener.close()

    async def resume(self) -> None:
        self._listener, self._port = await self._listen(self._portal, self._port)

    async def _open(self) -> None:
        self._database = await open_sqlite(self._directory / "muster.db", durable=False)
        clock = Clock(time.time_ns() // 1000)
        await migrate(self._database, clock())
        self.services = await build_services(self._database, clock)
        self._portal = portal_of(self.services)
        self._listener, self._port = await self._listen(self._portal, 0)
        self.address = f"http://localhost:{self._port}"
        self._guarded = portal_of(self.services, start_token=START_TOKEN)
        self._guarded_listener, port = await self._listen(self._guarded, 0)
        self.guarded_address = f"http://localhost:{port}"

    async def _listen(self, portal: Portal, port: int) -> tuple[Listener, int]:
        factory = HttpFactory(portal, clock=self.services.clock)
        listener = Listener(Protocols(http=factory), tls=None)
        return listener, (await listener.listen(_ADDRESS, port))[1]

    async def _close(self) -> None:
        for portal, listener in ((self._portal, self._listener), (self._guarded, self._guarded_listener)):
            portal.close()
            await listener.close()
        await self.services.registrations.stop(within=60)
        await self._database.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PortalServer]:
    running = PortalServer(tmp_path)
    running.start()
    yield running
    running.stop()
