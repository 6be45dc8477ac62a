"""A reader for DER, strict about structure and lenient about content.

It exists because devices present certificates that TLS accepts and strict parsers refuse as a whole (an
underscore in a PrintableString, an explicit version 1, a padded serial number), and a report must still say
what stands in them. It verifies nothing and makes no trust decision; signatures and chains are the business
of the ``cryptography`` package. Rules: X.690 (8.1, 8.19, 10, 11), RFC 5280 4.1.2.5 for times.
"""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache

BOOLEAN = 0x01
BIT_STRING = 0x03
OBJECT_IDENTIFIER = 0x06
SEQUENCE = 0x30

_CODECS = {
    0x0C: "utf-8",  # UTF8String
    0x12: "utf-8",  # NumericString
    0x13: "utf-8",  # PrintableString: ASCII by the standard, UTF-8 in the field
    0x14: "latin-1",  # TeletexString, as everybody reads it
    0x16: "utf-8",  # IA5String
    0x1A: "utf-8",  # VisibleString
    0x1C: "utf-32-be",  # UniversalString
    0x1E: "utf-16-be",  # BMPString
}
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
_TIME = re.compile(rb"(\d\d)?(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)(\d\d)Z")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FIRST_YEAR_OF_THE_1900S = 50
_LONG_FORM = 0x80
_HIGH_TAG = 0x1F
_LONGEST_LENGTH = 4
_LONGEST_IDENTIFIER = 64

Element = tuple[int, int, int]
"""Tag octet, start and end of the contents in the data."""


class DerError(ValueError):
    """The bytes are not DER of the expected structure."""


def read_element(data: bytes, start: int, end: int) -> Element:
    """The element that starts at ``start`` and ends at or before ``end``. Raises DerError."""
    at = start + 2
    if at > end:
        raise DerError(f"an element is cut off at byte {start}")
    tag, length = data[start], data[start + 1]
    if tag & _HIGH_TAG == _HIGH_TAG:
        raise DerError(f"an unexpected tag stands at byte {start}")
    if length >= _LONG_FORM:
        size = length - _LONG_FORM
        if not 0 < size <= _LONGEST_LENGTH:
            raise DerError(f"the length at byte {start} is not one of DER")
        length = int.from_bytes(data[at : at + size])
        at += size
    if at + length > end:
        raise DerError(f"an element is cut off at byte {start}")
    return tag, at, at + length


def read_elements(data: bytes, start: int, end: int) -> list[Element]:
    """All elements between ``start`` and ``end``, which they fill. Raises DerError."""
    elements = []
    while start < end:
        at = start + 2
        # Nearly all have one octet of tag and one of length: they are not worth a call.
        if at <= end and (length := data[start + 1]) < _LONG_FORM and at + length <= end:
            tag = data[start]
            if tag & _HIGH_TAG != _HIGH_TAG:
                start = at + length
                elements.append((tag, at, start))
                continue
        element = read_element(data, start, end)
        elements.append(element)
        start = element[2]
    return elements


def read_sequence(data: bytes, element: Element) -> list[Element]:
    """The elements inside a SEQUENCE. Raises DerError."""
    tag, start, end = element
    if tag != SEQUENCE:
        raise DerError(f"a SEQUENCE was expected at byte {start}")
    return read_elements(data, start, end)


@lru_cache(maxsize=1024)
def object_identifier(content: bytes) -> str:
    """Dotted text of the contents of an OBJECT IDENTIFIER. Raises DerError.

    Cached: the same few dozen stand in every certificate, and decoding them was a third of reading it.
    """
    if not 0 < len(content) <= _LONGEST_IDENTIFIER or content[-1] >= _LONG_FORM:
        raise DerError("an object identifier is empty, cut off or endless")
    arcs: list[int] = []
    value = 0
    for octet in content:
        value = value << 7 | octet & 0x7F
        if octet < _LONG_FORM:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def text(tag: int, content: bytes) -> str | None:
    """The text of a string element, damaged characters replaced; None when the element is no string."""
    codec = _CODECS.get(tag)
    return None if codec is None else content.decode(codec, "replace")


def time(tag: int, content: bytes) -> int | None:
    """Microseconds since 1970 of a UTCTime or GeneralizedTime of RFC 5280; None for anything else."""
    match = _TIME.fullmatch(content)
    if match is None or (match[1] is None) != (tag == _UTC_TIME) or tag not in (_UTC_TIME, _GENERALIZED_TIME):
        return None
    century, year, month, day, hour, minute, second = (int(digits or 0) for digits in match.groups())
    if tag == _UTC_TIME:
        century = 19 if year >= _FIRST_YEAR_OF_THE_1900S else 20
    try:
        moment = datetime(100 * century + year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError:
        return None
    return (moment - _EPOCH) // _MICROSECOND
