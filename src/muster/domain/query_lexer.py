"""The words of a query: names, strings, numbers, symbols, each with its position. Sources: hub-service.md 4.2.

Not here: what may follow what (``query_parser.py``).
"""

import math
import re
from dataclasses import dataclass
from typing import Literal

from muster.domain.errors import ArgumentInvalidError

Kind = Literal["name", "quoted name", "string", "number", "symbol", "end"]

_NUMBER = re.compile(r"0[xX][0-9A-Fa-f]+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII)
_NAME = re.compile(r"[^\W\d][\w$]*|\$[\w$]*")
_SYMBOLS = ("<>", "!=", "<=", ">=", "=", "<", ">", "(", ")", "[", "]", ",", ".", "+", "-", "*", "/", "%")
_DOUBLE_BRACKETS = "[["
_ESCAPES = {"'": "'", '"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_UNICODE_DIGITS = re.compile(r"[0-9A-Fa-f]{4}")
_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Token:
    """``text`` is a name, the value of a string, or a symbol; ``number`` that of a number; ``position`` from 0."""

    kind: Kind
    text: str
    position: int
    number: float = 0.0

    def is_word(self, word: str) -> bool:
        """Whether it is a keyword, in any case."""
        return self.kind == "name" and self.text.upper() == word

    def is_symbol(self, symbol: str) -> bool:
        return self.kind == "symbol" and self.text == symbol

    def __str__(self) -> str:
        if self.kind == "end":
            return "the end of the query"
        return repr(self.text if len(self.text) <= _SHOWN else f"{self.text[:_SHOWN]}...")


def refusal(problem: str, position: int) -> ArgumentInvalidError:
    """The error of hub-service.md 4.6, with what is wrong and where (from 1)."""
    return ArgumentInvalidError(f"BadRequest: {problem} (at character {position + 1} of the query)")


def tokens(text: str) -> list[Token]:
    """All words of a query and an end. Raises ArgumentInvalidError."""
    found: list[Token] = []
    position = 0
    while position < len(text):
        if text[position].isspace():
            position += 1
            continue
        token, position = _token(text, position)
        found.append(token)
    found.append(Token("end", "", len(text)))
    return found


def _token(text: str, position: int) -> tuple[Token, int]:
    if text.startswith(_DOUBLE_BRACKETS, position):
        return _double_brackets(text, position)
    if text[position] in "'\"":
        return _string(text, position)
    if match := _NUMBER.match(text, position):
        return _number(match)
    if match := _NAME.match(text, position):
        return Token("name", match[0], position), match.end()
    for symbol in _SYMBOLS:
        if text.startswith(symbol, position):
            return Token("symbol", symbol, position), position + len(symbol)
    raise refusal(f"{text[position]!r} is nothing that a query is made of", position)


def _double_brackets(text: str, position: int) -> tuple[Token, int]:
    end = text.find("]]", position)
    if end < 0:
        raise refusal("[[ has no ]]", position)
    return Token("quoted name", _storable(text[position + 2 : end], position), position), end + 2


def _number(match: re.Match[str]) -> tuple[Token, int]:
    text = match[0]
    try:
        number = float(int(text, 16)) if text[:2].lower() == "0x" else float(text)
    except OverflowError:
        number = math.inf
    if math.isinf(number):
        raise refusal(f"the number {text[:_SHOWN]} is too large", match.start())
    return Token("number", text, match.start(), number), match.end()


def _string(text: str, start: int) -> tuple[Token, int]:
    quote = text[start]
    pieces: list[str] = []
    position = start + 1
    while position < len(text):
        character = text[position]
        if character == quote:
            value = "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            return Token("string", _storable(value, start), start), position + 1
        if character == "\\":
            piece, position = _escape(text, position)
            pieces.append(piece)
        else:
            pieces.append(character)
            position += 1
    raise refusal(f"the string has no {quote} at its end", start)


def _escape(text: str, position: int) -> tuple[str, int]:
    letter = text[position + 1 : position + 2]
    if letter in _ESCAPES:
        return _ESCAPES[letter], position + 2
    digits = _UNICODE_DIGITS.match(text, position + 2)
    if letter != "u" or digits is None:
        raise refusal(f"\\{letter} is no escape: \\' \\\" \\\\ and \\uXXXX are", position)
    return chr(int(digits[0], 16)), digits.end()


def _storable(value: str, position: int) -> str:
    if "\0" in value:
        raise refusal("no twin holds U+0000", position)
    return value
