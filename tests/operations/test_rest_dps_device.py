"""Registering over HTTPS, request by request (dps.md 1, 4.6, 9.3).

What single clients send is replayed in ``tests/playbook/test_clients.py``.
"""

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.fix_ca import intermediate, request, to_der
from tests.support.fix_rest import Answer, RestClient
from tests.support.fix_services import ID_SCOPE, KEY, Services
from tests.support.fix_tpm import SoftwareTpm, software_tpm

from muster.domain.allocation import WebhookAnswer
from muster.domain.sas import derive_device_key
from muster.domain.timestamp import SECOND
from muster.domain.tpm import registration_id_of
from muster.server.rest import provisioning_apis, rest_app

HOST = "global.example.net"
VERSION = "api-version=2019-03-31"
BODY = b'{"registrationId":"pump-17"}'
OTHER_KEY = base64.b64encode(bytes(range(64))).decode()
ATTESTATION = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER_KEY}}
ISSUING = {"namespaceName": "ns", "certificateAuthorityName": "line-a", "certificatePolicyName": "device"}


@pytest.fixture(autouse=True)
async def enrolled(services: Services) -> None:
    await services.enroll_by("pump-17", ATTESTATION)


@pytest.fixture
def api(services: Services) -> RestClient:
    return RestClient(rest_app(services, services.clock, provisioning_apis(services, services.clock, ())), services)


class Device:
    """A device at the API: every request with its own token, to ``host`` as it spells it."""

    def __init__(self, api: RestClient, token: str | None, registration_id: str = "pump-17", host: str = HOST) -> None:
        self._api = api
        self._token = token
        self._host = host
        self.path = f"/{ID_SCOPE}/registrations/{registration_id}"

    async def register(self, body: object = BODY, query: str = VERSION, **headers: str) -> Answer:
        return await self.ask("PUT", f"{self.path}/register?{query}", body, **headers)

    async def poll(self, operation_id: str, body: bytes = b"", **headers: str) -> Answer:
        return await self.ask("GET", f"{self.path}/operations/{operation_id}?{VERSION}", body, **headers)

    async def look_up(self, body: object = b"") -> Answer:
        return await self.ask("POST", f"{self.path}?{VERSION}", body)

    async def ask(self, method: str, target: str, body: object = b"", **headers: Any) -> Answer:
        return await self._api.request(method, target, body, host=self._host, authorization=self._token, **headers)


def sign(text: str, key: bytes) -> str:
    return base64.b64encode(hmac.digest(key, text.encode(), "sha256")).decode()


def expiry(services: Services, seconds: int = 3600) -> int:
    return services.clock.now // SECOND + seconds


def upper_hex(text: str) -> str:
    return quote(text, safe="")


RAW = f"{ID_SCOPE}/registrations/pump-17"
UPPER = upper_hex(RAW)
SPELLINGS: dict[str, tuple[str, str, Callable[[str], str]]] = {
    "as most have it": ("sr={resource}&sig={signature}&se={expiry}&skn=registration", UPPER, upper_hex),
    "a raw resource": ("sr={resource}&sig={signature}&se={expiry}&skn=", RAW, upper_hex),
    "a trailing slash": ("sr={resource}&sig={signature}&se={expiry}", UPPER + "%2F", upper_hex),
    "a raw signature": ("sr={resource}&sig={signature}&se={expiry}", UPPER, str),
}
"""What a token looks like, what it signs, and how it writes the signature (dps.md 1.8)."""


def token(services: Services, spelling: str = "as most have it", key: str = KEY, seconds: int = 3600) -> str:
    layout, resource, encode = SPELLINGS[spelling]
    end = expiry(services, seconds)
    signature = sign(f"{resource}\n{end}", base64.b64decode(key))
    return "SharedAccessSignature " + layout.format(resource=resource, signature=encode(signature), expiry=end)


def require_refused(answer: Answer, code: int, message: str | None = None) -> None:
    """dps.md 1.10: the body, and its code and tracking id again as headers."""
    assert answer.status == code // 1000
    assert set(answer.json) == {"errorCode", "trackingId", "message", "timestampUtc"}
    assert answer.json["errorCode"] == code
    assert answer.headers["x-ms-error-code"] == str(code)
    assert answer.headers["x-ms-request-id"] == answer.json["trackingId"]
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    if message is not None:
        assert answer.json["message"] == message


async def finished(services: Services, device: Device, accepted: Answer) -> Any:
    """What the device polls when it is assigned."""
    await services.registrations.stop(within=60)
    answer = await device.poll(accepted.json["operationId"])
    assert answer.status == 200
    return answer.json


