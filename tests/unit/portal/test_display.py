"""How the portal words facts, and what it does with text that devices control."""

import base64

import pytest

from muster.domain.attestation_mechanism import Mechanism, StoredCertificate
from muster.domain.check_table import CHECKS
from muster.domain.enrollment import Enrollment, EnrollmentDocument, ReprovisionPolicy
from muster.domain.message import Event, Origin
from muster.domain.report import Check, Outcome, Report
from muster.domain.timestamp import parse_iso
from muster.pki.certificate import parse_certificate
from muster.portal import display
from tests.support.fix_pki import DAY, NOW, Identity, ec_key, make_certificate

MOMENT = parse_iso("2026-11-23T17:33:41.125Z")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain, ünï, 温度", "plain, ünï, 温度"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("bell\x07 escape\x1b[2J", "bell\\x07 escape\\x1b[2J"),
        ("carriage\rreturn", "carriage\\rreturn"),
        ("left \u202eot thgir", "left \\u202eot thgir"),
        ("zero\u200bwidth \u2066isolate\u2069", "zero\\u200bwidth \\u2066isolate\\u2069"),
        ("\U000e0041 tag", "\\U000e0041 tag"),
        ("", ""),
    ],
)
def test_what_could_hide_or_reorder_text_is_made_visible(text: str, shown: str) -> None:
    assert display.visible(text) == shown


