"""Registration ids that a person gave: told at once if they can be none, since the path of a request cannot hold every
text.
"""

from muster.cli.failure import CommandError
from muster.cli.output import printable


def require_registration_id(text: str, advice: str = "") -> None:
    """Raises CommandError, with ``advice``, for what cannot be a registration id."""
    from muster.domain.registration_id import registration_id_problem

    problem = registration_id_problem(text)
    if problem is not None:
        raise CommandError(f"{printable(text)!r} cannot be a registration id: {problem}", advice)
