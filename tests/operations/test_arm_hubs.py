"""Hubs as resources: made, shown, removed while the server runs (hub-service.md 10)."""

import asyncio
import re
from typing import Any

import pytest
from tests.support.fix_arm import GROUP, HUBS, PROVIDER, SERVICE, SUBSCRIPTION, VERSION, ManagementClient
from tests.support.fix_services import KEY, Services

from muster.domain.device import IdentityBody
from muster.domain.event_hub import event_hub_name
from muster.domain.timestamp import DAY
from muster.hub.authentication import Principal
from muster.hub.hubs import HUBS_CHANGED
from muster.hub.sessions import Notice

EAST = f"{HUBS}/east"
BODY = {"location": "line-a", "properties": {"hostName": "east.example.net"}}


def refused(answer: Any, status: int, name: str) -> str:
    assert answer.status == status, answer
    assert answer.json["error"]["code"] == name
    code = answer.json["code"]
    assert isinstance(code, str)
    assert int(code) // 1000 == status
    return str(answer.json["message"])


async def create_device(services: Services, hub: str, device_id: str) -> Principal:
    identity, _ = await services.devices.put(hub, device_id, IdentityBody(device_id=device_id), None)
    return Principal(services.hubs.by_name(hub), identity, "{}", None)


class TestCreation:
    async def test_the_shape(self, arm: ManagementClient) -> None:
        answer = await arm.request("PUT", EAST, BODY)
        assert answer.status == 201
        hub = answer.json
        assert re.fullmatch(r"AAAAA[A-P][\w+/]{5}=", hub.pop("etag"))
        assert hub == {
            "id": EAST,
            "name": "east",
            "type": "Microsoft.Devices/IotHubs",
            "location": "line-a",
            "tags": {},
            "subscriptionid": "5ca1ab1e-0000-0000-0000-000000000001",
            "resourcegroup": "line-a",
            "sku": {"name": "S1", "tier": "Standard", "capacity": 1},
            "properties": {
                "provisioningState": "Succeeded",
                "state": "Active",
                "hostName": "east.example.net",
                "locations": [{"location": "line-a", "role": "primary"}],
                "eventHubEndpoints": {
                    "events": {
                        "retentionTimeInDays": 1,
                        "partitionCount": 4,
                        "partitionIds": ["0", "1", "2", "3"],
                        "path": event_hub_name("east"),
                        "endpoint": "sb://east.example.net/",
                    }
                },
                "cloudToDevice": {
                    "maxDeliveryCount": 10,
                    "defaultTtlAsIso8601": "PT1H",
                    "feedback": {"lockDurationAsIso8601": "PT1M", "ttlAsIso8601": "PT1H", "maxDeliveryCount": 10},
                },
                "features": "None",
                "hubEvents": [],
            },
        }
        assert {**await arm.get(EAST.replace("IotHubs/east", "iothubs/EAST")), "etag": ""} == {**hub, "etag": ""}

    async def test_with_its_own_way_to_keep_messages(self, arm: ManagementClient, services: Services) -> None:
        properties = {**BODY["properties"], "cloudToDevice": {"defaultTtlAsIso8601": "P2D"}}
        made = await arm.put(EAST, {**BODY, "properties": properties})
        assert made["properties"]["cloudToDevice"]["defaultTtlAsIso8601"] == "P2D"
        assert services.hubs.by_name("east").c2d.default_time_to_live == 2 * DAY

    async def test_it_is_there_at_once(self, arm: ManagementClient, services: Services) -> None:
        told: list[str] = []
        services.bus.subscribe(HUBS_CHANGED, lambda message: told.append(message.subject))
        await arm.put(EAST, BODY)
        await asyncio.sleep(0)
        assert told == [HUBS_CHANGED]
        assert services.hubs.by_host("east.example.net").name == "east"
        assert arm.certifier.renewed == [{"example.net", "east.example.net"}]
        assert "east.example.net" in arm.hosts
        await create_device(services, "east", "press-1")
        listed = (await arm.get(HUBS))["value"]
        assert [hub["name"] for hub in listed] == ["hub", "east"]
        assert [hub["name"] for hub in (await arm.get(f"{SUBSCRIPTION}{PROVIDER}/IotHubs"))["value"]] == ["hub", "east"]

    async def test_its_keys_are_its_own(self, arm: ManagementClient) -> None:
        await arm.put(EAST, BODY)
        rules = (await arm.request("POST", f"{EAST}/listkeys")).json["value"]
        assert {rule["keyName"]: rule["rights"] for rule in rules} == {
            "device": "DeviceConnect",
            "iothubowner": "RegistryWrite, ServiceConnect, DeviceConnect",
            "registryRead": "RegistryRead",
            "registryReadWrite": "RegistryWrite",
            "service": "ServiceConnect",
        }
        keys = {rule[name] for rule in rules for name in ("primaryKey", "secondaryKey")}
        assert len(keys) == 10
        assert KEY not in keys
        rule = (await arm.request("POST", f"{EAST}/IotHubKeys/service/listkeys")).json
        assert rule in rules
        refused(await arm.request("POST", f"{EAST}/IotHubKeys/none/listkeys"), 404, "ResourceNotFound")

    async def test_partitions(self, arm: ManagementClient, services: Services) -> None:
        events = {"events": {"partitionCount": 2, "retentionTimeInDays": 1}}
        body = {"properties": {"hostName": "east.example.net", "eventHubEndpoints": events}}
        created = await arm.put(EAST, body)
        assert created["properties"]["eventHubEndpoints"]["events"]["partitionIds"] == ["0", "1"]
        assert len((await services.events.positions("east"))[0].next_sequence_numbers) == 2

    @pytest.mark.parametrize(
        ("name", "properties", "part"),
        [
            ("east", {}, "needs properties.hostName"),
            ("east", {"hostName": ""}, "needs properties.hostName"),
            ("east", {"hostName": 7}, "not a text"),
            ("east", {"hostName": "a b.example.net"}, "neither a host name nor an IP address"),
            ("east", {"hostName": "-a.example.net"}, "neither a host name nor an IP address"),
            ("east", {"hostName": "x." * 130 + "example.net"}, "neither a host name nor an IP address"),
            ("east", {"hostName": "east.example.com"}, "such as east.example.net"),
            ("east", {"hostName": "10.0.0.1"}, "the CA certificate that clients trust is limited"),
            ("east", {"hostName": "0.0.0.0"}, "not an address that a client can dial"),
            ("east", {"hostName": "HUB.example.net"}, "where the hub hub is served"),
            ("-east", {"hostName": "east.example.net"}, "no hyphen at either end"),
            ("e" * 51, {"hostName": "east.example.net"}, "3 to 50 are allowed"),
            ("127", {"hostName": "east.example.net"}, "digits only"),
            ("east", {"hostName": "east.example.net", "routing": {"routes": [{}]}}, "no routing"),
            ("east", {"hostName": "east.example.net", "disableLocalAuth": True}, "no disableLocalAuth"),
            ("east", {"hostName": "east.example.net", "ipFilterRules": [{}]}, "no ipFilterRules"),
            ("east", {"hostName": "east.example.net", "minTlsVersion": {"a": "1.2"}}, "no minTlsVersion"),
            (
                "east",
                {"hostName": "east.example.net", "routing": {"fallbackRoute": {"isEnabled": False}}},
                "no routing",
            ),
            (
                "east",
                {"hostName": "east.example.net", "storageEndpoints": {"$default": {"connectionString": "x"}}},
                "no storageEndpoints",
            ),
            ("east", {"hostName": "east.example.net", "authorizationPolicies": [{}]}, "authorizationPolicies"),
            (
                "east",
                {"hostName": "east.example.net", "eventHubEndpoints": {"events": {"partitionCount": 33}}},
                "partitionCount is 33",
            ),
        ],
    )
    async def test_what_is_refused_leaves_nothing(
        self, arm: ManagementClient, name: str, properties: dict[str, Any], part: str
    ) -> None:
        answer = await arm.request("PUT", f"{HUBS}/{name}", {"properties": properties})
        assert part in refused(answer, 400, "ArgumentInvalid")
        assert len((await arm.get(HUBS))["value"]) == 1
        assert arm.certifier.renewed == []
        assert arm.hosts.hosts == {"example.net"}

    async def test_a_managed_identity_is_refused(self, arm: ManagementClient) -> None:
        answer = await arm.request("PUT", EAST, {**BODY, "identity": {"type": "SystemAssigned"}})
        assert "no identity" in refused(answer, 400, "ArgumentInvalid")

    async def test_a_hub_that_is_to_exist(self, arm: ManagementClient) -> None:
        refused(await arm.request("PUT", EAST, BODY, if_match="*"), 412, "PreconditionFailed")

    async def test_two_of_one_name_at_once(self, arm: ManagementClient) -> None:
        bodies = [{"properties": {"hostName": f"{host}.example.net"}} for host in ("a", "b")]
        answers = await asyncio.gather(*(arm.request("PUT", EAST, body) for body in bodies))
        assert sorted(answer.status for answer in answers) == [201, 409]
        assert len((await arm.get(HUBS))["value"]) == 2
        host = (await arm.get(EAST))["properties"]["hostName"]
        assert arm.hosts.hosts == {"example.net", host}

    @pytest.mark.parametrize(("name", "available"), [("fresh", True), ("HUB", False), ("-", False)])
    async def test_names(self, arm: ManagementClient, name: str, available: bool) -> None:
        answer = await arm.request("POST", f"{SUBSCRIPTION}{PROVIDER}/checkNameAvailability", {"name": name})
        assert answer.json["nameAvailable"] is available

    async def test_the_first_hub_stays_the_first(self, arm: ManagementClient, services: Services) -> None:
        services.clock.advance(-(400 * 86_400_000_000))
        await arm.put(EAST, BODY)
        await services.hubs.load()
        assert [hub.name for hub in services.hubs.all] == ["hub", "east"]


