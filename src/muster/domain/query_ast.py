"""A query of twins as a tree. Sources: hub-service.md 4.2.

Conditions are true, false or undefined; values are numbers, strings, booleans, null, arrays, objects or undefined. Not
here: text (``query_parser.py``), and what a path means in a database (``muster.hub.query_values``).
"""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Source = Literal["devices", "modules"]
Comparison = Literal["=", "!=", "<", "<=", ">", ">="]
Operator = Literal["+", "-", "*", "/", "%"]
AggregateName = Literal["COUNT", "AVG", "SUM", "MIN", "MAX"]


class Undefined(Enum):
    """What a path without a value has; its only member is not None, which is JSON's null."""

    UNDEFINED = "undefined"


UNDEFINED = Undefined.UNDEFINED

Scalar = float | str | bool | None | Undefined


@dataclass(frozen=True, slots=True)
class Constant:
    """A number is always a float."""

    value: Scalar


@dataclass(frozen=True, slots=True)
class Path:
    """Canonical: ``("properties", "reported", "fan")``; without the collection's name."""

    parts: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.parts)


@dataclass(frozen=True, slots=True)
class Arithmetic:
    operator: Operator
    left: "Value"
    right: "Value"


@dataclass(frozen=True, slots=True)
class Call:
    """A function under its first spelling of ``FUNCTIONS``."""

    name: str
    arguments: tuple["Value", ...]


@dataclass(frozen=True, slots=True)
class Compare:
    operator: Comparison
    left: "Value"
    right: "Value"


@dataclass(frozen=True, slots=True)
class In:
    value: "Value"
    constants: tuple[Constant, ...]


@dataclass(frozen=True, slots=True)
class Not:
    condition: "Condition"


@dataclass(frozen=True, slots=True)
class Both:
    """AND over two or more."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Either:
    """OR over two or more."""

    conditions: tuple["Condition", ...]


Value = Constant | Path | Arithmetic | Call
Condition = Compare | In | Not | Both | Either | Value
"""A value as a condition is true when it is the boolean true, false when it is false, else undefined."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """``path`` is None for COUNT."""

    name: AggregateName
    path: Path | None


@dataclass(frozen=True, slots=True)
class Item:
    """One member of each row: ``key`` is its name there."""

    expression: Path | Aggregate
    key: str


@dataclass(frozen=True, slots=True)
class Order:
    path: Path
    descending: bool


@dataclass(frozen=True, slots=True)
class Query:
    """``items`` is None for ``*``."""

    source: Source
    items: tuple[Item, ...] | None = None
    top: int | None = None
    where: Condition | None = None
    group_by: tuple[Path, ...] = ()
    order_by: tuple[Order, ...] = ()

    @property
    def aggregates(self) -> tuple[Aggregate, ...]:
        return tuple(item.expression for item in self.items or () if isinstance(item.expression, Aggregate))

    @property
    def is_grouped(self) -> bool:
        return bool(self.group_by or self.aggregates)


FUNCTIONS = {
    "IS_DEFINED": 1,
    "IS_NULL": 1,
    "IS_BOOL": 1,
    "IS_NUMBER": 1,
    "IS_STRING": 1,
    "IS_ARRAY": 1,
    "IS_OBJECT": 1,
    "IS_PRIMITIVE": 1,
    "STARTSWITH": 2,
    "ENDSWITH": 2,
    "CONTAINS": 2,
    "ARRAY_CONTAINS": 2,
    "LOWER": 1,
    "UPPER": 1,
}
"""How many arguments each takes (hub-service.md 4.3)."""

OTHER_SPELLINGS = {"STARTS_WITH": "STARTSWITH", "ENDS_WITH": "ENDSWITH", "IS_BOOLEAN": "IS_BOOL"}
"""Routing and twins spell some differently; both are taken everywhere (hub-service.md 13)."""
