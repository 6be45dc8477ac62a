"""What links lean on, and how they end with it while the connection stays (hub-device.md 9.2, 9.9, 9.10, 2.5)."""

import asyncio
import time
from collections.abc import Sequence

import pytest
from tests.support.amqp_node import Node, create, create_x509, update
from tests.support.fix_amqp import HUB_HOST, AmqpClient, AmqpClients, Cbs
from tests.support.fix_pki import self_signed
from tests.support.fix_services import KEY, Services

from muster.domain.access_policy import HUB_POLICIES
from muster.domain.access_rules import AccessRuleBody
from muster.domain.errors import ThrottledError
from muster.domain.timestamp import SECOND
from muster.frontends.amqp.links import Opener
from muster.wire.amqp_messages import Data, Message
from muster.wire.amqp_performatives import Attach, SaslInit

OTHER_KEY = "ISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+P0A="
BODY = Message(body=Data((b"x",)))
EVENTS = "/devices/{}/messages/events"


@pytest.fixture
def node(services: Services) -> Node:
    return Node(services)


@pytest.fixture
def openers(node: Node) -> Sequence[Opener]:
    return (node.open,)


async def two_devices(services: Services, amqp: AmqpClients) -> tuple[AmqpClient, Cbs, Attach, Attach]:
    """Both on one connection; the tokens of d1 and d2 live a minute and an hour, and five minutes more."""
    await create(services, "d1")
    await create(services, "d2")
    client = await amqp.open()
    cbs = await client.cbs()
    await cbs.put_device("d1", KEY, life=60)
    await cbs.put_device("d2", KEY)
    first = await client.link(EVENTS.format("d1"), sender=True)
    second = await client.link(EVENTS.format("d2"), sender=True)
    return client, cbs, first, second


async def still_works(client: AmqpClient, link: Attach) -> None:
    await client.settles(await client.transfer(link, BODY))


def pass_time(services: Services, client: AmqpClient, seconds: int) -> None:
    """In steps in which a client is not silent for too long."""
    while seconds > 0:
        services.clock.advance(min(seconds, 200) * SECOND)
        seconds -= 200
        client.protocol.data_received(b"\0\0\0\x08\x02\0\0\0")
        client.protocol.check_time()


class TestExpiry:
    async def test_it_ends_the_links_that_lean_on_it(self, services: Services, amqp: AmqpClients) -> None:
        client, _cbs, first, second = await two_devices(services, amqp)
        pass_time(services, client, 359)
        await still_works(client, first)
        pass_time(services, client, 1)
        detach = await client.is_detached(first, "amqp:unauthorized-access")
        assert detach.error is not None
        assert "401003" in (detach.error.description or "")
        await still_works(client, second)

    async def test_a_token_that_is_put_again_prolongs(self, services: Services, amqp: AmqpClients) -> None:
        client, cbs, first, second = await two_devices(services, amqp)
        pass_time(services, client, 300)
        await cbs.put_device("d1", KEY, life=600)
        pass_time(services, client, 899)
        await still_works(client, first)
        pass_time(services, client, 1)
        await client.is_detached(first, "amqp:unauthorized-access")
        await still_works(client, second)

    async def test_a_token_that_is_refused_changes_nothing(self, services: Services, amqp: AmqpClients) -> None:
        client, cbs, first, _second = await two_devices(services, amqp)
        audience = f"{HUB_HOST}/devices/d1"
        assert await cbs.put(audience, amqp.token(audience, OTHER_KEY, life=7200)) == 401
        await still_works(client, first)
        pass_time(services, client, 360)
        await client.is_detached(first, "amqp:unauthorized-access")

    async def test_who_comes_again_with_a_new_token_is_let_in(self, services: Services, amqp: AmqpClients) -> None:
        client, cbs, first, _second = await two_devices(services, amqp)
        pass_time(services, client, 360)
        await client.is_detached(first, "amqp:unauthorized-access")
        asked = client.attach(EVENTS.format("d1"), sender=True)
        await client.send(asked)
        await client.is_refused(asked, "amqp:unauthorized-access")
        await cbs.put_device("d1", KEY)
        await client.link(EVENTS.format("d1"), sender=True)

    async def test_of_a_policy_that_acts_for_devices(self, services: Services, amqp: AmqpClients) -> None:
        await create(services)
        client = await amqp.open()
        cbs = await client.cbs()
        assert await cbs.put(HUB_HOST, amqp.policy_token("device", life=60)) == 200
        link = await client.link(EVENTS.format("d1"), sender=True)
        await cbs.put_device("d1", KEY, life=600)
        pass_time(services, client, 360)
        await still_works(client, link)  # the device's own token counts
        pass_time(services, client, 540)
        await client.is_detached(link, "amqp:unauthorized-access")

    async def test_of_a_service_client(self, services: Services, amqp: AmqpClients) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        assert await cbs.put(HUB_HOST, amqp.policy_token(life=60)) == 200
        link = await client.link("/service", sender=True)
        other = await client.link("/free", sender=True)
        pass_time(services, client, 200)
        assert await cbs.put(HUB_HOST, amqp.policy_token(life=60)) == 200
        pass_time(services, client, 359)
        await still_works(client, link)
        pass_time(services, client, 1)
        await client.is_detached(link, "amqp:unauthorized-access")
        await still_works(client, other)

    async def test_a_token_of_a_policy_that_may_not_does_not_prolong(
        self, services: Services, amqp: AmqpClients
    ) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        assert await cbs.put(HUB_HOST, amqp.policy_token("service", life=60)) == 200
        link = await client.link("/service", sender=True)
        assert await cbs.put(HUB_HOST, amqp.policy_token("registryRead")) == 200
        pass_time(services, client, 360)
        await client.is_detached(link, "amqp:unauthorized-access")

    async def test_of_a_plain_login(self, services: Services, amqp: AmqpClients) -> None:
        await create(services)
        client = amqp.connect()
        token = amqp.token(f"{HUB_HOST}/devices/d1", life=60)
        await client.sasl(SaslInit("PLAIN", f"\0d1@sas.hub\0{token}".encode()))
        await client.open()
        link = await client.link(EVENTS.format("d1"), sender=True)
        pass_time(services, client, 360)
        await client.is_detached(link, "amqp:unauthorized-access")
        await client.link("/free", sender=True)

    async def test_a_certificate_has_none(self, services: Services, amqp: AmqpClients) -> None:
        services.clock.now = time.time_ns() // 1000
        certificate = self_signed().certificate
        await create_x509(services, certificate)
        client = await amqp.open(certificate)
        link = await client.link(EVENTS.format("d1"), sender=True)
        pass_time(services, client, 100_000)
        await still_works(client, link)


