"""The hubs of this Muster: which there are, under which host names, with which policies; and who may ask them for what.

Hubs and policies are few and change rarely, so they are held in memory and read again after a change. Not here:
devices.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from muster.bus.bus import Bus
from muster.domain.access_policy import HUB_POLICIES, AccessPolicy
from muster.domain.access_rules import AccessRuleBody, read_hub_policies
from muster.domain.c2d_message import C2dSettings
from muster.domain.device import new_key
from muster.domain.documents import encode, read
from muster.domain.errors import ConflictError, NotFoundError
from muster.domain.etag import require_match, resource_etag
from muster.domain.hub_event import EventSettings
from muster.domain.resource import ResourceFacts
from muster.hub.devices import identity_changed_subject
from muster.hub.message_queue import QUEUE_TABLES
from muster.store.database import Body, Database, Transaction

Clock = Callable[[], int]
Entropy = Callable[[int], bytes]

DEFAULT_PARTITION_COUNT = 4

HUBS_CHANGED = "hubs"
"""The bus subject on which a change of the hubs is told, after it is in memory on this node."""

_KEY_BYTES = 32
_ETAG_BYTES = 4

_TABLES = (
    "hub_certificate",
    "consumer_group",
    *QUEUE_TABLES,
    "mqtt_session",
    "twin",
    "connection",
    "identity",
    "hub_policy",
    "event_batch",
    "event_partition",
)
"""What is keyed by hub; the hub's own row goes last, and partitions after all that is written with events."""


@dataclass(frozen=True, slots=True)
class Hub:
    """One hub. ``name`` keys its rows and never changes; ``host_name`` is what clients dial and what ``assignedHub``
    says. ``etag`` and ``facts`` are what Resource Manager's clients see; ``c2d`` is how messages for devices are kept;
    ``events`` is what is written to the log beside telemetry.
    """

    name: str
    host_name: str
    partition_count: int
    policies: dict[str, AccessPolicy]
    etag: str = ""
    facts: ResourceFacts = field(default_factory=ResourceFacts)
    c2d: C2dSettings = field(default_factory=C2dSettings)
    events: EventSettings = field(default_factory=EventSettings)


class UnknownHubError(LookupError):
    """No hub is served under this name."""


