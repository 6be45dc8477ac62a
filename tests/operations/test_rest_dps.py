"""The provisioning service over REST: individual enrollments and registration states (dps.md 4.7, 4.8, 6)."""

import asyncio
import base64
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fix_pki import ca_leaf, other_self_signed, self_signed, to_pem, version_1
from tests.support.fix_rest import DPS_HOST, VERSION, Answer, RestClient
from tests.support.fix_services import ID_SCOPE, Services

from muster.domain.credential import Credential
from muster.dps.registrations import DeviceLogin
from muster.pki.certificate import sha1_thumbprint, sha256_thumbprint

DEVICE = self_signed("dev-01")
SECOND_DEVICE = other_self_signed("dev-01")
PEM = DEVICE.certificate_pem.decode()
OTHER_PEM = SECOND_DEVICE.certificate_pem.decode()
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z")


def attestation(primary: str | None = PEM, secondary: str | None = None) -> dict[str, Any]:
    certificates: dict[str, Any] = {"primary": {"certificate": primary}}
    if secondary is not None:
        certificates["secondary"] = {"certificate": secondary}
    return {"type": "x509", "x509": {"clientCertificates": certificates}}


def custom(url: str) -> dict[str, Any]:
    return {
        "allocationPolicy": "custom",
        "customAllocationDefinition": {"webhookUrl": url, "apiVersion": "2021-10-01"},
    }


async def put(
    rest: RestClient, registration_id: str = "dev-01", if_match: str | None = None, **members: object
) -> Answer:
    body = {"registrationId": registration_id, "attestation": attestation(), **members}
    headers = {} if if_match is None else {"if_match": if_match}
    return await rest.request("PUT", f"/enrollments/{registration_id}?{VERSION}", body, **headers)


async def get(rest: RestClient, registration_id: str = "dev-01") -> Any:
    return (await rest.request("GET", f"/enrollments/{registration_id}?{VERSION}")).json


async def register(services: Services, registration_id: str = "dev-01") -> None:
    services.clock.now = time.time_ns() // 1000
    credential = Credential((DEVICE.certificate,), "", "127.0.0.1:1 MQTT TLSv1.2")
    await services.registrations.register(DeviceLogin(ID_SCOPE, registration_id), credential, b"")
    await services.registrations.stop(within=60)


async def test_a_created_enrollment_has_the_shape_that_clients_read(rest: RestClient) -> None:
    answer = await put(rest)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    enrollment = answer.json
    assert answer.headers["etag"] == f'"{enrollment["etag"]}"'
    plain = base64.b64decode(enrollment.pop("etag")).decode()
    assert re.fullmatch(r'"[0-9a-f]{8}-0000-[0-9a-f]{4}-0000-[0-9a-f]{12}"', plain)
    created, updated = enrollment.pop("createdDateTimeUtc"), enrollment.pop("lastUpdatedDateTimeUtc")
    assert created == updated
    assert TIME.fullmatch(created)
    info = enrollment["attestation"]["x509"]["clientCertificates"]["primary"].pop("info")
    assert enrollment == {
        "registrationId": "dev-01",
        "attestation": {"type": "x509", "x509": {"clientCertificates": {"primary": {}}}},
        "capabilities": {"iotEdge": False},
        "provisioningStatus": "enabled",
        "reprovisionPolicy": {"updateHubAssignment": True, "migrateDeviceData": True},
    }
    assert set(info) == {
        "subjectName",
        "sha1Thumbprint",
        "sha256Thumbprint",
        "issuerName",
        "notBeforeUtc",
        "notAfterUtc",
        "serialNumber",
        "version",
    }
    assert info["subjectName"] == "CN=dev-01"
    assert info["sha1Thumbprint"] == sha1_thumbprint(DEVICE.certificate)
    assert info["sha256Thumbprint"] == sha256_thumbprint(DEVICE.certificate)
    assert info["version"] == 3
    assert await get(rest) == answer.json


