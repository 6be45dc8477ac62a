"""Requests to the registry as clients send them that cannot be installed here: Java, .NET, and Azure's command line.

Spelled as hub-service.md 1.3, 1.5, 12.3 and appendix B have them; replayed, not tested with the clients.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from urllib.parse import quote, quote_plus, urlencode

import pytest
from tests.support.fix_rest import VERSION, RestClient
from tests.support.fix_services import KEY, Services

from muster.domain.timestamp import SECOND

HOST = "Hub.Example.Net"
JSON = "application/json; charset=utf-8"

Sign = Callable[[int, str], str]


def signature(text: str) -> str:
    return base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()


def java(expiry: int, host: str = HOST) -> str:
    """Over the encoded host in lower case."""
    resource = quote(host.lower(), safe="")
    signed = quote(signature(f"{resource}\n{expiry}"), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signed}&se={expiry}&skn=iothubowner"


def net(expiry: int, host: str = HOST) -> str:
    resource = quote(host, safe="")
    signed = quote(signature(f"{resource}\n{expiry}"), safe="")
    return f"SharedAccessSignature sr={resource}&sig={signed}&se={expiry}&skn=iothubowner"


def azure_cli(expiry: int, host: str = HOST) -> str:
    """Built as a form, whose order is that of a dictionary."""
    resource = quote_plus(host)
    items = {"sr": host, "sig": signature(f"{resource}\n{expiry}"), "se": str(expiry), "skn": "iothubowner"}
    return f"SharedAccessSignature {urlencode(items)}"


def node(expiry: int, host: str = HOST) -> str:
    signed = quote(signature(f"{host}\n{expiry}"), safe="")
    return f"SharedAccessSignature sr={host}&sig={signed}&skn=iothubowner&se={expiry}"


@pytest.mark.parametrize("host", [HOST, f"{HOST}:8443"], ids=["", "port"])
@pytest.mark.parametrize("sign", [java, net, azure_cli, node])
async def test_every_producer_of_a_token(rest: RestClient, services: Services, sign: Sign, host: str) -> None:
    authorization = sign(services.clock.now // SECOND + 3600, host)
    answer = await rest.request("GET", "/devices/?api-version=2021-04-12", host=host, authorization=authorization)
    assert (answer.status, answer.json) == (200, [])


async def test_java(rest: RestClient, services: Services) -> None:
    """Ids stand raw in its paths; a content type comes with every request; tags come without quotes."""
    authorization = java(services.clock.now // SECOND + 3600)
    headers = {"content_type": JSON, "accept": "application/json"}
    version = "api-version=2021-04-12"

    async def ask(method: str, path: str, body: object = b"", **more: str):
        return await rest.request(method, path, body, host=HOST, authorization=authorization, **headers, **more)

    device = {"deviceId": "a:b$c@d'", "status": "enabled", "authentication": {"type": "sas"}, "capabilities": None}
    created = await ask("PUT", f"/devices/a:b$c@d'?{version}", {**device, "forceUpdate": False})
    assert created.status == 200
    assert {"deviceId", "authentication"} <= set(created.json), "or it throws"
    raw = created.json["etag"]
    updated = await ask("PUT", f"/devices/a:b$c@d'?{version}", {**created.json, "status": "disabled"}, if_match=raw)
    assert updated.json["status"] == "disabled"
    patch = await ask("POST", f"/twins/a:b$c@d'?{version}", {"tags": {"x": 1}}, x_http_method_override="PATCH")
    assert (patch.status, patch.json["tags"]) == (200, {"x": 1})
    assert (await ask("GET", f"/statistics/devices?{version}")).json["totalDeviceCount"] == 1
    assert (await ask("DELETE", f"/devices/a:b$c@d'?{version}", if_match="*")).status == 204


async def test_net(rest: RestClient, services: Services) -> None:
    """Slashes before the query; etags in quotes; the number of an error has to belong to the name in the header."""
    authorization = net(services.clock.now // SECOND + 3600)
    version = "api-version=2021-04-12"

    async def ask(method: str, path: str, body: object = b"", **more: str):
        return await rest.request(method, path, body, host=HOST, authorization=authorization, useragent="x", **more)

    item = {"id": "n1", "eTag": None, "importMode": "create", "status": "enabled", "statusReason": None}
    item |= {"authentication": {"symmetricKey": {"primaryKey": None, "secondaryKey": None}, "type": "sas"}}
    assert (await ask("POST", f"/devices/?{version}", [item])).json["isSuccessful"] is True
    again = await ask("POST", f"/devices/?{version}", [item])
    assert (again.status, again.headers["iothuberrorcode"]) == (400, "BulkRegistryOperationFailure")
    assert again.json["errors"][0]["errorCode"] == "DeviceAlreadyExists"
    listed = await ask("GET", f"/devices/?top=10&{version}")
    etag = listed.json[0]["etag"]
    got = await ask("GET", f"/devices/n1?{version}")
    assert got.headers["etag"] == f'"{etag}"', "which it takes in place of the one in the body"
    module = await ask(
        "PUT", f"/devices/n1/modules/m1?{version}", {"deviceId": "n1", "moduleId": "m1", "managedBy": None}
    )
    assert module.status == 200
    assert (await ask("DELETE", f"/devices/n1/modules/m1?{version}", if_match=module.headers["etag"])).status == 204
    missing = await ask("GET", f"/devices/none?{version}")
    assert missing.headers["iothub-errorcode"] == "DeviceNotFound"
    assert missing.json["Message"].partition(";")[0] == "ErrorCode:DeviceNotFound"
    assert (await ask("DELETE", f"/devices/n1?{version}", if_match='"*"')).status == 204


async def test_azure_cli(rest: RestClient, services: Services) -> None:
    """`az iot hub device-identity` and `module-identity`, as far as they do not query."""
    authorization = azure_cli(services.clock.now // SECOND + 600)
    version = "api-version=2024-03-31"

    async def ask(method: str, path: str, body: object = b"", **more: str):
        headers = {"x_ms_client_request_id": "4f0e9a6c-1b2d-4e4f-9a6b-7d7a4f0e9a6c", **more}
        return await rest.request(method, path, body, host=HOST, authorization=authorization, **headers)

    edge = {
        "deviceId": "gate",
        "status": "enabled",
        "capabilities": {"iotEdge": True},
        "authentication": {"type": "sas"},
    }
    gate = (await ask("PUT", f"/devices/gate?{version}", edge)).json
    leaf = await ask("PUT", f"/devices/leaf?{version}", {"deviceId": "leaf", "status": "enabled"})
    child = {**leaf.json, "deviceScope": gate["deviceScope"], "parentScopes": [gate["deviceScope"]]}
    parented = await ask("PUT", f"/devices/leaf?{version}", child, if_match=f'"{leaf.json["etag"]}"')
    assert parented.json["parentScopes"] == [gate["deviceScope"]]
    renewed = await ask(
        "POST",
        f"/devices/keys/regenerate?{version}",
        {"policyKey": "primary", "devices": [{"id": "leaf"}, {"id": "gate", "moduleId": "$edgeAgent"}]},
    )
    assert renewed.status == 207, "the agent has no key"
    assert [item["id"] for item in renewed.json["rotatedKeys"]] == ["leaf"]
    purged = await ask("DELETE", f"/devices/leaf/commands?{version}")
    assert purged.json == {"totalMessagesPurged": 0, "deviceId": "leaf", "moduleId": None}
    assert (await ask("DELETE", f"/devices/gate?{version}", if_match='"*"')).status == 204


async def test_only_a_policy_invokes_methods(rest: RestClient) -> None:
    """As an edge module asks its gateway; a hub takes the word of service clients alone (hub-device.md 10.5)."""
    path = f"/twins/gate/modules/camera/methods?{VERSION}"
    body = {
        "methodName": "reset",
        "payload": {"hard": True},
        "responseTimeoutInSeconds": 5,
        "connectTimeoutInSeconds": 0,
    }
    device = await rest.request("PUT", f"/devices/gate?{VERSION}", {"deviceId": "gate"})
    assert device.status == 200
    module = await rest.request("PUT", f"/devices/gate/modules/camera?{VERSION}", {"moduleId": "camera"})
    key = module.json["authentication"]["symmetricKey"]["primaryKey"]
    caller = {"x-ms-edge-moduleId": "gate/camera"}
    own = rest.token("", HOST, key=key, resource=f"{HOST}/devices/gate/modules/camera")
    refused = await rest.request("POST", path, body, host=HOST, authorization=own, **caller)
    assert (refused.status, refused.headers["iothub-errorcode"]) == (401, "IotHubUnauthorizedAccess")
    asked = await rest.request("POST", path, body, host=HOST, authorization=rest.token("service", HOST), **caller)
    assert (asked.status, asked.headers["iothub-errorcode"]) == (404, "DeviceNotOnline")
