"""AMQP connections: how they open, who they are, what `$cbs` does, and how links and connections end."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.support.fix_amqp import HUB_HOST, AmqpClients
from tests.support.fix_services import Services

from muster.domain.access_policy import Right
from muster.frontends.amqp_addresses import Address
from muster.frontends.amqp_links import BaseLinkHead, LinkContext, LinkOpening, Opener
from muster.wire.amqp_performatives import (
    RECEIVER,
    Accepted,
)
from muster.wire.amqp_sessions import Delivery, Link


class Echo(BaseLinkHead):
    """A link that takes everything."""

    def __init__(self, context: LinkContext, link: Link) -> None:
        self.context = context
        self.link = link
        self.ends = 0

    def opened(self) -> None:
        if self.link.role == RECEIVER:
            self.context.core.grant(self.link, 10)

    def delivery(self, delivery: Delivery) -> None:
        self.context.core.settle(self.link, [delivery.delivery_id], Accepted())

    def closed(self) -> None:
        self.ends += 1


class Node:
    """Serves `/devices/{id}/messages/events` and `/service`, each to whom it belongs."""

    def __init__(self, services: Services) -> None:
        self.services = services
        self.heads: list[Echo] = []

    async def open(self, context: LinkContext, link: Link, address: Address) -> LinkOpening | None:
        words = address.words
        head = Echo(context, link)
        if words[:1] == ("devices",):
            who: Any = await context.claims.device(self.services.hub, address.segments[1])
        elif words == ("service",):
            who = await context.claims.service(self.services.hub, [Right.SERVICE_CONNECT])
        else:
            return None
        context.claims.watch(who, lambda error: context.detach(link, error))
        self.heads.append(head)
        return LinkOpening(head)


@pytest.fixture
def node(services: Services) -> Node:
    return Node(services)


@pytest.fixture
def openers(node: Node) -> Sequence[Opener]:
    return (node.open,)


async def test_an_address_that_nobody_serves_is_refused_and_the_connection_stays(amqp: AmqpClients) -> None:
    client = await amqp.open()
    asked = client.attach("/nowhere", sender=True)
    await client.send(asked)
    detach = await client.is_refused(asked, "amqp:not-found")
    assert "404006" in detach.error.description
    await client.close()


async def test_cbs_lets_a_service_client_in(amqp: AmqpClients) -> None:
    client = await amqp.open()
    cbs = await client.cbs()
    assert await cbs.put(HUB_HOST, amqp.policy_token()) == 200
    await client.link("/service", sender=True)
    await client.close()
