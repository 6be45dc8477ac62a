"""What a hub writes to its event log about its devices, in the transaction of the change (hub-service.md 9.5).

Which sources a hub writes is its own setting. The rows are written at the end of the transaction, when all its other
locks are taken: the rows of the partitions come last, in the order of hubs and partitions, here as for telemetry.
Otherwise one who holds a partition would wait for a device, and one who holds the device for the partition.
"""

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from muster.bus.bus import Bus
from muster.domain.device import Identity
from muster.domain.hub_event import (
    EventSettings,
    HubEvent,
    HubEventSource,
    connection_state_event,
    first_sequence,
    lifecycle_event,
    twin_change_event,
)
from muster.domain.partition import partition_of
from muster.domain.twin import Twin, TwinChange
from muster.hub.event_batches import Messages, Run
from muster.hub.events import EventLog, events_subject
from muster.store.database import Transaction

_CORRELATION_BYTES = 16


class EventHub(Protocol):
    """What has to be known of a hub."""

    @property
    def partition_count(self) -> int: ...

    @property
    def events(self) -> EventSettings: ...


class HubEvents:
    """The events of all hubs. ``find`` is a hub by its name, from any thread."""

    def __init__(
        self,
        find: Callable[[str], EventHub | None],
        log: EventLog,
        bus: Bus,
        clock: Callable[[], int],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._find = find
        self._log = log
        self._bus = bus
        self._clock = clock
        self._entropy = entropy

    async def twin_changed(self, tx: Transaction, change: TwinChange) -> None:
        if self._wanted(change.hub, HubEventSource.TWIN_CHANGE):
            tx.defer(self._write, twin_change_event(change))

    def created(self, tx: Transaction, hub: str, identity: Identity, twin: Twin) -> None:
        if self._wanted(hub, HubEventSource.LIFECYCLE):
            tx.defer(self._write, lifecycle_event(hub, identity, twin, "createDeviceIdentity", self._clock()))

    def deleted(self, tx: Transaction, hub: str, identity: Identity, twin: Twin) -> None:
        """``twin`` is the last one of the identity."""
        if self._wanted(hub, HubEventSource.LIFECYCLE):
            tx.defer(self._write, lifecycle_event(hub, identity, twin, "deleteDeviceIdentity", self._clock()))

    def tells_connections(self, hub: str) -> bool:
        """Whether this hub writes when devices connect and disconnect; any thread may ask."""
        return self._wanted(hub, HubEventSource.CONNECTION_STATE)

    async def connection_changed(
        self, tx: Transaction, hub: str, device_id: str, module_id: str, *, connected: bool
    ) -> None:
        """Of an identity whose row among the connections was just written."""
        if not self._wanted(hub, HubEventSource.CONNECTION_STATE):
            return
        now = self._clock()
        row = await tx.fetch_one(
            "UPDATE connection SET state_sequence = CASE WHEN state_sequence < :first THEN :first"
            " ELSE state_sequence + 1 END"
            " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id RETURNING state_sequence",
            first=first_sequence(now),
            hub=hub,
            device_id=device_id,
            module_id=module_id,
        )
        if row is not None:
            event = connection_state_event(hub, device_id, module_id, row[0], now, connected=connected)
            tx.defer(self._write, event)

    def _wanted(self, hub: str, source: HubEventSource) -> bool:
        found = self._find(hub)
        return found is not None and source in found.events.sources

    async def _write(self, tx: Transaction, events: list[HubEvent]) -> None:
        runs: dict[tuple[str, int], list[Run]] = defaultdict(list)
        for event in events:
            hub = self._find(event.hub)
            if hub is not None:
                runs[event.hub, partition_of(event.device_id, hub.partition_count)].append(self._run(event))
        for hub_name, partition in sorted(runs):
            await self._log.append_in(tx, hub_name, partition, Messages.of(*runs[hub_name, partition]))
        for hub_name in {name for name, _ in runs}:
            tx.after_commit(partial(self._bus.publish, events_subject(hub_name), b""))

    def _run(self, event: HubEvent) -> Run:
        system = event.system_properties(self._entropy(_CORRELATION_BYTES).hex())
        texts = _text(system), _text(event.application_properties)
        return (event.source.value, event.device_id, event.module_id, "", "", "", *texts), [event.content]


def _text(properties: dict[str, str]) -> str:
    return msgspec.json.encode(properties).decode()
