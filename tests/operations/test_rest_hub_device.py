"""The device API over HTTPS: telemetry that is stored, messages that are locked and settled (hub-device.md 10)."""

import base64
import dataclasses
import hashlib
import json
from urllib.parse import quote

import pytest
from starlette.requests import ClientDisconnect
from tests.support.fix_mqtt import until
from tests.support.fix_pki import NOW as CERTIFICATES_NOW
from tests.support.fix_pki import self_signed
from tests.support.fix_rest import HUB_HOST, VERSION, Answer, RestClient
from tests.support.fix_services import KEY, NOW, Services

from muster.domain.c2d_message import C2dMessage, C2dProperties
from muster.domain.device import AuthenticationBody, IdentityBody, SymmetricKeyBody, ThumbprintBody
from muster.domain.message import MAXIMUM_MESSAGE_BYTES, Event
from muster.domain.timestamp import HOUR, MINUTE, SECOND, parse_iso
from muster.hub.events import Position

DEVICE = "dev-a"
OTHER_KEY = base64.b64encode(bytes(32)).decode()
EVENTS = f"/devices/{DEVICE}/messages/events?{VERSION}"
INBOX = f"/devices/{DEVICE}/messages/devicebound?{VERSION}"


class Device:
    """A device that asks with a token of its own."""

    def __init__(self, rest: RestClient, services: Services) -> None:
        self.rest = rest
        self.services = services

    async def ask(self, method: str, target: str, body: object = b"", **headers: str) -> Answer:
        path = target.partition("?")[0].split("/messages")[0].split("/files")[0]
        token = self.rest.token("", HUB_HOST, resource=f"{HUB_HOST}{path}")
        return await self.rest.request(method, target, body, authorization=token, **headers)

    async def events(self) -> list[Event]:
        found, _ = await self.services.events.read("hub", Position((0,) * 4), 100)
        return found

    async def send(self, body: bytes = b"hello", **properties: object) -> None:
        await self.services.c2d.send("hub", DEVICE, "", C2dMessage(C2dProperties(**properties), body))

    async def receive(self, target: str = INBOX, **headers: str) -> tuple[str, Answer]:
        """The lock token and the whole answer."""
        answer = await self.ask("GET", target, **headers)
        assert answer.status == 200, answer
        return answer.headers["etag"].strip('"'), answer

    def lock(self, token: str, *, path: str = "", query: str = "") -> str:
        return f"/devices/{DEVICE}/messages/devicebound/{token}{path}?{VERSION}{query}"


@pytest.fixture
async def device(rest: RestClient, services: Services) -> Device:
    keys = AuthenticationBody(type="sas", symmetric_key=SymmetricKeyBody(KEY, KEY))
    await services.devices.put("hub", DEVICE, IdentityBody(device_id=DEVICE, authentication=keys), None)
    return Device(rest, services)


# Telemetry


async def test_sending_is_activity_of_a_device_that_is_not_connected(device: Device, services: Services):
    """Shown once a minute (hub-device.md 10.1, 12)."""
    began = services.clock.now

    async def shown() -> int:
        _, registry = await services.devices.get("hub", DEVICE)
        assert (registry.connected, registry.state_updated) == (False, 0)
        return registry.last_activity

    assert await shown() == 0
    for seconds, expected in ((0, began), (59, began), (1, began + MINUTE)):
        services.clock.advance(seconds * SECOND)
        assert (await device.ask("POST", EVENTS, b"x")).status == 204

        async def is_shown(wanted: int = expected) -> bool:
            return await shown() == wanted

        await until(is_shown)


