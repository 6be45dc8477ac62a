"""Registration ids: which are legal, and when two are the same (dps.md 4.2).

The documents disagree on the characters at the ends and on the comma: what any of them allows is legal here.
"""

import re

MAXIMUM_LENGTH = 128

_ILLEGAL = re.compile(r"[^A-Za-z0-9\-._:,]")


def registration_id_problem(registration_id: str) -> str | None:
    """What is wrong with it, as the end of a sentence: ``it has ...``; None when it is legal."""
    if not registration_id:
        return "it is empty"
    if len(registration_id) > MAXIMUM_LENGTH:
        return f"it has {len(registration_id)} characters; {MAXIMUM_LENGTH} are allowed"
    illegal = _ILLEGAL.search(registration_id)
    if illegal is not None:
        return f"it has the character {illegal[0]!a}; letters, digits and - . _ : , are allowed"
    return None


def registration_id_key(registration_id: str) -> str:
    """The form in which ids are compared and looked up: case does not count, but ids are shown as they were
    written.

    Only ASCII has case here: a common name with a Kelvin sign is not the registration id with a ``k``.
    """
    return registration_id.lower() if registration_id.isascii() else registration_id
