"""The provisioning service as a resource: the token, the JSON, partial updates, CA certificates (dps.md 7)."""

import asyncio
import base64
import re
from typing import Any

import jwt
import pytest
from tests.support.fix_arm import GROUP, PROVIDER, SERVICE, SUBSCRIPTION, VERSION, ManagementClient
from tests.support.fix_pki import NOW, Identity, ec_key, intermediate, make_certificate, root
from tests.support.fix_services import KEY, Services

from muster.dps.services import PROVISIONING_CHANGED

HUB_STRING = f"HostName=hub.example.net;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}"
MASKED = "HostName=hub.example.net;SharedAccessKeyName=iothubowner;SharedAccessKey=****"
OTHER_KEY = base64.b64encode(b"another key, 32 bytes long......").decode()
CERTIFICATE = f"{SERVICE}/certificates/plant-root"


def refused(answer: Any, status: int, name: str) -> str:
    """The message of a refusal, in both shapes."""
    assert answer.status == status, answer
    document = answer.json
    assert document["error"]["code"] == name
    assert int(document["code"]) // 1000 == status
    assert document["message"] == document["error"]["message"]
    return str(document["message"])


class TestToken:
    async def refusal(self, arm: ManagementClient, authorization: str | None) -> str:
        answer = await arm.request("GET", SERVICE, authorization=authorization)
        assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        message = refused(answer, 401, "InvalidAuthenticationToken")
        assert message.endswith("run `muster token`.")
        assert answer.json["httpStatusCode"] == "Unauthorized"
        return message

    async def test_every_refusal_says_what_is_wrong(self, arm: ManagementClient) -> None:
        token = arm.token()
        assert "there is no Authorization header" in await self.refusal(arm, None)
        assert "does not begin with 'Bearer'" in await self.refusal(arm, "SharedAccessSignature sr=a")
        head, _, signature = token.rpartition(".")
        changed = f"{head}.{'A' if signature[0] != 'A' else 'B'}{signature[1:]}"
        assert "another server's token" in await self.refusal(arm, changed)
        arm.services.clock.advance(2 * 3600 * 1_000_000)
        assert "it expired" in await self.refusal(arm, token)

    async def test_an_unsigned_token_opens_nothing(self, arm: ManagementClient) -> None:
        claims = jwt.decode(arm.token().split()[1], options={"verify_signature": False})
        assert "HS256" in await self.refusal(arm, f"Bearer {jwt.encode(claims, None, 'none')}")

    async def test_a_policy_of_the_service_opens_nothing(self, arm: ManagementClient) -> None:
        claims = jwt.decode(arm.token().split()[1], options={"verify_signature": False})
        signed = jwt.encode(claims, base64.b64decode(KEY), "HS256")
        assert "another server's token" in await self.refusal(arm, f"Bearer {signed}")

    async def test_every_route_asks_for_it(self, arm: ManagementClient) -> None:
        for method, target in (
            ("GET", f"{PROVIDER}/operations"),
            ("PUT", SERVICE),
            ("POST", f"{SERVICE}/listkeys"),
            ("DELETE", CERTIFICATE),
            ("PUT", f"{GROUP}{PROVIDER}/IotHubs/east"),
            ("DELETE", f"{GROUP}{PROVIDER}/IotHubs/east"),
        ):
            refused(await arm.request(method, target, {}, authorization=None), 401, "InvalidAuthenticationToken")

    async def test_the_version_is_asked_for_after_it(self, arm: ManagementClient) -> None:
        refused(await arm.request("GET", f"{SERVICE}?x=1"), 400, "InvalidProtocolVersion")
        answer = await arm.request("GET", f"{SERVICE}?x=1", authorization=None)
        refused(answer, 401, "InvalidAuthenticationToken")


