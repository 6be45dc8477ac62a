import pytest
from cryptography import x509

from muster.domain.attestation import (
    EnrolledCertificates,
    attest_device_thumbprint,
    attest_x509_individual,
    check_registration_id,
    enrolled_certificate,
)
from muster.domain.check_table import CHECKS, verdict
from muster.domain.errors import (
    ArgumentInvalidError,
    InvalidCertificateError,
    TokenExpiredError,
    UnauthorizedAccessError,
)
from muster.domain.report import Outcome
from muster.pki.certificate import sha1_thumbprint, sha256_thumbprint
from tests.support import fix_pki
from tests.support.fix_pki import DAY, NOW, ec_key, make_certificate

SECOND = 1_000_000

NAME = "dev-01"
LEAF = fix_pki.self_signed().certificate
OTHER = fix_pki.other_self_signed().certificate


def enroll(primary=None, secondary=None):
    return EnrolledCertificates(
        enrolled_certificate(primary) if primary else None, enrolled_certificate(secondary) if secondary else None
    )


def attest(certificate, *above, name=NAME, enrolled=None, now=NOW):
    """The checks of a device that presents ``certificate``, which is the enrolled one unless told otherwise."""
    chain = (certificate, *above)
    return attest_x509_individual(chain, enrolled or enroll(certificate), name, now)


def by_id(checks):
    assert len({check.id for check in checks}) == len(checks)
    return {check.id: check for check in checks}


def failing(checks):
    return {check.id: check.outcome for check in checks if check.outcome is not Outcome.PASSED}


# --- X.509 individual enrollment ----------------------------------------------------------------------------


def test_a_good_certificate_passes_every_check():
    checks = attest(LEAF)
    assert failing(checks) == {}
    assert verdict(checks) is None
    assert all(check.detail and not check.fix for check in checks)


def test_all_checks_of_a_certificate_are_there():
    rows = list(CHECKS)
    own = rows[rows.index("x509.certificate-presented") : rows.index("x509.chain-sent") + 1]
    assert set(by_id(attest(LEAF))) == {*own, "registration-id.rules"}


def test_every_check_that_does_not_pass_says_how_to_fix_it():
    checks = [
        *attest(OTHER, enrolled=enroll(LEAF), name="x/y"),
        *attest_x509_individual((), enroll(LEAF), NAME, NOW),
        *attest(b"garbage"),
        *attest(fix_pki.expired().certificate),
        *attest(fix_pki.not_yet_valid().certificate),
        *attest(fix_pki.ca_leaf().certificate),
        *attest(fix_pki.version_1().certificate),
        *attest(fix_pki.rsa_1024_sha1().certificate),
    ]
    assert all(check.fix for check in checks if check.outcome in (Outcome.REFUSED, Outcome.WARNED))


def test_no_certificate():
    checks = attest_x509_individual((), enroll(LEAF), NAME, NOW)
    assert failing(checks) == {
        "x509.certificate-presented": Outcome.REFUSED,
        "x509.thumbprint": Outcome.SKIPPED,
        "x509.common-name": Outcome.SKIPPED,
        "x509.not-before": Outcome.SKIPPED,
        "x509.not-after": Outcome.SKIPPED,
    }
    assert verdict(checks) is InvalidCertificateError
    assert "muster cert device dev-01" in by_id(checks)["x509.certificate-presented"].fix


def test_bytes_that_are_no_certificate():
    checks = attest(b"garbage", enrolled=enroll(LEAF))
    assert failing(checks) == {"x509.parses": Outcome.REFUSED, "x509.thumbprint": Outcome.REFUSED}
    assert verdict(checks) is InvalidCertificateError


def test_a_thumbprint_needs_nothing_but_the_bytes():
    assert by_id(attest(b"garbage"))["x509.thumbprint"].outcome is Outcome.PASSED


@pytest.mark.parametrize("name", ["a/b", "", "x" * 129])
def test_an_illegal_registration_id(name):
    refused = check_registration_id(name)
    assert refused.outcome is Outcome.REFUSED
    assert verdict((refused,)) is ArgumentInvalidError
    assert verdict(attest(LEAF, name=name)) is ArgumentInvalidError


@pytest.mark.parametrize(
    ("enrolled", "slot"),
    [(enroll(LEAF, OTHER), "primary"), (enroll(OTHER, LEAF), "secondary"), (enroll(None, LEAF), "secondary")],
)
def test_the_primary_or_the_secondary_certificate_matches(enrolled, slot):
    passed = by_id(attest(LEAF, enrolled=enrolled))["x509.thumbprint"]
    assert passed.outcome is Outcome.PASSED
    assert f"the enrolled {slot} certificate" in passed.detail
    assert sha256_thumbprint(LEAF) in passed.detail


