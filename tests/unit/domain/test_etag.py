import base64

import pytest

from muster.domain.errors import PreconditionFailedError
from muster.domain.etag import counter_etag, document_etag, matches, require_match

DOCUMENT = document_etag(bytes(range(12)))


def test_a_document_etag_is_base64_of_a_quoted_id() -> None:
    assert base64.b64decode(DOCUMENT).decode() == '"00010203-0000-0405-0000-060708090000"'


def test_a_counter_etag_is_base64_of_its_digits() -> None:
    assert counter_etag(801232426) == "ODAxMjMyNDI2"


@pytest.mark.parametrize(
    "value", ["*", '"*"', DOCUMENT, f'"{DOCUMENT}"', f'W/"{DOCUMENT}"', '"00010203-0000-0405-0000-060708090000"']
)
def test_spellings_that_match(value: str) -> None:
    assert matches(value, DOCUMENT)
    require_match(value, DOCUMENT)


@pytest.mark.parametrize("value", ["", '""', "x", DOCUMENT[:-1], "**"])
def test_others_do_not(value: str) -> None:
    with pytest.raises(PreconditionFailedError):
        require_match(value, DOCUMENT)


def test_no_if_match_asks_for_nothing() -> None:
    require_match(None, DOCUMENT)


def test_an_etag_that_is_no_base64_is_compared_as_it_is() -> None:
    assert matches("a?b", "a?b")
    assert not matches("a", "a?b")
