"""What a reader of events is sent, byte for byte as its decoder sees it."""

import json

import pytest

from muster.frontends.event_messages import NEVER, SECURITY_INTERFACE, EventEncoder, runtime_metrics
from muster.hub.event_batches import EventRun
from muster.hub.partition_log import PartitionInformation
from muster.wire.amqp_composites import decode_message, encode_message
from muster.wire.amqp_messages import Data, Properties
from muster.wire.amqp_types import Double, Long, Symbol, Timestamp

METHOD = '{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}'
TIME = 1_790_000_000_123_456


def row(system=None, application=None, body=b"x", number=7, offset=123, module="", method=METHOD, model="", source="T"):
    texts = json.dumps(system or {}), json.dumps(application or {})
    head = (source, "dev-1", module, "638" if method else "", method, model, *texts)
    return EventRun(head, number, offset, TIME, [body])


def message(*rows):
    (payload,) = EventEncoder().encode(rows)
    return decode_message(payload)


def annotations(found):
    return {key.text: value for key, value in found.message_annotations.items()}


def test_telemetry_without_properties_has_no_properties_section():
    found = message(row())
    assert annotations(found) == {
        "x-opt-sequence-number": Long(7),
        "x-opt-offset": "123",
        "x-opt-enqueued-time": Timestamp(1_790_000_000_123),
        "iothub-enqueuedtime": Timestamp(1_790_000_000_123),
        "iothub-connection-device-id": "dev-1",
        "iothub-connection-auth-method": METHOD,
        "iothub-connection-auth-generation-id": "638",
        "iothub-message-source": "T",
        "x-opt-partition-key": "dev-1",
    }
    assert (found.header, found.properties, found.application_properties) == (None, None, None)
    assert found.body == Data((b"x",))


@pytest.mark.parametrize("size", [0, 255, 256, 70_000])
def test_bodies_of_any_size(size):
    assert message(row(body=bytes(size))).body == Data((bytes(size),))


def test_system_properties_are_where_clients_look_for_them():
    system = {
        "message-id": "m",
        "correlation-id": "c",
        "user-id": "ü",
        "to": "/t",
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "absolute-expiry-time": "2026-03-01T10:00:00.0000000Z",
        "iothub-creation-time-utc": "2026-02-01T10:00:00Z",
        "iothub-ack": "full",
        "iothub-outputname": "out",
        "dt-subject": "component",
        "iothub-interface-id": "urn:x",
        "iothub-message-schema": "s",
        "$.own": "o",
    }
    found = message(row(system, {"site": "A"}, module="m-1", model="dtmi:a;1"))
    assert found.properties == Properties(
        message_id="m",
        correlation_id="c",
        user_id="ü".encode(),
        to="/t",
        content_type="application/json",
        content_encoding="utf-8",
        absolute_expiry_time=1_772_359_200_000,
    )
    assert found.application_properties == {
        "site": "A",
        "iothub-creation-time-utc": "2026-02-01T10:00:00Z",
        "iothub-ack": "full",
    }
    told = annotations(found)
    assert told["iothub-connection-module-id"] == "m-1"
    assert told["dt-dataschema"] == "dtmi:a;1"
    assert (told["dt-subject"], told["iothub-interface-id"], told["iothub-message-schema"], told["own"]) == (
        "component",
        "urn:x",
        "s",
        "o",
    )
    assert "iothub-outputname" not in told


def test_what_no_symbol_can_hold_is_not_lost():
    found = message(row({"content-type": "ä", "$.ö": "1", "absolute-expiry-time": "soon"}))
    assert found.properties is None
    assert found.application_properties == {"content-type": "ä", "$.ö": "1"}
    assert annotations(found)["absolute-expiry-time"] == "soon"


def test_the_hub_stamps_and_not_the_device():
    found = message(
        row({"$.iothub-connection-device-id": "other", "x-opt-offset": "1", "$.x-opt-sequence-number": "9"})
    )
    told = annotations(found)
    assert told["iothub-connection-device-id"] == "dev-1"
    assert (told["x-opt-offset"], told["x-opt-sequence-number"]) == ("123", Long(7))


def test_properties_that_are_no_text():
    given = {"n": None, "b": True, "i": 5, "f": 0.5, "l": [1], "big": 2**70}
    assert message(row(application=given)).application_properties == {
        "n": None,
        "b": True,
        "i": Long(5),
        "f": Double(0.5),
        "l": "[1]",
        "big": str(2**70),
    }


def test_hub_events_have_no_way_to_authenticate():
    assert "iothub-connection-auth-method" not in annotations(message(row(method="", source="twinChangeEvents")))


def test_security_messages_reach_nobody():
    rows = [row(), row({"iothub-interface-id": SECURITY_INTERFACE}), row(number=9)]
    found = [decode_message(payload) for payload in EventEncoder().encode(rows)]
    assert [annotations(one)["x-opt-sequence-number"] for one in found] == [Long(7), Long(9)]


def test_events_of_one_origin_count_on():
    run = row(body=b"abc")._replace(bodies=[b"abc", b"", b"d"])
    found = [annotations(decode_message(payload)) for payload in EventEncoder().encode([run])]
    assert [one["x-opt-sequence-number"] for one in found] == [Long(7), Long(8), Long(9)]
    assert [one["x-opt-offset"] for one in found] == ["123", "127", "128"]


def test_what_is_written_is_written_in_the_shortest_order_of_sections():
    """The same message through the table: only the widths of map and numbers differ."""
    found = message(row({"message-id": "m"}, {"a": "b"}))
    assert decode_message(encode_message(found)) == found


def test_runtime_metrics():
    information = PartitionInformation(0, 41, 99, TIME, is_empty=False)
    (payload,) = EventEncoder().encode([row()], runtime_metrics(information, TIME + 1000))
    assert decode_message(payload).delivery_annotations == {
        Symbol("last_enqueued_sequence_number"): Long(41),
        Symbol("last_enqueued_offset"): "99",
        Symbol("last_enqueued_time_utc"): Timestamp(1_790_000_000_123),
        Symbol("runtime_info_retrieval_time_utc"): Timestamp(1_790_000_000_124),
    }
    empty = PartitionInformation(0, -1, -1, None, is_empty=True)
    metrics = decode_message(runtime_metrics(empty, TIME)).delivery_annotations
    assert metrics[Symbol("last_enqueued_time_utc")] == Timestamp(NEVER)
