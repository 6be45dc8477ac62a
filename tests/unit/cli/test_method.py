import json

import pytest

from muster.cli.enrollment_document import read_json
from muster.cli.failure import CommandError, RefusedError
from muster.cli.method import answer_rows, explained

BODY = {"methodName": "reboot", "responseTimeoutInSeconds": 7, "connectTimeoutInSeconds": 0}


def refused(code: int) -> RefusedError:
    return RefusedError("what the hub says", "its advice", status=code // 1000, code=code)


@pytest.mark.parametrize(
    ("code", "message", "advice"),
    [
        (404001, "the hub has no device pump-01 (404001)", ""),
        (404103, "pump-01 is not connected, or does not listen for direct methods (404103)", "--connect-timeout"),
        (404104, "pump-01 disconnected before it answered (404104)", "whether reboot was carried out"),
        (504101, "pump-01 did not answer within 7 s (504101)", "--response-timeout"),
    ],
)
def test_why_there_is_no_answer(code, message, advice):
    error = explained(refused(code), "pump-01", BODY)
    assert error.message == message
    assert advice in error.advice


def test_how_long_was_waited_for_the_device():
    error = explained(refused(404103), "pump-01", {**BODY, "connectTimeoutInSeconds": 5})
    assert "direct methods and did not within 5 s" in error.message


def test_names_of_devices_do_not_reach_the_terminal():
    assert "\x1b" not in explained(refused(404103), "\x1b[2J", BODY).message
    assert "\x1b" not in explained(refused(404104), "d", {**BODY, "methodName": "\x1b[2J"}).advice


@pytest.mark.parametrize("code", [401002, 400004, 0])
def test_other_refusals_stay_as_they_are(code):
    error = refused(code)
    assert explained(error, "pump-01", BODY) is error


def test_an_answer():
    assert answer_rows({"status": 500, "payload": {"fault": "wörn"}}) == [
        ("Status", 500),
        ("Payload", '{"fault": "wörn"}'),
    ]
    assert answer_rows({"status": 200, "payload": None})[1] == ("Payload", "null")


@pytest.mark.parametrize("value", [None, 3, "text", ["a"], {"a": {"b": 1}}])
def test_any_json_is_a_payload(value, tmp_path):
    file = tmp_path / "payload.json"
    file.write_text(json.dumps(value))
    assert read_json(json.dumps(value), "--payload") == read_json(f"@{file}", "--payload") == value


def test_what_is_no_payload(tmp_path):
    with pytest.raises(CommandError, match="--payload is not valid JSON"):
        read_json("{", "--payload")
    with pytest.raises(CommandError, match="cannot read"):
        read_json(f"@{tmp_path}/none", "--payload")
