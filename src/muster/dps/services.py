"""The provisioning services of this Muster: id scopes, policies, linked hubs, and how Resource Manager changes them.

Held in memory, as hubs are, and read again after a change. Sources: dps.md 0.2, 5.1, 6.8, 7. Not here: enrollments,
registrations and CA certificates.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from muster.bus.bus import Bus
from muster.domain.access_policy import PROVISIONING_POLICIES, AccessPolicy
from muster.domain.access_rules import read_provisioning_policies
from muster.domain.allocation import LinkedHub, PolicyName
from muster.domain.device import new_key
from muster.domain.documents import encode, read
from muster.domain.errors import NotFoundError
from muster.domain.etag import require_match, resource_etag
from muster.domain.provisioning_resource import (
    ProvisioningBody,
    read_allocation_policy,
    read_linked_hubs,
    require_supported,
)
from muster.domain.resource import ResourceFacts, read_tags, resource_name
from muster.hub.hubs import Hub, Hubs
from muster.store.database import Body, Database, Row, Transaction

PROVISIONING_CHANGED = "provisioning-services"
"""The bus subject on which a change of a provisioning service is told, after it is in memory on this node."""

_KEY_BYTES = 32
_ETAG_BYTES = 4

_LINKED_HUBS = (
    "SELECT l.id_scope, h.name, h.host_name, l.policy, l.location, l.apply_allocation_policy, l.allocation_weight,"
    " l.latency FROM linked_hub l JOIN hub h ON h.name = l.hub"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvisioningService:
    """One instance. ``id_scope`` keys its rows; service clients find it by ``host_name``, devices by id scope, and
    Resource Manager's clients by ``name``.
    """

    id_scope: str
    name: str
    host_name: str
    allocation_policy: PolicyName
    policies: dict[str, AccessPolicy]
    linked_hubs: tuple[LinkedHub, ...]
    etag: str
    facts: ResourceFacts

    def hub_host(self, name: str | None) -> str | None:
        """The host name under which a hub is served now; the hub's name if it is not linked any more."""
        hosts = {hub.name: hub.host_name for hub in self.linked_hubs}
        return hosts.get(name, name) if name else None


