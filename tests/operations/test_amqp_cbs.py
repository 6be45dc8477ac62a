"""The `$cbs` node, with the quirks of each client (hub-device.md 9.2, hub-service.md 6.3, 8.3)."""

from collections.abc import Sequence

import pytest
from tests.support.amqp_node import Node, create
from tests.support.fix_amqp import HUB_HOST, AmqpClients, Cbs, put_token
from tests.support.fix_services import ID_SCOPE, KEY, Services

from muster.frontends.amqp.links import Opener
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_frames import Frame
from muster.wire.amqp_messages import AmqpValue, Data, Message
from muster.wire.amqp_performatives import (
    SETTLED,
    Accepted,
    Attach,
    Begin,
    Disposition,
    Flow,
    Rejected,
    Transfer,
)
from muster.wire.amqp_types import Int, Symbol, Uint, Ulong, Uuid, Value

WRONG_KEY = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="


@pytest.fixture
def node(services: Services) -> Node:
    return Node(services)


@pytest.fixture
def openers(node: Node) -> Sequence[Opener]:
    return (node.open,)


class TestReply:
    @pytest.mark.parametrize(
        "message_id",
        [
            Ulong(0),  # uamqp, C
            Uuid(bytes(range(16))),  # Java, pyamqp
            "7f3c6d8e-0000-4000-8000-000000000000",  # Node, .NET
            Uint(7),
            b"bytes",
            None,
        ],
        ids=repr,
    )
    async def test_its_correlation_id_has_the_type_of_the_message_id(
        self, amqp: AmqpClients, message_id: Value
    ) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        status, reply = await cbs.request(put_token(HUB_HOST, amqp.policy_token(), message_id))
        assert status == 200
        assert reply.properties is not None
        assert reply.properties.correlation_id == message_id

    async def test_status_is_an_int_and_its_description_a_text(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        _status, reply = await cbs.request(put_token(HUB_HOST, amqp.policy_token()))
        assert reply.application_properties == {"status-code": Int(200), "status-description": "OK"}
        assert reply.body == AmqpValue(None)

    async def test_a_request_that_is_settled_is_not_settled_again(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        assert (await cbs.request(put_token(HUB_HOST, amqp.policy_token()), settled=True))[0] == 200

    async def test_it_waits_for_credit(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        replies = await client.link("$cbs", sender=False, credit=0)
        requests = await client.link("$cbs", sender=True)
        await client.settles(await client.transfer(requests, put_token(HUB_HOST, amqp.policy_token())))
        await client.grant(replies, 1)
        _transfer, reply = await client.receive_message()
        assert reply.application_properties is not None
        assert reply.application_properties["status-code"] == Int(200)

    async def test_it_waits_for_its_link(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        requests = await client.link("$cbs", sender=True)
        await client.settles(await client.transfer(requests, put_token(HUB_HOST, amqp.policy_token())))
        await client.link("$cbs", sender=False)
        _transfer, reply = await client.receive_message()
        assert reply.properties is not None

    async def test_a_receiver_that_wants_it_settled_gets_it_settled(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        replies = await client.link("$cbs", sender=False, snd_settle_mode=SETTLED)
        requests = await client.link("$cbs", sender=True)
        cbs = Cbs(client, replies, requests)
        assert await cbs.put(HUB_HOST, amqp.policy_token()) == 200

    async def test_who_settles_second_hears_of_it(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        await client.settles(await client.transfer(cbs.requests, put_token(HUB_HOST, amqp.policy_token())))
        transfer, _reply = await client.receive_message()
        assert not transfer.settled
        await client.send(Disposition(True, transfer.delivery_id or 0, settled=False, state=Accepted()))
        answer = await client.receive(Disposition)
        assert (answer.role, answer.first, answer.settled, answer.state) == (False, 0, True, Accepted())

    async def test_each_session_has_its_own(self, amqp: AmqpClients) -> None:
        """.NET and Java: the answer comes on the session of the question."""
        client = await amqp.open()
        await client.cbs()
        await client.send(Begin(None, 0, 5000, 5000), channel=1)
        await client.receive(Begin)
        sender, receiver = client.attach("$cbs", sender=True), client.attach("$cbs", sender=False)
        await client.send(sender, receiver, Flow(1, 5000, 0, 5000, receiver.handle, 0, 10), channel=1)
        await client.receive(Attach)
        await client.receive(Flow)
        await client.receive(Attach)
        payload = encode_message(put_token(HUB_HOST, amqp.policy_token()))
        await client.send(Frame(1, Transfer(sender.handle, 0, b"t", 0, settled=True), payload))
        transfer, _reply = await client.receive_message()
        assert transfer.handle == receiver.handle

    async def test_requests_are_answered_without_end(self, amqp: AmqpClients) -> None:
        """Credit is given again."""
        client = await amqp.open()
        cbs = await client.cbs()
        for _ in range(250):
            assert await cbs.put(HUB_HOST, amqp.policy_token()) == 200


class TestAudience:
    """Each spelling of a token's resource, and of the name beside it."""

    @pytest.mark.parametrize(
        ("name", "resource"),
        [
            (HUB_HOST, HUB_HOST),  # Node, Java
            (f"https://{HUB_HOST}", f"https://{HUB_HOST}"),  # Python
            (f"amqps://{HUB_HOST}:5671/", f"amqps://{HUB_HOST}:5671/"),  # .NET
            (f"sb://{HUB_HOST}/hub", f"sb://{HUB_HOST}/hub"),  # pyamqp
            (f"sb://{HUB_HOST}:5671/hub", f"sb://{HUB_HOST}:5671/hub"),
            (f"sb://{HUB_HOST}/hub/ConsumerGroups/$Default/Partitions/0", f"sb://{HUB_HOST}/hub"),  # Node, events
            (f"sb://{HUB_HOST}/hub/$management", f"sb://{HUB_HOST}/"),
            ("anything at all", HUB_HOST),
        ],
    )
    async def test_of_a_policy(self, amqp: AmqpClients, name: str, resource: str) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        assert await cbs.put(name, amqp.policy_token(audience=resource)) == 200
        await client.link("/service", sender=True)

    @pytest.mark.parametrize(
        "resource", ["{0}/devices/d1", "{0}/devices/d1/api-version=2018", "HUB.example.NET/devices/d1"]
    )
    async def test_of_a_device(self, services: Services, amqp: AmqpClients, resource: str) -> None:
        await create(services)
        client = await amqp.open()
        cbs = await client.cbs()
        token = amqp.token(resource.format(HUB_HOST))
        assert await cbs.put("whatever", token) == 200
        await client.link("/devices/d1/messages/events", sender=True)

    async def test_a_policy_acts_for_all_devices(self, services: Services, amqp: AmqpClients) -> None:
        await create(services)
        await create(services, "d2", "m1")
        client = await amqp.open()
        cbs = await client.cbs()
        assert await cbs.put(HUB_HOST, amqp.policy_token("device")) == 200
        await client.link("/devices/d1/messages/events", sender=True)
        await client.link("/devices/d2/modules/m1/messages/events", sender=True)

    async def test_many_devices_on_one_connection(self, services: Services, amqp: AmqpClients) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        for number in range(5):
            await create(services, f"d{number}")
            await cbs.put_device(f"d{number}", KEY)
        for number in range(5):
            await client.link(f"/devices/d{number}/messages/events", sender=True)
        await create(services, "d5")
        asked = client.attach("/devices/d5/messages/events", sender=True)
        await client.send(asked)
        await client.is_refused(asked, "amqp:unauthorized-access")
        await client.link("/devices/d0/messages/devicebound", sender=False)

    async def test_a_gateway_is_called_by_its_own_name(self, services: Services, amqp: AmqpClients) -> None:
        await create(services)
        client = amqp.connect(server_name=None)
        await client.open(hostname="edge-gateway:5671")
        cbs = await client.cbs()
        assert await cbs.put("x", amqp.token("edge-gateway/devices/d1")) == 200
        await client.link("/devices/d1/messages/events", sender=True)

    async def test_of_provisioning(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        token = amqp.token(f"{ID_SCOPE}/registrations/d1", WRONG_KEY, "registration")
        assert await cbs.put(f"{ID_SCOPE}/registrations/d1", token) == 200, "it is judged when the device registers"
        assert client.protocol.claims.credential(f"{ID_SCOPE}/registrations/d1").token == token

    async def test_a_token_for_one_device_opens_nothing_of_the_service(
        self, services: Services, amqp: AmqpClients
    ) -> None:
        await create(services)
        client = await amqp.open()
        cbs = await client.cbs()
        assert await cbs.put("x", amqp.policy_token("iothubowner", f"{HUB_HOST}/devices/d1")) == 200
        asked = client.attach("/service", sender=True)
        await client.send(asked)
        await client.is_refused(asked, "amqp:unauthorized-access")

    async def test_a_body_of_bytes(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        message = put_token(HUB_HOST, amqp.policy_token().encode())
        assert (await cbs.request(message))[0] == 200
        message.body = Data((amqp.policy_token().encode(),))
        assert (await cbs.request(message))[0] == 200


class TestRefusals:
    """A status that is not 200, and a report; the link stays."""

    async def refuse(self, amqp: AmqpClients, services: Services, message: Message) -> tuple[int, set[str]]:
        client = await amqp.open()
        cbs = await client.cbs()
        status, reply = await cbs.request(message)
        assert reply.application_properties is not None
        description = reply.application_properties["status-description"]
        reports = await services.reports.latest(10)
        if reports:
            assert isinstance(description, str)
            assert reports[0].tracking_id in description
            assert "AMQP" in reports[0].peer
        assert await cbs.put(HUB_HOST, amqp.policy_token()) == 200, "the link stays"
        return status, {check.id for report in reports for check in report.checks if check.outcome == "refused"}

    @pytest.mark.parametrize(
        ("resource", "key", "policy", "check"),
        [
            ("/devices/d1", WRONG_KEY, "", "sas.signature"),
            ("/devices/nobody", KEY, "", "device.exists"),
            ("", WRONG_KEY, "service", "sas.signature"),
            ("", KEY, "nobody", "sas.policy"),
            ("", KEY, "", "sas.policy"),
        ],
    )
    async def test_a_token_that_does_not_count(
        self, services: Services, amqp: AmqpClients, resource: str, key: str, policy: str, check: str
    ) -> None:
        await create(services)
        message = put_token(HUB_HOST, amqp.token(HUB_HOST + resource, key, policy))
        assert await self.refuse(amqp, services, message) == (401, {check})

    async def test_an_invalid_signature_is_called_that(self, services: Services, amqp: AmqpClients) -> None:
        """In the words of the real service (hub-device.md 2.5)."""
        await create(services)
        cbs = await (await amqp.open()).cbs()
        _, reply = await cbs.request(put_token("x", amqp.token(f"{HUB_HOST}/devices/d1", WRONG_KEY)))
        assert reply.application_properties is not None
        description = reply.application_properties["status-description"]
        assert isinstance(description, str)
        assert (
            "The specified SAS token has an invalid signature. It does not match either the primary or secondary key."
            in description
        )

    async def test_an_expired_token(self, services: Services, amqp: AmqpClients) -> None:
        message = put_token(HUB_HOST, amqp.policy_token(life=-301))
        assert await self.refuse(amqp, services, message) == (401, {"sas.expiry"})

    async def test_another_host(self, services: Services, amqp: AmqpClients) -> None:
        message = put_token("x", amqp.policy_token(audience="other.example.net"))
        assert await self.refuse(amqp, services, message) == (401, {"sas.audience"})

    async def test_what_is_no_token(self, services: Services, amqp: AmqpClients) -> None:
        assert await self.refuse(amqp, services, put_token("x", "Bearer abc")) == (401, {"sas.format"})

    async def test_no_body(self, services: Services, amqp: AmqpClients) -> None:
        message = put_token("x", "")
        message.body = None
        assert await self.refuse(amqp, services, message) == (400, set())

    async def test_another_operation(self, services: Services, amqp: AmqpClients) -> None:
        assert await self.refuse(amqp, services, put_token("x", "t", operation="read")) == (405, set())

    async def test_a_message_that_cannot_be_read(self, amqp: AmqpClients) -> None:
        client = await amqp.open()
        cbs = await client.cbs()
        settled = await client.settles(await client.transfer(cbs.requests, b"\xff\xff"), Rejected)
        assert isinstance(settled.state, Rejected)
        assert settled.state.error is not None
        assert settled.state.error.info is not None
        assert Symbol("com.microsoft:tracking-id") in settled.state.error.info

    async def test_a_thousand_tokens_are_enough(
        self, services: Services, amqp: AmqpClients, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("muster.frontends.amqp.claims.MAXIMUM_TOKENS", 2)
        for name in ("d1", "d2", "d3"):
            await create(services, name)
        client = await amqp.open()
        cbs = await client.cbs()
        await cbs.put_device("d1", KEY, life=60)
        await cbs.put_device("d2", KEY)
        token = amqp.token(f"{HUB_HOST}/devices/d3")
        assert await cbs.put("d3", token) == 403
        await cbs.put_device("d2", KEY)  # the one that is there may be renewed
        services.clock.advance(361_000_000)
        assert await cbs.put("d3", token) == 200, "the first has expired"


class TestDelete:
    async def test_what_leans_on_it_ends(self, services: Services, amqp: AmqpClients) -> None:
        await create(services)
        await create(services, "d2")
        client = await amqp.open()
        cbs = await client.cbs()
        await cbs.put_device("d1", KEY)
        await cbs.put_device("d2", KEY)
        first = await client.link("/devices/d1/messages/events", sender=True)
        await client.link("/devices/d2/messages/events", sender=True)
        audience = f"{HUB_HOST}/devices/d1"
        await client.settles(await client.transfer(cbs.requests, put_token(audience, None, operation="delete-token")))
        await client.is_detached(first, "amqp:unauthorized-access")
        _transfer, reply = await client.receive_message()
        assert reply.application_properties is not None
        assert reply.application_properties["status-code"] == Int(200)


async def test_a_token_and_the_link_that_needs_it_may_come_at_once(services: Services, amqp: AmqpClients) -> None:
    """Nothing overtakes the judging of a token."""
    await create(services)
    client = await amqp.open()
    cbs = await client.cbs()
    payload = encode_message(put_token("x", amqp.token(f"{HUB_HOST}/devices/d1")))
    asked = client.attach("/devices/d1/messages/events", sender=True)
    await client.send(Frame(0, Transfer(cbs.requests.handle, 0, b"t", 0), payload), asked)
    await client.settles(0)
    await client.receive_message()
    assert (await client.receive(Attach)).name == asked.name
    await client.receive(Flow)