FORMS: dict[str, Callable[[str], str]] = {
    "PEM": lambda pem: pem,
    "PEM without its last line break": lambda pem: pem.rstrip(),
    "PEM with CR LF": lambda pem: pem.replace("\n", "\r\n"),
    "base64 of a PEM": lambda pem: base64.b64encode(pem.encode()).decode(),
    "base64 with line breaks": lambda pem: "\n".join(pem.splitlines()[1:-1]),
    "base64 in one line": lambda pem: "".join(pem.splitlines()[1:-1]),
    "two certificates, the device's first": lambda pem: pem + OTHER_PEM,
}


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_of_a_certificate(rest: RestClient, form: str) -> None:
    answer = await put(rest, attestation=attestation(FORMS[form](PEM)))
    assert answer.status == 200
    info = answer.json["attestation"]["x509"]["clientCertificates"]["primary"]["info"]
    assert info["sha1Thumbprint"] == sha1_thumbprint(DEVICE.certificate)


async def test_odd_certificates_are_taken(rest: RestClient) -> None:
    """What refuses them, if anything does, is the registration."""
    for identity in (ca_leaf("dev-01"), version_1("dev-01")):
        answer = await put(rest, attestation=attestation(to_pem(identity.certificate).decode()))
        assert answer.status == 200


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ({"attestation": None}, "attestation"),
        ({"attestation": {"type": "x509"}}, "clientCertificates"),
        ({"attestation": {"type": "x509", "x509": {"clientCertificates": {}}}}, "primary"),
        ({"attestation": attestation("no certificate")}, "primary certificate"),
        ({"attestation": attestation("")}, "primary certificate"),
        ({"attestation": attestation(PEM, "nonsense")}, "secondary certificate"),
        ({"attestation": {"type": "none"}}, "none"),
        ({"attestation": {"type": "tpm", "tpm": {"endorsementKey": "a"}}}, "tpm"),
        ({"attestation": {"type": "X510"}}, "type"),
        ({"registrationId": "other"}, "other"),
        ({"registrationId": None}, "registrationId"),
        ({"deviceId": "with space"}, "with space"),
        ({"iotHubs": ["nowhere.example.net"]}, "nowhere.example.net"),
        ({"iotHubHostName": "nowhere.example.net"}, "nowhere.example.net"),
        ({"allocationPolicy": "static"}, "static"),
        ({"allocationPolicy": "custom"}, "custom"),
        (custom("https://[h/allocate?code=1"), "webhookUrl"),
        (custom("https://h:99999/"), "webhookUrl"),
        ({"allocationPolicy": "wild"}, "allocationPolicy"),
        ({"provisioningStatus": "off"}, "provisioningStatus"),
        ({"initialTwin": {"tags": {"a.b": 1}}}, "a.b"),
        ({"initialTwin": {"tags": 1}}, "initialTwin"),
        ({"initialTwin": {"properties": {"desired": {"a": [None]}}}}, "null"),
        ({"initialTwin": {"properties": {"desired": {"x": "y" * 5000}}}}, "4096"),
        ({"capabilities": {"iotEdge": "yes"}}, "iotEdge"),
    ],
)
async def test_bodies_that_are_refused(rest: RestClient, members: dict[str, Any], word: str) -> None:
    answer = await put(rest, **members)
    assert answer.status == 400
    assert answer.json["errorCode"] in (400004, 400005)
    assert word in answer.json["message"]
    assert (await rest.request("GET", f"/enrollments/dev-01?{VERSION}")).status == 404


@pytest.mark.parametrize("registration_id", ["a%20b", "a%2Fb", "%C3%BC", "a%25b", "a%2Bb", "x" * 129])
async def test_illegal_registration_ids_are_refused(rest: RestClient, registration_id: str) -> None:
    body = {"registrationId": registration_id, "attestation": attestation()}
    answer = await rest.request("PUT", f"/enrollments/{registration_id}?{VERSION}", body)
    assert answer.status in (400, 404)


@pytest.mark.parametrize("registration_id", ["a-b.c_d:e,f", "9", "x" * 128, "query", "-a."])
async def test_legal_registration_ids(rest: RestClient, registration_id: str) -> None:
    assert (await put(rest, registration_id)).status == 200
    assert (await get(rest, registration_id))["registrationId"] == registration_id


