"""Faults that devices ask for (hub-device.md 13): what happens when, and to whom."""

import json
from typing import Any

import pytest
from tests.support.fix_mqtt import MqttClient, MqttClients
from tests.support.fix_rest import HUB_HOST, RestClient
from tests.support.fix_services import KEY, Services
from tests.support.timers import Timers

from muster.domain.device import AuthenticationBody, IdentityBody, SymmetricKeyBody
from muster.faults.https import FaultyEventLog
from muster.faults.mqtt import FaultyMqtt
from muster.faults.requests import Fault, read_fault
from muster.frontends.device_services import DeviceServices
from muster.frontends.mqtt.front_end import MqttFrontEnd
from muster.hub.events import Position
from muster.server.rest import hub_apis, rest_app
from muster.wire.mqtt_packets import Connack, Puback, Publish

EVENTS = "devices/d1/messages/events/"
SERVER_UNAVAILABLE = 3


class FaultyClients(MqttClients):
    """Connections to a front end that injects faults."""

    def __init__(self, services: Services, timers: Timers) -> None:
        super().__init__(services)
        front_end = MqttFrontEnd(
            services.hubs,
            services.authentication,
            services.events,
            DeviceServices(
                services.sessions, services.twins, services.methods, services.c2d, services.reports, services.clock
            ),
            services.registrations,
            services.clock,
        )
        self._front_end = FaultyMqtt(front_end, services.clock, timers.later)  # type: ignore[assignment]  # wraps it


@pytest.fixture(autouse=True)
async def _devices(services: Services) -> None:
    for device_id in ("d1", "d2"):
        keys = AuthenticationBody("sas", SymmetricKeyBody(KEY, KEY))
        await services.devices.put("hub", device_id, IdentityBody(device_id=device_id, authentication=keys), None)


@pytest.fixture
def timers(services: Services) -> Timers:
    return Timers(services)


@pytest.fixture
async def faulty(services: Services, timers: Timers) -> Any:
    clients = FaultyClients(services, timers)
    yield clients
    await clients.close()


@pytest.fixture
async def device(faulty: FaultyClients) -> MqttClient:
    return await faulty.to_hub("d1", key=KEY, clean_session=False)


def request(kind: str, delay: str = "2", duration: str = "20") -> str:
    return (
        f"{EVENTS}AzIoTHub_FaultOperationType={kind}&AzIoTHub_FaultOperationCloseReason=boom"
        f"&AzIoTHub_FaultOperationDelayInSecs={delay}&AzIoTHub_FaultOperationDurationInSecs={duration}"
    )


async def bodies(services: Services) -> list[bytes]:
    found, _ = await services.events.read("hub", Position((0,) * 4), 100)
    return [event.body for event in found]


# Over MQTT


async def test_kill_tcp(services: Services, faulty: FaultyClients, timers: Timers, device: MqttClient):
    await device.publish(request("KillTcp"), b"kill")
    timers.advance(1.9)
    await device.publish(EVENTS, b"still there", 2)
    timers.advance(0.1)
    await device.is_closed()
    timers.advance(19.9)
    refused = faulty.open()
    await refused.send(faulty.hub_connect("d1", key=KEY))
    await refused.is_refused(SERVER_UNAVAILABLE)
    await faulty.to_hub("d2", key=KEY)
    timers.advance(0.1)
    again = await faulty.to_hub("d1", key=KEY, clean_session=False, session=True)
    await again.publish(EVENTS, b"and back")
    assert await bodies(services) == [b"still there", b"and back"]


@pytest.mark.parametrize("kind", ["ShutDownMqtt", "InvokeThrottling", "InvokeMaxMessageQuota", "INVOKEautherror"])
async def test_one_disconnect(services: Services, faulty: FaultyClients, timers: Timers, device: MqttClient, kind: str):
    await device.publish(request(kind), b"shut down")
    assert not device.transport.closing
    timers.advance(2)
    await device.is_closed()
    again = await faulty.to_hub("d1", key=KEY, clean_session=False, session=True)
    await again.publish(EVENTS, b"and back")
    assert await bodies(services) == [b"and back"]


async def test_a_request_is_acknowledged_in_its_turn(services: Services, device: MqttClient):
    await device.send(
        Publish(EVENTS.encode(), b"before", 1, 1),
        Publish(request("KillTcp").encode(), b"kill", 1, 2),
        Publish(EVENTS.encode(), b"behind", 1, 3),
        Publish(request("KillTcp").encode(), b"kill", 0),
    )
    assert [await device.receive(Puback) for _ in range(3)] == [Puback(1), Puback(2), Puback(3)]
    assert await bodies(services) == [b"before", b"behind"]


