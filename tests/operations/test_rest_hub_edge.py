"""What IoT Edge asks of the registry: its daemon as the device, its gateway as the module ``$edgeHub``, in the words in
which their sources ask (hub-device.md 11).
"""

from typing import Any

import pytest
from tests.support.fix_ca import leaf, to_der
from tests.support.fix_rest import HUB_HOST, VERSION, Answer, RestClient
from tests.support.fix_services import KEY, Services

from muster.frontends.listener import Peer
from muster.pki.certificate import sha256_thumbprint

MODULE_KEY = "IB8eHRwbGhkYFxYVFBMSERAPDg0MCwoJCAcGBQQDAgE="
DAEMON = "api-version=2017-11-08-preview"
GATEWAY = "api-version=2018-08-30-preview"
NESTED = "api-version=2020-06-30-preview"
LONG = ";".join(["top"] * 11)
EDGE = {"capabilities": {"iotEdge": True}}


def keys(key: str) -> dict[str, Any]:
    return {"type": "sas", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}


class Plant:
    """``top`` with the leaf ``pump``, below it ``line`` with the leaf ``press``, and ``alone`` outside."""

    def __init__(self, rest: RestClient) -> None:
        self.rest = rest
        self.scopes: dict[str, str] = {}

    async def create(self, device_id: str, **members: Any) -> None:
        body = {"deviceId": device_id, "authentication": keys(KEY), **members}
        answer = await self.rest.request("PUT", f"/devices/{device_id}?{VERSION}", body)
        assert answer.status == 200, answer
        self.scopes[device_id] = answer.json.get("deviceScope", "")

    async def grow(self) -> None:
        await self.create("top", **EDGE)
        await self.create("line", **EDGE, parentScopes=[self.scopes["top"]])
        await self.create("pump", deviceScope=self.scopes["top"])
        await self.create("press", deviceScope=self.scopes["line"])
        await self.create("alone")
        await self.module("pump", "gauge")
        for edge in ("top", "line"):
            await self.module(edge, "filter")
            await self.module(edge, "$edgeHub", if_match="*")

    async def module(self, device_id: str, module_id: str, **headers: str) -> None:
        body = {"moduleId": module_id, "managedBy": "iotEdge", "authentication": keys(MODULE_KEY)}
        answer = await self.rest.request("PUT", f"/devices/{device_id}/modules/{module_id}?{VERSION}", body, **headers)
        assert answer.status == 200, answer

    async def ask(self, method: str, target: str, body: object = b"", *, module: str = "$edgeHub") -> Answer:
        """As a module of the device in the path."""
        device_id = target.split("/")[2]
        resource = f"{HUB_HOST}/devices/{device_id}/modules/{module}"
        token = self.rest.token("", HUB_HOST, key=MODULE_KEY, resource=resource)
        return await self.rest.request(method, target, body, authorization=token)

    async def daemon(self, method: str, target: str, body: object = b"", **headers: str) -> Answer:
        """As the device ``top``."""
        token = self.rest.token("", HUB_HOST, resource=f"{HUB_HOST}/devices/top")
        return await self.rest.request(method, target, body, authorization=token, **headers)


@pytest.fixture
async def plant(rest: RestClient) -> Plant:
    plant = Plant(rest)
    await plant.grow()
    return plant


def devices(answer: Answer) -> list[str]:
    assert answer.status == 200, answer
    return [device["deviceId"] for device in answer.json["devices"]]


def modules(answer: Answer) -> list[str]:
    return [f"{module['deviceId']}/{module['moduleId']}" for module in answer.json["modules"]]


def refused(answer: Answer, status: int, name: str) -> str:
    assert (answer.status, answer.headers["iothub-errorcode"]) == (status, name), answer
    return str(answer.json["Message"])