def test_another_certificate_is_refused_with_all_thumbprints():
    checks = attest(OTHER, enrolled=enroll(LEAF))
    assert failing(checks) == {"x509.thumbprint": Outcome.REFUSED}
    assert verdict(checks) is InvalidCertificateError
    refused = by_id(checks)["x509.thumbprint"]
    for certificate in (LEAF, OTHER):
        assert sha1_thumbprint(certificate) in refused.detail
        assert sha256_thumbprint(certificate) in refused.detail
    assert "as secondary none" in refused.detail
    assert "muster enrollment update dev-01 --certificate FILE" in refused.fix


def test_an_enrollment_without_certificates_takes_none():
    assert failing(attest(LEAF, enrolled=EnrolledCertificates())) == {"x509.thumbprint": Outcome.REFUSED}


@pytest.mark.parametrize("ca", [fix_pki.intermediate, fix_pki.root])
def test_the_enrolled_certificate_is_that_of_a_ca_in_the_chain(ca):
    device = fix_pki.chain_leaf()
    checks = attest(device.certificate, *device.chain, enrolled=enroll(ca().certificate))
    assert failing(checks) == {"x509.thumbprint": Outcome.REFUSED, "x509.chain-sent": Outcome.WARNED}
    refused = by_id(checks)["x509.thumbprint"]
    place = device.chain.index(ca().certificate) + 2
    assert f"in the chain but is not the leaf: {place} of 3" in refused.detail
    assert "not that of its CA" in refused.fix


def test_the_enrolled_certificate_was_sent_behind_another():
    ca = fix_pki.intermediate().certificate
    device = fix_pki.chain_leaf().certificate
    checks = attest(ca, device, enrolled=enroll(device))
    assert failing(checks)["x509.thumbprint"] is Outcome.REFUSED
    assert "in the chain but is not the leaf: 2 of 2" in by_id(checks)["x509.thumbprint"].detail
    assert "first" in by_id(checks)["x509.thumbprint"].fix
    assert 'number 2, "CN=dev-01"' in by_id(checks)["x509.chain-sent"].detail


def test_an_enrolled_certificate_in_the_chain_that_cannot_be_read():
    checks = attest(LEAF, b"garbage", enrolled=enroll(b"garbage"))
    assert "cannot be read" in by_id(checks)["x509.chain-sent"].detail
    assert "first" in by_id(checks)["x509.thumbprint"].fix


def test_a_chain_behind_the_enrolled_certificate_does_no_harm():
    device = fix_pki.chain_leaf()
    checks = attest(device.certificate, *device.chain)
    assert failing(checks) == {}
    assert by_id(checks)["x509.chain-sent"].detail == '3 certificates, the first is "CN=dev-01"'


def test_the_one_with_the_right_name_was_sent_behind_another():
    device, ca = fix_pki.chain_leaf().certificate, fix_pki.intermediate().certificate
    checks = attest(ca, b"garbage", device)
    assert by_id(checks)["x509.chain-sent"].outcome is Outcome.WARNED
    assert 'number 3, "CN=dev-01"' in by_id(checks)["x509.chain-sent"].detail


def test_a_common_name_that_is_another_registration_id():
    checks = attest(LEAF, name="dev-02")
    assert failing(checks) == {"x509.common-name": Outcome.REFUSED}
    assert verdict(checks) is InvalidCertificateError
    refused = by_id(checks)["x509.common-name"]
    assert refused.detail == 'common name "dev-01", registration id "dev-02"'
    assert "muster cert device dev-02" in refused.fix
    assert 'register as "dev-01"' in refused.fix


def test_no_common_name():
    refused = by_id(attest(make_certificate(None, key=ec_key())))["x509.common-name"]
    assert refused.outcome is Outcome.REFUSED
    assert refused.detail == 'no common name, registration id "dev-01"'
    assert "register as" not in refused.fix


def test_a_common_name_that_could_not_be_registered_is_not_proposed():
    refused = by_id(attest(make_certificate("no id!", key=ec_key())))["x509.common-name"]
    assert "register as" not in refused.fix


def test_a_common_name_in_another_case_is_accepted_with_a_warning():
    checks = attest(LEAF, name="DEV-01")
    assert failing(checks) == {"x509.common-name-case": Outcome.WARNED}
    assert verdict(checks) is None


LONG = "x" * 65


