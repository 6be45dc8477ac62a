"""May this service client do that? The shared access signature of a REST request, for the hub's and the provisioning
service's policies.

Sources: hub-service.md 1.2, 1.3, dps.md 6.8. Not here: devices (``authentication.py``).
"""

from collections.abc import Callable, Mapping, Sequence

from muster.domain.access_policy import AccessPolicy, Right
from muster.domain.check_table import check, verdict
from muster.domain.credential import Credential
from muster.domain.errors import UnauthorizedAccessError
from muster.domain.report import Check
from muster.domain.sas import MalformedTokenError, check_token, parse_token
from muster.hub.authentication import refused_report
from muster.hub.reports import Attempt, Reports


class ServiceAccess:
    """Judges service clients of every service of this Muster."""

    def __init__(self, reports: Reports, clock: Callable[[], int]) -> None:
        self._reports = reports
        self._clock = clock

    async def require(
        self,
        attempt: Attempt,
        credential: Credential,
        policies: Mapping[str, AccessPolicy],
        hosts: Sequence[str],
        path: Sequence[str],
        rights: Sequence[Right],
    ) -> None:
        """Raise UnauthorizedAccessError, with a stored report, unless the token is of a policy with one of ``rights``.

        ``hosts`` are the names under which the service is addressed, ``path`` the decoded segments of the
        request's path.
        """
        checks = self._judge(credential.token, policies, hosts, path, rights)
        if verdict(checks) is None:
            return
        tracking_id = self._reports.new_tracking_id()
        await self._reports.record(
            refused_report(attempt, checks, tracking_id, self._clock(), f"{UnauthorizedAccessError.code} Unauthorized")
        )
        raise UnauthorizedAccessError(tracking_id=tracking_id)

    def _judge(
        self,
        text: str,
        policies: Mapping[str, AccessPolicy],
        hosts: Sequence[str],
        path: Sequence[str],
        rights: Sequence[Right],
    ) -> tuple[Check, ...]:
        try:
            token = parse_token(text)
        except MalformedTokenError as error:
            detail = (
                f"what was sent is no shared access signature: {error}"
                if text
                else "no shared access signature was sent"
            )
            return (
                check(
                    "sas.format",
                    passed=False,
                    detail=detail,
                    fix="sign with a shared access policy",
                ),
            )
        readable = check("sas.format", passed=True, detail="sr, sig and se are there")
        policy = policies.get(token.key_name)
        known = check(
            "sas.policy",
            passed=policy is not None,
            detail=f"the token names the policy {token.key_name!r}" + ("" if policy else ", which does not exist here"),
            fix=f"use one of {', '.join(sorted(policies))} (skn=...)",
        )
        if policy is None:
            return (readable, known)
        right = check(
            "sas.right",
            passed=any(policy.grants(wanted) for wanted in rights),
            detail=f"the policy has the rights {policy.rights}; this needs {' or '.join(rights)}",
            fix=f"use a policy with {' or '.join(rights)}",
        )
        return (
            readable,
            known,
            right,
            *check_token(token, policy.keys, hosts, path, policy=True, now=self._clock()),
        )
