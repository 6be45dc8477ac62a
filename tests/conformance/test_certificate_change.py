"""A device changes its certificate, with the unmodified azure-iot-device: identity and twin stay what they were."""

from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_pki import Identity, other_self_signed, self_signed
from tests.support.fix_server import ID_SCOPE, MusterServer

BEFORE: dict[str, Any] = {"tags": {"site": "A"}, "properties": {"desired": {"interval": 30}}}
LATER: dict[str, Any] = {"tags": {"site": "B"}, "properties": {"desired": {"interval": 60}}}


@pytest.fixture(scope="module")
def device(clients: OpenClient) -> SdkClient:
    return clients("device.py")


def files_of(identity: Identity, directory: Path, name: str) -> dict[str, str]:
    certificate, key = identity.write(directory, name)
    return {"certificate": str(certificate), "key": str(key)}


def register_and_send(device: SdkClient, name: str, files: dict[str, str]) -> None:
    result = device.call("register", registration_id=name, id_scope=ID_SCOPE, **files)
    assert (result["status"], result["subStatus"]) == ("assigned", "initialAssignment")
    device.call("connect", connection=name, device_id=name, **files)
    device.call("send", connection=name, messages=[{"body": files["certificate"]}])
    device.call("close", connection=name)


def require_refused_at_the_hub(device: SdkClient, name: str, files: dict[str, str]) -> None:
    with pytest.raises(SdkError) as refused:
        device.call("connect", connection=f"{name}-old", device_id=name, **files)
    assert refused.value.kind == "CredentialError"


def write_desired(https: HttpsClient, name: str) -> tuple[str, Any, Any]:
    """A back end writes a desired property; what must not change from then on."""
    change = {"properties": {"desired": {"setpoint": 21}}}
    answer = https.request("PATCH", f"/twins/{name}?api-version=2021-04-12", change)
    assert answer.status == 200, answer
    found = identity_and_twin(https, name)
    assert found[2]["desired"].items() >= {"interval": 30, "setpoint": 21}.items()
    return found


def identity_and_twin(https: HttpsClient, name: str) -> tuple[str, Any, Any]:
    """What must not change."""
    identity = https.request("GET", f"/devices/{name}?api-version=2021-04-12").json
    twin = https.request("GET", f"/twins/{name}?api-version=2021-04-12").json
    return identity["generationId"], twin.get("tags"), twin["properties"]


def by(primary: Identity, secondary: Identity | None = None) -> dict[str, Any]:
    certificates = {"primary": {"certificate": primary.certificate_pem.decode()}}
    if secondary is not None:
        certificates["secondary"] = {"certificate": secondary.certificate_pem.decode()}
    return {"type": "x509", "x509": {"clientCertificates": certificates}}


def test_from_the_primary_to_the_secondary(https: HttpsClient, device: SdkClient, tmp_path: Path) -> None:
    name = "rolled"
    old, new = self_signed(name), other_self_signed(name)
    old_files, new_files = files_of(old, tmp_path, "old"), files_of(new, tmp_path, "new")
    https.enroll_by(name, attestation=by(old), initialTwin=BEFORE)
    register_and_send(device, name, old_files)
    before = write_desired(https, name)

    https.enroll_by(name, attestation=by(old, new), initialTwin=LATER)
    register_and_send(device, name, new_files)
    assert identity_and_twin(https, name) == before
    assert before[1] == BEFORE["tags"]
    require_refused_at_the_hub(device, name, old_files)
    assert [event["body"] for event in https.events(name, 2)] == [old_files["certificate"], new_files["certificate"]]


def test_enrolled_anew(https: HttpsClient, device: SdkClient, tmp_path: Path) -> None:
    """The enrollment is deleted, and made again for another certificate."""
    name = "enrolled-anew"
    old, new = self_signed(name), other_self_signed(name)
    old_files, new_files = files_of(old, tmp_path, "old"), files_of(new, tmp_path, "new")
    https.enroll_by(name, attestation=by(old), initialTwin=BEFORE)
    register_and_send(device, name, old_files)
    before = write_desired(https, name)

    assert https.request("DELETE", f"/enrollments/{name}?api-version=2021-10-01").status == 204
    https.enroll_by(name, attestation=by(new), initialTwin=LATER)
    register_and_send(device, name, new_files)
    assert identity_and_twin(https, name) == before
    require_refused_at_the_hub(device, name, old_files)


def test_from_one_ca_to_the_next(muster: MusterServer, https: HttpsClient, device: SdkClient, tmp_path: Path) -> None:
    """The secondary certificate of a group, and a device that gets its certificate from there."""
    name, cas = "dev-of-line", ("--ca-dir", str(tmp_path / "cas"))
    muster.cli("ca", "init", "plant-root", *cas)
    files = []
    for line in ("line-a", "line-b"):
        muster.cli("ca", "intermediate", line, *cas)
        muster.cli("ca", "export", line, "--out", str(tmp_path / f"{line}.pem"), *cas)
        muster.cli("ca", "issue", name, "--issuer", line, "--out", str(tmp_path / line), *cas)
        own = tmp_path / line / name
        files.append({"certificate": f"{own}.fullchain.pem", "key": f"{own}.key"})
    muster.cli("ca", "export", "plant-root", "--out", str(tmp_path / "root.pem"), *cas)
    root_key = tmp_path / "cas" / "plant-root" / "private.key"
    muster.cli("certificate", "upload", str(tmp_path / "root.pem"), "--verify", "--key", str(root_key))
    muster.cli("group", "create", "line", "--certificate", str(tmp_path / "line-a.pem"), "--desired", "interval=30")
    register_and_send(device, name, files[0])
    before = write_desired(https, name)

    secondary = ("--secondary-certificate", str(tmp_path / "line-b.pem"))
    muster.cli("group", "update", "line", *secondary, "--desired", "interval=60")
    register_and_send(device, name, files[1])
    assert identity_and_twin(https, name) == before
    require_refused_at_the_hub(device, name, files[0])
