"""Which hub a device is assigned to: candidates, policies, and what a custom allocation webhook is sent and answers.

Sources: dps.md 5. Pure: the webhook is called by ``dps/webhook.py``. Every choice comes with its reason, for
previews and reports.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec

from muster.domain.access_policy import HUB_OWNER
from muster.domain.errors import (
    CustomAllocationHubMissingError,
    NoHubAvailableError,
)
from muster.domain.registration_id import registration_id_key
from muster.domain.twin import InitialTwin, JsonObject

PolicyName = Literal["hashed", "geoLatency", "static", "custom"]

_MASK = "****"


class LinkedHub(msgspec.Struct, frozen=True, kw_only=True):
    """A hub that the provisioning service may assign devices to (dps.md 5.1). ``latency`` in microseconds.

    ``policy`` is that of the connection string which linked it. What is None was not set, and is not shown.
    """

    name: str
    host_name: str
    policy: str = HUB_OWNER
    location: str = ""
    apply_allocation_policy: bool | None = None
    allocation_weight: int | None = None
    latency: int = 0

    @property
    def applies(self) -> bool:
        """Whether the allocation policy may choose it."""
        return self.apply_allocation_policy is not False

    @property
    def weight(self) -> int:
        return 1 if self.allocation_weight is None else self.allocation_weight


class Choice(msgspec.Struct, frozen=True):
    """A hub, and why this one."""

    hub: LinkedHub
    reason: str


class WebhookAnswer(msgspec.Struct):
    """What a custom allocation webhook answers with 200, its twin by the rules of twins (dps.md 5.3)."""

    iot_hub_host_name: str | None = None
    initial_twin: InitialTwin | None = None
    payload: Any = None


def candidates(hubs: Sequence[LinkedHub], named: Sequence[str]) -> tuple[LinkedHub, ...]:
    """The hubs that an enrollment names, or else all linked ones that apply the allocation policy.

    Raises NoHubAvailableError; a named hub that is not linked makes registrations fail, it does not fall back
    (dps.md 5.1).
    """
    if named:
        wanted = {host.lower() for host in named}
        found = tuple(hub for hub in hubs if hub.host_name.lower() in wanted)
        if not found:
            raise NoHubAvailableError(
                f"No IoT hubs available: the enrollment names {', '.join(named)}, which is not linked."
            )
        return found
    found = tuple(hub for hub in hubs if hub.applies)
    if not found:
        raise NoHubAvailableError
    return found


def choose(policy: PolicyName, registration_id: str, among: Sequence[LinkedHub]) -> Choice:
    """The hub by ``hashed``, ``geoLatency`` or ``static``; ``custom`` is for its webhook, and not for here."""
    if len(among) == 1:
        return Choice(among[0], f"policy {policy}: {among[0].host_name} is the only candidate")
    if policy == "geoLatency":
        lowest = min(hub.latency for hub in among)
        nearest = [hub for hub in among if hub.latency == lowest]
        hub = _hashed(registration_id, nearest)
        tie = f", tied with {len(nearest) - 1} more, decided by hash" if len(nearest) > 1 else ""
        return Choice(hub, f"policy geoLatency: {hub.host_name} has the lowest latency, {lowest / 1000:g} ms{tie}")
    hub = _hashed(registration_id, among)
    weights = ", ".join(f"{each.host_name} {each.weight}" for each in among)
    return Choice(hub, f"policy {policy}: hash of the registration id among weights {weights}")


def _hashed(registration_id: str, hubs: Sequence[LinkedHub]) -> LinkedHub:
    """Rendezvous hashing, weighted: another hub more or less moves only the devices it must."""
    key = registration_id_key(registration_id)
    return max(hubs, key=lambda hub: (_draw(key, hub), hub.name))


def _draw(key: str, hub: LinkedHub) -> float:
    """A number in (0, 1) raised to 1/weight: the largest draw wins with a probability in proportion to its weight."""
    digest = hashlib.sha256(f"{key}\0{hub.name}".encode()).digest()
    uniform = (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 2)
    return float(uniform ** (1 / hub.weight))


def webhook_request(
    enrollment: tuple[str, JsonObject],
    context: Mapping[str, Any],
    among: Sequence[LinkedHub],
) -> JsonObject:
    """The body that the webhook is sent: ``enrollment`` is its member name and view without keys (dps.md 5.3)."""
    return {
        enrollment[0]: enrollment[1],
        "deviceRuntimeContext": dict(context),
        "linkedHubs": [hub.host_name for hub in among],
    }


def webhook_url_problem(url: str) -> str | None:
    """Why a webhook cannot have this URL, as the end of a sentence: ``it ...``; None when it can."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        return f"cannot be read: {error}"
    if parts.scheme not in ("https", "http"):
        return "must begin with https:// or http://"
    if not parts.hostname or port == 0 or re.search(r"[\x00-\x20\x7f]", url):
        return "needs a host, and has no spaces"
    return None


def masked_url(url: str) -> str:
    """A webhook's URL with its query masked: it may hold a function key."""
    path, _, rest = url.partition("?")
    query, mark, fragment = rest.partition("#")
    return f"{path}?{_MASK}{mark}{fragment}" if query else url


def webhook_choice(answer: WebhookAnswer, among: Sequence[LinkedHub]) -> Choice:
    """The hub that the webhook named. Raises CustomAllocationHubMissingError when it named none of ``among``."""
    wanted = (answer.iot_hub_host_name or "").lower()
    for hub in among:
        if hub.host_name.lower() == wanted:
            return Choice(hub, f"policy custom: the webhook answered {hub.host_name}")
    named = f"{answer.iot_hub_host_name!r}" if wanted else "no hub"
    hosts = ", ".join(hub.host_name for hub in among)
    raise CustomAllocationHubMissingError(f"The custom allocation webhook named {named}; linked are {hosts}.")
