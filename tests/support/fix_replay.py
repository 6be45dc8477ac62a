"""A player of clients' conversations on the services of a test."""

from collections.abc import AsyncIterator

import pytest

from tests.support.fix_services import Services
from tests.support.replay import Player


@pytest.fixture
async def player(services: Services) -> AsyncIterator[Player]:
    one = Player(services)
    yield one
    await one.close()