def test_a_common_name_of_64_characters():
    assert failing(attest(make_certificate("x" * 64, key=ec_key()), name="x" * 64)) == {}


def test_a_common_name_of_more_than_64_characters():
    # The library makes no such certificate unless it is told not to look.
    with pytest.warns(UserWarning, match="length must be"):
        attribute = x509.NameAttribute(x509.NameOID.COMMON_NAME, LONG, _validate=False)
    certificate = make_certificate(None, key=ec_key(), subject=x509.Name([attribute]))
    checks = attest(certificate, name=LONG)
    assert failing(checks) == {"x509.common-name-length": Outcome.REFUSED}
    assert verdict(checks) is InvalidCertificateError


def test_a_registration_id_that_no_common_name_can_equal():
    assert "at most 64 characters" in by_id(attest(LEAF, name=LONG))["x509.common-name"].fix


def test_an_expired_certificate():
    checks = attest(fix_pki.expired().certificate)
    assert failing(checks) == {"x509.not-after": Outcome.REFUSED}
    assert verdict(checks) is InvalidCertificateError
    refused = by_id(checks)["x509.not-after"]
    assert ", 10 days ago; the clock here says " in refused.detail
    assert "muster cert device dev-01 --force" in refused.fix


def test_a_certificate_of_the_future():
    checks = attest(fix_pki.not_yet_valid().certificate)
    assert failing(checks) == {"x509.not-before": Outcome.REFUSED}
    assert verdict(checks) is InvalidCertificateError
    refused = by_id(checks)["x509.not-before"]
    assert "the clock here says" in refused.detail
    assert "clock" in refused.fix


DATED = make_certificate(NAME, key=ec_key(), not_before=1_000 * DAY, not_after=2_000 * DAY)


@pytest.mark.parametrize(
    ("now", "outcomes"),
    [
        (1_000 * DAY - 1, {"x509.not-before": Outcome.REFUSED}),
        (1_000 * DAY, {}),
        (2_000 * DAY, {}),
        (2_000 * DAY + 1, {"x509.not-after": Outcome.REFUSED}),
    ],
)
def test_both_ends_of_the_validity_belong_to_it(now, outcomes):
    assert failing(attest(DATED, now=now)) == outcomes


@pytest.mark.parametrize(
    ("left", "told"),
    [
        (311 * DAY, "311 days left"),
        (DAY, "1 day left"),
        (DAY - 1, "23 hours left"),
        (3_600 * SECOND, "1 hour left"),
        (120 * SECOND, "2 minutes left"),
        (59 * SECOND, "59 s left"),
        (0, "0 s left"),
    ],
)
def test_the_time_that_is_left_is_told(left, told):
    assert by_id(attest(DATED, now=2_000 * DAY - left))["x509.not-after"].detail.endswith(told)


def test_dates_that_cannot_be_read_are_refused():
    broken = DATED.replace(b"720927000000Z", b"721327000000Z").replace(b"750624000000Z", b"751324000000Z")
    checks = attest(broken, now=1_500 * DAY)
    assert failing(checks) == {"x509.not-before": Outcome.REFUSED, "x509.not-after": Outcome.REFUSED}


def test_a_wrong_extended_key_usage_warns():
    checks = attest(fix_pki.wrong_usage().certificate)
    assert failing(checks) == {"x509.extended-key-usage": Outcome.WARNED}
    assert by_id(checks)["x509.extended-key-usage"].detail == 'extended key usage "serverAuth"'
    assert verdict(checks) is None


def test_any_extended_key_usage_is_enough():
    usages = (fix_pki.ObjectIdentifier("2.5.29.37.0"),)
    assert failing(attest(make_certificate(NAME, key=ec_key(), usages=usages))) == {}


def test_no_extended_key_usage_warns():
    certificate = make_certificate(NAME, key=ec_key(), usages=None)
    assert failing(attest(certificate)) == {"x509.extended-key-usage": Outcome.WARNED}


def test_a_ca_certificate_warns():
    certificate = make_certificate(NAME, key=ec_key(), is_ca=True)
    checks = attest(certificate)
    assert failing(checks) == {"x509.basic-constraints": Outcome.WARNED}
    assert verdict(checks) is None


def test_no_basic_constraints_are_no_ca():
    assert failing(attest(make_certificate(NAME, key=ec_key(), is_ca=None))) == {}


def test_version_1_warns():
    checks = attest(fix_pki.version_1().certificate)
    assert failing(checks)["x509.version"] is Outcome.WARNED
    assert verdict(checks) is None