async def test_a_fault_of_another_protocol_does_nothing(services: Services, timers: Timers, device: MqttClient):
    await device.publish(request("KillAmqpD2CLink"), b"x")
    timers.advance(100)
    await device.publish(EVENTS, b"still there", 2)
    assert await bodies(services) == [b"still there"]


async def test_a_device_that_left_by_itself_is_killed_all_the_same(
    faulty: FaultyClients, timers: Timers, device: MqttClient
):
    await device.publish(request("KillTcp"), b"kill")
    await device.leave()
    timers.advance(2)
    refused = faulty.open()
    await refused.send(faulty.hub_connect("d1", key=KEY))
    assert (await refused.receive(Connack)).values() == (SERVER_UNAVAILABLE, False)


async def test_a_request_under_the_name_of_another_device_ends_the_connection(
    services: Services, timers: Timers, device: MqttClient
):
    await device.send(Publish(request("KillTcp").replace("d1", "d2").encode(), b"kill", 1, 1))
    await device.is_closed()
    assert await bodies(services) == []


async def test_it_is_off(services: Services, mqtt: MqttClients):
    device = await mqtt.to_hub("d1", key=KEY)
    await device.publish(request("KillTcp", "0"), b"plain telemetry")
    await device.publish(EVENTS, b"still there", 2)
    assert await bodies(services) == [b"plain telemetry", b"still there"]


# Over HTTPS


@pytest.fixture
def rest(services: Services) -> RestClient:
    apis = hub_apis(services, (), FaultyEventLog(services.events))
    return RestClient(rest_app(services, services.clock, apis), services)


async def post(rest: RestClient, body: object, **headers: str) -> int:
    token = rest.token("", HUB_HOST, resource=f"{HUB_HOST}/devices/d1")
    target = "/devices/d1/messages/events?api-version=2021-04-12"
    return (await rest.request("POST", target, body, host=HUB_HOST, authorization=token, **headers)).status


HTTPS = [("InvokeThrottling", 429), ("invokemaxmessagequota", 403), ("InvokeAuthError", 401), ("KillTcp", 204)]


@pytest.mark.parametrize(("kind", "status"), HTTPS)
async def test_one_request_over_https(services: Services, rest: RestClient, kind: str, status: int):
    header = "iothub-app-AzIoTHub_Fault{}"
    fault = {header.format("OperationType"): kind, header.format("OperationDurationInSecs"): "20"}
    assert await post(rest, b"fault", **fault) == status
    assert await post(rest, b"plain") == 204
    assert await bodies(services) == [b"plain"]


@pytest.mark.parametrize(("kind", "status"), HTTPS)
async def test_one_batch_over_https(services: Services, rest: RestClient, kind: str, status: int):
    properties = {"iothub-app-AzIoTHub_FaultOperationType": kind}
    batch = [{"body": "eA=="}, {"body": "eA==", "properties": properties}]
    assert await post(rest, batch, content_type="application/vnd.microsoft.iothub.json") == status
    assert await bodies(services) == []


# What is read


def properties(**named: str) -> str:
    return json.dumps({f"AzIoTHub_FaultOperation{name}": value for name, value in named.items()})


@pytest.mark.parametrize("text", ["{}", '{"note":"AzIoTHub_FaultOperationType"}', properties(DelayInSecs="1")])
def test_what_asks_for_nothing(text: str):
    assert read_fault(text) is None


def test_what_is_asked_for():
    assert read_fault(properties(Type="KillTcp")) == Fault("killtcp", "", 1.0, 0.0)
    whole = properties(Type=" KillTcp ", CloseReason="boom", DelayInSecs="1.5", DurationInSecs="100000")
    assert read_fault(whole) == Fault("killtcp", "boom", 1.5, 100_000.0)
    assert read_fault(whole.replace("AzIoTHub_", "AZIOTHUB_")) == Fault("killtcp", "boom", 1.5, 100_000.0)
    assert read_fault(properties(Type="x", DelayInSecs="0")) == Fault("x", "", 0.1, 0.0)


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "1e999", "undefined", ""])
def test_times_that_are_none(text: str):
    assert read_fault(properties(Type="x", DelayInSecs=text, DurationInSecs=text)) == Fault("x", "", 1.0, 0.0)
