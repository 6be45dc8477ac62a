"""MQTT clients: whom a CONNECT asks for, the provisioning service or a hub.

Told by the user name, never by SNI (DESIGN.md 4). What a device then does is ``mqtt/dps.py`` and ``mqtt/hub.py``.
Sources: dps.md 2.1, hub-device.md 3.1, 3.2.
"""

from collections.abc import Callable
from dataclasses import dataclass

from muster.domain.credential import Credential
from muster.dps.attestations import DeviceLogin as DpsLogin
from muster.dps.registrations import Registrations
from muster.frontends.device_services import DeviceServices
from muster.frontends.listener import Peer
from muster.frontends.mqtt.connection import Head, MqttProtocol
from muster.frontends.mqtt.dps import DpsHead
from muster.frontends.mqtt.hub import HubHead
from muster.frontends.topics import HubUserName, parse_dps_user_name, parse_hub_user_name
from muster.hub.authentication import DeviceAuthentication
from muster.hub.authentication import DeviceLogin as HubLogin
from muster.hub.events import EventLog
from muster.hub.hubs import Hub, Hubs, UnknownHubError
from muster.observe import Operation
from muster.wire.mqtt_packets import Connect


@dataclass(frozen=True, slots=True)
class MqttFrontEnd:
    """Makes the protocol of each connection; holds what they ask."""

    hubs: Hubs
    authentication: DeviceAuthentication
    events: EventLog
    devices: DeviceServices
    registrations: Registrations
    clock: Callable[[], int]

    def protocol(self, peer: Peer) -> MqttProtocol:
        """A protocol for one connection."""
        return MqttProtocol(peer, self.clock, self.choose_head)

    async def choose_head(self, connection: MqttProtocol, connect: Connect) -> Head:
        """Judges a CONNECT, as ``ChooseHead`` says."""
        name = connect.username or ""
        token = (connect.password or b"").decode(errors="replace").strip()
        credential = Credential(connection.peer.certificates, token, connection.describe())
        dps = parse_dps_user_name(name)
        # A module of a hub's device "registrations" has a user name that looks alike, and a client id that does not.
        if dps is not None and not connect.client_id.startswith("registrations/"):
            connection.session.set_max_silence(None)  # keep-alive 0 means never (dps.md 9.2, 4)
            return DpsHead(
                connection,
                self.registrations,
                DpsLogin(dps.id_scope, dps.registration_id, dps.api_version),
                credential,
                self.clock,
            )
        user = parse_hub_user_name(name, connect.client_id)
        host = name.partition("/")[0]
        try:
            hub = self.hubs.by_host(host)
        except UnknownHubError:
            await self.authentication.refuse_user_name(name, connect.client_id, host, credential)
        if user is None:
            await self.authentication.refuse_user_name(name, connect.client_id, hub.name, credential)
        return await self._connect_to_hub(connection, connect, hub, user, credential)

    async def _connect_to_hub(
        self, connection: MqttProtocol, connect: Connect, hub: Hub, user: HubUserName, credential: Credential
    ) -> Head:
        operation = Operation("connect", user.device_id)
        login = HubLogin(hub, user.host, user.device_id, user.module_id)
        principal = await self.authentication.authenticate(login, credential)
        head = HubHead(
            connection,
            self.authentication,
            self.events,
            self.devices,
            login,
            credential,
            principal,
            connect,
            user.model_id,
        )
        await head.attach()
        operation.finished("accepted")
        return head
