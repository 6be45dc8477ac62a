"""JSON request bodies: decoded into records, with the one way to say what is wrong with them.

Not here: any rule about a particular record.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from muster.domain.errors import ArgumentInvalidError, ArgumentNullError, FormatError

T = TypeVar("T")


def decode(body: bytes, record: type[T]) -> T:
    """Decode a body into ``record``; unknown members are ignored, as Azure does (hub-service.md 1.5).

    Raises ArgumentNullError for an empty body, FormatError for what is not JSON, ArgumentInvalidError for a wrong
    member.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")  # the byte order mark of hand-made clients (hub-service.md 12.3)
    if not body.strip():
        raise ArgumentNullError("The request needs a JSON body.")
    try:
        return msgspec.json.decode(body, type=record)
    except msgspec.ValidationError as error:
        raise ArgumentInvalidError(f"The body is not valid: {error}.") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FormatError(f"The body is not valid JSON: {error}.") from None


def any_case(member: str, text: str, words: Sequence[T]) -> T:
    """The one of ``words`` that ``text`` is but for its case: older clients for Java send ``GEOLATENCY``.

    Raises ArgumentInvalidError about ``member``.
    """
    for word in words:
        if str(word).lower() == text.lower():
            return word
    raise ArgumentInvalidError(f"{member} is {text!r}; {', '.join(map(str, words))} are allowed.")


def encode(value: object) -> str:
    """JSON text of a record or plain value, for a document column or an answer."""
    return msgspec.json.encode(value).decode()


def read(text: str, record: type[T]) -> T:
    """Decode a document column that this program wrote; anything wrong with it is a bug."""
    return msgspec.json.decode(text, type=record)