async def test_a_message_is_stored_before_it_is_acknowledged(device: Device):
    answer = await device.ask(
        "POST",
        EVENTS,
        b'{"t":21}',
        iothub_to=f"/devices/{DEVICE}/messages/events",
        iothub_app_Room="attic east",
        IoTHub_MessageId="m-1",
        iothub_contenttype="application/json",
        iothub_contentencoding="utf-8",
        Content_Type="text/plain",
        X_Other="no property",
    )
    assert (answer.status, answer.body) == (204, b"")
    (event,) = await device.events()
    assert event.body == b'{"t":21}'
    assert event.application_properties == {"Room": "attic east"}
    assert event.system_properties == {
        "to": f"/devices/{DEVICE}/messages/events",
        "message-id": "m-1",
        "content-type": "application/json",
        "content-encoding": "utf-8",
    }
    assert (event.source, event.origin.device_id, event.enqueued_time) == ("Telemetry", DEVICE, NOW)
    assert json.loads(event.origin.authentication_method)["scope"] == "device"


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("iothub-correlationid", "correlation-id"),
        ("iothub-userid", "user-id"),
        ("iothub-expiry", "absolute-expiry-time"),
        ("iothub-ack", "iothub-ack"),
        ("iothub-operation", "iothub-operation"),
        ("iothub-creationtimeutc", "iothub-creation-time-utc"),
        ("iothub-creation-time-utc", "iothub-creation-time-utc"),
        ("iothub-interface-id", "iothub-interface-id"),
        ("iothub-messageschema", "iothub-message-schema"),
        ("dt-subject", "dt-subject"),
        ("IOTHUB-CorrelationId", "correlation-id"),
    ],
)
async def test_every_header_that_is_a_property(device: Device, header: str, name: str):
    await device.ask("POST", EVENTS, b"x", **{header: "value"})
    (event,) = await device.events()
    assert event.system_properties == {name: "value"}


async def test_a_batch(device: Device):
    batch = [
        {
            "body": "eyJ0IjoyMX0=",
            "base64Encoded": True,
            "properties": {"iothub-app-Room": "attic", "iothub-messageid": "1"},
        },
        {"body": "plain text here", "base64Encoded": False},
        {"body": "AAE=", "properties": {"iothub-app-n": 5, "IOTHUB-CONTENTTYPE": "a/b", "other": "x"}},
    ]
    kind = "Application/vnd.microsoft.iothub.json; charset=utf-8"
    answer = await device.ask("POST", EVENTS, batch, Content_Type=kind)
    assert answer.status == 204
    first, second, third = await device.events()
    assert (first.body, first.application_properties, first.system_properties) == (
        b'{"t":21}',
        {"Room": "attic"},
        {"message-id": "1"},
    )
    assert (second.body, second.application_properties) == (b"plain text here", {})
    assert (third.body, third.application_properties, third.system_properties) == (
        b"\0\1",
        {"n": "5"},
        {"content-type": "a/b"},
    )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "ArgumentNull"),
        (b'[{"body"', "IotHubFormatError"),
        (b"{}", "ArgumentInvalid"),
        (b'[{"base64Encoded":true}]', "ArgumentInvalid"),
        (b'[{"body":"YWJj"},{"body":"no base64!"}]', "ArgumentInvalid"),
        (b'[{"body":"YWJj","properties":{"iothub-app-a":[]}}]', "ArgumentInvalid"),
    ],
)
async def test_a_malformed_batch_is_refused_as_a_whole(device: Device, body: bytes, code: str):
    answer = await device.ask("POST", EVENTS, body, content_type="application/vnd.microsoft.iothub.json")
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, code)
    assert await device.events() == []


async def test_an_empty_batch_is_nothing(device: Device):
    answer = await device.ask("POST", EVENTS, b"[]", content_type="application/vnd.microsoft.iothub.json")
    assert answer.status == 204
    assert await device.events() == []


async def test_256_kib_and_no_more(device: Device):
    room = MAXIMUM_MESSAGE_BYTES - len("ab")
    assert (await device.ask("POST", EVENTS, b"x" * room, iothub_app_a="b")).status == 204
    for body in (b"x" * (room + 1), b"x" * (MAXIMUM_MESSAGE_BYTES + 1)):
        answer = await device.ask("POST", EVENTS, body, iothub_app_a="b")
        assert (answer.status, answer.headers["iothub-errorcode"]) == (413, "MessageTooLarge")
    assert len(await device.events()) == 1


