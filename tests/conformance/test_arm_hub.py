"""The management plane of hubs with the unmodified azure-mgmt-iothub (hub-service.md 10); and what it is for: a device
whose CA the hub has verified connects with the unmodified azure-iot-device.
"""

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_checks import Explain, provokes
from tests.support.fix_clients import HttpsClient, OpenClient, SdkError
from tests.support.fix_pki import Identity, chain_leaf, ec_key, issue, root
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer

from muster.domain.sas import create_token

Management = Callable[..., Any]
OWNER = {
    "key_name": "iothubowner",
    "rights": "RegistryWrite, ServiceConnect, DeviceConnect",
    "primary_key": DEVELOPMENT_KEY,
    "secondary_key": DEVELOPMENT_KEY,
}
CA = {"type": "certificateAuthority"}


@pytest.fixture(scope="module")
def management(muster: MusterServer, clients: OpenClient) -> Management:
    """``management("keys")`` asks the SDK about the first hub."""
    sdk = clients("hub_management.py")
    token = muster.cli("token").stdout.strip()

    def ask(operation: str, *, name: str = muster.address, **arguments: object) -> Any:
        return sdk.call(operation, host=muster.address, token=token, name=name, **arguments)

    return ask


def refusal(management: Management, operation: str, **arguments: object) -> SdkError:
    with pytest.raises(SdkError) as caught:
        management(operation, **arguments)
    return caught.value


def test_what_can_only_be_read(management: Management, muster: MusterServer, https: HttpsClient) -> None:
    https.create_device("counted")
    seen = management("looks")
    assert seen["hub"]["properties"]["host_name"] == muster.address
    assert [hub["id"] for hub in seen["by_group"]] == [seen["hub"]["id"]]
    assert [hub["name"] for hub in seen["by_subscription"]] == [muster.address]
    assert seen["stats"]["total_device_count"] >= 1
    assert {quota["name"] for quota in seen["quotas"]} == {"TotalMessages", "TotalDeviceCount"}
    assert [sku["sku"]["name"] for sku in seen["skus"]] == ["S1"]
    assert (seen["health"], seen["jobs"]) == ([], [])
    assert seen["usages"]["value"][0]["current_value"] == 1
    assert any(item["name"] == "Microsoft.Devices/IotHubs/Write" for item in seen["operations"])


def test_names_and_tags(management: Management, muster: MusterServer) -> None:
    assert management("check_name", name="fresh")["name_available"] is True
    assert management("check_name", name=muster.address)["name_available"] is False
    assert management("tag", tags={"line": "a"})["tags"] == {"line": "a"}
    assert management("tag", tags={})["tags"] == {}


def test_a_hub_needs_a_host_name_here(management: Management) -> None:
    assert "A new hub needs properties.hostName" in str(refusal(management, "create", name="second"))


def test_policies_and_their_keys(management: Management, muster: MusterServer, https: HttpsClient) -> None:
    before = management("keys")
    reader = {"key_name": "line-a", "rights": "RegistryRead"}
    changed = management("change", policies=[OWNER, reader])
    assert {rule["key_name"] for rule in changed["properties"]["authorization_policies"]} == {"iothubowner", "line-a"}
    made = management("key", policy="line-a")
    token = https.token("line-a", made["secondary_key"])
    assert https.request("GET", "/devices?api-version=2021-04-12", authorization=token).status == 200
    # A new primary key, as `az iot hub policy renew-key` makes one: the old one does not count any more.
    renewed = {**made, "primary_key": base64.b64encode(bytes(32)).decode()}
    management("change", policies=[OWNER, renewed])
    for key, status in ((made["primary_key"], 401), (renewed["primary_key"], 200), (made["secondary_key"], 200)):
        token = https.token("line-a", key)
        assert https.request("GET", "/devices?api-version=2021-04-12", authorization=token).status == status
    assert refusal(management, "change", policies=[OWNER], etag="c3RhbGU=").status == 412
    assert "The policy iothubowner has to stay" in str(refusal(management, "change", policies=[reader]))
    management("change", policies=[{**rule} for rule in before])
    assert {rule["key_name"] for rule in management("keys")} == {rule["key_name"] for rule in before}


