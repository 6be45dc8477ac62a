import tempfile

import pytest
from typer.testing import CliRunner

from muster.cli.events import app, event_line

EVENT = {
    "partition": 1,
    "sequenceNumber": 12,
    "enqueuedTimeUtc": "2026-11-23T17:00:00.1230000Z",
    "source": "Telemetry",
    "deviceId": "raspberrypi-b",
    "body": {"hostname": "pi", "ip": "192.0.2.7"},
    "bodyEncoding": "json",
}


def test_an_event_is_one_line():
    assert event_line(EVENT) == ('2026-11-23 17:00:00Z  raspberrypi-b  1#12  {"hostname": "pi", "ip": "192.0.2.7"}')


def test_what_is_not_telemetry_says_so_and_properties_are_shown():
    line = event_line({**EVENT, "moduleId": "m", "source": "twinChangeEvents", "applicationProperties": {"a": "b"}})
    assert line.startswith("2026-11-23 17:00:00Z  raspberrypi-b/m  1#12  twinChangeEvents  {")
    assert line.endswith('{"a": "b"}')


@pytest.mark.parametrize(
    "body, wanted",
    [
        ({"bodyEncoding": "text", "body": "21 °C\n\x1b[2J"}, "21 °C \\x1b[2J"),
        ({"bodyEncoding": "base64", "body": None, "bodyBase64": "AAEC"}, "base64:AAEC"),
        ({"bodyEncoding": "json", "body": "\x9b31m"}, '"\\u009b31m"'),
    ],
)
def test_bodies_of_every_kind_are_safe_to_print(body, wanted):
    line = event_line({**EVENT, **body})
    assert line.endswith(f"  {wanted}")
    assert line.isprintable()


@pytest.mark.parametrize("arguments", [["--from", "yesterday"], ["--from", "12"], ["--from", "-1", "--partition", "0"]])
@pytest.mark.parametrize("command", ["list", "tail"])
def test_a_start_that_is_none_is_wrong_usage(command, arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # where the user's own ephemeral servers are found
    result = CliRunner().invoke(app, [command, *arguments])
    assert result.exit_code == 2
    assert "--from" in result.output
