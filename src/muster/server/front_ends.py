"""The front ends of one Muster, wired to its services: listeners, APIs, the portal.

Not here: rules of any protocol.
"""

import contextlib
import logging
import os
from collections.abc import Callable

from muster.config import (
    AMQP_PORT,
    DEVELOPMENT_KEY,
    HTTPS_FALLBACK_PORT,
    HTTPS_PORT,
    MQTT_PORT,
    ConfigurationError,
    UpOptions,
)
from muster.data_directory import DataDirectory
from muster.dps.services import PROVISIONING_CHANGED
from muster.faults.amqp import FaultyAmqp
from muster.faults.https import FaultyEventLog
from muster.faults.mqtt import FaultyMqtt
from muster.frontends.amqp.claims import ClaimServices
from muster.frontends.amqp.connection import AmqpProtocol
from muster.frontends.amqp.devices import AmqpDevices
from muster.frontends.amqp.dps import DpsLinks
from muster.frontends.amqp.events import EventEndpoint
from muster.frontends.amqp.feedback import FeedbackLinks
from muster.frontends.amqp.front_end import AmqpFrontEnd
from muster.frontends.amqp.service import DeviceboundLinks
from muster.frontends.device_services import DeviceServices
from muster.frontends.http import HttpFactory
from muster.frontends.listener import Listener, ListenError, Peer, PortTakenError, Protocols
from muster.frontends.mqtt.connection import MqttProtocol
from muster.frontends.mqtt.front_end import MqttFrontEnd
from muster.frontends.rest.arm import BearerAccess
from muster.frontends.served_hosts import Ports, ServedHosts
from muster.frontends.trace import Tracer
from muster.frontends.websocket import WebSocketServices
from muster.hub.hubs import HUBS_CHANGED
from muster.portal.app import Portal, create_portal
from muster.server.certificate import ServerCertificate
from muster.server.description import Description
from muster.server.place import Place
from muster.server.rest import hub_apis, management_apis, muster_api, provisioning_apis, rest_app
from muster.server.services import Clock, Services, has_well_known_key

_log = logging.getLogger("muster.server")

DRAIN_SECONDS = 5.0


class Server:
    """The listeners of one Muster and what they report of themselves."""

    def __init__(
        self, options: UpOptions, directory: DataDirectory, place: Place, services: Services, clock: Clock
    ) -> None:
        self._options = options
        self._directory = directory
        self._place = place
        self._services = services
        self._clock = clock
        self._start_token = None if place.loopback else os.urandom(16).hex()
        self._certificate = ServerCertificate(directory, place)
        ports = Ports(MQTT_PORT, AMQP_PORT, HTTPS_PORT, HTTPS_FALLBACK_PORT)
        self._hosts = ServedHosts(self._certificate, ports, place.names, place.addresses, loopback=place.loopback)
        self.description = Description(options, directory, place, services, self._hosts, self._start_token, clock)

    async def start(self, stack: contextlib.AsyncExitStack) -> None:
        """Listen everywhere; ``stack`` gets what undoes it. Raises ConfigurationError when a port, or the
        file of the trace, cannot be had.
        """
        tracer = self._tracer()
        if tracer is not None:
            stack.callback(tracer.close)
        protocols = self._protocols()
        stack.push_async_callback(self._https.finish, DRAIN_SECONDS)
        listener = Listener(
            protocols,
            tls=self._certificate.tls,
            tap_factory=tracer.tap if tracer else None,
        )
        stack.push_async_callback(listener.drain, DRAIN_SECONDS)
        portal = self._portal(frozenset({self._place.host, *self._hosts.hosts}))
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
            raise ConfigurationError(f"{error}{self._other_place(error)}.") from error
        for subject in (HUBS_CHANGED, PROVISIONING_CHANGED):
            subscription = self._services.bus.subscribe(subject, lambda _message: self._write_status())
            stack.callback(subscription.close)
        self._write_status()

    def _tracer(self) -> Tracer | None:
        file = self._options.trace
        if file is None:
            return None
        try:
            return Tracer(file, self._clock)
        except OSError as error:
            raise ConfigurationError(f"The trace {file} cannot be written: {error.strerror}.") from error

    def _other_place(self, error: ListenError) -> str:
        """The option by which a taken port is evaded, if there is one."""
        if not isinstance(error, PortTakenError):
            return ""
        if error.port == self._options.portal_port:
            return ", for the portal by --portal-port"
        return ", such as `muster up --address 127.0.0.2`" if self._place.loopback else ""

    def _protocols(self) -> Protocols:
        services = self._services
        mqtt = self._mqtt()
        telemetry = FaultyEventLog(services.events) if self._options.fault_injection else None
        # Keys of a new hub are as well known as those of the first one, and no more.
        key = DEVELOPMENT_KEY if self._place.loopback and has_well_known_key(services.hubs.all[0].policies) else None
        access = BearerAccess(self._directory.token_key(), self._clock)
        apis = [
            *provisioning_apis(services, self._clock, self._hosts),
            *hub_apis(services, self._hosts, telemetry),
            muster_api(services, self._hosts, self.description.describe),
            *management_apis(services, self._hosts, access, key),
        ]
        app = rest_app(services, self._clock, apis)
        amqp = self._amqp()
        websockets = WebSocketServices(mqtt=mqtt, amqp=amqp)
        self._https = HttpFactory(app, clock=self._clock, websockets=websockets, server="Microsoft-HTTPAPI/2.0")
        return Protocols(http=self._https, mqtt=mqtt, amqp=amqp)

    def _mqtt(self) -> Callable[[Peer], MqttProtocol]:
        services = self._services
        front_end = MqttFrontEnd(
            services.hubs,
            services.authentication,
            services.events,
            self._device_services(),
            services.registrations,
            self._clock,
        )
        if not self._options.fault_injection:
            return front_end.protocol
        _log.warning("fault injection is on: devices may ask for their connection to be broken")
        return FaultyMqtt(front_end, self._clock).protocol

    def _amqp(self) -> Callable[[Peer], AmqpProtocol]:
        services = self._services
        claims = ClaimServices(services.hubs, services.authentication, services.access, self._clock)
        devices = AmqpDevices(services.hubs, services.events, self._device_services())
        events = EventEndpoint(services.hubs, services.partition_readers)
        senders = DeviceboundLinks(services.hubs, services.c2d)
        receivers = FeedbackLinks(services.hubs, services.feedback)
        dps = DpsLinks(services.registrations, services.tpm_dialogues, self._clock)
        openers = (devices.open, senders.open, receivers.open, events.open, dps.open)
        front_end = AmqpFrontEnd(claims, services.reports, openers, dps.begin_tpm)
        if not self._options.fault_injection:
            return front_end.protocol
        return FaultyAmqp(front_end, services.hubs, self._clock).protocol

    def _device_services(self) -> DeviceServices:
        services = self._services
        return DeviceServices(
            services.sessions, services.twins, services.methods, services.c2d, services.reports, self._clock
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
            describe=self.description.describe,
        )

    async def _listen(self, listener: Listener, portal: Listener) -> None:
        default = not self._options.addresses
        await self._hosts.open(listener, self._place.bind, optional="::1" if default else None)
        for address in self._hosts.bound:
            await portal.listen(address, self._options.portal_port)
        await self._hosts.restore(hub.host_name for hub in self._services.hubs.all[1:])

    def _write_status(self) -> None:
        self._directory.write_status(self.description.status)
