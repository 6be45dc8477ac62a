from datetime import UTC, datetime

import pytest

from muster.pki import der


def test_an_element_has_tag_and_bounds():
    assert der.read_element(bytes.fromhex("0403616263"), 0, 5) == (0x04, 2, 5)


def test_a_long_length_is_read():
    data = bytes.fromhex("04820100") + bytes(256)
    assert der.read_element(data, 0, len(data)) == (0x04, 4, 260)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("", "cut off"),
        ("30", "cut off"),
        ("300100"[:4], "cut off"),
        ("3081", "cut off"),
        ("3080", "not one of DER"),
        ("308500000000010a", "not one of DER"),
        ("1f8101", "unexpected tag"),
    ],
)
def test_what_is_not_der_is_refused(data, reason):
    content = bytes.fromhex(data)
    with pytest.raises(der.DerError, match=reason):
        der.read_element(content, 0, len(content))


def test_an_element_may_not_pass_the_end_it_is_given():
    data = bytes.fromhex("0403616263")
    with pytest.raises(der.DerError):
        der.read_element(data, 0, 4)


def test_a_sequence_is_a_list_of_elements():
    data = bytes.fromhex("3006040161040162")
    assert der.read_sequence(data, der.read_element(data, 0, len(data))) == [(4, 4, 5), (4, 7, 8)]


def test_another_tag_is_no_sequence():
    with pytest.raises(der.DerError, match="SEQUENCE"):
        der.read_sequence(b"\x04\x00", (0x04, 2, 2))


@pytest.mark.parametrize(
    ("content", "dotted"),
    [
        ("550403", "2.5.4.3"),
        ("2a864886f70d01010b", "1.2.840.113549.1.1.11"),
        ("00", "0.0"),
        ("27", "0.39"),
        ("28", "1.0"),
        ("8837", "2.999"),
    ],
)
def test_object_identifiers(content, dotted):
    assert der.object_identifier(bytes.fromhex(content)) == dotted


@pytest.mark.parametrize("content", [b"", b"\x55\x84", b"\x55" * 65], ids=["empty", "cut off", "endless"])
def test_object_identifiers_that_are_none(content):
    with pytest.raises(der.DerError):
        der.object_identifier(content)


@pytest.mark.parametrize(
    ("tag", "content", "text"),
    [
        (0x0C, "dé-1".encode(), "dé-1"),
        (0x13, b"dev_01", "dev_01"),
        (0x16, b"a@b", "a@b"),
        (0x14, b"\xe9", "é"),
        (0x1E, "dév".encode("utf-16-be"), "dév"),
        (0x1C, "dév".encode("utf-32-be"), "dév"),
        (0x0C, b"a\xffb", "a�b"),
        (0x1E, b"\x00a\x00", "a�"),
    ],
)
def test_texts(tag, content, text):
    assert der.text(tag, content) == text


def test_an_octet_string_is_no_text():
    assert der.text(0x04, b"abc") is None


def microseconds(*moment):
    return int(datetime(*moment, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("tag", "content", "moment"),
    [
        (0x17, b"261123170000Z", (2026, 11, 23, 17, 0, 0)),
        (0x17, b"491231235959Z", (2049, 12, 31, 23, 59, 59)),
        (0x17, b"500101000000Z", (1950, 1, 1, 0, 0, 0)),
        (0x18, b"20261123170000Z", (2026, 11, 23, 17, 0, 0)),
        (0x18, b"99991231235959Z", (9999, 12, 31, 23, 59, 59)),
    ],
)
def test_times(tag, content, moment):
    assert der.time(tag, content) == microseconds(*moment)


@pytest.mark.parametrize(
    ("tag", "content"),
    [
        (0x17, b"20261123170000Z"),
        (0x18, b"261123170000Z"),
        (0x17, b"261323170000Z"),
        (0x17, b"260230000000Z"),
        (0x17, b"2611231700Z"),
        (0x17, b"261123170000+0100"),
        (0x18, b"20261123170000.5Z"),
        (0x18, b"00000101000000Z"),
        (0x04, b"261123170000Z"),
        (0x04, b"20261123170000Z"),
        (0x17, b""),
    ],
)
def test_times_that_are_none(tag, content):
    assert der.time(tag, content) is None
