"""How facts look on a page: times, certificates and how long they last, messages, and text that a device controls.

Pure. Not here: HTML, which templates write and escape; what is returned is plain text.
"""

import base64
import json
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from muster.domain.attestation_mechanism import StoredCertificate
from muster.domain.check_table import CHECKS
from muster.domain.enrollment import Enrollment, ReprovisionPolicy
from muster.domain.message import Event
from muster.domain.report import Outcome, Report, refusals
from muster.domain.timestamp import DAY, iso_utc
from muster.pki.certificate import Certificate, CertificateFormatError, parse_certificate, utc_text

EXPIRES_SOON_DAYS = 30
MAXIMUM_TEXT = 4000
MAXIMUM_HEX_BYTES = 256
MAXIMUM_PROPERTIES = 50

_MAXIMUM_JSON_BYTES = 16 * 1024
_ONE_LINE_BYTES = 100
_SECOND_DIGITS = 19
_MILLISECOND_DIGITS = 23

Light = Literal["good", "soon", "bad", "unknown"]


def visible(text: str) -> str:
    """``text`` with each character that could hide or reorder what is shown as its escape; line breaks stay."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)


def clock_time(microseconds: int) -> str:
    """``2026-11-23 17:33:41.125 UTC``."""
    return iso_utc(microseconds)[:_MILLISECOND_DIGITS].replace("T", " ") + " UTC"


def second_time(microseconds: int) -> str:
    """``2026-11-23 17:33:41 UTC``; years 1 to 9999, which certificates may name."""
    return utc_text(microseconds)[:_SECOND_DIGITS].replace("T", " ") + " UTC"


def pretty_json(value: Any) -> str:
    """A document as indented text."""
    return visible(json.dumps(value, indent=2, ensure_ascii=False))


def duration(seconds: int) -> str:
    """``3 d 4 h``: the two largest units."""
    units = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))
    parts: list[str] = []
    for name, size in units:
        count, seconds = divmod(seconds, size)
        if count or (parts and len(parts) == 1):
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


@dataclass(frozen=True, slots=True)
class Expiry:
    """How long a certificate lasts, in words, and as a traffic light."""

    light: Light
    text: str


@dataclass(frozen=True, slots=True)
class ShownCertificate:
    """An enrolled certificate with its slot, ``primary`` or ``secondary``; ``facts`` is None when it cannot be read."""

    slot: str
    sha1_thumbprint: str
    sha256_thumbprint: str
    facts: Certificate | None
    expiry: Expiry


def expiry(certificate: Certificate, now: int) -> Expiry:
    """Where ``now`` (microseconds UTC) lies in the certificate's dates."""
    if certificate.not_after is None or certificate.not_before is None:
        return Expiry("unknown", "dates cannot be read")
    if now < certificate.not_before:
        return Expiry("bad", f"valid in {_days(certificate.not_before - now)}")
    if now > certificate.not_after:
        return Expiry("bad", f"expired {_days(now - certificate.not_after)} ago")
    left = certificate.not_after - now
    return Expiry("soon" if left < EXPIRES_SOON_DAYS * DAY else "good", f"{_days(left)} left")


def _days(microseconds: int) -> str:
    days = microseconds // DAY
    if days == 0:
        return "less than a day"
    return f"{days} day" if days == 1 else f"{days} days"


def shown_certificates(enrollment: Enrollment, now: int) -> list[ShownCertificate]:
    """The enrolled certificates, primary first."""
    mechanism = enrollment.mechanism
    slots = (("primary", mechanism.primary_certificate), ("secondary", mechanism.secondary_certificate))
    return [_shown_certificate(slot, stored, now) for slot, stored in slots if stored is not None]


def _shown_certificate(slot: str, stored: StoredCertificate, now: int) -> ShownCertificate:
    try:
        facts = parse_certificate(base64.b64decode(stored.der))
    except CertificateFormatError:
        unknown = Expiry("unknown", "cannot be read")
        return ShownCertificate(slot, stored.sha1_thumbprint, stored.sha256_thumbprint, None, unknown)
    return ShownCertificate(slot, stored.sha1_thumbprint, stored.sha256_thumbprint, facts, expiry(facts, now))


