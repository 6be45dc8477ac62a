"""Events that a hub writes to its log beside telemetry: each in the transaction of its change, if the hub wants it."""

import json
from typing import Any

import msgspec
import pytest
from tests.support.fix_arm import HUBS, ManagementClient
from tests.support.fix_services import Services

from muster.domain.device import IdentityBody
from muster.domain.errors import ArgumentInvalidError, DeviceAlreadyExistsError, NotFoundError
from muster.domain.hub_event import EventSettings, HubEventSource
from muster.domain.message import Event
from muster.domain.module import ModuleBody
from muster.domain.partition import partition_of
from muster.domain.timestamp import HOUR, iso_utc
from muster.domain.twin import TwinBody
from muster.hub.authentication import Principal
from muster.hub.events import Position, events_subject
from muster.hub.sessions import Session
from muster.server.services import build_services
from muster.store.database import Transaction

EAST = f"{HUBS}/east"
START = Position((0, 0, 0, 0))
ALL = tuple(HubEventSource)


async def want(services: Services, *sources: HubEventSource) -> None:
    await services.hubs.update("hub", (), services.hub.facts, events=EventSettings(sources))


async def written(services: Services) -> list[Event]:
    events, _ = await services.events.read("hub", START, 1000)
    return events


async def operations(services: Services) -> list[tuple[str, str, str]]:
    """Operation and ids of each event."""
    return [
        (event.application_properties["opType"], event.origin.device_id, event.origin.module_id)
        for event in await written(services)
    ]


async def create(services: Services, device_id: str = "d1", *, edge: bool = False) -> Principal:
    body = msgspec.convert({"deviceId": device_id, "capabilities": {"iotEdge": edge}}, IdentityBody)
    identity, _ = await services.devices.put("hub", device_id, body, None)
    return Principal(services.hub, identity, "{}", None)


async def settle(services: Services) -> None:
    """All that was submitted before is stored."""

    async def nothing(_tx: Transaction) -> None:
        return None

    await services.database.transact(nothing)


async def test_a_new_hub_writes_telemetry_only(services: Services) -> None:
    principal = await create(services)
    await services.twins.update_reported("hub", "d1", "", b'{"a":1}')
    services.sessions.detach(await services.sessions.attach(principal, lambda _notice: None))
    await services.devices.delete("hub", "d1", "*")
    assert await written(services) == []


@pytest.mark.parametrize("source", ALL)
async def test_each_source_by_itself(services: Services, source: HubEventSource) -> None:
    await want(services, source)
    principal = await create(services)
    await services.twins.update_reported("hub", "d1", "", b'{"a":1}')
    services.sessions.detach(await services.sessions.attach(principal, lambda _notice: None))
    await services.devices.delete("hub", "d1", "*")
    expected = {
        HubEventSource.TWIN_CHANGE: ["updateTwin"],
        HubEventSource.LIFECYCLE: ["createDeviceIdentity", "deleteDeviceIdentity"],
        HubEventSource.CONNECTION_STATE: ["deviceConnected", "deviceDisconnected"],
    }
    assert [operation for operation, _, _ in await operations(services)] == expected[source]
    assert {event.source for event in await written(services)} == {source.value}


async def test_the_stamps_of_a_twin_change(services: Services) -> None:
    await create(services)
    await want(services, HubEventSource.TWIN_CHANGE)
    await services.twins.update_reported("hub", "d1", "", b'{"fw":"1.4.3"}')
    (event,) = await written(services)
    assert event.partition == partition_of("d1", 4)
    assert (event.source, event.origin.device_id, event.origin.module_id) == ("twinChangeEvents", "d1", "")
    assert (event.sequence_number, event.enqueued_time) == (0, services.clock.now)
    assert len(bytes.fromhex(event.system_properties.pop("correlation-id"))) == 16
    assert event.system_properties == {
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "user-id": "hub",
    }
    now = iso_utc(services.clock.now)
    assert event.application_properties == {
        "hubName": "hub",
        "deviceId": "d1",
        "operationTimestamp": now,
        "opType": "updateTwin",
        "iothub-message-schema": "twinChangeNotification",
    }
    metadata = {"$lastUpdated": now, "fw": {"$lastUpdated": now}}
    assert json.loads(event.body) == {
        "version": 3,
        "properties": {"reported": {"fw": "1.4.3", "$metadata": metadata, "$version": 2}},
    }


async def test_a_replaced_twin_of_a_module(services: Services) -> None:
    await create(services)
    await services.modules.put("hub", "d1", "m1", ModuleBody(module_id="m1"), None)
    await want(services, HubEventSource.TWIN_CHANGE)
    await services.twins.replace("hub", "d1", "m1", msgspec.convert({"tags": {"a": 1}}, TwinBody), None)
    (event,) = await written(services)
    assert (event.origin.module_id, event.application_properties["moduleId"]) == ("m1", "m1")
    body = json.loads(event.body)
    assert list(body) == ["deviceId", "moduleId", "etag", "version", "tags", "properties"]
    assert event.application_properties["opType"] == "replaceTwin"


