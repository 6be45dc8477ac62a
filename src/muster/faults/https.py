"""Faults over HTTPS: an error for the request that asks for it. Source: hub-device.md 13."""

import logging

from muster.faults.requests import ERRORS, read_fault
from muster.hub.event_batches import Messages
from muster.hub.events import EventLog

_log = logging.getLogger("muster.faults")


class FaultyEventLog:
    """Where the HTTPS device API stores telemetry: a request for a fault is that fault, and nothing is stored."""

    def __init__(self, events: EventLog) -> None:
        self._events = events

    async def store(self, hub: str, partition: int, messages: Messages) -> None:
        """Raises the error that was asked for, at once; faults of other protocols do nothing."""
        for head, _bodies in messages.runs:
            fault = read_fault(head[-1])
            if fault is None:
                continue
            error = ERRORS.get(fault.kind)
            if error is None:
                _log.warning("no fault is injected: there is no %r over HTTPS", fault.kind[:50])
                return
            _log.info("a fault is injected: %s of %s over HTTPS", fault.kind, head[1])
            raise error
        await self._events.store(hub, partition, messages)
