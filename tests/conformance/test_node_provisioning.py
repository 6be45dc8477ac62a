"""The unmodified Node.js clients register over HTTPS, MQTT, AMQP and WebSocket, with every attestation they have."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_checks import Explain, Told, Wire, provokes
from tests.support.fix_clients import HttpsClient, SdkError
from tests.support.fix_node import NodeClient, OpenNodeClient
from tests.support.fix_pki import Identity, issue, other_self_signed, self_signed
from tests.support.fix_server import ID_SCOPE, MusterServer
from tests.support.fix_tpm import ENDORSEMENT_KEY, STORAGE_ROOT_KEY, Swtpm, running_swtpm, software_tpm

from muster.domain.sas import derive_device_key

TRANSPORTS = ("http", "mqtt", "mqtt-ws", "amqp", "amqp-ws")
HUB_TRANSPORTS = ("mqtt", "mqtt-ws", "mqtt", "amqp", "amqp-ws")
KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(64))).decode()
WRONG_KEY = base64.b64encode(bytes(32)).decode()
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER_KEY}}


@pytest.fixture(scope="module")
def muster(traced_muster: MusterServer) -> MusterServer:
    return traced_muster


@pytest.fixture(scope="module")
def device(node_clients: OpenNodeClient) -> NodeClient:
    return node_clients("device.js")


@pytest.fixture(scope="module")
def tpm() -> Iterator[Swtpm]:
    """Without its keys, which the client makes when they are missing."""
    with running_swtpm() as running:
        for handle in (ENDORSEMENT_KEY, STORAGE_ROOT_KEY):
            running.run("evictcontrol", "-C", "o", "-c", handle)
        yield running


def requests(prefix: str, **credential: Any) -> list[dict[str, Any]]:
    """A registration over each transport."""
    return [
        {"registrationId": f"{prefix}-{transport}", "idScope": ID_SCOPE, "transport": transport, **credential}
        for transport in TRANSPORTS
    ]


def require_assigned(muster: MusterServer, results: list[Any], prefix: str) -> None:
    assert [result["deviceId"] for result in results] == [f"{prefix}-{transport}" for transport in TRANSPORTS]
    assert {(result["status"], result["substatus"]) for result in results} == {("assigned", "initialAssignment")}
    assert {result["assignedHub"] for result in results} == {muster.address}


def require_telemetry(https: HttpsClient, device: NodeClient, prefix: str, credentials: list[dict[str, Any]]) -> None:
    """Each device connects to the hub with what it registered with, and its message arrives."""
    ids = [f"{prefix}-{transport}" for transport in TRANSPORTS]
    device.values(
        "connect",
        [
            {"connection": device_id, "deviceId": device_id, "transport": transport, **credential}
            for device_id, transport, credential in zip(ids, HUB_TRANSPORTS, credentials, strict=True)
        ],
    )
    device.values("send", [{"connection": device_id, "body": device_id} for device_id in ids])
    device.values("close", [{"connection": device_id} for device_id in ids])
    assert [https.events(device_id, 1)[0]["body"] for device_id in ids] == ids


def refused_checks(muster: MusterServer, registration_id: str, verdict: str = "refused") -> list[str]:
    """What ``muster why`` names, each with its reason and a way out."""
    report = muster.cli_json("why", registration_id)[0]
    assert report["verdict"] == verdict
    refused = [check for check in report["checks"] if check["outcome"] == "refused"]
    assert all(check["detail"] and check["fix"] for check in refused)
    return [check["id"] for check in refused]


def test_symmetric_key(muster: MusterServer, https: HttpsClient, device: NodeClient) -> None:
    wanted = requests("node-key", symmetricKey=KEY)
    wanted[1]["symmetricKey"] = OTHER_KEY
    for request in wanted:
        https.enroll_by(request["registrationId"], attestation=SYMMETRIC)
    require_assigned(muster, device.values("register", wanted), "node-key")
    require_telemetry(https, device, "node-key", [{"symmetricKey": request["symmetricKey"]} for request in wanted])


def test_group_with_derived_keys(muster: MusterServer, https: HttpsClient, device: NodeClient) -> None:
    https.enroll_group("node-fleet", attestation=SYMMETRIC, initialTwin={"tags": {"fleet": 1}})
    wanted = requests("node-derived", payload={"model": "ü"})
    keys = [derive_device_key(KEY, request["registrationId"]) for request in wanted]
    results = device.values(
        "register", [{**request, "symmetricKey": key} for request, key in zip(wanted, keys, strict=True)]
    )
    require_assigned(muster, results, "node-derived")
    assert {result["symmetricKey"]["enrollmentGroupId"] for result in results} == {"node-fleet"}
    require_telemetry(https, device, "node-derived", [{"symmetricKey": key} for key in keys])
    twin = https.request("GET", "/twins/node-derived-http?api-version=2021-04-12").json
    assert twin["tags"] == {"fleet": 1}


def test_certificate(muster: MusterServer, https: HttpsClient, device: NodeClient, tmp_path: Path) -> None:
    wanted = requests("node-x509")
    files = []
    for request in wanted:
        identity = self_signed(request["registrationId"])
        https.enroll(request["registrationId"], identity.certificate_pem.decode())
        certificate, key = identity.write(tmp_path, request["registrationId"])
        files.append({"certificate": str(certificate), "key": str(key)})
    results = device.values("register", [{**request, **own} for request, own in zip(wanted, files, strict=True)])
    require_assigned(muster, results, "node-x509")
    require_telemetry(https, device, "node-x509", files)


@pytest.fixture(scope="module")
def authority(muster: MusterServer, tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """A root that was uploaded as ``node-root``, and whose possession was proved."""
    root = issue("node root", is_ca=True)
    certificate, key = root.write(tmp_path_factory.mktemp("authority"))
    muster.cli("certificate", "upload", str(certificate), "--name", "node-root", "--verify", "--key", str(key))
    return root


def with_chains(wanted: list[dict[str, Any]], line: Identity, directory: Path) -> list[dict[str, str]]:
    """The files of a certificate under ``line`` for each, the chain without the root, which is known."""
    found = []
    for request in wanted:
        name = request["registrationId"]
        leaf = issue(name, line)
        certificate, key = Identity(leaf.certificate, leaf.key, leaf.chain[:1]).write(directory, name)
        found.append({"certificate": str(certificate), "key": str(key)})
    return found


def test_group_with_certificates(
    muster: MusterServer, https: HttpsClient, device: NodeClient, authority: Identity, tmp_path: Path
) -> None:
    """The intermediate is the group's; this SDK sends the chain that stands in its file."""
    line = issue("node line", authority, is_ca=True)
    certificates = {"primary": {"certificate": line.certificate_pem.decode()}}
    https.enroll_group("node-line", attestation={"type": "x509", "x509": {"signingCertificates": certificates}})
    wanted = requests("node-chain")
    files = with_chains(wanted, line, tmp_path)
    results = device.values("register", [{**request, **own} for request, own in zip(wanted, files, strict=True)])
    require_assigned(muster, results, "node-chain")
    assert {result["x509"]["enrollmentGroupId"] for result in results} == {"node-line"}
    require_telemetry(https, device, "node-chain", files)


