"""Allocation with several hubs: policies, re-provisioning with and without data, webhooks and their failures."""

import re
from typing import Any

import msgspec
import pytest
from tests.support.fix_services import ID_SCOPE, KEY, Services

from muster.domain.allocation import WebhookAnswer
from muster.domain.credential import Credential
from muster.domain.enrollment import EnrollmentBody
from muster.domain.errors import CustomAllocationFailedError
from muster.domain.sas import create_token
from muster.domain.timestamp import SECOND
from muster.domain.twin import InitialProperties, InitialTwin
from muster.dps.attestations import DeviceLogin
from muster.dps.registrations import Operation

SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
HOOK = {"webhookUrl": "https://hook.example.net/api?code=secret", "apiVersion": "2021-10-01"}


@pytest.fixture
async def hubs(services: Services) -> Services:
    """Three hubs: ``hub``, ``east`` and ``west``."""
    east = await services.hubs.ensure("east", "east.example.net", partition_count=4, well_known_key=KEY)
    west = await services.hubs.ensure("west", "west.example.net", partition_count=4, well_known_key=KEY)
    await services.provisioning.ensure(ID_SCOPE, "dps.example.net", (east, west))
    return services


async def register(services: Services, registration_id: str = "dev-01", body: bytes = b"") -> Operation:
    login = DeviceLogin(ID_SCOPE, registration_id)
    text = create_token(f"{ID_SCOPE}/registrations/{registration_id}", KEY, services.clock() // SECOND + 600)
    operation = await services.registrations.register(login, Credential((), text, "peer"), body)
    await services.registrations.stop(within=60)
    return await services.registrations.status(login, operation.registration.operation_id)


async def where(services: Services, device_id: str = "dev-01") -> list[str]:
    return [hub.name for hub in services.hubs.all if await services.devices.find(hub.name, device_id) is not None]


async def test_static_allocation(hubs: Services) -> None:
    await hubs.enroll_by("dev-01", SYMMETRIC, allocationPolicy="static", iotHubs=["west.example.net"])
    assert (await register(hubs)).hub_host == "west.example.net"
    assert await where(hubs) == ["west"]


async def test_the_legacy_hub_name_is_static(hubs: Services) -> None:
    await hubs.enroll_by("dev-01", SYMMETRIC, iotHubHostName="east.example.net")
    assert (await register(hubs)).hub_host == "east.example.net"


async def test_hashed_allocation_spreads_and_is_stable(hubs: Services) -> None:
    found = set()
    for number in range(12):
        registration_id = f"dev-{number}"
        await hubs.enroll_by(registration_id, SYMMETRIC)
        first = await register(hubs, registration_id)
        assert (await register(hubs, registration_id)).hub_host == first.hub_host
        found.add(first.hub_host)
    assert len(found) > 1


@pytest.mark.parametrize(
    ("policy", "substatus", "tags", "reported"),
    [
        ({"updateHubAssignment": True, "migrateDeviceData": True}, "deviceDataMigrated", {"own": 1}, {"fw": "2"}),
        ({"updateHubAssignment": True, "migrateDeviceData": False}, "deviceDataReset", {"initial": 1}, {}),
    ],
)
async def test_a_device_that_moves(
    hubs: Services, policy: dict[str, bool], substatus: str, tags: dict[str, int], reported: dict[str, str]
) -> None:
    twin = {"tags": {"initial": 1}}
    first = await enroll_on(hubs, "east", reprovisionPolicy=policy, initialTwin=twin)
    assert first.registration.substatus == "initialAssignment"
    await change_twin(hubs, "east")

    moved = await enroll_on(hubs, "west", reprovisionPolicy=policy, initialTwin=twin)
    assert moved.hub_host == "west.example.net"
    assert moved.registration.substatus == substatus
    assert await where(hubs) == ["west"]
    view = await hubs.twin("dev-01", hub="west")
    assert view.get("tags", {}) == tags
    assert {key: value for key, value in view["properties"]["reported"].items() if key[0] != "$"} == reported


async def test_without_a_reprovision_policy_a_device_stays(hubs: Services) -> None:
    """Enrollments of old versions of the API have none (dps.md 5.4)."""
    for hub in ("east", "west"):
        static = {"allocationPolicy": "static", "iotHubs": [f"{hub}.example.net"]}
        body = msgspec.convert({"registrationId": "dev-01", "attestation": SYMMETRIC, **static}, EnrollmentBody)
        await hubs.enrollments.put(hubs.service, "dev-01", body, None, "2018-04-01")
        done = await register(hubs)
        assert (done.hub_host, done.registration.substatus) == ("east.example.net", "initialAssignment")
    assert await where(hubs) == ["east"]


async def enroll_on(hubs: Services, hub: str, **fields: Any) -> Operation:
    await hubs.enroll_by("dev-01", SYMMETRIC, allocationPolicy="static", iotHubs=[f"{hub}.example.net"], **fields)
    return await register(hubs)


async def change_twin(hubs: Services, hub: str) -> None:
    async def body(tx: Any) -> None:
        await tx.execute(
            "UPDATE twin SET tags = :tags, reported = :reported WHERE hub = :hub AND device_id = 'dev-01'",
            tags='{"own":1}',
            reported='{"fw":"2"}',
            hub=hub,
        )

    await hubs.database.transact(body)


async def test_never_reprovision_stays(hubs: Services) -> None:
    policy = {"updateHubAssignment": False, "migrateDeviceData": False}
    await enroll_on(hubs, "east", reprovisionPolicy=policy)
    stayed = await enroll_on(hubs, "west", reprovisionPolicy=policy)
    assert stayed.hub_host == "east.example.net"
    assert stayed.registration.substatus == "initialAssignment"


async def custom(hubs: Services, answer: WebhookAnswer | Exception, **fields: Any) -> Operation:
    hubs.webhook.answer = answer
    await hubs.enroll_by("dev-01", SYMMETRIC, allocationPolicy="custom", customAllocationDefinition=HOOK, **fields)
    return await register(hubs, body=b'{"payload":{"model":"m3"}}')


async def test_a_webhook_decides(hubs: Services) -> None:
    twin = InitialTwin({"line": "7"}, InitialProperties({"rate": 5}))
    answer = WebhookAnswer("EAST.example.net", twin, {"site": "north"})
    done = await custom(hubs, answer, iotHubs=["east.example.net", "west.example.net"], initialTwin={"tags": {"x": 1}})
    assert done.hub_host == "east.example.net"
    assert done.registration.payload == {"site": "north"}
    assert (await hubs.twin("dev-01", hub="east"))["tags"] == {"line": "7"}

    url, request = hubs.webhook.asked[0]
    assert url == HOOK["webhookUrl"]
    enrollment = request["individualEnrollment"]
    assert enrollment["customAllocationDefinition"]["webhookUrl"] == "https://hook.example.net/api?****"
    assert enrollment["attestation"] == {"type": "symmetricKey"}
    assert re.fullmatch(r'"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"', enrollment["etag"])
    assert request["linkedHubs"] == ["east.example.net", "west.example.net"]
    assert request["deviceRuntimeContext"] == {
        "registrationId": "dev-01",
        "symmetricKey": {},
        "payload": {"model": "m3"},
    }
    assert KEY not in str(request)

    await register(hubs)
    again = hubs.webhook.asked[1][1]["deviceRuntimeContext"]
    assert (again["currentIotHubHostName"], again["currentDeviceId"]) == ("east.example.net", "dev-01")


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (WebhookAnswer(), 400208),
        (WebhookAnswer("elsewhere.example.net"), 400208),
        (CustomAllocationFailedError("Custom allocation failed with status code: 500"), 400207),
    ],
)
async def test_a_webhook_that_does_not_decide(hubs: Services, answer: WebhookAnswer | Exception, code: int) -> None:
    done = await custom(hubs, answer)
    assert (done.registration.status, done.registration.error_code) == ("failed", code)
    (report,) = await hubs.reports.find("dev-01")
    assert report.checks[0].id == "allocation.webhook-answer"
    assert await where(hubs) == []


async def test_a_disabled_enrollment_asks_no_webhook(hubs: Services) -> None:
    done = await custom(hubs, WebhookAnswer("east.example.net"), provisioningStatus="disabled")
    assert done.registration.status == "disabled"
    assert hubs.webhook.asked == []
