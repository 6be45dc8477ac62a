"""The unmodified azure-iot-provisioning-service for Node.js and azure-iot-deviceprovisioning for Python manage
enrollments, groups and registration states; each through the same conversation.
"""

import base64
from typing import Any

import pytest
from tests.support.fix_clients import HttpsClient, OpenClient, SdkClient, SdkError
from tests.support.fix_node import OpenNodeClient
from tests.support.fix_pki import other_self_signed, self_signed
from tests.support.fix_server import ID_SCOPE, MusterServer

from muster.domain.sas import derive_device_key

KEY = base64.b64encode(bytes(range(32))).decode()
FLEET_KEY = base64.b64encode(bytes(range(64))).decode()
KEYS = {"primaryKey": KEY, "secondaryKey": KEY}
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": KEYS}
PEM = self_signed("services").certificate_pem.decode()
OTHER_PEM = other_self_signed("services").certificate_pem.decode()
X509 = {
    "type": "x509",
    "x509": {"clientCertificates": {"primary": {"certificate": PEM}, "secondary": {"certificate": OTHER_PEM}}},
}


@pytest.fixture(scope="module")
def node(node_clients: OpenNodeClient) -> SdkClient:
    return node_clients("enrollments.js")


@pytest.fixture(scope="module")
def python(clients: OpenClient) -> SdkClient:
    return clients("provisioning_service.py")


@pytest.fixture(scope="module")
def fleet(muster: MusterServer, https: HttpsClient, clients: OpenClient) -> list[str]:
    """What registered by the group ``services-fleet``, the only one with its keys. Tests may remove the first two."""
    keys = {"primaryKey": FLEET_KEY, "secondaryKey": FLEET_KEY}
    https.enroll_group("services-fleet", attestation={"type": "symmetricKey", "symmetricKey": keys})
    ids = [f"services-{number}" for number in range(4)]
    clients("device.py").values(
        "register",
        [
            {"registration_id": one, "id_scope": ID_SCOPE, "symmetric_key": derive_device_key(FLEET_KEY, one)}
            for one in ids
        ],
    )
    return ids


def enrollment(registration_id: str, attestation: Any = SYMMETRIC, **members: Any) -> dict[str, Any]:
    return {"registrationId": registration_id, "attestation": attestation, **members}


def group(group_id: str, **members: Any) -> dict[str, Any]:
    return {"enrollmentGroupId": group_id, "attestation": SYMMETRIC, "provisioningStatus": "enabled", **members}


class NodeService:
    """The client for Node.js."""

    def __init__(self, muster: MusterServer, script: SdkClient) -> None:
        self._connection_string = muster.provisioning_connection_string
        self._script = script

    def __call__(self, method: str, *given: Any) -> Any:
        arguments = {"method": method, "given": given, "connectionString": self._connection_string}
        return self._script.call("call", **arguments)

    def pages(self, method: str, *given: Any) -> list[list[Any]]:
        arguments = {"method": method, "given": given, "connectionString": self._connection_string}
        found: list[list[Any]] = self._script.call("pages", **arguments)
        return found

    def error(self, method: str, *given: Any) -> tuple[str, int]:
        """The name of what is raised, and the error code in the body."""
        with pytest.raises(SdkError) as caught:
            self(method, *given)
        return caught.value.kind, caught.value.json["errorCode"]


@pytest.fixture(scope="module")
def from_node(muster: MusterServer, node: SdkClient) -> NodeService:
    return NodeService(muster, node)


def test_node_enrollments(from_node: NodeService) -> None:
    twin = {"tags": {"site": "A"}, "properties": {"desired": {"interval": 30}}}
    created = from_node("createOrUpdateIndividualEnrollment", enrollment("node-1", X509, initialTwin=twin))
    assert created["registrationId"] == "node-1"
    assert created["initialTwin"]["tags"]["site"] == "A"
    assert created["attestation"]["x509"]["clientCertificates"]["secondary"]["info"]["subjectName"] == "CN=services"
    assert from_node("getIndividualEnrollment", "node-1") == created
    updated = from_node("createOrUpdateIndividualEnrollment", {**created, "provisioningStatus": "disabled"})
    assert updated["provisioningStatus"] == "disabled"
    assert updated["attestation"] == created["attestation"]
    stale = {**created, "provisioningStatus": "enabled"}
    assert from_node.error("createOrUpdateIndividualEnrollment", stale)[1] == 412001
    assert from_node.error("deleteIndividualEnrollment", "node-1", created["etag"])[1] == 412001
    from_node("deleteIndividualEnrollment", "node-1", updated["etag"])
    assert from_node.error("getIndividualEnrollment", "node-1") == ("Error", 404201)