def test_references_to_a_ca(
    muster: MusterServer, https: HttpsClient, device: NodeClient, authority: Identity, tmp_path: Path
) -> None:
    """Individual enrollments by the CA that was uploaded, at whatever distance."""
    line = issue("node other line", authority, is_ca=True)
    wanted = requests("node-by-ca")
    for request in wanted:
        references = {"caReferences": {"primary": "node-root"}}
        https.enroll_by(request["registrationId"], attestation={"type": "x509", "x509": references})
    files = with_chains(wanted, line, tmp_path)
    results = device.values("register", [{**request, **own} for request, own in zip(wanted, files, strict=True)])
    require_assigned(muster, results, "node-by-ca")
    require_telemetry(https, device, "node-by-ca", files)


def require_unauthorized(error: SdkError, transport: str) -> None:
    """Over AMQP this SDK hands on what the server sent."""
    if transport.startswith("amqp"):
        assert error.kind == "amqp:unauthorized-access", error
        assert error.json["errorCode"] == 401002
    else:
        assert error.kind == "UnauthorizedError", error


def test_a_wrong_key(muster: MusterServer, https: HttpsClient, device: NodeClient) -> None:
    wanted = requests("node-wrong", symmetricKey=WRONG_KEY)
    for request in wanted:
        https.enroll_by(request["registrationId"], attestation=SYMMETRIC)
    for request, error in zip(wanted, device.call_all("register", wanted), strict=True):
        assert isinstance(error, SdkError)
        require_unauthorized(error, request["transport"])
        assert refused_checks(muster, request["registrationId"]) == ["sas.signature"]


