"""Certificates on registration: asked for over MQTT and HTTPS as the clients do that have it, and used at the hub by
the unmodified device clients for Python and Node.js, which have no ``csr`` themselves.
"""

import base64
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.fix_ca import key, openssl, request
from tests.support.fix_checks import Explain, Told, provokes
from tests.support.fix_clients import HttpsClient, OpenClient
from tests.support.fix_node import OpenNodeClient
from tests.support.fix_pki import self_signed, to_pem
from tests.support.fix_server import ID_SCOPE, MusterServer, StartServer

from muster.domain.sas import create_token

KEY = base64.b64encode(bytes(range(32))).decode()
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
VERSION = "api-version=2025-07-01-preview"
FAR = 4_000_000_000


@pytest.fixture(scope="module", autouse=True)
def authority(muster: MusterServer) -> Path:
    """A root and an intermediate, made by the operator; the root's certificate."""
    directory = muster.data_directory / "ca"
    muster.cli("ca", "init", "plant-root", "--ca-dir", str(directory))
    muster.cli("ca", "intermediate", "line-a", "--ca-dir", str(directory))
    return directory / "plant-root" / "plant-root.pem"


def csr_of(name: str) -> str:
    return base64.b64encode(request(name).public_bytes(Encoding.DER)).decode()


def token(registration_id: str) -> str:
    return create_token(f"{ID_SCOPE}/registrations/{registration_id}", KEY, FAR, "registration")


