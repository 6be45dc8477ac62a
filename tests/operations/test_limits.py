"""Every limit of ``docs/limits.md``, one step over it and right at it, by the name it has there."""

import base64
import json
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.support.fix_arm import SERVICE, ManagementClient
from tests.support.fix_mqtt import MqttClient, MqttClients
from tests.support.fix_pki import root, self_signed
from tests.support.fix_rest import DPS_HOST, Answer, RestClient
from tests.support.fix_services import ID_SCOPE, KEY, Services

from muster.domain.sas import create_token
from muster.domain.throttle import AZURE_RATES, Rate, Rates
from muster.domain.timestamp import SECOND
from muster.dps.quotas import Quotas
from muster.wire.mqtt_packets import Puback, Publish

DOCUMENT = (Path(__file__).parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
ROWS = dict(re.findall(r"^\| `([a-z0-9-]+)` \|[^|]*\| ([0-9 ]+) \|", DOCUMENT, re.MULTILINE))
VERSION = "api-version=2021-10-01"
HUB_STRING = f"HostName=hub.example.net;SharedAccessKeyName=iothubowner;SharedAccessKey={KEY}"
BY_KEY: dict[str, Any] = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
PEM = root().certificate_pem.decode()
BY_CERTIFICATE = {"type": "x509", "x509": {"signingCertificates": {"primary": {"certificate": PEM}}}}
ROOM = 2


@pytest.fixture
def quotas() -> Quotas:
    """Small enough to fill."""
    return Quotas(registrations=ROOM, individual_enrollments=ROOM + 1, groups_of_a_type=ROOM)


@pytest.fixture
def rates() -> Rates:
    return Rates(operations=Rate(100, 60 * SECOND), registrations=Rate(3, 60 * SECOND), polls=Rate(1, 10 * SECOND))


class Asker:
    """Requests of every client of a provisioning service."""

    def __init__(self, services: Services, rest: RestClient, arm: ManagementClient) -> None:
        self.services = services
        self.arm = arm
        self.rest = rest

    async def enroll(self, registration_id: str = "dev-01", **members: object) -> Answer:
        body = {"registrationId": registration_id, "attestation": BY_KEY, **members}
        return await self.rest.request("PUT", f"/enrollments/{registration_id}?{VERSION}", body)

    async def group(self, group_id: str, attestation: object = BY_KEY) -> Answer:
        body = {"enrollmentGroupId": group_id, "attestation": attestation}
        return await self.rest.request("PUT", f"/enrollmentGroups/{group_id}?{VERSION}", body, host=DPS_HOST)

    async def bulk(self, word: str, count: int) -> Answer:
        items = [{"registrationId": f"dev-{n}", "enrollmentGroupId": f"dev-{n}"} for n in range(count)]
        return await self.rest.request("POST", f"/{word}?{VERSION}", {"mode": "delete", word: items}, host=DPS_HOST)

    async def query(self, size: int) -> Answer:
        target = f"/enrollments/query?{VERSION}"
        return await self.rest.request("POST", target, b"{}", x_ms_max_item_count=str(size))

    async def service_body(self, size: int) -> Answer:
        return await self.rest.request("POST", f"/enrollments/query?{VERSION}", b"{}".ljust(size))

    async def device(self, method: str, path: str, body: object, registration_id: str = "dev-01") -> Answer:
        resource = f"{ID_SCOPE}/registrations/{registration_id}"
        token = create_token(resource, KEY, self.services.clock() // SECOND + 600, "registration")
        target = f"/{resource}{path}?{VERSION}"
        return await self.rest.request(method, target, body, host="g.example.net", authorization=token)

    async def register(self, registration_id: str = "dev-01", body: bytes = b"{}") -> Answer:
        answer = await self.device("PUT", "/register", body, registration_id)
        await self.services.registrations.stop(within=60)
        return answer

    async def registered(self) -> str:
        """The operation id of ``dev-01``, which is enrolled."""
        await self.enroll()
        return str((await self.register()).json["operationId"])

    async def upload(self, name: str) -> Answer:
        return await self.arm.request("PUT", f"{SERVICE}/certificates/{name}", {"certificate": PEM})

    async def resource(self, **members: Any) -> Answer:
        current = await self.arm.get()
        body = {**current, **members, "properties": {**current["properties"], **members.get("properties", {})}}
        return await self.arm.request("PUT", SERVICE, body)

    async def link(self, *links: dict[str, Any]) -> Answer:
        return await self.resource(properties={"iotHubs": list(links)})


@pytest.fixture
def asker(services: Services, rest: RestClient, arm: ManagementClient) -> Asker:
    return Asker(services, rest, arm)


def nested(levels: int) -> dict[str, Any]:
    return {"a": nested(levels - 1)} if levels else {}


def filled(size: int) -> dict[str, str]:
    """A section of a twin with ``size`` bytes, names included, and no value longer than is allowed."""
    names = [f"{number:02}" for number in range(size // 4096)]
    rest = size - sum(len(name) + 4000 for name in names)
    return {**dict.fromkeys(names, "x" * 4000), "rest": "x" * (rest - 4)}


def twin(**sections: Any) -> dict[str, Any]:
    return {"initialTwin": {"tags": sections.get("tags", {}), "properties": {"desired": sections.get("desired", {})}}}


def key_of(size: int) -> dict[str, Any]:
    key = base64.b64encode(bytes(size)).decode()
    return {"attestation": {"type": "symmetricKey", "symmetricKey": {"primaryKey": key, "secondaryKey": key}}}


Ask = Callable[[Asker], Awaitable[Answer]]

AT_AND_OVER: dict[str, tuple[Ask, Ask]] = {
    "registration-id": (lambda a: a.enroll("x" * 128), lambda a: a.enroll("x" * 129)),
    "enrollment-group-id": (lambda a: a.group("x" * 128), lambda a: a.group("x" * 129)),
    "device-id": (lambda a: a.enroll(deviceId="x" * 128), lambda a: a.enroll(deviceId="x" * 129)),
    "initial-twin-tags": (
        lambda a: a.enroll(**twin(tags=filled(8 * 1024))),
        lambda a: a.enroll(**twin(tags=filled(8 * 1024 + 1))),
    ),
    "initial-twin-desired": (
        lambda a: a.enroll(**twin(desired=filled(32 * 1024))),
        lambda a: a.enroll(**twin(desired=filled(32 * 1024 + 1))),
    ),
    "initial-twin-depth": (
        lambda a: a.enroll(**twin(desired=nested(10))),
        lambda a: a.enroll(**twin(desired=nested(11))),
    ),
    "initial-twin-string": (
        lambda a: a.enroll(**twin(desired={"a": "x" * 4096})),
        lambda a: a.enroll(**twin(desired={"a": "x" * 4097})),
    ),
    "symmetric-key": (lambda a: a.enroll(**key_of(64)), lambda a: a.enroll(**key_of(65))),
    "bulk-items": (
        lambda a: a.bulk("enrollments", 10),
        lambda a: a.bulk("enrollments", 11),
    ),
    "bulk-group-items": (
        lambda a: a.bulk("enrollmentGroups", 10),
        lambda a: a.bulk("enrollmentGroups", 11),
    ),
    "page-size-zero": (lambda a: a.query(1), lambda a: a.query(0)),
    "page-size": (lambda a: a.query(1000), lambda a: a.query(1001)),
    "service-body": (lambda a: a.service_body(1024 * 1024), lambda a: a.service_body(1024 * 1024 + 1)),
    "ca-certificate-name": (lambda a: a.upload("x" * 256), lambda a: a.upload("x" * 257)),
    "allocation-weight": (
        lambda a: a.link({"connectionString": HUB_STRING, "allocationWeight": 1000}),
        lambda a: a.link({"connectionString": HUB_STRING, "allocationWeight": 1001}),
    ),
    "resource-tags": (
        lambda a: a.resource(tags={str(n): "x" for n in range(50)}),
        lambda a: a.resource(tags={str(n): "x" for n in range(51)}),
    ),
}


def require(answer: Answer, limit: str) -> None:
    """The answer is the documented one, and says something of the limit."""
    status, _, code = ROWS[limit].strip().partition(" ")
    assert answer.status == int(status), answer
    if code:
        document = answer.json
        assert str(document.get("errorCode") or document["code"]) == code
        assert re.search(r"\d|\bone\b", document["message"]), "what is allowed is said"


@pytest.mark.parametrize("limit", AT_AND_OVER)
async def test_of_one_request(asker: Asker, limit: str) -> None:
    at, over = AT_AND_OVER[limit]
    assert (await at(asker)).status in (200, 201)
    require(await over(asker), limit)


async def test_a_page_is_never_larger_than_the_largest(asker: Asker) -> None:
    assert (await asker.query(1001)).headers["x-ms-max-item-count"] == "1000"


async def fill_registrations(asker: Asker) -> Answer:
    for number in range(ROOM + 1):
        await asker.enroll(f"dev-{number}")
    for number in range(ROOM):
        assert (await asker.register(f"dev-{number}")).status == 202
    return await asker.register(f"dev-{ROOM}")


async def fill_enrollments(asker: Asker) -> Answer:
    for number in range(ROOM + 1):
        assert (await asker.enroll(f"dev-{number}")).status == 200
    return await asker.enroll("one-more")


def fill_groups(attestation: object) -> Ask:
    async def fill(asker: Asker) -> Answer:
        for number in range(ROOM):
            assert (await asker.group(f"group-{number}", attestation)).status == 200
        return await asker.group("one-more", attestation)

    return fill


async def fill_authorities(asker: Asker) -> Answer:
    for number in range(25):
        assert (await asker.upload(f"ca-{number}")).status == 200
    return await asker.upload("one-more")


FILLED: dict[str, Ask] = {
    "registrations": fill_registrations,
    "individual-enrollments": fill_enrollments,
    "x509-groups": fill_groups(BY_CERTIFICATE),
    "symmetric-key-groups": fill_groups(BY_KEY),
    "ca-certificates": fill_authorities,
    "linked-hubs": lambda a: a.link(*([{"connectionString": HUB_STRING}] * 51)),
    "provisioning-services": lambda a: a.arm.request("PUT", SERVICE + "2", {"location": "x", "sku": {"name": "S1"}}),
}


@pytest.mark.parametrize("limit", FILLED)
async def test_how_many_there_may_be(asker: Asker, limit: str) -> None:
    require(await FILLED[limit](asker), limit)


def test_the_quotas_are_those_of_the_documentation() -> None:
    quotas = Quotas()
    assert f"`registrations` | {quotas.registrations:,} |" in DOCUMENT
    assert f"`individual-enrollments` | {quotas.individual_enrollments:,} |" in DOCUMENT
    assert f"`x509-groups` | {quotas.groups_of_a_type} |" in DOCUMENT
    assert f"`symmetric-key-groups` | {quotas.groups_of_a_type} |" in DOCUMENT
    assert f"`operations` | {AZURE_RATES.operations}, " in DOCUMENT
    assert f"`registrations-rate` | {AZURE_RATES.registrations}, " in DOCUMENT
    assert f"`polls` | {AZURE_RATES.polls}, " in DOCUMENT


async def test_an_item_of_a_bulk_operation_beyond_a_quota_is_one_of_its_errors(
    asker: Asker, services: Services, rest: RestClient
) -> None:
    items = [{"registrationId": f"dev-{number}", "attestation": BY_KEY} for number in range(ROOM + 3)]
    answer = await rest.request("POST", f"/enrollments?{VERSION}", {"mode": "create", "enrollments": items})
    assert answer.status == 200
    assert not answer.json["isSuccessful"]
    failed = [(item["registrationId"], item["errorCode"]) for item in answer.json["errors"]]
    assert failed == [(f"dev-{ROOM + 1}", 403002), (f"dev-{ROOM + 2}", 403002)]


async def test_a_message_of_a_device(asker: Asker) -> None:
    await asker.enroll()
    assert (await asker.register(body=b"{}".ljust(96 * 1024))).status == 202
    require(await asker.register(body=b"{}".ljust(96 * 1024 + 1)), "register-message")


# How often


def require_throttled(answer: Answer, limit: str, seconds: int) -> None:
    require(answer, limit)
    assert answer.headers["retry-after"] == str(seconds)
    assert answer.headers["x-ms-error-code"] == "429001"


async def test_operations(asker: Asker, services: Services) -> None:
    for _ in range(100):
        assert (await asker.query(1)).status == 200
    require_throttled(await asker.query(1), "operations", 1)
    services.clock.advance(SECOND)
    assert (await asker.query(1)).status == 200


async def test_who_may_not_ask_uses_up_nothing(asker: Asker, rest: RestClient) -> None:
    for _ in range(101):
        target = f"/enrollments/dev-01?{VERSION}"
        assert (await rest.request("GET", target, authorization="SharedAccessSignature sr=x")).status == 401
    assert (await asker.query(1)).status == 200


async def test_registrations(asker: Asker, services: Services) -> None:
    await asker.enroll()
    for _ in range(3):
        assert (await asker.register()).status == 202
    require_throttled(await asker.register(), "registrations-rate", 20)
    services.clock.advance(20 * SECOND)
    assert (await asker.register()).status == 202


async def test_polls(asker: Asker, services: Services) -> None:
    operation = await asker.registered()
    path = f"/operations/{operation}"
    assert (await asker.device("GET", path, b"")).status == 200
    require_throttled(await asker.device("GET", path, b""), "polls", 10)
    require_throttled(await asker.device("POST", "", b"{}"), "polls", 10)
    services.clock.advance(10 * SECOND)
    assert (await asker.device("POST", "", b"{}")).status == 200


async def test_polls_of_others_use_up_nothing(asker: Asker, services: Services) -> None:
    operation = await asker.registered()
    wrong = create_token(f"{ID_SCOPE}/registrations/dev-01", base64.b64encode(bytes(32)).decode(), 2**33)
    target = f"/{ID_SCOPE}/registrations/dev-01/operations/{operation}?{VERSION}"
    for _ in range(3):
        answer = await asker.rest.request("GET", target, b"", host="g.example.net", authorization=wrong)
        assert answer.status == 401
    assert (await asker.device("GET", f"/operations/{operation}", b"")).status == 200


async def mqtt_answer(client: MqttClient, topic: str, payload: bytes = b"") -> tuple[str, Any]:
    await client.publish(topic, payload, 7)
    packet = await client.receive(Publish)
    await client.send(Puback(packet.packet_id))
    return packet.topic.decode().removeprefix("$dps/registrations/res/"), json.loads(packet.payload)


async def test_over_mqtt_the_topic_says_when_to_come_again(mqtt: MqttClients, services: Services) -> None:
    """On one connection, which stays: the device that waits may go on."""
    device = self_signed("dev-01")
    services.clock.now = time.time_ns() // 1000  # certificates count by the machine's clock
    await services.enroll("dev-01", device.certificate_pem.decode())
    client = await mqtt.to_dps("dev-01", device.certificate)
    await client.subscribe(b"$dps/registrations/res/#")
    register = "$dps/registrations/PUT/iotdps-register/?$rid={}"
    topic, body = await mqtt_answer(client, register.format(1), b"x" * (96 * 1024 + 1))
    assert (topic, body["errorCode"]) == ("413/?$rid=1", 413001)
    for rid in (2, 3):
        topic, body = await mqtt_answer(client, register.format(rid))
        assert topic == f"202/?$rid={rid}&retry-after=3"
    topic, refusal = await mqtt_answer(client, register.format(4))
    assert (topic, refusal["errorCode"]) == ("429/?$rid=4&retry-after=20", 429001)
    assert "more registrations than 3/m" in refusal["message"]
    await services.registrations.stop(within=60)
    poll = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid={}&operationId=" + body["operationId"]
    assert (await mqtt_answer(client, poll.format(5)))[0] == "200/?$rid=5"
    assert (await mqtt_answer(client, poll.format(6)))[0] == "429/?$rid=6&retry-after=10"
    services.clock.advance(20 * SECOND)
    assert (await mqtt_answer(client, poll.format(7)))[0] == "200/?$rid=7"
    assert (await mqtt_answer(client, register.format(8)))[0] == "202/?$rid=8&retry-after=3"
    await services.registrations.stop(within=60)


# The documentation


def test_every_documented_limit_is_tested() -> None:
    rates = {"operations", "registrations-rate", "polls"}
    assert set(ROWS) == {*AT_AND_OVER, *FILLED, *rates, "register-message"}
