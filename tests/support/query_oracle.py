"""What a query answers, computed from the twins' JSON in plain Python: the oracle of the SQL (hub-service.md 4)."""

import math
from collections.abc import Sequence
from typing import Any

from muster.domain.query_ast import (
    UNDEFINED,
    Aggregate,
    Arithmetic,
    Both,
    Call,
    Compare,
    Condition,
    Constant,
    Either,
    In,
    Not,
    Path,
    Query,
    Value,
)

Twin = dict[str, Any]

LEAST, LARGEST = 1e-150, 1e150


def kind(value: Any) -> str:
    if value is UNDEFINED:
        return "undefined"
    if value is None:
        return "null"
    names = {bool: "boolean", int: "number", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def at(twin: Any, path: Path) -> Any:
    for part in path.parts:
        if not isinstance(twin, dict) or part not in twin:
            return UNDEFINED
        twin = twin[part]
    return twin


def evaluate(twin: Twin, node: Value) -> Any:
    match node:
        case Constant(value):
            return value
        case Path():
            return at(twin, node)
        case Arithmetic():
            return arithmetic(node.operator, evaluate(twin, node.left), evaluate(twin, node.right))
        case Call():
            return call(node.name, [evaluate(twin, argument) for argument in node.arguments])


def arithmetic(operator: str, left: Any, right: Any) -> Any:
    if kind(left) != "number" or kind(right) != "number":
        return UNDEFINED
    left, right = float(left), float(right)
    if not all(side == 0 or LEAST <= abs(side) <= LARGEST for side in (left, right)):
        return UNDEFINED
    if operator == "+":
        return left + right
    if operator == "-":
        return left - right
    if operator == "*":
        return left * right
    if right == 0:
        return UNDEFINED
    quotient = left / right
    if operator == "/":
        return quotient
    return left - right * math.trunc(quotient) if abs(quotient) < 2**53 else UNDEFINED


PRIMITIVES = {"null", "boolean", "number", "string"}


def call(name: str, arguments: Sequence[Any]) -> Any:
    first = arguments[0]
    tests = {"IS_NULL": "null", "IS_BOOL": "boolean", "IS_NUMBER": "number", "IS_STRING": "string"}
    tests |= {"IS_ARRAY": "array", "IS_OBJECT": "object"}
    if name == "IS_DEFINED":
        return first is not UNDEFINED
    if name in tests:
        return kind(first) == tests[name]
    if name == "IS_PRIMITIVE":
        return kind(first) in PRIMITIVES
    if name == "ARRAY_CONTAINS":
        if kind(first) != "array" or kind(arguments[1]) not in PRIMITIVES:
            return UNDEFINED
        return any(compare("=", element, arguments[1]) is True for element in first)
    if any(kind(argument) != "string" for argument in arguments):
        return UNDEFINED
    if name in ("LOWER", "UPPER"):
        change = str.lower if name == "LOWER" else str.upper
        return "".join(change(character) if character.isascii() else character for character in first)
    second = arguments[1]
    return {
        "STARTSWITH": first[: len(second)] == second,
        "ENDSWITH": first[max(0, len(first) - len(second)) :] == second,
        "CONTAINS": second in first,
    }[name]


def compare(operator: str, left: Any, right: Any) -> Any:
    if not {kind(left), kind(right)} <= PRIMITIVES:
        return UNDEFINED
    if kind(left) != kind(right):
        return {"=": False, "!=": True}.get(operator, UNDEFINED)
    if left is None:
        return {"=": True, "!=": False}.get(operator, UNDEFINED)
    return {
        "=": left == right,
        "!=": left != right,
        "<": left < right,
        "<=": left <= right,
        ">": left > right,
        ">=": left >= right,
    }[operator]


def either(results: Sequence[Any]) -> Any:
    if any(result is True for result in results):
        return True
    return False if all(result is False for result in results) else UNDEFINED


def negated(result: Any) -> Any:
    return UNDEFINED if result is UNDEFINED else not result


def holds(twin: Twin, node: Condition) -> Any:
    """True, False or UNDEFINED."""
    match node:
        case Both(conditions):
            return negated(either([negated(holds(twin, condition)) for condition in conditions]))
        case Either(conditions):
            return either([holds(twin, condition) for condition in conditions])
        case Not(condition):
            return negated(holds(twin, condition))
        case Compare():
            return compare(node.operator, evaluate(twin, node.left), evaluate(twin, node.right))
        case In():
            value = evaluate(twin, node.value)
            return either([compare("=", value, constant.value) for constant in node.constants])
        case _:
            result = evaluate(twin, node)
            return result if kind(result) == "boolean" else UNDEFINED


def rank(value: Any, *, grouped: bool = False) -> tuple[int, float, str]:
    """The place of a value in an order."""
    place = {"null": 1, "boolean": 2, "number": 3, "string": 4}.get(kind(value), 0)
    if place == 0 and kind(value) in ("array", "object") and not grouped:
        place = 5
    return place, float(value) if place in (2, 3) else 0.0, value if place == 4 else ""


def answer(twins: Sequence[Twin], query: Query) -> list[dict[str, Any]]:
    """All rows of all pages."""
    rows = [twin for twin in twins if ("moduleId" in twin) == (query.source == "modules")]
    rows = [twin for twin in rows if query.where is None or holds(twin, query.where) is True]
    rows.sort(key=lambda twin: (twin["deviceId"], twin.get("moduleId", "")))
    if query.is_grouped:
        result = groups(rows, query)
    else:
        for order in reversed(query.order_by):
            rows.sort(key=lambda twin, path=order.path: rank(at(twin, path)), reverse=order.descending)  # type: ignore[misc]
        result = rows if query.items is None else [project(twin, query) for twin in rows]
    return result if query.top is None else result[: query.top]


def project(twin: Twin, query: Query) -> dict[str, Any]:
    found = {}
    for item in query.items or ():
        assert isinstance(item.expression, Path)
        if (value := at(twin, item.expression)) is not UNDEFINED:
            found[item.key] = value
    return found


def groups(rows: Sequence[Twin], query: Query) -> list[dict[str, Any]]:
    found: dict[tuple[Any, ...], list[Twin]] = {} if query.group_by else {(): list(rows)}
    for twin in rows:
        if query.group_by:
            found.setdefault(tuple(rank(at(twin, path), grouped=True) for path in query.group_by), []).append(twin)
    directions = {order.path: order.descending for order in query.order_by}
    keys = list(found)
    for path in reversed([*directions, *(path for path in query.group_by if path not in directions)]):
        place = query.group_by.index(path)
        keys.sort(key=lambda key, place=place: key[place], reverse=directions.get(path, False))  # type: ignore[misc]
    return [group(found[key], query) for key in keys]


def group(twins: Sequence[Twin], query: Query) -> dict[str, Any]:
    row = {}
    for item in query.items or ():
        if isinstance(item.expression, Aggregate):
            value = aggregate(twins, item.expression)
        else:
            value = at(twins[0], item.expression)
            value = UNDEFINED if kind(value) in ("array", "object") else value
        if value is not UNDEFINED:
            row[item.key] = value
    return row


def aggregate(twins: Sequence[Twin], node: Aggregate) -> Any:
    if node.path is None:
        return len(twins)
    values = [at(twin, node.path) for twin in twins]
    numbers = [value for value in values if kind(value) == "number"]
    if node.name in ("MIN", "MAX"):
        choose = min if node.name == "MIN" else max
        texts = [value for value in values if kind(value) == "string"]
        return choose(numbers) if numbers else choose(texts) if texts else UNDEFINED
    if not numbers:
        return UNDEFINED
    total = sum(numbers)
    return total if node.name == "SUM" else total / len(numbers)
