"""The error tree and the table of what each error is on a wire belong together."""

import inspect

from muster.domain import errors
from muster.domain.errors import NotFoundError, ServiceError
from muster.frontends import status
from muster.store.database import DatabaseClosedError

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, ServiceError)]
# DPS names several causes with the one code that the real service sends.
SHARED = {400004, 401002}


def test_every_code_is_of_one_class() -> None:
    codes = [item.code for item in CLASSES if item is not ServiceError and item.code not in SHARED]
    assert len(codes) == len(set(codes))


def test_every_class_has_a_name_and_a_message() -> None:
    assert all(item.name and item.message for item in CLASSES)


def test_every_class_reaches_a_row_with_all_columns() -> None:
    for item in CLASSES:
        row = status.row(item())
        assert row.reason
        assert row.connect in (status.SERVER_UNAVAILABLE, status.NOT_AUTHORIZED)
        assert status.amqp_condition(item()).partition(":")[0] in ("amqp", "com.microsoft")


def test_the_tree_in_the_docstring_names_every_class() -> None:
    assert errors.__doc__ is not None
    assert all(item.__name__ in errors.__doc__ for item in CLASSES)


def test_a_message_of_ones_own() -> None:
    error = NotFoundError("There is no such thing.", retry_after=3, tracking_id="t")
    assert (error.message, str(error), error.status, error.retry_after, error.tracking_id) == (
        "There is no such thing.",
        "There is no such thing.",
        404,
        3,
        "t",
    )
    assert NotFoundError.message == "Not found."


def test_quota_has_its_own_amqp_condition() -> None:
    assert status.amqp_condition(errors.QuotaExceededError()) == "amqp:resource-limit-exceeded"


def test_what_the_database_says_stays_in_the_log() -> None:
    assert b"secret path" not in status.hub_body(DatabaseClosedError("secret path"), "t", 0)
