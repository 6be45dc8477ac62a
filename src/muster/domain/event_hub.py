"""A hub's event log as an Event Hubs client sees it: its names, its connection string, where reading starts.

Sources: hub-service.md 8.1, 8.5, interop-facts.md 6. Not here: reading, and who reads.
"""

import hashlib
import re
from collections.abc import Mapping
from enum import Enum

import msgspec

from muster.domain.access_policy import HUB_OWNER, AccessPolicy, Right
from muster.domain.errors import ArgumentInvalidError

_LONGEST_HUB_PART = 10
_READERS_POLICY = "service"


def event_hub_name(hub: str) -> str:
    """``iothub-ehub-<hub>-<digits>-<hex>``, the same at every start: consumers keep it beside their checkpoints."""
    digest = hashlib.sha256(hub.encode()).hexdigest()
    own = re.sub(r"[^a-z0-9-]", "-", hub.lower())[:_LONGEST_HUB_PART].strip("-") or "hub"
    return f"iothub-ehub-{own}-{int(digest[:12], 16) % 10_000_000:07d}-{digest[12:22]}"


def event_hub_endpoint(host_name: str) -> str:
    """Where the namespace of a hub is: on the hub's own host."""
    return f"sb://{host_in_url(host_name)}/"


def host_in_url(host_name: str) -> str:
    """A host as it stands in a URL: an IPv6 address in brackets."""
    return f"[{host_name}]" if ":" in host_name else host_name


def event_hub_connection_string(hub: str, host_name: str, policies: Mapping[str, AccessPolicy]) -> str:
    """By the policy that may do least of those that may read; empty when none may."""
    names = (_READERS_POLICY, HUB_OWNER, *policies)
    policy = next((policies[name] for name in names if name in policies and _may_read(policies[name])), None)
    if policy is None:
        return ""
    return (
        f"Endpoint={event_hub_endpoint(host_name)};SharedAccessKeyName={policy.name}"
        f";SharedAccessKey={policy.primary_key};EntityPath={event_hub_name(hub)}"
    )


def _may_read(policy: AccessPolicy) -> bool:
    return policy.grants(Right.SERVICE_CONNECT)


class Key(Enum):
    """What a starting position is told by."""

    END = "end"
    OFFSET = "event_offset"
    SEQUENCE_NUMBER = "sequence_number"
    ENQUEUED_TIME = "enqueued_time"


class StartingPosition(msgspec.Struct, frozen=True):
    """The first event is the first whose ``key`` is at least ``value``. Times are in microseconds UTC.

    ``END`` is behind the newest event, whatever the value.
    """

    key: Key
    value: int = 0


BEGINNING = StartingPosition(Key.SEQUENCE_NUMBER, 0)
LATEST = StartingPosition(Key.END)

_SELECTOR = re.compile(
    r"\s*(?:amqp\.annotation\.)?x-opt-(offset|sequence-number|enqueued-?time(?:utc)?)\s*(>=?)\s*(['\"]?)([^'\"\s]*)\3\s*",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"(-?\d{1,18})(?:\.\d*)?", re.ASCII)

_MILLISECOND = 1000


def parse_selector(text: str | None) -> StartingPosition:
    """What a receiver's filter asks for; none asks for everything. Raises ArgumentInvalidError."""
    if text is None or not text.strip():
        return BEGINNING
    match = _SELECTOR.fullmatch(text)
    if match is None:
        raise ArgumentInvalidError(
            f"The filter {text[:200]!r} is not understood: amqp.annotation.x-opt-offset, x-opt-sequence-number and"
            " x-opt-enqueued-time are, with > or >=."
        )
    name, operator, value = match[1].lower(), match[2], match[4]
    if value.lower() == "@latest":
        return LATEST
    number = _NUMBER.fullmatch(value)
    if number is None:
        raise ArgumentInvalidError(f"The filter {text[:200]!r} compares with {value[:50]!r}, which is no number.")
    least = int(number[1]) + (operator == ">")
    if name == "offset":
        return StartingPosition(Key.OFFSET, max(least, 0))
    if name == "sequence-number":
        return StartingPosition(Key.SEQUENCE_NUMBER, max(least, 0))
    return StartingPosition(Key.ENQUEUED_TIME, least * _MILLISECOND)
