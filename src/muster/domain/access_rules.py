"""Shared access policies as a client of Resource Manager sends them, and what they become. Sources: dps.md 7.4,
hub-service.md 1.2, 10.

Not here: what a policy grants (``access_policy.py``), and storing them.
"""

import re
from collections.abc import Callable, Sequence

import msgspec

from muster.domain.access_policy import (
    HUB_OWNER,
    HUB_RIGHTS,
    PROVISIONING_OWNER,
    PROVISIONING_RIGHTS,
    AccessPolicy,
    Right,
    read_rights,
)
from muster.domain.errors import ArgumentInvalidError, QuotaExceededError
from muster.domain.sas import require_key

MAXIMUM_HUB_POLICIES = 16

_KEY_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class AccessRuleBody(msgspec.Struct, rename="camel", kw_only=True):
    """One policy of a body; a key that is not sent is made."""

    key_name: str
    rights: str
    primary_key: str | None = None
    secondary_key: str | None = None


def read_provisioning_policies(rules: Sequence[AccessRuleBody], new_key: Callable[[], str]) -> dict[str, AccessPolicy]:
    """The policies that replace all there were of a provisioning service.

    Raises ArgumentInvalidError; also when the owner policy would be lost, with which Muster's own commands sign.
    """
    policies = _read(rules, new_key, PROVISIONING_RIGHTS)
    _require_owner(policies, PROVISIONING_OWNER, (Right.SERVICE_CONFIG, Right.ENROLLMENT_WRITE))
    return policies


def read_hub_policies(rules: Sequence[AccessRuleBody], new_key: Callable[[], str]) -> dict[str, AccessPolicy]:
    """The same for a hub, which has at most 16: else QuotaExceededError."""
    if len(rules) > MAXIMUM_HUB_POLICIES:
        raise QuotaExceededError(f"There are {len(rules)} policies; {MAXIMUM_HUB_POLICIES} are allowed.")
    policies = _read(rules, new_key, HUB_RIGHTS)
    _require_owner(policies, HUB_OWNER, (Right.REGISTRY_WRITE, Right.SERVICE_CONNECT, Right.DEVICE_CONNECT))
    return policies


def _read(
    rules: Sequence[AccessRuleBody], new_key: Callable[[], str], rights: tuple[Right, ...]
) -> dict[str, AccessPolicy]:
    policies: dict[str, AccessPolicy] = {}
    for rule in rules:
        if not _KEY_NAME.fullmatch(rule.key_name):
            raise ArgumentInvalidError(
                f"keyName is {rule.key_name!r}; 1 to 64 letters, digits, hyphens and underscores are allowed."
            )
        if rule.key_name in policies:
            raise ArgumentInvalidError(f"There are two policies with the keyName {rule.key_name!r}.")
        policies[rule.key_name] = AccessPolicy(
            rule.key_name,
            _key(rule.primary_key, f"primaryKey of {rule.key_name}", new_key),
            _key(rule.secondary_key, f"secondaryKey of {rule.key_name}", new_key),
            read_rights(rule.rights, rights),
        )
    return policies


def _require_owner(policies: dict[str, AccessPolicy], name: str, rights: Sequence[Right]) -> None:
    owner = policies.get(name)
    if owner is None or not all(owner.grants(right) for right in rights):
        *others, last = rights
        raise ArgumentInvalidError(
            f"The policy {name} has to stay, with {', '.join(others)} and {last}: Muster's own commands sign with it."
            " Its keys may be changed."
        )


def _key(sent: str | None, name: str, new_key: Callable[[], str]) -> str:
    return require_key(sent, name) if sent else new_key()
