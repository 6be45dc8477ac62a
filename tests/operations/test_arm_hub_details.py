"""What Resource Manager has below a hub: policies, CA certificates, consumer groups, use (hub-service.md 10)."""

import base64
from typing import Any

import msgspec
import pytest
from tests.support import fix_pki
from tests.support.fix_arm import HUBS, PROVIDER, SUBSCRIPTION, ManagementClient
from tests.support.fix_services import KEY, Services

from muster.domain.device import IdentityBody

HUB = f"{HUBS}/hub"
GROUPS = f"{HUB}/eventHubEndpoints/events/ConsumerGroups"
OWNER = {"keyName": "iothubowner", "rights": "RegistryWrite, ServiceConnect, DeviceConnect", "primaryKey": KEY}


class TestPolicies:
    async def put(self, arm: ManagementClient, *rules: Any, name: str = "hub") -> Any:
        return await arm.request("PUT", f"{HUBS}/{name}", {"properties": {"authorizationPolicies": list(rules)}})

    async def test_they_are_replaced_and_a_key_that_is_not_sent_is_made(
        self, arm: ManagementClient, services: Services
    ) -> None:
        line = {"keyName": "line-a", "rights": "RegistryRead,ServiceConnect"}
        answer = await self.put(arm, OWNER, line)
        assert answer.status == 200
        shown = {rule["keyName"]: rule for rule in answer.json["properties"]["authorizationPolicies"]}
        assert set(shown) == {"iothubowner", "line-a"}
        assert shown["iothubowner"]["primaryKey"] == KEY
        assert shown["line-a"]["rights"] == "RegistryRead, ServiceConnect"
        assert [len(base64.b64decode(shown["line-a"][key])) for key in ("primaryKey", "secondaryKey")] == [32, 32]
        listed = (await arm.request("POST", f"{HUB}/listkeys")).json["value"]
        assert {rule["keyName"]: rule for rule in listed} == shown
        assert set(services.hub.policies) == set(shown)
        assert "authorizationPolicies" not in (await arm.get(HUB))["properties"]

    async def test_without_any_they_stay(self, arm: ManagementClient, services: Services) -> None:
        before = services.hub.policies
        assert (await arm.request("PUT", HUB, await arm.get(HUB))).status == 200
        assert services.hub.policies == before

    @pytest.mark.parametrize(
        "rules",
        [
            [],
            [{"keyName": "only", "rights": "RegistryRead"}],
            [{**OWNER, "rights": "RegistryWrite"}],
            [OWNER, OWNER],
            [OWNER, {"keyName": "a b", "rights": "RegistryRead"}],
            [OWNER, {"keyName": "a", "rights": "EnrollmentRead"}],
            [OWNER, {"keyName": "a", "rights": "RegistryRead", "primaryKey": "short"}],
            [{"keyName": "iothubowner"}],
        ],
    )
    async def test_what_is_refused(self, arm: ManagementClient, services: Services, rules: list[Any]) -> None:
        before = services.hub.policies
        assert (await self.put(arm, *rules)).status == 400
        assert services.hub.policies == before

    async def test_sixteen_are_allowed(self, arm: ManagementClient) -> None:
        rules = [{"keyName": f"p{number}", "rights": "RegistryRead"} for number in range(16)]
        assert (await self.put(arm, OWNER, *rules[:15])).status == 200
        assert (await self.put(arm, OWNER, *rules)).status == 403

    async def test_a_new_hub_takes_them(self, arm: ManagementClient, services: Services) -> None:
        properties = {"hostName": "east.example.net", "authorizationPolicies": [OWNER]}
        assert (await arm.request("PUT", f"{HUBS}/east", {"properties": properties})).status == 201
        assert set(services.hubs.by_name("east").policies) == {"iothubowner"}


