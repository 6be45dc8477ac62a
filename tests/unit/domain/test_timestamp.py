import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.timestamp import NEVER, iso_utc, iso_utc_or_never, parse_iso, us_style


def test_forms() -> None:
    moment = parse_iso("2026-03-02T08:15:30.1234567Z")
    assert iso_utc(moment) == "2026-03-02T08:15:30.1234560Z"
    assert us_style(moment) == "03/02/2026 08:15:30"
    assert iso_utc_or_never(0) == NEVER
    assert iso_utc_or_never(moment) == iso_utc(moment)


@given(st.integers(0, 4_000_000_000_000_000))
def test_what_is_written_is_read(moment: int) -> None:
    assert parse_iso(iso_utc(moment)) == moment


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("2026-03-02T08:15:30", "2026-03-02T08:15:30Z"),
        ("2026-03-02 08:15:30Z", "2026-03-02T08:15:30Z"),
        ("2026-03-02T10:15:30+02:00", "2026-03-02T08:15:30Z"),
        ("2026-03-02T06:45:30-01:30", "2026-03-02T08:15:30Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00.0Z"),
    ],
)
def test_zones_and_spellings(text: str, same_as: str) -> None:
    assert parse_iso(text) == parse_iso(same_as)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2026-01-01",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        parse_iso(text)
