"""Random queries as text, over the paths that random twins have."""

from typing import Any

from hypothesis import strategies as st

from tests.property.twin_strategies import KEYS, plain

ROOT_PATHS = (
    "deviceId",
    "devices.DEVICEID",
    "moduleId",
    "status",
    "statusReason",
    "statusUpdateTime",
    "connectionState",
    "lastActivityTime",
    "cloudToDeviceMessageCount",
    "authenticationType",
    "x509Thumbprint.primaryThumbprint",
    "x509Thumbprint",
    "modelId",
    "version",
    "tags",
    "properties.desired.$version",
    "properties.reported",
    "properties.reported.$metadata.$lastUpdated",
    "properties.desired.$metadata.a.$lastUpdatedVersion",
    "capabilities.iotEdge",
    "capabilities",
    "parentScopes",
    "deviceScope",
    "configurations.[[one]].status",
    "nothing.at.all",
)


def quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _document_path(root: str, keys: list[str]) -> str:
    return root + "".join(f".{key}" if key.isidentifier() and key.isascii() else f"[{quoted(key)}]" for key in keys)


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if value is None or isinstance(value, bool):
        return str(value).replace("None", "null")
    return repr(value)


# Each is a function that draws: strategies built of strategies have representations too long for hypothesis.


@st.composite
def paths(draw: st.DrawFn) -> str:
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(ROOT_PATHS))
    root = draw(st.sampled_from(["tags", "properties.desired", "properties.reported"]))
    return _document_path(root, draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2)))


@st.composite
def constants(draw: st.DrawFn) -> str:
    """Many are in the twins."""
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(["undefined", "null", "true", "False", "''", "0", "1", "0x10", "'enabled'"]))
    return _literal(draw(plain))


@st.composite
def operands(draw: st.DrawFn, depth: int = 2) -> str:
    match draw(st.integers(0, 9)):
        case 0 if depth:
            operator = draw(st.sampled_from("+-*/%"))
            return f"({draw(operands(depth - 1))} {operator} {draw(operands(depth - 1))})"
        case 1:
            return f"{draw(st.sampled_from(['LOWER', 'upper']))}({draw(paths())})"
        case 2 if depth:
            return draw(functions())
        case 3 | 4 | 5:
            return draw(constants())
        case _:
            return draw(paths())


TESTS = ["IS_DEFINED", "IS_NULL", "IS_BOOL", "IS_NUMBER", "IS_STRING", "IS_ARRAY", "IS_OBJECT", "IS_PRIMITIVE"]


@st.composite
def functions(draw: st.DrawFn) -> str:
    if draw(st.booleans()):
        return f"{draw(st.sampled_from(TESTS))}({draw(operands(1))})"
    name = draw(st.sampled_from(["STARTSWITH", "ENDS_WITH", "CONTAINS", "ARRAY_CONTAINS", "array_contains"]))
    return f"{name}({draw(operands(0))}, {draw(operands(0))})"


@st.composite
def predicates(draw: st.DrawFn) -> str:
    match draw(st.integers(0, 5)):
        case 0:
            return draw(functions())
        case 1:
            return draw(paths())
        case 2:
            items = ", ".join(draw(st.lists(constants(), min_size=1, max_size=4)))
            return f"{draw(operands())} {draw(st.sampled_from(['IN', 'NOT IN', 'nin']))} [{items}]"
        case _:
            operator = draw(st.sampled_from(["=", "!=", "<>", "<", "<=", ">", ">="]))
            return f"{draw(operands())} {operator} {draw(operands())}"


@st.composite
def conditions(draw: st.DrawFn, depth: int = 2) -> str:
    match draw(st.integers(0, 4)):
        case 0 if depth:
            word = draw(st.sampled_from(["AND", "OR"]))
            return f"({draw(conditions(depth - 1))} {word} {draw(conditions(depth - 1))})"
        case 1 if depth:
            return f"NOT ({draw(conditions(depth - 1))})"
        case _:
            return draw(predicates())


@st.composite
def queries(draw: st.DrawFn) -> str:
    source = draw(st.sampled_from(["devices", "devices", "devices.modules", "Devices"]))
    where = f" WHERE {draw(conditions())}" if draw(st.integers(0, 3)) else ""
    top = f"TOP {draw(st.integers(1, 4))} " if draw(st.integers(0, 3)) == 0 else ""
    if draw(st.integers(0, 2)) == 0:
        by = draw(st.lists(paths(), max_size=2))
        count = st.sampled_from(["COUNT()", "count(*)"])
        function = st.builds("{}({})".format, st.sampled_from(["AVG", "SUM", "MIN", "MAX"]), paths())
        aggregates = draw(st.lists(count | function, min_size=1, max_size=3))
        items = [f"{path} AS g{number}" for number, path in enumerate(by)]
        items += [f"{aggregate} AS a{number}" for number, aggregate in enumerate(aggregates)]
        by_clause = f" GROUP BY {', '.join(by)}" if by else ""
        return f"SELECT {top}{', '.join(items)} FROM {source}{where}{by_clause}"
    selected = draw(st.lists(paths(), max_size=3))
    items = [f"{path} AS k{number}" for number, path in enumerate(selected)] or ["*"]
    order = ""
    if draw(st.booleans()):
        direction = st.sampled_from(["", " ASC", " DESC"])
        order = ", ".join(draw(st.lists(st.builds("{}{}".format, paths(), direction), min_size=1, max_size=2)))
        order = f" ORDER BY {order}"
    return f"SELECT {top}{', '.join(items)} FROM {source}{where}{order}"
