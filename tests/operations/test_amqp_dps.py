"""Registering over AMQP, frame by frame (dps.md 3).

What single clients send is replayed in ``tests/playbook/test_clients.py``, the dialogue of TPMs in
``test_amqp_tpm.py``.
"""

import base64
import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from tests.support.fix_amqp import AmqpClient, AmqpClients
from tests.support.fix_ca import intermediate, request, to_der
from tests.support.fix_pki import other_self_signed, self_signed
from tests.support.fix_services import ID_SCOPE, KEY, Services

from muster.domain.allocation import WebhookAnswer
from muster.domain.registration import MAXIMUM_MESSAGE_BYTES
from muster.domain.sas import create_token
from muster.domain.throttle import Rates, read_rates
from muster.domain.timestamp import SECOND
from muster.frontends.amqp.dps import DpsLinks
from muster.frontends.amqp.links import Opener
from muster.wire import amqp_performatives
from muster.wire.amqp_composites import encode_message
from muster.wire.amqp_frames import Frame
from muster.wire.amqp_messages import AmqpSequence, AmqpValue, Body, Data, Message, Properties
from muster.wire.amqp_performatives import (
    RECEIVER,
    SETTLED,
    UNSETTLED,
    Accepted,
    Attach,
    Detach,
    Disposition,
    Flow,
    Rejected,
    SaslInit,
    Transfer,
)
from muster.wire.amqp_types import Int, Symbol, Ulong, Uuid, Value

DEVICE = self_signed("dev-01")
ADDRESS = f"{ID_SCOPE}/registrations/dev-01"
SYMMETRIC = {"type": "symmetricKey", "symmetricKey": {"primaryKey": KEY, "secondaryKey": KEY}}
ISSUING = {"namespaceName": "ns", "certificateAuthorityName": "line-a", "certificatePolicyName": "device"}
CREDIT = 16
RETRY = {"retry-after": Int(3), "Retry-After": Int(3)}


@pytest.fixture(autouse=True)
async def enrolled(services: Services) -> None:
    """``dev-01`` is enrolled; certificates count by the machine's clock."""
    services.clock.now = time.time_ns() // 1000
    await services.enroll("dev-01", DEVICE.certificate_pem.decode())


@pytest.fixture
def openers(services: Services) -> Sequence[Opener]:
    return (DpsLinks(services.registrations, services.tpm_dialogues, services.clock).open,)


def properties(version: Value = "2019-03-31") -> dict[Value, Value]:
    return {Symbol("com.microsoft:api-version"): version}


def register(body: Body | None = None, correlation_id: Value = None) -> Message:
    own = Properties(correlation_id=correlation_id) if correlation_id is not None else None
    return Message(properties=own, application_properties={"iotdps-operation-type": "iotdps-register"}, body=body)


def poll(operation_id: str) -> Message:
    kind: dict[Value, Value] = {
        "iotdps-operation-type": "iotdps-get-operationstatus",
        "iotdps-operation-id": operation_id,
    }
    return Message(application_properties=kind, body=AmqpValue(""))


class Device:
    """A device that has its two links."""

    def __init__(self, client: AmqpClient, answers: Attach, requests: Attach) -> None:
        self.client = client
        self.answers = answers
        self.requests = requests

    @classmethod
    async def open(
        cls, client: AmqpClient, address: str = ADDRESS, *, credit: int = 100, version: str = "2019-03-31", **more: Any
    ) -> "Device":
        answers = await client.link(address, sender=False, credit=credit, properties=properties(version), **more)
        requests = await client.link(address, sender=True, properties=properties(version))
        return cls(client, answers, requests)

    async def ask(self, message: Message | bytes) -> tuple[Message, Any]:
        """The answer and its JSON, behind the outcome. It is settled."""
        await self.client.settles(await self.client.transfer(self.requests, message))
        return await self.answer()

    async def answer(self) -> tuple[Message, Any]:
        transfer, message = await self.client.receive_message()
        assert transfer.handle == self.answers.handle
        if not transfer.settled:
            await self.client.send(Disposition(RECEIVER, transfer.delivery_id or 0, settled=True, state=Accepted()))
        assert isinstance(message.body, Data)
        return message, json.loads(message.body.joined())

    async def is_rejected(self, message: Message | bytes, condition: str) -> Any:
        """The JSON that the request is rejected with."""
        disposition = await self.client.settles(await self.client.transfer(self.requests, message), Rejected)
        assert isinstance(disposition.state, Rejected)
        error = disposition.state.error
        assert error is not None
        assert error.condition == condition
        return json.loads(error.description or "")


