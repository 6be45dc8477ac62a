"""Cloud-to-device messages for back ends over HTTPS: send, purge, feedback (docs/api.md, hub-service.md 2.7, 6.6)."""

import json

import pytest
from tests.support.fix_rest import HUB_HOST, VERSION, Answer, RestClient
from tests.support.fix_services import NOW, Services

from muster.domain.c2d_message import C2dDelivery
from muster.domain.device import IdentityBody
from muster.domain.timestamp import HOUR, iso_utc

DEVICE = "dev-a"
SEND = f"/muster/v1/c2d/{DEVICE}"
FEEDBACK = f"/messages/serviceBound/feedback?{VERSION}"


class BackEnd:
    """Asks as the hub's owner; receives as the device."""

    def __init__(self, rest: RestClient, services: Services) -> None:
        self.rest = rest
        self.services = services

    async def send(self, **members: object) -> Answer:
        return await self.rest.request("POST", SEND, members, host=HUB_HOST)

    async def receive(self) -> C2dDelivery:
        delivery = await self.services.c2d.lock_next("hub", DEVICE, "")
        assert delivery is not None
        return delivery

    async def finish(self, message_id: str) -> None:
        await self.send(messageId=message_id, ack="full")
        delivery = await self.receive()
        await self.services.c2d.complete("hub", DEVICE, "", delivery.lock_token)


@pytest.fixture
async def back_end(rest: RestClient, services: Services) -> BackEnd:
    await services.devices.put("hub", DEVICE, IdentityBody(device_id=DEVICE), None)
    return BackEnd(rest, services)


# Sending


async def test_a_message_with_everything(back_end: BackEnd):
    answer = await back_end.send(
        messageId="m-1",
        correlationId="c-1",
        userId="ops",
        contentType="text/plain",
        contentEncoding="utf-8",
        ack="full",
        expiryTimeUtc=iso_utc(NOW + 5 * HOUR),
        properties={"color": "dark red"},
        body="grüß dich",
    )
    assert answer.status == 201
    assert answer.json == {
        "sequenceNumber": 1,
        "enqueuedTimeUtc": iso_utc(NOW),
        "expiryTimeUtc": iso_utc(NOW + 5 * HOUR),
    }
    delivery = await back_end.receive()
    properties = delivery.properties
    assert delivery.body.decode() == "grüß dich"
    assert (properties.message_id, properties.correlation_id, properties.user_id) == ("m-1", "c-1", "ops")
    assert (properties.content_type, properties.content_encoding, properties.ack) == ("text/plain", "utf-8", "full")
    assert (properties.expiry, properties.application) == (NOW + 5 * HOUR, {"color": "dark red"})


async def test_a_message_of_bytes(back_end: BackEnd):
    assert (await back_end.send(bodyBase64="AAH/")).status == 201
    assert (await back_end.receive()).body == b"\0\1\xff"


async def test_a_message_of_nothing(back_end: BackEnd):
    assert (await back_end.send()).status == 201
    assert (await back_end.receive()).body == b""


@pytest.mark.parametrize(
    "members",
    [
        {"body": "a", "bodyBase64": "YQ=="},
        {"bodyBase64": "%"},
        {"expiryTimeUtc": "tomorrow"},
        {"ack": "maybe"},
        {"properties": {"a": 1}},
        {"propertys": {}},
        {"messageId": "a\0"},
    ],
)
async def test_what_cannot_be_sent(back_end: BackEnd, members: dict):
    answer = await back_end.send(**members)
    assert (answer.status, answer.json["errorCode"]) == (400, 400004)


async def test_a_message_that_is_too_large(back_end: BackEnd):
    answer = await back_end.send(body="x" * 65_536)
    assert (answer.status, answer.json["errorCode"]) == (413, 413001)


async def test_a_queue_that_is_full(back_end: BackEnd):
    for _ in range(50):
        await back_end.send()
    answer = await back_end.send()
    assert (answer.status, answer.json["errorCode"]) == (403, 403004)


async def test_nobody_gets_nothing(back_end: BackEnd):
    for path in ("nobody", f"{DEVICE}/nothing"):
        answer = await back_end.rest.request("POST", f"/muster/v1/c2d/{path}", {}, host=HUB_HOST)
        assert (answer.status, answer.json["errorCode"]) == (404, 404001)


