"""Queries of twins: from text to a tree (``query_ast.py``), by precedence climbing. Sources: hub-service.md 4.2, 4.6.

What Azure's language does not have is refused with the position and what may stand there. Not here: evaluation.
"""

from difflib import get_close_matches
from typing import cast

from muster.domain.errors import ArgumentInvalidError, ArgumentNullError
from muster.domain.query_ast import (
    FUNCTIONS,
    OTHER_SPELLINGS,
    UNDEFINED,
    Aggregate,
    AggregateName,
    Arithmetic,
    Both,
    Call,
    Compare,
    Comparison,
    Condition,
    Constant,
    Either,
    In,
    Item,
    Not,
    Operator,
    Order,
    Path,
    Query,
    Scalar,
    Source,
    Value,
)
from muster.domain.query_fields import canonical_path
from muster.domain.query_lexer import Token, refusal, tokens

MAXIMUM_CHARACTERS = 8192
MAXIMUM_NESTING = 20
MAXIMUM_ARITHMETIC = 6
MAXIMUM_PREDICATES = 256
MAXIMUM_TERMS = 10
MAXIMUM_AGGREGATES = 50

_AGGREGATES = ("COUNT", "AVG", "SUM", "MIN", "MAX")
_CONSTANTS: dict[str, Scalar] = {"TRUE": True, "FALSE": False, "NULL": None, "UNDEFINED": UNDEFINED}
_RESERVED = frozenset(
    (
        "SELECT",
        "TOP",
        "AS",
        "FROM",
        "WHERE",
        "GROUP",
        "ORDER",
        "BY",
        "ASC",
        "DESC",
        "AND",
        "OR",
        "NOT",
        "IN",
        "NIN",
        *_CONSTANTS,
    )
)
_COMPARISONS: dict[str, Comparison] = {
    "=": "=",
    "!=": "!=",
    "<>": "!=",
    "<": "<",
    "<=": "<=",
    ">": ">",
    ">=": ">=",
}
_OR, _AND, _NOT, _COMPARE, _ADD, _MULTIPLY, _SIGN = range(1, 8)
_OPERATORS = {"+": _ADD, "-": _ADD, "*": _MULTIPLY, "/": _MULTIPLY, "%": _MULTIPLY}
_NOT_THERE = {
    "DISTINCT": "SELECT DISTINCT is not part of this language; GROUP BY gives each value once",
    "VALUE": "SELECT VALUE is not part of this language",
}


def parse_query(text: str | None) -> Query:
    """Raises ArgumentNullError without a text, ArgumentInvalidError for what is no query."""
    if text is None or not text.strip():
        raise ArgumentNullError("BadRequest")
    if len(text) > MAXIMUM_CHARACTERS:
        raise ArgumentInvalidError(
            f"BadRequest: the query has {len(text)} characters, {MAXIMUM_CHARACTERS} are allowed."
        )
    return _Parser(text).query()


