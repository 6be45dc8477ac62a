"""Conditions of a query as SQL: three-valued, where NULL is what Azure calls undefined. Sources:
hub-service.md 4.2, 4.3.

Values of different kinds are unequal and have no order; arrays and objects compare with nothing. Not here: values.
"""

from muster.domain.query_ast import (
    Both,
    Call,
    Compare,
    Comparison,
    Condition,
    Constant,
    Either,
    In,
    Not,
    Path,
    Value,
)
from muster.hub.query_dialects import SqlValue
from muster.hub.query_values import COUNTERS, UNDEFINED_VALUE, Counter, ValueCompiler

_KINDS_OF = {
    "IS_NULL": ("null",),
    "IS_BOOL": ("boolean",),
    "IS_NUMBER": ("number",),
    "IS_STRING": ("string",),
    "IS_ARRAY": ("array",),
    "IS_OBJECT": ("object",),
    "IS_PRIMITIVE": ("null", "boolean", "number", "string"),
}
_TEXT_FUNCTIONS = {"STARTSWITH", "ENDSWITH", "CONTAINS"}
_PRIMITIVES = "'null', 'boolean', 'number', 'string'"
_COMPARED = ("number", "string", "boolean")


class ConditionCompiler(ValueCompiler):
    """The conditions of one query."""

    def condition(self, node: Condition) -> str:
        """SQL that is true, false or NULL. Raises ArgumentInvalidError."""
        match node:
            case Both(conditions):
                return "(" + " AND ".join(map(self.condition, conditions)) + ")"
            case Either(conditions):
                return "(" + " OR ".join(map(self.condition, conditions)) + ")"
            case Not(condition):
                return f"(NOT {self.condition(condition)})"
            case Compare():
                return self._comparison(node)
            case In():
                return self._contained(node)
            case _:
                return self._or_undefined(self.value(node).boolean)

    def value(self, node: Value) -> SqlValue:
        """Functions that give a boolean are values as well."""
        if isinstance(node, Call) and node.name not in ("LOWER", "UPPER"):
            condition = self._or_undefined(self._function(node))
            return SqlValue(f"CASE WHEN {condition} IS NOT NULL THEN 'boolean' END", boolean=condition, kind="boolean")
        return super().value(node)

    def _or_undefined(self, condition: str) -> str:
        return self.dialect.no_condition if condition == "NULL" else f"({condition})"

    def _comparison(self, node: Compare) -> str:
        for one, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(one, Path) and one in COUNTERS:
                return self._tag_comparison(one, node.operator, other)
        return self.compared(node.operator, self.value(node.left), self.value(node.right))

    def _tag_comparison(self, path: Path, operator: Comparison, other: Value) -> str:
        if operator not in ("=", "!=") or not isinstance(other, Constant) or not isinstance(other.value, str):
            self.value(path)  # which refuses it
        assert isinstance(other, Constant)
        assert isinstance(other.value, str)
        counter: Counter = COUNTERS[path]
        number = counter.decode(other.value)
        if number is None:
            return "FALSE" if operator == "=" else "TRUE"
        return f"({self.dialect.real(counter.column)} {operator} {self.number(float(number))})"

    def compared(self, operator: Comparison, left: SqlValue, right: SqlValue) -> str:
        """``left operator right``."""
        if UNDEFINED_VALUE in (left, right):
            return self.dialect.no_condition
        arms: list[str] = []
        for kind in _COMPARED:
            if all(value.kind in (None, kind) for value in (left, right)):
                one, other = _content(left, kind), _content(right, kind)
                if left.kind == right.kind == kind:
                    return f"({one} {operator} {other})"
                if "NULL" not in (one, other):
                    both = " AND ".join(f"{value.tag} = '{kind}'" for value in (left, right) if value.kind is None)
                    arms.append(f"WHEN {both} THEN {one} {operator} {other}")
        if operator in ("=", "!="):
            equal, unequal = ("TRUE", "FALSE") if operator == "=" else ("FALSE", "TRUE")
            null = " AND ".join(f"{value.tag} = 'null'" for value in (left, right))
            primitive = " AND ".join(f"{value.tag} IN ({_PRIMITIVES})" for value in (left, right))
            arms += [f"WHEN {null} THEN {equal}", f"WHEN {primitive} AND {left.tag} <> {right.tag} THEN {unequal}"]
        return f"(CASE {' '.join(arms)} END)" if arms else self.dialect.no_condition

    def _contained(self, node: In) -> str:
        if isinstance(node.value, Path) and node.value in COUNTERS:
            options = [self._tag_comparison(node.value, "=", constant) for constant in node.constants]
            return "(" + " OR ".join(options) + ")"
        value = self.value(node.value)
        if value == UNDEFINED_VALUE:
            return self.dialect.no_condition
        constants = [constant.value for constant in node.constants]
        arms: list[str] = []
        for kind in _COMPARED:
            if value.kind in (None, kind) and _content(value, kind) != "NULL":
                among = [_content(self.value(Constant(item)), kind) for item in constants if _kind(item) == kind]
                found = f"{_content(value, kind)} IN ({', '.join(dict.fromkeys(among))})" if among else "FALSE"
                arms.append(f"WHEN {value.tag} = '{kind}' THEN {found}")
        if value.kind in (None, "null"):
            arms.append(f"WHEN {value.tag} = 'null' THEN {'TRUE' if None in constants else 'FALSE'}")
        found = f"CASE {' '.join(arms)} END" if arms else self.dialect.no_condition
        # Whether it equals an undefined one nobody knows.
        unknown = f" OR {self.dialect.no_condition}" if any(_kind(item) is None for item in constants) else ""
        return f"(({found}){unknown})"

    def _function(self, node: Call) -> str:
        if node.name == "IS_DEFINED":
            return f"{self._tag(node.arguments[0])} IS NOT NULL"
        if node.name in _KINDS_OF:
            kinds = ", ".join(f"'{kind}'" for kind in _KINDS_OF[node.name])
            return f"COALESCE({self._tag(node.arguments[0])} IN ({kinds}), FALSE)"
        first, second = (self.value(argument) for argument in node.arguments)
        if node.name in _TEXT_FUNCTIONS:
            return self._text_function(node.name, first.text, second.text)
        return self._array_contains(first, second)

    def _tag(self, node: Value) -> str:
        if isinstance(node, Path) and node in COUNTERS:
            return "'string'"
        return f"({self.value(node).tag})"

    def _text_function(self, name: str, text: str, part: str) -> str:
        if "NULL" in (text, part):
            return "NULL"
        if name == "CONTAINS":
            return f"{self.dialect.position(text, part)} > 0"
        if name == "STARTSWITH":
            return f"{self.dialect.ordinal(f'substr({text}, 1, length({part}))')} = {part}"
        tail = self.dialect.ordinal(f"substr({text}, length({text}) - length({part}) + 1)")
        return f"length({text}) >= length({part}) AND {tail} = {part}"

    def _array_contains(self, array: SqlValue, wanted: SqlValue) -> str:
        if array.elements is None or wanted == UNDEFINED_VALUE:
            return "NULL"
        rows, element = array.elements()
        exists = f"EXISTS (SELECT 1 FROM {rows} WHERE {self.compared('=', element, wanted)})"
        return f"CASE WHEN {array.tag} = 'array' AND {wanted.tag} IN ({_PRIMITIVES}) THEN {exists} END"


def _content(value: SqlValue, kind: str) -> str:
    return {"number": value.number, "string": value.text, "boolean": value.boolean}[kind]


def _kind(constant: object) -> str | None:
    match constant:
        case None:
            return "null"
        case bool():
            return "boolean"
        case float():
            return "number"
        case str():
            return "string"
        case _:
            return None
