"""The hubs of this Muster: which there are, under which host names, with which policies; and who may ask them for what.

Hubs and policies are few and change rarely, so they are held in memory and read again after a change. Not here:
devices.
"""

from collections.abc import Callable
from dataclasses import dataclass

from muster.domain.access_policy import HUB_POLICIES, AccessPolicy
from muster.domain.device import new_key
from muster.store.database import Database, Transaction

Clock = Callable[[], int]
Entropy = Callable[[int], bytes]

DEFAULT_PARTITION_COUNT = 4
_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class Hub:
    """One hub. ``name`` keys its rows and never changes; ``host_name`` is what clients dial and what ``assignedHub``
    says.
    """

    name: str
    host_name: str
    partition_count: int
    policies: dict[str, AccessPolicy]


class UnknownHubError(LookupError):
    """No hub is served under this name."""


class Hubs:
    """All hubs. ``any_host``: a host name that is not known means the first hub (``up``); otherwise it is refused."""

    def __init__(self, database: Database, clock: Clock, entropy: Entropy, *, any_host: bool) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._any_host = any_host
        self._by_name: dict[str, Hub] = {}
        self._by_host: dict[str, Hub] = {}

    @property
    def all(self) -> tuple[Hub, ...]:
        return tuple(self._by_name.values())

    def by_name(self, name: str) -> Hub:
        """Raises UnknownHubError."""
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownHubError(name) from None

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
            await self._ensure(tx, name, host_name, partition_count, well_known_key)

        await self._database.transact(body)
        await self.load()
        return self.by_name(name)

    async def _ensure(
        self, tx: Transaction, name: str, host_name: str, partition_count: int, well_known_key: str | None
    ) -> None:
        updated = await tx.execute(
            "UPDATE hub SET host_name = :host_name WHERE name = :name", name=name, host_name=host_name
        )
        if updated:
            return
        await tx.execute(
            "INSERT INTO hub (name, host_name, partition_count, created) VALUES (:name, :host_name,"
            " :partition_count, :now)",
            name=name,
            host_name=host_name,
            partition_count=partition_count,
            now=self._clock(),
        )
        for policy, rights in HUB_POLICIES.items():
            await tx.execute(
                "INSERT INTO hub_policy (hub, name, primary_key, secondary_key, rights)"
                " VALUES (:hub, :name, :primary, :secondary, :rights)",
                hub=name,
                name=policy,
                primary=well_known_key or new_key(self._entropy(_KEY_BYTES)),
                secondary=well_known_key or new_key(self._entropy(_KEY_BYTES)),
                rights=rights,
            )
        for partition in range(partition_count):
            await tx.execute(
                "INSERT INTO event_partition (hub, partition, next_sequence_number, next_offset) VALUES (:hub,"
                " :partition, 0, 0)",
                hub=name,
                partition=partition,
            )

    async def load(self) -> None:
        """Read all hubs and policies, the oldest hub first."""
        hubs = await self._database.fetch_all("SELECT name, host_name, partition_count FROM hub ORDER BY created, name")
        policies = await self._database.fetch_all(
            "SELECT hub, name, primary_key, secondary_key, rights FROM hub_policy"
        )
        by_name = {}
        for name, host_name, partition_count in hubs:
            own = {row[1]: AccessPolicy(*row[1:]) for row in policies if row[0] == name}
            by_name[name] = Hub(name, host_name, partition_count, own)
        self._by_name = by_name
        self._by_host = {hub.host_name.lower(): hub for hub in by_name.values()}


def host_without_port(host: str) -> str:
    """``Host`` or user-name host in lower case, without a port; ``[::1]`` loses its brackets."""
    host = host.lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() and ":" not in name else host
