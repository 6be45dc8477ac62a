"""Every check of the hub and of tokens, provoked by unmodified clients: what they see, and what ``muster why`` says."""

import base64
import re
import time
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_checks import Explain, Told, Wire, provokes
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_node import NodeClient, OpenNodeClient
from tests.support.fix_pki import Identity, expired, other_self_signed, self_signed
from tests.support.fix_server import DEVELOPMENT_KEY, ID_SCOPE, MusterServer

from muster.domain.sas import create_token, derive_device_key
from muster.pki.certificate import sha1_thumbprint

KEY = base64.b64encode(bytes(range(32))).decode()
WRONG_KEY = base64.b64encode(bytes(range(1, 33))).decode()
KEYS = {"primaryKey": KEY, "secondaryKey": KEY}
BY_KEY = {"type": "sas", "symmetricKey": KEYS}
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": KEYS}
UNAUTHORIZED = "ServiceError: register request returned a service error status code 401"
REFUSED = "CONNACK 5 over MQTT"
FAR = 4_000_000_000


@pytest.fixture(scope="module")
def muster(traced_muster: MusterServer) -> MusterServer:
    return traced_muster


@pytest.fixture(scope="module")
def device(clients: OpenClient) -> SdkClient:
    return clients("device.py")


@pytest.fixture(scope="module")
def paho(clients: OpenClient) -> SdkClient:
    return clients("paho_client.py")


@pytest.fixture(scope="module")
def node(node_clients: OpenNodeClient) -> NodeClient:
    return node_clients("device.js")


def by_thumbprint(identity: Identity) -> dict[str, Any]:
    return {"type": "selfSigned", "x509Thumbprint": {"primaryThumbprint": sha1_thumbprint(identity.certificate)}}


def files(identity: Identity, directory: Path) -> dict[str, str]:
    certificate, key = identity.write(directory)
    return {"certificate": str(certificate), "key": str(key)}


# Devices at the hub, by azure-iot-device


def connection_string(server: MusterServer, device_id: str, key: str = KEY) -> str:
    return f"HostName={server.address};DeviceId={device_id};SharedAccessKey={key}"


def require_refused(server: MusterServer, device: SdkClient, name: str, /, **credential: Any) -> None:
    """The SDK is told that its credential is at fault, by code 5 of CONNACK (interop-facts.md 30)."""
    with pytest.raises(SdkError) as caught:
        device.call("connect", connection=name, **credential)
    assert caught.value.kind == "CredentialError"
    assert Wire(server).connack(name) == 5


def require_explained(explain: Explain, server: MusterServer, device_id: str, check_id: str, code: int) -> None:
    report = explain(server, device_id, check_id)
    assert (report["service"], report["operation"], report["subject"]) == ("hub", "connect", device_id)
    assert report["answer"] == f"{REFUSED}, {code} elsewhere"
    # The id of a report leads to it, too.
    assert explain(server, report["trackingId"], check_id) == report


@provokes("device.exists")
def test_a_device_that_nobody_made(muster: MusterServer, device: SdkClient, explain: Explain) -> None:
    require_refused(muster, device, "nobody", connection_string=connection_string(muster, "nobody"))
    require_explained(explain, muster, "nobody", "device.exists", 401002)


@provokes("device.enabled")
def test_a_disabled_device(muster: MusterServer, https: HttpsClient, device: SdkClient, explain: Explain) -> None:
    https.create_device("disabled", authentication=BY_KEY, status="disabled", statusReason="stolen")
    require_refused(muster, device, "disabled", connection_string=connection_string(muster, "disabled"))
    require_explained(explain, muster, "disabled", "device.enabled", 403012)


@provokes("device.authentication")
def test_a_key_where_a_certificate_is_asked_for(
    muster: MusterServer, https: HttpsClient, device: SdkClient, explain: Explain
) -> None:
    """The device has no keys, so that the signature is none either."""
    https.create_device("by-thumbprint", authentication=by_thumbprint(self_signed("by-thumbprint")))
    require_refused(muster, device, "by-thumbprint", connection_string=connection_string(muster, "by-thumbprint"))
    explain(muster, "by-thumbprint", "device.authentication", also=("sas.signature",))


