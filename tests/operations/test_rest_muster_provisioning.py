"""Dry runs: what a registration would be answered, and where a device would be assigned."""

import base64
from typing import Any

import pytest
from tests.support.fix_pki import NOW, Identity, chain_leaf, intermediate, other_self_signed, root, self_signed
from tests.support.fix_rest import DPS_HOST, DPS_OWNER, HUB_OWNER, Answer, RestClient
from tests.support.fix_services import KEY, Services

from muster.domain.allocation import WebhookAnswer
from muster.domain.credential import Credential
from muster.domain.errors import CustomAllocationUnauthorizedError, InvalidCertificateError
from muster.domain.timestamp import DAY, iso_utc
from muster.dps.attestations import DeviceLogin

ATTESTATIONS = "/muster/v1/attestations"
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}


@pytest.fixture(autouse=True)
def valid_certificates(services: Services) -> None:
    """The services live while the certificates of the tests are valid."""
    services.clock.now = NOW


def sent(identity: Identity) -> list[str]:
    return [base64.b64encode(der).decode() for der in (identity.certificate, *identity.chain)]


async def attest(rest: RestClient, identity: Identity | None, **members: object) -> Any:
    body = {"registrationId": "dev-01", "certificates": sent(identity) if identity else [], **members}
    answer = await rest.request("POST", ATTESTATIONS, body, host=DPS_HOST)
    assert answer.status == 200, answer.json
    return answer.json


async def preview(rest: RestClient, registration_id: str, query: str = "") -> Answer:
    return await rest.request("GET", f"/muster/v1/allocations/{registration_id}?{query}", host=DPS_HOST)


async def enroll_signing_group(services: Services, group_id: str, certificate: Identity) -> None:
    slots = {"primary": {"certificate": base64.b64encode(certificate.certificate).decode()}}
    await services.enroll_group(group_id, {"type": "x509", "x509": {"signingCertificates": slots}})


def refused(found: Any) -> list[str]:
    return [item["id"] for item in found["checks"] if item["outcome"] == "refused"]


# --- attestation ----------------------------------------------------------------------------------------------


async def test_a_certificate_that_would_be_accepted(rest: RestClient, services: Services) -> None:
    await services.enroll("dev-01", self_signed().certificate_pem.decode())
    found = await attest(rest, self_signed())
    assert (found["verdict"], found["answer"]) == ("accepted", "")
    assert found["enrollment"] == found["decides"] == {"kind": "individual", "id": "dev-01"}
    assert "CN=dev-01" in found["credential"]


async def test_a_refusal_has_the_checks_of_a_registration_and_leaves_no_report(
    rest: RestClient, services: Services
) -> None:
    await services.enroll("dev-01", self_signed().certificate_pem.decode())
    found = await attest(rest, other_self_signed())
    assert (found["verdict"], found["answer"]) == ("refused", "401002 Invalid certificate.")
    assert await services.reports.latest(10, None) == []
    with pytest.raises(InvalidCertificateError) as caught:
        login = DeviceLogin(services.service.id_scope, "dev-01")
        credential = Credential((other_self_signed().certificate,), "", "peer")
        await services.registrations.register(login, credential, b"")
    (report,) = await services.reports.find(caught.value.tracking_id or "")
    assert [(item["id"], item["outcome"], item["detail"], item.get("fix", "")) for item in found["checks"]] == [
        (item.id, item.outcome, item.detail, item.fix) for item in report.checks
    ]


async def test_a_disabled_enrollment(rest: RestClient, services: Services) -> None:
    await services.enroll("dev-01", self_signed().certificate_pem.decode(), provisioningStatus="disabled")
    found = await attest(rest, self_signed())
    assert (found["verdict"], found["answer"]) == ("disabled", "202, then 200 with status disabled")


async def test_at_another_time(rest: RestClient, services: Services) -> None:
    await services.enroll("dev-01", self_signed().certificate_pem.decode())
    found = await attest(rest, self_signed(), at=iso_utc(services.clock() + 5000 * DAY))
    assert refused(found) == ["x509.not-after"]


async def test_nobody_decides(rest: RestClient) -> None:
    found = await attest(rest, self_signed())
    assert (found["verdict"], found["enrollment"], found["decides"]) == ("refused", None, None)
    assert refused(found) == ["enrollment.exists"]