class TestDaemon:
    """It manages the modules of its own device, with that one's key or certificate."""

    async def test_a_module_from_its_creation_to_its_end(self, plant: Plant) -> None:
        body = {"moduleId": "camera", "managedBy": "aziot", "deviceId": "top", "authentication": keys(MODULE_KEY)}
        made = await plant.daemon("PUT", f"/devices/top/modules/camera?{DAEMON}", body)
        assert (made.status, made.json["moduleId"], made.json["managedBy"]) == (200, "camera", "aziot")
        assert made.json["generationId"].isdigit()
        listed = await plant.daemon("GET", f"/devices/top/modules?{DAEMON}")
        assert [one["moduleId"] for one in listed.json] == ["$edgeAgent", "$edgeHub", "camera", "filter"]
        changed = {**body, "authentication": keys(KEY)}
        updated = await plant.daemon("PUT", f"/devices/top/modules/camera?{DAEMON}", changed, if_match="*")
        assert updated.json["authentication"]["symmetricKey"]["primaryKey"] == KEY
        got = await plant.daemon("GET", f"/devices/top/modules/camera?{DAEMON}")
        assert got.json == updated.json
        gone = await plant.daemon("DELETE", f"/devices/top/modules/camera?{DAEMON}", if_match="*")
        assert (gone.status, gone.body) == (204, b"")
        again = await plant.daemon("GET", f"/devices/top/modules/camera?{DAEMON}")
        assert "ModuleNotFound" in refused(again, 404, "ModuleNotFound")

    async def test_by_a_certificate(self, plant: Plant) -> None:
        certificate = to_der(leaf())
        thumbprint = {"primaryThumbprint": sha256_thumbprint(certificate), "secondaryThumbprint": None}
        await plant.create("x509", **EDGE, authentication={"type": "selfSigned", "x509Thumbprint": thumbprint})
        plant.rest.peer = Peer(("127.0.0.1", 40001), ("127.0.0.1", 443), certificates=(certificate,))
        listed = await plant.rest.request("GET", f"/devices/x509/modules?{DAEMON}", authorization=None)
        assert [one["moduleId"] for one in listed.json] == ["$edgeAgent", "$edgeHub"]
        other = await plant.rest.request("GET", f"/devices/top/modules?{DAEMON}", authorization=None)
        refused(other, 401, "IotHubUnauthorizedAccess")

    @pytest.mark.parametrize("target", ["/devices/line/modules", "/devices/line/modules/filter"])
    async def test_of_another_device(self, plant: Plant, target: str) -> None:
        refused(await plant.daemon("GET", f"{target}?{DAEMON}"), 401, "IotHubUnauthorizedAccess")

    @pytest.mark.parametrize("target", ["/devices/top", "/devices", "/statistics/devices"])
    async def test_the_rest_of_the_registry_is_not_its(self, plant: Plant, target: str) -> None:
        refused(await plant.daemon("GET", f"{target}?{DAEMON}"), 401, "IotHubUnauthorizedAccess")

    async def test_a_disabled_device(self, plant: Plant, services: Services) -> None:
        body = {"deviceId": "top", "status": "disabled", "authentication": keys(KEY), **EDGE}
        body["deviceScope"] = plant.scopes["top"]
        changed = await plant.rest.request("PUT", f"/devices/top?{VERSION}", body, if_match="*")
        assert changed.status == 200
        answer = await plant.daemon("GET", f"/devices/top/modules?{DAEMON}")
        assert answer.status == 403
        (report,) = await services.reports.find("top")
        assert [check.id for check in report.checks if check.outcome == "refused"] == ["device.enabled"]

    async def test_a_token_that_is_none_is_a_clients(self, plant: Plant) -> None:
        answer = await plant.rest.request("GET", f"/devices/top/modules?{DAEMON}", authorization="Bearer x")
        refused(answer, 401, "IotHubUnauthorizedAccess")


