"""TLS handshakes beside the event loop.

A handshake is a millisecond or more of arithmetic inside OpenSSL, which needs neither the loop nor the interpreter's
lock. On the loop it would be a wait for every device that is connected, and a fleet that comes back after an outage
would silence the others. So threads do it, of a lower priority than the loop's where the system knows such a thing
(Linux): on a machine of one core as well, what is connected goes first.
"""

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue

from OpenSSL import SSL

from muster.frontends.tls.context import advance_handshake

Outcome = bool | SSL.Error
"""Whether the handshake is done, or why it has failed."""

_MOST_WORKERS = 4

# Above the loop's by this much: about a third of the loop's share of a core that both want (sched(7)).
_NICENESS = 5


class Step:
    """One step of a handshake: what OpenSSL does with the bytes that a connection was given.

    ``tell`` is called on the loop with its outcome, unless the step was cancelled before it began.
    """

    __slots__ = ("cancelled", "connection", "tell")

    def __init__(self, connection: SSL.Connection, tell: Callable[[Outcome], None]) -> None:
        self.connection = connection
        self.tell = tell
        self.cancelled = False

    def cancel(self) -> None:
        """Nobody waits for it any more."""
        self.cancelled = True


class Handshakes:
    """Takes steps in the order they were asked for. Belongs to one event loop; threads start with the first step."""

    def __init__(self, loop: asyncio.AbstractEventLoop, workers: int | None = None) -> None:
        """``workers`` is the number of threads; by default one less than there are cores, 1 to 4."""
        self._loop = loop
        self._count = workers or max(1, min(_MOST_WORKERS, _cores() - 1))
        self._steps: SimpleQueue[Step | None] = SimpleQueue()
        self._workers: list[threading.Thread] = []

    def advance(self, connection: SSL.Connection, tell: Callable[[Outcome], None]) -> Step:
        """Take a step; nothing else may touch ``connection`` until ``tell`` is called."""
        if not self._workers:
            self._workers = [
                threading.Thread(target=self._work, name=f"muster-handshakes-{number}", daemon=True)
                for number in range(self._count)
            ]
            for worker in self._workers:
                worker.start()
        step = Step(connection, tell)
        self._steps.put(step)
        return step

    def close(self) -> None:
        """End the threads, after the steps that are asked for and not cancelled."""
        for _ in self._workers:
            self._steps.put(None)
        for worker in self._workers:
            worker.join()
        self._workers = []

    def _work(self) -> None:
        _yield_to_the_loop()
        while (step := self._steps.get()) is not None:
            if step.cancelled:
                continue
            outcome: Outcome
            try:
                outcome = advance_handshake(step.connection)
            except SSL.Error as error:
                outcome = error
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(step.tell, outcome)
            del step, outcome  # a connection that is gone is freed now, not with the next step


def _cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _yield_to_the_loop() -> None:
    if sys.platform == "linux":  # elsewhere a priority belongs to the process
        with contextlib.suppress(OSError):  # refused by a sandbox: the handshakes are as urgent as the loop then
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
