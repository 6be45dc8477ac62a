"""Records that explain a verdict: named checks, and the report that keeps them under a tracking id.

Not here: the checks themselves (``domain/attestation.py``, ``domain/device.py``) and the storing of reports
(``hub/reports.py``). A report holds no key, pass phrase, token, payload, or expected signature: detail texts are
written by our checks from public facts.
"""

from enum import StrEnum

import msgspec

LONGEST_SUBJECT = 256
LONGEST_TEXT = 1024
"""Characters. Ids and tokens that clients send can have 64 KiB; a report keeps enough of them to know them by."""


class Outcome(StrEnum):
    """What one check said. ``SKIPPED``: not evaluated, because an earlier check made it meaningless."""

    PASSED = "passed"
    WARNED = "warned"
    REFUSED = "refused"
    SKIPPED = "skipped"


class Check(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One named check. ``id`` is stable and documented; ``detail`` says what was found, ``fix`` what to do about it."""

    id: str
    outcome: Outcome
    detail: str
    fix: str = ""


class Report(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """Why one attempt was refused, disabled or failed.

    ``time`` is in microseconds UTC. ``service`` is ``dps`` or ``hub``, ``scope`` its id scope or hub name.
    ``operation`` is what was attempted (``register``, ``connect``, ...), ``subject`` the registration or device id
    as sent, ``verdict`` one of ``refused``, ``disabled``, ``failed``, ``warned``. ``answer`` is what the client
    was told, e.g. ``401002 Invalid certificate.``; ``credential`` describes what was presented, without secrets;
    ``peer`` is the client's address and protocol.
    """

    tracking_id: str
    time: int
    service: str
    scope: str
    operation: str
    subject: str
    verdict: str
    answer: str
    credential: str
    peer: str
    checks: tuple[Check, ...]


def bounded(report: Report) -> Report:
    """The report with every text cut to its bound."""
    checks = tuple(Check(one.id, one.outcome, clipped(one.detail), clipped(one.fix)) for one in report.checks)
    return msgspec.structs.replace(
        report,
        scope=clipped(report.scope, LONGEST_SUBJECT),
        operation=clipped(report.operation, LONGEST_SUBJECT),
        subject=clipped(report.subject, LONGEST_SUBJECT),
        answer=clipped(report.answer),
        credential=clipped(report.credential),
        checks=checks,
    )


def clipped(text: str, limit: int = LONGEST_TEXT) -> str:
    """At most ``limit`` characters of ``text``, dots in place of the rest, and no NUL: no database stores one."""
    text = text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def refusals(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """The checks that refuse, in their order; empty when the verdict is yes."""
    return tuple(check for check in checks if check.outcome is Outcome.REFUSED)
