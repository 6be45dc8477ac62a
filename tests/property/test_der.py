"""The quick way through elements of DER finds what the careful one does."""

from hypothesis import example, given
from hypothesis import strategies as st

from muster.pki.der import DerError, Element, read_element, read_elements

# Mostly well-formed elements, one after the other, so that some get far.
short = st.binary(max_size=5).map(lambda content: bytes((0x30, len(content))) + content)
long = st.binary(max_size=5).map(lambda content: bytes((0x04, 0x81, len(content))) + content)
pieces = st.lists(st.one_of(short, long, st.binary(min_size=1, max_size=4)), max_size=6).map(b"".join)


def one_by_one(data: bytes, start: int, end: int) -> list[Element]:
    found = []
    while start < end:
        found.append(read_element(data, start, end))
        start = found[-1][2]
    return found


@given(pieces, st.integers(0, 3), st.integers(0, 3))
@example(b"\x30", 0, 0)
@example(b"\x1f\x00", 0, 0)
@example(b"\x30\x02\x00", 0, 0)
@example(b"\x30\x80", 0, 0)
def test_elements_are_those_read_one_by_one(data: bytes, skipped: int, cut: int) -> None:
    start, end = min(skipped, len(data)), max(0, len(data) - cut)
    try:
        expected: object = one_by_one(data, start, end)
    except DerError as error:
        expected = str(error)
    try:
        found: object = read_elements(data, start, end)
    except DerError as error:
        found = str(error)
    assert found == expected
