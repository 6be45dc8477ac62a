"""What speaks against signing something: a stable id, what was found, and what to do about it.

Not here: the checks that find such problems (``certificate_request.py``, ``certificate_lint.py``).
"""

from typing import NamedTuple


class Problem(NamedTuple):
    """One reason not to sign. ``id`` is stable; ``fix`` is empty when there is nothing to advise."""

    id: str
    detail: str
    fix: str = ""


class AuthorityError(ValueError):
    """What was asked for cannot be certified; the message says why. ``problems`` has each reason on its own."""

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


def require_none(problems: tuple[Problem, ...]) -> None:
    """Raises AuthorityError with all of them, when there are any."""
    if problems:
        raise AuthorityError("; ".join(problem.detail for problem in problems), problems)