class TestIdentity:
    async def test_deleted(self, services: Services, amqp: AmqpClients) -> None:
        client, _cbs, first, second = await two_devices(services, amqp)
        await services.devices.delete("hub", "d1", "*")
        await client.is_detached(first, "amqp:unauthorized-access")
        await still_works(client, second)

    async def test_disabled(self, services: Services, amqp: AmqpClients) -> None:
        client, _cbs, first, second = await two_devices(services, amqp)
        third = await client.link("/devices/d1/messages/devicebound", sender=False)
        await update(services, status="disabled")
        await client.is_detached(first, "amqp:unauthorized-access")
        await client.is_detached(third, "amqp:unauthorized-access")
        await still_works(client, second)

    async def test_other_keys(self, services: Services, amqp: AmqpClients) -> None:
        client, _cbs, first, second = await two_devices(services, amqp)
        await update(services, key=OTHER_KEY)
        await client.is_detached(first, "amqp:unauthorized-access")
        await still_works(client, second)

    async def test_a_change_that_changes_nothing_for_it(self, services: Services, amqp: AmqpClients) -> None:
        client, _cbs, first, _second = await two_devices(services, amqp)
        await update(services)
        await still_works(client, first)

    async def test_a_module_of_a_device_that_is_disabled(self, services: Services, amqp: AmqpClients) -> None:
        await create(services, "d1", "m1")
        client = await amqp.open()
        cbs = await client.cbs()
        audience = f"{HUB_HOST}/devices/d1/modules/m1"
        assert await cbs.put(audience, amqp.token(audience)) == 200
        link = await client.link("/devices/d1/modules/m1/messages/events", sender=True)
        await update(services, status="disabled")
        await client.is_detached(link, "amqp:unauthorized-access")

    async def test_a_change_between_judging_and_watching_is_not_missed(
        self, services: Services, amqp: AmqpClients
    ) -> None:
        await create(services)
        client = await amqp.open()
        cbs = await client.cbs()
        await cbs.put_device("d1", KEY)
        claims = client.protocol.claims
        principal = await claims.device(services.hub, "d1")
        await services.devices.delete("hub", "d1", "*")
        await asyncio.sleep(0)
        ended = asyncio.Event()
        claims.watch(principal, lambda _error: ended.set())
        async with asyncio.timeout(30):
            await ended.wait()

    async def test_nothing_is_followed_when_the_last_link_is_gone(
        self, services: Services, amqp: AmqpClients, node: Node
    ) -> None:
        client, _cbs, _first, _second = await two_devices(services, amqp)
        claims = client.protocol.claims
        assert len(claims._leanings) == 2
        node.links[0].context.detach(node.links[0].link, ThrottledError())
        assert len(claims._leanings) == 1
        await client.leave()
        assert not claims._leanings


class TestPolicies:
    """A service client's link, when its hub changes."""

    async def change(self, services: Services, policy: AccessRuleBody) -> None:
        owner = AccessRuleBody(key_name="iothubowner", rights=HUB_POLICIES["iothubowner"], primary_key=OTHER_KEY)
        await services.hubs.update("hub", (None,), services.hub.facts, [owner, policy])

    async def link(self, amqp: AmqpClients) -> tuple[AmqpClient, Attach]:
        client = await amqp.open()
        cbs = await client.cbs()
        assert await cbs.put(HUB_HOST, amqp.policy_token()) == 200
        return client, await client.link("/service", sender=True)

    @pytest.mark.parametrize(
        "policy",
        [
            AccessRuleBody(key_name="service", rights="ServiceConnect", primary_key=OTHER_KEY, secondary_key=OTHER_KEY),
            AccessRuleBody(key_name="service", rights="RegistryRead", primary_key=KEY, secondary_key=KEY),
            AccessRuleBody(key_name="another", rights="ServiceConnect", primary_key=KEY, secondary_key=KEY),
        ],
        ids=["other keys", "other rights", "gone"],
    )
    async def test_a_policy_that_does_not_count_any_more(
        self, services: Services, amqp: AmqpClients, policy: AccessRuleBody
    ) -> None:
        client, link = await self.link(amqp)
        await self.change(services, policy)
        await client.is_detached(link, "amqp:unauthorized-access")
        await client.link("/free", sender=True)

    async def test_one_of_two_keys_is_enough(self, services: Services, amqp: AmqpClients) -> None:
        client, link = await self.link(amqp)
        rule = AccessRuleBody(key_name="service", rights="ServiceConnect", primary_key=OTHER_KEY, secondary_key=KEY)
        await self.change(services, rule)
        await still_works(client, link)

    async def test_a_hub_that_is_removed(self, services: Services, amqp: AmqpClients) -> None:
        client, link = await self.link(amqp)
        await services.hubs.remove("hub", None, force=True)
        await client.is_detached(link, "amqp:unauthorized-access")
