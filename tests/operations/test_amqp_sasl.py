"""How AMQP clients say who they are: without SASL, and with each mechanism (hub-device.md 9.1, 9.3; dps.md 3.1)."""

import time
from collections.abc import Sequence

import pytest
from tests.support.amqp_node import Node, create, create_x509
from tests.support.fix_amqp import AMQP, HUB_HOST, SASL, AmqpClient, AmqpClients
from tests.support.fix_pki import other_self_signed, self_signed
from tests.support.fix_services import ID_SCOPE, KEY, Services

from muster.frontends.amqp.links import Opener
from muster.wire.amqp_performatives import SaslInit, SaslMechanisms, SaslOutcome

WRONG_KEY = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="


@pytest.fixture
def node(services: Services) -> Node:
    return Node(services)


@pytest.fixture
def today(services: Services) -> None:
    """Certificates of tests are dated from now on."""
    services.clock.now = time.time_ns() // 1000


@pytest.fixture
def openers(node: Node) -> Sequence[Opener]:
    return (node.open,)


def plain(user: str, password: str) -> SaslInit:
    return SaslInit("PLAIN", f"\0{user}\0{password}".encode(), HUB_HOST)


async def logged_in(amqp: AmqpClients, init: SaslInit, *certificates: bytes) -> AmqpClient:
    client = amqp.connect(*certificates)
    await client.sasl(init)
    await client.open()
    return client


async def refused(amqp: AmqpClients, init: SaslInit, *certificates: bytes) -> None:
    client = amqp.connect(*certificates)
    await client.sasl(init, code=1)
    await client.is_closed()


async def subjects_of_reports(services: Services) -> list[str]:
    return [report.subject for report in await services.reports.latest(10)]


async def checks_of_the_report(services: Services) -> set[str]:
    """The refusing checks of the only report there is."""
    (report,) = await services.reports.latest(10)
    return {check.id for check in report.checks if check.outcome == "refused"}


class TestMechanisms:
    async def test_those_of_a_single_step_are_offered(self, amqp: AmqpClients) -> None:
        client = amqp.connect()
        await client.send(SASL)
        assert await client.receive_header() == SASL
        offered = await client.receive(SaslMechanisms)
        assert set(offered.sasl_server_mechanisms) == {"EXTERNAL", "MSSBCBS", "ANONYMOUS", "PLAIN"}

    @pytest.mark.parametrize(
        "init",
        [
            SaslInit("ANONYMOUS"),
            SaslInit("ANONYMOUS", b"", HUB_HOST),  # pyamqp
            SaslInit("MSSBCBS"),  # uamqp
        ],
        ids=repr,
    )
    async def test_who_will_put_a_token_is_let_through(self, amqp: AmqpClients, init: SaslInit) -> None:
        client = await logged_in(amqp, init)
        cbs = await client.cbs()
        assert await cbs.put(HUB_HOST, amqp.policy_token()) == 200
        await client.link("/service", sender=True)

    async def test_one_that_is_not_offered_is_refused(self, services: Services, amqp: AmqpClients) -> None:
        await refused(amqp, SaslInit("TPM", b"\0scope\0id\0key"))
        assert await subjects_of_reports(services) == ["SASL TPM"]

    async def test_a_client_may_say_all_at_once(self, amqp: AmqpClients) -> None:
        client = amqp.connect()
        await client.send(SASL, SaslInit("ANONYMOUS"), AMQP)
        assert await client.receive_header() == SASL
        await client.receive(SaslMechanisms)
        assert (await client.receive(SaslOutcome)).code == 0
        assert await client.receive_header() == AMQP


@pytest.mark.usefixtures("today")
class TestCertificates:
    @pytest.mark.parametrize("init", [None, SaslInit("EXTERNAL", b""), SaslInit("ANONYMOUS")], ids=repr)
    async def test_a_certificate_counts_in_every_way(
        self, services: Services, amqp: AmqpClients, init: SaslInit | None
    ) -> None:
        await create_x509(services, self_signed().certificate)
        client = (
            await logged_in(amqp, init, self_signed().certificate)
            if init
            else await amqp.open(self_signed().certificate)
        )
        await client.link("/devices/d1/messages/events", sender=True)

    async def test_another_certificate_is_refused_at_the_link(self, services: Services, amqp: AmqpClients) -> None:
        await create_x509(services, self_signed().certificate)
        client = await amqp.open(other_self_signed().certificate)
        asked = client.attach("/devices/d1/messages/events", sender=True)
        await client.send(asked)
        await client.is_refused(asked, "amqp:unauthorized-access")
        assert await checks_of_the_report(services) == {"device.thumbprint"}

    async def test_external_without_a_certificate_is_refused(self, services: Services, amqp: AmqpClients) -> None:
        await refused(amqp, SaslInit("EXTERNAL", b""))
        assert await subjects_of_reports(services) == ["SASL EXTERNAL"]


