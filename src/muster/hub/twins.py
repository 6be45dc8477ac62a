"""Twins of a hub: reading them, patching and replacing them. They are made and removed with their identity
(``devices.py``). Sources: hub-device.md 7, hub-service.md 3.

Every write is one transaction, in which the twin's row is locked, the change is handed to who records twin change
events, and after which connected devices are told (``desired_changes.py``). Not here: merge rules
(``domain/twin.py``), any protocol.
"""

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from muster.bus.bus import Bus
from muster.domain.documents import decode
from muster.domain.errors import ArgumentInvalidError, DeviceNotFoundError
from muster.domain.etag import require_match, twin_etag
from muster.domain.twin import (
    JsonObject,
    Twin,
    TwinBody,
    TwinChange,
    TwinWrite,
    patch_reported,
    patch_twin,
    replace_twin,
)
from muster.domain.twin_view import TwinView, device_document, device_section
from muster.hub.desired_changes import DesiredChanges, twin_changed_message, twin_changed_subject
from muster.hub.twin_records import find_twin_in, find_twin_view, update_twin
from muster.store.database import Database, Transaction

RecordChange = Callable[[Transaction, TwinChange], Awaitable[None]]
"""Called inside the transaction of every accepted write, after it: THE place where twin change events come from."""

_MAXIMUM_REPORTED_BYTES = 256 * 1024
"""Of a patch's JSON text: escapes may blow up a section of 32 KiB sixfold, and deletions come on top."""