class TestResource:
    async def test_the_shape(self, arm: ManagementClient) -> None:
        resource = await arm.get()
        assert re.fullmatch(r"AAAAA[A-P][\w+/]{5}=", resource.pop("etag"))
        assert resource == {
            "name": "dps",
            "location": "local",
            "properties": {
                "state": "Active",
                "provisioningState": "Succeeded",
                "iotHubs": [{"name": "hub.example.net", "connectionString": MASKED, "location": "local"}],
                "allocationPolicy": "Hashed",
                "serviceOperationsHostName": "dps.example.net",
                "deviceProvisioningHostName": "dps.example.net",
                "idScope": "0ne00000001",
            },
            "resourcegroup": "line-a",
            "type": "Microsoft.Devices/provisioningServices",
            "id": SERVICE,
            "subscriptionid": "5ca1ab1e-0000-0000-0000-000000000001",
            "tags": {},
            "sku": {"name": "S1", "tier": "Standard"},
        }

    @pytest.mark.parametrize(
        "spelling",
        [
            SERVICE.replace("provisioningServices", "ProvisioningServices").replace("resourceGroups", "resourcegroups"),
            SERVICE.upper().replace("LINE-A", "line-a"),
            f"{SERVICE}/",
        ],
    )
    async def test_words_and_names_have_no_case(self, arm: ManagementClient, spelling: str) -> None:
        resource = await arm.get(spelling)
        assert (resource["name"], resource["resourcegroup"]) == ("dps", "line-a")

    async def test_lists(self, arm: ManagementClient) -> None:
        listed = (await arm.get(f"{GROUP}{PROVIDER}/provisioningServices"))["value"]
        assert listed == [await arm.get()]
        everywhere = (await arm.get(f"{SUBSCRIPTION}{PROVIDER}/provisioningServices"))["value"]
        assert [item["resourcegroup"] for item in everywhere] == ["muster"]
        assert await arm.get(everywhere[0]["id"]) == everywhere[0]

    async def test_a_resource_group(self, arm: ManagementClient) -> None:
        """Azure's command line asks for the location of the group when it is told none (dps.md 7.6)."""
        group = await arm.get(GROUP.replace("resourceGroups", "resourcegroups"))
        assert group == {
            "id": GROUP,
            "name": "line-a",
            "type": "Microsoft.Resources/resourceGroups",
            "location": "local",
            "properties": {"provisioningState": "Succeeded"},
        }

    async def test_another_name_is_not_found(self, arm: ManagementClient) -> None:
        answer = await arm.request("GET", SERVICE.replace("/dps", "/other"))
        message = refused(answer, 404, "ResourceNotFound")
        assert "'Microsoft.Devices/provisioningServices/other' under resource group 'line-a'" in message

    async def test_a_path_that_is_none(self, arm: ManagementClient) -> None:
        refused(await arm.request("GET", f"{SERVICE}/nonsense"), 404, "GenericNotFound")
        refused(await arm.request("DELETE", f"{SERVICE}/skus"), 405, "MethodNotAllowed")

    async def test_a_second_one_is_refused(self, arm: ManagementClient) -> None:
        answer = await arm.request("PUT", SERVICE.replace("/dps", "/second"), {"location": "westus"})
        assert "one provisioning service, dps" in refused(answer, 403, "IotHubQuotaExceeded")

    async def test_it_stays(self, arm: ManagementClient) -> None:
        refused(await arm.request("DELETE", SERVICE), 403, "GenericForbidden")
        assert (await arm.request("DELETE", SERVICE.replace("/dps", "/other"))).status == 204

    @pytest.mark.parametrize(
        ("name", "wanted"),
        [
            ("fresh", (True, "Invalid", None)),
            ("DPS", (False, "AlreadyExists", "The name 'DPS' is taken.")),
            ("ab", (False, "Invalid", "'ab' cannot be a name: it has 2 characters; 3 to 50 are allowed.")),
        ],
    )
    async def test_names(self, arm: ManagementClient, name: str, wanted: tuple[object, ...]) -> None:
        target = f"{SUBSCRIPTION}{PROVIDER}/checkProvisioningServiceNameAvailability"
        answer = (await arm.request("POST", target, {"name": name})).json
        assert (answer["nameAvailable"], answer["reason"], answer["message"]) == wanted

    async def test_what_is_only_there_to_be_asked(self, arm: ManagementClient) -> None:
        assert await arm.get(f"{SERVICE}/skus") == {"value": [{"name": "S1"}]}
        assert await arm.get(f"{SERVICE}/operationResults/aW9x?asyncinfo&api-version=2022-02-05") == {
            "status": "Succeeded"
        }
        assert await arm.get(f"{SERVICE}/privateLinkResources") == {"value": []}
        assert await arm.get(f"{SERVICE}/privateEndpointConnections") == []
        names = [item["name"] for item in (await arm.get(f"{PROVIDER}/operations"))["value"]]
        assert "Microsoft.Devices/provisioningServices/Read" in names

    async def test_keys(self, arm: ManagementClient) -> None:
        rule = {
            "keyName": "provisioningserviceowner",
            "primaryKey": KEY,
            "secondaryKey": KEY,
            "rights": "ServiceConfig, DeviceConnect, EnrollmentWrite",
        }
        answer = await arm.request("POST", f"{SERVICE}/listkeys")
        assert answer.json == {"value": [rule]}
        assert answer.headers["cache-control"] == "no-store"
        assert (await arm.request("POST", f"{SERVICE}/keys/provisioningserviceowner/listkeys")).json == rule
        refused(await arm.request("POST", f"{SERVICE}/keys/none/listkeys"), 404, "ResourceNotFound")