def test_times_are_utc() -> None:
    assert display.clock_time(MOMENT) == "2026-11-23 17:33:41.125 UTC"
    assert display.second_time(MOMENT) == "2026-11-23 17:33:41 UTC"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min 0 s"),
        (3_700, "1 h 1 min"),
        (86_400, "1 d 0 h"),
        (34_560_000, "400 d 0 h"),
        (93_784, "1 d 2 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: int, text: str) -> None:
    assert display.duration(seconds) == text


def certificate(*, not_before: int = NOW - DAY, not_after: int = NOW + 365 * DAY) -> Identity:
    return Identity(make_certificate("d", key=ec_key(), not_before=not_before, not_after=not_after), ec_key())


@pytest.mark.parametrize(
    ("not_before", "not_after", "light", "text"),
    [
        (-1 * DAY, 365 * DAY + DAY // 2, "good", "365 days left"),
        (-1 * DAY, 30 * DAY + DAY // 2, "good", "30 days left"),
        (-1 * DAY, 30 * DAY - DAY // 2, "soon", "29 days left"),
        (-1 * DAY, 1 * DAY + DAY // 2, "soon", "1 day left"),
        (-1 * DAY, DAY // 2, "soon", "less than a day left"),
        (-9 * DAY, -2 * DAY - DAY // 2, "bad", "expired 2 days ago"),
        (3 * DAY + DAY // 2, 9 * DAY, "bad", "valid in 3 days"),
    ],
)
def test_a_certificate_has_a_light_and_words(not_before: int, not_after: int, light: str, text: str) -> None:
    made = certificate(not_before=NOW + not_before, not_after=NOW + not_after)
    assert display.expiry(parse_certificate(made.certificate), NOW) == display.Expiry(light, text)  # type: ignore[arg-type]  # a table's text


def stored(der: bytes) -> StoredCertificate:
    return StoredCertificate(base64.b64encode(der).decode(), "A1", "B2")


def enrollment(**mechanism: object) -> Enrollment:
    document = EnrollmentDocument(mechanism=Mechanism(type="x509", **mechanism))  # type: ignore[arg-type]  # a test's shorthand
    return Enrollment("individual", "d", "etag", "enabled", 1, 2, document)


def test_the_certificates_of_an_enrollment_are_shown_primary_first() -> None:
    one = enrollment(primary_certificate=stored(certificate().certificate), secondary_certificate=stored(b"\x30\x00"))
    primary, secondary = display.shown_certificates(one, NOW)
    assert (primary.slot, primary.expiry.light) == ("primary", "good")
    assert primary.facts is not None
    assert primary.facts.common_name == "d"
    assert (secondary.slot, secondary.facts, secondary.expiry.text) == ("secondary", None, "cannot be read")
    assert (secondary.sha1_thumbprint, secondary.sha256_thumbprint) == ("A1", "B2")


def test_dates_that_cannot_be_read_are_no_reason_to_fail() -> None:
    broken = certificate().certificate.replace(b"Z\x17", b"?\x17", 1)
    facts = parse_certificate(broken)
    assert facts.not_before is None
    assert display.expiry(facts, NOW) == display.Expiry("unknown", "dates cannot be read")


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (ReprovisionPolicy(), "Re-provision and migrate data"),
        (ReprovisionPolicy(migrate_device_data=False), "Re-provision and reset to initial config"),
        (ReprovisionPolicy(update_hub_assignment=False), "Never re-provision"),
    ],
)
def test_the_reprovision_policy_is_in_the_words_of_azures_portal(policy: ReprovisionPolicy, words: str) -> None:
    assert display.reprovision_policy(policy) == words


LONG_JSON = b'{"name":"' + b"x" * 120 + b'","list":[1,2]}'


@pytest.mark.parametrize(
    ("body", "kind", "text"),
    [
        (b"", "empty", ""),
        (b'{"a":1}', "json", '{"a":1}'),
        (LONG_JSON, "json", '{\n  "name": "' + "x" * 120 + '",\n  "list": [\n    1,\n    2\n  ]\n}'),
        (b'{"a":\n1}', "json", '{\n  "a": 1\n}'),
        (b"21.5", "json", "21.5"),
        ("grüße\n\x07".encode(), "text", "grüße\n\\x07"),
        (b'{"not": json', "text", '{"not": json'),
        (b"\xff\xfe\x00", "binary", "ff fe 00"),
        (b'"\xff"', "binary", "22 ff 22"),
        (b"[" * 3000, "text", "[" * 3000),
    ],
)
def test_a_body_is_shown_as_what_it_is(body: bytes, kind: str, text: str) -> None:
    shown = display.shown_body(body)
    assert (shown.kind, shown.text, shown.size, shown.cut) == (kind, text, len(body), False)


@pytest.mark.parametrize(
    ("body", "kind", "length"),
    [
        (b'"' + b"x" * 9_000 + b'"', "json", display.MAXIMUM_TEXT),
        (b'"' + b"x" * 200_000 + b'"', "text", display.MAXIMUM_TEXT),
        (b"\xff" * 200_000, "binary", display.MAXIMUM_HEX_BYTES * 3 - 1),
    ],
)
def test_a_long_body_is_cut_and_says_so(body: bytes, kind: str, length: int) -> None:
    shown = display.shown_body(body)
    assert (shown.kind, len(shown.text), shown.size, shown.cut) == (kind, length, len(body), True)


def event(**changes: object) -> Event:
    fields: dict[str, object] = {
        "partition": 2,
        "sequence_number": 7,
        "offset": "512",
        "enqueued_time": MOMENT,
        "source": "Telemetry",
        "origin": Origin(device_id="pump", generation_id="g", authentication_method="{}"),
        "system_properties": {},
        "application_properties": {},
        "body": b"x",
    }
    return Event(**{**fields, **changes})  # type: ignore[arg-type]  # a test's shorthand


def test_an_arrival_has_its_properties_and_facts_as_visible_text() -> None:
    shown = display.arrival(
        event(
            application_properties={"a\x07": "b\u202e", "n": 3},
            system_properties={"content-type": "application/json", "odd": {"k": "ü"}},
        )
    )
    assert shown.properties == [("a\\x07", "b\\u202e"), ("n", "3")]
    facts = dict(shown.facts)
    assert facts["Sequence number"] == "7"
    assert facts["content-type"] == "application/json"
    assert facts["odd"] == '{"k": "ü"}'
    assert "Module id" not in facts
    assert shown.row == f"arrival-2-7-{MOMENT}"


def test_properties_without_end_are_cut() -> None:
    shown = display.arrival(event(application_properties={f"p{n}": "v" * 9_000 for n in range(60)}))
    assert (len(shown.properties), shown.more_properties) == (display.MAXIMUM_PROPERTIES, 10)
    assert len(shown.properties[0][1]) == display.MAXIMUM_TEXT + len(" ...")


def report(*checks: Check) -> Report:
    return Report("t", 1, "dps", "0ne", "register", "d", "refused", "401002", "none", "peer", checks)


def test_a_refusal_names_the_checks_that_refuse_with_their_titles() -> None:
    refused = Check("x509.thumbprint", Outcome.REFUSED, "other\x07", "enroll it")
    warned = Check("x509.version", Outcome.WARNED, "version 1")
    shown = display.refusal(report(warned, refused))
    assert shown.failed == ["x509.thumbprint"]
    assert shown.checks[1].detail == "other\\x07"
    assert shown.checks[1].title == "The certificate is the enrolled one, primary or secondary"


def test_a_report_that_only_warns_names_what_warns() -> None:
    shown = display.refusal(report(Check("x509.version", Outcome.WARNED, "version 1")))
    assert shown.failed == ["x509.version"]


def test_a_check_that_this_version_does_not_know_is_shown_by_its_id() -> None:
    assert "gone.check" not in CHECKS
    assert display.refusal(report(Check("gone.check", Outcome.REFUSED, "d"))).checks[0].title == "Gone.check"


def test_a_document_is_indented_and_visible() -> None:
    assert display.pretty_json({"a": ["ü\u202e"]}) == '{\n  "a": [\n    "ü\\u202e"\n  ]\n}'
