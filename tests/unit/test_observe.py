"""The log: one line for each record, whatever clients choose as their names, and no secret in it."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from muster.observe import Operation, one_line, redact, set_up_logging

SECRET = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, whose handlers and level are put back afterwards."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def written(root: logging.Logger, form: str, message: str, *arguments: object) -> str:
    set_up_logging("debug", form)
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(io.StringIO())
    logging.getLogger("muster.test").info(message, *arguments)
    return str(handler.stream.getvalue())


@pytest.mark.parametrize(
    "text",
    [
        f"SharedAccessSignature sr=a&sig={SECRET}&se=1",
        f"sr=a&sig={SECRET.replace('=', '%3D').replace('/', '%2F')}&se=1",
        f"connect%26sig%3D{SECRET.replace('=', '%253D')}%26se%3D1",
        f"HostName=a;SharedAccessKey={SECRET}",
        f'{{"primaryKey": "{SECRET}", "secondaryKey":"{SECRET}"}}',
        f"key={SECRET}",
    ],
)
def test_secrets_are_taken_out(text: str) -> None:
    redacted = redact(text)
    assert "AAECAw" not in redacted
    assert "***" in redacted


def test_json_stays_json() -> None:
    document = json.dumps({"primaryKey": SECRET, "subject": f"sr=a&sig={SECRET}&se=1", "after": 1})
    assert json.loads(redact(document)) == {"primaryKey": "***", "subject": "sr=a&sig=***&se=1", "after": 1}


@pytest.mark.parametrize("text", ["registration-id dev-01", "signal=strong", "a key for the door", "sign=it"])
def test_other_words_stay(text: str) -> None:
    assert redact(text) == text


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("name", ["a\nFAKE", "a\r\nFAKE", "a\x1b[31mFAKE", "a\u2028FAKE", "a\x85FAKE", "a\x00FAKE"])
def test_a_name_begins_no_line_and_steers_no_terminal(root: logging.Logger, form: str, name: str) -> None:
    line = written(root, form, "connect %s: refused", name)
    assert len(line.splitlines()) == 1
    assert line[:-1].isprintable()
    assert "FAKE" in line


def test_lines_are_bounded() -> None:
    assert len(one_line("x" * 100_000)) < 2100
    assert one_line("grüße 😀") == "grüße 😀"


def test_json_lines(root: logging.Logger) -> None:
    line = json.loads(written(root, "json", "registered %s", "grün"))
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "muster.test", "registered grün")


def test_an_exception_is_redacted(root: logging.Logger) -> None:
    written(root, "text", "start")
    handler = root.handlers[0]
    assert isinstance(handler, logging.StreamHandler)
    try:
        int(f"sig={SECRET}")
    except ValueError:
        logging.getLogger("muster.test").exception("failed")
    text = handler.stream.getvalue()
    assert "ValueError" in text
    assert SECRET not in text


def test_a_finished_operation_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "muster.operation"):
        Operation("register", "dev-01").finished("assigned", "11112222-3333-4444-5555-666677778888")
    (record,) = caplog.records
    assert record.getMessage().startswith("register dev-01: assigned in ")
    assert record.getMessage().endswith("ms tracking 11112222-3333-4444-5555-666677778888")