class ProvisioningServices:
    """All instances; there is one in ``up``."""

    def __init__(
        self, database: Database, bus: Bus, hubs: Hubs, clock: Callable[[], int], entropy: Callable[[int], bytes]
    ) -> None:
        self._database = database
        self._bus = bus
        self._hubs = hubs
        self._clock = clock
        self._entropy = entropy
        self._by_scope: dict[str, ProvisioningService] = {}
        # One read after the other: the last one to end has to be the last one that began.
        self._loading = asyncio.Lock()

    @property
    def all(self) -> tuple[ProvisioningService, ...]:
        """The oldest first."""
        return tuple(self._by_scope.values())

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

    def find_by_name(self, name: str) -> ProvisioningService | None:
        """By the name of the resource, in any case."""
        return next((service for service in self.all if service.name.lower() == name.lower()), None)

    async def ensure(
        self, id_scope: str, host_name: str, linked: tuple[Hub, ...], *, well_known_key: str | None = None
    ) -> ProvisioningService:
        """Create the instance with its policy unless it exists; serve it as ``host_name`` and link ``linked`` hubs."""

        async def body(tx: Transaction) -> None:
            await self._ensure(tx, id_scope, host_name, well_known_key)
            for hub in linked:
                link = LinkedHub(name=hub.name, host_name=hub.host_name)
                await _insert_link(tx, id_scope, link)

        await self._database.transact(body)
        await self.load()
        service = self.find(id_scope)
        assert service is not None
        return service

    async def _ensure(self, tx: Transaction, id_scope: str, host_name: str, well_known_key: str | None) -> None:
        name = resource_name(host_name)
        updated = await tx.execute(
            "UPDATE provisioning_service SET host_name = :host_name,"
            " name = CASE WHEN name = '' THEN :name ELSE name END WHERE id_scope = :id_scope",
            host_name=host_name,
            name=name,
            id_scope=id_scope,
        )
        if updated:
            return
        await tx.execute(
            "INSERT INTO provisioning_service (id_scope, name, host_name, allocation_policy, created, etag)"
            " VALUES (:id_scope, :name, :host_name, 'hashed', :now, :etag)",
            id_scope=id_scope,
            name=name,
            host_name=host_name,
            now=self._clock(),
            etag=self._new_etag(),
        )
        policies = [
            AccessPolicy(policy, well_known_key or self._new_key(), well_known_key or self._new_key(), rights)
            for policy, rights in PROVISIONING_POLICIES.items()
        ]
        await _insert_policies(tx, id_scope, policies)

    # Resource Manager

    async def put(self, id_scope: str, body: ProvisioningBody, if_match: str | None) -> ProvisioningService:
        """Change an instance; what is not sent stays as dps.md 7.4 says.

        Raises PreconditionFailedError for another etag, in the header or in the body, and what the rules raise.
        """
        require_supported(body)
        properties = body.properties

        async def transaction(tx: Transaction) -> None:
            allocation_policy, facts = await self._locked(tx, id_scope, (if_match, body.etag))
            if properties.allocation_policy is not None:
                allocation_policy = read_allocation_policy(properties.allocation_policy)
            if properties.authorization_policies is not None:
                policies = read_provisioning_policies(properties.authorization_policies, self._new_key)
                await tx.execute("DELETE FROM provisioning_policy WHERE id_scope = :id_scope", id_scope=id_scope)
                await _insert_policies(tx, id_scope, policies.values())
            if properties.iot_hubs is not None:
                linked = [_linked_hub(row) for row in await tx.fetch_all(_LINKED_HUBS) if row[0] == id_scope]
                links = read_linked_hubs(properties.iot_hubs, linked, self._hubs.all)
                await tx.execute("DELETE FROM linked_hub WHERE id_scope = :id_scope", id_scope=id_scope)
                for link in links:
                    await _insert_link(tx, id_scope, link)
            await self._update(tx, id_scope, allocation_policy, body.facts(facts))

        return await self._changed(id_scope, transaction)

    async def put_tags(self, id_scope: str, tags: dict[str, str] | None, if_match: str | None) -> ProvisioningService:
        """Replace the tags and nothing else. Raises PreconditionFailedError and ArgumentInvalidError."""

        async def transaction(tx: Transaction) -> None:
            allocation_policy, facts = await self._locked(tx, id_scope, (if_match,))
            facts = msgspec.structs.replace(facts, tags=read_tags(tags))
            await self._update(tx, id_scope, allocation_policy, facts)

        return await self._changed(id_scope, transaction)

    async def _changed(self, id_scope: str, transaction: Body[None]) -> ProvisioningService:
        await self._database.transact(transaction)
        await self.load()
        self._bus.publish(PROVISIONING_CHANGED, b"")
        service = self.find(id_scope)
        assert service is not None, "instances are not deleted"
        return service

    @staticmethod
    async def _locked(tx: Transaction, id_scope: str, wanted: Sequence[str | None]) -> tuple[PolicyName, ResourceFacts]:
        """What is stored, until the transaction ends, if each of the ``wanted`` etags that are given is its own."""
        row = await tx.fetch_one(
            "SELECT allocation_policy, etag, document FROM provisioning_service WHERE id_scope = :id_scope"
            " {for_update}",
            id_scope=id_scope,
        )
        if row is None:
            raise NotFoundError(f"There is no provisioning service with the id scope {id_scope}.")
        for etag in wanted:
            require_match(etag or None, row[1])
        return row[0], read(row[2], ResourceFacts)

    async def _update(self, tx: Transaction, id_scope: str, policy: PolicyName, facts: ResourceFacts) -> None:
        await tx.execute(
            "UPDATE provisioning_service SET allocation_policy = :policy, document = :document, etag = :etag"
            " WHERE id_scope = :id_scope",
            policy=policy,
            document=encode(facts),
            etag=self._new_etag(),
            id_scope=id_scope,
        )

    def _new_key(self) -> str:
        return new_key(self._entropy(_KEY_BYTES))

    def _new_etag(self) -> str:
        return resource_etag(self._entropy(_ETAG_BYTES))

    async def load(self) -> None:
        """Read all instances, the oldest first."""
        async with self._loading:
            self._by_scope = await self._read_all()

    async def _read_all(self) -> dict[str, ProvisioningService]:
        services = await self._database.fetch_all(
            "SELECT id_scope, name, host_name, allocation_policy, etag, document FROM provisioning_service"
            " ORDER BY created, id_scope"
        )
        policies = await self._database.fetch_all(
            "SELECT id_scope, name, primary_key, secondary_key, rights FROM provisioning_policy ORDER BY name"
        )
        linked = await self._database.fetch_all(_LINKED_HUBS + " ORDER BY h.created, h.name")
        return {
            row[0].lower(): ProvisioningService(
                id_scope=row[0],
                name=row[1],
                host_name=row[2],
                allocation_policy=row[3],
                policies={item[1]: AccessPolicy(*item[1:]) for item in policies if item[0] == row[0]},
                linked_hubs=tuple(_linked_hub(item) for item in linked if item[0] == row[0]),
                etag=row[4],
                facts=read(row[5], ResourceFacts),
            )
            for row in services
        }


async def _insert_policies(tx: Transaction, id_scope: str, policies: Iterable[AccessPolicy]) -> None:
    for policy in policies:
        await tx.execute(
            "INSERT INTO provisioning_policy (id_scope, name, primary_key, secondary_key, rights)"
            " VALUES (:id_scope, :name, :primary, :secondary, :rights)",
            id_scope=id_scope,
            name=policy.name,
            primary=policy.primary_key,
            secondary=policy.secondary_key,
            rights=policy.rights,
        )


async def _insert_link(tx: Transaction, id_scope: str, link: LinkedHub) -> None:
    """A link that exists already stays as it is."""
    applies = link.apply_allocation_policy
    await tx.execute(
        "INSERT INTO linked_hub (id_scope, hub, policy, location, apply_allocation_policy, allocation_weight, latency)"
        " VALUES (:id_scope, :hub, :policy, :location, :applies, :weight, :latency)"
        " ON CONFLICT (id_scope, hub) DO NOTHING",
        id_scope=id_scope,
        hub=link.name,
        policy=link.policy,
        location=link.location,
        applies=None if applies is None else int(applies),
        weight=link.allocation_weight,
        latency=link.latency,
    )


def _linked_hub(row: Row) -> LinkedHub:
    return LinkedHub(
        name=row[1],
        host_name=row[2],
        policy=row[3],
        location=row[4],
        apply_allocation_policy=None if row[5] is None else bool(row[5]),
        allocation_weight=row[6],
        latency=row[7],
    )
