import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.errors import ArgumentInvalidError, PreconditionFailedError
from muster.domain.timestamp import NEVER, iso_utc
from muster.domain.twin import (
    InitialProperties,
    InitialTwin,
    Twin,
    TwinBody,
    metadata,
    new_twin,
    patch_reported,
    patch_twin,
    replace_twin,
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


LATER = iso_utc(NOW + 1_000_000)


def body(**members: object) -> TwinBody:
    return msgspec.convert(members, TwinBody)


def written(**desired: object) -> Twin:
    write = patch_twin(new_twin(None, NOW), body(tags={"site": "A"}, properties={"desired": desired}), NOW)
    assert write is not None
    return write.twin


def test_a_patch_stamps_what_it_names_and_all_above_it() -> None:
    twin = written(a={"b": {"c": 1, "d": 2}}, e=3)
    write = patch_twin(twin, body(properties={"desired": {"a": {"b": {"c": 5}}}}), NOW + 1_000_000)
    assert write is not None
    old, new = (
        {"$lastUpdated": iso_utc(NOW), "$lastUpdatedVersion": 2},
        {"$lastUpdated": LATER, "$lastUpdatedVersion": 3},
    )
    assert write.twin.desired == {"a": {"b": {"c": 5, "d": 2}}, "e": 3}
    assert write.twin.desired_metadata == {**new, "a": {**new, "b": {**new, "c": new, "d": old}}, "e": old}
    assert write.desired_notice == {"a": {"b": {"c": 5}}, "$version": 3}


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ({"a": None}, {"e": [1]}),
        ({"a": {}}, {"a": {"b": 1}, "e": [1]}),
        ({"a": 5}, {"a": 5, "e": [1]}),
        ({"a": {"b": None}}, {"a": {}, "e": [1]}),
        ({"e": {"x": None, "y": {"z": None}}}, {"a": {"b": 1}, "e": {"y": {}}}),
        ({"e": [2, {"x": 1}]}, {"a": {"b": 1}, "e": [2, {"x": 1}]}),
        ({"none": None}, {"a": {"b": 1}, "e": [1]}),
        ({"a": {"b": 1}}, {"a": {"b": 1}, "e": [1]}),
    ],
)
def test_merging(patch: dict, result: dict) -> None:
    twin = written(a={"b": 1}, e=[1])
    write = patch_twin(twin, body(properties={"desired": patch}), NOW)
    assert write is not None
    assert write.twin.desired == result
    # Naming a property is a write, whatever comes of it.
    assert (write.twin.desired_version, write.twin.version, write.twin.etag) == (3, 4, 3)


@pytest.mark.parametrize(
    "members",
    [{}, {"tags": {}}, {"properties": None}, {"properties": {}}, {"properties": {"desired": {"$version": 9}}}],
)
def test_a_patch_that_names_nothing(members: dict) -> None:
    assert patch_twin(written(a=1), body(**members), NOW) is None


def test_null_for_a_section_removes_its_members() -> None:
    write = patch_twin(written(a=1, b=2), body(tags=None, properties={"desired": None}), NOW)
    assert write is not None
    assert (write.twin.tags, write.twin.desired) == ({}, {})
    assert write.desired_notice == {"a": None, "b": None, "$version": 3}


def test_a_replacement_wipes_what_it_does_not_name() -> None:
    write = replace_twin(written(a=1), body(properties={"desired": {"b": {"c": None}, "$metadata": {}}}), NOW)
    assert (write.twin.tags, write.twin.desired) == ({}, {"b": {}})
    assert write.twin.desired_metadata == {
        "$lastUpdated": iso_utc(NOW),
        "$lastUpdatedVersion": 3,
        "b": {"$lastUpdated": iso_utc(NOW), "$lastUpdatedVersion": 3},
    }
    assert write.desired_notice == {"b": {}, "$version": 3}


def test_a_report_has_its_own_version() -> None:
    twin = patch_reported(new_twin(None, NOW), {"a": 1}, 1, NOW).twin
    assert (twin.reported_version, twin.desired_version, twin.version, twin.etag) == (2, 1, 3, 1)
    with pytest.raises(PreconditionFailedError):
        patch_reported(twin, {"a": 2}, 1, NOW)
    assert patch_reported(twin, {}, None, NOW).twin.reported_version == 3


def test_a_string_with_nul_is_refused() -> None:
    with pytest.raises(ArgumentInvalidError, match="NUL"):
        require_valid("tags", {"a": "x\0"})
