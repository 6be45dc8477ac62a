"""Every service below the front ends, built on an open database; and the identity of a new data directory.

Not here: rules of any service.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from muster.bus.bus import LocalBus
from muster.config import (
    DEVELOPMENT_ID_SCOPE,
    DEVELOPMENT_KEY,
    ConfigurationError,
    UpOptions,
)
from muster.data_directory import DataDirectory
from muster.domain.access_policy import AccessPolicy
from muster.domain.resource import resource_name
from muster.domain.revocation import Revocations
from muster.domain.throttle import Rates
from muster.dps.allocations import Allocations
from muster.dps.assignments import Assignments
from muster.dps.attestations import Attestations
from muster.dps.enrollments import Enrollments
from muster.dps.group_reviews import GroupReviews
from muster.dps.groups import CA_CERTIFICATES, GroupIndex
from muster.dps.issuances import Issuances
from muster.dps.quotas import Quota, Quotas
from muster.dps.registration_records import RegistrationRecords
from muster.dps.registrations import Registrations
from muster.dps.services import ProvisioningServices
from muster.dps.throttles import Throttles
from muster.dps.tpm_challenges import TpmChallenges
from muster.dps.tpm_dialogues import TpmDialogues
from muster.dps.webhook import HttpWebhook, Webhook
from muster.hub.access import ServiceAccess
from muster.hub.authentication import DeviceAuthentication
from muster.hub.authorities import HUB_CERTIFICATES, Authorities
from muster.hub.bulk_registry import BulkRegistry
from muster.hub.c2d_messages import C2dMessages
from muster.hub.consumer_groups import ConsumerGroups
from muster.hub.devices import Devices
from muster.hub.edge_scopes import EdgeScopes
from muster.hub.event_sweeper import EventSweeper
from muster.hub.events import EventLog
from muster.hub.feedback import Feedback
from muster.hub.grounds import Grounds
from muster.hub.hub_events import HubEvents
from muster.hub.hubs import DEFAULT_PARTITION_COUNT, Hubs
from muster.hub.identity_writes import IdentityWrites
from muster.hub.leaning_sessions import LeaningSessions
from muster.hub.message_sweeper import MessageSweeper
from muster.hub.methods import Methods
from muster.hub.modules import Modules
from muster.hub.partition_log import PartitionLog
from muster.hub.partition_readers import PartitionReaders
from muster.hub.queries import Queries
from muster.hub.reports import Reports
from muster.hub.revoked_sessions import RevokedSessions
from muster.hub.sessions import Sessions
from muster.hub.trust import HubTrust
from muster.hub.twins import Twins
from muster.hub.usage import HubUsage
from muster.server.place import Place
from muster.store.database import Database, DatabaseError
from muster.store.migration import migrate
from muster.store.postgres import open_postgres
from muster.store.sqlite import open_sqlite

Clock = Callable[[], int]
Entropy = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Services:
    """Everything below the front ends."""

    database: Database
    bus: LocalBus
    hubs: Hubs
    provisioning: ProvisioningServices
    devices: Devices
    modules: Modules
    edge_scopes: EdgeScopes
    bulk: BulkRegistry
    twins: Twins
    queries: Queries
    events: EventLog
    c2d: C2dMessages
    methods: Methods
    feedback: Feedback
    sweeper: MessageSweeper
    event_sweeper: EventSweeper
    sessions: Sessions
    reports: Reports
    enrollments: Enrollments
    groups: Enrollments
    authorities: Authorities
    hub_authorities: Authorities
    consumer_groups: ConsumerGroups
    partition_readers: PartitionReaders
    usage: HubUsage
    records: RegistrationRecords
    attestations: Attestations
    allocations: Allocations
    registrations: Registrations
    tpm_dialogues: TpmDialogues
    throttles: Throttles
    group_reviews: GroupReviews
    authentication: DeviceAuthentication
    revocations: Revocations
    revoked_sessions: RevokedSessions
    leaning_sessions: LeaningSessions
    access: ServiceAccess


async def open_services(options: UpOptions, directory: DataDirectory, place: Place, clock: Clock) -> Services:
    database = await _open_database(options, directory)
    try:
        await migrate(database, clock())
        services = build_services(
            database,
            LocalBus(),
            clock,
            os.urandom,
            HttpWebhook(),
            options.ca_directory or directory.ca_directory,
            rates=options.rates,
        )
        await _ensure_identity(services, place)
        _require_matching_keys(place, services, directory)
        await services.sessions.forget_all()
        await services.c2d.release_all()
    except BaseException:
        await database.close()
        raise
    return services


async def _open_database(options: UpOptions, directory: DataDirectory) -> Database:
    try:
        if options.database is not None:
            return await open_postgres(options.database)
        return await open_sqlite(directory.database, durable=not options.ephemeral)
    except DatabaseError as error:
        raise ConfigurationError(f"The database cannot be opened: {error}") from error


def build_services(
    database: Database,
    bus: LocalBus,
    clock: Clock,
    entropy: Entropy,
    webhook: Webhook,
    ca_directory: Path,
    *,
    rates: Rates | None = None,
    quotas: Quotas | None = None,
) -> Services:
    """Every service on an open, migrated database; at any rate and with Azure's quotas unless others are given.

    ``ca_directory``: where the CAs are that issue for devices.
    """
    throttles = Throttles(rates or Rates(), clock)
    quotas = quotas or Quotas()
    hubs = Hubs(database, bus, clock, entropy, any_host=True)
    provisioning = ProvisioningServices(database, bus, hubs, clock, entropy)
    reports = Reports(database, clock, entropy)
    events = EventLog(database, bus, clock)
    hub_events = HubEvents(hubs.get, events, bus, clock, entropy)
    writes = IdentityWrites(hub_events, clock, entropy)
    devices = Devices(database, bus, writes, clock)
    twins = Twins(database, bus, clock, hub_events.twin_changed)
    feedback = Feedback(database, bus, hubs, clock, entropy)
    enrollments = Enrollments("individual", database, bus, clock, entropy, quotas)
    groups = Enrollments("group", database, bus, clock, entropy, quotas)
    authorities = Authorities(CA_CERTIFICATES, database, bus, clock, entropy)
    hub_authorities = Authorities(HUB_CERTIFICATES, database, bus, clock, entropy)
    records = RegistrationRecords(database, clock)
    index = GroupIndex(groups, authorities, bus, clock)
    revocations = Revocations()
    attestations = Attestations(provisioning, enrollments, index, revocations, clock)
    allocations = Allocations(webhook)
    challenges = TpmChallenges(database, enrollments, clock, entropy)
    issuances = Issuances(ca_directory, clock)
    assignments = Assignments(
        database,
        provisioning,
        enrollments,
        groups,
        records,
        allocations,
        challenges,
        issuances,
        devices,
        reports,
        clock,
        entropy,
    )
    trust = HubTrust(hub_authorities, bus, clock)
    grounds = Grounds(hubs, trust)
    sessions = Sessions(database, bus, hub_events, grounds, clock, entropy)
    consumer_groups = ConsumerGroups(database, bus, clock)
    registrations = Registrations(
        database,
        provisioning,
        enrollments,
        groups,
        records,
        attestations,
        challenges,
        assignments,
        reports,
        Quota(database, clock, "registration", "registrations", quotas.registrations),
        throttles,
        clock,
        entropy,
    )
    return Services(
        database=database,
        bus=bus,
        hubs=hubs,
        provisioning=provisioning,
        devices=devices,
        modules=Modules(database, bus, writes, clock),
        edge_scopes=EdgeScopes(database, clock),
        bulk=BulkRegistry(database, bus, writes, twins, entropy),
        twins=twins,
        queries=Queries(database, clock),
        events=events,
        methods=Methods(devices, bus),
        c2d=C2dMessages(database, bus, hubs, clock, entropy),
        feedback=feedback,
        sweeper=MessageSweeper(database, bus, hubs, feedback, clock),
        event_sweeper=EventSweeper(database, hubs, clock),
        sessions=sessions,
        reports=reports,
        enrollments=enrollments,
        groups=groups,
        authorities=authorities,
        hub_authorities=hub_authorities,
        consumer_groups=consumer_groups,
        partition_readers=PartitionReaders(hubs, consumer_groups, events, PartitionLog(database, bus), bus),
        usage=HubUsage(database, clock),
        records=records,
        attestations=attestations,
        allocations=allocations,
        registrations=registrations,
        tpm_dialogues=TpmDialogues(challenges, reports, clock, entropy),
        throttles=throttles,
        group_reviews=GroupReviews(index, reports, clock),
        authentication=DeviceAuthentication(hubs, devices, trust, reports, revocations, clock),
        revocations=revocations,
        revoked_sessions=RevokedSessions(sessions, reports, revocations, clock),
        leaning_sessions=LeaningSessions(sessions, grounds, hubs, bus),
        access=ServiceAccess(reports, clock),
    )


async def _ensure_identity(services: Services, place: Place) -> None:
    """The hub and provisioning service of this data, made at the first start, served under this start's host name."""
    key = DEVELOPMENT_KEY if place.loopback else None
    await services.hubs.load()
    await services.provisioning.load()
    known = services.hubs.all
    for other in known[1:]:
        if other.host_name == place.host:
            raise ConfigurationError(
                f"{place.host} is where this Muster serves its hub {other.name}: start it on another address."
            )
    name = known[0].name if known else resource_name(place.host)
    hub = await services.hubs.ensure(name, place.host, partition_count=DEFAULT_PARTITION_COUNT, well_known_key=key)
    known_scope = services.provisioning.scope
    scope = known_scope or (DEVELOPMENT_ID_SCOPE if place.loopback else _new_id_scope())
    # Later it is the operator who links hubs, and unlinks them.
    linked = () if known_scope else (hub,)
    await services.provisioning.ensure(scope, place.host, linked, well_known_key=key)


def _new_id_scope() -> str:
    return f"0ne{os.urandom(4).hex().upper()}"


def _require_matching_keys(place: Place, services: Services, directory: DataDirectory) -> None:
    """Data with well-known keys is never served beyond loopback (DESIGN.md 5)."""
    policies = [one.policies for one in services.hubs.all] + [one.policies for one in services.provisioning.all]
    if not place.loopback and any(map(has_well_known_key, policies)):
        raise ConfigurationError(
            f"The data directory {directory.path} holds the well-known development keys, which must not be served on a"
            " network. Use another --data-dir: keys are generated there."
        )


def has_well_known_key(policies: Mapping[str, AccessPolicy]) -> bool:
    return any(DEVELOPMENT_KEY in policy.keys for policy in policies.values())
