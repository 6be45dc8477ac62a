"""Consumer groups of a hub's event log: their names. Sources: hub-service.md 10, interop-facts.md 24.

Not here: storing them, and reading events.
"""

import re

import msgspec

from muster.domain.errors import ArgumentInvalidError

DEFAULT_GROUP = "$Default"
MAXIMUM_GROUPS = 20
"""With ``$Default`` (hub-service.md 8.1)."""

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,48}[A-Za-z0-9])?")


class ConsumerGroup(msgspec.Struct, frozen=True):
    """One group; ``created`` in microseconds UTC. Names compare without case, and keep the one they were made with."""

    name: str
    created: int


def is_default(name: str) -> bool:
    """Whether this is the group that every hub has."""
    return name.lower() == DEFAULT_GROUP.lower()


def require_group_name(name: str) -> None:
    """Raise ArgumentInvalidError unless a new group may have this name."""
    if not _NAME.fullmatch(name):
        raise ArgumentInvalidError(
            f"{name!r} cannot name a consumer group: 1 to 50 letters, digits, dots, hyphens and underscores are"
            " allowed, with a letter or digit at both ends."
        )