async def test_words_of_a_body_ignore_case(rest: RestClient) -> None:
    """Older service clients for Java send the names of their constants."""
    mechanism = {**attestation(), "type": "X509"}
    answer = await put(rest, attestation=mechanism, allocationPolicy="GEOLATENCY", provisioningStatus="DISABLED")
    assert answer.status == 200
    enrollment = await get(rest)
    assert enrollment["attestation"]["type"] == "x509"
    assert enrollment["allocationPolicy"] == "geoLatency"
    assert enrollment["provisioningStatus"] == "disabled"


async def test_the_reprovision_policy_of_old_versions(rest: RestClient) -> None:
    """Versions up to 2018-04-01 know none: what they create has none, what they update keeps its own (dps.md 5.4)."""
    old, body = "api-version=2018-04-01", {"registrationId": "dev-01", "attestation": attestation()}
    migrate = {"updateHubAssignment": True, "migrateDeviceData": True}
    assert "reprovisionPolicy" not in (await rest.request("PUT", f"/enrollments/dev-01?{old}", body)).json
    assert "reprovisionPolicy" not in await get(rest)
    assert (await put(rest)).json["reprovisionPolicy"] == migrate
    assert (await rest.request("PUT", f"/enrollments/dev-01?{old}", body)).json["reprovisionPolicy"] == migrate

    many = {"mode": "create", "enrollments": [{**body, "registrationId": "dev-02"}]}
    assert (await rest.request("POST", f"/enrollments?{old}", many)).json["isSuccessful"]
    assert "reprovisionPolicy" not in await get(rest, "dev-02")
    asked = {**body, "registrationId": "dev-03", "reprovisionPolicy": migrate}
    assert (await rest.request("PUT", f"/enrollments/dev-03?{old}", asked)).json["reprovisionPolicy"] == migrate


async def test_one_bad_word_in_many_enrollments(rest: RestClient) -> None:
    """The other items count all the same (dps.md 6.6)."""
    items = [
        {"registrationId": "dev-01", "attestation": attestation(), "provisioningStatus": "off"},
        {"registrationId": "dev-02", "attestation": attestation()},
    ]
    answer = await rest.request("POST", f"/enrollments?{VERSION}", {"mode": "CREATE", "enrollments": items})
    assert (answer.status, answer.json["isSuccessful"]) == (200, False)
    assert [(error["registrationId"], error["errorCode"]) for error in answer.json["errors"]] == [("dev-01", 400004)]
    assert (await get(rest, "dev-02"))["provisioningStatus"] == "enabled"


async def test_ids_ignore_case_and_keep_their_first_spelling(rest: RestClient) -> None:
    first = (await put(rest, "Dev-01")).json
    again = (await put(rest, "DEV-01", deviceId="pump")).json
    assert again["registrationId"] == "Dev-01"
    assert again["createdDateTimeUtc"] == first["createdDateTimeUtc"]
    assert (await get(rest, "dev-01"))["deviceId"] == "pump"
    assert (await rest.request("DELETE", f"/enrollments/dEV-01?{VERSION}")).status == 204


async def test_without_if_match_a_put_creates_or_replaces(rest: RestClient, services: Services) -> None:
    first = (await put(rest, deviceId="pump")).json
    services.clock.advance(5_000_000)
    second = (await put(rest)).json
    assert second["etag"] != first["etag"]
    assert second["createdDateTimeUtc"] == first["createdDateTimeUtc"]
    assert second["lastUpdatedDateTimeUtc"] > first["lastUpdatedDateTimeUtc"]
    assert "deviceId" not in second


@pytest.mark.parametrize("spelling", ["*", '"*"', "{raw}", '"{raw}"', "{plain}", 'W/"{raw}"'])
async def test_every_spelling_of_if_match(rest: RestClient, spelling: str) -> None:
    for expected in (200, 204):
        etag = (await put(rest)).json["etag"]
        plain = base64.b64decode(etag).decode()
        if_match = spelling.format(raw=etag, plain=plain)
        if expected == 200:
            assert (await put(rest, if_match=if_match)).status == 200
        else:
            answer = await rest.request("DELETE", f"/enrollments/dev-01?{VERSION}", if_match=if_match)
            assert (answer.status, answer.body) == (204, b"")