class _Parser:
    """Reads one query. Paths are completed when the source is known: it stands after the items that use them."""

    def __init__(self, text: str) -> None:
        self._tokens = tokens(text)
        self._index = 0
        self._nesting = 0
        self._predicates = 0
        self._source: Source = "devices"
        self._alias: str | None = None

    # Tokens.

    @property
    def _next(self) -> Token:
        return self._tokens[self._index]

    def _take(self) -> Token:
        token = self._tokens[self._index]
        if token.kind != "end":
            self._index += 1
        return token

    def _take_word(self, word: str) -> bool:
        if self._next.is_word(word):
            self._index += 1
            return True
        return False

    def _take_symbol(self, symbol: str) -> bool:
        if self._next.is_symbol(symbol):
            self._index += 1
            return True
        return False

    def _expect_word(self, word: str, where: str = "") -> None:
        if not self._take_word(word):
            raise refusal(f"{word} is expected{where}, not {self._next}", self._next.position)

    def _expect_symbol(self, symbol: str) -> None:
        if not self._take_symbol(symbol):
            raise refusal(f"{symbol!r} is expected, not {self._next}", self._next.position)

    # Clauses.

    def query(self) -> Query:
        self._expect_word("SELECT", " first")
        top = self._top()
        start = self._index
        self._skip_to_source()
        self._read_source()
        end = self._index
        self._index = start
        items = self._items()
        self._expect_word("FROM", " after what is selected")
        self._index = end
        where = self._condition() if self._take_word("WHERE") else None
        group_by = self._group_by()
        order_by = self._order_by()
        if self._next.kind != "end":
            if self._next.is_word("JOIN"):
                raise refusal("JOIN is not part of this language", self._next.position)
            raise refusal(f"{self._next} stands after the end of the query", self._next.position)
        query = Query(self._source, items, top, where, group_by, order_by)
        _require_grouping(query)
        return query

    def _top(self) -> int | None:
        if not self._take_word("TOP"):
            return None
        token = self._take()
        if token.kind != "number" or not token.text.isdigit() or not 1 <= token.number < 2**31:
            raise refusal(f"TOP is followed by a whole number from 1 on, not by {token}", token.position)
        return int(token.number)

    def _skip_to_source(self) -> None:
        while not self._next.is_word("FROM"):
            if self._next.kind == "end":
                raise refusal("FROM is missing: SELECT * FROM devices", self._next.position)
            self._index += 1
            if self._tokens[self._index - 1].is_symbol(".") and self._next.kind == "name":
                self._index += 1  # a member may be called FROM
        self._index += 1

    def _read_source(self) -> None:
        token = self._take()
        if not token.is_word("DEVICES"):
            raise refusal(f"the source is devices or devices.modules, not {token}", token.position)
        if self._take_symbol("."):
            part = self._take()
            if part.is_word("JOBS"):
                raise refusal("devices.jobs is not there yet: there are no jobs", token.position)
            if not part.is_word("MODULES"):
                raise refusal(f"the source is devices or devices.modules, not devices.{part.text}", token.position)
            self._source = "modules"
        if self._take_word("AS"):
            self._alias = self._alias_name()
        elif self._next.kind == "name" and self._next.text.upper() not in {*_RESERVED, "JOIN"}:
            self._alias = self._take().text

    def _items(self) -> tuple[Item, ...] | None:
        if self._take_symbol("*"):
            return None
        items: list[Item] = []
        aggregates = 0
        while True:
            token = self._next
            if (
                token.kind == "name"
                and token.text.upper() in _NOT_THERE
                and not self._tokens[self._index + 1].is_symbol(".")
            ):
                raise refusal(_NOT_THERE[token.text.upper()], token.position)
            expression = self._item()
            aggregates += isinstance(expression, Aggregate)
            if aggregates > MAXIMUM_AGGREGATES:
                raise refusal(f"at most {MAXIMUM_AGGREGATES} aggregates are allowed", token.position)
            key = self._alias_name() if self._take_word("AS") else None
            if key is None:
                key = f"${aggregates}" if isinstance(expression, Aggregate) else expression.parts[-1]
            items.append(Item(expression, key))
            if not self._take_symbol(","):
                return tuple(items)

    def _item(self) -> Path | Aggregate:
        token, after = self._next, self._tokens[min(self._index + 1, len(self._tokens) - 1)]
        if token.kind == "name" and after.is_symbol("("):
            name = token.text.upper()
            if name not in _AGGREGATES:
                raise refusal(f"{token} cannot be selected: {', '.join(_AGGREGATES)} and paths can", token.position)
            self._index += 2
            return self._aggregate(cast("AggregateName", name))
        return self._path()

    def _aggregate(self, name: AggregateName) -> Aggregate:
        if name == "COUNT":
            self._take_symbol("*")
            if not self._next.is_symbol(")"):
                raise refusal("COUNT counts rows and takes nothing: COUNT()", self._next.position)
            path = None
        else:
            path = self._path()
        self._expect_symbol(")")
        return Aggregate(name, path)

    def _group_by(self) -> tuple[Path, ...]:
        if not self._take_word("GROUP"):
            return ()
        self._expect_word("BY", " after GROUP")
        paths = [self._path()]
        while self._take_symbol(","):
            paths.append(self._path())
        self._require_terms(len(paths), "GROUP BY")
        return tuple(dict.fromkeys(paths))

    def _order_by(self) -> tuple[Order, ...]:
        if not self._take_word("ORDER"):
            return ()
        self._expect_word("BY", " after ORDER")
        terms: dict[Path, bool] = {}
        while True:
            path = self._path()
            descending = self._take_word("DESC")
            if not descending:
                self._take_word("ASC")
            terms.setdefault(path, descending)
            if not self._take_symbol(","):
                break
        self._require_terms(len(terms), "ORDER BY")
        return tuple(Order(path, descending) for path, descending in terms.items())

    def _require_terms(self, count: int, clause: str) -> None:
        if count > MAXIMUM_TERMS:
            raise refusal(f"{clause} takes at most {MAXIMUM_TERMS} paths", self._next.position)

    # Paths.

    def _name(self, what: str) -> str:
        token = self._take()
        if token.kind == "quoted name" or (token.kind == "name" and token.text.upper() not in _RESERVED):
            return token.text
        raise refusal(f"{what} is expected, not {token}", token.position)

    def _alias_name(self) -> str:
        """After AS every word is a name but FROM."""
        token = self._next
        if token.kind == "name" and not token.is_word("FROM"):
            self._index += 1
            return token.text
        return self._name("an alias")

    def _path(self) -> Path:
        parts = [self._name("a path such as tags.site")]
        while True:
            if self._next.kind == "quoted name":
                parts.append(self._take().text)
            elif self._take_symbol("."):
                token = self._take()
                if token.kind not in ("name", "quoted name"):
                    raise refusal(f"a name is expected after the dot, not {token}", token.position)
                parts.append(token.text)
            elif self._take_symbol("["):
                token = self._take()
                if token.kind == "number":
                    raise refusal("elements of arrays cannot be named; ARRAY_CONTAINS looks into them", token.position)
                if token.kind != "string":
                    raise refusal(f"a name in quotes is expected after [, not {token}", token.position)
                parts.append(token.text)
                self._expect_symbol("]")
            else:
                modules = self._source == "modules"
                return Path(canonical_path(tuple(parts), alias=self._alias, modules=modules))

    # Expressions.

    def _condition(self, binding: int = 0) -> Condition:
        """Whatever binds more strongly than ``binding``."""
        left = self._operand()
        while True:
            token = self._next
            if token.is_word("OR") and binding < _OR:
                left = Either(self._chain("OR", left, _OR))
            elif token.is_word("AND") and binding < _AND:
                left = Both(self._chain("AND", left, _AND))
            elif self._starts_predicate(token) and binding < _COMPARE:
                left = self._predicate(_value(left, token))
            elif token.kind == "symbol" and binding < _OPERATORS.get(token.text, 0):
                left = self._arithmetic(_value(left, token))
            else:
                return left

    def _chain(self, word: str, first: Condition, binding: int) -> tuple[Condition, ...]:
        conditions = [first]
        while self._take_word(word):
            conditions.append(self._condition(binding))
        return tuple(conditions)

    def _starts_predicate(self, token: Token) -> bool:
        if token.kind == "symbol":
            return token.text in _COMPARISONS
        return token.is_word("IN") or token.is_word("NIN") or token.is_word("NOT")

    def _predicate(self, left: Value) -> Condition:
        token = self._take()
        self._predicates += 1
        if self._predicates > MAXIMUM_PREDICATES:
            raise refusal(f"at most {MAXIMUM_PREDICATES} comparisons are allowed", token.position)
        if token.kind == "symbol":
            right = _value(self._condition(_COMPARE), token)
            if self._starts_predicate(self._next):
                raise refusal(f"comparisons do not follow each other: use AND before {self._next}", self._next.position)
            return Compare(_COMPARISONS[token.text], left, right)
        if token.is_word("NOT"):
            self._expect_word("IN", " after NOT")
            return Not(In(left, self._array()))
        contained = In(left, self._array())
        return contained if token.is_word("IN") else Not(contained)

    def _array(self) -> tuple[Constant, ...]:
        self._expect_symbol("[")
        constants: list[Constant] = []
        while True:
            token = self._next
            value = self._condition(_COMPARE)
            if not isinstance(value, Constant):
                raise refusal(f"IN takes constants: ['a', 1], not {token}", token.position)
            constants.append(value)
            if self._take_symbol("]"):
                return tuple(constants)
            self._expect_symbol(",")

    def _arithmetic(self, left: Value) -> Value:
        token = self._take()
        right = _value(self._condition(_OPERATORS[token.text]), token)
        combined = Arithmetic(cast("Operator", token.text), left, right)
        if _depth(combined) > MAXIMUM_ARITHMETIC:
            raise refusal(f"at most {MAXIMUM_ARITHMETIC} operators may build on each other", token.position)
        return combined

    def _operand(self) -> Condition:
        """One operand, with what stands before it."""
        token = self._next
        self._nesting += 1
        if self._nesting > MAXIMUM_NESTING:
            raise refusal(f"at most {MAXIMUM_NESTING} levels may be nested", token.position)
        try:
            return self._prefixed(token)
        finally:
            self._nesting -= 1

    def _prefixed(self, token: Token) -> Condition:
        if self._take_word("NOT"):
            return Not(self._condition(_NOT))
        if self._take_symbol("("):
            inner = self._condition()
            self._expect_symbol(")")
            return inner
        if self._take_symbol("-") or self._take_symbol("+"):
            return self._signed(token)
        if token.kind in ("number", "string"):
            self._index += 1
            return Constant(token.number if token.kind == "number" else token.text)
        after = self._tokens[min(self._index + 1, len(self._tokens) - 1)]
        if token.kind == "name" and after.is_symbol("("):
            return self._call()
        if token.kind == "name" and token.text.upper() in _CONSTANTS and not after.is_symbol("."):
            self._index += 1
            return Constant(_CONSTANTS[token.text.upper()])
        if token.kind in ("name", "quoted name") and token.text.upper() not in _RESERVED:
            return self._path()
        raise refusal(f"a value or a condition is expected, not {token}", token.position)

    def _signed(self, sign: Token) -> Value:
        value = _value(self._condition(_SIGN), sign)
        if isinstance(value, Constant) and isinstance(value.value, float):
            return Constant(-value.value if sign.text == "-" else value.value)
        return Arithmetic("-" if sign.text == "-" else "+", Constant(0.0), value)

    def _call(self) -> Call:
        token = self._take()
        name = token.text.upper()
        name = OTHER_SPELLINGS.get(name, name)
        if name not in FUNCTIONS:
            close = get_close_matches(name, FUNCTIONS, 1)
            known = f"did you mean {close[0]}?" if close else f"there are {', '.join(FUNCTIONS)}"
            raise refusal(f"there is no function {token.text[:40]} here; {known}", token.position)
        self._expect_symbol("(")
        arguments: list[Value] = []
        if not self._next.is_symbol(")"):
            arguments.append(_value(self._condition(_COMPARE), token))
            while self._take_symbol(","):
                arguments.append(_value(self._condition(_COMPARE), token))
        self._expect_symbol(")")
        if len(arguments) != FUNCTIONS[name]:
            raise refusal(f"{token.text} takes {FUNCTIONS[name]} arguments, not {len(arguments)}", token.position)
        return Call(name, tuple(arguments))


def _value(node: Condition, token: Token) -> Value:
    """Refuses a condition where a value has to stand."""
    if isinstance(node, (Constant, Path, Arithmetic, Call)):
        return node
    raise refusal(f"a condition cannot be an operand of {token}", token.position)


def _depth(value: Value) -> int:
    if isinstance(value, Arithmetic):
        return 1 + max(_depth(value.left), _depth(value.right))
    if isinstance(value, Call):
        return max(_depth(argument) for argument in value.arguments)
    return 0


def _require_grouping(query: Query) -> None:
    """Raise unless what is selected and ordered by can be had of groups, where there are any."""
    if not query.is_grouped:
        return
    if query.items is None:
        raise ArgumentInvalidError("BadRequest: SELECT * cannot be grouped; select the paths of GROUP BY.")
    for item in query.items:
        if isinstance(item.expression, Path) and item.expression not in query.group_by:
            raise ArgumentInvalidError(f"BadRequest: {item.expression} is selected beside groups but not in GROUP BY.")
    for order in query.order_by:
        if order.path not in query.group_by:
            raise ArgumentInvalidError(f"BadRequest: ORDER BY {order.path} of groups needs it in GROUP BY.")