class TestChange:
    @pytest.fixture(autouse=True)
    async def east(self, arm: ManagementClient) -> None:
        await arm.put(EAST, BODY)

    async def test_what_was_read_can_be_put_back(self, arm: ManagementClient) -> None:
        before = await arm.get(EAST)
        answer = await arm.request("PUT", EAST, before)
        assert answer.status == 200
        after = answer.json
        assert after.pop("etag") != before["etag"]
        assert after == {name: value for name, value in before.items() if name != "etag"}
        refused(await arm.request("PUT", EAST, before), 412, "PreconditionFailed")

    async def test_what_a_new_hub_of_azure_has_asks_for_nothing(self, arm: ManagementClient) -> None:
        fallback = {"name": "$fallback", "source": "DeviceMessages", "condition": "true", "isEnabled": True}
        azure = {
            "routing": {
                "endpoints": {"eventHubs": [], "serviceBusQueues": [], "storageContainers": []},
                "routes": [],
                "enrichments": [],
                "fallbackRoute": {**fallback, "endpointNames": ["events"]},
            },
            "storageEndpoints": {"$default": {"sasTtlAsIso8601": "PT1H", "connectionString": "", "containerName": ""}},
            "messagingEndpoints": {
                "fileNotifications": {"lockDurationAsIso8601": "PT1M", "ttlAsIso8601": "PT1H", "maxDeliveryCount": 10}
            },
            "enableFileUploadNotifications": False,
            "ipFilterRules": [],
            "minTlsVersion": "1.2",
        }
        before = await arm.get(EAST)
        after = await arm.put(EAST, {**before, "properties": {**before["properties"], **azure}})
        assert after["properties"] == before["properties"]

    @pytest.mark.parametrize(("name", "tier"), [("F1", "Free"), ("B2", "Basic"), ("S1", "Standard")])
    async def test_the_tier_of_a_size(self, arm: ManagementClient, name: str, tier: str) -> None:
        assert (await arm.put(EAST, {"sku": {"name": name, "capacity": 1}}))["sku"]["tier"] == tier
        assert (await arm.get(f"{EAST}/skus"))["value"][0]["sku"] == {"name": name, "tier": tier}

    async def test_tags_and_size(self, arm: ManagementClient) -> None:
        after = await arm.put(EAST, {"tags": {"a": "b"}, "sku": {"name": "S3", "capacity": 2}})
        assert (after["tags"], after["location"]) == ({"a": "b"}, "line-a")
        assert after["sku"] == {"name": "S3", "tier": "Standard", "capacity": 2}
        patched = (await arm.request("PATCH", EAST, {"tags": {"c": "d"}})).json
        assert patched == await arm.get(EAST)
        assert (patched["tags"], patched["sku"]["capacity"]) == ({"c": "d"}, 2)

    @pytest.mark.parametrize(
        "properties", [{"hostName": "other.example.net"}, {"eventHubEndpoints": {"events": {"partitionCount": 8}}}]
    )
    async def test_what_devices_know_stays(self, arm: ManagementClient, properties: dict[str, Any]) -> None:
        answer = await arm.request("PUT", EAST, {"properties": properties})
        assert "cannot be changed" in refused(answer, 400, "ArgumentInvalid")

    async def test_how_messages_for_devices_are_kept(self, arm: ManagementClient, services: Services) -> None:
        properties = {"cloudToDevice": {"maxDeliveryCount": 3, "feedback": {"ttlAsIso8601": "PT2H"}}}
        changed = await arm.put(EAST, {"properties": properties})
        assert changed["properties"]["cloudToDevice"] == {
            "maxDeliveryCount": 3,
            "defaultTtlAsIso8601": "PT1H",
            "feedback": {"lockDurationAsIso8601": "PT1M", "ttlAsIso8601": "PT2H", "maxDeliveryCount": 10},
        }
        assert services.hubs.by_name("east").c2d.maximum_delivery_count == 3
        kept = await arm.put(EAST, {"location": "elsewhere"})
        assert kept["properties"]["cloudToDevice"] == changed["properties"]["cloudToDevice"]
        answer = await arm.request("PUT", EAST, {"properties": {"cloudToDevice": {"maxDeliveryCount": 0}}})
        assert "maxDeliveryCount" in refused(answer, 400, "ArgumentInvalid")

    async def test_a_hub_that_is_not_there(self, arm: ManagementClient) -> None:
        missing = f"{HUBS}/west"
        refused(await arm.request("GET", missing), 404, "ResourceNotFound")
        refused(await arm.request("PATCH", missing, {"tags": {}}), 404, "ResourceNotFound")
        refused(await arm.request("POST", f"{missing}/listkeys"), 404, "ResourceNotFound")
        assert (await arm.request("DELETE", missing)).status == 204