@pytest.mark.parametrize(("policy", "status"), [("service", 201), ("device", 401), ("registryReadWrite", 401)])
async def test_who_may_send(back_end: BackEnd, policy: str, status: int):
    token = back_end.rest.token(policy, HUB_HOST)
    answer = await back_end.rest.request("POST", SEND, {}, host=HUB_HOST, authorization=token)
    assert answer.status == status


async def test_a_host_that_is_not_ours(back_end: BackEnd):
    answer = await back_end.rest.request("POST", SEND, {}, host="rebound.example.org")
    assert answer.status == 421


# Purging


async def test_purge(back_end: BackEnd):
    for _ in range(4):
        await back_end.send(ack="full")
    target = f"/devices/{DEVICE}/Commands?{VERSION}"
    answer = await back_end.rest.request("DELETE", target)
    assert (answer.status, answer.json) == (200, {"totalMessagesPurged": 4, "deviceId": DEVICE, "moduleId": None})
    assert (await back_end.rest.request("DELETE", target)).json["totalMessagesPurged"] == 0
    batch = await back_end.services.feedback.lock_next("hub")
    assert batch is not None
    assert [record["statusCode"] for record in json.loads(batch.body)] == ["Purged"] * 4


async def test_a_purge_of_nobody(back_end: BackEnd):
    answer = await back_end.rest.request("DELETE", f"/devices/nobody/commands?{VERSION}")
    assert (answer.status, answer.headers["iothub-errorcode"]) == (404, "DeviceNotFound")


@pytest.mark.parametrize(("policy", "status"), [("service", 200), ("registryReadWrite", 200), ("registryRead", 401)])
async def test_who_may_purge(back_end: BackEnd, policy: str, status: int):
    token = back_end.rest.token(policy, HUB_HOST)
    answer = await back_end.rest.request("DELETE", f"/devices/{DEVICE}/commands?{VERSION}", authorization=token)
    assert answer.status == status


# Feedback


async def test_feedback_is_received_and_completed(back_end: BackEnd):
    assert (await back_end.rest.request("GET", FEEDBACK)).status == 204
    await back_end.finish("m-1")
    answer = await back_end.rest.request("GET", FEEDBACK)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/vnd.microsoft.iothub.feedback.json"
    assert answer.headers["iothub-enqueuedtime"] == "09/21/2026 14:13:20"
    assert answer.headers["iothub-messageid"]
    assert [record["originalMessageId"] for record in answer.json] == ["m-1"]
    token = answer.headers["etag"].strip('"')
    done = f"/messages/ServiceBound/Feedback/{token}?{VERSION}"
    assert (await back_end.rest.request("DELETE", done)).status == 204
    lost = await back_end.rest.request("DELETE", done)
    assert (lost.status, lost.headers["iothub-errorcode"]) == (412, "DeviceMessageLockLost")


async def test_asking_for_headers_locks_nothing(back_end: BackEnd):
    await back_end.finish("m-1")
    answer = await back_end.rest.request("HEAD", FEEDBACK)
    assert (answer.status, answer.headers["allow"]) == (405, "GET")
    assert (await back_end.rest.request("GET", FEEDBACK)).status == 200


async def test_feedback_is_abandoned(back_end: BackEnd):
    await back_end.finish("m-1")
    token = (await back_end.rest.request("GET", FEEDBACK)).headers["etag"].strip('"')
    assert (await back_end.rest.request("GET", FEEDBACK)).status == 204
    answer = await back_end.rest.request("POST", f"/messages/serviceBound/feedback/{token}/Abandon?{VERSION}")
    assert answer.status == 204
    assert (await back_end.rest.request("GET", FEEDBACK)).status == 200


@pytest.mark.parametrize(("policy", "status"), [("service", 204), ("device", 401)])
async def test_who_may_read_feedback(back_end: BackEnd, policy: str, status: int):
    answer = await back_end.rest.request("GET", FEEDBACK, authorization=back_end.rest.token(policy, HUB_HOST))
    assert answer.status == status


async def test_feedback_asks_for_a_version(back_end: BackEnd):
    answer = await back_end.rest.request("GET", FEEDBACK.partition("?")[0])
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "InvalidProtocolVersion")