def test_consumer_groups(management: Management) -> None:
    made = management("add_group", group="line-a")
    assert made["name"] == "line-a"
    assert [group["name"] for group in management("groups")] == ["$Default", "line-a"]
    management("remove_group", group="line-a")
    assert [group["name"] for group in management("groups")] == ["$Default"]
    assert refusal(management, "remove_group", group="line-a").status == 404


def proof(authority: Identity, code: str) -> str:
    """A certificate for the code that the CA signed."""
    return issue(code, authority, key=ec_key("proof")).certificate_pem.decode()


@provokes("device.certificate-authority")
def test_a_device_of_a_ca_that_was_proved(
    management: Management,
    muster: MusterServer,
    clients: OpenClient,
    https: HttpsClient,
    explain: Explain,
    tmp_path: Path,
) -> None:
    device = clients("device.py")
    certificate, key = chain_leaf("ca-device").write(tmp_path)
    https.create_device("ca-device", authentication=CA)
    login = {
        "connection": "ca",
        "device_id": "ca-device",
        "certificate": str(certificate),
        "key": str(key),
    }
    uploaded = management("upload", certificate="plant", pem=root().certificate_pem.decode())
    assert uploaded["properties"]["is_verified"] is False
    with pytest.raises(SdkError) as caught:
        device.call("connect", **login)
    assert caught.value.kind == "CredentialError"
    explain(muster, "ca-device", "device.certificate-authority")

    begun = management("generate", certificate="plant", etag=uploaded["etag"])
    signed = proof(root(), begun["properties"]["verification_code"])
    wrong = refusal(management, "verify", certificate="plant", etag=begun["etag"], proof=proof(root(), "another code"))
    assert (wrong.status, "possession" in str(wrong)) == (400, True)
    verified = management("verify", certificate="plant", etag=begun["etag"], proof=signed)
    assert verified["properties"]["is_verified"] is True
    assert [item["name"] for item in management("certificates")] == ["plant"]

    device.call("connect", **login)
    device.call("send", connection="ca", messages=[{"body": "x"}])
    method = https.events("ca-device", 1)[0]["connectionAuthMethod"]
    assert method == '{"scope":"device","type":"x509Certificate","issuer":"external","acceptingIpFilterRule":null}'
    assert device.call("connected", connection="ca")
    management("remove", certificate="plant", etag=management("certificate", certificate="plant")["etag"])
    assert management("certificates") == []
    # What it leans on is gone.
    device.call("wait_until_closed", connection="ca", seconds=90)
    device.call("close", connection="ca")


def test_a_device_on_a_policys_key_ends_with_the_key(
    muster: MusterServer, clients: OpenClient, https: HttpsClient
) -> None:
    device = clients("device.py")
    https.create_device("on-policy")
    made = muster.cli_json("policy", "create", "floor", "--right", "DeviceConnect", "--hub", muster.address)
    assert {rule["keyName"] for rule in muster.cli_json("policy", "list", "--hub", muster.address)} >= {"floor"}
    resource = f"{muster.address}/devices/on-policy"
    token = create_token(resource, made["primaryKey"], int(time.time()) + 3600, "floor")
    device.call("connect", connection="on-policy", sas_token=token)
    muster.cli("policy", "renew", "floor", "--secondary", "--hub", muster.address)
    device.call("send", connection="on-policy", messages=[{"body": "still here"}])
    renewed = muster.cli_json("policy", "renew", "floor", "--hub", muster.address)
    assert renewed["primaryKey"] != made["primaryKey"]
    device.call("wait_until_closed", connection="on-policy", seconds=90)
    device.call("close", connection="on-policy")
    assert f"HostName={muster.address};SharedAccessKeyName=floor;" in renewed["connectionString"]
    muster.cli("policy", "delete", "floor", "--hub", muster.address)
    assert "floor" not in muster.cli("policy", "list", "--hub", muster.address).stdout
    kept = muster.cli("policy", "delete", "iothubowner", "--hub", muster.address, check=False)
    assert (kept.returncode, "has to stay" in kept.stderr) == (1, True)
    assert "there is no hub nowhere" in muster.cli("policy", "list", "--hub", "nowhere", check=False).stderr
