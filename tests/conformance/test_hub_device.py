"""The unmodified azure-iot-device at its hub: credentials, messages to the last byte, and the end of a connection."""

import base64
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_pki import Identity, expired, other_self_signed, self_signed
from tests.support.fix_server import DEVELOPMENT_KEY, MusterServer

from muster.domain.partition import partition_of
from muster.domain.sas import create_token
from muster.pki.certificate import sha1_thumbprint, sha256_thumbprint

KEY = base64.b64encode(bytes(range(32))).decode()
KEY_2 = base64.b64encode(bytes(range(32, 64))).decode()
WRONG_KEY = base64.b64encode(bytes(32)).decode()

_NOTICED_SECONDS = 60.0


@pytest.fixture(scope="module")
def device(clients: OpenClient) -> SdkClient:
    return clients("device.py")


CreateDevice = Callable[..., str]


@pytest.fixture(scope="module")
def with_key(muster: MusterServer, https: HttpsClient) -> CreateDevice:
    """Creates a device with two keys; its connection string by the first or another one."""

    def create(device_id: str, key: str = KEY, **members: object) -> str:
        https.create_device(device_id, authentication=sas(KEY, KEY_2), **members)
        return f"HostName={muster.address};DeviceId={device_id};SharedAccessKey={key}"

    return create


def sas(primary: str, secondary: str) -> dict[str, Any]:
    return {"type": "sas", "symmetricKey": {"primaryKey": primary, "secondaryKey": secondary}}


def by_thumbprint(primary: str | None, secondary: str | None = None) -> dict[str, Any]:
    return {
        "type": "selfSigned",
        "x509Thumbprint": {"primaryThumbprint": primary, "secondaryThumbprint": secondary},
    }


def files(identity: Identity, directory: Path) -> dict[str, str]:
    certificate, key = identity.write(directory)
    return {"certificate": str(certificate), "key": str(key)}


# Messages


AWKWARD = {
    "space": "a b",
    "slash/key": "a/b/",
    "ampersand&": "a&b",
    "equals=": "a=b=",
    "percent%": "100%25",
    "plus+": "1+1",
    "ünïcode 😀": "grün ☃",
    "empty": "",
    "dollar$": "$.mid",
    "question?": "?x#y",
    "quote'\"": "'\"\\",
}

MESSAGES: list[dict[str, Any]] = [
    {
        "body": '{"temperature":21.5}',
        "messageId": "m-1/ü&=",
        "correlationId": "c 1",
        "userId": "u%1",
        "contentType": "application/json",
        "contentEncoding": "utf-8",
        "properties": AWKWARD,
    },
    {"body": "plain text"},
    {"body": ""},
    {"body": "", "messageId": "empty"},
    {"bodyBase64": base64.b64encode(bytes(range(256))).decode()},
    {"bodyBase64": base64.b64encode(os.urandom(255 * 1024)).decode()},
    {"body": "nichts als Ümläute"},
]