def test_node_keys(from_node: NodeService) -> None:
    from_node("createOrUpdateIndividualEnrollment", enrollment("node-keys"))
    mechanism = from_node("getIndividualEnrollmentAttestationMechanism", "node-keys")
    assert (mechanism["type"], mechanism["symmetricKey"]) == ("symmetricKey", KEYS)
    from_node("createOrUpdateEnrollmentGroup", group("node-group-keys"))
    assert from_node("getEnrollmentGroupAttestationMechanism", "node-group-keys")["symmetricKey"] == KEYS


def test_node_groups(from_node: NodeService) -> None:
    created = from_node("createOrUpdateEnrollmentGroup", group("node-group"))
    read = from_node("getEnrollmentGroup", "node-group")
    assert (read["enrollmentGroupId"], read["etag"]) == ("node-group", created["etag"])
    updated = from_node("createOrUpdateEnrollmentGroup", {**created, "provisioningStatus": "disabled"})
    assert updated["provisioningStatus"] == "disabled"
    found = from_node.pages("createEnrollmentGroupQuery", 1)
    assert all(len(page) == 1 for page in found)
    assert "node-group" in [page[0]["enrollmentGroupId"] for page in found]
    from_node("deleteEnrollmentGroup", "node-group")
    assert from_node.error("getEnrollmentGroup", "node-group")[1] // 1000 == 404


def test_node_query(from_node: NodeService) -> None:
    for number in range(3):
        from_node("createOrUpdateIndividualEnrollment", enrollment(f"node-query-{number}"))
    found = from_node.pages("createIndividualEnrollmentQuery", 2)
    assert all(len(page) == 2 for page in found[:-1])
    ids = [item["registrationId"] for page in found for item in page]
    assert [one for one in ids if one.startswith("node-query-")] == [f"node-query-{number}" for number in range(3)]


def test_node_bulk(from_node: NodeService) -> None:
    items = [enrollment(f"node-bulk-{number}") for number in range(3)]
    done = from_node("runBulkEnrollmentOperation", {"mode": "create", "enrollments": items})
    assert done == {"isSuccessful": True, "errors": []}
    again = from_node("runBulkEnrollmentOperation", {"mode": "create", "enrollments": items[:1]})
    assert not again["isSuccessful"]
    assert again["errors"][0]["registrationId"] == "node-bulk-0"
    assert again["errors"][0]["errorCode"] // 1000 == 409
    current = [from_node("getIndividualEnrollment", item["registrationId"]) for item in items]
    tagged = [{**item, "etag": read["etag"]} for item, read in zip(items, current, strict=True)]
    tagged[2]["etag"] = current[0]["etag"]
    matched = from_node("runBulkEnrollmentOperation", {"mode": "updateIfMatchEtag", "enrollments": tagged})
    assert [(error["registrationId"], error["errorCode"]) for error in matched["errors"]] == [("node-bulk-2", 412001)]
    assert from_node("runBulkEnrollmentOperation", {"mode": "delete", "enrollments": items})["isSuccessful"]


def test_node_registration_states(from_node: NodeService, fleet: list[str]) -> None:
    state = from_node("getDeviceRegistrationState", fleet[0])
    assert (state["registrationId"], state["status"]) == (fleet[0], "assigned")
    found = from_node.pages("createEnrollmentGroupDeviceRegistrationStateQuery", "services-fleet", 2)
    assert [one["registrationId"] for page in found for one in page][-2:] == fleet[-2:]
    from_node("deleteDeviceRegistrationState", fleet[0], state["etag"])
    assert from_node.error("getDeviceRegistrationState", fleet[0])[1] // 1000 == 404


class PythonService:
    """azure-iot-deviceprovisioning."""

    def __init__(self, muster: MusterServer, script: SdkClient) -> None:
        self._connection_string = muster.provisioning_connection_string
        self._script = script

    def __call__(self, operations: str, method: str, *given: Any, **named: Any) -> Any:
        return self._script.call(
            "call",
            connection_string=self._connection_string,
            group=operations,
            method=method,
            given=given,
            **named,
        )

    def pages(self, operations: str, *given: Any, size: int) -> list[list[Any]]:
        found: list[list[Any]] = self._script.call(
            "pages", connection_string=self._connection_string, group=operations, given=given, size=size
        )
        return found

    def error(self, operations: str, method: str, *given: Any, **named: Any) -> tuple[str, int]:
        """The name of what is raised, and the error code in the body."""
        with pytest.raises(SdkError) as caught:
            self(operations, method, *given, **named)
        return caught.value.kind, caught.value.json["errorCode"]


