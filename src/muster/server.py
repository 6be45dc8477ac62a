"""The composition root: build everything from the options, run, drain, stop. The one place that names adapters.

Not here: rules of any service, and what is printed.
"""

import asyncio
import contextlib
import ipaddress
import logging
import os
import resource
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvloop

from muster.bus.bus import LocalBus
from muster.config import (
    AMQP_PORT,
    DEVELOPMENT_ID_SCOPE,
    DEVELOPMENT_KEY,
    HTTPS_FALLBACK_PORT,
    HTTPS_PORT,
    MQTT_PORT,
    ConfigurationError,
    UpOptions,
)
from muster.data_directory import DataDirectory
from muster.domain.access_policy import HUB_OWNER, PROVISIONING_OWNER, AccessPolicy
from muster.domain.resource import resource_name
from muster.domain.timestamp import SECOND, iso_utc
from muster.dps.allocations import Allocations
from muster.dps.attestations import Attestations
from muster.dps.authorities import Authorities
from muster.dps.enrollments import Enrollments
from muster.dps.groups import GroupIndex
from muster.dps.registration_records import RegistrationRecords
from muster.dps.registrations import Registrations
from muster.dps.services import PROVISIONING_CHANGED, ProvisioningServices
from muster.dps.tpm_challenges import TpmChallenges
from muster.dps.webhook import HttpWebhook, Webhook
from muster.frontends.amqp import AmqpRefusal
from muster.frontends.http import HttpFactory
from muster.frontends.listener import Listener, ListenError, Protocols
from muster.frontends.mqtt import MqttFrontEnd
from muster.frontends.rest.app import create_app
from muster.frontends.rest.arm import BearerAccess
from muster.frontends.rest.arm_hubs import HubResources
from muster.frontends.rest.arm_provisioning import ProvisioningResources
from muster.frontends.rest.dps_device import DpsDeviceApi
from muster.frontends.rest.dps_service import DpsServiceApi
from muster.frontends.rest.hub_service import HubServiceApi
from muster.frontends.rest.muster import MusterApi
from muster.frontends.rest.muster_provisioning import ProvisioningPreviewApi
from muster.frontends.rest.requests import Guard
from muster.frontends.served_hosts import Ports, ServedHosts
from muster.frontends.tls import ServerTls
from muster.frontends.trace import Tracer
from muster.frontends.websocket import WebSocketServices
from muster.hub.access import ServiceAccess
from muster.hub.authentication import DeviceAuthentication
from muster.hub.devices import Devices
from muster.hub.events import EventLog
from muster.hub.hubs import DEFAULT_PARTITION_COUNT, HUBS_CHANGED, Hubs
from muster.hub.reports import Reports
from muster.hub.sessions import Sessions
from muster.hub.twins import Twins
from muster.observe import set_up_logging
from muster.pki.authority import Credential
from muster.portal.app import Portal, create_portal
from muster.store.database import Database, DatabaseError
from muster.store.migration import migrate
from muster.store.postgres import open_postgres
from muster.store.sqlite import open_sqlite

_log = logging.getLogger("muster.server")

Clock = Callable[[], int]
Entropy = Callable[[int], bytes]
OnReady = Callable[[Mapping[str, Any]], None]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

DRAIN_SECONDS = 5.0


def run_up(options: UpOptions, on_ready: OnReady) -> int:
    """``muster up``: serve until SIGTERM or SIGINT; returns the exit code. Raises ConfigurationError."""
    set_up_logging(options.log_level, options.log_format)
    os.umask(0o077)
    _allow_connections()
    return uvloop.run(_up(options, on_ready))


def _allow_connections() -> None:
    """As many open files as this user may have: the usual soft limit of 1,024 is far below the listener's own."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a Muster serves: its host name, the names and addresses of its certificate, the addresses it binds."""

    host: str
    names: tuple[str, ...]
    addresses: tuple[Address, ...]
    bind: tuple[str, ...]
    loopback: bool


@dataclass(frozen=True, slots=True)
class Services:
    """Everything below the front ends."""

    database: Database
    bus: LocalBus
    hubs: Hubs
    provisioning: ProvisioningServices
    devices: Devices
    twins: Twins
    events: EventLog
    sessions: Sessions
    reports: Reports
    enrollments: Enrollments
    groups: Enrollments
    authorities: Authorities
    records: RegistrationRecords
    attestations: Attestations
    allocations: Allocations
    registrations: Registrations
    authentication: DeviceAuthentication
    access: ServiceAccess