async def test_half_a_message_is_none(device: Device):
    with pytest.raises(ClientDisconnect):
        await device.rest.request(
            "POST",
            EVENTS,
            b"12345678",
            complete=False,
            authorization=device.rest.token("", HUB_HOST, resource=f"{HUB_HOST}/devices/{DEVICE}"),
        )
    assert await device.events() == []


# Who asks


@pytest.mark.parametrize(
    ("resource", "key", "policy", "status"),
    [
        (f"{HUB_HOST}/devices/{DEVICE}", KEY, "", 204),
        (HUB_HOST, KEY, "device", 204),
        (HUB_HOST, KEY, "iothubowner", 204),
        (HUB_HOST, KEY, "service", 401),
        (f"{HUB_HOST}/devices/{DEVICE}", OTHER_KEY, "", 401),
        (f"{HUB_HOST}/devices/other", KEY, "", 401),
    ],
)
async def test_tokens(device: Device, resource: str, key: str, policy: str, status: int):
    token = device.rest.token(policy, HUB_HOST, key=key, resource=resource)
    for method, target in (("POST", EVENTS), ("GET", INBOX)):
        answer = await device.rest.request(method, target, b"x", authorization=token)
        assert answer.status == status
    assert len(await device.events()) == (status == 204)


async def test_a_refusal_has_a_report(device: Device):
    answer = await device.rest.request("POST", EVENTS, b"x", authorization=None)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (401, "IotHubUnauthorizedAccess")
    assert answer.json["Message"].startswith("ErrorCode:IotHubUnauthorizedAccess;")
    (report,) = await device.services.reports.find(answer.headers["x-ms-request-id"])
    assert (report.subject, report.verdict) == (DEVICE, "refused")


async def test_an_expired_token(device: Device):
    token = device.rest.token("", HUB_HOST, resource=f"{HUB_HOST}/devices/{DEVICE}", life=-HOUR // SECOND)
    answer = await device.rest.request("GET", INBOX, authorization=token)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (401, "IotHubUnauthorized")


async def test_a_device_that_is_not_there(device: Device):
    answer = await device.ask("POST", f"/devices/nobody/messages/events?{VERSION}", b"x")
    assert (answer.status, answer.headers["iothub-errorcode"]) == (401, "IotHubUnauthorizedAccess")


async def test_a_certificate(device: Device):
    identity = self_signed("dev-x509")
    device.services.clock.now = CERTIFICATES_NOW
    thumbprints = ThumbprintBody(primary_thumbprint=hashlib.sha256(identity.certificate).hexdigest())
    body = AuthenticationBody(type="selfSigned", x509_thumbprint=thumbprints)
    await device.services.devices.put("hub", "dev-x509", IdentityBody(device_id="dev-x509", authentication=body), None)
    target = f"/devices/dev-x509/messages/events?{VERSION}"
    assert (await device.rest.request("POST", target, b"x", authorization=None)).status == 401
    device.rest.peer = dataclasses.replace(device.rest.peer, certificates=(identity.certificate,))
    assert (await device.rest.request("POST", target, b"x", authorization=None)).status == 204
    (event,) = await device.events()
    assert json.loads(event.origin.authentication_method)["type"] == "x509Certificate"


@pytest.mark.parametrize("target", [EVENTS, INBOX])
async def test_the_version_is_asked_for(device: Device, target: str):
    path = target.partition("?")[0]
    for query in ("", "?api-version=latest"):
        answer = await device.ask("POST" if target == EVENTS else "GET", path + query)
        assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "InvalidProtocolVersion")


# Receiving


