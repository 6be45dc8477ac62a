"""Registrations as operations: who is judged how, what is written, what is resumed."""

import asyncio
import time

import msgspec
import pytest
from tests.support.fix_pki import Identity, ca_leaf, self_signed
from tests.support.fix_services import ID_SCOPE, Services, build_services

from muster.domain.credential import Credential
from muster.domain.errors import (
    ArgumentInvalidError,
    CaCertificateNotFoundError,
    InvalidCertificateError,
    RegistrationNotFoundError,
    UnauthorizedAccessError,
)
from muster.domain.timestamp import DAY
from muster.dps.attestations import DeviceLogin
from muster.dps.registrations import Operation

DEVICE = self_signed("dev-01")


def device_time() -> int:
    """Now, by the machine's clock: the certificates of the fixtures are made then."""
    return time.time_ns() // 1000


def login(registration_id: str = "dev-01", id_scope: str = ID_SCOPE) -> DeviceLogin:
    return DeviceLogin(id_scope, registration_id)


def credential(*identities: Identity) -> Credential:
    return Credential(tuple(identity.certificate for identity in identities), "", "127.0.0.1:5000 MQTT TLSv1.2")


async def finished(services: Services, operation: Operation, registration_id: str = "dev-01") -> Operation:
    """What the device sees once nothing is being assigned any more."""
    await services.registrations.stop(within=60)
    return await services.registrations.status(login(registration_id), operation.registration.operation_id)


async def test_an_enrolled_device_is_assigned(services: Services) -> None:
    services.clock.now = device_time()
    await services.enroll("dev-01", DEVICE.certificate_pem.decode())

    first = await services.registrations.register(
        login(), credential(DEVICE), b'{"registrationId":"dev-01","payload":null}'
    )
    assert first.registration.status == "assigning"
    last = await finished(services, first)

    assert last.registration.status == "assigned"
    assert last.registration.substatus == "initialAssignment"
    assert last.hub_host == "hub.example.net"
    assert last.registration.device_id == "dev-01"
    identity, _ = await services.devices.get("hub", "dev-01")
    assert identity.authentication_type == "selfSigned"
    assert identity.primary_thumbprint is not None
    assert identity.status == "enabled"


@pytest.fixture
async def enrolled(services: Services) -> Services:
    services.clock.now = device_time()
    await services.enroll("dev-01", DEVICE.certificate_pem.decode())
    return services


async def test_the_initial_twin_is_there_with_the_assignment(services: Services) -> None:
    services.clock.now = device_time()
    twin = {"tags": {"site": "A"}, "properties": {"desired": {"interval": 30, "list": [1, 2]}}}
    await services.enroll("dev-01", DEVICE.certificate_pem.decode(), initialTwin=twin, deviceId="pump")
    operation = await services.registrations.register(login(), credential(DEVICE), b"")
    last = await finished(services, operation)

    assert last.registration.device_id == "pump"
    view = await services.twin("pump")
    assert view["tags"] == {"site": "A"}
    desired = view["properties"]["desired"]
    assert desired["interval"] == 30
    assert desired["$version"] == 1
    assert desired["$metadata"]["interval"]["$lastUpdatedVersion"] == 1


async def test_a_second_registration_keeps_identity_and_twin(enrolled: Services) -> None:
    first = await finished(enrolled, await enrolled.registrations.register(login(), credential(DEVICE), b""))
    before, _ = await enrolled.devices.get("hub", "dev-01")
    second = await finished(enrolled, await enrolled.registrations.register(login(), credential(DEVICE), b""))
    after, _ = await enrolled.devices.get("hub", "dev-01")

    assert second.registration.operation_id != first.registration.operation_id
    assert second.registration.operation_id.split(".")[1] == first.registration.operation_id.split(".")[1]
    assert second.registration.created == first.registration.created
    assert after.generation_id == before.generation_id
    assert after.etag == before.etag, "the same credential is no change"


@pytest.mark.parametrize(
    ("certificates", "days", "check", "error"),
    [
        ((), 0, "x509.certificate-presented", InvalidCertificateError),
        ((self_signed("another"),), 0, "x509.thumbprint", InvalidCertificateError),
        ((DEVICE,), 4000, "x509.not-after", InvalidCertificateError),
        ((DEVICE,), -4000, "x509.not-before", InvalidCertificateError),
    ],
)
async def test_a_refusal_leaves_a_report(
    enrolled: Services,
    certificates: tuple[Identity, ...],
    days: int,
    check: str,
    error: type[Exception],
) -> None:
    enrolled.clock.advance(days * DAY)
    with pytest.raises(error) as caught:
        await enrolled.registrations.register(login(), credential(*certificates), b"")

    tracking_id = caught.value.tracking_id  # type: ignore[attr-defined]  # every ServiceError has one
    (report,) = await enrolled.reports.find(tracking_id)
    assert report.subject == "dev-01"
    assert check in [item.id for item in report.checks if item.outcome == "refused"]
    assert (await enrolled.reports.find("DEV-01"))[0].tracking_id == tracking_id
    assert (await enrolled.reports.latest())[0].tracking_id == tracking_id
    with pytest.raises(RegistrationNotFoundError):
        await enrolled.records.get(ID_SCOPE, "dev-01")


async def test_no_enrollment(services: Services) -> None:
    with pytest.raises(CaCertificateNotFoundError):
        await services.registrations.register(login("nobody"), credential(self_signed("nobody")), b"")
    (report,) = await services.reports.find("nobody")
    assert [item.id for item in report.checks if item.outcome == "refused"] == ["enrollment.exists"]


