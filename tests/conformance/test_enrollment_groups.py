"""The unmodified Python clients with groups and symmetric keys: azure-iot-device registers what
azure-iothub-provisioningserviceclient enrolled.
"""

import base64
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_checks import Explain, provokes
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_pki import chain_leaf, issue, self_signed, to_pem
from tests.support.fix_server import ID_SCOPE, MusterServer, StartServer

from muster.domain.sas import derive_device_key

KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_KEY = base64.b64encode(bytes(range(64))).decode()
STRICT_KEY, LIFE_KEY = (base64.b64encode(bytes(range(number, number + 32))).decode() for number in (64, 96))
"""Of groups that no device shall be found in: a key belongs to one group."""
PEM = self_signed("group-sdk").certificate_pem.decode()
WAYS = [{"api": api, "websockets": websockets} for api in ("sync", "aio") for websockets in (False, True)]


class Service:
    """A script on one server, as the owner."""

    def __init__(self, server: MusterServer, script: SdkClient) -> None:
        self._connection_string = server.provisioning_connection_string
        self._script = script

    def __call__(self, operation: str, **arguments: Any) -> Any:
        return self._script.call(operation, connection_string=self._connection_string, **arguments)

    def error(self, operation: str, **arguments: Any) -> tuple[int, int]:
        """The status and the error code that an operation fails with."""
        with pytest.raises(SdkError) as caught:
            self(operation, **arguments)
        return caught.value.status, caught.value.json["errorCode"]


@pytest.fixture(scope="module")
def service(muster: MusterServer, clients: OpenClient) -> Service:
    return Service(muster, clients("enrollments.py"))


@pytest.fixture(scope="module")
def device(clients: OpenClient) -> SdkClient:
    return clients("device.py")


def refused_checks(muster: MusterServer, registration_id: str) -> list[str]:
    """What ``muster why`` names, each with a way out."""
    report = muster.cli_json("why", registration_id)[0]
    assert report["verdict"] == "refused"
    refused = [check for check in report["checks"] if check["outcome"] == "refused"]
    assert all(check["detail"] and check["fix"] for check in refused)
    return [check["id"] for check in refused]


def connection_string(muster: MusterServer, device_id: str, key: str) -> str:
    return f"HostName={muster.address};DeviceId={device_id};SharedAccessKey={key}"


def test_a_symmetric_key_in_every_way(
    muster: MusterServer, https: HttpsClient, service: Service, device: SdkClient
) -> None:
    """Both APIs over MQTT and WebSocket, with the primary key and the secondary; then the hub."""
    ids = [f"key-{number}" for number in range(len(WAYS))]
    keys = [KEY, OTHER_KEY, KEY, OTHER_KEY]
    for registration_id in ids:
        service("create_by_key", registration_id=registration_id, primary_key=KEY, secondary_key=OTHER_KEY)
    results = device.values(
        "register",
        [
            {"registration_id": registration_id, "id_scope": ID_SCOPE, "symmetric_key": key, **way}
            for registration_id, key, way in zip(ids, keys, WAYS, strict=True)
        ],
    )
    assert [(result["status"], result["deviceId"]) for result in results] == [("assigned", one) for one in ids]
    device.values(
        "connect",
        [
            {"connection": one, "connection_string": connection_string(muster, one, key), **way}
            for one, key, way in zip(ids, keys, WAYS, strict=True)
        ],
    )
    for one in ids:
        device.call("send", connection=one, messages=[{"body": one}])
        device.call("close", connection=one)
        assert https.events(one, 1)[0]["body"] == one


def test_derived_keys_of_a_group(muster: MusterServer, https: HttpsClient, service: Service, device: SdkClient) -> None:
    created = service("create_group", group_id="fleet", primary_key=KEY, secondary_key=OTHER_KEY)
    assert created["enrollmentGroupId"] == "fleet"
    ids = [f"fleet-{number}" for number in range(len(WAYS))]
    keys = [derive_device_key(key, one) for key, one in zip([KEY, OTHER_KEY, KEY, OTHER_KEY], ids, strict=True)]
    results = device.values(
        "register",
        [
            {"registration_id": one, "id_scope": ID_SCOPE, "symmetric_key": key, "payload": {"n": 1}, **way}
            for one, key, way in zip(ids, keys, WAYS, strict=True)
        ],
    )
    assert [(result["status"], result["deviceId"]) for result in results] == [("assigned", one) for one in ids]
    device.call("connect", connection="f", connection_string=connection_string(muster, "fleet-1", keys[1]))
    device.call("send", connection="f", messages=[{"body": "derived"}])
    device.call("close", connection="f")
    assert https.events("fleet-1", 1)[0]["body"] == "derived"
    state = service("get_state", registration_id="fleet-2")
    assert (state["status"], state["deviceId"]) == ("assigned", "fleet-2")


