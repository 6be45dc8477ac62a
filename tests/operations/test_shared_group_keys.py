"""Two enrollment groups with one key: the operator is warned, and so is who reads what became of a device."""

from typing import Any

import pytest
from tests.support.fix_rest import DPS_HOST, Answer, RestClient
from tests.support.fix_services import ID_SCOPE, KEY, Services

from muster.domain.credential import Credential
from muster.domain.report import Outcome, Report
from muster.domain.sas import create_token, derive_device_key
from muster.domain.timestamp import SECOND
from muster.dps.attestations import DeviceLogin

OTHER_KEY = derive_device_key(KEY, "another one")
THIRD_KEY = derive_device_key(KEY, "a third one")
HEADER = "x-muster-tracking-id"


async def put(rest: RestClient, group_id: str, primary: str, secondary: str, **members: Any) -> Answer:
    keys = {"primaryKey": primary, "secondaryKey": secondary}
    body = {"enrollmentGroupId": group_id, "attestation": {"type": "symmetricKey", "symmetricKey": keys}, **members}
    answer = await rest.request("PUT", f"/enrollmentGroups/{group_id}?api-version=2021-10-01", body, host=DPS_HOST)
    assert answer.status == 200
    return answer


async def warned(services: Services, answer: Answer) -> Report:
    (report,) = await services.reports.find(answer.headers[HEADER])
    assert report.verdict == "warned"
    return report


@pytest.mark.parametrize("keys", [(KEY, THIRD_KEY), (THIRD_KEY, KEY), (KEY, KEY)])
async def test_a_key_in_either_place(rest: RestClient, services: Services, keys: tuple[str, str]) -> None:
    assert HEADER not in (await put(rest, "line-a", KEY, OTHER_KEY)).headers
    report = await warned(services, await put(rest, "line-b", *keys))
    assert (report.operation, report.subject, report.answer) == ("write-group", "line-b", "accepted")
    (item,) = report.checks
    assert (item.id, item.outcome) == ("group.key-unique", Outcome.WARNED)
    assert item.detail == 'enrollment group "line-b" shares a symmetric key with "line-a"'
    assert "muster group update line-b --primary-key" in item.fix
    assert not any(key in str(report) for key in (KEY, OTHER_KEY, THIRD_KEY))


async def test_the_answer_is_azures(rest: RestClient) -> None:
    alone = await put(rest, "line-a", KEY, OTHER_KEY)
    shared = await put(rest, "line-b", KEY, OTHER_KEY)
    assert set(alone.json) == set(shared.json)


async def test_an_update_warns_and_a_key_of_its_own_ends_it(rest: RestClient, services: Services) -> None:
    await put(rest, "line-a", KEY, OTHER_KEY)
    await put(rest, "line-b", THIRD_KEY, THIRD_KEY)
    assert HEADER not in (await put(rest, "line-a", KEY, OTHER_KEY, provisioningStatus="disabled")).headers
    await warned(services, await put(rest, "line-b", OTHER_KEY, THIRD_KEY))
    assert HEADER not in (await put(rest, "line-b", THIRD_KEY, THIRD_KEY)).headers


async def test_many_are_named_briefly(rest: RestClient, services: Services) -> None:
    for number in range(5):
        answer = await put(rest, f"line-{number}", KEY, KEY)
    (item,) = (await warned(services, answer)).checks
    assert item.detail.endswith('shares a symmetric key with "line-0", "line-1", "line-2" and 1 more')


async def register(services: Services, registration_id: str) -> list[Report]:
    """Register with the key derived from ``KEY``; the reports of it."""
    key = derive_device_key(KEY, registration_id)
    token = create_token(f"{ID_SCOPE}/registrations/{registration_id}", key, services.clock.now // SECOND + 60)
    credential = Credential((), token, "127.0.0.1:1 MQTT TLSv1.2")
    await services.registrations.register(DeviceLogin(ID_SCOPE, registration_id), credential, b"")
    await services.registrations.stop(within=60)
    return await services.reports.find(registration_id)


async def test_a_device_that_registers_by_such_a_key(rest: RestClient, services: Services) -> None:
    await put(rest, "line-b", KEY, OTHER_KEY)
    assert await register(services, "dev-01") == []
    await put(rest, "line-a", KEY, THIRD_KEY)
    (report,) = await register(services, "dev-02")
    assert report.verdict == "warned"
    assert [item.id for item in report.checks if item.outcome is Outcome.WARNED] == ["group.key-unique"]
    registration = await services.records.get(ID_SCOPE, "dev-02")
    assert registration.enrollment_group_id == "line-a"