@pytest.fixture(scope="module")
def from_python(muster: MusterServer, python: SdkClient) -> PythonService:
    return PythonService(muster, python)


def test_python_enrollments(from_python: PythonService) -> None:
    created = from_python("enrollment", "create_or_update", "py-1", enrollment("py-1", X509))
    assert from_python("enrollment", "get", "py-1") == created
    changed = {**created, "provisioningStatus": "disabled"}
    updated = from_python("enrollment", "create_or_update", "py-1", changed, if_match=created["etag"])
    assert updated["provisioningStatus"] == "disabled"
    stale = {"if_match": created["etag"]}
    assert from_python.error("enrollment", "create_or_update", "py-1", changed, **stale)[1] == 412001
    assert from_python.error("enrollment", "delete", "py-1", **stale)[1] == 412001
    from_python("enrollment", "delete", "py-1", if_match=updated["etag"])
    assert from_python.error("enrollment", "get", "py-1") == ("ResourceNotFoundError", 404201)


def test_python_keys(from_python: PythonService) -> None:
    made = from_python(
        "enrollment", "create_or_update", "py-keys", enrollment("py-keys", {"type": "symmetricKey", "symmetricKey": {}})
    )
    mechanism = from_python("enrollment", "get_attestation_mechanism", "py-keys")
    assert mechanism["symmetricKey"] == made["attestation"]["symmetricKey"]
    assert len(base64.b64decode(mechanism["symmetricKey"]["primaryKey"])) == 64


def test_python_groups(from_python: PythonService) -> None:
    created = from_python("enrollment_group", "create_or_update", "py-group", group("py-group"))
    assert from_python("enrollment_group", "get", "py-group")["etag"] == created["etag"]
    assert from_python("enrollment_group", "get_attestation_mechanism", "py-group")["symmetricKey"] == KEYS
    found = from_python.pages("enrollment_group", {"query": "*"}, size=1)
    assert "py-group" in [page[0]["enrollmentGroupId"] for page in found]
    bulk = {"mode": "create", "enrollmentGroups": [group("py-group"), group("py-group-2")]}
    done = from_python("enrollment_group", "run_bulk_operation", bulk)
    assert [error["errorCode"] // 1000 for error in done["errors"]] == [409]
    bulk = {"mode": "delete", "enrollmentGroups": [group("py-group"), group("py-group-2")]}
    assert from_python("enrollment_group", "run_bulk_operation", bulk)["isSuccessful"]
    assert from_python.error("enrollment_group", "get", "py-group-2")[1] // 1000 == 404


def test_python_bulk_and_paging(from_python: PythonService) -> None:
    items = [enrollment(f"py-bulk-{number}") for number in range(5)]
    assert from_python("enrollment", "run_bulk_operation", {"mode": "create", "enrollments": items})["isSuccessful"]
    found = from_python.pages("enrollment", {"query": "*"}, size=2)
    assert all(len(page) == 2 for page in found[:-1])
    ids = [item["registrationId"] for page in found for item in page]
    assert [one for one in ids if one.startswith("py-bulk-")] == [f"py-bulk-{number}" for number in range(5)]
    assert from_python("enrollment", "run_bulk_operation", {"mode": "delete", "enrollments": items})["isSuccessful"]


def test_python_registration_states(from_python: PythonService, fleet: list[str]) -> None:
    found = from_python.pages("device_registration_state", "services-fleet", size=1)
    assert [[one["registrationId"] for one in page] for page in found][-2:] == [[one] for one in fleet[-2:]]
    state = from_python("device_registration_state", "get", fleet[1])
    assert (state["status"], state["deviceId"]) == ("assigned", fleet[1])
    stale = {"if_match": "c3RhbGU="}
    assert from_python.error("device_registration_state", "delete", fleet[1], **stale)[1] == 412001
    from_python("device_registration_state", "delete", fleet[1], if_match=state["etag"])
    assert from_python.error("device_registration_state", "get", fleet[1])[1] // 1000 == 404


def test_python_with_a_port(muster: MusterServer, python: SdkClient, clients: OpenClient) -> None:
    """Both Python clients paste the host into the URL and into the token, its port with it (dps.md 6.8, 9.1)."""
    host = muster.address
    string = muster.provisioning_connection_string.replace(f"HostName={host};", f"HostName={host}:8883;")
    arguments = {"group": "enrollment", "method": "create_or_update", "given": ["py-port", enrollment("py-port")]}
    created = python.call("call", connection_string=string, **arguments)
    read = clients("enrollments.py").call("get", connection_string=string, registration_id="py-port")
    assert (read["registrationId"], read["etag"]) == ("py-port", created["etag"])