def test_a_group_whose_certificate_is_not_proven(
    muster: MusterServer, service: Service, device: SdkClient, tmp_path: Path
) -> None:
    """The chain is good, and leads to no CA that anyone proved to have."""
    identity = chain_leaf("line-1")
    created = service("create_group", group_id="line", signing_certificate=to_pem(identity.chain[0]).decode())
    signing = created["attestation"]["x509"]["signingCertificates"]["primary"]
    assert signing["info"]["subjectName"] == "CN=Line A Intermediate"
    certificate, key = identity.write(tmp_path)
    with pytest.raises(SdkError) as caught:
        device.call("register", registration_id="line-1", id_scope=ID_SCOPE, certificate=str(certificate), key=str(key))
    assert "status code 401" in caught.value.causes[0]
    assert refused_checks(muster, "line-1") == ["x509.group-certificate-verified"]


def test_certificates_of_a_group(start_server: StartServer, tmp_path: Path) -> None:
    """The root is proven, the intermediate is the group's; both APIs over MQTT and WebSocket."""
    server = start_server()
    identity = chain_leaf("line-1")
    (tmp_path / "root.pem").write_bytes(to_pem(identity.chain[1]))
    server.cli("certificate", "upload", str(tmp_path / "root.pem"), "--verify")
    certificate, key = identity.write(tmp_path)
    arguments = {"registration_id": "line-1", "id_scope": ID_SCOPE, "certificate": str(certificate), "key": str(key)}
    with SdkClient(server, "enrollments.py") as script, SdkClient(server, "device.py") as device:
        owner = Service(server, script)
        owner("create_group", group_id="line", signing_certificate=to_pem(identity.chain[0]).decode())
        results = device.values("register", [{**arguments, **way} for way in WAYS])
    assert [(result["status"], result["deviceId"]) for result in results] == [("assigned", "line-1")] * len(WAYS)


def test_references_to_a_ca(muster: MusterServer, https: HttpsClient, device: SdkClient, tmp_path: Path) -> None:
    """Of a group, and of an individual enrollment, which goes before the group; both APIs, MQTT and WebSocket."""
    root = issue("reference root", is_ca=True)
    certificate, key = root.write(tmp_path, "root")
    muster.cli("certificate", "upload", str(certificate), "--name", "reference", "--verify", "--key", str(key))
    attestation = {"type": "x509", "x509": {"caReferences": {"primary": "reference"}}}
    https.enroll_group("by-reference", attestation=attestation)
    ids = [f"reference-{number}" for number in range(len(WAYS))]
    for one in ids[:2]:
        https.enroll_by(one, attestation=attestation, deviceId=f"{one}-alone")
    requests = []
    for one, way in zip(ids, WAYS, strict=True):
        files = issue(one, root).write(tmp_path, one)
        names = {"registration_id": one, "id_scope": ID_SCOPE}
        requests.append({**names, "certificate": str(files[0]), "key": str(files[1]), **way})
    results = device.values("register", requests)
    assert [result["status"] for result in results] == ["assigned"] * len(WAYS)
    assert [result["deviceId"] for result in results] == [f"{ids[0]}-alone", f"{ids[1]}-alone", *ids[2:]]
    members = https.request("POST", "/registrations/by-reference/query?api-version=2021-10-01", {"query": "*"}).json
    assert sorted(state["registrationId"] for state in members) == ids[2:]


