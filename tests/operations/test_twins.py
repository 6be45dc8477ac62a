"""Twins: what devices and service clients read, write, and hear of each other (hub-device.md 7, hub-service.md 3)."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import msgspec
import pytest
from tests.support.fix_services import Services

from muster.domain.device import IdentityBody
from muster.domain.errors import (
    ArgumentInvalidError,
    ArgumentNullError,
    DeviceNotFoundError,
    FormatError,
    PreconditionFailedError,
)
from muster.domain.timestamp import SECOND, iso_utc
from muster.domain.twin import TwinBody, TwinChange
from muster.hub.desired_changes import twin_changed_message, twin_changed_subject
from muster.hub.twins import Twins
from muster.store.database import Transaction


@pytest.fixture
async def device(services: Services) -> str:
    await services.devices.put("hub", "d1", IdentityBody(device_id="d1"), None)
    return "d1"


def body(**members: object) -> TwinBody:
    return msgspec.convert(members, TwinBody)


def desired(**values: object) -> TwinBody:
    return body(properties={"desired": values})


async def test_a_device_reads_both_sections_with_their_versions(services: Services, device: str) -> None:
    assert await services.twins.device_document("hub", device) == (
        b'{"desired":{"$version":1},"reported":{"$version":1}}'
    )
    await services.twins.patch("hub", device, "", desired(interval=30, fan={"mode": "auto"}), None)
    await services.twins.update_reported("hub", device, "", b'{"fw": "1.4.2", "list": [1, 1.0, {"a": true}]}')
    assert await services.twins.device_document("hub", device) == (
        b'{"desired":{"interval":30,"fan":{"mode":"auto"},"$version":2},'
        b'"reported":{"fw":"1.4.2","list":[1,1.0,{"a":true}],"$version":2}}'
    )
    assert await services.twins.desired_document("hub", device) == (
        2,
        b'{"interval":30,"fan":{"mode":"auto"},"$version":2}',
    )


async def test_nobody_reads_or_writes_a_twin_that_is_not_there(services: Services, device: str) -> None:
    twins = services.twins
    for module_id in ("", "m1"):
        device_id = device if module_id else "d2"
        for attempt in (
            twins.get("hub", device_id, module_id),
            twins.device_document("hub", device_id, module_id),
            twins.desired_document("hub", device_id, module_id),
            twins.update_reported("hub", device_id, module_id, b"{}"),
            twins.patch("hub", device_id, module_id, body(tags={"a": 1}), None),
            twins.replace("hub", device_id, module_id, body(), "*"),
            twins.follow_desired("hub", device_id, module_id, lambda _version, _document: None, _never),
        ):
            with pytest.raises(DeviceNotFoundError, match=device_id):
                await attempt


async def test_reported_properties(services: Services, device: str) -> None:
    twins = services.twins
    assert await twins.update_reported("hub", device, "", b'{"a":{"b":1,"c":2}}') == 2
    services.clock.advance(SECOND)
    assert await twins.update_reported("hub", device, "", b'{"a":{"b":null,"d":3}}') == 3
    view = await services.twin(device)
    later, earlier = iso_utc(services.clock.now), iso_utc(services.clock.now - SECOND)
    assert view["properties"]["reported"] == {
        "a": {"c": 2, "d": 3},
        "$metadata": {
            "$lastUpdated": later,
            "a": {"$lastUpdated": later, "c": {"$lastUpdated": earlier}, "d": {"$lastUpdated": later}},
        },
        "$version": 3,
    }
    # The etag is of what service clients write; the version counts everything (hub-service.md 3.2).
    assert (view["etag"], view["version"]) == ("AAAAAAAAAAE=", 4)


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        (b"", ArgumentNullError),
        (b" ", ArgumentNullError),
        (b"{", FormatError),
        (b'{"a":"\xff"}', FormatError),
        (b'{"a":' + b"[" * 5000, FormatError),
        (b"[]", ArgumentInvalidError),
        (b"null", ArgumentInvalidError),
        (b'{"a.b":1}', ArgumentInvalidError),
        (b'{"$version":3}', ArgumentInvalidError),
        (b'{"a":"\\u0000"}', ArgumentInvalidError),
        (b'{"a":4503599627370496}', ArgumentInvalidError),
        (b'{"a":' * 12 + b"1" + b"}" * 12, ArgumentInvalidError),
        (b" " * 300_000 + b"{}", ArgumentInvalidError),
    ],
)
async def test_what_a_device_may_not_report(services: Services, device: str, patch: bytes, error: type) -> None:
    with pytest.raises(error):
        await services.twins.update_reported("hub", device, "", patch)
    assert (await services.twin(device))["version"] == 2


async def test_the_size_of_a_section_counts_what_is_there_already(services: Services, device: str) -> None:
    for number in range(8):
        await services.twins.update_reported("hub", device, "", json.dumps({str(number): "x" * 4000}).encode())
    with pytest.raises(ArgumentInvalidError, match="exceeds maximum 32768"):
        await services.twins.update_reported("hub", device, "", json.dumps({"8": "x" * 4000}).encode())
    assert await services.twins.update_reported("hub", device, "", b'{"7":null,"8":"x"}') == 10


async def test_an_optimistic_report(services: Services, device: str) -> None:
    assert await services.twins.update_reported("hub", device, "", b'{"a":1}', 1) == 2
    with pytest.raises(PreconditionFailedError, match="version 2, not 1"):
        await services.twins.update_reported("hub", device, "", b'{"a":2}', 1)


async def test_etags_of_service_writes(services: Services, device: str) -> None:
    twins = services.twins
    view = await twins.patch("hub", device, "", body(tags={"site": "A"}), '"AAAAAAAAAAE="')
    assert (view.etag, view.version) == ("AAAAAAAAAAI=", 3)
    for write in (twins.patch, twins.replace):
        with pytest.raises(PreconditionFailedError):
            await write("hub", device, "", body(tags={"site": "B"}), "AAAAAAAAAAE=")
    view = await twins.replace("hub", device, "", body(tags={"site": "C"}), "*")
    assert (view.etag, view.version) == ("AAAAAAAAAAM=", 4)


class Ear:
    """A connection that follows its desired properties."""

    def __init__(self) -> None:
        self.heard: list[tuple[int, Any]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def deliver(self, version: int, document: bytes) -> None:
        self.heard.append((version, json.loads(document)))

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(coroutine))

    async def settle(self) -> None:
        """Until all that was said has been heard."""
        await asyncio.sleep(0)
        while self._tasks:
            await self._tasks.pop()


def _never(coroutine: Coroutine[Any, Any, None]) -> None:
    coroutine.close()
    raise AssertionError("nothing was to be read again")


@pytest.fixture
async def ear(services: Services, device: str) -> AsyncIterator[Ear]:
    ear = Ear()
    changes = await services.twins.follow_desired("hub", device, "", ear.deliver, ear.spawn)
    yield ear
    changes.close()


async def test_a_connected_device_hears_the_patch(services: Services, device: str, ear: Ear) -> None:
    twins = services.twins
    await twins.patch("hub", device, "", desired(interval=30, fan={"mode": "auto", "speed": 3}), None)
    await twins.patch("hub", device, "", desired(interval=60, fan={"mode": None}), None)
    await ear.settle()
    assert ear.heard == [
        (2, {"interval": 30, "fan": {"mode": "auto", "speed": 3}, "$version": 2}),
        (3, {"interval": 60, "fan": {"mode": None}, "$version": 3}),
    ]


async def test_a_connected_device_hears_a_replacement_as_a_whole(services: Services, device: str, ear: Ear) -> None:
    await services.twins.patch("hub", device, "", desired(a=1, b=2), None)
    await services.twins.replace("hub", device, "", desired(b=None, c={"d": None, "e": 1}), None)
    await ear.settle()
    assert ear.heard[1:] == [(3, {"c": {"e": 1}, "$version": 3})]


async def test_what_a_device_hears_nothing_of(services: Services, device: str, ear: Ear) -> None:
    await services.twins.patch("hub", device, "", body(tags={"a": 1}), None)
    await services.twins.patch("hub", device, "", body(properties={"desired": {}}), None)
    await services.twins.update_reported("hub", device, "", b'{"a":1}')
    await services.devices.put("hub", "d2", IdentityBody(device_id="d2"), None)
    await services.twins.patch("hub", "d2", "", desired(a=1), None)
    with pytest.raises(ArgumentInvalidError):
        await services.twins.patch("hub", device, "", desired(**{"a.b": 1}), None)
    await ear.settle()
    assert ear.heard == []


async def test_a_lost_message_is_made_up_for_by_the_next(services: Services, device: str, ear: Ear) -> None:
    deaf = Twins(services.database, type(services.bus)(), services.clock)
    await deaf.patch("hub", device, "", desired(a=1), None)
    await services.twins.patch("hub", device, "", desired(b=2), None)
    await ear.settle()
    assert ear.heard == [(3, {"a": 1, "b": 2, "$version": 3})]


async def test_messages_that_overtake_each_other(services: Services, device: str, ear: Ear) -> None:
    subject = twin_changed_subject("hub", device, "")
    deaf = Twins(services.database, type(services.bus)(), services.clock)
    for number in (2, 3, 4):
        await deaf.patch("hub", device, "", desired(a=number), None)
    for number in (3, 2, 4, 3):
        services.bus.publish(subject, twin_changed_message(number, {"a": number, "$version": number}))
    await ear.settle()
    # After the gap the whole is read, which is newer than what the message said.
    assert ear.heard == [(4, {"a": 4, "$version": 4})]


async def test_what_is_said_while_a_connection_begins_to_follow(services: Services, device: str) -> None:
    ear = Ear()
    subject = twin_changed_subject("hub", device, "")
    following = asyncio.ensure_future(services.twins.follow_desired("hub", device, "", ear.deliver, ear.spawn))
    await services.twins.patch("hub", device, "", desired(a=1), None)
    services.bus.publish(subject, twin_changed_message(1, {"$version": 1}))
    changes = await following
    await services.twins.patch("hub", device, "", desired(a=2), None)
    await ear.settle()
    assert [version for version, _ in ear.heard][-1:] == [3]
    assert len(ear.heard) == len({version for version, _ in ear.heard})
    changes.close()
    changes.close()
    await services.twins.patch("hub", device, "", desired(a=3), None)
    await ear.settle()
    assert ear.heard[-1][0] == 3


async def test_a_device_that_was_deleted_hears_no_more(services: Services, device: str, ear: Ear) -> None:
    await services.devices.delete("hub", device, "*")
    services.bus.publish(twin_changed_subject("hub", device, ""), twin_changed_message(7, {"$version": 7}))
    await ear.settle()
    assert ear.heard == []


async def test_every_write_is_recorded_in_its_transaction(services: Services, device: str) -> None:
    recorded: list[TwinChange] = []

    async def record(_tx: Transaction, change: TwinChange) -> None:
        recorded.append(change)

    twins = Twins(services.database, services.bus, services.clock, record)
    await twins.patch("hub", device, "", desired(a={"b": 1}), None)
    await twins.patch("hub", device, "", body(tags={"site": "A", "gone": None}), None)
    await twins.update_reported("hub", device, "", b'{"x":1,"y":null}')
    await twins.replace("hub", device, "", desired(z=1), None)
    now = iso_utc(services.clock.now)
    stamp = {"$lastUpdated": now, "$lastUpdatedVersion": 2}
    assert [(change.operation, change.body) for change in recorded[:3]] == [
        (
            "updateTwin",
            {
                "version": 3,
                "properties": {
                    "desired": {"a": {"b": 1}, "$metadata": {**stamp, "a": {**stamp, "b": stamp}}, "$version": 2}
                },
            },
        ),
        ("updateTwin", {"version": 4, "tags": {"site": "A", "gone": None}}),
        (
            "updateTwin",
            {
                "version": 5,
                "properties": {
                    "reported": {
                        "x": 1,
                        "y": None,
                        "$metadata": {"$lastUpdated": now, "x": {"$lastUpdated": now}},
                        "$version": 2,
                    }
                },
            },
        ),
    ]
    last = recorded[3]
    assert (last.hub, last.device_id, last.module_id, last.time) == ("hub", device, "", services.clock.now)
    assert last.operation == "replaceTwin"
    assert list(last.body) == ["deviceId", "etag", "version", "tags", "properties"]
    assert last.body["etag"] == (await twins.get("hub", device)).etag
    assert last.body["properties"] == (await services.twin(device))["properties"]


async def test_a_change_that_cannot_be_recorded_is_no_change(services: Services, device: str, ear: Ear) -> None:
    async def record(_tx: Transaction, _change: TwinChange) -> None:
        raise PreconditionFailedError("no room")

    twins = Twins(services.database, services.bus, services.clock, record)
    with pytest.raises(PreconditionFailedError, match="no room"):
        await twins.patch("hub", device, "", desired(a=1), None)
    await ear.settle()
    assert (await services.twin(device))["version"] == 2
    assert ear.heard == []