def test_a_wrong_certificate(muster: MusterServer, https: HttpsClient, device: NodeClient, tmp_path: Path) -> None:
    wanted = requests("node-other")
    for request in wanted:
        https.enroll(request["registrationId"], self_signed(request["registrationId"]).certificate_pem.decode())
        certificate, key = other_self_signed(request["registrationId"]).write(tmp_path, request["registrationId"])
        request |= {"certificate": str(certificate), "key": str(key)}
    for request, error in zip(wanted, device.call_all("register", wanted), strict=True):
        assert isinstance(error, SdkError)
        require_unauthorized(error, request["transport"])
        assert refused_checks(muster, request["registrationId"]) == ["x509.thumbprint"]


def test_a_port_of_its_own_over_amqp(muster: MusterServer, https: HttpsClient, device: NodeClient) -> None:
    """The host may have a port, and any port of a server takes any protocol (dps.md 9.1)."""
    https.enroll_by("node-port", attestation=SYMMETRIC)
    credential = {"registrationId": "node-port", "idScope": ID_SCOPE, "symmetricKey": KEY}
    result = device.call("register", transport="amqp", host=f"{muster.address}:8883", **credential)
    assert (result["status"], result["assignedHub"]) == ("assigned", muster.address)


def test_a_disabled_enrollment(muster: MusterServer, https: HttpsClient, device: NodeClient) -> None:
    """The answer is a 200 with status ``disabled``, which this SDK knows no name for (dps.md 2.6)."""
    wanted = requests("node-off", symmetricKey=KEY)
    for request in wanted:
        https.enroll_by(request["registrationId"], attestation=SYMMETRIC, provisioningStatus="disabled")
    for request, error in zip(wanted, device.call_all("register", wanted), strict=True):
        assert isinstance(error, SdkError)
        assert error.kind == "SyntaxError", error
        assert refused_checks(muster, request["registrationId"], "disabled") == ["enrollment.enabled"]


def test_tpm(muster: MusterServer, https: HttpsClient, device: NodeClient, tpm: Swtpm) -> None:
    """The challenge, the registration, and the hub by a token that the TPM signs with the key it got."""
    keys = device.call("openTpm", tpm="first", socket=str(tpm.socket))
    registration_id = keys.pop("registrationId")
    https.enroll_by(registration_id, attestation={"type": "tpm", "tpm": keys}, deviceId="node-tpm")
    result = device.call("register", idScope=ID_SCOPE, transport="http", tpm="first")
    state = result["registrationState"]
    assert (state["status"], state["assignedHub"], state["deviceId"]) == ("assigned", muster.address, "node-tpm")

    token = device.call("tpmToken", tpm="first", deviceId="node-tpm")
    device.call("connect", connection="tpm", token=token)
    device.call("send", connection="tpm", body="by TPM")
    device.call("close", connection="tpm")
    assert https.events("node-tpm", 1)[0]["body"] == "by TPM"

    # Registering again gives the device another blob of the same key.
    again = device.call("register", idScope=ID_SCOPE, transport="http", tpm="first")
    assert again["registrationState"]["deviceId"] == "node-tpm"
    device.call("connect", connection="tpm", token=device.call("tpmToken", tpm="first", deviceId="node-tpm"))
    device.call("close", connection="tpm")


@pytest.mark.parametrize("transport", ["amqp", "amqp-ws"])
def test_tpm_over_amqp(muster: MusterServer, https: HttpsClient, device: NodeClient, transport: str) -> None:
    """The dialogue in the SASL layer (dps.md 3.7), the registration, and the hub."""
    with running_swtpm() as one:
        name = f"node-tpm-{transport}"
        keys = device.call("openTpm", tpm=name, socket=str(one.socket))
        registration_id = keys.pop("registrationId")
        https.enroll_by(registration_id, attestation={"type": "tpm", "tpm": keys}, deviceId=name)
        for _ in range(2):
            result = device.call("register", idScope=ID_SCOPE, transport=transport, tpm=name)
            state = result["registrationState"]
            assert (state["status"], state["assignedHub"], state["deviceId"]) == ("assigned", muster.address, name)
            token = device.call("tpmToken", tpm=name, deviceId=name)
            device.call("connect", connection=name, transport=transport, token=token)
            device.call("send", connection=name, body="by TPM")
            device.call("close", connection=name)
        assert [event["body"] for event in https.events(name, 2)] == ["by TPM"] * 2


