"""The language of queries: what is one, what tree it is, and what is said of what is none (hub-service.md 4.2, 4.6)."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.domain.errors import ArgumentInvalidError, ArgumentNullError
from muster.domain.query_ast import (
    UNDEFINED,
    Aggregate,
    Arithmetic,
    Both,
    Call,
    Compare,
    Constant,
    Either,
    In,
    Item,
    Not,
    Order,
    Path,
    Query,
)
from muster.domain.query_parser import MAXIMUM_CHARACTERS, parse_query


def path(text: str) -> Path:
    return Path(tuple(text.split(".")))


def where(text: str) -> object:
    return parse_query(f"SELECT * FROM devices WHERE {text}").where


A, B, C = (Compare("=", path(f"tags.{name}"), Constant(1.0)) for name in "abc")


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("select * from devices", Query("devices")),
        ("  SELECT\t*\nFROM Devices.Modules ", Query("modules")),
        ("SELECT TOP 3 * FROM devices", Query("devices", top=3)),
        ("SELECT DEVICEID FROM devices", Query("devices", (Item(path("deviceId"), "deviceId"),))),
        (
            "SELECT d.tags.site AS place, d.Status FROM devices AS d",
            Query("devices", (Item(path("tags.site"), "place"), Item(path("status"), "status"))),
        ),
        ("SELECT x.deviceId FROM devices x", Query("devices", (Item(path("deviceId"), "deviceId"),))),
        (
            "SELECT devices.modules.moduleId FROM devices.modules",
            Query("modules", (Item(path("moduleId"), "moduleId"),)),
        ),
        ("SELECT status AS top FROM devices", Query("devices", (Item(path("status"), "top"),))),
        ("SELECT tags.from FROM devices", Query("devices", (Item(path("tags.from"), "from"),))),
        (
            "SELECT COUNT() AS n, avg(tags.t), status FROM devices GROUP BY status",
            Query(
                "devices",
                (
                    Item(Aggregate("COUNT", None), "n"),
                    Item(Aggregate("AVG", path("tags.t")), "$2"),
                    Item(path("status"), "status"),
                ),
                group_by=(path("status"),),
            ),
        ),
        (
            "SELECT * FROM devices ORDER BY tags.a DESC, deviceId ASC, status",
            Query(
                "devices",
                order_by=(
                    Order(path("tags.a"), descending=True),
                    Order(path("deviceId"), descending=False),
                    Order(path("status"), descending=False),
                ),
            ),
        ),
    ],
)
def test_queries(text: str, query: Query) -> None:
    assert parse_query(text) == query


@pytest.mark.parametrize(
    ("text", "tree"),
    [
        ("tags.a=1 OR tags.b=1 AND tags.c=1", Either((A, Both((B, C))))),
        ("tags.a=1 AND tags.b=1 OR tags.c=1", Either((Both((A, B)), C))),
        ("(tags.a=1 OR tags.b=1) AND tags.c=1", Both((Either((A, B)), C))),
        ("NOT tags.a=1 AND tags.b = 1", Both((Not(A), B))),
        ("tags.a=1 or tags.b=1 OR tags.c=1", Either((A, B, C))),
        ("tags.on", path("tags.on")),
        ("tags.a <> 'x'", Compare("!=", path("tags.a"), Constant("x"))),
        ('tags.a >= "x"', Compare(">=", path("tags.a"), Constant("x"))),
        ("tags.a = -5", Compare("=", path("tags.a"), Constant(-5.0))),
        ("tags.a = 0x1F", Compare("=", path("tags.a"), Constant(31.0))),
        ("tags.a = .5e1", Compare("=", path("tags.a"), Constant(5.0))),
        ("tags.a = TRUE", Compare("=", path("tags.a"), Constant(True))),
        ("tags.a = null", Compare("=", path("tags.a"), Constant(None))),
        ("tags.a = undefined", Compare("=", path("tags.a"), Constant(UNDEFINED))),
        (
            "1 + 2 * tags.a = 3",
            Compare(
                "=",
                Arithmetic("+", Constant(1.0), Arithmetic("*", Constant(2.0), path("tags.a"))),
                Constant(3.0),
            ),
        ),
        (
            "5 - 2 - 1 = tags.a",
            Compare(
                "=",
                Arithmetic("-", Arithmetic("-", Constant(5.0), Constant(2.0)), Constant(1.0)),
                path("tags.a"),
            ),
        ),
        ("tags.a IN ['x', 2]", In(path("tags.a"), (Constant("x"), Constant(2.0)))),
        ("tags.a NIN [true]", Not(In(path("tags.a"), (Constant(True),)))),
        ("tags.a NOT IN [-1]", Not(In(path("tags.a"), (Constant(-1.0),)))),
        ("is_defined(tags.a)", Call("IS_DEFINED", (path("tags.a"),))),
        ("STARTS_WITH(deviceId, 'x')", Call("STARTSWITH", (path("deviceId"), Constant("x")))),
        ("tags['a-b'][\"c\"] = 1", Compare("=", Path(("tags", "a-b", "c")), Constant(1.0))),
        (
            "configurations.[[my-conf]].status='Applied'",
            Compare("=", Path(("configurations", "my-conf", "status")), Constant("Applied")),
        ),
        ("properties.desired.$version > 2", Compare(">", path("properties.desired.$version"), Constant(2.0))),
        (
            "devices.PROPERTIES.reported.Devices = 1",
            Compare("=", path("properties.reported.Devices"), Constant(1.0)),
        ),
        (r"tags.a = 'it\'s \"\\ \u00e9\uD83D\uDE00'", Compare("=", path("tags.a"), Constant("it's \"\\ é😀"))),
        ("tags.größe = 1", Compare("=", path("tags.größe"), Constant(1.0))),
    ],
)
def test_conditions(text: str, tree: object) -> None:
    assert where(text) == tree


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("SELEC * FROM devices", "SELECT is expected first, not 'SELEC' (at character 1"),
        ("{'query': 'SELECT *'}", "'{' is nothing that a query is made of (at character 1"),
        ("SELECT *", "FROM is missing"),
        ("SELECT * FROM", "the source is devices or devices.modules, not the end of the query"),
        ("SELECT * FROM twins", "the source is devices or devices.modules, not 'twins' (at character 15"),
        ("SELECT * FROM devices.jobs", "there are no jobs"),
        ("SELECT * FROM devices.things", "not devices.things"),
        ("SELECT * FROM devices JOIN m", "JOIN is not part"),
        ("SELECT DISTINCT status FROM devices", "DISTINCT is not part"),
        ("SELECT UPPER(deviceId) FROM devices", "'UPPER' cannot be selected"),
        ("SELECT COUNT(tags.a) FROM devices", "COUNT counts rows"),
        ("SELECT deviceId, FROM devices", "a path such as tags.site is expected, not 'FROM'"),
        ("SELECT *, deviceId FROM devices", "FROM is expected after what is selected, not ','"),
        ("SELECT status AS FROM devices", "an alias is expected, not 'FROM'"),
        ("SELECT TOP 1.5 * FROM devices", "TOP is followed by a whole number"),
        ("SELECT * FROM devices WHERE tags.a LIKE 'x'", "'LIKE' stands after the end"),
        ("SELECT * FROM devices WHERE tags.a = 'x", "the string has no ' at its end (at character 38"),
        ("SELECT * FROM devices WHERE tags.a = '\\x'", "\\x is no escape"),
        ("SELECT * FROM devices WHERE tags.a = '\\u0000'", "U+0000"),
        ("SELECT * FROM devices WHERE tags.a = 1e999", "too large"),
        ("SELECT * FROM devices WHERE tags.a[0] = 1", "elements of arrays cannot be named"),
        ("SELECT * FROM devices WHERE tags.[[a = 1", "[[ has no ]]"),
        ("SELECT * FROM devices WHERE tags. = 1", "a name is expected after the dot, not '='"),
        ("SELECT * FROM devices WHERE tags.a = tags.b = 1", "comparisons do not follow each other"),
        ("SELECT * FROM devices WHERE (tags.a = 1) + 1 = 2", "a condition cannot be an operand of '+'"),
        ("SELECT * FROM devices WHERE tags.a IN [tags.b]", "IN takes constants"),
        ("SELECT * FROM devices WHERE tags.a IN (1, 2)", "'[' is expected, not '('"),
        ("SELECT * FROM devices WHERE CONTAIN(tags.a, 'x')", "did you mean CONTAINS?"),
        ("SELECT * FROM devices WHERE ST_DISTANCE(tags.a)", "there are IS_DEFINED"),
        ("SELECT * FROM devices WHERE CONTAINS(tags.a)", "CONTAINS takes 2 arguments, not 1"),
        ("SELECT * FROM devices WHERE " + "(" * 30 + "a" + ")" * 30, "at most 20 levels"),
        ("SELECT * FROM devices WHERE 1" + " + 1" * 7 + " = 8", "at most 6 operators"),
        ("SELECT * FROM devices WHERE " + " OR ".join(["a=1"] * 257), "at most 256 comparisons"),
        ("SELECT * FROM devices ORDER BY " + ",".join(f"tags.a{number}" for number in range(11)), "at most 10 paths"),
        ("SELECT * FROM devices GROUP BY status", "SELECT * cannot be grouped"),
        ("SELECT deviceId, COUNT() FROM devices", "deviceId is selected beside groups"),
        ("SELECT COUNT() FROM devices GROUP BY status ORDER BY deviceId", "needs it in GROUP BY"),
        ("x" * (MAXIMUM_CHARACTERS + 1), "8193 characters, 8192 are allowed"),
    ],
)
def test_what_is_refused(text: str, said: str) -> None:
    with pytest.raises(ArgumentInvalidError) as refusal:
        parse_query(text)
    assert refusal.value.message.startswith("BadRequest: ")
    assert said in refusal.value.message


@pytest.mark.parametrize("text", [None, "", "  "])
def test_no_query(text: str | None) -> None:
    with pytest.raises(ArgumentNullError, match="BadRequest"):
        parse_query(text)


@given(st.text(max_size=60).map("SELECT * FROM devices WHERE {}".format) | st.text(max_size=60))
def test_any_text_is_a_query_or_refused(text: str) -> None:
    with contextlib.suppress(ArgumentInvalidError, ArgumentNullError):
        assert parse_query(text).source in ("devices", "modules")


words = st.sampled_from(
    [
        *("SELECT", "*", "FROM", "devices", "WHERE", "AND", "OR", "NOT", "IN", "[", "]", "(", ")", ",", ".", "+", "-"),
        *("=", "<", "1", "'a'", "tags.a", "IS_DEFINED", "COUNT", "GROUP", "BY", "ORDER"),
    ]
)


@given(st.lists(words, max_size=25).map(" ".join))
def test_any_words_are_a_query_or_refused(text: str) -> None:
    with contextlib.suppress(ArgumentInvalidError, ArgumentNullError):
        parse_query(text)
