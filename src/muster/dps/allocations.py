"""Allocations: which hub a registration gets, by policy or webhook; the same for a preview. Sources: dps.md 5.

Not here: the policies themselves (``domain/allocation.py``), and writing the assignment (``registrations.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from muster.domain.allocation import (
    Choice,
    LinkedHub,
    PolicyName,
    WebhookAnswer,
    candidates,
    choose,
    webhook_choice,
    webhook_request,
)
from muster.domain.enrollment import Enrollment, webhook_view
from muster.domain.registration import Registration
from muster.dps.services import ProvisioningService
from muster.dps.webhook import Webhook


@dataclass(frozen=True, slots=True)
class Allocation:
    """A hub with its reason, and what a webhook said besides."""

    choice: Choice
    answer: WebhookAnswer


@dataclass(frozen=True, slots=True)
class Plan:
    """The policy, the hubs it chooses among, and its choice; None when that is a webhook's."""

    policy: PolicyName
    among: tuple[LinkedHub, ...]
    choice: Choice | None


class Allocations:
    """Decides where devices go."""

    def __init__(self, webhook: Webhook) -> None:
        self._webhook = webhook

    async def allocate(
        self,
        service: ProvisioningService,
        enrollment: Enrollment,
        registration_id: str,
        assigned: Registration | None,
        runtime: Mapping[str, Any],
    ) -> Allocation:
        """The hub for a registration. ``assigned`` is the record of an earlier assignment, ``runtime`` what the
        webhook is told of the device besides.

        Raises NoHubAvailableError and what the webhook raises.
        """
        plan = self.plan(service, enrollment, registration_id, assigned)
        if plan.choice is not None:
            return Allocation(plan.choice, WebhookAnswer())
        custom = enrollment.document.custom_allocation
        assert custom is not None, "a custom policy is stored with its webhook"
        view = webhook_view(enrollment, [hub.host_name for hub in plan.among])
        context = {"registrationId": registration_id, **_current(service, assigned), **runtime}
        answer = await self._webhook.ask(custom.webhook_url, webhook_request(view, context, plan.among))
        return Allocation(webhook_choice(answer, plan.among), answer)

    def plan(
        self,
        service: ProvisioningService,
        enrollment: Enrollment,
        registration_id: str,
        assigned: Registration | None,
    ) -> Plan:
        """As far as it can be told without a webhook. Raises NoHubAvailableError."""
        policy = enrollment.policy(service.allocation_policy)
        kept = self._kept(service, enrollment, assigned)
        if kept is not None:
            return Plan(policy, (kept.hub,), kept)
        among = candidates(service.linked_hubs, enrollment.named_hubs)
        return Plan(policy, among, None if policy == "custom" else choose(policy, registration_id, among))

    @staticmethod
    def _kept(service: ProvisioningService, enrollment: Enrollment, assigned: Registration | None) -> Choice | None:
        """The hub that a device stays with because its enrollment never moves it (dps.md 5.4)."""
        if enrollment.may_move or assigned is None:
            return None
        hub = current_hub(service, assigned)
        return Choice(hub, f"reprovision policy: the device stays on {hub.host_name}") if hub else None


def current_hub(service: ProvisioningService, assigned: Registration | None) -> LinkedHub | None:
    """The linked hub that a record says the device is on."""
    if assigned is None or assigned.assigned_hub is None:
        return None
    return next((hub for hub in service.linked_hubs if hub.name == assigned.assigned_hub), None)


def _current(service: ProvisioningService, assigned: Registration | None) -> dict[str, Any]:
    hub = current_hub(service, assigned)
    if hub is None or assigned is None:
        return {}
    return {"currentIotHubHostName": hub.host_name, "currentDeviceId": assigned.device_id}