class TestUpdate:
    """What a client reads and puts back keeps what it was not shown (dps.md 7.4)."""

    async def test_what_was_read_can_be_put_back(self, arm: ManagementClient) -> None:
        before = await arm.get()
        after = await arm.put(SERVICE, before)
        assert after.pop("etag") != before.pop("etag")
        assert after == before
        assert arm.services.service.policies["provisioningserviceowner"].keys == (KEY, KEY)

    async def test_an_older_one_cannot(self, arm: ManagementClient) -> None:
        old = await arm.get()
        await arm.put(SERVICE, old)
        refused(await arm.request("PUT", SERVICE, old), 412, "PreconditionFailed")
        del old["etag"]
        refused(await arm.request("PUT", SERVICE, old, if_match="AAAA"), 412, "PreconditionFailed")
        await arm.put(SERVICE, old, if_match="*")
        await arm.put(SERVICE, old)

    async def test_tags_location_and_size(self, arm: ManagementClient) -> None:
        changed = {"location": "West US", "tags": {"line": "a"}, "sku": {"name": "S1", "capacity": 1}, "properties": {}}
        after = await arm.put(SERVICE, changed)
        assert (after["location"], after["tags"], after["sku"]["capacity"]) == ("West US", {"line": "a"}, 1)
        assert after["properties"]["iotHubs"][0]["location"] == "West US"
        after = await arm.put(SERVICE, {"sku": {"name": "S1"}})
        assert (after["location"], after["tags"], after["sku"]["capacity"]) == ("West US", {}, 1)
        patched = await arm.request("PATCH", SERVICE, {"tags": {"line": "b"}})
        assert patched.json["tags"] == (await arm.get())["tags"] == {"line": "b"}
        assert (await arm.request("PATCH", SERVICE, {})).json["tags"] == {"line": "b"}
        many = {str(number): "" for number in range(51)}
        refused(await arm.request("PATCH", SERVICE, {"tags": many}), 400, "ArgumentInvalid")

    async def test_it_outlives_the_process(self, arm: ManagementClient) -> None:
        await arm.put(SERVICE, {"location": "plant", "tags": {"a": "b"}, "properties": {"allocationPolicy": "static"}})
        before = await arm.get()
        await arm.services.provisioning.load()
        assert await arm.get() == before
        assert before["properties"]["allocationPolicy"] == "Static"

    async def test_others_are_told(self, arm: ManagementClient) -> None:
        told: list[str] = []
        arm.services.bus.subscribe(PROVISIONING_CHANGED, lambda message: told.append(message.subject))
        await arm.put(SERVICE, {})
        await asyncio.sleep(0)
        assert told == [PROVISIONING_CHANGED]

    @pytest.mark.parametrize(
        ("policy", "stored"), [("Hashed", "hashed"), ("GEOLATENCY", "geoLatency"), ("static", "static")]
    )
    async def test_the_allocation_policy(self, arm: ManagementClient, policy: str, stored: str) -> None:
        await arm.put(SERVICE, {"properties": {"allocationPolicy": policy}})
        await arm.put(SERVICE, {"properties": {}})
        assert arm.services.service.allocation_policy == stored

    async def test_custom_allocation_is_for_enrollments(self, arm: ManagementClient) -> None:
        answer = await arm.request("PUT", SERVICE, {"properties": {"allocationPolicy": "Custom"}})
        assert "'Custom'" in refused(answer, 400, "ArgumentInvalid")

    @pytest.mark.parametrize(
        "body",
        [
            {"sku": {"name": "S2"}},
            {"identity": {"type": "SystemAssigned"}},
            {"properties": {"publicNetworkAccess": "Disabled"}},
            {"properties": {"ipFilterRules": [{"filterName": "a", "action": "Accept", "ipMask": "10.0.0.0/8"}]}},
            {"properties": {"privateEndpointConnections": [{}]}},
            {"properties": {"deviceRegistryNamespaces": [{}]}},
            {"properties": {"enableDataResidency": True}},
            {"properties": {"disableLocalAuth": True}},
        ],
    )
    async def test_what_does_not_exist_here_is_refused(self, arm: ManagementClient, body: dict[str, Any]) -> None:
        answer = await arm.request("PUT", SERVICE, body)
        word = next(iter(body.get("properties", body)))
        assert word in refused(answer, 400, "ArgumentInvalid")

    async def test_what_asks_for_nothing_is_taken(self, arm: ManagementClient) -> None:
        properties = {
            "publicNetworkAccess": "Enabled",
            "ipFilterRules": [],
            "enableDataResidency": False,
            "disableLocalAuth": None,
            "state": "Active",
            "portalOperationsHostName": "portal.example.net",
        }
        await arm.put(SERVICE, {"sku": {"name": "s1"}, "identity": {"type": "None"}, "properties": properties})

    async def test_a_body_that_is_none(self, arm: ManagementClient) -> None:
        refused(await arm.request("PUT", SERVICE, b""), 400, "ArgumentNull")
        refused(await arm.request("PUT", SERVICE, b"{"), 400, "IotHubFormatError")
        refused(await arm.request("PUT", SERVICE, {"properties": {"iotHubs": 7}}), 400, "ArgumentInvalid")