async def test_a_message_with_everything(device: Device):
    await device.send(
        b"\0hello",
        message_id="m-17",
        correlation_id="c-1",
        user_id="ops",
        content_type="text/plain",
        content_encoding="utf-8",
        ack="full",
        expiry=parse_iso("2026-11-24T10:00:00Z"),
        application={"color": "dark red"},
    )
    token, answer = await device.receive()
    assert answer.body == b"\0hello"
    own = ("content-length", "x-ms-request-id")
    headers = {name: value for name, value in answer.headers.items() if name not in own}
    assert headers == {
        "etag": f'"{token}"',
        "iothub-messageid": "m-17",
        "iothub-to": "/devices/dev-a/messages/devicebound",
        "iothub-correlationid": "c-1",
        "iothub-userid": "ops",
        "iothub-ack": "full",
        "iothub-expiry": "11/24/2026 10:00:00",
        "iothub-enqueuedtime": "09/21/2026 14:13:20",
        "iothub-deliverycount": "0",
        "iothub-sequencenumber": "1",
        "iothub-contenttype": "text/plain",
        "iothub-contentencoding": "utf-8",
        "contenttype": "text/plain",
        "contentencoding": "utf-8",
        "iothub-app-color": "dark red",
        "content-type": "application/octet-stream",
    }


async def test_headers_hold_no_line_breaks_of_a_sender(device: Device):
    await device.send(application={"a b\r\nc": "x\r\nSet-Cookie: é"})
    _, answer = await device.receive()
    assert answer.headers["iothub-app-a%20b%0d%0ac"] == "x%0D%0ASet-Cookie: %C3%A9"


async def test_nothing_to_receive(device: Device):
    answer = await device.ask("GET", INBOX)
    assert (answer.status, answer.body) == (204, b"")


@pytest.mark.parametrize("spelling", ["deviceBound", "devicebound", "DEVICEBOUND"])
async def test_complete(device: Device, spelling: str):
    await device.send(message_id="m-1", ack="full")
    token, _ = await device.receive(f"/devices/{DEVICE}/messages/{spelling}?{VERSION}")
    answer = await device.ask("DELETE", device.lock(token).replace("devicebound", spelling), if_match="anything")
    assert (answer.status, answer.body) == (204, b"")
    again = await device.ask("DELETE", device.lock(token))
    assert (again.status, again.headers["iothub-errorcode"]) == (412, "DeviceMessageLockLost")
    batch = await device.services.feedback.lock_next("hub")
    assert batch is not None
    assert json.loads(batch.body)[0]["statusCode"] == "Success"


@pytest.mark.parametrize("query", ["&reject", "&reject=", "&reject=true", "&%3Freject=true", "&Reject"])
async def test_every_spelling_of_reject(device: Device, query: str):
    await device.send(ack="negative")
    token, _ = await device.receive()
    assert (await device.ask("DELETE", device.lock(token, query=query))).status == 204
    batch = await device.services.feedback.lock_next("hub")
    assert batch is not None
    assert json.loads(batch.body)[0]["statusCode"] == "Rejected"


async def test_abandon(device: Device):
    await device.send()
    token, _ = await device.receive()
    answer = await device.ask("POST", device.lock(token, path="/Abandon"), b"\0", IfMatch=f'"{token}"')
    assert (answer.status, answer.body) == (204, b"")
    _, answer = await device.receive()
    assert answer.headers["iothub-deliverycount"] == "1"


@pytest.mark.parametrize("place", ["header", "query"])
async def test_a_lock_as_long_as_it_was_asked_for(device: Device, place: str):
    await device.send()
    if place == "header":
        token, _ = await device.receive(IotHub_MessageLockTimeout="180")
    else:
        token, _ = await device.receive(INBOX + "&IotHub-MessageLockTimeout=180")
    device.services.clock.advance(179 * SECOND)
    assert (await device.ask("GET", INBOX)).status == 204
    assert (await device.ask("DELETE", device.lock(token))).status == 204


async def test_a_lock_of_a_minute(device: Device):
    await device.send()
    token, _ = await device.receive()
    device.services.clock.advance(MINUTE)
    assert (await device.ask("DELETE", device.lock(token))).status == 412


@pytest.mark.parametrize("seconds", ["0", "301", "x", "-1"])
async def test_locks_that_are_not_possible(device: Device, seconds: str):
    answer = await device.ask("GET", INBOX, iothub_messagelocktimeout=seconds)
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "ArgumentInvalid")