async def _up(options: UpOptions, on_ready: OnReady) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    place = _place(options)
    with _data_directory(options) as directory:
        async with contextlib.AsyncExitStack() as stack:
            clock = _clock(options.clock_offset)
            services = await _open_services(options, directory, place, clock)
            stack.push_async_callback(services.database.close)
            resumed = await services.registrations.start()
            stack.push_async_callback(services.registrations.stop)
            server = _Server(options, directory, place, services, clock)
            await server.start(stack)
            if resumed:
                _log.info("%d interrupted registrations are being finished", resumed)
            on_ready(server.status)
            await stop.wait()
            _log.info("stopping")
    return 0


def _clock(offset: int) -> Clock:
    """Microseconds UTC: the machine's time, shifted by ``--clock``."""
    return lambda: time.time_ns() // 1000 + offset


def _place(options: UpOptions) -> _Place:
    """Raises ConfigurationError for an address that cannot be served so."""
    if options.host_name is not None:
        listen = options.listen or "0.0.0.0"  # noqa: S104 - asked for with --host-name: devices on a network are to reach it
        return _named_place(options.host_name, listen)
    bind = options.addresses or ("127.0.0.1", "::1")
    addresses = tuple(_address(text) for text in bind)
    for address in addresses:
        if not address.is_loopback:
            raise ConfigurationError(
                f"{address} is not a loopback address, and the development identity has well-known keys."
                f" For devices on a network: muster up --host-name NAME --listen {address}"
            )
    plain = "127.0.0.1" in bind
    host = "localhost" if plain else str(addresses[0])
    return _Place(host, ("localhost",) if plain else (), addresses, tuple(str(one) for one in addresses), loopback=True)


def _named_place(host: str, listen: str) -> _Place:
    bound = _address(listen)
    addresses = () if bound.is_unspecified else (bound,)
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        return _Place(host.lower(), (host.lower(),), addresses, (listen,), loopback=False)
    return _Place(host, (), tuple(dict.fromkeys((literal, *addresses))), (listen,), loopback=False)


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise ConfigurationError(f"{text!r} is not an IP address such as 127.0.0.2.") from None


@contextlib.contextmanager
def _data_directory(options: UpOptions) -> Iterator[DataDirectory]:
    path = options.data_directory
    if options.ephemeral:
        runtime = os.environ.get("XDG_RUNTIME_DIR") or None
        path = Path(tempfile.mkdtemp(prefix="muster-", dir=runtime))
    directory = DataDirectory(path, ephemeral=options.ephemeral)
    try:
        yield directory
    finally:
        directory.close()


async def _open_services(options: UpOptions, directory: DataDirectory, place: _Place, clock: Clock) -> Services:
    database = await _open_database(options, directory)
    try:
        await migrate(database, clock())
        services = build_services(database, LocalBus(), clock, os.urandom, HttpWebhook())
        await _ensure_identity(services, place)
        _require_matching_keys(place, services, directory)
        await services.sessions.forget_all()
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


def build_services(database: Database, bus: LocalBus, clock: Clock, entropy: Entropy, webhook: Webhook) -> Services:
    """Every service on an open, migrated database."""
    hubs = Hubs(database, bus, clock, entropy, any_host=True)
    provisioning = ProvisioningServices(database, bus, hubs, clock, entropy)
    reports = Reports(database, clock, entropy)
    devices = Devices(database, bus, clock, entropy)
    enrollments = Enrollments("individual", database, bus, clock, entropy)
    groups = Enrollments("group", database, bus, clock, entropy)
    authorities = Authorities(database, bus, clock, entropy)
    records = RegistrationRecords(database, clock)
    index = GroupIndex(groups, authorities, bus, clock)
    attestations = Attestations(provisioning, enrollments, index, clock)
    allocations = Allocations(webhook)
    challenges = TpmChallenges(database, enrollments, clock, entropy)
    registrations = Registrations(
        database,
        provisioning,
        enrollments,
        groups,
        records,
        attestations,
        allocations,
        challenges,
        devices,
        reports,
        clock,
        entropy,
    )
    return Services(
        database=database,
        bus=bus,
        hubs=hubs,
        provisioning=provisioning,
        devices=devices,
        twins=Twins(database, devices),
        events=EventLog(database, bus, clock),
        sessions=Sessions(database, bus, clock, entropy),
        reports=reports,
        enrollments=enrollments,
        groups=groups,
        authorities=authorities,
        records=records,
        attestations=attestations,
        allocations=allocations,
        registrations=registrations,
        authentication=DeviceAuthentication(devices, reports, clock),
        access=ServiceAccess(reports, clock),
    )


async def _ensure_identity(services: Services, place: _Place) -> None:
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