class TestPolicies:
    OWNER = {"keyName": "provisioningserviceowner", "rights": "ServiceConfig, DeviceConnect, EnrollmentWrite"}  # noqa: RUF012 - a constant

    async def put(self, arm: ManagementClient, *rules: dict[str, Any]) -> Any:
        return await arm.request("PUT", SERVICE, {"properties": {"authorizationPolicies": list(rules)}})

    async def test_they_are_replaced_as_a_set_and_shown_once(self, arm: ManagementClient) -> None:
        reader = {"keyName": "reader", "rights": "EnrollmentRead,registrationStatusRead,EnrollmentRead"}
        owner = {**self.OWNER, "primaryKey": KEY, "secondaryKey": OTHER_KEY}
        shown = (await self.put(arm, owner, reader)).json["properties"]["authorizationPolicies"]
        by_name = {rule["keyName"]: rule for rule in shown}
        assert by_name["provisioningserviceowner"] == owner
        assert by_name["reader"]["rights"] == "EnrollmentRead, RegistrationStatusRead"
        keys = (by_name["reader"]["primaryKey"], by_name["reader"]["secondaryKey"])
        assert len({*keys, KEY, OTHER_KEY}) == 4
        assert all(len(base64.b64decode(key)) == 32 for key in keys)
        assert "authorizationPolicies" not in (await arm.get())["properties"]
        assert (await arm.request("POST", f"{SERVICE}/listkeys")).json["value"] == shown
        await self.put(arm, owner)
        assert set(arm.services.service.policies) == {"provisioningserviceowner"}

    async def test_they_count_at_once(self, arm: ManagementClient, services: Services) -> None:
        await self.put(arm, {**self.OWNER, "primaryKey": OTHER_KEY, "secondaryKey": OTHER_KEY})
        assert services.service.policies["provisioningserviceowner"].keys == (OTHER_KEY, OTHER_KEY)

    async def test_a_missing_key_is_a_new_one(self, arm: ManagementClient) -> None:
        await self.put(arm, {**self.OWNER, "primaryKey": KEY})
        primary, secondary = arm.services.service.policies["provisioningserviceowner"].keys
        assert primary == KEY
        assert secondary != KEY

    @pytest.mark.parametrize(
        ("rules", "part"),
        [
            ([], "has to stay"),
            ([{"keyName": "reader", "rights": "EnrollmentRead"}], "has to stay"),
            ([{**OWNER, "rights": "ServiceConfig, EnrollmentRead"}], "has to stay"),
            ([OWNER, OWNER], "two policies"),
            ([OWNER, {"keyName": "a b", "rights": "EnrollmentRead"}], "keyName is 'a b'"),
            ([OWNER, {"keyName": "a", "rights": "RegistryRead"}], "'RegistryRead'; there are ServiceConfig"),
            ([OWNER, {"keyName": "a", "rights": ""}], "rights has ''"),
            ([{**OWNER, "primaryKey": "short"}], "primaryKey of provisioningserviceowner"),
            ([{"rights": "EnrollmentRead"}], "keyName"),
        ],
    )
    async def test_what_is_refused_changes_nothing(
        self, arm: ManagementClient, rules: list[dict[str, Any]], part: str
    ) -> None:
        before = await arm.get()
        assert part in refused(await self.put(arm, *rules), 400, "ArgumentInvalid")
        assert await arm.get() == before
        assert arm.services.service.policies["provisioningserviceowner"].keys == (KEY, KEY)


