import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.errors import ArgumentInvalidError
from muster.domain.timestamp import NEVER, iso_utc
from muster.domain.twin import (
    InitialProperties,
    InitialTwin,
    metadata,
    new_twin,
    without_nulls,
)
from muster.domain.twin_rules import require_valid

NOW = 1_790_000_000_000_000
STAMP = {"$lastUpdated": iso_utc(NOW), "$lastUpdatedVersion": 1}


def nested(levels: int) -> dict:
    value: object = 1
    for _ in range(levels):
        value = {"a": value}
    assert isinstance(value, dict)
    return value


def test_a_new_twin_without_an_initial_one() -> None:
    twin = new_twin(None, NOW)
    assert (twin.etag, twin.version, twin.desired_version, twin.reported_version) == (1, 2, 1, 1)
    assert (twin.tags, twin.desired, twin.reported) == ({}, {}, {})
    assert twin.desired_metadata == {"$lastUpdated": NEVER, "$lastUpdatedVersion": 1}
    assert twin.reported_metadata == {"$lastUpdated": NEVER}


def test_a_new_twin_with_an_initial_one() -> None:
    initial = InitialTwin({"site": "A", "gone": None}, InitialProperties({"fan": {"mode": "auto"}, "list": [{"x": 1}]}))
    twin = new_twin(initial, NOW)
    assert twin.tags == {"site": "A"}
    assert twin.desired == {"fan": {"mode": "auto"}, "list": [{"x": 1}]}
    assert twin.desired_metadata == {**STAMP, "fan": {**STAMP, "mode": STAMP}, "list": STAMP}


def test_reported_metadata_has_no_version() -> None:
    assert metadata({"a": 1}, "t", None) == {"$lastUpdated": "t", "a": {"$lastUpdated": "t"}}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a.b": 1}, "invalid character '.'"),
        ({"$x": 1}, "invalid character '\\$'"),
        ({"a b": 1}, "invalid character ' '"),
        ({"a\u0007": 1}, "invalid character"),
        ({"a\u0085": 1}, "invalid character"),
        ({"outer": {"in.ner": 1}}, "invalid character"),
        ({"k" * 1025: 1}, "exceeds maximum length of 1024"),
        ({"a": "x" * 4097}, "exceeds maximum length of 4096"),
        ({"a": 4503599627370496}, "out of bound"),
        ({"a": -4503599627370497}, "out of bound"),
        ({"a": [1, None]}, "Arrays cannot contain 'null'"),
        ({"a": [{"b": None}]}, "Arrays cannot contain 'null'"),
        (nested(11), "exceeds 10"),
        ({str(number): "x" * 4000 for number in range(9)}, "exceeds maximum 32768"),
    ],
)
def test_rules(value: dict, reason: str) -> None:
    with pytest.raises(ArgumentInvalidError, match=reason):
        require_valid("desired", value)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {
            "a": None,
            "b": True,
            "c": 1.5,
            "d": 4503599627370495,
            "e": -4503599627370496,
            "f": "x" * 4096,
            "g": [],
            "h": [[1]],
        },
        {"ключ": "значение", "k" * 1024: 1},
        nested(10),
    ],
)
def test_what_keeps_the_rules(value: dict) -> None:
    require_valid("desired", value)


def test_tags_have_8_kib() -> None:
    big = {str(number): "x" * 4000 for number in range(3)}
    require_valid("desired", big)
    with pytest.raises(ArgumentInvalidError, match="8192"):
        require_valid("tags", big)


scalars = st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(max_size=5)
sections = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.recursive(
        scalars, lambda children: st.dictionaries(st.text("abc", min_size=1, max_size=2), children, max_size=3)
    ),
    max_size=4,
)


@given(sections)
def test_null_removes_everywhere_and_nothing_else(section: dict) -> None:
    kept = without_nulls(section)
    assert without_nulls(kept) == kept
    assert set(kept) == {key for key, value in section.items() if value is not None}


@given(sections)
def test_metadata_mirrors_its_section(section: dict) -> None:
    kept = without_nulls(section)
    shape = metadata(kept, "t", 3)
    assert set(shape) == {*kept, "$lastUpdated", "$lastUpdatedVersion"}
