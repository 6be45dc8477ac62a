import pytest
from typer.testing import CliRunner

from muster.cli.up import app, parse_offset

SECOND = 1_000_000
DAY = 86_400 * SECOND


@pytest.mark.parametrize(
    "text, wanted",
    [
        ("0", 0),
        ("+400d", 400 * DAY),
        ("-2h", -7200 * SECOND),
        ("+1d12h", DAY + DAY // 2),
        ("-1w1d1h1m1s", -(8 * DAY + 3661 * SECOND)),
        ("+30m", 1800 * SECOND),
    ],
)
def test_offsets(text, wanted):
    assert parse_offset(text) == wanted


@pytest.mark.parametrize("text", ["", "400d", "+", "+d", "+1", "+1y", "+1.5d", "+1d ", "+-1d", "+1d-1h", "+٣d"])
def test_what_is_no_offset_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"\+400d"):
        parse_offset(text)


def test_more_than_a_century_is_refused():
    with pytest.raises(ValueError, match="hundred years"):
        parse_offset("+99999999w")


@pytest.mark.parametrize(
    "arguments, wanted",
    [
        (["--clock", "tomorrow"], "--clock"),
        (["--listen", "0.0.0.0"], "needs --host-name"),
        (["--address", "127.0.0.2", "--host-name", "plant"], "excludes --host-name"),
        (["--portal-port", "0"], "--portal-port"),
        (["--log-format", "xml"], "--log-format"),
        (["--limits", "some"], "--limits"),
        (["--limits", "azure,polls=5"], "--limits"),
        (["--nonsense"], "--nonsense"),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(arguments, wanted):
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert wanted in result.output