class TestLinkedHubs:
    async def link(self, arm: ManagementClient, *hubs: dict[str, Any]) -> Any:
        return await arm.request("PUT", SERVICE, {"properties": {"iotHubs": list(hubs)}})

    async def linked(self, arm: ManagementClient, *hubs: dict[str, Any]) -> list[dict[str, Any]]:
        answer = await self.link(arm, *hubs)
        assert answer.status == 200, answer
        found: list[dict[str, Any]] = answer.json["properties"]["iotHubs"]
        return found

    @pytest.fixture(autouse=True)
    async def second(self, services: Services) -> None:
        await services.hubs.ensure("east", "east.example.net", partition_count=1, well_known_key=OTHER_KEY)

    EAST = f"HostName=east.example.net;SharedAccessKeyName=iothubowner;SharedAccessKey={OTHER_KEY}"

    async def test_the_list_is_the_whole_list(self, arm: ManagementClient) -> None:
        hubs = await self.linked(arm, {"connectionString": MASKED}, {"connectionString": self.EAST, "location": "east"})
        assert [hub["name"] for hub in hubs] == ["hub.example.net", "east.example.net"]
        assert [hub["location"] for hub in hubs] == ["local", "east"]
        assert OTHER_KEY not in str(hubs)
        assert [hub["name"] for hub in await self.linked(arm, hubs[1])] == ["east.example.net"]
        assert await self.linked(arm) == []

    async def test_what_was_set_is_shown(self, arm: ManagementClient, services: Services) -> None:
        body = {
            "connectionString": HUB_STRING,
            "applyAllocationPolicy": False,
            "allocationWeight": 10,
            "latencyMilliseconds": 12.5,
        }
        assert await self.linked(arm, body) == [
            {
                "applyAllocationPolicy": False,
                "allocationWeight": 10,
                "latencyMilliseconds": 12.5,
                "name": "hub.example.net",
                "connectionString": MASKED,
                "location": "local",
            }
        ]
        hub = services.service.linked_hubs[0]
        assert (hub.applies, hub.weight, hub.latency) == (False, 10, 12_500)

    async def test_a_client_that_knows_no_latency_keeps_it(self, arm: ManagementClient) -> None:
        await self.linked(arm, {"connectionString": HUB_STRING, "latencyMilliseconds": 3})
        hubs = await self.linked(arm, {"connectionString": MASKED, "allocationWeight": 2})
        assert hubs[0]["latencyMilliseconds"] == 3
        assert "applyAllocationPolicy" not in hubs[0]

    async def test_the_policy_needs_both_rights(self, arm: ManagementClient) -> None:
        string = HUB_STRING.replace("iothubowner", "registryReadWrite")
        message = refused(await self.link(arm, {"connectionString": string}), 400, "ArgumentInvalid")
        assert "registryReadWrite of hub.example.net lacks ServiceConnect" in message

    async def test_a_masked_key_is_the_link_as_it_is(self, arm: ManagementClient) -> None:
        hubs = await self.linked(arm, {"connectionString": MASKED.replace("iothubowner", "nobody")})
        assert hubs[0]["connectionString"] == MASKED

    @pytest.mark.parametrize("spelling", ["HUB.Example.NET", "hub.example.net:443"])
    async def test_spellings_of_a_host(self, arm: ManagementClient, spelling: str) -> None:
        hubs = await self.linked(arm, {"connectionString": HUB_STRING.replace("hub.example.net", spelling)})
        assert hubs[0]["name"] == "hub.example.net"

    async def test_a_host_name_alone(self, arm: ManagementClient) -> None:
        hubs = await self.linked(arm, {"hostName": "east.example.net", "authenticationType": "SystemAssigned"})
        assert [hub["name"] for hub in hubs] == ["east.example.net"]

    @pytest.mark.parametrize(
        ("body", "part"),
        [
            ({"connectionString": EAST.replace(OTHER_KEY, "****")}, "not linked yet"),
            ({"connectionString": EAST.replace(OTHER_KEY, KEY)}, "no policy 'iothubowner' with the key"),
            ({"connectionString": EAST.replace("iothubowner", "nobody")}, "no policy 'nobody' with the key"),
            ({"connectionString": "HostName=hub.azure-devices.net;SharedAccessKeyName=a;SharedAccessKey=b"}, "its own"),
            ({"connectionString": EAST, "allocationWeight": 0}, "1 to 1000"),
            ({"connectionString": EAST, "allocationWeight": 1001}, "1 to 1000"),
            ({"connectionString": EAST, "latencyMilliseconds": -1}, "0 to 60000"),
            ({"connectionString": EAST, "latencyMilliseconds": 60001}, "0 to 60000"),
        ],
    )
    async def test_what_is_refused_changes_nothing(
        self, arm: ManagementClient, body: dict[str, Any], part: str
    ) -> None:
        before = await arm.get()
        message = refused(await self.link(arm, body), 400, "ArgumentInvalid")
        assert part in message
        assert OTHER_KEY not in message
        assert await arm.get() == before

    async def test_a_hub_is_linked_once(self, arm: ManagementClient) -> None:
        body = {"connectionString": HUB_STRING}
        assert "twice" in refused(await self.link(arm, body, body), 400, "ArgumentInvalid")

    async def test_a_link_has_a_host(self, arm: ManagementClient) -> None:
        refused(await self.link(arm, {"allocationWeight": 1}), 400, "ArgumentNull")

    async def test_there_are_not_too_many(self, arm: ManagementClient) -> None:
        refused(await self.link(arm, *([{"connectionString": HUB_STRING}] * 51)), 403, "IotHubQuotaExceeded")

    async def test_a_restart_does_not_link_again(self, arm: ManagementClient, services: Services) -> None:
        await self.linked(arm)
        await services.provisioning.ensure("0ne00000001", "dps.example.net", ())
        assert services.service.linked_hubs == ()


