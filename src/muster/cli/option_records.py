"""Options that several commands share, as records: a command takes the record, its user sees the options.

    @dataclass(frozen=True)
    class TwinOptions:
        tag: Tag = None
        desired: Desired = None

    @app.command()
    @with_records
    def create(*, twin: TwinOptions) -> None: ...    # muster ... create --tag NAME=VALUE --desired NAME=VALUE

Not here: any option.
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass
from typing import Any

Command = Callable[..., None]


def with_records(command: Command) -> Command:
    """The command as typer reads it: each parameter that is a dataclass is replaced by the fields of it, in place."""
    signature = inspect.signature(command)
    records: dict[str, Any] = {
        name: one.annotation for name, one in signature.parameters.items() if is_dataclass(one.annotation)
    }
    parameters = [
        parameter
        for name, one in signature.parameters.items()
        for parameter in (_options(records[name]) if name in records else (one,))
    ]

    @functools.wraps(command)
    def call(**given: Any) -> None:
        built = {
            name: record(**{field.name: given.pop(field.name) for field in fields(record)})
            for name, record in records.items()
        }
        command(**given, **built)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # what inspect looks for
    call.__annotations__ = {one.name: one.annotation for one in parameters}
    return call


def _options(record: Any) -> Iterable[inspect.Parameter]:
    for field in fields(record):
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
        )