@pytest.fixture
async def device(amqp: AmqpClients) -> Device:
    """``dev-01`` with its certificate."""
    return await Device.open(await amqp.open(DEVICE.certificate))


async def refused_checks(services: Services, tracking_id: str) -> list[str]:
    (report,) = await services.reports.find(tracking_id)
    assert "AMQP" in report.peer
    return [check.id for check in report.checks if check.outcome == "refused"]


async def test_a_registration(device: Device, services: Services) -> None:
    answer, body = await device.ask(register(Data((b'{"registrationId":"dev-01"}',))))
    assert (answer.properties, answer.application_properties) == (None, RETRY)
    assert body == {"operationId": body["operationId"], "status": "assigning"}
    await services.registrations.stop(within=60)
    answer, final = await device.ask(poll(body["operationId"]))
    assert (answer.properties, answer.application_properties) == (None, None)
    assert (final["operationId"], final["status"]) == (body["operationId"], "assigned")
    state = final["registrationState"]
    assert (state["assignedHub"], state["deviceId"], state["x509"]) == ("hub.example.net", "dev-01", {})
    await device.client.close()


@pytest.mark.parametrize("correlation_id", ["a text", Ulong(7), Uuid(bytes(range(16))), b"\0\xff"])
async def test_a_correlation_id_keeps_its_type(device: Device, correlation_id: Value) -> None:
    answer, _ = await device.ask(register(correlation_id=correlation_id))
    assert answer.properties == Properties(correlation_id=correlation_id)


@pytest.mark.parametrize(
    "body",
    [
        None,
        Data((b"",)),
        Data((b" ",)),
        Data((b"{}",)),
        Data((b'{"registra', b'tionId":"DEV-01"}')),
        AmqpValue(None),
        AmqpValue(""),
        AmqpValue('{"registrationId":"dev-01"}'),
        AmqpValue(b'{"payload":null}'),
    ],
)
async def test_bodies_of_a_register(device: Device, body: Body | None) -> None:
    assert (await device.ask(register(body)))[1]["status"] == "assigning"


@pytest.mark.parametrize(
    ("message", "condition", "code"),
    [
        (register(Data((b'{"registrationId":"other"}',))), "amqp:invalid-field", 400004),
        (register(Data((b"[]",))), "amqp:invalid-field", 400004),
        (register(Data((b"{",))), "amqp:decode-error", 400006),
        (register(AmqpValue(Int(1))), "amqp:decode-error", 400006),
        (register(AmqpSequence(([],))), "amqp:decode-error", 400006),
        (b"\xff", "amqp:decode-error", 400006),
        (b"\x00\x53\x75\xa0\x02{}\x00\x53\x77\x40", "amqp:decode-error", 400006),
        (Message(), "amqp:invalid-field", 400004),
        (
            Message(application_properties={"iotdps-operation-type": "iotdps-get-registration"}),
            "amqp:invalid-field",
            400004,
        ),
        (Message(application_properties={"iotdps-operation-type": Int(1)}), "amqp:invalid-field", 400004),
        (poll("nonsense"), "amqp:not-found", 404202),
    ],
)
async def test_requests_that_are_refused(device: Device, message: Message | bytes, condition: str, code: int) -> None:
    """The link stays, and takes the next one."""
    body = await device.is_rejected(message, condition)
    assert set(body) == {"errorCode", "trackingId", "message", "timestampUtc"}
    assert body["errorCode"] == code
    assert (await device.ask(register()))[1]["status"] == "assigning"


