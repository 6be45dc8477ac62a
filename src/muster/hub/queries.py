"""Queries of devices and modules, page by page. Sources: hub-service.md 4.

Conditions, groups and order are evaluated by the database (``query_conditions.py``); what is selected of a row is cut
out of its twin's JSON. A page begins after the sort key of the page before it, ids last, so pages stay right while
twins are written. Not here: the language (``domain/query_parser.py``), jobs.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from muster.domain.query_ast import Aggregate, Path, Query
from muster.domain.query_continuation import (
    Continuation,
    KeyKind,
    KeyPart,
    query_mark,
    read_continuation,
    write_continuation,
)
from muster.domain.query_parser import parse_query
from muster.domain.twin_view import TwinView
from muster.hub.query_conditions import ConditionCompiler
from muster.hub.query_dialects import DIALECTS, QueryDialect
from muster.hub.twin_records import C2D_MESSAGE_COUNT, VIEW_COLUMNS, VIEW_TABLES, twin_view
from muster.store.database import Database, Row, Value

DEFAULT_PAGE = 100
MAXIMUM_PAGE = 1000

_PARAMETER = re.compile(r":(q\d+|hub|limit|now)\b")
_RANKS = "WHEN 'null' THEN 1 WHEN 'boolean' THEN 2 WHEN 'number' THEN 3 WHEN 'string' THEN 4"
_OTHERS = "WHEN 'array' THEN 5 WHEN 'object' THEN 5"
_LARGEST_SUMMAND = "1e150"
_LARGEST_WHOLE = 2**53
_COSTLY = {
    "t.tags": ("tags", "'{}'"),
    "t.desired": ("properties", "'{}'"),
    "t.desired_metadata": ("properties", "'{}'"),
    "t.reported": ("properties", "'{}'"),
    "t.reported_metadata": ("properties", "'{}'"),
    C2D_MESSAGE_COUNT: ("cloudToDeviceMessageCount", "0"),
}
"""Columns that are read only when their root is selected, and what stands there otherwise."""


@dataclass(frozen=True, slots=True)
class QueryPage:
    """``items`` are ready for JSON; ``continuation`` is None on the last page."""

    item_type: Literal["Twin", "Raw"]
    items: Sequence[TwinView | dict[str, Any]]
    continuation: str | None


@dataclass(frozen=True, slots=True)
class _Term:
    """One column of the sort key."""

    sql: str
    kind: KeyKind
    descending: bool = False
    is_id: bool = False


class Queries:
    """The query language over the twins of all hubs."""

    def __init__(self, database: Database, clock: Callable[[], int]) -> None:
        self._database = database
        self._clock = clock

    async def page(self, hub: str, text: str | None, continuation: str | None, size: int) -> QueryPage:
        """Up to ``size`` rows; ``continuation`` is that of the page before.

        Raises ArgumentNullError without a query, ArgumentInvalidError for what is no query or no token of this one.
        """
        query = parse_query(text)
        mark = query_mark(hub, text or "")
        statement = _Statement(query, DIALECTS[self._database.dialect.name])
        left = query.top
        if continuation:
            place = read_continuation(continuation, mark, [term.kind for term in statement.terms])
            statement.begin_after(place.key)
            left = place.left
        wanted = size if left is None else min(size, left)
        # One more than asked for tells whether there is another page.
        sql = statement.sql
        own: dict[str, Value] = {"hub": hub, "limit": wanted + 1, "now": self._clock()}
        rows = await self._database.fetch_all(sql, **statement.parameters(sql, own))
        page, more = rows[:wanted], len(rows) > wanted
        remaining = None if left is None else left - len(page)
        following = None
        if more and remaining != 0:
            following = write_continuation(Continuation(mark, remaining, statement.key(page[-1])))
        return QueryPage("Twin" if query.items is None else "Raw", [statement.item(row) for row in page], following)


class _Statement:
    """The SQL of one query, and what its rows mean. Every row ends with its sort key."""

    def __init__(self, query: Query, dialect: QueryDialect) -> None:
        self._query = query
        self.compiler = ConditionCompiler(dialect)
        self.terms: list[_Term] = []
        self._after = ""
        if query.is_grouped:
            self._group()
        else:
            self._list()

    @property
    def sql(self) -> str:
        orders = [f"{term.sql} DESC" if term.descending else term.sql for term in self.terms]
        order = f" ORDER BY {', '.join(orders)}" if orders else ""
        return f"{self._select}{self._after}{order} LIMIT :limit"

    def parameters(self, sql: str, own: dict[str, Value]) -> dict[str, Value]:
        """Those that stand in the text: not every value that was compiled is in the end needed."""
        bound = {**self.compiler.parameters, **own}
        return {name: bound[name] for name in _PARAMETER.findall(sql)}

    # Twins.

    def _list(self) -> None:
        query, compiler = self._query, self.compiler
        for order in query.order_by:
            self.terms += self._path_terms(order.path, descending=order.descending)
        self.terms.append(_Term("i.device_id", "text", is_id=True))
        if query.source == "modules":
            self.terms.append(_Term("i.module_id", "text", is_id=True))
        columns = [*self._view_columns(), *(term.sql for term in self.terms)]
        where = self._where()
        self._select = f"SELECT {', '.join(columns)} FROM {VIEW_TABLES}{compiler.joined} WHERE {where}"

    def _view_columns(self) -> list[str]:
        items = self._query.items
        if items is None:
            return list(VIEW_COLUMNS)
        roots = {item.expression.parts[0] for item in items if isinstance(item.expression, Path)}
        columns = []
        for column in VIEW_COLUMNS:
            root, instead = _COSTLY.get(column, ("", ""))
            columns.append(column if not root or root in roots else instead)
        return columns

    def _where(self) -> str:
        source = "i.hub = :hub AND i.module_id " + ("<> ''" if self._query.source == "modules" else "= ''")
        return source if self._query.where is None else f"{source} AND {self.compiler.condition(self._query.where)}"

    def _path_terms(self, path: Path, *, descending: bool = False, scalars_only: bool = False) -> list[_Term]:
        """Undefined comes first, then null, booleans, numbers, strings, and last arrays and objects, unordered."""
        value, dialect = self.compiler.value(path), self.compiler.dialect
        rank = f"CASE ({value.tag}) {_RANKS} {'' if scalars_only else _OTHERS} ELSE 0 END"
        truth = f"CASE WHEN {value.boolean} THEN 1 ELSE 0 END" if value.boolean != "NULL" else "0"
        number = f"COALESCE({value.number}, {dialect.real(truth)})" if value.number != "NULL" else dialect.real(truth)
        text = dialect.ordinal(f"COALESCE({value.text}, '')" if value.text != "NULL" else "''")
        return [_Term(rank, "rank", descending), _Term(number, "number", descending), _Term(text, "text", descending)]

    # Groups.

    def _group(self) -> None:
        query, compiler = self._query, self.compiler
        columns: list[str] = []
        directions = {order.path: order.descending for order in query.order_by}
        ordered = [*directions, *(path for path in query.group_by if path not in directions)]
        for number, path in enumerate(ordered):
            for term, letter in zip(self._path_terms(path, scalars_only=True), "rnt", strict=True):
                columns.append(f"{term.sql} AS g{number}{letter}")
                name = f"g.g{number}{letter}"
                sql = compiler.dialect.ordinal(name) if term.kind == "text" else name
                self.terms.append(_Term(sql, term.kind, directions.get(path, False)))
        self._groups = {path: 3 * number for number, path in enumerate(ordered)}
        for number, aggregate in enumerate(query.aggregates):
            columns += [
                f"{sql} AS a{number}{letter}" for sql, letter in zip(self._aggregate(aggregate), "nt", strict=True)
            ]
        where = self._where()
        grouping = f" GROUP BY {', '.join(str(place + 1) for place in range(len(self.terms)))}" if self.terms else ""
        inner = f"SELECT {', '.join(columns)} FROM {VIEW_TABLES}{compiler.joined} WHERE {where}{grouping}"
        self._select = f"SELECT * FROM ({inner}) g WHERE 1 = 1"

    def _aggregate(self, aggregate: Aggregate) -> tuple[str, str]:
        """As a number, and as text where it can be one."""
        if aggregate.path is None:
            return "count(*)", "NULL"
        value, function = self.compiler.value(aggregate.path), aggregate.name.lower()
        number = self.compiler.dialect.real(value.number)
        if aggregate.name in ("MIN", "MAX"):
            text = f"{function}({value.text})" if value.text != "NULL" else "NULL"
            return f"{function}({number})", text
        return f"{function}(CASE WHEN abs({number}) <= {_LARGEST_SUMMAND} THEN {number} END)", "NULL"

    # Pages.

    def begin_after(self, key: Sequence[KeyPart]) -> None:
        """Leave out all up to a sort key."""
        bound = [self._bound(term, part) for term, part in zip(self.terms, key, strict=True)]
        if all(term.is_id for term in self.terms):  # an index finds them
            self._after = f" AND ({', '.join(term.sql for term in self.terms)}) > ({', '.join(bound)})"
            return
        options: list[str] = []
        for place, term in enumerate(self.terms):
            equal = [f"{one.sql} = {part}" for one, part in zip(self.terms[:place], bound, strict=False)]
            beyond = f"{term.sql} {'<' if term.descending else '>'} {bound[place]}"
            options.append("(" + " AND ".join([*equal, beyond]) + ")")
        self._after = f" AND ({' OR '.join(options)})"

    def _bound(self, term: _Term, part: KeyPart) -> str:
        if isinstance(part, str):
            # Ids are in the order of their index, not that of the language.
            return self.compiler.plain_text(part) if term.is_id else self.compiler.text(part)
        return self.compiler.number(part) if term.kind == "number" else str(int(part))

    def key(self, row: Row) -> list[KeyPart]:
        """The sort key of a row."""
        if self._query.is_grouped:
            return list(row[: len(self.terms)])
        return list(row[len(VIEW_COLUMNS) :])

    # Rows.

    def item(self, row: Row) -> TwinView | dict[str, Any]:
        """What a row is in the answer."""
        items = self._query.items
        if self._query.is_grouped:
            return self._group_item(row)
        view = twin_view(row[: len(VIEW_COLUMNS)])
        if items is None:
            return view
        twin = msgspec.json.decode(msgspec.json.encode(view))
        found = ((item.key, _member(twin, item.expression)) for item in items if isinstance(item.expression, Path))
        return {key: value for key, value in found if value is not msgspec.UNSET}

    def _group_item(self, row: Row) -> dict[str, Any]:
        result: dict[str, Any] = {}
        place = len(self.terms)
        for item in self._query.items or ():
            if isinstance(item.expression, Path):
                start = self._groups[item.expression]
                value = _group_value(*row[start : start + 3])
            else:
                number, text = row[place : place + 2]
                place += 2
                value = _plain(number) if number is not None else text if text is not None else msgspec.UNSET
            if value is not msgspec.UNSET:
                result[item.key] = value
        return result


def _member(twin: Any, path: Path) -> Any:
    for part in path.parts:
        if not isinstance(twin, dict) or part not in twin:
            return msgspec.UNSET
        twin = twin[part]
    return twin


def _group_value(rank: int, number: float, text: str) -> Any:
    match rank:
        case 1:
            return None
        case 2:
            return bool(number)
        case 3:
            return _plain(number)
        case 4:
            return text
        case _:
            return msgspec.UNSET


def _plain(number: float) -> float:
    """A whole number without a fraction."""
    return int(number) if number == int(number) and abs(number) < _LARGEST_WHOLE else number
