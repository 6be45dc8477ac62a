"""The provisioning services of this Muster: id scopes, policies, linked hubs. Sources: dps.md 0.2, 5.1, 6.8.

Held in memory, as hubs are, and read again after a change. Not here: enrollments and registrations.
"""

from collections.abc import Callable
from dataclasses import dataclass

from muster.domain.access_policy import PROVISIONING_POLICIES, AccessPolicy
from muster.domain.allocation import LinkedHub, PolicyName
from muster.domain.device import new_key
from muster.hub.hubs import Hub
from muster.store.database import Database, Row, Transaction

_KEY_BYTES = 32


@dataclass(frozen=True, slots=True)
class ProvisioningService:
    """One instance. ``id_scope`` keys its rows; service clients find it by ``host_name``, devices by id scope."""

    id_scope: str
    host_name: str
    allocation_policy: PolicyName
    policies: dict[str, AccessPolicy]
    linked_hubs: tuple[LinkedHub, ...]

    def hub_host(self, name: str | None) -> str | None:
        """The host name under which a hub is served now; the hub's name if it is not linked any more."""
        hosts = {hub.name: hub.host_name for hub in self.linked_hubs}
        return hosts.get(name, name) if name else None


class ProvisioningServices:
    """All instances; there is one in ``up``."""

    def __init__(self, database: Database, clock: Callable[[], int], entropy: Callable[[int], bytes]) -> None:
        self._database = database
        self._clock = clock
        self._entropy = entropy
        self._by_scope: dict[str, ProvisioningService] = {}

    @property
    def first(self) -> ProvisioningService:
        """The instance that answers service clients."""
        return next(iter(self._by_scope.values()))

    @property
    def scope(self) -> str | None:
        """The id scope of the first instance, None while there is none."""
        return self.first.id_scope if self._by_scope else None

    def find(self, id_scope: str) -> ProvisioningService | None:
        """By id scope, whose hex digits come in either case (dps.md 0.2)."""
        return self._by_scope.get(id_scope.lower())

    async def ensure(
        self, id_scope: str, host_name: str, linked: tuple[Hub, ...], *, well_known_key: str | None = None
    ) -> ProvisioningService:
        """Create the instance with its policy unless it exists; serve it as ``host_name`` and link ``linked`` hubs."""

        async def body(tx: Transaction) -> None:
            await self._ensure(tx, id_scope, host_name, well_known_key)
            for hub in linked:
                await tx.execute(
                    "INSERT INTO linked_hub (id_scope, hub, apply_allocation_policy, allocation_weight)"
                    " VALUES (:id_scope, :hub, 1, 1) ON CONFLICT (id_scope, hub) DO NOTHING",
                    id_scope=id_scope,
                    hub=hub.name,
                )

        await self._database.transact(body)
        await self.load()
        service = self.find(id_scope)
        assert service is not None
        return service

    async def _ensure(self, tx: Transaction, id_scope: str, host_name: str, well_known_key: str | None) -> None:
        updated = await tx.execute(
            "UPDATE provisioning_service SET host_name = :host_name WHERE id_scope = :id_scope",
            host_name=host_name,
            id_scope=id_scope,
        )
        if updated:
            return
        await tx.execute(
            "INSERT INTO provisioning_service (id_scope, host_name, allocation_policy, created)"
            " VALUES (:id_scope, :host_name, 'hashed', :now)",
            id_scope=id_scope,
            host_name=host_name,
            now=self._clock(),
        )
        for policy, rights in PROVISIONING_POLICIES.items():
            await tx.execute(
                "INSERT INTO provisioning_policy (id_scope, name, primary_key, secondary_key, rights)"
                " VALUES (:id_scope, :name, :primary, :secondary, :rights)",
                id_scope=id_scope,
                name=policy,
                primary=well_known_key or new_key(self._entropy(_KEY_BYTES)),
                secondary=well_known_key or new_key(self._entropy(_KEY_BYTES)),
                rights=rights,
            )

    async def load(self) -> None:
        """Read all instances, the oldest first."""
        services = await self._database.fetch_all(
            "SELECT id_scope, host_name, allocation_policy FROM provisioning_service ORDER BY created, id_scope"
        )
        policies = await self._database.fetch_all(
            "SELECT id_scope, name, primary_key, secondary_key, rights FROM provisioning_policy"
        )
        linked = await self._database.fetch_all(
            "SELECT l.id_scope, h.name, h.host_name, l.apply_allocation_policy, l.allocation_weight, l.latency"
            " FROM linked_hub l JOIN hub h ON h.name = l.hub ORDER BY h.created, h.name"
        )
        self._by_scope = {
            id_scope.lower(): ProvisioningService(
                id_scope,
                host_name,
                policy,
                {row[1]: AccessPolicy(*row[1:]) for row in policies if row[0] == id_scope},
                tuple(_linked_hub(row) for row in linked if row[0] == id_scope),
            )
            for id_scope, host_name, policy in services
        }


def _linked_hub(row: Row) -> LinkedHub:
    return LinkedHub(
        name=row[1],
        host_name=row[2],
        apply_allocation_policy=bool(row[3]),
        allocation_weight=row[4],
        latency=row[5],
    )
