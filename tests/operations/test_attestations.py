"""Which enrollment decides, and by which mechanism: symmetric keys, groups, and what each refusal says."""

import base64
from typing import Any

import pytest
from tests.support.fix_pki import chain_leaf, intermediate, root, self_signed
from tests.support.fix_services import ID_SCOPE, KEY, Services

from muster.domain.credential import Credential
from muster.domain.errors import (
    ArgumentInvalidError,
    CaCertificateNotFoundError,
    InvalidCertificateError,
    ServiceError,
    UnauthorizedAccessError,
)
from muster.domain.sas import create_token, derive_device_key
from muster.domain.timestamp import DAY, SECOND
from muster.dps.attestations import DeviceLogin
from muster.dps.registrations import Operation

OTHER_KEY = base64.b64encode(bytes(range(32, 64))).decode()
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": OTHER_KEY}}


def token(services: Services, registration_id: str, key: str, *, key_name: str = "registration") -> Credential:
    expiry = services.clock() // SECOND + 600
    text = create_token(f"{ID_SCOPE}/registrations/{registration_id}", key, expiry, key_name)
    return Credential((), text, "127.0.0.1:5000 MQTT TLSv1.2")


async def register(services: Services, registration_id: str, credential: Credential) -> Operation:
    login = DeviceLogin(ID_SCOPE, registration_id)
    operation = await services.registrations.register(login, credential, b"")
    await services.registrations.stop(within=60)
    return await services.registrations.status(login, operation.registration.operation_id)


async def refused(services: Services, registration_id: str, credential: Credential) -> tuple[ServiceError, list[str]]:
    with pytest.raises(ServiceError) as caught:
        await register(services, registration_id, credential)
    (report,) = await services.reports.find(caught.value.tracking_id or "")
    return caught.value, [item.id for item in report.checks if item.outcome == "refused"]


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
@pytest.mark.parametrize("key_name", ["registration", ""])
async def test_an_individual_symmetric_key(services: Services, key: str, key_name: str) -> None:
    await services.enroll_by("dev-01", SYMMETRIC)
    done = await register(services, "dev-01", token(services, "dev-01", key, key_name=key_name))
    assert done.registration.status == "assigned"
    assert done.registration.attestation == {"symmetricKey": {}}
    identity, _ = await services.devices.get("hub", "dev-01")
    assert (identity.authentication_type, identity.keys) == ("sas", (KEY, OTHER_KEY))


async def test_keys_are_made_when_none_are_sent(services: Services) -> None:
    enrollment = await services.enroll_by("dev-01", {"type": "symmetricKey"})
    assert [len(base64.b64decode(key)) for key in enrollment.mechanism.keys] == [64, 64]
    again = await services.enroll_by("dev-01", {"type": "symmetricKey"})
    assert again.mechanism.keys == enrollment.mechanism.keys, "an update without keys keeps them"


@pytest.mark.parametrize(
    ("change", "check"),
    [
        ({"key": base64.b64encode(bytes(32)).decode()}, "sas.signature"),
        ({"registration_id": "dev-02"}, "sas.audience"),
        ({"key_name": "owner"}, "sas.policy"),
    ],
)
async def test_a_wrong_token(services: Services, change: dict[str, Any], check: str) -> None:
    await services.enroll_by("dev-01", SYMMETRIC)
    arguments = {"registration_id": "dev-01", "key": KEY, **change}
    error, checks = await refused(services, "dev-01", token(services, **arguments))
    assert isinstance(error, UnauthorizedAccessError)
    assert checks == [check]


async def test_no_token_and_an_expired_one(services: Services) -> None:
    await services.enroll_by("dev-01", SYMMETRIC)
    assert (await refused(services, "dev-01", Credential((), "", "peer")))[1] == ["sas.format"]
    old = token(services, "dev-01", KEY)
    services.clock.advance(DAY)
    assert (await refused(services, "dev-01", old))[1] == ["sas.expiry"]


async def test_a_group_by_derived_keys(services: Services) -> None:
    await services.enroll_group("other", {"type": "symmetricKey"})
    await services.enroll_group("line-a", SYMMETRIC, initialTwin={"tags": {"line": "a"}})
    for registration_id, group_key in (("Pump-1", KEY), ("pump-2", OTHER_KEY)):
        credential = token(services, registration_id, derive_device_key(group_key, registration_id))
        done = await register(services, registration_id, credential)
        assert done.registration.status == "assigned"
        assert done.registration.device_id == registration_id, "a group's device is called as it calls itself"
        assert done.registration.attestation == {"symmetricKey": {"enrollmentGroupId": "line-a"}}
    identity, _ = await services.devices.get("hub", "pump-2")
    assert identity.keys == (derive_device_key(KEY, "pump-2"), derive_device_key(OTHER_KEY, "pump-2"))
    assert (await services.twin("pump-2"))["tags"] == {"line": "a"}
    found, continuation = await services.records.page(ID_SCOPE, "line-a", None, 1)
    assert [item.registration_id for item in found] == ["Pump-1"]
    found, continuation = await services.records.page(ID_SCOPE, "line-a", continuation, 1)
    assert ([item.registration_id for item in found], continuation) == (["pump-2"], None)


async def test_a_key_derived_over_the_lower_case_id_counts_too(services: Services) -> None:
    await services.enroll_group("line-a", SYMMETRIC)
    done = await register(services, "PUMP-1", token(services, "PUMP-1", derive_device_key(KEY, "pump-1")))
    assert done.registration.status == "assigned"


async def test_the_groups_own_key_is_no_devices_key(services: Services) -> None:
    await services.enroll_group("line-a", SYMMETRIC)
    error, checks = await refused(services, "pump-1", token(services, "pump-1", KEY))
    assert error.status == 401
    assert checks == ["sas.derived-key"]


