from muster.cli.checks import COLOURED, SYMBOLS, WORDS
from muster.cli.why import report_history, report_table, report_text

REPORT = {
    "trackingId": "7f3a1c",
    "timeUtc": "2026-11-23T17:00:00.0000000Z",
    "service": "dps",
    "scope": "0ne00DE5EED",
    "operation": "register",
    "subject": "raspberrypi-b",
    "verdict": "refused",
    "answer": "401002 Invalid certificate.",
    "credential": "X.509 CN=raspberrypi-b, SHA-1 AB12",
    "peer": "127.0.0.1 mqtt",
    "checks": [
        {"id": "enrollment.exists", "outcome": "passed", "detail": "individual enrollment raspberrypi-b"},
        {
            "id": "x509.thumbprint",
            "outcome": "refused",
            "detail": "SHA-1 AB12 is not enrolled",
            "fix": "enroll it",
        },
        {"id": "x509.extended-key-usage", "outcome": "warned", "detail": "no clientAuth", "fix": "add it"},
        {"id": "x509.not-after", "outcome": "skipped", "detail": "after x509.thumbprint"},
    ],
}


def test_a_report_says_what_failed_what_azure_answers_and_what_to_do():
    assert report_text(REPORT, SYMBOLS).split("\n") == [
        "REFUSED  register raspberrypi-b",
        "  tracking id     7f3a1c",
        "  when            2026-11-23 17:00:00Z",
        "  service         dps 0ne00DE5EED",
        "  from            127.0.0.1 mqtt",
        "  credential      X.509 CN=raspberrypi-b, SHA-1 AB12",
        "  Azure answers   401002 Invalid certificate.",
        "",
        "  ✓ enrollment.exists            individual enrollment raspberrypi-b",
        "  ✗ x509.thumbprint              SHA-1 AB12 is not enrolled",
        "  ! x509.extended-key-usage      no clientAuth",
        "  · x509.not-after               after x509.thumbprint",
        "",
        "  Fix",
        "    x509.thumbprint: enroll it",
        "    x509.extended-key-usage: add it",
    ]


def test_marks_are_words_where_symbols_cannot_be_shown():
    assert "  NO   x509.thumbprint" in report_text(REPORT, WORDS)
    assert report_text(REPORT, WORDS).isascii()


def test_colours_are_only_around_the_marks():
    text = report_text(REPORT, COLOURED)
    assert "\x1b[31m✗\x1b[0m x509.thumbprint" in text
    assert text.count("\x1b[") == 6


def test_what_a_device_sent_does_not_reach_the_terminal():
    hostile = {**REPORT, "subject": "\x1b[2J", "credential": "CN=\x9b31m\n", "peer": "\u202e"}
    hostile["checks"] = [{"id": "x", "outcome": "refused", "detail": "\x07\x1b]0;x", "fix": "\x1b[8m"}]
    assert report_text(hostile, SYMBOLS).replace("\n", "").isprintable()
    assert report_table([hostile]).replace("\n", "").isprintable()


def test_earlier_reports_follow_in_one_line_each():
    text = report_history([REPORT, {**REPORT, "trackingId": "older"}], SYMBOLS)
    head, _, table = text.partition("\n\nBefore that:\n")
    assert head == report_text(REPORT, SYMBOLS)
    assert table.split("\n")[1].split()[-2:] == ["x509.thumbprint", "older"]


def test_a_single_report_has_no_history():
    assert "Before that" not in report_history([REPORT], SYMBOLS)