def test_tpms_that_are_refused_over_amqp(muster: MusterServer, https: HttpsClient, device: NodeClient) -> None:
    """One shows that it is itself, and hears with its request that it is not enrolled, or another one is."""
    other = base64.b64encode(software_tpm().endorsement_key).decode()
    with running_swtpm() as stranger:
        keys = device.call("openTpm", tpm="amqp-stranger", socket=str(stranger.socket))
        registration_id = keys.pop("registrationId")

        def refusal() -> tuple[str, list[str]]:
            with pytest.raises(SdkError) as caught:
                device.call("register", idScope=ID_SCOPE, transport="amqp", tpm="amqp-stranger")
            return caught.value.kind, refused_checks(muster, registration_id)

        assert refusal() == ("amqp:not-found", ["enrollment.exists-for-tpm"])
        https.enroll_by(registration_id, attestation={"type": "tpm", "tpm": {**keys, "endorsementKey": other}})
        assert refusal() == ("amqp:unauthorized-access", ["tpm.endorsement-key"])


@provokes("enrollment.exists-for-tpm", "tpm.endorsement-key", "tpm.storage-root-key")
def test_tpms_that_are_refused(muster: MusterServer, https: HttpsClient, device: NodeClient, explain: Explain) -> None:
    """One that nobody enrolled, then one whose enrollment has another endorsement key, or storage root key."""
    other = {
        "endorsementKey": base64.b64encode(software_tpm().endorsement_key).decode(),
        "storageRootKey": base64.b64encode(software_tpm().storage_root_key).decode(),
    }
    with running_swtpm() as stranger:
        keys = device.call("openTpm", tpm="stranger", socket=str(stranger.socket))
        registration_id = keys.pop("registrationId")
        cases = {
            "enrollment.exists-for-tpm": None,
            "tpm.endorsement-key": {**keys, "endorsementKey": other["endorsementKey"]},
            "tpm.storage-root-key": {**keys, "storageRootKey": other["storageRootKey"]},
        }
        told: dict[str, Told] = {}
        for check_id, enrolled in cases.items():
            if enrolled:
                https.enroll_by(registration_id, attestation={"type": "tpm", "tpm": enrolled})
            with pytest.raises(SdkError) as caught:
                device.call("register", idScope=ID_SCOPE, transport="http", tpm="stranger")
            # An unknown TPM gets no 401, which this SDK waits for; a wrong one gets a 401 without a challenge.
            assert caught.value.kind == ("FormatError" if enrolled else "InvalidOperationError"), caught.value
            told[check_id] = Wire(muster).https(f"/registrations/{registration_id}/register")[-1]
            explain.told(muster, told[check_id], check_id)
        assert len({one.tracking_id for one in told.values()}) == len(cases)
        https.enroll_by(registration_id, attestation={"type": "tpm", "tpm": keys})
        again = device.call("register", idScope=ID_SCOPE, transport="http", tpm="stranger")
        assert again["registrationState"]["status"] == "assigned"


def test_an_ecc_endorsement_key(https: HttpsClient) -> None:
    """Every client and every blob of the real service is RSA (dps.md 4.6): the enrollment says so, not the device."""
    with running_swtpm() as one:
        one.create_endorsement_key("ecc256:null:aes128cfb")
        key = base64.b64encode(one.endorsement_key).decode()
    body = {"registrationId": "ecc", "attestation": {"type": "tpm", "tpm": {"endorsementKey": key}}}
    answer = https.request("PUT", "/enrollments/ecc?api-version=2021-10-01", body)
    assert (answer.status, answer.json["errorCode"]) == (400, 400004)
    assert answer.json["message"].startswith("attestation.tpm.endorsementKey is invalid: the key is an ECC key;")