@provokes("device.authentication")
def test_a_certificate_where_a_key_is_asked_for(
    muster: MusterServer, https: HttpsClient, device: SdkClient, explain: Explain, tmp_path: Path
) -> None:
    https.create_device("by-key", authentication=BY_KEY)
    require_refused(muster, device, "by-key", device_id="by-key", **files(self_signed("by-key"), tmp_path))
    require_explained(explain, muster, "by-key", "device.authentication", 401002)


@provokes("device.thumbprint")
def test_another_certificate(
    muster: MusterServer, https: HttpsClient, device: SdkClient, explain: Explain, tmp_path: Path
) -> None:
    https.create_device("other", authentication=by_thumbprint(self_signed("other")))
    require_refused(muster, device, "other", device_id="other", **files(other_self_signed("other"), tmp_path))
    require_explained(explain, muster, "other", "device.thumbprint", 401003)


@provokes("device.certificate-dates")
def test_an_expired_certificate(
    muster: MusterServer, https: HttpsClient, device: SdkClient, explain: Explain, tmp_path: Path
) -> None:
    identity = expired("expired")
    https.create_device("expired", authentication=by_thumbprint(identity))
    require_refused(muster, device, "expired", device_id="expired", **files(identity, tmp_path))
    require_explained(explain, muster, "expired", "device.certificate-dates", 401003)


@provokes("sas.signature")
def test_a_wrong_key(muster: MusterServer, https: HttpsClient, device: SdkClient, explain: Explain) -> None:
    https.create_device("wrong-key", authentication=BY_KEY)
    require_refused(muster, device, "wrong-key", connection_string=connection_string(muster, "wrong-key", WRONG_KEY))
    require_explained(explain, muster, "wrong-key", "sas.signature", 401002)


# What SDKs do not do, by paho


def paho_is_refused(server: MusterServer, paho: SdkClient, device_id: str, password: str | None) -> None:
    username = f"{server.address}/{device_id}/?api-version=2021-04-12"
    assert paho.call("connect", connection=device_id, client_id=device_id, username=username, password=password) == 5


@provokes("device.user-name")
def test_another_client_id_than_the_device_id(
    muster: MusterServer, https: HttpsClient, paho: SdkClient, explain: Explain
) -> None:
    https.create_device("misnamed", authentication=BY_KEY)
    token = create_token(f"{muster.address}/devices/misnamed", KEY, FAR)
    username = f"{muster.address}/misnamed/?api-version=2021-04-12"
    assert paho.call("connect", connection="misnamed", client_id="mine", username=username, password=token) == 5
    require_explained(explain, muster, "misnamed", "device.user-name", 401002)


@provokes("device.certificate-presented")
def test_no_credential_at_all(muster: MusterServer, https: HttpsClient, paho: SdkClient, explain: Explain) -> None:
    https.create_device("bare", authentication=by_thumbprint(self_signed("bare")))
    paho_is_refused(muster, paho, "bare", None)
    require_explained(explain, muster, "bare", "device.certificate-presented", 401002)


@provokes("sas.format")
def test_a_key_in_place_of_a_token(muster: MusterServer, https: HttpsClient, paho: SdkClient, explain: Explain) -> None:
    https.create_device("no-token", authentication=BY_KEY)
    paho_is_refused(muster, paho, "no-token", KEY)
    require_explained(explain, muster, "no-token", "sas.format", 401002)


@provokes("sas.audience")
def test_the_token_of_another_device(
    muster: MusterServer, https: HttpsClient, paho: SdkClient, explain: Explain
) -> None:
    https.create_device("not-mine", authentication=BY_KEY)
    paho_is_refused(muster, paho, "not-mine", create_token(f"{muster.address}/devices/mine", KEY, FAR))
    require_explained(explain, muster, "not-mine", "sas.audience", 401002)


