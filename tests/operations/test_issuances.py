"""Certificates on registration: who gets one, from which CA, who is refused why, and that each is issued once."""

import asyncio
import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID
from tests.support.fix_ca import intermediate, key, leaf, request, to_der
from tests.support.fix_services import ID_SCOPE, KEY, Services, build_services

from muster.domain.credential import Credential
from muster.domain.documents import read
from muster.domain.enrollment import Enrollment
from muster.domain.errors import (
    ArgumentInvalidError,
    CertificateRequestError,
    RegistrationConflictError,
    UnauthorizedAccessError,
)
from muster.domain.registration import operation_view
from muster.domain.report import Outcome, Report
from muster.domain.sas import create_token, derive_device_key
from muster.domain.timestamp import SECOND
from muster.dps.assignments import Context
from muster.dps.attestations import DeviceLogin
from muster.dps.registrations import Operation
from muster.hub.authentication import DeviceLogin as HubLogin
from muster.pki.certificate import sha1_thumbprint
from muster.pki.names import common_name_only

VERSION = "2025-07-01-preview"
ATTESTATION: dict[str, Any] = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
POLICY = {"namespaceName": "muster", "certificateAuthorityName": "line-a", "certificatePolicyName": "device"}


def login(registration_id: str = "dev-01", version: str = VERSION) -> DeviceLogin:
    return DeviceLogin(ID_SCOPE, registration_id, version)


def credential(services: Services, registration_id: str = "dev-01", key: str = KEY) -> Credential:
    resource = f"{ID_SCOPE}/registrations/{registration_id}"
    token = create_token(resource, key, services.clock() // SECOND + 3600, "registration")
    return Credential((), token, "127.0.0.1:5000 MQTT TLSv1.2")


def encoded(csr: x509.CertificateSigningRequest) -> str:
    return base64.b64encode(csr.public_bytes(Encoding.DER)).decode()


def body(csr: str) -> bytes:
    return b'{"csr":"%s"}' % csr.encode()


async def register(services: Services, csr: str, registration_id: str = "dev-01") -> Operation:
    return await services.registrations.register(
        login(registration_id), credential(services, registration_id), body(csr)
    )


async def finished(services: Services, operation: Operation, registration_id: str = "dev-01") -> dict[str, Any]:
    """The registration state that the device polls in the end."""
    await services.registrations.stop(within=60)
    last = await services.registrations.status(login(registration_id), operation.registration.operation_id)
    state: dict[str, Any] = operation_view(last.registration, last.hub_host)["registrationState"]
    return state


def chain_of(state: dict[str, Any]) -> list[bytes]:
    return [base64.b64decode(one) for one in state["issuedCertificateChain"]]


async def only_report(services: Services, registration_id: str = "dev-01") -> Report:
    (report,) = await services.reports.find(registration_id)
    return report


def bad(report: Report) -> list[str]:
    """The checks that did not pass."""
    return [item.id for item in report.checks if item.outcome in (Outcome.REFUSED, Outcome.WARNED)]


@pytest.fixture
async def enrolled(services: Services) -> Services:
    services.add_authority()
    await services.enroll_by("dev-01", ATTESTATION, **POLICY)
    return services


async def test_a_device_gets_its_certificate_with_the_whole_chain(enrolled: Services) -> None:
    state = await finished(enrolled, await register(enrolled, encoded(request())))

    assert (state["status"], state["symmetricKey"]) == ("assigned", {})
    certificate, *above = chain_of(state)
    assert above == [to_der(one) for one in intermediate().chain]
    issued = x509.load_der_x509_certificate(certificate)
    assert issued.public_key() == key("dev-01").public_key()
    assert issued.subject == common_name_only("dev-01")
    issued.verify_directly_issued_by(intermediate().certificate)
    usage = issued.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    (journaled,) = enrolled.add_authority("other").authority("line-a").issued()
    assert (journaled.certificate, journaled.name, journaled.profile) == (certificate, "dev-01", "device")


async def test_the_hub_takes_the_issued_certificate_and_nothing_else(enrolled: Services) -> None:
    state = await finished(enrolled, await register(enrolled, encoded(request())))
    certificate = chain_of(state)[0]
    identity, _ = await enrolled.devices.get("hub", "dev-01")
    assert (identity.authentication_type, identity.keys) == ("selfSigned", ())
    assert identity.primary_thumbprint == sha1_thumbprint(certificate)

    device = HubLogin(enrolled.hub, enrolled.hub.host_name, "dev-01", "")
    enrolled.clock.now += SECOND
    await enrolled.authentication.authenticate(device, Credential((certificate,), "", "peer"))
    token = create_token("hub.example.net/devices/dev-01", KEY, enrolled.clock() // SECOND + 60)
    for other in (Credential((), token, "peer"), Credential((to_der(leaf()),), "", "peer")):
        with pytest.raises(Exception, match="Unauthorized"):
            await enrolled.authentication.authenticate(device, other)


async def test_the_former_name_of_the_policy_names_the_ca_too(services: Services) -> None:
    services.add_authority()
    await services.enroll_by("dev-01", ATTESTATION, credentialPolicyName="line-a")
    assert len(chain_of(await finished(services, await register(services, encoded(request()))))) == 3


async def test_a_profile_of_the_ca_directory_decides(services: Services) -> None:
    directory = services.add_authority()
    (directory.path / "profiles.toml").write_text(
        '[gateway]\nlike = "device"\ndays = 7\nextended_key_usage = ["clientAuth", "serverAuth"]\n'
    )
    await services.enroll_by("dev-01", ATTESTATION, **{**POLICY, "certificatePolicyName": "gateway"})
    asked = request(extensions=[x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])])
    certificate = x509.load_der_x509_certificate(
        chain_of(await finished(services, await register(services, encoded(asked))))[0]
    )
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 8