@pytest.mark.parametrize("token", ["nonsense", "%22%22", "7c5ed1a8-8e64-4f6f-9e07-2a5d1c0a4f10"])
async def test_a_lock_that_never_was(device: Device, token: str):
    for method, target in (("DELETE", device.lock(token)), ("POST", device.lock(token, path="/abandon"))):
        answer = await device.ask(method, target)
        assert (answer.status, answer.headers["iothub-errorcode"]) == (412, "DeviceMessageLockLost")


async def test_a_device_settles_nothing_of_another(device: Device):
    keys = AuthenticationBody(type="sas", symmetric_key=SymmetricKeyBody(KEY, KEY))
    await device.services.devices.put("hub", "dev-b", IdentityBody(device_id="dev-b", authentication=keys), None)
    await device.send()
    token, _ = await device.receive()
    assert (await device.ask("DELETE", device.lock(token).replace(DEVICE, "dev-b"))).status == 412


async def test_ids_with_every_legal_character(device: Device):
    name = "AZaz09-:.+%_#*?!(),=@;$'"
    keys = AuthenticationBody(type="sas", symmetric_key=SymmetricKeyBody(KEY, KEY))
    await device.services.devices.put("hub", name, IdentityBody(device_id=name, authentication=keys), None)
    target = f"/devices/{quote(name, safe='')}/messages/events?{VERSION}"
    assert (
        await device.rest.request("POST", target, b"x", authorization=device.rest.token("device", HUB_HOST))
    ).status == 204
    (event,) = await device.events()
    assert event.origin.device_id == name


# Files


@pytest.mark.parametrize(
    "path", ["files", "files/", "files/notifications", "files/notifications/", "files/notifications/Abc"]
)
async def test_files_need_a_storage_account(device: Device, path: str):
    answer = await device.ask("POST", f"/devices/{DEVICE}/{path}?{VERSION}", {"blobName": "a"})
    assert (answer.status, answer.headers["iothub-errorcode"]) == (400, "DefaultStorageEndpointNotConfigured")


# Modules


async def test_a_module_sends_and_receives_as_a_device_does(device: Device):
    keys = {"type": "sas", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
    place = f"/devices/{DEVICE}/modules/Sensor"
    body = {"deviceId": DEVICE, "moduleId": "Sensor", "authentication": keys}
    assert (await device.rest.request("PUT", f"{place}?{VERSION}", body)).status == 200
    assert (await device.ask("POST", f"{place}/Messages/Events?{VERSION}", b"x", iothub_app_a="b")).status == 204
    (event,) = await device.events()
    assert (event.origin.device_id, event.origin.module_id) == (DEVICE, "Sensor")
    assert json.loads(event.origin.authentication_method)["scope"] == "module"
    await device.services.c2d.send("hub", DEVICE, "Sensor", C2dMessage(C2dProperties(), b"hello"))
    assert (await device.ask("GET", INBOX)).status == 204
    inbox = f"{place}/messages/deviceBound"
    token, answer = await device.receive(f"{inbox}?{VERSION}")
    assert answer.headers["iothub-to"] == f"{place}/messages/devicebound"
    assert (await device.ask("POST", f"{inbox}/{token}/abandon?{VERSION}")).status == 204
    token, _ = await device.receive(f"{inbox}?{VERSION}")
    assert (await device.ask("DELETE", f"{inbox}/{token}?{VERSION}")).status == 204


async def test_a_device_does_not_ask_as_its_module(device: Device):
    body = {"deviceId": DEVICE, "moduleId": "sensor"}
    assert (await device.rest.request("PUT", f"/devices/{DEVICE}/modules/sensor?{VERSION}", body)).status == 200
    token = device.rest.token("", HUB_HOST, resource=f"{HUB_HOST}/devices/{DEVICE}")
    target = f"/devices/{DEVICE}/modules/sensor/messages/events?{VERSION}"
    assert (await device.rest.request("POST", target, b"x", authorization=token)).status == 401


async def test_the_registry_counts_what_waits(device: Device):
    await device.send()
    await device.send()
    for target in (f"/devices/{DEVICE}", f"/twins/{DEVICE}"):
        answer = await device.rest.request("GET", f"{target}?{VERSION}")
        assert answer.json["cloudToDeviceMessageCount"] == 2