async def test_a_stale_tag_changes_nothing(rest: RestClient) -> None:
    etag = (await put(rest)).json["etag"]
    await put(rest, deviceId="pump")
    for answer in (
        await put(rest, if_match=etag),
        await rest.request("DELETE", f"/enrollments/dev-01?{VERSION}", if_match=etag),
        await put(rest, "dev-02", if_match="*"),
    ):
        assert answer.status == 412
        assert answer.json["errorCode"] // 1000 == 412
    assert (await get(rest))["deviceId"] == "pump"


async def test_of_updates_with_one_tag_at_once_one_wins(rest: RestClient) -> None:
    etag = (await put(rest)).json["etag"]
    answers = await asyncio.gather(*(put(rest, if_match=etag, deviceId=f"d{number}") for number in range(10)))
    assert sorted(answer.status for answer in answers) == [200] + 9 * [412]


async def test_what_is_read_can_be_written_back(rest: RestClient, services: Services) -> None:
    twin = {"tags": {"site": "A", "list": [1, 2]}, "properties": {"desired": {"interval": 30}}}
    optional = {"maker": "Contoso"}
    await put(
        rest,
        attestation=attestation(PEM, OTHER_PEM),
        deviceId="pump",
        initialTwin=twin,
        optionalDeviceInformation=optional,
        iotHubs=["hub.example.net"],
        allocationPolicy="static",
        capabilities={"iotEdge": True},
        reprovisionPolicy={"updateHubAssignment": False, "migrateDeviceData": False},
        provisioningStatus="disabled",
    )
    await register(services)
    read = await get(rest)
    assert read["initialTwin"] == twin
    assert read["optionalDeviceInformation"] == optional
    assert read["registrationState"]["status"] == "disabled"
    written = await rest.request("PUT", f"/enrollments/dev-01?{VERSION}", read, if_match=read["etag"])
    assert written.status == 200
    for changed in ("etag", "lastUpdatedDateTimeUtc"):
        read.pop(changed)
    assert {name: value for name, value in written.json.items() if name in read} == read


async def test_the_primary_certificate_is_taken_away(rest: RestClient, services: Services) -> None:
    """As Azure's command line does with ``--remove-certificate`` (its own tests against the real service)."""
    await put(rest, attestation=attestation(OTHER_PEM, PEM))
    enrollment = await get(rest)
    enrollment["attestation"]["x509"]["clientCertificates"].pop("primary")
    assert (await rest.request("PUT", f"/enrollments/dev-01?{VERSION}", enrollment)).status == 200
    shown = (await get(rest))["attestation"]["x509"]["clientCertificates"]
    assert list(shown) == ["secondary"]
    assert shown["secondary"]["info"]["sha1Thumbprint"] == sha1_thumbprint(DEVICE.certificate)
    await register(services)
    assert (await get(rest))["registrationState"]["status"] == "assigned"

    references = {"type": "x509", "x509": {"caReferences": {"secondary": "plant"}}}
    await put(rest, attestation=references)
    assert (await get(rest))["attestation"] == references


async def test_info_of_another_certificate_keeps_nothing(rest: RestClient) -> None:
    read = (await put(rest)).json
    certificates = read["attestation"]["x509"]["clientCertificates"]
    certificates["secondary"] = certificates["primary"]  # there is none stored in that slot
    answer = await rest.request("PUT", f"/enrollments/dev-01?{VERSION}", read)
    assert answer.status == 400
    assert "secondary" in answer.json["message"]


async def test_nulls_of_client_models_count_as_absent(rest: RestClient) -> None:
    """One client sends every member of its model, and the collection members of twins (dps.md 6.2)."""
    twin = {
        "tags": {"site": "A", "count": None, "metadata": None, "version": None},
        "properties": {"desired": {"a": 1, "count": None, "metadata": None, "version": None}},
    }
    answer = await put(
        rest,
        attestation={**attestation(), "tpm": None, "symmetricKey": None},
        initialTwin=twin,
        deviceId=None,
        etag=None,
        registrationState=None,
        iotHubs=None,
        allocationPolicy=None,
        customAllocationDefinition=None,
    )
    assert answer.status == 200
    assert answer.json["initialTwin"] == {"tags": {"site": "A"}, "properties": {"desired": {"a": 1}}}