def _require_matching_keys(place: _Place, services: Services, directory: DataDirectory) -> None:
    """Data with well-known keys is never served beyond loopback (DESIGN.md 5)."""
    policies = [one.policies for one in services.hubs.all] + [one.policies for one in services.provisioning.all]
    if not place.loopback and any(map(_has_well_known_key, policies)):
        raise ConfigurationError(
            f"The data directory {directory.path} holds the well-known development keys, which must not be served on a"
            " network. Use another --data-dir: keys are generated there."
        )


def _has_well_known_key(policies: Mapping[str, AccessPolicy]) -> bool:
    return any(DEVELOPMENT_KEY in policy.keys for policy in policies.values())


class _ServerCertificate:
    """The certificate of the TLS ports, issued by the CA of the data directory at each start and for each new host."""

    def __init__(self, directory: DataDirectory, place: _Place) -> None:
        self._directory = directory
        credential = self._issue(place.names, place.addresses)
        self.tls = ServerTls(credential.certificate_pem, credential.key_pem)

    def outside(self, names: Sequence[str], addresses: Sequence[Address]) -> list[str]:
        return self._directory.outside(names, addresses)

    def renew(self, names: Sequence[str], addresses: Sequence[Address]) -> None:
        credential = self._issue(names, addresses)
        self.tls.replace_certificate(credential.certificate_pem, credential.key_pem)

    def _issue(self, names: Sequence[str], addresses: Sequence[Address]) -> Credential:
        """By the real time: clients judge certificates by their own clocks."""
        return self._directory.server_certificate(names, addresses, time.time_ns() // 1000)


class _Server:
    """The listeners of one Muster and what they report of themselves."""

    def __init__(
        self, options: UpOptions, directory: DataDirectory, place: _Place, services: Services, clock: Clock
    ) -> None:
        self._options = options
        self._directory = directory
        self._place = place
        self._services = services
        self._clock = clock
        self._started = clock()
        self._start_token = None if place.loopback else os.urandom(16).hex()
        self._certificate = _ServerCertificate(directory, place)
        ports = Ports(MQTT_PORT, AMQP_PORT, HTTPS_PORT, HTTPS_FALLBACK_PORT)
        self._hosts = ServedHosts(self._certificate, ports, place.names, place.addresses, loopback=place.loopback)

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Listen everywhere; ``stack`` gets what undoes it. Raises ConfigurationError when a port cannot be had."""
        tracer = Tracer(self._options.trace, self._clock) if self._options.trace else None
        if tracer is not None:
            stack.callback(tracer.close)
        host_names = frozenset({self._place.host, *self._place.names, "localhost", "127.0.0.1", "::1"})
        protocols = self._protocols()
        stack.push_async_callback(self._https.finish, DRAIN_SECONDS)
        listener = Listener(
            protocols,
            tls=self._certificate.tls,
            tap_factory=tracer.tap if tracer else None,
        )
        stack.push_async_callback(listener.drain, DRAIN_SECONDS)
        portal = self._portal(host_names)
        pages = HttpFactory(portal, clock=self._clock)
        stack.push_async_callback(pages.finish, DRAIN_SECONDS)
        portal_listener = Listener(Protocols(http=pages), tls=None)
        stack.push_async_callback(portal_listener.close)
        # Before the listeners drain: whoever follows something would otherwise hold them up.
        stack.callback(portal.close)
        stack.callback(self._services.events.close)
        try:
            await self._listen(listener, portal_listener)
        except ListenError as error:
            raise ConfigurationError(f"{error}.") from error
        for subject in (HUBS_CHANGED, PROVISIONING_CHANGED):
            subscription = self._services.bus.subscribe(subject, lambda _message: self._write_status())
            stack.callback(subscription.close)
        self._write_status()

    def _protocols(self) -> Protocols:
        services = self._services
        guard = Guard(services.reports.new_tracking_id, self._clock)
        dps = DpsServiceApi(
            services.provisioning, services.enrollments, services.groups, services.records, services.access
        )
        device = DpsDeviceApi(services.provisioning, services.registrations, services.records, self._clock)
        hub = HubServiceApi(services.hubs, services.devices, services.twins, services.access)
        muster = MusterApi(
            services.hubs,
            services.provisioning,
            services.events,
            services.reports,
            services.access,
            self._hosts,
            self.describe,
        )
        mqtt = MqttFrontEnd(
            services.hubs,
            services.authentication,
            services.sessions,
            services.events,
            services.registrations,
            self._clock,
        )
        apis = (dps, device, hub, muster, self._preview(), *self._management())
        app = create_app([route for api in apis for route in api.routes(guard)], guard)
        websockets = WebSocketServices(mqtt=mqtt.protocol, amqp=AmqpRefusal)
        self._https = HttpFactory(app, clock=self._clock, websockets=websockets, server="Microsoft-HTTPAPI/2.0")
        return Protocols(http=self._https, mqtt=mqtt.protocol, amqp=AmqpRefusal)

    def _preview(self) -> ProvisioningPreviewApi:
        services = self._services
        return ProvisioningPreviewApi(
            services.provisioning,
            services.enrollments,
            services.groups,
            services.records,
            services.attestations,
            services.allocations,
            services.access,
            self._hosts,
        )

    def _management(self) -> tuple[ProvisioningResources, HubResources]:
        services = self._services
        access = BearerAccess(self._directory.token_key(), self._clock)
        # Keys of a new hub are as well known as those of the first one, and no more.
        key = DEVELOPMENT_KEY if self._place.loopback and _has_well_known_key(services.hubs.all[0].policies) else None
        return (
            ProvisioningResources(services.provisioning, services.authorities, access),
            HubResources(services.hubs, services.provisioning, self._hosts, access, key),
        )

    def _portal(self, host_names: frozenset[str]) -> Portal:
        services = self._services
        return create_portal(
            provisioning=services.provisioning,
            enrollments=services.enrollments,
            records=services.records,
            hubs=services.hubs,
            events=services.events,
            reports=services.reports,
            host_names=host_names,
            clock=self._clock,
            start_token=self._start_token,
            ca_certificate=self._directory.ca_file.read_bytes(),
            describe=self.describe,
        )

    async def _listen(self, listener: Listener, portal: Listener) -> None:
        default = not self._options.addresses
        await self._hosts.open(listener, self._place.bind, optional="::1" if default else None)
        for address in self._hosts.bound:
            await portal.listen(address, self._options.portal_port)
        await self._hosts.restore(hub.host_name for hub in self._services.hubs.all[1:])

    def _write_status(self) -> None:
        self._directory.write_status(self.status)

    def describe(self) -> dict[str, Any]:
        """What anyone may know; no secrets."""
        services = self._services
        return {
            "version": version("muster-iot"),
            "mode": "up",
            "uptimeSeconds": (self._clock() - self._started) // SECOND,
            "clockOffsetSeconds": self._options.clock_offset // SECOND,
            "idScope": services.provisioning.first.id_scope,
            "provisioningHost": services.provisioning.first.host_name,
            "hubs": [{"name": hub.name, "host": hub.host_name} for hub in services.hubs.all],
            "persistence": self._persistence(),
            "endpoints": self._hosts.endpoints,
        }

    def _persistence(self) -> str:
        if self._options.database is not None:
            return "PostgreSQL"
        if self._options.ephemeral:
            return "ephemeral: everything is removed at the end"
        return f"SQLite in {self._directory.path}"

    @property
    def status(self) -> dict[str, Any]:
        """The content of ``status.json``, secrets included."""
        services = self._services
        provisioning = services.provisioning.first
        hubs = services.hubs.all
        return {
            "version": version("muster-iot"),
            "pid": os.getpid(),
            "mode": "up",
            "started": iso_utc(self._started),
            "clockOffsetSeconds": self._options.clock_offset // SECOND,
            "dataDirectory": str(self._directory.path),
            "persistence": self._persistence(),
            "caFile": str(self._directory.ca_file),
            "trustFile": str(self._directory.trust_file),
            "provisioningService": {
                "host": provisioning.host_name,
                "idScope": provisioning.id_scope,
                "connectionString": _connection_string(
                    provisioning.host_name, provisioning.policies[PROVISIONING_OWNER]
                ),
            },
            "hubs": [
                {
                    "name": hub.name,
                    "host": hub.host_name,
                    "connectionString": _connection_string(hub.host_name, hub.policies[HUB_OWNER]),
                }
                for hub in hubs
            ],
            "endpoints": self._hosts.endpoints,
            "httpsPort": self._hosts.https_port,
            "addresses": self._hosts.bound,
            "portal": self._portal_address(),
            "wellKnownIdentity": all(
                policy.primary_key == DEVELOPMENT_KEY
                for policy in (provisioning.policies[PROVISIONING_OWNER], *(hub.policies[HUB_OWNER] for hub in hubs))
            ),
        }

    def _portal_address(self) -> str:
        host = f"[{self._place.host}]" if ":" in self._place.host else self._place.host
        query = f"?token={self._start_token}" if self._start_token else ""
        return f"http://{host}:{self._options.portal_port}/{query}"


def _connection_string(host: str, policy: AccessPolicy) -> str:
    return f"HostName={host};SharedAccessKeyName={policy.name};SharedAccessKey={policy.primary_key}"