async def send_in_frames(device: Device, payload: bytes) -> None:
    """A message that no frame has room for."""
    size = 60_000
    for start in range(0, len(payload), size):
        more = start + size < len(payload)
        head = Transfer(device.requests.handle, 0, b"tag", 0, settled=False, more=more)
        await device.client.send(Frame(0, head, payload[start : start + size]))


async def test_a_body_that_is_too_large(device: Device) -> None:
    await send_in_frames(device, encode_message(register(Data((b" " * (MAXIMUM_MESSAGE_BYTES + 1),)))))
    disposition = await device.client.settles(0, Rejected)
    assert isinstance(disposition.state, Rejected)
    assert disposition.state.error is not None
    assert disposition.state.error.condition == "amqp:link:message-size-exceeded"
    assert json.loads(disposition.state.error.description or "")["errorCode"] // 1000 == 413


async def test_a_message_that_is_too_large_by_far(device: Device) -> None:
    await send_in_frames(device, bytes(MAXIMUM_MESSAGE_BYTES + 64 * 1024))
    await device.client.is_detached(device.requests, "amqp:link:message-size-exceeded")


async def test_a_settled_request(device: Device) -> None:
    """It is answered; and when it is refused there is nothing left to say it with but the link."""
    await device.client.transfer(device.requests, register(), settled=True)
    assert (await device.answer())[1]["status"] == "assigning"
    await device.client.transfer(device.requests, Message(), settled=True)
    detach = await device.client.is_detached(device.requests, "amqp:invalid-field")
    assert detach.error is not None
    assert json.loads(detach.error.description or "")["errorCode"] == 400004


# Links


async def test_answers_wait_for_credit(amqp: AmqpClients) -> None:
    client = await amqp.open(DEVICE.certificate)
    device = await Device.open(client, credit=0)
    await client.settles(await client.transfer(device.requests, register()))
    await client.grant(device.answers, 1)
    assert (await device.answer())[1]["status"] == "assigning"


async def test_the_sender_may_be_attached_alone_first(amqp: AmqpClients) -> None:
    client = await amqp.open(DEVICE.certificate)
    requests = await client.link(ADDRESS, sender=True, properties=properties())
    await client.settles(await client.transfer(requests, register()))
    answers = await client.link(ADDRESS, sender=False)
    assert (await Device(client, answers, requests).answer())[1]["status"] == "assigning"


async def test_credit_may_come_right_behind_the_attach(amqp: AmqpClients) -> None:
    client = await amqp.open(DEVICE.certificate)
    requests = await client.link(ADDRESS, sender=True, properties=properties())
    await client.settles(await client.transfer(requests, register()))
    answers = client.attach(ADDRESS, sender=False)
    await client.send(answers, Flow(1, 5000, 0, 5000, answers.handle, 0, 10))
    assert (await client.receive(Attach)).name == answers.name
    assert (await Device(client, answers, requests).answer())[1]["status"] == "assigning"


async def test_credit_is_drained(device: Device) -> None:
    await device.client.grant(device.answers, 5, drain=True)
    flow = await device.client.receive(Flow)
    assert (flow.handle, flow.link_credit, flow.delivery_count) == (device.answers.handle, 0, 5)