async def test_only_the_case_of_the_common_name_may_differ(enrolled: Services) -> None:
    state = await finished(enrolled, await register(enrolled, encoded(request("DEV-01"))))
    assert x509.load_der_x509_certificate(chain_of(state)[0]).subject == common_name_only("DEV-01")
    assert state["deviceId"] == "dev-01"


def changed(csr: x509.CertificateSigningRequest) -> str:
    """With another signature under it."""
    content = bytearray(csr.public_bytes(Encoding.DER))
    content[-1] ^= 1
    return base64.b64encode(content).decode()


def weak() -> str:
    signer = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    builder = x509.CertificateSigningRequestBuilder().subject_name(common_name_only("dev-01"))
    return encoded(builder.sign(signer, hashes.SHA256()))


PEM = request().public_bytes(Encoding.PEM).decode().replace("\n", "\\n")


@pytest.mark.parametrize(
    ("csr", "check_id"),
    [
        (PEM, "csr.format"),
        ("not base64!", "csr.format"),
        ("aGVsbG8=", "csr.format"),
        ("", "csr.format"),
        (changed(request()), "csr.signature"),
        (weak(), "csr.key"),
        (encoded(request("dev-02")), "csr.common-name"),
        (encoded(request(None)), "csr.common-name"),
    ],
    ids=["pem", "not-base64", "not-der", "empty", "other-signature", "weak-key", "other-name", "no-name"],
)
async def test_a_bad_request_is_refused_with_a_report(enrolled: Services, csr: str, check_id: str) -> None:
    with pytest.raises(CertificateRequestError) as refused:
        await register(enrolled, csr)
    report = await only_report(enrolled)
    assert (report.tracking_id, report.verdict) == (refused.value.tracking_id, "refused")
    assert report.answer == "400004 Invalid certificate signing request."
    assert bad(report) == [check_id]
    assert all(item.fix for item in report.checks if item.id == check_id)
    assert await enrolled.records.find(ID_SCOPE, "dev-01") is None


@pytest.mark.parametrize("version", ["2019-03-31", "2021-10-01", "2025-06-30", "", "latest"])
async def test_a_version_of_the_api_without_csr(enrolled: Services, version: str) -> None:
    with pytest.raises(CertificateRequestError):
        await enrolled.registrations.register(login(version=version), credential(enrolled), body(encoded(request())))
    assert bad(await only_report(enrolled)) == ["csr.api-version"]


