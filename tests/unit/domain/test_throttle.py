"""Rates and the rule that counts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.throttle import AZURE_RATES, Rate, Rates, Throttle, read_rate, read_rates

SECOND = 1_000_000
NOW = 1_790_000_000 * SECOND


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("20/s", Rate(20, SECOND)),
        ("1000/m", Rate(1000, 60 * SECOND)),
        ("5/10s", Rate(5, 10 * SECOND)),
        ("1/24h", Rate(1, 86_400 * SECOND)),
    ],
)
def test_a_rate_is_read_and_written(text: str, rate: Rate) -> None:
    assert read_rate(text) == rate
    assert str(rate) == text


@pytest.mark.parametrize(
    "text", ["", "20", "/s", "20/", "20/10", "20/d", "-1/s", "1.5/s", "٣/s", "0/s", "1/0s", "1/25h", "9999999999/s"]
)
def test_what_is_no_rate_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"rate such as|out of bound"):
        read_rate(text)


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("off", Rates()),
        ("azure", AZURE_RATES),
        ("polls=1/s", Rates(polls=Rate(1, SECOND))),
        ("azure,registrations=20/m", Rates(AZURE_RATES.operations, Rate(20, 60 * SECOND), AZURE_RATES.polls)),
        ("azure, polls=off", Rates(AZURE_RATES.operations, AZURE_RATES.registrations)),
    ],
)
def test_rates_are_read(text: str, rates: Rates) -> None:
    assert read_rates(text) == rates


@pytest.mark.parametrize("text", ["", "on", "azure,off", "twins=1/s", "polls", "polls=", "azure,"])
def test_what_are_no_rates_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is none of|is not a rate"):
        read_rates(text)


def test_as_many_as_the_rate_says_may_come_at_once() -> None:
    throttle = Throttle(Rate(5, 10 * SECOND))
    assert [throttle.take("a", NOW) for _ in range(6)] == [None] * 5 + [2]
    assert throttle.take("b", NOW) is None


def test_room_comes_back_evenly() -> None:
    throttle = Throttle(Rate(5, 10 * SECOND))
    for _ in range(5):
        throttle.take("a", NOW)
    assert throttle.take("a", NOW + 2 * SECOND - 1) == 1
    assert throttle.take("a", NOW + 2 * SECOND) is None
    assert throttle.take("a", NOW + 2 * SECOND) == 2
    assert [throttle.take("a", NOW + 12 * SECOND) for _ in range(6)] == [None] * 5 + [2]


def test_who_comes_when_told_has_room() -> None:
    throttle = Throttle(Rate(3, 7 * SECOND))
    now = NOW
    for _ in range(50):
        wait = throttle.take("a", now)
        if wait is not None:
            now += wait * SECOND
            assert throttle.take("a", now) is None


def test_refused_ones_do_not_count() -> None:
    throttle = Throttle(Rate(1, 10 * SECOND))
    throttle.take("a", NOW)
    assert [throttle.take("a", NOW + SECOND) for _ in range(100)] == [9] * 100
    assert throttle.take("a", NOW + 10 * SECOND) is None


def test_a_clock_that_was_set_back_keeps_nobody_waiting_for_more_than_a_period() -> None:
    throttle = Throttle(Rate(1, 10 * SECOND))
    throttle.take("a", NOW)
    assert throttle.take("a", NOW - 86_400 * SECOND) == 10
    assert throttle.take("a", NOW - 86_400 * SECOND + 10 * SECOND) is None


def test_memory_is_bounded_and_forgetting_is_lenient() -> None:
    throttle = Throttle(Rate(1, 10 * SECOND), maximum_keys=3)
    for key in ("a", "b", "c"):
        assert throttle.take(key, NOW) is None
    assert throttle.take("a", NOW) == 10  # used again: "b" is now the oldest
    assert throttle.take("d", NOW) is None
    assert throttle.take("a", NOW) == 10
    assert throttle.take("b", NOW) is None


@given(st.integers(1, 20), st.integers(1, 20), st.lists(st.integers(0, 5 * SECOND), min_size=1, max_size=60))
def test_in_no_period_there_are_more_than_twice_as_many(count: int, seconds: int, steps: list[int]) -> None:
    """A full bucket, and what flows in meanwhile."""
    period = seconds * SECOND
    throttle = Throttle(Rate(count, period))
    now, taken = NOW, []
    for step in steps:
        now += step
        if throttle.take("a", now) is None:
            taken.append(now)
    for begin in taken:
        assert sum(begin <= time < begin + period for time in taken) < 2 * count + 1