class TestCertificates:
    @pytest.fixture(autouse=True)
    def now(self, services: Services) -> None:
        """The certificates are of today."""
        services.clock.now = NOW

    async def upload(self, arm: ManagementClient, authority: Identity | None = None, **more: object) -> Any:
        pem = (authority or root()).certificate_pem.decode()
        return await arm.put(CERTIFICATE, {"certificate": pem, **more})

    async def prove(self, arm: ManagementClient, authority: Identity, code: str | None = None) -> Any:
        begun = (await arm.request("POST", f"{CERTIFICATE}/generateVerificationCode", if_match="*")).json
        code = code or begun["properties"]["verificationCode"]
        proof = Identity(make_certificate(code, key=ec_key("proof"), issuer=authority), ec_key("proof"))
        body = {"certificate": base64.b64encode(proof.certificate_pem).decode()}
        return await arm.request("POST", f"{CERTIFICATE}/verify", body, if_match=begun["etag"])

    async def test_the_shape(self, arm: ManagementClient) -> None:
        answer = await self.upload(arm)
        assert base64.b64decode(answer["etag"]).startswith(b'"')
        properties = answer["properties"]
        assert properties["subject"] == "Plant Root"
        assert re.fullmatch(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", properties["expiry"])
        assert re.fullmatch(r"[0-9A-F]{40}", properties["thumbprint"])
        assert properties["isVerified"] is False
        assert properties["certificate"] is None
        assert "verificationCode" not in properties
        assert (answer["name"], answer["id"]) == ("plant-root", CERTIFICATE)
        assert answer["type"] == "Microsoft.Devices/provisioningServices/Certificates"
        assert await arm.get(CERTIFICATE) == answer
        assert await arm.get(f"{SERVICE}/certificates") == {"value": [answer]}

    @pytest.mark.parametrize("form", ["PEM", "base64 of PEM", "base64 of DER"])
    @pytest.mark.parametrize("nested", [True, False])
    async def test_every_form_is_taken(self, arm: ManagementClient, form: str, nested: bool) -> None:
        text = {
            "PEM": root().certificate_pem.decode(),
            "base64 of PEM": base64.b64encode(root().certificate_pem).decode(),
            "base64 of DER": base64.b64encode(root().certificate).decode(),
        }[form]
        body = {"certificate": text, "isVerified": True}
        answer = await arm.put(CERTIFICATE, {"properties": body} if nested else body)
        assert answer["properties"]["subject"] == "Plant Root"
        assert answer["properties"]["isVerified"] is True

    @pytest.mark.parametrize("authority", [root, intermediate])
    async def test_proof_of_possession(self, arm: ManagementClient, authority: Any) -> None:
        await self.upload(arm, authority())
        verified = await self.prove(arm, authority())
        assert verified.status == 200, verified
        assert verified.json["properties"]["isVerified"] is True
        assert (await arm.get(CERTIFICATE))["properties"]["isVerified"] is True

    async def test_the_code_and_the_certificate_are_shown_once(self, arm: ManagementClient) -> None:
        before = await self.upload(arm)
        answer = await arm.request("POST", f"{CERTIFICATE}/generateVerificationCode", if_match=f'"{before["etag"]}"')
        properties = answer.json["properties"]
        assert re.fullmatch(r"[0-9A-F]{48}", properties["verificationCode"])
        assert base64.b64decode(properties["certificate"]) == root().certificate
        assert answer.json["etag"] != before["etag"]
        assert "verificationCode" not in (await arm.get(CERTIFICATE))["properties"]

    async def test_what_proves_nothing(self, arm: ManagementClient) -> None:
        await self.upload(arm)
        message = refused(await self.prove(arm, intermediate()), 400, "ArgumentInvalid")
        assert "does not prove possession: its issuer is not the subject" in message
        message = refused(await self.prove(arm, root(), code="A" * 48), 400, "ArgumentInvalid")
        assert "its common name is 'AAAA" in message
        answer = await arm.request("POST", f"{CERTIFICATE}/verify", {"certificate": "nonsense"}, if_match="*")
        assert "cannot be read" in refused(answer, 400, "ArgumentInvalid")
        assert (await arm.get(CERTIFICATE))["properties"]["isVerified"] is False

    async def test_a_code_is_asked_for_first_and_used_once(self, arm: ManagementClient) -> None:
        await self.upload(arm)
        proof = make_certificate("A", key=ec_key("proof"), issuer=root())
        body = {"certificate": base64.b64encode(proof).decode()}
        for _ in range(2):
            answer = await arm.request("POST", f"{CERTIFICATE}/verify", body, if_match="*")
            assert "generate one first" in refused(answer, 400, "ArgumentInvalid")
            assert (await self.prove(arm, root())).status == 200

    async def test_changes_need_if_match(self, arm: ManagementClient) -> None:
        first = await self.upload(arm)
        pem = {"certificate": root().certificate_pem.decode()}
        for method, target, body in (
            ("PUT", CERTIFICATE, pem),
            ("POST", f"{CERTIFICATE}/generateVerificationCode", b""),
            ("POST", f"{CERTIFICATE}/verify", pem),
            ("DELETE", CERTIFICATE, b""),
        ):
            refused(await arm.request(method, target, body), 412, "PreconditionFailed")
            refused(await arm.request(method, target, body, if_match="AAAA"), 412, "PreconditionFailed")
        assert await arm.get(CERTIFICATE) == first

    async def test_another_certificate_has_to_be_verified_anew(self, arm: ManagementClient) -> None:
        first = await self.upload(arm, isVerified=True)
        again = await arm.put(CERTIFICATE, {"certificate": root().certificate_pem.decode()}, if_match=first["etag"])
        assert again["properties"]["isVerified"] is True
        other = await arm.put(CERTIFICATE, {"certificate": intermediate().certificate_pem.decode()}, if_match="*")
        assert other["properties"]["isVerified"] is False

    async def test_deletion(self, arm: ManagementClient) -> None:
        await self.upload(arm)
        query = "certificate.name=plant-root&certificate.purpose=clientAuthentication"
        answer = await arm.request("DELETE", f"{CERTIFICATE}?{query}&{VERSION}", if_match="*")
        assert (answer.status, answer.body) == (200, b"")
        assert (await arm.request("DELETE", CERTIFICATE, if_match="*")).status == 204
        refused(await arm.request("GET", CERTIFICATE), 404, "CertificateNotFound")
        answer = await arm.request("POST", f"{CERTIFICATE}/verify", {"certificate": "x"}, if_match="*")
        assert answer.status in (400, 404)

    @pytest.mark.parametrize("body", [{}, {"certificate": ""}, {"properties": {}}])
    async def test_without_a_certificate(self, arm: ManagementClient, body: dict[str, Any]) -> None:
        refused(await arm.request("PUT", CERTIFICATE, body), 400, "ArgumentNull")

    async def test_what_is_no_certificate(self, arm: ManagementClient) -> None:
        answer = await arm.request("PUT", CERTIFICATE, {"certificate": "AAAA"})
        assert "The CA certificate cannot be read" in refused(answer, 400, "ArgumentInvalid")

    async def test_there_are_not_too_many(self, arm: ManagementClient) -> None:
        pem = {"certificate": root().certificate_pem.decode()}
        for number in range(25):
            await arm.put(f"{SERVICE}/certificates/ca-{number}", pem)
        answer = await arm.request("PUT", f"{SERVICE}/certificates/ca-25", pem)
        refused(answer, 403, "IotHubQuotaExceeded")