@provokes("group.key-unique")
def test_a_key_of_two_groups(muster: MusterServer, service: Service, device: SdkClient, explain: Explain) -> None:
    """The device goes on; its report warns that its key fits both."""
    shared = base64.b64encode(bytes(range(2, 34))).decode()
    for group in ("twice-a", "twice-b"):
        service("create_group", group_id=group, primary_key=shared, secondary_key=shared)
    own = derive_device_key(shared, "twice-1")
    result = device.call("register", registration_id="twice-1", id_scope=ID_SCOPE, symmetric_key=own)
    assert result["status"] == "assigned"
    explain(muster, "twice-1", "group.key-unique", verdict="warned")
    for group in ("twice-a", "twice-b"):
        service("delete_group", group_id=group)


def test_refusals(muster: MusterServer, service: Service, device: SdkClient) -> None:
    """A key that is not derived, and a group that is disabled."""
    service("create_group", group_id="strict", primary_key=STRICT_KEY, secondary_key=STRICT_KEY)
    with pytest.raises(SdkError) as caught:
        device.call("register", registration_id="strict-1", id_scope=ID_SCOPE, symmetric_key=STRICT_KEY)
    assert "status code 401" in caught.value.causes[0]
    assert refused_checks(muster, "strict-1") == ["sas.derived-key"]

    off = base64.b64encode(bytes(range(1, 33))).decode()
    service("create_group", group_id="off", primary_key=off, secondary_key=off, provisioning_status="disabled")
    with pytest.raises(SdkError) as caught:
        device.call(
            "register", registration_id="off-1", id_scope=ID_SCOPE, symmetric_key=derive_device_key(off, "off-1")
        )
    assert "invalid registration status disabled" in "".join(caught.value.causes)
    assert muster.cli_json("why", "off-1")[0]["verdict"] == "disabled"


def test_the_life_of_a_group(service: Service) -> None:
    created = service("create_group", group_id="life", primary_key=LIFE_KEY, secondary_key=LIFE_KEY)
    read = service("get_group", group_id="life")
    assert read["etag"] == created["etag"]
    assert read["attestation"]["type"] == "symmetricKey"
    assert not (read["attestation"].get("symmetricKey") or {}).get("primaryKey")  # a GET shows no keys
    changed = service("change_group", group_id="life", provisioning_status="disabled")
    assert changed["provisioningStatus"] == "disabled"
    mechanism = service("group_attestation_mechanism", group_id="life")
    assert mechanism["symmetricKey"] == {"primaryKey": LIFE_KEY, "secondaryKey": LIFE_KEY}
    assert service.error("change_group", group_id="life", etag=created["etag"]) == (412, 412001)
    assert service.error("delete_group", group_id="life", etag=created["etag"]) == (412, 412001)
    assert service("delete_group", group_id="life") is None
    assert service.error("get_group", group_id="life")[0] == 404


def test_keys_that_the_service_makes(service: Service) -> None:
    """With 64 bytes; shown by the answer of a PUT and by the mechanism's own route (dps.md 4.3)."""
    keys = service("create_by_key", registration_id="made-1")["attestation"]["symmetricKey"]
    assert [len(base64.b64decode(keys[name])) for name in ("primaryKey", "secondaryKey")] == [64, 64]
    assert service("attestation_mechanism", registration_id="made-1")["symmetricKey"] == keys


def test_bulk(service: Service) -> None:
    ids = ["bulk-1", "bulk-2"]
    assert service("bulk", mode="create", registration_ids=ids, certificate=PEM) == {"isSuccessful": True, "errors": []}
    again = service("bulk", mode="create", registration_ids=["bulk-2", "bulk-3"], certificate=PEM)
    assert not again["isSuccessful"]
    assert [(error["registrationId"], error["errorCode"] // 1000) for error in again["errors"]] == [("bulk-2", 409)]
    assert service("get", registration_id="bulk-3")["registrationId"] == "bulk-3"
    for mode in ("update", "delete"):
        assert service("bulk", mode=mode, registration_ids=ids, certificate=PEM)["isSuccessful"]
    assert service.error("get", registration_id="bulk-1")[0] == 404


def test_paging(start_server: StartServer) -> None:
    server = start_server()
    with SdkClient(server, "enrollments.py") as script:
        owner = Service(server, script)
        for number in (3, 1, 2):
            owner("create_group", group_id=f"page-{number}", primary_key=KEY, secondary_key=OTHER_KEY)
        assert owner("group_pages", size=2) == [["page-1", "page-2"], ["page-3"]]
