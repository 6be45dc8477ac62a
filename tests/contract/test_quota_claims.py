"""The last places of a quota, claimed by several writers at once, on both databases: none is given twice."""

import asyncio
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import pytest

from muster.domain.authority import MAXIMUM_AUTHORITIES
from muster.domain.credential import Credential
from muster.domain.errors import QuotaExceededError
from muster.domain.sas import create_token, derive_device_key
from muster.domain.timestamp import SECOND
from muster.dps.attestations import DeviceLogin
from muster.dps.quotas import Quota, Quotas
from muster.store.database import Database
from muster.store.migration import migrate
from tests.support.fix_pki import root, self_signed
from tests.support.fix_services import ID_SCOPE, KEY, Services, build_services
from tests.support.fix_services import Clock as MovableClock

WORKERS = 12
ROOM = 5
BY_KEY = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY}}
BY_CERTIFICATE = {
    "type": "x509",
    "x509": {"signingCertificates": {"primary": {"certificate": self_signed("line").certificate_pem.decode()}}},
}


@pytest.fixture
async def services(database: Database) -> Services:
    clock = MovableClock()
    await migrate(database, clock())
    quotas = Quotas(registrations=ROOM, individual_enrollments=ROOM, groups_of_a_type=ROOM)
    return await build_services(database, clock, quotas=quotas)


async def outcomes(claims: list[Awaitable[object]]) -> Counter[str]:
    """How many of them went well, and what the others raised."""
    results = await asyncio.gather(*claims, return_exceptions=True)
    return Counter(type(item).__name__ if isinstance(item, Exception) else "taken" for item in results)


EXACTLY = {"taken": ROOM, QuotaExceededError.__name__: WORKERS - ROOM}


async def test_individual_enrollments(services: Services) -> None:
    assert await outcomes([services.enroll_by(f"dev-{n}", BY_KEY) for n in range(WORKERS)]) == EXACTLY
    stored = [item.id for item in (await services.enrollments.page(ID_SCOPE)).enrollments]
    await services.enroll_by(stored[0], BY_KEY)  # a replacement needs no room
    await services.enrollments.delete(ID_SCOPE, stored[0], None)
    await services.enroll_by("another", BY_KEY)


@pytest.mark.parametrize("other", [BY_KEY, BY_CERTIFICATE], ids=["x509", "symmetricKey"])
async def test_groups_of_a_type(services: Services, other: dict[str, Any]) -> None:
    attestation = BY_CERTIFICATE if other is BY_KEY else BY_KEY
    assert await outcomes([services.enroll_group(f"group-{n}", attestation) for n in range(WORKERS)]) == EXACTLY
    await services.enroll_group("of-the-other-type", other)
    with pytest.raises(QuotaExceededError, match=f"There are {ROOM} enrollment groups of type"):
        await services.enroll_group("of-the-other-type", attestation)


async def test_ca_certificates(services: Services) -> None:
    pem = root().certificate_pem.decode()
    for number in range(MAXIMUM_AUTHORITIES - ROOM):
        await services.authorities.put(ID_SCOPE, f"before-{number}", pem, is_verified=True, if_match=None)
    claims = [
        services.authorities.put(ID_SCOPE, f"ca-{number}", pem, is_verified=True, if_match=None)
        for number in range(WORKERS)
    ]
    assert await outcomes(list(claims)) == EXACTLY


async def test_registrations(services: Services) -> None:
    """Two groups, so that they do not take turns at a group's row."""
    other_key = derive_device_key(KEY, "another group's")
    await services.enroll_group("line-a", BY_KEY)
    await services.enroll_group("line-b", {**BY_KEY, "symmetricKey": {"primaryKey": other_key}})

    def register(number: int) -> Awaitable[object]:
        device = f"dev-{number}"
        key = derive_device_key(KEY if number % 2 else other_key, device)
        token = create_token(
            f"{ID_SCOPE}/registrations/{device}", key, services.clock.now // SECOND + 60, "registration"
        )
        credential = Credential((), token, "127.0.0.1:1 MQTT TLSv1.2")
        return services.registrations.register(DeviceLogin(ID_SCOPE, device), credential, b"")

    assert await outcomes([register(number) for number in range(WORKERS)]) == EXACTLY
    await services.registrations.stop(within=60)
    stored = [number for number in range(WORKERS) if await services.records.find(ID_SCOPE, f"dev-{number}")]
    assert len(stored) == ROOM
    await register(stored[0])  # who is registered may come again
    await services.registrations.stop(within=60)
    await services.records.delete(ID_SCOPE, f"dev-{stored[0]}", None)
    await register(stored[0])
    await services.registrations.stop(within=60)


async def test_far_below_a_maximum_an_older_count_is_enough(services: Services) -> None:
    quota = Quota(services.database, services.clock, "registration", "registrations", 1_000_000)
    assert not await quota.is_near(ID_SCOPE)
    nearer = Quota(services.database, services.clock, "registration", "registrations", 100_000)
    assert await nearer.is_near(ID_SCOPE)


async def test_a_count_is_taken_again_after_some_seconds(services: Services) -> None:
    quota = Quota(services.database, services.clock, "individual_enrollment", "enrollments", 100_002)
    assert not await quota.is_near(ID_SCOPE)
    for name in ("a", "b"):
        await services.enroll_by(name, BY_KEY)
    assert not await quota.is_near(ID_SCOPE)
    services.clock.advance(10 * SECOND)
    assert await quota.is_near(ID_SCOPE)