class TestRemoval:
    @pytest.fixture(autouse=True)
    async def east(self, arm: ManagementClient) -> None:
        await arm.put(EAST, BODY)

    async def test_it_is_gone_everywhere(self, arm: ManagementClient, services: Services) -> None:
        link = {"hostName": "east.example.net"}
        await arm.put(SERVICE, {"properties": {"iotHubs": [{"hostName": "hub.example.net"}, link]}})
        assert (await arm.request("DELETE", EAST)).status == 200
        refused(await arm.request("GET", EAST), 404, "ResourceNotFound")
        assert [hub["name"] for hub in (await arm.get())["properties"]["iotHubs"]] == ["hub.example.net"]
        assert services.hubs.by_host("east.example.net").name == "hub", "an unknown host means the first hub"
        assert "east.example.net" not in arm.hosts
        assert arm.certifier.renewed[-1] == {"example.net"}

    async def test_devices_are_not_lost_by_mistake(self, arm: ManagementClient, services: Services) -> None:
        principal = await create_device(services, "east", "press-1")
        told: list[Notice] = []
        await services.sessions.attach(principal, told.append)
        message = refused(await arm.request("DELETE", EAST), 409, "GenericConflict")
        assert "The hub east has devices, which would be lost with it: 1." in message
        assert (await arm.get(EAST))["name"] == "east"
        answer = await arm.request("DELETE", f"{EAST}?force=true&{VERSION}")
        assert answer.status == 200
        await asyncio.sleep(0)
        assert told == [Notice.IDENTITY_CHANGED]
        assert await services.devices.find("east", "press-1") is None

    async def test_a_new_one_of_the_same_name_is_empty(self, arm: ManagementClient, services: Services) -> None:
        await create_device(services, "east", "press-1")
        await arm.request("DELETE", f"{EAST}?force=true&{VERSION}")
        await arm.put(EAST, BODY)
        assert await services.devices.list("east") == []

    async def test_the_first_hub_stays(self, arm: ManagementClient) -> None:
        message = refused(await arm.request("DELETE", f"{HUBS}/hub?force=true&{VERSION}"), 403, "GenericForbidden")
        assert "every start" in message

    async def test_only_the_version_that_was_seen(self, arm: ManagementClient) -> None:
        refused(await arm.request("DELETE", EAST, if_match="AAAA"), 412, "PreconditionFailed")
        assert (await arm.request("DELETE", EAST, if_match=(await arm.get(EAST))["etag"])).status == 200


async def test_any_group_is_taken(arm: ManagementClient) -> None:
    other = EAST.replace(GROUP, f"{SUBSCRIPTION}/resourceGroups/other")
    created = await arm.put(other, BODY)
    assert created["resourcegroup"] == "other"
    assert (await arm.get(EAST))["resourcegroup"] == "line-a"
