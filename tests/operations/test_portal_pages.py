"""The portal's pages over real services: what they show, and that text of devices stays text."""

import html
import re
import time
from urllib.parse import quote

import pytest
from tests.support.asgi import ask
from tests.support.fix_pki import (
    DAY,
    Identity,
    ec_key,
    expired,
    make_certificate,
    other_self_signed,
    root,
    self_signed,
)
from tests.support.fix_portal import (
    HOSTILE,
    HOSTILE_ATTRIBUTE,
    portal_of,
    send_event,
    send_events,
    try_to_register,
)
from tests.support.fix_services import ID_SCOPE, KEY, Services

from muster.domain.report import Check, Outcome, Report
from muster.pki.certificate import parse_certificate
from muster.portal.app import Portal


@pytest.fixture
def portal(services: Services) -> Portal:
    """A portal at the present time, in which the certificates of the fixtures are valid."""
    services.clock.now = time.time_ns() // 1000
    return portal_of(services)


async def page(portal: Portal, target: str, status: int = 200) -> str:
    """The HTML of a page."""
    answer = await ask(portal, "GET", target)
    assert answer.status == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    return answer.text


def words(document: str) -> str:
    """What a reader sees of it, with single spaces."""
    without_tags = re.sub(r"<[^>]*>", " ", document)
    return " ".join(html.unescape(without_tags).split())


async def enroll(services: Services, registration_id: str, identity: Identity, **fields: object) -> None:
    await services.enroll(registration_id, identity.certificate_pem.decode(), **fields)


# Overview


async def test_the_overview_of_an_empty_server_says_what_is_served(portal: Portal) -> None:
    text = words(await page(portal, "/"))
    assert "Host name dps.example.net" in text
    assert f"Id scope {ID_SCOPE}" in text
    assert "Linked IoT hubs hub.example.net" in text
    assert "Individual enrollments 0" in text
    assert "Messages in the event log 0" in text
    assert "Refusals recorded 0" in text
    assert "Muster 0.1.0, up" in text
    assert "Up for 1 h 1 min" in text
    assert "SQLite in /srv/data" in text
    assert "Listens on 127.0.0.1 8883, 443" in text
    assert "Nothing has arrived yet" in text
    assert "Nothing was refused" in text


async def test_the_overview_counts_and_shows_the_last_of_each(services: Services, portal: Portal) -> None:
    await enroll(services, "pump-01", self_signed("pump-01"))
    await send_events(services, [("pump-01", b"%d" % number, {}) for number in range(12)])
    await try_to_register(services, "stranger", self_signed("stranger"))
    document = await page(portal, "/")
    text = words(document)
    assert "Individual enrollments 1 " in text
    assert "Messages in the event log 12 " in text
    assert "Refusals recorded 1 " in text
    assert document.count('id="arrival-') == 8
    assert document.count('id="refusal-') == 1


async def test_counts_beyond_a_hundred_say_that_there_are_more(services: Services, portal: Portal) -> None:
    for number in range(101):
        await enroll(services, f"d{number}", self_signed("d"))
    assert "Individual enrollments 100+ " in words(await page(portal, "/"))


async def test_a_clock_that_is_set_is_told_on_every_page(services: Services) -> None:
    portal = portal_of(services, clockOffsetSeconds=-34_560_000)
    for target in ("/", "/enrollments", "/trust"):
        assert "The clock of this server is 400 d 0 h behind." in words(await page(portal, target))


# Manage enrollments


async def test_the_list_of_enrollments_says_where_it_is(portal: Portal) -> None:
    text = words(await page(portal, "/enrollments"))
    assert "Device Provisioning Service Settings Manage enrollments" in text
    assert "There is no individual enrollment yet" in text


async def test_an_enrollment_without_certificates_says_how_it_attests(services: Services, portal: Portal) -> None:
    await services.enroll_by("keyed", {"type": "symmetricKey"})
    assert "keyed Symmetric key enabled never registered" in words(await page(portal, "/enrollments"))
    text = words(await page(portal, "/enrollments/individual?registrationId=keyed"))
    assert "Attestation Symmetric key" in text
    assert "Certificates" not in text


