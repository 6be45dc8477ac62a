"""What the SQL of queries looks like on SQLite and on PostgreSQL: typed values out of JSON, and little else.

A value in a query has a kind at run time (number, string, boolean, null, array, object, or none at all when it is
undefined), and neither database compares by kind: SQLite takes any type for any other, PostgreSQL refuses. So every
value is four expressions: its kind's name, and its content as a number, as text and as a condition, each NULL when it
is of another kind. Here are those of JSON documents; columns and constants are in ``query_values.py``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Kind = Literal["number", "string", "boolean", "null", "array", "object"]
Parameter = Callable[[str], str]
"""Takes a text value; gives what stands for it in the SQL."""


@dataclass(frozen=True, slots=True)
class SqlValue:
    """SQL of one value; ``kind`` is set when it can be no other (or undefined). ``elements`` gives FROM and value of an
    array's elements.
    """

    tag: str
    number: str = "NULL"
    text: str = "NULL"
    boolean: str = "NULL"
    kind: Kind | None = None
    elements: "Callable[[], tuple[str, SqlValue]] | None" = None


class QueryDialect(Protocol):
    """The differences between the databases."""

    no_condition: str
    """A condition that is undefined."""

    def ordinal(self, text: str) -> str:
        """Text that compares character by character."""
        ...

    def text_parameter(self, name: str) -> str: ...

    def plain_parameter(self, name: str) -> str:
        """Text that compares as columns do."""
        ...

    def number_parameter(self, name: str) -> str: ...

    def real(self, number: str) -> str:
        """A whole number as a floating-point one."""
        ...

    def truncated(self, number: str) -> str: ...

    def lateral(self, table: str, column: str) -> tuple[str, str]:
        """How a column of JSON text is named in expressions, and what makes it of the column."""
        ...

    def joined(self, documents: Iterable[tuple[str, str]]) -> str:
        """What FROM needs for documents, of their names and sources."""
        ...

    def member(self, document: str, keys: Sequence[str], parameter: Parameter) -> SqlValue:
        """What stands at ``keys`` in a document."""
        ...

    def position(self, text: str, part: str) -> str:
        """From 1; 0 when it is not there."""
        ...

    def time(self, column: str) -> str:
        """Microseconds as ``2026-03-01T09:00:00.1234560Z``."""
        ...


class SqliteQueries:
    """JSON1. A path is text of its own, in which a name cannot hold a quote: such names are looked up one by one."""

    no_condition = "NULL"

    def ordinal(self, text: str) -> str:
        return text

    def text_parameter(self, name: str) -> str:
        return f":{name}"

    def plain_parameter(self, name: str) -> str:
        return f":{name}"

    def number_parameter(self, name: str) -> str:
        return f":{name}"

    def real(self, number: str) -> str:
        return f"CAST({number} AS REAL)"

    def truncated(self, number: str) -> str:
        return f"CAST(CAST({number} AS INTEGER) AS REAL)"

    def lateral(self, table: str, column: str) -> tuple[str, str]:
        return f"{table}.{column}", ""

    def joined(self, documents: Iterable[tuple[str, str]]) -> str:
        del documents
        return ""

    def member(self, document: str, keys: Sequence[str], parameter: Parameter) -> SqlValue:
        plain = ["$"]
        for index, key in enumerate(keys):
            if key and not {'"', "\\"} & set(key):
                plain.append(f'"{key}"')
                continue
            found = f"FROM json_each({document}, {parameter('.'.join(plain))}) WHERE key = {parameter(key)}"
            if index == len(keys) - 1:
                return self._typed(f"(SELECT type {found})", f"(SELECT value {found})", None)
            document = f"(SELECT value {found} AND type = 'object')"
            plain = ["$"]
        path = parameter(".".join(plain))

        def elements() -> tuple[str, SqlValue]:
            return f"json_each({document}, {path}) e", self._typed("e.type", "e.value", None)

        return self._typed(f"json_type({document}, {path})", f"json_extract({document}, {path})", elements)

    @staticmethod
    def _typed(kind: str, value: str, elements: Callable[[], tuple[str, SqlValue]] | None) -> SqlValue:
        return SqlValue(
            tag=f"CASE {kind} WHEN 'integer' THEN 'number' WHEN 'real' THEN 'number' WHEN 'text' THEN 'string'"
            f" WHEN 'true' THEN 'boolean' WHEN 'false' THEN 'boolean' ELSE {kind} END",
            number=f"CASE WHEN {kind} IN ('integer', 'real') THEN CAST({value} AS REAL) END",
            text=f"CASE WHEN {kind} = 'text' THEN {value} END",
            boolean=f"CASE {kind} WHEN 'true' THEN TRUE WHEN 'false' THEN FALSE END",
            elements=elements,
        )

    def position(self, text: str, part: str) -> str:
        return f"instr({text}, {part})"

    def time(self, column: str) -> str:
        seconds = f"strftime('%Y-%m-%dT%H:%M:%S', {column} / 1000000, 'unixepoch')"
        return f"{seconds} || printf('.%06d0Z', {column} % 1000000)"


class PostgresQueries:
    """jsonb, made of the JSON text once for each row."""

    no_condition = "NULL::boolean"

    def ordinal(self, text: str) -> str:
        return f'(({text}) COLLATE "C")'

    def text_parameter(self, name: str) -> str:
        return f'(:{name}::text COLLATE "C")'

    def plain_parameter(self, name: str) -> str:
        return f":{name}::text"

    def number_parameter(self, name: str) -> str:
        return f":{name}::float8"

    def real(self, number: str) -> str:
        return f"({number})::float8"

    def truncated(self, number: str) -> str:
        return f"trunc({number})"

    def lateral(self, table: str, column: str) -> tuple[str, str]:
        return f"j.{column}", f"{table}.{column}::jsonb AS {column}"

    def joined(self, documents: Iterable[tuple[str, str]]) -> str:
        sources = ", ".join(sorted({source for _, source in documents}))
        # OFFSET keeps the planner from making the document anew for each use of it.
        return f" CROSS JOIN LATERAL (SELECT {sources} OFFSET 0) j" if sources else ""

    def member(self, document: str, keys: Sequence[str], parameter: Parameter) -> SqlValue:
        return self._typed("".join([f"({document}", *(f" -> {parameter(key)}" for key in keys), ")"]))

    def _typed(self, value: str) -> SqlValue:
        kind = f"jsonb_typeof({value})"

        def elements() -> tuple[str, SqlValue]:
            array = f"CASE WHEN {kind} = 'array' THEN {value} ELSE '[]'::jsonb END"
            return f"jsonb_array_elements({array}) AS e(value)", self._typed("e.value")

        return SqlValue(
            tag=kind,
            number=f"CASE WHEN {kind} = 'number' THEN ({value} #>> '{{}}')::float8 END",
            text=self.ordinal(f"CASE WHEN {kind} = 'string' THEN {value} #>> '{{}}' END"),
            boolean=f"CASE WHEN {kind} = 'boolean' THEN ({value} #>> '{{}}')::boolean END",
            elements=elements,
        )

    def position(self, text: str, part: str) -> str:
        return f"strpos({text}, {part})"

    def time(self, column: str) -> str:
        seconds = f"to_char(to_timestamp(({column} / 1000000)::float8) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS')"
        return f"{seconds} || '.' || lpad(({column} % 1000000)::text, 6, '0') || '0Z'"


DIALECTS: dict[str, QueryDialect] = {"sqlite": SqliteQueries(), "postgres": PostgresQueries()}