@pytest.mark.parametrize("registration_id", ["dev 01", "dev/01", "dev\x00", "d" * 129, ""])
async def test_no_key_makes_an_illegal_registration_id_legal(services: Services, registration_id: str) -> None:
    await services.enroll_group("line-1", SYMMETRIC)
    credential = token(services, registration_id, derive_device_key(KEY, registration_id))
    error, checks = await refused(services, registration_id, credential)
    assert isinstance(error, ArgumentInvalidError)
    assert checks == ["registration-id.rules"]


async def test_a_disabled_individual_enrollment_blocks_a_device_of_a_group(services: Services) -> None:
    await services.enroll_group("line-a", SYMMETRIC)
    await services.enroll_by("pump-1", SYMMETRIC, provisioningStatus="disabled")
    _, checks = await refused(services, "pump-1", token(services, "pump-1", derive_device_key(KEY, "pump-1")))
    assert checks[0] == "sas.signature", "the individual enrollment alone decides"
    await services.enrollments.delete(ID_SCOPE, "pump-1", None)
    done = await register(services, "pump-1", token(services, "pump-1", derive_device_key(KEY, "pump-1")))
    assert done.registration.status == "assigned"


async def test_a_disabled_group(services: Services) -> None:
    await services.enroll_group("line-a", SYMMETRIC, provisioningStatus="disabled")
    done = await register(services, "pump-1", token(services, "pump-1", derive_device_key(KEY, "pump-1")))
    assert done.registration.status == "disabled"
    assert (await services.reports.find("pump-1"))[0].verdict == "disabled"


async def test_the_wrong_mechanism(services: Services) -> None:
    device = self_signed("dev-01")
    await services.enroll("dev-01", device.certificate_pem.decode())
    error, checks = await refused(services, "dev-01", token(services, "dev-01", KEY))
    assert isinstance(error, UnauthorizedAccessError)
    assert checks == ["enrollment.attestation"]


# X.509 groups


def certificate(*ders: bytes) -> Credential:
    return Credential(ders, "", "127.0.0.1:5000 MQTT TLSv1.2")


def signing(*ders: bytes) -> dict[str, Any]:
    slots = dict(zip(("primary", "secondary"), ders, strict=False))
    bodies = {slot: {"certificate": base64.b64encode(der).decode()} for slot, der in slots.items()}
    return {"type": "x509", "x509": {"signingCertificates": bodies}}


@pytest.fixture
async def plant(services: Services) -> Services:
    """The root of the plant is uploaded and verified; the clock is that of the certificates."""
    import time

    services.clock.now = time.time_ns() // 1000
    pem = root().certificate_pem.decode()
    await services.authorities.put(ID_SCOPE, "plant-root", pem, is_verified=True, if_match=None)
    return services


async def test_a_group_by_its_intermediate(plant: Services) -> None:
    leaf = chain_leaf("pump-1")
    await plant.enroll_group("line-a", signing(intermediate().certificate))
    done = await register(plant, "pump-1", certificate(leaf.certificate, *leaf.chain))
    assert done.registration.status == "assigned"
    assert done.registration.attestation == {"x509": {"enrollmentGroupId": "line-a"}}
    identity, _ = await plant.devices.get("hub", "pump-1")
    assert identity.authentication_type == "selfSigned", "not certificateAuthority, even for a group"


async def test_a_group_by_reference_to_its_root(plant: Services) -> None:
    leaf = chain_leaf("pump-1")
    await plant.enroll_group("plant", {"type": "x509", "x509": {"caReferences": {"primary": "Plant-Root"}}})
    done = await register(plant, "pump-1", certificate(leaf.certificate, *leaf.chain))
    assert done.registration.status == "assigned"


async def test_the_deepest_group_decides_also_when_it_is_disabled(plant: Services) -> None:
    leaf = chain_leaf("pump-1")
    await plant.enroll_group("plant", signing(root().certificate))
    await plant.enroll_group("line-a", signing(intermediate().certificate), provisioningStatus="disabled")
    done = await register(plant, "pump-1", certificate(leaf.certificate, *leaf.chain))
    assert done.registration.status == "disabled"
    assert done.registration.enrollment_group_id == "line-a"


async def test_a_missing_intermediate(plant: Services) -> None:
    leaf = chain_leaf("pump-1")
    await plant.enroll_group("plant", signing(root().certificate))
    error, checks = await refused(plant, "pump-1", certificate(leaf.certificate))
    assert isinstance(error, CaCertificateNotFoundError)
    assert checks
    (report,) = await plant.reports.find("pump-1")
    assert "Line A Intermediate" in " ".join(item.detail for item in report.checks)


async def test_an_unverified_root(services: Services) -> None:
    import time

    services.clock.now = time.time_ns() // 1000
    leaf = chain_leaf("pump-1")
    await services.enroll_group("plant", signing(root().certificate))
    error, _ = await refused(services, "pump-1", certificate(leaf.certificate, *leaf.chain))
    assert isinstance(error, CaCertificateNotFoundError)


async def test_a_registration_id_that_is_not_the_common_name(plant: Services) -> None:
    leaf = chain_leaf("pump-1")
    await plant.enroll_group("plant", signing(root().certificate))
    error, checks = await refused(plant, "pump-2", certificate(leaf.certificate, *leaf.chain))
    assert isinstance(error, InvalidCertificateError)
    assert "x509.common-name" in checks


async def test_an_expired_chain(plant: Services) -> None:
    leaf = chain_leaf("pump-1")
    await plant.enroll_group("plant", signing(root().certificate))
    plant.clock.advance(5000 * DAY)
    error, _ = await refused(plant, "pump-1", certificate(leaf.certificate, *leaf.chain))
    assert isinstance(error, InvalidCertificateError)