@pytest.mark.parametrize("way", [{"api": "sync"}, {"api": "aio", "websockets": True}], ids=["sync", "aio-websockets"])
def test_messages(https: HttpsClient, device: SdkClient, with_key: CreateDevice, way: dict[str, Any]) -> None:
    device_id = f"messages-{way['api']}"
    device.call("connect", connection=device_id, connection_string=with_key(device_id), **way)
    device.call("send", connection=device_id, messages=MESSAGES)
    device.call("close", connection=device_id)

    registered = https.request("GET", f"/devices/{device_id}?api-version=2021-04-12").json
    events = https.events(device_id, len(MESSAGES))
    for number, event in enumerate(events):
        assert event["source"] == "Telemetry"
        assert event["deviceId"] == device_id
        assert event["partition"] == partition_of(device_id, 4)
        assert event["generationId"] == registered["generationId"]
        assert event["connectionAuthMethod"] == (
            '{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}'
        )
        assert event["sequenceNumber"] == events[0]["sequenceNumber"] + number
    first = events[0]
    assert first["body"] == {"temperature": 21.5}
    assert first["systemProperties"] == {
        "message-id": "m-1/ü&=",
        "correlation-id": "c 1",
        "user-id": "u%1",
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
    assert first["applicationProperties"] == AWKWARD
    assert (events[1]["bodyEncoding"], events[1]["body"]) == ("text", "plain text")
    assert (events[2]["body"], events[2]["systemProperties"]) == ("", {})
    assert (events[3]["body"], events[3]["systemProperties"]) == ("", {"message-id": "empty"})
    for sent, event in ((MESSAGES[4], events[4]), (MESSAGES[5], events[5])):
        assert (event["bodyEncoding"], event["bodyBase64"]) == ("base64", sent["bodyBase64"])
    assert events[6]["body"] == "nichts als Ümläute"


def test_five_hundred_messages_keep_their_order(https: HttpsClient, device: SdkClient, with_key: CreateDevice) -> None:
    device.call("connect", connection="order", connection_string=with_key("order"))
    messages = [{"body": str(number), "properties": {"number": str(number)}} for number in range(500)]
    device.call("send", connection="order", messages=messages)
    device.call("close", connection="order")
    events = https.events("order", 500)
    assert [event["body"] for event in events] == list(range(500))
    assert [event["applicationProperties"]["number"] for event in events] == [str(number) for number in range(500)]
    assert len({event["offset"] for event in events}) == 500


def test_many_messages_at_once(https: HttpsClient, device: SdkClient, with_key: CreateDevice) -> None:
    """Without waiting in between: each arrives exactly once."""
    device.call("connect", connection="burst", connection_string=with_key("burst"), api="aio")
    device.call("send_at_once", connection="burst", messages=[{"body": str(number)} for number in range(200)])
    device.call("close", connection="burst")
    assert sorted(event["body"] for event in https.events("burst", 200)) == list(range(200))


def test_two_devices_do_not_mix(https: HttpsClient, device: SdkClient, with_key: CreateDevice) -> None:
    for device_id in ("mix-1", "mix-2"):
        device.call("connect", connection=device_id, connection_string=with_key(device_id))
    sends = [
        {"connection": device_id, "messages": [{"body": f'"{device_id}"'}] * 40} for device_id in ("mix-1", "mix-2")
    ]
    device.values("send", sends)
    for device_id in ("mix-1", "mix-2"):
        device.call("close", connection=device_id)
        assert {event["body"] for event in https.events(device_id, 40)} == {device_id}


# Credentials


def test_both_keys(device: SdkClient, with_key: CreateDevice) -> None:
    primary = with_key("keys")
    for key in (KEY, KEY_2):
        device.call("connect", connection="keys", connection_string=primary.replace(KEY, key))
        assert device.call("connected", connection="keys")
        device.call("close", connection="keys")


def test_keys_made_by_the_registry(muster: MusterServer, https: HttpsClient, device: SdkClient) -> None:
    keys = https.create_device("made-keys")["authentication"]["symmetricKey"]
    for name in ("primaryKey", "secondaryKey"):
        connection_string = f"HostName={muster.address};DeviceId=made-keys;SharedAccessKey={keys[name]}"
        device.call("connect", connection="made", connection_string=connection_string)
        device.call("close", connection="made")


@pytest.mark.parametrize("digest", [sha1_thumbprint, sha256_thumbprint], ids=["SHA-1", "SHA-256"])
@pytest.mark.parametrize("case", [str.upper, str.lower], ids=["upper", "lower"])
@pytest.mark.parametrize("slot", ["primary", "secondary"])
def test_thumbprints(
    https: HttpsClient,
    device: SdkClient,
    tmp_path: Path,
    digest: Callable[[bytes], str],
    case: Callable[[str], str],
    slot: str,
) -> None:
    identity = self_signed("thumbprints")
    device_id = f"{digest.__name__}-{case.__name__}-{slot}"
    thumbprint = case(digest(identity.certificate))
    https.create_device(
        device_id,
        authentication=by_thumbprint(thumbprint) if slot == "primary" else by_thumbprint(None, thumbprint),
    )
    device.call("connect", connection=device_id, device_id=device_id, **files(identity, tmp_path))
    device.call("send", connection=device_id, messages=[{"body": "x"}])
    device.call("close", connection=device_id)
    method = https.events(device_id, 1)[0]["connectionAuthMethod"]
    assert method == '{"scope":"device","type":"x509Certificate","issuer":"external","acceptingIpFilterRule":null}'


def test_a_policy_acts_as_a_device(
    muster: MusterServer, https: HttpsClient, device: SdkClient, with_key: CreateDevice
) -> None:
    """interop-facts.md 14."""
    with_key("by-policy")
    resource = f"{muster.address}/devices/by-policy"
    token = create_token(resource, DEVELOPMENT_KEY, int(time.time()) + 3600, "iothubowner")
    device.call("connect", connection="policy", sas_token=token)
    device.call("send", connection="policy", messages=[{"body": "x"}])
    device.call("close", connection="policy")
    method = https.events("by-policy", 1)[0]["connectionAuthMethod"]
    assert method == '{"scope":"hub","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}'


# Modules


def module_string(muster: MusterServer, https: HttpsClient, device_id: str, key: str = KEY_2) -> str:
    """A device with one key and its module ``gauge`` with another; the connection string of the module."""
    https.create_device(device_id, authentication=sas(KEY, KEY))
    body = {"deviceId": device_id, "moduleId": "gauge", "authentication": sas(KEY_2, KEY_2)}
    answer = https.request("PUT", f"/devices/{device_id}/modules/gauge?api-version=2021-04-12", body)
    assert answer.status == 200, answer
    return f"HostName={muster.address};DeviceId={device_id};ModuleId=gauge;SharedAccessKey={key}"


@pytest.mark.parametrize("way", [{"api": "sync"}, {"api": "aio", "websockets": True}], ids=["sync", "aio-websockets"])
def test_a_module_by_its_key(muster: MusterServer, https: HttpsClient, device: SdkClient, way: dict[str, Any]) -> None:
    device_id = f"module-{way['api']}"
    string = module_string(muster, https, device_id)
    device.call("connect", connection=device_id, connection_string=string, module_id="gauge", **way)
    device.call("send", connection=device_id, messages=[{"body": "x"}])
    path = f"/devices/{device_id}/modules/gauge?api-version=2021-04-12"
    assert https.request("GET", path).json["connectionState"] == "Connected"
    assert not https.is_connected(device_id)
    device.call("close", connection=device_id)
    event = https.events(device_id, 1)[0]
    assert event["moduleId"] == "gauge"
    assert event["connectionAuthMethod"].startswith('{"scope":"module","type":"sas"')


def test_a_module_by_its_certificate(
    muster: MusterServer, https: HttpsClient, device: SdkClient, tmp_path: Path
) -> None:
    identity = self_signed("whatever")
    https.create_device("module-x509")
    thumbprint = by_thumbprint(sha256_thumbprint(identity.certificate))
    body = {"deviceId": "module-x509", "moduleId": "gauge", "authentication": thumbprint}
    path = "/devices/module-x509/modules/gauge?api-version=2021-04-12"
    assert https.request("PUT", path, body).status == 200
    names = {"device_id": "module-x509", "module_id": "gauge"}
    device.call("connect", connection="module-x509", **names, **files(identity, tmp_path))
    device.call("send", connection="module-x509", messages=[{"body": "x"}])
    device.call("close", connection="module-x509")
    assert https.events("module-x509", 1)[0]["moduleId"] == "gauge"


def test_the_end_of_modules(muster: MusterServer, https: HttpsClient, device: SdkClient) -> None:
    """Deleting it, giving it another key, and disabling or deleting its device end the connection of a module."""
    ways = ("deleted", "rekeyed", "disabled", "orphaned")
    for way in ways:
        string = module_string(muster, https, f"end-{way}")
        device.call("connect", connection=f"end-{way}", connection_string=string, module_id="gauge")
    version = "api-version=2021-04-12"
    https.request("DELETE", f"/devices/end-deleted/modules/gauge?{version}", if_match="*")
    body = {"deviceId": "end-rekeyed", "moduleId": "gauge", "authentication": sas(KEY, KEY)}
    https.request("PUT", f"/devices/end-rekeyed/modules/gauge?{version}", body, if_match="*")
    https.update_device("end-disabled", status="disabled", authentication=sas(KEY, KEY))
    https.request("DELETE", f"/devices/end-orphaned?{version}", if_match="*")
    for way in ways:
        device.call("wait_until_closed", connection=f"end-{way}", seconds=_NOTICED_SECONDS)
        device.call("close", connection=f"end-{way}")


def test_new_keys_end_a_connection(https: HttpsClient, device: SdkClient, with_key: CreateDevice) -> None:
    for name, key in (("rotate-primary", KEY), ("rotate-other", KEY_2)):
        device.call("connect", connection=name, connection_string=with_key(name, key))
    body = {"policyKey": "primary", "devices": [{"id": "rotate-primary"}, {"id": "rotate-other"}]}
    answer = https.request("POST", "/devices/keys/regenerate?api-version=2024-03-31", body)
    assert answer.status == 200
    device.call("wait_until_closed", connection="rotate-primary", seconds=_NOTICED_SECONDS)
    device.call("send", connection="rotate-other", messages=[{"body": "x"}])
    for name in ("rotate-primary", "rotate-other"):
        device.call("close", connection=name)


# Refusals


def test_a_module_does_not_open_with_the_key_of_its_device(
    muster: MusterServer, https: HttpsClient, device: SdkClient
) -> None:
    string = module_string(muster, https, "module-wrong", KEY)
    with pytest.raises(SdkError) as caught:
        device.call("connect", connection="module-wrong", connection_string=string, module_id="gauge")
    assert caught.value.kind == "CredentialError"
    report = muster.cli_json("why", "module-wrong/gauge")[0]
    assert [item["id"] for item in report["checks"] if item["outcome"] == "refused"] == ["sas.signature"]


def refused(muster: MusterServer, device: SdkClient, subject: str, check_id: str, **arguments: Any) -> None:
    """The SDK says CredentialError, as for Azure's CONNACK 5; ``muster why`` names the check and what to do."""
    with pytest.raises(SdkError) as caught:
        device.call("connect", connection=f"refused {subject}", **arguments)
    assert caught.value.kind == "CredentialError"
    assert any("ConnectionRefused" in cause or "not authori" in cause.lower() for cause in caught.value.causes)
    report = muster.cli_json("why", subject)[0]
    assert (report["service"], report["operation"], report["subject"]) == ("hub", "connect", subject)
    failed = [item for item in report["checks"] if item["outcome"] == "refused"]
    assert [item["id"] for item in failed] == [check_id]
    assert all(item["detail"] and item["fix"] for item in failed)
    assert subject in [item["subject"] for item in muster.cli_json("why")]


def test_a_wrong_key(muster: MusterServer, device: SdkClient, with_key: CreateDevice) -> None:
    refused(muster, device, "wrong-key", "sas.signature", connection_string=with_key("wrong-key", WRONG_KEY))


def test_an_unknown_device(muster: MusterServer, device: SdkClient) -> None:
    connection_string = f"HostName={muster.address};DeviceId=unknown;SharedAccessKey={KEY}"
    refused(muster, device, "unknown", "device.exists", connection_string=connection_string)


def test_another_case_of_the_id(muster: MusterServer, device: SdkClient, with_key: CreateDevice) -> None:
    """Device ids are exact."""
    connection_string = with_key("exact-case").replace("exact-case", "Exact-Case")
    refused(muster, device, "Exact-Case", "device.exists", connection_string=connection_string)


def test_a_disabled_device(muster: MusterServer, device: SdkClient, with_key: CreateDevice) -> None:
    connection_string = with_key("disabled", status="disabled", statusReason="sold")
    refused(muster, device, "disabled", "device.enabled", connection_string=connection_string)
    assert "sold" in muster.cli("why", "disabled").stdout


def test_another_certificate(muster: MusterServer, https: HttpsClient, device: SdkClient, tmp_path: Path) -> None:
    https.create_device("other-cert", authentication=by_thumbprint(sha1_thumbprint(self_signed("a").certificate)))
    own = files(other_self_signed("a"), tmp_path)
    refused(muster, device, "other-cert", "device.thumbprint", device_id="other-cert", **own)


def test_an_expired_certificate(muster: MusterServer, https: HttpsClient, device: SdkClient, tmp_path: Path) -> None:
    identity = expired("old-cert")
    https.create_device("old-cert", authentication=by_thumbprint(sha256_thumbprint(identity.certificate)))
    own = files(identity, tmp_path)
    refused(muster, device, "old-cert", "device.certificate-dates", device_id="old-cert", **own)


def test_a_key_where_a_certificate_is_asked_for(muster: MusterServer, https: HttpsClient, device: SdkClient) -> None:
    https.create_device("key-for-cert", authentication=by_thumbprint("AB" * 20))
    connection_string = f"HostName={muster.address};DeviceId=key-for-cert;SharedAccessKey={KEY}"
    with pytest.raises(SdkError):
        device.call("connect", connection="key-for-cert", connection_string=connection_string)
    failed = [
        item["id"] for item in muster.cli_json("why", "key-for-cert")[0]["checks"] if item["outcome"] == "refused"
    ]
    assert failed[0] == "device.authentication"


@pytest.mark.parametrize("policy", ["service", "registryRead", "registryReadWrite"])
def test_a_policy_that_may_not(muster: MusterServer, device: SdkClient, with_key: CreateDevice, policy: str) -> None:
    device_id = f"not-by-{policy}"
    with_key(device_id)
    token = create_token(f"{muster.address}/devices/{device_id}", DEVELOPMENT_KEY, int(time.time()) + 3600, policy)
    refused(muster, device, device_id, "sas.right", sas_token=token)


# The end of a connection


def test_the_newest_connection_wins(https: HttpsClient, device: SdkClient, with_key: CreateDevice) -> None:
    connection_string = with_key("takeover")
    device.call("connect", connection="older", connection_string=connection_string)
    device.call("connect", connection="newer", connection_string=connection_string.replace(KEY, KEY_2))
    device.call("wait_until_closed", connection="older", seconds=_NOTICED_SECONDS)
    device.call("send", connection="newer", messages=[{"body": "x"}])
    assert https.is_connected("takeover")
    device.call("close", connection="older")
    assert https.is_connected("takeover")
    device.call("close", connection="newer")


def test_deleting_disabling_and_new_keys_end_a_connection(
    https: HttpsClient, device: SdkClient, with_key: CreateDevice
) -> None:
    for device_id in ("to-delete", "to-disable", "to-rekey", "to-keep"):
        device.call("connect", connection=device_id, connection_string=with_key(device_id))
    deleted = https.request("DELETE", "/devices/to-delete?api-version=2021-04-12", if_match="*")
    assert deleted.status == 204
    https.update_device("to-disable", status="disabled", authentication=sas(KEY, KEY_2))
    https.update_device("to-rekey", authentication=sas(KEY_2, KEY_2))
    https.update_device("to-keep", statusReason="inspected", authentication=sas(KEY, KEY_2))
    for device_id in ("to-delete", "to-disable", "to-rekey"):
        device.call("wait_until_closed", connection=device_id, seconds=_NOTICED_SECONDS)
        device.call("close", connection=device_id)
    device.call("send", connection="to-keep", messages=[{"body": "x"}])
    device.call("close", connection="to-keep")


def test_the_registry_shows_who_is_connected(https: HttpsClient, device: SdkClient, with_key: CreateDevice) -> None:
    device.call("connect", connection="state", connection_string=with_key("state"))
    before = https.request("GET", "/devices/state?api-version=2021-04-12").json
    assert before["connectionState"] == "Connected"
    assert before["connectionStateUpdatedTime"] == before["lastActivityTime"] > "2026"
    device.call("close", connection="state")
    deadline = time.monotonic() + _NOTICED_SECONDS
    while https.is_connected("state"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    after = https.request("GET", "/devices/state?api-version=2021-04-12").json
    assert after["connectionStateUpdatedTime"] > before["connectionStateUpdatedTime"]
    assert after["etag"] == before["etag"]


def test_keep_alive(https: HttpsClient, device: SdkClient, with_key: CreateDevice) -> None:
    """With a PINGREQ every five seconds an idle connection stays for longer than it could without."""
    device.call("connect", connection="idle", connection_string=with_key("idle"), keep_alive=5)
    time.sleep(9)
    assert device.call("connected", connection="idle")
    assert https.is_connected("idle")
    device.call("close", connection="idle")
