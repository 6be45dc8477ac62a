"""What is told of a revoked device: ``dev-01`` under ``Line A`` under ``Plant Root``."""

import msgspec
import pytest

from muster.domain.chain_attestation import attest_x509_ca_reference, attest_x509_group
from muster.domain.revocation import check_device, check_path, check_presented
from muster.domain.x509_trust import CaCertificate, X509Group, X509Trust
from muster.pki.chain_certificate import ChainCertificate
from muster.pki.known_revocations import KnownRevocations
from muster.pki.revocation import Revocation, parse_revocation_list, sign_revocation_list
from tests.support.fix_ca import DAY, NOW, intermediate, leaf, root, to_der

DEVICE, LINE, ROOT = (to_der(one) for one in (leaf(), intermediate().certificate, root().certificate))
SERIAL, LINE_SERIAL = leaf().serial_number, intermediate().certificate.serial_number
LIST = 'list 4 of "CN=Line A" in "ca/line-a/crl.pem"'
TRUSTED = [CaCertificate("plant", ROOT, True)]
TRUST = X509Trust([X509Group("line-a", True, (LINE,))], TRUSTED)


def known(issuer=None, *revocations, days=30, beside=(LINE, ROOT)):
    made = sign_revocation_list(issuer or intermediate(), revocations, 4, NOW - DAY, NOW - DAY + days * DAY)
    one = msgspec.structs.replace(parse_revocation_list(made), source="ca/line-a/crl.pem")
    return KnownRevocations([one], [ChainCertificate(der) for der in beside])


def outcomes(checks):
    return [(one.id, str(one.outcome)) for one in checks]


REVOKED = known(None, Revocation(SERIAL, NOW - DAY, "keyCompromise"))


def test_what_a_refusal_says():
    revocation, current = check_presented(REVOKED, (DEVICE,), NOW)
    assert outcomes((revocation, current)) == [("x509.revocation", "refused"), ("x509.revocation-list", "passed")]
    assert revocation.detail == (
        f'"CN=dev-01", serial number {SERIAL:X}, is revoked since 2026-05-31T12:00:00Z, reason keyCompromise, by '
        + LIST
    )
    assert "muster ca issue NAME" in revocation.fix
    assert current.detail == f"the next one is due on 2026-06-30T12:00:00Z for {LIST}"


def test_a_revoked_ca_and_a_hold_are_put_right_in_other_ways():
    above = known(root(), Revocation(LINE_SERIAL, NOW, "cACompromise"))
    assert "muster ca intermediate NAME" in check_presented(above, (DEVICE,), NOW)[0].fix
    hold = known(None, Revocation(SERIAL, NOW, "certificateHold"))
    assert f"muster ca unhold {SERIAL:X}" in check_presented(hold, (DEVICE,), NOW)[0].fix


def test_what_is_not_revoked():
    (revocation, _) = check_presented(known(), (DEVICE,), NOW)
    assert revocation.detail == f'not on {LIST}; there is no list of "CN=Plant Root"'
    checks = check_presented(known(beside=()), (DEVICE,), NOW)
    assert outcomes(checks) == [("x509.revocation", "passed"), ("x509.revocation-list", "skipped")]


def test_an_overdue_list_warns():
    checks = check_presented(known(days=1), (DEVICE,), NOW + 2 * DAY)
    assert outcomes(checks) == [("x509.revocation", "passed"), ("x509.revocation-list", "warned")]
    assert "a newer one was due on 2026-06-01T12:00:00Z" in checks[1].detail
    assert "muster ca crl" in checks[1].fix


def test_what_cannot_be_read_is_not_judged():
    assert outcomes(check_presented(REVOKED, (b"garbage", LINE), NOW))[0] == ("x509.revocation", "passed")
    assert outcomes(check_presented(REVOKED, (), NOW))[0] == ("x509.revocation", "passed")
    assert outcomes(check_presented(REVOKED, (DEVICE, b"garbage"), NOW))[0] == ("x509.revocation", "refused")


def test_a_device_of_the_hub():
    assert outcomes(check_device(REVOKED, (DEVICE, LINE), NOW))[0] == ("device.revocation", "refused")


def test_a_chain():
    path = [ChainCertificate(one) for one in (DEVICE, LINE, ROOT)]
    assert outcomes(check_path(REVOKED, path, NOW, sent=path, known=lambda _: ()))[0] == ("x509.revocation", "refused")


@pytest.mark.parametrize(
    "revocations",
    [REVOKED, known(root(), Revocation(LINE_SERIAL, NOW)), known(None, Revocation(SERIAL, NOW), beside=())],
)
def test_groups_and_ca_references(revocations):
    group = attest_x509_group((DEVICE, LINE), TRUST, "dev-01", NOW, revocations)
    assert [one.id for one in group.checks if one.outcome == "refused"] == ["x509.revocation"]
    reference = attest_x509_ca_reference((DEVICE, LINE), (ROOT,), TRUST, "dev-01", NOW, revocations)
    assert [one.id for one in reference if one.outcome == "refused"] == ["x509.revocation"]


def test_a_chain_that_leads_nowhere_is_not_judged():
    group = attest_x509_group((DEVICE,), X509Trust([], TRUSTED), "dev-01", NOW, REVOKED)
    assert outcomes(group.checks)[-2:] == [("x509.revocation", "skipped"), ("x509.revocation-list", "skipped")]


def test_nothing_is_told_without_lists():
    group = attest_x509_group((DEVICE, LINE), TRUST, "dev-01", NOW)
    assert not [one for one in group.checks if "revocation" in one.id]