async def test_an_enrollment_is_listed_with_its_state(services: Services, portal: Portal) -> None:
    await enroll(services, "Pump-01", self_signed("Pump-01"))
    await enroll(services, "soon", certificate_of("soon", days=12), provisioningStatus="disabled")
    await enroll(services, "old", expired("old"))
    await try_to_register(services, "Pump-01", self_signed("Pump-01"))
    text = words(await page(portal, "/enrollments"))
    today = time.strftime("%Y-%m-%d", time.gmtime(services.clock() // 1_000_000))
    assert f"Pump-01 X.509 enabled 364 days left assigned hub.example.net {today}" in text
    assert "soon X.509 disabled 11 days left never registered" in text
    assert "old X.509 enabled expired 10 days ago never registered" in text


def certificate_of(name: str, days: int) -> Identity:
    # Half a day off the boundary: the page has a clock of its own.
    not_after = time.time_ns() // 1000 + days * DAY - DAY // 2
    certificate = make_certificate(name, key=ec_key(), not_after=not_after)
    return Identity(certificate, ec_key())


async def test_a_long_list_has_pages(services: Services, portal: Portal) -> None:
    for number in range(60):
        await enroll(services, f"d{number:02}", self_signed("d"))
    seen: list[str] = []
    target = "/enrollments"
    for _ in range(3):
        document = await page(portal, target)
        seen += re.findall(r"registrationId=(d\d\d)", document)
        following = re.search(r'href="(/enrollments\?after=[^"]+)" rel="next"', document)
        target = html.unescape(following[1]) if following else "/"
    assert seen == [f"d{number:02}" for number in range(60)]
    assert target == "/"
    assert "First page" in document
    assert "There are no more" in words(await page(portal, "/enrollments?after=d59"))


@pytest.mark.parametrize("after", ["%00", "<", "a/b", "%FF"])
async def test_a_continuation_that_is_none_is_not_found(portal: Portal, after: str) -> None:
    await page(portal, f"/enrollments?after={after}", status=404)


TWIN = {"tags": {"site": "<b>A</b>"}, "properties": {"desired": {"interval": 30}}}


async def test_an_enrollment_is_shown_with_all_its_facts(services: Services, portal: Portal) -> None:
    await enroll(
        services,
        "pump-01",
        self_signed("pump-01"),
        deviceId="Pump",
        initialTwin=TWIN,
        capabilities={"iotEdge": True},
        allocationPolicy="static",
        iotHubs=["hub.example.net"],
        reprovisionPolicy={"updateHubAssignment": True, "migrateDeviceData": False},
        optionalDeviceInformation={"serial": "S-1"},
    )
    await try_to_register(services, "pump-01", self_signed("pump-01"))
    stored = await services.enrollments.get(ID_SCOPE, "pump-01")
    record = await services.records.get(ID_SCOPE, "pump-01")
    document = await page(portal, "/enrollments/individual?registrationId=PUMP-01")
    text = words(document)
    facts = parse_certificate(self_signed("pump-01").certificate)
    for shown in (
        "Settings Manage enrollments Individual enrollments pump-01",
        "Registration id pump-01 Device id Pump",
        f"ETag {stored.etag}",
        "Allocation policy static",
        "IoT hubs hub.example.net",
        "Re-provision and reset to initial config",
        "IoT Edge device yes",
        "Status assigned Substatus initialAssignment Assigned hub hub.example.net Device id Pump",
        f"ETag {record.etag}",
        "Primary 364 days left",
        "Subject CN=pump-01 Issuer CN=pump-01",
        "Key EC P-256, signed with SHA-256",
        "Extended key usage clientAuth",
        f"Serial number {facts.serial_number}",
        f"SHA-1 thumbprint {facts.sha1_thumbprint}",
        f"SHA-256 thumbprint {facts.sha256_thumbprint}",
        '"interval": 30',
        '"site": "<b>A</b>"',
        '"serial": "S-1"',
        "It was never refused.",
    ):
        assert shown in text


async def test_an_enrollment_without_extras_says_what_holds(services: Services, portal: Portal) -> None:
    await enroll(services, "pump-01", self_signed("pump-01"))
    text = words(await page(portal, "/enrollments/individual?registrationId=pump-01"))
    assert "Device id pump-01 (the registration id)" in text
    assert "Allocation policy that of the service (hashed)" in text
    assert "IoT hubs all linked hubs" in text
    assert "Re-provision and migrate data" in text
    assert "The device has not registered yet" in text
    assert "None: the device begins with an empty twin" in text


async def test_both_certificates_are_shown(services: Services, portal: Portal) -> None:
    primary, secondary = self_signed("d"), other_self_signed("d")
    certificates = {
        slot: {"certificate": identity.certificate_pem.decode()}
        for slot, identity in (("primary", primary), ("secondary", secondary))
    }
    attestation = {"type": "x509", "x509": {"clientCertificates": certificates}}
    await enroll(services, "d", primary, attestation=attestation)
    assert "primary: 364 days left secondary: 364 days left" in words(await page(portal, "/enrollments"))
    text = words(await page(portal, "/enrollments/individual?registrationId=d"))
    for identity in (primary, secondary):
        assert parse_certificate(identity.certificate).sha1_thumbprint in text


async def test_refusals_of_a_device_stand_with_its_enrollment(services: Services, portal: Portal) -> None:
    await enroll(services, "pump-01", self_signed("pump-01"))
    tracking_id = await try_to_register(services, "pump-01", other_self_signed("pump-01"))
    await try_to_register(services, "pump-02", other_self_signed("pump-02"))
    document = await page(portal, "/enrollments/individual?registrationId=pump-01")
    assert re.findall(r'href="/refusals/([^"]+)"', document) == [tracking_id]


@pytest.mark.parametrize("registration_id", ["nobody", "", "..", "%00", "%3Cb%3E", "a/b", "%FF%FE", "x" * 300])
async def test_an_enrollment_that_is_not_there_is_told(portal: Portal, registration_id: str) -> None:
    document = await page(portal, f"/enrollments/individual?registrationId={registration_id}", status=404)
    assert "There is no individual enrollment" in document
    assert "<b>" not in document


# Refusals


async def test_a_refusal_is_listed_and_explained(services: Services, portal: Portal) -> None:
    await enroll(services, "pump-01", self_signed("pump-01"))
    tracking_id = await try_to_register(services, "pump-01", other_self_signed("pump-01"))
    text = words(await page(portal, "/refusals"))
    assert "refused pump-01 dps register x509.thumbprint 401002 Invalid certificate." in text
    document = await page(portal, f"/refusals/{tracking_id}")
    text = words(document)
    assert "refused register pump-01" in text
    assert "Azure answers 401002 Invalid certificate." in text
    assert f"Tracking id {tracking_id}" in text
    assert "From 127.0.0.1:40112 MQTT TLSv1.2" in text
    assert "✓ An enrollment applies to the registration id passed enrollment.exists" in text
    assert "✗ The certificate is the enrolled one, primary or secondary refused x509.thumbprint" in text
    assert "Fix" in text
    assert "/enrollments/individual?registrationId=pump-01" in document


async def test_a_report_is_found_by_every_spelling_of_its_id(services: Services, portal: Portal) -> None:
    tracking_id = await try_to_register(services, "stranger", self_signed("stranger"))
    assert tracking_id is not None
    azure = f"{tracking_id.replace('-', '')}-G:0-TimeStamp:11/23/2026 17:33:41"
    for identifier in (tracking_id, tracking_id.upper(), quote(azure), "STRANGER"):
        assert f"Tracking id {tracking_id}" in words(await page(portal, f"/refusals/{identifier}"))
        assert tracking_id in await page(portal, f"/refusals?subject={identifier}")


@pytest.mark.parametrize("identifier", ["nothing", "%00", "..%2f..", "%3Cscript%3E"])
async def test_an_id_without_a_report_is_told(portal: Portal, identifier: str) -> None:
    text = words(await page(portal, f"/refusals/{identifier}", status=404))
    assert "No report has this id" in text
    text = words(await page(portal, f"/refusals?subject={identifier}"))
    assert "Nothing was refused under this id" in text


async def test_a_disabled_enrollment_and_a_warning_are_told_as_what_they_are(
    services: Services, portal: Portal
) -> None:
    await enroll(services, "off", self_signed("off"), provisioningStatus="disabled")
    assert await try_to_register(services, "off", self_signed("off")) is None
    warned = Check("x509.version", Outcome.WARNED, "X.509 version 1", "make a version 3 certificate")
    skipped = Check("x509.common-name", Outcome.SKIPPED, "there is no certificate")
    await services.reports.record(
        Report(
            "1" * 32,
            services.clock(),
            "hub",
            "hub",
            "connect",
            "old",
            "warned",
            "accepted",
            "c",
            "p",
            (warned, skipped),
        )
    )
    text = words(await page(portal, "/refusals"))
    assert "disabled off dps register enrollment.enabled 202, then 200 with status disabled" in text
    assert "warned old hub connect x509.version accepted" in text
    document = await page(portal, "/refusals/old")
    assert "! The certificate is X.509 version 3 warned" in words(document)
    assert "· The common name is the registration id, ignoring case skipped" in words(document)
    assert "/enrollments/individual" not in document


async def test_other_reports_of_the_same_id_follow(services: Services, portal: Portal) -> None:
    first = await try_to_register(services, "stranger", self_signed("stranger"))
    services.clock.advance(1_000_000)
    second = await try_to_register(services, "stranger")
    document = await page(portal, f"/refusals/{first}")
    assert f'href="/refusals/{second}"' in document
    assert f'href="/refusals/{first}"' not in document


# Arrivals


async def test_arrivals_are_listed_newest_first(services: Services, portal: Portal) -> None:
    await send_event(services, "pump-01", b'{"temperature":21.5}', {"alert": "high"}, partition=1)
    services.clock.advance(1_000_000)
    await send_event(services, "pump-02", b"\xff\x00", partition=2, source="deviceLifecycleEvents")
    services.clock.advance(1_000_000)
    await send_event(services, "pump-03", b"", partition=3)
    text = words(await page(portal, "/arrivals"))
    assert text.index("pump-03") < text.index("pump-02") < text.index("pump-01")
    assert (
        'pump-01 {"temperature":21.5} alert high JSON, 20 bytes Source Telemetry Partition 1 Sequence number 0' in text
    )
    assert "ff 00 binary, 2 bytes Source deviceLifecycleEvents" in text
    assert "no body empty, 0 bytes" in text
    assert "x509Certificate" in text


async def test_only_the_newest_arrivals_are_shown(services: Services, portal: Portal) -> None:
    for partition in range(4):
        await send_events(services, [("d", b"%d" % number, {}) for number in range(40)], partition=partition)
    document = await page(portal, "/arrivals")
    assert document.count('<tr id="arrival-') == 50
    assert 'data-after="40-40-40-40"' in document


async def test_every_hub_has_its_arrivals(services: Services, portal: Portal) -> None:
    assert "<select" not in await page(portal, "/arrivals")
    await services.hubs.ensure("second", "second.example.net", partition_count=2)
    await send_event(services, "pump-01", b"here")
    first, second = await page(portal, "/arrivals?hub=hub"), await page(portal, "/arrivals?hub=second")
    assert "pump-01" in first
    assert "pump-01" not in second
    assert 'value="second" selected' in second
    assert "hub=second" in second
    await page(portal, "/arrivals?hub=third", status=404)


# Hostile text


async def test_text_of_devices_is_never_markup(services: Services, portal: Portal) -> None:
    hostile = make_certificate(HOSTILE, key=ec_key("hostile"))
    identity = Identity(hostile, ec_key("hostile"))
    await enroll(services, "hostile", identity, initialTwin={"tags": {"t": HOSTILE, "u": HOSTILE_ATTRIBUTE}})
    await try_to_register(services, "hostile", identity)
    await try_to_register(services, HOSTILE, identity)
    await try_to_register(services, HOSTILE_ATTRIBUTE, identity)
    await send_event(services, HOSTILE_ATTRIBUTE, HOSTILE.encode(), {HOSTILE: HOSTILE_ATTRIBUTE})
    await send_event(services, "d", b"\xff", {HOSTILE_ATTRIBUTE: HOSTILE})
    targets = [
        "/",
        "/enrollments",
        "/enrollments/individual?registrationId=hostile",
        f"/enrollments/individual?registrationId={quote(HOSTILE_ATTRIBUTE)}",
        "/arrivals",
        "/refusals",
        f"/refusals?subject={quote(HOSTILE_ATTRIBUTE)}",
        f"/refusals/{quote(HOSTILE)}",
        "/refusals/hostile",
    ]
    for target in targets:
        document = (await ask(portal, "GET", target)).text
        assert "<script>" not in document, target
        assert "<img src=x" not in document, target
    assert html.escape(HOSTILE) in await page(portal, "/arrivals")


# Trust, files, errors


async def test_the_trust_page_hands_out_the_ca(portal: Portal) -> None:
    text = words(await page(portal, "/trust"))
    digits = parse_certificate(root().certificate).sha256_thumbprint
    assert ":".join(re.findall("..", digits)) in text
    for sdk in ("azure-iot-device", "Node.js", ".NET", "Java", "OPTION_TRUSTED_CERT", "NODE_EXTRA_CA_CERTS"):
        assert sdk in text
    answer = await ask(portal, "GET", "/ca.pem")
    assert answer.body == root().certificate_pem
    assert answer.headers["content-disposition"] == 'attachment; filename="muster-ca.pem"'


async def test_every_file_that_a_page_names_is_served_for_ever(portal: Portal) -> None:
    named = set(re.findall(r'(?:href|src)="(/static/[^"]+)"', await page(portal, "/")))
    assert {name.partition("?")[0] for name in named} == {
        "/static/portal.css",
        "/static/portal.js",
        "/static/muster.svg",
    }
    for target in named:
        answer = await ask(portal, "GET", target)
        assert answer.status == 200
        assert "immutable" in answer.headers["cache-control"]


@pytest.mark.parametrize(
    "target", ["/static/..", "/static/%2e%2e%2fapp.py", "/static/app.py", "/nowhere", "/Enrollments"]
)
async def test_what_is_not_there_is_not_found(portal: Portal, target: str) -> None:
    assert "There is no such page" in words(await page(portal, target, status=404))


async def test_no_page_has_markup_of_its_own_that_the_policy_forbids(services: Services, portal: Portal) -> None:
    await enroll(services, "pump-01", self_signed("pump-01"))
    await send_event(services, "pump-01", b"x", {"a": "b"})
    tracking_id = await try_to_register(services, "stranger")
    targets = (
        "/",
        "/enrollments",
        "/enrollments/individual?registrationId=pump-01",
        "/arrivals",
        "/refusals",
        "/trust",
    )
    for target in (*targets, f"/refusals/{tracking_id}"):
        document = await page(portal, target)
        assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|<script(?! src=)", document)
        assert not re.search(r'(?:href|src|action)="(?!/|#)', document), "only our own addresses"


async def test_no_key_is_shown_anywhere(services: Services, portal: Portal) -> None:
    await enroll(services, "pump-01", self_signed("pump-01"))
    await try_to_register(services, "stranger")
    targets = (
        "/",
        "/enrollments",
        "/enrollments/individual?registrationId=pump-01",
        "/arrivals",
        "/refusals",
        "/trust",
    )
    for target in targets:
        assert KEY not in (await ask(portal, "GET", target)).text


async def test_an_unexpected_error_is_a_page_with_a_tracking_id(
    services: Services, caplog: pytest.LogCaptureFixture
) -> None:
    def describe_wrongly() -> int:
        raise RuntimeError("what nobody expected")

    portal = portal_of(services, clock=describe_wrongly)
    text = words(await page(portal, "/trust", status=500))
    found = re.search(r"The log has the reason under ([0-9a-f-]{36})", text)
    assert found is not None
    assert "nobody expected" not in text
    assert found[1] in caplog.text
    assert "RuntimeError: what nobody expected" in caplog.text


async def test_a_page_is_one_line_in_the_log(portal: Portal, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    await page(portal, "/enrollments/individual?registrationId=secret-name", status=404)
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1
    assert lines[0].startswith("portal.show_enrollment 127.0.0.1: 404 in")


async def test_a_database_that_cannot_serve_is_told_as_503(services: Services, portal: Portal) -> None:
    await services.database.close()
    await page(portal, "/enrollments", status=503)
