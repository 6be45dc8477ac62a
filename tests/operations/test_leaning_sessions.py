"""Connections that lean on a policy's key or on a CA certificate of the hub: they end when those go."""

from collections.abc import AsyncIterator

import pytest
from tests.support.fix_arm import HUBS, ManagementClient
from tests.support.fix_ca import intermediate, leaf, root, to_der
from tests.support.fix_ca import to_pem as certificates_pem
from tests.support.fix_mqtt import HUB_HOST, MqttClient, MqttClients, until
from tests.support.fix_services import KEY, Services

from muster.domain.credential import Credential
from muster.domain.device import AuthenticationBody, IdentityBody, SymmetricKeyBody
from muster.domain.sas import create_token
from muster.domain.timestamp import SECOND
from muster.hub.authentication import DeviceLogin
from muster.hub.sessions import Notice
from muster.wire.mqtt_packets import Connack

HUB = f"{HUBS}/hub"
EVENTS = "devices/{}/messages/events/"
NEW_KEY = "IB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE="
DEVICE, LINE, ROOT = (to_der(one) for one in (leaf(), intermediate().certificate, root().certificate))


@pytest.fixture
async def clients(services: Services, mqtt: MqttClients) -> AsyncIterator[MqttClients]:
    """``by-key`` has keys of its own, ``dev-01`` a certificate below ``Plant Root``, which the hub trusts."""
    keys = AuthenticationBody("sas", SymmetricKeyBody(KEY, KEY))
    for device_id, authentication in (("by-key", keys), ("dev-01", AuthenticationBody("certificateAuthority"))):
        body = IdentityBody(device_id=device_id, authentication=authentication)
        await services.devices.put("hub", device_id, body, None)
    pem = certificates_pem(root().certificate).decode()
    await services.hub_authorities.put("hub", "plant", pem, is_verified=True, if_match=None)
    services.leaning_sessions.start()
    yield mqtt
    await services.leaning_sessions.stop()


