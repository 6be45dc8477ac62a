import pytest

from muster.domain.errors import UnavailableError
from muster.store.database import (
    DatabaseClosedError,
    DatabaseUnavailableError,
    Dialect,
    OutcomeUnknownError,
    StatementError,
    parameter_error,
    split_statements,
    translate,
)

NAMED = Dialect("named", {"bytes": "BLOB", "for_update": ""}, numbered=False, migration_lock="")
NUMBERED = Dialect("numbered", {"bytes": "BYTEA", "for_update": "FOR UPDATE"}, numbered=True, migration_lock="")


@pytest.mark.parametrize(
    ("sql", "named", "numbered", "names"),
    [
        ("SELECT 1", "SELECT 1", "SELECT 1", ()),
        ("a = :a AND b=:b_2", "a = :a AND b=:b_2", "a = $1 AND b=$2", ("a", "b_2")),
        (":b, :a, :b", ":b, :a, :b", "$1, $2, $1", ("b", "a")),
        ("x {bytes}, y {bytes}", "x BLOB, y BLOB", "x BYTEA, y BYTEA", ()),
        ("SELECT a {for_update}", "SELECT a ", "SELECT a FOR UPDATE", ()),
        ("':a {bytes} it''s :b' || :c", "':a {bytes} it''s :b' || :c", "':a {bytes} it''s :b' || $1", ("c",)),
        ('":a" = :a', '":a" = :a', '":a" = $1', ("a",)),
        ("-- :a {x} 'quote\n:b", "-- :a {x} 'quote\n:b", "-- :a {x} 'quote\n$1", ("b",)),
        ("/* :a {x} ' \n */ :b", "/* :a {x} ' \n */ :b", "/* :a {x} ' \n */ $1", ("b",)),
        (":a::bigint", ":a::bigint", "$1::bigint", ("a",)),
        ("a[1:2]", "a[1:2]", "a[1:2]", ()),
        ("'' || :a || ''", "'' || :a || ''", "'' || $1 || ''", ("a",)),
        ("'{}'", "'{}'", "'{}'", ()),
    ],
)
def test_sql_is_translated_outside_of_literals_and_comments(sql: str, named: str, numbered: str, names: tuple[str]):
    assert translate(NAMED, sql).text == named
    assert translate(NAMED, sql).names == names
    assert translate(NUMBERED, sql).text == numbered
    assert translate(NUMBERED, sql).names == names


@pytest.mark.parametrize("sql", ["{blob}", "SELECT {}", "{skip_locked}", "{ bytes }"])
def test_an_unknown_token_is_refused_with_the_list(sql: str):
    with pytest.raises(StatementError, match="there are bytes, for_update"):
        translate(NAMED, sql)


@pytest.mark.parametrize(
    ("script", "statements"),
    [
        ("", []),
        (" ; ;\n", []),
        ("-- only a comment; indeed\n/* and; another */", []),
        ("a", ["a"]),
        ("a; b ;\n c;", ["a", "b", "c"]),
        ("a 'x;y' \"p;q\" -- r;s\n /* t;u */ z; b", ["a 'x;y' \"p;q\" -- r;s\n /* t;u */ z", "b"]),
        ("-- first\na;\n-- last", ["-- first\na"]),
    ],
)
def test_a_script_is_split_outside_of_literals_and_comments(script: str, statements: list[str]):
    assert split_statements(script) == statements


def test_a_parameter_error_names_what_is_missing_and_what_is_too_much():
    error = parameter_error(translate(NAMED, "SELECT :a, :b"), {"b": 1, "d": 2, "c": 3})
    assert str(error) == "parameters missing: ['a'], not in the statement: ['c', 'd']: SELECT :a, :b"


def test_clients_are_not_told_the_detail():
    for kind in (DatabaseUnavailableError, DatabaseClosedError, OutcomeUnknownError):
        error = kind("no connection to 10.0.0.7")
        assert isinstance(error, UnavailableError)
        assert str(error) == "no connection to 10.0.0.7"
        assert error.message == UnavailableError.message
        assert error.status == 503
