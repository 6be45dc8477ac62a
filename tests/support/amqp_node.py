"""A node of a test's own: links of devices and of service clients, which do little, so that connections can be
tested.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from muster.domain.access_policy import Right
from muster.domain.device import AuthenticationBody, IdentityBody, SymmetricKeyBody, ThumbprintBody
from muster.domain.errors import ServiceError
from muster.domain.module import ModuleBody
from muster.frontends.amqp.addresses import Address
from muster.frontends.amqp.connection import address_of
from muster.frontends.amqp.links import BaseLinkHead, LinkContext, LinkOpening
from muster.pki.certificate import sha1_thumbprint
from muster.wire.amqp_performatives import RECEIVER, Accepted
from muster.wire.amqp_sessions import Credit, Delivery, Link
from tests.support.fix_services import KEY, Services


class NodeLink(BaseLinkHead):
    """Takes what comes; sends what is put in ``queue`` while it may. ``events`` says what happened, in its order."""

    def __init__(self, context: LinkContext, link: Link) -> None:
        self.context = context
        self.link = link
        self.queue: list[bytes] = []
        self.events: list[str] = []
        self.unwatch: Callable[[], None] | None = None

    def opened(self) -> None:
        self.events.append("opened")
        if address_of(self.link) == "/faulty":
            raise RuntimeError("a bug of this head")
        if self.link.role == RECEIVER:
            self.context.core.grant(self.link, 10)

    def delivery(self, delivery: Delivery) -> None:
        self.events.append("delivery")
        if delivery.payload == b"break":
            raise RuntimeError("a bug of this head")
        if delivery.payload == b"break after":
            self.context.after_read(self._break)
        if delivery.payload == b"refuse":
            raise ServiceError("as asked for")
        self.context.core.settle(self.link, [delivery.delivery_id], Accepted())

    def credit(self, credit: Credit) -> None:
        del credit
        self.send()

    def resumed(self) -> None:
        self.events.append("resumed")
        if self.queue == [b"break"]:
            raise RuntimeError("a bug of this head")
        self.send()

    def closed(self) -> None:
        self.events.append("closed")
        if self.unwatch is not None:
            self.unwatch()

    def _break(self) -> None:
        raise RuntimeError("a bug of this head")

    def send(self) -> None:
        while self.queue and self.link.credit > 0 and self.context.may_send(self.link):
            self.context.core.transfer(self.link, b"tag", self.queue.pop(0))
        self.context.flush()


class Node:
    """``/devices/{d}[/modules/{m}]/...`` is for that identity, ``/service`` for policies with ServiceConnect, ``/free``
    for anybody, ``/slow`` too when ``gate`` is set. ``/broken`` and
    ``/faulty`` have bugs, one before and one after the attach.
    """

    def __init__(self, services: Services) -> None:
        self.services = services
        self.links: list[NodeLink] = []
        self.gate = asyncio.Event()

    @property
    def link(self) -> NodeLink:
        """The one attached last."""
        return self.links[-1]

    async def open(self, context: LinkContext, link: Link, address: Address) -> LinkOpening | None:
        who: Any = None
        match address.segments:
            case ("devices", device_id, "modules", module_id, *_):
                who = await context.claims.device(self._hub(context), device_id, module_id)
            case ("devices", device_id, *_):
                who = await context.claims.device(self._hub(context), device_id)
            case ("service",):
                who = await context.claims.service(self._hub(context), [Right.SERVICE_CONNECT])
            case ("broken",):
                raise RuntimeError("a bug of this opener")
            case ("free",) | ("faulty",):
                pass
            case ("slow",):
                await self.gate.wait()
            case _:
                return None
        head = NodeLink(context, link)
        if who is not None:
            head.unwatch = context.claims.watch(who, lambda error: context.detach(link, error))
        self.links.append(head)
        return LinkOpening(head)

    def _hub(self, context: LinkContext) -> Any:
        return self.services.hubs.by_host(context.host)


async def create(services: Services, device_id: str = "d1", module_id: str = "") -> None:
    """A device with the well-known key, and a module of it."""
    keys = AuthenticationBody("sas", SymmetricKeyBody(KEY, KEY))
    await services.devices.put("hub", device_id, IdentityBody(device_id=device_id, authentication=keys), None)
    if module_id:
        body = ModuleBody(device_id=device_id, module_id=module_id, authentication=keys)
        await services.modules.put("hub", device_id, module_id, body, None)


async def update(services: Services, device_id: str = "d1", *, status: str = "enabled", key: str = KEY) -> None:
    keys = AuthenticationBody("sas", SymmetricKeyBody(key, key))
    body = IdentityBody(device_id=device_id, authentication=keys, status=status)
    await services.devices.put("hub", device_id, body, "*")


async def create_x509(services: Services, certificate: bytes) -> None:
    """A device that is known by this certificate."""
    thumbprints = AuthenticationBody("selfSigned", None, ThumbprintBody(sha1_thumbprint(certificate), None))
    await services.devices.put("hub", "d1", IdentityBody(device_id="d1", authentication=thumbprints), None)
