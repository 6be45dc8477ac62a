import base64
import json

import pytest

from muster.domain.errors import ArgumentInvalidError
from muster.domain.query_continuation import Continuation, query_mark, read_continuation, write_continuation

MARK = query_mark("hub", "SELECT * FROM devices")
KINDS = ("rank", "number", "text")


def test_a_token_comes_back_as_it_was() -> None:
    place = Continuation(MARK, 3, [4, 1.0, "größe"])
    token = write_continuation(place)
    assert token.isascii()
    assert read_continuation(token, MARK, KINDS) == place


def token(*value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "ü",
        "W10=",
        token(MARK, None),
        token(MARK, None, [1, 1.0]),
        token(MARK, None, [1, 1.0, "a", "b"]),
        token(MARK, None, ["1", 1.0, "a"]),
        token(MARK, None, [1.5, 1.0, "a"]),
        token(MARK, None, [-1, 1.0, "a"]),
        token(MARK, None, [2**40, 1.0, "a"]),
        token(MARK, None, [1, "1.0", "a"]),
        token(MARK, None, [1, 1.0, 1]),
        token(MARK, None, [1, 1.0, "a\0"]),
        token(MARK, 0, [1, 1.0, "a"]),
        token(MARK, "3", [1, 1.0, "a"]),
        token(MARK, None, [True, 1.0, "a"]),
    ],
)
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(ArgumentInvalidError, match="is no continuation token"):
        read_continuation(text, MARK, KINDS)


@pytest.mark.parametrize(
    "mark", [query_mark("hub", "SELECT * FROM devices "), query_mark("west", "SELECT * FROM devices")]
)
def test_a_token_counts_for_one_query_of_one_hub(mark: str) -> None:
    with pytest.raises(ArgumentInvalidError, match="belongs to another query"):
        read_continuation(write_continuation(Continuation(MARK, None, [1, 1.0, "a"])), mark, KINDS)
