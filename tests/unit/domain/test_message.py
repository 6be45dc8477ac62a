import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.message import (
    MAXIMUM_MESSAGE_BYTES,
    Event,
    Origin,
    authentication_method,
    event_view,
    parse_property_bag,
)


def bag(text: str, *, retained: bool = False) -> tuple[dict, dict]:
    parsed = parse_property_bag(text, retained=retained)
    return json.loads(parsed.system_properties), json.loads(parsed.application_properties)


@pytest.mark.parametrize(
    ("text", "system", "application"),
    [
        ("", {}, {}),
        ("/", {}, {}),
        ("temp=21&room=attic%20east", {}, {"temp": "21", "room": "attic east"}),
        (
            "%24.ct=application%2Fjson&%24.ce=utf-8&$.mid=m-1&a=b",
            {"content-type": "application/json", "content-encoding": "utf-8", "message-id": "m-1"},
            {"a": "b"},
        ),
        ("%24.on=alerts&level=3/", {"iothub-outputname": "alerts"}, {"level": "3"}),
        ("a=1+2", {}, {"a": "1+2"}),
        ("a=b=c", {}, {"a": "b=c"}),
        ("a&b=", {}, {"a": "", "b": ""}),
        ("a=1&a=2", {}, {"a": "2"}),
        ("?a=1", {}, {"a": "1"}),
        ("path=/x/y", {}, {"path": "/x/y"}),
        ("&&a=1&", {}, {"a": "1"}),
        ("$.unknown=1", {"$.unknown": "1"}, {}),
        ("iothub-ack=full", {"iothub-ack": "full"}, {}),
        ("%D1%8F=%E2%82%AC", {}, {"я": "€"}),
        ("a=%ff", {}, {"a": "\ufffd"}),
    ],
)
def test_bags(text: str, system: dict, application: dict) -> None:
    assert bag(text) == (system, application)


def test_a_retained_message_is_marked() -> None:
    assert bag("a=1", retained=True) == ({}, {"a": "1", "mqtt-retain": "true"})


names = st.text(min_size=1, max_size=8).filter(
    lambda name: not name.startswith("$.") and not name.startswith("iothub-")
)


@given(st.dictionaries(names, st.text(max_size=8), max_size=5))
def test_what_clients_encode_is_read(properties: dict) -> None:
    text = "&".join(f"{quote(key, safe='')}={quote(value, safe='')}" for key, value in properties.items())
    assert bag(text) == ({}, properties)


def test_size_counts_body_system_values_and_application_names_and_values() -> None:
    parsed = parse_property_bag("%24.mid=1234&ab=cde")
    assert parsed.size == 4 + 2 + 3
    assert parsed.room == MAXIMUM_MESSAGE_BYTES - 9


def event(body: bytes, **origin: str) -> Event:
    return Event(
        partition=1,
        sequence_number=7,
        offset="70",
        enqueued_time=1_790_000_000_000_000,
        source="Telemetry",
        origin=Origin(device_id="d", generation_id="1", authentication_method="{}", **origin),
        system_properties={"message-id": "m"},
        application_properties={},
        body=body,
    )


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}', {"bodyEncoding": "json", "body": {"a": 1}}),
        (b"21.5", {"bodyEncoding": "json", "body": 21.5}),
        (b"hello", {"bodyEncoding": "text", "body": "hello"}),
        (b"", {"bodyEncoding": "text", "body": ""}),
        (b"\xff\x00", {"bodyEncoding": "base64", "bodyBase64": b"\xff\x00"}),
    ],
)
def test_a_body_is_shown_as_what_it_is(body: bytes, expected: dict) -> None:
    view = event_view(event(body))
    assert {key: view[key] for key in expected} == expected
    assert "moduleId" not in view
    assert "modelId" not in view


def test_module_and_model_are_shown_when_there_are_any() -> None:
    view = event_view(event(b"", module_id="m", model_id="dtmi:x;1"))
    assert (view["moduleId"], view["modelId"]) == ("m", "dtmi:x;1")


def test_the_authentication_method_is_the_text_of_the_real_hub() -> None:
    assert (
        authentication_method("device", "sas", "iothub")
        == '{"scope":"device","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}'
    )
