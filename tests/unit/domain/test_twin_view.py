import json

import msgspec
import pytest

from muster.domain.etag import twin_etag
from muster.domain.twin_view import connection_state, device_document, device_section, last_activity, service_section


@pytest.mark.parametrize("values", ["{}", '{"a":1}', '{"a":{"b":[1,{"c":null}]},"ключ":"}"}'])
def test_sections_are_put_together_as_text(values: str) -> None:
    held = json.loads(values)
    assert json.loads(device_section(values, 7)) == {**held, "$version": 7}
    assert json.loads(service_section(values, '{"$lastUpdated":"x"}', 7)) == {
        **held,
        "$metadata": {"$lastUpdated": "x"},
        "$version": 7,
    }
    assert msgspec.json.decode(device_document(values, 2, values, 3)) == {
        "desired": {**held, "$version": 2},
        "reported": {**held, "$version": 3},
    }


def test_what_an_identity_adds() -> None:
    assert (connection_state(connected=True), connection_state(connected=False)) == ("Connected", "Disconnected")
    assert last_activity(None) == last_activity(0) == "0001-01-01T00:00:00Z"
    assert last_activity(1_790_000_000_123_456) == "2026-09-21T14:13:20.1234560Z"


def test_the_tag_of_a_twin_counts() -> None:
    assert [twin_etag(number) for number in (1, 2, 256)] == ["AAAAAAAAAAE=", "AAAAAAAAAAI=", "AAAAAAAAAQA="]