class Twins:
    """The twins of all hubs; a device's has the module id ''."""

    def __init__(
        self, database: Database, bus: Bus, clock: Callable[[], int], record_change: RecordChange | None = None
    ) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._record_change = record_change

    async def get(self, hub: str, device_id: str, module_id: str = "") -> TwinView:
        """The twin as service clients see it, identity included. Raises DeviceNotFoundError, for modules too."""
        view = await find_twin_view(self._database, hub, device_id, module_id, self._clock())
        if view is None:
            raise _not_found(device_id, module_id)
        return view

    async def patch(self, hub: str, device_id: str, module_id: str, body: TwinBody, if_match: str | None) -> TwinView:
        """Merge into tags and desired properties; the whole twin after it.

        Raises DeviceNotFoundError, PreconditionFailedError, ArgumentInvalidError.
        """
        return await self._write(
            hub, device_id, module_id, if_match, lambda twin: patch_twin(twin, body, self._clock())
        )

    async def replace(self, hub: str, device_id: str, module_id: str, body: TwinBody, if_match: str | None) -> TwinView:
        """Replace tags and desired properties; the whole twin after it. Raises what ``patch`` raises."""
        return await self._write(
            hub, device_id, module_id, if_match, lambda twin: replace_twin(twin, body, self._clock())
        )

    async def device_document(self, hub: str, device_id: str, module_id: str = "") -> bytes:
        """What the device reads: ``{"desired":{...,"$version":8},"reported":{...,"$version":13}}``.

        Raises DeviceNotFoundError.
        """
        row = await self._database.fetch_one(
            "SELECT desired, desired_version, reported, reported_version FROM twin"
            " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id",
            hub=hub,
            device_id=device_id,
            module_id=module_id,
        )
        if row is None:
            raise _not_found(device_id, module_id)
        return device_document(*row)

    async def desired_document(self, hub: str, device_id: str, module_id: str = "") -> tuple[int, bytes]:
        """The desired properties as the device sees them, and their version. Raises DeviceNotFoundError."""
        row = await self._database.fetch_one(
            "SELECT desired_version, desired FROM twin"
            " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id",
            hub=hub,
            device_id=device_id,
            module_id=module_id,
        )
        if row is None:
            raise _not_found(device_id, module_id)
        return row[0], device_section(row[1], row[0]).encode()

    async def update_reported(
        self, hub: str, device_id: str, module_id: str, body: bytes, expected_version: int | None = None
    ) -> int:
        """Merge a device's patch into its reported properties; their new version.

        ``expected_version`` is the ``$version`` of the request's topic, if it has one. Raises FormatError and
        ArgumentNullError for what is no JSON, ArgumentInvalidError for what breaks a rule, DeviceNotFoundError,
        PreconditionFailedError when the version is another one.
        """
        if len(body) > _MAXIMUM_REPORTED_BYTES:
            raise ArgumentInvalidError(f"Twin reported size {len(body)} exceeds maximum {_MAXIMUM_REPORTED_BYTES}.")
        patch = decode(body, JsonObject)
        now = self._clock()

        async def transaction(tx: Transaction) -> int:
            twin = await self._locked(tx, hub, device_id, module_id)
            write = patch_reported(twin, patch, expected_version, now)
            await self._store(tx, hub, device_id, module_id, write, now)
            return write.twin.reported_version

        return await self._database.transact(transaction)

    async def announce_model(self, hub: str, device_id: str, module_id: str, model_id: str) -> None:
        """Keep the model id with which a device connected, for service clients; no version counts it."""
        known = await self._database.fetch_one(
            "SELECT model_id FROM twin WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id",
            hub=hub,
            device_id=device_id,
            module_id=module_id,
        )
        if known is None or known[0] == model_id:
            return

        async def transaction(tx: Transaction) -> None:
            await tx.execute(
                "UPDATE twin SET model_id = :model_id"
                " WHERE hub = :hub AND device_id = :device_id AND module_id = :module_id",
                model_id=model_id,
                hub=hub,
                device_id=device_id,
                module_id=module_id,
            )

        await self._database.transact(transaction)

    async def follow_desired(
        self,
        hub: str,
        device_id: str,
        module_id: str,
        deliver: Callable[[int, bytes], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> DesiredChanges:
        """Call ``deliver(version, document)`` for every change of the desired properties from now on.

        ``document`` is what the device is sent, ``$version`` included; versions rise from call to call. ``spawn``
        runs a coroutine in the connection's own task set. ``close()`` the result when the connection ends or
        unsubscribes. Raises DeviceNotFoundError.
        """
        changes = DesiredChanges(lambda: self.desired_document(hub, device_id, module_id), deliver, spawn)
        await changes.open(self._bus, twin_changed_subject(hub, device_id, module_id))
        return changes

    async def _write(
        self,
        hub: str,
        device_id: str,
        module_id: str,
        if_match: str | None,
        decide: Callable[[Twin], TwinWrite | None],
    ) -> TwinView:
        now = self._clock()

        async def transaction(tx: Transaction) -> tuple[TwinWrite | None, TwinView]:
            twin = await self._locked(tx, hub, device_id, module_id)
            require_match(if_match, twin_etag(twin.etag))
            write = decide(twin)
            if write is not None:
                await self._store(tx, hub, device_id, module_id, write, now)
            view = await find_twin_view(tx, hub, device_id, module_id, self._clock())
            if view is None:  # the identity is being deleted
                raise _not_found(device_id, module_id)
            return write, view

        write, view = await self._database.transact(transaction)
        if write is not None:
            self.announce(hub, device_id, module_id, write)
        return view

    # For a transaction that writes more than a twin

    async def decide_patch(
        self, tx: Transaction, hub: str, device_id: str, module_id: str, body: TwinBody, if_match: str | None
    ) -> TwinWrite | None:
        """What ``patch`` would write, with nothing written yet; None when it names nothing. Raises what ``patch``
        raises.
        """
        twin = await self._locked(tx, hub, device_id, module_id)
        require_match(if_match, twin_etag(twin.etag))
        return patch_twin(twin, body, self._clock())

    async def write(self, tx: Transaction, hub: str, device_id: str, module_id: str, write: TwinWrite) -> None:
        """Write what was decided in the same transaction; to be announced after its commit."""
        await self._store(tx, hub, device_id, module_id, write, self._clock())

    def announce(self, hub: str, device_id: str, module_id: str, write: TwinWrite) -> None:
        """Tell a connected device of its desired properties."""
        if write.desired_notice is not None:
            self._bus.publish(
                twin_changed_subject(hub, device_id, module_id),
                twin_changed_message(write.twin.desired_version, write.desired_notice),
            )

    async def _locked(self, tx: Transaction, hub: str, device_id: str, module_id: str) -> Twin:
        twin = await find_twin_in(tx, hub, device_id, module_id)
        if twin is None:
            raise _not_found(device_id, module_id)
        return twin

    async def _store(
        self, tx: Transaction, hub: str, device_id: str, module_id: str, write: TwinWrite, now: int
    ) -> None:
        await update_twin(tx, hub, device_id, module_id, write.twin)
        if self._record_change is None:
            return
        body = write.changed
        if write.operation == "replaceTwin":
            module = {"moduleId": module_id} if module_id else {}
            body = {"deviceId": device_id, **module, **body}
        await self._record_change(
            tx,
            TwinChange(
                hub=hub, device_id=device_id, module_id=module_id, operation=write.operation, time=now, body=body
            ),
        )


def _not_found(device_id: str, module_id: str) -> DeviceNotFoundError:
    return DeviceNotFoundError(f"{device_id}/{module_id}" if module_id else device_id)
