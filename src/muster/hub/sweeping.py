"""Work that comes round: swept every so many seconds, whatever one sweep met. Not here: what is swept."""

import asyncio
import logging

from muster.store.database import DatabaseUnavailableError

_log = logging.getLogger("muster.hub")


class Sweeping:
    """What sweepers share. ``what`` they sweep, for the log, and every how many ``seconds``."""

    what: str
    seconds: float

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    async def sweep(self) -> object:
        """Do all that is due now."""
        raise NotImplementedError

    def start(self, seconds: float | None = None) -> None:
        """Sweep every so many seconds from now on, until ``stop``."""
        self._task = asyncio.get_running_loop().create_task(self._run(self.seconds if seconds is None else seconds))

    async def stop(self) -> None:
        """A sweep that is under way may be half done: what it did not reach is still due."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    async def _run(self, seconds: float) -> None:
        while True:
            try:
                await self.sweep()
            except DatabaseUnavailableError as error:
                _log.warning("%s could not be swept: %s", self.what, error)
            except Exception:  # noqa: BLE001 - the next sweep may succeed, and the trace is in the log
                _log.exception("%s could not be swept", self.what)
            await asyncio.sleep(seconds)
