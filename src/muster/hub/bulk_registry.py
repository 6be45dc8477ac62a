"""Many identities of a hub at once: bulk writes with import modes, and new keys. Sources: hub-service.md 2.6, 2.7.

One transaction for a request; what one item may not do leaves the others alone, as every rule is asked before anything
is written. Not here: one identity (``devices.py``, ``modules.py``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from muster.bus.bus import Bus
from muster.domain.bulk_registry import ExportImportDevice, ItemError, require_bulk
from muster.domain.device import Identity, new_key
from muster.domain.errors import (
    ArgumentInvalidError,
    DeviceNotFoundError,
    PreconditionFailedError,
    ServiceError,
)
from muster.domain.etag import ANY
from muster.domain.key_rotation import KeyRotationBody, rotated
from muster.hub.devices import identity_changed_subject
from muster.hub.identity_records import lock_identity
from muster.hub.identity_writes import IdentityWrites
from muster.store.database import Database, Transaction


@dataclass(frozen=True, slots=True)
class Rotation:
    """What became of a request for new keys."""

    policy_key: str
    identities: list[Identity]
    errors: list[ItemError]


class BulkRegistry:
    """Bulk operations of all hubs; each names its hub."""

    def __init__(self, database: Database, bus: Bus, writes: IdentityWrites, entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._bus = bus
        self._writes = writes
        self._entropy = entropy

    async def write(self, hub: str, items: Sequence[ExportImportDevice]) -> list[ItemError]:
        """Do what each item asks for, in their order; returns those that failed.

        Raises TooManyDevicesError, DeviceDefinedTwiceError, and ArgumentNullError for an item without an id: then
        nothing is done.
        """
        require_bulk(items)

        async def transaction(tx: Transaction) -> list[ItemError]:
            errors = []
            for item in items:
                try:
                    await self._write(tx, hub, item)
                except ServiceError as error:
                    errors.append(ItemError(*item.key, _operation(item), error))
            return errors

        errors = await self._database.transact(transaction)
        self._announce(hub, [item.key[0] for item in items])
        return errors

    async def rotate_keys(self, hub: str, body: KeyRotationBody) -> Rotation:
        """New keys, or keys that change places. Raises ArgumentInvalidError, ArgumentNullError, TooManyDevicesError."""
        policy_key = body.require_valid()
        keys = [item.key for item in body.devices]

        async def transaction(tx: Transaction) -> Rotation:
            rotation = Rotation(policy_key, [], [])
            for device_id, module_id in keys:
                try:
                    stored = await self._stored(tx, hub, device_id, module_id)
                    new = rotated(stored, policy_key, lambda: new_key(self._entropy(32)))
                    rotation.identities.append(await self._writes.set_keys(tx, hub, stored, *new))
                except ServiceError as error:
                    rotation.errors.append(ItemError(device_id, module_id, "RegenerateKeys", error))
            return rotation

        rotation = await self._database.transact(transaction)
        self._announce(hub, [device_id for device_id, _ in keys])
        return rotation

    def _announce(self, hub: str, device_ids: Sequence[str]) -> None:
        for device_id in dict.fromkeys(device_ids):
            self._bus.publish(identity_changed_subject(hub, device_id), b"")

    async def _stored(self, tx: Transaction, hub: str, device_id: str, module_id: str) -> Identity:
        device = await self._writes.require_device(tx, hub, device_id)
        return await self._writes.require_module(tx, hub, device_id, module_id) if module_id else device

    async def _write(self, tx: Transaction, hub: str, item: ExportImportDevice) -> None:
        """Raises what the item is told."""
        device_id, module_id = item.key
        mode = item.mode
        if module_id and await lock_identity(tx, hub, device_id) is None:
            raise DeviceNotFoundError(device_id)
        stored = await lock_identity(tx, hub, device_id, module_id)
        etag = _etag(item, required=mode.needs_etag and (stored is not None or mode.action != "createOrUpdate"))
        match mode.action:
            case "updateTwin":
                raise ArgumentInvalidError("importMode updateTwin is not served here: write the twin itself.")
            case "delete" if module_id:
                await self._writes.delete_module(tx, hub, device_id, module_id, etag)
            case "delete":
                await self._writes.delete_device(tx, hub, device_id, etag)
            case action:
                item.require_complete()
                if action == "create" or (action == "createOrUpdate" and stored is None):
                    await self._create(tx, hub, item)
                else:
                    await self._update(tx, hub, item, etag)

    async def _create(self, tx: Transaction, hub: str, item: ExportImportDevice) -> None:
        device_id, module_id = item.key
        twin = item.initial_twin()
        if module_id:
            await self._writes.create_module(tx, hub, device_id, module_id, item.module, twin)
        else:
            await self._writes.create_device(tx, hub, device_id, item.device, twin)

    async def _update(self, tx: Transaction, hub: str, item: ExportImportDevice, etag: str) -> None:
        device_id, module_id = item.key
        if item.has_twin:
            raise ArgumentInvalidError(
                "tags and properties of what exists already are not changed here: write the twin itself."
            )
        if module_id:
            await self._writes.replace_module(tx, hub, device_id, module_id, item.module, etag)
        else:
            await self._writes.replace_device(tx, hub, device_id, item.device, etag)


def _etag(item: ExportImportDevice, *, required: bool) -> str:
    """The tag that what is stored must have. Raises PreconditionFailedError when it is required and missing."""
    if not required:
        return ANY
    if not item.etag:
        raise PreconditionFailedError(f"Etag missing: importMode {item.import_mode} needs an eTag.")
    return item.etag


def _operation(item: ExportImportDevice) -> str:
    """``CreateDevice``, ``UpdateModule``; for a mode that does not exist what was sent."""
    try:
        action = item.mode.action
    except ArgumentInvalidError:
        return item.import_mode or ""
    return f"{action[0].upper()}{action[1:]}{'Module' if item.module_id else 'Device'}"
