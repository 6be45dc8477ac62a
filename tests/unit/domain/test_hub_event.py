"""The events that a hub writes about its devices: bodies and properties, by hub-service.md 9.5."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from muster.domain.device import Identity
from muster.domain.errors import ArgumentInvalidError
from muster.domain.hub_event import (
    EventSettings,
    HubEventSource,
    connection_state_event,
    first_sequence,
    lifecycle_event,
    read_event_sources,
    twin_change_event,
)
from muster.domain.twin import InitialTwin, TwinChange, new_twin

NOW = 1_790_000_000_123_456
ISO = "2026-09-21T14:13:20.1234560Z"
NEVER = "0001-01-01T00:00:00Z"


def identity(device_id: str = "d1", module_id: str = "") -> Identity:
    return Identity(
        device_id=device_id, module_id=module_id, generation_id="1", etag=5, status="enabled", authentication_type="sas"
    )


def test_the_creation_of_a_device() -> None:
    event = lifecycle_event("east", identity(), new_twin(None, NOW), "createDeviceIdentity", NOW)
    assert event.source == "deviceLifecycleEvents"
    assert event.application_properties == {
        "hubName": "east",
        "deviceId": "d1",
        "operationTimestamp": ISO,
        "opType": "createDeviceIdentity",
        "iothub-message-schema": "deviceLifecycleNotification",
    }
    assert event.system_properties("ab12") == {
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "correlation-id": "ab12",
        "user-id": "east",
    }
    desired = {"$metadata": {"$lastUpdated": NEVER, "$lastUpdatedVersion": 1}, "$version": 1}
    reported = {"$metadata": {"$lastUpdated": NEVER}, "$version": 1}
    body = json.loads(event.content)
    assert body == {
        "deviceId": "d1",
        "etag": "AAAAAAAAAAE=",
        "version": 2,
        "properties": {"desired": desired, "reported": reported},
    }
    assert list(body) == ["deviceId", "etag", "version", "properties"]


def test_the_deletion_of_a_module_with_tags() -> None:
    twin = new_twin(InitialTwin(tags={"site": "A"}), NOW)
    event = lifecycle_event("east", identity("d1", "m1"), twin, "deleteDeviceIdentity", NOW)
    assert event.application_properties["moduleId"] == "m1"
    assert event.application_properties["opType"] == "deleteDeviceIdentity"
    assert (event.body["moduleId"], event.body["tags"]) == ("m1", {"site": "A"})


def test_a_twin_change_is_passed_on_as_it_is() -> None:
    body = {"version": 3, "tags": {"site": None}}
    change = TwinChange(hub="east", device_id="d1", module_id="", operation="updateTwin", time=NOW, body=body)
    event = twin_change_event(change)
    assert (event.source, event.content) == ("twinChangeEvents", b'{"version":3,"tags":{"site":null}}')
    properties = event.application_properties
    assert (properties["opType"], properties["iothub-message-schema"]) == ("updateTwin", "twinChangeNotification")
    assert properties["operationTimestamp"] == ISO


@pytest.mark.parametrize("connected", [True, False])
def test_connection_state(connected: bool) -> None:
    sequence = first_sequence(NOW)
    event = connection_state_event("east", "d1", "m1", sequence, NOW, connected=connected)
    assert event.application_properties["opType"] == ("deviceConnected" if connected else "deviceDisconnected")
    assert event.application_properties["iothub-message-schema"] == "deviceConnectionStateNotification"
    # .NET's file time, in the place it has in Azure's own example.
    ticks = (datetime.fromisoformat(ISO) - datetime(1601, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) * 10
    assert event.body == {"sequenceNumber": f"{'0' * 16}{ticks:016X}{'0' * 32}"}
    following = connection_state_event("east", "d1", "m1", sequence + 1, NOW, connected=connected)
    assert following.body["sequenceNumber"] > event.body["sequenceNumber"]


def test_sources_in_any_case_and_order() -> None:
    settings = read_event_sources(["deviceLifecycleEvents", "TwinChangeEvents"], EventSettings())
    assert settings.sources == (HubEventSource.TWIN_CHANGE, HubEventSource.LIFECYCLE)
    assert read_event_sources(None, settings) is settings
    assert read_event_sources([], settings).sources == ()


@pytest.mark.parametrize("value", ["twinChangeEvents", {}, [1], ["Telemetry"], ["twinChangeEvents", "x" * 1000]])
def test_sources_that_do_not_exist(value: object) -> None:
    with pytest.raises(ArgumentInvalidError, match=r"^properties\.hubEvents .*deviceLifecycleEvents"):
        read_event_sources(value, EventSettings())