class Hubs:
    """All hubs. ``any_host``: a host name that is not known means the first hub (``up``); otherwise it is refused."""

    def __init__(self, database: Database, bus: Bus, clock: Clock, entropy: Entropy, *, any_host: bool) -> None:
        self._database = database
        self._bus = bus
        self._clock = clock
        self._entropy = entropy
        self._any_host = any_host
        self._by_name: dict[str, Hub] = {}
        self._by_host: dict[str, Hub] = {}
        # One read after the other: the last one to end has to be the last one that began.
        self._loading = asyncio.Lock()

    @property
    def all(self) -> tuple[Hub, ...]:
        """The oldest first."""
        return tuple(self._by_name.values())

    def get(self, name: str) -> Hub | None:
        """By its exact name; any thread may ask."""
        return self._by_name.get(name)

    def by_name(self, name: str) -> Hub:
        """Raises UnknownHubError."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownHubError(name) from None

    def find(self, name: str) -> Hub | None:
        """By the name of the resource, in any case."""
        return next((hub for hub in self.all if hub.name.lower() == name.lower()), None)

    def by_host(self, host: str) -> Hub:
        """The hub that is dialled as ``host`` (a port is ignored). Raises UnknownHubError."""
        hub = self._by_host.get(host_without_port(host))
        if hub is None and self._any_host and self._by_name:
            return next(iter(self._by_name.values()))
        if hub is None:
            raise UnknownHubError(host)
        return hub

    async def ensure(
        self, name: str, host_name: str, *, partition_count: int, well_known_key: str | None = None
    ) -> Hub:
        """Create the hub with its five policies unless it exists; in any case serve it as ``host_name`` from now on."""

        async def body(tx: Transaction) -> None:
            updated = await tx.execute(
                "UPDATE hub SET host_name = :host_name WHERE name = :name", name=name, host_name=host_name
            )
            if not updated:
                await self._insert(tx, name, host_name, partition_count, ResourceFacts(), well_known_key)

        await self._database.transact(body)
        await self.load()
        return self.by_name(name)

    # Resource Manager

    async def create(
        self,
        name: str,
        host_name: str,
        facts: ResourceFacts,
        *,
        partition_count: int,
        well_known_key: str | None = None,
        policies: Sequence[AccessRuleBody] | None = None,
        c2d: C2dSettings | None = None,
        events: EventSettings | None = None,
    ) -> Hub:
        """A new hub with its five policies, or ``policies``.

        Raises ConflictError when there is one of this name or host name, and what ``read_hub_policies`` raises.
        """

        async def body(tx: Transaction) -> None:
            for row in await tx.fetch_all("SELECT name, host_name FROM hub"):
                if name.lower() == row[0].lower() or host_name.lower() == row[1].lower():
                    raise ConflictError(f"There is a hub {row[0]}, served as {row[1]}.")
            if not await self._insert(tx, name, host_name, partition_count, facts, well_known_key):
                raise ConflictError(f"Somebody else made a hub {name}, or one that is served as {host_name}.")
            if policies is not None:
                await self._replace_policies(tx, name, policies)
            if c2d is not None:
                await _set_c2d(tx, name, c2d)
            if events is not None:
                await _set_events(tx, name, events)

        await self._change(body)
        return self.by_name(name)

    async def update(
        self,
        name: str,
        etags: tuple[str | None, ...],
        facts: ResourceFacts,
        policies: Sequence[AccessRuleBody] | None = None,
        c2d: C2dSettings | None = None,
        events: EventSettings | None = None,
    ) -> Hub:
        """Change what is not the hub itself; ``policies`` replace all there were.

        Raises PreconditionFailedError unless all ``etags`` that are given match, NotFoundError, and what
        ``read_hub_policies`` raises.
        """

        async def body(tx: Transaction) -> None:
            await _require_hub(tx, name, etags)
            if policies is not None:
                await self._replace_policies(tx, name, policies)
            await tx.execute(
                "UPDATE hub SET document = :document, etag = :etag WHERE name = :name",
                name=name,
                document=encode(facts),
                etag=resource_etag(self._entropy(_ETAG_BYTES)),
            )
            if c2d is not None:
                await _set_c2d(tx, name, c2d)
            if events is not None:
                await _set_events(tx, name, events)

        await self._change(body)
        return self.by_name(name)

    async def remove(self, name: str, if_match: str | None, *, force: bool) -> None:
        """Remove a hub with all that is in it. Whoever is connected to it is told that its identity has changed.

        Raises ConflictError while it has devices, unless ``force``d; PreconditionFailedError and NotFoundError.
        """
        connected: list[str] = []

        async def body(tx: Transaction) -> None:
            await _require_hub(tx, name, (if_match,))
            row = await tx.fetch_one("SELECT count(*) FROM identity WHERE hub = :hub", hub=name)
            if row is not None and row[0] and not force:
                raise ConflictError(f"The hub {name} has devices, which would be lost with it: {row[0]}.")
            rows = await tx.fetch_all(
                "SELECT device_id FROM connection WHERE hub = :hub AND session_id IS NOT NULL", hub=name
            )
            connected[:] = [row[0] for row in rows]
            for table in _TABLES:
                await tx.execute(f"DELETE FROM {table} WHERE hub = :hub", hub=name)
            await tx.execute("DELETE FROM hub WHERE name = :name", name=name)

        await self._change(body)
        for device_id in connected:
            self._bus.publish(identity_changed_subject(name, device_id), b"")

    async def _change(self, body: Body[None]) -> None:
        await self._database.transact(body)
        await self.load()
        self._bus.publish(HUBS_CHANGED, b"")

    async def _insert(
        self,
        tx: Transaction,
        name: str,
        host_name: str,
        partition_count: int,
        facts: ResourceFacts,
        well_known_key: str | None,
    ) -> bool:
        """False when there is one of this name or host name."""
        # The first hub is the one that every start serves: it stays first, also when the clock was set back.
        row = await tx.fetch_one("SELECT max(created) FROM hub")
        latest = row[0] if row is not None and row[0] is not None else 0
        inserted = await tx.execute(
            "INSERT INTO hub (name, host_name, partition_count, created, etag, document)"
            " VALUES (:name, :host_name, :partition_count, :now, :etag, :document) ON CONFLICT DO NOTHING",
            name=name,
            host_name=host_name,
            partition_count=partition_count,
            now=max(self._clock(), latest + 1),
            etag=resource_etag(self._entropy(_ETAG_BYTES)),
            document=encode(facts),
        )
        if not inserted:
            return False
        policies = [
            AccessPolicy(policy, well_known_key or self._new_key(), well_known_key or self._new_key(), rights)
            for policy, rights in HUB_POLICIES.items()
        ]
        await _insert_policies(tx, name, policies)
        for partition in range(partition_count):
            await tx.execute(
                "INSERT INTO event_partition (hub, partition, next_sequence_number, next_offset) VALUES (:hub,"
                " :partition, 0, 0)",
                hub=name,
                partition=partition,
            )
        return True

    async def _replace_policies(self, tx: Transaction, hub: str, rules: Sequence[AccessRuleBody]) -> None:
        policies = read_hub_policies(rules, self._new_key)
        await tx.execute("DELETE FROM hub_policy WHERE hub = :hub", hub=hub)
        await _insert_policies(tx, hub, policies.values())

    def _new_key(self) -> str:
        return new_key(self._entropy(_KEY_BYTES))

    def follow(self, changed: Callable[[], None]) -> Callable[[], None]:
        """Call ``changed`` when hubs or policies are others than before; what is returned ends that."""
        return self._bus.subscribe(HUBS_CHANGED, lambda _message: changed()).close

    async def load(self) -> None:
        """Read all hubs and policies, the oldest hub first."""
        async with self._loading:
            self._by_name = await self._read_all()
            self._by_host = {hub.host_name.lower(): hub for hub in self.all}

    async def _read_all(self) -> dict[str, Hub]:
        hubs = await self._database.fetch_all(
            "SELECT name, host_name, partition_count, etag, document, c2d_settings, event_settings FROM hub"
            " ORDER BY created, name"
        )
        policies = await self._database.fetch_all(
            "SELECT hub, name, primary_key, secondary_key, rights FROM hub_policy ORDER BY name"
        )
        return {
            row[0]: Hub(
                name=row[0],
                host_name=row[1],
                partition_count=row[2],
                policies={item[1]: AccessPolicy(*item[1:]) for item in policies if item[0] == row[0]},
                etag=row[3],
                facts=read(row[4], ResourceFacts),
                c2d=read(row[5], C2dSettings),
                events=read(row[6], EventSettings),
            )
            for row in hubs
        }


async def _insert_policies(tx: Transaction, hub: str, policies: Iterable[AccessPolicy]) -> None:
    for policy in policies:
        await tx.execute(
            "INSERT INTO hub_policy (hub, name, primary_key, secondary_key, rights)"
            " VALUES (:hub, :name, :primary, :secondary, :rights)",
            hub=hub,
            name=policy.name,
            primary=policy.primary_key,
            secondary=policy.secondary_key,
            rights=policy.rights,
        )


async def _require_hub(tx: Transaction, name: str, etags: tuple[str | None, ...]) -> None:
    row = await tx.fetch_one("SELECT etag FROM hub WHERE name = :name {for_update}", name=name)
    if row is None:
        raise NotFoundError(f"There is no hub {name}.")
    for etag in etags:
        require_match(etag or None, row[0])


async def _set_c2d(tx: Transaction, name: str, settings: C2dSettings) -> None:
    await tx.execute("UPDATE hub SET c2d_settings = :settings WHERE name = :name", name=name, settings=encode(settings))


async def _set_events(tx: Transaction, name: str, settings: EventSettings) -> None:
    await tx.execute(
        "UPDATE hub SET event_settings = :settings WHERE name = :name", name=name, settings=encode(settings)
    )


def host_without_port(host: str) -> str:
    """``Host`` or user-name host in lower case, without a port; ``[::1]`` loses its brackets."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() and ":" not in name else host
