"""Paths, constants, arithmetic and functions of a query as SQL, and where each root of a twin comes from.

Sources: hub-service.md 4.2, 4.3. Not here: conditions (``query_conditions.py``), and reading pages (``queries.py``).
"""

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass, replace

from muster.domain.errors import ArgumentInvalidError
from muster.domain.etag import counter_etag, twin_etag
from muster.domain.query_ast import Arithmetic, Call, Constant, Path, Value
from muster.domain.timestamp import NEVER
from muster.hub.query_dialects import Kind, QueryDialect, SqlValue
from muster.hub.twin_records import C2D_MESSAGE_COUNT
from muster.store.database import Value as Bound

UNDEFINED_VALUE = SqlValue("NULL")
_OBJECT = SqlValue("'object'", kind="object")

_LEAST, _LARGEST = "1e-150", "1e150"
"""Of an operand's magnitude: so no operator can overflow, which PostgreSQL would refuse."""

_WHOLE = "9007199254740992.0"

_DOCUMENTS = {
    ("tags",): ("t", "tags"),
    ("properties", "desired", "$metadata"): ("t", "desired_metadata"),
    ("properties", "reported", "$metadata"): ("t", "reported_metadata"),
    ("properties", "desired"): ("t", "desired"),
    ("properties", "reported"): ("t", "reported"),
}
"""Which column holds the JSON below a path; the first that fits counts."""

_TEXTS = {
    ("deviceId",): "i.device_id",
    ("moduleId",): "NULLIF(i.module_id, '')",
    ("status",): "i.status",
    ("statusReason",): "NULLIF(i.status_reason, '')",
    ("connectionState",): "CASE WHEN c.session_id IS NULL THEN 'Disconnected' ELSE 'Connected' END",
    ("authenticationType",): "i.authentication_type",
    ("modelId",): "t.model_id",
    ("deviceScope",): "NULLIF(i.device_scope, '')",
}
_TIMES = {("statusUpdateTime",): "i.status_updated", ("lastActivityTime",): "COALESCE(c.last_activity, 0)"}
_NUMBERS = {
    ("version",): "t.version",
    ("cloudToDeviceMessageCount",): C2D_MESSAGE_COUNT,
    ("properties", "desired", "$version"): "t.desired_version",
    ("properties", "reported", "$version"): "t.reported_version",
}
_THUMBPRINTS = {
    ("x509Thumbprint", "primaryThumbprint"): "i.primary_thumbprint",
    ("x509Thumbprint", "secondaryThumbprint"): "i.secondary_thumbprint",
}
_OBJECTS = {("properties",), ("x509Thumbprint",), ("capabilities",)}


@dataclass(frozen=True, slots=True)
class Counter:
    """A tag that is shown encoded and stored as a number; ``decode`` gives None for what is no such tag."""

    column: str
    decode: Callable[[str], int | None]


def _decode_twin_etag(text: str) -> int | None:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    number = int.from_bytes(raw, "big")
    return number if number < 2**63 and twin_etag(number) == text else None


def _decode_counter_etag(text: str) -> int | None:
    try:
        digits = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    number = int(digits) if digits.isdigit() and len(digits) <= 18 else -1  # noqa: PLR2004 - digits of 64 bits
    return number if counter_etag(number) == text else None


COUNTERS = {
    Path(("etag",)): Counter("t.etag", _decode_twin_etag),
    Path(("deviceEtag",)): Counter("i.etag", _decode_counter_etag),
}


