"""The one exception of the command line: something a person can act on, told in two lines and exit code 1.

Not here: usage errors (typer tells those, exit code 2) and the printing, which is in ``cli/main.py``.
"""

from typing import Any


class CommandError(Exception):
    """A command could not do its work. ``message`` names what is wrong, ``advice`` what to do, if known."""

    def __init__(self, message: str, advice: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


class UnreachableError(CommandError):
    """Nothing answers, or not in time."""


class RefusedError(CommandError):
    """The server answered with an error: HTTP's ``status``, Azure's ``code`` and ``name`` if it sent them, and the JSON
    ``document`` of the answer.
    """

    def __init__(
        self,
        message: str,
        advice: str = "",
        *,
        status: int,
        code: int = 0,
        name: str = "",
        tracking_id: str = "",
        document: Any = None,
    ) -> None:
        super().__init__(message, advice)
        self.status = status
        self.code = code
        self.name = name
        self.tracking_id = tracking_id
        self.document = document
