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
from muster.domain.twin import TwinWrite
from muster.hub.devices import identity_changed_subject
from muster.hub.identity_records import lock_identity
from muster.hub.identity_writes import IdentityWrites
from muster.hub.twins import Twins
from muster.store.database import Database, DatabaseError, Transaction

_TwinChange = tuple[str, str, TwinWrite]
"""Device and module id, and what was written of the twin."""


@dataclass(frozen=True, slots=True)
class Rotation:
    """What became of a request for new keys."""

    policy_key: str
    identities: list[Identity]
    errors: list[ItemError]


class BulkRegistry:
    """Bulk operations of all hubs; each names its hub."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        writes: IdentityWrites,
        twins: Twins,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._database = database
        self._bus = bus
        self._writes = writes
        self._twins = twins
        self._entropy = entropy

    async def write(self, hub: str, items: Sequence[ExportImportDevice]) -> list[ItemError]:
        """Do what each item asks for; returns those that failed, in the order of ``items``.

        They are written in the order of their ids, devices before their modules: requests that write the same
        identities at the same time then wait for each other, and none has to be given up.

        Raises TooManyDevicesError, DeviceDefinedTwiceError, ArgumentNullError for an item without an id, and
        ArgumentInvalidError for one whose id has a NUL: then nothing is done.
        """
        require_bulk(items)

        async def transaction(tx: Transaction) -> tuple[list[ItemError], list[_TwinChange]]:
            errors, changes = {}, []
            for item in sorted(items, key=lambda item: item.key):
                try:
                    write = await self._write(tx, hub, item)
                except DatabaseError:
                    raise
                except ServiceError as error:
                    errors[item.key] = ItemError(*item.key, _operation(item), error)
                else:
                    changes += [] if write is None else [(*item.key, write)]
            return [errors[item.key] for item in items if item.key in errors], changes

        errors, changes = await self._database.transact(transaction)
        self._announce(hub, [item.key[0] for item in items])
        for device_id, module_id, write in changes:
            self._twins.announce(hub, device_id, module_id, write)
        return errors

    async def rotate_keys(self, hub: str, body: KeyRotationBody) -> Rotation:
        """New keys, or keys that change places. Raises ArgumentInvalidError, ArgumentNullError, TooManyDevicesError."""
        policy_key = body.require_valid()
        keys = [item.key for item in body.devices]

        async def transaction(tx: Transaction) -> Rotation:
            rotation = Rotation(policy_key, [], [])
            for device_id, module_id in sorted(keys):
                try:
                    stored = await self._stored(tx, hub, device_id, module_id)
                    new = rotated(stored, policy_key, lambda: new_key(self._entropy(32)))
                    rotation.identities.append(await self._writes.set_keys(tx, hub, stored, *new))
                except DatabaseError:
                    raise
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

    async def _write(self, tx: Transaction, hub: str, item: ExportImportDevice) -> TwinWrite | None:
        """What was written of the twin of an identity that existed. Raises what the item is told."""
        device_id, module_id = item.key
        mode = item.mode
        if module_id and await lock_identity(tx, hub, device_id) is None:
            raise DeviceNotFoundError(device_id)
        if mode.action == "updateTwin":
            decided = await self._decide_twin(tx, hub, item, required=mode.needs_etag)
            return await self._write_twin(tx, hub, item, decided)
        stored = await lock_identity(tx, hub, device_id, module_id)
        etag = _etag(item, required=mode.needs_etag and (stored is not None or mode.action != "createOrUpdate"))
        if mode.action == "delete":
            await self._delete(tx, hub, item, etag)
            return None
        item.require_complete()
        if mode.action == "create" or (mode.action == "createOrUpdate" and stored is None):
            await self._create(tx, hub, item)
            return None
        twin = await self._decide_twin(tx, hub, item, required=False) if item.has_twin and stored else None
        await self._update(tx, hub, item, etag)
        return await self._write_twin(tx, hub, item, twin)

    async def _delete(self, tx: Transaction, hub: str, item: ExportImportDevice, etag: str) -> None:
        device_id, module_id = item.key
        if module_id:
            await self._writes.delete_module(tx, hub, device_id, module_id, etag)
        else:
            await self._writes.delete_device(tx, hub, device_id, etag)

    async def _create(self, tx: Transaction, hub: str, item: ExportImportDevice) -> None:
        device_id, module_id = item.key
        twin = item.initial_twin()
        if module_id:
            await self._writes.create_module(tx, hub, device_id, module_id, item.module, twin)
        else:
            await self._writes.create_device(tx, hub, device_id, item.device, twin)

    async def _update(self, tx: Transaction, hub: str, item: ExportImportDevice, etag: str) -> None:
        device_id, module_id = item.key
        if module_id:
            await self._writes.replace_module(tx, hub, device_id, module_id, item.module, etag)
        else:
            await self._writes.replace_device(tx, hub, device_id, item.device, etag)

    async def _decide_twin(
        self, tx: Transaction, hub: str, item: ExportImportDevice, *, required: bool
    ) -> TwinWrite | None:
        """The patch of the twin, before anything of the item is written; ``required``: it needs a tag."""
        if required and not item.twin_e_tag:
            raise PreconditionFailedError(f"Etag missing: importMode {item.import_mode} needs a twinETag.")
        etag = item.twin_e_tag if item.mode.needs_etag else None
        return await self._twins.decide_patch(tx, hub, *item.key, item.twin, etag)

    async def _write_twin(
        self, tx: Transaction, hub: str, item: ExportImportDevice, write: TwinWrite | None
    ) -> TwinWrite | None:
        if write is not None:
            await self._twins.write(tx, hub, *item.key, write)
        return write


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
