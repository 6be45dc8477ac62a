"""Resource Manager's routes of shared access policies and their keys, the same for hubs and provisioning services.
Sources: dps.md 7.4, hub-service.md 10.

Documented in docs/arm.md. Not here: changing them, which is a change of the resource.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from muster.domain.access_policy import AccessPolicy
from muster.frontends.rest import requests
from muster.frontends.rest.arm import ResourceScope


class HasPolicies(Protocol):
    """A hub, or a provisioning service."""

    @property
    def policies(self) -> Mapping[str, AccessPolicy]: ...


@dataclass(frozen=True, slots=True)
class PolicyResources:
    """The handlers. ``kind`` is that of the resource that has policies, ``find`` that of a request, which raises
    ResourceNotFoundError; ``word`` is what stands before the name of a policy in a path.
    """

    kind: str
    word: str
    find: Callable[[Request], HasPolicies]

    def table(self, resource: str) -> dict[tuple[str, str], requests.Handler]:
        """Handlers by path and method below the path of a ``resource``."""
        return {
            (f"{resource}/listkeys", "POST"): self.list_keys,
            (f"{resource}/{self.word.lower()}/{{key}}/listkeys", "POST"): self.get_key,
        }

    async def list_keys(self, request: Request) -> Response:
        rules = rule_views(self.find(request))
        return requests.json_response({"value": rules}, headers={"Cache-Control": "no-store"})

    async def get_key(self, request: Request) -> Response:
        key = request.path_params["key"]
        policy = self.find(request).policies.get(key)
        if policy is None:
            kind = f"{self.kind}/{request.path_params['name']}/{self.word}"
            raise ResourceScope.of(request).not_found(kind, key)
        return requests.json_response(_rule_view(policy), headers={"Cache-Control": "no-store"})


def rule_views(resource: HasPolicies) -> list[dict[str, str]]:
    """The policies of a resource with their keys (dps.md 7.4)."""
    return [_rule_view(policy) for policy in resource.policies.values()]


def _rule_view(policy: AccessPolicy) -> dict[str, str]:
    return {
        "keyName": policy.name,
        "primaryKey": policy.primary_key,
        "secondaryKey": policy.secondary_key,
        "rights": policy.rights,
    }