async def test_the_life_of_an_edge_device(services: Services) -> None:
    """Its modules come and go with it, and have events of their own."""
    await want(services, HubEventSource.LIFECYCLE)
    await create(services, edge=True)
    await services.modules.put("hub", "d1", "m1", ModuleBody(module_id="m1"), None)
    await services.twins.update_reported("hub", "d1", "", b'{"a":1}')
    await services.devices.delete("hub", "d1", "*")
    created, deleted = "createDeviceIdentity", "deleteDeviceIdentity"
    modules = ("$edgeAgent", "$edgeHub", "m1")
    assert await operations(services) == [
        *((created, "d1", module) for module in ("", *modules)),
        *((deleted, "d1", module) for module in (*modules, "")),
    ]
    first, last = (await written(services))[0], (await written(services))[-1]
    assert json.loads(first.body)["version"] == 2
    assert json.loads(last.body)["properties"]["reported"]["a"] == 1


async def test_what_is_refused_writes_nothing(services: Services) -> None:
    await want(services, *ALL)
    await create(services)
    with pytest.raises(DeviceAlreadyExistsError):
        await create(services)
    with pytest.raises(ArgumentInvalidError):
        await services.twins.update_reported("hub", "d1", "", b'{"a.b":1}')
    assert await operations(services) == [("createDeviceIdentity", "d1", "")]


async def test_a_change_whose_event_cannot_be_written_is_no_change(services: Services) -> None:
    await create(services)
    await want(services, *ALL)

    async def lose_partitions(tx: Transaction) -> None:
        await tx.execute("DELETE FROM event_partition")

    await services.database.transact(lose_partitions)
    with pytest.raises(NotFoundError, match="has no partition"):
        await services.twins.update_reported("hub", "d1", "", b'{"a":1}')
    assert (await services.twin("d1"))["version"] == 2


async def attach(services: Services, principal: Principal) -> Session:
    return await services.sessions.attach(principal, lambda _notice: None)


async def test_sequence_numbers_of_connections_grow(services: Services) -> None:
    await want(services, HubEventSource.CONNECTION_STATE)
    principal = await create(services)
    for _ in range(3):
        session = await attach(services, principal)
        services.sessions.detach(session)
        await settle(services)
        services.clock.advance(-HOUR)  # a clock that is set back changes nothing
    await services.devices.delete("hub", "d1", "*")
    services.clock.advance(4 * HOUR)
    await attach(services, await create(services))
    events = await written(services)
    assert [event.application_properties["opType"] for event in events] == [
        "deviceConnected",
        "deviceDisconnected",
    ] * 3 + ["deviceConnected"]
    numbers = [json.loads(event.body)["sequenceNumber"] for event in events]
    assert numbers == sorted(set(numbers))
    assert {len(number) for number in numbers} == {64}


async def test_a_displaced_connection_is_no_disconnect(services: Services) -> None:
    await want(services, HubEventSource.CONNECTION_STATE)
    principal = await create(services)
    older = await attach(services, principal)
    newer = await attach(services, principal)
    services.sessions.detach(older)
    await settle(services)
    assert await operations(services) == [("deviceConnected", "d1", "")]
    services.sessions.detach(newer)
    await settle(services)
    assert (await operations(services))[1:] == [("deviceDisconnected", "d1", "")]


async def test_whoever_was_connected_when_the_server_ended(services: Services) -> None:
    await want(services, HubEventSource.CONNECTION_STATE)
    for number in range(5):
        await attach(services, await create(services, f"d{number}"))
    again = build_services(
        services.database, services.bus, services.clock, bytes, services.webhook, services.ca_directory
    )
    await again.hubs.load()
    await again.sessions.forget_all()
    ended = [device for operation, device, _ in await operations(services) if operation == "deviceDisconnected"]
    assert sorted(ended) == [f"d{number}" for number in range(5)]
    await again.sessions.forget_all()
    assert len(await written(services)) == 10


async def test_readers_are_woken_after_the_commit(services: Services) -> None:
    await want(services, HubEventSource.LIFECYCLE)
    seen: list[bytes] = []
    subscription = services.bus.subscribe(events_subject("hub"), seen.append)
    await create(services)
    assert len(seen) == 1
    with pytest.raises(DeviceAlreadyExistsError):
        await create(services)
    assert len(seen) == 1
    subscription.close()


async def test_the_switch_of_a_hub(arm: ManagementClient, services: Services) -> None:
    path = EAST
    body: dict[str, Any] = {
        "location": "a",
        "properties": {"hostName": "east.example.net", "hubEvents": ["twinChangeEvents"]},
    }
    answer = await arm.request("PUT", path, body)
    assert (answer.status, answer.json["properties"]["hubEvents"]) == (201, ["twinChangeEvents"])
    del body["properties"]["hubEvents"]
    answer = await arm.request("PUT", path, body)
    assert answer.json["properties"]["hubEvents"] == ["twinChangeEvents"], "what is left out stays"
    assert services.hubs.by_name("east").events.sources == (HubEventSource.TWIN_CHANGE,)
    answer = await arm.request("PUT", path, {**body, "properties": {"hubEvents": ["Telemetry"]}})
    assert answer.status == 400
    assert "properties.hubEvents" in answer.json["message"]
    answer = await arm.request("PUT", path, {**body, "properties": {"hubEvents": []}})
    assert answer.json["properties"]["hubEvents"] == []
    assert services.hubs.by_name("east").events.sources == ()