async def test_an_unknown_id_scope(services: Services) -> None:
    with pytest.raises(UnauthorizedAccessError):
        await services.registrations.register(login(id_scope="0neFFFFFFFF"), credential(DEVICE), b"")
    (report,) = await services.reports.find("dev-01")
    assert [item.id for item in report.checks] == ["id-scope.known"]
    assert ID_SCOPE in report.checks[0].fix


async def test_a_body_that_contradicts_the_login(enrolled: Services) -> None:
    with pytest.raises(ArgumentInvalidError):
        await enrolled.registrations.register(login(), credential(DEVICE), b'{"registrationId":"other"}')
    await enrolled.registrations.register(login(), credential(DEVICE), b'{"registrationId":"DEV-01"}')


async def test_disabled_is_a_status_and_has_a_report(services: Services) -> None:
    services.clock.now = device_time()
    await services.enroll("dev-01", DEVICE.certificate_pem.decode(), provisioningStatus="disabled")
    operation = await services.registrations.register(login(), credential(DEVICE), b"")
    assert operation.registration.status == "assigning"
    last = await finished(services, operation)

    assert last.registration.status == "disabled"
    assert last.registration.etag
    (report,) = await services.reports.find("dev-01")
    assert report.verdict == "disabled"
    assert report.tracking_id == operation.tracking_id
    assert await services.devices.find("hub", "dev-01") is None


async def test_a_hub_that_is_not_linked_any_more_fails_the_registration(enrolled: Services) -> None:
    row = await enrolled.database.fetch_one("SELECT document FROM individual_enrollment")
    assert row is not None
    document = msgspec.json.decode(row[0]) | {"iotHubs": ["gone.example.net"]}

    async def unlink(tx):
        await tx.execute(
            "UPDATE individual_enrollment SET document = :document", document=msgspec.json.encode(document).decode()
        )

    await enrolled.database.transact(unlink)
    last = await finished(enrolled, await enrolled.registrations.register(login(), credential(DEVICE), b""))

    assert last.registration.status == "failed"
    assert last.registration.error_code == 400210
    assert "gone.example.net" in (last.registration.error_message or "")
    (report,) = await enrolled.reports.find("dev-01")
    assert report.verdict == "failed"


async def test_what_a_stop_interrupts_is_finished_at_the_next_start(enrolled: Services) -> None:
    # A process that ends between the answer and the assignment leaves just this row.
    enrolled.registrations._assignments.begin = lambda *_args: None  # type: ignore[method-assign]  # the moment of the kill
    operation = await enrolled.registrations.register(login(), credential(DEVICE), b"")
    assert (await finished(enrolled, operation)).registration.status == "assigning"

    again = await build_services(enrolled.database, enrolled.clock)
    assert await again.registrations.start() == 1
    assert (await finished(again, operation)).registration.status == "assigned"
    assert await again.devices.find("hub", "dev-01") is not None
    assert await again.registrations.start() == 0


async def test_registering_again_while_assigning_is_the_same_operation(enrolled: Services) -> None:
    operations = await asyncio.gather(
        *(enrolled.registrations.register(login(), credential(DEVICE), b"") for _ in range(8))
    )
    await enrolled.registrations.stop(within=60)
    stored = await enrolled.records.get(ID_SCOPE, "dev-01")
    assert stored.status == "assigned"
    assert stored.operation_id in {operation.registration.operation_id for operation in operations}


async def test_a_changed_device_id_counts_after_the_record_is_deleted(enrolled: Services) -> None:
    await finished(enrolled, await enrolled.registrations.register(login(), credential(DEVICE), b""))
    await enrolled.enroll("dev-01", DEVICE.certificate_pem.decode(), deviceId="renamed")
    same = await finished(enrolled, await enrolled.registrations.register(login(), credential(DEVICE), b""))
    assert same.registration.device_id == "dev-01"

    await enrolled.records.delete(ID_SCOPE, "dev-01", None)
    renamed = await finished(enrolled, await enrolled.registrations.register(login(), credential(DEVICE), b""))
    assert renamed.registration.device_id == "renamed"
    assert await enrolled.devices.find("hub", "dev-01") is not None, "the old device stays"


async def test_a_warning_is_reported_and_does_not_refuse(services: Services) -> None:
    services.clock.now = device_time()
    device = ca_leaf("dev-01")
    await services.enroll("dev-01", device.certificate_pem.decode())
    last = await finished(services, await services.registrations.register(login(), credential(device), b""))
    assert last.registration.status == "assigned"
    (report,) = await services.reports.find("dev-01")
    assert report.verdict == "warned"
    assert "x509.basic-constraints" in [item.id for item in report.checks if item.outcome == "warned"]


async def test_reports_hold_no_secrets(enrolled: Services) -> None:
    secret = "SharedAccessSignature sr=x&sig=c2VjcmV0&se=1&skn=registration"
    with pytest.raises(UnauthorizedAccessError):
        await enrolled.registrations.register(
            login(), Credential((), secret, "peer"), b'{"payload":{"password":"hunter2"}}'
        )
    (report,) = await enrolled.reports.find("dev-01")
    text = msgspec.json.encode(report).decode()
    assert "c2VjcmV0" not in text
    assert "hunter2" not in text


async def test_a_warning_and_then_a_failure_share_one_report(services: Services) -> None:
    services.clock.now = device_time()
    device = ca_leaf("dev-01")
    await services.enroll("dev-01", device.certificate_pem.decode())

    async def unlink(tx):
        await tx.execute("DELETE FROM linked_hub")

    await services.database.transact(unlink)
    await services.provisioning.load()
    operation = await services.registrations.register(login(), credential(device), b"")
    last = await finished(services, operation)
    assert last.registration.status == "failed"
    (report,) = await services.reports.find("dev-01")
    assert (report.verdict, report.tracking_id) == ("failed", operation.tracking_id)