async def test_who_does_not_prove_itself_is_told_nothing_of_its_request(enrolled: Services) -> None:
    wrong = credential(enrolled, key=base64.b64encode(bytes(32)).decode())
    with pytest.raises(UnauthorizedAccessError):
        await enrolled.registrations.register(login(), wrong, body("not base64!"))
    assert bad(await only_report(enrolled)) == ["sas.signature"]


async def test_an_enrollment_without_a_ca_assigns_without_a_certificate(services: Services) -> None:
    await services.enroll_by("dev-01", ATTESTATION)
    state = await finished(services, await register(services, encoded(request())))
    assert state["status"] == "assigned"
    assert "issuedCertificateChain" not in state
    report = await only_report(services)
    assert (report.verdict, bad(report)) == ("warned", ["csr.policy"])
    identity, _ = await services.devices.get("hub", "dev-01")
    assert identity.authentication_type == "sas"


@pytest.mark.parametrize(
    ("extensions", "check_id"),
    [
        ([x509.BasicConstraints(ca=True, path_length=None)], "csr.ca"),
        ([x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])], "csr.extended-key-usage"),
        ([x509.SubjectAlternativeName([x509.DNSName("plant.example")])], "csr.alternative-name"),
    ],
    ids=["ca", "usage", "alternative-name"],
)
async def test_what_the_profile_does_not_have_fails_the_registration(
    enrolled: Services, extensions: Sequence[x509.ExtensionType], check_id: str
) -> None:
    state = await finished(enrolled, await register(enrolled, encoded(request(extensions=extensions))))
    assert (state["status"], state["errorCode"]) == ("failed", 400211)
    assert state["errorMessage"].startswith("Certificate issuance failed: the ")
    report = await only_report(enrolled)
    assert (report.verdict, bad(report)) == ("failed", [check_id])
    assert await enrolled.devices.find("hub", "dev-01") is None
    assert enrolled.add_authority("other").authority("line-a").issued() == []


async def assert_cannot_issue(services: Services, detail: str) -> None:
    state = await finished(services, await register(services, encoded(request())))
    assert (state["status"], state["errorCode"]) == ("failed", 400211)
    assert state["errorMessage"] == "Certificate issuance failed: the certificate authority 'line-a' cannot issue."
    report = await only_report(services)
    assert bad(report) == ["csr.issued"]
    (issued,) = report.checks
    assert detail in issued.detail
    assert issued.fix


async def test_there_is_no_ca_directory(services: Services) -> None:
    await services.enroll_by("dev-01", ATTESTATION, **POLICY)
    await assert_cannot_issue(services, "there is no CA directory")
    assert not services.ca_directory.exists()


async def test_a_ca_of_another_name(services: Services) -> None:
    services.add_authority("line-b")
    await services.enroll_by("dev-01", ATTESTATION, **POLICY)
    await assert_cannot_issue(services, "there is no CA 'line-a'")


async def test_a_ca_with_a_pass_phrase(services: Services) -> None:
    services.add_authority(pass_phrase="1234")
    await services.enroll_by("dev-01", ATTESTATION, **POLICY)
    await assert_cannot_issue(services, "the server has no pass phrase")


async def test_a_profile_that_is_not_there(services: Services) -> None:
    services.add_authority()
    await services.enroll_by("dev-01", ATTESTATION, **{**POLICY, "certificatePolicyName": "gateway"})
    await assert_cannot_issue(services, "gateway")


async def test_a_profile_for_cas(services: Services) -> None:
    services.add_authority()
    await services.enroll_by("dev-01", ATTESTATION, **{**POLICY, "certificatePolicyName": "intermediate-ca"})
    await assert_cannot_issue(services, "one for CAs")


async def test_a_ca_that_has_expired(enrolled: Services) -> None:
    enrolled.clock.advance(4000 * 86_400 * SECOND)
    await assert_cannot_issue(enrolled, "valid")


async def test_a_damaged_ca(enrolled: Services) -> None:
    (enrolled.ca_directory / "line-a" / "private.key").write_text("nonsense")
    await assert_cannot_issue(enrolled, "key")