def test_a_weak_key_warns():
    checks = attest(fix_pki.rsa_1024_sha1().certificate)
    assert failing(checks) == {"x509.key-strength": Outcome.WARNED}
    assert by_id(checks)["x509.key-strength"].detail == "RSA 1024 bits, signed with SHA-1"
    assert verdict(checks) is None


def test_a_weak_signature_alone_warns():
    sha256, sha1 = bytes.fromhex("2a864886f70d01010b"), bytes.fromhex("2a864886f70d010105")
    certificate = make_certificate(NAME, key=fix_pki.rsa_key(2048)).replace(sha256, sha1)
    assert failing(attest(certificate)) == {"x509.key-strength": Outcome.WARNED}


def test_unknown_keys_and_signatures_are_let_pass():
    unreadable = LEAF.replace(bytes.fromhex("301306072a8648ce3d0201"), bytes.fromhex("041306072a8648ce3d0201"))
    unknown = unreadable.replace(bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d04037f"))
    passed = by_id(attest(unknown))["x509.key-strength"]
    assert passed.outcome is Outcome.PASSED
    assert passed.detail == "unreadable key, signed with unknown hash"


def test_hostile_text_stays_on_its_line_and_out_of_commands():
    name = "$(reboot)\n\x1b[31m<script>"
    checks = attest(make_certificate(name, key=ec_key()), name=name, now=NOW + 400 * DAY)
    for check in checks:
        assert check.detail.isprintable()
        assert "reboot" not in check.fix


# --- The hub ------------------------------------------------------------------------------------------------


def connect(certificate, primary, secondary=None, now=NOW):
    return attest_device_thumbprint((certificate,), primary, secondary, NAME, now)


@pytest.mark.parametrize("thumbprint", [sha1_thumbprint, sha256_thumbprint])
@pytest.mark.parametrize("spelling", [str.upper, str.lower])
def test_a_thumbprint_matches_in_either_slot_length_and_case(thumbprint, spelling):
    configured = spelling(thumbprint(LEAF))
    for primary, secondary, slot in ((configured, None, "primary"), ("00" * 20, configured, "secondary")):
        checks = connect(LEAF, primary, secondary)
        assert failing(checks) == {}
        assert f"has the {slot} thumbprint" in by_id(checks)["device.thumbprint"].detail
        assert verdict(checks) is None


def test_another_thumbprint_is_refused_with_all_thumbprints():
    checks = connect(OTHER, sha1_thumbprint(LEAF), sha256_thumbprint(LEAF))
    assert failing(checks) == {"device.thumbprint": Outcome.REFUSED}
    assert verdict(checks) is TokenExpiredError
    detail = by_id(checks)["device.thumbprint"].detail
    for thumbprint in (
        sha1_thumbprint(OTHER),
        sha256_thumbprint(OTHER),
        sha1_thumbprint(LEAF),
        sha256_thumbprint(LEAF),
    ):
        assert thumbprint in detail


@pytest.mark.parametrize("nothing", [None, ""])
def test_a_device_without_thumbprints_takes_no_certificate(nothing):
    assert failing(connect(LEAF, nothing, nothing)) == {"device.thumbprint": Outcome.REFUSED}


def test_a_device_without_a_certificate():
    checks = attest_device_thumbprint((), sha1_thumbprint(LEAF), None, NAME, NOW)
    assert failing(checks) == {
        "device.certificate-presented": Outcome.REFUSED,
        "device.thumbprint": Outcome.SKIPPED,
        "device.certificate-dates": Outcome.SKIPPED,
    }
    assert verdict(checks) is UnauthorizedAccessError


@pytest.mark.parametrize("now", [1_000 * DAY - 1, 2_000 * DAY + 1])
def test_a_device_certificate_out_of_its_dates(now):
    checks = connect(DATED, sha1_thumbprint(DATED), now=now)
    assert failing(checks) == {"device.certificate-dates": Outcome.REFUSED}
    assert verdict(checks) is TokenExpiredError


def test_a_device_certificate_in_its_dates():
    assert failing(connect(DATED, sha1_thumbprint(DATED), now=1_500 * DAY)) == {}


def test_a_device_certificate_that_cannot_be_read():
    checks = connect(b"garbage", sha1_thumbprint(b"garbage"))
    assert failing(checks) == {"device.certificate-dates": Outcome.REFUSED}


def test_the_common_name_does_not_count_at_the_hub():
    other_name = make_certificate("somebody", key=ec_key())
    assert failing(connect(other_name, sha1_thumbprint(other_name))) == {}