def policy_token(services: Services, policy: str = "device", resource: str = HUB_HOST) -> str:
    return create_token(resource, KEY, services.clock.now // SECOND + 3600, policy)


async def by_policy(services: Services, clients: MqttClients, policy: str = "device") -> MqttClient:
    """``by-key`` on the key of a policy instead of its own."""
    client = clients.open()
    await client.send(clients.hub_connect("by-key", password=policy_token(services, policy).encode()))
    assert await client.receive(Connack) == Connack()
    return client


async def by_certificate(clients: MqttClients) -> MqttClient:
    client = clients.open(DEVICE, LINE)
    await client.send(clients.hub_connect("dev-01"))
    assert await client.receive(Connack) == Connack()
    return client


async def change_policies(arm: ManagementClient, **members: object) -> None:
    """Give the policy ``device`` other members."""
    rules = (await arm.request("POST", f"{HUB}/listkeys")).json["value"]
    changed = [{**rule, **members} if rule["keyName"] == "device" else rule for rule in rules]
    await arm.put(HUB, {"properties": {"authorizationPolicies": changed}})


async def delete_certificate(arm: ManagementClient) -> None:
    assert (await arm.request("DELETE", f"{HUB}/certificates/plant", if_match="*")).status == 200


async def is_disconnected(services: Services, device_id: str) -> None:
    async def shown() -> bool:
        _, times = await services.devices.get("hub", device_id)
        return not times.connected

    await until(shown)


class TestPolicies:
    async def test_a_new_key_ends_who_signed_with_the_old_one(
        self, services: Services, clients: MqttClients, arm: ManagementClient
    ) -> None:
        leaning = await by_policy(services, clients)
        other = await by_certificate(clients)
        await change_policies(arm, primaryKey=NEW_KEY, secondaryKey=NEW_KEY)
        await leaning.is_closed()
        await is_disconnected(services, "by-key")
        await other.publish(EVENTS.format("dev-01"), b"still here")

    async def test_a_new_key_beside_the_one_that_signed_ends_nobody(
        self, services: Services, clients: MqttClients, arm: ManagementClient
    ) -> None:
        leaning = await by_policy(services, clients)
        await change_policies(arm, secondaryKey=NEW_KEY)
        await leaning.publish(EVENTS.format("by-key"), b"still here")
        # Both keys have gone only now.
        await change_policies(arm, primaryKey=NEW_KEY)
        await leaning.is_closed()

    async def test_a_policy_that_loses_its_right(
        self, services: Services, clients: MqttClients, arm: ManagementClient
    ) -> None:
        leaning = await by_policy(services, clients)
        await change_policies(arm, rights="ServiceConnect")
        await leaning.is_closed()

    async def test_a_policy_that_goes(self, services: Services, clients: MqttClients, arm: ManagementClient) -> None:
        leaning, owner = await by_policy(services, clients), await by_certificate(clients)
        rules = (await arm.request("POST", f"{HUB}/listkeys")).json["value"]
        kept = [rule for rule in rules if rule["keyName"] != "device"]
        await arm.put(HUB, {"properties": {"authorizationPolicies": kept}})
        await leaning.is_closed()
        await owner.publish(EVENTS.format("dev-01"), b"still here")

    async def test_who_has_a_key_of_its_own_stays(self, clients: MqttClients, arm: ManagementClient) -> None:
        own = await clients.to_hub("by-key", key=KEY)
        witness = await by_certificate(clients)
        await change_policies(arm, primaryKey=NEW_KEY, secondaryKey=NEW_KEY)
        await delete_certificate(arm)
        await witness.is_closed()
        await own.publish(EVENTS.format("by-key"), b"still here")

    @pytest.mark.usefixtures("clients")
    async def test_a_change_between_the_look_at_the_token_and_the_session(
        self, services: Services, arm: ManagementClient
    ) -> None:
        await services.leaning_sessions.stop()  # it is the session itself that sees this
        login = DeviceLogin(services.hub, HUB_HOST, "by-key", "")
        credential = Credential((), policy_token(services), "test")
        principal = await services.authentication.authenticate(login, credential)
        await change_policies(arm, primaryKey=NEW_KEY, secondaryKey=NEW_KEY)
        heard: list[Notice] = []
        session = await services.sessions.attach(principal, heard.append)
        assert heard == [Notice.IDENTITY_CHANGED]
        assert not await services.authentication.still_holds(login, credential, principal)
        services.sessions.detach(session)


class TestCaCertificates:
    async def test_its_deletion_ends_who_leans_on_it(
        self, services: Services, clients: MqttClients, arm: ManagementClient
    ) -> None:
        leaning = await by_certificate(clients)
        await delete_certificate(arm)
        await leaning.is_closed()
        await is_disconnected(services, "dev-01")
        again = clients.open(DEVICE, LINE)
        await again.send(clients.hub_connect("dev-01"))
        await again.is_refused(5)

    async def test_another_one_ends_nobody(
        self, services: Services, clients: MqttClients, arm: ManagementClient
    ) -> None:
        leaning, witness = await by_certificate(clients), await by_policy(services, clients)
        pem = certificates_pem(intermediate().certificate).decode()
        await services.hub_authorities.put("hub", "line", pem, is_verified=True, if_match=None)
        await change_policies(arm, primaryKey=NEW_KEY, secondaryKey=NEW_KEY)
        await witness.is_closed()
        await leaning.publish(EVENTS.format("dev-01"), b"still here")
        # It leads to the other one as well.
        await delete_certificate(arm)
        await leaning.publish(EVENTS.format("dev-01"), b"still here")
        assert await services.hub_authorities.delete("hub", "line", "*")
        await leaning.is_closed()

    async def test_one_of_a_hub_that_came_later(
        self, services: Services, clients: MqttClients, arm: ManagementClient
    ) -> None:
        await arm.put(f"{HUBS}/east", {"properties": {"hostName": "east.example.net"}})
        body = IdentityBody(device_id="dev-01", authentication=AuthenticationBody("certificateAuthority"))
        await services.devices.put("east", "dev-01", body, None)
        pem = certificates_pem(root().certificate).decode()
        await services.hub_authorities.put("east", "plant", pem, is_verified=True, if_match=None)
        client = clients.open(DEVICE, LINE)
        await client.send(clients.hub_connect("dev-01", username="east.example.net/dev-01/?api-version=2019-10-01"))
        assert await client.receive(Connack) == Connack()
        assert await services.hub_authorities.delete("east", "plant", "*")
        await client.is_closed()

    @pytest.mark.usefixtures("clients")
    async def test_a_deletion_between_the_look_at_the_certificate_and_the_session(
        self, services: Services, arm: ManagementClient
    ) -> None:
        await services.leaning_sessions.stop()
        login = DeviceLogin(services.hub, HUB_HOST, "dev-01", "")
        credential = Credential((DEVICE, LINE), "", "test")
        principal = await services.authentication.authenticate(login, credential)
        await delete_certificate(arm)
        heard: list[Notice] = []
        session = await services.sessions.attach(principal, heard.append)
        assert heard == [Notice.IDENTITY_CHANGED]
        assert not await services.authentication.still_holds(login, credential, principal)
        services.sessions.detach(session)
