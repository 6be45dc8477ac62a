"""How a certificate stands: does it still live, should it be renewed, has it been replaced or revoked?

For lists and boards, in the colours of a traffic light. Not here: whether anybody accepts it.
"""

from enum import StrEnum

_DAY = 86_400_000_000
_LONGEST_WARNING = 30 * _DAY
_LONGEST_CA_WARNING = 90 * _DAY
_SHARE_OF_LIFE = 5


class State(StrEnum):
    """In the words that people read."""

    ACTIVE = "active"
    EXPIRING = "expires soon"
    NOT_YET_VALID = "not yet valid"
    EXPIRED = "expired"
    REVOKED = "revoked"
    REPLACED = "replaced"
    """There is a newer one of the same name; until it expires or is revoked, this one is good too."""


LIGHTS = {
    State.ACTIVE: "green",
    State.EXPIRING: "yellow",
    State.NOT_YET_VALID: "yellow",
    State.REPLACED: "grey",
    State.EXPIRED: "red",
    State.REVOKED: "red",
}


def certificate_state(
    not_before: int, not_after: int, now: int, *, is_ca: bool = False, revoked: bool = False, replaced: bool = False
) -> State:
    """All times in microseconds UTC; both ends belong to the validity.

    It expires soon in the last fifth of its life, but not earlier than 30 days before its end, 90 for a CA.
    """
    if revoked:
        return State.REVOKED
    if now > not_after:
        return State.EXPIRED
    if replaced:
        return State.REPLACED
    if now < not_before:
        return State.NOT_YET_VALID
    longest = _LONGEST_CA_WARNING if is_ca else _LONGEST_WARNING
    warning = min(longest, (not_after - not_before) // _SHARE_OF_LIFE)
    return State.EXPIRING if not_after - now <= warning else State.ACTIVE


def days_left(not_after: int, now: int) -> int:
    """Whole days until the end; negative when that has passed."""
    return (not_after - now) // _DAY