class TestCertificates:
    async def upload(self, arm: ManagementClient, **properties: Any) -> Any:
        content = base64.b64encode(fix_pki.root().certificate_pem).decode()
        return await arm.put(f"{HUB}/certificates/plant", {"properties": {"certificate": content, **properties}})

    async def test_proof_of_possession(self, arm: ManagementClient) -> None:
        uploaded = await self.upload(arm)
        assert uploaded["type"] == "Microsoft.Devices/IotHubs/Certificates"
        assert uploaded["id"].endswith("/IotHubs/hub/certificates/plant")
        assert uploaded["properties"]["isVerified"] is False
        path = f"{HUB}/certificates/plant"
        begun = await arm.request("POST", f"{path}/generateVerificationCode", if_match=uploaded["etag"])
        code = begun.json["properties"]["verificationCode"]
        wrong = {"certificate": base64.b64encode(fix_pki.self_signed(code).certificate_pem).decode()}
        refused = await arm.request("POST", f"{path}/verify", wrong, if_match="*")
        assert (refused.status, "possession" in refused.json["message"]) == (400, True)
        listed = await arm.get(f"{HUB}/certificates")
        assert [one["name"] for one in listed["value"]] == ["plant"]
        assert (await arm.request("DELETE", path)).status == 412
        assert (await arm.request("DELETE", path, if_match="*")).status == 200
        assert (await arm.request("DELETE", path, if_match="*")).status == 204

    async def test_on_ones_word(self, arm: ManagementClient, services: Services) -> None:
        assert (await self.upload(arm, isVerified=True))["properties"]["isVerified"] is True
        assert [one.name for one in await services.hub_authorities.all("hub")] == ["plant"]
        assert await services.authorities.all(services.service.id_scope) == []

    async def test_they_go_with_their_hub(self, arm: ManagementClient, services: Services) -> None:
        await arm.put(f"{HUBS}/east", {"properties": {"hostName": "east.example.net"}})
        content = base64.b64encode(fix_pki.root().certificate_pem).decode()
        await arm.put(f"{HUBS}/east/certificates/plant", {"properties": {"certificate": content}})
        await arm.put(f"{HUBS}/east/eventHubEndpoints/events/ConsumerGroups/line", {"properties": {"name": "line"}})
        assert (await arm.request("DELETE", f"{HUBS}/east")).status == 200
        await arm.put(f"{HUBS}/east", {"properties": {"hostName": "east.example.net"}})
        assert await services.hub_authorities.all("east") == []
        assert [group.name for group in await services.consumer_groups.all("east")] == ["$Default"]

    async def test_of_a_hub_that_is_not_there(self, arm: ManagementClient) -> None:
        assert (await arm.request("GET", f"{HUBS}/west/certificates")).status == 404


class TestConsumerGroups:
    async def test_they_are_made_and_deleted(self, arm: ManagementClient) -> None:
        made = await arm.put(f"{GROUPS}/Line-A", {"properties": {"name": "Line-A"}})
        assert (made["name"], made["type"]) == ("Line-A", "Microsoft.Devices/IotHubs/EventHubEndpoints/ConsumerGroups")
        assert made["id"].endswith("/IotHubs/hub/eventHubEndpoints/events/ConsumerGroups/Line-A")
        assert await arm.put(f"{GROUPS}/LINE-a", {"properties": {"name": "LINE-a"}}) == made, "names ignore case"
        assert [one["name"] for one in (await arm.get(GROUPS))["value"]] == ["$Default", "Line-A"]
        assert await arm.get(f"{GROUPS}/line-a") == made
        assert (await arm.request("DELETE", f"{GROUPS}/line-A")).status == 200
        assert (await arm.request("DELETE", f"{GROUPS}/line-A")).status == 404
        assert (await arm.request("GET", f"{GROUPS}/line-A")).status == 404

    async def test_the_default_stays(self, arm: ManagementClient) -> None:
        assert (await arm.get(f"{GROUPS}/$default"))["name"] == "$Default"
        assert (await arm.put(f"{GROUPS}/$default", {}))["name"] == "$Default"
        assert (await arm.request("DELETE", f"{GROUPS}/$Default")).status == 403

    @pytest.mark.parametrize("name", ["a b", "-a", "a-", "x" * 51, "a$"])
    async def test_names_that_are_refused(self, arm: ManagementClient, name: str) -> None:
        assert (await arm.request("PUT", f"{GROUPS}/{name.replace(' ', '%20')}", {})).status == 400

    async def test_twenty_are_allowed_with_it(self, arm: ManagementClient) -> None:
        for number in range(19):
            await arm.put(f"{GROUPS}/g{number}", {})
        assert (await arm.request("PUT", f"{GROUPS}/one-more", {})).status == 403

    async def test_of_another_endpoint(self, arm: ManagementClient) -> None:
        assert (await arm.request("GET", f"{HUB}/eventHubEndpoints/other/ConsumerGroups")).status == 404


async def test_what_can_be_read(arm: ManagementClient, services: Services) -> None:
    for device_id, status in (("a", "enabled"), ("b", "disabled")):
        body = msgspec.convert({"deviceId": device_id, "status": status}, IdentityBody)
        await services.devices.put("hub", device_id, body, None)
    assert await arm.get(f"{HUB}/IotHubStats") == {
        "totalDeviceCount": 2,
        "enabledDeviceCount": 1,
        "disabledDeviceCount": 1,
    }
    quotas = {one["name"]: one for one in (await arm.get(f"{HUB}/quotaMetrics"))["value"]}
    assert (quotas["TotalDeviceCount"]["currentValue"], quotas["TotalMessages"]["currentValue"]) == (2, 0)
    assert quotas["TotalMessages"]["maxValue"] == 400_000
    assert (await arm.get(f"{HUB}/skus"))["value"][0]["sku"] == {"name": "S1", "tier": "Standard"}
    assert (await arm.get(f"{HUB}/routingEndpointsHealth"))["value"] == []
    assert (await arm.get(f"{HUB}/jobs"))["value"] == []
    assert (await arm.request("GET", f"{HUB}/jobs/1")).status == 404
    (usage,) = (await arm.get(f"{SUBSCRIPTION}{PROVIDER}/usages"))["value"]
    assert (usage["currentValue"], usage["limit"], usage["name"]["value"]) == (1, 50, "IotHubCount")
