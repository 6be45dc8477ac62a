"""The listener is tested on both event loops, and no test of it may leave a traceback in the log."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop
from tests.support.fix_listener import no_traceback as no_traceback  # noqa: PLC0414  # a fixture


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture(autouse=True)
def _no_traceback(no_traceback: None) -> None:
    """For every test here."""
