import json

from muster.cli.output import json_text, printable, record_text, short_time, table_text

HOSTILE = "a\x1b[2J\x9b31m\u202eb\nc\td"


def test_what_a_terminal_would_obey_is_escaped():
    assert printable(HOSTILE) == "a\\x1b[2J\\x9b31m\\u202eb c d"


def test_letters_of_any_script_stay():
    assert printable("Werk Süd 工場 ✓") == "Werk Süd 工場 ✓"


def test_nothing_is_printed_as_nothing():
    assert printable(None) == ""
    assert printable(False) == "False"


def test_json_is_still_the_same_document_and_holds_no_control():
    document = {"k\x9b": [HOSTILE, "工場", "\U0001f4a9", "\U000e0001"]}
    text = json_text(document)
    assert json.loads(text) == document
    assert text.replace("\n", "").isprintable()
    assert "工場" in text


def test_columns_are_aligned_and_never_cut():
    text = table_text(("Id", "Status"), [("a" * 100, "on"), ("b", None)])
    first, second, third = text.split("\n")
    assert first == "Id" + " " * 98 + "  Status"
    assert second == "a" * 100 + "  on"
    assert third == "b"


def test_an_empty_table_has_its_headings():
    assert table_text(("Id", "Status"), []) == "Id  Status"


def test_a_record_is_a_list_view():
    text = record_text([("Created", "now"), ("ETag", None), ("Policy", "a"), ("", "b")])
    assert text.split("\n") == ["Created : now", "ETag    :", "Policy  : a", "          b"]


def test_times_are_shortened():
    assert short_time("2026-11-23T17:00:00.1234567Z") == "2026-11-23 17:00:00Z"
    assert short_time("2026-11-23T17:00:00+00:00") == "2026-11-23 17:00:00Z"
    assert short_time("soon\x1b") == "soon\\x1b"
    assert short_time(None) == ""