async def test_a_new_certificate_keeps_identity_and_twin(enrolled: Services) -> None:
    first = chain_of(await finished(enrolled, await register(enrolled, encoded(request()))))
    before, _ = await enrolled.devices.get("hub", "dev-01")
    twin = await enrolled.twin("dev-01")
    enrolled.clock.advance(SECOND)

    second = chain_of(await finished(enrolled, await register(enrolled, encoded(request(signer=key("next"))))))
    after, _ = await enrolled.devices.get("hub", "dev-01")
    assert second[0] != first[0]
    assert after.generation_id == before.generation_id
    assert after.primary_thumbprint == sha1_thumbprint(second[0])
    assert (await enrolled.twin("dev-01"))["properties"] == twin["properties"]


async def test_a_register_without_csr_takes_the_chain_away(enrolled: Services) -> None:
    await finished(enrolled, await register(enrolled, encoded(request())))
    plain = await enrolled.registrations.register(login(), credential(enrolled), b"")
    assert "issuedCertificateChain" not in await finished(enrolled, plain)
    identity, _ = await enrolled.devices.get("hub", "dev-01")
    assert identity.authentication_type == "sas"


# Interruptions and crowds


def hold(services: Services) -> None:
    """From now on the process is killed right after each answer to a register request."""
    services.registrations._assignments.begin = lambda *_args: None  # type: ignore[method-assign]


async def order_of(services: Services) -> Context:
    registration = await services.records.get(ID_SCOPE, "dev-01")
    found = await services.records.context(ID_SCOPE, "dev-01", registration.operation_id)
    assert found is not None
    return read(found[1], Context)


async def test_a_stop_before_the_ca_was_asked_loses_nothing(enrolled: Services) -> None:
    hold(enrolled)
    operation = await register(enrolled, encoded(request()))
    again = await build_services(enrolled.database, enrolled.clock, enrolled.ca_directory)
    assert await again.registrations.start() == 1
    assert len(chain_of(await finished(again, operation))) == 3


async def test_a_stop_after_the_ca_signed_issues_nothing_twice(enrolled: Services) -> None:
    hold(enrolled)
    operation = await register(enrolled, encoded(request()))
    order = (await order_of(enrolled)).order
    assert order is not None
    chain = await enrolled.registrations._assignments._issuances.issue(order)

    again = await build_services(enrolled.database, enrolled.clock, enrolled.ca_directory)
    await again.registrations.start()
    assert chain_of(await finished(again, operation)) == list(chain)
    assert len(enrolled.add_authority("other").authority("line-a").issued()) == 1


async def test_another_request_while_one_is_being_assigned_is_a_conflict(enrolled: Services) -> None:
    hold(enrolled)
    csr = encoded(request())
    first = await register(enrolled, csr)
    same = await register(enrolled, csr)
    assert same.registration.operation_id == first.registration.operation_id
    plain = await enrolled.registrations.register(login(), credential(enrolled), b"")
    assert plain.registration.operation_id == first.registration.operation_id
    with pytest.raises(RegistrationConflictError):
        await register(enrolled, encoded(request(signer=key("next"))))


async def test_a_fleet_at_once(services: Services) -> None:
    directory = services.add_authority()
    group: Enrollment = await services.enroll_group("line", ATTESTATION, **POLICY)
    names = [f"dev-{number:03}" for number in range(150)]

    async def one(name: str) -> Operation:
        token = credential(services, name, derive_device_key(group.mechanism.keys[0], name))
        return await services.registrations.register(login(name), token, body(encoded(request(name))))

    operations = await asyncio.gather(*map(one, names))
    await services.registrations.stop(within=60)
    serial_numbers = set()
    for name, operation in zip(names, operations, strict=True):
        certificate = x509.load_der_x509_certificate(chain_of(await finished(services, operation, name))[0])
        assert certificate.public_key() == key(name).public_key()
        serial_numbers.add(certificate.serial_number)
    assert len(serial_numbers) == len(names)
    assert {one.serial_number for one in directory.authority("line-a").issued()} == serial_numbers


