"""What is to happen later, by the clock of a test."""

import heapq
from collections.abc import Callable

from muster.domain.timestamp import SECOND
from tests.support.fix_services import Services


class Timers:
    """What is to happen later, by the clock of the test."""

    def __init__(self, services: Services) -> None:
        self._clock = services.clock
        self._planned: list[tuple[int, int, Callable[[], None]]] = []

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._planned, (self._clock.now + int(seconds * SECOND), len(self._planned), call))

    def advance(self, seconds: float) -> None:
        self._clock.advance(int(seconds * SECOND))
        while self._planned and self._planned[0][0] <= self._clock.now:
            heapq.heappop(self._planned)[2]()