class ValueCompiler:
    """The values of one query; collects its parameters and the documents it looks into."""

    def __init__(self, dialect: QueryDialect) -> None:
        self.dialect = dialect
        self.parameters: dict[str, Bound] = {}
        self._documents: dict[str, str] = {}

    @property
    def joined(self) -> str:
        """What the FROM of the query needs beside its tables."""
        return self.dialect.joined(self._documents.items())

    def text(self, value: str) -> str:
        return self.dialect.text_parameter(self._bind(value))

    def plain_text(self, value: str) -> str:
        """In the order of the database."""
        return self.dialect.plain_parameter(self._bind(value))

    def number(self, value: float) -> str:
        return self.dialect.number_parameter(self._bind(value))

    def _bind(self, value: Bound) -> str:
        for name, bound in self.parameters.items():
            if bound == value and type(bound) is type(value):
                return name
        name = f"q{len(self.parameters)}"
        self.parameters[name] = value
        return name

    def value(self, node: Value) -> SqlValue:
        """Raises ArgumentInvalidError for an entity tag: those are numbers in the database."""
        match node:
            case Constant():
                return self._constant(node)
            case Path():
                if node in COUNTERS:
                    raise ArgumentInvalidError(
                        f"BadRequest: {node} can only be compared, with = != or IN, to a string."
                    )
                return self.path(node.parts)
            case Arithmetic():
                return self._arithmetic(node)
            case Call():
                return self._changed_case(node)

    def _constant(self, node: Constant) -> SqlValue:
        match node.value:
            case None:
                return SqlValue("'null'", kind="null")
            case bool():
                return SqlValue("'boolean'", boolean=str(node.value).upper(), kind="boolean")
            case float():
                return SqlValue("'number'", number=self.number(node.value), kind="number")
            case str():
                return SqlValue("'string'", text=self.text(node.value), kind="string")
            case _:
                return UNDEFINED_VALUE

    def path(self, parts: tuple[str, ...]) -> SqlValue:
        """What stands there in a twin's JSON (hub-service.md 3.2); undefined where it has nothing."""
        dialect = self.dialect
        if parts in _TEXTS:
            return _known("string", text=dialect.ordinal(_TEXTS[parts]))
        if parts in _TIMES:
            column = _TIMES[parts]
            time = f"CASE WHEN {column} = 0 THEN '{NEVER}' ELSE {dialect.time(column)} END"
            return _known("string", text=dialect.ordinal(time))
        if parts in _NUMBERS:
            return _known("number", number=dialect.real(_NUMBERS[parts]))
        if parts in _THUMBPRINTS:
            column = _THUMBPRINTS[parts]
            tag = f"CASE WHEN {column} IS NULL THEN 'null' ELSE 'string' END"
            return SqlValue(tag, text=dialect.ordinal(column))
        if parts == ("capabilities", "iotEdge"):
            return _known("boolean", boolean="(i.iot_edge <> 0)")
        if parts in _OBJECTS:
            return _OBJECT
        if parts == ("parentScopes",):
            scopes = "COALESCE(i.parent_scopes, '[]')"
            tag = f"CASE WHEN {scopes} = '[]' THEN NULL ELSE 'array' END"
            return replace(self._document("i", "parent_scopes", ()), tag=tag, kind="array")
        return self._in_document(parts)

    def _in_document(self, parts: tuple[str, ...]) -> SqlValue:
        for root, (table, column) in _DOCUMENTS.items():
            if parts[: len(root)] != root:
                continue
            keys = parts[len(root) :]
            if keys:
                return self._document(table, column, keys)
            # Empty tags are left out of a twin (hub-service.md 3.2).
            return (
                _OBJECT if column != "tags" else SqlValue("CASE WHEN t.tags <> '{}' THEN 'object' END", kind="object")
            )
        return UNDEFINED_VALUE

    def _document(self, table: str, column: str, keys: tuple[str, ...]) -> SqlValue:
        name, source = self.dialect.lateral(table, column)
        self._documents[name] = source
        return self.dialect.member(name, keys, self.text)

    def _arithmetic(self, node: Arithmetic) -> SqlValue:
        left, right = self.value(node.left).number, self.value(node.right).number
        if "NULL" in (left, right):
            return UNDEFINED_VALUE
        guard = " AND ".join(f"({side} = 0 OR abs({side}) BETWEEN {_LEAST} AND {_LARGEST})" for side in ("v.l", "v.r"))
        result = f"v.l {node.operator} v.r"
        if node.operator in "/%":
            guard += " AND v.r <> 0"
        if node.operator == "%":
            guard += f" AND abs(v.l / v.r) < {_WHOLE}"
            result = f"v.l - v.r * {self.dialect.truncated('v.l / v.r')}"
        # In a query of its own each operand is named once, however deep it goes on.
        operands = f"SELECT {left} AS l, {right} AS r LIMIT 1"
        return _known("number", number=f"(SELECT CASE WHEN {guard} THEN {result} END FROM ({operands}) v)")

    def _changed_case(self, node: Call) -> SqlValue:
        text = self.value(node.arguments[0]).text
        if text == "NULL":
            return UNDEFINED_VALUE
        return _known("string", text=self.dialect.ordinal(f"{node.name.lower()}({text})"))


def _known(kind: Kind, *, number: str = "NULL", text: str = "NULL", boolean: str = "NULL") -> SqlValue:
    """A value that is of one kind or undefined."""
    content = {"number": number, "string": text, "boolean": boolean}[kind]
    tag = f"CASE WHEN {content} IS NOT NULL THEN '{kind}' END"
    return SqlValue(tag, number, text, boolean, kind)