class TestScope:
    SCOPE = f"/devices/top/modules/$edgeHub/devicesAndModulesInDeviceScope?deviceCount=10&continuationToken=&{GATEWAY}"

    async def test_itself_its_children_and_their_modules(self, plant: Plant) -> None:
        """A child that is an edge device is in the scope; its modules are in its own."""
        answer = await plant.ask("GET", self.SCOPE)
        assert devices(answer) == ["line", "pump", "top"]
        assert modules(answer) == ["pump/gauge", "top/$edgeAgent", "top/$edgeHub", "top/filter"]
        assert answer.json["continuationLink"] is None
        found = {device["deviceId"]: device for device in answer.json["devices"]}
        assert found["pump"]["authentication"]["symmetricKey"]["primaryKey"] == KEY
        assert (found["pump"]["deviceScope"], found["pump"]["parentScopes"]) == (
            plant.scopes["top"],
            [plant.scopes["top"]],
        )
        assert found["line"]["capabilities"] == {"iotEdge": True}
        assert answer.json["modules"][0]["authentication"]["symmetricKey"]["primaryKey"] == MODULE_KEY
        assert answer.headers["cache-control"] == "no-store"

    async def test_page_by_page(self, plant: Plant) -> None:
        """The link is a path, which the gateway asks as it is."""
        target, found = self.SCOPE.replace("=10", "=1"), []
        while target:
            answer = await plant.ask("GET", target)
            found.append((devices(answer), modules(answer)))
            target = answer.json["continuationLink"]
        assert found == [
            (["line"], []),
            (["pump"], ["pump/gauge"]),
            (["top"], ["top/$edgeAgent", "top/$edgeHub", "top/filter"]),
        ]

    @pytest.mark.parametrize("module", ["filter", "$edgeAgent"])
    async def test_of_another_module(self, plant: Plant, module: str) -> None:
        await plant.module("top", module, if_match="*")
        answer = await plant.ask("GET", self.SCOPE.replace("$edgeHub", module), module=module)
        assert "Only $edgeHub" in refused(answer, 401, "IotHubUnauthorizedAccess")

    async def test_a_service_client_may_not(self, plant: Plant) -> None:
        token = plant.rest.token("service", HUB_HOST)
        answer = await plant.rest.request("GET", self.SCOPE, authorization=token)
        refused(answer, 401, "IotHubUnauthorizedAccess")

    @pytest.mark.parametrize("token", ["!", "AA=A", "%FF", "AA=="])
    async def test_a_continuation_that_is_none(self, plant: Plant, token: str) -> None:
        answer = await plant.ask("GET", self.SCOPE.replace("Token=", f"Token={token}"))
        assert "continuation" in refused(answer, 400, "ArgumentInvalid")

    def one(self, device_id: str, module_id: str = "") -> str:
        target = f"targetDeviceId={device_id}&targetModuleId={module_id}"
        return f"/devices/top/modules/$edgeHub/deviceAndModuleInDeviceScope?{target}&{GATEWAY}"

    async def test_one_of_them(self, plant: Plant) -> None:
        device = await plant.ask("GET", self.one("pump"))
        assert (devices(device), modules(device)) == (["pump"], [])
        module = await plant.ask("GET", self.one("pump", "gauge"))
        assert (devices(module), modules(module)) == (["pump"], ["pump/gauge"])
        assert devices(await plant.ask("GET", self.one("line"))) == ["line"]

    @pytest.mark.parametrize(
        ("device_id", "module_id"),
        [("press", ""), ("alone", ""), ("nobody", ""), ("pump", "x"), ("%00", ""), ("pump", "%00")],
    )
    async def test_one_that_is_not_in_it(self, plant: Plant, device_id: str, module_id: str) -> None:
        answer = await plant.ask("GET", self.one(device_id, module_id))
        assert "not in the scope" in refused(answer, 400, "ArgumentInvalid")


class TestNested:
    """On behalf of edge devices below; the chain says through whom."""

    SCOPE = f"/devices/top/modules/$edgeHub/devicesAndModulesInTargetDeviceScope?{NESTED}"
    ONE = f"/devices/top/modules/$edgeHub/getDeviceAndModuleOnBehalfOf?{NESTED}"

    async def test_the_scope_of_a_child(self, plant: Plant) -> None:
        answer = await plant.ask("POST", self.SCOPE, {"pageSize": 100, "authChain": "line;top"})
        assert devices(answer) == ["line", "press"]
        assert modules(answer) == ["line/$edgeAgent", "line/$edgeHub", "line/filter"]
        own = await plant.ask("POST", self.SCOPE, {"pageSize": 100, "authChain": "top"})
        assert devices(own) == ["line", "pump", "top"]

    async def test_page_by_page(self, plant: Plant) -> None:
        """What is called a link goes into the next body."""
        first = await plant.ask("POST", self.SCOPE, {"pageSize": 1, "authChain": "line;top"})
        body = {"pageSize": 1, "continuationLink": first.json["continuationLink"], "authChain": "line;top"}
        second = await plant.ask("POST", self.SCOPE, body)
        assert (devices(first), devices(second)) == (["line"], ["press"])
        assert second.json["continuationLink"] is None

    async def test_one_for_a_child(self, plant: Plant) -> None:
        chain = "line/$edgeHub;line;top"
        device = await plant.ask("POST", self.ONE, {"targetDeviceId": "press", "authChain": chain})
        assert devices(device) == ["press"]
        wanted = {"targetDeviceId": "line", "targetModuleId": "filter", "authChain": chain}
        assert modules(await plant.ask("POST", self.ONE, wanted)) == ["line/filter"]
        other = await plant.ask("POST", self.ONE, {"targetDeviceId": "pump", "authChain": chain})
        assert "not in the scope of line" in refused(other, 400, "ArgumentInvalid")

    @pytest.mark.parametrize(
        "chain", ["", ";", "line", "top;line", "press;top", "nobody;top", "alone;top", "\0;top", LONG]
    )
    async def test_chains_that_lead_nowhere(self, plant: Plant, chain: str) -> None:
        answer = await plant.ask("POST", self.SCOPE, {"pageSize": 1, "authChain": chain})
        refused(answer, 401, "IotHubUnauthorizedAccess")

    async def test_a_body_that_is_none(self, plant: Plant) -> None:
        assert (await plant.ask("POST", self.SCOPE, {"pageSize": 1})).status == 400