async def test_credit_comes_again(device: Device, services: Services) -> None:
    """As much as there is room for, when half of it is used up."""
    _, body = await device.ask(register())
    await services.registrations.stop(within=60)
    for _ in range(CREDIT // 2 - 2):
        await device.ask(poll(body["operationId"]))
    await device.ask(poll(body["operationId"]))
    flow = await device.client.receive(Flow)
    assert (flow.handle, flow.link_credit) == (device.requests.handle, CREDIT)


async def test_who_reads_no_answers_may_not_ask_for_ever(amqp: AmqpClients) -> None:
    client = await amqp.open(DEVICE.certificate)
    device = await Device.open(client, credit=0)
    for _ in range(CREDIT):
        await client.settles(await client.transfer(device.requests, register()))
    await client.transfer(device.requests, register())
    await client.is_detached(device.requests, "amqp:link:transfer-limit-exceeded")


@pytest.mark.parametrize(("mode", "settled"), [(SETTLED, True), (UNSETTLED, False)])
async def test_answers_are_settled_as_the_device_asks(amqp: AmqpClients, mode: int, settled: bool) -> None:
    client = await amqp.open(DEVICE.certificate)
    device = await Device.open(client, snd_settle_mode=mode)
    await client.settles(await client.transfer(device.requests, register()))
    transfer, _ = await client.receive_message()
    assert transfer.settled is settled


async def test_a_device_that_settles_second(amqp: AmqpClients) -> None:
    client = await amqp.open(DEVICE.certificate)
    device = await Device.open(client, rcv_settle_mode=amqp_performatives.SECOND)
    await client.settles(await client.transfer(device.requests, register()))
    transfer, _ = await client.receive_message()
    await client.send(Disposition(RECEIVER, transfer.delivery_id or 0, settled=False, state=Accepted()))
    disposition = await client.receive(Disposition)
    assert (disposition.role, disposition.first, disposition.settled) == (False, transfer.delivery_id, True)


async def test_links_can_be_made_anew(device: Device) -> None:
    client = device.client
    for link in (device.requests, device.answers):
        await client.send(Detach(link.handle, closed=True))
        await client.receive(Detach)
    assert not client.protocol.shared
    again = await Device.open(client)
    assert (await again.ask(register()))[1]["status"] == "assigning"


@pytest.mark.parametrize(
    "address",
    [
        f"/{ADDRESS}",
        f"amqps://global.example.net/{ADDRESS}",
        f"amqps://global.example.net:5671/{ADDRESS}",
        f"{ID_SCOPE}/registrations/dev%2D01",
        f"{ID_SCOPE}/registrations/DEV-01",
    ],
)
async def test_spellings_of_an_address(amqp: AmqpClients, address: str) -> None:
    device = await Device.open(await amqp.open(DEVICE.certificate), address)
    assert (await device.ask(register()))[1]["status"] == "assigning"


@pytest.mark.parametrize("address", [f"{ID_SCOPE}/registrations", "devices/registrations/twin", f"{ADDRESS}/more", ""])
async def test_other_addresses(amqp: AmqpClients, address: str) -> None:
    client = await amqp.open(DEVICE.certificate)
    asked = client.attach(address, sender=True)
    await client.send(asked)
    await client.is_refused(asked, "amqp:not-found")


# Who it is


async def with_key(amqp: AmqpClients, user: str, resource: str, key: str = KEY) -> AmqpClient:
    """A connection with SASL PLAIN."""
    client = amqp.connect()
    token = create_token(resource, key, client.protocol.clock() // SECOND + 3600, "registration")
    await client.sasl(SaslInit("PLAIN", b"\0".join((b"", user.encode(), token.encode()))))
    await client.open()
    return client


async def test_a_key(amqp: AmqpClients, services: Services) -> None:
    await services.enroll_by("dev-02", SYMMETRIC)
    address = f"{ID_SCOPE}/registrations/dev-02"
    device = await Device.open(await with_key(amqp, address, address), address)
    _, body = await device.ask(register())
    await services.registrations.stop(within=60)
    assert (await device.ask(poll(body["operationId"])))[1]["status"] == "assigned"


@pytest.mark.parametrize("mechanism", ["EXTERNAL", "ANONYMOUS"])
async def test_a_certificate_with_a_sasl_layer(amqp: AmqpClients, mechanism: str) -> None:
    """No client of the service has one with a certificate; either costs nothing (dps.md 3.1)."""
    client = amqp.connect(DEVICE.certificate)
    await client.sasl(SaslInit(mechanism))
    await client.open()
    assert (await (await Device.open(client)).ask(register()))[1]["status"] == "assigning"


async def test_nothing_at_all(amqp: AmqpClients, services: Services) -> None:
    """Neither certificate nor token nor TPM: it hears what is missing."""
    device = await Device.open(await amqp.open())
    body = await device.is_rejected(register(), "amqp:unauthorized-access")
    assert (body["errorCode"], body["message"]) == (401002, "Invalid certificate.")
    assert await refused_checks(services, body["trackingId"]) == ["x509.certificate-presented"]


async def test_an_encoded_login(amqp: AmqpClients, services: Services) -> None:
    """The same as over MQTT: decoded behind the split (dps.md 9.2, 21)."""
    await services.enroll_by("dev:2", SYMMETRIC)
    address = f"{ID_SCOPE}/registrations/dev%3A2"
    client = await with_key(amqp, address, f"{ID_SCOPE}/registrations/dev:2")
    device = await Device.open(client, address)
    assert (await device.ask(register()))[1]["status"] == "assigning"


async def test_a_wrong_key_is_told_with_the_request(amqp: AmqpClients, services: Services) -> None:
    """SASL ends well: its outcome could not say why (dps.md 3.2, 3.5)."""
    await services.enroll_by("dev-02", SYMMETRIC)
    address = f"{ID_SCOPE}/registrations/dev-02"
    wrong = base64.b64encode(bytes(32)).decode()
    device = await Device.open(await with_key(amqp, address, address, wrong), address)
    body = await device.is_rejected(register(), "amqp:unauthorized-access")
    assert (body["errorCode"], body["message"]) == (401002, "Unauthorized")
    assert await refused_checks(services, body["trackingId"]) == ["sas.signature"]


async def test_a_login_for_another_registration(amqp: AmqpClients, services: Services) -> None:
    for name in ("dev-02", "dev-03"):
        await services.enroll_by(name, SYMMETRIC)
    own, other = (f"{ID_SCOPE}/registrations/{name}" for name in ("dev-02", "dev-03"))
    device = await Device.open(await with_key(amqp, own, own), other)
    body = await device.is_rejected(register(), "amqp:unauthorized-access")
    assert await refused_checks(services, body["trackingId"]) == ["sas.format"]


async def test_several_registrations_on_one_connection(amqp: AmqpClients, services: Services) -> None:
    """Each has links, answers and proof of its own."""
    await services.enroll_by("dev-02", SYMMETRIC)
    address = f"{ID_SCOPE}/registrations/dev-02"
    client = amqp.connect(DEVICE.certificate)
    token = create_token(address, KEY, services.clock() // SECOND + 3600, "registration")
    await client.sasl(SaslInit("PLAIN", b"\0".join((b"", address.encode(), token.encode()))))
    await client.open()
    one, two = await Device.open(client), await Device.open(client, address)
    operations = [(await device.ask(register()))[1]["operationId"] for device in (one, two)]
    await services.registrations.stop(within=60)
    for device, operation, name in zip((one, two), operations, ("dev-01", "dev-02"), strict=True):
        assert (await device.ask(poll(operation)))[1]["registrationState"]["deviceId"] == name
    body = await one.is_rejected(poll(operations[1]), "amqp:not-found")
    assert body["errorCode"] == 404202


async def test_a_poll_on_another_connection_proves_itself(
    amqp: AmqpClients, device: Device, services: Services
) -> None:
    _, body = await device.ask(register())
    await services.registrations.stop(within=60)
    second = await Device.open(await amqp.open(DEVICE.certificate))
    assert (await second.ask(poll(body["operationId"])))[1]["status"] == "assigned"
    stranger = await Device.open(await amqp.open(other_self_signed("dev-01").certificate))
    refusal = await stranger.is_rejected(poll(body["operationId"]), "amqp:unauthorized-access")
    assert await refused_checks(services, refusal["trackingId"]) == ["x509.thumbprint"]


@pytest.mark.parametrize(
    ("address", "check_id"),
    [("0neFFFFFFFF/registrations/dev-01", "id-scope.known"), (f"{ID_SCOPE}/registrations/dev-09", "enrollment.exists")],
)
async def test_who_is_not_known(amqp: AmqpClients, services: Services, address: str, check_id: str) -> None:
    device = await Device.open(await amqp.open(DEVICE.certificate), address)
    body = await device.is_rejected(register(), "amqp:unauthorized-access")
    assert await refused_checks(services, body["trackingId"]) == [check_id]


async def test_a_disabled_enrollment(amqp: AmqpClients, services: Services) -> None:
    await services.enroll("dev-01", DEVICE.certificate_pem.decode(), provisioningStatus="disabled")
    device = await Device.open(await amqp.open(DEVICE.certificate))
    _, body = await device.ask(register())
    await services.registrations.stop(within=60)
    assert (await device.ask(poll(body["operationId"])))[1]["status"] == "disabled"


# What goes in and out


async def test_a_payload_goes_to_the_webhook_and_one_comes_back(amqp: AmqpClients, services: Services) -> None:
    services.webhook.answer = WebhookAnswer(services.hub.host_name, payload={"site": "ü"})
    definition = {"webhookUrl": "https://webhook.example.net/", "apiVersion": "2019-03-31"}
    await services.enroll(
        "dev-01", DEVICE.certificate_pem.decode(), allocationPolicy="custom", customAllocationDefinition=definition
    )
    device = await Device.open(await amqp.open(DEVICE.certificate))
    _, body = await device.ask(register(Data(('{"payload":{"model":"ü"}}'.encode(),))))
    await services.registrations.stop(within=60)
    final = (await device.ask(poll(body["operationId"])))[1]
    assert final["registrationState"]["payload"] == {"site": "ü"}
    assert services.webhook.asked[0][1]["deviceRuntimeContext"]["payload"] == {"model": "ü"}


async def test_a_certificate_is_issued(amqp: AmqpClients, services: Services) -> None:
    services.add_authority()
    await services.enroll("dev-01", DEVICE.certificate_pem.decode(), **ISSUING)
    csr = base64.b64encode(request("dev-01").public_bytes(Encoding.DER)).decode()
    wanted = register(Data((json.dumps({"csr": csr}).encode(),)))
    client = await amqp.open(DEVICE.certificate)
    device = await Device.open(client, version="2026-11-01")
    _, body = await device.ask(wanted)
    await services.registrations.stop(within=60)
    final = (await device.ask(poll(body["operationId"])))[1]
    chain = final["registrationState"]["issuedCertificateChain"]
    assert [base64.b64decode(one) for one in chain[1:]] == [to_der(one) for one in intermediate().chain]


class TestThrottled:
    """One registration in ten seconds."""

    @pytest.fixture
    def rates(self) -> Rates:
        return read_rates("registrations=1/10s")

    async def test_when_to_come_again(self, device: Device, services: Services) -> None:
        await device.ask(register())
        number = await device.client.transfer(device.requests, register())
        disposition = await device.client.settles(number, Rejected)
        assert isinstance(disposition.state, Rejected)
        error = disposition.state.error
        assert error is not None
        assert error.condition == "com.microsoft:device-container-throttled"
        assert error.info == {Symbol("retry-after"): Int(10), Symbol("Retry-After"): Int(10)}
        services.clock.advance(10 * SECOND)
        assert (await device.ask(register()))[1]["status"] == "assigning"
