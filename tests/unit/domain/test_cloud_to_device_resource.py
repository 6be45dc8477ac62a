import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.c2d_message import C2dSettings, FeedbackSettings
from muster.domain.cloud_to_device_resource import (
    cloud_to_device_view,
    duration_text,
    parse_duration,
    read_cloud_to_device,
)
from muster.domain.errors import ArgumentInvalidError
from muster.domain.timestamp import DAY, HOUR, MINUTE, SECOND


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("PT1H", HOUR),
        ("PT1M", MINUTE),
        ("P2D", 2 * DAY),
        ("P1DT12H", DAY + 12 * HOUR),
        ("PT1M30S", 90 * SECOND),
        ("P0DT1H0M0S", HOUR),
        ("PT60.000S", MINUTE),
    ],
)
def test_durations(text: str, duration: int):
    assert parse_duration(text) == duration


@pytest.mark.parametrize("text", ["", "P", "PT", "1H", "PT1", "P1Y", "PT-1H", "PT1.5S", "pt1h"])
def test_what_is_no_duration(text: str):
    with pytest.raises(ArgumentInvalidError, match="duration"):
        parse_duration(text)


@given(st.integers(0, 1_000_000).map(lambda seconds: seconds * SECOND))
def test_a_duration_that_is_written_is_read(duration: int):
    assert parse_duration(duration_text(duration)) == duration


def test_what_is_shown_by_default():
    assert cloud_to_device_view(C2dSettings()) == {
        "maxDeliveryCount": 10,
        "defaultTtlAsIso8601": "PT1H",
        "feedback": {"lockDurationAsIso8601": "PT1M", "ttlAsIso8601": "PT1H", "maxDeliveryCount": 10},
    }


def test_what_is_left_out_stays():
    stored = C2dSettings(5, 2 * HOUR, FeedbackSettings(10 * SECOND, 3 * HOUR, 7))
    for nothing in (None, {}, {"feedback": None}, {"feedback": {}}):
        assert read_cloud_to_device(nothing, stored) == stored
    changed = read_cloud_to_device({"maxDeliveryCount": 6, "feedback": {"ttlAsIso8601": "PT2M"}}, stored)
    assert changed == C2dSettings(6, 2 * HOUR, FeedbackSettings(10 * SECOND, 2 * MINUTE, 7))


def test_what_is_shown_is_taken():
    stored = C2dSettings(5, 2 * DAY, FeedbackSettings(10 * SECOND, 3 * HOUR, 7))
    assert read_cloud_to_device(cloud_to_device_view(stored), C2dSettings()) == stored


@pytest.mark.parametrize(
    "value",
    [
        "x",
        {"maxDeliveryCount": "10"},
        {"maxDeliveryCount": 101},
        {"defaultTtlAsIso8601": "P3D"},
        {"defaultTtlAsIso8601": "soon"},
        {"feedback": {"lockDurationAsIso8601": "PT1S"}},
    ],
)
def test_what_is_refused(value: object):
    with pytest.raises(ArgumentInvalidError):
        read_cloud_to_device(value, C2dSettings())