class TestPlain:
    async def test_a_device_needs_no_token_after_it(self, services: Services, amqp: AmqpClients) -> None:
        await create(services)
        token = amqp.token(f"{HUB_HOST}/devices/d1")
        client = await logged_in(amqp, plain("d1@sas.hub", token))
        await client.link("/devices/d1/messages/events", sender=True)

    async def test_it_is_that_device_and_no_other(self, services: Services, amqp: AmqpClients) -> None:
        await create(services)
        await create(services, "d2")
        client = await logged_in(amqp, plain("d1@sas.hub", amqp.token(f"{HUB_HOST}/devices/d1")))
        asked = client.attach("/devices/d2/messages/events", sender=True)
        await client.send(asked)
        await client.is_refused(asked, "amqp:unauthorized-access")
        assert await checks_of_the_report(services) == {"sas.audience"}

    async def test_a_module(self, services: Services, amqp: AmqpClients) -> None:
        await create(services, "d1", "m1")
        token = amqp.token(f"{HUB_HOST}/devices/d1/modules/m1")
        client = await logged_in(amqp, plain("d1/m1@sas.hub", token))
        await client.link("/devices/d1/modules/m1/messages/events", sender=True)

    @pytest.mark.parametrize("user", ["service@sas.root.hub", "service@sas.root.HUB", "service"])
    async def test_a_policy(self, amqp: AmqpClients, user: str) -> None:
        client = await logged_in(amqp, plain(user, amqp.policy_token("service")))
        await client.link("/service", sender=True)

    async def test_an_event_hubs_client_sends_the_key_itself(self, amqp: AmqpClients) -> None:
        client = await logged_in(amqp, plain("iothubowner", KEY))
        await client.link("/service", sender=True)

    async def test_a_policy_without_the_right_is_refused_at_the_link(
        self, services: Services, amqp: AmqpClients
    ) -> None:
        client = await logged_in(amqp, plain("registryRead@sas.root.hub", amqp.policy_token("registryRead")))
        asked = client.attach("/service", sender=True)
        await client.send(asked)
        await client.is_refused(asked, "amqp:unauthorized-access")
        assert await checks_of_the_report(services) == {"sas.right"}

    async def test_a_registration_is_judged_later(self, amqp: AmqpClients) -> None:
        token = amqp.token(f"{ID_SCOPE}/registrations/d1", policy="registration")
        client = await logged_in(amqp, plain(f"{ID_SCOPE}/registrations/d1", token))
        credential = client.protocol.claims.credential(f"{ID_SCOPE}/Registrations/d1".lower())
        assert credential.token == token
        assert client.protocol.claims.credential(f"{ID_SCOPE}/registrations/d2").token == ""

    @pytest.mark.usefixtures("today")
    async def test_who_has_a_certificate_may_leave_the_password_out(
        self, services: Services, amqp: AmqpClients
    ) -> None:
        await create_x509(services, self_signed().certificate)
        client = await logged_in(amqp, plain("d1@sas.hub", ""), self_signed().certificate)
        await client.link("/devices/d1/messages/events", sender=True)


class TestPlainRefused:
    """Outcome 1, the end of the connection, and a report."""

    @pytest.mark.parametrize(
        ("user", "audience", "key", "policy", "check"),
        [
            ("d1@sas.hub", "/devices/d1", WRONG_KEY, "", "sas.signature"),
            ("d1@sas.hub", "/devices/d2", KEY, "", "sas.audience"),
            ("d2@sas.hub", "/devices/d2", KEY, "", "device.exists"),
            ("service@sas.root.hub", "", WRONG_KEY, "service", "sas.signature"),
            ("nobody@sas.root.hub", "", KEY, "nobody", "sas.policy"),
        ],
    )
    async def test_with_a_token(
        self, services: Services, amqp: AmqpClients, user: str, audience: str, key: str, policy: str, check: str
    ) -> None:
        await create(services)
        token = amqp.token(HUB_HOST + audience, key, policy)
        await refused(amqp, plain(user, token))
        assert check in await checks_of_the_report(services)

    @pytest.mark.parametrize(
        ("user", "password", "check"),
        [
            ("d1@sas.hub", "no token", "sas.format"),
            ("iothubowner", WRONG_KEY, "sas.signature"),
            ("iothubowner", "é", "sas.format"),
            ("anybody", KEY, "sas.policy"),
        ],
    )
    async def test_without(self, services: Services, amqp: AmqpClients, user: str, password: str, check: str) -> None:
        await create(services)
        await refused(amqp, plain(user, password))
        assert await checks_of_the_report(services) == {check}

    async def test_an_expired_token(self, services: Services, amqp: AmqpClients) -> None:
        await create(services)
        await refused(amqp, plain("d1@sas.hub", amqp.token(f"{HUB_HOST}/devices/d1", life=-301)))
        assert await checks_of_the_report(services) == {"sas.expiry"}

    async def test_a_response_that_is_none(self, services: Services, amqp: AmqpClients) -> None:
        await refused(amqp, SaslInit("PLAIN", b"user\0password"))
        await refused(amqp, SaslInit("PLAIN"))
        assert await subjects_of_reports(services) == ["SASL PLAIN"] * 2