@provokes("sas.expiry")
def test_an_old_token(muster: MusterServer, https: HttpsClient, paho: SdkClient, explain: Explain) -> None:
    https.create_device("too-late", authentication=BY_KEY)
    token = create_token(f"{muster.address}/devices/too-late", KEY, int(time.time()) - 600)
    paho_is_refused(muster, paho, "too-late", token)
    require_explained(explain, muster, "too-late", "sas.expiry", 401003)


@provokes("sas.policy")
def test_a_policy_that_is_not_there(
    muster: MusterServer, https: HttpsClient, paho: SdkClient, explain: Explain
) -> None:
    https.create_device("no-policy", authentication=BY_KEY)
    paho_is_refused(muster, paho, "no-policy", create_token(muster.address, DEVELOPMENT_KEY, FAR, "nothing"))
    require_explained(explain, muster, "no-policy", "sas.policy", 401002)


@provokes("sas.right")
def test_a_policy_for_services(muster: MusterServer, https: HttpsClient, paho: SdkClient, explain: Explain) -> None:
    https.create_device("no-right", authentication=BY_KEY)
    paho_is_refused(muster, paho, "no-right", create_token(muster.address, DEVELOPMENT_KEY, FAR, "service"))
    require_explained(explain, muster, "no-right", "sas.right", 401002)


# Service clients, by azure-iot-hub


@pytest.mark.parametrize(
    ("policy", "key", "check_id"),
    [
        pytest.param("nothing", DEVELOPMENT_KEY, "sas.policy", marks=provokes("sas.policy")),
        pytest.param("device", DEVELOPMENT_KEY, "sas.right", marks=provokes("sas.right")),
        pytest.param("iothubowner", WRONG_KEY, "sas.signature", marks=provokes("sas.signature")),
    ],
)
def test_a_back_end(
    muster: MusterServer, clients: OpenClient, explain: Explain, policy: str, key: str, check_id: str
) -> None:
    string = f"HostName={muster.address};SharedAccessKeyName={policy};SharedAccessKey={key}"
    with pytest.raises(SdkError) as caught:
        clients("registry.py").call(
            "call", connection_string=string, method="get_device", arguments=["any"], options={}
        )
    assert (caught.value.kind, caught.value.status) == ("HttpOperationError", 401)
    body = caught.value.json
    assert body["Message"] == "ErrorCode:IotHubUnauthorizedAccess;Unauthorized"
    found = re.search(r"Tracking ID:([0-9a-f]{32}-G:0-TimeStamp:\S+ \S+)", body["ExceptionMessage"])
    assert found is not None, body
    report = explain(muster, found[1], check_id)
    assert (report["service"], report["answer"]) == ("hub", "401002 Unauthorized")


# Tokens at the provisioning service


def register(registration_id: str, key: str) -> dict[str, str]:
    return {"registration_id": registration_id, "id_scope": ID_SCOPE, "symmetric_key": key}


def told_by_mqtt(server: MusterServer, device: SdkClient, registration_id: str, key: str) -> Told:
    with pytest.raises(SdkError) as caught:
        device.call("register", **register(registration_id, key))
    assert caught.value.causes[0] == UNAUTHORIZED
    (told,) = Wire(server).provisioning(registration_id)
    return told


def told_by_https(node: NodeClient, registration_id: str, **credential: Any) -> Told:
    with pytest.raises(SdkError) as caught:
        node.call("register", registrationId=registration_id, idScope=ID_SCOPE, transport="http", **credential)
    assert caught.value.kind == "UnauthorizedError"
    return Told(401, caught.value.json, mqtt=False)


def told_by_paho(server: MusterServer, paho: SdkClient, registration_id: str) -> Told:
    """Without any credential."""
    username = f"{ID_SCOPE}/registrations/{registration_id}/api-version=2019-03-31"
    assert paho.call("connect", connection=registration_id, client_id=registration_id, username=username) == 0
    paho.call("subscribe", connection=registration_id, topic_filter="$dps/registrations/res/#")
    answer = paho.call("ask", connection=registration_id, topic="$dps/registrations/PUT/iotdps-register/?$rid=1")
    paho.call("close", connection=registration_id)
    (told,) = Wire(server).provisioning(registration_id)
    assert answer["topic"] == f"$dps/registrations/res/{told.status}/?$rid=1"
    return told