async def test_a_group_that_another_one_takes_the_devices_of(rest: RestClient, services: Services) -> None:
    await enroll_signing_group(services, "plant", root())
    await enroll_signing_group(services, "line-a", intermediate())
    found = await attest(rest, chain_leaf(), groupId="plant")
    assert found["enrollment"] == {"kind": "group", "id": "plant"}
    assert found["decides"] == {"kind": "group", "id": "line-a"}
    assert "line-a" not in "".join(item["detail"] for item in found["checks"])
    only_the_leaf = Identity(chain_leaf().certificate, chain_leaf().key)
    assert (await attest(rest, only_the_leaf, groupId="plant"))["verdict"] == "refused"


async def test_by_another_enrollment(rest: RestClient, services: Services) -> None:
    await services.enroll_by("dev-02", SYMMETRIC)
    await services.enroll_group("keys", SYMMETRIC)
    found = await attest(rest, self_signed(), enrollmentId="dev-02")
    assert (refused(found), found["decides"]) == (["enrollment.attestation"], None)
    found = await attest(rest, self_signed(), groupId="keys")
    assert refused(found) == ["enrollment.attestation"]
    assert "symmetricKey" in found["checks"][0]["detail"]


async def test_what_cannot_be_judged(rest: RestClient) -> None:
    for members, status in (
        ({"registrationId": None}, 400),
        ({"certificates": ["???"]}, 400),
        ({"certificates": ["AAAA"] * 33}, 400),
        ({"at": "tomorrow"}, 400),
        ({"groupId": "a", "enrollmentId": "b"}, 400),
        ({"groupId": "missing"}, 404),
        ({"enrollmentId": "missing"}, 404),
    ):
        body = {"registrationId": "dev-01", "certificates": sent(self_signed()), **members}
        answer = await rest.request("POST", ATTESTATIONS, body, host=DPS_HOST)
        assert answer.status == status, members


# --- allocation -----------------------------------------------------------------------------------------------


async def test_where_a_device_would_land(rest: RestClient, services: Services) -> None:
    await services.enroll_by("dev-01", SYMMETRIC)
    found = (await preview(rest, "dev-01")).json
    assert found["hub"]["hostName"] == "hub.example.net"
    assert found["reason"] == "policy hashed: hub.example.net is the only candidate"
    assert (found["deviceId"], found["enrollment"]["kind"], found["currentHub"]) == ("dev-01", "individual", None)
    assert await services.records.find(services.service.id_scope, "dev-01") is None


async def test_a_device_of_a_group(rest: RestClient, services: Services) -> None:
    await services.enroll_group("keys", SYMMETRIC)
    answer = await preview(rest, "pump-1")
    assert answer.status == 404
    assert "groupId" in answer.json["message"]
    found = (await preview(rest, "pump-1", "groupId=keys")).json
    assert found["enrollment"] == {"kind": "group", "id": "keys"}
    assert (await preview(rest, "pump-1", "groupId=missing")).status == 404


async def test_a_webhook_is_asked_only_when_that_is_wanted(rest: RestClient, services: Services) -> None:
    webhook = {"webhookUrl": "https://hook.example.net/a?code=secret", "apiVersion": "2021-10-01"}
    await services.enroll_by("dev-01", SYMMETRIC, allocationPolicy="custom", customAllocationDefinition=webhook)
    services.webhook.answer = WebhookAnswer(iot_hub_host_name="hub.example.net")
    answer = await preview(rest, "dev-01")
    assert (answer.json["hub"], services.webhook.asked) == (None, [])
    assert "secret" not in answer.body.decode()
    assert "https://hook.example.net/a?****" in answer.json["reason"]
    found = (await preview(rest, "dev-01", "ask=1")).json
    assert found["hub"]["hostName"] == "hub.example.net"
    assert found["reason"] == "policy custom: the webhook answered hub.example.net"
    services.webhook.answer = WebhookAnswer(iot_hub_host_name="other.example.net")
    found = (await preview(rest, "dev-01", "ask=1")).json
    assert (found["hub"], found["answer"][:7]) == (None, "400208 ")
    services.webhook.answer = CustomAllocationUnauthorizedError()
    found = (await preview(rest, "dev-01", "ask=1")).json
    assert found["answer"].startswith("400209 ")


@pytest.mark.parametrize("policy", [HUB_OWNER, "nobody"])
async def test_rights(rest: RestClient, policy: str) -> None:
    authorization = rest.token(policy, DPS_HOST)
    assert (await preview(rest, "dev-01")).status == 404
    for method, path in (("POST", ATTESTATIONS), ("GET", "/muster/v1/allocations/dev-01")):
        answer = await rest.request(method, path, {}, host=DPS_HOST, authorization=authorization)
        assert answer.status == 401
        owner = rest.token(DPS_OWNER, DPS_HOST)
        answer = await rest.request(method, path, {}, host="evil.example.net", authorization=owner)
        assert answer.status == 421