def store(tmp_path: Path, name: str, state: dict[str, Any]) -> dict[str, str]:
    """What the device keeps: the chain that it got, and its own key."""
    chain = [base64.b64decode(one) for one in state["issuedCertificateChain"]]
    certificate, private = tmp_path / f"{name}.pem", tmp_path / f"{name}.key"
    certificate.write_bytes(b"".join(map(to_pem, chain)))
    private.write_bytes(key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {"certificate": str(certificate), "key": str(private)}


def require_python_at_the_hub(clients: OpenClient, https: HttpsClient, name: str, files: dict[str, str]) -> None:
    device = clients("device.py")
    device.call("connect", connection=name, device_id=name, **files)
    device.call("send", connection=name, messages=[{"body": "with my own certificate"}])
    device.call("close", connection=name)
    (event,) = https.events(name, 1)
    assert event["body"] == "with my own certificate"


def test_mqtt_with_a_key_then_python_at_the_hub(
    muster: MusterServer, clients: OpenClient, https: HttpsClient, authority: Path, tmp_path: Path
) -> None:
    name = "csr-mqtt"
    created = muster.cli_json(
        *("enrollment", "create", "--registration-id", name, "--symmetric-key", "--primary-key", KEY),
        *("--issuing-ca", "line-a"),
    )
    assert (created["certificateAuthorityName"], created["certificatePolicyName"]) == ("line-a", "device")
    result = clients("csr_device.py").call(
        "register", registration_id=name, id_scope=ID_SCOPE, csr=csr_of(name), password=token(name)
    )
    assert result["status"] == 200
    state = result["answer"]["registrationState"]
    assert (state["status"], state["assignedHub"], state["deviceId"]) == ("assigned", muster.address, name)

    files = store(tmp_path, name, state)
    verified = openssl(
        "verify", "-x509_strict", "-CAfile", authority, "-untrusted", files["certificate"], files["certificate"]
    )
    assert verified.stdout.decode().strip().endswith("OK"), verified.stderr
    require_python_at_the_hub(clients, https, name, files)
    listed = muster.cli_json("ca", "list", "--ca-dir", str(muster.data_directory / "ca"))
    assert name in str(listed)


def test_mqtt_with_a_certificate_then_node_at_the_hub(
    clients: OpenClient, node_clients: OpenNodeClient, https: HttpsClient, tmp_path: Path
) -> None:
    """What it was shipped with opens the provisioning service; at the hub it counts no more."""
    name = "csr-x509"
    shipped = self_signed(name)
    https.enroll(name, shipped.certificate_pem.decode(), credentialPolicyName="line-a")
    certificate, private = shipped.write(tmp_path, "shipped")
    result = clients("csr_device.py").call(
        "register",
        registration_id=name,
        id_scope=ID_SCOPE,
        csr=csr_of(name),
        certificate=str(certificate),
        key=str(private),
    )
    assert result["status"] == 200
    files = store(tmp_path, name, result["answer"]["registrationState"])
    node = node_clients("device.js")
    node.call("connect", connection=name, deviceId=name, **files)
    node.call("send", connection=name, body="from Node.js")
    node.call("close", connection=name)
    assert [event["body"] for event in https.events(name, 1)] == ["from Node.js"]
    with pytest.raises(Exception, match=r"(?i)not authorized|unauthorized"):
        node.call("connect", connection="shipped", deviceId=name, certificate=str(certificate), key=str(private))


def test_https_with_a_group(muster: MusterServer, clients: OpenClient, https: HttpsClient, tmp_path: Path) -> None:
    """As ``az iot device registration create`` does."""
    name = "csr-https"
    muster.cli("group", "create", "csr-fleet", "--symmetric-key", "--primary-key", KEY, "--issuing-ca", "line-a")
    derived = muster.cli("group", "derive-key", "csr-fleet", name).stdout.split()[-1]
    signed = create_token(f"{ID_SCOPE}/registrations/{name}", derived, FAR, "registration")
    place = f"/{ID_SCOPE}/registrations/{name}"
    answer = https.request(
        "PUT", f"{place}/register?{VERSION}", {"registrationId": name, "csr": csr_of(name)}, authorization=signed
    )
    assert answer.status == 202, answer
    operation = answer.json["operationId"]
    deadline = time.monotonic() + 90
    while answer.status == 202:
        assert time.monotonic() < deadline
        answer = https.request("GET", f"{place}/operations/{operation}?{VERSION}", authorization=signed)
    assert answer.status == 200, answer
    require_python_at_the_hub(clients, https, name, store(tmp_path, name, answer.json["registrationState"]))
    looked_up = https.request("POST", f"{place}?{VERSION}", {"registrationId": name}, authorization=signed)
    assert looked_up.status == 200
    assert "issuedCertificateChain" not in looked_up.json


def changed() -> str:
    """With another signature under it."""
    content = bytearray(request("csr-refused").public_bytes(Encoding.DER))
    content[-1] ^= 1
    return base64.b64encode(content).decode()


def weak() -> str:
    """By a key that is too short."""
    signer = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    return base64.b64encode(request("csr-refused", signer=signer).public_bytes(Encoding.DER)).decode()


def test_the_former_preview_then_python_at_the_hub(
    muster: MusterServer, clients: OpenClient, https: HttpsClient, tmp_path: Path
) -> None:
    """``clientCertificateCsr`` in PEM, and in PEM what a device loads with its key (2021-11-01-preview)."""
    name = "csr-former"
    policy = {"certificateAuthorityName": "line-a"}
    https.enroll_by(name, attestation=SYMMETRIC, clientCertificateIssuancePolicy=policy)
    result = clients("csr_device.py").call(
        "register",
        registration_id=name,
        id_scope=ID_SCOPE,
        csr=request(name).public_bytes(Encoding.PEM).decode(),
        password=token(name),
        api_version="2021-11-01-preview",
        member="clientCertificateCsr",
    )
    state = result["answer"]["registrationState"]
    assert (result["status"], state["status"]) == (200, "assigned")
    certificate, private = tmp_path / "former.pem", tmp_path / "former.key"
    certificate.write_text(state["issuedClientCertificate"])
    private.write_bytes(key(name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    require_python_at_the_hub(clients, https, name, {"certificate": str(certificate), "key": str(private)})
    shown = muster.cli_json("enrollment", "show", name)
    assert shown["clientCertificateIssuancePolicy"] == policy


@pytest.mark.parametrize(
    ("csr", "api_version", "check_id"),
    [
        pytest.param(
            csr_of("somebody-else"), "2025-07-01-preview", "csr.common-name", marks=provokes("csr.common-name")
        ),
        pytest.param("bm90IGEgcmVxdWVzdA==", "2026-11-01", "csr.format", marks=provokes("csr.format")),
        pytest.param(csr_of("csr-refused"), "2019-03-31", "csr.api-version", marks=provokes("csr.api-version")),
        pytest.param(changed(), "2025-07-01-preview", "csr.signature", marks=provokes("csr.signature"), id="signature"),
        pytest.param(weak(), "2025-07-01-preview", "csr.key", marks=provokes("csr.key"), id="key"),
    ],
)
def test_a_refusal_is_explained(
    muster: MusterServer,
    clients: OpenClient,
    https: HttpsClient,
    explain: Explain,
    csr: str,
    api_version: str,
    check_id: str,
) -> None:
    name = "csr-refused"
    https.enroll_by(name, attestation=SYMMETRIC, credentialPolicyName="line-a")
    result = clients("csr_device.py").call(
        "register",
        registration_id=name,
        id_scope=ID_SCOPE,
        csr=csr,
        password=token(name),
        api_version=api_version,
    )
    assert (result["status"], result["answer"]["errorCode"]) == (400, 400004)
    explain.told(muster, Told(result["status"], result["answer"]), check_id)


@provokes("csr.issued")
def test_a_ca_that_is_not_there_is_explained(
    muster: MusterServer, clients: OpenClient, https: HttpsClient, explain: Explain
) -> None:
    name = "csr-failed"
    https.enroll_by(name, attestation=SYMMETRIC, credentialPolicyName="line-z")
    result = clients("csr_device.py").call(
        "register", registration_id=name, id_scope=ID_SCOPE, csr=csr_of(name), password=token(name)
    )
    state = result["answer"]["registrationState"]
    assert (result["status"], state["status"], state["errorCode"]) == (200, "failed", 400211)
    explain(muster, name, "csr.issued", verdict="failed")


@pytest.mark.parametrize(
    ("extension", "check_id"),
    [
        pytest.param(x509.BasicConstraints(ca=True, path_length=None), "csr.ca", marks=provokes("csr.ca")),
        pytest.param(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
            "csr.extended-key-usage",
            marks=provokes("csr.extended-key-usage"),
        ),
        pytest.param(
            x509.SubjectAlternativeName([x509.DNSName("plant.example")]),
            "csr.alternative-name",
            marks=provokes("csr.alternative-name"),
        ),
    ],
)
def test_a_wish_that_the_profile_does_not_have_is_explained(
    muster: MusterServer,
    clients: OpenClient,
    https: HttpsClient,
    explain: Explain,
    extension: x509.ExtensionType,
    check_id: str,
) -> None:
    name = check_id.replace(".", "-")
    https.enroll_by(name, attestation=SYMMETRIC, credentialPolicyName="line-a")
    csr = base64.b64encode(request(name, extensions=[extension]).public_bytes(Encoding.DER)).decode()
    result = clients("csr_device.py").call(
        "register", registration_id=name, id_scope=ID_SCOPE, csr=csr, password=token(name)
    )
    state = result["answer"]["registrationState"]
    assert (result["status"], state["status"], state["errorCode"]) == (200, "failed", 400211)
    explain(muster, name, check_id, verdict="failed")


@provokes("csr.policy")
def test_an_enrollment_that_names_no_ca_is_explained(
    muster: MusterServer, clients: OpenClient, https: HttpsClient, explain: Explain
) -> None:
    """The device is assigned, and goes on with what it has."""
    name = "csr-no-ca"
    https.enroll_by(name, attestation=SYMMETRIC)
    result = clients("csr_device.py").call(
        "register", registration_id=name, id_scope=ID_SCOPE, csr=csr_of(name), password=token(name)
    )
    state = result["answer"]["registrationState"]
    assert (result["status"], state["status"]) == (200, "assigned")
    assert "issuedCertificateChain" not in state
    explain(muster, name, "csr.policy", verdict="warned")
    device = clients("device.py")
    place = f"HostName={muster.address};DeviceId={name};SharedAccessKey={KEY}"
    device.call("connect", connection=name, connection_string=place)
    device.call("close", connection=name)


def test_the_ca_directory_may_lie_elsewhere(start_server: StartServer, tmp_path: Path) -> None:
    directory = tmp_path / "cas"
    server = start_server("--ca-dir", str(directory))
    server.cli("ca", "init", "line-a", "--ca-dir", str(directory))
    https = HttpsClient(server)
    https.enroll_by("csr-elsewhere", attestation=SYMMETRIC, credentialPolicyName="line-a")
    place = f"/{ID_SCOPE}/registrations/csr-elsewhere"
    signed = token("csr-elsewhere")
    answer = https.request("PUT", f"{place}/register?{VERSION}", {"csr": csr_of("csr-elsewhere")}, authorization=signed)
    assert answer.status == 202, answer
    operation = answer.json["operationId"]
    deadline = time.monotonic() + 90
    while answer.status == 202:
        assert time.monotonic() < deadline
        answer = https.request("GET", f"{place}/operations/{operation}?{VERSION}", authorization=signed)
    assert len(answer.json["registrationState"]["issuedCertificateChain"]) == 2