async def query(rest: RestClient, body: object = b"", **headers: str) -> Answer:
    return await rest.request("POST", f"/enrollments/query?{VERSION}", body, **headers)


async def test_paging(rest: RestClient) -> None:
    for number in (3, 1, 5, 2, 4):
        await put(rest, f"dev-0{number}")
    first = await query(rest, {"query": "SELECT * FROM enrollments"}, x_ms_max_item_count="2")
    second = await query(rest, {}, x_ms_max_item_count="2", x_ms_continuation=first.headers["x-ms-continuation"])
    third = await query(rest, {}, x_ms_max_item_count="2", x_ms_continuation=second.headers["x-ms-continuation"])
    pages = [[item["registrationId"] for item in page.json] for page in (first, second, third)]
    assert pages == [["dev-01", "dev-02"], ["dev-03", "dev-04"], ["dev-05"]]
    assert "x-ms-continuation" not in third.headers
    for page in (first, second, third):
        assert page.headers["x-ms-item-type"] == "enrollment"
        assert page.headers["x-ms-max-item-count"] == "2"


async def test_a_full_last_page_has_no_continuation(rest: RestClient) -> None:
    for number in range(4):
        await put(rest, f"dev-0{number}")
    first = await query(rest, x_ms_max_item_count="2")
    second = await query(rest, x_ms_max_item_count="2", x_ms_continuation=first.headers["x-ms-continuation"])
    assert len(second.json) == 2
    assert "x-ms-continuation" not in second.headers


async def test_an_empty_list_is_a_list(rest: RestClient) -> None:
    answer = await query(rest)
    assert answer.json == []
    assert answer.headers["x-ms-item-type"] == "enrollment"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        {},
        {"query": "*"},
        {"query": "SELECT * FROM enrollments"},
        {"query": "{'additional_properties': {}, 'query': 'SELECT *'}"},
    ],
)
async def test_every_query_text_means_all(rest: RestClient, body: object) -> None:
    await put(rest)
    assert len((await query(rest, body)).json) == 1


async def test_queries_show_no_registration_state(rest: RestClient, services: Services) -> None:
    await put(rest)
    await register(services)
    assert "registrationState" in await get(rest)
    assert "registrationState" not in (await query(rest)).json[0]


async def test_registration_states(rest: RestClient, services: Services) -> None:
    await put(rest, deviceId="pump")
    await register(services)
    answer = await rest.request("GET", f"/registrations/DEV-01?{VERSION}")
    state = answer.json
    assert answer.headers["etag"] == f'"{state["etag"]}"'
    assert state["registrationId"] == "dev-01"
    assert state["assignedHub"] == "hub.example.net"
    assert state["deviceId"] == "pump"
    assert (state["status"], state["substatus"]) == ("assigned", "initialAssignment")
    assert TIME.fullmatch(state["createdDateTimeUtc"])
    assert TIME.fullmatch(state["lastUpdatedDateTimeUtc"])
    stale = await rest.request("DELETE", f"/registrations/dev-01?{VERSION}", if_match="c3RhbGU=")
    assert stale.status == 412
    gone = await rest.request("DELETE", f"/registrations/dev-01?{VERSION}", if_match=state["etag"])
    assert (gone.status, gone.body) == (204, b"")
    assert (await rest.request("GET", f"/registrations/dev-01?{VERSION}")).status == 404
    assert "registrationState" not in await get(rest)
    assert (await services.devices.get("hub", "pump"))[0].status == "enabled"  # the device stays


