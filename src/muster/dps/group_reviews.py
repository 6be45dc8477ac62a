"""What an operator is warned of after writing an enrollment group: a report of the checks that warn.

The answer of the service API stays Azure's; the report is found under its tracking id and that of the group. Not here:
the checks (``domain/shared_keys.py``).
"""

from collections.abc import Callable

import msgspec

from muster.domain.enrollment import Enrollment
from muster.domain.report import Outcome
from muster.domain.shared_keys import check_group_keys
from muster.dps.groups import GroupIndex
from muster.hub.authentication import refused_report
from muster.hub.reports import Attempt, Reports


class GroupReviews:
    """Reviews groups of all id scopes once they are written."""

    def __init__(self, groups: GroupIndex, reports: Reports, clock: Callable[[], int]) -> None:
        self._groups = groups
        self._reports = reports
        self._clock = clock

    async def review(self, group: Enrollment, attempt: Attempt) -> str | None:
        """The tracking id of a report of warnings, None when there is nothing to warn of."""
        if group.mechanism.type != "symmetricKey":
            return None
        known = await self._groups.get(attempt.scope)
        item = check_group_keys(group, known.symmetric)
        if item.outcome is not Outcome.WARNED:
            return None
        tracking_id = self._reports.new_tracking_id()
        report = refused_report(attempt, (item,), tracking_id, self._clock(), "accepted")
        await self._reports.record(msgspec.structs.replace(report, verdict="warned"))
        return tracking_id
