"""Run a Muster: open its data, serve, wait for a signal, drain, stop.

Not here: what is built and how it is wired (``services.py``, ``front_ends.py``), and what is printed.
"""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uvloop

from muster.config import (
    UpOptions,
)
from muster.data_directory import DataDirectory
from muster.observe import set_up_logging
from muster.server.front_ends import Server
from muster.server.place import place_of
from muster.server.revocation import RevocationWatch
from muster.server.services import Clock, open_services

_log = logging.getLogger("muster.server")

OnReady = Callable[[Mapping[str, Any]], None]


def run_up(options: UpOptions, on_ready: OnReady) -> int:
    """``muster up``: serve until SIGTERM or SIGINT; returns the exit code. Raises ConfigurationError."""
    set_up_logging(options.log_level, options.log_format)
    os.umask(0o077)
    _allow_connections()
    return uvloop.run(_up(options, on_ready))


def _allow_connections() -> None:
    """As many open files as this user may have: the usual soft limit of 1,024 is far below the listener's own."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def _up(options: UpOptions, on_ready: OnReady) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    place = place_of(options)
    with _data_directory(options) as directory:
        async with contextlib.AsyncExitStack() as stack:
            clock = _clock(options.clock_offset)
            services = await open_services(options, directory, place, clock)
            stack.push_async_callback(services.database.close)
            if options.revocation_lists:
                watch = RevocationWatch(
                    options.revocation_lists, services.revocations, services.revoked_sessions, clock
                )
                stack.callback(watch.start().cancel)
            resumed = await services.registrations.start()
            stack.push_async_callback(services.registrations.stop)
            services.sweeper.start()
            stack.push_async_callback(services.sweeper.stop)
            services.event_sweeper.start()
            stack.push_async_callback(services.event_sweeper.stop)
            services.leaning_sessions.start()
            stack.push_async_callback(services.leaning_sessions.stop)
            server = Server(options, directory, place, services, clock)
            await server.start(stack)
            if resumed:
                _log.info("%d interrupted registrations are being finished", resumed)
            on_ready(server.description.status)
            await stop.wait()
            _log.info("stopping")
    return 0


def _clock(offset: int) -> Clock:
    """Microseconds UTC: the machine's time, shifted by ``--clock``."""
    return lambda: time.time_ns() // 1000 + offset


@contextlib.contextmanager
def _data_directory(options: UpOptions) -> Iterator[DataDirectory]:
    path = options.data_directory
    if options.ephemeral:
        runtime = os.environ.get("XDG_RUNTIME_DIR") or None
        path = Path(tempfile.mkdtemp(prefix="muster-", dir=runtime))
    directory = DataDirectory(path, ephemeral=options.ephemeral)
    try:
        yield directory
    finally:
        directory.close()