@provokes("sas.signature")
def test_a_wrong_key_registers(
    muster: MusterServer, https: HttpsClient, device: SdkClient, node: NodeClient, explain: Explain
) -> None:
    https.enroll_by("dps-key", attestation=SYMMETRIC)
    explain.told(muster, told_by_mqtt(muster, device, "dps-key", WRONG_KEY), "sas.signature")
    explain.told(muster, told_by_https(node, "dps-key", symmetricKey=WRONG_KEY), "sas.signature")


@provokes("sas.derived-key")
def test_a_key_that_is_derived_for_another_device(
    muster: MusterServer, https: HttpsClient, device: SdkClient, node: NodeClient, explain: Explain
) -> None:
    """And the group's own key, which is no device's."""
    https.enroll_group("by-key", attestation=SYMMETRIC)
    for number, key in enumerate((derive_device_key(KEY, "another"), KEY)):
        name = f"member-{number}"
        explain.told(muster, told_by_mqtt(muster, device, name, key), "sas.derived-key")
        explain.told(muster, told_by_https(node, name, symmetricKey=key), "sas.derived-key")


@provokes("enrollment.attestation")
def test_a_certificate_where_the_enrollment_asks_for_a_key(
    muster: MusterServer, https: HttpsClient, device: SdkClient, node: NodeClient, explain: Explain, tmp_path: Path
) -> None:
    https.enroll_by("wants-key", attestation=SYMMETRIC)
    own = files(self_signed("wants-key"), tmp_path)
    with pytest.raises(SdkError):
        device.call("register", registration_id="wants-key", id_scope=ID_SCOPE, **own)
    (told,) = Wire(muster).provisioning("wants-key")
    explain.told(muster, told, "enrollment.attestation")
    explain.told(muster, told_by_https(node, "wants-key", **own), "enrollment.attestation")


# No certificate, which is the commonest fault of all (dps.md 4.1)


@provokes("x509.certificate-presented")
@pytest.mark.parametrize("protocol", ["HTTPS", "MQTT"])
def test_a_client_without_its_certificate(
    muster: MusterServer, https: HttpsClient, node: NodeClient, paho: SdkClient, explain: Explain, protocol: str
) -> None:
    """Node.js over HTTPS connects without one when it is given none, and says nothing; and so does paho."""
    name = f"bare-{protocol}"
    https.enroll(name, self_signed(name).certificate_pem.decode())
    told = told_by_https(node, name, bare=True) if protocol == "HTTPS" else told_by_paho(muster, paho, name)
    assert told.body["message"] == "Invalid certificate."
    report = explain.told(muster, told, "x509.certificate-presented")
    check = next(one for one in report["checks"] if one["id"] == "x509.certificate-presented")
    assert check["detail"] == "the client sent no certificate in the TLS handshake"
    assert "X509_CERT_FILE" in check["fix"]


@provokes("enrollment.attestation")
def test_a_client_made_with_a_key_instead(
    muster: MusterServer, https: HttpsClient, device: SdkClient, explain: Explain
) -> None:
    """With Python there is no other way to have no certificate."""
    https.enroll("made-wrong", self_signed("made-wrong").certificate_pem.decode())
    told = told_by_mqtt(muster, device, "made-wrong", KEY)
    report = explain.told(muster, told, "enrollment.attestation")
    check = next(one for one in report["checks"] if one["id"] == "enrollment.attestation")
    assert check["detail"].endswith(", and sent no certificate in the TLS handshake")
    assert "create_from_x509_certificate" in check["fix"]


@provokes("sas.format")
def test_a_client_without_its_key(muster: MusterServer, https: HttpsClient, paho: SdkClient, explain: Explain) -> None:
    https.enroll_by("keyless", attestation=SYMMETRIC)
    report = explain.told(muster, told_by_paho(muster, paho, "keyless"), "sas.format")
    assert report["credential"] == "no credential"