async def test_a_registration(services: Services, api: RestClient) -> None:
    """dps.md 1.4 to 1.6: 202 first, then 200 with the state."""
    device = Device(api, token(services))
    accepted = await device.register()
    assert accepted.status == 202
    assert accepted.json == {"operationId": accepted.json["operationId"], "status": "assigning"}
    assert accepted.headers["retry-after"] == "3"
    assert accepted.headers["location"] == f"https://{HOST}{device.path}/register"
    assert accepted.headers["content-type"] == "application/json; charset=utf-8"
    final = await finished(services, device, accepted)
    assert (final["operationId"], final["status"]) == (accepted.json["operationId"], "assigned")
    state = final["registrationState"]
    assert (state["status"], state["substatus"]) == ("assigned", "initialAssignment")
    assert (state["registrationId"], state["deviceId"]) == ("pump-17", "pump-17")
    assert state["assignedHub"] == services.hub.host_name
    assert state["symmetricKey"] == {}
    looked_up = await device.look_up()
    assert (looked_up.status, looked_up.json) == (200, state)


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_spellings_of_a_token(services: Services, api: RestClient, spelling: str) -> None:
    for key in (KEY, OTHER_KEY):
        assert (await Device(api, token(services, spelling, key)).register()).status == 202


async def test_while_it_is_assigned(services: Services, api: RestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A webhook takes its time; polls and lookups say *assigning*, and another register finds the same operation."""
    answered = asyncio.Event()

    async def ask(_url: str, _request: dict[str, Any]) -> WebhookAnswer:
        await answered.wait()
        return WebhookAnswer(services.hub.host_name)

    monkeypatch.setattr(services.webhook, "ask", ask)
    custom = {"webhookUrl": "https://webhook.example.net/", "apiVersion": "2019-03-31"}
    await services.enroll_by(
        "pump-17", ATTESTATION, allocationPolicy="custom", customAllocationDefinition=custom, etag="*"
    )
    device = Device(api, token(services))
    accepted = await device.register({"registrationId": "pump-17", "payload": None}, query="api-version=2021-06-01")
    polled = await device.poll(accepted.json["operationId"])
    assert polled.status == 202
    assert polled.headers["retry-after"] == "3"
    assert polled.json == {
        "operationId": accepted.json["operationId"],
        "status": "assigning",
        "registrationState": {"registrationId": "pump-17", "status": "assigning"},
    }
    assert (await device.register()).json == accepted.json
    looked_up = await device.look_up()
    assert (looked_up.status, looked_up.json["status"]) == (200, "assigning")
    answered.set()
    assert (await finished(services, device, accepted))["status"] == "assigned"


async def test_bodies_of_a_lookup(services: Services, api: RestClient) -> None:
    """It is the same record as to register with, without a signing request (dps.md 1.3)."""
    device = Device(api, token(services))
    require_refused(await device.look_up(BODY), 404202)
    await device.register()
    await services.registrations.stop(within=60)
    require_refused(await device.look_up({"registrationId": "another"}), 400004)
    require_refused(await device.look_up({"registrationId": "pump-17", "csr": "MIIB"}), 400004)
    require_refused(await device.look_up(b"{"), 400006)
    assert (await device.look_up({"registrationId": "PUMP-17", "payload": None})).status == 200
    assert (await device.look_up(BODY)).json["assignedHub"] == services.hub.host_name


async def test_a_derived_key_and_an_encoded_id(services: Services, api: RestClient) -> None:
    """Segments of the path may be encoded; the group is named in the answer."""
    await services.enroll_group("fleet", ATTESTATION)
    resource = upper_hex(f"{ID_SCOPE}/registrations/line:7")
    end = expiry(services)
    signature = upper_hex(sign(f"{resource}\n{end}", base64.b64decode(derive_device_key(KEY, "line:7"))))
    device = Device(api, f"SharedAccessSignature sr={resource}&sig={signature}&se={end}", "line%3A7")
    final = await finished(services, device, await device.register(b'{"registrationId":"line:7"}'))
    assert final["registrationState"]["deviceId"] == "line:7"
    assert final["registrationState"]["symmetricKey"] == {"enrollmentGroupId": "fleet"}


async def test_disabled(services: Services, api: RestClient) -> None:
    """202, then 200 with status disabled and a state (dps.md 1.1, 2.6)."""
    await services.enroll_by("pump-17", ATTESTATION, provisioningStatus="disabled", etag="*")
    device = Device(api, token(services))
    accepted = await device.register()
    assert accepted.status == 202
    final = await finished(services, device, accepted)
    assert (final["status"], final["registrationState"]["status"]) == ("disabled", "disabled")
    assert "assignedHub" not in final["registrationState"]


async def test_what_is_refused(services: Services, api: RestClient) -> None:
    device = Device(api, token(services))
    require_refused(await device.register(query="x=1"), 400001)
    require_refused(await device.register(query="api-version=latest"), 400001)
    require_refused(await device.register(b'{"registrationId":"pump-18"}'), 400004)
    assert (await device.register(b"no json")).status == 400
    require_refused(await device.register(content_type="text/plain"), 415000)
    require_refused(await device.poll("5.0000000000000000.00000000-0000-0000-0000-000000000000"), 404202)
    missing = await device.ask("GET", f"/{ID_SCOPE}/registrations/pump-17/elsewhere?{VERSION}")
    assert missing.status == 404


async def test_tokens_that_are_refused(services: Services, api: RestClient) -> None:
    wrong = base64.b64encode(b"wrong").decode()
    tokens = (None, "no token", token(services, key=wrong), token(services, seconds=-3600))
    for refused in tokens:
        assert (await Device(api, refused).register()).status == 401
    require_refused(await Device(api, token(services, key=wrong)).register(), 401002)
    # A token of one device is none of another.
    await services.enroll_by("pump-18", ATTESTATION)
    answer = await Device(api, token(services), "pump-18").register(b'{"registrationId":"pump-18"}')
    require_refused(answer, 401002)


async def test_polls_and_lookups_are_judged(services: Services, api: RestClient) -> None:
    accepted = await Device(api, token(services)).register()
    await services.registrations.stop(within=60)
    for refused in (None, token(services, key=base64.b64encode(b"wrong").decode())):
        stranger = Device(api, refused)
        assert (await stranger.poll(accepted.json["operationId"])).status == 401
        assert (await stranger.look_up()).status == 401


class TpmDevice(Device):
    """A device with a TPM, as C, Node, Java and .NET have it."""

    def __init__(self, api: RestClient, services: Services, tpm: SoftwareTpm, token: str | None = None) -> None:
        self.registration_id = registration_id_of(tpm.endorsement_key)
        super().__init__(api, token, self.registration_id)
        self._services = services
        self.tpm = tpm

    @property
    def body(self) -> dict[str, Any]:
        keys = {
            "endorsementKey": base64.b64encode(self.tpm.endorsement_key).decode(),
            "storageRootKey": base64.b64encode(self.tpm.storage_root_key).decode(),
        }
        return {"registrationId": self.registration_id, "tpm": keys}

    def sign(self, key: bytes) -> str:
        resource = upper_hex(f"{ID_SCOPE}/registrations/{self.registration_id}")
        end = expiry(self._services)
        signature = upper_hex(sign(f"{resource}\n{end}", key))
        return f"SharedAccessSignature sr={resource}&sig={signature}&se={end}&skn=registration"


async def test_a_tpm(services: Services, api: RestClient) -> None:
    """A challenge, which is a 401 with a body of its own; then the registration with the nonce's signature."""
    tpm = software_tpm()
    endorsement_key = base64.b64encode(tpm.endorsement_key).decode()
    first = TpmDevice(api, services, tpm)
    await services.enroll_by(first.registration_id, {"type": "tpm", "tpm": {"endorsementKey": endorsement_key}})
    challenge = await first.register(first.body)
    assert challenge.status == 401
    assert challenge.headers["content-type"] == "application/json; charset=utf-8"
    assert set(challenge.json) == {"message", "authenticationKey", "unencryptedAuthenticationKey", "keyName"}
    assert challenge.json["keyName"] == "registration"
    assert challenge.json["unencryptedAuthenticationKey"] is None
    nonce, _ = tpm.activate(base64.b64decode(challenge.json["authenticationKey"]))

    second = TpmDevice(api, services, tpm, first.sign(nonce))
    accepted = await second.register(second.body)
    assert accepted.status == 202
    state = (await finished(services, second, accepted))["registrationState"]
    assert state["status"] == "assigned"
    key, _ = tpm.activate(base64.b64decode(state["tpm"]["authenticationKey"]))
    assert len(key) == 32

    # A lookup is challenged in the same way.
    challenge = await first.look_up(first.body)
    nonce, _ = tpm.activate(base64.b64decode(challenge.json["authenticationKey"]))
    found = await TpmDevice(api, services, tpm, first.sign(nonce)).look_up(first.body)
    assert (found.status, found.json["registrationId"]) == (200, first.registration_id)

    wrong = TpmDevice(api, services, tpm, first.sign(hashlib.sha256(nonce).digest()))
    assert (await wrong.register(wrong.body)).status == 401


@pytest.mark.parametrize("deleted", [False, True])
async def test_the_enrollment_of_a_tpm_changes_meanwhile(
    services: Services, api: RestClient, monkeypatch: pytest.MonkeyPatch, *, deleted: bool
) -> None:
    """While it is assigned: its storage root key is learned, and brings nothing back of what was changed or deleted."""
    tpm = software_tpm()
    first = TpmDevice(api, services, tpm)
    endorsement_key = base64.b64encode(tpm.endorsement_key).decode()
    mechanism = {"type": "tpm", "tpm": {"endorsementKey": endorsement_key}}

    async def ask(_url: str, _request: dict[str, Any]) -> WebhookAnswer:
        if deleted:
            await services.enrollments.delete(ID_SCOPE, first.registration_id, None)
        else:
            await services.enroll_by(first.registration_id, mechanism, capabilities={"iotEdge": True})
        return WebhookAnswer(services.hub.host_name)

    monkeypatch.setattr(services.webhook, "ask", ask)
    custom = {"webhookUrl": "https://webhook.example.net/", "apiVersion": "2019-03-31"}
    await services.enroll_by(
        first.registration_id, mechanism, allocationPolicy="custom", customAllocationDefinition=custom
    )
    challenge = await first.register(first.body)
    nonce, _ = tpm.activate(base64.b64decode(challenge.json["authenticationKey"]))
    second = TpmDevice(api, services, tpm, first.sign(nonce))
    accepted = await second.register(second.body)
    assert accepted.status == 202
    await services.registrations.stop(within=60)
    record = await services.records.get(ID_SCOPE, first.registration_id)
    assert record.status == "assigned"
    enrollment = await services.enrollments.find(ID_SCOPE, first.registration_id)
    if deleted:
        assert enrollment is None
    else:
        assert enrollment is not None
        assert enrollment.document.capabilities.iot_edge
        assert enrollment.document.allocation_policy is None
        assert enrollment.mechanism.storage_root_key == base64.b64encode(tpm.storage_root_key).decode()


async def test_a_tpm_that_nobody_enrolled(services: Services, api: RestClient) -> None:
    """It gets an ordinary refusal, which has no key (dps.md 4.6)."""
    stranger = TpmDevice(api, services, software_tpm(1))
    require_refused(await stranger.register(stranger.body), 404201)


async def test_nobody_registers_for_a_tpm_without_its_keys(services: Services, api: RestClient) -> None:
    """Nothing at all, neither keys nor a token, is no way to be a TPM."""
    tpm = software_tpm()
    device = TpmDevice(api, services, tpm)
    keys = {"endorsementKey": base64.b64encode(tpm.endorsement_key).decode()}
    await services.enroll_by(device.registration_id, {"type": "tpm", "tpm": keys})
    body = {"registrationId": device.registration_id}
    for answer in (await device.register(body), await device.look_up(body)):
        require_refused(answer, 401002)
        (report,) = await services.reports.find(answer.json["trackingId"])
        assert [check.id for check in report.checks if check.outcome == "refused"] == ["enrollment.attestation"]
    assert await services.records.find(ID_SCOPE, device.registration_id) is None


async def test_the_extension_asks_for_a_certificate(services: Services, api: RestClient) -> None:
    """``az iot device registration create`` with a signing request; the lookup never shows the chain (dps.md 1.5)."""
    services.add_authority()
    await services.enroll_by("pump-17", ATTESTATION, **ISSUING)
    device = Device(api, token(services))
    csr = base64.b64encode(request("pump-17").public_bytes(Encoding.DER)).decode()
    wanted = {"registrationId": "pump-17", "csr": csr}
    final = await finished(services, device, await device.register(wanted, "api-version=2026-11-01"))
    chain = final["registrationState"]["issuedCertificateChain"]
    assert [base64.b64decode(one) for one in chain[1:]] == [to_der(one) for one in intermediate().chain]

    found = await device.look_up()
    assert (found.status, found.json["status"]) == (200, "assigned")
    assert "issuedCertificateChain" not in found.json
    require_refused(await device.look_up(wanted), 400004)
    assert (await device.look_up({"registrationId": "pump-17"})).status == 200


async def test_a_signing_request_in_pem_is_refused(services: Services, api: RestClient) -> None:
    wanted = {"csr": request("pump-17").public_bytes(Encoding.PEM).decode()}
    answer = await Device(api, token(services)).register(wanted, "api-version=2025-07-01-preview")
    require_refused(answer, 400004, "Invalid certificate signing request.")
    (report,) = await services.reports.find(answer.json["trackingId"])
    assert report.verdict == "refused"