def reprovision_policy(policy: ReprovisionPolicy | None) -> str:
    """In the words of Azure's portal (dps.md 5.4)."""
    if policy is None or not policy.update_hub_assignment:
        return "Never re-provision"
    return "Re-provision and migrate data" if policy.migrate_device_data else "Re-provision and reset to initial config"


@dataclass(frozen=True, slots=True)
class ShownBody:
    """The body of a message as text. ``kind`` says how to read it; ``cut`` that there is more than is shown."""

    kind: Literal["empty", "json", "text", "binary"]
    text: str
    size: int
    cut: bool


def shown_body(body: bytes) -> ShownBody:
    """A body as JSON (indented, unless it is short), text, or hexadecimal bytes, whichever it is; long ones are cut."""
    if not body:
        return ShownBody("empty", "", 0, cut=False)
    text = _json_text(body)
    if text is not None:
        return ShownBody("json", visible(text[:MAXIMUM_TEXT]), len(body), len(text) > MAXIMUM_TEXT)
    try:
        text = body.decode()
    except UnicodeDecodeError:
        shown = body[:MAXIMUM_HEX_BYTES].hex(" ")
        return ShownBody("binary", shown, len(body), len(body) > MAXIMUM_HEX_BYTES)
    return ShownBody("text", visible(text[:MAXIMUM_TEXT]), len(body), len(text) > MAXIMUM_TEXT)


def _json_text(body: bytes) -> str | None:
    if len(body) > _MAXIMUM_JSON_BYTES:
        return None
    try:
        indented = msgspec.json.format(body, indent=2).decode()
        return body.decode() if len(body) <= _ONE_LINE_BYTES and b"\n" not in body else indented
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Arrival:
    """A device-to-cloud message of the event log as a row; ``row`` names it on the page."""

    row: str
    event: Event
    properties: list[tuple[str, str]]
    more_properties: int
    facts: list[tuple[str, str]]
    body: ShownBody


def arrival(event: Event) -> Arrival:
    """An event with its properties as text, system properties among the facts."""
    properties = [(visible(name), _value(value)) for name, value in event.application_properties.items()]
    origin = event.origin
    facts = [
        ("Source", event.source),
        ("Partition", str(event.partition)),
        ("Sequence number", str(event.sequence_number)),
        ("Offset", event.offset),
        ("Authentication", origin.authentication_method),
        ("Generation id", origin.generation_id),
        ("Module id", origin.module_id),
        ("Model id", origin.model_id),
        *((name, _value(value)) for name, value in list(event.system_properties.items())[:MAXIMUM_PROPERTIES]),
    ]
    return Arrival(
        # The time keeps rows apart when a server starts again with an empty log.
        row=f"arrival-{event.partition}-{event.sequence_number}-{event.enqueued_time}",
        event=event,
        properties=properties[:MAXIMUM_PROPERTIES],
        more_properties=max(0, len(properties) - MAXIMUM_PROPERTIES),
        facts=[(visible(name), visible(value)) for name, value in facts if value],
        body=shown_body(event.body),
    )


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return visible(text if len(text) <= MAXIMUM_TEXT else text[:MAXIMUM_TEXT] + " ...")


@dataclass(frozen=True, slots=True)
class ShownCheck:
    """One check of a report with its title from the table of checks."""

    id: str
    outcome: Outcome
    title: str
    detail: str
    fix: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A report as a row and as a page."""

    row: str
    report: Report
    failed: list[str]
    checks: list[ShownCheck]


def refusal(report: Report) -> Refusal:
    """A report with the titles of its checks; ``failed`` names those that refuse, or else those that warn."""
    failing = refusals(report.checks) or tuple(one for one in report.checks if one.outcome is Outcome.WARNED)
    checks = [
        ShownCheck(
            id=one.id,
            outcome=one.outcome,
            title=_title(one.id),
            detail=visible(one.detail),
            fix=visible(one.fix),
        )
        for one in report.checks
    ]
    return Refusal(f"refusal-{report.tracking_id}", report, [one.id for one in failing], checks)


def _title(check_id: str) -> str:
    """The title as a line of its own; a report of another version may hold checks that this one does not know."""
    title = CHECKS[check_id].title if check_id in CHECKS else check_id
    return title[:1].upper() + title[1:]