async def test_one_that_is_refused_takes_nobody_along(services: Services) -> None:
    services.add_authority()
    await services.enroll_by("dev-01", ATTESTATION, **POLICY)
    await services.enroll_by("dev-02", ATTESTATION, **POLICY)
    wish = request("dev-02", extensions=[x509.BasicConstraints(ca=True, path_length=None)])
    good, refused = await asyncio.gather(
        register(services, encoded(request())), register(services, encoded(wish), "dev-02")
    )
    assert (await finished(services, good))["status"] == "assigned"
    assert (await finished(services, refused, "dev-02"))["status"] == "failed"


async def test_a_ca_that_is_busy_holds_up_nobody_else(enrolled: Services) -> None:
    await enrolled.enroll_by("dev-02", ATTESTATION)
    directory = enrolled.add_authority("other")
    with directory.changing():
        waiting = await register(enrolled, encoded(request()))
        other = await enrolled.registrations.register(login("dev-02"), credential(enrolled, "dev-02"), b"")
        running = enrolled.registrations._assignments._running
        await asyncio.wait(running, timeout=30, return_when=asyncio.FIRST_COMPLETED)
        status = await enrolled.registrations.status(login("dev-02"), other.registration.operation_id)
        assert status.registration.status == "assigned"
        held = await enrolled.registrations.status(login(), waiting.registration.operation_id)
        assert held.registration.status == "assigning"
    assert (await finished(enrolled, waiting))["status"] == "assigned"


# As the preview of 2021-11-01 had it, which was abandoned

FORMER = "2021-11-01-preview"


async def register_formerly(services: Services, csr: str, version: str = FORMER) -> Operation:
    sent = json.dumps({"clientCertificateCsr": csr}).encode()
    return await services.registrations.register(login(version=version), credential(services), sent)


@pytest.fixture
async def formerly_enrolled(services: Services) -> Services:
    services.add_authority()
    policy = {"clientCertificateIssuancePolicy": {"certificateAuthorityName": "line-a"}}
    await services.enroll_by("dev-01", ATTESTATION, **policy)
    return services


@pytest.mark.parametrize("csr", [request().public_bytes(Encoding.PEM).decode(), encoded(request())], ids=["pem", "der"])
async def test_a_client_certificate_of_the_former_preview(formerly_enrolled: Services, csr: str) -> None:
    """The request as PEM or as base64 of DER, as two clients had it; the answer is what a device presents, as PEM."""
    services = formerly_enrolled
    state = await finished(services, await register_formerly(services, csr))
    assert state["status"] == "assigned"
    assert "issuedCertificateChain" not in state
    issued, *above = x509.load_pem_x509_certificates(state["issuedClientCertificate"].encode())
    assert issued.public_key() == key("dev-01").public_key()
    assert above == [intermediate().certificate]
    identity, _ = await services.devices.get("hub", "dev-01")
    assert identity.primary_thumbprint == sha1_thumbprint(issued.public_bytes(Encoding.DER))


async def test_a_request_of_the_former_preview_that_is_refused(formerly_enrolled: Services) -> None:
    with pytest.raises(CertificateRequestError):
        await register_formerly(formerly_enrolled, "not a request")
    assert bad(await only_report(formerly_enrolled)) == ["csr.format"]


@pytest.mark.parametrize("version", ["2019-03-31", "2021-10-01", VERSION])
async def test_other_versions_do_not_know_it(formerly_enrolled: Services, version: str) -> None:
    """Unknown members are ignored (dps.md 9.2, 20)."""
    services = formerly_enrolled
    state = await finished(services, await register_formerly(services, "not a request", version))
    assert (state["status"], set(state) & {"issuedCertificateChain", "issuedClientCertificate"}) == ("assigned", set())


async def test_csr_is_none_of_the_former_preview(formerly_enrolled: Services) -> None:
    with pytest.raises(CertificateRequestError):
        await formerly_enrolled.registrations.register(
            login(version=FORMER), credential(formerly_enrolled), body(encoded(request()))
        )
    assert bad(await only_report(formerly_enrolled)) == ["csr.api-version"]


async def test_a_lookup_asks_for_no_certificate(formerly_enrolled: Services) -> None:
    sent = json.dumps({"clientCertificateCsr": encoded(request())}).encode()
    with pytest.raises(ArgumentInvalidError):
        await formerly_enrolled.registrations.require_credential(
            login(version=FORMER), credential(formerly_enrolled), sent
        )
