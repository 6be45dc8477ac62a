"""Which links devices and modules have over AMQP, and whose they are: the opener of all of them.

Sources: hub-device.md 9.4. Not here: what goes over the links (``amqp/telemetry.py``, ``amqp/c2d.py``,
``amqp/methods.py``, ``amqp/twin.py``), and what a connection has proved (``amqp/claims.py``).
"""

from dataclasses import dataclass

from muster.domain.c2d_message import is_storable
from muster.domain.errors import (
    AddressNotFoundError,
    ArgumentInvalidError,
    DeviceNotFoundError,
    LinkCreationConflictError,
)
from muster.frontends.amqp.addresses import Address
from muster.frontends.amqp.c2d import C2dHead, SilentHead
from muster.frontends.amqp.device_links import DeviceHead, DeviceLinks
from muster.frontends.amqp.links import LinkContext, LinkOpening
from muster.frontends.amqp.methods import MethodLinks, MethodRequestsHead, MethodResponsesHead
from muster.frontends.amqp.telemetry import TelemetryHead
from muster.frontends.amqp.twin import TwinLinks, TwinRequestsHead, TwinResponsesHead
from muster.frontends.device_services import DeviceServices
from muster.hub.events import EventLog
from muster.hub.hubs import Hub, Hubs, UnknownHubError
from muster.wire.amqp_performatives import RECEIVER, lookup
from muster.wire.amqp_sessions import Link

_EVENTS = ("messages", "events")
_DEVICEBOUND = ("messages", "devicebound")
_METHODS = ("methods", "devicebound")
_TWIN = ("twin",)

_DEVICE_SEGMENTS = 2
_MODULE_SEGMENTS = 4


@dataclass(frozen=True, slots=True)
class AmqpDevices:
    """Opens the links of devices and modules; holds what they ask."""

    hubs: Hubs
    events: EventLog
    services: DeviceServices

    async def open(self, context: LinkContext, link: Link, address: Address) -> LinkOpening | None:
        """As ``Opener`` says. Raises what refuses the identity, AddressNotFoundError and DeviceNotFoundError."""
        words = address.words
        if len(words) <= _DEVICE_SEGMENTS or words[0] != "devices":
            return None
        module = len(words) > _MODULE_SEGMENTS and words[2] == "modules"
        rest = words[_MODULE_SEGMENTS if module else _DEVICE_SEGMENTS :]
        device_id, module_id = address.segments[1], address.segments[3] if module else ""
        if not _exists(rest, receives=link.role == RECEIVER, module=module):
            raise AddressNotFoundError(f"The link address {address.text!r} did not match any of the expected formats.")
        device = await self._join(context, link, self._hub(address), device_id, module_id)
        return LinkOpening(self._head(device, link, rest))

    def _hub(self, address: Address) -> Hub:
        """Raises DeviceNotFoundError."""
        try:
            return self.hubs.by_host(address.host)
        except UnknownHubError:
            raise DeviceNotFoundError(f"No hub is served as {address.host!r}.") from None

    async def _join(self, context: LinkContext, link: Link, hub: Hub, device_id: str, module_id: str) -> DeviceLinks:
        """What the connection has of the identity, with this link. Openers work one at a time."""
        principal = await context.claims.device(hub, device_id, module_id)
        model_id = lookup(link.asked.properties, "com.microsoft:model-id")
        if isinstance(model_id, str) and model_id:
            if not is_storable(model_id):
                raise ArgumentInvalidError("The model id has a NUL.")
            await self.services.twins.announce_model(hub.name, device_id, module_id, model_id)
        key = (DeviceLinks, hub.name, device_id, module_id)
        device: DeviceLinks | None = context.shared.get(key)
        if device is None:
            device = DeviceLinks(context, self.services.sessions, principal, key)
            await device.open()
        if isinstance(model_id, str) and model_id:
            device.model_id = model_id
        device.add(link)
        return device

    def _head(self, device: DeviceLinks, link: Link, rest: tuple[str, ...]) -> DeviceHead:
        receives = link.role == RECEIVER
        if rest == _EVENTS:
            return TelemetryHead(device, link, self.events) if receives else SilentHead(device, link)
        if rest == _DEVICEBOUND:
            return self._receiver(device, link)
        if rest == _METHODS:
            methods = device.owned.get(MethodLinks)
            if methods is None:
                methods = device.owned[MethodLinks] = MethodLinks(device, self.services.methods)
            return (MethodResponsesHead if receives else MethodRequestsHead)(device, link, methods)
        twin = device.owned.get(TwinLinks)
        if twin is None:
            twin = device.owned[TwinLinks] = TwinLinks(device, self.services.twins)
        return (TwinRequestsHead if receives else TwinResponsesHead)(device, link, twin)

    def _receiver(self, device: DeviceLinks, link: Link) -> C2dHead:
        """An identity has one receiver of messages: the newest (hub-device.md 9.7)."""
        older = device.owned.get(C2dHead)
        head = device.owned[C2dHead] = C2dHead(device, link, self.services.c2d)
        if older is not None:
            device.context.detach(older.link, LinkCreationConflictError())
        return head


def _exists(rest: tuple[str, ...], *, receives: bool, module: bool) -> bool:
    """Whether there is such a link, for who wants to send (``receives``) or to receive."""
    if rest == _EVENTS:
        return receives or module
    if rest == _DEVICEBOUND:
        return not receives
    return rest in (_METHODS, _TWIN)