async def test_the_record_outlives_its_enrollment(rest: RestClient, services: Services) -> None:
    await put(rest)
    await register(services)
    assert (await rest.request("DELETE", f"/enrollments/dev-01?{VERSION}")).status == 204
    assert (await rest.request("GET", f"/registrations/dev-01?{VERSION}")).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/enrollments/dev-01"),
        ("PUT", "/enrollments/dev-01"),
        ("DELETE", "/enrollments/dev-01"),
        ("POST", "/enrollments/query"),
        ("GET", "/registrations/dev-01"),
        ("DELETE", "/registrations/dev-01"),
    ],
)
@pytest.mark.parametrize("policy", ["iothubowner", "nobody", ""])
async def test_policies_of_the_hub_count_for_nothing_here(
    rest: RestClient, method: str, path: str, policy: str
) -> None:
    answer = await rest.request(method, f"{path}?{VERSION}", {}, authorization=rest.token(policy, DPS_HOST))
    assert answer.status == 401
    assert answer.json["errorCode"] == 401002


@pytest.mark.parametrize(
    ("rights", "allowed"),
    [
        ("EnrollmentRead", {"GET /enrollments/dev-01", "POST /enrollments/query"}),
        ("RegistrationStatusRead", {"GET /registrations/dev-01"}),
        ("RegistrationStatusWrite", {"GET /registrations/dev-01", "DELETE /registrations/dev-01"}),
        ("DeviceConnect", set()),
    ],
)
async def test_a_policy_grants_its_rights_and_no_more(
    rest: RestClient, services: Services, rights: str, allowed: set[str]
) -> None:
    await put(rest)
    await register(services)

    async def restrict(tx: Any) -> None:
        await tx.execute("UPDATE provisioning_policy SET rights = :rights", rights=rights)

    await services.database.transact(restrict)
    await services.provisioning.load()
    for operation in (
        "GET /enrollments/dev-01",
        "POST /enrollments/query",
        "PUT /enrollments/dev-01",
        "DELETE /enrollments/dev-01",
        "GET /registrations/dev-01",
        "DELETE /registrations/dev-01",
    ):
        method, path = operation.split()
        answer = await rest.request(method, f"{path}?{VERSION}", {})
        assert (answer.status != 401) == (operation in allowed), operation


@pytest.mark.parametrize("path", ["/Enrollments/dev-01/", "/ENROLLMENTS/dev-01", "/enrollments/dev%2D01"])
async def test_spellings_of_a_path(rest: RestClient, path: str) -> None:
    await put(rest)
    assert (await rest.request("GET", f"{path}?{VERSION}", host=DPS_HOST)).status == 200


@pytest.mark.parametrize("path", ["/enrollments/Query", "/Enrollments/QUERY/"])
async def test_spellings_of_query(rest: RestClient, path: str) -> None:
    assert (await rest.request("POST", f"{path}?{VERSION}", {}, host=f"{DPS_HOST}:443")).json == []


ISSUING = {"namespaceName": "ns", "certificateAuthorityName": "line-a", "certificatePolicyName": "device"}


FORMER = {"clientCertificateIssuancePolicy": {"certificateAuthorityName": "line-a"}}


@pytest.mark.parametrize(
    "names", [ISSUING, {"credentialPolicyName": "line-a"}, FORMER], ids=["GA", "preview", "first preview"]
)
async def test_the_ca_that_issues_is_kept_and_shown(rest: RestClient, names: dict[str, Any]) -> None:
    answer = await put(rest, **names)
    assert answer.status == 200
    assert names.items() <= answer.json.items()
    assert names.items() <= (await get(rest)).items()
    cleared = await put(rest, **dict.fromkeys(names))
    assert not names.keys() & cleared.json.keys()


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"certificateAuthorityName": "line-a"}, "together"),
        ({**ISSUING, "namespaceName": ""}, "together"),
        ({**ISSUING, "credentialPolicyName": "line-a"}, "give one of them"),
        ({**FORMER, "credentialPolicyName": "line-a"}, "give one of them"),
        ({**FORMER, **ISSUING}, "give one of them"),
        ({"clientCertificateIssuancePolicy": {"certificateAuthorityName": ".."}}, "cannot name"),
        ({"credentialPolicyName": "../line-a"}, "cannot name"),
        ({**ISSUING, "certificatePolicyName": "a/b"}, "cannot name"),
    ],
)
async def test_a_ca_that_is_named_badly(rest: RestClient, names: dict[str, Any], reason: str) -> None:
    answer = await put(rest, **names)
    assert (answer.status, answer.json["errorCode"]) == (400, 400004)
    assert reason in answer.json["message"]
